/* index_rows.cu: the indexer's queries or keys rotated and quantised to FP8 (dsa/backend.h, dsa_index_precision).
 *
 *   y = x · H · d^-1/2,  s = max(|y|, 1e-4) / 448 (up to a power of two),  out = round(y / s),  scaled = weight · s
 *
 * x (R, h·d) BF16, out (R, h·d) BF16, in which every F8_E4M3 number is exact, weight and scaled (R, h) F32; keys have
 * one head and a weight of 1. d a power of two up to 4096.
 *
 * A warp has one row of d numbers in shared memory: log2 d rounds of sums and differences of two, a maximum over lanes.
 * Bytes: 2 read and 2 written per number; beside the scores of 64K keys the time is not to be seen (docs/kernels.md).
 *
 * Determinism: sums are made in the order of the rounds, a maximum in any; the CPU does the same, so codes and scales
 * of equal rows are equal to the bit. */
#include "kernels.h"

#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <math.h>

namespace
{

enum { MOST_DIM = 4096, SHARED_FLOATS = 8192, MOST_WARPS = 8 };

struct index_rows_args {
	__nv_bfloat16 *out;
	float *scaled;
	const __nv_bfloat16 *x;
	int64_t stride;
	const float *weight; /* NULL: 1 */
	int64_t weight_stride;
	int64_t units; /* R · h */
	int heads, dim;
	float norm;
	bool ue8m0;
};

/* The power of two at or above a positive number; what is not finite stays. */
__device__ __forceinline__ float power_above(float x)
{
	return isfinite(x) ? __uint_as_float((__float_as_uint(x) + 0x7fffffu) & 0xff800000u) : x;
}

__device__ __forceinline__ __nv_bfloat16 fp8_round(float x)
{
	__nv_fp8_storage_t code = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
	return __float2bfloat16_rn(__half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3))));
}

__global__ void __launch_bounds__(MOST_WARPS * 32) index_rows(const index_rows_args args)
{
	__shared__ float memory[SHARED_FLOATS];
	int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, dim = args.dim;
	int64_t unit = blockIdx.x * (int64_t)(blockDim.x / 32) + warp;
	if (unit >= args.units)
		return;
	int64_t row = unit / args.heads;
	int head = (int)(unit % args.heads);
	const __nv_bfloat16 *from = args.x + row * args.stride + (int64_t)head * dim;
	__nv_bfloat16 *to = args.out + unit * dim;
	float *y = memory + warp * dim;
	for (int i = lane; i < dim; i += 32)
		y[i] = __bfloat162float(from[i]);
	for (int half = 1; half < dim; half *= 2) {
		__syncwarp();
		for (int pair = lane; pair < dim / 2; pair += 32) {
			int j = (pair & ~(half - 1)) * 2 + (pair & (half - 1));
			float a = y[j], b = y[j + half];
			y[j] = a + b;
			y[j + half] = a - b;
		}
	}
	__syncwarp();
	/* A NaN that is passed over here is still one when it is rounded. */
	float most = 1e-4f;
	for (int i = lane; i < dim; i += 32) {
		y[i] *= args.norm;
		most = fmaxf(most, fabsf(y[i]));
	}
#pragma unroll
	for (int distance = 16; distance; distance /= 2)
		most = fmaxf(most, __shfl_xor_sync(~0U, most, distance));
	float scale = most / 448.0f;
	if (args.ue8m0)
		scale = power_above(scale);
	for (int i = lane; i < dim; i += 32)
		to[i] = fp8_round(y[i] / scale);
	if (lane == 0)
		args.scaled[unit] = args.weight ? args.weight[row * args.weight_stride + head] * scale : scale;
}

} // namespace

cudaError_t kernel_index_rows(cudaStream_t stream, void *out, float *scaled, struct dsa_tensor x,
                              struct dsa_tensor weight, int heads, int dim, bool ue8m0)
{
	assert(x.dtype == DSA_BF16 && x.cols == heads * dim && dim > 0 && dim <= MOST_DIM && !(dim & (dim - 1)));
	if (x.rows == 0)
		return cudaSuccess;
	index_rows_args args = {};
	args.out = (__nv_bfloat16 *)out;
	args.scaled = scaled;
	args.x = (const __nv_bfloat16 *)x.data;
	args.stride = x.stride;
	args.weight = (const float *)weight.data;
	args.weight_stride = weight.stride;
	args.units = x.rows * heads;
	args.heads = heads;
	args.dim = dim;
	args.norm = 1.0f / sqrtf((float)dim);
	args.ue8m0 = ue8m0;
	int warps = SHARED_FLOATS / dim < MOST_WARPS ? SHARED_FLOATS / dim : (int)MOST_WARPS;
	int64_t blocks = (args.units + warps - 1) / warps;
	index_rows<<<(unsigned)blocks, (unsigned)warps * 32, 0, stream>>>(args);
	return cudaGetLastError();
}
