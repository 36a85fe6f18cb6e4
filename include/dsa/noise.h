/* noise.h: the noise floor: how far rounding alone moves the output (method.md, What is measured).
 *
 * The reference against itself, every embedding moved by one ulp of bf16. It is one number to hold budgets against, and
 * costs a whole run of every document it is measured on, so it is taken from a sample: of each corpus the first
 * calibration documents in their seeded random order. */
#ifndef DSA_NOISE_H
#define DSA_NOISE_H

#include <stdint.h>

#include "dsa/evaluator.h"
#include "dsa/results.h"

/* Of each corpus a quarter of its calibration documents, but at least so many. */
enum { DSA_NOISE_DOCUMENTS = 8, DSA_NOISE_PART = 4 };

/* How many documents of the batch are among those: its first ones, whatever the batches are. It is run whole. */
int dsa_noise_takes(const struct dsa_evaluator_shape *shape, int batch);
/* Fills the noise floor of results, and that of each of its corpora. seed: of the signs, 0 is taken as 1. tell(context)
 * after each batch; may be NULL. Scratch memory from arena. */
DSA_CHECKED enum dsa_status dsa_noise_measure(struct dsa_results *results, struct dsa_evaluator *evaluator,
                                              uint64_t seed, void (*tell)(void *context), void *context,
                                              struct dsa_arena *arena, struct dsa_error *err);

#endif
