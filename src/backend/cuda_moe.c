/* The feed-forward's own operators but for the experts: gated activation and router. */
#include "cuda.h"

enum dsa_status cuda_silu_mul(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor gate_up,
                              struct dsa_error *err)
{
	assert(out.dtype == DSA_BF16 || out.dtype == DSA_F32);
	assert(gate_up.dtype == DSA_BF16 || gate_up.dtype == DSA_F32);
	assert(out.rows == gate_up.rows && gate_up.cols == 2 * out.cols);
	return cuda_check(kernel_silu_mul(cuda_of(be)->stream, out, gate_up), "gated activation", err);
}

enum dsa_status cuda_route(struct dsa_backend *be, int32_t *ids, float *weights, struct dsa_tensor logits,
                           struct dsa_tensor correction, const struct dsa_router *router, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	assert(logits.dtype == DSA_F32 && correction.dtype == DSA_F32);
	assert(logits.cols == router->experts && correction.cols == router->experts);
	assert(router->groups > 0 && router->experts % router->groups == 0);
	assert(router->chosen > 0 && router->chosen <= router->experts / router->groups * router->chosen_groups);
	return cuda_check(kernel_route(cuda->stream, ids, weights, logits, correction, router, cuda->fault),
	                  "routing tokens", err);
}
