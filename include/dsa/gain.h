/* gain.h: what a pattern saves by context length: arithmetic by the model's shape, or time by what bench measured.
 *
 * FLOPs per token and layer, 2 per multiply-add (model.md's letters; attention in absorbed form):
 *   projections   2(Dq + qH(n+r) + D(c+r) + Hnc + Hvc + HvD)
 *   attention     2H(2c + r) · keys,  keys = min(t + 1, K)
 *   feed-forward  6Dm dense, 6D·m·(experts per token) + 2DE with experts
 *   indexer       2(q·h·d + D·d + D·h) + 2hd · (t + 1)       F layers only
 * Prefill is the mean over t < T; decode is the token at t = T - 1. The head is left out. With F indexers a token costs
 * rest + F · index; a gain is the reference's cost over the pattern's. FLOPs are time only if every part runs at the
 * same rate: method.md holds them against published times. Measured costs (results->costs) are of prefill. */
#ifndef DSA_GAIN_H
#define DSA_GAIN_H

#include "dsa/results.h"

/* FLOPs of a token: all layers without their indexers, and one indexer. */
struct dsa_gain_work {
	double prefill_rest, prefill_index; /* mean over the context */
	double decode_rest, decode_index;   /* of the last token */
};

enum dsa_gain_basis { DSA_GAIN_FLOPS, DSA_GAIN_MEASURED, DSA_GAIN_INTERPOLATED /* between two measured contexts */ };

struct dsa_gain {
	int64_t context;
	enum dsa_gain_basis basis; /* of prefill and indexer_share; decode is by FLOPs always */
	double prefill, decode;    /* cost of the reference / cost of the pattern */
	double indexer_share;      /* of the reference's prefill */
};

enum { DSA_GAIN_ROWS = 6 + DSA_LAYER_COSTS };

const char *dsa_gain_basis_name(enum dsa_gain_basis basis); /* "flops", "measured", "interpolated" */

/* False when a model dimension is unknown. */
bool dsa_gain_work_at(const struct dsa_results *results, int64_t context, struct dsa_gain_work *out);
/* One context length by FLOPs; false when a dimension is unknown. */
bool dsa_gain_at(const struct dsa_results *results, int64_t context, struct dsa_gain *out);
/* Rows for 4 K, 8 K, … 64 K and 97.7 K positions (8192 … 200,000 at K = 2048) and every measured context, ascending;
 * returns their number, 0 when a model dimension is unknown. Contexts within the measured ones are by measured costs.
 */
int dsa_gain_table(const struct dsa_results *results, struct dsa_gain rows[DSA_GAIN_ROWS]);

/* Puts costs into results->costs, kept ascending by context. DSA_E_INPUT when they are not positive, a kind of layer
 * that the model has is missing, the context is there already, the device is another one than before, or there are
 * too many. device must live as long as results. place: how errors call the source. */
DSA_CHECKED enum dsa_status dsa_gain_add_costs(struct dsa_results *results, const struct dsa_layer_costs *costs,
                                               const char *device, const char *place, struct dsa_error *err);

#endif
