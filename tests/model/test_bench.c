#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dsa/bench.h"
#include "golden.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_model_config shape(const char *name)
{
	struct dsa_model_config config;
	MUST(dsa_bench_shape(&config, name, &arena, &golden_error));
	return config;
}

static void floors_are_those_of_the_work_table(void **state)
{
	(void)state;
	static const struct {
		const char *shape;
		int context;
		double microseconds;
	} floors[] = {{"glm5", 32768, 2.06},  {"glm5", 65536, 2.31},  {"glm5", 131072, 2.82},
	              {"dsv32", 32768, 2.92}, {"dsv32", 65536, 3.39}, {"dsv32", 131072, 4.31}};
	for (size_t i = 0; i < sizeof floors / sizeof floors[0]; i++) {
		struct dsa_model_config config = shape(floors[i].shape);
		double found = 1e6 * dsa_bench_floor(&config, floors[i].context, true, true);
		if (fabs(found - floors[i].microseconds) > 0.03)
			fail_msg("%s at %d: floor %.4f, expected %.2f", floors[i].shape, floors[i].context, found,
			         floors[i].microseconds);
	}
}

/* MFLOP of a token, of operators [from, to]. */
static double megaflops(const struct dsa_model_config *config, int from, int to, int64_t context)
{
	double flops = 0;
	for (int op = from; op <= to; op++)
		flops +=
		    dsa_bench_operator_work(config, (enum dsa_bench_operator)op, context, 0, DSA_BF16, DSA_BF16).flops;
	return flops / (double)context / 1e6;
}

static void assert_near(double found, double expected, double within)
{
	if (fabs(found - expected) > within)
		fail_msg("found %.3f, expected %.3f", found, expected);
}

static void work_is_that_of_the_table(void **state)
{
	(void)state;
	static const struct {
		const char *shape;
		double attention, indexer, moe, sparse, scores_32k, scores_64k;
	} table[] = {{"glm5", 330, 19, 683, 285, 134, 268}, {"dsv32", 374, 28, 796, 570, 268, 537}};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct dsa_model_config c = shape(table[i].shape);
		double sparse = megaflops(&c, DSA_BENCH_ATTENTION, DSA_BENCH_ATTENTION, 65536);
		double every = megaflops(&c, DSA_BENCH_INPUT_NORM, DSA_BENCH_POST_NORM, 65536);
		assert_near(every - sparse, table[i].attention, 1);
		assert_near(megaflops(&c, DSA_BENCH_INDEX_K, DSA_BENCH_INDEX_WEIGHTS, 65536), table[i].indexer, 1);
		assert_near(megaflops(&c, DSA_BENCH_ROUTER, DSA_BENCH_SHARED_DOWN, 65536), table[i].moe, 5);
		/* The table leaves out that the first K positions attend to fewer. */
		assert_near(sparse, table[i].sparse, 0.02 * table[i].sparse);
		assert_near(megaflops(&c, DSA_BENCH_SELECT_LAST, DSA_BENCH_SELECT_LAST, 32768), table[i].scores_32k, 1);
		assert_near(megaflops(&c, DSA_BENCH_SELECT_LAST, DSA_BENCH_SELECT_LAST, 65536), table[i].scores_64k, 1);
	}
}

static void unknown_shape_is_refused(void **state)
{
	(void)state;
	struct dsa_model_config config;
	struct dsa_error err = {""};
	assert_int_equal(dsa_bench_shape(&config, "gpt2", &arena, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "gpt2"));
}

static void less_memory_takes_experts_then_vocabulary(void **state)
{
	(void)state;
	struct dsa_backend *be;
	const struct dsa_backend_options options = {.device = "cpu", .threads = 1};
	MUST(dsa_backend_open(&be, &options, &golden_error));
	struct dsa_model_config whole = shape("glm5"), less = whole;
	uint64_t all = dsa_bench_bytes(&whole, be, 512);
	assert_true(dsa_bench_fit(&less, be, 512, all));
	assert_int_equal(less.router.experts, 256);
	assert_true(dsa_bench_fit(&less, be, 512, all - 1));
	assert_int_equal(less.router.experts, 128);
	assert_int_equal(less.vocab, whole.vocab);
	assert_false(dsa_bench_fit(&less, be, 512, 1 << 20));
	assert_int_equal(dsa_bench_most_context(&whole, be, 512, 1 << 20), 0);
	assert_int_equal(dsa_bench_most_context(&whole, be, 512, all), 512);
	dsa_backend_close(be);
}

static void assert_positive(double value)
{
	assert_true(isfinite(value) && value > 0);
}

static void assert_measures(struct dsa_model *model, int context, int layers)
{
	struct dsa_bench bench;
	MUST(dsa_bench_run(&bench, model, context, NULL, NULL, &golden_error));
	assert_int_equal(bench.context, context);
	assert_int_equal(bench.layer_count, layers);
	assert_positive(bench.flops);
	assert_positive(bench.bytes);
	for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
		bool by_flops;
		assert_true(bench.figures[op].measured);
		assert_positive(bench.figures[op].seconds);
		assert_positive(bench.figures[op].work.bytes);
		assert_positive(dsa_bench_share(&bench, &bench.figures[op], &by_flops));
	}
	for (int l = 0; l < bench.layer_count; l++) {
		assert_positive(bench.layers[l].seconds);
		assert_positive(bench.layers[l].operators);
		assert_true(isnan(bench.layers[l].floor));
	}
}

static void checkpoint_is_measured(void **state)
{
	(void)state;
	struct golden g;
	golden_open(&g, "tests/golden/tiny/glm-all-full", 1);
	assert_measures(g.model, 64, 4);
	golden_close(&g);
}

/* The sizes of a checkpoint, filled at random: finite to the end, the same from the same seed. */
static void random_weights_are_measured(void **state)
{
	(void)state;
	struct dsa_backend *be;
	struct dsa_model *model, *other;
	struct dsa_model_config config;
	const struct dsa_backend_options options = {.device = "cpu", .threads = 1};
	MUST(dsa_backend_open(&be, &options, &golden_error));
	MUST(dsa_model_config_load(&config, "tests/golden/tiny/v32-groups-yarn", &arena, &golden_error));
	MUST(dsa_model_random(&model, be, &config, 50, 1, &golden_error));
	MUST(dsa_model_random(&other, be, &config, 50, 1, &golden_error));
	assert_true(model->weight_bytes == dsa_model_weight_bytes(&config, be->weight));
	size_t bytes = (size_t)config.vocab * (size_t)config.hidden * sizeof(float);
	assert_memory_equal(model->embed.data, other->embed.data, bytes);
	assert_measures(model, 50, 4);
	dsa_model_close(other);
	dsa_model_close(model);
	dsa_backend_close(be);
}

static void stop_ends_a_run(void **state)
{
	(void)state;
	struct golden g;
	struct dsa_bench bench;
	struct dsa_error err = {""};
	const volatile sig_atomic_t stop = 1;
	golden_open(&g, "tests/golden/tiny/glm-all-full", 1);
	assert_int_equal(dsa_bench_run(&bench, g.model, 16, &stop, NULL, &err), DSA_E_INTERRUPTED);
	golden_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(floors_are_those_of_the_work_table, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(work_is_that_of_the_table, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(unknown_shape_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(less_memory_takes_experts_then_vocabulary, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(checkpoint_is_measured, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(random_weights_are_measured, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(stop_ends_a_run, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
