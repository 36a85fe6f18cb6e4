#include "commands.h"
#include "dsa/pattern_diff.h"
#include "dsa/pattern_yaml.h"
#include "summary.h"

int dsa_cmd_diff(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_arena arena;
	struct dsa_results side[2];
	struct dsa_text text = {0};
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&arena);
	if (options->operand_count != 2)
		status = dsa_fail(&err, DSA_E_USAGE, "diff needs two pattern files, found %d", options->operand_count);
	for (int s = 0; s < 2 && !status; s++)
		status = dsa_pattern_yaml_load(&side[s], options->operands[s], &terminal->log, &arena, &err);
	if (!status) {
		const struct dsa_pattern_diff diff = {.file = {options->operands[0], options->operands[1]},
		                                      .side = {&side[0], &side[1]}};
		if (options->json)
			dsa_pattern_diff_json_write(&text, &diff);
		else
			dsa_pattern_diff_write(&text, &diff);
		status = dsa_print_text(&text, "the difference", &err);
	}
	int code = status ? dsa_terminal_fail(terminal, status, &err) : 0;
	dsa_arena_release(&arena);
	return code;
}
