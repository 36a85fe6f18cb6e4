/* search.h: which layers may share: greedy flips from F to S under a quality budget.
 *
 * The search knows an evaluator and numbers; it knows no model, no file and no device, so it is tested on toy
 * objectives. Greedy step: measure every candidate (each remaining F layer flipped) on the calibration batches, take
 * the lowest objective, ties to the lower layer; stop before the first flip that breaks a bound, unless full_trace. The
 * held-out batches never choose: every committed pattern is measured on them, and only what holds on both is emitted.
 */
#ifndef DSA_SEARCH_H
#define DSA_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/metrics.h"
#include "dsa/status.h"
#include "dsa/work.h"

enum dsa_bound {
	DSA_BOUND_NONE,
	DSA_BOUND_KL,
	DSA_BOUND_NLL,
	DSA_BOUND_TOP1,
	DSA_BOUND_KL_P99,
	DSA_BOUND_MAX_SHARED,
	DSA_BOUND_HELDOUT,    /* holds on calibration, broken on held-out documents */
	DSA_BOUND_ALL_SHARED, /* nothing left to flip */
};
const char *dsa_bound_name(enum dsa_bound bound); /* "budget-kl", …: results.json's stopped_by */

enum dsa_scope { DSA_SCOPE_MEAN, DSA_SCOPE_WORST };

/* NaN / negative = not asked for. */
struct dsa_budget {
	double kl, nll, kl_p99; /* most mean KL, mean ΔNLL, p99 of KL; nats */
	double top1;            /* least top-1 agreement, 0 … 1 */
	int max_shared;         /* most S layers, native ones included; -1 = no bound */
	enum dsa_scope scope;   /* bounds hold for the macro mean, or for the worst corpus */
};

struct dsa_search_options {
	struct dsa_budget budget;
	enum dsa_objective objective;
	bool full_trace;    /* go on to the end even past a broken bound */
	bool savings;       /* false: --search naive, for the work counted only (the evaluator is opened accordingly) */
	const bool *locked; /* (L) layers that must stay F; may be NULL; layer 0 always stays */
};

struct dsa_candidate {
	int layer;
	double objective, kl, kl_se, nll;
	int documents; /* it was measured on */
};

struct dsa_step {
	int step, flip;                          /* counted from 1; the layer that became S */
	char *pattern;                           /* after it */
	struct dsa_quality calibration, heldout; /* heldout.documents = 0: no held-out documents */
	struct dsa_candidate *candidates;
	int candidate_count;
	enum dsa_bound broken; /* the first bound this pattern breaks on calibration, then held-out; NONE = it holds */
};

struct dsa_trace {
	struct dsa_step *steps;
	int count;
	int emitted; /* index into steps, -1: the base */
	enum dsa_bound stopped_by;
	struct dsa_quality base_calibration, base_heldout;
};

/* Told after every measured batch of a step, for progress; may be NULL. */
struct dsa_search_progress {
	void (*step)(void *context, int step, int candidates, int batches_done, int batches);
	void *context;
};

/* Result memory from arena. work is counted on. Interrupted: DSA_E_INTERRUPTED. With an evaluator that knows only a
 * journal, the trace ends where its knowledge ends (at a step of which some candidate is unknown) and DSA_OK is
 * returned with *complete = false. */
DSA_CHECKED enum dsa_status dsa_search_greedy(struct dsa_trace *trace, struct dsa_evaluator *evaluator,
                                              const struct dsa_search_options *options, struct dsa_work *work,
                                              const struct dsa_search_progress *progress, struct dsa_arena *arena,
                                              bool *complete, struct dsa_error *err);

/* Measures one pattern on every batch of a split. */
DSA_CHECKED enum dsa_status dsa_measure_pattern(struct dsa_measure *measure, struct dsa_evaluator *evaluator,
                                                const char *base, const char *pattern, int split, uint64_t seed,
                                                struct dsa_arena *arena, struct dsa_error *err);
/* The first bound that the pattern breaks, NONE if it holds. */
enum dsa_bound dsa_budget_check(const struct dsa_budget *budget, const struct dsa_measure *measure, int topk,
                                const char *pattern);

#endif
