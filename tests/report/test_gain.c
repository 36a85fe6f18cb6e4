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
	assert_int_equal(dsa_gain_table(&results, rows), DSA_GAIN_ROWS);
	for (int i = 0; i < DSA_GAIN_ROWS; i++)
		assert_true(rows[i].prefill == 1 && rows[i].decode == 1);
	assert_int_equal(rows[0].context, 8192);
	assert_int_equal(rows[5].context, 200000);
}

static void gain_grows_with_context_and_counts_only_new_shares(void **state)
{
	(void)state;
	struct dsa_results results = glm5();
	struct dsa_gain rows[DSA_GAIN_ROWS], native;
	assert_int_equal(dsa_gain_table(&results, rows), DSA_GAIN_ROWS);
	for (int i = 1; i < DSA_GAIN_ROWS; i++)
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
	assert_int_equal(dsa_gain_table(&results, rows), DSA_GAIN_ROWS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(published_shapes_give_the_published_costs),
	    cmocka_unit_test(nothing_shared_gains_nothing),
	    cmocka_unit_test(gain_grows_with_context_and_counts_only_new_shares),
	    cmocka_unit_test(an_unknown_dimension_gives_no_table),
	};
	return cmocka_run_group_tests_name("gain", tests, NULL, NULL);
}
