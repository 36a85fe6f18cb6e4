#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "calib/toy_evaluator.h"
#include "dsa/calibration.h"

struct run {
	struct dsa_arena arena;
	struct dsa_results results;
	struct dsa_error err;
	bool complete;
};

static struct dsa_calibration_options defaults(void)
{
	return (struct dsa_calibration_options){.search = {.budget = {.kl = (double)NAN,
	                                                              .nll = (double)NAN,
	                                                              .kl_p99 = (double)NAN,
	                                                              .top1 = (double)NAN,
	                                                              .max_shared = -1},
	                                                   .savings = true}};
}

static enum dsa_status run(struct run *out, struct toy *toy, const struct dsa_calibration_options *options)
{
	*out = (struct run){0};
	dsa_arena_init(&out->arena);
	return dsa_calibration_run(&out->results, &toy->evaluator, options, &out->arena, &out->complete, &out->err);
}

static void release(struct run *out)
{
	dsa_arena_release(&out->arena);
}

/* Costs of a layer's flip; a layer further than one behind its source costs ten times as much in corpus 1. Held-out
 * documents suffer a tenth more. */
static const double costs[] = {9, 0.004, 0.001, 0.005, 0.002, 0.003};

static double costly(const struct toy *toy, int document, const char *pattern)
{
	double sum = 0;
	for (int l = 0; pattern[l]; l++) {
		bool far = pattern[l] == 'S' && l - dsa_pattern_source(pattern, l) > 1 && toy->corpus_of[document] == 1;
		sum += pattern[l] == 'S' ? costs[l] * (far ? 10 : 1) : 0;
	}
	return toy->split_of[document] == DSA_HELDOUT ? 1.1 * sum : sum;
}

static void start(struct toy *toy, int corpora)
{
	toy_init(toy, "FFFFFF", costly);
	toy_fill(toy, corpora, 6);
	toy->noise[0] = 2e-4;
	toy->noise[1] = 4e-4;
}

static const struct dsa_result_baseline *baseline(const struct dsa_results *results, const char *name)
{
	for (int i = 0; i < results->baseline_count; i++)
		if (strcmp(results->baselines[i].name, name) == 0)
			return &results->baselines[i];
	fail_msg("no baseline %s", name);
	return NULL;
}

static void the_default_budget_is_a_hundredth_or_three_floors(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_true(out.complete && out.results.default_budget);
	assert_true(out.results.budget.kl == 0.01);
	assert_true(isnan(out.results.budget.nll) && out.results.budget.max_shared == -1);
	assert_true(near(out.results.noise_floor, 3e-4));
	assert_true(near(out.results.corpora[0].noise_floor, 2e-4));
	assert_true(near(out.results.corpora[1].noise_floor, 4e-4));
	assert_int_equal(toy.seed_seen, 1);
	release(&out);

	start(&toy, 2);
	toy.noise[0] = 0.004;
	toy.noise[1] = 0.008;
	options.seed = 77;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_true(near(out.results.budget.kl, 0.018));
	assert_int_equal(toy.seed_seen, 77);
	release(&out);

	/* The worst corpus binds: so does its floor. */
	start(&toy, 2);
	toy.noise[1] = 0.008;
	options.search.budget.scope = DSA_SCOPE_WORST;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_true(near(out.results.budget.kl, 0.024));
	assert_int_equal(out.results.budget.scope, DSA_SCOPE_WORST);
	release(&out);
}

static void a_budget_under_the_noise_floor_is_refused_with_both_numbers(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.budget_given = true;
	options.search.budget.kl = 2.5e-4;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_E_USAGE);
	assert_non_null(strstr(out.err.text, "0.00025"));
	assert_non_null(strstr(out.err.text, "0.0003"));
	/* Right after the base: no candidate and no baseline was asked for. */
	assert_int_equal(toy.candidates, 0);
	release(&out);

	options.search.budget.kl = 3.5e-4; /* above the mean's floor, below corpus 1's */
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	release(&out);
	options.search.budget.scope = DSA_SCOPE_WORST;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_E_USAGE);
	assert_non_null(strstr(out.err.text, "0.00035"));
	assert_non_null(strstr(out.err.text, "0.0004 of corpus rag"));
	release(&out);

	/* Bounds on other figures have no floor. */
	options.search.budget.kl = (double)NAN;
	options.search.budget.max_shared = 2;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(out.results.trace.stopped_by, DSA_BOUND_MAX_SHARED);
	assert_false(out.results.default_budget);
	release(&out);
}

static void results_speak_of_the_emitted_pattern(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.budget_given = true;
	options.search.budget.kl = 0.0065;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	const struct dsa_results *results = &out.results;
	/* 0.001 0.003 0.006 | 0.010 on calibration, but 0.0066 held out. */
	assert_int_equal(results->layers, 6);
	assert_int_equal(results->topk, TOY_TOPK);
	assert_string_equal(results->search, "exact");
	assert_string_equal(results->reference, "FFFFFF");
	assert_string_equal(results->pattern, "FFSFSF");
	assert_int_equal(results->trace.count, 4);
	assert_int_equal(results->trace.stopped_by, DSA_BOUND_HELDOUT);
	assert_true(near(results->quality.kl, 0.003) && near(results->heldout.kl, 0.0033));
	assert_int_equal(results->quality.documents, 6);
	assert_int_equal(results->heldout.documents, 2);
	assert_true(results->base.kl == 0 && near(results->base.nll, results->quality.nll_base));
	assert_int_equal(results->base.tokens, 6 * TOY_ROWS);
	release(&out);
}

static void corpora_have_their_own_figures(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.budget.scope = DSA_SCOPE_MEAN;
	start(&toy, 2);
	toy.weights[1] = 3;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	const struct dsa_results *results = &out.results;
	assert_int_equal(results->corpus_count, 2);
	assert_string_equal(results->corpora[1].name, "rag");
	assert_true(results->corpora[1].weight == 3);
	for (int c = 0; c < 2; c++) {
		const struct dsa_result_corpus *corpus = &results->corpora[c];
		assert_int_equal(corpus->documents_calibration, 6);
		assert_int_equal(corpus->documents_heldout, 2);
		assert_int_equal(corpus->scored_calibration, 6 * TOY_ROWS);
		assert_int_equal(corpus->scored_heldout, 2 * TOY_ROWS);
		assert_int_equal(corpus->calibration.documents, 6);
		assert_int_equal(corpus->heldout.documents, 2);
		assert_true(near(corpus->calibration.kl, costly(&toy, c ? 2 : 0, results->pattern)));
		assert_true(near(corpus->heldout.kl, costly(&toy, c ? 3 : 1, results->pattern)));
	}
	assert_true(near((results->corpora[0].calibration.kl + 3 * results->corpora[1].calibration.kl) / 4,
	                 results->quality.kl));
	assert_true(
	    near((results->corpora[0].heldout.kl + 3 * results->corpora[1].heldout.kl) / 4, results->heldout.kl));
	release(&out);
}

static void corpora_that_the_caller_named_are_kept(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct dsa_result_corpus corpora[1] = {{.name = "mine", .weight = 5, .documents = 11, .cut = 2}};
	struct run out = {.results = {.corpora = corpora, .corpus_count = 1}};
	struct toy toy;
	start(&toy, 1);
	dsa_arena_init(&out.arena);
	assert_int_equal(
	    dsa_calibration_run(&out.results, &toy.evaluator, &options, &out.arena, &out.complete, &out.err), DSA_OK);
	assert_ptr_equal(out.results.corpora, corpora);
	assert_string_equal(corpora[0].name, "mine");
	assert_int_equal(corpora[0].documents, 11);
	assert_int_equal(corpora[0].cut, 2);
	assert_int_equal(corpora[0].documents_calibration, 6);
	assert_true(near(corpora[0].noise_floor, 2e-4));
	release(&out);
}

static void baselines_are_measured_on_both_splits(void **state)
{
	(void)state;
	static const char *const given[] = {"FSSFFF", "FFFFSF", "FSSFFF"};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.baselines = given;
	options.baseline_count = 3;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	const struct dsa_results *results = &out.results;
	assert_int_equal(results->baseline_count, 4);
	assert_string_equal(baseline(results, "uniform-1/2")->pattern, "FSFSFS");
	assert_string_equal(baseline(results, "uniform-1/4")->pattern, "FSSSFS");
	assert_true(near(baseline(results, "uniform-1/2")->calibration.kl, 0.012));
	assert_true(near(baseline(results, "uniform-1/4")->heldout.kl, 1.1 * 0.013));
	assert_true(near(baseline(results, "FSSFFF")->calibration.kl, 0.005));
	assert_int_equal(baseline(results, "FFFFSF")->calibration.documents, 6);
	assert_int_equal(baseline(results, "FFFFSF")->heldout.documents, 2);
	release(&out);
}

static void baselines_keep_native_and_locked_layers(void **state)
{
	(void)state;
	static const bool locked[] = {false, true, false, false, false, false};
	static const char *const given[] = {"FSSFFF"};
	static const char *const impossible[] = {"FFFFFF"};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.locked = locked;
	options.baselines = given;
	options.baseline_count = 1;
	toy_init(&toy, "FFFFSF", costly);
	toy_fill(&toy, 1, 3);
	assert_int_equal(run(&out, &toy, &options), DSA_E_USAGE);
	assert_non_null(strstr(out.err.text, "--baseline"));
	assert_non_null(strstr(out.err.text, "layer 4"));
	assert_int_equal(toy.asked, 0);
	release(&out);

	options.baselines = impossible;
	assert_int_equal(run(&out, &toy, &options), DSA_E_USAGE);
	release(&out);

	options.baseline_count = 0;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_string_equal(baseline(&out.results, "uniform-1/2")->pattern, "FFFSSS");
	assert_string_equal(baseline(&out.results, "uniform-1/4")->pattern, "FFSSSS");
	release(&out);
}

static void the_best_pattern_of_each_count_is_known(void **state)
{
	(void)state;
	static const bool locked[] = {false, false, true, false, false, false};
	static const char *const given[] = {"FFSFFF", "FFFFSF", "FFFSSF"};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.full_trace = true;
	options.baselines = given;
	options.baseline_count = 3;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(out.results.best_count, 6);
	static const char *const chain[] = {"FFFFFF", "FFSFFF", "FFSFSF", "FFSFSS", "FSSFSS", "FSSSSS"};
	for (int i = 0; i < 6; i++) {
		assert_int_equal(out.results.best[i].shared, i);
		assert_string_equal(out.results.best[i].pattern, chain[i]);
		assert_true(near(out.results.best[i].heldout_kl, 1.1 * out.results.best[i].kl));
	}
	release(&out);

	/* Where layer 2 must stay full, its flips are for comparison only. */
	options.search.locked = locked;
	options.search.full_trace = false;
	options.budget_given = true;
	options.search.budget.max_shared = 1;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(out.results.best_count, 4);
	assert_string_equal(out.results.best[1].pattern, "FFFFSF");
	assert_string_equal(out.results.best[2].pattern, "FFFSSF"); /* only a baseline has two */
	assert_true(near(out.results.best[2].kl, 0.007));
	assert_string_equal(out.results.best[3].pattern, "FSFSFS"); /* uniform-1/2 */
	release(&out);
}

/* Greedy's trap: 2 is the cheapest alone, but whoever shares it pays at the second flip. */
static double trapped(const struct toy *toy, int document, const char *pattern)
{
	double kl = costly(toy, document, pattern);
	return pattern[2] == 'S' && dsa_pattern_shared(pattern) > 1 ? kl + 1 : kl;
}

static void a_baseline_below_the_chain_is_the_best_of_its_count(void **state)
{
	(void)state;
	static const char *const given[] = {"FFFFSS"};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.full_trace = true;
	options.baselines = given;
	options.baseline_count = 1;
	start(&toy, 1);
	toy.kl = trapped;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_string_equal(out.results.trace.steps[1].pattern, "FFSFSF");
	assert_string_equal(out.results.best[2].pattern, "FFFFSS");
	assert_true(near(out.results.best[2].kl, 0.005));
	release(&out);
}

/* Layer 2 would share with layer 0, of which nothing is common, layer 3 with 2, of which half is: so 3 runs ahead in
 * the first step, and that it costs more than 2 makes it no flip. */
static void a_race_begins_with_the_layer_most_like_the_one_it_would_share_with(void **state)
{
	(void)state;
	for (int overlap = 0; overlap < 2; overlap++) {
		struct dsa_calibration_options options = defaults();
		struct run out;
		struct toy toy;
		options.overlap = overlap;
		options.search.racing = true;
		options.search.delta = 0.01;
		options.epsilon_share = (double)NAN;
		start(&toy, 1);
		toy.shape.reference = "FSFFFF";
		assert_int_equal(run(&out, &toy, &options), DSA_OK);
		const struct dsa_step *step = &out.results.trace.steps[0];
		assert_int_equal(step->flip, 2);
		assert_int_equal(step->candidates[1].layer, 3);
		assert_int_equal(step->candidates[0].documents, 6);
		assert_true((step->candidates[1].documents == 6) == overlap);
		release(&out);
	}
}

static void overlap_is_measured_on_calibration_documents_when_asked(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.overlap = true;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(toy.overlaps, 2 * 3);
	assert_int_equal(out.results.overlap.layers, 6);
	assert_int_equal(out.results.overlap.documents[0], 6);
	assert_true(near(dsa_overlap_at(&out.results.overlap, 1, -1, 3, 3), 1));
	assert_true(near(dsa_overlap_at(&out.results.overlap, 1, -1, 3, 2), 0.5));
	assert_true(near(dsa_overlap_at(&out.results.overlap, 0, -1, 0, 4), 0));
	release(&out);
	options.overlap = false;
	start(&toy, 2);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(toy.overlaps, 0);
	assert_int_equal(out.results.overlap.layers, 0);
	release(&out);
}

static void work_is_the_search_alone(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.full_trace = true;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	const int64_t questions = 1 + 6 * 5 / 2;
	assert_int_equal(out.results.work.token_layers_naive, questions * 6 * TOY_TOKENS * 6);
	assert_true(out.results.work.token_layers < out.results.work.token_layers_naive);
	assert_int_equal(out.results.work.head_tokens, questions * 6 * TOY_ROWS);
	release(&out);
	options.search.savings = false;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_string_equal(out.results.search, "naive");
	assert_int_equal(out.results.work.token_layers, out.results.work.token_layers_naive);
	release(&out);
}

static void an_interruption_is_handed_on_wherever_it_comes(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	release(&out);
	const int calls = toy.calls;
	/* Base 4, noise 3, baselines 2 × 4, base again 4, five steps of 4 (the fifth breaks). */
	assert_int_equal(calls, 4 + 3 + 8 + 4 + 5 * 4);
	for (int i = 1; i <= calls; i++) {
		start(&toy, 1);
		toy.fail_from = i;
		toy.failure = DSA_E_INTERRUPTED;
		assert_int_equal(run(&out, &toy, &options), DSA_E_INTERRUPTED);
		release(&out);
	}
}

static void what_a_journal_does_not_know_is_left_out(void **state)
{
	(void)state;
	static const char *const given[] = {"FSSFFF"};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.search.full_trace = true;
	options.baselines = given;
	options.baseline_count = 1;
	start(&toy, 1);
	toy.unknown = "FSSFFF"; /* the baseline; a loser of step 2 too */
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_false(out.complete);
	assert_int_equal(out.results.baseline_count, 2);
	assert_int_equal(out.results.trace.count, 1);
	assert_string_equal(out.results.pattern, "FFSFFF");
	assert_int_equal(out.results.trace.stopped_by, DSA_BOUND_NONE);
	assert_int_equal(out.results.best_count, 4); /* base, one step, two uniform ones with 3 and 4 */
	release(&out);

	/* A baseline alone is missing. */
	options.search.full_trace = false;
	options.budget_given = true;
	options.search.budget.max_shared = 1;
	start(&toy, 1);
	toy.unknown = "FSSFFF";
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_false(out.complete);
	assert_int_equal(out.results.trace.stopped_by, DSA_BOUND_MAX_SHARED);
	assert_string_equal(out.results.pattern, "FFSFFF");
	release(&out);

	/* Nothing can be said without base and noise floor. */
	for (int call = 1; call <= 4 + 3; call++) {
		start(&toy, 1);
		toy.fail_from = call;
		toy.failure = DSA_E_MISSING;
		assert_int_equal(run(&out, &toy, &options), DSA_E_MISSING);
		release(&out);
	}
	start(&toy, 1);
	toy.fail_from = 4 + 3 + 1;
	toy.failure = DSA_E_MISSING;
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_false(out.complete);
	release(&out);
}

struct told {
	int calls, last, total, steps;
};

static void count_batches(void *context, int step, int candidates, int done, int batches)
{
	struct told *told = context;
	(void)candidates;
	if (step)
		return;
	assert_int_equal(done, told->last + 1);
	told->last = done;
	told->total = batches;
	told->calls++;
}

static void count_steps(void *context, const struct dsa_step *step)
{
	struct told *told = context;
	assert_int_equal(step->step, ++told->steps);
}

static void progress_reaches_its_total(void **state)
{
	(void)state;
	static const char *const given[] = {"FSSFFF", "FSSFFF"}; /* twins are measured once */
	struct told told = {0};
	const struct dsa_search_progress progress = {.step = count_batches, .context = &told, .done = count_steps};
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	options.progress = &progress;
	options.baselines = given;
	options.baseline_count = 2;
	start(&toy, 1);
	assert_int_equal(run(&out, &toy, &options), DSA_OK);
	assert_int_equal(told.calls, 4 + 3 + 8 + 4);
	assert_int_equal(told.last, told.total);
	assert_int_equal(told.steps, out.results.trace.count);
	release(&out);
}

static void a_pattern_is_evaluated_over_both_splits(void **state)
{
	(void)state;
	struct dsa_budget budget = defaults().search.budget;
	struct run out = {0};
	struct toy toy;
	start(&toy, 2);
	dsa_arena_init(&out.arena);
	assert_int_equal(dsa_calibration_evaluate(&out.results, &toy.evaluator, "FSFFSS", &out.arena, &out.err),
	                 DSA_OK);
	const struct dsa_results *results = &out.results;
	const double one = 0.009, other = 0.009 + 9 * 0.003, both = (6 + 2 * 1.1) / 8;
	assert_string_equal(results->pattern, "FSFFSS");
	assert_int_equal(results->quality.documents, 16);
	assert_int_equal(results->base.documents, 16);
	assert_true(results->base.kl == 0);
	assert_true(near(results->corpora[0].calibration.kl, one * both));
	assert_true(near(results->corpora[1].calibration.kl, other * both));
	assert_true(near(results->quality.kl, (one + other) / 2 * both));
	assert_int_equal(results->heldout.documents, 0);
	assert_int_equal(results->corpora[1].documents_heldout, 2);
	assert_int_equal(results->work.token_layers_naive, 2 * 16 * TOY_TOKENS * 6);
	/* Layers 1 to 5 on positions from K. */
	assert_int_equal(results->work.token_layers, 16 * (6 * TOY_TOKENS + 5 * (TOY_TOKENS - TOY_TOPK)));

	budget.kl = 0.03;
	assert_int_equal(dsa_calibration_gate(results, &budget), DSA_BOUND_NONE);
	budget.scope = DSA_SCOPE_WORST;
	assert_int_equal(dsa_calibration_gate(results, &budget), DSA_BOUND_KL);
	budget.kl = 0.1;
	budget.max_shared = 2;
	assert_int_equal(dsa_calibration_gate(results, &budget), DSA_BOUND_MAX_SHARED);
	release(&out);

	out = (struct run){0};
	dsa_arena_init(&out.arena);
	assert_int_equal(dsa_calibration_evaluate(&out.results, &toy.evaluator, "FFF", &out.arena, &out.err),
	                 DSA_E_USAGE);
	assert_non_null(strstr(out.err.text, "--pattern"));
	release(&out);
}

static void a_run_without_calibration_documents_is_refused(void **state)
{
	(void)state;
	struct dsa_calibration_options options = defaults();
	struct run out;
	struct toy toy;
	toy_init(&toy, "FFFF", costly);
	toy_document(&toy, 0, DSA_HELDOUT);
	toy_cut(&toy, 1, false);
	assert_int_equal(run(&out, &toy, &options), DSA_E_INPUT);
	release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_default_budget_is_a_hundredth_or_three_floors),
	    cmocka_unit_test(a_budget_under_the_noise_floor_is_refused_with_both_numbers),
	    cmocka_unit_test(results_speak_of_the_emitted_pattern),
	    cmocka_unit_test(corpora_have_their_own_figures),
	    cmocka_unit_test(corpora_that_the_caller_named_are_kept),
	    cmocka_unit_test(baselines_are_measured_on_both_splits),
	    cmocka_unit_test(baselines_keep_native_and_locked_layers),
	    cmocka_unit_test(the_best_pattern_of_each_count_is_known),
	    cmocka_unit_test(a_baseline_below_the_chain_is_the_best_of_its_count),
	    cmocka_unit_test(a_race_begins_with_the_layer_most_like_the_one_it_would_share_with),
	    cmocka_unit_test(overlap_is_measured_on_calibration_documents_when_asked),
	    cmocka_unit_test(work_is_the_search_alone),
	    cmocka_unit_test(an_interruption_is_handed_on_wherever_it_comes),
	    cmocka_unit_test(what_a_journal_does_not_know_is_left_out),
	    cmocka_unit_test(progress_reaches_its_total),
	    cmocka_unit_test(a_pattern_is_evaluated_over_both_splits),
	    cmocka_unit_test(a_run_without_calibration_documents_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
