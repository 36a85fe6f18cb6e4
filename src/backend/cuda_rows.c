/* Rows that are looked up and moved: embeddings, columns of heads, keys, gathers. */
#include "cuda.h"

enum dsa_status cuda_embed(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                           const struct dsa_rows *rows, uint64_t seed, struct dsa_error *err)
{
	assert(out.dtype == DSA_F32 && table.dtype == DSA_BF16 && out.cols == table.cols && out.rows == rows->count);
	return cuda_check(kernel_embed(cuda_of(be)->stream, out, table, ids, rows, seed), "looking up embeddings", err);
}

enum dsa_status cuda_copy_heads(struct dsa_backend *be, struct dsa_tensor out, int out_step, int out_offset,
                                struct dsa_tensor x, int x_step, int x_offset, int heads, int cols,
                                struct dsa_error *err)
{
	assert(out.dtype == x.dtype && (x.dtype == DSA_BF16 || x.dtype == DSA_F32));
	assert(out.rows == x.rows && heads > 0 && cols >= 0 && out_offset >= 0 && x_offset >= 0);
	assert((int64_t)(heads - 1) * out_step + out_offset + cols <= out.cols);
	assert((int64_t)(heads - 1) * x_step + x_offset + cols <= x.cols);
	return cuda_check(
	    kernel_copy_heads(cuda_of(be)->stream, out, out_step, out_offset, x, x_step, x_offset, heads, cols),
	    "copying columns of heads", err);
}

enum dsa_status cuda_store_keys(struct dsa_backend *be, struct dsa_tensor keys, struct dsa_tensor x,
                                const struct dsa_rows *rows, struct dsa_error *err)
{
	assert(keys.dtype == x.dtype && (x.dtype == DSA_BF16 || x.dtype == DSA_F32));
	assert(keys.cols == x.cols && x.rows == rows->count);
	return cuda_check(kernel_store_keys(cuda_of(be)->stream, keys, x, rows), "storing keys", err);
}

enum dsa_status cuda_gather(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index,
                            struct dsa_error *err)
{
	assert(out.dtype == x.dtype && out.cols == x.cols);
	assert(x.dtype == DSA_BF16 || x.dtype == DSA_F16 || x.dtype == DSA_F32 || x.dtype == DSA_I32);
	return cuda_check(kernel_gather(cuda_of(be)->stream, out, x, index), "gathering rows", err);
}
