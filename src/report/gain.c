#include "dsa/gain.h"

#include <math.h>
#include <string.h>

#include "dsa/pattern.h"

const char *dsa_gain_basis_name(enum dsa_gain_basis basis)
{
	static const char *const names[] = {"flops", "measured", "interpolated"};
	return names[basis];
}

static bool known(const struct dsa_results *results)
{
	bool attention = results->hidden && results->heads && results->q_rank && results->latent && results->rope &&
	                 results->nope && results->value;
	bool indexer = results->index_heads && results->index_dim;
	bool dense = !results->dense_layers || results->dense_inner;
	bool sparse = results->dense_layers >= results->layers || (results->expert_inner && results->experts_per_token);
	return attention && indexer && dense && sparse && results->dense_layers <= results->layers;
}

/* Mean over t < T of min(t + 1, K). */
static double mean_keys(double context, double topk)
{
	if (context <= topk)
		return (context + 1) / 2;
	return topk - topk * (topk - 1) / 2 / context;
}

bool dsa_gain_work_at(const struct dsa_results *results, int64_t context, struct dsa_gain_work *out)
{
	if (!known(results) || context < 1)
		return false;
	double D = results->hidden, H = results->heads, q = results->q_rank, c = results->latent, r = results->rope;
	double n = results->nope, v = results->value, h = results->index_heads, d = results->index_dim;
	double T = (double)context, K = results->topk;
	double layers = results->layers, dense = results->dense_layers;

	double projections = 2 * (D * q + q * H * (n + r) + D * (c + r) + H * n * c + H * v * c + H * v * D);
	double experts = 6 * D * results->expert_inner * results->experts_per_token + 2 * D * results->experts;
	double feed_forward = dense * 6 * D * results->dense_inner + (layers - dense) * experts;
	double per_key = 2 * H * (2 * c + r);
	double index_fixed = 2 * (q * h * d + D * d + D * h), index_per_key = 2 * h * d;

	out->prefill_rest = layers * (projections + per_key * mean_keys(T, K)) + feed_forward;
	out->prefill_index = index_fixed + index_per_key * (T + 1) / 2;
	out->decode_rest = layers * (projections + per_key * (T < K ? T : K)) + feed_forward;
	out->decode_index = index_fixed + index_per_key * T;
	return true;
}

/* Indexers that run: of the reference, of the pattern. */
static double before(const struct dsa_results *results)
{
	return results->layers - dsa_pattern_shared(results->reference);
}

static double after(const struct dsa_results *results)
{
	return results->layers - dsa_pattern_shared(results->pattern);
}

static void set_prefill(struct dsa_gain *gain, const struct dsa_results *results, double rest, double index)
{
	gain->prefill = (rest + before(results) * index) / (rest + after(results) * index);
	gain->indexer_share = before(results) * index / (rest + before(results) * index);
}

bool dsa_gain_at(const struct dsa_results *results, int64_t context, struct dsa_gain *out)
{
	struct dsa_gain_work work;
	if (!dsa_gain_work_at(results, context, &work))
		return false;
	*out = (struct dsa_gain){.context = context, .basis = DSA_GAIN_FLOPS};
	set_prefill(out, results, work.prefill_rest, work.prefill_index);
	out->decode = (work.decode_rest + before(results) * work.decode_index) /
	              (work.decode_rest + after(results) * work.decode_index);
	return true;
}

static bool has_dense(const struct dsa_results *results)
{
	return results->dense_layers > 0;
}

static bool has_experts(const struct dsa_results *results)
{
	return results->dense_layers < results->layers;
}

/* Seconds per token of all layers as S, and of one layer's indexer, a mean over the kinds of layers. */
static void measured_at(const struct dsa_results *results, const struct dsa_layer_costs *costs, double *rest,
                        double *index)
{
	double dense = results->dense_layers, experts = results->layers - results->dense_layers;
	*rest = *index = 0;
	if (has_dense(results)) {
		*rest += dense * costs->dense_shared;
		*index += dense * (costs->dense_full - costs->dense_shared);
	}
	if (has_experts(results)) {
		*rest += experts * costs->moe_shared;
		*index += experts * (costs->moe_full - costs->moe_shared);
	}
	*index /= results->layers;
}

/* Between two measured contexts both parts are taken as linear: an indexer's cost grows with the keys it scores. */
static void by_costs(const struct dsa_results *results, struct dsa_gain *gain)
{
	const struct dsa_layer_costs *costs = results->costs;
	int last = results->cost_count - 1, above = 0;
	double rest, index;
	if (last < 0 || gain->context < costs[0].context || gain->context > costs[last].context)
		return;
	while (costs[above].context < gain->context)
		above++;
	measured_at(results, &costs[above], &rest, &index);
	gain->basis = DSA_GAIN_MEASURED;
	if (costs[above].context != gain->context) {
		double rest_below, index_below;
		measured_at(results, &costs[above - 1], &rest_below, &index_below);
		double share = (double)(gain->context - costs[above - 1].context) /
		               (double)(costs[above].context - costs[above - 1].context);
		rest = rest_below + share * (rest - rest_below);
		index = index_below + share * (index - index_below);
		gain->basis = DSA_GAIN_INTERPOLATED;
	}
	set_prefill(gain, results, rest, index);
}

int dsa_gain_table(const struct dsa_results *results, struct dsa_gain rows[DSA_GAIN_ROWS])
{
	/* 8K to 128K and 200K at the published models' K of 2048, in proportion at others. */
	static const double times[] = {4, 8, 16, 32, 64, 97.65625};
	enum { TIMES = sizeof times / sizeof *times };
	int count = 0, next = 0, measured = 0;
	while (next < TIMES || measured < results->cost_count) {
		int64_t usual = next < TIMES ? (int64_t)(times[next] * results->topk) : INT64_MAX;
		int64_t given = measured < results->cost_count ? results->costs[measured].context : INT64_MAX;
		int64_t context = usual < given ? usual : given;
		next += usual == context;
		measured += given == context;
		if (!dsa_gain_at(results, context, &rows[count]))
			continue;
		by_costs(results, &rows[count]);
		count++;
	}
	return count;
}

static bool positive(double full, double shared)
{
	return isfinite(full) && isfinite(shared) && full > 0 && shared > 0;
}

enum dsa_status dsa_gain_add_costs(struct dsa_results *results, const struct dsa_layer_costs *costs, const char *device,
                                   const char *place, struct dsa_error *err)
{
	int at = results->cost_count;
	if (costs->context < 1)
		return dsa_fail(err, DSA_E_INPUT, "%s: context is %lld, expected 1 or more", place,
		                (long long)costs->context);
	if (has_dense(results) && !positive(costs->dense_full, costs->dense_shared))
		return dsa_fail(err, DSA_E_INPUT, "%s: there are no seconds of a dense layer as F and as S", place);
	if (has_experts(results) && !positive(costs->moe_full, costs->moe_shared))
		return dsa_fail(err, DSA_E_INPUT, "%s: there are no seconds of a layer with experts as F and as S",
		                place);
	if (results->costs_device && strcmp(results->costs_device, device) != 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: measured on %.200s, the others on %.200s; take one device",
		                place, device, results->costs_device);
	if (at == DSA_LAYER_COSTS)
		return dsa_fail(err, DSA_E_INPUT, "%s: more than %d measured contexts", place, DSA_LAYER_COSTS);
	while (at && results->costs[at - 1].context > costs->context)
		at--;
	if (at && results->costs[at - 1].context == costs->context)
		return dsa_fail(err, DSA_E_INPUT, "%s: the context of %lld tokens is there already", place,
		                (long long)costs->context);
	memmove(&results->costs[at + 1], &results->costs[at],
	        (size_t)(results->cost_count - at) * sizeof *results->costs);
	results->costs[at] = *costs;
	results->cost_count++;
	results->costs_device = device;
	return DSA_OK;
}
