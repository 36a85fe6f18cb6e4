#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "calib/toy_evaluator.h"
#include "dsa/search.h"

/* What a search leaves behind. */
struct outcome {
	struct dsa_arena arena;
	struct dsa_trace trace;
	struct dsa_work work;
	struct dsa_error err;
	bool complete;
};

static struct dsa_search_options unbounded(void)
{
	return (struct dsa_search_options){.budget = {.kl = (double)NAN,
	                                              .nll = (double)NAN,
	                                              .kl_p99 = (double)NAN,
	                                              .top1 = (double)NAN,
	                                              .max_shared = -1},
	                                   .savings = true};
}

static enum dsa_status try_search(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	dsa_arena_init(&out->arena);
	out->err.text[0] = 0;
	assert_int_equal(dsa_work_init(&out->work, &toy->shape, &out->arena, &out->err), DSA_OK);
	return dsa_search_greedy(&out->trace, &toy->evaluator, options, &out->work, NULL, &out->arena, &out->complete,
	                         &out->err);
}

static void search(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	assert_int_equal(try_search(out, toy, options), DSA_OK);
}

static void release(struct outcome *out)
{
	dsa_arena_release(&out->arena);
}

static const char *emitted(const struct outcome *out, const struct toy *toy)
{
	return out->trace.emitted < 0 ? toy->shape.reference : out->trace.steps[out->trace.emitted].pattern;
}

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

/* Costs add up: layer l costs user[l]; held-out and calibration documents alike. */
static double additive(const struct toy *toy, int document, const char *pattern)
{
	const double *costs = toy->user;
	double sum = 0;
	(void)document;
	for (int l = 0; pattern[l]; l++)
		sum += pattern[l] == 'S' ? costs[l] : 0;
	return sum;
}

static const double six_costs[] = {9, 0.4, 0.1, 0.5, 0.2, 0.3};

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

/* Searches the six layers of six_costs under `options`; the caller releases. */
static void search_six(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	toy->user = six_costs;
	toy_fill(toy, 1, 6);
	search(out, toy, options);
}

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
	    cmocka_unit_test(a_full_trace_asks_each_candidate_once),
	    cmocka_unit_test(an_unknown_candidate_ends_the_trace_in_front_of_its_step),
	    cmocka_unit_test(an_interruption_is_handed_on_wherever_it_comes),
	    cmocka_unit_test(an_objective_that_is_no_number_is_refused),
	    cmocka_unit_test(impossible_questions_are_refused),
	    cmocka_unit_test(the_worst_corpus_binds_when_asked),
	    cmocka_unit_test(of_the_bounds_that_corpora_break_the_first_in_order_is_named),
	    cmocka_unit_test(the_cut_into_batches_changes_no_bit),
	    cmocka_unit_test(random_cases_flip_no_locked_and_no_native_layer),
	    cmocka_unit_test(progress_is_told_after_every_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
