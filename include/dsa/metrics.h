/* metrics.h: what is measured per document, and what is said about a pattern from it (method.md, What is measured).
 *
 * The atom is struct dsa_doc_stats: sums over the scored tokens of one document under one pattern against the
 * reference, per position bucket, with a log-bucketed histogram of the KL. It is what the journal keeps; every figure
 * anybody prints can be rebuilt from it without a model. Sums are doubles, added in position order within a document
 * and in document order between documents, so figures never depend on how work was scheduled.
 *
 * Position bucket p holds positions K·2^p ≤ t < K·2^(p+1), the last one all above. KL bin 0 holds KL < 1e-12; bin i ≥ 1
 * holds 1e-12·g^(i-1) ≤ KL < 1e-12·g^i with g = 1.0175, so the geometric middle is within 0.9% of any member. */
#ifndef DSA_METRICS_H
#define DSA_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/backend.h"
#include "dsa/status.h"

enum { DSA_POSITION_BUCKETS = 24, DSA_KL_BINS = 2048, DSA_METRIC_VERSION = 1 };

struct dsa_sums {
	int64_t tokens, top1; /* scored tokens; of these, with the same arg max */
	double kl, kl2;       /* Σ KL, Σ KL² in nats */
	double nll, nll_base; /* Σ -ln P(target) under the pattern and under the reference */
	double dnll2;         /* Σ (nll - nll_base)² */
	double kl_max;
};

struct dsa_bin {
	uint8_t position; /* bucket */
	uint16_t bin;
	uint32_t count;
};

struct dsa_doc_stats {
	int32_t document;
	struct dsa_sums at[DSA_POSITION_BUCKETS];
	struct dsa_bin *bins; /* (bin_count) ascending by (position, bin), no zero counts */
	int32_t bin_count;
};

int dsa_position_bucket(int position, int topk);
int dsa_kl_bin(double kl);
double dsa_kl_bin_value(int bin); /* geometric middle; 0 for bin 0 */
/* Adds b to a. */
void dsa_sums_add(struct dsa_sums *a, const struct dsa_sums *b);
struct dsa_sums dsa_doc_stats_total(const struct dsa_doc_stats *stats);

/* From the figures of a document's scored rows in ascending position: figures[i] belongs to positions[i]. Bins come
 * from the arena. DSA_E_NUMERIC naming the position when a row is not finite. */
DSA_CHECKED enum dsa_status dsa_doc_stats_collect(struct dsa_doc_stats *stats, int document, int topk,
                                                  const struct dsa_row_figures *figures, const int *positions,
                                                  int count, struct dsa_arena *arena, struct dsa_error *err);

/* Everything known about one pattern over the documents measured so far. Memory comes from the arena as documents
 * bring it: a histogram exists only for a corpus and position bucket that has tokens. */
struct dsa_measure {
	int corpora, documents;
	const double *weights;   /* (corpora) borrowed */
	const int *corpus_of;    /* (documents) borrowed */
	struct dsa_sums *totals; /* (documents); tokens 0 = not measured */
	struct dsa_sums **at; /* (documents) → (buckets[d]); kept apart, so that they are summed in document order */
	uint8_t *buckets;     /* (documents) position buckets up to the last in use */
	uint64_t **bins;      /* (corpora · DSA_POSITION_BUCKETS) → (DSA_KL_BINS) or NULL */
	bool intervals;       /* figures come with their intervals; set by whoever measures, false at first */
	struct dsa_arena *arena;
};

DSA_CHECKED enum dsa_status dsa_measure_init(struct dsa_measure *measure, int corpora, int documents,
                                             const double *weights, const int *corpus_of, struct dsa_arena *arena,
                                             struct dsa_error *err);
/* Takes a document in; any order, each once. Nothing of stats is kept by reference. */
DSA_CHECKED enum dsa_status dsa_measure_add(struct dsa_measure *measure, const struct dsa_doc_stats *stats,
                                            struct dsa_error *err);

struct dsa_quality_at {
	int from, to; /* positions [from, to) */
	int64_t tokens;
	double kl, kl_p99, nll_delta, top1;
};

struct dsa_interval {
	double low, high;
};

/* NaN where undefined (one document has no standard error); writers turn NaN into null. */
struct dsa_quality {
	int documents;
	int64_t tokens;
	double kl, kl_se, kl_p50, kl_p90, kl_p99, kl_max;
	double nll, nll_base, nll_delta, nll_delta_se, ppl_ratio;
	double top1;
	/* 95%, over documents (bootstrap.h); NaN too where the measure was not asked for them. */
	struct dsa_interval kl_ci, nll_delta_ci, top1_ci;
	int positions;
	struct dsa_quality_at by_position[DSA_POSITION_BUCKETS];
};

enum { DSA_ALL_CORPORA = -1 };
/* Per corpus: mean = Σ/n over tokens, SE by the ratio estimator over documents: with r = Σy/Σn, SE² = D/(D-1) · Σ(y_d -
 * r·n_d)² / (Σn)². Across corpora: Σ w·mean / Σ w, SE = sqrt(Σ w² se²) / Σ w over the corpora that have documents;
 * quantiles over tokens, a token of corpus c weighing w_c / n_c. A quantile is the smallest bin value whose cumulated
 * weight reaches it, and never above kl_max. by_position holds the buckets that have tokens, ascending. */
void dsa_measure_quality(const struct dsa_measure *measure, int corpus /* or DSA_ALL_CORPORA */, int topk,
                         struct dsa_quality *out);
/* The objective alone (no histogram): macro mean KL or NLL and its SE. */
enum dsa_objective { DSA_OBJECTIVE_KL, DSA_OBJECTIVE_NLL };
void dsa_measure_objective(const struct dsa_measure *measure, enum dsa_objective objective, double *mean, double *se);
/* Macro mean of (a's objective - b's) over the documents that both have seen, and its paired SE: the ratio estimator
 * over the documents' differences, corpora by weight. */
void dsa_measure_difference(const struct dsa_measure *a, const struct dsa_measure *b, enum dsa_objective objective,
                            double *mean, double *se);

#endif
