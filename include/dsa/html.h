/* html.h: report.html, one self-contained page that a reviewer can open anywhere.
 *
 * No request, inline SVG, a Content-Security-Policy that allows the page's own style sheet and its one script and
 * nothing else (by their hashes), light and dark, printable. Without the script every table and figure is there; it
 * adds what is read cell by cell. Well-formed as XML too. Every string of the run is escaped. The bytes depend on the
 * results alone; 78 layers and three corpora take less than 2 MB. */
#ifndef DSA_HTML_H
#define DSA_HTML_H

#include "dsa/results.h"
#include "dsa/text.h"

void dsa_html_write(struct dsa_text *text, const struct dsa_results *results);
/* The verdict in one sentence of plain text, with its numbers. */
void dsa_verdict_write(struct dsa_text *text, const struct dsa_results *results);
/* Why no more layers share, in a sentence; "" where the run does not say. */
const char *dsa_verdict_reason(const struct dsa_results *results);

#endif
