#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/pattern.h"
#include "dsa/work.h"

enum { LAYERS = 6, BATCHES = 2 };

static const struct dsa_evaluator_batch batches[BATCHES] = {
    {.tokens = 1000, .scored = 700, .suffix = 750},
    {.tokens = 400, .scored = 90, .suffix = 300},
};
static const struct dsa_evaluator_shape shape = {.layers = LAYERS, .batches = BATCHES, .batch = batches};

static void count(struct dsa_work *work, int batch, const char *pattern, bool savings)
{
	struct dsa_error err;
	assert_int_equal(dsa_work_count(work, batch, pattern, savings, &err), DSA_OK);
}

static void a_pattern_costs_the_layers_behind_its_longest_known_prefix(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
	count(&work, 0, "FFFFFF", true); /* the whole batch */
	assert_int_equal(work.token_layers, 6000);
	count(&work, 0, "FFFSFF", true); /* layers 3, 4, 5 on the rows behind K */
	assert_int_equal(work.token_layers, 6000 + 3 * 750);
	count(&work, 0, "FFFSFS", true); /* layer 5: shares five layers with the one before */
	assert_int_equal(work.token_layers, 6000 + 4 * 750);
	count(&work, 0, "FSFFFF", true);
	assert_int_equal(work.token_layers, 6000 + 9 * 750);
	assert_int_equal(work.naive, 4 * 6000);
	assert_int_equal(work.head_tokens, 4 * 700);
	dsa_arena_release(&arena);
}

static void asking_again_costs_nothing(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
	count(&work, 1, "FFFFFF", true);
	count(&work, 1, "FFSFFF", true);
	struct dsa_work before = work;
	count(&work, 1, "FFSFFF", true);
	count(&work, 1, "FFFFFF", false);
	assert_int_equal(work.token_layers, before.token_layers);
	assert_int_equal(work.naive, before.naive);
	assert_int_equal(work.head_tokens, before.head_tokens);
	/* The same pattern on another batch is another question. */
	count(&work, 0, "FFSFFF", true);
	assert_int_equal(work.token_layers, before.token_layers + 6000);
	dsa_arena_release(&arena);
}

static void without_savings_every_question_costs_its_naive_price(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
	count(&work, 0, "FFFFFF", false);
	count(&work, 0, "FFFFFS", false);
	count(&work, 1, "FFFFFS", false);
	assert_int_equal(work.token_layers, 2 * 6000 + 2400);
	assert_int_equal(work.naive, work.token_layers);
	dsa_arena_release(&arena);
}

static void counts_equal_a_search_through_all_earlier_patterns(void **state)
{
	(void)state;
	enum { ASKED = 400, LONG = 12 };
	static char asked[ASKED][LONG + 1];
	static const struct dsa_evaluator_batch one = {.tokens = 97, .scored = 40, .suffix = 53};
	static const struct dsa_evaluator_shape longer = {.layers = LONG, .batches = 1, .batch = &one};
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &longer, &arena, &err), DSA_OK);
	int64_t expected = 0, distinct = 0;
	uint32_t random = 1;
	for (int i = 0; i < ASKED; i++) {
		asked[i][0] = 'F';
		for (int l = 1; l < LONG; l++) {
			random = random * 1664525u + 1013904223u;
			asked[i][l] = random >> 30 ? 'F' : 'S';
		}
		int common = 0;
		for (int j = 0; j < i; j++) {
			int with = dsa_pattern_common(asked[j], asked[i]);
			common = with > common ? with : common;
		}
		distinct += common < LONG;
		expected += i ? (int64_t)53 * (LONG - common) : (int64_t)97 * LONG;
		count(&work, 0, asked[i], true);
		assert_int_equal(work.token_layers, expected);
	}
	assert_true(distinct > 100 && distinct < ASKED);
	assert_int_equal(work.naive, distinct * 97 * LONG);
	dsa_arena_release(&arena);
}

static void spared_questions_count_for_the_published_search_only(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_work work;
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_work_init(&work, &shape, &arena, &err), DSA_OK);
	count(&work, 0, "FFFFFF", true);
	const struct dsa_work before = work;
	dsa_work_spare(&work, 0);
	assert_int_equal(work.token_layers, before.token_layers);
	assert_int_equal(work.head_tokens, before.head_tokens);
	assert_int_equal(work.naive, 2 * before.naive);
	dsa_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_pattern_costs_the_layers_behind_its_longest_known_prefix),
	    cmocka_unit_test(asking_again_costs_nothing),
	    cmocka_unit_test(without_savings_every_question_costs_its_naive_price),
	    cmocka_unit_test(counts_equal_a_search_through_all_earlier_patterns),
	    cmocka_unit_test(spared_questions_count_for_the_published_search_only),
	};
	return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
