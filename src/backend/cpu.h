/* cpu.h: inside the CPU backend. One file per noun; the operator table is in cpu.c.
 *
 * Every operator runs to its end before it returns. Rows are dealt to threads; a row is computed by one thread, in an
 * order that only its own content decides, so neither the number of threads nor the other rows of the call change its
 * bits. Products are BLIS with its small-matrix path off: measured, and tested here, its rows and columns are then
 * independent of how many share a call.
 *
 * Scratch is one block, taken by reserve() and used by one operator at a time. Each operator states its need as a
 * function of its sizes; reserve() asks with the limits, the operator with the sizes at hand. */
#ifndef DSA_BACKEND_CPU_H
#define DSA_BACKEND_CPU_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/backend.h"

enum { CPU_TILE = 2048 };

struct cpu_fault {
	enum dsa_status code; /* DSA_OK: none */
	char text[160];
};

struct dsa_cpu {
	struct dsa_backend base;
	int threads;
	char *scratch;
	size_t scratch_bytes;
	int max_context;        /* as reserved */
	struct cpu_fault fault; /* the first since the last wait */
	double fetch_seconds;   /* of the last fetch */
};

static inline struct dsa_cpu *cpu_of(struct dsa_backend *be)
{
	return (struct dsa_cpu *)be;
}

static inline float *cpu_row(struct dsa_tensor t, int64_t row)
{
	return (float *)t.data + row * t.stride;
}

/* Shares of `count` rows for `threads`: rows [first(thread), first(thread + 1)). */
static inline int64_t cpu_first(int64_t count, int threads, int thread)
{
	return count / threads * thread + (count % threads < thread ? count % threads : thread);
}

static inline int64_t cpu_min(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A carver of scratch: hands out 64-byte aligned pieces in order. With base NULL it only counts. */
struct cpu_carve {
	char *base;
	size_t used;
};
void *cpu_carve(struct cpu_carve *carve, int64_t count, size_t size);
/* A carver over the backend's scratch; `bytes` must have been reserved. */
struct cpu_carve cpu_scratch(struct dsa_cpu *cpu, size_t bytes);

/* cpu_index_rows.c: a row x (dim) in that precision, as out (dim) times the scale that it returns. */
float cpu_index_row(float *out, const float *x, int dim, enum dsa_index_precision precision);

/* Records a fault unless one is waiting already. */
void cpu_fault_record(struct dsa_cpu *cpu, enum dsa_status code, const char *fmt, ...) DSA_PRINTF(3, 4);

/* Starts the threads of all parallel regions to come, or says why not. */
enum dsa_status cpu_start_threads(int threads, struct dsa_error *err);
/* out (m, n) = x (m, k) · w (k, n), += if accumulate, on the calling thread. Element (i, j) of w at i·w_row + j·w_col.
 */
void cpu_product(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w, int64_t w_row,
                 int64_t w_col, int64_t m, int n, int k, bool accumulate);
/* out (n) = silu(gate) · up. */
void cpu_silu_row(float *out, const float *gate, const float *up, int n);

size_t cpu_select_bytes(int64_t keys, int heads, int dim, int64_t context, enum dsa_index_precision precision,
                        int threads);
size_t cpu_attention_bytes(int width, int topk, int threads);
size_t cpu_route_bytes(int experts, int threads);
size_t cpu_experts_bytes(int64_t rows, int hidden, int inner, int experts, int chosen, int threads);
size_t cpu_compare_bytes(int vocab, int threads);
size_t cpu_overlap_bytes(int64_t context, int threads);

/* The operators, as in backend.h. */
enum dsa_status cpu_alloc(struct dsa_backend *be, size_t bytes, const char *what, void **out, struct dsa_error *err);
void cpu_free(struct dsa_backend *be, void *memory);
void *cpu_stash_alloc(struct dsa_backend *be, size_t bytes);
void cpu_stash_free(struct dsa_backend *be, void *memory);
enum dsa_status cpu_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes, struct dsa_error *err);
enum dsa_status cpu_download(struct dsa_backend *be, void *host, const void *device, size_t bytes,
                             struct dsa_error *err);
enum dsa_status cpu_copy(struct dsa_backend *be, void *to, const void *from, size_t bytes, struct dsa_error *err);
enum dsa_status cpu_memory(struct dsa_backend *be, size_t *free, size_t *total, struct dsa_error *err);
enum dsa_status cpu_load_weight(struct dsa_backend *be, struct dsa_tensor to, const void *host, enum dsa_dtype stored,
                                struct dsa_error *err);
enum dsa_status cpu_load_fp8(struct dsa_backend *be, struct dsa_tensor to, const void *host,
                             const struct dsa_block_scales *scales, struct dsa_error *err);
void *cpu_pinned_alloc(struct dsa_backend *be, size_t bytes);
void cpu_pinned_free(struct dsa_backend *be, void *memory);
enum dsa_status cpu_fetch(struct dsa_backend *be, void *device, const void *pinned, size_t bytes,
                          struct dsa_error *err);
enum dsa_status cpu_fetched(struct dsa_backend *be, double *seconds, struct dsa_error *err);
enum dsa_status cpu_convert(struct dsa_backend *be, struct dsa_tensor to, const void *from, enum dsa_dtype stored,
                            const struct dsa_block_scales *scales, struct dsa_error *err);
enum dsa_status cpu_scale(struct dsa_backend *be, struct dsa_tensor t, float factor, struct dsa_error *err);
enum dsa_status cpu_embed(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                          const struct dsa_rows *rows, uint64_t seed, struct dsa_error *err);
enum dsa_status cpu_copy_heads(struct dsa_backend *be, struct dsa_tensor out, int out_step, int out_offset,
                               struct dsa_tensor x, int x_step, int x_offset, int heads, int cols,
                               struct dsa_error *err);
enum dsa_status cpu_store_keys(struct dsa_backend *be, struct dsa_tensor keys, struct dsa_tensor x,
                               const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cpu_gather(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index,
                           struct dsa_error *err);
enum dsa_status cpu_rmsnorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                            struct dsa_tensor weight, float eps, struct dsa_error *err);
enum dsa_status cpu_layernorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                              struct dsa_tensor weight, struct dsa_tensor bias, float eps, struct dsa_error *err);
enum dsa_status cpu_linear(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                           struct dsa_tensor bias, bool accumulate, struct dsa_error *err);
enum dsa_status cpu_head_linear(struct dsa_backend *be, struct dsa_tensor out, int out_head, struct dsa_tensor x,
                                int x_head, struct dsa_tensor w, int64_t w_head, int heads, int in, int width,
                                bool transposed, struct dsa_error *err);
enum dsa_status cpu_rope(struct dsa_backend *be, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                         int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin,
                         struct dsa_error *err);
enum dsa_status cpu_select(struct dsa_backend *be, int32_t *selection, int topk, struct dsa_tensor q,
                           struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
                           enum dsa_index_precision precision, const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cpu_attention(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
                              struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent, int r,
                              float scale, const struct dsa_rows *rows, struct dsa_error *err);
enum dsa_status cpu_silu_mul(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor gate_up,
                             struct dsa_error *err);
enum dsa_status cpu_route(struct dsa_backend *be, int32_t *ids, float *weights, struct dsa_tensor logits,
                          struct dsa_tensor correction, const struct dsa_router *router, struct dsa_error *err);
enum dsa_status cpu_experts(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *ids,
                            const float *weights, int chosen, const struct dsa_experts *experts, struct dsa_error *err);
enum dsa_status cpu_compare(struct dsa_backend *be, struct dsa_row_figures *figures, struct dsa_tensor base,
                            const struct dsa_tensor *candidates, int count, struct dsa_tensor head,
                            const int32_t *target, struct dsa_error *err);
enum dsa_status cpu_logits(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor head,
                           struct dsa_error *err);
enum dsa_status cpu_overlap(struct dsa_backend *be, int64_t *counts, const int32_t *const *selections, int layers,
                            int topk, int64_t rows, struct dsa_error *err);

#endif
