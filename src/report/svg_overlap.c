#include <math.h>
#include <stdio.h>

#include "dsa/svg.h"
#include "svg_parts.h"

enum { LEFT = 66, TOP = 40, SIDE = 620 };

/* Five anchors of viridis, a perceptually even map, joined by straight lines in sRGB. */
static const int anchors[5][3] = {
    {0x44, 0x01, 0x54}, {0x3b, 0x52, 0x8b}, {0x21, 0x91, 0x8c}, {0x5e, 0xc9, 0x62}, {0xfd, 0xe7, 0x25}};

/* value in 0 … 1. */
static void colour(double value, char out[8])
{
	int rgb[3];
	double at = fmin(fmax(value, 0), 1) * 4;
	int from = at >= 4 ? 3 : (int)at;
	for (int i = 0; i < 3; i++)
		rgb[i] = (int)lround(anchors[from][i] + (at - from) * (anchors[from + 1][i] - anchors[from][i]));
	snprintf(out, 8, "#%02x%02x%02x", (unsigned)rgb[0] & 255, (unsigned)rgb[1] & 255, (unsigned)rgb[2] & 255);
}

static void draw_title(struct dsa_text *text, const struct dsa_overlap *overlap, int corpus, int i, int j)
{
	double value = dsa_overlap_at(overlap, corpus, -1, i, j);
	struct dsa_interval interval = dsa_overlap_interval(overlap, corpus, -1, i, j);
	dsa_text_printf(text, "<title>%d, %d: ", i, j);
	if (isfinite(value))
		dsa_text_printf(text, "%.3f", value);
	if (isfinite(interval.low) && i != j)
		dsa_text_printf(text, " (95%%: %.3f to %.3f)", interval.low, interval.high);
	dsa_text_add(text, "</title>");
}

/* Alone, every cell has its tooltip; in the page the script reads cells out, and finds here where they lie. */
static void draw_cells(struct dsa_text *text, const struct dsa_results *results, int corpus, double cell,
                       bool standalone)
{
	const struct dsa_overlap *overlap = &results->overlap;
	char fill[8];
	dsa_text_printf(text, "<g class=\"cells\" shape-rendering=\"crispEdges\"");
	if (!standalone) {
		dsa_text_printf(text, " data-left=\"%d\" data-top=\"%d\" data-cell=\"%g\" data-colours=\"", LEFT, TOP,
		                cell);
		for (int a = 0; a < 5; a++)
			dsa_text_printf(text, "%s%d,%d,%d", a ? " " : "", anchors[a][0], anchors[a][1], anchors[a][2]);
		dsa_text_add(text, "\"");
	}
	dsa_text_add(text, ">\n");
	for (int i = 0; i < overlap->layers; i++) {
		dsa_text_printf(text, "<g transform=\"translate(%d %.1f)\">", LEFT, TOP + i * cell);
		for (int j = 0; j < overlap->layers; j++) {
			double value = dsa_overlap_at(overlap, corpus, -1, i, j);
			dsa_text_printf(text, "<path d=\"M%g 0h%gv%gh-%gz\" ", j * cell, cell, cell, cell);
			if (isfinite(value)) {
				colour(value, fill);
				dsa_text_printf(text, "fill=\"%s\"", fill);
			} else {
				dsa_text_add(text, "class=\"unknown\"");
			}
			if (standalone) {
				dsa_text_add(text, ">");
				draw_title(text, overlap, corpus, i, j);
				dsa_text_add(text, "</path>");
			} else {
				dsa_text_add(text, "/>");
			}
		}
		dsa_text_add(text, "</g>\n");
	}
	dsa_text_add(text, "</g>\n");
}

static void draw_segments(struct dsa_text *text, const struct dsa_results *results, double cell)
{
	for (int first = 0; first < results->layers;) {
		int end = first + 1;
		while (end < results->layers && results->pattern[end] == 'S')
			end++;
		double at = first * cell, size = (end - first) * cell;
		/* A layer that serves itself alone is one small cell: a box would hide it. */
		bool worth = end - first > 1 || cell >= 12;
		for (int pass = 0; pass < 2 && worth; pass++)
			dsa_text_printf(text,
			                "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\"/>\n",
			                LEFT + at, TOP + at, size, size, pass ? "box" : "box-under");
		first = end;
	}
}

static void draw_bar(struct dsa_text *text, double x, double height)
{
	const int steps = 100;
	char fill[8], digits[8];
	dsa_text_add(text, "<g shape-rendering=\"crispEdges\">");
	for (int i = 0; i < steps; i++) {
		colour(1 - (i + 0.5) / steps, fill);
		dsa_text_printf(text, "<rect x=\"%.1f\" y=\"%.2f\" width=\"14\" height=\"%.2f\" fill=\"%s\"/>", x,
		                TOP + height * i / steps, height / steps + 0.5, fill);
	}
	dsa_text_add(text, "</g>\n");
	for (int i = 0; i <= 5; i++) {
		snprintf(digits, sizeof digits, "%.1f", 1 - i / 5.0);
		svg_label(text, x + 20, TOP + height * i / 5 + 4, "soft small", "start", digits);
	}
	dsa_text_printf(text,
	                "<text x=\"%.1f\" y=\"%.1f\" transform=\"rotate(90 %.1f %.1f)\" class=\"soft\" "
	                "text-anchor=\"middle\">overlap |Ti ∩ Tj| / K</text>\n",
	                x + 54, TOP + height / 2, x + 54, TOP + height / 2);
}

void dsa_svg_overlap(struct dsa_text *text, const struct dsa_results *results, int corpus, bool standalone)
{
	int layers = results->overlap.layers;
	/* Whole pixels while they fit: cells of one size, and short coordinates. */
	int pixels = SIDE / layers;
	double cell = pixels ? pixels : (double)SIDE / layers;
	/* Not larger than it must be, but tall enough for the colour bar's label. */
	cell = fmin(cell, fmax(36, 252.0 / layers));
	double side = cell * layers;
	char digits[16];
	svg_open(text, (int)(TOP + side + 16), "How much the selections of two layers have in common", standalone);
	draw_cells(text, results, corpus, cell, standalone);
	draw_segments(text, results, cell);
	svg_label(text, LEFT + side / 2, 14, "soft", "middle", "layer j");
	svg_layer_ticks(text, LEFT, TOP - 8, cell, layers);
	int every = cell >= 12 ? 1 : cell >= 7 ? 2 : cell >= 3 ? 5 : 50;
	for (int l = 0; l < layers; l += every) {
		snprintf(digits, sizeof digits, "%d", l);
		svg_label(text, LEFT - 7, TOP + (l + 0.5) * cell + 4, "soft small", "end", digits);
	}
	dsa_text_printf(text,
	                "<text x=\"16\" y=\"%.1f\" transform=\"rotate(-90 16 %.1f)\" class=\"soft\" "
	                "text-anchor=\"middle\">layer i</text>\n",
	                TOP + side / 2, TOP + side / 2);
	draw_bar(text, LEFT + side + 28, side);
	svg_close(text);
}
