#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "option_table.h"
#include "summary.h"

/* What may stand behind an option or in place of an operand. */
enum what { NOTHING, FILES, DIRECTORIES, VALUES };

/* argument: as the help shows it. VALUES: "a|b|c[:i]". */
static enum what classify(const char *argument)
{
	if (!argument)
		return NOTHING;
	if (strstr(argument, "FILE") || strstr(argument, "PATH") || strstr(argument, ".yaml"))
		return FILES;
	if (strstr(argument, "DIR") || strstr(argument, "RUN"))
		return DIRECTORIES;
	return strchr(argument, '|') && *argument >= 'a' && *argument <= 'z' ? VALUES : NOTHING;
}

static enum what classify_row(const struct dsa_option_row *row)
{
	if (row->kind == FLAG || row->kind == SWITCH)
		return NOTHING;
	if (row->kind == CHOICE)
		return VALUES;
	/* One option, and for solve it is a file. */
	return row->commands & DSA_OPTION_OF(DSA_CMD_SOLVE) && classify(row->argument) == DIRECTORIES
	           ? FILES
	           : classify(row->argument);
}

/* "a|b|c[:i]" as "a b c". */
static void add_values(struct dsa_text *out, const char *argument)
{
	for (const char *c = argument; *c && *c != '['; c++)
		dsa_text_bytes(out, *c == '|' ? " " : c, 1);
}

static void add_commands(struct dsa_text *out)
{
	for (int c = 0; c < DSA_COMMANDS; c++)
		dsa_text_printf(out, "%s%s", c ? " " : "", dsa_cli_commands[c].name);
}

static void bash_options(struct dsa_text *out, enum dsa_command command)
{
	dsa_text_printf(out, "\t%s) options='", dsa_cli_commands[command].name);
	for (int i = 0; i < dsa_option_rows; i++) {
		const struct dsa_option_row *row = &dsa_option_table[i];
		if (!(row->commands & DSA_OPTION_OF(command)))
			continue;
		dsa_text_printf(out, "--%s ", row->name);
		if (row->kind == SWITCH)
			dsa_text_printf(out, "--%s ", row->argument);
	}
	dsa_text_add(out, "--help' ");
	const char *operands = dsa_cli_commands[command].operands;
	switch (classify(operands)) {
	case FILES:
		dsa_text_add(out, "operands=-f");
		break;
	case DIRECTORIES:
		dsa_text_add(out, "operands=-d");
		break;
	case VALUES:
		dsa_text_add(out, "operands='-W \"");
		add_values(out, operands);
		dsa_text_add(out, "\"'");
		break;
	case NOTHING:
		if (command == DSA_CMD_HELP) {
			dsa_text_add(out, "operands='-W \"");
			add_commands(out);
			dsa_text_add(out, "\"'");
		}
		break;
	}
	dsa_text_add(out, " ;;\n");
}

/* case labels of all options with files, directories, or nothing to be completed. */
static void bash_group(struct dsa_text *out, enum what what, const char *then)
{
	bool any = false;
	for (int i = 0; i < dsa_option_rows; i++) {
		const struct dsa_option_row *row = &dsa_option_table[i];
		if (row->kind == FLAG || row->kind == SWITCH || classify_row(row) != what)
			continue;
		dsa_text_printf(out, "%s--%s", any ? " | " : "\t", row->name);
		any = true;
	}
	if (any)
		dsa_text_printf(out, ") %s ;;\n", then);
}

static void write_bash(struct dsa_text *out)
{
	dsa_text_add(out, "# bash completion of dsacal, made by `dsacal completion bash`\n"
	                  "_dsacal()\n{\n"
	                  "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
	                  "\tlocal options='' operands='' from=''\n"
	                  "\tCOMPREPLY=()\n"
	                  "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	                  "\t\tmapfile -t COMPREPLY < <(compgen -W '");
	add_commands(out);
	dsa_text_add(out, " --help --version' -- \"$word\")\n"
	                  "\t\treturn\n"
	                  "\tfi\n"
	                  "\t# --option=value comes as three words.\n"
	                  "\tif [ \"$word\" = = ]; then\n"
	                  "\t\tword=''\n"
	                  "\telif [ \"$before\" = = ]; then\n"
	                  "\t\tbefore=${COMP_WORDS[COMP_CWORD - 2]}\n"
	                  "\t\t# --corpus NAME=PATH\n"
	                  "\t\tcase $before in -*) ;; *) before=${COMP_WORDS[COMP_CWORD - 3]} ;; esac\n"
	                  "\tfi\n"
	                  "\tcase ${COMP_WORDS[1]} in\n");
	for (int c = 0; c < DSA_COMMANDS; c++)
		bash_options(out, (enum dsa_command)c);
	dsa_text_add(out, "\t*) return ;;\n\tesac\n\tcase $before in\n");
	for (int i = 0; i < dsa_option_rows; i++) {
		if (classify_row(&dsa_option_table[i]) != VALUES)
			continue;
		dsa_text_printf(out, "\t--%s) from='-W \"", dsa_option_table[i].name);
		add_values(out, dsa_option_table[i].argument);
		dsa_text_add(out, "\"' ;;\n");
	}
	bash_group(out, FILES, "from=-f");
	bash_group(out, DIRECTORIES, "from=-d");
	bash_group(out, NOTHING, "return");
	dsa_text_add(out, "\t*)\n"
	                  "\t\tcase $word in\n"
	                  "\t\t-*) from=\"-W '$options'\" ;;\n"
	                  "\t\t*) from=$operands ;;\n"
	                  "\t\tesac\n"
	                  "\t\t;;\n"
	                  "\tesac\n"
	                  "\t[ -n \"$from\" ] || return\n"
	                  "\tcase $from in -f | -d) compopt -o filenames 2>/dev/null ;; esac\n"
	                  "\tmapfile -t COMPREPLY < <(eval \"compgen $from\" -- '\"$word\"')\n"
	                  "}\n"
	                  "complete -F _dsacal dsacal\n");
}

/* Inside single quotes, and inside what _arguments reads: brackets and colons are its own. */
static void zsh_text(struct dsa_text *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			dsa_text_add(out, "'\\''");
		else if (strchr("[]:\\", *text))
			dsa_text_printf(out, "\\%c", *text);
		else
			dsa_text_bytes(out, text, 1);
	}
}

static void zsh_action(struct dsa_text *out, enum what what, const char *argument)
{
	switch (what) {
	case FILES:
		dsa_text_add(out, "_files");
		break;
	case DIRECTORIES:
		dsa_text_add(out, "_files -/");
		break;
	case VALUES:
		dsa_text_add(out, "(");
		add_values(out, argument);
		dsa_text_add(out, ")");
		break;
	case NOTHING:
		dsa_text_add(out, " ");
		break;
	}
}

static void zsh_option(struct dsa_text *out, const struct dsa_option_row *row)
{
	bool takes = row->kind != FLAG && row->kind != SWITCH;
	dsa_text_printf(out, " \\\n\t\t\t'%s--%s%s[", row->kind == LIST ? "*" : "", row->name, takes ? "=" : "");
	zsh_text(out, row->help);
	dsa_text_add(out, "]");
	if (takes) {
		dsa_text_add(out, ":");
		zsh_text(out, row->argument);
		dsa_text_add(out, ":");
		zsh_action(out, classify_row(row), row->argument);
	}
	dsa_text_add(out, "'");
	if (row->kind == SWITCH)
		dsa_text_printf(out, " \\\n\t\t\t'--%s[the opposite]'", row->argument);
}

static void write_zsh(struct dsa_text *out)
{
	dsa_text_add(out, "#compdef dsacal\n"
	                  "# zsh completion of dsacal, made by `dsacal completion zsh`\n"
	                  "_dsacal() {\n"
	                  "\tlocal -a commands=(");
	for (int c = 0; c < DSA_COMMANDS; c++) {
		dsa_text_printf(out, "\n\t\t'%s:", dsa_cli_commands[c].name);
		zsh_text(out, dsa_cli_commands[c].summary);
		dsa_text_add(out, "'");
	}
	dsa_text_add(out, ")\n"
	                  "\tif (( CURRENT == 2 )); then\n"
	                  "\t\t_describe -t commands 'dsacal command' commands\n"
	                  "\t\treturn\n"
	                  "\tfi\n"
	                  "\tlocal command=$words[2]\n"
	                  "\tshift words\n"
	                  "\t(( CURRENT-- ))\n"
	                  "\tcase $command in\n");
	for (int c = 0; c < DSA_COMMANDS; c++) {
		const char *operands = dsa_cli_commands[c].operands;
		dsa_text_printf(out, "\t%s)\n\t\t_arguments -s", dsa_cli_commands[c].name);
		for (int i = 0; i < dsa_option_rows; i++)
			if (dsa_option_table[i].commands & DSA_OPTION_OF(c))
				zsh_option(out, &dsa_option_table[i]);
		dsa_text_add(out, " \\\n\t\t\t'--help[options of this command]'");
		if (c == DSA_CMD_HELP) {
			dsa_text_add(out, " \\\n\t\t\t'1:command:(");
			add_commands(out);
			dsa_text_add(out, ")'");
		} else if (*operands) {
			dsa_text_add(out, " \\\n\t\t\t'*:");
			zsh_text(out, operands);
			dsa_text_add(out, ":");
			zsh_action(out, classify(operands), operands);
			dsa_text_add(out, "'");
		}
		dsa_text_add(out, "\n\t\t;;\n");
	}
	dsa_text_add(out, "\tesac\n}\n"
	                  "if [ \"$funcstack[1]\" = _dsacal ]; then\n"
	                  "\t_dsacal \"$@\"\n"
	                  "else\n"
	                  "\tcompdef _dsacal dsacal\n"
	                  "fi\n");
}

int dsa_cmd_completion(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_text out = {0};
	const char *shell = options->operand_count == 1 ? options->operands[0] : "";
	enum dsa_status status = DSA_OK;
	if (!strcmp(shell, "bash"))
		write_bash(&out);
	else if (!strcmp(shell, "zsh"))
		write_zsh(&out);
	else
		status = dsa_fail(&err, DSA_E_USAGE, "completion needs one shell, bash or zsh%s%s",
		                  *shell ? ", found " : "", shell);
	if (!status)
		status = dsa_print_text(&out, "the completions", &err);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
