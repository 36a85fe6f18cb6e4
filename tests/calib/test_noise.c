#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "calib/toy_search.h"
#include "dsa/noise.h"

static double nothing(const struct toy *toy, int document, const char *pattern)
{
	(void)toy, (void)document, (void)pattern;
	return 0;
}

static int taken(const struct toy *toy, int corpus)
{
	int documents = 0;
	for (int b = 0; b < toy->shape.batches; b++)
		if (toy->batch[b].corpus == corpus && dsa_noise_takes(&toy->shape, b))
			documents += dsa_noise_takes(&toy->shape, b);
	return documents;
}

/* Corpora of 100, 20 and 5 calibration documents, every eleventh beside them held out. */
static void fill(struct toy *toy, int size)
{
	static const int all[] = {100, 20, 5};
	toy_init(toy, "FFFF", nothing);
	for (int c = 0; c < 3; c++)
		for (int d = 0; d < all[c]; d++) {
			toy_document(toy, c, DSA_CALIBRATION);
			if (d % 11 == 10)
				toy_document(toy, c, DSA_HELDOUT);
		}
	toy_cut(toy, size, false);
}

static void it_is_measured_on_a_quarter_of_each_corpus_and_at_least_eight(void **state)
{
	(void)state;
	struct toy toy;
	fill(&toy, 1);
	assert_true(taken(&toy, 0) == 25 && taken(&toy, 1) == 8 && taken(&toy, 2) == 5);
	fill(&toy, 3); /* however they are cut */
	assert_true(taken(&toy, 0) == 25 && taken(&toy, 1) == 8 && taken(&toy, 2) == 5);
	for (int b = 0; b < toy.shape.batches; b++)
		assert_true(!dsa_noise_takes(&toy.shape, b) || toy.batch[b].split == DSA_CALIBRATION);
}

static void count(void *context)
{
	++*(int *)context;
}

static void the_floor_is_the_weighted_mean_over_those_documents(void **state)
{
	(void)state;
	struct dsa_result_corpus corpora[3] = {{0}};
	struct dsa_results results = {.corpora = corpora, .corpus_count = 3};
	struct dsa_arena arena;
	struct dsa_error err;
	struct toy toy;
	int told = 0;
	dsa_arena_init(&arena);
	fill(&toy, 3);
	for (int c = 0; c < 3; c++) {
		toy.noise[c] = 0.001 * (c + 1);
		toy.weights[c] = c == 2 ? 2 : 1;
	}
	assert_int_equal(dsa_noise_measure(&results, &toy.evaluator, 0, count, &told, &arena, &err), DSA_OK);
	assert_int_equal(toy.seed_seen, 1);
	assert_true(toy.asked == 9 + 3 + 2 && told == toy.asked);
	assert_int_equal(results.noise_documents, 25 + 8 + 5);
	assert_true(near(results.noise_floor, (0.001 + 0.002 + 2 * 0.003) / 4));
	assert_true(results.noise_floor_se < 1e-12); /* all documents alike */
	for (int c = 0; c < 3; c++)
		assert_true(near(corpora[c].noise_floor, toy.noise[c]));
	dsa_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_measured_on_a_quarter_of_each_corpus_and_at_least_eight),
	    cmocka_unit_test(the_floor_is_the_weighted_mean_over_those_documents),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
