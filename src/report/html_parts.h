/* html_parts.h: the page's sections, one function each, called in the order of html.c. */
#ifndef DSA_HTML_PARTS_H
#define DSA_HTML_PARTS_H

#include "dsa/results.h"
#include "dsa/text.h"

/* A name of the run: isolated, so that right-to-left text moves nothing around it. Long ones are cut; the whole is in
 * the tooltip. */
void html_name(struct dsa_text *text, const char *name);
/* "0.00531 ± 0.0004", the error left out when it is not known. */
void html_measure(struct dsa_text *text, double value, double error);
/* <td> with a figure, or its measure. */
void html_figure_cell(struct dsa_text *text, double value);
void html_measure_cell(struct dsa_text *text, double value, double error);
void html_int_cell(struct dsa_text *text, int64_t value);
/* 12345678 as 12,345,678. */
void html_count(struct dsa_text *text, int64_t value);

void html_tiles(struct dsa_text *text, const struct dsa_results *results);
void html_baselines(struct dsa_text *text, const struct dsa_results *results);
void html_steps(struct dsa_text *text, const struct dsa_results *results);
void html_refined(struct dsa_text *text, const struct dsa_results *results);
void html_corpora(struct dsa_text *text, const struct dsa_results *results);
void html_positions(struct dsa_text *text, const struct dsa_results *results);
void html_gain(struct dsa_text *text, const struct dsa_results *results);
void html_engines(struct dsa_text *text, const struct dsa_results *results);
void html_provenance(struct dsa_text *text, const struct dsa_results *results);

#endif
