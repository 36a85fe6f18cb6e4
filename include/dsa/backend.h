/* backend.h: tensors and operators on one device; the table that the forward pass is written over.
 *
 * Two implementations: the CPU (src/backend/cpu*.c: readable, float32, fixed order, the reference) and CUDA. The
 * forward pass calls nothing else, so it exists once. No type of a vendor's toolkit appears here.
 *
 * Invariants of every operator, on every backend:
 * - A row's result does not depend on which other rows share the call, nor on the number of threads.
 * - No operator allocates; scratch is planned by dsa_backend_limits and taken once at open.
 * - Outputs never alias inputs unless the comment says so.
 * - Operators are queued; results are there after ops->wait() or a download. Faults found on the device (NaN in index
 *   scores) are reported by the next ops->wait().
 *
 * Letters (model.md): T tokens of a document · D hidden · H heads · K top-k · V vocabulary · E experts · r rope dims ·
 * n nope dims · v value dims · c latent (kv_lora_rank) · q q_lora_rank · h index heads · d index head dim.
 * R query rows of a call (over all its documents) · N key rows (Σ T over its documents).
 *
 * Types: "act" is the backend's activation type between products (F32 on the CPU, BF16 on CUDA); the residual stream,
 * scores, weights of routing and everything measured is F32 or F64 as said. */
#ifndef DSA_BACKEND_H
#define DSA_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/log.h"
#include "dsa/status.h"

enum dsa_dtype { DSA_F32, DSA_BF16, DSA_F16, DSA_F8_E4M3, DSA_I32, DSA_I64, DSA_F64, DSA_U8, DSA_DTYPES };
size_t dsa_dtype_bytes(enum dsa_dtype dtype);
const char *dsa_dtype_name(enum dsa_dtype dtype); /* safetensors' spelling: "F32", "BF16", … */

/* A 2-D view of device memory: row i starts at data + i·stride elements. Plain data, copied freely, owns nothing. */
struct dsa_tensor {
	void *data;
	enum dsa_dtype dtype;
	int64_t rows;
	int cols;
	int64_t stride; /* elements between rows, ≥ cols */
};

struct dsa_tensor dsa_tensor_make(void *data, enum dsa_dtype dtype, int64_t rows, int cols); /* stride = cols */
/* Columns [first, first + cols) of t. */
struct dsa_tensor dsa_tensor_columns(struct dsa_tensor t, int first, int cols);
/* Rows [first, first + rows) of t. */
struct dsa_tensor dsa_tensor_rows(struct dsa_tensor t, int64_t first, int64_t rows);

/* Which document and position each query row is, all on the device. Keys of row i: key rows key0[i] … key0[i] + pos[i];
 * key row key0[i] + pos[i] is the row's own. */
struct dsa_rows {
	int64_t count;       /* R */
	const int32_t *pos;  /* (R) position in its document */
	const int32_t *key0; /* (R) first key row of its document */
	int max_pos;         /* largest pos, known on the host */
};

enum dsa_rope_style { DSA_ROPE_INTERLEAVED /* pairs (2i, 2i+1) */, DSA_ROPE_HALVES /* pairs (i, i + r/2) */ };

/* What the indexer's queries and keys are when they are multiplied. FP8 is what serving engines do: each row x of d
 * numbers (a power of two), of a query's head or of a key, is rotated by the normalised Hadamard matrix, y = x · H ·
 * d^-1/2 with H(i, j) = (-1)^(bits that i and j share), and becomes numbers of F8_E4M3 with one scale, y ≈ c · s, s =
 * max(|y|, 1e-4) / 448, c = y / s rounded to nearest even. Scores are sums of products of c, times the scales. */
enum dsa_index_precision {
	DSA_INDEX_ACT, /* as they are: F32 on the CPU, BF16 on CUDA */
	DSA_INDEX_BF16,
	DSA_INDEX_FP8,
	DSA_INDEX_FP8_UE8M0, /* s rounded up to a power of two */
};
/* "f32" (ACT), "bf16", "fp8" (both of it: which of them is the model's to say). */
const char *dsa_index_precision_name(enum dsa_index_precision precision);
/* The precision of that name, FP8 for "fp8"; false: no such name. */
bool dsa_index_precision_find(const char *name, enum dsa_index_precision *out);

struct dsa_router {
	int experts, chosen, groups, chosen_groups;
	bool normalise;
	float scale;
};

/* One MoE layer's experts, in the weight dtype of the backend. gate_up: (E · 2m, D), per expert m gate rows then m up
 * rows; down: (E · D, m). */
struct dsa_experts {
	struct dsa_tensor gate_up, down;
	int count, inner; /* E, m */
};

/* Figures of one scored row, measured against the base (method.md). All in double. */
struct dsa_row_figures {
	double kl;       /* KL(P_base || P_candidate), nats, ≥ 0 up to rounding, exactly 0 for equal logits */
	double nll_base; /* -ln P_base(target) */
	double nll;      /* -ln P_candidate(target) */
	int32_t top1;    /* 1 if both have the same arg max (lowest index on ties) */
	int32_t finite;  /* 0 if any logit is NaN or infinite: the other fields are then undefined */
};

/* Scales of an F8_E4M3 weight (rows, cols), one per block: (⌈rows / block_rows⌉, ⌈cols / block_cols⌉) F32 in host
 * memory, unaligned; weight = number · scale of its block. */
struct dsa_block_scales {
	const void *data;
	int block_rows, block_cols;
};

struct dsa_backend_limits {
	int64_t rows; /* most query rows of a call, the backend's tile but for gather, compare and overlap */
	int64_t keys; /* most key rows */
	int layers, hidden, heads, latent, rope, topk, vocab, experts, chosen, expert_inner, index_heads,
	    index_dim;   /* most of each: L D H c r K V E, experts per token, m, h, d */
	int max_context; /* longest document */
	enum dsa_index_precision index_precision;
};

struct dsa_backend;

struct dsa_ops {
	/* Device memory, 256-byte aligned, uninitialised. DSA_E_MEMORY says how much was asked for and is free. */
	enum dsa_status (*alloc)(struct dsa_backend *be, size_t bytes, const char *what, void **out,
	                         struct dsa_error *err);
	void (*free)(struct dsa_backend *be, void *memory);
	/* Memory for what is kept and comes back later, NULL where there is none: on the device while that has room to
	 * spare, else on the host. Only upload and download reach it, in the place of host memory. */
	void *(*stash_alloc)(struct dsa_backend *be, size_t bytes);
	void (*stash_free)(struct dsa_backend *be, void *memory);
	/* Bytes of the device that stash_alloc leaves to alloc once these limits are reserved, where a run may take
	 * `total` of it: pure. NULL: the stash is always host memory. */
	size_t (*stash_reserve)(const struct dsa_backend_limits *limits, size_t total);
	enum dsa_status (*upload)(struct dsa_backend *be, void *device, const void *host, size_t bytes,
	                          struct dsa_error *err);
	enum dsa_status (*download)(struct dsa_backend *be, void *host, const void *device, size_t bytes,
	                            struct dsa_error *err); /* waits */
	enum dsa_status (*copy)(struct dsa_backend *be, void *to, const void *from, size_t bytes,
	                        struct dsa_error *err);
	/* Waits for everything queued; reports faults of the operators since the last wait (DSA_E_NUMERIC,
	 * DSA_E_DEVICE). */
	enum dsa_status (*wait)(struct dsa_backend *be, struct dsa_error *err);
	/* Converts a stored weight (host memory, unaligned, dtype F32/F16/BF16) to `to` (rows × cols, contiguous),
	 * whose dtype is the backend's weight dtype or F32. Non-finite values are DSA_E_NUMERIC with row and column
	 * found. */
	enum dsa_status (*load_weight)(struct dsa_backend *be, struct dsa_tensor to, const void *host,
	                               enum dsa_dtype stored, struct dsa_error *err);
	/* The same for a weight stored as F8_E4M3 with block scales: the product of number and scale in float32,
	 * rounded once to the dtype of `to`. The bytes cross to the device as they are stored. NaN codes, scales that
	 * are negative or not finite, and products that are not finite are DSA_E_NUMERIC with their place. */
	enum dsa_status (*load_fp8)(struct dsa_backend *be, struct dsa_tensor to, const void *host,
	                            const struct dsa_block_scales *scales, struct dsa_error *err);

	/* Weights that stay as they are stored, and become what products use anew for each visit. */
	/* Host memory that fetch reads at the bus's own rate, page-aligned; NULL where there is none. */
	void *(*pinned_alloc)(struct dsa_backend *be, size_t bytes);
	void (*pinned_free)(struct dsa_backend *be, void *memory);
	/* Begins to copy pinned memory to the device: behind what is queued now, beside what is queued from now on.
	 * Both ends are left alone until fetched(). One at a time. */
	enum dsa_status (*fetch)(struct dsa_backend *be, void *device, const void *pinned, size_t bytes,
	                         struct dsa_error *err);
	/* Waits for it. *seconds: what the copy itself took. */
	enum dsa_status (*fetched)(struct dsa_backend *be, double *seconds, struct dsa_error *err);
	/* As load_weight (scales NULL) and load_fp8, to the bit, of what is on the device as it is stored, aligned to
	 * its elements, scales too. Queued; finds nothing that is not finite: it has been loaded once before. */
	enum dsa_status (*convert)(struct dsa_backend *be, struct dsa_tensor to, const void *from,
	                           enum dsa_dtype stored, const struct dsa_block_scales *scales, struct dsa_error *err);
	/* t · factor; t F32, contiguous. */
	enum dsa_status (*scale)(struct dsa_backend *be, struct dsa_tensor t, float factor, struct dsa_error *err);

	/* out (R, D) F32 = table[ids]; with seed ≠ 0 every element is moved by one bf16 ulp of its own magnitude, sign
	 * = hash(seed, position, token id, column): the noise floor's disturbance. ids (R) I32 on the device. The ulp
	 * is 2^(e - 7), e the exponent of the element rounded to bf16 (≥ -126). With m(x) the finaliser
	 * x ^= x >> 30, x *= 0xbf58476d1ce4e5b9, x ^= x >> 27, x *= 0x94d049bb133111eb, x ^= x >> 31 on uint64, row =
	 * m(seed ^ m(position · 2^32 + id)) and the sign of column j is minus iff m(row + j) is odd. */
	enum dsa_status (*embed)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor table,
	                         const int32_t *ids, const struct dsa_rows *rows, uint64_t seed, struct dsa_error *err);
	/* out (R, D) act = x · weight / sqrt(mean x² + eps); x F32 or act. out may be x when the types are equal. */
	enum dsa_status (*rmsnorm)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                           struct dsa_tensor weight /* (1, D) */, float eps, struct dsa_error *err);
	/* Over the last dimension, with weight and bias (1, D). out may be x. */
	enum dsa_status (*layernorm)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                             struct dsa_tensor weight, struct dsa_tensor bias, float eps,
	                             struct dsa_error *err);
	/* out (R, N) = x (R, M) · wᵀ, w (N, M), + bias (1, N) if bias.data; accumulate: out += instead (out F32).
	 * out F32 or act. */
	enum dsa_status (*linear)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                          struct dsa_tensor w, struct dsa_tensor bias, bool accumulate, struct dsa_error *err);
	/* Per head a, out[:, a·o … a·o+o) = x[:, a·xs … a·xs+i) · W_a with W_a (i, o) stored at w + a·w_head elements,
	 * row stride w.stride; transposed: W_a stored (o, i). out_head/x_head: column distance of heads. */
	enum dsa_status (*head_linear)(struct dsa_backend *be, struct dsa_tensor out, int out_head, struct dsa_tensor x,
	                               int x_head, struct dsa_tensor w, int64_t w_head, int heads, int in, int width,
	                               bool transposed, struct dsa_error *err);
	/* Rotates r dims in place, at columns offset + a·step for each of `heads` heads: cos, sin (max_context, r/2)
	 * F32 on the device, row = position. Interleaved keeps its layout (pairs stay in place). */
	enum dsa_status (*rope)(struct dsa_backend *be, struct dsa_tensor x, const struct dsa_rows *rows, int heads,
	                        int step, int offset, int r, enum dsa_rope_style style, const float *cos,
	                        const float *sin, struct dsa_error *err);
	/* Per head a, out[:, a·out_step + out_offset … + cols) = x[:, a·x_step + x_offset … + cols). Same dtype. */
	enum dsa_status (*copy_heads)(struct dsa_backend *be, struct dsa_tensor out, int out_step, int out_offset,
	                              struct dsa_tensor x, int x_step, int x_offset, int heads, int cols,
	                              struct dsa_error *err);
	/* keys[key0[i] + pos[i]] = x[i] for every row (same cols; dtype of keys). */
	enum dsa_status (*store_keys)(struct dsa_backend *be, struct dsa_tensor keys, struct dsa_tensor x,
	                              const struct dsa_rows *rows, struct dsa_error *err);
	/* The indexer: I(t, s) = Σ_a weight(t, a) · relu(q(t, a)·k(s) · d^-1/2) for s ≤ t; selection (R, K) I32 =
	 * positions of the min(K, t+1) largest, ascending, padded with -1. Ties: the lower position wins, -0 equals +0;
	 * NaN is a fault. q (R, h·d), k (N, d), weight (R, h) F32 (already times h^-1/2); q and k are taken in
	 * `precision`, at most the one reserved for (ACT needs no more than any other). Memory bounded whatever T is.
	 */
	enum dsa_status (*select)(struct dsa_backend *be, int32_t *selection, int topk, struct dsa_tensor q,
	                          struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
	                          enum dsa_index_precision precision, const struct dsa_rows *rows,
	                          struct dsa_error *err);
	/* Absorbed multi-head latent attention over the selected positions: for head a, logit(s) = q_a·key(s) · scale
	 * with q (R, H·(c + r)) act and keys (N, c + r) act, softmax over the selection, out (R, H·c) act = Σ p ·
	 * key(s)[0 … c). */
	enum dsa_status (*attention)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
	                             struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent,
	                             int r, float scale, const struct dsa_rows *rows, struct dsa_error *err);
	/* out (R, m) act = silu(gate) · up, gate_up (R, 2m): gate columns first. */
	enum dsa_status (*silu_mul)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor gate_up,
	                            struct dsa_error *err);
	/* logits (R, E) F32, correction (1, E) F32 → ids (R, chosen) I32 and weights (R, chosen) F32, by descending
	 * choice score; ties to the lower expert. model.md, Feed-forward. */
	enum dsa_status (*route)(struct dsa_backend *be, int32_t *ids, float *weights, struct dsa_tensor logits,
	                         struct dsa_tensor correction, const struct dsa_router *router, struct dsa_error *err);
	/* out (R, D) F32 += Σ_j weights[j] · expert(ids[j])(x), j in the order of ids. x (R, D) act. */
	enum dsa_status (*experts)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                           const int32_t *ids, const float *weights, int chosen,
	                           const struct dsa_experts *experts, struct dsa_error *err);
	/* out row i = x row index[i] (I32, device). Same dtype and cols. */
	enum dsa_status (*gather)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                          const int32_t *index, struct dsa_error *err);
	/* Exact streamed comparison over the vocabulary: base (M, D) and `count` candidates (M, D) each, all act after
	 * the final norm; head (V, D); target (M) I32. figures (count, M) on the HOST, filled on return (waits). The
	 * base's logits are computed once for all candidates; nothing of size M·V is kept. */
	enum dsa_status (*compare)(struct dsa_backend *be, struct dsa_row_figures *figures, struct dsa_tensor base,
	                           const struct dsa_tensor *candidates, int count, struct dsa_tensor head,
	                           const int32_t *target, struct dsa_error *err);
	/* logits (M, V) F32 = x · headᵀ: only for inspection and tests. */
	enum dsa_status (*logits)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
	                          struct dsa_tensor head, struct dsa_error *err);
	/* counts[i·layers + j] (HOST, int64, += ) Σ over the rows of |S_i ∩ S_j| for j ≥ i: selections[l] (M, K) I32
	 * ascending on the device. */
	enum dsa_status (*overlap)(struct dsa_backend *be, int64_t *counts, const int32_t *const *selections,
	                           int layers, int topk, int64_t rows, struct dsa_error *err);
	/* Bytes of device memory that are free and that there are in all. */
	enum dsa_status (*memory)(struct dsa_backend *be, size_t *free, size_t *total, struct dsa_error *err);
	/* Scratch that reserve takes; pure. */
	size_t (*scratch_bytes)(const struct dsa_backend *be, const struct dsa_backend_limits *limits);
	/* Behind dsa_backend_reserve and dsa_backend_close. */
	enum dsa_status (*reserve)(struct dsa_backend *be, const struct dsa_backend_limits *limits,
	                           struct dsa_error *err);
	void (*close)(struct dsa_backend *be);
};

struct dsa_backend {
	const struct dsa_ops *ops;
	enum dsa_dtype act;    /* activations between products */
	enum dsa_dtype weight; /* weights of products */
	int tile;              /* rows that a forward pass takes through a layer's operators together */
	int pass_tokens;       /* tokens of a pass that keep the device busy */
	char name[96];         /* "cpu: 2 threads, BLIS 0.9.0", "cuda:0: NVIDIA H100 80GB HBM3" */
	char address[16];      /* on the bus, "0000:1b:00.0": of one machine's GPUs no two have the same; "": a CPU */
	const struct dsa_log *log;
};

struct dsa_backend_options {
	const char *device;  /* "auto", "cpu", "cuda", "cuda:1" */
	int instance;        /* "auto", "cuda": which of the GPUs, counted round; 0: the first */
	int threads;         /* ≤ 0: all */
	uint64_t gpu_memory; /* bytes of device memory that may be taken, 0: all that is free */
	const struct dsa_log *log;
};

/* The one place that knows which backends this program was built with. DSA_E_DEVICE, saying what is there, otherwise.
 */
DSA_CHECKED enum dsa_status dsa_backend_open(struct dsa_backend **out, const struct dsa_backend_options *options,
                                             struct dsa_error *err);
/* Takes the scratch that calls within `limits` need. Once, before the first operator. */
DSA_CHECKED enum dsa_status dsa_backend_reserve(struct dsa_backend *be, const struct dsa_backend_limits *limits,
                                                struct dsa_error *err);
void dsa_backend_close(struct dsa_backend *be);

/* src/backend/cuda.c, in programs built with CUDA. index < 0: the first device. DSA_E_DEVICE where there is none of the
 * right kind. */
DSA_CHECKED enum dsa_status dsa_cuda_open(struct dsa_backend **out, int index,
                                          const struct dsa_backend_options *options, struct dsa_error *err);
/* src/backend/cpu.c */
DSA_CHECKED enum dsa_status dsa_cpu_open(struct dsa_backend **out, const struct dsa_backend_options *options,
                                         struct dsa_error *err);

/* Is the calling thread inside a matrix product of the CPU's library? BLIS can only abort() when it finds no memory for
 * its buffers; a handler of SIGABRT tells that end from a programming mistake by this. Async-signal-safe. */
bool dsa_backend_in_product(void);

#endif
