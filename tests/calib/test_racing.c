#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "calib/toy_race.h"
#include "dsa/expectation.h"
#include "dsa/racing.h"

struct tally {
	int problems, outside, dropped, wrong;
	int64_t asked, full;
};

/* One step of 16 candidates on so many documents in batches of `size`, raced and exact. */
static void race_once(struct tally *tally, const struct problem *problem, double delta, double share, int documents,
                      int size)
{
	static const char reference[] = "FFFFFFFFFFFFFFFFF";
	struct dsa_search_options exact = unbounded(), raced;
	struct outcome a, b;
	struct toy toy;
	exact.budget.max_shared = 1;
	toy_init(&toy, reference, heavy);
	toy.user = problem;
	for (int d = 0; d < documents; d++)
		toy_document(&toy, 0, DSA_CALIBRATION);
	toy_cut(&toy, size, false);
	search(&a, &toy, &exact);
	raced = racing(delta, share * a.trace.steps[0].calibration.kl);
	raced.budget.max_shared = 1;
	toy.candidates = 0;
	search(&b, &toy, &raced);
	const struct dsa_step *truth = &a.trace.steps[0], *found = &b.trace.steps[0];
	tally->problems++;
	tally->outside += found->calibration.kl > truth->calibration.kl + raced.epsilon;
	assert_int_equal(found->calibration.documents, documents);
	for (int c = 0; c < found->candidate_count; c++) {
		const struct dsa_candidate *candidate = &found->candidates[c];
		tally->asked += candidate->documents;
		tally->full += documents;
		assert_true(isnan(candidate->bound) == (candidate->documents == documents));
		if (candidate->documents == documents)
			assert_true(candidate->objective == truth->candidates[c].objective);
		if (candidate->bound > 0) {
			tally->dropped++;
			tally->wrong += truth->candidates[c].objective < found->calibration.kl;
		}
	}
	release(&a);
	release(&b);
}

static void report(const char *name, const struct tally *tally)
{
	print_message("%s: %d problems, %d outside epsilon, %d of %d dropped were better than the flip, %.3f of the "
	              "candidate-documents\n",
	              name, tally->problems, tally->outside, tally->wrong, tally->dropped,
	              (double)tally->asked / (double)tally->full);
}

/* Sanitizers look at memory, for which fewer do. */
#ifdef __SANITIZE_ADDRESS__
enum { PROBLEMS = 60, PAIRS = 100 };
#else
enum { PROBLEMS = 1000, PAIRS = 2000 };
#endif

static void the_flip_is_within_epsilon_of_the_best_in_99_of_100_noisy_problems(void **state)
{
	(void)state;
	/* spread: the worst layer's mean is about e^spread times the best's. */
	static const struct {
		const char *name;
		double common, own, spread;
	} kinds[] = {{"hard documents (1.5), little of their own (0.3)", 1.5, 0.3, 2},
	             {"near ties", 1.5, 0.3, 0.05},
	             {"all noise of their own (1.5)", 0, 1.5, 2},
	             {"moderate (0.5, 0.3)", 0.5, 0.3, 3}};
	enum { KINDS = sizeof kinds / sizeof kinds[0] };
	struct tally tallies[KINDS] = {{0}};
	int outside = 0;
	for (uint64_t seed = 1; seed <= PROBLEMS; seed++) {
		const int k = (int)(seed % KINDS);
		struct problem problem = {.seed = seed, .common = kinds[k].common, .own = kinds[k].own};
		for (int l = 1; l < 17; l++)
			problem.mean[l] = 0.001 * exp(kinds[k].spread * toy_random(seed, (uint64_t)l, "mean"));
		race_once(&tallies[k], &problem, 0.01, 0.02, 64, 2);
	}
	for (int k = 0; k < KINDS; k++) {
		report(kinds[k].name, &tallies[k]);
		outside += tallies[k].outside;
	}
	assert_true(outside <= PROBLEMS / 100);
	/* It does save, where there is anything to tell apart; and what cannot be told apart it does not guess. */
	assert_true((double)tallies[0].asked < 0.6 * (double)tallies[0].full);
	assert_true((double)tallies[3].asked < 0.5 * (double)tallies[3].full);
	assert_true((double)tallies[2].asked < 0.9 * (double)tallies[2].full);
	assert_true((double)tallies[1].asked > 0.8 * (double)tallies[1].full);
}

/* What --dry-run expects of a race, on problems of the first kind above, in 16 batches as a run has them. */
static void a_race_asks_for_what_is_expected_of_it(void **state)
{
	(void)state;
	static const int documents[] = {16, 32, 48, 64, 128, 256};
	for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
		struct tally tally = {0};
		for (uint64_t seed = 1; seed <= (PROBLEMS < 1000 ? 12 : 40); seed++) {
			struct problem problem = {.seed = seed, .common = 1.5, .own = 0.3};
			for (int l = 1; l < 17; l++)
				problem.mean[l] = 0.001 * exp(2 * toy_random(seed, (uint64_t)l, "mean"));
			race_once(&tally, &problem, 0.01, 0.02, documents[i], documents[i] / 16);
		}
		const double share = (double)tally.asked / (double)tally.full,
			     expected = fmin(0.6, sqrt(16.0 / documents[i]));
		print_message("%d documents: %.3f of the candidate-documents, %.3f expected\n", documents[i], share,
		              expected);
		assert_true(fabs(share - expected) < 0.1);
	}
}

/* Two measures of 64 documents whose mean difference is exactly 0, and the share of such pairs whose bounds have lost
 * the 0 at some look. */
static double lost_truths(int pairs, double alpha, double sigma, bool ratio)
{
	enum { DOCUMENTS = 64 };
	int corpus_of[DOCUMENTS] = {0}, lost = 0;
	double weight = 1, figures[DOCUMENTS];
	struct dsa_evaluator_batch batch = {.split = DSA_CALIBRATION, .count = DOCUMENTS, .scored = DOCUMENTS};
	const struct dsa_evaluator_shape shape = {.corpora = 1, .batches = 1, .batch = &batch};
	for (int i = 0; i < pairs; i++) {
		struct dsa_measure a, b;
		struct dsa_race race;
		struct dsa_error err;
		struct dsa_arena arena;
		double mean = 0;
		bool out = false;
		dsa_arena_init(&arena);
		assert_int_equal(dsa_measure_init(&a, 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
		assert_int_equal(dsa_measure_init(&b, 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
		assert_int_equal(dsa_race_init(&race, &shape, DSA_OBJECTIVE_KL, 2 * alpha, 0, 2, &arena, &err), DSA_OK);
		for (int d = 0; d < DOCUMENTS; d++) {
			const double z = normal((uint64_t)i + 1, (uint64_t)d, "figure");
			figures[d] = sigma > 0 ? exp(sigma * z) : z;
			mean += figures[d] / DOCUMENTS;
		}
		for (int d = 0; d < DOCUMENTS; d++) {
			a.totals[d].tokens = b.totals[d].tokens = 1;
			b.totals[d].kl = 100;
			a.totals[d].kl = 100 + (figures[d] - mean) * (i % 2 ? 1 : -1);
			if (d + 1 == DOCUMENTS)
				break;
			const struct dsa_race_interval bounds = dsa_race_compare(&race, &a, &b);
			out |= ratio ? bounds.worse > 0 : bounds.low > 0 || bounds.high < 0;
		}
		lost += out;
		dsa_arena_release(&arena);
	}
	return (double)lost / pairs;
}

static void the_bounds_lose_the_truth_no_more_often_than_they_say(void **state)
{
	(void)state;
	/* Log-normal of this sigma, 0: normal; most: heavy tails break the model, and this is by how much. */
	static const struct {
		double alpha, sigma, most;
	} kinds[] = {{0.05, 0, 0.05},    {0.05, 0.5, 0.075},  {0.05, 1.5, 0.3},
	             {0.0005, 0, 0.001}, {0.0005, 0.5, 0.01}, {0.0005, 1.5, 0.2}};
	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		const double lost = lost_truths(PAIRS, kinds[k].alpha, kinds[k].sigma, false);
		const double worse = lost_truths(PAIRS, kinds[k].alpha, kinds[k].sigma, true);
		print_message("alpha %g, sigma %g: 0 left the bounds in %.4f, 'worse' was wrong in %.4f\n",
		              kinds[k].alpha, kinds[k].sigma, lost, worse);
		assert_true((PAIRS < 2000 || lost <= kinds[k].most) && worse <= lost);
		assert_true(PAIRS < 2000 || lost > 0.002 || kinds[k].alpha < 0.01); /* not by being useless */
	}
}

static void bounds_follow_the_formula_and_end_at_the_truth(void **state)
{
	(void)state;
	enum { DOCUMENTS = 40, SEEN = 20 };
	int corpus_of[DOCUMENTS] = {0};
	double weight = 3;
	struct dsa_evaluator_batch batch = {.split = DSA_CALIBRATION, .count = DOCUMENTS, .scored = DOCUMENTS};
	const struct dsa_evaluator_shape shape = {.corpora = 1, .batches = 1, .batch = &batch};
	struct dsa_measure a, b;
	struct dsa_race race;
	struct dsa_error err;
	struct dsa_arena arena;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_measure_init(&a, 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
	assert_int_equal(dsa_measure_init(&b, 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
	assert_int_equal(dsa_race_init(&race, &shape, DSA_OBJECTIVE_KL, 0.02, 0, 2, &arena, &err), DSA_OK);
	for (int d = 0; d < DOCUMENTS; d++) {
		a.totals[d].tokens = b.totals[d].tokens = 2;
		a.totals[d].kl = 6 + (d % 2 ? 0.5 : -0.5); /* differences of 1 ± 0.5 over 2 tokens */
		b.totals[d].kl = 5;
		struct dsa_race_interval bounds = dsa_race_compare(&race, &a, &b);
		if (d + 1 < DSA_RACE_DOCUMENTS)
			assert_true(bounds.low == -HUGE_VAL && bounds.high == HUGE_VAL && bounds.worse == -HUGE_VAL);
		if (d + 1 == SEEN) {
			/* SE² = (1 - 20/40) · 20/19 · (20 · 0.25) / 40²; ν = 19; τ = 20/(1 - 20/40) = 40. */
			const double se = sqrt(0.5 * 20 / 19 * 5 / 1600);
			const double level = pow(sqrt(41) / 0.01, 2.0 / 20);
			const double t = sqrt(19 * (level - 1) / (1 - level / 41));
			assert_true(near(bounds.difference, 0.5));
			assert_true(fabs(bounds.low - (0.5 - t * se)) < 1e-9);
			assert_true(fabs(bounds.high - (0.5 + t * se)) < 1e-9);
			/* ln(3 / 2.5), with the error of a / 3 - b / 2.5. */
			assert_true(fabs(bounds.worse - 2.5 * expm1(log(3 / 2.5) - t * se / 3)) < 1e-9);
		}
	}
	struct dsa_race_interval end = dsa_race_compare(&race, &a, &b);
	assert_true(near(end.low, 0.5) && near(end.high, 0.5) && near(end.worse, 0.5));
	dsa_arena_release(&arena);
}

/* B leaves because it can hardly be better than A, who leads; then C leads, and A alone could leave within epsilon of
 * it, but not with what it owes: B could be better than C by both. */
static void what_leaves_within_epsilon_never_adds_up_to_more(void **state)
{
	(void)state;
	enum { A, B, C, COUNT, DOCUMENTS = 200 };
	int corpus_of[DOCUMENTS] = {0};
	double weight = 1;
	struct dsa_evaluator_batch batch = {.split = DSA_CALIBRATION, .count = DOCUMENTS, .scored = DOCUMENTS};
	const struct dsa_evaluator_shape shape = {.corpora = 1, .batches = 1, .batch = &batch};
	struct dsa_measure m[COUNT];
	struct dsa_race race;
	struct dsa_error err;
	struct dsa_arena arena;
	dsa_arena_init(&arena);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(dsa_measure_init(&m[i], 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
	assert_int_equal(dsa_race_init(&race, &shape, DSA_OBJECTIVE_KL, 0.01, 1, COUNT, &arena, &err), DSA_OK);
	see(&m[A], 0, 20, 10, 0);
	see(&m[B], 0, 20, 10.001, 0.5);
	see(&m[C], 0, 20, 10.001, 1);
	const double owed = -dsa_race_compare(&race, &m[B], &m[A]).low;
	assert_true(owed > 0.5 && owed < race.epsilon);
	assert_true(-dsa_race_compare(&race, &m[C], &m[A]).low > race.epsilon);
	assert_false(dsa_race_look(&race, m));
	assert_true(race.leader == A && !race.racing[B] && race.racing[C]);
	assert_true(race.debt[A] == owed && race.bound[B] == -owed);

	see(&m[A], 20, 40, 10, 0);
	see(&m[C], 20, 40, 9.99, 1);
	const double more = -dsa_race_compare(&race, &m[A], &m[C]).low;
	assert_true(more > 0 && more < race.epsilon && owed + more > race.epsilon);
	assert_false(dsa_race_look(&race, m));
	assert_true(race.leader == C && race.racing[A]);

	/* More documents, and both together are within it. */
	see(&m[A], 40, 150, 10, 0);
	see(&m[C], 40, 150, 9.99, 1);
	assert_true(owed - dsa_race_compare(&race, &m[A], &m[C]).low <= race.epsilon);
	assert_true(dsa_race_look(&race, m));
	assert_true(race.leader == C && race.debt[C] > owed && race.debt[C] <= race.epsilon);
	dsa_arena_release(&arena);
}

/* B leads on the documents that come first, and A leaves since it cannot be better by epsilon; but a document that was
 * not among them costs B more than all others together. A comes back, and stays, since it is better. */
static void who_left_for_a_leader_that_gets_worse_is_called_back(void **state)
{
	(void)state;
	enum { A, B, WORST, COUNT, DOCUMENTS = 64, SEEN = 32 };
	int corpus_of[DOCUMENTS] = {0};
	double weight = 1;
	struct dsa_evaluator_batch batch = {.split = DSA_CALIBRATION, .count = DOCUMENTS, .scored = DOCUMENTS};
	const struct dsa_evaluator_shape shape = {.corpora = 1, .batches = 1, .batch = &batch};
	struct dsa_measure m[COUNT];
	struct dsa_race race;
	struct dsa_error err;
	struct dsa_arena arena;
	dsa_arena_init(&arena);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(dsa_measure_init(&m[i], 1, DOCUMENTS, &weight, corpus_of, &arena, &err), DSA_OK);
	assert_int_equal(dsa_race_init(&race, &shape, DSA_OBJECTIVE_KL, 0.01, 1, COUNT, &arena, &err), DSA_OK);
	see(&m[A], 0, SEEN, 10, 0.1);
	see(&m[B], 0, SEEN, 9.99, 0);
	see(&m[WORST], 0, SEEN, 20, 0.1);
	assert_true(dsa_race_look(&race, m));
	assert_true(race.racing[B] && !race.racing[A] && !race.racing[WORST]);
	assert_false(dsa_race_recall(&race, m)); /* nobody has seen everything */
	see(&m[B], SEEN, DOCUMENTS - 1, 9.99, 0);
	see(&m[B], DOCUMENTS - 1, DOCUMENTS, 9.99 + 32, 0);
	assert_false(dsa_race_recall(&race, m)); /* 10.49: A's 10 is within epsilon */
	see(&m[B], DOCUMENTS - 1, DOCUMENTS, 9.99 + 128, 0);
	assert_true(dsa_race_recall(&race, m)); /* 11.99 */
	assert_true(race.racing[A] && !race.racing[WORST] && race.live == 2);
	assert_true(isnan(race.bound[A]));
	/* A look sends it away again only when it no longer is better by its own documents. */
	see(&m[A], SEEN, SEEN + 8, 10, 0.1);
	assert_false(dsa_race_look(&race, m));
	assert_true(race.leader == B && race.racing[A]);
	see(&m[A], SEEN + 8, SEEN + 24, 14, 0.1);
	assert_true(dsa_race_look(&race, m));
	assert_true(race.leader == B && !race.racing[A]);
	dsa_arena_release(&arena);
}

/* 64 documents that all cost the same, in one corpus. */
static void alike(struct toy *toy, const char *reference,
                  double (*kl)(const struct toy *toy, int document, const char *pattern))
{
	toy_init(toy, reference, kl);
	toy->user = six_costs;
	toy_fill(toy, 1, 48);
}

static void the_planted_order_is_found_on_a_part_of_the_documents(void **state)
{
	(void)state;
	static const int order[] = {2, 4, 5, 1, 3};
	struct dsa_search_options options = racing(0.01, 0.001), exact = unbounded();
	struct outcome out, whole;
	struct toy toy;
	alike(&toy, "FFFFFF", additive);
	search(&out, &toy, &options);
	int questions = 0, sampled = 0;
	assert_int_equal(out.trace.count, 5);
	for (int i = 0; i < 5; i++) {
		const struct dsa_step *step = &out.trace.steps[i];
		assert_int_equal(step->flip, order[i]);
		assert_int_equal(step->calibration.documents, 48);
		assert_int_equal(step->heldout.documents, 16);
		for (int c = 0; c < step->candidate_count; c++) {
			const struct dsa_candidate *candidate = &step->candidates[c];
			const bool flipped = candidate->layer == step->flip;
			if (flipped)
				assert_true(candidate->documents == 48 && isnan(candidate->bound));
			else if (candidate->documents == DSA_RACE_DOCUMENTS &&
			         near(candidate->bound, candidate->kl - step->calibration.kl))
				sampled++;
			else /* even if all other documents cost nothing it is hardly better than the winner */
				assert_true(candidate->documents <= DSA_RACE_DOCUMENTS &&
				            candidate->bound >= -options.epsilon &&
				            near(candidate->bound,
				                 candidate->kl * candidate->documents / 48 - step->calibration.kl));
			questions += candidate->documents / 2;
		}
	}
	assert_int_equal(sampled, 7);
	/* Nothing else was asked, and the work is that of the questions asked; the published search asks all. */
	assert_int_equal(toy.candidates, questions);
	assert_int_equal(out.work.naive, (int64_t)(5 + 4 + 3 + 2 + 1 + 1) * 24 * 2 * TOY_TOKENS * 6);
	alike(&toy, "FFFFFF", additive);
	search(&whole, &toy, &exact);
	assert_true(out.work.token_layers < whole.work.token_layers * 3 / 4);
	for (int i = 0; i < 5; i++)
		assert_true(out.trace.steps[i].calibration.kl == whole.trace.steps[i].calibration.kl);
	release(&out);
	release(&whole);
}

static double by_count(const struct toy *toy, int document, const char *pattern)
{
	(void)toy;
	return 0.125 * dsa_pattern_shared(pattern) * (1 + document % 7);
}

static void exact_ties_end_the_race_at_once_and_go_to_the_lower_layer(void **state)
{
	(void)state;
	struct dsa_search_options options = racing(0.01, 0);
	struct outcome out;
	struct toy toy;
	alike(&toy, "FFFFFF", by_count);
	search(&out, &toy, &options);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(out.trace.steps[i].flip, i + 1);
		for (int c = 1; c < out.trace.steps[i].candidate_count; c++) {
			assert_int_equal(out.trace.steps[i].candidates[c].documents, DSA_RACE_DOCUMENTS);
			assert_true(out.trace.steps[i].candidates[c].bound == 0);
		}
	}
	release(&out);
}

/* Layers 1 and 2 differ by 0.002 in the mean, drowned in alternating noise. */
static double close_pair(const struct toy *toy, int document, const char *pattern)
{
	(void)toy;
	const double noise = 0.05 * (document % 2 ? 1 : -1);
	return (pattern[1] == 'S' ? 1.002 - noise : 0) + (pattern[2] == 'S' ? 1 + noise : 0);
}

static void near_ties_run_to_the_end_unless_epsilon_covers_them(void **state)
{
	(void)state;
	struct outcome out;
	struct toy toy;
	/* Nothing, all that a sample tells, then a little less and a little more than the first look needs; for certain
	 * half of the documents tell no more than the second. */
	double epsilon[] = {0.001, 0.5, 0, 0};
	int documents[4];
	for (int i = 0; i < 4; i++) {
		struct dsa_search_options options = racing(0.01, epsilon[i]);
		options.budget.max_shared = 1;
		toy_init(&toy, "FFF", close_pair);
		for (int d = 0; d < 48; d++)
			toy_document(&toy, 0, DSA_CALIBRATION);
		toy_cut(&toy, 3, false);
		search(&out, &toy, &options);
		const struct dsa_step *step = &out.trace.steps[0];
		assert_int_equal(step->calibration.documents, 48);
		const struct dsa_candidate *other = &step->candidates[step->flip == 1];
		documents[i] = other->documents;
		if (i == 1) {
			assert_true(other->documents < 48 && other->bound < 0);
			epsilon[2] = -0.99 * other->bound;
			epsilon[3] = -1.01 * other->bound;
		}
		if (i)
			assert_true(isnan(other->bound) || -other->bound <= epsilon[i]);
		if (!i) {
			assert_int_equal(step->flip, 2);
			assert_true(other->documents == 48 && isnan(other->bound));
			assert_true(near(other->objective, 1.002));
		}
		release(&out);
	}
	assert_int_equal(documents[1], 18); /* six batches of three */
	assert_true(documents[2] > 18);
	assert_int_equal(documents[3], 18);
}

static double tabled(const struct toy *toy, int document, const char *pattern)
{
	const uint64_t *seed = toy->user;
	/* What a pattern costs jumps about with every flip: nothing is monotone. */
	return toy_random(*seed, 7, pattern) * (0.5 + toy_random(*seed, (uint64_t)document, "document"));
}

static void random_cases_keep_every_constraint_and_measure_their_winners_exactly(void **state)
{
	(void)state;
	enum { MOST = 8 };
	int early = 0;
	for (uint64_t seed = 1; seed <= 1000; seed++) {
		struct dsa_search_options options = racing(0.05, 0.01 * toy_random(seed, 1, "epsilon"));
		struct outcome out;
		struct toy toy;
		bool locked[MOST] = {false};
		char reference[MOST + 1] = {0}, current[MOST + 1] = {0};
		const int layers = 2 + (int)(6 * toy_random(seed, 1, "layers"));
		for (int l = 0; l < layers; l++) {
			reference[l] = l && toy_random(seed, (uint64_t)l, "native") < 0.2 ? 'S' : 'F';
			locked[l] = toy_random(seed, (uint64_t)l, "locked") < 0.2;
		}
		memcpy(current, reference, sizeof current);
		options.locked = locked;
		options.full_trace = toy_random(seed, 1, "full") < 0.3;
		options.budget.kl = toy_random(seed, 1, "kl");
		toy_init(&toy, reference, tabled);
		toy.user = &seed;
		for (int d = 0; d < 30; d++)
			toy_document(&toy, d % 3 == 2, d % 10 == 9 ? DSA_HELDOUT : DSA_CALIBRATION);
		toy_cut(&toy, 1 + (int)(3 * toy_random(seed, 1, "cut")), false);
		search(&out, &toy, &options);
		for (int i = 0; i < out.trace.count; i++) {
			const struct dsa_step *step = &out.trace.steps[i];
			double sum[2] = {0};
			int documents[2] = {0};
			assert_true(step->flip > 0 && !locked[step->flip] && current[step->flip] == 'F');
			current[step->flip] = 'S';
			assert_string_equal(step->pattern, current);
			for (int d = 0; d < 30; d++)
				if (toy.split_of[d] == DSA_CALIBRATION) {
					sum[toy.corpus_of[d]] += tabled(&toy, d, current);
					documents[toy.corpus_of[d]]++;
				}
			assert_true(near(step->calibration.kl, (sum[0] / documents[0] + sum[1] / documents[1]) / 2));
			assert_int_equal(step->calibration.documents, documents[0] + documents[1]);
			if (i == out.trace.emitted)
				assert_true(step->calibration.kl <= options.budget.kl);
			for (int c = 0; c < step->candidate_count; c++)
				early += step->candidates[c].documents < documents[0] + documents[1];
		}
		release(&out);
	}
	assert_true(early > 100);
}

static void every_prefix_covers_the_corpora_in_proportion(void **state)
{
	(void)state;
	struct dsa_error err;
	struct toy toy;
	int order[TOY_DOCUMENTS], count, seen[3] = {0};
	toy_init(&toy, "FFF", additive);
	for (int d = 0; d < 60; d++)
		toy_document(&toy, d < 40 ? 1 : d < 55 ? 0 : 2, d == 30 || d == 50 ? DSA_HELDOUT : DSA_CALIBRATION);
	toy_cut(&toy, 1, false);
	assert_int_equal(dsa_race_order(&toy.shape, order, &count, &err), DSA_OK);
	assert_int_equal(count, 58);
	static const int all[3] = {14, 39, 5};
	int last[3] = {-1, -1, -1};
	for (int k = 0; k < count; k++) {
		const struct dsa_evaluator_batch *batch = &toy.shape.batch[order[k]];
		assert_int_equal(batch->split, DSA_CALIBRATION);
		assert_true(order[k] > last[batch->corpus]); /* each corpus in its own order */
		last[batch->corpus] = order[k];
		seen[batch->corpus]++;
		for (int c = 0; c < 3; c++)
			assert_true(fabs(seen[c] - all[c] * (k + 1) / 58.0) <= 1);
	}
}

static void figures_that_are_no_numbers_end_in_an_error(void **state)
{
	(void)state;
	struct dsa_search_options options = racing(0.01, 0.1);
	struct outcome out;
	struct toy toy;
	alike(&toy, "FFFFFF", additive);
	toy.poison = true;
	assert_int_equal(try_search(&out, &toy, &options), DSA_E_NUMERIC);
	release(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_flip_is_within_epsilon_of_the_best_in_99_of_100_noisy_problems),
	    cmocka_unit_test(a_race_asks_for_what_is_expected_of_it),
	    cmocka_unit_test(the_bounds_lose_the_truth_no_more_often_than_they_say),
	    cmocka_unit_test(bounds_follow_the_formula_and_end_at_the_truth),
	    cmocka_unit_test(what_leaves_within_epsilon_never_adds_up_to_more),
	    cmocka_unit_test(who_left_for_a_leader_that_gets_worse_is_called_back),
	    cmocka_unit_test(the_planted_order_is_found_on_a_part_of_the_documents),
	    cmocka_unit_test(exact_ties_end_the_race_at_once_and_go_to_the_lower_layer),
	    cmocka_unit_test(near_ties_run_to_the_end_unless_epsilon_covers_them),
	    cmocka_unit_test(random_cases_keep_every_constraint_and_measure_their_winners_exactly),
	    cmocka_unit_test(every_prefix_covers_the_corpora_in_proportion),
	    cmocka_unit_test(figures_that_are_no_numbers_end_in_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
