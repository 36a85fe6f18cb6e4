#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "dsa/bench.h"
#include "dsa/forward.h"
#include "dsa/plan.h"
#include "dsa/streaming.h"

/* Four layers, FFFS, the first dense: two that can be flipped, and one native S layer that cannot. */
static const char config_text[] =
    "{\"model_type\":\"glm_moe_dsa\",\"num_hidden_layers\":4,\"first_k_dense_replace\":1,\"index_topk\":2048,"
    "\"indexer_types\":[\"full\",\"full\",\"full\",\"shared\"]}";
enum { CONTEXT = 32768, DOCUMENTS = 10, LAYERS = 4 };
static const uint64_t gib = (uint64_t)1 << 30;
static const double suffix = CONTEXT - 2048;

struct bench {
	struct dsa_arena arena;
	struct dsa_model_config config;
	struct dsa_sizes sizes;
	struct dsa_streaming_machine machine;
	struct dsa_streaming_rates rates;
	struct dsa_streaming_plan plan;
};

static void set_up(struct bench *b)
{
	struct dsa_error err;
	*b = (struct bench){.sizes = {.layers = LAYERS, .outside = 2 * gib}};
	dsa_arena_init(&b->arena);
	assert_int_equal(
	    dsa_model_config_parse(&b->config, config_text, sizeof config_text - 1, "text", &b->arena, &err), DSA_OK);
	for (int l = 0; l < LAYERS; l++)
		b->sizes.layer[l] = (struct dsa_layer_size){.device = 20 * gib, .image = 10 * gib};
	b->machine = (struct dsa_streaming_machine){
	    .gpus = 1, .gpu_memory = 70 * gib, .host_memory = 400 * gib, .link_rate = 50e9, .disk_rate = 5e9};
	b->rates = (struct dsa_streaming_rates){
	    .dense_full = 3e-6, .dense_shared = 2e-6, .moe_full = 3e-6, .moe_shared = 2e-6};
}

static void plan(struct bench *b)
{
	dsa_streaming_plan(&b->plan, &b->config, &b->sizes, DSA_PLACE_DEVICE, &b->machine, &b->rates,
	                   DOCUMENTS * CONTEXT, CONTEXT, 32768);
}

static void close_to(double found, double expected)
{
	if (!(fabs(found - expected) <= 1e-9 * fabs(expected)))
		fail_msg("%.17g, expected %.17g", found, expected);
}

static void layers_lie_where_a_run_would_put_them(void **unused)
{
	(void)unused;
	static const struct {
		uint64_t gpu, host;
		enum dsa_place slowest;
		double pinned;
		int wave;
	} cases[] = {{120, 400, DSA_PLACE_DEVICE, 1, 2},
	             {80, 400, DSA_PLACE_STORED, 1, 2},
	             {54, 400, DSA_PLACE_HOST, 1, 2},
	             {54, 44, DSA_PLACE_DISK, 1.0 / 4, 2},
	             {66, 44, DSA_PLACE_HOST, 1, 8}};
	struct bench b;
	set_up(&b);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		b.machine.gpu_memory = cases[i].gpu * gib;
		b.machine.host_memory = cases[i].host * gib;
		plan(&b);
		assert_true(b.plan.fits);
		assert_int_equal(b.plan.slowest, cases[i].slowest);
		close_to(b.plan.pinned, cases[i].pinned);
		assert_int_equal(b.plan.documents, DOCUMENTS);
		assert_int_equal(b.plan.candidates, 2); /* 0 has nothing before it, 3 is natively S */
		assert_int_equal(b.plan.wave, cases[i].wave);
		assert_int_equal(b.plan.visit, 1);
	}
	b.machine.gpu_memory = 42 * gib; /* one layer in the form of products, two as stored, and no pass */
	plan(&b);
	assert_false(b.plan.fits);
	dsa_arena_release(&b.arena);
}

static void short_documents_share_a_visit(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	dsa_streaming_plan(&b.plan, &b.config, &b.sizes, DSA_PLACE_DISK, &b.machine, &b.rates, 21 * 4096, 4096, 32768);
	assert_int_equal(b.plan.visit, 8);
	assert_int_equal(b.plan.slowest, DSA_PLACE_DISK);
	/* Three batches; the reference visits all layers. */
	close_to(b.plan.base.disk_bytes, 3 * 40.0 * (double)gib);
	dsa_arena_release(&b.arena);
}

/* All states kept: each of layers 1 and 2 from its own flip, 3 + 2 layers; then the one that is left behind the other.
 */
static void steps_cost_what_a_search_with_all_states_runs(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = 800 * gib;
	plan(&b);
	assert_true(b.plan.base_kept == 1 && b.plan.flips_kept == 1);
	close_to(b.plan.base.token_layers, (double)DOCUMENTS * CONTEXT * LAYERS);
	close_to(b.plan.first.token_layers, DOCUMENTS * suffix * 5);
	close_to(b.plan.whole.token_layers - b.plan.base.token_layers, DOCUMENTS * suffix * (5 + 2));
	/* Nothing crosses the bus, states neither. */
	assert_true(b.plan.whole.link_bytes == 0 && b.plan.whole.disk_bytes == 0);
	/* Three layers as F, one as S, at the mean of positions. */
	close_to(b.plan.base.compute_seconds, (double)DOCUMENTS * CONTEXT * (3 * 3e-6 + 2e-6));
	close_to(b.plan.base.seconds, b.plan.base.compute_seconds);
	/* Of the first step layer 1 runs for one candidate, 2 for two, 3 for two as S: an indexer of positions >= K
	 * scores more keys; a share of the candidate layers is flipped. */
	const double more = 1e-6 * (1 + 2048.0 / CONTEXT), full = 2e-6 + more * 3 / 5;
	const double seconds = b.plan.first.compute_seconds / (DOCUMENTS * suffix * 5);
	assert_true(seconds > 2e-6 && seconds < full);
	dsa_arena_release(&b.arena);
}

static void without_memory_for_states_work_is_repeated(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = 120 * gib;
	b.machine.host_memory = 1;
	plan(&b);
	assert_true(b.plan.base_kept == 0 && b.plan.flips_kept == 0);
	assert_true(b.plan.first.token_layers > DOCUMENTS * suffix * 5);
	const double none = b.plan.whole.token_layers;
	/* Keys and references, and the states of one layer of the base. */
	const struct dsa_pass_document document = {.tokens = CONTEXT};
	const double fixed = (double)dsa_prefix_bytes(&b.config, DSA_BF16, &document, 1) + suffix * 6144 * 2;
	b.machine.host_memory = (uint64_t)(DOCUMENTS * (fixed + (double)dsa_state_bytes(&b.config, &document, 1)));
	plan(&b);
	assert_true(fabs(b.plan.base_kept - 0.5) < 1e-6 && b.plan.flips_kept == 0);
	assert_true(b.plan.whole.token_layers < none);
	dsa_arena_release(&b.arena);
}

static void each_wave_of_a_batch_visits_its_layers(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = 54 * gib;
	b.machine.host_memory = 60 * gib;
	b.machine.gpus = 2;
	plan(&b);
	assert_int_equal(b.plan.slowest, DSA_PLACE_HOST);
	/* Five batches a GPU; the reference visits four layers, the first step layers 1, 2, 3, each GPU for itself. */
	close_to(b.plan.base.link_bytes, 2 * 5 * 40.0 * (double)gib);
	close_to(b.plan.base.link_seconds, 5 * 40.0 * (double)gib / 50e9);
	assert_true(b.plan.first.link_bytes >= 2 * 5 * 30.0 * (double)gib);
	assert_true(b.plan.first.disk_bytes == 0);
	/* Of the disk all GPUs read. */
	dsa_streaming_plan(&b.plan, &b.config, &b.sizes, DSA_PLACE_DISK, &b.machine, &b.rates, DOCUMENTS * CONTEXT,
	                   CONTEXT, 32768);
	close_to(b.plan.first.disk_bytes, 2 * 5 * 30.0 * (double)gib);
	close_to(b.plan.first.disk_seconds, 2 * 5 * 30.0 * (double)gib / 5e9);
	dsa_arena_release(&b.arena);
}

/* Two candidates, then one: three and two layers behind their flips. */
static void batches_that_fit_into_a_wave_share_its_visits(void **unused)
{
	(void)unused;
	static const struct {
		uint64_t gpu;
		int wave, first, second; /* waves of ten batches */
	} cases[] = {{54, 2, 10, 5}, {58, 4, 5, 3}, {66, 8, 3, 2}};
	struct bench b;
	set_up(&b);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		b.machine.gpu_memory = cases[i].gpu * gib;
		dsa_streaming_plan(&b.plan, &b.config, &b.sizes, DSA_PLACE_DISK, &b.machine, &b.rates,
		                   DOCUMENTS * CONTEXT, CONTEXT, 32768);
		assert_int_equal(b.plan.wave, cases[i].wave);
		close_to(b.plan.first.disk_bytes, cases[i].first * 30.0 * (double)gib);
		/* Of the two it is the later one that goes last where visits cost most. */
		close_to(b.plan.whole.disk_bytes - b.plan.base.disk_bytes - b.plan.first.disk_bytes,
		         cases[i].second * 30.0 * (double)gib);
	}
	dsa_arena_release(&b.arena);
}

static void the_slowest_resource_decides(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = 54 * gib;
	b.machine.host_memory = 44 * gib;
	b.machine.link_rate = b.machine.disk_rate = 1e15;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_COMPUTE);
	close_to(b.plan.first.seconds, b.plan.first.compute_seconds + b.plan.first.lock_seconds);
	b.machine.link_rate = 1e6;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_LINK);
	close_to(b.plan.whole.seconds, b.plan.whole.link_seconds + b.plan.whole.lock_seconds);
	b.machine.disk_rate = 1e5;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_READS);
	close_to(b.plan.whole.seconds, b.plan.whole.disk_seconds + b.plan.whole.lock_seconds);
	dsa_arena_release(&b.arena);
}

/* What is kept lies on the device while that has room; the rest is taken of the host, the base's first, once. */
static void states_on_the_host_are_taken_once_and_waited_for(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = 400 * gib;
	plan(&b);
	assert_true(b.plan.whole.locked_bytes == 0);
	b.machine.gpu_memory = 54 * gib;
	plan(&b);
	assert_true(b.plan.flips_kept == 1);
	const struct dsa_pass_document document = {.tokens = CONTEXT};
	const double state = (double)dsa_state_bytes(&b.config, &document, 1);
	/* One state of each document's candidates: layer 2 behind the flip of layer 1. */
	close_to(b.plan.first.locked_bytes, DOCUMENTS * state);
	assert_true(b.plan.base.locked_bytes > 0 && b.plan.base.locked_bytes <= DOCUMENTS * (2 * state + 1e9));
	close_to(b.plan.whole.locked_bytes, b.plan.base.locked_bytes + b.plan.first.locked_bytes);
	close_to(b.plan.first.lock_seconds, DOCUMENTS * state / 9e9);
	close_to(b.plan.first.seconds,
	         b.plan.first.lock_seconds +
	             fmax(b.plan.first.compute_seconds, fmax(b.plan.first.link_seconds, b.plan.first.disk_seconds)));
	dsa_arena_release(&b.arena);
}

/* The layers of docs/kernels.md, us per token at 64K tokens. */
static void built_in_rates_are_those_that_bench_measured(void **unused)
{
	(void)unused;
	static const struct {
		const char *shape;
		double dense_full, dense_shared, moe_full, moe_shared;
	} measured[] = {{"glm5", 2.29, 1.76, 3.44, 2.77}, {"dsv32", 3.91, 2.86, 4.78, 3.65}};
	for (int i = 0; i < 2; i++) {
		struct dsa_arena arena;
		struct dsa_model_config config;
		struct dsa_streaming_rates rates;
		struct dsa_error err;
		dsa_arena_init(&arena);
		assert_int_equal(dsa_bench_shape(&config, measured[i].shape, &arena, &err), DSA_OK);
		dsa_streaming_measured(&rates, &config, 65536);
		const double pairs[][2] = {{rates.dense_full, measured[i].dense_full},
		                           {rates.dense_shared, measured[i].dense_shared},
		                           {rates.moe_full, measured[i].moe_full},
		                           {rates.moe_shared, measured[i].moe_shared}};
		for (int k = 0; k < 4; k++)
			if (fabs(1e6 * pairs[k][0] / pairs[k][1] - 1) > 0.05)
				fail_msg("%s, %d: %g us, measured %g", measured[i].shape, k, 1e6 * pairs[k][0],
				         pairs[k][1]);
		dsa_arena_release(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(layers_lie_where_a_run_would_put_them),
	    cmocka_unit_test(short_documents_share_a_visit),
	    cmocka_unit_test(steps_cost_what_a_search_with_all_states_runs),
	    cmocka_unit_test(without_memory_for_states_work_is_repeated),
	    cmocka_unit_test(each_wave_of_a_batch_visits_its_layers),
	    cmocka_unit_test(batches_that_fit_into_a_wave_share_its_visits),
	    cmocka_unit_test(the_slowest_resource_decides),
	    cmocka_unit_test(states_on_the_host_are_taken_once_and_waited_for),
	    cmocka_unit_test(built_in_rates_are_those_that_bench_measured),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
