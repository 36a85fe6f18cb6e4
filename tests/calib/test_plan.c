#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/plan.h"
#include "dsa/spool.h"
#include "dsa/work.h"

enum { LAYERS = 9, BATCHES = 4 };

static const int first[] = {0, 1, 2}, second[] = {3}, third[] = {4, 5}, held[] = {6};
static const int tokens[] = {10, 3, 12, 60, 20, 25, 9};
static const struct dsa_evaluator_batch batches[BATCHES] = {
    {.split = DSA_CALIBRATION, .documents = first, .count = 3, .tokens = 25, .scored = 12, .suffix = 14},
    {.split = DSA_CALIBRATION, .documents = second, .count = 1, .tokens = 60, .scored = 55, .suffix = 56},
    {.split = DSA_CALIBRATION, .documents = third, .count = 2, .tokens = 45, .scored = 30, .suffix = 37},
    {.split = DSA_HELDOUT, .documents = held, .count = 1, .tokens = 9, .scored = 4, .suffix = 5},
};

static struct dsa_evaluator_shape shape_of(int layers, const char *reference)
{
	return (struct dsa_evaluator_shape){
	    .layers = layers, .topk = 4, .documents = 7, .batches = BATCHES, .batch = batches, .reference = reference};
}

/* Counts the questions of a greedy search whose winners are drawn by chance. */
static void search(struct dsa_work *work, const struct dsa_evaluator_shape *shape, const bool *locked, unsigned seed)
{
	struct dsa_error err;
	char base[LAYERS + 1];
	srand(seed);
	strcpy(base, shape->reference);
	for (int b = 0; b < BATCHES; b++)
		if (batches[b].split == DSA_CALIBRATION)
			assert_int_equal(dsa_work_count(work, b, base, true, &err), DSA_OK);
	for (;;) {
		int candidates[LAYERS], count = 0;
		for (int l = 1; l < shape->layers; l++)
			if (base[l] == 'F' && !locked[l])
				candidates[count++] = l;
		if (!count)
			return;
		for (int i = 0; i < count; i++) {
			base[candidates[i]] = 'S';
			for (int b = 0; b < BATCHES; b++)
				if (batches[b].split == DSA_CALIBRATION)
					assert_int_equal(dsa_work_count(work, b, base, true, &err), DSA_OK);
			base[candidates[i]] = 'F';
		}
		base[candidates[rand() % count]] = 'S';
	}
}

static void planned_token_layers_are_those_counted_whatever_the_order_of_flips(void **state)
{
	(void)state;
	static const char *const references[] = {"FFFFFFFFF", "FFSFFFSFF", "FSSSSSSSF"};
	for (unsigned seed = 0; seed < 60; seed++) {
		const struct dsa_evaluator_shape shape = shape_of(LAYERS, references[seed % 3]);
		const bool locked[LAYERS] = {[0] = true, [5] = seed % 2, [7] = seed % 4 == 3};
		struct dsa_arena arena;
		struct dsa_work work;
		struct dsa_plan plan;
		struct dsa_error err;
		dsa_arena_init(&arena);
		assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
		search(&work, &shape, locked, seed);
		dsa_plan_calibrate(&plan, &shape, locked, 2, 16, true);
		assert_int_equal(plan.token_layers, work.token_layers);
		assert_int_equal(plan.naive, work.naive);
		assert_true(plan.most >= plan.token_layers);
		dsa_arena_release(&arena);
	}
}

/* Layers run per row by waves of one step: one goes all the way, the others leave it at their flips. */
static int64_t unkept_step(const int *candidates, int count, int layers, int wave)
{
	int64_t cost = 0;
	for (int begin = 0; begin < count; begin += wave) {
		const int end = begin + wave < count ? begin + wave : count;
		for (int i = begin; i < end - 1; i++)
			cost += layers - candidates[i];
		cost += layers;
	}
	return cost;
}

static void without_states_no_order_of_flips_costs_more_than_planned(void **state)
{
	(void)state;
	for (int wave = 1; wave <= LAYERS; wave++) {
		const struct dsa_evaluator_shape shape = shape_of(LAYERS, "FFFFSFFFF");
		struct dsa_plan plan;
		int64_t worst = 0;
		dsa_plan_calibrate(&plan, &shape, NULL, 2, wave, true);
		/* The first order takes the deepest layer each time, the others one by chance. */
		for (unsigned seed = 0; seed < 200; seed++) {
			int candidates[LAYERS] = {1, 2, 3, 5, 6, 7, 8}, count = 7;
			int64_t cost = 0;
			srand(seed);
			while (count > 0) {
				cost += unkept_step(candidates, count, LAYERS, wave);
				const int flip = seed ? rand() % count : count - 1;
				count--;
				for (int i = flip; i < count; i++)
					candidates[i] = candidates[i + 1];
			}
			assert_true(seed == 0 || cost <= worst);
			worst = cost > worst ? cost : worst;
		}
		assert_int_equal(plan.most, 130 * LAYERS + 107 * worst);
		assert_true(plan.most >= plan.token_layers);
	}
}

static void published_counts_of_evaluations_come_out(void **state)
{
	(void)state;
	static const struct {
		int layers;
		int64_t evaluations, units;
	} known[] = {{47, 1081, 17296}, {61, 1830, 37820}, {78, 3003, 79079}};
	char reference[79];
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		memset(reference, 'F', sizeof reference);
		reference[known[i].layers] = 0;
		const struct dsa_evaluator_shape shape = shape_of(known[i].layers, reference);
		struct dsa_plan plan;
		dsa_plan_calibrate(&plan, &shape, NULL, 0, 1, true);
		assert_int_equal(plan.candidates, known[i].layers - 1);
		assert_int_equal(plan.evaluations, known[i].evaluations);
		assert_int_equal(plan.naive, 130 * known[i].layers * (known[i].evaluations + 1));
		assert_int_equal(plan.token_layers, 130 * known[i].layers + 107 * known[i].units);
		assert_int_equal(plan.most, (130 + 107 * known[i].evaluations) * known[i].layers);
	}
}

static void the_whole_command_counts_what_judges_too(void **state)
{
	(void)state;
	const struct dsa_evaluator_shape shape = shape_of(3, "FFF");
	struct dsa_plan plan;
	dsa_plan_calibrate(&plan, &shape, NULL, 2, 1, true);
	/* The reference on 130 + 9 tokens, the noise floor on 130. */
	assert_int_equal(plan.whole, 3 * (139 + 130));
	/* Step 1: 2 and 1 layers, step 2: 1 layer. Two baselines on 107 + 5 positions, two winners on 5, from their
	 * flips with states kept. */
	assert_int_equal(plan.suffix_least, 107 * (2 + 1 + 1) + 3 * 2 * (107 + 5) + 5 * (2 + 1));
	assert_int_equal(plan.suffix_most, 107 * 9 + 3 * (2 * 107 + 4 * 5));
	/* Three questions of two candidate layers: one S, one S, both S. */
	assert_true(fabs(plan.shared - 2.0 / 3) < 1e-12);
	/* Reference, noise floor, baselines: pairs of products. Steps: 2 + 1 and 1 + 1. */
	assert_int_equal(plan.head, 97 * (2 + 2 + 4 + 3 + 2) + 4 * (2 + 4 + 4));
	assert_int_equal(plan.records, 6 * (1 + 3 + 1 + 2) + 1 * (1 + 2 + 2));
	assert_int_equal(plan.overlaps, 6);
	const struct dsa_plan_rates rates = {.whole = 2, .full = 4, .shared = 1, .head = 0.5};
	assert_true(fabs(dsa_plan_seconds(&plan, &rates, false) - 2.0 * (double)plan.whole -
	                 2.0 * (double)plan.suffix_least - 0.5 * (double)plan.head) < 1e-6);
	assert_true(fabs(dsa_plan_seconds(&plan, &rates, true) - dsa_plan_seconds(&plan, &rates, false) -
	                 2.0 * (107 * 5 + 5 * 3)) < 1e-6);
	/* Without savings the reference runs again beside every question. */
	dsa_plan_calibrate(&plan, &shape, NULL, 2, 1, false);
	assert_int_equal(plan.suffix_most, 0);
	assert_int_equal(plan.whole, 3 * (139 + 130) + 3 * 2 * (3 * 130 + 2 * 130 + 4 * 9));
	assert_int_equal(plan.token_layers, plan.naive);

	dsa_plan_evaluate(&plan, &shape);
	assert_int_equal(plan.whole, 3 * 139);
	assert_int_equal(plan.suffix_most, 3 * 112);
	dsa_plan_overlap(&plan, &shape);
	assert_int_equal(plan.whole, 3 * 139);
	assert_int_equal(plan.suffix_most + plan.head, 0);
	assert_int_equal(plan.overlaps, 7);
}

static void sums_beyond_int64_stay_at_its_end(void **state)
{
	(void)state;
	static const int one[] = {0};
	const struct dsa_evaluator_batch huge = {
	    .documents = one, .count = 1, .tokens = INT64_MAX / 2, .scored = 1, .suffix = INT64_MAX / 4};
	const struct dsa_evaluator_shape shape = {
	    .layers = LAYERS, .batches = 1, .batch = &huge, .reference = "FFFFFFFFF"};
	struct dsa_plan plan;
	dsa_plan_calibrate(&plan, &shape, NULL, 2, 1, true);
	assert_int_equal(plan.naive, INT64_MAX);
	assert_int_equal(plan.token_layers, INT64_MAX);
	assert_int_equal(plan.whole, INT64_MAX);
}

static void the_probe_takes_a_large_batch_of_average_documents(void **state)
{
	(void)state;
	struct dsa_evaluator_shape shape = shape_of(LAYERS, "FFFFFFFFF");
	/* 130 / 6 tokens are nearest to 22.5 in batch 2; batch 0 is too small to be timed. */
	assert_int_equal(dsa_plan_probe_batch(&shape), 2);
	shape.batches = 2;
	assert_int_equal(dsa_plan_probe_batch(&shape), 1);
}

static void memory_goes_to_keys_and_references_before_states(void **state)
{
	(void)state;
	const struct dsa_evaluator_shape shape = shape_of(3, "FFF");
	const struct dsa_model_config config = {
	    .layers = 3, .hidden = 8, .topk = 4, .latent = 6, .rope = 2, .index_dim = 4};
	struct dsa_pass_document scratch[7];
	struct dsa_plan_memory plan;
	bool allowed[BATCHES];
	size_t image[BATCHES];
	/* A key row: 4 · (6 + 2 + 4) bytes of 3 layers; a hidden row 32; a state row 4 · (8 + 4). */
	const size_t fixed[BATCHES] = {11 * 144 + 12 * 32, 4 * 144 + 55 * 32, 8 * 144 + 30 * 32, 4 * 144 + 4 * 32};
	const size_t all = fixed[0] + fixed[1] + fixed[2] + fixed[3];
	dsa_plan_memory(&plan, &shape, NULL, tokens, &config, DSA_F32, 100000, NULL, scratch, allowed, image);
	assert_int_equal(plan.kept, all);
	assert_int_equal(plan.pool, 100000 - all);
	assert_int_equal(plan.state, 48 * (14 + 56 + 37 + 5));
	assert_int_equal(image[1], 48 * 56);
	assert_int_equal(image[3], 48 * 5);
	assert_true(allowed[3]);
	/* One byte short for the second batch: the third still fits. */
	dsa_plan_memory(&plan, &shape, NULL, tokens, &config, DSA_F32, fixed[0] + fixed[1] - 1, NULL, scratch, allowed,
	                image);
	assert_true(allowed[0] && !allowed[1] && allowed[2] && !allowed[3]);
	assert_int_equal(plan.kept, fixed[0] + fixed[2]);
	assert_int_equal(plan.kept + plan.pool, fixed[0] + fixed[1] - 1);
	assert_int_equal(plan.state, 48 * (14 + 37));
	assert_int_equal(image[1], 0);
	/* What states on disk pass through, and what compresses them, is left to them. */
	const size_t largest = 48 * 56, buffer = dsa_states_buffer(largest, true);
	const struct dsa_states_disk disk = {.limit = 1 << 20, .zstd = true};
	assert_true(buffer > largest);
	dsa_plan_memory(&plan, &shape, NULL, tokens, &config, DSA_F32, all + buffer, &disk, scratch, allowed, image);
	assert_true(allowed[0] && allowed[1] && allowed[2] && allowed[3]);
	dsa_plan_memory(&plan, &shape, NULL, tokens, &config, DSA_F32, all + buffer - 1, &disk, scratch, allowed,
	                image);
	assert_true(allowed[0] && allowed[1] && allowed[2] && !allowed[3]);
}

static size_t scratch_of(const struct dsa_backend *be, const struct dsa_backend_limits *limits)
{
	assert_int_equal(be->tile, 64);
	return 10 * (size_t)limits->rows + (size_t)limits->max_context;
}

static void device_memory_is_planned_before_it_is_taken(void **state)
{
	(void)state;
	const struct dsa_ops ops = {.scratch_bytes = scratch_of};
	const struct dsa_backend be = {.ops = &ops, .act = DSA_BF16, .weight = DSA_BF16, .tile = 64};
	bool moe[3] = {false};
	const struct dsa_model_config config = {.layers = 3,
	                                        .hidden = 8,
	                                        .heads = 2,
	                                        .topk = 4,
	                                        .latent = 6,
	                                        .rope = 2,
	                                        .nope = 4,
	                                        .value = 4,
	                                        .q_rank = 8,
	                                        .index_heads = 2,
	                                        .index_dim = 4,
	                                        .dense_inner = 16,
	                                        .vocab = 50,
	                                        .moe = moe};
	struct dsa_plan_device plan;
	const uint64_t weights = dsa_model_weight_bytes(&config, DSA_BF16);
	struct dsa_plan_demand demand = {
	    .weights = weights, .overlap = DSA_OVERLAP_BYTES, .context = 30, .tokens = 100, .scored = 80, .wave = 5};
	dsa_plan_device(&plan, &config, &be, &demand);
	assert_int_equal(plan.weights, weights);
	assert_int_equal(plan.rotary, 30 * 2 * 4);
	assert_int_equal(plan.workspace, dsa_forward_bytes(&config, &be, 100, 100, 0));
	assert_int_equal(plan.streams, 5 * dsa_forward_stream_bytes(&config, 100));
	assert_int_equal(plan.workspace + plan.streams, dsa_forward_bytes(&config, &be, 100, 100, 5));
	/* Hidden states F32 and positions I32, in blocks of 256 bytes. */
	assert_int_equal(plan.streams, 5 * (100 * 8 * 4 + 128 + 100 * 4 * 4 + 192));
	assert_int_equal(plan.scratch, 10 * 100 + 30);
	assert_int_equal(plan.hidden, 80 * 8 * 2 * (1 + DSA_TOGETHER) + 80 * 4);
	assert_int_equal(plan.overlap, 3 * 80 * 4 * 4);
	assert_int_equal(plan.total, plan.weights + plan.rotary + plan.workspace + plan.streams + plan.scratch +
	                                 plan.hidden + plan.overlap);
	/* A question of two patterns makes two wait. */
	demand.patterns = 2;
	dsa_plan_device(&plan, &config, &be, &demand);
	assert_int_equal(plan.hidden, 80 * 8 * 2 * (1 + 2) + 80 * 4);
	demand.patterns = 0;
	dsa_plan_device(&plan, &config, &be, &demand);
	/* What is said to fit does, one token more does not. */
	struct dsa_plan_device less, more;
	demand.tokens = demand.scored = 70;
	demand.wave = 1;
	dsa_plan_device(&less, &config, &be, &demand);
	demand.tokens = 100;
	int64_t fits = dsa_plan_most_tokens(&config, &be, &demand, less.total);
	assert_true(fits >= 70 && fits < 100);
	demand.tokens = demand.scored = fits;
	dsa_plan_device(&less, &config, &be, &demand);
	demand.tokens = demand.scored = fits + 1;
	dsa_plan_device(&more, &config, &be, &demand);
	demand.tokens = 100;
	assert_true(more.total > less.total);
	assert_int_equal(dsa_plan_most_tokens(&config, &be, &demand, SIZE_MAX), 100);
	assert_int_equal(dsa_plan_most_tokens(&config, &be, &demand, plan.weights), 0);
}

static void candidates_and_rows_that_wait_together_stay_within_their_limits(void **state)
{
	(void)state;
	assert_int_equal(dsa_plan_wave(100, 0), 1);
	assert_int_equal(dsa_plan_wave(100, 799), 2);
	assert_int_equal(dsa_plan_wave(100, 800), 3);
	assert_int_equal(dsa_plan_wave(100, 100000), DSA_TOGETHER);
	assert_int_equal(dsa_plan_together(1, 0), DSA_TOGETHER);
	assert_int_equal(dsa_plan_together(1, 5), 5);
	assert_int_equal(dsa_plan_together((size_t)100 << 20, 5), 2);
	/* Candidates of a step; exchanges of 3 S layers for 4 F ones, and the pattern itself. */
	assert_int_equal(dsa_plan_patterns(7, false), 7);
	assert_int_equal(dsa_plan_patterns(7, true), 13);
	assert_int_equal(dsa_plan_patterns(0, true), 1);
	assert_int_equal(dsa_plan_together((size_t)100 << 20, 0), 2);
	assert_int_equal(dsa_plan_together((size_t)1 << 40, 0), 1);
	assert_int_equal(dsa_plan_overlap_rows(78, 2048, 1000, DSA_OVERLAP_BYTES), 1000);
	assert_int_equal(dsa_plan_overlap_rows(78, 2048, 100000, DSA_OVERLAP_BYTES),
	                 ((int64_t)8 << 30) / (78 * 2048 * 4));
	assert_int_equal(dsa_plan_overlap_rows(78, 2048, 100000, 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(planned_token_layers_are_those_counted_whatever_the_order_of_flips),
	    cmocka_unit_test(without_states_no_order_of_flips_costs_more_than_planned),
	    cmocka_unit_test(published_counts_of_evaluations_come_out),
	    cmocka_unit_test(the_whole_command_counts_what_judges_too),
	    cmocka_unit_test(sums_beyond_int64_stay_at_its_end),
	    cmocka_unit_test(the_probe_takes_a_large_batch_of_average_documents),
	    cmocka_unit_test(memory_goes_to_keys_and_references_before_states),
	    cmocka_unit_test(device_memory_is_planned_before_it_is_taken),
	    cmocka_unit_test(candidates_and_rows_that_wait_together_stay_within_their_limits),
	};
	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
