/* The search in tables: its steps, every candidate of each, what exchanging layers found, each layer alone. */
#include <math.h>
#include <string.h>

#include "dsa/pattern.h"
#include "dsa/svg.h"
#include "html_parts.h"

/* A row takes about 110 bytes; 78 layers to the last have 3003. */
enum { MOST_CANDIDATES = 4000 };

static const struct dsa_candidate *runner_up(const struct dsa_step *step)
{
	const struct dsa_candidate *second = NULL;
	for (int c = 0; c < step->candidate_count; c++)
		/* Who left a race early has figures over fewer documents, which do not compare. */
		if (step->candidates[c].layer != step->flip && isnan(step->candidates[c].bound) &&
		    (!second || step->candidates[c].objective < second->objective))
			second = &step->candidates[c];
	return second;
}

void html_steps(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {"Step", "flip",  "kept",       "KL",        "held-out KL",
	                               "ΔNLL", "top-1", "candidates", "runner-up", "bounds"};
	const struct dsa_trace *trace = &results->trace;
	if (!trace->count)
		return;
	HTML_TABLE_BEGIN(text, "Steps of the search", columns);
	for (int i = 0; i < trace->count; i++) {
		const struct dsa_step *step = &trace->steps[i];
		const struct dsa_candidate *second = runner_up(step);
		bool emitted = !strcmp(step->pattern, results->pattern);
		dsa_text_add(text, emitted              ? "<tr class=\"emitted\">"
		                   : i > trace->emitted ? "<tr class=\"past\">"
		                                        : "<tr>");
		html_int_head(text, step->step);
		html_int_cell(text, step->flip);
		html_int_cell(text, results->layers - dsa_pattern_shared(step->pattern));
		html_measure_cell(text, step->calibration.kl, step->calibration.kl_se);
		html_measure_cell(text, step->heldout.documents ? step->heldout.kl : NAN, step->heldout.kl_se);
		html_figure_cell(text, step->calibration.nll_delta);
		html_percent_cell(text, step->calibration.top1);
		html_int_cell(text, step->candidate_count);
		dsa_text_add(text, "<td>");
		if (second) {
			dsa_text_printf(text, "%d: ", second->layer);
			dsa_text_figure(text, second->kl);
		} else {
			dsa_text_add(text, "–");
		}
		dsa_text_add(text, "</td>");
		html_bound_cell(text, step->broken, emitted);
		dsa_text_add(text, "</tr>\n");
	}
	html_table_end(text);
}

/* An NLL differs from its neighbours' behind the third digit. */
static void nll_cell(struct dsa_text *text, double nll)
{
	if (isfinite(nll))
		dsa_text_printf(text, "<td>%.5f</td>", nll);
	else
		dsa_text_add(text, "<td>–</td>");
}

/* "dropped" where it was worse beyond doubt, "race over" where the race ended within epsilon. */
static void candidate_rows(struct dsa_text *text, const struct dsa_results *results, const struct dsa_step *step)
{
	for (int c = 0; c < step->candidate_count; c++) {
		const struct dsa_candidate *candidate = &step->candidates[c];
		bool committed = candidate->layer == step->flip;
		dsa_text_add(text, committed ? "<tr class=\"emitted\">" : "<tr>");
		html_int_head(text, candidate->layer);
		html_measure_cell(text, candidate->kl, candidate->kl_se);
		if (results->objective == DSA_OBJECTIVE_NLL)
			html_figure_cell(text, candidate->objective);
		nll_cell(text, candidate->nll);
		html_int_cell(text, candidate->documents);
		dsa_text_add(text, committed                 ? "<td>committed</td>"
		                   : isnan(candidate->bound) ? "<td>to the end</td>"
		                   : candidate->bound > 0    ? "<td>dropped</td>"
		                                             : "<td>race over</td>");
		dsa_text_add(text, "</tr>\n");
	}
}

static void candidate_table(struct dsa_text *text, const struct dsa_results *results, const struct dsa_step *step,
                            const char *label)
{
	const char *const by_kl[] = {"Layer", "KL", "NLL", "documents", "outcome"};
	const char *const by_nll[] = {"Layer", "KL", "objective", "NLL", "documents", "outcome"};
	if (results->objective == DSA_OBJECTIVE_NLL)
		HTML_TABLE_BEGIN(text, label, by_nll);
	else
		HTML_TABLE_BEGIN(text, label, by_kl);
	candidate_rows(text, results, step);
	html_table_end(text);
}

void html_candidates(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_trace *trace = &results->trace;
	int rows = 0;
	if (!trace->count)
		return;
	dsa_text_add(text, "<details class=\"long\">\n<summary>Every candidate of every step</summary>\n");
	for (int i = 0; i < trace->count; i++) {
		const struct dsa_step *step = &trace->steps[i];
		struct dsa_text label = {0};
		rows += step->candidate_count;
		if (rows > MOST_CANDIDATES) {
			dsa_text_add(text, "<p class=\"soft\">Those of the further steps are in trace.csv.</p>\n");
			break;
		}
		dsa_text_printf(&label, "Candidates of step %d", step->step);
		dsa_text_printf(text, "<details class=\"long\">\n<summary>Step %d: layer %d of %d candidates, KL ",
		                step->step, step->flip, step->candidate_count);
		html_measure(text, step->calibration.kl, step->calibration.kl_se);
		dsa_text_add(text, "</summary>\n");
		candidate_table(text, results, step, label.data ? label.data : "");
		dsa_text_add(text, "</details>\n");
		text->failed |= label.failed;
		dsa_text_release(&label);
	}
	dsa_text_add(text, "</details>\n");
}

static const struct dsa_step *step_with(const struct dsa_trace *trace, int shared)
{
	for (int i = 0; i < trace->count; i++)
		if (dsa_pattern_shared(trace->steps[i].pattern) == shared)
			return &trace->steps[i];
	return NULL;
}

void html_refined(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {
	    "Kept", "greedy KL", "refined KL", "difference", "greedy held-out KL", "refined held-out KL", "bounds"};
	const struct dsa_refinement *refinement = &results->refinement;
	if (!refinement->count)
		return;
	dsa_text_add(text, "<h3>Better than greedy at the same number of indexers</h3>\n");
	HTML_TABLE_BEGIN(text, "Patterns found by exchanging layers", columns);
	for (int i = 0; i < refinement->count; i++) {
		const struct dsa_refined *refined = &refinement->best[i];
		const struct dsa_step *step = step_with(&results->trace, refined->shared);
		bool emitted = !strcmp(refined->pattern, results->pattern);
		dsa_text_add(text, emitted ? "<tr class=\"emitted\">" : "<tr>");
		html_int_head(text, results->layers - refined->shared);
		html_figure_cell(text, step ? step->calibration.kl : NAN);
		html_measure_cell(text, refined->calibration.kl, refined->calibration.kl_se);
		html_measure_cell(text, refined->difference, refined->difference_se);
		html_figure_cell(text, step && step->heldout.documents ? step->heldout.kl : NAN);
		html_measure_cell(text, refined->heldout.documents ? refined->heldout.kl : NAN, refined->heldout.kl_se);
		html_bound_cell(text, refined->broken, emitted);
		dsa_text_add(text, "</tr>\n");
	}
	html_table_end(text);
}

void html_sensitivity(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {"Layer", "KL alone", "NLL", "documents", "in the pattern"};
	if (!results->trace.count || !results->trace.steps[0].candidate_count)
		return;
	const struct dsa_step *step = &results->trace.steps[0];
	html_section(text, "sensitivity", "Sensitivity of each layer");
	dsa_text_add(text,
	             "<p class=\"soft\">Mean KL when this layer alone shares: the candidates of step 1. Solid bars, F: "
	             "kept full in the pattern; hollow ones, S: shared there.</p>\n");
	html_figure_begin(text, NULL, "Sensitivity by layer");
	dsa_svg_sensitivity(text, results, false);
	dsa_text_add(text, "</div>\n<details>\n<summary>Values: sensitivity.csv</summary>\n");
	HTML_TABLE_BEGIN(text, "KL of each layer shared alone", columns);
	for (int c = 0; c < step->candidate_count; c++) {
		const struct dsa_candidate *candidate = &step->candidates[c];
		dsa_text_add(text, "<tr>");
		html_int_head(text, candidate->layer);
		html_measure_cell(text, candidate->kl, candidate->kl_se);
		nll_cell(text, candidate->nll);
		html_int_cell(text, candidate->documents);
		dsa_text_printf(text, "<td>%s</td></tr>\n",
		                results->pattern[candidate->layer] == 'F' ? "F, full" : "S, shared");
	}
	html_table_end(text);
	dsa_text_add(text, "</details>\n</section>\n");
}
