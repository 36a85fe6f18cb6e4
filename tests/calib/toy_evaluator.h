/* toy_evaluator.h: an evaluator whose figures are a formula of (document, pattern), for tests of the search.
 *
 * Every document has TOY_ROWS scored rows around the mean that the formula gives. */
#ifndef DSA_TESTS_TOY_EVALUATOR_H
#define DSA_TESTS_TOY_EVALUATOR_H

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/evaluator.h"
#include "dsa/pattern.h"
#include "dsa/spool.h"

enum { TOY_TOPK = 4, TOY_ROWS = 6, TOY_TOKENS = TOY_TOPK + TOY_ROWS + 1, TOY_DOCUMENTS = 256, TOY_CORPORA = 3 };

struct toy {
	struct dsa_evaluator evaluator; /* first: callbacks get this */
	struct dsa_evaluator_shape shape;
	struct dsa_evaluator_batch batch[TOY_DOCUMENTS];
	int order[TOY_DOCUMENTS], corpus_of[TOY_DOCUMENTS], split_of[TOY_DOCUMENTS];
	double weights[TOY_CORPORA];
	const char *names[TOY_CORPORA];
	/* Mean KL of a document; ΔNLL (NULL: 2 × KL); rows of TOY_ROWS with another arg max (NULL: none). */
	double (*kl)(const struct toy *toy, int document, const char *pattern);
	double (*nll)(const struct toy *toy, int document, const char *pattern);
	int (*astray)(const struct toy *toy, int document, const char *pattern);
	const void *user;
	double noise[TOY_CORPORA]; /* KL of a question with a seed */
	double tail;               /* KL of a document's last row is this many times the formula, if not 0 */
	uint64_t seed_seen;
	/* Questions: patterns asked, and of them the candidates' (no seed, not the base itself, calibration). */
	int asked, candidates, overlaps;
	/* From the n-th call on (counted from 1, 0 = never) `failure` is returned instead of an answer. */
	int calls, fail_from;
	enum dsa_status failure;
	const char *unknown; /* this pattern is DSA_E_MISSING */
	bool poison;         /* objectives are not numbers */
};

static enum dsa_status toy_answer(struct toy *toy, const struct dsa_ask *ask, const char *pattern, int document,
                                  struct dsa_doc_stats *stats, struct dsa_arena *arena, struct dsa_error *err)
{
	struct dsa_row_figures rows[TOY_ROWS];
	int positions[TOY_ROWS];
	const double kl = ask->seed ? toy->noise[toy->corpus_of[document]] : toy->kl(toy, document, pattern);
	const double delta = toy->nll ? toy->nll(toy, document, pattern) : 2 * kl;
	const int astray = toy->astray ? toy->astray(toy, document, pattern) : 0;
	for (int r = 0; r < TOY_ROWS; r++) {
		double spread = r == TOY_ROWS - 1 && toy->tail != 0 ? toy->tail : 1 + 0.5 * (r % 3 - 1);
		positions[r] = TOY_TOPK + r;
		rows[r] = (struct dsa_row_figures){.kl = kl * spread,
		                                   .nll_base = 2 + 0.25 * document,
		                                   .nll = 2 + 0.25 * document + delta,
		                                   .top1 = r >= astray,
		                                   .finite = 1};
	}
	enum dsa_status status =
	    dsa_doc_stats_collect(stats, document, TOY_TOPK, rows, positions, TOY_ROWS, arena, err);
	if (!status && toy->poison && strcmp(pattern, toy->shape.reference) != 0)
		stats->at[0].kl = (double)NAN;
	return status;
}

static enum dsa_status toy_evaluate(struct dsa_evaluator *self, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                    struct dsa_error *err)
{
	struct toy *toy = (struct toy *)self;
	const struct dsa_evaluator_batch *batch = &toy->shape.batch[ask->batch];
	enum dsa_status status = DSA_OK;
	struct dsa_arena arena;
	if (++toy->calls >= toy->fail_from && toy->fail_from)
		return dsa_fail(err, toy->failure, "the toy stops at call %d", toy->calls);
	dsa_arena_init(&arena);
	/* Backwards: the sink takes patterns in any order. */
	for (int i = ask->count - 1; i >= 0 && !status; i--) {
		struct dsa_doc_stats stats[TOY_DOCUMENTS];
		const char *pattern = ask->patterns[i];
		if (toy->unknown && strcmp(pattern, toy->unknown) == 0) {
			status = dsa_fail(err, DSA_E_MISSING, "the toy does not know %s", pattern);
			break;
		}
		toy->asked++;
		toy->candidates += !ask->seed && batch->split == DSA_CALIBRATION && strcmp(pattern, ask->base) != 0;
		if (ask->seed)
			toy->seed_seen = ask->seed;
		for (int d = 0; d < batch->count && !status; d++)
			status = toy_answer(toy, ask, pattern, batch->documents[d], &stats[d], &arena, err);
		if (!status)
			status = sink->pattern(sink->context, i, stats, batch->count, 0, err);
	}
	dsa_arena_release(&arena);
	return status;
}

/* Neighbours share half, all others nothing. */
static enum dsa_status toy_overlap(struct dsa_evaluator *self, int index, const struct dsa_sink *sink,
                                   struct dsa_error *err)
{
	struct toy *toy = (struct toy *)self;
	const struct dsa_evaluator_batch *batch = &toy->shape.batch[index];
	const int layers = toy->shape.layers;
	struct dsa_arena arena;
	enum dsa_status status = DSA_E_MEMORY;
	toy->overlaps++;
	dsa_arena_init(&arena);
	int64_t *counts = dsa_arena_alloc(&arena, (size_t)layers * (size_t)layers, sizeof *counts, "counts", err);
	for (int i = 0; counts && i < layers; i++) {
		counts[i * layers + i] = TOY_ROWS * TOY_TOPK;
		if (i + 1 < layers)
			counts[i * layers + i + 1] = TOY_ROWS * TOY_TOPK / 2;
	}
	for (int d = 0; counts && d < batch->count; d++) {
		struct dsa_doc_overlap overlap = {
		    .document = batch->documents[d], .layers = layers, .queries = {TOY_ROWS}, .counts = {counts}};
		status = sink->overlap(sink->context, &overlap, 1, err);
		if (status)
			break;
	}
	dsa_arena_release(&arena);
	return status;
}

/* Adds a document. */
static void toy_document(struct toy *toy, int corpus, int split)
{
	assert(toy->shape.documents < TOY_DOCUMENTS && corpus < TOY_CORPORA);
	toy->corpus_of[toy->shape.documents] = corpus;
	toy->split_of[toy->shape.documents] = split;
	toy->shape.documents++;
	if (corpus >= toy->shape.corpora)
		toy->shape.corpora = corpus + 1;
}

/* Cuts batches of at most `size` documents per corpus and split, the last document first if backwards. */
static void toy_cut(struct toy *toy, int size, bool backwards)
{
	int placed = 0;
	toy->shape.batches = 0;
	for (int group = 0; group < DSA_SPLITS * toy->shape.corpora; group++) {
		struct dsa_evaluator_batch *open = NULL;
		for (int i = 0; i < toy->shape.documents; i++) {
			int d = backwards ? toy->shape.documents - 1 - i : i;
			if (toy->corpus_of[d] != group / DSA_SPLITS || toy->split_of[d] != group % DSA_SPLITS)
				continue;
			if (!open || open->count == size) {
				open = &toy->batch[toy->shape.batches++];
				*open = (struct dsa_evaluator_batch){.corpus = group / DSA_SPLITS,
				                                     .split = group % DSA_SPLITS,
				                                     .documents = &toy->order[placed]};
			}
			toy->order[placed++] = d;
			open->count++;
			open->tokens += TOY_TOKENS;
			open->scored += TOY_ROWS;
			open->suffix += TOY_TOKENS - TOY_TOPK;
		}
	}
}

/* An evaluator without documents; add them, then cut. */
static void toy_init(struct toy *toy, const char *reference,
                     double (*kl)(const struct toy *toy, int document, const char *pattern))
{
	static const char *const names[TOY_CORPORA] = {"legal", "rag", "code"};
	*toy = (struct toy){.kl = kl};
	for (int c = 0; c < TOY_CORPORA; c++) {
		toy->names[c] = names[c];
		toy->weights[c] = 1;
	}
	toy->shape = (struct dsa_evaluator_shape){.layers = (int)strlen(reference),
	                                          .topk = TOY_TOPK,
	                                          .weights = toy->weights,
	                                          .names = toy->names,
	                                          .corpus_of = toy->corpus_of,
	                                          .batch = toy->batch,
	                                          .reference = reference};
	toy->evaluator = (struct dsa_evaluator){.shape = &toy->shape, .evaluate = toy_evaluate, .overlap = toy_overlap};
}

/* `documents` calibration documents and a third as many held-out ones in each corpus, batches of two. */
static void toy_fill(struct toy *toy, int corpora, int documents)
{
	for (int i = 0; i < documents; i++)
		for (int c = 0; c < corpora; c++) {
			toy_document(toy, c, DSA_CALIBRATION);
			if (i % 3 == 0)
				toy_document(toy, c, DSA_HELDOUT);
		}
	toy_cut(toy, 2, false);
}

/* A number in [0, 1) that depends on all three. */
static inline double toy_random(uint64_t seed, uint64_t a, const char *text)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + a;
	for (; *text; text++)
		x = (x ^ (uint64_t)(unsigned char)*text) * 0x100000001b3u;
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53u;
	x ^= x >> 33;
	return (double)(x >> 11) * 0x1p-53;
}

static inline bool near(double a, double b)
{
	return fabs(a - b) <= 1e-12 * fmax(1, fabs(b));
}

#endif
