/* Conversions of weights.
 *
 * kernel_convert: to (rows · cols, F32 or BF16) = from (F32, F16 or BF16), rounded to nearest even. A grid of at most
 * BLOCKS blocks strides over the elements, one element a thread and step; element loads, so that `from` needs no
 * alignment beyond its element. Bytes: each element read and written once; what feeds it is a bus many times slower
 * than the memory. An element that is not finite, or is not any more once rounded, is recorded by an integer minimum,
 * so the first one is found whatever the order of the blocks.
 *
 * kernel_convert_fp8: to = number · scale, an exact product but for the rounding to float32, then rounded to nearest
 * even. A thread has one column and at most every BLOCKS-th row; 1 byte read and 2 or 4 written per element.
 *
 * kernel_scale: t · factor in place, one element a thread and step.
 *
 * kernel_split: w (N, M) F32 as three BF16 pieces, each the rounding of what the pieces before left: 8 + 8 + 8 bits of
 * significand. The differences are exact. 4 bytes read and 6 written per element. */
#include "kernels.h"

#include <assert.h>
#include <cuda_fp8.h>

#include "element.cuh"

enum { THREADS = 256, BLOCKS = 2048 };

template <typename To, typename From>
__global__ void __launch_bounds__(THREADS) convert(To *to, const From *from, int64_t count, struct kernel_fault *fault)
{
	for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < count; i += gridDim.x * (int64_t)THREADS) {
		To rounded;
		narrow(&rounded, widen(from[i]));
		to[i] = rounded;
		if (!isfinite(widen(rounded)))
			atomicMin(&fault->not_finite, (unsigned long long)i);
	}
}

static unsigned blocks_for(int64_t count)
{
	int64_t blocks = (count + THREADS - 1) / THREADS;
	return blocks < BLOCKS ? (unsigned)blocks : (unsigned)BLOCKS;
}

template <typename To>
static void launch(cudaStream_t stream, To *to, const void *from, int64_t count, enum dsa_dtype stored,
                   struct kernel_fault *fault)
{
	unsigned blocks = blocks_for(count);
	switch (stored) {
	case DSA_F32:
		convert<<<blocks, THREADS, 0, stream>>>(to, (const float *)from, count, fault);
		break;
	case DSA_F16:
		convert<<<blocks, THREADS, 0, stream>>>(to, (const __half *)from, count, fault);
		break;
	default:
		assert(stored == DSA_BF16);
		convert<<<blocks, THREADS, 0, stream>>>(to, (const __nv_bfloat16 *)from, count, fault);
	}
}

extern "C" cudaError_t kernel_convert(cudaStream_t stream, struct dsa_tensor to, const void *from,
                                      enum dsa_dtype stored, struct kernel_fault *fault)
{
	assert(to.stride == to.cols && (to.dtype == DSA_F32 || to.dtype == DSA_BF16));
	int64_t count = to.rows * to.cols;
	if (count == 0)
		return cudaSuccess;
	if (to.dtype == DSA_F32)
		launch(stream, (float *)to.data, from, count, stored, fault);
	else
		launch(stream, (__nv_bfloat16 *)to.data, from, count, stored, fault);
	return cudaGetLastError();
}

template <typename To>
__global__ void __launch_bounds__(THREADS)
    convert_fp8(To *to, const __nv_fp8_e4m3 *from, const float *scales, int64_t rows, int cols, int block_rows,
                int block_cols, int first, struct kernel_fault *fault)
{
	int across = (cols + block_cols - 1) / block_cols, col = (int)(blockIdx.x * THREADS + threadIdx.x);
	if (col >= cols)
		return;
	scales += col / block_cols;
	for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
		To rounded;
		narrow(&rounded, (float)from[row * cols + col] * scales[(row + first) / block_rows * across]);
		to[row * cols + col] = rounded;
		if (!isfinite(widen(rounded)))
			atomicMin(&fault->not_finite, (unsigned long long)(row * cols + col));
	}
}

extern "C" cudaError_t kernel_convert_fp8(cudaStream_t stream, struct dsa_tensor to, const void *from,
                                          const float *scales, int block_rows, int block_cols, int first,
                                          struct kernel_fault *fault)
{
	assert(to.stride == to.cols && (to.dtype == DSA_F32 || to.dtype == DSA_BF16));
	assert(block_rows > 0 && block_cols > 0 && first >= 0 && first < block_rows);
	if (to.rows == 0 || to.cols == 0)
		return cudaSuccess;
	dim3 grid((unsigned)((to.cols + THREADS - 1) / THREADS), blocks_for(to.rows * THREADS));
	if (to.dtype == DSA_F32)
		convert_fp8<<<grid, THREADS, 0, stream>>>((float *)to.data, (const __nv_fp8_e4m3 *)from, scales,
		                                          to.rows, to.cols, block_rows, block_cols, first, fault);
	else
		convert_fp8<<<grid, THREADS, 0, stream>>>((__nv_bfloat16 *)to.data, (const __nv_fp8_e4m3 *)from, scales,
		                                          to.rows, to.cols, block_rows, block_cols, first, fault);
	return cudaGetLastError();
}

static __global__ void __launch_bounds__(THREADS) scale(float *t, int64_t count, float factor)
{
	for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < count; i += gridDim.x * (int64_t)THREADS)
		t[i] *= factor;
}

extern "C" cudaError_t kernel_scale(cudaStream_t stream, struct dsa_tensor t, float factor)
{
	assert(t.dtype == DSA_F32 && t.stride == t.cols);
	int64_t count = t.rows * t.cols;
	if (count == 0)
		return cudaSuccess;
	scale<<<blocks_for(count), THREADS, 0, stream>>>((float *)t.data, count, factor);
	return cudaGetLastError();
}

static __global__ void __launch_bounds__(THREADS)
    split(__nv_bfloat16 *pieces, const float *w, int64_t count, int cols, int64_t stride)
{
	for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < count; i += gridDim.x * (int64_t)THREADS) {
		int64_t row = i / cols;
		float left = w[row * stride + (i - row * cols)];
		for (int piece = 0; piece < 3; piece++) {
			__nv_bfloat16 part = __float2bfloat16_rn(left);
			pieces[piece * count + i] = part;
			left -= __bfloat162float(part);
		}
	}
}

extern "C" cudaError_t kernel_split(cudaStream_t stream, void *pieces, struct dsa_tensor w)
{
	assert(w.dtype == DSA_F32);
	int64_t count = w.rows * w.cols;
	if (count == 0)
		return cudaSuccess;
	split<<<blocks_for(count), THREADS, 0, stream>>>((__nv_bfloat16 *)pieces, (const float *)w.data, count, w.cols,
	                                                 w.stride);
	return cudaGetLastError();
}
