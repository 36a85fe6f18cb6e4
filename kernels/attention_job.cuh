/* attention_job.cuh: one call of sparse attention, as its kernels take it. Work is dealt in tiles: groups of heads, of
 * the width that the kernel likes, of one row; tile = row · groups + group. */
#ifndef DSA_KERNELS_ATTENTION_JOB_CUH
#define DSA_KERNELS_ATTENTION_JOB_CUH

#include <cuda_bf16.h>
#include <stdint.h>

struct attention_job {
	__nv_bfloat16 *out;
	const __nv_bfloat16 *q, *keys;
	const int32_t *selection, *pos, *key0;
	int64_t out_stride, q_stride, key_stride, tiles;
	int topk, heads, groups, latent, width; /* width c + r */
	float scale;                            /* times log2 e: of base-2 exponents */
	bool even_out, even_q, even_keys;       /* every pair of columns is an aligned word */
};

namespace attention
{

/* How many keys a row has. */
__device__ __forceinline__ int selected(const struct attention_job &job, int64_t row)
{
	return min(job.topk, job.pos[row] + 1);
}

/* 16 bytes to shared memory, of zeros if not valid. */
__device__ __forceinline__ void copy_16(uint32_t to, const void *from, bool valid)
{
	asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
	             : "memory");
}

__device__ __forceinline__ void await_copies()
{
	asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ __forceinline__ float exp2_fast(float x)
{
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* Two columns, rounded, in a word. */
__device__ __forceinline__ uint32_t pack(float low, float high)
{
	uint32_t both;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
	return both;
}

__device__ __forceinline__ float2 unpack(uint32_t word)
{
	return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000));
}

__device__ __forceinline__ float warp_max(float x)
{
	for (int step = 16; step > 0; step /= 2)
		x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, step));
	return x;
}

__device__ __forceinline__ float warp_sum(float x)
{
	for (int step = 16; step > 0; step /= 2)
		x += __shfl_xor_sync(0xffffffff, x, step);
	return x;
}

} // namespace attention

#endif
