#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "calib/toy_evaluator.h"
#include "dsa/verification.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

/* user: (documents) the KL of each. */
static double by_document(const struct toy *toy, int document, const char *pattern)
{
	return strcmp(pattern, toy->shape.reference) == 0 ? 0 : ((const double *)toy->user)[document];
}

struct bench {
	struct toy toy;
	double kl[TOY_DOCUMENTS];
	struct dsa_result_corpus corpora[2][TOY_CORPORA]; /* recorded, now */
	struct dsa_results recorded, now;
	struct dsa_verification_options options;
	struct dsa_verification verification;
};

/* Calibration documents of one corpus, 4 a batch; a bound on the mean KL, nothing recorded. */
static void start(struct bench *bench, int documents, double bound)
{
	memset(bench, 0, sizeof *bench);
	toy_init(&bench->toy, "FFFF", by_document);
	for (int d = 0; d < documents; d++)
		toy_document(&bench->toy, 0, DSA_CALIBRATION);
	toy_cut(&bench->toy, 4, false);
	bench->toy.user = bench->kl;
	bench->now = (struct dsa_results){.layers = 4,
	                                  .topk = TOY_TOPK,
	                                  .pattern = "FFSS",
	                                  .reference = "FFFF",
	                                  .seed = 9,
	                                  .corpora = bench->corpora[1],
	                                  .corpus_count = 1};
	bench->corpora[1][0] = (struct dsa_result_corpus){.name = "legal",
	                                                  .weight = 1,
	                                                  .digest = "a",
	                                                  .documents_calibration = documents,
	                                                  .scored_calibration = documents * TOY_ROWS};
	bench->recorded = bench->now;
	bench->recorded.corpora = bench->corpora[0];
	bench->recorded.corpus_count = 0;
	bench->options = (struct dsa_verification_options){
	    .recorded = &bench->recorded,
	    .judge = {.budget = {.kl = bound, .nll = NAN, .kl_p99 = NAN, .top1 = NAN, .max_shared = -1},
	              .tolerance = 3}};
}

static enum dsa_status verify(struct bench *bench)
{
	return dsa_verification_run(&bench->verification, &bench->now, &bench->toy.evaluator, &bench->options, &arena,
	                            &err);
}

static void fill(struct bench *bench, uint64_t *state, double spread)
{
	for (int d = 0; d < bench->toy.shape.documents; d++) {
		double normal = 0;
		for (int i = 0; i < 12; i++) {
			*state = *state * 6364136223846793005u + 1442695040888963407u;
			normal += (double)(*state >> 11) / 9007199254740992.0;
		}
		bench->kl[d] = 0.01 * exp(spread * (normal - 6));
	}
}

static void everything_is_measured_without_haste(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 1;
	start(&bench, 40, 1);
	fill(&bench, &random, 0.3);
	assert_int_equal(verify(&bench), DSA_OK);
	assert_int_equal(bench.verification.documents, 40);
	assert_int_equal(bench.verification.all, 40);
	assert_false(bench.verification.early);
	assert_int_equal(bench.verification.judgement.worse, 0);
	assert_int_equal(bench.toy.asked, 10);
	double sum = 0;
	for (int d = 0; d < 40; d++)
		sum += bench.kl[d];
	assert_true(fabs(bench.now.quality.kl / (sum / 40) - 1) < 1e-9);
	assert_true(bench.now.corpora[0].calibration.kl == bench.now.quality.kl);
}

static void haste_ends_where_a_bound_is_far(void **state)
{
	(void)state;
	static struct bench bench;
	for (int broken = 0; broken < 2; broken++) {
		uint64_t random = 2;
		start(&bench, 60, broken ? 0.001 : 0.1);
		fill(&bench, &random, 0.3);
		bench.options.quick = 16;
		assert_int_equal(verify(&bench), DSA_OK);
		assert_true(bench.verification.early);
		assert_int_equal(bench.verification.documents, 16);
		assert_int_equal(bench.toy.asked, 4);
		assert_int_equal(bench.verification.judgement.worse, broken);
		assert_true(bench.verification.confidence == 0.99);
	}
}

static void haste_doubles_until_all_are_measured(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 3;
	start(&bench, 60, 1);
	fill(&bench, &random, 0.3);
	assert_int_equal(verify(&bench), DSA_OK);
	bench.options.judge.budget.kl = bench.now.quality.kl * 1.0001; /* the last document may decide */
	bench.options.quick = 16;
	bench.toy.asked = 0;
	assert_int_equal(verify(&bench), DSA_OK);
	assert_false(bench.verification.early);
	assert_int_equal(bench.verification.documents, 60);
	assert_int_equal(bench.toy.asked, 15); /* no batch twice */
	assert_int_equal(bench.verification.judgement.worse, 0);
	/* Without a bound, and with one of the p99, nothing is certain before the end. */
	bench.options.judge.budget =
	    (struct dsa_budget){.kl = 1, .nll = NAN, .top1 = NAN, .kl_p99 = 9, .max_shared = -1};
	assert_int_equal(verify(&bench), DSA_OK);
	assert_false(bench.verification.early);
	bench.options.judge.budget.kl_p99 = NAN;
	assert_int_equal(verify(&bench), DSA_OK);
	assert_true(bench.verification.early);
}

/* 2,000 populations with a bound between 0.6 and 1.4 of the mean: an early answer must be the one that all documents
 * give, but in 1% of the cases. */
static void early_answers_are_those_of_all_documents(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 4;
	int early = 0, wrong = 0, runs = 2000;
	for (int i = 0; i < runs; i++) {
		double mean = 0;
		start(&bench, 60, 1);
		fill(&bench, &random, 0.5);
		for (int d = 0; d < 60; d++)
			mean += bench.kl[d] / 60;
		bench.options.judge.budget.kl = mean * (0.6 + 0.8 * (i % 21) / 20.0);
		bench.options.quick = 16;
		assert_int_equal(verify(&bench), DSA_OK);
		const bool broken = mean > bench.options.judge.budget.kl;
		early += bench.verification.early;
		wrong += bench.verification.early && (bench.verification.judgement.worse > 0) != broken;
		dsa_arena_release(&arena);
		dsa_arena_init(&arena);
	}
	printf("early answers: %d of %d, wrong: %d\n", early, runs, wrong);
	assert_true(wrong <= runs / 100);
	assert_true(early > 0);
}

/* An unchanged model must pass early against its own recorded figures: the sample differs from the whole, and the
 * tolerance knows it. */
static void recorded_figures_are_met_by_a_part_of_their_documents(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 5;
	int failed = 0, first = 0, runs = 500;
	for (int i = 0; i < runs; i++) {
		start(&bench, 60, 1);
		fill(&bench, &random, 0.5);
		assert_int_equal(verify(&bench), DSA_OK);
		bench.recorded.quality = bench.now.quality;
		bench.corpora[0][0] = bench.corpora[1][0];
		bench.recorded.corpus_count = 1;
		bench.options.quick = 16;
		assert_int_equal(verify(&bench), DSA_OK);
		assert_int_equal(bench.verification.judgement.all, DSA_DOCUMENTS_SAME);
		failed += bench.verification.judgement.worse > 0;
		first += bench.verification.early && bench.verification.documents == 16;
		dsa_arena_release(&arena);
		dsa_arena_init(&arena);
	}
	printf("unchanged: %d of %d pass at the first look, %d are called worse\n", first, runs, failed);
	assert_true(failed <= runs / 100);
	assert_true(first >= runs * 98 / 100);
	/* Three times the KL is seen as early. */
	start(&bench, 60, 1);
	fill(&bench, &random, 0.3);
	assert_int_equal(verify(&bench), DSA_OK);
	bench.recorded.quality = bench.now.quality;
	bench.corpora[0][0] = bench.corpora[1][0];
	bench.recorded.corpus_count = 1;
	for (int d = 0; d < 60; d++)
		bench.kl[d] *= 3;
	bench.options.quick = 16;
	assert_int_equal(verify(&bench), DSA_OK);
	assert_true(bench.verification.early && bench.verification.judgement.worse > 0);
}

static void other_documents_wait_until_there_are_enough_of_them(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 8;
	start(&bench, 60, 1);
	fill(&bench, &random, 0.3);
	assert_int_equal(verify(&bench), DSA_OK);
	bench.recorded.quality = bench.now.quality;
	bench.corpora[0][0] = bench.corpora[1][0];
	bench.corpora[0][0].digest[0] = 'x';
	bench.recorded.corpus_count = 1;
	bench.options.quick = 8;
	assert_int_equal(verify(&bench), DSA_OK);
	assert_true(bench.verification.early && bench.verification.documents >= 16);
	assert_int_equal(bench.verification.judgement.judged, bench.verification.judgement.count);
	assert_int_equal(bench.verification.judgement.all, DSA_DOCUMENTS_CHANGED);
}

static void a_new_baseline_measures_floor_and_baselines(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 6;
	struct dsa_result_baseline baselines[] = {{.name = "uniform-1/2", .pattern = "FSFS"},
	                                          {.name = "gone", .pattern = "FSSS"}};
	start(&bench, 20, 1);
	fill(&bench, &random, 0.3);
	bench.toy.noise[0] = 0.0005;
	bench.toy.unknown = "FSSS";
	bench.recorded.baselines = baselines;
	bench.recorded.baseline_count = 2;
	bench.options.renew = true;
	assert_int_equal(verify(&bench), DSA_OK);
	assert_true(fabs(bench.now.noise_floor - 0.0005) < 1e-6 && bench.toy.seed_seen == 9);
	assert_true(bench.now.corpora[0].noise_floor == bench.now.noise_floor);
	assert_int_equal(bench.now.baseline_count, 1);
	assert_string_equal(bench.now.baselines[0].name, "uniform-1/2");
	assert_int_equal(bench.now.baselines[0].calibration.documents, 20);
}

static void both_splits_and_every_corpus_are_measured(void **state)
{
	(void)state;
	static struct bench bench;
	uint64_t random = 7;
	start(&bench, 0, 1);
	toy_fill(&bench.toy, 2, 6);
	fill(&bench, &random, 0.3);
	bench.now.corpus_count = 2;
	bench.corpora[1][1] = (struct dsa_result_corpus){.name = "rag", .weight = 1};
	assert_int_equal(verify(&bench), DSA_OK);
	assert_int_equal(bench.verification.documents, 2 * (6 + 2));
	assert_int_equal(bench.now.quality.documents, 12);
	assert_int_equal(bench.now.heldout.documents, 4);
	assert_int_equal(bench.now.corpora[1].heldout.documents, 2);
	assert_true(bench.now.corpora[1].calibration.kl != bench.now.corpora[0].calibration.kl);
	assert_int_equal(bench.verification.judgement.count, 2); /* the bound, on each split */
}

static void faults_come_through(void **state)
{
	(void)state;
	static struct bench bench;
	start(&bench, 20, 1);
	bench.toy.unknown = "FFSS";
	assert_int_equal(verify(&bench), DSA_E_MISSING);
	bench.toy.unknown = NULL;
	bench.toy.fail_from = 3;
	bench.toy.failure = DSA_E_INTERRUPTED;
	bench.toy.calls = 0;
	assert_int_equal(verify(&bench), DSA_E_INTERRUPTED);
	bench.toy.fail_from = 0;
	bench.toy.shape.reference = "FFFS";
	bench.now.pattern = "FFSF";
	assert_int_equal(verify(&bench), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "layer 3 is F"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(everything_is_measured_without_haste, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(haste_ends_where_a_bound_is_far, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(haste_doubles_until_all_are_measured, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(early_answers_are_those_of_all_documents, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(recorded_figures_are_met_by_a_part_of_their_documents, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(other_documents_wait_until_there_are_enough_of_them, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_new_baseline_measures_floor_and_baselines, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(both_splits_and_every_corpus_are_measured, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(faults_come_through, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
