/* element.cuh: single elements of the types that tensors hold, as floats; rounded to nearest even on the way back. */
#ifndef DSA_KERNELS_ELEMENT_CUH
#define DSA_KERNELS_ELEMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ __forceinline__ float widen(float x)
{
	return x;
}

__device__ __forceinline__ float widen(__half x)
{
	return __half2float(x);
}

__device__ __forceinline__ float widen(__nv_bfloat16 x)
{
	return __bfloat162float(x);
}

__device__ __forceinline__ void narrow(float *to, float x)
{
	*to = x;
}

__device__ __forceinline__ void narrow(__nv_bfloat16 *to, float x)
{
	*to = __float2bfloat16_rn(x);
}

#endif
