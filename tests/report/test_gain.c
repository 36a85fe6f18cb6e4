#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "dsa/gain.h"

/* GLM-5 without its three dense layers, so that every layer costs the same. */
static struct dsa_results glm5(void)
{
	return (struct dsa_results){
	    .layers = 4,
	    .topk = 2048,
	    .pattern = "FSSS",
	    .reference = "FFFF",
	    .hidden = 6144,
	    .heads = 64,
	    .index_heads = 32,
	    .index_dim = 128,
	    .latent = 512,
	    .rope = 64,
	    .q_rank = 2048,
	    .nope = 192,
	    .value = 256,
	    .expert_inner = 2048,
	    .experts = 256,
	    .experts_per_token = 9,
	};
}

/* Per token and layer at T = 200,000, in MFLOP: projections 329.9, experts 682.6, attention 285.2 less what the first
 * K positions save, indexer 18.7 + 819.2. */
static void published_shapes_give_the_published_costs(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain gain;
	assert_true(dsa_gain_at(&results, 200000, &gain));
	double attention = 2.0 * 64 * (2 * 512 + 64) * (2048 - 2048.0 * 2047 / 2 / 200000);
	double rest = 329.94e6 + 682.62e6 + attention, index = 18.74e6 + 819.2e6;
	assert_true(fabs(gain.prefill - (rest + index) / (rest + index / 4)) < 1e-3);
	assert_true(fabs(gain.indexer_share - index / (rest + index)) < 1e-3);
	double decode_rest = 329.94e6 + 682.62e6 + 285.2e6, decode_index = 18.74e6 + 2 * 819.2e6;
	assert_true(fabs(gain.decode - (decode_rest + decode_index) / (decode_rest + decode_index / 4)) < 1e-3);
}

static void nothing_shared_gains_nothing(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain rows[DSA_GAIN_ROWS];
	results.pattern = "FFFF";
	assert_int_equal(dsa_gain_table(&results, rows), 6);
	for (int i = 0; i < 6; i++)
		assert_true(rows[i].prefill == 1 && rows[i].decode == 1);
	assert_int_equal(rows[0].context, 8192);
	assert_int_equal(rows[5].context, 200000);
}

static void gain_grows_with_context_and_counts_only_new_shares(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain rows[DSA_GAIN_ROWS], native;
	assert_int_equal(dsa_gain_table(&results, rows), 6);
	for (int i = 1; i < 6; i++)
		assert_true(rows[i].prefill > rows[i - 1].prefill && rows[i].decode > rows[i - 1].decode);
	results.reference = "FSSS";
	assert_true(dsa_gain_at(&results, 200000, &native));
	assert_true(native.prefill == 1);
}

static void an_unknown_dimension_gives_no_table(void **state)
{
	(void)state;
	struct dsa_gain rows[DSA_GAIN_ROWS];
	struct dsa_results results = glm5();
	results.nope = 0;
	assert_int_equal(dsa_gain_table(&results, rows), 0);
	results = glm5();
	results.dense_layers = 2;
	assert_int_equal(dsa_gain_table(&results, rows), 0);
	results.dense_inner = 12288;
	assert_int_equal(dsa_gain_table(&results, rows), 6);
}

static struct dsa_error err;

static struct dsa_layer_costs costs_at(int64_t context, double full, double shared)
{
	return (struct dsa_layer_costs){
	    .context = context, .dense_full = NAN, .dense_shared = NAN, .moe_full = full, .moe_shared = shared};
}

/* Four layers, one of which keeps its indexer: 4·2 + 4·1 against 4·2 + 1. */
static void measured_costs_take_the_place_of_flops_at_their_contexts(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain rows[DSA_GAIN_ROWS], flops;
	const struct dsa_layer_costs far = costs_at(131072, 5, 2), near = costs_at(10000, 3, 2);
	assert_int_equal(dsa_gain_add_costs(&results, &far, "a GPU", "far.json", &err), DSA_OK);
	assert_int_equal(dsa_gain_add_costs(&results, &near, "a GPU", "near.json", &err), DSA_OK);
	assert_int_equal(results.costs[0].context, 10000);
	assert_int_equal(dsa_gain_table(&results, rows), 7);
	static const int64_t contexts[] = {8192, 10000, 16384, 32768, 65536, 131072, 200000};
	static const enum dsa_gain_basis basis[] = {DSA_GAIN_FLOPS,        DSA_GAIN_MEASURED,     DSA_GAIN_INTERPOLATED,
	                                            DSA_GAIN_INTERPOLATED, DSA_GAIN_INTERPOLATED, DSA_GAIN_MEASURED,
	                                            DSA_GAIN_FLOPS};
	for (int i = 0; i < 7; i++) {
		assert_int_equal(rows[i].context, contexts[i]);
		assert_int_equal(rows[i].basis, basis[i]);
		assert_true(dsa_gain_at(&results, contexts[i], &flops));
		assert_true(rows[i].decode == flops.decode); /* bench measures no decoding */
		assert_true((rows[i].prefill == flops.prefill) == (basis[i] == DSA_GAIN_FLOPS));
	}
	assert_true(fabs(rows[1].prefill - 12.0 / 9) < 1e-12);
	assert_true(fabs(rows[1].indexer_share - 4.0 / 12) < 1e-12);
	assert_true(fabs(rows[5].prefill - 20.0 / 11) < 1e-12);
	double index = 1 + 2 * (32768.0 - 10000) / (131072 - 10000);
	assert_true(fabs(rows[3].prefill - (8 + 4 * index) / (8 + index)) < 1e-12);
}

/* Dense layers count with their own costs: rest 1·10 + 3·2, indexer the mean of 2 and 6 over one and three layers. */
static void kinds_of_layers_count_with_their_own_costs(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain rows[DSA_GAIN_ROWS];
	struct dsa_layer_costs costs = costs_at(8192, 8, 2);
	results.dense_layers = 1;
	results.dense_inner = 12288;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "a.json", &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "a.json: there are no seconds of a dense layer as F and as S"));
	costs.dense_full = 12;
	costs.dense_shared = 10;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "a.json", &err), DSA_OK);
	assert_int_equal(dsa_gain_table(&results, rows), 6);
	assert_true(fabs(rows[0].prefill - (16 + 4 * 5.0) / (16 + 5.0)) < 1e-12);
}

static void costs_that_cannot_be_are_refused(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_layer_costs costs = costs_at(8192, 2, 1);
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "a.json", &err), DSA_OK);
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "the context of 8192 tokens is there already"));
	costs.context = 9000;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a CPU", "b.json", &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "measured on a CPU, the others on a GPU"));
	costs.moe_shared = 0;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_E_INPUT);
	costs.moe_shared = INFINITY;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_E_INPUT);
	costs = costs_at(0, 2, 1);
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_E_INPUT);
	for (int i = 1; i < DSA_LAYER_COSTS; i++) {
		costs.context = 9000 + i;
		assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_OK);
	}
	costs.context = 1;
	assert_int_equal(dsa_gain_add_costs(&results, &costs, "a GPU", "b.json", &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "more than 16 measured contexts"));
}

/* The published 30B model (arXiv 2603.12201): 47 layers, in GLM-4.7-Flash's shapes. Its indexer's heads are not
 * published; 32 is assumed. They scale the indexer's rate and hardly move a prediction. */
static struct dsa_results published_30b(void)
{
	return (struct dsa_results){
	    .layers = 47,
	    .topk = 2048,
	    .hidden = 2048,
	    .heads = 20,
	    .index_heads = 32,
	    .index_dim = 128,
	    .latent = 512,
	    .rope = 64,
	    .q_rank = 768,
	    .nope = 192,
	    .value = 256,
	    .dense_inner = 10240,
	    .expert_inner = 1536,
	    .experts = 64,
	    .experts_per_token = 5,
	    .dense_layers = 1,
	};
}

/* Its Table 1, one node of H100: seconds of a prefill and tokens per second of one request's decoding, with 47, 24 and
 * 12 indexers. */
static const struct {
	int64_t context;
	double prefill[3], decode[3];
} published[] = {
    {10000, {0.57, 0.47, 0.45}, {73.5, 84.5, 91}},
    {60000, {3.38, 2.86, 2.59}, {67, 80, 89.5}},
    {120000, {8.57, 6.57, 5.66}, {63, 77, 88}},
    {200000, {19.5, 13.7, 10.7}, {58, 73, 86}},
};
enum { PUBLISHED = sizeof published / sizeof *published, FITTED = PUBLISHED - 1 };
static const int indexers[3] = {47, 24, 12};

/* Seconds = rest / rate + F · (constant + index / index_rate), work in FLOPs. */
struct fit {
	double rate, index_rate, constant;
};

static double work_of(int at, bool decode, double *index)
{
	struct dsa_results results = published_30b();
	struct dsa_gain_work work;
	assert_true(dsa_gain_work_at(&results, published[at].context, &work));
	double tokens = decode ? 1 : (double)published[at].context;
	*index = tokens * (decode ? work.decode_index : work.prefill_index);
	return tokens * (decode ? work.decode_rest : work.prefill_rest);
}

static double published_seconds(int at, bool decode, int kept)
{
	return decode ? 1 / published[at].decode[kept] : published[at].prefill[kept];
}

static double indexer_seconds(int at, bool decode)
{
	return (published_seconds(at, decode, 0) - published_seconds(at, decode, 2)) / (indexers[0] - indexers[2]);
}

/* Both rates from 47 and 12 indexers at 200K; with_constant: also what an indexer takes at 10K. */
static struct fit fit_to_published(bool decode, bool with_constant)
{
	struct fit fit = {0};
	double index, short_index, rest = work_of(FITTED, decode, &index);
	double each = indexer_seconds(FITTED, decode);
	(void)work_of(0, decode, &short_index);
	if (with_constant) {
		fit.index_rate = (index - short_index) / (each - indexer_seconds(0, decode));
		fit.constant = each - index / fit.index_rate;
	} else {
		fit.index_rate = index / each;
	}
	fit.rate = rest / (published_seconds(FITTED, decode, 0) - indexers[0] * each);
	return fit;
}

static double predicted(const struct fit *fit, int at, bool decode, int kept)
{
	double index, rest = work_of(at, decode, &index);
	return rest / fit->rate + indexers[kept] * (fit->constant + index / fit->index_rate);
}

static double gain_of(double of_47, double of_12)
{
	return of_47 / of_12;
}

static void print_fit(bool decode, const struct fit *two, const struct fit *three)
{
	struct dsa_results results = published_30b();
	char all[48], kept[48];
	for (int l = 0; l < 47; l++) {
		all[l] = 'F';
		kept[l] = l < 12 ? 'F' : 'S';
	}
	all[47] = kept[47] = 0;
	results.reference = all;
	results.pattern = kept;
	print_message("%s: rest %.1f TFLOP/s, indexer %.1f; with a constant of %.3f ms per indexer %.1f\n",
	              decode ? "decode" : "prefill", two->rate / 1e12, two->index_rate / 1e12, 1e3 * three->constant,
	              three->index_rate / 1e12);
	for (int at = 0; at < PUBLISHED; at++) {
		struct dsa_gain flops;
		assert_true(dsa_gain_at(&results, published[at].context, &flops));
		print_message(
		    "  %6lld  published %.4g %.4g %.4g s, gain %.2f; two rates %.4g %.4g %.4g s, gain %.2f; with "
		    "constant %.4g %.4g %.4g s, gain %.2f; FLOPs alone %.2f\n",
		    (long long)published[at].context, published_seconds(at, decode, 0),
		    published_seconds(at, decode, 1), published_seconds(at, decode, 2),
		    gain_of(published_seconds(at, decode, 0), published_seconds(at, decode, 2)),
		    predicted(two, at, decode, 0), predicted(two, at, decode, 1), predicted(two, at, decode, 2),
		    gain_of(predicted(two, at, decode, 0), predicted(two, at, decode, 2)),
		    predicted(three, at, decode, 0), predicted(three, at, decode, 1), predicted(three, at, decode, 2),
		    gain_of(predicted(three, at, decode, 0), predicted(three, at, decode, 2)),
		    decode ? flops.decode : flops.prefill);
	}
}

static void gain_is_within(const struct fit *fit, int at, bool decode, double low, double high)
{
	double found = gain_of(predicted(fit, at, decode, 0), predicted(fit, at, decode, 2)) /
	               gain_of(published_seconds(at, decode, 0), published_seconds(at, decode, 2));
	if (found < low || found > high)
		fail_msg("%lld, %s: predicted over published gain is %.3f, expected %.3f to %.3f",
		         (long long)published[at].context, decode ? "decode" : "prefill", found, low, high);
}

/* What docs/method.md shows, misfits included. */
static void fitted_at_200k_the_model_predicts_published_times_at_less(void **state)
{
	(void)state;
	const struct fit prefill = fit_to_published(false, false), prefill_constant = fit_to_published(false, true);
	const struct fit decode = fit_to_published(true, false), decode_constant = fit_to_published(true, true);
	print_fit(false, &prefill, &prefill_constant);
	print_fit(true, &decode, &decode_constant);
	/* 24 indexers took no part in the fit. */
	for (int at = 1; at < PUBLISHED; at++)
		for (int kept = 0; kept < 3; kept++)
			assert_true(fabs(predicted(&prefill, at, false, kept) / published[at].prefill[kept] - 1) <
			            0.04);
	gain_is_within(&prefill, 1, false, 0.99, 1.02);
	gain_is_within(&prefill, 2, false, 0.99, 1.04);
	gain_is_within(&prefill, 0, false, 0.82, 0.86); /* 1.07 for 1.27: an indexer is more than its FLOPs there */
	gain_is_within(&decode, 0, true, 0.81, 0.86);
	gain_is_within(&decode, 1, true, 0.85, 0.90);
	gain_is_within(&decode, 2, true, 0.92, 0.96);
	for (int at = 1; at < FITTED; at++) {
		gain_is_within(&prefill_constant, at, false, 0.99, 1.05);
		gain_is_within(&decode_constant, at, true, 0.96, 1.01);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(published_shapes_give_the_published_costs),
	    cmocka_unit_test(nothing_shared_gains_nothing),
	    cmocka_unit_test(gain_grows_with_context_and_counts_only_new_shares),
	    cmocka_unit_test(an_unknown_dimension_gives_no_table),
	    cmocka_unit_test(measured_costs_take_the_place_of_flops_at_their_contexts),
	    cmocka_unit_test(kinds_of_layers_count_with_their_own_costs),
	    cmocka_unit_test(costs_that_cannot_be_are_refused),
	    cmocka_unit_test(fitted_at_200k_the_model_predicts_published_times_at_less),
	};
	return cmocka_run_group_tests_name("gain", tests, NULL, NULL);
}
