/* Multi-head latent attention over the selected positions: kernels/sparse_attention.cu. */
#include "cuda.h"

enum dsa_status cuda_attention(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
                               struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent, int r,
                               float scale, const struct dsa_rows *rows, struct dsa_error *err)
{
	int width = latent + r;
	assert(out.dtype == DSA_BF16 && q.dtype == DSA_BF16 && keys.dtype == DSA_BF16 && scale > 0 && topk > 0);
	assert(out.rows == rows->count && q.rows == rows->count && keys.cols == width);
	assert(out.cols == heads * latent && q.cols == heads * width);
	return cuda_check(
	    kernel_sparse_attention(cuda_of(be)->stream, out, q, keys, selection, topk, heads, latent, r, scale, rows),
	    "sparse attention", err);
}
