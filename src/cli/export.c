#include "commands.h"
#include "dsa/engines.h"
#include "dsa/json_writer.h"
#include "dsa/pattern_yaml.h"
#include "summary.h"

static void print_export(struct dsa_text *text, const struct dsa_export *out, const char *pattern, bool json)
{
	struct dsa_json_writer writer;
	if (!json) {
		dsa_text_bytes(text, out->text.data, out->text.bytes);
		dsa_text_add(text, "\n");
		return;
	}
	dsa_json_writer_init(&writer, text, 1);
	dsa_json_object(&writer, NULL);
	dsa_json_put_text(&writer, "pattern", pattern);
	dsa_json_put_text(&writer, "where", out->where);
	dsa_json_put_text(&writer, "text", out->text.data);
	dsa_json_array(&writer, "warnings");
	for (int w = 0; w < out->warnings; w++)
		dsa_json_put_text(&writer, NULL, out->warning[w].text);
	dsa_json_end(&writer);
	dsa_json_end(&writer);
}

static enum dsa_status export_pattern(const struct dsa_cli_options *options, const struct dsa_log *log,
                                      struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_results file = {0};
	struct dsa_export out = {0};
	struct dsa_text text = {0};
	enum dsa_engine engine;
	dsa_arena_init(&arena);
	enum dsa_status status = dsa_engine_parse(options->engine, &engine, err);
	if (!status)
		status = dsa_pattern_yaml_load(&file, options->operands[0], log, &arena, err);
	if (!status)
		status = dsa_engine_export(&out, engine, file.architecture, file.layers, file.pattern,
		                           options->pp ? (int)options->pp : 1, err);
	for (int w = 0; w < out.warnings && !status; w++)
		dsa_log_line(log, DSA_LOG_WARN, "%s", out.warning[w].text);
	if (!status && out.warnings && options->strict)
		status = dsa_fail(err, DSA_E_USAGE, "--strict: %s", out.warning[0].text);
	if (!status) {
		print_export(&text, &out, file.pattern, options->json);
		status = dsa_print_text(&text, "the export", err);
	}
	dsa_export_release(&out);
	dsa_arena_release(&arena);
	return status;
}

int dsa_cmd_export(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	enum dsa_status status;
	if (options->operand_count != 1)
		status = dsa_fail(&err, DSA_E_USAGE, "export needs one PATTERN.yaml, found %d", options->operand_count);
	else if (!options->engine)
		status = dsa_fail(&err, DSA_E_USAGE, "export needs --engine; see 'dsacal help export'");
	else if (options->pp > 1024)
		status = dsa_fail(&err, DSA_E_USAGE, "--pp is %lld, expected at most 1024", (long long)options->pp);
	else
		status = export_pattern(options, &terminal->log, &err);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
