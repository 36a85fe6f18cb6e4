#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "calib/toy_search.h"

static bool same_bits(double a, double b)
{
	return memcmp(&a, &b, sizeof a) == 0;
}

static void assert_same_quality(const struct dsa_quality *a, const struct dsa_quality *b)
{
	assert_int_equal(a->documents, b->documents);
	assert_int_equal(a->tokens, b->tokens);
	assert_true(same_bits(a->kl, b->kl) && same_bits(a->kl_se, b->kl_se) && same_bits(a->kl_p99, b->kl_p99));
	assert_true(same_bits(a->nll, b->nll) && same_bits(a->nll_delta_se, b->nll_delta_se));
	assert_true(same_bits(a->top1, b->top1) && same_bits(a->kl_max, b->kl_max));
	assert_int_equal(a->positions, b->positions);
	for (int p = 0; p < a->positions; p++)
		assert_true(same_bits(a->by_position[p].kl, b->by_position[p].kl));
}

static void the_planted_order_is_found(void **state)
{
	(void)state;
	static const int order[] = {2, 4, 5, 1, 3};
	static const char *const patterns[] = {"FFSFFF", "FFSFSF", "FFSFSS", "FSSFSS", "FSSSSS"};
	static const double kls[] = {0.1, 0.3, 0.6, 1.0, 1.5};
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", additive);
	toy.user = six_costs;
	toy_fill(&toy, 2, 6);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.count, 5);
	assert_true(out.complete);
	for (int i = 0; i < 5; i++) {
		const struct dsa_step *step = &out.trace.steps[i];
		assert_int_equal(step->step, i + 1);
		assert_int_equal(step->flip, order[i]);
		assert_string_equal(step->pattern, patterns[i]);
		assert_true(near(step->calibration.kl, kls[i]) && near(step->heldout.kl, kls[i]));
		assert_int_equal(step->calibration.documents, 12);
		assert_int_equal(step->heldout.documents, 4);
		assert_int_equal(step->by_corpus[DSA_CALIBRATION * 2 + 1].documents, 6);
		assert_int_equal(step->by_corpus[DSA_HELDOUT * 2 + 0].documents, 2);
		assert_true(near(step->by_corpus[DSA_HELDOUT * 2 + 1].kl, kls[i]));
		assert_int_equal(step->broken, DSA_BOUND_NONE);
		assert_int_equal(step->candidate_count, 5 - i);
		for (int c = 0; c < step->candidate_count; c++) {
			const struct dsa_candidate *candidate = &step->candidates[c];
			assert_true(c == 0 || candidate->layer > candidate[-1].layer);
			assert_true(near(candidate->kl, (i ? kls[i - 1] : 0) + six_costs[candidate->layer]));
			assert_true(candidate->objective == candidate->kl);
			assert_int_equal(candidate->documents, 12);
		}
	}
	assert_int_equal(out.trace.emitted, 4);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_ALL_SHARED);
	assert_true(out.trace.base_calibration.kl == 0);
	assert_int_equal(out.trace.base_calibration.documents, 12);
	assert_int_equal(out.trace.base_heldout.documents, 4);
	assert_int_equal(out.trace.base_by_corpus[DSA_CALIBRATION * 2 + 1].documents, 6);
	release(&out);
}

/* NLL prefers what KL does not. */
static double reversed(const struct toy *toy, int document, const char *pattern)
{
	return -additive(toy, document, pattern);
}

static void the_objective_may_be_nll(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", additive);
	toy.user = six_costs;
	toy.nll = reversed;
	toy_fill(&toy, 1, 4);
	options.objective = DSA_OBJECTIVE_NLL;
	search(&out, &toy, &options);
	static const int order[] = {3, 1, 5, 4, 2};
	for (int i = 0; i < 5; i++)
		assert_int_equal(out.trace.steps[i].flip, order[i]);
	const struct dsa_candidate *first = &out.trace.steps[0].candidates[0];
	assert_true(first->objective == first->nll && near(first->kl, 0.4));
	assert_true(near(out.trace.steps[0].calibration.nll_delta, -0.5));
	release(&out);
}

static double by_count(const struct toy *toy, int document, const char *pattern)
{
	(void)toy;
	return 0.125 * dsa_pattern_shared(pattern) * (1 + document);
}

static void ties_go_to_the_lower_layer(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFFFF", by_count);
	toy_fill(&toy, 1, 5);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.count, 7);
	for (int i = 0; i < 7; i++)
		assert_int_equal(out.trace.steps[i].flip, i + 1);
	release(&out);
}

static void a_full_trace_asks_each_candidate_once(void **state)
{
	(void)state;
	enum { N = 9 };
	struct dsa_search_options options = unbounded();
	for (int savings = 0; savings < 2; savings++) {
		struct outcome out;
		struct toy toy;
		options.full_trace = true;
		options.savings = savings;
		toy_init(&toy, "FFFFFFFFF", by_count);
		toy_document(&toy, 0, DSA_CALIBRATION);
		toy_document(&toy, 0, DSA_HELDOUT);
		toy_cut(&toy, 1, false);
		search(&out, &toy, &options);
		assert_int_equal(toy.candidates, N * (N - 1) / 2);
		/* The base on both splits, each step's winner on held-out documents. */
		assert_int_equal(toy.asked, N * (N - 1) / 2 + 2 + (N - 1));
		assert_int_equal(out.work.naive, (1 + N * (N - 1) / 2) * TOY_TOKENS * N);
		if (savings)
			assert_true(out.work.token_layers < out.work.naive);
		else
			assert_int_equal(out.work.token_layers, out.work.naive);
		release(&out);
	}
}

static void an_unknown_candidate_ends_the_trace_in_front_of_its_step(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out, known;
	struct toy toy;
	options.budget.max_shared = 2;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&known, &toy, &options);
	options.budget.max_shared = -1;
	toy_init(&toy, "FFFFFF", additive);
	toy.unknown = "FSSFSF"; /* a loser of step 3 */
	search_six(&out, &toy, &options);
	assert_false(out.complete);
	assert_int_equal(out.trace.count, 2);
	assert_string_equal(emitted(&out, &toy), "FFSFSF");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_NONE);
	assert_non_null(strstr(out.err.text, "FSSFSF"));
	/* Its half-known step counts for nothing. */
	assert_int_equal(out.work.token_layers, known.work.token_layers);
	assert_int_equal(out.work.naive, known.work.naive);
	release(&out);

	/* Unknown only on held-out documents: the 4 calls of step 1 are its 3 batches and then the winner's one. */
	toy_init(&toy, "FFFFFF", additive);
	toy.fail_from = 4 + 4;
	toy.failure = DSA_E_MISSING;
	search_six(&out, &toy, &options);
	assert_false(out.complete);
	assert_int_equal(out.trace.count, 0);
	assert_int_equal(out.trace.emitted, -1);
	release(&out);

	/* Known as far as the budget reaches: complete. */
	options.budget.kl = 0.25;
	toy_init(&toy, "FFFFFF", additive);
	toy.unknown = "FSSFSF";
	search_six(&out, &toy, &options);
	assert_true(out.complete);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_KL);
	release(&out);
	release(&known);
}

static void an_interruption_is_handed_on_wherever_it_comes(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&out, &toy, &options);
	release(&out);
	const int calls = toy.calls;
	assert_int_equal(calls, 4 * 6);
	for (int i = 1; i <= calls; i++) {
		toy_init(&toy, "FFFFFF", additive);
		toy.user = six_costs;
		toy_fill(&toy, 1, 6);
		toy.fail_from = i;
		toy.failure = DSA_E_INTERRUPTED;
		assert_int_equal(try_search(&out, &toy, &options), DSA_E_INTERRUPTED);
		release(&out);
	}
}

static void an_objective_that_is_no_number_is_refused(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", additive);
	toy.user = six_costs;
	toy.poison = true;
	toy_fill(&toy, 1, 6);
	assert_int_equal(try_search(&out, &toy, &options), DSA_E_NUMERIC);
	assert_non_null(strstr(out.err.text, "layer 1"));
	release(&out);
}

static void impossible_questions_are_refused(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "SFFF", additive);
	toy_fill(&toy, 1, 3);
	assert_int_equal(try_search(&out, &toy, &options), DSA_E_USAGE);
	release(&out);
	toy_init(&toy, "FFFF", additive);
	toy_document(&toy, 0, DSA_HELDOUT);
	toy_cut(&toy, 1, false);
	assert_int_equal(try_search(&out, &toy, &options), DSA_E_INPUT);
	release(&out);
}

static double tabled(const struct toy *toy, int document, const char *pattern)
{
	const uint64_t *seed = toy->user;
	return strchr(pattern, 'S') ? toy_random(*seed, (uint64_t)document, pattern) : 0;
}

static void the_cut_into_batches_changes_no_bit(void **state)
{
	(void)state;
	static const uint64_t seed = 11;
	struct dsa_search_options options = unbounded();
	struct outcome first, out;
	struct toy toy;
	for (int cut = 0; cut < 4; cut++) {
		struct outcome *now = cut ? &out : &first;
		toy_init(&toy, "FFFFFFF", tabled);
		toy.user = &seed;
		toy.weights[1] = 0.3;
		toy_fill(&toy, 3, 9);
		toy_cut(&toy, cut ? 3 * cut - 2 : 2, cut == 2);
		search(now, &toy, &options);
		if (!cut)
			continue;
		assert_int_equal(out.trace.count, first.trace.count);
		assert_int_equal(out.trace.emitted, first.trace.emitted);
		for (int i = 0; i < out.trace.count; i++) {
			const struct dsa_step *a = &first.trace.steps[i], *b = &out.trace.steps[i];
			assert_string_equal(a->pattern, b->pattern);
			assert_same_quality(&a->calibration, &b->calibration);
			assert_same_quality(&a->heldout, &b->heldout);
			for (int c = 0; c < 3 * DSA_SPLITS; c++)
				assert_same_quality(&a->by_corpus[c], &b->by_corpus[c]);
			for (int c = 0; c < a->candidate_count; c++) {
				assert_true(same_bits(a->candidates[c].objective, b->candidates[c].objective));
				assert_true(same_bits(a->candidates[c].kl_se, b->candidates[c].kl_se));
			}
		}
		release(&out);
	}
	release(&first);
}

/* One random case against a search written the plain way: mean by mean over the documents. */
static void check_random_case(uint64_t seed)
{
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	bool locked[8] = {false};
	char reference[8] = {0}, current[8] = {0};
	const int layers = 1 + (int)(6 * toy_random(seed, 1, "layers"));
	for (int l = 0; l < layers; l++) {
		reference[l] = l && toy_random(seed, (uint64_t)l, "native") < 0.2 ? 'S' : 'F';
		locked[l] = toy_random(seed, (uint64_t)l, "locked") < 0.2;
	}
	memcpy(current, reference, sizeof current);
	options.locked = locked;
	options.full_trace = toy_random(seed, 1, "full") < 0.3;
	options.budget.kl = toy_random(seed, 1, "kl");
	if (toy_random(seed, 1, "count") < 0.5)
		options.budget.max_shared = (int)(layers * toy_random(seed, 2, "count"));
	toy_init(&toy, reference, tabled);
	toy.user = &seed;
	toy_document(&toy, 0, DSA_CALIBRATION);
	toy_document(&toy, 0, DSA_CALIBRATION);
	toy_document(&toy, 0, DSA_HELDOUT);
	toy_cut(&toy, 1 + (int)(2 * toy_random(seed, 1, "cut")), false);
	search(&out, &toy, &options);

	int deepest = -1;
	for (int i = 0; i < out.trace.count; i++) {
		const struct dsa_step *step = &out.trace.steps[i];
		int best = 0, candidates = 0;
		double lowest = HUGE_VAL;
		for (int l = 1; l < layers; l++) {
			if (current[l] == 'S' || locked[l])
				continue;
			current[l] = 'S';
			double kl = (tabled(&toy, 0, current) + tabled(&toy, 1, current)) / 2;
			current[l] = 'F';
			assert_true(near(step->candidates[candidates].kl, kl));
			assert_int_equal(step->candidates[candidates++].layer, l);
			if (kl < lowest) {
				lowest = kl;
				best = l;
			}
		}
		assert_int_equal(step->candidate_count, candidates);
		assert_int_equal(step->flip, best);
		current[best] = 'S';
		assert_string_equal(step->pattern, current);
		for (int l = 0; l < layers; l++)
			assert_true(current[l] == reference[l] || (l > 0 && !locked[l] && reference[l] == 'F'));
		assert_true(near(step->heldout.kl, tabled(&toy, 2, current)));
		bool holds =
		    step->calibration.kl <= options.budget.kl && step->heldout.kl <= options.budget.kl &&
		    (options.budget.max_shared < 0 || dsa_pattern_shared(current) <= options.budget.max_shared);
		assert_int_equal(step->broken == DSA_BOUND_NONE, holds);
		if (holds)
			deepest = i;
		if (i + 1 < out.trace.count && !options.full_trace)
			assert_true(step->calibration.kl <= options.budget.kl);
	}
	assert_int_equal(out.trace.emitted, deepest);
	assert_true(out.trace.stopped_by != DSA_BOUND_NONE);
	release(&out);
}

static void random_cases_flip_no_locked_and_no_native_layer(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 10000; seed++)
		check_random_case(seed);
}

struct told {
	int steps, batches, last_step, last_done;
};

static void count_batches(void *context, int step, int candidates, int done, int batches)
{
	struct told *told = context;
	assert_int_equal(batches, 4);
	assert_int_equal(candidates, 6 - step);
	assert_int_equal(done, step == told->last_step ? told->last_done + 1 : 1);
	told->last_step = step;
	told->last_done = done;
	told->batches++;
}

static void count_steps(void *context, const struct dsa_step *step)
{
	struct told *told = context;
	assert_int_equal(step->step, ++told->steps);
	assert_int_equal(told->last_done, 4);
}

static void progress_is_told_after_every_batch(void **state)
{
	(void)state;
	struct told told = {0};
	const struct dsa_search_progress progress = {.step = count_batches, .context = &told, .done = count_steps};
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", additive);
	toy.user = six_costs;
	toy_fill(&toy, 1, 6);
	dsa_arena_init(&out.arena);
	assert_int_equal(dsa_work_init(&out.work, &toy.shape, &out.arena, &out.err), DSA_OK);
	assert_int_equal(dsa_search_greedy(&out.trace, &toy.evaluator, &options, &out.work, &progress, &out.arena,
	                                   &out.complete, &out.err),
	                 DSA_OK);
	assert_int_equal(told.steps, 5);
	assert_int_equal(told.batches, 5 * 4);
	release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_planted_order_is_found),
	    cmocka_unit_test(the_objective_may_be_nll),
	    cmocka_unit_test(ties_go_to_the_lower_layer),
	    cmocka_unit_test(a_full_trace_asks_each_candidate_once),
	    cmocka_unit_test(an_unknown_candidate_ends_the_trace_in_front_of_its_step),
	    cmocka_unit_test(an_interruption_is_handed_on_wherever_it_comes),
	    cmocka_unit_test(an_objective_that_is_no_number_is_refused),
	    cmocka_unit_test(impossible_questions_are_refused),
	    cmocka_unit_test(the_cut_into_batches_changes_no_bit),
	    cmocka_unit_test(random_cases_flip_no_locked_and_no_native_layer),
	    cmocka_unit_test(progress_is_told_after_every_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
