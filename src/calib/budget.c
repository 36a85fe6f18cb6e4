/* What a quality budget says about measured figures. */
#include <stddef.h>

#include "dsa/pattern.h"
#include "dsa/search.h"

const char *dsa_bound_name(enum dsa_bound bound)
{
	static const char *const names[] = {
	    [DSA_BOUND_NONE] = "none",
	    [DSA_BOUND_KL] = "budget-kl",
	    [DSA_BOUND_NLL] = "budget-nll",
	    [DSA_BOUND_TOP1] = "min-top1",
	    [DSA_BOUND_KL_P99] = "budget-kl-p99",
	    [DSA_BOUND_MAX_SHARED] = "max-shared",
	    [DSA_BOUND_HELDOUT] = "heldout",
	    [DSA_BOUND_ALL_SHARED] = "all-shared",
	};
	return names[bound];
}

/* Written so that NaN, which compares false, breaks an active bound and is no active bound itself. */
static bool above(double value, double bound)
{
	return bound >= 0 && !(value <= bound);
}

static bool below(double value, double bound)
{
	return bound >= 0 && !(value >= bound);
}

enum dsa_bound dsa_budget_broken(const struct dsa_budget *budget, const struct dsa_quality *quality,
                                 const char *pattern)
{
	if (quality->documents > 0) {
		if (above(quality->kl, budget->kl))
			return DSA_BOUND_KL;
		if (above(quality->nll_delta, budget->nll))
			return DSA_BOUND_NLL;
		if (below(quality->top1, budget->top1))
			return DSA_BOUND_TOP1;
		if (above(quality->kl_p99, budget->kl_p99))
			return DSA_BOUND_KL_P99;
	}
	if (budget->max_shared >= 0 && dsa_pattern_shared(pattern) > budget->max_shared)
		return DSA_BOUND_MAX_SHARED;
	return DSA_BOUND_NONE;
}

enum dsa_bound dsa_budget_check(const struct dsa_budget *budget, const struct dsa_measure *measure, int topk,
                                const char *pattern)
{
	struct dsa_quality quality;
	if (budget->scope == DSA_SCOPE_MEAN) {
		dsa_measure_quality(measure, DSA_ALL_CORPORA, topk, &quality);
		return dsa_budget_broken(budget, &quality, pattern);
	}
	enum dsa_bound first = DSA_BOUND_NONE;
	for (int c = 0; c < measure->corpora; c++) {
		dsa_measure_quality(measure, c, topk, &quality);
		enum dsa_bound broken = dsa_budget_broken(budget, &quality, pattern);
		if (broken != DSA_BOUND_NONE && (first == DSA_BOUND_NONE || broken < first))
			first = broken;
	}
	return first;
}

enum dsa_bound dsa_budget_judge(const struct dsa_budget *budget, const struct dsa_measure *calibration,
                                const struct dsa_measure *heldout, int topk, const char *pattern)
{
	enum dsa_bound broken = dsa_budget_check(budget, calibration, topk, pattern);
	if (broken == DSA_BOUND_NONE && dsa_budget_check(budget, heldout, topk, pattern) != DSA_BOUND_NONE)
		return DSA_BOUND_HELDOUT;
	return broken;
}
