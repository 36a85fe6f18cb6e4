/* gpu_cuda.h: what the tests need that launch kernels themselves, without the backend in between. */
#ifndef DSA_TESTS_GPU_CUDA_H
#define DSA_TESTS_GPU_CUDA_H

#include "gpu_fixture.h"

#include <cuda_runtime_api.h>

#include "kernels.h"

#define CUDA(call)                                                                                                     \
	do {                                                                                                           \
		cudaError_t code = (call);                                                                             \
		if (code)                                                                                              \
			fail_msg("%s: %s", #call, cudaGetErrorString(code));                                           \
	} while (0)

/* With the CPU in the GPU's place there is nothing to time. */
static inline bool gpu_is_there(const struct gpu *g)
{
	return g->be[GPU]->act == DSA_BF16;
}

#endif
