/* The sentence on top of the page, in plain text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/html.h"
#include "dsa/pattern.h"

static const struct dsa_quality *judged(const struct dsa_quality *calibration, const struct dsa_quality *heldout,
                                        bool on_heldout)
{
	return on_heldout ? heldout : calibration;
}

/* The other pattern, measured on the same documents, whose number of S layers is nearest; NULL when there is none. */
static const struct dsa_result_baseline *nearest_baseline(const struct dsa_results *results, bool on_heldout)
{
	const struct dsa_result_baseline *best = NULL;
	int shared = dsa_pattern_shared(results->pattern), distance = results->layers + 1;
	for (int i = 0; i < results->baseline_count; i++) {
		const struct dsa_result_baseline *baseline = &results->baselines[i];
		int away = abs(dsa_pattern_shared(baseline->pattern) - shared);
		bool measured = judged(&baseline->calibration, &baseline->heldout, on_heldout)->documents > 0;
		if (measured && away < distance && strcmp(baseline->pattern, results->pattern) != 0) {
			best = baseline;
			distance = away;
		}
	}
	return best;
}

static const char *stop_reason(enum dsa_bound bound)
{
	switch (bound) {
	case DSA_BOUND_KL:
		return "One more shared layer would break the mean KL budget.";
	case DSA_BOUND_NLL:
		return "One more shared layer would break the ΔNLL budget.";
	case DSA_BOUND_TOP1:
		return "One more shared layer would break the top-1 agreement asked for.";
	case DSA_BOUND_KL_P99:
		return "One more shared layer would break the budget for the 99th percentile of KL.";
	case DSA_BOUND_MAX_SHARED:
		return "No more shared layers were allowed.";
	case DSA_BOUND_HELDOUT:
		return "One more shared layer would hold on the calibration documents, but not on the held-out ones.";
	case DSA_BOUND_ALL_SHARED:
		return "Every layer that may share does.";
	case DSA_BOUND_NONE:
		break;
	}
	return "";
}

static void compare(struct dsa_text *text, const struct dsa_results *results, bool on_heldout)
{
	const struct dsa_result_baseline *baseline = nearest_baseline(results, on_heldout);
	double own = judged(&results->quality, &results->heldout, on_heldout)->kl;
	if (!baseline)
		return;
	double other = judged(&baseline->calibration, &baseline->heldout, on_heldout)->kl;
	if (!(own > 0) || !isfinite(other))
		return;
	dsa_text_add(text, "; the baseline ");
	/* A name is the user's: shortened, so that a sentence stays one. */
	for (const char *at = baseline->name, *end = at; *at && end - baseline->name < 40; at = end) {
		dsa_utf8_next(&end);
		dsa_text_bytes(text, at, (size_t)(end - at));
	}
	dsa_text_printf(text, ", with %d kept, moves it by ", results->layers - dsa_pattern_shared(baseline->pattern));
	dsa_text_figure(text, other);
	double ratio = other / own;
	if (ratio >= 10)
		dsa_text_printf(text, ", %.0f times as far", ratio);
	else
		dsa_text_printf(text, ", %.1f times as far", ratio);
}

const char *dsa_verdict_reason(const struct dsa_results *results)
{
	return stop_reason(results->trace.stopped_by);
}

void dsa_verdict_write(struct dsa_text *text, const struct dsa_results *results)
{
	int shared = dsa_pattern_shared(results->pattern), native = dsa_pattern_shared(results->reference);
	bool heldout = results->heldout.documents > 0;
	const struct dsa_quality *quality = judged(&results->quality, &results->heldout, heldout);
	double budget = results->budget.kl;
	if (!strcmp(results->pattern, results->reference)) {
		dsa_text_printf(text, "No layer beyond the %d that share already could be shared", native);
	} else {
		dsa_text_printf(
		    text, "%d of %d layers can share the selection of a layer before them, so %d of %d indexers run",
		    shared, results->layers, results->layers - shared, results->layers - native);
	}
	if (quality->documents) {
		dsa_text_printf(text, ": on %d %s documents this moves the output by a mean KL of ", quality->documents,
		                heldout ? "held-out" : "calibration");
		dsa_text_figure(text, quality->kl);
		if (isfinite(quality->kl_se)) {
			dsa_text_add(text, " ± ");
			dsa_text_error(text, quality->kl_se);
		}
		dsa_text_add(text, " nats per token");
		if (budget >= 0) {
			dsa_text_add(text, quality->kl <= budget ? ", within the budget of " : ", over the budget of ");
			dsa_text_figure(text, budget);
		}
		compare(text, results, heldout);
	}
	dsa_text_add(text, ".");
}
