/* model_evaluator_private.h: inside the evaluator of a model: its state, and the steps that measuring patterns
 * (model_evaluator.c), taking them through the layers (model_wave.c) and measuring overlap (model_overlap.c) share. */
#ifndef DSA_MODEL_EVALUATOR_PRIVATE_H
#define DSA_MODEL_EVALUATOR_PRIVATE_H

#include "dsa/forward.h"
#include "dsa/model_evaluator.h"
#include "dsa/plan.h"
#include "dsa/states.h"

/* What is kept of one batch beside its states: both are needed by every pattern asked on it. */
struct kept {
	struct dsa_prefix *prefix; /* keys of positions below K; NULL: none kept */
	void *hidden;              /* (M, D) act, the reference behind the final norm, in the backend's stash */
	bool ready;                /* both are filled */
	bool allowed;              /* the memory limit has room for them */
};

/* What a layer's flip of the base in hand cost so far. */
struct flip_cost {
	double sum; /* of the KL */
	int64_t rows;
};

struct model_evaluator {
	struct dsa_evaluator evaluator;
	struct dsa_evaluator_shape shape;
	struct dsa_arena arena;
	struct dsa_model *model;
	struct dsa_backend *be;
	const struct dsa_spool *spool;
	struct dsa_forward *forward;
	struct dsa_states *states;
	struct kept *kept; /* (batches) */
	bool naive;
	size_t overlap_memory;
	const volatile sig_atomic_t *stop;
	const struct dsa_log *log;
	/* Of the batch in hand: */
	int batch;
	struct dsa_pass_document *documents; /* (largest count) */
	int32_t *position;                   /* (largest scored) positions of its scored rows, document by document */
	int32_t *row;                        /* (largest scored) their row numbers in the current pass */
	int *scored_of;                      /* (largest count) scored rows of each document */
	int32_t *target_host;                /* (largest scored) */
	int64_t scored;
	/* What each layer's flip of the base in hand costs foretells what is flipped next. */
	char *base;                  /* (layers + 1) */
	struct flip_cost *flip_cost; /* (layers) */
	int *likely;                 /* (layers) */
	/* On the device, for the largest batch: */
	int64_t most_scored;
	int together; /* patterns whose final hidden states wait for one comparison */
	int wave;     /* patterns that advance together through the layers */
	void *base_hidden, *candidate_hidden, *target;
	struct dsa_row_figures *figures; /* (together, most_scored) */
	int *positions;                  /* (most_scored) of one document, for the metrics */
};

/* Makes `batch` the one in hand: its documents, scored positions and targets. */
enum dsa_status model_evaluator_take_batch(struct model_evaluator *me, int batch, struct dsa_error *err);
/* Row numbers of the batch's scored positions in the pass begun. */
void model_evaluator_find_rows(struct model_evaluator *me);
/* Begins a whole pass and embeds. Keys of positions below K go to prefix if it is not NULL. */
enum dsa_status model_evaluator_begin_whole(struct model_evaluator *me, struct dsa_prefix *prefix,
                                            struct dsa_error *err);
/* What a whole run of the reference leaves behind for every later pattern of the batch. */
enum dsa_status model_evaluator_keep_reference(struct model_evaluator *me, struct kept *kept, struct dsa_error *err);
/* Prefix and hidden memory of a batch, taken when it is first run. Lack of memory only costs time. */
void model_evaluator_allow(struct model_evaluator *me, struct kept *kept);
/* A new base: what its last candidates cost tells which are likely to be next. The order only decides what is kept. */
enum dsa_status model_evaluator_rebase(struct model_evaluator *me, const char *base, struct dsa_error *err);
bool model_evaluator_stopped(const struct model_evaluator *me);
enum dsa_status model_evaluator_interrupted(struct dsa_error *err);

enum keep { KEEP_NOTHING, KEEP_STATES, KEEP_WINNER };

/* model_wave.c: runs 1 to me->wave patterns on the batch in hand, layer by layer, leaving pattern i behind the last
 * layer in stream i. One starts behind a kept state, or takes over the stream of one before it where the two part; with
 * seed ≠ 0 or where nothing is kept of the batch, the passes are whole. executed (count): token-layers run for each.
 * DSA_E_INTERRUPTED between layers; what was kept until then stays good. */
enum dsa_status model_wave_run(struct model_evaluator *me, const char *const *patterns, int count, uint64_t seed,
                               enum keep keep, int64_t *executed, struct dsa_error *err);
/* The same for the reference, whole, filling prefix if it is not NULL. */
enum dsa_status model_wave_reference(struct model_evaluator *me, struct dsa_prefix *prefix, int64_t *executed,
                                     struct dsa_error *err);

/* model_overlap.c: the evaluator's overlap. */
enum dsa_status model_evaluator_overlap(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
                                        struct dsa_error *err);

#endif
