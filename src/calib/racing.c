/* Racing: paired differences of ratio means, a studentised confidence sequence with finite-population correction; and
 * what is certain where one candidate has seen everything. */
#include "dsa/racing.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "dsa/spool.h"

/* What two candidates share: sums over the documents of one corpus that both have seen. */
struct dsa_race_stratum {
	int documents;
	double a, b, tokens;
};

enum dsa_status dsa_race_init(struct dsa_race *race, const struct dsa_evaluator_shape *shape,
                              enum dsa_objective objective, double delta, double epsilon, int count,
                              struct dsa_arena *arena, struct dsa_error *err)
{
	assert(count > 0 && delta >= 0 && delta < 1 && epsilon >= 0);
	*race = (struct dsa_race){.objective = objective,
	                          .alpha = delta / 2 / (count > 1 ? count - 1 : 1), /* two bounds a pair */
	                          .epsilon = epsilon,
	                          .count = count,
	                          .live = count,
	                          .shape = shape};
	race->racing = dsa_arena_alloc(arena, (size_t)count, sizeof *race->racing, "the race", err);
	race->recalled = dsa_arena_alloc(arena, (size_t)count, sizeof *race->recalled, "the race", err);
	race->bound = dsa_arena_alloc(arena, (size_t)count, sizeof *race->bound, "the race", err);
	race->debt = dsa_arena_alloc(arena, (size_t)count, sizeof *race->debt, "the race", err);
	race->population = dsa_arena_alloc(arena, (size_t)shape->corpora, sizeof *race->population, "the race", err);
	race->scored = dsa_arena_alloc(arena, (size_t)shape->corpora, sizeof *race->scored, "the race", err);
	race->strata = dsa_arena_alloc(arena, (size_t)shape->corpora, sizeof *race->strata, "the race", err);
	if (!race->racing || !race->recalled || !race->bound || !race->debt || !race->population || !race->scored ||
	    !race->strata)
		return DSA_E_MEMORY;
	for (int i = 0; i < count; i++) {
		race->racing[i] = true;
		race->bound[i] = NAN;
	}
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		if (batch->split != DSA_CALIBRATION)
			continue;
		race->population[batch->corpus] += batch->count;
		race->scored[batch->corpus] += batch->scored;
	}
	return DSA_OK;
}

static double figure(const struct dsa_race *race, const struct dsa_sums *sums)
{
	return race->objective == DSA_OBJECTIVE_KL ? sums->kl : sums->nll;
}

static bool both_saw(const struct dsa_measure *a, const struct dsa_measure *b, int document, int corpus)
{
	return a->corpus_of[document] == corpus && a->totals[document].tokens && b->totals[document].tokens;
}

static struct dsa_race_stratum sum_stratum(const struct dsa_race *race, const struct dsa_measure *a,
                                           const struct dsa_measure *b, int corpus)
{
	struct dsa_race_stratum s = {0};
	for (int d = 0; d < a->documents; d++) {
		if (!both_saw(a, b, d, corpus))
			continue;
		s.documents++;
		s.a += figure(race, &a->totals[d]);
		s.b += figure(race, &b->totals[d]);
		s.tokens += (double)a->totals[d].tokens;
	}
	return s;
}

/* Variance of the corpus' mean of (a - ratio·b) under sampling without replacement, by the ratio estimator. */
static double variance_of(const struct dsa_race *race, const struct dsa_measure *a, const struct dsa_measure *b,
                          int corpus, const struct dsa_race_stratum *s, double ratio)
{
	const double k = s->documents, left = 1 - k / race->population[corpus];
	const double mean = (s->a - ratio * s->b) / s->tokens;
	double squares = 0;
	if (!(left > 0))
		return 0;
	for (int d = 0; d < a->documents; d++) {
		if (!both_saw(a, b, d, corpus))
			continue;
		double rest = figure(race, &a->totals[d]) - ratio * figure(race, &b->totals[d]) -
		              mean * (double)a->totals[d].tokens;
		squares += rest * rest;
	}
	return left * (k / (k - 1)) * squares / (s->tokens * s->tokens);
}

/* The Bayes factor of Student's t with a unit normal prior on the
 * effect, (1 + τ)^-1/2 · ((1 + t²/ν) / (1 + t²/(ν(1 + τ))))^((ν+1)/2), is a martingale if the truth is 0 and the
 * figures are normal, so it exceeds 1/alpha at any look with a chance of at most alpha (Ville). τ is the number of
 * documents stretched by the finite population, in which the sum is a Brownian bridge: k/(1 - k/N). */
double dsa_race_reach(double alpha, double freedom, double tau)
{
	double level = pow(sqrt(1 + tau) / alpha, 2 / (freedom + 1));
	double rest = 1 - level / (1 + tau);
	return rest > 0 ? sqrt(freedom * (level - 1) / rest) : HUGE_VAL;
}

/* Half the width of the bounds of (a - ratio·b). */
static double width_of(const struct dsa_race *race, const struct dsa_measure *a, const struct dsa_measure *b,
                       const struct dsa_race_stratum *strata, double ratio)
{
	double variance = 0, shares = 0, weights = 0;
	int seen = 0, all = 0;
	for (int c = 0; c < race->shape->corpora; c++) {
		const double w = a->weights[c];
		const int population = race->population[c], documents = strata[c].documents;
		if (!documents || !(w > 0))
			continue;
		weights += w;
		seen += documents;
		all += population;
		if (documents == population)
			continue;
		/* The unseen documents' mean is as far from normal as that of as many seen ones. */
		const int least = documents < population - documents ? documents : population - documents;
		const double v = w * w * variance_of(race, a, b, c, &strata[c], ratio);
		variance += v;
		shares += v * v / (least > 1 ? least - 1 : 0.5);
	}
	if (!(variance > 0)) /* nothing unseen, or no two documents differ */
		return isnan(variance) ? HUGE_VAL : 0;
	/* Welch and Satterthwaite: the documents that would give a variance known as well as this one. */
	double freedom = variance * variance / shares;
	return dsa_race_reach(race->alpha, freedom, seen / (1 - (double)seen / all)) * sqrt(variance) / weights;
}

struct dsa_race_interval dsa_race_compare(const struct dsa_race *race, const struct dsa_measure *a,
                                          const struct dsa_measure *b)
{
	const struct dsa_race_interval nothing = {-HUGE_VAL, NAN, HUGE_VAL, -HUGE_VAL};
	double weights = 0, mean_a = 0, mean_b = 0;
	int seen = 0, all = 0;
	for (int c = 0; c < race->shape->corpora; c++) {
		const double w = a->weights[c];
		const int population = race->population[c];
		race->strata[c] = sum_stratum(race, a, b, c);
		const struct dsa_race_stratum *s = &race->strata[c];
		if (!population || !(w > 0))
			continue;
		if (s->documents < population && s->documents < DSA_RACE_DOCUMENTS / 2)
			return nothing;
		weights += w;
		mean_a += w * (s->a / s->tokens);
		mean_b += w * (s->b / s->tokens);
		seen += s->documents;
		all += population;
	}
	if (seen < all && seen < DSA_RACE_DOCUMENTS)
		return nothing;
	const double difference = (mean_a - mean_b) / weights, width = width_of(race, a, b, race->strata, 1);
	struct dsa_race_interval out = {difference - width, difference, difference + width, difference - width};
	/* The ratio's logarithm is as uncertain as a/mean_a - b/mean_b, and nearer to normal than the difference where
	 * a few documents hold most of either sum. */
	if (mean_a > 0 && mean_b > 0) {
		const double width_of_log = width_of(race, a, b, race->strata, mean_a / mean_b) / (mean_a / weights);
		out.worse = mean_b / weights * expm1(log(mean_a / mean_b) - width_of_log);
	}
	return out;
}

static double objective_of(const struct dsa_race *race, const struct dsa_measure *measure)
{
	double objective, se;
	dsa_measure_objective(measure, race->objective, &objective, &se);
	return objective;
}

static bool saw_all(const struct dsa_race *race, const struct dsa_measure *measure)
{
	int seen = 0, all = 0;
	for (int d = 0; d < measure->documents; d++)
		seen += measure->totals[d].tokens > 0;
	for (int c = 0; c < race->shape->corpora; c++)
		all += race->population[c];
	return seen == all;
}

/* The lowest so far; where some have seen everything, of those: nothing will change what they cost. */
static bool find_leader(struct dsa_race *race, const struct dsa_measure *measures, double *lowest)
{
	bool whole = false;
	*lowest = HUGE_VAL;
	for (int i = 0; i < race->count; i++) {
		if (!race->racing[i])
			continue;
		const bool all = saw_all(race, &measures[i]);
		const double objective = objective_of(race, &measures[i]);
		if (whole > all || (whole == all && !(objective < *lowest)))
			continue;
		whole = all;
		*lowest = objective;
		race->leader = i;
	}
	return whole;
}

/* The candidate leaves for good: it, and whoever left because of it, is better than `leader` by at most `owed`. */
static void leave(struct dsa_race *race, int candidate, int leader, double owed, double bound)
{
	race->racing[candidate] = false;
	race->bound[candidate] = bound;
	race->live--;
	race->debt[leader] = fmax(race->debt[leader], owed);
}

void dsa_race_withdraw(struct dsa_race *race, int candidate)
{
	assert(race->racing[candidate]);
	leave(race, candidate, race->leader, 0, NAN);
}

double dsa_race_least(const struct dsa_race *race, const struct dsa_measure *measure)
{
	double sum = 0, weights = 0;
	for (int c = 0; c < race->shape->corpora; c++) {
		double kl = 0;
		if (!race->population[c])
			continue;
		assert(race->scored[c] > 0);
		for (int d = 0; d < measure->documents; d++)
			if (measure->corpus_of[d] == c)
				kl += measure->totals[d].kl;
		sum += measure->weights[c] * (kl / (double)race->scored[c]);
		weights += measure->weights[c];
	}
	return sum / weights;
}

/* Has it documents of every corpus? */
static bool saw_each(const struct dsa_race *race, const struct dsa_measure *measure)
{
	for (int c = 0; c < race->shape->corpora; c++) {
		bool seen = !race->population[c];
		for (int d = 0; d < measure->documents && !seen; d++)
			seen = measure->corpus_of[d] == c && measure->totals[d].tokens;
		if (!seen)
			return false;
	}
	return true;
}

/* Lets candidate i go if its KL cannot come down to the leader's, who has seen everything; or not further below it than
 * epsilon allows: but then it may be as good as the next step's best, and its figure should speak of every corpus. */
static void look_for_certain(struct dsa_race *race, const struct dsa_measure *measures, int i, double lowest)
{
	const double least = dsa_race_least(race, &measures[i]);
	const double owed = race->debt[i] + (least > lowest ? 0 : lowest - least);
	if (least > lowest || (owed <= race->epsilon && saw_each(race, &measures[i])))
		leave(race, i, race->leader, owed, least - lowest);
}

/* Lets candidate i go if the documents it shares with `leader` speak against it. */
static void look_at_sample(struct dsa_race *race, const struct dsa_measure *measures, int i, int leader)
{
	struct dsa_race_interval bounds = dsa_race_compare(race, &measures[i], &measures[leader]);
	/* Either says so: the one where both are hard for the same documents, the other where the leader's own figure
	 * is so small that its ratio to this one is hardly known. */
	const double worse = fmax(bounds.worse, bounds.low);
	const double owed = race->debt[i] + (worse > 0 ? 0 : -bounds.low);
	if (worse > 0 || owed <= race->epsilon)
		leave(race, i, leader, owed, worse > 0 ? worse : bounds.low);
}

/* Of those that have not seen everything the lowest so far, -1 if there is none. */
static int find_second(const struct dsa_race *race, const struct dsa_measure *measures)
{
	double lowest = HUGE_VAL;
	int second = -1;
	for (int i = 0; i < race->count; i++) {
		if (!race->racing[i] || saw_all(race, &measures[i]) || !(objective_of(race, &measures[i]) < lowest))
			continue;
		lowest = objective_of(race, &measures[i]);
		second = i;
	}
	return second;
}

bool dsa_race_look(struct dsa_race *race, const struct dsa_measure *measures)
{
	double lowest;
	const bool whole = find_leader(race, measures, &lowest);
	for (int i = 0; i < race->count; i++) {
		if (whole && race->objective == DSA_OBJECTIVE_KL && race->racing[i] && i != race->leader)
			look_for_certain(race, measures, i, lowest);
		if (!race->racing[i] || i == race->leader ||
		    (race->recalled[i] && objective_of(race, &measures[i]) < lowest - race->epsilon))
			continue; /* what it was recalled for still holds */
		look_at_sample(race, measures, i, race->leader);
	}
	/* Who has seen everything need not be the best: those on the way speak against one another as well. */
	const int second = whole ? find_second(race, measures) : -1;
	for (int i = 0; i < race->count && second >= 0; i++)
		if (race->racing[i] && i != second && i != race->leader)
			look_at_sample(race, measures, i, second);
	return race->live == 1;
}

bool dsa_race_recall(struct dsa_race *race, const struct dsa_measure *measures)
{
	double best = HUGE_VAL;
	bool recalled = false;
	int winner = -1;
	for (int i = 0; i < race->count; i++) {
		if (saw_all(race, &measures[i]) && objective_of(race, &measures[i]) < best) {
			best = objective_of(race, &measures[i]);
			winner = i;
		}
	}
	for (int i = 0; i < race->count && winner >= 0; i++) {
		if (race->racing[i] || saw_all(race, &measures[i]) ||
		    !(objective_of(race, &measures[i]) < best - race->epsilon))
			continue;
		/* What was the same on every document may stay out: the others are harder for both. */
		const struct dsa_race_interval bounds = dsa_race_compare(race, &measures[i], &measures[winner]);
		if (bounds.low == bounds.high)
			continue;
		race->racing[i] = race->recalled[i] = recalled = true;
		race->bound[i] = NAN;
		race->live++;
	}
	return recalled;
}

static int next_batch(const struct dsa_evaluator_shape *shape, int from, int corpus)
{
	while (from < shape->batches &&
	       (shape->batch[from].corpus != corpus || shape->batch[from].split != DSA_CALIBRATION))
		from++;
	return from;
}

enum dsa_status dsa_race_order(const struct dsa_evaluator_shape *shape, int *order, int *batches, struct dsa_error *err)
{
	struct cursor {
		int next, before, all; /* batch; documents in front of it; documents of the corpus */
	} *cursors = dsa_alloc((size_t)shape->corpora, sizeof *cursors, "the order of the batches", err);
	if (!cursors)
		return DSA_E_MEMORY;
	for (int c = 0; c < shape->corpora; c++)
		cursors[c].next = next_batch(shape, 0, c);
	for (int b = 0; b < shape->batches; b++)
		if (shape->batch[b].split == DSA_CALIBRATION)
			cursors[shape->batch[b].corpus].all += shape->batch[b].count;
	for (*batches = 0;; ++*batches) {
		struct cursor *first = NULL;
		double earliest = HUGE_VAL;
		for (int c = 0; c < shape->corpora; c++) {
			struct cursor *cursor = &cursors[c];
			if (cursor->next == shape->batches)
				continue;
			double middle = (cursor->before + shape->batch[cursor->next].count / 2.0) / cursor->all;
			if (middle < earliest) {
				earliest = middle;
				first = cursor;
			}
		}
		if (!first)
			break;
		order[*batches] = first->next;
		first->before += shape->batch[first->next].count;
		first->next = next_batch(shape, first->next + 1, shape->batch[first->next].corpus);
	}
	free(cursors);
	return DSA_OK;
}
