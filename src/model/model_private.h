/* model_private.h: inside the model: which tensors a layer has, how they are loaded, and what identifies a checkpoint.
 *
 * A slot is one device tensor of a layer together with where its content comes from; a piece is one stored matrix or
 * vector on its way to its rows of a slot's tensor. The list of a layer's slots is made in one place and serves every
 * purpose: sizes, the check of every shape before any memory is taken, loading, streaming. */
#ifndef DSA_MODEL_PRIVATE_H
#define DSA_MODEL_PRIVATE_H

#include "dsa/arena.h"
#include "dsa/model.h"
#include "dsa/safetensors.h"

struct residency; /* residency_private.h */

struct dsa_model_private {
	struct dsa_arena arena; /* the configuration's memory and the lists below */
	struct dsa_layer *layers;
	void **blocks; /* (L + 2) device memory: layers, then what no layer owns, then the rotary tables */
	struct residency *residency; /* of layers that have no block; NULL: all have one */
};

enum weight_source {
	WEIGHT_VECTOR,  /* one one-dimensional tensor */
	WEIGHT_MATRIX,  /* one tensor (rows, cols) */
	WEIGHT_GATE_UP, /* gate_proj over up_proj, each (rows / 2, cols) */
	WEIGHT_EXPERTS_GATE_UP,
	WEIGHT_EXPERTS_DOWN,
};

struct weight_slot {
	struct dsa_tensor *tensor;
	const char *name; /* behind the prefix; of the module that holds gate_proj and up_proj, or of the experts */
	enum weight_source source;
	enum dsa_dtype dtype;
	int64_t rows;
	int cols;
	int count;                  /* experts */
	double scale;               /* the content is multiplied by it; only where dtype is F32 */
	int block_rows, block_cols; /* of the scales of weights stored as FP8; 0: config.json tells of none */
};

enum { WEIGHT_SLOTS = 32, WEIGHT_ALIGNMENT = 256 };

/* Fills slots for a layer whose tensors are in *layer; returns their number. */
int weight_layer_slots(struct weight_slot slots[WEIGHT_SLOTS], struct dsa_layer *layer,
                       const struct dsa_model_config *config, int index, bool indexer, enum dsa_dtype weight);
/* The same for what no layer owns: embeddings, final norm, head. */
int weight_model_slots(struct weight_slot slots[WEIGHT_SLOTS], struct dsa_model *model,
                       const struct dsa_model_config *config, enum dsa_dtype weight);
/* Device bytes of the slots, each padded to WEIGHT_ALIGNMENT. */
uint64_t weight_slots_bytes(const struct weight_slot *slots, int count);
/* Every tensor is there, in a dtype that can be read and in the shape that the configuration asks for. */
DSA_CHECKED enum dsa_status weight_slots_check(const struct weight_slot *slots, int count,
                                               const struct dsa_checkpoint *checkpoint, const char *prefix,
                                               struct dsa_error *err);
/* Places the slots' tensors in `block`, weight_slots_bytes of device memory; NULL: in none, they have shapes only. */
void weight_slots_place(const struct weight_slot *slots, int count, void *block);

struct weight_piece {
	struct dsa_tensor to;
	const struct dsa_stored *stored;
	const uint8_t *numbers, *scales; /* in the checkpoint's mapping, unaligned; scales: of F8_E4M3, else NULL */
	uint64_t bytes, scale_bytes;
	int scale_shard;
	int block_rows, block_cols; /* of scales */
	int matrix;                 /* of a tensor that packs several, -1 of any other */
	float factor;               /* the content is multiplied by it; 1 unless `to` is F32 */
};
/* The pieces of slots that are placed, in the arena. */
DSA_CHECKED enum dsa_status weight_slots_pieces(const struct weight_slot *slots, int count,
                                                const struct dsa_checkpoint *checkpoint, const char *prefix,
                                                struct dsa_arena *arena, struct weight_piece **pieces, int *piece_count,
                                                struct dsa_error *err);
/* From host memory, unaligned. DSA_E_NUMERIC names shard, tensor and place of what is not finite. */
DSA_CHECKED enum dsa_status weight_piece_load(const struct weight_piece *piece, const void *numbers, const void *scales,
                                              const struct dsa_checkpoint *checkpoint, struct dsa_backend *be,
                                              struct dsa_error *err);
/* The same from device memory, aligned to the elements; queued. */
DSA_CHECKED enum dsa_status weight_piece_convert(const struct weight_piece *piece, const void *numbers,
                                                 const void *scales, const struct dsa_checkpoint *cp,
                                                 struct dsa_backend *be, struct dsa_error *err);
/* Places the slots and loads them from the mapping. */
DSA_CHECKED enum dsa_status weight_slots_load(const struct weight_slot *slots, int count,
                                              const struct dsa_checkpoint *checkpoint, const char *prefix,
                                              struct dsa_backend *be, void *block, struct dsa_error *err);

/* model.c: "model.layers.7." */
enum { LAYER_PREFIX_CHARS = 64 };
const char *model_layer_prefix(char text[LAYER_PREFIX_CHARS], int layer);
/* model.c: an S layer may carry no indexer; one that carries a part of it must carry all. */
bool model_has_indexer(const struct dsa_model_config *config, const struct dsa_checkpoint *checkpoint, int layer);

/* model.c: the rotary tables of the model's context, in the last of its blocks. */
DSA_CHECKED enum dsa_status model_rope_tables(struct dsa_model *model, struct dsa_error *err);

/* random_model.c: uniform numbers on the host, repeated over tensors of any size on the device. */
enum { RANDOM_CHUNK = 8 * 131071 }; /* of a prime, so that rows do not repeat */
struct random_numbers {
	float *unit;   /* (RANDOM_CHUNK) in [-1, 1) */
	float *scaled; /* (RANDOM_CHUNK) on its way to the device */
};
DSA_CHECKED enum dsa_status random_numbers_open(struct random_numbers *numbers, uint64_t seed, struct dsa_error *err);
void random_numbers_close(struct random_numbers *numbers);
/* t, contiguous, of the backend's weight dtype or F32, = centre ± amplitude. Waits. */
DSA_CHECKED enum dsa_status random_fill(const struct random_numbers *numbers, struct dsa_backend *be,
                                        struct dsa_tensor t, double centre, double amplitude, struct dsa_error *err);

/* fingerprint.c */
DSA_CHECKED enum dsa_status fingerprint_checkpoint(const struct dsa_checkpoint *checkpoint, const char *model_dir,
                                                   bool full, char out[65], struct dsa_error *err);

#endif
