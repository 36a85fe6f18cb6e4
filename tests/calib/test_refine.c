#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "calib/toy_search.h"
#include "dsa/calibration.h"
#include "dsa/journal.h"
#include "dsa/refine.h"

static const double without_end = 1e6;

/* A search and what refining it found. */
struct refined {
	struct outcome out;
	struct dsa_refinement refinement;
	int64_t greedy; /* token-layers before */
};

static enum dsa_status try_refine(struct refined *r, struct toy *toy, struct dsa_evaluator *evaluator,
                                  const struct dsa_search_options *options, double share)
{
	struct outcome *out = &r->out;
	dsa_arena_init(&out->arena);
	out->err.text[0] = 0;
	assert_int_equal(dsa_work_init(&out->work, &toy->shape, &out->arena, &out->err), DSA_OK);
	enum dsa_status status = dsa_search_greedy(&out->trace, evaluator, options, &out->work, NULL, &out->arena,
	                                           &out->complete, &out->err);
	r->greedy = out->work.token_layers;
	if (!status)
		status = dsa_refine(&r->refinement, evaluator, options, &out->trace, share, &out->work, NULL,
		                    &out->arena, &out->err);
	return status;
}

static void refine(struct refined *r, struct toy *toy, const struct dsa_search_options *options, double share)
{
	assert_int_equal(try_refine(r, toy, &toy->evaluator, options, share), DSA_OK);
}

static const struct dsa_refined *refined_at(const struct refined *r, int shared)
{
	for (int i = 0; i < r->refinement.count; i++)
		if (r->refinement.best[i].shared == shared)
			return &r->refinement.best[i];
	return NULL;
}

/* Greedy goes 1, 12, 123; at three, 234 is 20 times better, and whatever lies between 123 and 234 (23, 1234) is as bad
 * as everything else. */
static double trap(const struct toy *toy, int document, const char *pattern)
{
	(void)toy;
	static const struct {
		const char *pattern;
		double cost;
	} known[] = {{"FFFFFF", 0}, {"FSFFFF", 0.1}, {"FSSFFF", 0.2}, {"FSSSFF", 1}, {"FFSSSF", 0.05}};
	const double hard = 1 + 0.125 * (document % 5);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(pattern, known[i].pattern))
			return hard * known[i].cost;
	return hard * (2 * dsa_pattern_shared(pattern) + toy_random(1, 0, pattern));
}

static void an_exchange_leaves_the_trap_that_greedy_falls_into(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct refined r;
	struct toy toy;
	options.budget.kl = 0.5;
	toy_init(&toy, "FFFFFF", trap);
	toy_fill(&toy, 2, 6);
	refine(&r, &toy, &options, without_end);
	/* Greedy's chain is as it was: two flips hold, the third breaks the bound. */
	assert_int_equal(r.out.trace.count, 3);
	assert_int_equal(r.out.trace.emitted, 1);
	assert_string_equal(r.out.trace.steps[2].pattern, "FSSSFF");
	assert_int_equal(r.refinement.count, 1);
	const struct dsa_refined *best = refined_at(&r, 3);
	assert_string_equal(best->pattern, "FFSSSF");
	const double ratio = best->calibration.kl / r.out.trace.steps[2].calibration.kl;
	assert_true(near(ratio, 0.05));
	assert_true(near(best->difference, best->calibration.kl - r.out.trace.steps[2].calibration.kl));
	assert_true(best->difference_se > 0 && -best->difference > best->difference_se);
	assert_int_equal(best->heldout.documents, 4);
	assert_int_equal(best->broken, DSA_BOUND_NONE);
	/* And it is what is emitted, though greedy stopped in front of it. */
	assert_ptr_equal(dsa_refine_emit(&r.out.trace, &r.refinement), best);
	assert_int_equal(r.out.trace.emitted, 2);
	assert_int_equal(r.out.trace.stopped_by, DSA_BOUND_KL);
	release(&r.out);
}

static void forced_layers_keep_the_trap_shut(void **state)
{
	(void)state;
	static const bool locked[6] = {[4] = true};
	struct dsa_search_options options = unbounded();
	struct refined r;
	struct toy toy;
	options.budget.kl = 0.5;
	options.locked = locked;
	toy_init(&toy, "FFFFFF", trap);
	toy_fill(&toy, 1, 6);
	refine(&r, &toy, &options, without_end);
	assert_null(refined_at(&r, 3));
	assert_null(dsa_refine_emit(&r.out.trace, &r.refinement));
	assert_int_equal(r.out.trace.emitted, 1);
	assert_int_equal(r.out.trace.stopped_by, DSA_BOUND_KL);
	release(&r.out);
}

/* At two shared greedy has 1 on every document; the exchange 1.2 on all but the first: 0.925 in the mean. */
static double doubtful(const struct toy *toy, int document, const char *pattern)
{
	const double *others = toy->user;
	if (!strcmp(pattern, "FFSS"))
		return document == 0 ? 0.1 : *others;
	if (!strcmp(pattern, "FSFF"))
		return 0.1;
	return strcmp(pattern, "FSSF") ? 3 * dsa_pattern_shared(pattern) : 1;
}

static void what_is_better_within_its_error_is_not_taken(void **state)
{
	(void)state;
	static const double within = 1.2, beyond = 0.5;
	struct dsa_search_options options = unbounded();
	struct dsa_measure a, b;
	struct refined r;
	struct toy toy;
	double difference, se;
	toy_init(&toy, "FFFF", doubtful);
	for (int d = 0; d < 4; d++)
		toy_document(&toy, 0, DSA_CALIBRATION);
	toy_cut(&toy, 2, false);
	toy.user = &within;
	refine(&r, &toy, &options, without_end);
	assert_string_equal(r.out.trace.steps[1].pattern, "FSSF");
	assert_int_equal(r.refinement.count, 0);
	assert_int_equal(r.refinement.rounds, 2); /* with all shared there is nothing to exchange */
	struct dsa_arena *arena = &r.out.arena;
	assert_int_equal(dsa_measure_pattern(&a, &toy.evaluator, "FFFF", "FFSS", DSA_CALIBRATION, 0, arena, NULL),
	                 DSA_OK);
	assert_int_equal(dsa_measure_pattern(&b, &toy.evaluator, "FFFF", "FSSF", DSA_CALIBRATION, 0, arena, NULL),
	                 DSA_OK);
	dsa_measure_difference(&a, &b, DSA_OBJECTIVE_KL, &difference, &se);
	assert_true(near(difference, -0.075) && near(se, 0.275));
	release(&r.out);

	toy.user = &beyond; /* 0.6 against an error of 0.1 */
	refine(&r, &toy, &options, without_end);
	assert_string_equal(refined_at(&r, 2)->pattern, "FFSS");
	assert_true(near(refined_at(&r, 2)->difference, -0.6) && near(refined_at(&r, 2)->difference_se, 0.1));
	release(&r.out);
}

/* Costs that do not add up; documents agree on most of it. */
static double rugged(const struct toy *toy, int document, const char *pattern)
{
	const uint64_t seed = *(const uint64_t *)toy->user;
	const int shared = dsa_pattern_shared(pattern) - dsa_pattern_shared(toy->shape.reference);
	const double own = 0.3 * toy_random(seed, (uint64_t)document + 10, pattern);
	return shared ? 0.1 * shared + toy_random(seed, 0, pattern) + own : 0;
}

struct problem {
	uint64_t seed;
	char reference[10];
	bool locked[10];
	struct dsa_search_options options;
	double share;
	struct toy toy;
};

static void make_problem(struct problem *p, uint64_t seed)
{
	*p = (struct problem){.seed = seed, .options = unbounded()};
	const int layers = 2 + (int)(6 * toy_random(seed, 1, "layers"));
	for (int l = 0; l < layers; l++) {
		p->reference[l] = l && toy_random(seed, (uint64_t)l, "native") < 0.15 ? 'S' : 'F';
		p->locked[l] = toy_random(seed, (uint64_t)l, "locked") < 0.15;
	}
	p->options.locked = p->locked;
	p->options.full_trace = toy_random(seed, 1, "full") < 0.7;
	p->options.budget.kl = 0.3 + toy_random(seed, 1, "kl");
	p->options.racing = toy_random(seed, 1, "racing") < 0.5;
	p->options.delta = 0.1;
	p->options.epsilon = 0.02;
	p->share = 3 * toy_random(seed, 1, "share");
	toy_init(&p->toy, p->reference, rugged);
	p->toy.user = &p->seed;
	toy_fill(&p->toy, 1 + (int)(2 * toy_random(seed, 1, "corpora")),
	         4 + (int)(14 * toy_random(seed, 1, "documents")));
}

static void check_constraints(const struct problem *p, const char *pattern)
{
	const int layers = p->toy.shape.layers;
	assert_int_equal(strlen(pattern), layers);
	assert_int_equal(dsa_pattern_check(pattern, layers, "a refined pattern", NULL), DSA_OK);
	assert_true(dsa_pattern_respects(pattern, p->reference));
	for (int l = 0; l < layers; l++)
		assert_true(!p->locked[l] || pattern[l] == p->reference[l]);
}

static void refinement_is_never_worse_than_greedy_and_keeps_within_its_work(void **state)
{
	(void)state;
	int better = 0;
	for (uint64_t seed = 1; seed <= 1000; seed++) {
		struct problem p;
		struct refined r;
		make_problem(&p, seed);
		refine(&r, &p.toy, &p.options, p.share);
		const int64_t spent = r.out.work.token_layers - r.greedy;
		assert_int_equal(r.refinement.token_layers, spent);
		assert_true((double)spent <= p.share * (double)r.greedy);
		for (int i = 0; i < r.refinement.count; i++) {
			const struct dsa_refined *best = &r.refinement.best[i];
			check_constraints(&p, best->pattern);
			assert_int_equal(best->shared, dsa_pattern_shared(best->pattern));
			assert_true(i == 0 || best->shared > best[-1].shared);
			const struct dsa_step *step =
			    &r.out.trace.steps[best->shared - dsa_pattern_shared(p.reference) - 1];
			assert_int_equal(dsa_pattern_shared(step->pattern), best->shared);
			assert_true(best->calibration.kl < step->calibration.kl && best->difference < 0);
			assert_true(near(best->difference, best->calibration.kl - step->calibration.kl));
		}
		better += r.refinement.count;
		const int before = r.out.trace.emitted;
		const struct dsa_refined *emitted = dsa_refine_emit(&r.out.trace, &r.refinement);
		if (emitted) {
			assert_int_equal(emitted->broken, DSA_BOUND_NONE);
		} else {
			assert_true(r.out.trace.emitted <= before);
			assert_true(r.out.trace.emitted < 0 ||
			            r.out.trace.steps[r.out.trace.emitted].broken == DSA_BOUND_NONE);
		}
		release(&r.out);
	}
	assert_true(better > 200);
}

static void constraints_hold_in_random_cases(void **state)
{
	(void)state;
	for (uint64_t seed = 1001; seed <= 11000; seed++) {
		struct problem p;
		struct refined r;
		make_problem(&p, seed);
		p.toy.shape.batches = 2; /* quicker: one batch of each side */
		refine(&r, &p.toy, &p.options, 4);
		for (int i = 0; i < r.refinement.count; i++)
			check_constraints(&p, r.refinement.best[i].pattern);
		release(&r.out);
	}
}

/* Nothing but the pattern counts, so there is no error to hide in. */
static double plain(const struct toy *toy, int document, const char *pattern)
{
	(void)document;
	return dsa_pattern_shared(pattern) ? 0.1 + toy_random(*(const uint64_t *)toy->user, 0, pattern) : 0;
}

static void with_work_enough_no_exchange_is_better_than_the_best_known(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct dsa_search_options options = unbounded();
		struct refined r;
		struct toy toy;
		toy_init(&toy, "FFFFFFF", plain);
		toy.user = &seed;
		toy_fill(&toy, 1, 3);
		refine(&r, &toy, &options, without_end);
		for (int i = 0; i < r.out.trace.count; i++) {
			const struct dsa_refined *best = refined_at(&r, i + 1);
			char pattern[8];
			strcpy(pattern, best ? best->pattern : r.out.trace.steps[i].pattern);
			const double lowest = plain(&toy, 0, pattern);
			for (int a = 1; a < 7; a++)
				for (int b = 1; b < 7; b++) {
					if (pattern[a] != 'S' || pattern[b] != 'F')
						continue;
					pattern[a] = 'F';
					pattern[b] = 'S';
					assert_true(plain(&toy, 0, pattern) >= lowest);
					pattern[a] = 'S';
					pattern[b] = 'F';
				}
		}
		release(&r.out);
	}
}

static void assert_same(const struct refined *a, const struct refined *b)
{
	assert_int_equal(a->out.trace.count, b->out.trace.count);
	assert_int_equal(a->refinement.count, b->refinement.count);
	assert_int_equal(a->refinement.rounds, b->refinement.rounds);
	assert_int_equal(a->out.work.token_layers, b->out.work.token_layers);
	for (int i = 0; i < a->refinement.count; i++) {
		const struct dsa_refined *x = &a->refinement.best[i], *y = &b->refinement.best[i];
		assert_string_equal(x->pattern, y->pattern);
		assert_memory_equal(&x->calibration.kl, &y->calibration.kl, sizeof(double));
		assert_memory_equal(&x->heldout.kl, &y->heldout.kl, sizeof(double));
		assert_memory_equal(&x->difference, &y->difference, sizeof(double));
		assert_memory_equal(&x->difference_se, &y->difference_se, sizeof(double));
		assert_int_equal(x->broken, y->broken);
	}
}

/* Through a journal at path, which is kept. */
static enum dsa_status refine_on_disk(struct refined *r, struct problem *p, const char *path)
{
	static const struct dsa_journal_field fields[] = {{"model", "toy"}};
	struct dsa_journal *journal;
	struct dsa_evaluator *evaluator;
	assert_int_equal(dsa_journal_open(&journal, path, fields, 1, NULL, NULL), DSA_OK);
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &p->toy.evaluator, &p->toy.shape, NULL), DSA_OK);
	p->toy.calls = 0;
	enum dsa_status status = try_refine(r, &p->toy, evaluator, &p->options, 2);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
	return status;
}

static void closes(struct dsa_evaluator *self)
{
	(void)self;
}

static void an_interrupted_refinement_goes_on_to_the_same_bits(void **state)
{
	(void)state;
	char dir[] = "/tmp/dsa-refine-XXXXXX", path[64];
	struct problem p;
	struct refined whole, once, again;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/journal", dir);
	make_problem(&p, 56);
	p.options.full_trace = true;
	p.toy.evaluator.close = closes;
	assert_int_equal(refine_on_disk(&whole, &p, path), DSA_OK);
	assert_true(whole.refinement.count > 0);
	const int calls = p.toy.calls, asked = p.toy.asked;
	assert_int_equal(unlink(path), 0);
	for (int stop = 1; stop <= calls; stop += 1 + calls / 16) {
		p.toy.asked = 0;
		p.toy.fail_from = stop;
		p.toy.failure = DSA_E_INTERRUPTED;
		assert_int_equal(refine_on_disk(&once, &p, path), DSA_E_INTERRUPTED);
		release(&once.out);
		p.toy.fail_from = 0;
		assert_int_equal(refine_on_disk(&again, &p, path), DSA_OK);
		assert_int_equal(p.toy.asked, asked); /* nothing twice */
		assert_same(&whole, &again);
		release(&again.out);
		assert_int_equal(unlink(path), 0);
	}
	release(&whole.out);
	rmdir(dir);
}

static void an_unknown_exchange_is_handed_on(void **state)
{
	(void)state;
	struct dsa_search_options options = unbounded();
	struct refined r;
	struct toy toy;
	options.budget.kl = 0.5;
	toy_init(&toy, "FFFFFF", trap);
	toy_fill(&toy, 1, 6);
	toy.unknown = "FFSSSF";
	assert_int_equal(try_refine(&r, &toy, &toy.evaluator, &options, without_end), DSA_E_MISSING);
	release(&r.out);
}

static void what_was_found_is_measured_again_for_another_budget(void **state)
{
	(void)state;
	static const char *const found[] = {"FFSSSF"};
	static const bool locked[6] = {[4] = true};
	struct dsa_search_options options = unbounded();
	struct refined before, now;
	struct dsa_refinement known;
	struct toy toy;
	bool complete;
	toy_init(&toy, "FFFFFF", trap);
	toy_fill(&toy, 1, 6);
	options.budget.kl = 0.5;
	refine(&before, &toy, &options, without_end);
	/* A stricter budget, under which the search ends before the pattern that was found: it holds all the same. */
	options.budget.kl = 0.15;
	refine(&now, &toy, &options, 0);
	assert_int_equal(now.refinement.count, 0);
	assert_int_equal(now.refinement.rounds, 0);
	assert_int_equal(now.out.trace.count, 2);
	assert_int_equal(dsa_refine_known(&known, &toy.evaluator, &options, &now.out.trace, found, 1, &now.out.arena,
	                                  &complete, NULL),
	                 DSA_OK);
	assert_true(complete);
	assert_int_equal(known.count, 1);
	assert_true(isnan(known.best[0].difference)); /* there is no step to compare with */
	assert_memory_equal(&known.best[0].calibration.kl, &before.refinement.best[0].calibration.kl, sizeof(double));
	assert_ptr_equal(dsa_refine_emit(&now.out.trace, &known), &known.best[0]);
	assert_int_equal(now.out.trace.emitted, 1); /* the last step there is */

	/* Not under a constraint that it violates, and not unmeasured. */
	options.locked = locked;
	assert_int_equal(dsa_refine_known(&known, &toy.evaluator, &options, &now.out.trace, found, 1, &now.out.arena,
	                                  &complete, NULL),
	                 DSA_OK);
	assert_int_equal(known.count, 0);
	options.locked = NULL;
	toy.unknown = found[0];
	assert_int_equal(dsa_refine_known(&known, &toy.evaluator, &options, &now.out.trace, found, 1, &now.out.arena,
	                                  &complete, NULL),
	                 DSA_OK);
	assert_int_equal(known.count, 0);
	assert_false(complete);
	release(&before.out);
	release(&now.out);
}

/* The whole job, as calibrate runs it. */
static void calibrate(struct dsa_results *results, struct toy *toy, double refine_work, struct dsa_arena *arena)
{
	const struct dsa_log quiet = {0};
	struct dsa_calibration_options options = {.search = unbounded(),
	                                          .epsilon_share = (double)NAN,
	                                          .refine_work = refine_work,
	                                          .budget_given = true,
	                                          .log = &quiet};
	bool complete;
	options.search.budget.kl = 0.5;
	*results = (struct dsa_results){0};
	assert_int_equal(dsa_calibration_run(results, &toy->evaluator, &options, arena, &complete, NULL), DSA_OK);
	assert_true(complete);
}

static void the_results_keep_the_chain_and_the_best_known_apart(void **state)
{
	(void)state;
	struct dsa_results with, without;
	struct dsa_arena arena;
	struct toy toy;
	dsa_arena_init(&arena);
	toy_init(&toy, "FFFFFF", trap);
	toy_fill(&toy, 2, 6);
	calibrate(&without, &toy, (double)NAN, &arena);
	calibrate(&with, &toy, without_end, &arena);
	assert_string_equal(without.pattern, "FSSFFF");
	assert_string_equal(with.pattern, "FFSSSF");
	assert_int_equal(without.refinement.count, 0);
	assert_int_equal(without.work.refine_token_layers, 0);
	assert_true(with.work.refine_token_layers > 0);
	assert_true(with.work.token_layers == without.work.token_layers);
	assert_true(with.work.token_layers_naive == without.work.token_layers_naive);
	assert_true(with.work.head_tokens == without.work.head_tokens);
	assert_int_equal(with.trace.count, without.trace.count);
	for (int i = 0; i < with.trace.count; i++)
		assert_string_equal(with.trace.steps[i].pattern, without.trace.steps[i].pattern);
	/* best[i] is that of i shared layers. */
	assert_string_equal(without.best[3].pattern, "FSSSFF");
	assert_string_equal(with.best[3].pattern, "FFSSSF");
	assert_true(with.quality.kl == with.refinement.best[0].calibration.kl);
	assert_true(with.heldout.kl == with.refinement.best[0].heldout.kl);
	assert_true(with.corpora[1].calibration.documents == 6 && with.corpora[1].heldout.documents == 2);
	dsa_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_exchange_leaves_the_trap_that_greedy_falls_into),
	    cmocka_unit_test(forced_layers_keep_the_trap_shut),
	    cmocka_unit_test(what_is_better_within_its_error_is_not_taken),
	    cmocka_unit_test(refinement_is_never_worse_than_greedy_and_keeps_within_its_work),
	    cmocka_unit_test(constraints_hold_in_random_cases),
	    cmocka_unit_test(with_work_enough_no_exchange_is_better_than_the_best_known),
	    cmocka_unit_test(an_interrupted_refinement_goes_on_to_the_same_bits),
	    cmocka_unit_test(an_unknown_exchange_is_handed_on),
	    cmocka_unit_test(what_was_found_is_measured_again_for_another_budget),
	    cmocka_unit_test(the_results_keep_the_chain_and_the_best_known_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
