#include <math.h>

#include "dsa/svg.h"
#include "svg_parts.h"

enum { LEFT = 66, RIGHT = 836, TOP = 14, BOTTOM = 184, HEIGHT = 248 };

void dsa_svg_sensitivity(struct dsa_text *text, const struct dsa_results *results, bool standalone)
{
	if (!results->trace.count)
		return;
	const struct dsa_step *step = &results->trace.steps[0];
	struct svg_log_axis axis = {.low = INFINITY, .high = -INFINITY};
	for (int i = 0; i < step->candidate_count; i++)
		svg_log_take(&axis, step->candidates[i].kl);
	svg_log_take(&axis, results->noise_floor);
	svg_log_settle(&axis, BOTTOM, TOP);
	svg_open(text, HEIGHT, "Mean KL divergence of sharing one layer alone", standalone);
	svg_log_draw(text, &axis, LEFT, RIGHT);
	double slot = (double)(RIGHT - LEFT) / results->layers, bar = slot * 0.72;
	for (int i = 0; i < step->candidate_count; i++) {
		const struct dsa_candidate *candidate = &step->candidates[i];
		if (!(candidate->kl > 0))
			continue;
		double y = svg_log_y(&axis, candidate->kl);
		dsa_text_printf(text,
		                "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" class=\"%s\"><title>layer "
		                "%d alone: KL ",
		                LEFT + candidate->layer * slot + (slot - bar) / 2, y, bar, BOTTOM - y,
		                results->pattern[candidate->layer] == 'F' ? "full" : "shared", candidate->layer);
		dsa_text_figure(text, candidate->kl);
		if (isfinite(candidate->kl_se)) {
			dsa_text_add(text, " ± ");
			dsa_text_error(text, candidate->kl_se);
		}
		dsa_text_add(text, results->pattern[candidate->layer] == 'F' ? "; kept full</title></rect>\n"
		                                                             : "; shared</title></rect>\n");
	}
	/* What became of each layer, in letters: the bars say it by colour and outline only. */
	for (int l = 0; l < results->layers && slot >= 8; l++)
		svg_label(text, LEFT + (l + 0.5) * slot, BOTTOM + 14,
		          results->pattern[l] == 'F' ? "strong tiny" : "soft tiny", "middle",
		          results->pattern[l] == 'F' ? "F" : "S");
	svg_layer_ticks(text, LEFT, BOTTOM + 31, slot, results->layers);
	svg_label(text, (LEFT + RIGHT) / 2.0, HEIGHT - 12, "soft", "middle", "layer");
	dsa_text_printf(text,
	                "<text x=\"16\" y=\"%d\" transform=\"rotate(-90 16 %d)\" class=\"soft\" "
	                "text-anchor=\"middle\">mean KL, nats</text>\n",
	                (TOP + BOTTOM) / 2, (TOP + BOTTOM) / 2);
	svg_close(text);
}
