/* The overlap map: one drawing, of the first corpus over all positions, and behind it what a script needs to show any
 * corpus, any position bucket and any cell: values and intervals, six characters a cell. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "dsa/svg.h"
#include "html_parts.h"

/* Bounds on what the page takes: a drawn cell is about 45 bytes, one of a table 14, one behind the switches 6. */
enum { MOST_DRAWN_CELLS = 26000, MOST_TABLE_CELLS = 26000, MOST_KEPT_CELLS = 120000 };

/* Thousandths in two digits to the base of 64; the largest number stands for what is not known. */
static void put_share(struct dsa_text *text, double share)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned number = isfinite(share) ? (unsigned)lround(1000 * fmin(fmax(share, 0), 1)) : 4095;
	dsa_text_bytes(text, &digits[number / 64], 1);
	dsa_text_bytes(text, &digits[number % 64], 1);
}

static void put_set(struct dsa_text *text, const struct dsa_overlap *overlap, int corpus, int position)
{
	dsa_text_printf(text, "{\"documents\":%d,\"cells\":\"", dsa_overlap_documents(overlap, corpus, position));
	for (int i = 0; i < overlap->layers; i++) {
		for (int j = i; j < overlap->layers; j++) {
			struct dsa_interval interval = dsa_overlap_interval(overlap, corpus, position, i, j);
			put_share(text, dsa_overlap_at(overlap, corpus, position, i, j));
			put_share(text, interval.low);
			put_share(text, interval.high);
		}
	}
	dsa_text_add(text, "\"}");
}

/* Buckets that any corpus has, ascending, behind -1 for all; returns their number. */
static int list_positions(const struct dsa_overlap *overlap, int positions[DSA_OVERLAP_SLOTS])
{
	int count = 0;
	positions[count++] = -1;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
		bool any = false;
		for (int c = 0; c < overlap->corpora && !any; c++)
			any = dsa_overlap_queries(overlap, c, p) > 0;
		if (any)
			positions[count++] = p;
	}
	return count;
}

static void put_switch(struct dsa_text *text, const struct dsa_results *results, int corpora, const int *positions,
                       int count)
{
	dsa_text_add(text, "<p class=\"switch\" id=\"overlap-switch\" hidden=\"hidden\">\n"
	                   "<label for=\"overlap-corpus\">Corpus</label> <select id=\"overlap-corpus\">");
	for (int c = 0; c < corpora; c++) {
		dsa_text_add(text, "<option dir=\"auto\">");
		dsa_text_markup_cut(text, results->corpora[c].name, 40);
		dsa_text_add(text, "</option>");
	}
	dsa_text_add(text, "</select>\n<label for=\"overlap-positions\">Positions</label> "
	                   "<select id=\"overlap-positions\"><option>all positions</option>");
	for (int p = 1; p < count; p++) {
		int64_t from = (int64_t)results->overlap.topk << positions[p];
		dsa_text_add(text, "<option>positions ");
		html_count(text, from);
		if (positions[p] == DSA_POSITION_BUCKETS - 1) {
			dsa_text_add(text, " and on");
		} else {
			dsa_text_add(text, " to ");
			html_count(text, 2 * from - 1);
		}
		dsa_text_add(text, "</option>");
	}
	dsa_text_add(text, "</select></p>\n"
	                   "<p class=\"readout\" id=\"overlap-readout\" role=\"status\" hidden=\"hidden\"></p>\n");
}

static void put_table(struct dsa_text *text, const struct dsa_results *results, int corpus)
{
	const struct dsa_overlap *overlap = &results->overlap;
	struct dsa_text label = {0};
	dsa_text_add(text, "<details class=\"matrix long\">\n<summary>Values: ");
	html_name(text, results->corpora[corpus].name);
	dsa_text_printf(&label, "Overlap values %d", corpus + 1);
	dsa_text_add(text, ", all positions</summary>\n");
	html_figure_begin(text, NULL, label.data ? label.data : "");
	text->failed |= label.failed;
	dsa_text_release(&label);
	dsa_text_add(text, "<table>\n<thead><tr><th scope=\"col\">i, j</th>");
	for (int j = 0; j < overlap->layers; j++)
		dsa_text_printf(text, "<th scope=\"col\">%d</th>", j);
	dsa_text_add(text, "</tr></thead>\n<tbody>\n");
	for (int i = 0; i < overlap->layers; i++) {
		dsa_text_printf(text, "<tr><th scope=\"row\">%d</th>", i);
		for (int j = 0; j < overlap->layers; j++) {
			double value = dsa_overlap_at(overlap, corpus, -1, i, j);
			if (isfinite(value))
				dsa_text_printf(text, "<td>%.3f</td>", value);
			else
				dsa_text_add(text, "<td>–</td>");
		}
		dsa_text_add(text, "</tr>\n");
	}
	html_table_end(text);
	dsa_text_add(text, "</details>\n");
}

void html_overlap(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_overlap *overlap = &results->overlap;
	int64_t square = (int64_t)overlap->layers * overlap->layers, triangle = square / 2 + overlap->layers;
	int positions[DSA_OVERLAP_SLOTS], corpora = 0;
	if (!overlap->corpora)
		return;
	int count = list_positions(overlap, positions);
	html_section(text, "overlap", "Overlap of selections");
	dsa_text_add(text,
	             "<p class=\"soft\">|T<sub>i</sub> ∩ T<sub>j</sub>| / K, mean over scored positions: how alike "
	             "what two layers select is. A diagnosis, not the judge: patterns are chosen by the output "
	             "alone. Boxes are the segments that one indexer serves.</p>\n");
	if (square > MOST_DRAWN_CELLS) {
		dsa_text_add(text,
		             "<p class=\"soft\">Too many layers to draw here: the values are in overlap.csv.</p>\n"
		             "</section>\n");
		return;
	}
	/* As many corpora as fit behind the switches, whole. */
	while (corpora < overlap->corpora && (corpora + 1) * count * triangle <= MOST_KEPT_CELLS)
		corpora++;
	if (!corpora)
		corpora = 1;
	put_switch(text, results, corpora, positions, count);
	html_figure_begin(text, "overlap-map", "Overlap of selections, layer by layer");
	dsa_svg_overlap(text, results, 0, false);
	dsa_text_add(text, "</div>\n<noscript><p class=\"soft\">Drawn: ");
	html_name(text, results->corpora[0].name);
	dsa_text_add(text, ", all positions. Other corpora and positions need this page's script, or overlap.csv.</p>"
	                   "</noscript>\n");
	for (int c = 0; c < corpora && (c + 1) * square <= MOST_TABLE_CELLS; c++)
		put_table(text, results, c);
	dsa_text_add(text, "<p class=\"soft\">Values and 95% intervals over documents, of every corpus and position "
	                   "bucket, are in overlap.csv");
	dsa_text_add(text, corpora < overlap->corpora ? ", those of further corpora only there.</p>\n" : ".</p>\n");
	dsa_text_printf(text, "<script type=\"application/json\" id=\"overlap-data\">{\"layers\":%d,\"sets\":[",
	                overlap->layers);
	for (int c = 0; c < corpora; c++) {
		dsa_text_add(text, c ? ",[" : "[");
		for (int p = 0; p < count; p++) {
			if (p)
				dsa_text_add(text, ",");
			if (dsa_overlap_queries(overlap, c, positions[p]))
				put_set(text, overlap, c, positions[p]);
			else
				dsa_text_add(text, "null");
		}
		dsa_text_add(text, "]");
	}
	dsa_text_add(text, "]}</script>\n</section>\n");
}
