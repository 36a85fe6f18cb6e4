/* evaluator.h: the only thing the search knows of a model: something that measures patterns on batches.
 *
 * The search asks "these patterns, on top of this base, on this batch" and gets the statistics of each document. How
 * that is done (suffix start, kept states, one by one or together, on which device or rank) is the evaluator's
 * affair and changes no number. Evaluators stack: the journal's stands in front of the model's and answers from the
 * file what it already knows; toy ones stand in for a model in tests. */
#ifndef DSA_EVALUATOR_H
#define DSA_EVALUATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/metrics.h"
#include "dsa/overlap.h"
#include "dsa/status.h"

struct dsa_evaluator_batch {
	int corpus;
	int split;            /* enum dsa_split */
	const int *documents; /* (count) document numbers, ascending order of work */
	int count;
	int64_t tokens, scored; /* ΣT and Σ scored over the documents */
	int64_t suffix;         /* Σ (T - min(K, T)): rows a candidate has to run */
};

/* What the evaluator covers: fixed when it is opened. */
struct dsa_evaluator_shape {
	int layers, topk;
	int corpora, documents, batches;
	const double *weights;                   /* (corpora) */
	const char *const *names;                /* (corpora) */
	const int *corpus_of;                    /* (documents) */
	const struct dsa_evaluator_batch *batch; /* (batches) */
	const char *reference;                   /* the pattern everything is measured against */
	bool intervals;                          /* figures of patterns are wanted with their intervals */
};

struct dsa_ask {
	const char *base;            /* the search's current pattern: candidates differ from it in little */
	const char *const *patterns; /* (count) what to measure against shape.reference */
	int count;
	int batch;
	uint64_t seed; /* ≠ 0: with disturbed embeddings (noise floor); count is then 1 */
};

/* Called once per pattern, in any order, as soon as its batch is done. stats (documents of the batch, in batch order)
 * are borrowed for the call. executed: token-layers run for it, repeats of evicted work included. */
struct dsa_sink {
	enum dsa_status (*pattern)(void *context, int index, const struct dsa_doc_stats *stats, int count,
	                           int64_t executed, struct dsa_error *err);
	enum dsa_status (*overlap)(void *context, const struct dsa_doc_overlap *overlap, int count,
	                           struct dsa_error *err);
	void *context;
};

/* A question that is about to be asked: the batch's overlap, if it says so, then the patterns (ask.count may be 0). */
struct dsa_coming {
	struct dsa_ask ask;
	bool overlap;
};

/* Takes answers before they are asked for; batch, seed and pattern say to what. */
struct dsa_early {
	enum dsa_status (*pattern)(void *context, int batch, uint64_t seed, const char *pattern,
	                           const struct dsa_doc_stats *stats, int count, int64_t executed,
	                           struct dsa_error *err);
	enum dsa_status (*overlap)(void *context, int batch, const struct dsa_doc_overlap *overlap, int count,
	                           struct dsa_error *err);
	void *context;
};

struct dsa_evaluator {
	const struct dsa_evaluator_shape *shape;
	/* DSA_E_INTERRUPTED between layers when a stop was asked for; what reached the sink stays valid.
	 * DSA_E_MISSING from an evaluator that only knows the journal. */
	enum dsa_status (*evaluate)(struct dsa_evaluator *self, const struct dsa_ask *ask, const struct dsa_sink *sink,
	                            struct dsa_error *err);
	/* Overlap of the reference's selections on a batch. */
	enum dsa_status (*overlap)(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
	                           struct dsa_error *err);
	/* What will be asked next, in that order; takes the place of what was announced before. It changes no answer:
	 * an evaluator of several ranks begins all of it at once, a model's runs together what shares the visits of
	 * layers, others have NULL here. What is announced is copied. early, which must outlive what it is told, gets
	 * answers that nobody has asked for yet; NULL: whoever announces cannot take any before they are asked for. */
	enum dsa_status (*announce)(struct dsa_evaluator *self, const struct dsa_coming *coming, int count,
	                            const struct dsa_early *early, struct dsa_error *err);
	int ahead; /* batches that are worth announcing although answers may change what is asked of them; 0: none */
	void (*close)(struct dsa_evaluator *self);
};

#endif
