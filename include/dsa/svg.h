/* svg.h: the report's figures, each a self-contained SVG drawing.
 *
 * The same functions draw into report.html (standalone = false: the page carries dsa_svg_style() once) and into files
 * of their own (standalone = true: namespace, style and background included). Bytes depend on the results alone.
 * Colours follow the reader's light or dark preference and never stand alone: letters, heights and outlines say the
 * same. Marks have a <title> with their figures. */
#ifndef DSA_SVG_H
#define DSA_SVG_H

#include "dsa/results.h"
#include "dsa/text.h"

/* The style sheet of all figures. */
const char *dsa_svg_style(void);

/* F and S per layer: the emitted pattern, the reference if it has S layers, the baselines. */
void dsa_svg_pattern(struct dsa_text *text, const struct dsa_results *results, bool standalone);
/* Mean KL (log axis) against indexers kept: greedy's chain with ±1 SE, held-out points, baselines, budget, noise. */
void dsa_svg_curve(struct dsa_text *text, const struct dsa_results *results, bool standalone);
/* Mean KL of sharing each layer alone: the candidates of step 1. Draws nothing without a trace. */
void dsa_svg_sensitivity(struct dsa_text *text, const struct dsa_results *results, bool standalone);
/* Overlap(i, j) of one corpus over all positions, i down, j across, colours fixed from 0 to 1, a box round every
 * segment that an F layer leads. Alone, every cell has a tooltip with its value and 95% interval (about 80 bytes each);
 * in the page the first <g class="cells"> says where they lie, row by row, for the script that reads them out. */
void dsa_svg_overlap(struct dsa_text *text, const struct dsa_results *results, int corpus, bool standalone);

#endif
