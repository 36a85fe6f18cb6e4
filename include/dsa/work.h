/* work.h: what a search costs, in token-layers: tokens × layers run, the unit that no machine changes (method.md).
 *
 * `token_layers` counts every distinct piece of work once: a pattern on a batch costs (layers behind the longest prefix
 * it shares with a pattern asked before on that batch) × its rows. That is what the run costs when no kept state is
 * ever evicted, and it depends on nothing but the sequence of questions: not on memory, threads, kills or resumes. What
 * was really executed (repeats of evicted states included) is `executed`, summed from the journal. `naive` is what the
 * published search runs: all layers, all tokens, for every question, those that a race spares too. */
#ifndef DSA_WORK_H
#define DSA_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/status.h"

struct dsa_work {
	int64_t token_layers, naive, head_tokens, executed;
	const struct dsa_evaluator_shape *shape;
	struct dsa_work_asked **asked; /* (batches + 1) patterns asked so far; the last owns the texts */
	struct dsa_arena *arena;
};

DSA_CHECKED enum dsa_status dsa_work_init(struct dsa_work *work, const struct dsa_evaluator_shape *shape,
                                          struct dsa_arena *arena, struct dsa_error *err);
/* Counts one question; asking the same again costs nothing. The first pattern of a batch runs all its tokens, later
 * ones only positions ≥ K. savings false (--search naive): everything costs its naive price. */
DSA_CHECKED enum dsa_status dsa_work_count(struct dsa_work *work, int batch, const char *pattern, bool savings,
                                           struct dsa_error *err);
/* Counts a question that the published search would ask and a race spared. */
void dsa_work_spare(struct dsa_work *work, int batch);
/* What counting this question now would add to token_layers. */
int64_t dsa_work_price(const struct dsa_work *work, int batch, const char *pattern, bool savings);

#endif
