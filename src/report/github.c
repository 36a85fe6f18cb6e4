#include "dsa/github.h"

#include <string.h>

/* Letters, digits and what Markdown gives no meaning stay; the rest of ASCII becomes a character reference. */
static void add_escaped(struct dsa_text *text, const char *name)
{
	struct dsa_text flat = {0};
	dsa_verify_text_name(&flat, name);
	for (const char *at = flat.data; at && *at; at++) {
		const unsigned char c = (unsigned char)*at;
		const bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
		if (letter || c >= 0x80 || strchr(" ,;()%/", c))
			dsa_text_bytes(text, at, 1);
		else
			dsa_text_printf(text, "&#%u;", c);
	}
	text->failed |= flat.failed;
	dsa_text_release(&flat);
}

static void add_line(struct dsa_text *text, void (*write)(struct dsa_text *, const struct dsa_verify_report *),
                     const struct dsa_verify_report *report)
{
	struct dsa_text line = {0};
	write(&line, report);
	text->failed |= line.failed;
	add_escaped(text, line.data);
	dsa_text_release(&line);
}

static void add_row(struct dsa_text *text, const struct dsa_verify_report *report, const struct dsa_check *check)
{
	struct dsa_text cell = {0};
	dsa_text_printf(text, "| %s%s%s | ", check->outcome == DSA_OUTCOME_WORSE ? "**" : "",
	                dsa_outcome_name(check->outcome), check->outcome == DSA_OUTCOME_WORSE ? "**" : "");
	dsa_verify_text_place(&cell, report, check);
	add_escaped(text, cell.data);
	dsa_text_add(text, " | ");
	text->failed |= cell.failed;
	dsa_text_release(&cell);
	dsa_verify_text_check(&cell, check);
	add_escaped(text, cell.data);
	dsa_text_add(text, " |\n");
	text->failed |= cell.failed;
	dsa_text_release(&cell);
}

static void add_heading(struct dsa_text *text, const char *verdict, const char *file)
{
	dsa_text_printf(text, "### dsacal verify: %s\n\n", verdict);
	add_escaped(text, file ? file : "the pattern");
	dsa_text_add(text, ": ");
}

void dsa_github_summary(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	add_heading(text, judgement->worse ? "got worse" : "holds", report->file);
	add_line(text, dsa_verify_text_headline, report);
	dsa_text_add(text, "\n\n| | where | figure |\n|---|---|---|\n");
	for (int i = 0; i < judgement->count; i++)
		add_row(text, report, &judgement->checks[i]);
	dsa_text_add(text, "\n");
}

void dsa_github_summary_error(struct dsa_text *text, const char *file, const char *message)
{
	add_heading(text, "could not measure", file);
	add_escaped(text, message);
	dsa_text_add(text, "\n\n");
}

/* property: of a workflow command, in which colon and comma have a meaning too. */
static void add_command_text(struct dsa_text *text, const char *value, bool property)
{
	struct dsa_text flat = {0};
	dsa_verify_text_name(&flat, value);
	for (const char *at = flat.data; at && *at; at++) {
		const unsigned char c = (unsigned char)*at;
		if (c == '%' || (property && (c == ':' || c == ',')))
			dsa_text_printf(text, "%%%02X", c);
		else
			dsa_text_bytes(text, at, 1);
	}
	text->failed |= flat.failed;
	dsa_text_release(&flat);
}

static void add_command(struct dsa_text *text, const char *command, const char *file, const char *message)
{
	dsa_text_printf(text, "::%s ", command);
	if (file) {
		dsa_text_add(text, "file=");
		add_command_text(text, file, true);
		dsa_text_add(text, ",");
	}
	dsa_text_add(text, "title=dsacal verify::");
	add_command_text(text, message, false);
	dsa_text_add(text, "\n");
}

void dsa_github_annotation(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	struct dsa_text line = {0};
	if (!judgement->worse && (!judgement->better || report->accepted))
		return;
	dsa_verify_text_headline(&line, report);
	if (!judgement->worse)
		dsa_text_printf(&line, "; %d figures moved for the better: --accept records them", judgement->better);
	text->failed |= line.failed;
	if (line.data)
		add_command(text, judgement->worse ? "error" : "warning", report->file, line.data);
	dsa_text_release(&line);
}

void dsa_github_annotation_error(struct dsa_text *text, const char *file, const char *message)
{
	add_command(text, "error", file, message);
}
