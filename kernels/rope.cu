/* rope.cu: rotary positions, in place.
 *
 *   (a, b) = (a cos - b sin, b cos + a sin) for each pair of the r columns at offset + head · step
 *
 * pairs (2i, 2i + 1), or (i, i + r/2); cos, sin (max_context, r/2) F32, row = position. x (R, …) BF16 or F32, float
 * arithmetic.
 *
 * A thread takes one unit of a head of a row: four pairs side by side or eight of both halves, by 16-byte accesses, or
 * one pair where the view does not allow them. Bytes: R · heads · r elements read and written; the tables come from L2.
 * 3 FLOPs per element: bound by memory. Measured (H100 80GB HBM3, 2026-11-26, a device copy beside it 2.96 TB/s): 8192
 * rows of 128 heads, r 64 at a step of 192, 2.44 TB/s; 64 heads at a step of 256, 2.30.
 *
 * Determinism: every pair on its own, the same arithmetic on either path. */
#include "pack.cuh"

namespace
{

struct pair_of {
	float a, b;
};

__device__ __forceinline__ pair_of turned(float a, float b, float cos, float sin)
{
	return {fmaf(a, cos, -__fmul_rn(b, sin)), fmaf(b, cos, __fmul_rn(a, sin))};
}

template <typename T, bool HALVES, bool VEC>
__global__ void __launch_bounds__(PACK_THREADS)
    rope(T *x, int64_t stride, const int32_t *pos, int64_t rows, int heads, int step, int offset, int pairs,
         const float *cos, const float *sin)
{
	const int width = !VEC ? 1 : HALVES ? PACK : PACK / 2; /* pairs of a unit */
	const int units = pairs / width;
	const int64_t row = unit_row();
	const int unit = unit_first(1);
	if (row >= rows || unit >= heads * units)
		return;
	const int head = unit / units, first = unit % units * width;
	const float *c = cos + (int64_t)pos[row] * pairs + first, *s = sin + (int64_t)pos[row] * pairs + first;
	T *part = x + row * stride + offset + (int64_t)head * step;
	if (!VEC) {
		T *at = part + (HALVES ? first : 2 * first), *partner = at + (HALVES ? pairs : 1);
		const pair_of y = turned(widen(*at), widen(*partner), *c, *s);
		narrow(at, y.a);
		narrow(partner, y.b);
	} else if (HALVES) {
		float a[PACK], b[PACK], co[PACK], si[PACK];
		pack_load_whole(a, part + first);
		pack_load_whole(b, part + pairs + first);
		pack_load_whole(co, c);
		pack_load_whole(si, s);
#pragma unroll
		for (int e = 0; e < PACK; e++) {
			const pair_of y = turned(a[e], b[e], co[e], si[e]);
			a[e] = y.a, b[e] = y.b;
		}
		pack_store_whole(part + first, a);
		pack_store_whole(part + pairs + first, b);
	} else {
		float v[PACK];
		pack_load_whole(v, part + 2 * first);
		const float4 co4 = *(const float4 *)c, si4 = *(const float4 *)s;
		const float co[4] = {co4.x, co4.y, co4.z, co4.w}, si[4] = {si4.x, si4.y, si4.z, si4.w};
#pragma unroll
		for (int e = 0; e < 4; e++) {
			const pair_of y = turned(v[2 * e], v[2 * e + 1], co[e], si[e]);
			v[2 * e] = y.a, v[2 * e + 1] = y.b;
		}
		pack_store_whole(part + 2 * first, v);
	}
}

struct rope_call {
	cudaStream_t stream;
	struct dsa_tensor x;
	const struct dsa_rows *rows;
	int heads, step, offset, pairs;
	const float *cos, *sin;
};

template <typename T, bool HALVES> void launch(const rope_call &r)
{
	const int width = HALVES ? PACK : PACK / 2;
	const bool vec = r.pairs % width == 0 && packs_aligned(&r.x, r.offset) &&
	                 (size_t)r.step * sizeof(T) % 16 == 0 && (uintptr_t)r.cos % 16 == 0 &&
	                 (uintptr_t)r.sin % 16 == 0;
	const struct unit_grid g = unit_grid(r.x.rows, (int64_t)r.heads * (vec ? r.pairs / width : r.pairs), 1);
	auto kernel = vec ? rope<T, HALVES, true> : rope<T, HALVES, false>;
	kernel<<<g.grid, g.block, 0, r.stream>>>((T *)r.x.data, r.x.stride, r.rows->pos, r.x.rows, r.heads, r.step,
	                                         r.offset, r.pairs, r.cos, r.sin);
}

template <typename T> void choose_style(const rope_call &r, enum dsa_rope_style style)
{
	if (style == DSA_ROPE_HALVES)
		launch<T, true>(r);
	else
		launch<T, false>(r);
}

} // namespace

cudaError_t kernel_rope(cudaStream_t stream, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                        int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin)
{
	if (!x.rows || !r)
		return cudaSuccess;
	const rope_call call = {stream, x, rows, heads, step, offset, r / 2, cos, sin};
	if (x.dtype == DSA_F32)
		choose_style<float>(call, style);
	else
		choose_style<bf16>(call, style);
	return cudaGetLastError();
}
