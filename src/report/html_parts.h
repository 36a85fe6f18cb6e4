/* html_parts.h: the page's parts, one function each, called in the order of html.c, and what they share.
 *
 * Sections write themselves whole, or nothing where the run has nothing to show in them. */
#ifndef DSA_HTML_PARTS_H
#define DSA_HTML_PARTS_H

#include "dsa/results.h"
#include "dsa/text.h"

extern const char html_style[];  /* the style sheet, beside dsa_svg_style() */
extern const char html_script[]; /* the only script that runs */

/* <section> with its heading; id is where the page's contents point. */
void html_section(struct dsa_text *text, const char *id, const char *heading);
/* The box that a wide figure scrolls in; close with </div>. id may be NULL. */
void html_figure_begin(struct dsa_text *text, const char *id, const char *name);

/* A table in a scrolling box. label names it and must not occur twice on the page. */
void html_table_begin(struct dsa_text *text, const char *label, const char *const *columns, int count);
void html_table_end(struct dsa_text *text);
#define HTML_TABLE_BEGIN(text, label, columns)                                                                         \
	html_table_begin(text, label, columns, (int)(sizeof(columns) / sizeof *(columns)))

/* A name of the run: isolated, so that right-to-left text moves nothing around it. Long ones are cut; the whole is in
 * the tooltip. */
void html_name(struct dsa_text *text, const char *name);
/* "0.00531 ± 0.0004", the error left out when it is not known. */
void html_measure(struct dsa_text *text, double value, double error);
/* 12345678 as 12,345,678. */
void html_count(struct dsa_text *text, int64_t value);
/* "98.31%", or a dash. */
void html_percent(struct dsa_text *text, double share);
/* Cells: what heads a row, then its figures. */
void html_name_head(struct dsa_text *text, const char *name);
void html_int_head(struct dsa_text *text, int64_t value);
void html_figure_cell(struct dsa_text *text, double value);
void html_measure_cell(struct dsa_text *text, double value, double error);
void html_int_cell(struct dsa_text *text, int64_t value);
void html_percent_cell(struct dsa_text *text, double share);
void html_bound_cell(struct dsa_text *text, enum dsa_bound broken, bool emitted);

/* html_search.c */
void html_steps(struct dsa_text *text, const struct dsa_results *results);
void html_candidates(struct dsa_text *text, const struct dsa_results *results);
void html_refined(struct dsa_text *text, const struct dsa_results *results);
void html_sensitivity(struct dsa_text *text, const struct dsa_results *results);
/* html_overlap.c */
void html_overlap(struct dsa_text *text, const struct dsa_results *results);
/* html_sections.c */
void html_tiles(struct dsa_text *text, const struct dsa_results *results);
void html_baselines(struct dsa_text *text, const struct dsa_results *results);
void html_corpora(struct dsa_text *text, const struct dsa_results *results);
void html_positions(struct dsa_text *text, const struct dsa_results *results);
void html_gain(struct dsa_text *text, const struct dsa_results *results);
void html_engines(struct dsa_text *text, const struct dsa_results *results);
void html_provenance(struct dsa_text *text, const struct dsa_results *results);

#endif
