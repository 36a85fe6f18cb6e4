/* What flips of the base in hand cost so far, which foretells what will be flipped next and so what is worth keeping.
 */
#include <string.h>

#include "model_evaluator_private.h"

int model_flips_layer(const struct model_evaluator *me, const char *pattern)
{
	int flip = -1;
	for (int l = 0; l < me->shape.layers; l++) {
		if (pattern[l] == me->base[l])
			continue;
		if (flip >= 0)
			return -1;
		flip = l;
	}
	return flip;
}

void model_flips_note(struct model_evaluator *me, const char *pattern, const struct dsa_row_figures *figures)
{
	const int flip = model_flips_layer(me, pattern);
	if (flip < 0)
		return;
	struct flip_cost *cost = &me->flip_cost[flip];
	for (int64_t i = 0; i < me->scored; i++)
		cost->sum += figures[i].kl;
	cost->rows += me->scored;
}

/* < 0: unknown. */
static double mean_cost(const struct model_evaluator *me, int flip)
{
	const struct flip_cost *cost = &me->flip_cost[flip];
	return cost->rows ? cost->sum / (double)cost->rows : -1;
}

/* The cheapest flip so far is the one expected to be committed. */
void model_flips_expect(struct model_evaluator *me)
{
	int best = -1;
	for (int l = 1; l < me->shape.layers; l++)
		if (mean_cost(me, l) >= 0 && (best < 0 || mean_cost(me, l) < mean_cost(me, best)))
			best = l;
	if (best > 0)
		dsa_states_expect(me->states, best);
}

enum dsa_status model_flips_rebase(struct model_evaluator *me, const char *base, struct dsa_error *err)
{
	int count = 0;
	if (!strcmp(me->base, base))
		return DSA_OK;
	for (int l = 1; l < me->shape.layers; l++) {
		if (base[l] != 'F' || mean_cost(me, l) < 0)
			continue;
		int at = count++;
		for (; at > 0 && mean_cost(me, me->likely[at - 1]) > mean_cost(me, l); at--)
			me->likely[at] = me->likely[at - 1];
		me->likely[at] = l;
	}
	enum dsa_status status = dsa_states_rebase(me->states, base, me->likely, count, err);
	if (status)
		return status;
	memcpy(me->base, base, (size_t)me->shape.layers + 1);
	memset(me->flip_cost, 0, (size_t)me->shape.layers * sizeof *me->flip_cost);
	const struct dsa_states_plan plan = dsa_states_plan(me->states);
	dsa_log_line(me->log, DSA_LOG_DEBUG, "base %s: states kept in front of %d layers of it, %d of its candidates",
	             base, plan.base, plan.candidate);
	return DSA_OK;
}
