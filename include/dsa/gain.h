/* gain.h: how much arithmetic a pattern saves, by context length: the only speed claim made without a device.
 *
 * FLOPs per token and layer, 2 per multiply-add (model.md's letters; attention in absorbed form):
 *   projections   2(Dq + qH(n+r) + D(c+r) + Hnc + Hvc + HvD)
 *   attention     2H(2c + r) · keys,  keys = min(t + 1, K)
 *   feed-forward  6Dm dense, 6D·m·(experts per token) + 2DE with experts
 *   indexer       2(q·h·d + D·d + D·h) + 2hd · (t + 1)       F layers only
 * Prefill is the mean over t < T; decode is the token at t = T - 1. The head is left out. Time follows FLOPs only where
 * arithmetic is what limits, so the figures are labelled as FLOP-based wherever they are shown. */
#ifndef DSA_GAIN_H
#define DSA_GAIN_H

#include "dsa/results.h"

struct dsa_gain {
	int64_t context;
	double prefill, decode; /* FLOPs of the reference / FLOPs of the pattern, ≥ 1 */
	double indexer_share;   /* of the reference's prefill FLOPs */
};

enum { DSA_GAIN_ROWS = 6 };

/* Fills rows for 4 K, 8 K, … 64 K and 97.7 K positions (8192 … 200,000 at K = 2048) and returns their number; 0 when a
 * model dimension is unknown. */
int dsa_gain_table(const struct dsa_results *results, struct dsa_gain rows[DSA_GAIN_ROWS]);
/* One context length; false when a dimension is unknown. */
bool dsa_gain_at(const struct dsa_results *results, int64_t context, struct dsa_gain *out);

#endif
