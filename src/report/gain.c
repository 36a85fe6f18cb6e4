#include "dsa/gain.h"

#include "dsa/pattern.h"

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

bool dsa_gain_at(const struct dsa_results *results, int64_t context, struct dsa_gain *out)
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

	double before = layers - dsa_pattern_shared(results->reference);
	double after = layers - dsa_pattern_shared(results->pattern);
	double prefill_rest = layers * (projections + per_key * mean_keys(T, K)) + feed_forward;
	double prefill_index = index_fixed + index_per_key * (T + 1) / 2;
	double decode_rest = layers * (projections + per_key * (T < K ? T : K)) + feed_forward;
	double decode_index = index_fixed + index_per_key * T;
	out->context = context;
	out->prefill = (prefill_rest + before * prefill_index) / (prefill_rest + after * prefill_index);
	out->decode = (decode_rest + before * decode_index) / (decode_rest + after * decode_index);
	out->indexer_share = before * prefill_index / (prefill_rest + before * prefill_index);
	return true;
}

int dsa_gain_table(const struct dsa_results *results, struct dsa_gain rows[DSA_GAIN_ROWS])
{
	/* 8K to 128K and 200K at the published models' K of 2048, in proportion at others. */
	static const double times[DSA_GAIN_ROWS] = {4, 8, 16, 32, 64, 97.65625};
	int count = 0;
	for (int i = 0; i < DSA_GAIN_ROWS; i++)
		if (dsa_gain_at(results, (int64_t)(times[i] * results->topk), &rows[count]))
			count++;
	return count;
}
