#include "dsa/overlap.h"

#include <assert.h>
#include <math.h>

static size_t square(const struct dsa_overlap *overlap)
{
	return (size_t)overlap->layers * (size_t)overlap->layers;
}

enum dsa_status dsa_overlap_init(struct dsa_overlap *overlap, int corpora, int layers, int topk,
                                 struct dsa_arena *arena, struct dsa_error *err)
{
	assert(corpora > 0 && layers > 0 && topk > 0);
	static const char what[] = "the overlap matrices";
	*overlap = (struct dsa_overlap){.corpora = corpora, .layers = layers, .topk = topk};
	size_t buckets = (size_t)corpora * DSA_POSITION_BUCKETS, cells = square(overlap);
	overlap->queries = dsa_arena_alloc(arena, buckets, sizeof *overlap->queries, what, err);
	if (!overlap->queries)
		return DSA_E_MEMORY;
	overlap->counts = dsa_arena_alloc(arena, buckets, cells * sizeof *overlap->counts, what, err);
	if (!overlap->counts)
		return DSA_E_MEMORY;
	overlap->sum = dsa_arena_alloc(arena, (size_t)corpora, cells * sizeof *overlap->sum, what, err);
	if (!overlap->sum)
		return DSA_E_MEMORY;
	overlap->sum2 = dsa_arena_alloc(arena, (size_t)corpora, cells * sizeof *overlap->sum2, what, err);
	if (!overlap->sum2)
		return DSA_E_MEMORY;
	overlap->plain = dsa_arena_alloc(arena, buckets, (size_t)layers * sizeof *overlap->plain, what, err);
	if (!overlap->plain)
		return DSA_E_MEMORY;
	overlap->documents = dsa_arena_alloc(arena, (size_t)corpora, sizeof *overlap->documents, what, err);
	return overlap->documents ? DSA_OK : DSA_E_MEMORY;
}

void dsa_overlap_add(struct dsa_overlap *overlap, int corpus, const struct dsa_doc_overlap *document)
{
	assert(corpus >= 0 && corpus < overlap->corpora && document->layers == overlap->layers);
	size_t cells = square(overlap);
	int64_t queries = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
		size_t bucket = (size_t)corpus * DSA_POSITION_BUCKETS + (size_t)p;
		if (!document->queries[p])
			continue;
		queries += document->queries[p];
		overlap->queries[bucket] += document->queries[p];
		for (size_t i = 0; i < cells; i++)
			overlap->counts[bucket * cells + i] += document->counts[p][i];
		overlap->has_plain |= document->plain[p] != NULL;
		for (int l = 0; l < overlap->layers && document->plain[p]; l++)
			overlap->plain[bucket * (size_t)overlap->layers + (size_t)l] += document->plain[p][l];
	}
	if (!queries)
		return;
	overlap->documents[corpus]++;
	double all = (double)queries * overlap->topk;
	for (size_t i = 0; i < cells; i++) {
		int64_t common = 0;
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			if (document->queries[p])
				common += document->counts[p][i];
		double mean = (double)common / all;
		overlap->sum[(size_t)corpus * cells + i] += mean;
		overlap->sum2[(size_t)corpus * cells + i] += mean * mean;
	}
}

/* Only the upper triangle is kept. */
static size_t cell_of(const struct dsa_overlap *overlap, int i, int j)
{
	assert(i >= 0 && j >= 0 && i < overlap->layers && j < overlap->layers);
	return (size_t)(i < j ? i : j) * (size_t)overlap->layers + (size_t)(i < j ? j : i);
}

/* counts (corpora, buckets, cells): of one cell, over the queries of a bucket or of all. */
static double share(const struct dsa_overlap *overlap, const int64_t *counts, size_t cells, size_t cell, int corpus,
                    int position)
{
	assert(corpus >= 0 && corpus < overlap->corpora && position >= -1 && position < DSA_POSITION_BUCKETS);
	int64_t queries = 0, common = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
		size_t bucket = (size_t)corpus * DSA_POSITION_BUCKETS + (size_t)p;
		if (position >= 0 && p != position)
			continue;
		queries += overlap->queries[bucket];
		common += counts[bucket * cells + cell];
	}
	return queries ? (double)common / ((double)queries * overlap->topk) : (double)NAN;
}

double dsa_overlap_at(const struct dsa_overlap *overlap, int corpus, int position, int i, int j)
{
	return share(overlap, overlap->counts, square(overlap), cell_of(overlap, i, j), corpus, position);
}

double dsa_overlap_plain(const struct dsa_overlap *overlap, int corpus, int position, int layer)
{
	assert(layer >= 0 && layer < overlap->layers);
	if (!overlap->has_plain)
		return (double)NAN;
	return share(overlap, overlap->plain, (size_t)overlap->layers, (size_t)layer, corpus, position);
}

double dsa_overlap_se(const struct dsa_overlap *overlap, int corpus, int i, int j)
{
	assert(corpus >= 0 && corpus < overlap->corpora);
	size_t at = (size_t)corpus * square(overlap) + cell_of(overlap, i, j);
	double n = overlap->documents[corpus];
	if (n < 2)
		return (double)NAN;
	double squares = overlap->sum2[at] - overlap->sum[at] * overlap->sum[at] / n;
	return squares > 0 ? sqrt(squares / (n - 1) / n) : 0.0;
}
