/* model.h: a checkpoint ready to run on a backend: configuration, weights and their residency, identity.
 *
 * The model owns its weights wherever they lie (residency.h). A layer is acquired before use and released after it; one
 * that is not on the device in the form of products is brought there, and the next one is set on its way. */
#ifndef DSA_MODEL_H
#define DSA_MODEL_H

#include <stdint.h>

#include "dsa/backend.h"
#include "dsa/log.h"
#include "dsa/model_config.h"
#include "dsa/residency.h"
#include "dsa/status.h"

/* Device tensors of one layer; data NULL where the layer has none (no indexer on native S layers, no bias, …). */
struct dsa_layer {
	struct dsa_tensor input_norm, post_norm;      /* (1, D) F32 */
	struct dsa_tensor q_a, q_a_bias, q_a_norm;    /* (q, D) (1, q) (1, q) */
	struct dsa_tensor q_b;                        /* (H(n + r), q) */
	struct dsa_tensor kv_a, kv_a_bias, kv_a_norm; /* (c + r, D) (1, c + r) (1, c) */
	struct dsa_tensor kv_b;                       /* (H(n + v), c): W_UK rows then W_UV rows per head */
	struct dsa_tensor o, o_bias;                  /* (D, H v) (1, D) */
	struct dsa_tensor index_q, index_k;           /* (h d, q) (d, D) */
	struct dsa_tensor index_k_norm, index_k_bias; /* (1, d) */
	struct dsa_tensor index_weights;              /* (h, D) */
	struct dsa_tensor gate_up, down;              /* dense: (2 m, D), (D, m) */
	struct dsa_tensor router, correction;         /* (E, D) F32, (1, E) F32 */
	struct dsa_experts experts;
	struct dsa_tensor shared_gate_up, shared_down; /* (2 s, D), (D, s) */
};

struct dsa_model {
	struct dsa_model_config config;
	struct dsa_backend *backend;
	struct dsa_tensor embed, final_norm, head; /* (V, D), (1, D) F32, (V, D) */
	const float *cos, *sin;                    /* (context, r/2) F32 on the device */
	int context;
	uint64_t weight_bytes; /* on the device */
	char fingerprint[65];  /* hex SHA-256: config, tokenizer, shard headers, sampled blocks of every tensor */
	struct dsa_model_private *private;
};

/* What each layer takes, for dsa_residency_plan(): from the headers alone, whose shapes and dtypes are checked. */
DSA_CHECKED enum dsa_status dsa_model_sizes(struct dsa_sizes *sizes, const struct dsa_model_config *config,
                                            const char *model_dir, enum dsa_dtype weight, struct dsa_error *err);
/* Loads model_dir. residency: where its layers lie, by a plan of its sizes; NULL: all on the device. context: longest
 * document, sizes the rotary tables. Weights that are not finite, of another shape or missing are DSA_E_INPUT /
 * DSA_E_NUMERIC by name; of layers in host memory or on disk when they are first acquired. */
DSA_CHECKED enum dsa_status dsa_model_open(struct dsa_model **out, struct dsa_backend *backend, const char *model_dir,
                                           int context, const struct dsa_residency *residency,
                                           const struct dsa_log *log, struct dsa_error *err);
/* A model of random weights: of products uniform with variance 1 / columns, norms near 1, small biases; every layer has
 * an indexer. What config points to must outlive the model. No fingerprint. */
DSA_CHECKED enum dsa_status dsa_model_random(struct dsa_model **out, struct dsa_backend *backend,
                                             const struct dsa_model_config *config, int context, uint64_t seed,
                                             struct dsa_error *err);
void dsa_model_close(struct dsa_model *model);
/* Can the layer be F? Without acquiring it. */
bool dsa_model_has_indexer(const struct dsa_model *model, int layer);
/* Do visits of some layers bring them first, over the bus or into the form of products? */
bool dsa_model_brings_layers(const struct dsa_model *model);
/* *out: valid until another layer is acquired. */
DSA_CHECKED enum dsa_status dsa_model_acquire(struct dsa_model *model, int layer, const struct dsa_layer **out,
                                              struct dsa_error *err);
void dsa_model_release(struct dsa_model *model, int layer);
/* Bytes the weights take on a backend with this weight dtype; pure. */
uint64_t dsa_model_weight_bytes(const struct dsa_model_config *config, enum dsa_dtype weight);
/* Fingerprint without loading (inspect, journals). full: every byte instead of sampled blocks. */
DSA_CHECKED enum dsa_status dsa_model_fingerprint(const char *model_dir, bool full, char out[65],
                                                  struct dsa_error *err);

#endif
