#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "calib/toy_race.h"

/* Too few for any bound that a sample gives; a KL that others cannot come down to is none. */
static void few_documents_are_not_raced_but_by_what_is_certain(void **state)
{
	(void)state;
	/* Layers 1 to 5 cost 4, 1, 5, 2, 3 tenths. By NLL nothing is certain; by KL others see the first n, in batches
	 * of two, of which n / 6 times that is above 1 tenth, or as near below it as epsilon is. */
	static const struct {
		enum dsa_objective objective;
		double epsilon;
		int documents[5];
	} cases[] = {{DSA_OBJECTIVE_NLL, 1e9, {6, 6, 6, 6, 6}},
	             {DSA_OBJECTIVE_KL, 0, {2, 6, 2, 4, 4}},
	             {DSA_OBJECTIVE_KL, 0.01, {2, 6, 2, 4, 2}},
	             {DSA_OBJECTIVE_KL, 0.04, {2, 6, 2, 2, 2}},
	             {DSA_OBJECTIVE_KL, 1e9, {2, 6, 2, 2, 2}}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct dsa_search_options options = racing(0.01, cases[i].epsilon);
		struct outcome out;
		struct toy toy;
		options.objective = cases[i].objective;
		toy_init(&toy, "FFFFFF", additive);
		search_six(&out, &toy, &options); /* 6 documents */
		for (int c = 0; c < 5; c++) {
			const struct dsa_candidate *candidate = &out.trace.steps[0].candidates[c];
			const int n = candidate->documents;
			assert_int_equal(n, cases[i].documents[c]);
			assert_true(n == 6 ? isnan(candidate->bound)
			                   : near(candidate->bound, candidate->kl * n / 6 - 0.1));
		}
		release(&out);
	}
}

/* What is supposed of the flips says who runs ahead in the first step, and nothing more. */
static void a_prior_says_who_runs_ahead_first_and_changes_no_flip(void **state)
{
	(void)state;
	/* The costs are those above; by layer. */
	static const double right[] = {0, 4, 1, 5, 2, 3}, wrong[] = {0, 1, 2, 5, 3, 4};
	for (int i = 0; i < 2; i++) {
		struct dsa_search_options options = racing(0.01, 0);
		struct outcome out;
		struct toy toy;
		options.objective = DSA_OBJECTIVE_KL;
		options.prior = i ? wrong : right;
		toy_init(&toy, "FFFFFF", additive);
		search_six(&out, &toy, &options);
		const struct dsa_step *step = &out.trace.steps[0];
		assert_int_equal(step->flip, 2);
		assert_int_equal(step->candidates[0].documents, i ? 6 : 2);
		assert_int_equal(step->candidates[1].documents, 6);
		release(&out);
	}
}

/* A race in two corpora of weights 1 and 3, of 8 and 4 documents, as far as looks at measures go. */
enum { LEADER, ABOVE, BELOW, COUNT, DOCUMENTS = 12 };

struct two_corpora {
	int corpus_of[DOCUMENTS];
	double weights[2];
	struct dsa_evaluator_batch batches[2];
	struct dsa_evaluator_shape shape;
	struct dsa_measure m[COUNT];
	struct dsa_race race;
	struct dsa_arena arena;
};

/* The leader has seen all, at 1 each. */
static void begin(struct two_corpora *t, enum dsa_objective objective, double epsilon)
{
	struct dsa_error err;
	*t = (struct two_corpora){.weights = {1, 3},
	                          .batches = {{.split = DSA_CALIBRATION, .count = 8, .scored = 8},
	                                      {.corpus = 1, .split = DSA_CALIBRATION, .count = 4, .scored = 4}}};
	for (int d = 8; d < DOCUMENTS; d++)
		t->corpus_of[d] = 1;
	t->shape = (struct dsa_evaluator_shape){.corpora = 2, .batches = 2, .batch = t->batches};
	dsa_arena_init(&t->arena);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(dsa_measure_init(&t->m[i], 2, DOCUMENTS, t->weights, t->corpus_of, &t->arena, &err),
		                 DSA_OK);
	assert_int_equal(dsa_race_init(&t->race, &t->shape, objective, 0.01, epsilon, COUNT, &t->arena, &err), DSA_OK);
	see(&t->m[LEADER], 0, DOCUMENTS, 1, 0);
}

/* The others have seen one of each corpus. */
static void who_cannot_come_down_to_a_whole_leader_leaves_however_few_it_saw(void **state)
{
	(void)state;
	for (int objective = 0; objective < 2; objective++) {
		struct two_corpora t;
		begin(&t, objective ? DSA_OBJECTIVE_NLL : DSA_OBJECTIVE_KL, 0);
		/* 1/4 · x/8 + 3/4 · x/4 is 1 at x = 32/7. */
		for (int i = ABOVE; i < COUNT; i++) {
			const double mean = i == ABOVE ? 4.58 : 4.57;
			see(&t.m[i], 0, 1, mean, 0);
			see(&t.m[i], 8, 9, mean, 0);
		}
		assert_false(dsa_race_look(&t.race, t.m));
		assert_true(t.race.leader == LEADER && t.race.racing[BELOW]);
		assert_true(t.race.racing[ABOVE] == (objective == 1));
		if (!objective)
			assert_true(near(t.race.bound[ABOVE], 4.58 * 7 / 32 - 1));
		dsa_arena_release(&t.arena);
	}
}

/* Within epsilon of a whole leader only who has seen each corpus leaves, worse than it whoever has seen anything. */
static void who_cannot_be_better_by_epsilon_leaves_when_each_corpus_was_seen(void **state)
{
	(void)state;
	struct two_corpora t;
	begin(&t, DSA_OBJECTIVE_KL, 0.7);
	see(&t.m[ABOVE], 0, 1, 33, 0); /* 1/4 · 33/8 */
	see(&t.m[BELOW], 0, 1, 10, 0); /* 1/4 · 10/8, less than 0.7 below 1 */
	assert_false(dsa_race_look(&t.race, t.m));
	assert_true(!t.race.racing[ABOVE] && t.race.racing[BELOW]);
	assert_true(near(t.race.bound[ABOVE], 33 / 32.0 - 1));
	see(&t.m[BELOW], 8, 9, 0.25, 0); /* and 3/4 · 0.25/4 */
	assert_true(dsa_race_look(&t.race, t.m));
	assert_true(t.race.racing[LEADER] && !t.race.racing[BELOW]);
	assert_true(near(t.race.bound[BELOW], 10 / 32.0 + 0.75 / 16 - 1));
	assert_true(near(t.race.debt[LEADER], -t.race.bound[BELOW]));
	dsa_arena_release(&t.arena);
}

/* What is certain changes no flip: with delta 0 no sample tells anything, and the flips are exact search's. */
static void without_samples_a_race_commits_the_flips_of_an_exact_search(void **state)
{
	(void)state;
	int64_t asked = 0, all = 0;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct dsa_search_options exact = unbounded(), raced = racing(0, 0);
		struct problem problem = {.seed = seed, .common = 1, .own = 1};
		struct outcome a, b;
		struct toy toy;
		for (int l = 1; l < 9; l++)
			problem.mean[l] = 0.001 * exp(3 * toy_random(seed, (uint64_t)l, "mean"));
		exact.full_trace = raced.full_trace = true;
		toy_init(&toy, "FFFFFFFFF", heavy);
		toy.user = &problem;
		for (int d = 0; d < 40; d++)
			toy_document(&toy, d >= 25, d % 5 == 4 ? DSA_HELDOUT : DSA_CALIBRATION);
		toy_cut(&toy, 1 + (int)(seed % 3), false);
		search(&a, &toy, &exact);
		all += toy.candidates;
		toy.candidates = 0;
		search(&b, &toy, &raced);
		asked += toy.candidates;
		assert_int_equal(a.trace.count, b.trace.count);
		for (int i = 0; i < a.trace.count; i++) {
			assert_int_equal(a.trace.steps[i].flip, b.trace.steps[i].flip);
			assert_true(a.trace.steps[i].calibration.kl == b.trace.steps[i].calibration.kl);
		}
		release(&a);
		release(&b);
	}
	print_message("certain bounds alone: %.3f of the questions\n", (double)asked / (double)all);
	assert_true((double)asked < 0.8 * (double)all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(few_documents_are_not_raced_but_by_what_is_certain),
	    cmocka_unit_test(a_prior_says_who_runs_ahead_first_and_changes_no_flip),
	    cmocka_unit_test(who_cannot_come_down_to_a_whole_leader_leaves_however_few_it_saw),
	    cmocka_unit_test(who_cannot_be_better_by_epsilon_leaves_when_each_corpus_was_seen),
	    cmocka_unit_test(without_samples_a_race_commits_the_flips_of_an_exact_search),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
