#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "dsa/bench.h"
#include "dsa/forward.h"
#include "dsa/streaming.h"

/* Four dense layers, FFFS: two that can be flipped, and one native S layer that cannot. */
static const char config_text[] =
    "{\"model_type\":\"glm_moe_dsa\",\"num_hidden_layers\":4,\"first_k_dense_replace\":4,\"index_topk\":2048,"
    "\"indexer_types\":[\"full\",\"full\",\"full\",\"shared\"]}";
enum { CONTEXT = 4096, DOCUMENTS = 10, LAYERS = 4 };

struct bench {
	struct dsa_arena arena;
	struct dsa_model_config config;
	struct dsa_footprint footprint;
	struct dsa_streaming_machine machine;
	struct dsa_streaming_plan plan;
	double stream; /* bytes of a document's */
};

static void set_up(struct bench *b)
{
	struct dsa_error err;
	*b = (struct bench){0};
	dsa_arena_init(&b->arena);
	assert_int_equal(
	    dsa_model_config_parse(&b->config, config_text, sizeof config_text - 1, "text", &b->arena, &err), DSA_OK);
	b->footprint.part[DSA_FOOTPRINT_OUTSIDE] =
	    (struct dsa_footprint_part){.layers = 1, .stored = 3000000000, .device = 3000000000, .largest = 3000000000};
	b->footprint.part[DSA_FOOTPRINT_DENSE] = (struct dsa_footprint_part){
	    .layers = 4, .stored = 40000000000, .device = 80000000000, .largest = 20000000000};
	b->footprint.device = 83000000000;
	b->stream = (double)dsa_forward_stream_bytes(&b->config, CONTEXT) + (CONTEXT - 2048.0) * 6144 * 2;
	b->machine = (struct dsa_streaming_machine){.gpus = 1,
	                                            .gpu_memory = (43000000000.0 + 4 * b->stream) / 0.75 + 1,
	                                            .host_memory = 50e9,
	                                            .link_rate = 50e9,
	                                            .disk_rate = 5e9};
}

static void plan(struct bench *b)
{
	dsa_streaming_plan(&b->plan, &b->config, &b->footprint, &b->machine, DOCUMENTS * CONTEXT, CONTEXT);
}

/* Of positions >= K of a document in one layer. */
static double suffix_flops(const struct bench *b, bool full)
{
	return CONTEXT * dsa_bench_flops(&b->config, CONTEXT, full, false) -
	       2048 * dsa_bench_flops(&b->config, 2048, full, false);
}

static double head_flops(const struct bench *b, double products)
{
	return products * 2048 * 2 * b->config.vocab * b->config.hidden;
}

static void close_to(double found, double expected)
{
	assert_true(fabs(found - expected) <= 1e-9 * fabs(expected));
}

static void a_step_moves_its_layers_once_a_visit_and_computes_every_path(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	plan(&b);
	assert_true(b.plan.fits);
	assert_int_equal(b.plan.place, DSA_STREAMING_HOST);
	assert_int_equal(b.plan.documents, DOCUMENTS);
	assert_int_equal(b.plan.candidates, 2); /* layers 1 and 2: 0 has nothing before it, 3 is natively S */
	assert_int_equal(b.plan.wave, 2);
	assert_int_equal(b.plan.visit, 2); /* four streams fit */
	/* Five visits of two documents; layers 1, 2, 3, of 10 GB each; and the states in front of layer 1. */
	close_to(b.plan.first.link_bytes, 5 * 30e9 + DOCUMENTS * b.stream);
	close_to(b.plan.first.link_seconds, b.plan.first.link_bytes / 50e9);
	assert_true(b.plan.first.disk_bytes == 0);
	/* Layer 1: its candidate and the base's path to layer 2. Layers 2, 3: two candidates. */
	close_to(b.plan.first.flops,
	         DOCUMENTS * (4 * suffix_flops(&b, true) + 2 * suffix_flops(&b, false) + head_flops(&b, 3)));
	/* The reference: four documents a visit, all layers; then with layer 1 alone left: one path, four layers of it.
	 */
	close_to(b.plan.base.link_bytes, 3 * 40e9);
	close_to(b.plan.whole.flops - b.plan.first.flops - b.plan.base.flops,
	         DOCUMENTS * (2 * suffix_flops(&b, true) + suffix_flops(&b, false) + head_flops(&b, 2)));
	dsa_arena_release(&b.arena);
}

static void what_the_host_cannot_pin_is_read_from_disk_once_for_all_gpus(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.host_memory = 10e9;
	b.machine.gpus = 2;
	plan(&b);
	assert_int_equal(b.plan.place, DSA_STREAMING_DISK);
	close_to(b.plan.pinned, 0.25);
	/* Five documents a GPU, three visits of two. */
	close_to(b.plan.first.disk_bytes, 3 * 30e9 * 0.75);
	close_to(b.plan.first.link_bytes, 2 * 3 * 30e9 + DOCUMENTS * b.stream);
	close_to(b.plan.first.link_seconds, (3 * 30e9 + 5 * b.stream) / 50e9);
	close_to(b.plan.first.disk_seconds, 3 * 30e9 * 0.75 / 5e9);
	dsa_arena_release(&b.arena);
}

static void the_slowest_resource_decides(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.host_memory = 10e9;
	b.machine.link_rate = b.machine.disk_rate = 1e15;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_COMPUTE);
	close_to(b.plan.first.seconds, b.plan.first.compute_seconds);
	b.machine.link_rate = 1e6;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_LINK);
	close_to(b.plan.whole.seconds, b.plan.whole.link_seconds);
	b.machine.disk_rate = 1e5;
	plan(&b);
	assert_int_equal(b.plan.whole.bound, DSA_STREAMING_READS);
	close_to(b.plan.whole.seconds, b.plan.whole.disk_seconds);
	dsa_arena_release(&b.arena);
}

static void a_model_that_fits_moves_states_alone(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = (83e9 + 2 * b.stream) / 0.75 + 1;
	plan(&b);
	assert_int_equal(b.plan.place, DSA_STREAMING_DEVICE);
	assert_true(b.plan.base.link_bytes == 0 && b.plan.base.disk_bytes == 0);
	close_to(b.plan.first.link_bytes, DOCUMENTS * b.stream);
	dsa_arena_release(&b.arena);
}

static void less_than_two_layers_and_a_document_is_no_plan(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = (43e9 + b.stream) / 0.75 + 1;
	plan(&b);
	assert_true(b.plan.fits);
	assert_int_equal(b.plan.wave, 1);
	b.machine.gpu_memory = (43e9 + b.stream) / 0.75 - 1e6;
	plan(&b);
	assert_false(b.plan.fits);
	dsa_arena_release(&b.arena);
}

static void more_candidates_together_move_less(void **unused)
{
	(void)unused;
	struct bench b;
	set_up(&b);
	b.machine.gpu_memory = (43e9 + b.stream) / 0.75 + 1;
	plan(&b);
	/* Waves of one: layers 1, 2, 3 for the one, 2, 3 for the other, a visit a document. */
	close_to(b.plan.first.link_bytes, DOCUMENTS * (50e9 + 2 * b.stream));
	close_to(b.plan.first.flops,
	         DOCUMENTS * (3 * suffix_flops(&b, true) + 2 * suffix_flops(&b, false) + head_flops(&b, 4)));
	dsa_arena_release(&b.arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_step_moves_its_layers_once_a_visit_and_computes_every_path),
	    cmocka_unit_test(what_the_host_cannot_pin_is_read_from_disk_once_for_all_gpus),
	    cmocka_unit_test(the_slowest_resource_decides),
	    cmocka_unit_test(a_model_that_fits_moves_states_alone),
	    cmocka_unit_test(less_than_two_layers_and_a_document_is_no_plan),
	    cmocka_unit_test(more_candidates_together_move_less),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
