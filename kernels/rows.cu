/* rows.cu: rows that are looked up and moved.
 *
 *   embed       out (R, D) F32 = table[ids], each element moved by one bf16 ulp of its own if a seed is given
 *   copy_heads  out[:, a·out_step + out_offset …] = x[:, a·x_step + x_offset …] for every head a
 *   store_keys  keys[key0 + pos] = x
 *   gather      out = x[index]
 *
 * embed: a thread takes eight neighbouring columns of a row. The others are one kernel, which moves words of 16, 8, 4
 * or 2 bytes, the widest that every start and distance is a multiple of; a thread of a wide row moves four, all read
 * before the first is written. Bytes: what is moved, read and written once; no arithmetic but embed's hash (two 64-bit
 * products per element). Measured (H100 80GB HBM3, 2026-11-26, a device copy beside it 2.96 TB/s), 8192 rows: gather of
 * D 6144 F32 2.78 TB/s, copy_heads of 128 heads of 128 2.76, embed of D 6144 2.64, with a seed 2.54.
 *
 * Determinism: integers and one exact sum per element. */
#include "pack.cuh"

namespace
{

enum { EACH = 4, WIDE = 2 * PACK_THREADS };

__device__ __forceinline__ uint64_t mixed(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* 2^(e - 7), e the exponent of a bf16 number: the distance of its neighbours. */
__device__ __forceinline__ float bf16_ulp(float x)
{
	const unsigned exponent = __float_as_uint(x) >> 23 & 255u;
	return __uint_as_float((exponent ? exponent : 1u) << 23) * 0x1p-7f;
}

template <bool VEC>
__global__ void __launch_bounds__(PACK_THREADS)
    embed(float *out, int64_t out_stride, const bf16 *table, int64_t table_stride, const int32_t *ids,
          const int32_t *pos, int64_t rows, int cols, uint64_t seed)
{
	const int64_t row = unit_row();
	const int j = unit_first(1) * PACK;
	if (row >= rows || j >= cols)
		return;
	const int32_t id = ids[row];
	float v[PACK];
	pack_load<VEC>(v, table + id * table_stride, j, cols);
	if (seed) {
		const uint64_t hash = mixed(seed ^ mixed((uint64_t)pos[row] << 32 | (uint32_t)id));
#pragma unroll
		for (int e = 0; e < PACK; e++) {
			const float ulp = bf16_ulp(v[e]);
			v[e] += mixed(hash + (uint64_t)(j + e)) & 1u ? -ulp : ulp;
		}
	}
	pack_store<VEC>(out + row * out_stride, v, j, cols);
}

/* What a move of rows is, in bytes until word_kernel() makes it words. */
struct move {
	char *to;
	const char *from;
	int64_t to_stride, from_stride, to_step, from_step, width; /* of rows, of heads; of a head */
	int64_t rows;
	int heads;
	const int32_t *from_row;          /* row i comes from from_row[i]; NULL: i */
	const int32_t *to_pos, *to_first; /* row i goes to to_first[i] + to_pos[i]; NULL: i */
};

template <typename Word, int MOST> __global__ void __launch_bounds__(PACK_THREADS) move_rows(const move m)
{
	const int64_t row = unit_row();
	const int width = (int)m.width, units = width * m.heads, first = unit_first(MOST);
	if (row >= m.rows || first >= units)
		return;
	const int64_t from_row = m.from_row ? m.from_row[row] : row;
	const int64_t to_row = m.to_pos ? (int64_t)m.to_first[row] + m.to_pos[row] : row;
	const Word *from = (const Word *)m.from + from_row * m.from_stride;
	Word *to = (Word *)m.to + to_row * m.to_stride;
	Word word[MOST];
#pragma unroll
	for (int k = 0; k < MOST; k++) {
		const int unit = first + k * (int)blockDim.x, head = unit / width;
		if (unit < units)
			word[k] = from[head * m.from_step + unit - head * width];
	}
#pragma unroll
	for (int k = 0; k < MOST; k++) {
		const int unit = first + k * (int)blockDim.x, head = unit / width;
		if (unit < units)
			to[head * m.to_step + unit - head * width] = word[k];
	}
}

template <typename Word> cudaError_t move_words(cudaStream_t stream, move m)
{
	const int64_t size = sizeof(Word);
	m.to_stride /= size, m.from_stride /= size, m.to_step /= size, m.from_step /= size, m.width /= size;
	const int64_t units = m.width * m.heads;
	const bool wide = units >= WIDE;
	const struct unit_grid g = unit_grid(m.rows, units, wide ? EACH : 1);
	auto kernel = wide ? move_rows<Word, EACH> : move_rows<Word, 1>;
	kernel<<<g.grid, g.block, 0, stream>>>(m);
	return cudaGetLastError();
}

cudaError_t move_widest(cudaStream_t stream, const move &m)
{
	if (!m.rows || !m.width || !m.heads)
		return cudaSuccess;
	const uint64_t all = (uintptr_t)m.to | (uintptr_t)m.from | (uint64_t)m.to_stride | (uint64_t)m.from_stride |
	                     (uint64_t)m.to_step | (uint64_t)m.from_step | (uint64_t)m.width;
	if (all % 16 == 0)
		return move_words<uint4>(stream, m);
	if (all % 8 == 0)
		return move_words<uint2>(stream, m);
	if (all % 4 == 0)
		return move_words<uint32_t>(stream, m);
	return move_words<uint16_t>(stream, m);
}

int64_t bytes_of(const struct dsa_tensor &t)
{
	return t.dtype == DSA_F32 || t.dtype == DSA_I32 ? 4 : 2;
}

move whole_rows(const struct dsa_tensor &out, const struct dsa_tensor &x, int64_t rows)
{
	const int64_t size = bytes_of(x);
	move m = {};
	m.to = (char *)out.data, m.from = (const char *)x.data;
	m.to_stride = out.stride * size, m.from_stride = x.stride * size;
	m.width = x.cols * size, m.rows = rows, m.heads = 1;
	return m;
}

} // namespace

cudaError_t kernel_embed(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                         const struct dsa_rows *rows, uint64_t seed)
{
	if (!out.rows || !out.cols)
		return cudaSuccess;
	const struct unit_grid g = unit_grid(out.rows, (out.cols + PACK - 1) / PACK, 1);
	auto kernel = packs_fit(&out) && packs_fit(&table) ? embed<true> : embed<false>;
	kernel<<<g.grid, g.block, 0, stream>>>((float *)out.data, out.stride, (const bf16 *)table.data, table.stride,
	                                       ids, rows->pos, out.rows, out.cols, seed);
	return cudaGetLastError();
}

cudaError_t kernel_copy_heads(cudaStream_t stream, struct dsa_tensor out, int out_step, int out_offset,
                              struct dsa_tensor x, int x_step, int x_offset, int heads, int cols)
{
	const int64_t size = bytes_of(x);
	move m = whole_rows(out, x, x.rows);
	m.to += out_offset * size, m.from += x_offset * size;
	m.to_step = out_step * size, m.from_step = x_step * size;
	m.width = cols * size, m.heads = heads;
	return move_widest(stream, m);
}

cudaError_t kernel_store_keys(cudaStream_t stream, struct dsa_tensor keys, struct dsa_tensor x,
                              const struct dsa_rows *rows)
{
	move m = whole_rows(keys, x, rows->count);
	m.to_pos = rows->pos, m.to_first = rows->key0;
	return move_widest(stream, m);
}

cudaError_t kernel_gather(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index)
{
	move m = whole_rows(out, x, out.rows);
	m.from_row = index;
	return move_widest(stream, m);
}
