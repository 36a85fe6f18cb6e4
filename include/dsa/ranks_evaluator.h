/* ranks_evaluator.h: one evaluator over the evaluators of several ranks.
 *
 * Every batch belongs to one rank, which answers all that is asked of it and alone keeps its states: memory and work
 * grow with the ranks. Rank 0 holds the search and the journal; what is announced (evaluator.h) is dealt out at once,
 * and answers are taken as they come, so that ranks wait for each other only where the search has to decide. Answers
 * travel as records of the journal: all bits arrive. Which rank answers changes no figure, and decisions follow from
 * figures in document order: any number of ranks gives the same results. */
#ifndef DSA_RANKS_EVALUATOR_H
#define DSA_RANKS_EVALUATOR_H

#include <signal.h>

#include "dsa/evaluator.h"
#include "dsa/hash.h"
#include "dsa/log.h"
#include "dsa/ranks.h"

/* What rank 0 begins with; a rank that finds something else must not answer. */
struct dsa_ranks_start {
	char fingerprint[DSA_HASH_HEX]; /* of the model */
	char documents[DSA_HASH_HEX];   /* of the spool */
	char device[8];                 /* kind: "cpu", "cuda" */
};

/* owner (batches): the rank that each batch belongs to. Of every `ranks` batches that follow each other in a race each
 * rank has one, the heaviest for who has least so far; likewise of the held-out ones. */
DSA_CHECKED enum dsa_status dsa_ranks_owners(const struct dsa_evaluator_shape *shape, int ranks, int *owner,
                                             struct dsa_error *err);

/* On rank 0: waits until every rank is ready and notes what each measures on; a rank's error is the result, naming the
 * rank. inner: this rank's own evaluator, which outlives this one as ranks and shape do. stop may be NULL. Answers that
 * were not asked for need somebody who takes them: announcements without that are ignored. */
DSA_CHECKED enum dsa_status
dsa_ranks_evaluator_open(struct dsa_evaluator **out, struct dsa_ranks *ranks, struct dsa_evaluator *inner,
                         const struct dsa_evaluator_shape *shape, const struct dsa_ranks_start *start,
                         const volatile sig_atomic_t *stop, const struct dsa_log *log, struct dsa_error *err);
/* On rank 0, at the end of any run: the others are to end too. */
void dsa_ranks_stop(struct dsa_ranks *ranks);

/* On another rank: *start from rank 0, or *stopped: there is nothing to do. */
DSA_CHECKED enum dsa_status dsa_ranks_await_start(struct dsa_ranks *ranks, struct dsa_ranks_start *start, bool *stopped,
                                                  struct dsa_error *err);
/* On another rank: says that it is ready and answers what it is asked until it is told to end. */
DSA_CHECKED enum dsa_status dsa_ranks_serve(struct dsa_ranks *ranks, struct dsa_evaluator *evaluator,
                                            const volatile sig_atomic_t *stop, struct dsa_error *err);
/* On another rank: hands its error to rank 0, and waits until it is told to end. */
void dsa_ranks_report(struct dsa_ranks *ranks, enum dsa_status status, struct dsa_error *error);

#endif
