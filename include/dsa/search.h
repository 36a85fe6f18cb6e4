/* search.h: which layers may share: greedy flips from F to S under a quality budget.
 *
 * The search knows an evaluator and numbers; it knows no model, no file and no device, so it is tested on toy
 * objectives. Greedy step: measure every candidate (each remaining F layer flipped) on the calibration batches, take
 * the lowest objective, ties to the lower layer (racing: leave a candidate when it cannot be the best, racing.h); stop
 * before the first flip that breaks a bound, unless full_trace. That flip stays in the trace, as it shows why the
 * search stopped. The held-out batches never choose: every step's pattern is measured on them, and the deepest step
 * that holds on both is emitted.
 *
 * Work counted: the candidates' questions on calibration batches and the base's run there. Held-out documents, the
 * noise floor and baselines judge the search's outcome and are no part of it, so they count neither as done nor as
 * naive. */
#ifndef DSA_SEARCH_H
#define DSA_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/metrics.h"
#include "dsa/spool.h"
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
	bool full_trace; /* go on to the end even past a broken bound */
	bool savings;    /* false: --search naive, for the work counted only (the evaluator is opened accordingly) */
	bool racing;     /* the committed flip is within epsilon of its step's best with probability 1 - delta a run */
	double delta, epsilon; /* racing's: 0 < delta < 1 for all steps together; nats, 0 or more */
	const bool *locked;    /* (L) layers that must stay F; may be NULL; layer 0 always stays */
	/* (L) how much a flip of the layer is supposed to cost before any was measured, in whatever unit: it says who
	 * runs ahead in the first step. May be NULL. */
	const double *prior;
};

struct dsa_candidate {
	int layer;
	double objective, kl, kl_se, nll;
	int documents; /* it was measured on; the flip and whoever ran to the end on all, and so exactly */
	double bound;  /* racing: lower bound of (its objective - the leader's) when it left; NaN: it ran to the end */
};

struct dsa_step {
	int step, flip;                          /* counted from 1; the layer that became S */
	char *pattern;                           /* after it */
	struct dsa_quality calibration, heldout; /* heldout.documents = 0: no held-out documents */
	struct dsa_quality *by_corpus;           /* (DSA_SPLITS, corpora) */
	struct dsa_candidate *candidates;        /* (candidate_count) ascending by layer */
	int candidate_count;
	enum dsa_bound broken; /* the first bound this pattern breaks on calibration, then held-out; NONE = it holds */
};

struct dsa_trace {
	struct dsa_step *steps;
	int count;
	int emitted; /* index into steps, -1: the base */
	/* Why the emitted pattern shares no more: what the step behind it breaks; with no step behind it MAX_SHARED,
	 * ALL_SHARED, or NONE where the knowledge of a journal ends. */
	enum dsa_bound stopped_by;
	enum dsa_bound end; /* what ended the trace if no step's break did: MAX_SHARED, ALL_SHARED, NONE */
	struct dsa_quality base_calibration, base_heldout;
	struct dsa_quality *base_by_corpus; /* (DSA_SPLITS, corpora) */
};

/* What is told meanwhile; any function may be NULL. */
struct dsa_search_progress {
	/* After every measured batch of a step, calibration batches first, then held-out ones. Step 0 is all that
	 * precedes the search: base, noise floor, baselines (dsa_calibration_run). */
	void (*step)(void *context, int step, int candidates, int batches_done, int batches);
	/* The same of a round of refinement (refine.h): exchanges still in the race, at this many S layers. */
	void (*refine)(void *context, int shared, int exchanges, int batches_done, int batches);
	void *context;
	void (*done)(void *context, const struct dsa_step *step); /* a step's figures are complete */
};

/* Result memory from arena. work is counted on, a step when it is complete. progress may be NULL. Interrupted:
 * DSA_E_INTERRUPTED. With an evaluator that knows only a journal, the trace ends where its knowledge ends (before the
 * first step of which some candidate, or the winner on held-out documents, is unknown) and DSA_OK is returned with
 * *complete = false and err naming what is missing. DSA_E_USAGE for an impossible reference, DSA_E_INPUT without
 * calibration batches, DSA_E_NUMERIC naming the candidate whose objective is not finite. */
DSA_CHECKED enum dsa_status dsa_search_greedy(struct dsa_trace *trace, struct dsa_evaluator *evaluator,
                                              const struct dsa_search_options *options, struct dsa_work *work,
                                              const struct dsa_search_progress *progress, struct dsa_arena *arena,
                                              bool *complete, struct dsa_error *err);

/* An empty measure of the evaluator's documents; memory from arena. */
DSA_CHECKED enum dsa_status dsa_measure_start(struct dsa_measure *measure, const struct dsa_evaluator_shape *shape,
                                              struct dsa_arena *arena, struct dsa_error *err);
/* Asks for (count) patterns on one batch; pattern i into measures[places[i]], into measures[i] where places is NULL. */
DSA_CHECKED enum dsa_status dsa_measure_batch(struct dsa_measure *measures, const int *places,
                                              struct dsa_evaluator *evaluator, const char *base,
                                              const char *const *patterns, int count, int batch, uint64_t seed,
                                              struct dsa_error *err);
/* Measures one pattern on every batch of a split; initialises measure. */
DSA_CHECKED enum dsa_status dsa_measure_pattern(struct dsa_measure *measure, struct dsa_evaluator *evaluator,
                                                const char *base, const char *pattern, int split, uint64_t seed,
                                                struct dsa_arena *arena, struct dsa_error *err);

/* The first bound that these figures break, in the order of enum dsa_bound; NONE if all hold. A figure that is not a
 * number breaks its bound, but figures over no documents break none. */
enum dsa_bound dsa_budget_broken(const struct dsa_budget *budget, const struct dsa_quality *quality,
                                 const char *pattern);
/* The same by scope: for the mean over the corpora, or the first bound that any corpus breaks. */
enum dsa_bound dsa_budget_check(const struct dsa_budget *budget, const struct dsa_measure *measure, int topk,
                                const char *pattern);
/* The first bound broken on calibration documents; else HELDOUT if one is on held-out ones. */
enum dsa_bound dsa_budget_judge(const struct dsa_budget *budget, const struct dsa_measure *calibration,
                                const struct dsa_measure *heldout, int topk, const char *pattern);

#endif
