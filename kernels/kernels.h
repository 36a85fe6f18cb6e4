/* kernels.h: the launchers of the CUDA kernels, one .cu per operator.
 *
 * A launcher checks nothing but what its kernel cannot do without (asserts), queues its work on `stream`, and returns
 * cudaGetLastError(). It never allocates, waits, prints or exits. Shapes are those of the operator of the same name in
 * dsa/backend.h; every pointer is device memory unless said. act is BF16, the residual stream and scores F32.
 *
 * No result depends on which other rows share a call: a row is reduced in an order that only its own content decides,
 * and nothing floating is added atomically. Faults go to struct kernel_fault, by integer atomics. */
#ifndef DSA_KERNELS_H
#define DSA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "dsa/backend.h"

/* On the device, one per backend; all bits set: no fault. Written by atomicMin, so the first place is kept. */
struct kernel_fault {
	unsigned long long nan_score;  /* key row of the row's own position, of the first row with a NaN index score */
	unsigned long long bad_router; /* first row of a call with a router score that is not finite */
	unsigned long long not_finite; /* first element (row · cols + col) of a weight that is not finite */
};

/* rows.cu ------------------------------------------------------------------------------------------------------- */

/* out (R, D) F32, table (V, D) BF16. */
cudaError_t kernel_embed(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                         const struct dsa_rows *rows, uint64_t seed);
/* Per head, out[:, a·out_step + out_offset …] = x[:, a·x_step + x_offset …], cols of 2- or 4-byte elements. */
cudaError_t kernel_copy_heads(cudaStream_t stream, struct dsa_tensor out, int out_step, int out_offset,
                              struct dsa_tensor x, int x_step, int x_offset, int heads, int cols);
cudaError_t kernel_store_keys(cudaStream_t stream, struct dsa_tensor keys, struct dsa_tensor x,
                              const struct dsa_rows *rows);
cudaError_t kernel_gather(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index);

/* norm.cu: x F32 or BF16, out F32 or BF16; weight, bias F32. */
cudaError_t kernel_rmsnorm(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor weight,
                           float eps);
cudaError_t kernel_layernorm(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor weight,
                             struct dsa_tensor bias, float eps);

/* rope.cu: x BF16 (or F32), in place. */
cudaError_t kernel_rope(cudaStream_t stream, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                        int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin);

/* silu_mul.cu: gate_up and out BF16 (or F32). */
cudaError_t kernel_silu_mul(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor gate_up);

/* convert.cu ---------------------------------------------------------------------------------------------------- */

/* to (F32 or BF16, contiguous) = number · scale of its block in float32, rounded once. from (rows, cols) F8_E4M3,
 * contiguous; scales (…, ⌈cols / block_cols⌉) F32, whose first row belongs to row -first of to. fault->not_finite as
 * below.
 */
cudaError_t kernel_convert_fp8(cudaStream_t stream, struct dsa_tensor to, const void *from, const float *scales,
                               int block_rows, int block_cols, int first, struct kernel_fault *fault);
/* to (F32 or BF16, contiguous) = from (to.rows · to.cols elements of `stored`: F32, F16, BF16), rounded to
 * nearest even. fault->not_finite: the first element that is not finite. */
cudaError_t kernel_convert(cudaStream_t stream, struct dsa_tensor to, const void *from, enum dsa_dtype stored,
                           struct kernel_fault *fault);
/* t (F32, contiguous) *= factor. */
cudaError_t kernel_scale(cudaStream_t stream, struct dsa_tensor t, float factor);
/* pieces (3, N · M) BF16 with w = Σ pieces to 2^-24 of each element: w (N, M) F32. A product of BF16 rows with the
 * three pieces is a product with w. */
cudaError_t kernel_split(cudaStream_t stream, void *pieces, struct dsa_tensor w);

/* linear.cu: products of shapes that the tensor-core library does not take (odd widths, unaligned rows). ---------- */

/* Per head a of `heads`: out[:, a·out_head …] = (+= if accumulate) x[:, a·x_head …) · W_aᵀ + bias; W_a (N, M) at
 * w + a·w_head elements, element (n, m) at n·w_row + m·w_col. x, w BF16 or F32; out BF16 or F32; float accumulation in
 * ascending m. bias (1, N) F32 or NULL. */
struct kernel_linear {
	struct dsa_tensor out, x;
	const void *w;
	enum dsa_dtype w_dtype;
	int64_t w_row, w_col, w_head;
	int heads, out_head, x_head;
	int in, width; /* M, N */
	const float *bias;
	bool accumulate;
};
cudaError_t kernel_linear(cudaStream_t stream, const struct kernel_linear *what);
/* x (R, N) += bias (1, N), or x = x + bias; x F32 or BF16. */
cudaError_t kernel_add_bias(cudaStream_t stream, struct dsa_tensor x, const float *bias);

/* route.cu ------------------------------------------------------------------------------------------------------ */

cudaError_t kernel_route(cudaStream_t stream, int32_t *ids, float *weights, struct dsa_tensor logits,
                         struct dsa_tensor correction, const struct dsa_router *router, struct kernel_fault *fault);

/* experts.cu: pairs (row, n-th expert of the row) = row · chosen + n, sorted by expert, then by pair. -------------- */

/* starts (E + 1): first sorted place of each expert; sorted (pairs): pair at each place; places (pairs): its inverse.
 */
cudaError_t kernel_sort_pairs(cudaStream_t stream, int32_t *starts, int32_t *sorted, int32_t *places,
                              const int32_t *ids, int64_t pairs, int experts);
/* out row i = x row sorted[i] / chosen. BF16. */
cudaError_t kernel_permute(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x, const int32_t *sorted,
                           int chosen);
/* out (R, D) F32 += Σ_n weights[row, n] · parts[places[row · chosen + n]], n ascending. parts F32 or BF16. */
cudaError_t kernel_combine(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor parts, const int32_t *places,
                           const float *weights, int chosen);

/* index_rows.cu ------------------------------------------------------------------------------------------------- */

/* Rows of queries (heads of dim) or keys (one head) in FP8: out (R, heads·dim) BF16 the F8_E4M3 numbers, scaled (R,
 * heads) their scales times weight (R, heads) F32, or the scales alone where weight.data is NULL. dim a power of two.
 */
cudaError_t kernel_index_rows(cudaStream_t stream, void *out, float *scaled, struct dsa_tensor x,
                              struct dsa_tensor weight, int heads, int dim, bool ue8m0);

/* index_scores.cu ----------------------------------------------------------------------------------------------- */

/* scores (R, stride) F32: scores[i, s] = Σ_a weight(i, a) · relu(q(i, a)·k(key0[i] + s) · d^-1/2) for s in
 * [0, pos[i]]; what lies behind pos[i] is undefined. q (R, h·d) BF16, k (N, d) BF16, weight (R, h) F32. key_scales:
 * NULL, or (N and KERNEL_KEY_ROOM more, which mean nothing) F32 that the scores of each key are multiplied by. */
enum { KERNEL_KEY_ROOM = 64 };
cudaError_t kernel_index_scores(cudaStream_t stream, float *scores, int64_t stride, struct dsa_tensor q,
                                struct dsa_tensor k, const float *key_scales, struct dsa_tensor weight, int heads,
                                int dim, const struct dsa_rows *rows);

/* topk.cu ------------------------------------------------------------------------------------------------------- */

/* selection (R, K) of scores (R, stride) over [0, pos[i]]: backend.h, select. Any context up to 2^20, K ≤ 4096. */
cudaError_t kernel_topk(cudaStream_t stream, int32_t *selection, int topk, const float *scores, int64_t stride,
                        const struct dsa_rows *rows, struct kernel_fault *fault);

/* sparse_attention.cu ------------------------------------------------------------------------------------------- */

cudaError_t kernel_sparse_attention(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor q,
                                    struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent,
                                    int r, float scale, const struct dsa_rows *rows);

/* compare.cu ---------------------------------------------------------------------------------------------------- */

/* Of each row of logits (M, V) F32: maximum, its lowest place, Σ e^(logit - max), whether all are finite. */
struct kernel_row_stats {
	float max;
	int32_t arg_max;
	int32_t finite;
	int32_t reserved;
	double sum, lse;
};
cudaError_t kernel_row_stats(cudaStream_t stream, struct kernel_row_stats *stats, struct dsa_tensor logits);
/* figures (M) of candidate logits against base logits, both (M, V) F32 (backend.h, compare). */
cudaError_t kernel_compare(cudaStream_t stream, struct dsa_row_figures *figures, struct dsa_tensor base,
                           const struct kernel_row_stats *base_stats, struct dsa_tensor logits, const int32_t *target);

/* overlap.cu ---------------------------------------------------------------------------------------------------- */

/* counts (layers, layers) += as in backend.h; selections: (layers) device pointers, in device memory. positions below
 * context; layers up to 600, K below 65536. */
cudaError_t kernel_overlap(cudaStream_t stream, unsigned long long *counts, const int32_t *const *selections,
                           int layers, int topk, int64_t rows, int context);

#ifdef __cplusplus
}
#endif

#endif
