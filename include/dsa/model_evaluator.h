/* model_evaluator.h: the evaluator that runs a model: batches of a spool through the forward pass.
 *
 * Savings of method.md that change no number: a pattern starts behind the longest prefix whose state is kept, positions
 * below K are run once per batch, S layers run no indexer, the reference's final hidden states are kept for the head
 * products. What the state pool cannot hold is run again. The candidates of an ask advance together, layer by layer, so
 * that a layer is visited once for all of them and prefixes they share are run once even where no state is kept.
 * `naive` switches all of it off; the bits are the same. */
#ifndef DSA_MODEL_EVALUATOR_H
#define DSA_MODEL_EVALUATOR_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "dsa/evaluator.h"
#include "dsa/log.h"
#include "dsa/model.h"
#include "dsa/spool.h"
#include "dsa/status.h"

struct dsa_model_evaluator_options {
	size_t host_memory; /* bytes of memory that the state pool may take */
	/* What memory has no room for goes to a file in this directory, at most `spill` bytes of it; 0: it is run
	 * again. spill_zstd: compressed. Change no figure. */
	const char *spill_directory;
	uint64_t spill;
	bool spill_zstd;
	size_t overlap_memory; /* device bytes for selections of all layers; 0: DSA_OVERLAP_BYTES. Changes no figure */
	int wave; /* candidates that advance together (dsa_plan_wave), each in a stream of its own on the device; ≤ 0 or
	           * more than DSA_TOGETHER: that many */
	int patterns; /* most that one question has, for which memory is taken; more are asked in turn. 0: any number */
	const bool *fixed; /* (layers) that no question flips: no states are kept in front of them; NULL: none. Changes
	                    * no figure */
	bool naive;
	const bool *mine; /* (batches) what will be asked of this evaluator: states of no others are kept; NULL: all.
	                   * Changes no figure */
	const volatile sig_atomic_t *stop; /* set by a signal handler; may be NULL */
	const struct dsa_log *log;
};

/* Borrows model and spool, which must outlive it. reference: the pattern measured against (model.config.native). */
DSA_CHECKED enum dsa_status dsa_model_evaluator_open(struct dsa_evaluator **out, struct dsa_model *model,
                                                     const struct dsa_spool *spool, const char *reference,
                                                     const struct dsa_model_evaluator_options *options,
                                                     struct dsa_error *err);

/* The shape of a spool's evaluator without a model (solve, tests). Memory from arena. */
DSA_CHECKED enum dsa_status dsa_evaluator_shape_of(struct dsa_evaluator_shape *shape, const struct dsa_spool *spool,
                                                   int layers, int topk, const char *reference, struct dsa_arena *arena,
                                                   struct dsa_error *err);

#endif
