/* cuda.h: inside the CUDA backend. The host side of each operator, one file per noun; the kernels are in kernels/.
 *
 * One stream, one block of scratch on the device, taken by reserve() and used by one operator at a time in stream
 * order. Each operator states its scratch as a pure function of its sizes; reserve() asks with the limits, the operator
 * with the sizes at hand. Nothing is allocated after reserve() but what callers ask for through alloc.
 *
 * cuBLASLt is opened with dlopen when a device is: a program built with the CUDA backend starts and runs on the CPU
 * where neither driver nor libraries are. */
#ifndef DSA_BACKEND_CUDA_H
#define DSA_BACKEND_CUDA_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "dsa/backend.h"
#include "kernels.h"

/* cuda_library.c: the functions of cuBLASLt that are used, found at run time. */
struct cuda_library {
	void *handle;
	cublasStatus_t (*create)(cublasLtHandle_t *);
	cublasStatus_t (*destroy)(cublasLtHandle_t);
	size_t (*version)(void);
	const char *(*status_string)(cublasStatus_t);
	cublasStatus_t (*desc_init)(cublasLtMatmulDesc_t, size_t, cublasComputeType_t, cudaDataType_t);
	cublasStatus_t (*desc_set)(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *, size_t);
	cublasStatus_t (*layout_init)(cublasLtMatrixLayout_t, size_t, cudaDataType, uint64_t, uint64_t, int64_t);
	cublasStatus_t (*layout_set)(cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t, const void *, size_t);
	cublasStatus_t (*preference_init)(cublasLtMatmulPreference_t, size_t);
	cublasStatus_t (*preference_set)(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *,
	                                 size_t);
	cublasStatus_t (*heuristic)(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
	                            cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
	                            cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t *, int *);
	cublasStatus_t (*algo_get)(const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoConfigAttributes_t, void *, size_t,
	                           size_t *);
	cublasStatus_t (*matmul)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *,
	                         cublasLtMatrixLayout_t, const void *, cublasLtMatrixLayout_t, const void *,
	                         const void *, cublasLtMatrixLayout_t, void *, cublasLtMatrixLayout_t,
	                         const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t);
};
enum dsa_status cuda_library_open(struct cuda_library *library, struct dsa_error *err);
void cuda_library_close(struct cuda_library *library);

struct cuda_products; /* cuda_product.c: the chosen algorithm of every (N, K), by its kind */

enum {
	CUDA_STREAMS = 4,              /* besides the main one, for products of experts */
	CUDA_LANDING_BYTES = 16 << 20, /* on the device: stored weights on their way to their dtype */
	CUDA_MOST_EXPERTS = 1024
};

struct dsa_cuda {
	struct dsa_backend base;
	int device;
	cudaStream_t stream;
	cudaStream_t side[CUDA_STREAMS];
	cudaEvent_t fork, join[CUDA_STREAMS];
	cudaStream_t bus; /* of fetch */
	cudaEvent_t queued, fetch_begins, fetch_ends;
	struct cuda_library library;
	cublasLtHandle_t lt;
	struct cuda_products *products;
	char *landing; /* device */
	char *scratch; /* device */
	size_t scratch_bytes;
	struct dsa_backend_limits limits; /* as reserved */
	struct kernel_fault *fault;       /* device */
	int32_t *expert_starts;           /* (CUDA_MOST_EXPERTS + 1) pinned host */
	struct kernel_fault *fault_host;  /* pinned */
	size_t memory_limit;              /* --gpu-memory, 0: none */
	struct cuda_block *spare;         /* what stash_free took back, for the next stash_alloc */
	struct cuda_block *stashed;       /* … that callers hold */
	struct cuda_block *blocks;        /* what alloc gave and free has not taken back */
	size_t taken;                     /* bytes of all of it, scratch included */
};

static inline struct dsa_cuda *cuda_of(struct dsa_backend *be)
{
	return (struct dsa_cuda *)be;
}

static inline int64_t cuda_min(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A carver of scratch: hands out 256-byte aligned pieces in order. With base NULL it only counts. */
struct cuda_carve {
	char *base;
	size_t used;
};
void *cuda_carve(struct cuda_carve *carve, int64_t count, size_t size);
/* A carver over the backend's scratch; `bytes` must have been reserved. */
struct cuda_carve cuda_scratch(struct dsa_cuda *cuda, size_t bytes);

/* DSA_OK, or DSA_E_DEVICE with what was being done and CUDA's words; an error of the device stays one. */
enum dsa_status cuda_check(cudaError_t code, const char *doing, struct dsa_error *err);

/* Waits for the stream; the faults found since the last time, which are then forgotten. */
enum dsa_status cuda_take_fault(struct dsa_cuda *cuda, struct kernel_fault *out, struct dsa_error *err);

/* cuda_memory.c. Device memory that counts against --gpu-memory; DSA_E_MEMORY says what was asked for and is free. */
enum dsa_status cuda_take(struct dsa_cuda *cuda, size_t bytes, const char *what, void **out, struct dsa_error *err);
void cuda_give(struct dsa_cuda *cuda, void *memory);
void cuda_forget_spare(struct dsa_cuda *cuda);
enum dsa_status cuda_memory(struct dsa_backend *be, size_t *free, size_t *total, struct dsa_error *err);

/* cuda_product.c. A product whose result for a row does not depend on the other rows: one algorithm per (N, K, kind),
 * chosen at one canonical M, no split-K, no stream-K; what the library cannot take goes to kernel_linear.
 * out (R, N) = x (R, K) · w (N, K)ᵀ per batch b of `batches`, at out + b·out_step, x + b·x_step, w + b·w_step elements;
 * w_transposed: w is stored (K, N). accumulate: out += (out F32). x, w BF16; out BF16 or F32. */
struct cuda_product {
	struct dsa_tensor out, x, w;
	int64_t out_step, x_step, w_step;
	int batches;
	bool w_transposed, accumulate;
};
enum dsa_status cuda_product(struct dsa_cuda *cuda, const struct cuda_product *what, int stream /* 0: main */,
                             struct dsa_error *err);
/* Do the shapes, strides and addresses suit the library? Decides nothing that differs from row to row. */
bool cuda_product_fits(const struct cuda_product *what);
enum dsa_status cuda_products_open(struct dsa_cuda *cuda, struct dsa_error *err);
void cuda_products_close(struct dsa_cuda *cuda);

/* Scratch of each operator, pure functions of sizes. */
size_t cuda_linear_bytes(int width, int in); /* of F32 weights (N, M) */
size_t cuda_experts_bytes(int64_t rows, int hidden, int inner, int experts, int chosen);
size_t cuda_select_bytes(int64_t rows, int64_t keys, int context, int heads, int dim,
                         enum dsa_index_precision precision);
size_t cuda_compare_bytes(int64_t rows, int vocab);
size_t cuda_overlap_bytes(int layers);

/* The operators, as in backend.h. */
enum dsa_status cuda_alloc(struct dsa_backend *be, size_t bytes, const char *what, void **out, struct dsa_error *err);
void cuda_free(struct dsa_backend *be, void *memory);
void *cuda_stash_alloc(struct dsa_backend *be, size_t bytes);
void cuda_stash_free(struct dsa_backend *be, void *memory);
size_t cuda_stash_reserve(const struct dsa_backend_limits *limits, size_t total);
enum dsa_status cuda_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes,
                            struct dsa_error *err);
enum dsa_status cuda_download(struct dsa_backend *be, void *host, const void *device, size_t bytes,
                              struct dsa_error *err);
enum dsa_status cuda_copy(struct dsa_backend *be, void *to, const void *from, size_t bytes, struct dsa_error *err);
enum dsa_status cuda_load_weight(struct dsa_backend *be, struct dsa_tensor to, const void *host, enum dsa_dtype stored,
                                 struct dsa_error *err);
enum dsa_status cuda_load_fp8(struct dsa_backend *be, struct dsa_tensor to, const void *host,
                              const struct dsa_block_scales *scales, struct dsa_error *err);
void *cuda_pinned_alloc(struct dsa_backend *be, size_t bytes);
void cuda_pinned_free(struct dsa_backend *be, void *memory);
enum dsa_status cuda_fetch(struct dsa_backend *be, void *device, const void *pinned, size_t bytes,
                           struct dsa_error *err);
enum dsa_status cuda_fetched(struct dsa_backend *be, double *seconds, struct dsa_error *err);
enum dsa_status cuda_convert(struct dsa_backend *be, struct dsa_tensor to, const void *from, enum dsa_dtype stored,
                             const struct dsa_block_scales *scales, struct dsa_error *err);
enum dsa_status cuda_scale(struct dsa_backend *be, struct dsa_tensor t, float factor, struct dsa_error *err);
enum dsa_status cuda_embed(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                           const struct dsa_rows *rows, uint64_t seed, struct dsa_error *err);
enum dsa_status cuda_copy_heads(struct dsa_backend *be, struct dsa_tensor out, int out_step, int out_offset,
                                struct dsa_tensor x, int x_step, int x_offset, int heads, int cols,
                                struct dsa_error *err);
enum dsa_status cuda_store_keys(struct dsa_backend *be, struct dsa_tensor keys, struct dsa_tensor x,
                                const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cuda_gather(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index,
                            struct dsa_error *err);
enum dsa_status cuda_rmsnorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                             struct dsa_tensor weight, float eps, struct dsa_error *err);
enum dsa_status cuda_layernorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                               struct dsa_tensor weight, struct dsa_tensor bias, float eps, struct dsa_error *err);
enum dsa_status cuda_linear(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                            struct dsa_tensor bias, bool accumulate, struct dsa_error *err);
enum dsa_status cuda_head_linear(struct dsa_backend *be, struct dsa_tensor out, int out_head, struct dsa_tensor x,
                                 int x_head, struct dsa_tensor w, int64_t w_head, int heads, int in, int width,
                                 bool transposed, struct dsa_error *err);
enum dsa_status cuda_rope(struct dsa_backend *be, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                          int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin,
                          struct dsa_error *err);
enum dsa_status cuda_select(struct dsa_backend *be, int32_t *selection, int topk, struct dsa_tensor q,
                            struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
                            enum dsa_index_precision precision, const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cuda_attention(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
                               struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent, int r,
                               float scale, const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cuda_silu_mul(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor gate_up,
                              struct dsa_error *err);
enum dsa_status cuda_route(struct dsa_backend *be, int32_t *ids, float *weights, struct dsa_tensor logits,
                           struct dsa_tensor correction, const struct dsa_router *router, struct dsa_error *err);
enum dsa_status cuda_experts(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *ids,
                             const float *weights, int chosen, const struct dsa_experts *experts,
                             struct dsa_error *err);
enum dsa_status cuda_compare(struct dsa_backend *be, struct dsa_row_figures *figures, struct dsa_tensor base,
                             const struct dsa_tensor *candidates, int count, struct dsa_tensor head,
                             const int32_t *target, struct dsa_error *err);
enum dsa_status cuda_logits(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor head,
                            struct dsa_error *err);
enum dsa_status cuda_overlap(struct dsa_backend *be, int64_t *counts, const int32_t *const *selections, int layers,
                             int topk, int64_t rows, struct dsa_error *err);

#endif
