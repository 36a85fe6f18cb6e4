#include <string.h>

#include "dsa/model_evaluator.h"

/* Documents of a batch, in batch order, and what they cost. */
static enum dsa_status describe_batch(struct dsa_evaluator_batch *out, const struct dsa_spool *spool,
                                      const struct dsa_batch *batch, int topk, struct dsa_arena *arena,
                                      struct dsa_error *err)
{
	int *documents = dsa_arena_alloc(arena, (size_t)batch->count, sizeof *documents, "a batch", err);
	if (!documents)
		return DSA_E_MEMORY;
	*out = (struct dsa_evaluator_batch){.corpus = batch->corpus,
	                                    .split = (int)batch->split,
	                                    .documents = documents,
	                                    .count = batch->count,
	                                    .tokens = batch->tokens,
	                                    .scored = batch->scored};
	for (int i = 0; i < batch->count; i++) {
		documents[i] = dsa_spool_order(spool, batch->first + i);
		int tokens = dsa_spool_document(spool, documents[i])->tokens;
		out->suffix += tokens > topk ? tokens - topk : 0;
	}
	return DSA_OK;
}

enum dsa_status dsa_evaluator_shape_of(struct dsa_evaluator_shape *shape, const struct dsa_spool *spool, int layers,
                                       int topk, const char *reference, struct dsa_arena *arena, struct dsa_error *err)
{
	int corpora = dsa_spool_corpora(spool), documents = dsa_spool_documents(spool),
	    batches = dsa_spool_batches(spool);
	double *weights = dsa_arena_alloc(arena, (size_t)corpora, sizeof *weights, "corpus weights", err);
	const char **names = dsa_arena_alloc(arena, (size_t)corpora, sizeof *names, "corpus names", err);
	int *corpus_of = dsa_arena_alloc(arena, (size_t)documents, sizeof *corpus_of, "documents", err);
	struct dsa_evaluator_batch *batch = dsa_arena_alloc(arena, (size_t)batches, sizeof *batch, "batches", err);
	if (!weights || !names || !corpus_of || !batch)
		return DSA_E_MEMORY;
	for (int c = 0; c < corpora; c++) {
		weights[c] = dsa_spool_corpus(spool, c)->weight;
		names[c] = dsa_arena_text(arena, dsa_spool_corpus(spool, c)->name,
		                          strlen(dsa_spool_corpus(spool, c)->name), err);
		if (!names[c])
			return DSA_E_MEMORY;
	}
	for (int d = 0; d < documents; d++)
		corpus_of[d] = dsa_spool_document(spool, d)->corpus;
	for (int b = 0; b < batches; b++) {
		enum dsa_status status = describe_batch(&batch[b], spool, dsa_spool_batch(spool, b), topk, arena, err);
		if (status)
			return status;
	}
	char *own = dsa_arena_text(arena, reference, strlen(reference), err);
	if (!own)
		return DSA_E_MEMORY;
	*shape = (struct dsa_evaluator_shape){.layers = layers,
	                                      .topk = topk,
	                                      .corpora = corpora,
	                                      .documents = documents,
	                                      .batches = batches,
	                                      .weights = weights,
	                                      .names = names,
	                                      .corpus_of = corpus_of,
	                                      .batch = batch,
	                                      .reference = own,
	                                      .intervals = true};
	return DSA_OK;
}
