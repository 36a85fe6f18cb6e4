/* attention_16.cuh: sparse attention for c and c + r multiples of 16 and c ≤ 512, on warp products.
 *
 * A block of 4 warps takes 8 heads of one row, 64 keys at a time. Both products have the 8 heads for their columns:
 * logits (64 keys, 8) = keys · qᵀ, 16 keys a warp, and out (c, 8) += keysᵀ · pᵀ, 16 columns of c at a time a warp.
 * Between them, through shared memory, a warp takes the softmax of 2 heads. A probability goes into the product as two
 * BF16 pieces, so that it counts to about 2^-17. Rows of keys and queries lie an odd number of 16-byte chunks apart:
 * the 8 rows of a matrix load are in different banks. */
#ifndef DSA_KERNELS_ATTENTION_16_CUH
#define DSA_KERNELS_ATTENTION_16_CUH

#include <math.h>

#include "attention_job.cuh"

namespace attention_16
{

using namespace attention;

constexpr int heads = 8, block = 64, warps = 4, threads = warps * 32;
constexpr int most_tiles = 512 / 16 / warps; /* of 16 columns of c, of a warp */
constexpr int p_pitch = block + 8, s_pitch = block + 4;

/* Shared memory, in bytes. */
struct layout {
	uint32_t pitch, queries, pieces, logits, factors, total; /* keys from 0 on */
	__host__ __device__ explicit layout(int width)
	{
		pitch = (uint32_t)width * 2 + 16;
		queries = block * pitch;
		pieces = queries + heads * pitch;
		logits = pieces + 2 * heads * p_pitch * 2;
		factors = logits + heads * s_pitch * 4;
		total = factors + heads * 4;
	}
};

__device__ __forceinline__ void load_matrices(uint32_t (&a)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
	             : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
	             : "r"(at)
	             : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&a)[4], uint32_t at)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
	             : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
	             : "r"(at)
	             : "memory");
}

/* d (16, 8) += a (16, 16) · b (16, 8) */
__device__ __forceinline__ void product(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
	asm volatile(
	    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
	    "{%0, %1, %2, %3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The row's selected keys first, first + 1, … ; zeros from `count` on. */
__device__ __forceinline__ void gather(const struct attention_job &job, const struct layout &l, uint32_t shared,
                                       int64_t row, int first, int count)
{
	const int32_t *selection = job.selection + row * job.topk + first;
	int32_t last = job.pos[row];
	int64_t key0 = job.key0[row];
	int chunks = job.width / 8;
	for (int n = (int)threadIdx.x; n < block * chunks; n += threads) {
		int i = n / chunks, chunk = n % chunks;
		int32_t at = i < count ? min(max(__ldg(selection + i), 0), last) : 0;
		copy_16(shared + (uint32_t)i * l.pitch + (uint32_t)chunk * 16,
		        job.keys + (key0 + at) * job.key_stride + chunk * 8, i < count);
	}
}

/* s[head][key] = scaled logits. */
__device__ __forceinline__ void logits(const struct attention_job &job, const struct layout &l, uint32_t shared,
                                       const unsigned char *memory, float *s)
{
	uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	uint32_t keys = shared + (warp * 16 + lane % 16) * l.pitch + lane / 16 * 16;
	const unsigned char *q = memory + l.queries + lane / 4 * l.pitch + lane % 4 * 4;
	float sum[4] = {};
	for (int k = 0; k < job.width / 16; k++) {
		uint32_t a[4];
		load_matrices(a, keys + (uint32_t)k * 32);
		product(sum, a, *(const uint32_t *)(q + k * 32), *(const uint32_t *)(q + k * 32 + 16));
	}
	s += lane % 4 * 2 * s_pitch + warp * 16 + lane / 4;
	s[0] = sum[0] * job.scale;
	s[s_pitch] = sum[1] * job.scale;
	s[8] = sum[2] * job.scale;
	s[s_pitch + 8] = sum[3] * job.scale;
}

/* One head's logits, by a warp: to two pieces each of probabilities under the new maximum. Returns what the sums so far
 * shrink by. */
__device__ __forceinline__ float softmax(const float *s, __nv_bfloat16 *high, __nv_bfloat16 *low, int count, float *max,
                                         float *sum)
{
	int lane = (int)threadIdx.x % 32;
	float x[2];
	for (int n = 0; n < 2; n++)
		x[n] = lane + 32 * n < count ? s[lane + 32 * n] : -INFINITY;
	float top = fmaxf(*max, warp_max(fmaxf(x[0], x[1])));
	float by = exp2_fast(*max - top);
	for (int n = 0; n < 2; n++) {
		x[n] = exp2_fast(x[n] - top);
		__nv_bfloat16 piece = __float2bfloat16_rn(x[n]);
		high[lane + 32 * n] = piece;
		low[lane + 32 * n] = __float2bfloat16_rn(x[n] - __bfloat162float(piece));
	}
	*sum = *sum * by + warp_sum(x[0] + x[1]);
	*max = top;
	return by;
}

/* o = o · by + 16 columns of the keys from `column` on, times the probabilities. */
__device__ __forceinline__ void add_values(float (&o)[4], const struct layout &l, uint32_t shared,
                                           const __nv_bfloat16 *high, const __nv_bfloat16 *low, const float *by,
                                           int column)
{
	uint32_t lane = threadIdx.x % 32, pair = lane % 4 * 2;
	uint32_t values = shared + (lane / 16 * 8 + lane % 8) * l.pitch + (uint32_t)column * 2 + lane % 16 / 8 * 16;
#pragma unroll
	for (int i = 0; i < 4; i++)
		o[i] *= by[pair + (i & 1)];
#pragma unroll
	for (uint32_t k = 0; k < block / 16; k++) {
		uint32_t a[4], at = lane / 4 * p_pitch + k * 16 + pair;
		load_transposed(a, values + k * 16 * l.pitch);
		product(o, a, *(const uint32_t *)(high + at), *(const uint32_t *)(high + at + 8));
		product(o, a, *(const uint32_t *)(low + at), *(const uint32_t *)(low + at + 8));
	}
}

/* tiles: of a warp, of 16 columns; at least c / 64. */
template <int tiles> __global__ void __launch_bounds__(threads) attend(const __grid_constant__ struct attention_job job)
{
	extern __shared__ __align__(16) unsigned char memory[];
	uint32_t shared = (uint32_t)__cvta_generic_to_shared(memory);
	const struct layout l(job.width);
	__nv_bfloat16 *high = (__nv_bfloat16 *)(memory + l.pieces), *low = high + heads * p_pitch;
	float *s = (float *)(memory + l.logits), *factors = (float *)(memory + l.factors);
	int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;

	int64_t row = blockIdx.x / (unsigned)job.groups;
	int first = (int)(blockIdx.x % (unsigned)job.groups) * heads, count = selected(job, row);
	int chunks = job.width / 8;
	for (int n = (int)threadIdx.x; n < heads * chunks; n += threads) {
		int head = n / chunks, chunk = n % chunks;
		bool valid = first + head < job.heads;
		copy_16(shared + l.queries + (uint32_t)head * l.pitch + (uint32_t)chunk * 16,
		        job.q + row * job.q_stride + (int64_t)(valid ? first + head : 0) * job.width + chunk * 8,
		        valid);
	}

	float o[tiles][4] = {}, max[2] = {-1e30f, -1e30f}, sum[2] = {};
	for (int at = 0; at < count; at += block) {
		gather(job, l, shared, row, at, min(block, count - at));
		await_copies();
		__syncthreads();
		logits(job, l, shared, memory, s);
		__syncthreads();
		for (int b = 0; b < 2; b++) {
			int head = warp * 2 + b;
			float by = softmax(s + head * s_pitch, high + head * p_pitch, low + head * p_pitch,
			                   min(block, count - at), &max[b], &sum[b]);
			if (lane == 0)
				factors[head] = by;
		}
		__syncthreads();
#pragma unroll
		for (int t = 0; t < tiles; t++)
			if ((t * warps + warp) * 16 < job.latent)
				add_values(o[t], l, shared, high, low, factors, (t * warps + warp) * 16);
		__syncthreads();
	}

	/* Through shared memory, where the keys were, to whole rows. */
	for (int b = 0; b < 2; b++)
		if (lane == 0)
			factors[warp * 2 + b] = 1.0f / sum[b];
	__syncthreads();
#pragma unroll
	for (int t = 0; t < tiles; t++) {
		int column = (t * warps + warp) * 16 + lane / 4;
		for (int i = 0; i < 4 && column < job.latent; i++) {
			uint32_t head = lane % 4 * 2 + (i & 1);
			*(__nv_bfloat16 *)(memory + head * l.pitch + (column + (i >> 1) * 8) * 2) =
			    __float2bfloat16_rn(o[t][i] * factors[head]);
		}
	}
	__syncthreads();
	chunks = job.latent / 8;
	for (int n = (int)threadIdx.x; n < heads * chunks; n += threads) {
		int head = n / chunks, chunk = n % chunks;
		if (first + head < job.heads)
			*(uint4 *)(job.out + row * job.out_stride + (int64_t)(first + head) * job.latent + chunk * 8) =
			    *(const uint4 *)(memory + (uint32_t)head * l.pitch + chunk * 16);
	}
}

} // namespace attention_16

#endif
