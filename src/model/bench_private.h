/* bench_private.h: inside the bench: what it takes from the device besides model and forward pass, samples, operators.
 */
#ifndef DSA_BENCH_PRIVATE_H
#define DSA_BENCH_PRIVATE_H

#include "dsa/bench.h"
#include "forward_private.h"

enum { BENCH_OVERLAP_LAYERS = 2, BENCH_ALIGNMENT = 256 };

/* Final hidden states of a reference and a candidate, targets and an order of rows. */
uint64_t bench_extra_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int context);
/* The matrices of the largest product, and the two ends of a copy in the same place. */
uint64_t bench_ceiling_bytes(const struct dsa_backend *be);

/* All that a measurement has at hand. */
struct bench_run {
	struct dsa_bench *bench;
	struct dsa_model *model;
	struct dsa_backend *be;
	struct dsa_forward *forward;
	const volatile sig_atomic_t *stop;
	const struct dsa_layer *any, *dense, *moe; /* a layer with an indexer; NULL: the model has none */
	int any_index, dense_index, moe_index;
	int32_t *ids;                      /* (context) */
	void *memory;                      /* device: the tensors below */
	struct dsa_tensor base, candidate; /* (B, D) act: final hidden states */
	int32_t *target, *order;           /* (B) token ids; rows of the pass */
	struct dsa_row_figures *figures;   /* (B) */
};

/* bench_operators.c: the operator once, on `count` rows from `first` on. */
DSA_CHECKED enum dsa_status bench_call(struct bench_run *run, enum dsa_bench_operator op, int64_t first, int64_t count,
                                       struct dsa_error *err);

#endif
