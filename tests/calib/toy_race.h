/* toy_race.h: options of races, problems of one step with heavy tails, and measures made by hand.
 *
 * cmocka comes before it, as in every test program. */
#ifndef DSA_TESTS_TOY_RACE_H
#define DSA_TESTS_TOY_RACE_H

#include "calib/toy_search.h"
#include "dsa/racing.h"

static inline struct dsa_search_options racing(double delta, double epsilon)
{
	struct dsa_search_options options = unbounded();
	options.racing = true;
	options.delta = delta;
	options.epsilon = epsilon;
	return options;
}

/* What a document costs under a seeded problem of one step: 16 candidates, layer l from `mean[l]` up. */
struct problem {
	uint64_t seed;
	double mean[20];
	double common, own,
	    factor; /* log-normal: sigma of a document's factor, of each figure's own; extra term's size */
};

static inline double normal(uint64_t seed, uint64_t a, const char *what)
{
	double u = 1 - toy_random(seed, 2 * a, what), v = toy_random(seed, 2 * a + 1, what);
	return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static inline double heavy(const struct toy *toy, int document, const char *pattern)
{
	const struct problem *problem = toy->user;
	double sum = 0;
	const double hard = exp(problem->common * normal(problem->seed, (uint64_t)document, "document"));
	for (int l = 1; pattern[l]; l++)
		if (pattern[l] == 'S')
			sum += problem->mean[l] * hard *
			       exp(problem->own * normal(problem->seed, (uint64_t)(document * 64 + l), "own"));
	return sum;
}

/* Documents [from, to) of candidate i: a figure of `mean` and as much noise, which alternates. */
static inline void see(struct dsa_measure *measure, int from, int to, double mean, double noise)
{
	for (int d = from; d < to; d++) {
		measure->totals[d].tokens = 1;
		measure->totals[d].kl = mean + (d % 2 ? noise : -noise);
	}
}

#endif
