/* forward.h: the DSA forward pass, written once over the operator table.
 *
 * A pass runs the query rows of a few documents (a struct dsa_pass), layer by layer; the caller drives the layers, so
 * that it can start in the middle from a kept state, keep states on the way, and run a suffix of the positions only.
 *
 * Query rows may be all positions of each document (whole), or only positions ≥ min(K, T) (scored part): those below
 * K are the same under every pattern, so their keys come from a dsa_prefix kept when the base ran whole. Both ways
 * give the same bits.
 *
 * State between layers = the residual stream (R, D) F32 AND the selection in force (R, K) I32. A forward pass may hold
 * several such states of the same rows, its streams: one is in use, and the caller takes them through a layer in turn,
 * so that a layer's weights and the prefix's keys serve them all. Each has the bits it would have alone. */
#ifndef DSA_FORWARD_H
#define DSA_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/model.h"
#include "dsa/status.h"

struct dsa_forward; /* workspace and streams for passes up to a planned size */

struct dsa_pass_document {
	const int32_t *ids; /* (tokens) */
	int tokens;         /* T */
};

/* Keys of the positions below min(K, T) of each document of a pass, for every layer, in the backend's stash and act
 * dtype. Filled by a whole pass, read by scored-part passes. latent: per layer (P, c + r), index: per layer (P, d),
 * P = Σ min(K, T). Unrotated nothing: keys are stored as attention reads them. */
struct dsa_prefix;
DSA_CHECKED enum dsa_status dsa_prefix_open(struct dsa_prefix **out, const struct dsa_model *model,
                                            const struct dsa_pass_document *documents, int count,
                                            struct dsa_error *err);
void dsa_prefix_close(struct dsa_prefix *prefix);
size_t dsa_prefix_bytes(const struct dsa_model_config *config, enum dsa_dtype act,
                        const struct dsa_pass_document *documents, int count);

/* max_rows, max_keys: the largest pass (Σ T of a batch); streams ≥ 1. One device allocation, sized by dsa_forward_bytes
 * (pure). */
DSA_CHECKED enum dsa_status dsa_forward_open(struct dsa_forward **out, struct dsa_model *model, int64_t max_rows,
                                             int64_t max_keys, int max_documents, int streams, struct dsa_error *err);
void dsa_forward_close(struct dsa_forward *forward);
size_t dsa_forward_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int64_t max_rows,
                         int64_t max_keys, int streams);
/* What one stream takes of that. */
size_t dsa_forward_stream_bytes(const struct dsa_model_config *config, int64_t max_rows);
/* What such passes ask of the backend's scratch; pure. */
struct dsa_backend_limits dsa_forward_limits(const struct dsa_model_config *config, int context, int64_t max_rows,
                                             int64_t max_keys);

/* The pass (from 0, less than streams) that every call up to the next of this speaks of; the first at the beginning.
 * One that has begun goes on where it was. */
DSA_CHECKED enum dsa_status dsa_forward_turn(struct dsa_forward *forward, int pass, struct dsa_error *err);
/* Begins the pass anew. whole: every position is a query row; else positions ≥ min(K, T), and prefix must be filled.
 * With whole and prefix ≠ NULL the prefix is filled as layers run. *rows = R. No stream holds a state of it yet; the
 * first is in use. */
DSA_CHECKED enum dsa_status dsa_forward_begin(struct dsa_forward *forward, const struct dsa_pass_document *documents,
                                              int count, bool whole, struct dsa_prefix *prefix, int64_t *rows,
                                              struct dsa_error *err);
/* The stream (from 0) that every call up to the next of this speaks of. A stream belongs to the pass that last put a
 * state into it: embedded, restored or forked. */
void dsa_forward_use(struct dsa_forward *forward, int stream);
/* The stream in use takes over the state of stream `from`. */
DSA_CHECKED enum dsa_status dsa_forward_fork(struct dsa_forward *forward, int from, struct dsa_error *err);
/* Fills the state before layer 0 from the embeddings; seed ≠ 0 disturbs them (noise floor). Not after
 * dsa_forward_hidden, which takes the memory of the token ids, unless another pass had its turn since. */
DSA_CHECKED enum dsa_status dsa_forward_embed(struct dsa_forward *forward, uint64_t seed, struct dsa_error *err);
/* Runs layer l as 'F' or 'S' on the current state. An S layer needs a selection in force. index_unused: run the indexer
 * of an S layer (if it has one) and drop its selection, as a search without savings would. */
DSA_CHECKED enum dsa_status dsa_forward_layer(struct dsa_forward *forward, int layer, char mode, bool index_unused,
                                              struct dsa_error *err);

/* Until it is called again: F layers leave in `plain`, device memory (R, K) I32, what their indexer would have selected
 * from its queries and keys as they are, whatever the model's index_precision. NULL: no more. */
void dsa_forward_keep_plain(struct dsa_forward *forward, int32_t *plain);

/* The state's image, in host memory or the backend's stash: residual (R, D) F32 then selection (R, K) I32, only the
 * rows of positions ≥ min(K, T), in pass order. Its size for a pass's documents; pure. */
size_t dsa_state_bytes(const struct dsa_model_config *config, const struct dsa_pass_document *documents, int count);
/* Works for whole and scored-part passes alike (a whole pass gathers those rows). */
DSA_CHECKED enum dsa_status dsa_forward_save(struct dsa_forward *forward, void *image, struct dsa_error *err);
/* Scored-part passes only. */
DSA_CHECKED enum dsa_status dsa_forward_restore(struct dsa_forward *forward, const void *image, struct dsa_error *err);

/* After the last layer: out (M, D) act = final-normed residual of the M rows named by (document, position) in `index`
 * (pass row numbers, host). out is the caller's device memory. */
DSA_CHECKED enum dsa_status dsa_forward_hidden(struct dsa_forward *forward, const int32_t *index, int64_t count,
                                               struct dsa_tensor out, struct dsa_error *err);
/* Row number of (document, position) in the current pass, -1 if that position is no query row. */
int64_t dsa_forward_row(const struct dsa_forward *forward, int document, int position);
/* The selection in force, device memory (R, K) I32, valid until the next layer; NULL before the first F layer. */
const int32_t *dsa_forward_selection(const struct dsa_forward *forward);
/* The residual stream (R, D) F32 on the device. */
struct dsa_tensor dsa_forward_residual(const struct dsa_forward *forward);

#endif
