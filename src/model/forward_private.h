/* forward_private.h: inside the forward pass: the workspace, the passes in progress, their streams, the prefix.
 *
 * A layer runs in tiles of at most as many query rows as the backend says. All of a layer is row by row but for the
 * keys, and a row reads keys of its own and earlier positions only, which this tile or an earlier one has stored; so
 * tiles bound the workspace and change no bit. */
#ifndef DSA_FORWARD_PRIVATE_H
#define DSA_FORWARD_PRIVATE_H

#include "dsa/forward.h"

/* On the device. R: rows of the largest pass; N: its keys; B = min(R, the backend's tile); act unless said. */
struct workspace {
	struct dsa_tensor residual;   /* (R, D) F32, of the stream in use */
	struct dsa_tensor selection;  /* (R, K) I32, the same; in force */
	struct dsa_tensor keys;       /* (N, c + r) of the layer at hand */
	struct dsa_tensor index_keys; /* (N, d) of the layer at hand */
	struct dsa_tensor pos, key0;  /* (N, 1) I32: of query rows, then of the prefix's rows */
	struct dsa_tensor ids;        /* (R, 1) I32 */

	struct dsa_tensor normed;         /* (B, D) */
	struct dsa_tensor q_low;          /* (B, q) */
	struct dsa_tensor q;              /* (B, H(n + r)) */
	struct dsa_tensor q_absorbed;     /* (B, H(c + r)) */
	struct dsa_tensor kv;             /* (B, c + r) */
	struct dsa_tensor index_q;        /* (B, h d) */
	struct dsa_tensor index_k;        /* (B, d) */
	struct dsa_tensor index_weights;  /* (B, h) F32 */
	struct dsa_tensor dropped;        /* (B, K) I32: a selection that nobody uses */
	struct dsa_tensor mixed;          /* (B, H c): attention in latent space */
	struct dsa_tensor values;         /* (B, H v) */
	struct dsa_tensor gate_up, inner; /* (B, 2 m) (B, m), m = the wider of dense and shared */
	struct dsa_tensor router;         /* (B, E) F32 */
	struct dsa_tensor chosen;         /* (B, chosen) I32 */
	struct dsa_tensor chosen_weights; /* (B, chosen) F32 */
	struct dsa_tensor gathered;       /* (B, D) F32 */
};

struct pass;

/* What one stream of a pass holds between layers, on the device. */
struct stream {
	struct dsa_tensor residual;  /* (R, D) F32 */
	struct dsa_tensor selection; /* (R, K) I32, in force */
	const struct pass *pass;     /* whose rows they are; NULL: none yet */
	bool has_selection;
};

struct pass_document {
	int tokens, first; /* T; first query position: 0 or min(K, T) */
	int64_t row0, key0;
};

/* The rows of one pass. Their description goes from here to the device whenever the pass is turned to. */
struct pass {
	struct pass_document *documents; /* (document_room) */
	int count;                       /* 0: not begun */
	int64_t rows, key_rows;
	int64_t laid_out; /* rows, and the prefix's behind them */
	bool whole;
	struct dsa_prefix *prefix;
	int document_room;
	int64_t room;
	int32_t *host; /* pos (room), key0 (room), ids (room) */
};

struct dsa_forward {
	struct dsa_model *model;
	struct dsa_backend *be;
	void *memory; /* device, behind workspace and streams */
	struct workspace work;
	struct stream *streams; /* (stream_count) */
	struct stream *stream;  /* the one in use */
	struct pass *passes;    /* (stream_count): each has a stream of its own at least */
	struct pass *pass;      /* the one at hand */
	int stream_count;
	int64_t max_rows, max_keys;
	int max_documents;
	int32_t *plain; /* dsa_forward_keep_plain */
	int loaded;     /* the layer whose keys of the pass's prefix are in the workspace, or -1 */
	bool index_loaded;
};

/* min(K, T): positions below it are the same under every pattern. */
static inline int prefix_tokens(const struct dsa_model_config *config, int tokens)
{
	return tokens < config->topk ? tokens : config->topk;
}

/* prefix.c: the layer's keys of a whole pass to the host, and from it to the device for a scored-part pass. index: the
 * indexer's keys are there (store) or wanted (load). */
DSA_CHECKED enum dsa_status prefix_store(struct dsa_forward *forward, int layer, bool index, struct dsa_error *err);
DSA_CHECKED enum dsa_status prefix_load(struct dsa_forward *forward, int layer, bool index, struct dsa_error *err);
/* The prefix was opened for these documents. */
bool prefix_fits(const struct dsa_prefix *prefix, const struct dsa_pass_document *documents, int count);

#endif
