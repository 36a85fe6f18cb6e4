#include "help.h"

#include <stdio.h>
#include <string.h>

#include "option_table.h"

static void help_options(enum dsa_command command)
{
	for (int i = 0; i < dsa_option_rows; i++) {
		const struct dsa_option_row *row = &dsa_option_table[i];
		if (!(row->commands & DSA_OPTION_OF(command)))
			continue;
		char left[96];
		const char *behind = row->argument;
		const char *between = row->kind == SWITCH ? ", --" : behind ? " " : "";
		snprintf(left, sizeof left, "--%s%s%s", row->name, between, behind ? behind : "");
		if (strlen(left) > 30)
			printf("  %s\n  %-30s  %s\n", left, "", row->help);
		else
			printf("  %-30s  %s\n", left, row->help);
	}
}

static void help_examples(const char *examples)
{
	printf("\nExample%s:\n", strchr(examples, '\n') ? "s" : "");
	for (const char *line = examples; *line;) {
		size_t length = strcspn(line, "\n");
		printf("  %.*s\n", (int)length, line);
		line += length + (line[length] == '\n');
	}
}

static void help_program(void)
{
	printf("dsacal: which layers of a DeepSeek-Sparse-Attention model may share their top-k selection\n\n");
	for (int c = 0; c < DSA_COMMANDS; c++)
		printf("  %-10s %-13s %s\n", dsa_cli_commands[c].name, dsa_cli_commands[c].operands,
		       dsa_cli_commands[c].summary);
	printf("\nExit status: 0 done or holds, 1 a quality bound is broken, 2 wrong usage, 3 could not measure,\n"
	       "75 interrupted and resumable. Results on stdout, everything else on stderr.\n");
}

void dsa_cli_help(enum dsa_command command)
{
	const struct dsa_cli_command *about = &dsa_cli_commands[command];
	if (command == DSA_CMD_HELP) {
		help_program();
		return;
	}
	printf("dsacal %s [OPTIONS]%s%s: %s\n", about->name, *about->operands ? " " : "", about->operands,
	       about->summary);
	if (*about->text)
		printf("\n%s\n", about->text);
	printf("\nOptions:\n");
	help_options(command);
	help_examples(about->example);
}
