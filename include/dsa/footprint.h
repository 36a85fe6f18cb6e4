/* footprint.h: what the weights of a checkpoint take, in its files and on a device, by what they belong to.
 *
 * Pure reading of headers: shapes and dtypes are checked against the configuration as they are before loading, no
 * weight is touched. A native S layer without an indexer counts without one. Tensors that no layer of the model uses,
 * those of multi-token-prediction layers, are counted apart; they are never loaded. */
#ifndef DSA_FOOTPRINT_H
#define DSA_FOOTPRINT_H

#include <stdint.h>

#include "dsa/model_config.h"
#include "dsa/safetensors.h"
#include "dsa/status.h"

enum dsa_footprint_kind {
	DSA_FOOTPRINT_OUTSIDE, /* embeddings, final norm, head: one "layer" */
	DSA_FOOTPRINT_DENSE,
	DSA_FOOTPRINT_MOE,
	DSA_FOOTPRINT_KINDS
};

struct dsa_footprint_part {
	int layers;
	uint64_t stored;  /* bytes in the files, scales included */
	uint64_t device;  /* bytes on a device with that weight dtype */
	uint64_t largest; /* device bytes of the largest of these layers */
};

struct dsa_footprint {
	struct dsa_footprint_part part[DSA_FOOTPRINT_KINDS];
	int indexers;             /* layers that have one */
	uint64_t indexers_stored; /* bytes in the files, of the layers' */
	uint64_t unused_stored;   /* bytes in the files that are never loaded */
	uint64_t device;          /* of all parts */
	int first_layers;         /* the layers from 0 on that `limit` bytes hold beside what is outside the layers */
};

/* weight: the device's dtype of products. limit: bytes of device memory. DSA_E_INPUT: a tensor is missing or of another
 * shape, by name. */
DSA_CHECKED enum dsa_status dsa_footprint_measure(struct dsa_footprint *footprint,
                                                  const struct dsa_model_config *config,
                                                  const struct dsa_checkpoint *checkpoint, enum dsa_dtype weight,
                                                  uint64_t limit, struct dsa_error *err);

#endif
