/* html.h: report.html, one self-contained page that a reviewer can open anywhere.
 *
 * No script, no request, inline SVG, a Content-Security-Policy that allows the page's own style sheet and nothing else
 * (by its hash), light and dark, printable. Well-formed as XML too. Every string of the run is escaped. The bytes
 * depend on the results alone. */
#ifndef DSA_HTML_H
#define DSA_HTML_H

#include "dsa/results.h"
#include "dsa/text.h"

void dsa_html_write(struct dsa_text *text, const struct dsa_results *results);
/* The verdict in one or two sentences of plain text, as the page and the terminal show it. */
void dsa_verdict_write(struct dsa_text *text, const struct dsa_results *results);

#endif
