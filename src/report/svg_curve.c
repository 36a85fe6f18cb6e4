#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/pattern.h"
#include "dsa/svg.h"
#include "svg_parts.h"

enum { LEFT = 66, RIGHT = 836, TOP = 46, BOTTOM = 356, HEIGHT = 402 };

struct chart {
	struct dsa_text *text;
	const struct dsa_results *results;
	struct svg_log_axis y;
	int low, high; /* indexers kept, at the left and right ends */
};

static int kept(const struct dsa_results *results, const char *pattern)
{
	return results->layers - dsa_pattern_shared(pattern);
}

static double x_of(const struct chart *chart, int count)
{
	return LEFT + 18 + (double)(count - chart->low) / (chart->high - chart->low) * (RIGHT - LEFT - 36);
}

static void take_pattern(struct chart *chart, const char *pattern)
{
	int count = kept(chart->results, pattern);
	chart->low = count < chart->low ? count : chart->low;
	chart->high = count > chart->high ? count : chart->high;
}

static void measure(struct chart *chart)
{
	const struct dsa_results *results = chart->results;
	chart->y = (struct svg_log_axis){.low = INFINITY, .high = -INFINITY};
	chart->low = chart->high = kept(results, results->reference);
	take_pattern(chart, results->pattern);
	if (results->quality.documents)
		svg_log_take(&chart->y, results->quality.kl);
	for (int i = 0; i < results->trace.count; i++) {
		const struct dsa_step *step = &results->trace.steps[i];
		take_pattern(chart, step->pattern);
		svg_log_take(&chart->y, step->calibration.kl);
		if (step->heldout.documents)
			svg_log_take(&chart->y, step->heldout.kl);
	}
	for (int i = 0; i < results->baseline_count; i++) {
		take_pattern(chart, results->baselines[i].pattern);
		svg_log_take(&chart->y, results->baselines[i].calibration.kl);
	}
	for (int i = 0; i < results->best_count; i++) {
		take_pattern(chart, results->best[i].pattern);
		svg_log_take(&chart->y, results->best[i].kl);
	}
	svg_log_take(&chart->y, results->noise_floor);
	svg_log_take(&chart->y, results->budget.kl);
	svg_log_settle(&chart->y, BOTTOM, TOP);
	if (chart->low == chart->high) {
		chart->low--;
		chart->high++;
	}
}

static void draw_frame(const struct chart *chart)
{
	struct dsa_text *text = chart->text;
	double noise = chart->results->noise_floor;
	if (noise > 0) {
		double y = svg_log_y(&chart->y, noise);
		dsa_text_printf(text,
		                "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" class=\"noise\"><title>noise "
		                "floor: mean KL ",
		                LEFT, y, RIGHT - LEFT, BOTTOM - y);
		dsa_text_figure(text, noise);
		dsa_text_add(text, "</title></rect>\n");
	}
	svg_log_draw(text, &chart->y, LEFT, RIGHT);
	if (noise > 0)
		svg_label(text, LEFT + 6, svg_log_y(&chart->y, noise) - 5, "soft small", "start", "noise floor");
	int span = chart->high - chart->low;
	int every = span <= 20 ? 1 : span <= 50 ? 2 : span <= 110 ? 5 : 50;
	char digits[16];
	for (int count = chart->low; count <= chart->high; count++) {
		if (count % every)
			continue;
		snprintf(digits, sizeof digits, "%d", count);
		svg_line(text, x_of(chart, count), BOTTOM, x_of(chart, count), BOTTOM + 4, "axis");
		svg_label(text, x_of(chart, count), BOTTOM + 17, "soft small", "middle", digits);
	}
	dsa_text_printf(
	    text, "<text x=\"%d\" y=\"%d\" class=\"soft\" text-anchor=\"middle\">indexers kept, of %d layers</text>\n",
	    (LEFT + RIGHT) / 2, HEIGHT - 10, chart->results->layers);
	dsa_text_printf(text,
	                "<text x=\"16\" y=\"%d\" transform=\"rotate(-90 16 %d)\" class=\"soft\" "
	                "text-anchor=\"middle\">mean KL, nats per token</text>\n",
	                (TOP + BOTTOM) / 2, (TOP + BOTTOM) / 2);
}

static void title_kl(struct dsa_text *text, int count, const char *what, double kl, double se)
{
	dsa_text_printf(text, "<title>%d kept, %s: KL ", count, what);
	dsa_text_figure(text, kl);
	if (isfinite(se)) {
		dsa_text_add(text, " ± ");
		dsa_text_error(text, se);
	}
	dsa_text_add(text, "</title>");
}

static void draw_chain(const struct chart *chart)
{
	struct dsa_text *text = chart->text;
	const struct dsa_trace *trace = &chart->results->trace;
	if (trace->count > 1) {
		dsa_text_add(text, "<polyline class=\"chain\" points=\"");
		for (int i = 0; i < trace->count; i++)
			dsa_text_printf(text, "%s%.1f,%.1f", i ? " " : "",
			                x_of(chart, kept(chart->results, trace->steps[i].pattern)),
			                svg_log_y(&chart->y, trace->steps[i].calibration.kl));
		dsa_text_add(text, "\"/>\n");
	}
	for (int i = 0; i < trace->count; i++) {
		const struct dsa_step *step = &trace->steps[i];
		int count = kept(chart->results, step->pattern);
		double x = x_of(chart, count), kl = step->calibration.kl, se = step->calibration.kl_se;
		if (se > 0)
			svg_line(text, x, svg_log_y(&chart->y, kl - se), x, svg_log_y(&chart->y, kl + se), "error");
		dsa_text_printf(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" class=\"point\">", x,
		                svg_log_y(&chart->y, kl));
		title_kl(text, count, "calibration", kl, se);
		dsa_text_add(text, "</circle>\n");
	}
	for (int i = 0; i < trace->count; i++) {
		const struct dsa_step *step = &trace->steps[i];
		int count = kept(chart->results, step->pattern);
		if (!step->heldout.documents)
			continue;
		dsa_text_printf(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" class=\"held\">", x_of(chart, count),
		                svg_log_y(&chart->y, step->heldout.kl));
		title_kl(text, count, "held-out", step->heldout.kl, step->heldout.kl_se);
		dsa_text_add(text, "</circle>\n");
	}
}

static void diamond(struct dsa_text *text, double x, double y, double r)
{
	dsa_text_printf(text, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\" class=\"other\">", x, y - r, r, r,
	                -r, r, -r, -r);
}

static void draw_others(const struct chart *chart)
{
	struct dsa_text *text = chart->text;
	const struct dsa_results *results = chart->results;
	for (int i = 0; i < results->best_count; i++) {
		const struct dsa_best *best = &results->best[i];
		bool on_chain = false;
		for (int s = 0; s < results->trace.count && !on_chain; s++)
			on_chain = !strcmp(results->trace.steps[s].pattern, best->pattern);
		if (on_chain || !(best->kl > 0))
			continue;
		double x = x_of(chart, kept(results, best->pattern)), y = svg_log_y(&chart->y, best->kl);
		dsa_text_printf(text, "<path d=\"M%.1f %.1fh8m-4 -4v8\" class=\"best\">", x - 4, y);
		title_kl(text, kept(results, best->pattern), "best known", best->kl, NAN);
		dsa_text_add(text, "</path>\n");
	}
	for (int i = 0; i < results->baseline_count; i++) {
		const struct dsa_result_baseline *baseline = &results->baselines[i];
		if (!baseline->calibration.documents)
			continue;
		int count = kept(results, baseline->pattern);
		double x = x_of(chart, count), y = svg_log_y(&chart->y, baseline->calibration.kl);
		bool left = x > (LEFT + RIGHT) / 2.0;
		diamond(text, x, y, 5);
		dsa_text_printf(text, "<title>%d kept, ", count);
		dsa_text_markup_cut(text, baseline->name, 200);
		dsa_text_add(text, ": KL ");
		dsa_text_figure(text, baseline->calibration.kl);
		dsa_text_add(text, "</title></path>\n");
		dsa_text_printf(text, "<text x=\"%.1f\" y=\"%.1f\" class=\"soft small\" text-anchor=\"%s\">",
		                left ? x + 5 : x - 5, y - 9, left ? "end" : "start");
		dsa_text_markup_cut(text, baseline->name, SVG_NAME);
		dsa_text_add(text, "</text>\n");
	}
	double budget = results->budget.kl;
	if (budget > 0) {
		double y = svg_log_y(&chart->y, budget);
		svg_line(text, LEFT, y, RIGHT, y, "budget");
		dsa_text_printf(text, "<text x=\"%d\" y=\"%.1f\" class=\"on-budget small\" text-anchor=\"end\">budget ",
		                RIGHT - 4, y - 6);
		dsa_text_figure(text, budget);
		dsa_text_add(text, "</text>\n");
	}
	if (results->quality.documents && results->quality.kl > 0) {
		int count = kept(results, results->pattern);
		double x = x_of(chart, count), y = svg_log_y(&chart->y, results->quality.kl);
		dsa_text_printf(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"8\" class=\"emitted\">", x, y);
		title_kl(text, count, "emitted", results->quality.kl, results->quality.kl_se);
		dsa_text_add(text, "</circle>\n");
	}
}

static void draw_legend(const struct chart *chart)
{
	struct dsa_text *text = chart->text;
	const double y = 18;
	svg_line(text, LEFT, y, LEFT + 22, y, "chain");
	dsa_text_printf(text, "<circle cx=\"%d\" cy=\"%.1f\" r=\"3\" class=\"point\"/>\n", LEFT + 11, y);
	svg_label(text, LEFT + 28, y + 4, "small", "start", "greedy, calibration (±1 SE)");
	dsa_text_printf(text, "<circle cx=\"%d\" cy=\"%.1f\" r=\"3.5\" class=\"held\"/>\n", LEFT + 216, y);
	svg_label(text, LEFT + 225, y + 4, "small", "start", "held-out");
	diamond(text, LEFT + 300, y, 5);
	dsa_text_add(text, "</path>\n");
	svg_label(text, LEFT + 310, y + 4, "small", "start", "baseline");
	dsa_text_printf(text, "<path d=\"M%d %.1fh8m-4 -4v8\" class=\"best\"/>\n", LEFT + 377, y);
	svg_label(text, LEFT + 391, y + 4, "small", "start", "best known");
	dsa_text_printf(text, "<circle cx=\"%d\" cy=\"%.1f\" r=\"7\" class=\"emitted\"/>\n", LEFT + 481, y);
	svg_label(text, LEFT + 494, y + 4, "small", "start", "this pattern");
}

void dsa_svg_curve(struct dsa_text *text, const struct dsa_results *results, bool standalone)
{
	struct chart chart = {.text = text, .results = results};
	measure(&chart);
	svg_open(text, HEIGHT, "Mean KL divergence against the number of indexers kept", standalone);
	draw_frame(&chart);
	draw_chain(&chart);
	draw_others(&chart);
	draw_legend(&chart);
	svg_close(text);
}
