/* expectation.h: what a calibration will probably cost, where plan.h says what it may cost at most.
 *
 * A plan counts exact greedy to the last layer. What ends a search early, what a race spares and what refinement takes
 * depends on figures that nobody has measured yet, so it is supposed here, by rules that method.md states with where
 * they come from: none follows from the model or its documents. Pure functions; token-layers and products as in plan.h,
 * as real numbers because a search's order of flips is averaged over: every order is taken to be as likely. */
#ifndef DSA_EXPECTATION_H
#define DSA_EXPECTATION_H

#include <stdbool.h>

#include "dsa/evaluator.h"
#include "dsa/metrics.h"
#include "dsa/plan.h"

/* How the command is supposed to go. */
struct dsa_course {
	int steps;           /* of the search, 0 … candidates */
	double raced;        /* share of the questions that a race still asks; 1: exact */
	double refine_work;  /* as the option; 0: no refinement */
	double base_kept;    /* share of the layers of the base's path in front of which states are kept, 0 … 1 */
	double flips_kept;   /* … and of its candidates */
	int baselines, wave; /* as for dsa_plan_calibrate */
};

struct dsa_expectation {
	double evaluations;  /* patterns of the search, each over all calibration documents */
	double token_layers; /* work.token_layers */
	double refine_token_layers;
	/* The whole command: as in struct dsa_plan. */
	double whole, head;
	double suffix, suffix_shared; /* token-layers over positions ≥ K, and how many of them on shared layers */
	/* Refinement, not in those above; repeats of states that are not kept are in its suffix. */
	double refine_head, refine_suffix, refine_shared;
};

/* Searches with savings; locked (L) may be NULL. */
void dsa_expect_calibrate(struct dsa_expectation *out, const struct dsa_evaluator_shape *shape, const bool *locked,
                          const struct dsa_course *course);
/* Steps of a search: all `candidates` where nothing can stop it (full), no more than `deepest` (negative: no such
 * bound), and with a bound on quality the step behind two thirds of the candidates, which breaks it. */
int dsa_expect_steps(int candidates, bool full, int deepest, bool bounded);
/* Share of a raced step's candidate-documents that are asked, of N calibration documents: √(DSA_RACE_DOCUMENTS / N), at
 * most 1; by KL, where certain bounds need no sample, at most 0.25 from 8 documents on (method.md, What --dry-run
 * expects). */
double dsa_expect_raced(int documents, enum dsa_objective objective);
/* Without and with refinement; the plan's rates. */
double dsa_expect_seconds(const struct dsa_expectation *expectation, const struct dsa_plan_rates *rates, bool refined);

#endif
