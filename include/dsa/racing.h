/* racing.h: which candidates of a step need no further documents (method.md, Racing).
 *
 * Candidates see the same documents in the same order, so their differences are paired and what makes a document hard
 * for all of them cancels. A race looks at the measures after every batch, drops who is worse than the leader beyond
 * doubt or cannot be better by epsilon, and ends when one is left. Debts keep the sum in bounds: who left within
 * epsilon of a leader that leaves itself is still within epsilon of who stays. It knows measures and numbers only; its
 * decisions follow from the figures in document order and from nothing else. */
#ifndef DSA_RACING_H
#define DSA_RACING_H

#include <stdbool.h>

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/metrics.h"
#include "dsa/status.h"

/* No bound is given before this many documents, nor before half as many of each corpus that has them. */
enum { DSA_RACE_DOCUMENTS = 16 };
/* A race looks after every batch: with fewer batches than this of a small corpus it would look too seldom. */
enum { DSA_RACE_BATCHES = 32 };

struct dsa_race {
	enum dsa_objective objective;
	double alpha;   /* chance of a wrong bound for one pair of candidates, over all looks together */
	double epsilon; /* nats; who cannot be better than the leader by more may leave */
	int count, live, leader;
	bool *racing;   /* (count) still in the race; when it is over, the leader alone */
	bool *recalled; /* (count) came back */
	double *debt;   /* (count) those that left because of it are better by at most this; never above epsilon */
	double *bound;  /* (count) lower bound of (its objective - the leader's) when it left; NaN while it races */
	const struct dsa_evaluator_shape *shape;
	int *population;                 /* (corpora) calibration documents */
	int64_t *scored;                 /* (corpora) their scored tokens */
	struct dsa_race_stratum *strata; /* (corpora) of the comparison at hand */
};

/* A race of count candidates; delta: chance that the committed one is not within epsilon of the best. count may be 1.
 * 0: nobody leaves who might still be. Memory from arena. */
DSA_CHECKED enum dsa_status dsa_race_init(struct dsa_race *race, const struct dsa_evaluator_shape *shape,
                                          enum dsa_objective objective, double delta, double epsilon, int count,
                                          struct dsa_arena *arena, struct dsa_error *err);
/* What a mean KL is at least over all calibration documents, whatever those that the measure has not seen cost: no KL
 * is below 0. */
double dsa_race_least(const struct dsa_race *race, const struct dsa_measure *measure);
/* After a batch that is not the last: measures (count) of candidates, each on the first documents in one order. Once
 * somebody has seen all, a candidate whose KL could only be higher even if its unseen documents cost nothing leaves
 * too, however few it has seen; one that could not be lower by more than epsilon, when it has seen each corpus. True
 * when the race is over. */
bool dsa_race_look(struct dsa_race *race, const struct dsa_measure *measures);
/* After the last batch: who left and, by the documents it has seen, is still better by more than epsilon than the best
 * of those who saw all comes back, because documents that none of the seen ones were like have spoken against the one
 * it left for. False if nobody does; else those go on where they stopped, and looks go on with them. */
bool dsa_race_recall(struct dsa_race *race, const struct dsa_measure *measures);
/* Takes a candidate out that might still be the best: no bound speaks against it. */
void dsa_race_withdraw(struct dsa_race *race, int candidate);

/* Bounds of (a's objective - b's) over the whole population from the documents that both have seen: ±HUGE_VAL where
 * these are too few. Over all looks together the truth leaves them with a chance of alpha (method.md). */
struct dsa_race_interval {
	double low, difference, high;
	/* Above 0 only if a is worse: the lower bound of the ratio of both, as a difference from b. Documents that are
	 * hard for both in proportion widen low and high, but say nothing of who is worse. */
	double worse;
};
struct dsa_race_interval dsa_race_compare(const struct dsa_race *race, const struct dsa_measure *a,
                                          const struct dsa_measure *b);

/* How many standard errors the truth may be away from a mean whose error has so many degrees of freedom, with a chance
 * of alpha over all looks together; tau: documents seen, stretched by the finite population, k/(1 - k/N). */
double dsa_race_reach(double alpha, double freedom, double tau);

/* The calibration batches in an order of which every prefix covers the corpora in proportion, each corpus' own batches
 * as they come: each time the batch whose middle comes first in its corpus, of equals the lower corpus. Into order
 * (shape->batches), *batches of them. */
DSA_CHECKED enum dsa_status dsa_race_order(const struct dsa_evaluator_shape *shape, int *order, int *batches,
                                           struct dsa_error *err);

#endif
