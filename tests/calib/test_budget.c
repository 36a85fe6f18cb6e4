#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "calib/toy_search.h"

static int two_rows_behind_the_third_flip(const struct toy *toy, int document, const char *pattern)
{
	(void)toy;
	(void)document;
	return dsa_pattern_shared(pattern) >= 3 ? 2 : 0;
}

static void every_bound_stops_before_the_flip_that_breaks_it(void **state)
{
	(void)state;
	/* Mean KL goes 0.1, 0.3, 0.6, 1.0, 1.5; ΔNLL twice that; the worst row 1.5 times that. */
	struct dsa_search_options by[4];
	static const enum dsa_bound bounds[] = {DSA_BOUND_KL, DSA_BOUND_NLL, DSA_BOUND_TOP1, DSA_BOUND_KL_P99};
	static const char *const names[] = {"budget-kl", "budget-nll", "min-top1", "budget-kl-p99"};
	for (int i = 0; i < 4; i++)
		by[i] = unbounded();
	by[0].budget.kl = 0.5;
	by[1].budget.nll = 1.1;
	by[2].budget.top1 = 0.9;
	by[3].budget.kl_p99 = 0.8;
	for (int i = 0; i < 4; i++) {
		struct outcome out;
		struct toy toy;
		toy_init(&toy, "FFFFFF", additive);
		toy.astray = two_rows_behind_the_third_flip;
		search_six(&out, &toy, &by[i]);
		assert_string_equal(emitted(&out, &toy), "FFSFSF");
		assert_int_equal(out.trace.stopped_by, bounds[i]);
		assert_string_equal(dsa_bound_name(out.trace.stopped_by), names[i]);
		assert_true(out.complete);
		/* The flip that breaks it stays in the trace, with its figures. */
		assert_int_equal(out.trace.count, 3);
		assert_int_equal(out.trace.steps[2].broken, bounds[i]);
		assert_true(near(out.trace.steps[2].calibration.kl, 0.6));
		release(&out);
	}
}

static void bounds_are_checked_in_a_fixed_order(void **state)
{
	(void)state;
	const struct dsa_quality bad = {.documents = 2, .kl = 1, .nll_delta = 1, .top1 = 0.5, .kl_p99 = 1};
	struct dsa_budget budget = {.kl = 0.1, .nll = 0.1, .top1 = 0.9, .kl_p99 = 0.1, .max_shared = 1};
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSS"), DSA_BOUND_KL);
	budget.kl = 1; /* reached is not broken */
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSS"), DSA_BOUND_NLL);
	budget.nll = (double)NAN; /* not asked for */
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSS"), DSA_BOUND_TOP1);
	budget.top1 = -1;
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSS"), DSA_BOUND_KL_P99);
	budget.kl_p99 = -1;
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSS"), DSA_BOUND_MAX_SHARED);
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FSF"), DSA_BOUND_NONE);
	budget.kl = 0; /* asked for: nothing may change */
	assert_int_equal(dsa_budget_broken(&budget, &bad, "FFF"), DSA_BOUND_KL);
	const struct dsa_quality undefined = {.documents = 2, .kl = (double)NAN}, none = {.kl = (double)NAN};
	assert_int_equal(dsa_budget_broken(&budget, &undefined, "FFF"), DSA_BOUND_KL);
	assert_int_equal(dsa_budget_broken(&budget, &none, "FFF"), DSA_BOUND_NONE);
}

static void max_shared_stops_without_measuring_further(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.max_shared = 2;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.count, 2);
	assert_string_equal(emitted(&out, &toy), "FFSFSF");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_MAX_SHARED);
	assert_int_equal(toy.candidates, 3 * (5 + 4)); /* three calibration batches, two steps */
	release(&out);

	/* Native S layers count. */
	toy_init(&toy, "FSFFFS", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.count, 0);
	assert_int_equal(out.trace.emitted, -1);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_MAX_SHARED);
	release(&out);
}

static void the_base_is_emitted_when_the_first_flip_breaks(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.05;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.emitted, -1);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_KL);
	assert_int_equal(out.trace.count, 1);
	release(&out);
}

static void nothing_to_flip_is_all_shared(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	static const bool locked[] = {false, true, false, true};
	struct outcome out;
	struct toy toy;
	options.locked = locked;
	toy_init(&toy, "FFSF", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.count, 0);
	assert_int_equal(out.trace.emitted, -1);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_ALL_SHARED);
	assert_int_equal(toy.candidates, 0);
	release(&out);
}

/* Held-out documents suffer three times as much, once `user[0]` layers are shared. */
static double held_out_suffers(const struct toy *toy, int document, const char *pattern)
{
	const double *costs = toy->user;
	const double kl = additive(toy, document, pattern);
	return toy->split_of[document] == DSA_HELDOUT && dsa_pattern_shared(pattern) >= costs[0] ? 3 * kl : kl;
}

static void a_pattern_that_breaks_on_held_out_documents_is_not_emitted(void **state)
{
	(void)state;
	static const double costs[] = {2, 0.4, 0.1, 0.5, 0.2, 0.3};
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.7; /* calibration: 0.1 0.3 0.6 | 1.0; held-out: 0.1 | 0.9 1.8 */
	toy_init(&toy, "FFFFFF", held_out_suffers);
	toy.user = costs;
	toy_fill(&toy, 1, 6);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.count, 4); /* held-out documents do not stop the search */
	assert_int_equal(out.trace.steps[0].broken, DSA_BOUND_NONE);
	assert_int_equal(out.trace.steps[1].broken, DSA_BOUND_HELDOUT);
	assert_int_equal(out.trace.steps[2].broken, DSA_BOUND_HELDOUT);
	assert_int_equal(out.trace.steps[3].broken, DSA_BOUND_KL);
	assert_string_equal(emitted(&out, &toy), "FFSFFF");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_HELDOUT);
	assert_string_equal(dsa_bound_name(out.trace.stopped_by), "heldout");
	release(&out);

	/* To the end of the layers, or to max-shared: held-out documents are still the reason. */
	options.budget.kl = 2;
	toy_init(&toy, "FFFFFF", held_out_suffers);
	toy.user = costs;
	toy_fill(&toy, 1, 6);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.count, 5);
	assert_string_equal(emitted(&out, &toy), "FFSFSS");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_HELDOUT);
	release(&out);
}

/* Held-out documents are hurt by exactly `user[0]` shared layers. */
static double held_out_dips(const struct toy *toy, int document, const char *pattern)
{
	const double *costs = toy->user;
	const double kl = additive(toy, document, pattern);
	return toy->split_of[document] == DSA_HELDOUT && dsa_pattern_shared(pattern) == (int)costs[0] ? 9 * kl : kl;
}

static void a_deeper_step_that_holds_on_both_is_emitted(void **state)
{
	(void)state;
	static const double costs[] = {2, 0.4, 0.1, 0.5, 0.2, 0.3};
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.7;
	toy_init(&toy, "FFFFFF", held_out_dips);
	toy.user = costs;
	toy_fill(&toy, 1, 6);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.steps[1].broken, DSA_BOUND_HELDOUT);
	assert_string_equal(emitted(&out, &toy), "FFSFSS");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_KL);
	release(&out);
}

static void without_held_out_documents_calibration_decides(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.7;
	toy_init(&toy, "FFFFFF", additive);
	toy.user = six_costs;
	for (int i = 0; i < 3; i++)
		toy_document(&toy, 0, DSA_CALIBRATION);
	toy_cut(&toy, 2, false);
	search(&out, &toy, &options);
	assert_string_equal(emitted(&out, &toy), "FFSFSS");
	assert_int_equal(out.trace.steps[0].heldout.documents, 0);
	release(&out);
}

static void the_full_trace_goes_to_the_end(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.full_trace = true;
	options.budget.kl = 0.5;
	options.budget.max_shared = 4;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.count, 5);
	assert_string_equal(emitted(&out, &toy), "FFSFSF");
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_KL);
	assert_string_equal(out.trace.steps[4].pattern, "FSSSSS");
	for (int i = 2; i < 5; i++)
		assert_int_equal(out.trace.steps[i].broken, DSA_BOUND_KL);
	release(&out);

	options.budget.kl = (double)NAN;
	toy_init(&toy, "FFFFFF", additive);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.count, 5);
	assert_int_equal(out.trace.emitted, 3);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_MAX_SHARED);
	release(&out);
}

/* Calibration KL is high at exactly two shared layers: the chain gets better again behind its break. */
static double recovers(const struct toy *toy, int document, const char *pattern)
{
	const double kl = additive(toy, document, pattern);
	return dsa_pattern_shared(pattern) == 2 ? 4 * kl : kl;
}

static void a_full_trace_emits_what_holds_again_behind_a_break(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.7;
	toy_init(&toy, "FFFFFF", recovers);
	search_six(&out, &toy, &options);
	assert_string_equal(emitted(&out, &toy), "FFSFFF");
	assert_int_equal(out.trace.count, 2);
	release(&out);
	options.full_trace = true;
	toy_init(&toy, "FFFFFF", recovers);
	search_six(&out, &toy, &options);
	assert_int_equal(out.trace.steps[1].broken, DSA_BOUND_KL);
	assert_string_equal(emitted(&out, &toy), "FFSFSS");
	release(&out);
}

/* Corpus 1 suffers six times as much as corpus 0. */
static double uneven(const struct toy *toy, int document, const char *pattern)
{
	return additive(toy, document, pattern) * (toy->corpus_of[document] == 1 ? 1.5 : 0.25);
}

static void the_worst_corpus_binds_when_asked(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct outcome out;
	struct toy toy;
	options.budget.kl = 0.5; /* mean 0.0375 0.1125 0.225 0.375 | 0.5625, worst 0.15 0.45 | 0.9 */
	for (int scope = 0; scope < 2; scope++) {
		toy_init(&toy, "FFFFFF", uneven);
		toy.user = six_costs;
		toy.weights[0] = 9;
		toy_fill(&toy, 2, 6);
		options.budget.scope = scope ? DSA_SCOPE_WORST : DSA_SCOPE_MEAN;
		search(&out, &toy, &options);
		assert_string_equal(emitted(&out, &toy), scope ? "FFSFSF" : "FSSFSS");
		assert_int_equal(out.trace.stopped_by, DSA_BOUND_KL);
		release(&out);
	}
}

static int second_corpus_strays(const struct toy *toy, int document, const char *pattern)
{
	return toy->corpus_of[document] == 1 && strchr(pattern, 'S') ? 3 : 0;
}

static double first_corpus_moves(const struct toy *toy, int document, const char *pattern)
{
	return toy->corpus_of[document] == 0 ? additive(toy, document, pattern) : 0;
}

static void of_the_bounds_that_corpora_break_the_first_in_order_is_named(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	options.budget.scope = DSA_SCOPE_WORST;
	options.budget.kl_p99 = 0.05; /* broken by corpus 0 */
	options.budget.top1 = 0.9;    /* broken by corpus 1 */
	struct outcome out;
	struct toy toy;
	toy_init(&toy, "FFFFFF", first_corpus_moves);
	toy.user = six_costs;
	toy.astray = second_corpus_strays;
	toy_fill(&toy, 2, 3);
	search(&out, &toy, &options);
	assert_int_equal(out.trace.stopped_by, DSA_BOUND_TOP1);
	release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_bound_stops_before_the_flip_that_breaks_it),
	    cmocka_unit_test(bounds_are_checked_in_a_fixed_order),
	    cmocka_unit_test(max_shared_stops_without_measuring_further),
	    cmocka_unit_test(the_base_is_emitted_when_the_first_flip_breaks),
	    cmocka_unit_test(nothing_to_flip_is_all_shared),
	    cmocka_unit_test(a_pattern_that_breaks_on_held_out_documents_is_not_emitted),
	    cmocka_unit_test(a_deeper_step_that_holds_on_both_is_emitted),
	    cmocka_unit_test(without_held_out_documents_calibration_decides),
	    cmocka_unit_test(the_full_trace_goes_to_the_end),
	    cmocka_unit_test(a_full_trace_emits_what_holds_again_behind_a_break),
	    cmocka_unit_test(the_worst_corpus_binds_when_asked),
	    cmocka_unit_test(of_the_bounds_that_corpora_break_the_first_in_order_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
