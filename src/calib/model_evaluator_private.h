/* model_evaluator_private.h: inside the evaluator of a model: its state (model_evaluator.c), and the steps that
 * answering questions (model_question.c), taking patterns through the layers (model_wave.c), answering before anybody
 * asks (model_early.c), foretelling flips (model_flips.c) and measuring overlap (model_overlap.c) share. */
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

struct coming; /* model_early.c: a question that somebody announced */
struct answer; /* … and an answer that nobody has asked for yet */

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
	struct coming *coming; /* in the order in which they will be asked */
	struct answer *held;
	struct dsa_early early; /* .pattern NULL: answers are held here until they are asked for */
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
	int together;  /* patterns whose final hidden states wait for one comparison */
	int wave;      /* patterns that advance together through the layers */
	int hidden_of; /* the batch whose reference's hidden states are in base_hidden, or -1 */
	void *base_hidden, *candidate_hidden, *target;
	struct dsa_row_figures *figures; /* (together, most_scored) */
	int *positions;                  /* (most_scored) of one document, for the metrics */
};

/* Of the final hidden states of so many scored rows. */
static inline size_t model_hidden_bytes(const struct model_evaluator *me, int64_t rows)
{
	return (size_t)rows * (size_t)me->model->config.hidden * dsa_dtype_bytes(me->be->act);
}
static inline struct dsa_tensor model_hidden_tensor(const struct model_evaluator *me, void *data, int64_t rows)
{
	return dsa_tensor_make(data, me->be->act, rows, me->model->config.hidden);
}

/* Makes `batch` the one in hand: its documents, scored positions and targets. */
enum dsa_status model_evaluator_take_batch(struct model_evaluator *me, int batch, struct dsa_error *err);
/* Row numbers of the batch's scored positions in the pass begun. */
void model_evaluator_find_rows(struct model_evaluator *me);
/* Begins a whole pass and embeds. Keys of positions below K go to prefix if it is not NULL. */
enum dsa_status model_evaluator_begin_whole(struct model_evaluator *me, struct dsa_prefix *prefix,
                                            struct dsa_error *err);
/* What a whole run of the reference, in the stream in use, leaves behind for every later pattern of the batch. */
enum dsa_status model_evaluator_keep_reference(struct model_evaluator *me, struct kept *kept, struct dsa_error *err);
/* Prefix and hidden memory of a batch, taken when it is first run. Lack of memory only costs time. */
void model_evaluator_allow(struct model_evaluator *me, struct kept *kept);
/* The final-normed residual of the batch's scored rows, from the stream in use, to out on the device. */
enum dsa_status model_evaluator_final_hidden(struct model_evaluator *me, void *out, struct dsa_error *err);
bool model_evaluator_stopped(const struct model_evaluator *me);
enum dsa_status model_evaluator_interrupted(struct dsa_error *err);

enum keep { KEEP_NOTHING, KEEP_STATES, KEEP_WINNER };

/* Patterns of one batch in a wave. */
struct wave_part {
	int batch;
	const char *const *patterns; /* (count) */
	int count;
	bool whole; /* every position is run, with embeddings disturbed by seed */
	uint64_t seed;
	struct dsa_prefix *prefix; /* whole: to be filled, or NULL; else filled */
	enum keep keep;
	int first;                      /* pattern i is left in stream first + i */
	int64_t executed[DSA_TOGETHER]; /* token-layers run for each */
};

/* model_wave.c: runs the patterns of all parts, 1 to me->wave in all, layer by layer, leaving them behind the last
 * layer in streams, those of part p in pass p. A pattern starts behind a kept state, or takes over the stream of one
 * before it in its part where the two part. DSA_E_INTERRUPTED between layers; what was kept until then stays good. */
enum dsa_status model_wave_run(struct model_evaluator *me, struct wave_part *parts, int count, struct dsa_error *err);

/* What is asked about one batch, and how far that is answered. */
struct question {
	const char *base;
	const char *const *patterns; /* (count) distinct */
	int count, batch;
	uint64_t seed;
	const int *index;            /* (count) their numbers in the ask that sink belongs to */
	const struct dsa_sink *sink; /* NULL: nobody has asked yet */
	struct coming *owner;        /* of its texts; NULL: they are the caller's */
	int next;                    /* of the patterns, to be run */
	int64_t spent;               /* token-layers that the next one to be answered is charged with */
};

/* model_question.c: the evaluator's evaluate. */
enum dsa_status model_question_evaluate(struct dsa_evaluator *self, const struct dsa_ask *ask,
                                        const struct dsa_sink *sink, struct dsa_error *err);
/* Does the question about this pattern need no run, because it is the reference's? */
bool model_question_is_reference(const struct model_evaluator *me, const struct question *question, int index);

/* model_flips.c: a new base. What its last candidates cost tells which are likely to be next; the order only decides
 * what is kept. */
enum dsa_status model_flips_rebase(struct model_evaluator *me, const char *base, struct dsa_error *err);
/* The layer whose flip makes pattern of the base; -1 if they differ in none or in more. */
int model_flips_layer(const struct model_evaluator *me, const char *pattern);
/* Remembers what such a flip costs by the figures of the batch in hand (scored). */
void model_flips_note(struct model_evaluator *me, const char *pattern, const struct dsa_row_figures *figures);
/* Tells the pool of states whose path is worth most. */
void model_flips_expect(struct model_evaluator *me);

/* model_early.c: the evaluator's announce. */
enum dsa_status model_early_announce(struct dsa_evaluator *self, const struct dsa_coming *coming, int count,
                                     const struct dsa_early *early, struct dsa_error *err);
/* Hands out what is held of the ask's answers; what is left of it becomes *question, its memory from arena. The
 * announcement of the ask has come true. */
enum dsa_status model_early_take(struct model_evaluator *me, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                 struct question *question, struct dsa_arena *arena, struct dsa_error *err);
/* Fills questions[1 …], at most me->wave with questions[0], with announced ones that fit into the last wave of that;
 * returns how many questions there are then. None where no layer has to be brought for a visit. */
int model_early_company(struct model_evaluator *me, struct question *questions);
void model_early_release(struct question *question);
/* An answer before anybody asked: to who takes such, or it is held. stats (count) are copied. */
enum dsa_status model_early_give(struct model_evaluator *me, const struct question *question, int index,
                                 const struct dsa_doc_stats *stats, int count, int64_t executed, struct dsa_error *err);
void model_early_close(struct model_evaluator *me);

/* model_overlap.c: the evaluator's overlap. */
enum dsa_status model_evaluator_overlap(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
                                        struct dsa_error *err);

#endif
