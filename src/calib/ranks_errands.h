/* ranks_errands.h: questions on their way between ranks, in a list, each with the memory that it was read or copied
 * into.
 */
#ifndef DSA_RANKS_ERRANDS_H
#define DSA_RANKS_ERRANDS_H

#include "dsa/arena.h"
#include "dsa/evaluator.h"

struct errand {
	struct errand *next;
	struct dsa_coming what;
	struct dsa_arena arena; /* of what's texts */
};

/* An empty one. */
DSA_CHECKED enum dsa_status errand_open(struct errand **out, struct dsa_error *err);
void errand_close(struct errand *errand);
void errands_close(struct errand *first);
/* Tells the evaluator that it will be asked those of the list (owner NULL), or those whose batch is the rank's, and
 * that it is to hold early answers until then. */
DSA_CHECKED enum dsa_status errands_announce(const struct errand *first, const int *owner, int rank,
                                             struct dsa_evaluator *evaluator, struct dsa_error *err);

#endif
