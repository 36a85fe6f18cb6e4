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
	size_t slots = (size_t)corpora * DSA_OVERLAP_SLOTS;
	overlap->documents = dsa_arena_alloc(arena, slots, sizeof *overlap->documents, what, err);
	if (!overlap->documents)
		return DSA_E_MEMORY;
	overlap->weight2 = dsa_arena_alloc(arena, slots, sizeof *overlap->weight2, what, err);
	if (!overlap->weight2)
		return DSA_E_MEMORY;
	overlap->squared = dsa_arena_alloc(arena, slots, cells * sizeof *overlap->squared, what, err);
	if (!overlap->squared)
		return DSA_E_MEMORY;
	overlap->crossed = dsa_arena_alloc(arena, slots, cells * sizeof *overlap->crossed, what, err);
	if (!overlap->crossed)
		return DSA_E_MEMORY;
	overlap->sum = dsa_arena_alloc(arena, (size_t)corpora, cells * sizeof *overlap->sum, what, err);
	if (!overlap->sum)
		return DSA_E_MEMORY;
	overlap->sum2 = dsa_arena_alloc(arena, (size_t)corpora, cells * sizeof *overlap->sum2, what, err);
	if (!overlap->sum2)
		return DSA_E_MEMORY;
	overlap->plain = dsa_arena_alloc(arena, buckets, (size_t)layers * sizeof *overlap->plain, what, err);
	return overlap->plain ? DSA_OK : DSA_E_MEMORY;
}

static size_t slot_of(int corpus, int position)
{
	return (size_t)corpus * DSA_OVERLAP_SLOTS + (size_t)(position < 0 ? DSA_POSITION_BUCKETS : position);
}

/* One document's share of the sums behind the error of a cell. common: Σ |S_i ∩ S_j| over its n queries. */
static void add_square(struct dsa_overlap *overlap, size_t slot, size_t cell, double n, int64_t common)
{
	double total = (double)common / overlap->topk;
	overlap->squared[slot * square(overlap) + cell] += total * total;
	overlap->crossed[slot * square(overlap) + cell] += total * n;
}

void dsa_overlap_add(struct dsa_overlap *overlap, int corpus, const struct dsa_doc_overlap *document)
{
	assert(corpus >= 0 && corpus < overlap->corpora && document->layers == overlap->layers);
	size_t cells = square(overlap), whole = slot_of(corpus, -1);
	int64_t queries = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
		size_t bucket = (size_t)corpus * DSA_POSITION_BUCKETS + (size_t)p, slot = slot_of(corpus, p);
		double n = (double)document->queries[p];
		if (!document->queries[p])
			continue;
		queries += document->queries[p];
		overlap->queries[bucket] += document->queries[p];
		overlap->documents[slot]++;
		overlap->weight2[slot] += n * n;
		for (size_t i = 0; i < cells; i++) {
			overlap->counts[bucket * cells + i] += document->counts[p][i];
			add_square(overlap, slot, i, n, document->counts[p][i]);
		}
		overlap->has_plain |= document->plain[p] != NULL;
		for (int l = 0; l < overlap->layers && document->plain[p]; l++)
			overlap->plain[bucket * (size_t)overlap->layers + (size_t)l] += document->plain[p][l];
	}
	if (!queries)
		return;
	overlap->documents[whole]++;
	overlap->weight2[whole] += (double)queries * (double)queries;
	double all = (double)queries * overlap->topk;
	for (size_t i = 0; i < cells; i++) {
		int64_t common = 0;
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			if (document->queries[p])
				common += document->counts[p][i];
		double mean = (double)common / all;
		add_square(overlap, whole, i, (double)queries, common);
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

int64_t dsa_overlap_queries(const struct dsa_overlap *overlap, int corpus, int position)
{
	const int64_t *queries = overlap->queries + (size_t)corpus * DSA_POSITION_BUCKETS;
	int64_t all = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
		all += position < 0 || p == position ? queries[p] : 0;
	return all;
}

int dsa_overlap_documents(const struct dsa_overlap *overlap, int corpus, int position)
{
	return overlap->documents[slot_of(corpus, position)];
}

/* counts (corpora, buckets, cells): of one cell, over the queries of a bucket or of all. */
static double share(const struct dsa_overlap *overlap, const int64_t *counts, size_t cells, size_t cell, int corpus,
                    int position)
{
	assert(corpus >= 0 && corpus < overlap->corpora && position >= -1 && position < DSA_POSITION_BUCKETS);
	int64_t queries = dsa_overlap_queries(overlap, corpus, position), common = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
		if (position < 0 || p == position)
			common += counts[((size_t)corpus * DSA_POSITION_BUCKETS + (size_t)p) * cells + cell];
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

double dsa_overlap_se(const struct dsa_overlap *overlap, int corpus, int position, int i, int j)
{
	assert(corpus >= 0 && corpus < overlap->corpora && position >= -1 && position < DSA_POSITION_BUCKETS);
	size_t slot = slot_of(corpus, position), at = slot * square(overlap) + cell_of(overlap, i, j);
	double documents = overlap->documents[slot], mean = dsa_overlap_at(overlap, corpus, position, i, j);
	double queries = (double)dsa_overlap_queries(overlap, corpus, position);
	/* A file from before these sums were kept has none. */
	if (documents < 2 || !(overlap->weight2[slot] > 0))
		return (double)NAN;
	double squares = overlap->squared[at] - 2 * mean * overlap->crossed[at] + mean * mean * overlap->weight2[slot];
	return squares > 0 ? sqrt(squares * documents / (documents - 1)) / queries : 0.0;
}

/* Student's t at 0.975: exact for one and two degrees, then Fisher's expansion in 1/ν (within 0.2% from three on). */
static double student(double degrees)
{
	const double z = 1.959963984540054, z2 = z * z;
	if (degrees < 2)
		return 12.706204736174698;
	if (degrees < 3)
		return 4.302652729749464;
	double n = 1 / degrees;
	double first = z * (z2 + 1) / 4, second = z * ((5 * z2 + 16) * z2 + 3) / 96;
	double third = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
	double fourth = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
	return z + n * (first + n * (second + n * (third + n * fourth)));
}

struct dsa_interval dsa_overlap_interval(const struct dsa_overlap *overlap, int corpus, int position, int i, int j)
{
	double mean = dsa_overlap_at(overlap, corpus, position, i, j);
	double se = dsa_overlap_se(overlap, corpus, position, i, j);
	if (isnan(se))
		return (struct dsa_interval){(double)NAN, (double)NAN};
	double reach = student(overlap->documents[slot_of(corpus, position)] - 1) * se;
	return (struct dsa_interval){fmax(mean - reach, 0), fmin(mean + reach, 1)};
}
