/* overlap.h: how alike the selections of two layers are: Overlap(i, j) = mean over scored queries of |S_i ∩ S_j| / K.
 *
 * A diagnosis and an ordering prior, never the judge (method.md). Kept per document and position bucket so that means,
 * errors and tables can be rebuilt from the journal. Only scored positions count, so every query has K selected. */
#ifndef DSA_OVERLAP_H
#define DSA_OVERLAP_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/metrics.h"
#include "dsa/status.h"

/* One document: counts[p][i·L + j] for j ≥ i, Σ over its scored queries in position bucket p of |S_i ∩ S_j|. */
struct dsa_doc_overlap {
	int32_t document;
	int32_t layers;
	int64_t queries[DSA_POSITION_BUCKETS];
	int64_t *counts[DSA_POSITION_BUCKETS]; /* (L·L) or NULL where there are no queries */
	/* Σ over the same queries of |S_i ∩ what layer i's indexer selects without its precision|; 0 for S layers. (L)
	 * or NULL where the indexer runs without one. */
	int64_t *plain[DSA_POSITION_BUCKETS];
};

/* What errors are kept of: each position bucket, and all positions together behind them. */
enum { DSA_OVERLAP_SLOTS = DSA_POSITION_BUCKETS + 1 };

/* With n a document's scored queries of a slot and m its mean overlap there. The sums behind the errors are written
 * into results.json, so that a page made from it shows the same intervals. */
struct dsa_overlap {
	int corpora, layers, topk;
	int64_t *queries;          /* (corpora, DSA_POSITION_BUCKETS) */
	int64_t *counts;           /* (corpora, DSA_POSITION_BUCKETS, L, L) upper triangle */
	int *documents;            /* (corpora, DSA_OVERLAP_SLOTS) with queries there */
	double *weight2;           /* (corpora, DSA_OVERLAP_SLOTS) Σ n² */
	double *squared, *crossed; /* (corpora, DSA_OVERLAP_SLOTS, L, L) upper triangle: Σ (n·m)², Σ n·(n·m) */
	double *sum, *sum2;        /* (corpora, L, L) Σ m, Σ m² over all positions; schema 1 has them */
	int64_t *plain;            /* (corpora, DSA_POSITION_BUCKETS, L) */
	bool has_plain;            /* any document had it */
};

DSA_CHECKED enum dsa_status dsa_overlap_init(struct dsa_overlap *overlap, int corpora, int layers, int topk,
                                             struct dsa_arena *arena, struct dsa_error *err);
/* Documents in a fixed order (batch by batch): the last bit of the standard error depends on it. */
void dsa_overlap_add(struct dsa_overlap *overlap, int corpus, const struct dsa_doc_overlap *document);
/* Scored queries, and documents that have any; position: a bucket, or -1 for all. */
int64_t dsa_overlap_queries(const struct dsa_overlap *overlap, int corpus, int position);
int dsa_overlap_documents(const struct dsa_overlap *overlap, int corpus, int position);
/* In 0 … 1, symmetric, NaN when nothing was counted. position: a bucket, or -1 for all. */
double dsa_overlap_at(const struct dsa_overlap *overlap, int corpus, int position, int i, int j);
/* How much of a full layer's selection is what its indexer selects without its precision: 0 … 1, NaN where that was not
 * counted. position as above. */
double dsa_overlap_plain(const struct dsa_overlap *overlap, int corpus, int position, int layer);
/* Standard error of that mean, documents independent: the ratio estimator of method.md. NaN under two documents. */
double dsa_overlap_se(const struct dsa_overlap *overlap, int corpus, int position, int i, int j);
/* Its 95% interval, by Student's t with one degree less than documents, cut to 0 … 1; NaN under two documents. */
struct dsa_interval dsa_overlap_interval(const struct dsa_overlap *overlap, int corpus, int position, int i, int j);

#endif
