/* bench_private.h: what the bench takes from the device besides model and forward pass; pure functions. */
#ifndef DSA_BENCH_PRIVATE_H
#define DSA_BENCH_PRIVATE_H

#include "dsa/bench.h"
#include "forward_private.h"

enum { BENCH_OVERLAP_LAYERS = 2, BENCH_ALIGNMENT = 256 };

/* Final hidden states of a reference and a candidate, targets and an order of rows. */
uint64_t bench_extra_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int context);
/* The matrices of the largest product, and the two ends of a copy in the same place. */
uint64_t bench_ceiling_bytes(const struct dsa_backend *be);

#endif
