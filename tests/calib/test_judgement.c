#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/judgement.h"
#include "dsa/spool.h"

static struct dsa_arena arena;
static struct dsa_error err;
static int warnings;

static int set_up(void **state)
{
	(void)state;
	dsa_arena_init(&arena);
	warnings = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dsa_arena_release(&arena);
	return 0;
}

static void count_warning(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	(void)text;
	warnings += level == DSA_LOG_WARN;
}

static const struct dsa_log warning_log = {.line = count_warning};

/* KL 0.02 ± 0.001, ΔNLL 0.01 ± 0.002, top-1 0.95 ± 0.01, p99 0.4. */
static struct dsa_quality figures(int documents)
{
	return (struct dsa_quality){.documents = documents,
	                            .tokens = documents * 10,
	                            .kl = 0.02,
	                            .kl_se = 0.001,
	                            .kl_p99 = 0.4,
	                            .nll_delta = 0.01,
	                            .nll_delta_se = 0.002,
	                            .top1 = 0.95,
	                            .top1_ci = {0.95 - 0.01 * 1.959963984540054, 0.95 + 0.01 * 1.959963984540054}};
}

/* Two corpora of 20 calibration and 5 held-out documents, every figure the same; noise floor 1e-4. */
struct pair {
	struct dsa_results recorded, now;
	struct dsa_result_corpus corpora[2][2]; /* recorded, now */
	struct dsa_judgement_options options;
	struct dsa_judgement judgement;
};

static void make_pair(struct pair *pair)
{
	static const char *const names[2] = {"legal", "rag"};
	*pair = (struct pair){0};
	struct dsa_results *const sides[2] = {&pair->recorded, &pair->now};
	for (int s = 0; s < 2; s++) {
		*sides[s] = (struct dsa_results){.layers = 4,
		                                 .topk = 7,
		                                 .pattern = "FFSS",
		                                 .reference = "FFFF",
		                                 .architecture = "glm_moe_dsa",
		                                 .fingerprint = "aa",
		                                 .tokenizer = "bb",
		                                 .corpora = pair->corpora[s],
		                                 .corpus_count = 2,
		                                 .quality = figures(40),
		                                 .heldout = figures(10),
		                                 .noise_floor = 1e-4};
		for (int c = 0; c < 2; c++) {
			struct dsa_result_corpus *corpus = &pair->corpora[s][c];
			*corpus = (struct dsa_result_corpus){.name = names[c],
			                                     .weight = 1,
			                                     .documents = 26,
			                                     .documents_calibration = 20,
			                                     .documents_heldout = 5,
			                                     .tokens = 500,
			                                     .scored = 250,
			                                     .scored_calibration = 200,
			                                     .scored_heldout = 50,
			                                     .calibration = figures(20),
			                                     .heldout = figures(5),
			                                     .noise_floor = 1e-4};
			memset(corpus->digest, 'a' + c, 64);
		}
	}
	pair->options = (struct dsa_judgement_options){
	    .budget = {.kl = 0.03, .nll = NAN, .kl_p99 = NAN, .top1 = NAN, .max_shared = -1}, .tolerance = 3};
}

static void judge(struct pair *pair)
{
	if (dsa_judgement_make(&pair->judgement, &pair->recorded, &pair->now, &pair->options, &arena, &err))
		fail_msg("%s", err.text);
}

static const struct dsa_check *find(const struct pair *pair, int corpus, int split, enum dsa_figure figure, bool bound)
{
	for (int i = 0; i < pair->judgement.count; i++) {
		const struct dsa_check *check = &pair->judgement.checks[i];
		if (check->corpus == corpus && check->split == split && check->figure == figure &&
		    check->bound == bound)
			return check;
	}
	return NULL;
}

static enum dsa_outcome outcome(const struct pair *pair, int corpus, enum dsa_figure figure, bool bound)
{
	const struct dsa_check *check = find(pair, corpus, DSA_CALIBRATION, figure, bound);
	assert_non_null(check);
	return check->outcome;
}

static void the_same_figures_hold_everywhere(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	judge(&pair);
	/* Both and each, two splits, three figures; the mean's bound on two splits. */
	assert_int_equal(pair.judgement.count, 3 * 2 * 3 + 2);
	assert_int_equal(pair.judgement.judged, pair.judgement.count);
	assert_int_equal(pair.judgement.worse + pair.judgement.better, 0);
	assert_int_equal(pair.judgement.all, DSA_DOCUMENTS_SAME);
	assert_true(pair.judgement.checks[0].bound && pair.judgement.checks[0].corpus == DSA_ALL_CORPORA);
	pair.now.corpus_count = pair.recorded.corpus_count = 1;
	judge(&pair);
	assert_int_equal(pair.judgement.count, 2 * 3 + 2); /* a single corpus is all of them */
}

static void a_figure_is_missed_past_three_errors_and_the_floor(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	const double tolerance = sqrt(9 * 0.001 * 0.001 + 1e-4 * 1e-4);
	pair.now.quality.kl = 0.02 + tolerance * 0.999;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, false), DSA_OUTCOME_HOLDS);
	pair.now.quality.kl = 0.02 + tolerance * 1.001;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, false), DSA_OUTCOME_WORSE);
	assert_int_equal(pair.judgement.worse, 1);
	/* Adjustable: 0 leaves the noise floor. */
	pair.now.quality.kl = 0.02 + 0.99e-4;
	pair.options.tolerance = 0;
	judge(&pair);
	assert_int_equal(pair.judgement.worse, 0);
	pair.now.quality.kl = 0.02 + 1.01e-4;
	judge(&pair);
	assert_int_equal(pair.judgement.worse, 1);
	pair.now.quality.kl = 0.02 - tolerance * 1.001;
	pair.options.tolerance = 3;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, false), DSA_OUTCOME_BETTER);
	assert_int_equal(pair.judgement.worse, 0);
	assert_int_equal(pair.judgement.better, 1);
}

static void top1_is_worse_downwards_and_errors_come_from_its_interval(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	const double tolerance = sqrt(9 * 0.01 * 0.01 + 0.5e-4);
	pair.now.corpora[1].calibration.top1 = 0.95 - tolerance * 1.001;
	judge(&pair);
	assert_int_equal(outcome(&pair, 1, DSA_FIGURE_TOP1, false), DSA_OUTCOME_WORSE);
	assert_true(fabs(find(&pair, 1, DSA_CALIBRATION, DSA_FIGURE_TOP1, false)->allowed - tolerance) < 1e-12);
	pair.now.corpora[1].calibration.top1 = 0.95 - tolerance * 0.999;
	judge(&pair);
	assert_int_equal(pair.judgement.worse, 0);
	pair.now.corpora[1].calibration.top1 = 0.95 + tolerance * 1.001;
	judge(&pair);
	assert_int_equal(outcome(&pair, 1, DSA_FIGURE_TOP1, false), DSA_OUTCOME_BETTER);
}

static void a_bound_gives_way_to_rounding_only_where_it_was_kept(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	pair.options.tolerance = 1000;
	pair.options.budget.kl = 0.0205;
	pair.now.quality.kl = 0.0205 + 0.9e-4;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_HOLDS);
	pair.now.quality.kl = 0.0205 + 1.1e-4;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_WORSE);
	/* The recorded figure broke it already: exact. */
	pair.options.budget.kl = 0.0195;
	pair.now.quality.kl = 0.0195 + 1e-9;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_WORSE);
	pair.now.quality.kl = 0.0195;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_HOLDS);
	/* A high floor moves no bound by more than 1%. */
	pair.recorded.noise_floor = 0.02;
	pair.options.budget.kl = 0.021;
	pair.now.quality.kl = 0.0213;
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_WORSE);
	/* Other documents: exact. */
	make_pair(&pair);
	pair.options.budget.kl = 0.0205;
	pair.now.quality.kl = 0.0205 + 0.9e-4;
	pair.now.corpora[0].digest[0] = 'f';
	judge(&pair);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, true), DSA_OUTCOME_WORSE);
}

static void every_bound_is_judged_in_its_scope(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	pair.options.budget = (struct dsa_budget){
	    .kl = 0.03, .nll = 0.02, .top1 = 0.9, .kl_p99 = 0.5, .max_shared = 1, .scope = DSA_SCOPE_WORST};
	judge(&pair);
	assert_int_equal(pair.judgement.worse, 1); /* two layers share */
	assert_int_equal(pair.judgement.checks[0].figure, DSA_FIGURE_SHARED);
	assert_null(find(&pair, DSA_ALL_CORPORA, DSA_CALIBRATION, DSA_FIGURE_KL, true));
	struct dsa_quality *bad = &pair.now.corpora[1].heldout;
	const enum dsa_figure each[] = {DSA_FIGURE_KL, DSA_FIGURE_NLL, DSA_FIGURE_TOP1, DSA_FIGURE_KL_P99};
	double *const values[] = {&bad->kl, &bad->nll_delta, &bad->top1, &bad->kl_p99};
	const double broken[] = {0.04, 0.03, 0.8, 0.6};
	pair.options.budget.max_shared = 2;
	for (int f = 0; f < 4; f++) {
		const double before = *values[f];
		*values[f] = broken[f];
		judge(&pair);
		const struct dsa_check *check = find(&pair, 1, DSA_HELDOUT, each[f], true);
		assert_int_equal(check->outcome, DSA_OUTCOME_WORSE);
		*values[f] = (double)NAN; /* no number keeps no bound */
		judge(&pair);
		assert_int_equal(find(&pair, 1, DSA_HELDOUT, each[f], true)->outcome, DSA_OUTCOME_WORSE);
		*values[f] = before;
	}
	judge(&pair);
	assert_int_equal(pair.judgement.worse, 0);
}

static void other_documents_are_two_samples(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	pair.now.corpora[1].weight = 2;
	pair.now.corpora[1].calibration.kl_se = 0.002;
	pair.now.corpora[1].calibration.kl = 0.02 + sqrt(9 * (0.001 * 0.001 + 0.002 * 0.002) + 1e-8) * 0.999;
	judge(&pair);
	assert_int_equal(pair.judgement.documents[0], DSA_DOCUMENTS_SAME);
	assert_int_equal(pair.judgement.documents[1], DSA_DOCUMENTS_CHANGED);
	assert_int_equal(pair.judgement.all, DSA_DOCUMENTS_CHANGED);
	assert_int_equal(outcome(&pair, 1, DSA_FIGURE_KL, false), DSA_OUTCOME_HOLDS);
	pair.now.corpora[1].calibration.kl += 1e-4;
	judge(&pair);
	assert_int_equal(outcome(&pair, 1, DSA_FIGURE_KL, false), DSA_OUTCOME_WORSE);
	/* Five held-out documents are no sample. */
	const struct dsa_check *few = find(&pair, 1, DSA_HELDOUT, DSA_FIGURE_KL, false);
	assert_int_equal(few->outcome, DSA_OUTCOME_UNJUDGED);
	assert_non_null(strstr(few->reason, "16"));
}

static void whatever_shapes_documents_makes_them_others(void **state)
{
	(void)state;
	for (int change = 0; change < 9; change++) {
		struct pair pair;
		make_pair(&pair);
		struct dsa_result_corpus *corpus = &pair.now.corpora[0];
		corpus->digest[5] = change == 0 ? 'x' : corpus->digest[5];
		corpus->documents += change == 1;
		corpus->tokens += change == 2;
		corpus->scored += change == 3;
		corpus->documents_calibration += change == 4;
		corpus->scored_calibration += change == 5;
		corpus->documents_heldout += change == 6;
		corpus->scored_heldout += change == 7;
		pair.now.tokenizer = change == 8 ? "cc" : pair.now.tokenizer;
		judge(&pair);
		assert_int_equal(pair.judgement.documents[0], DSA_DOCUMENTS_CHANGED);
	}
}

static void corpora_are_found_by_name_and_by_digest(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	pair.now.corpora[0].name = "contracts"; /* its digest is legal's */
	judge(&pair);
	assert_int_equal(pair.judgement.recorded_as[0], 0);
	assert_int_equal(pair.judgement.documents[0], DSA_DOCUMENTS_SAME);
	pair.now.corpora[0].digest[0] = 'x';
	assert_int_equal(dsa_judgement_make(&pair.judgement, &pair.recorded, &pair.now, &pair.options, &arena, &err),
	                 DSA_E_USAGE);
	assert_non_null(strstr(err.text, "'legal'"));
	pair.recorded.corpora++;
	pair.recorded.corpus_count = 1; /* the file knows rag alone */
	judge(&pair);
	assert_int_equal(pair.judgement.documents[0], DSA_DOCUMENTS_NEW);
	assert_int_equal(outcome(&pair, DSA_ALL_CORPORA, DSA_FIGURE_KL, false), DSA_OUTCOME_UNJUDGED);
	assert_null(find(&pair, 0, DSA_CALIBRATION, DSA_FIGURE_KL, false));
	assert_int_equal(outcome(&pair, 1, DSA_FIGURE_KL, false), DSA_OUTCOME_HOLDS);
}

static void nothing_to_judge_is_no_pass(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	pair.options.budget.kl = (double)NAN;
	pair.recorded.corpus_count = 0;
	pair.recorded.quality = pair.recorded.heldout = (struct dsa_quality){0};
	assert_int_equal(dsa_judgement_make(&pair.judgement, &pair.recorded, &pair.now, &pair.options, &arena, &err),
	                 DSA_E_INPUT);
	assert_non_null(strstr(err.text, "nothing to judge"));
}

static enum dsa_status admit(const struct pair *pair, bool allow)
{
	return dsa_judgement_admit(&pair->recorded, &pair->now, allow, &warning_log, &err);
}

static void another_model_is_refused_by_what_differs(void **state)
{
	(void)state;
	struct pair pair;
	make_pair(&pair);
	assert_int_equal(admit(&pair, false), DSA_OK);
	assert_int_equal(warnings, 0);
	pair.now.fingerprint = "ab";
	assert_int_equal(admit(&pair, false), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "is ab, recorded is aa"));
	assert_non_null(strstr(err.text, "--allow-model-change"));
	assert_int_equal(admit(&pair, true), DSA_OK);
	assert_int_equal(warnings, 1);
	pair.now.tokenizer = NULL;
	assert_int_equal(admit(&pair, false), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "tokenizer.json"));
	assert_int_equal(admit(&pair, true), DSA_OK);
	for (int change = 0; change < 4; change++) { /* never allowed */
		make_pair(&pair);
		pair.now.layers += change == 0;
		pair.now.topk += change == 1;
		pair.now.architecture = change == 2 ? "deepseek_v32" : pair.now.architecture;
		pair.now.reference = change == 3 ? "FFSS" : pair.now.reference;
		assert_int_equal(admit(&pair, true), DSA_E_INPUT);
	}
	make_pair(&pair); /* what the file does not say is not compared, but said once */
	pair.recorded.fingerprint = pair.recorded.tokenizer = pair.recorded.architecture = pair.recorded.reference =
	    NULL;
	pair.recorded.topk = 0;
	warnings = 0;
	assert_int_equal(admit(&pair, false), DSA_OK);
	assert_int_equal(warnings, 1);
	make_pair(
	    &pair); /* a precision may be what is to be judged: said, not refused; fp8 is the model's of two kinds */
	pair.recorded.index_precision = DSA_INDEX_FP8;
	pair.now.index_precision = DSA_INDEX_FP8_UE8M0;
	warnings = 0;
	assert_int_equal(admit(&pair, false), DSA_OK);
	assert_int_equal(warnings, 0);
	pair.now.index_precision = DSA_INDEX_ACT;
	assert_int_equal(admit(&pair, false), DSA_OK);
	assert_int_equal(warnings, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_same_figures_hold_everywhere, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_figure_is_missed_past_three_errors_and_the_floor, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(top1_is_worse_downwards_and_errors_come_from_its_interval, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(a_bound_gives_way_to_rounding_only_where_it_was_kept, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(every_bound_is_judged_in_its_scope, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(other_documents_are_two_samples, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(whatever_shapes_documents_makes_them_others, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(corpora_are_found_by_name_and_by_digest, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(nothing_to_judge_is_no_pass, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(another_model_is_refused_by_what_differs, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
