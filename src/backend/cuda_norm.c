/* RMS norm and layer norm over rows. */
#include "cuda.h"

static bool is_row_type(struct dsa_tensor t)
{
	return t.dtype == DSA_F32 || t.dtype == DSA_BF16;
}

static bool is_weight_of(struct dsa_tensor weight, struct dsa_tensor x)
{
	return weight.dtype == DSA_F32 && weight.rows == 1 && weight.cols == x.cols;
}

enum dsa_status cuda_rmsnorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                             struct dsa_tensor weight, float eps, struct dsa_error *err)
{
	assert(is_row_type(out) && is_row_type(x) && is_weight_of(weight, x));
	assert(out.rows == x.rows && out.cols == x.cols && x.cols > 0);
	assert(out.data != x.data || (out.dtype == x.dtype && out.stride == x.stride));
	return cuda_check(kernel_rmsnorm(cuda_of(be)->stream, out, x, weight, eps), "RMS norm", err);
}

enum dsa_status cuda_layernorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                               struct dsa_tensor weight, struct dsa_tensor bias, float eps, struct dsa_error *err)
{
	assert(is_row_type(out) && is_row_type(x) && is_weight_of(weight, x) && is_weight_of(bias, x));
	assert(out.rows == x.rows && out.cols == x.cols && x.cols > 0);
	assert(out.data != x.data || (out.dtype == x.dtype && out.stride == x.stride));
	return cuda_check(kernel_layernorm(cuda_of(be)->stream, out, x, weight, bias, eps), "layer norm", err);
}
