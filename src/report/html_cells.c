/* What every section of the page is made of: headings, boxes, tables and their cells. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "html_parts.h"

enum { NAME_SHOWN = 80, NAME_TITLE = 400 };

void html_section(struct dsa_text *text, const char *id, const char *heading)
{
	dsa_text_printf(text, "<section id=\"%s\">\n<h2>%s</h2>\n", id, heading);
}

void html_figure_begin(struct dsa_text *text, const char *id, const char *name)
{
	dsa_text_add(text, "<div class=\"wide\"");
	if (id)
		dsa_text_printf(text, " id=\"%s\"", id);
	dsa_text_add(text, " tabindex=\"0\" role=\"region\" aria-label=\"");
	dsa_text_markup_cut(text, name, 120);
	dsa_text_add(text, "\">\n");
}

void html_table_begin(struct dsa_text *text, const char *label, const char *const *columns, int count)
{
	html_figure_begin(text, NULL, label);
	dsa_text_add(text, "<table>\n<thead><tr>");
	for (int i = 0; i < count; i++)
		dsa_text_printf(text, "<th scope=\"col\">%s</th>", columns[i]);
	dsa_text_add(text, "</tr></thead>\n<tbody>\n");
}

void html_table_end(struct dsa_text *text)
{
	dsa_text_add(text, "</tbody>\n</table>\n</div>\n");
}

void html_name(struct dsa_text *text, const char *name)
{
	dsa_text_add(text, "<bdi title=\"");
	dsa_text_markup_cut(text, name, NAME_TITLE);
	dsa_text_add(text, "\">");
	dsa_text_markup_cut(text, name, NAME_SHOWN);
	dsa_text_add(text, "</bdi>");
}

void html_measure(struct dsa_text *text, double value, double error)
{
	dsa_text_figure(text, value);
	if (isfinite(value) && isfinite(error)) {
		dsa_text_add(text, " ± ");
		dsa_text_error(text, error);
	}
}

void html_count(struct dsa_text *text, int64_t value)
{
	char digits[24];
	int length = snprintf(digits, sizeof digits, "%" PRId64, value);
	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0 && digits[i - 1] != '-')
			dsa_text_add(text, ",");
		dsa_text_bytes(text, &digits[i], 1);
	}
}

void html_percent(struct dsa_text *text, double share)
{
	if (isfinite(share))
		dsa_text_printf(text, "%.2f%%", 100 * share);
	else
		dsa_text_add(text, "–");
}

void html_name_head(struct dsa_text *text, const char *name)
{
	dsa_text_add(text, "<th scope=\"row\" class=\"name\">");
	html_name(text, name);
	dsa_text_add(text, "</th>");
}

void html_int_head(struct dsa_text *text, int64_t value)
{
	dsa_text_add(text, "<th scope=\"row\">");
	html_count(text, value);
	dsa_text_add(text, "</th>");
}

void html_figure_cell(struct dsa_text *text, double value)
{
	html_measure_cell(text, value, NAN);
}

void html_measure_cell(struct dsa_text *text, double value, double error)
{
	dsa_text_add(text, "<td>");
	html_measure(text, value, error);
	dsa_text_add(text, "</td>");
}

void html_int_cell(struct dsa_text *text, int64_t value)
{
	dsa_text_add(text, "<td>");
	html_count(text, value);
	dsa_text_add(text, "</td>");
}

void html_percent_cell(struct dsa_text *text, double share)
{
	dsa_text_add(text, "<td>");
	html_percent(text, share);
	dsa_text_add(text, "</td>");
}

void html_bound_cell(struct dsa_text *text, enum dsa_bound broken, bool emitted)
{
	if (broken)
		dsa_text_printf(text, "<td>breaks %s</td>", dsa_bound_name(broken));
	else
		dsa_text_add(text, emitted ? "<td>holds, emitted</td>" : "<td>holds</td>");
}
