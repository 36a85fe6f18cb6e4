#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "dsa/expectation.h"
#include "dsa/spool.h"
#include "dsa/work.h"

enum { LAYERS = 7, BATCHES = 2, CANDIDATES = 5, ORDERS = 120 };

static const int first[] = {0, 1}, held[] = {2};
static const struct dsa_evaluator_batch batches[BATCHES] = {
    {.split = DSA_CALIBRATION, .documents = first, .count = 2, .tokens = 85, .scored = 70, .suffix = 77},
    {.split = DSA_HELDOUT, .documents = held, .count = 1, .tokens = 9, .scored = 4, .suffix = 5},
};
static const struct dsa_evaluator_shape shape = {
    .layers = LAYERS, .topk = 4, .documents = 3, .batches = BATCHES, .batch = batches, .reference = "FFFSFFF"};
static const int layer_of[CANDIDATES] = {1, 2, 4, 5, 6};

static bool near(double a, double b)
{
	return fabs(a - b) <= 1e-9 * fabs(b);
}

/* Work of the first steps of a search that flips layers in this order. */
static int64_t work_of(const int *order, int steps)
{
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	char base[LAYERS + 1];
	bool flipped[CANDIDATES] = {false};
	strcpy(base, shape.reference);
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
	assert_int_equal(dsa_work_count(&work, 0, base, true, &err), DSA_OK);
	for (int s = 0; s < steps; s++) {
		for (int i = 0; i < CANDIDATES; i++) {
			if (flipped[i])
				continue;
			base[layer_of[i]] = 'S';
			assert_int_equal(dsa_work_count(&work, 0, base, true, &err), DSA_OK);
			base[layer_of[i]] = 'F';
		}
		base[layer_of[order[s]]] = 'S';
		flipped[order[s]] = true;
	}
	const int64_t done = work.token_layers;
	dsa_arena_release(&arena);
	return done;
}

/* The order of that number, of the 120 there are. */
static void make_order(int number, int *order)
{
	int left[CANDIDATES] = {0, 1, 2, 3, 4};
	for (int i = 0; i < CANDIDATES; i++) {
		const int at = number % (CANDIDATES - i);
		number /= CANDIDATES - i;
		order[i] = left[at];
		for (int j = at; j + 1 < CANDIDATES - i; j++)
			left[j] = left[j + 1];
	}
}

static void expected_work_is_the_mean_over_all_orders_of_flips(void **state)
{
	(void)state;
	for (int steps = 0; steps <= CANDIDATES; steps++) {
		int64_t sum = 0;
		for (int i = 0; i < ORDERS; i++) {
			int order[CANDIDATES];
			make_order(i, order);
			sum += work_of(order, steps);
		}
		const struct dsa_course course = {
		    .steps = steps, .raced = 1, .base_kept = 1, .flips_kept = 1, .baselines = 2, .wave = 16};
		struct dsa_expectation found;
		dsa_expect_calibrate(&found, &shape, NULL, &course);
		assert_true(near(found.token_layers, (double)sum / ORDERS));
	}
}

static void to_the_last_layer_it_is_the_plan(void **state)
{
	(void)state;
	const bool locked[LAYERS] = {[5] = true};
	for (int i = 0; i < 2; i++) {
		struct dsa_course course = {
		    .steps = CANDIDATES - i, .raced = 1, .base_kept = 1, .flips_kept = 1, .baselines = 3, .wave = 2};
		struct dsa_expectation found;
		struct dsa_plan plan;
		dsa_plan_calibrate(&plan, &shape, i ? locked : NULL, 3, 2, true);
		dsa_expect_calibrate(&found, &shape, i ? locked : NULL, &course);
		assert_true(near(found.evaluations, (double)plan.evaluations));
		assert_true(near(found.token_layers, (double)plan.token_layers));
		assert_true(near(found.whole, (double)plan.whole));
		assert_true(near(found.suffix, (double)plan.suffix_least));
		assert_true(near(found.head, (double)plan.head));
		assert_true(found.refine_token_layers == 0 && found.refine_head == 0);
		/* Fewer states cost more, and never more than the plan's most. */
		const double least = found.suffix;
		course.flips_kept = 0.5;
		dsa_expect_calibrate(&found, &shape, i ? locked : NULL, &course);
		const double between = found.suffix;
		course.flips_kept = course.base_kept = 0;
		dsa_expect_calibrate(&found, &shape, i ? locked : NULL, &course);
		assert_true(least < between && between < found.suffix && found.suffix <= (double)plan.suffix_most);
	}
}

static void a_race_asks_for_less_and_its_winners_for_all(void **state)
{
	(void)state;
	struct dsa_course course = {
	    .steps = 3, .raced = 0.5, .base_kept = 1, .flips_kept = 1, .baselines = 2, .wave = 16};
	struct dsa_expectation raced, exact;
	dsa_expect_calibrate(&raced, &shape, NULL, &course);
	course.raced = 1;
	dsa_expect_calibrate(&exact, &shape, NULL, &course);
	/* 5 + 4 + 3 questions, of which 3 are winners'. */
	assert_true(near(exact.evaluations, 12));
	assert_true(near(raced.evaluations, 3 + 9 * 0.5));
	const double base = 85.0 * LAYERS;
	assert_true(near(raced.token_layers - base, (exact.token_layers - base) * 7.5 / 12));
	assert_true(raced.head < exact.head && raced.suffix < exact.suffix);
	assert_true(near(raced.whole, exact.whole));
	assert_true(dsa_expect_raced(5, DSA_OBJECTIVE_KL) == 1 && dsa_expect_raced(16, DSA_OBJECTIVE_NLL) == 1);
	assert_true(near(dsa_expect_raced(16, DSA_OBJECTIVE_KL), 0.25));
	assert_true(near(dsa_expect_raced(1024, DSA_OBJECTIVE_KL), 0.125));
}

static void refinement_stays_within_its_allowance_and_its_exchanges(void **state)
{
	(void)state;
	struct dsa_course course = {
	    .steps = 3, .raced = 1, .refine_work = 0.25, .base_kept = 1, .flips_kept = 1, .baselines = 2, .wave = 16};
	struct dsa_expectation found;
	dsa_expect_calibrate(&found, &shape, NULL, &course);
	assert_true(near(found.refine_token_layers, 0.25 * found.token_layers));
	/* 1·4 + 2·3 + 3·2 exchanges of pairs that cost (5 + 3·2 + 2·3 + 1·4) / 10 on 77 rows. */
	course.refine_work = 100;
	dsa_expect_calibrate(&found, &shape, NULL, &course);
	assert_true(near(found.refine_token_layers, 16 * 2.1 * 77));
	assert_true(near(found.refine_head, 16 * (1 + 1.0 / DSA_TOGETHER) * 70));
	assert_true(near(found.refine_suffix, 1.7 * found.refine_token_layers) &&
	            near(found.refine_shared, found.refine_suffix * 3 / 5));
	const struct dsa_plan_rates rates = {.whole = 1, .full = 1, .shared = 0.5, .head = 0.1};
	assert_true(near(dsa_expect_seconds(&found, &rates, true) - dsa_expect_seconds(&found, &rates, false),
	                 found.refine_suffix * 0.7 + 0.1 * found.refine_head));
	assert_true(near(dsa_expect_seconds(&found, &rates, false),
	                 found.whole + found.suffix - 0.5 * found.suffix_shared + 0.1 * found.head));
	/* Nothing to exchange. */
	course.steps = 0;
	dsa_expect_calibrate(&found, &shape, NULL, &course);
	assert_true(found.refine_token_layers == 0 && isfinite(dsa_expect_seconds(&found, &rates, true)));
}

static void a_bound_on_quality_ends_a_search_behind_two_thirds(void **state)
{
	(void)state;
	assert_int_equal(dsa_expect_steps(15, true, 3, true), 15);
	assert_int_equal(dsa_expect_steps(15, false, 3, false), 3);
	assert_int_equal(dsa_expect_steps(15, false, -1, true), 11);
	assert_int_equal(dsa_expect_steps(15, false, 13, true), 11);
	assert_int_equal(dsa_expect_steps(15, false, 13, false), 13);
	assert_int_equal(dsa_expect_steps(1, false, -1, true), 1);
	assert_int_equal(dsa_expect_steps(0, false, -1, true), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(expected_work_is_the_mean_over_all_orders_of_flips),
	    cmocka_unit_test(to_the_last_layer_it_is_the_plan),
	    cmocka_unit_test(a_race_asks_for_less_and_its_winners_for_all),
	    cmocka_unit_test(refinement_stays_within_its_allowance_and_its_exchanges),
	    cmocka_unit_test(a_bound_on_quality_ends_a_search_behind_two_thirds),
	};
	return cmocka_run_group_tests_name("expectation", tests, NULL, NULL);
}
