#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/bootstrap.h"

enum { DOCUMENTS = 48, CORPORA = 2, PROBLEMS = 400 };

static const double weights[CORPORA] = {1, 3};

static double uniform(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (double)(*state >> 11) / 9007199254740992.0;
}

static double normal(uint64_t *state)
{
	double u = uniform(state), v = uniform(state);
	return sqrt(-2 * log(1 - u)) * cos(2 * 3.14159265358979323846 * v);
}

static void set_up(struct dsa_measure *measure, int *corpus_of, int documents, struct dsa_arena *arena)
{
	struct dsa_error err;
	for (int d = 0; d < documents; d++)
		corpus_of[d] = d % CORPORA;
	dsa_arena_init(arena);
	assert_int_equal(dsa_measure_init(measure, CORPORA, documents, weights, corpus_of, arena, &err), DSA_OK);
	measure->intervals = true;
}

/* Log-normal KL by document, mean 1 in corpus 0 and 2 in corpus 1 whatever its length; ΔNLL normal around 0. */
static void draw_documents(struct dsa_measure *measure, double sigma, uint64_t *state)
{
	for (int d = 0; d < measure->documents; d++) {
		int tokens = 50 + (int)(uniform(state) * 100);
		double mean = exp(sigma * normal(state) - sigma * sigma / 2) * (1 + measure->corpus_of[d]);
		measure->totals[d] = (struct dsa_sums){.tokens = tokens,
		                                       .top1 = (int64_t)(tokens * (0.8 + 0.2 * uniform(state))),
		                                       .kl = tokens * mean,
		                                       .kl_max = 10 * mean,
		                                       .nll = tokens * (2 + normal(state)),
		                                       .nll_base = 2.0 * tokens};
	}
}

static bool holds(struct dsa_interval interval, double truth)
{
	return interval.low <= truth && truth <= interval.high;
}

static void intervals_cover_the_truth_about_as_often_as_they_say(void **state)
{
	(void)state;
	static const struct {
		double sigma, least, most; /* of the KL's coverage */
	} cases[] = {{0.5, 0.89, 0.97}, {1, 0.83, 0.94}, {1.5, 0.71, 0.88}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct dsa_measure measure;
		struct dsa_arena arena;
		struct dsa_quality quality;
		int corpus_of[DOCUMENTS], kl = 0, delta = 0;
		uint64_t random = 7;
		set_up(&measure, corpus_of, DOCUMENTS, &arena);
		for (int p = 0; p < PROBLEMS; p++) {
			draw_documents(&measure, cases[i].sigma, &random);
			dsa_bootstrap_intervals(&measure, DSA_ALL_CORPORA, &quality);
			kl += holds(quality.kl_ci, (1 * 1.0 + 3 * 2.0) / 4);
			delta += holds(quality.nll_delta_ci, 0);
		}
		printf("log-normal KL, sigma %g, %d documents: 95%% intervals cover %.4f of the KL, %.4f of the NLL's "
		       "rise\n",
		       cases[i].sigma, DOCUMENTS, (double)kl / PROBLEMS, (double)delta / PROBLEMS);
		assert_true(kl >= cases[i].least * PROBLEMS && kl <= cases[i].most * PROBLEMS);
		assert_true(delta >= 0.90 * PROBLEMS && delta <= 0.97 * PROBLEMS);
		dsa_arena_release(&arena);
	}
}

static void same_documents_give_the_same_bits_and_hold_the_mean(void **state)
{
	(void)state;
	struct dsa_measure measure;
	struct dsa_arena arena;
	struct dsa_quality once, again;
	int corpus_of[DOCUMENTS];
	uint64_t random = 3;
	set_up(&measure, corpus_of, DOCUMENTS, &arena);
	draw_documents(&measure, 1, &random);
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, 4, &once);
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, 4, &again);
	assert_memory_equal(&once.kl_ci, &again.kl_ci, sizeof once.kl_ci);
	assert_memory_equal(&once.top1_ci, &again.top1_ci, sizeof once.top1_ci);
	assert_true(holds(once.kl_ci, once.kl) && holds(once.nll_delta_ci, once.nll_delta) &&
	            holds(once.top1_ci, once.top1));
	/* About four standard errors wide, as a normal figure's is. */
	assert_true(once.kl_ci.high - once.kl_ci.low > 3 * once.kl_se &&
	            once.kl_ci.high - once.kl_ci.low < 5 * once.kl_se);
	/* Figures in proportion have intervals in proportion: every pattern sees the same resamples. */
	for (int d = 0; d < DOCUMENTS; d++)
		measure.totals[d].kl *= 2;
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, 4, &again);
	assert_true(again.kl_ci.low == 2 * once.kl_ci.low && again.kl_ci.high == 2 * once.kl_ci.high);
	dsa_arena_release(&arena);
}

static void documents_that_agree_leave_no_doubt(void **state)
{
	(void)state;
	struct dsa_measure measure;
	struct dsa_arena arena;
	struct dsa_quality quality;
	int corpus_of[6];
	set_up(&measure, corpus_of, 6, &arena);
	for (int d = 0; d < 6; d++)
		measure.totals[d] = (struct dsa_sums){.tokens = 8 << d, .top1 = 4 << d, .kl = 2 << d};
	dsa_bootstrap_intervals(&measure, DSA_ALL_CORPORA, &quality);
	assert_true(quality.kl_ci.low == 0.25 && quality.kl_ci.high == 0.25);
	assert_true(quality.top1_ci.low == 0.5 && quality.top1_ci.high == 0.5);
	dsa_arena_release(&arena);
}

static void one_document_of_a_corpus_has_no_interval(void **state)
{
	(void)state;
	struct dsa_measure measure;
	struct dsa_arena arena;
	struct dsa_quality quality;
	int corpus_of[5];
	uint64_t random = 1;
	set_up(&measure, corpus_of, 5, &arena);
	draw_documents(&measure, 1, &random);
	measure.totals[3].tokens = 0; /* document 1 is what is left of corpus 1 */
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, 4, &quality);
	assert_true(isnan(quality.kl_ci.low) && isnan(quality.kl_ci.high) && isnan(quality.kl_se));
	dsa_measure_quality(&measure, 0, 4, &quality);
	assert_true(quality.kl_ci.low < quality.kl && quality.kl < quality.kl_ci.high);
	measure.intervals = false;
	dsa_measure_quality(&measure, 0, 4, &quality);
	assert_true(isnan(quality.kl_ci.low) && isfinite(quality.kl_se));
	measure.totals[1].tokens = 0;
	dsa_bootstrap_intervals(&measure, 1, &quality);
	assert_true(isnan(quality.kl_ci.low));
	dsa_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(intervals_cover_the_truth_about_as_often_as_they_say),
	    cmocka_unit_test(same_documents_give_the_same_bits_and_hold_the_mean),
	    cmocka_unit_test(documents_that_agree_leave_no_doubt),
	    cmocka_unit_test(one_document_of_a_corpus_has_no_interval),
	};
	return cmocka_run_group_tests_name("bootstrap", tests, NULL, NULL);
}
