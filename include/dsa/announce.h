/* announce.h: telling an evaluator what will be asked next: one of several ranks can begin it, one whose layers
 * have to be brought can answer several questions while they are there.
 *
 * Nothing is asked here and no answer depends on it; an evaluator that does not care (evaluator.h) is not told. */
#ifndef DSA_ANNOUNCE_H
#define DSA_ANNOUNCE_H

#include "dsa/evaluator.h"

/* The question (its batch counts for nothing) about each of (count) batches, in that order; overlap: behind the overlap
 * of each batch. */
DSA_CHECKED enum dsa_status dsa_announce(struct dsa_evaluator *evaluator, const struct dsa_ask *question,
                                         const int *batches, int count, bool overlap, struct dsa_error *err);
/* About each batch of a split, DSA_SPLITS: of both; overlap only where the batch is for calibration. */
DSA_CHECKED enum dsa_status dsa_announce_split(struct dsa_evaluator *evaluator, const struct dsa_ask *question,
                                               int split, bool overlap, struct dsa_error *err);

#endif
