/* The experts of a mixture: what lies around the products. A pair is (row, n-th expert of the row) = row · chosen + n.
 *
 * kernel_sort_pairs: a counting sort, stable. Block e of E finds the pairs of expert e: its 32 warps each take one run
 * of the pairs, count those of lower experts (the first place of e) and those of e, and after one scan over the warps
 * write theirs in order. E · pairs · 2 ids are read, from L1 and L2; nothing is shared between blocks, so one launch
 * and no scratch. Integers only.
 *
 * kernel_permute: out[i] = x[sorted[i] / chosen], one block per row, 16 bytes a thread where rows allow it. Each row
 * of out read and written once.
 *
 * kernel_combine: out[row] += Σ_n weights[row, n] · parts[places[row · chosen + n]], one block per row, 4 columns a
 * thread; the sum from n = 0 on, then added to out, so the order is the row's own. (chosen + 2) · D elements moved. */
#include "kernels.h"

#include <assert.h>

#include "element.cuh"

enum { WARP = 32, SORT_WARPS = 32, ROW_THREADS = 256, VECTOR_BYTES = 16, COLUMNS = 4 };
static const unsigned ALL_LANES = 0xffffffffu;

static __global__ void __launch_bounds__(SORT_WARPS *WARP)
    sort_pairs(int32_t *starts, int32_t *sorted, int32_t *places, const int32_t *ids, int pairs)
{
	__shared__ int lower_of[SORT_WARPS], own_of[SORT_WARPS];
	int expert = (int)blockIdx.x, warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
	int run = ((pairs + SORT_WARPS - 1) / SORT_WARPS + WARP - 1) / WARP * WARP;
	int64_t first = (int64_t)warp * run, end = first + run < pairs ? first + run : pairs;
	int lower = 0, own = 0;
#pragma unroll 4
	for (int64_t i = first + lane; i < end; i += WARP) {
		int id = ids[i];
		lower += id < expert;
		own += id == expert;
	}
	lower = __reduce_add_sync(ALL_LANES, lower);
	own = __reduce_add_sync(ALL_LANES, own);
	if (lane == 0) {
		lower_of[warp] = lower;
		own_of[warp] = own;
	}
	__syncthreads();
	int start = __reduce_add_sync(ALL_LANES, lower_of[lane]);
	int at = start + __reduce_add_sync(ALL_LANES, lane < warp ? own_of[lane] : 0);
	if (threadIdx.x == 0) {
		starts[expert] = start;
		if (expert == (int)gridDim.x - 1)
			starts[expert + 1] = pairs;
	}
#pragma unroll 4
	for (int64_t base = first; base < end; base += WARP) {
		int64_t pair = base + lane;
		bool mine = pair < end && ids[pair] == expert;
		unsigned mask = __ballot_sync(ALL_LANES, mine);
		if (mine) {
			int place = at + __popc(mask & ((1u << lane) - 1));
			sorted[place] = (int32_t)pair;
			places[pair] = place;
		}
		at += __popc(mask);
	}
}

extern "C" cudaError_t kernel_sort_pairs(cudaStream_t stream, int32_t *starts, int32_t *sorted, int32_t *places,
                                         const int32_t *ids, int64_t pairs, int experts)
{
	assert(experts > 0 && pairs >= 0 && pairs < INT32_MAX - SORT_WARPS * WARP);
	sort_pairs<<<(unsigned)experts, SORT_WARPS * WARP, 0, stream>>>(starts, sorted, places, ids, (int)pairs);
	return cudaGetLastError();
}

template <typename T>
__global__ void __launch_bounds__(ROW_THREADS)
    permute(T *out, int64_t out_stride, const T *x, int64_t x_stride, int cols, const int32_t *sorted, int chosen)
{
	T *to = out + blockIdx.x * out_stride;
	const T *from = x + sorted[blockIdx.x] / chosen * x_stride;
	for (int j = (int)threadIdx.x; j < cols; j += ROW_THREADS)
		to[j] = from[j];
}

static bool whole_vectors(struct dsa_tensor t)
{
	int64_t size = (int64_t)dsa_dtype_bytes(t.dtype);
	return (uintptr_t)t.data % VECTOR_BYTES == 0 && t.stride * size % VECTOR_BYTES == 0 &&
	       t.cols * size % VECTOR_BYTES == 0;
}

extern "C" cudaError_t kernel_permute(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x,
                                      const int32_t *sorted, int chosen)
{
	assert(out.dtype == DSA_BF16 && x.dtype == DSA_BF16 && out.cols == x.cols && chosen > 0);
	if (out.rows == 0)
		return cudaSuccess;
	if (whole_vectors(out) && whole_vectors(x)) {
		enum { IN_VECTOR = VECTOR_BYTES / 2 };
		permute<<<(unsigned)out.rows, ROW_THREADS, 0, stream>>>((uint4 *)out.data, out.stride / IN_VECTOR,
		                                                        (const uint4 *)x.data, x.stride / IN_VECTOR,
		                                                        out.cols / IN_VECTOR, sorted, chosen);
	} else {
		permute<<<(unsigned)out.rows, ROW_THREADS, 0, stream>>>(
		    (uint16_t *)out.data, out.stride, (const uint16_t *)x.data, x.stride, out.cols, sorted, chosen);
	}
	return cudaGetLastError();
}

static __device__ float4 load4(const float *x)
{
	return *(const float4 *)x;
}

static __device__ float4 load4(const __nv_bfloat16 *x)
{
	uint2 bits = *(const uint2 *)x;
	return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
	                   __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
}

template <typename T>
__global__ void __launch_bounds__(ROW_THREADS)
    combine4(float *out, int64_t out_stride, int cols, const T *parts, int64_t parts_stride, const int32_t *places,
             const float *weights, int chosen)
{
	float *to = out + blockIdx.x * out_stride;
	places += blockIdx.x * (int64_t)chosen;
	weights += blockIdx.x * (int64_t)chosen;
	for (int j = (int)threadIdx.x * COLUMNS; j < cols; j += ROW_THREADS * COLUMNS) {
		float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
		for (int n = 0; n < chosen; n++) {
			float4 part = load4(parts + places[n] * parts_stride + j);
			float weight = weights[n];
			sum.x = fmaf(weight, part.x, sum.x);
			sum.y = fmaf(weight, part.y, sum.y);
			sum.z = fmaf(weight, part.z, sum.z);
			sum.w = fmaf(weight, part.w, sum.w);
		}
		float4 value = *(const float4 *)(to + j);
		*(float4 *)(to + j) = make_float4(value.x + sum.x, value.y + sum.y, value.z + sum.z, value.w + sum.w);
	}
}

template <typename T>
__global__ void __launch_bounds__(ROW_THREADS)
    combine1(float *out, int64_t out_stride, int cols, const T *parts, int64_t parts_stride, const int32_t *places,
             const float *weights, int chosen)
{
	float *to = out + blockIdx.x * out_stride;
	places += blockIdx.x * (int64_t)chosen;
	weights += blockIdx.x * (int64_t)chosen;
	for (int j = (int)threadIdx.x; j < cols; j += ROW_THREADS) {
		float sum = 0;
		for (int n = 0; n < chosen; n++)
			sum = fmaf(weights[n], widen(parts[places[n] * parts_stride + j]), sum);
		to[j] += sum;
	}
}

template <typename T>
static void launch_combine(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor parts, const int32_t *places,
                           const float *weights, int chosen)
{
	bool four = out.cols % COLUMNS == 0 && out.stride % COLUMNS == 0 && parts.stride % COLUMNS == 0 &&
	            (uintptr_t)out.data % sizeof(float4) == 0 && (uintptr_t)parts.data % sizeof(float4) == 0;
	if (four)
		combine4<<<(unsigned)out.rows, ROW_THREADS, 0, stream>>>((float *)out.data, out.stride, out.cols,
		                                                         (const T *)parts.data, parts.stride, places,
		                                                         weights, chosen);
	else
		combine1<<<(unsigned)out.rows, ROW_THREADS, 0, stream>>>((float *)out.data, out.stride, out.cols,
		                                                         (const T *)parts.data, parts.stride, places,
		                                                         weights, chosen);
}

extern "C" cudaError_t kernel_combine(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor parts,
                                      const int32_t *places, const float *weights, int chosen)
{
	assert(out.dtype == DSA_F32 && parts.cols == out.cols && (parts.dtype == DSA_F32 || parts.dtype == DSA_BF16));
	if (out.rows == 0)
		return cudaSuccess;
	if (parts.dtype == DSA_F32)
		launch_combine<float>(stream, out, parts, places, weights, chosen);
	else
		launch_combine<__nv_bfloat16>(stream, out, parts, places, weights, chosen);
	return cudaGetLastError();
}
