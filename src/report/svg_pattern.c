#include <string.h>

#include "dsa/pattern.h"
#include "dsa/svg.h"
#include "svg_parts.h"

enum { LEFT = 132, RIGHT = 150, ROW = 30, TOP = 8, MOST_ROWS = 9 };

struct row {
	const char *name, *pattern;
	double kl;
	bool measured;
};

static void draw_row(struct dsa_text *text, const struct row *row, double y, double cell, int layers, bool strong)
{
	dsa_text_printf(text, "<text x=\"%d\" y=\"%.1f\" class=\"%s\" text-anchor=\"end\">", LEFT - 12, y + 15,
	                strong ? "strong" : "soft");
	dsa_text_markup_cut(text, row->name, SVG_NAME);
	dsa_text_add(text, "<title>");
	dsa_text_markup_cut(text, row->name, 400);
	dsa_text_add(text, "</title></text>\n");
	double gap = cell >= 12 ? 2 : cell >= 6 ? 1 : 0.4;
	for (int l = 0; l < layers; l++) {
		bool full = row->pattern[l] == 'F';
		/* S cells are lower, so that the strip reads without its colours. */
		dsa_text_printf(text, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" class=\"%s\">",
		                LEFT + l * cell + gap / 2, full ? y : y + 8, cell - gap, full ? 22 : 14,
		                full ? "full" : "shared");
		if (full)
			dsa_text_printf(text, "<title>layer %d: full, runs its indexer</title></rect>\n", l);
		else
			dsa_text_printf(text,
			                "<title>layer %d: shared, uses the selection of layer %d</title></rect>\n", l,
			                dsa_pattern_source(row->pattern, l));
		if (cell >= 10)
			svg_label(text, LEFT + (l + 0.5) * cell, full ? y + 15 : y + 19, full ? "on-full" : "on-shared",
			          "middle", full ? "F" : "S");
	}
	dsa_text_printf(text, "<text x=\"%d\" y=\"%.1f\" class=\"%s\" text-anchor=\"start\">%d kept",
	                (int)(LEFT + layers * cell + 12), y + 15, strong ? "strong" : "soft",
	                layers - dsa_pattern_shared(row->pattern));
	if (row->measured) {
		dsa_text_add(text, " · KL ");
		dsa_text_figure(text, row->kl);
	}
	dsa_text_add(text, "</text>\n");
}

void dsa_svg_pattern(struct dsa_text *text, const struct dsa_results *results, bool standalone)
{
	struct row rows[MOST_ROWS];
	int count = 0;
	rows[count++] =
	    (struct row){"this pattern", results->pattern, results->quality.kl, results->quality.documents > 0};
	if (strchr(results->reference, 'S') && strcmp(results->reference, results->pattern) != 0)
		rows[count++] = (struct row){"checkpoint's own", results->reference, 0, true};
	for (int i = 0; i < results->baseline_count && count < MOST_ROWS; i++) {
		const struct dsa_result_baseline *baseline = &results->baselines[i];
		rows[count++] = (struct row){baseline->name, baseline->pattern, baseline->calibration.kl,
		                             baseline->calibration.documents > 0};
	}
	double cell = (double)(SVG_WIDTH - LEFT - RIGHT) / results->layers;
	if (cell > 30)
		cell = 30;
	int height = TOP + count * ROW + 44;
	svg_open(text, height, "Which layers are full and which are shared, beside the baselines", standalone);
	for (int i = 0; i < count; i++)
		draw_row(text, &rows[i], TOP + i * ROW, cell, results->layers, i == 0);
	svg_layer_ticks(text, LEFT, TOP + count * ROW + 8, cell, results->layers);
	svg_label(text, LEFT - 12, TOP + count * ROW + 8, "soft small", "end", "layer");
	double y = height - 10;
	dsa_text_printf(text, "<rect x=\"%d\" y=\"%.1f\" width=\"11\" height=\"11\" class=\"full\"/>\n", LEFT, y - 10);
	svg_label(text, LEFT + 17, y, "soft small", "start", "F: full, runs its indexer");
	dsa_text_printf(text, "<rect x=\"%d\" y=\"%.1f\" width=\"11\" height=\"7\" class=\"shared\"/>\n", LEFT + 170,
	                y - 6);
	svg_label(text, LEFT + 187, y, "soft small", "start",
	          "S: shared, reuses the selection of the F layer before it");
	svg_close(text);
}
