#include <stdio.h>
#include <string.h>

#include "help.h"
#include "option_table.h"
#include "summary.h"

/* Prose: what roff would read as its own is escaped, code points beyond ASCII are named. */
static void prose(struct dsa_text *out, const char *text)
{
	uint32_t before = '\n';
	while (*text) {
		const char *from = text;
		uint32_t code = dsa_utf8_next(&text);
		if (before == '\n' && (code == '.' || code == '\''))
			dsa_text_add(out, "\\&");
		if (code == '\\')
			dsa_text_add(out, "\\e");
		else if (code == '-' && (*text == '-' || before == '-'))
			dsa_text_add(out, "\\-"); /* an option's, no hyphen */
		else if (code >= 0x80)
			dsa_text_printf(out, "\\[u%04X]", code);
		else
			dsa_text_bytes(out, from, (size_t)(text - from));
		before = code;
	}
}

/* What is to be typed: every hyphen is a minus sign, which can be copied. */
static void literal(struct dsa_text *out, const char *text, size_t length)
{
	const char *end = text + length;
	if (length && (*text == '.' || *text == '\''))
		dsa_text_add(out, "\\&");
	while (text < end) {
		const char *from = text;
		uint32_t code = dsa_utf8_next(&text);
		if (code == '\\')
			dsa_text_add(out, "\\e");
		else if (code == '-')
			dsa_text_add(out, "\\-");
		else if (code == '\'')
			dsa_text_add(out, "\\(aq");
		else if (code == '`')
			dsa_text_add(out, "\\(ga");
		else if (code == '~')
			dsa_text_add(out, "\\(ti");
		else if (code == '^')
			dsa_text_add(out, "\\(ha");
		else if (code >= 0x80)
			dsa_text_printf(out, "\\[u%04X]", code);
		else
			dsa_text_bytes(out, from, (size_t)(text - from));
	}
}

static void word(struct dsa_text *out, const char *font, const char *text)
{
	dsa_text_printf(out, "\\f%s", font);
	literal(out, text, strlen(text));
	dsa_text_add(out, "\\fR");
}

static void put_command(struct dsa_text *out, enum dsa_command command)
{
	const struct dsa_cli_command *about = &dsa_cli_commands[command];
	bool first = true;
	dsa_text_printf(out, ".SS dsacal %s", about->name);
	if (*about->operands) {
		dsa_text_add(out, " ");
		literal(out, about->operands, strlen(about->operands));
	}
	dsa_text_add(out, "\n");
	char summary[128];
	snprintf(summary, sizeof summary, "%s", about->summary);
	summary[0] = (char)(summary[0] >= 'a' && summary[0] <= 'z' ? summary[0] - 'a' + 'A' : summary[0]);
	prose(out, summary);
	dsa_text_add(out, ".\n");
	if (*about->text) {
		prose(out, about->text);
		dsa_text_add(out, "\n");
	}
	dsa_text_add(out, ".PP\nOptions:\n");
	for (int i = 0; i < dsa_option_rows; i++) {
		if (!(dsa_option_table[i].commands & DSA_OPTION_OF(command)))
			continue;
		dsa_text_add(out, first ? "" : ",\n");
		dsa_text_add(out, "\\fB\\-\\-");
		literal(out, dsa_option_table[i].name, strlen(dsa_option_table[i].name));
		dsa_text_add(out, "\\fR");
		first = false;
	}
	dsa_text_add(out, ".\n.PP\n.nf\n.RS 4\n");
	for (const char *line = about->example; *line;) {
		size_t length = strcspn(line, "\n");
		literal(out, line, length);
		dsa_text_add(out, "\n");
		line += length + (line[length] == '\n');
	}
	dsa_text_add(out, ".RE\n.fi\n");
}

static void put_option(struct dsa_text *out, const struct dsa_option_row *row)
{
	dsa_text_add(out, ".TP\n\\fB\\-\\-");
	literal(out, row->name, strlen(row->name));
	dsa_text_add(out, "\\fR");
	if (row->kind == SWITCH) {
		dsa_text_add(out, ", \\fB\\-\\-");
		literal(out, row->argument, strlen(row->argument));
		dsa_text_add(out, "\\fR");
	} else if (row->argument) {
		dsa_text_add(out, " ");
		word(out, "I", row->argument);
	}
	dsa_text_add(out, "\n");
	prose(out, row->help);
	if (row->kind == LIST && !strstr(row->help, "more than once"))
		dsa_text_add(out, "; may be given more than once");
	dsa_text_add(out, ".\n");
}

static const char *const introduction =
    ".TH DSACAL 1 \"\" \"dsacal\" \"User Commands\"\n"
    ".nh\n.ad l\n"
    ".SH NAME\n"
    "dsacal \\- which layers of a DeepSeek\\-Sparse\\-Attention model may share their top\\-k selection\n"
    ".SH SYNOPSIS\n"
    ".B dsacal\n"
    ".I COMMAND\n"
    ".RI [ OPTIONS ]\n"
    ".RI [ OPERANDS ]\n"
    ".SH DESCRIPTION\n"
    "A layer of such a model runs its own lightning indexer (F) or attends to the positions that the nearest F layer\n"
    "before it selected (S).\n"
    "dsacal runs the model on documents of the user, measures how far the output moves as layers are shared, and "
    "writes\n"
    "the pattern of F and S that stays within a budget, with its standard errors, for the engine that serves the "
    "model.\n"
    "Options may stand before or behind operands, as\n"
    ".BI \\-\\-name= value\n"
    "or\n"
    ".BI \\-\\-name \\ value\n"
    "and shortened as long as they are unambiguous; of one given twice the last counts.\n"
    ".SH COMMANDS\n";

static const char *const ending =
    ".SH EXIT STATUS\n"
    ".TP\n0\nDone, or all bounds hold.\n"
    ".TP\n1\nA quality bound is broken.\n"
    ".TP\n2\nThe request is wrong: an option, a budget below the noise floor, a pattern that an engine would misread.\n"
    ".TP\n3\nIt could not be measured: bad input, no memory, no device.\n"
    ".TP\n75\nInterrupted by a signal; \\fB\\-\\-resume\\fR goes on.\n"
    ".PP\nResults are on standard output, everything else on standard error.\n"
    ".SH FILES\n"
    ".TP\n\\fIRUN\\fR/pattern.yaml\nThe pattern, its quality, and what to give to each engine.\n"
    ".TP\n\\fIRUN\\fR/report.html, results.json, trace.csv, overlap.csv\nEverything that was measured.\n"
    ".TP\n\\fIRUN\\fR/journal, tokens, config.yaml, log.txt\nWhat "
    "\\fB\\-\\-resume\\fR and \\fBsolve\\fR go on from.\n"
    ".TP\n\\fIFILE\\fR.orig\nWhat \\fBexport \\-\\-config\\-json\\fR \\fIFILE\\fR found; a second export starts from "
    "it.\n"
    ".SH ENVIRONMENT\n"
    ".TP\nNO_COLOR\nNo colours.\n"
    ".TP\nTMPDIR\nWhere \\fBevaluate\\fR keeps its tokens while it runs.\n"
    ".TP\nOMP_WAIT_POLICY, GOMP_SPINCOUNT\nWhat waiting threads do; passive unless set.\n"
    ".SH SEE ALSO\n"
    "docs/method.md: what is measured and how the search goes; docs/formats.md: every file.\n";

int dsa_cli_man(void)
{
	struct dsa_error err = {""};
	struct dsa_text out = {0};
	dsa_text_add(&out, ".\\\" Made by `dsacal help --man` from the tables of commands and options.\n");
	dsa_text_add(&out, introduction);
	for (int c = 0; c < DSA_COMMANDS; c++)
		put_command(&out, (enum dsa_command)c);
	dsa_text_add(&out, ".SH OPTIONS\n");
	for (int i = 0; i < dsa_option_rows; i++)
		put_option(&out, &dsa_option_table[i]);
	dsa_text_add(&out, ending);
	enum dsa_status status = dsa_print_text(&out, "the manual page", &err);
	if (status)
		fprintf(stderr, "dsacal: %s\n", err.text);
	return dsa_status_exit(status);
}
