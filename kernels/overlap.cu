/* overlap.cu: how many positions the selections of two layers share.
 *
 *   counts (L, L) u64: counts[i, j] += Σ_rows |S_i ∩ S_j| for j ≥ i; S_l (R, K) I32 ascending, padded with -1
 *
 * A block takes eight layers i and a few rows. Shared memory holds a byte for each position, bit b of it set if layer
 * i0 + b selects the position; a warp runs through one S_j, looks its positions up, and so counts against eight layers
 * at once: the bits of a byte are spread over two words of four 8-bit counters. Contexts of more than 208 K positions
 * are taken in windows. The counts of a block are kept in shared memory until its rows are done.
 *
 * Work per row: about L² / 16 · K look-ups, and L / 8 · K bits set. Bytes: blocks of the same rows run at the same
 * time, so that S comes from memory about once (4 L K per row) and from L2 about L / 16 times.
 * Measured (H100 80GB HBM3, 2026-11-26), L 78, K 2048, 4096 rows: 1.2 µs per row at a context of 32 K, 1.9 at 128 K and
 * 200 K, 6.3 at 1 M.
 *
 * Determinism: integers only. */
#include <assert.h>

#include "kernels.h"

namespace
{

enum {
	LAYERS = 8,              /* of a block: bits of a byte */
	WINDOW = 208 * 1024,     /* bytes of the map at most */
	MOST_SHARED = 227 << 10, /* of a block */
	MOST_ROWS = 8,           /* of a block */
	FLUSH = 248              /* look-ups of a lane before its 8-bit counters could run over */
};

__device__ __forceinline__ void add_bits(unsigned &low, unsigned &high, unsigned byte)
{
	low += (byte & 15u) * 0x00204081u & 0x01010101u;
	high += (byte >> 4) * 0x00204081u & 0x01010101u;
}

struct lookup {
	const unsigned char *map;
	int first;
	unsigned size;

	__device__ __forceinline__ void count(unsigned &low, unsigned &high, int position) const
	{
		const unsigned at = (unsigned)(position - first); /* -1 lies far outside, as all before the window */
		if (at < size)
			add_bits(low, high, map[at]);
	}
};

/* Sums of the lanes' 8-bit counters; lane b < 8 gets that of bit b. */
__device__ __forceinline__ unsigned warp_counts(unsigned low, unsigned high, int lane)
{
	const unsigned even = 0x00ff00ffu;
	const unsigned a = __reduce_add_sync(~0u, low & even), b = __reduce_add_sync(~0u, low >> 8 & even);
	const unsigned c = __reduce_add_sync(~0u, high & even), d = __reduce_add_sync(~0u, high >> 8 & even);
	const unsigned pair = lane & 4 ? (lane & 1 ? d : c) : (lane & 1 ? b : a);
	return lane & 2 ? pair >> 16 : pair & 0xffffu;
}

/* Lane b < 8: hits of the selection in layer i0 + b. */
__device__ __forceinline__ unsigned count_selection(const lookup &in, const int32_t *selection, int topk, int lane)
{
	unsigned total = 0;
	if (topk % 4 == 0 && (uintptr_t)selection % 16 == 0) {
		const int4 *four = (const int4 *)selection;
		for (int begin = 0; begin < topk / 4; begin += FLUSH / 4 * 32) {
			const int end = min(topk / 4, begin + FLUSH / 4 * 32);
			unsigned low = 0, high = 0;
#pragma unroll 4
			for (int n = begin + lane; n < end; n += 32) {
				const int4 p = four[n];
				in.count(low, high, p.x);
				in.count(low, high, p.y);
				in.count(low, high, p.z);
				in.count(low, high, p.w);
			}
			total += warp_counts(low, high, lane);
		}
		return total;
	}
	for (int begin = 0; begin < topk; begin += FLUSH * 32) {
		const int end = min(topk, begin + FLUSH * 32);
		unsigned low = 0, high = 0;
		for (int n = begin + lane; n < end; n += 32)
			in.count(low, high, selection[n]);
		total += warp_counts(low, high, lane);
	}
	return total;
}

__global__ void __launch_bounds__(1024)
    overlap(unsigned long long *counts, const int32_t *const *selections, int layers, int topk, int64_t rows,
            int block_rows, int context, int window)
{
	extern __shared__ uint4 shared[];
	unsigned *map = (unsigned *)shared, *count = map + window / 4; /* count: [layers][LAYERS] */
	const int i0 = (int)blockIdx.x * LAYERS, owned = min(LAYERS, layers - i0);
	const int thread = (int)threadIdx.x, threads = (int)blockDim.x, lane = thread % 32;
	const int64_t row0 = (int64_t)blockIdx.y * block_rows;
	const int64_t row1 = row0 + block_rows < rows ? row0 + block_rows : rows;

	for (int n = thread; n < layers * LAYERS; n += threads)
		count[n] = 0;
	for (int64_t row = row0; row < row1; row++) {
		for (int first = 0; first < context; first += window) {
			for (int n = thread; n < window / 16; n += threads)
				shared[n] = make_uint4(0, 0, 0, 0);
			__syncthreads();
#pragma unroll 4
			for (int n = thread; n < owned * topk; n += threads) {
				const int b = n / topk, position = selections[i0 + b][row * topk + n - b * topk];
				const unsigned at = (unsigned)(position - first);
				if (at < (unsigned)window)
					atomicOr(map + at / 4, 1u << (at % 4 * 8 + (unsigned)b));
			}
			__syncthreads();
			const lookup in = {(const unsigned char *)map, first, (unsigned)window};
			for (int j = i0 + thread / 32; j < layers; j += threads / 32) {
				const unsigned hits = count_selection(in, selections[j] + row * topk, topk, lane);
				if (lane < LAYERS)
					count[j * LAYERS + lane] += hits;
			}
			__syncthreads();
		}
	}
	for (int n = thread; n < layers * LAYERS; n += threads) {
		const int j = n / LAYERS, i = i0 + n % LAYERS;
		if (i <= j && count[n])
			atomicAdd(counts + (int64_t)i * layers + j, (unsigned long long)count[n]);
	}
}

} // namespace

cudaError_t kernel_overlap(cudaStream_t stream, unsigned long long *counts, const int32_t *const *selections,
                           int layers, int topk, int64_t rows, int context)
{
	if (!rows || !layers || !topk || !context)
		return cudaSuccess;
	const int window = context < WINDOW ? (context + 15) / 16 * 16 : WINDOW;
	const size_t bytes = (size_t)window + (size_t)layers * LAYERS * sizeof(unsigned);
	assert(bytes <= MOST_SHARED && topk < 65536);
	const cudaError_t code =
	    cudaFuncSetAttribute(overlap, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_SHARED);
	if (code)
		return code;
	/* A block that fills a multiprocessor's shared memory brings the threads for it too. */
	const int threads = bytes > MOST_SHARED / 2 ? 1024 : 512;
	int64_t block_rows = rows / 512;
	block_rows = block_rows < 1 ? 1 : block_rows < MOST_ROWS ? block_rows : (int64_t)MOST_ROWS;
	if ((rows + block_rows - 1) / block_rows > 65535)
		block_rows = (rows + 65534) / 65535;
	const dim3 grid((unsigned)((layers + LAYERS - 1) / LAYERS), (unsigned)((rows + block_rows - 1) / block_rows));
	overlap<<<grid, threads, bytes, stream>>>(counts, selections, layers, topk, rows, (int)block_rows, context,
	                                          window);
	return cudaGetLastError();
}
