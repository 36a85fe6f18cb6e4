/* safetensors.h: the tensors of a checkpoint directory, mapped, asked for by name, dtype and shape.
 *
 * Opens model.safetensors, or model.safetensors.index.json and every shard it names. Headers are checked completely
 * before any tensor is handed out: length, JSON, dtype, shape product against byte range, ranges inside the file and
 * not overlapping, names unique over all shards. Tensor data is only touched when somebody reads it. */
#ifndef DSA_SAFETENSORS_H
#define DSA_SAFETENSORS_H

#include <stdint.h>

#include "dsa/backend.h"
#include "dsa/status.h"

enum { DSA_TENSOR_DIMS = 4 };

struct dsa_stored {
	const char *name;
	enum dsa_dtype dtype;
	int dims;
	int64_t shape[DSA_TENSOR_DIMS];
	const uint8_t *data; /* in the mapping; unaligned */
	uint64_t bytes;
	int shard;
};

struct dsa_checkpoint;

DSA_CHECKED enum dsa_status dsa_checkpoint_open(struct dsa_checkpoint **out, const char *model_dir,
                                                struct dsa_error *err);
/* One safetensors file alone (goldens). */
DSA_CHECKED enum dsa_status dsa_checkpoint_open_file(struct dsa_checkpoint **out, const char *path,
                                                     struct dsa_error *err);
void dsa_checkpoint_close(struct dsa_checkpoint *checkpoint);

/* NULL if there is none. */
const struct dsa_stored *dsa_checkpoint_find(const struct dsa_checkpoint *checkpoint, const char *name);
/* The tensor, or DSA_E_INPUT naming the directory, the tensor, found and expected shape. cols 0: one-dimensional of
 * `rows`. Any of F32, F16, BF16 and F8_E4M3 is accepted; the scales of the last are a tensor of their own. */
DSA_CHECKED enum dsa_status dsa_checkpoint_get(const struct dsa_checkpoint *checkpoint, const char *name, int64_t rows,
                                               int64_t cols, const struct dsa_stored **out, struct dsa_error *err);
/* The same for any number of dimensions (packed experts have three). */
DSA_CHECKED enum dsa_status dsa_checkpoint_get_shape(const struct dsa_checkpoint *checkpoint, const char *name,
                                                     int dims, const int64_t *shape, const struct dsa_stored **out,
                                                     struct dsa_error *err);
/* scattered: a little of many tensors is read next (dsa_mapping_advise). */
void dsa_checkpoint_advise(const struct dsa_checkpoint *checkpoint, bool scattered);
int dsa_checkpoint_count(const struct dsa_checkpoint *checkpoint);
const struct dsa_stored *dsa_checkpoint_at(const struct dsa_checkpoint *checkpoint, int index); /* sorted by name */
/* Per shard: its path and its header's raw bytes, for fingerprints. */
int dsa_checkpoint_shards(const struct dsa_checkpoint *checkpoint);
const char *dsa_checkpoint_shard_path(const struct dsa_checkpoint *checkpoint, int shard);
void dsa_checkpoint_shard_header(const struct dsa_checkpoint *checkpoint, int shard, const uint8_t **data,
                                 uint64_t *bytes);
/* Where in its shard's file a byte of a tensor lies. */
uint64_t dsa_checkpoint_offset(const struct dsa_checkpoint *checkpoint, int shard, const uint8_t *data);

#endif
