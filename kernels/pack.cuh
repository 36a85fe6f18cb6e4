/* pack.cuh: eight neighbouring elements of a row as floats, and grids of rows × units of work.
 *
 * VEC: 16-byte accesses. They need rows that start at multiples of 16 bytes and widths of whole packs; packs_fit()
 * says whether a view has them, and the other path takes any view element by element. Both give the same bits. */
#ifndef DSA_KERNELS_PACK_CUH
#define DSA_KERNELS_PACK_CUH

#include "element.cuh"
#include "kernels.h"

enum { PACK = 8, PACK_THREADS = 256 };

typedef __nv_bfloat16 bf16;

/* Do rows of t, from column `first` on, start at multiples of 16 bytes? */
static inline bool packs_aligned(const struct dsa_tensor *t, int64_t first)
{
	size_t size = t->dtype == DSA_F32 ? 4 : 2;
	return ((uintptr_t)t->data + (size_t)first * size) % 16 == 0 && (size_t)t->stride * size % 16 == 0;
}

static inline bool packs_fit(const struct dsa_tensor *t)
{
	return t->cols % PACK == 0 && packs_aligned(t, 0);
}

__device__ __forceinline__ void pack_load_whole(float v[PACK], const float *from)
{
	const float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
	v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
	v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

__device__ __forceinline__ void pack_load_whole(float v[PACK], const bf16 *from)
{
	const uint4 a = *(const uint4 *)from;
	const unsigned word[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
	for (int e = 0; e < 4; e++) {
		v[2 * e] = __uint_as_float(word[e] << 16);
		v[2 * e + 1] = __uint_as_float(word[e] & 0xffff0000u);
	}
}

__device__ __forceinline__ void pack_store_whole(float *to, const float v[PACK])
{
	((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
	((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ void pack_store_whole(bf16 *to, const float v[PACK])
{
	unsigned word[4];
#pragma unroll
	for (int e = 0; e < 4; e++) {
		const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * e], v[2 * e + 1]);
		word[e] = *(const unsigned *)&pair;
	}
	*(uint4 *)to = make_uint4(word[0], word[1], word[2], word[3]);
}

/* Columns j … j + 8 of a row of `cols`; zeros behind its end. */
template <bool VEC, typename T> __device__ __forceinline__ void pack_load(float v[PACK], const T *row, int j, int cols)
{
	if constexpr (VEC) {
		pack_load_whole(v, row + j);
	} else {
#pragma unroll
		for (int e = 0; e < PACK; e++)
			v[e] = j + e < cols ? widen(row[j + e]) : 0.0f;
	}
}

template <bool VEC, typename T> __device__ __forceinline__ void pack_store(T *row, const float v[PACK], int j, int cols)
{
	if constexpr (VEC) {
		pack_store_whole(row + j, v);
	} else {
#pragma unroll
		for (int e = 0; e < PACK; e++)
			if (j + e < cols)
				narrow(row + j + e, v[e]);
	}
}

/* rows × units of work, in blocks of up to 256 threads: short rows share a block, long ones have several. Each thread
 * takes `each` units, a block's width apart. */
struct unit_grid {
	dim3 grid, block;
};

static inline struct unit_grid unit_grid(int64_t rows, int64_t units, int each)
{
	struct unit_grid g;
	int64_t threads = (units + each - 1) / each;
	g.block.x = (unsigned)(threads < PACK_THREADS ? threads : (int64_t)PACK_THREADS);
	g.block.y = PACK_THREADS / g.block.x;
	g.grid.x = (unsigned)((rows + g.block.y - 1) / g.block.y);
	g.grid.y = (unsigned)((threads + g.block.x - 1) / g.block.x);
	return g;
}

__device__ __forceinline__ int64_t unit_row(void)
{
	return (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
}

__device__ __forceinline__ int unit_first(int each)
{
	return (int)(blockIdx.y * blockDim.x * (unsigned)each + threadIdx.x);
}

#endif
