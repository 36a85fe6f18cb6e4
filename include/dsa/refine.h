/* refine.h: patterns better than greedy's at the same number of S layers (method.md, Refinement).
 *
 * Greedy never takes a flip back, so at few indexers kept it runs into traps. A round of refinement takes the best
 * known pattern of one count and tries its exchanges, one S layer back to F and one F layer to S, all judged at that
 * same count. They race, with the best known pattern among them; who is ahead at the end is measured on every
 * calibration document and becomes the best known pattern if it is better beyond the paired standard error. The trace
 * is never changed: greedy's chain and the best known patterns stay apart, and no pattern kept here is worse than
 * greedy's.
 *
 * Like the search it knows an evaluator and numbers only. Its questions, and so its work, follow from figures alone;
 * memory, threads, kills and resumes change none. */
#ifndef DSA_REFINE_H
#define DSA_REFINE_H

#include "dsa/search.h"

/* A pattern better than greedy's at its count. */
struct dsa_refined {
	int shared; /* S layers, native ones included */
	const char *pattern;
	struct dsa_quality calibration, heldout;
	struct dsa_quality *by_corpus; /* (DSA_SPLITS, corpora) */
	/* Its objective less that of greedy's pattern at this count, paired; NaN: the trace has no such step. */
	double difference, difference_se;
	enum dsa_bound broken; /* as a step's */
};

struct dsa_refinement {
	struct dsa_refined *best; /* (count) ascending by shared: the counts at which greedy's was beaten */
	int count;
	int rounds;           /* begun */
	int64_t token_layers; /* counted in work beyond greedy's own */
};

/* Rounds at the count of the deepest step that holds, then one deeper, one shallower, and so on outward over the trace;
 * a count is tried again as long as that improves it. All of it costs at most share × the token-layers that work has
 * now: where the rest would not do, whoever is furthest behind leaves, and at last the rounds end. options: the
 * search's own; racing's delta and epsilon hold for each round (delta 0: nobody leaves who might still win). Memory
 * from arena. Errors as dsa_search_greedy(). */
DSA_CHECKED enum dsa_status dsa_refine(struct dsa_refinement *refinement, struct dsa_evaluator *evaluator,
                                       const struct dsa_search_options *options, const struct dsa_trace *trace,
                                       double share, struct dsa_work *work, const struct dsa_search_progress *progress,
                                       struct dsa_arena *arena, struct dsa_error *err);
/* What an earlier refinement found, measured again for another budget: of `patterns` (count), ascending by S layers,
 * those that beat greedy's at their count or lie beyond the trace. Patterns that the evaluator does not know
 * (DSA_E_MISSING) are left out, *complete = false and err saying so. No work is counted. */
DSA_CHECKED enum dsa_status dsa_refine_known(struct dsa_refinement *refinement, struct dsa_evaluator *evaluator,
                                             const struct dsa_search_options *options, const struct dsa_trace *trace,
                                             const char *const *patterns, int count, struct dsa_arena *arena,
                                             bool *complete, struct dsa_error *err);

/* The deepest pattern that holds, of the best known ones of each count: the refined one, unless it breaks a bound on
 * calibration documents that greedy's keeps; else greedy's. Returns the refined one, or NULL: trace->steps[
 * trace->emitted] or the base. Sets trace->emitted to the step of that count (the last one if the trace is shorter) and
 * trace->stopped_by to what the next deeper one breaks. */
const struct dsa_refined *dsa_refine_emit(struct dsa_trace *trace, const struct dsa_refinement *refinement);

#endif
