/* Rotary positions. */
#include "cuda.h"

enum dsa_status cuda_rope(struct dsa_backend *be, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                          int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin,
                          struct dsa_error *err)
{
	assert((x.dtype == DSA_BF16 || x.dtype == DSA_F32) && x.rows == rows->count);
	assert(r >= 0 && r % 2 == 0 && offset >= 0);
	assert(heads > 0 && (int64_t)(heads - 1) * step + offset + r <= x.cols);
	return cuda_check(kernel_rope(cuda_of(be)->stream, x, rows, heads, step, offset, r, style, cos, sin),
	                  "rotary positions", err);
}
