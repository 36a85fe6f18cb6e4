/* calibration.h: the main job in order: overlap and base, noise floor, budget check, baselines, search, emission.
 *
 * It knows an evaluator (usually the journal's) and fills struct dsa_results; files, terminals and models are others'
 * affair. Run again over a full journal it gives the same results without asking a model: that is what resume and solve
 * are. */
#ifndef DSA_CALIBRATION_H
#define DSA_CALIBRATION_H

#include "dsa/log.h"
#include "dsa/results.h"

struct dsa_calibration_options {
	struct dsa_search_options search;
	/* Racing: share of the KL budget (of the NLL budget for that objective) that search.epsilon is made of; where
	 * none was given, of the default one. NaN: search.epsilon holds as it is. */
	double epsilon_share;
	/* Refinement may cost this share of the search's token-layers; NaN or 0: none is done. */
	double refine_work;
	/* (refined_count) ascending by S layers: what a refinement found before, to be measured instead of doing one.
	 */
	const char *const *refined;
	int refined_count;
	bool budget_given;            /* false: mean KL ≤ max(0.01, 3 × noise floor) */
	const char *const *baselines; /* (baseline_count) patterns beside uniform-1/2 and uniform-1/4; twins once */
	int baseline_count;
	uint64_t seed;                              /* of the noise floor; 0 is taken as 1 */
	bool overlap;                               /* measure the overlap matrix */
	const struct dsa_search_progress *progress; /* may be NULL */
	const struct dsa_log *log;
};

/* Fills everything of results that comes from measuring; the caller fills names, documents read and provenance.
 * results->corpora is made here if the caller has not (then with name and weight); per corpus this fills quality, noise
 * floor and what each split holds. results->overlap stays empty (layers 0) unless asked for.
 * DSA_E_USAGE for a KL budget under the noise floor, with both numbers (scope worst: the noisiest corpus' floor), and
 * for a baseline that is no pattern of this model. The evaluator may answer DSA_E_MISSING (solve): baselines it does
 * not know are left out and the trace ends with its knowledge, *complete = false, err saying what was missing first;
 * DSA_E_MISSING only where it does not know the base or the noise floor. */
DSA_CHECKED enum dsa_status dsa_calibration_run(struct dsa_results *results, struct dsa_evaluator *evaluator,
                                                const struct dsa_calibration_options *options, struct dsa_arena *arena,
                                                bool *complete, struct dsa_error *err);
/* evaluate: one pattern against the reference on every document of both splits together; fills base, quality, corpora
 * (both splits in `calibration`), work. DSA_E_USAGE for an impossible pattern. */
DSA_CHECKED enum dsa_status dsa_calibration_evaluate(struct dsa_results *results, struct dsa_evaluator *evaluator,
                                                     const char *pattern, struct dsa_arena *arena,
                                                     struct dsa_error *err);
/* Adds the overlap of the reference's selections on one batch; overlap is initialised for the evaluator's shape. */
DSA_CHECKED enum dsa_status dsa_calibration_overlap(struct dsa_overlap *overlap, struct dsa_evaluator *evaluator,
                                                    int batch, struct dsa_error *err);
/* The first bound that evaluate's figures break, by the budget's scope; NONE if all hold. */
enum dsa_bound dsa_calibration_gate(const struct dsa_results *results, const struct dsa_budget *budget);

#endif
