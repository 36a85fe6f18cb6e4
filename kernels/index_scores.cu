/* index_scores.cu: the lightning indexer's scores of all earlier positions.
 *
 *   scores(i, s) = Σ_a weight(i, a) · relu(q(i, a)·k(key0(i) + s) · d^-1/2), s in [0, pos(i)], F32
 *
 * times the key's scale, if keys have scales (FP8, whose numbers are exact in BF16; the queries' scales lie in the
 * weights). q (R, h·d) and k (N, d) BF16, weight (R, h) F32. d^-1/2 is taken into the weight, once, in float: relu
 * commutes with it. relu lets NaN pass.
 *
 * d = 128 and h = 32 or 64: index_scores_wgmma.cuh, 64 keys × 256 (query, head) pairs a step.
 *
 * General kernel, any h and d: mma.sync with the same roles of keys and pairs, 32 keys a warp; heads padded with
 * zeros to 4 or to a multiple of 8, d to a multiple of 16.
 *
 * Rows of a block that belong to several documents are taken one document after another: all its rows are multiplied,
 * the document's are stored. Tiles behind the last position of a document's rows are never touched.
 *
 * FLOPs 2·h·d and 4 bytes written per (row, position); q is read once per stretch of keys, k once per block and
 * stretch, mostly from L2.
 *
 * Determinism: a score is one matrix product in an order of its own operands and a sum over heads whose order depends
 * on h alone; neither the other rows nor the place of row or key in a tile matter. */
#include "kernels.h"

#include "index_scores_wgmma.cuh"

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <assert.h>
#include <math.h>

namespace
{

/* The kernel of index_scores_wgmma.cuh -------------------------------------------------------------------------- */

typedef CUresult encode_tensor(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                               const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                               CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's encoder of tensor maps, found at run time: the program is not linked with the driver. */
encode_tensor *find_encoder()
{
	static encode_tensor *encoder;
	void *found = NULL;
	cudaDriverEntryPointQueryResult result;
	if (encoder)
		return encoder;
	if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) ||
	    result != cudaDriverEntryPointSuccess)
		return NULL;
	return encoder = (encode_tensor *)found;
}

/* Boxes of 64 columns of `middle` rows of each of `outer` rows; what lies outside reads as zero. */
bool make_map(CUtensorMap *map, struct dsa_tensor t, int dims, const cuuint64_t *size, cuuint32_t middle,
              cuuint32_t outer)
{
	cuuint64_t step[2] = {DIM * 2, (cuuint64_t)t.stride * 2};
	cuuint32_t box[3] = {HALF, middle, outer}, one[3] = {1, 1, 1};
	encode_tensor *encode = find_encoder();
	return encode &&
	       encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)dims, t.data, size,
	              dims == 2 ? step + 1 : step, box, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool aligned(struct dsa_tensor t)
{
	return !((uintptr_t)t.data % 16) && !(t.stride * 2 % 16);
}

/* Tiles of a unit's stretch, blocks being as many as processors: what makes the most laden block's work least, a unit's
 * start taken for a tile and half a unit for how unevenly causal lengths fall. */
int choose_stretch(int64_t groups, int tiles, int blocks)
{
	int best = tiles;
	int64_t least = INT64_MAX;
	for (int stretches = 1; stretches <= 256; stretches++) {
		int stretch = (tiles + stretches - 1) / stretches;
		int64_t units = groups * ((tiles + stretch - 1) / stretch);
		int64_t cost = (units + blocks - 1) / blocks * (stretch + 1) + stretch / 2;
		if (stretch < 8 && stretches > 1)
			break;
		if (cost < least) {
			least = cost;
			best = stretch;
		}
	}
	return best;
}

template <int heads, bool scaled>
cudaError_t launch_fast(cudaStream_t stream, struct dsa_tensor q, struct dsa_tensor k, fast_args args, int max_pos)
{
	enum { QUERIES = PAIRS / heads };
	CUtensorMap query_map, key_map;
	cuuint64_t query_size[3] = {DIM, heads, (cuuint64_t)q.rows}, key_size[2] = {DIM, (cuuint64_t)k.rows};
	int tiles = max_pos / KEYS + 1, device, blocks;
	if (!make_map(&query_map, q, 3, query_size, heads, QUERIES) || !make_map(&key_map, k, 2, key_size, KEYS, 1))
		return cudaErrorNotSupported;
	cudaError_t code = cudaGetDevice(&device);
	if (!code)
		code = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
	if (!code)
		code = cudaFuncSetAttribute(fast_scores<heads, scaled>, cudaFuncAttributeMaxDynamicSharedMemorySize,
		                            FAST_SHARED);
	if (code)
		return code;
	args.groups = (args.rows + QUERIES - 1) / QUERIES;
	args.stretch = choose_stretch(args.groups, tiles, blocks);
	args.units = args.groups * ((tiles + args.stretch - 1) / args.stretch);
	blocks = args.units < blocks ? (int)args.units : blocks;
	fast_scores<heads, scaled><<<(unsigned)blocks, FAST_THREADS, FAST_SHARED, stream>>>(query_map, key_map, args);
	return cudaGetLastError();
}

template <int heads>
cudaError_t choose_fast(cudaStream_t stream, struct dsa_tensor q, struct dsa_tensor k, const fast_args &args,
                        int max_pos)
{
	return args.key_scales ? launch_fast<heads, true>(stream, q, k, args, max_pos)
	                       : launch_fast<heads, false>(stream, q, k, args, max_pos);
}

/* General kernel ------------------------------------------------------------------------------------------------ */

enum {
	GENERAL_ROWS = 16, /* query rows of a block, at most */
	WARPS = 4,
	WARP_KEYS = 32, /* two tiles of 16 */
	BLOCK_KEYS = WARPS * WARP_KEYS,
	GENERAL_SHARED = 200 << 10
};

struct general_args {
	fast_args s;
	const __nv_bfloat16 *q, *k;
	int64_t q_stride, k_stride, keys;
	int heads, padded, dim, rows; /* heads of a row in shared memory, query rows of a block */
};

__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
	asm volatile(
	    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
	    "{%0, %1, %2, %3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The rows of a block, by document: the next row at or behind `row` that is the first of its document, with the largest
 * position of the document's rows; `rows` if there is none. Rows behind R have position -1. */
__device__ __forceinline__ int next_document(const int32_t *pos, const int32_t *key0, int rows, int row, int *last)
{
	for (; row < rows; row++) {
		bool first = pos[row] >= 0;
		for (int i = 0; i < row; i++)
			first = first && (pos[i] < 0 || key0[i] != key0[row]);
		if (!first)
			continue;
		*last = pos[row];
		for (int i = row + 1; i < rows; i++)
			if (key0[i] == key0[row])
				*last = max(*last, pos[i]);
		break;
	}
	return row;
}

/* Elements `column` and the next of a row of dim; zero behind it. */
__device__ __forceinline__ uint32_t two_of(const __nv_bfloat16 *row, int column, int dim)
{
	const uint16_t *x = (const uint16_t *)row + column;
	uint32_t low = row && column < dim ? x[0] : 0, high = row && column + 1 < dim ? x[1] : 0;
	return high << 16 | low;
}

/* Copies rows of dim elements into shared rows of `width` + 8, zeros behind dim and for rows from NULL. */
template <int width, typename From>
__device__ __forceinline__ void stage_rows(__nv_bfloat16 *to, int rows, int dim, From from)
{
	enum { CHUNKS = width / 8, STEP = width + 8 };
	for (int i = (int)threadIdx.x; i < rows * CHUNKS; i += WARPS * 32) {
		int row = i / CHUNKS, column = i % CHUNKS * 8;
		const __nv_bfloat16 *x = from(row);
		uint4 v;
		if (x && column + 8 <= dim && !((uintptr_t)(x + column) % 16))
			v = *(const uint4 *)(x + column);
		else
			v = {two_of(x, column, dim), two_of(x, column + 2, dim), two_of(x, column + 4, dim),
			     two_of(x, column + 6, dim)};
		*(uint4 *)(to + row * STEP + column) = v;
	}
}

/* A warp's 32 keys as operands, from shared rows beginning with the lane's first. */
template <int width>
__device__ __forceinline__ void load_keys(uint32_t (&a)[width / 16][2][4], const __nv_bfloat16 *own, int c)
{
	enum { STEP = width + 8 };
#pragma unroll
	for (int k = 0; k < width / 16; k++)
#pragma unroll
		for (int i = 0; i < 8; i++) {
			int row = i / 4 * 16 + i % 2 * 8, column = k * 16 + i % 4 / 2 * 8 + c * 2;
			a[k][i / 4][i % 4] = *(const uint32_t *)(own + row * STEP + column);
		}
}

/* d = keys (32, width) · pairs (8, width)ᵀ; own: the shared row of the lane's pair. */
template <int width>
__device__ __forceinline__ void multiply_strip(float (&d)[2][4], const uint32_t (&a)[width / 16][2][4],
                                               const __nv_bfloat16 *own, int c)
{
#pragma unroll
	for (int k = 0; k < width / 16; k++) {
		const __nv_bfloat16 *x = own + k * 16 + c * 2;
		uint32_t b[2] = {*(const uint32_t *)x, *(const uint32_t *)(x + 8)};
		mma(d[0], a[k][0], b);
		mma(d[1], a[k][1], b);
	}
}

/* The same from global memory, for any dim: key(0), key(8), key(16), key(24) are the lane's rows of keys. */
template <typename Key>
__device__ __forceinline__ void multiply_far(float (&d)[2][4], Key key, const __nv_bfloat16 *own, int c, int dim)
{
	for (int k = c * 2; k < dim + c * 2; k += 16) {
		uint32_t a[2][4], b[2] = {two_of(own, k, dim), two_of(own, k + 8, dim)};
#pragma unroll
		for (int i = 0; i < 8; i++)
			a[i / 4][i % 4] = two_of(key(i / 4 * 16 + i % 2 * 8), k + i % 4 / 2 * 8, dim);
		mma(d[0], a[0], b);
		mma(d[1], a[1], b);
	}
}

/* width: d padded, rows of keys and queries in shared memory; 0: any d, operands straight from global memory.
 * shared_four: h ≤ 4, two query rows share a strip of 8 pairs. */
template <int width, bool shared_four>
__global__ void __launch_bounds__(WARPS * 32, width > 64 || width == 0 ? 4 : 6) general_scores(const general_args args)
{
	enum { NEAR = width > 0, STEP = NEAR ? width + 8 : 0, ROOM = NEAR ? width : 16 };
	extern __shared__ __align__(16) char general_memory[];
	__shared__ int32_t pos[GENERAL_ROWS], key0[GENERAL_ROWS];
	const fast_args &s = args.s;
	int lane = (int)threadIdx.x % 32, c = lane & 3, g = lane >> 2, rows = args.rows, dim = args.dim;
	int pairs = rows * args.padded, own_key = (int)threadIdx.x / 32 * WARP_KEYS + g;
	int strips = shared_four ? 8 : args.padded; /* pairs that are summed together */
	int64_t row0 = (int64_t)blockIdx.x * rows;
	__nv_bfloat16 *queries = (__nv_bfloat16 *)general_memory, *keys = queries + pairs * STEP;
	float *weights = (float *)(keys + BLOCK_KEYS * STEP); /* of each pair, times d^-1/2 */
	auto query = [&](int pair) -> const __nv_bfloat16 * {
		int64_t row = row0 + pair / args.padded;
		int head = pair % args.padded;
		return row < s.rows && head < args.heads ? args.q + row * args.q_stride + (int64_t)head * dim : NULL;
	};
	if ((int)threadIdx.x < rows) {
		int64_t row = row0 + threadIdx.x;
		pos[threadIdx.x] = row < s.rows ? s.pos[row] : -1;
		key0[threadIdx.x] = row < s.rows ? s.key0[row] : -1;
	}
	for (int pair = (int)threadIdx.x; pair < pairs; pair += WARPS * 32) {
		int64_t row = row0 + pair / args.padded;
		weights[pair] = query(pair) ? s.weight[row * s.weight_stride + pair % args.padded] * s.scale : 0.0f;
	}
	if (NEAR)
		stage_rows<ROOM>(queries, pairs, dim, query);
	__syncthreads();

	int first = (int)blockIdx.y * s.stretch, last = -1;
	for (int document = 0; (document = next_document(pos, key0, rows, document, &last)) < rows; document++) {
		int begin = key0[document], end = min(first + s.stretch, last / BLOCK_KEYS + 1);
		for (int tile = first; tile < end; tile++) {
			int place = tile * BLOCK_KEYS; /* position of the tile's first key */
			auto key = [&](int i) -> const __nv_bfloat16 * {
				int64_t row = (int64_t)begin + place + i;
				return row < args.keys ? args.k + row * args.k_stride : NULL;
			};
			uint32_t a[ROOM / 16][2][4];
			if (NEAR) {
				stage_rows<ROOM>(keys, BLOCK_KEYS, dim, key);
				__syncthreads();
				load_keys<ROOM>(a, keys + own_key * STEP, c);
				__syncthreads();
			}
			for (int n = 0; n < pairs; n += strips) {
				int row = n / args.padded; /* and the next, where two share the strip */
				bool here = key0[row] == begin;
				if (!here && !(shared_four && key0[row + 1] == begin))
					continue;
				float sum[4] = {0, 0, 0, 0}; /* of keys own_key, + 8, + 16, + 24 */
				for (int strip = n; strip < n + strips; strip += 8) {
					float d[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
					if (NEAR)
						multiply_strip<ROOM>(d, a, queries + (strip + g) * STEP, c);
					else
						multiply_far(
						    d, [&](int i) { return key(own_key + i); }, query(strip + g), c,
						    dim);
					float w[2] = {weights[strip + c * 2], weights[strip + c * 2 + 1]};
#pragma unroll
					for (int i = 0; i < 8; i++)
						sum[i / 2] = fmaf(w[i % 2], relu(d[i / 4][i % 4]), sum[i / 2]);
				}
				/* Lanes with the same c / 2 (shared_four) or all four hold shares of the same sums. */
				int at = place + own_key + c * 8;
				if (shared_four) {
#pragma unroll
					for (int i = 0; i < 4; i++)
						sum[i] += from_lane(sum[i], 1);
					row += c / 2;
					here = key0[row] == begin;
					at = place + own_key + c % 2 * 16;
					sum[0] = c % 2 ? sum[2] : sum[0];
					sum[1] = c % 2 ? sum[3] : sum[1];
				} else {
					sum[0] = close_sums(sum[0], sum[1], sum[2], sum[3], c);
				}
				float *out = s.scores + (row0 + row) * s.stride;
				const float *scales = s.key_scales ? s.key_scales + begin + at : NULL;
				if (here && at <= pos[row])
					out[at] = scales ? sum[0] * scales[0] : sum[0];
				if (shared_four && here && at + 8 <= pos[row])
					out[at + 8] = scales ? sum[1] * scales[8] : sum[1];
			}
		}
	}
}

template <int width, bool shared_four>
cudaError_t launch_general(cudaStream_t stream, const general_args &args, int tiles)
{
	size_t pairs = (size_t)(args.rows * args.padded);
	size_t shared = pairs * sizeof(float) + (width ? (pairs + BLOCK_KEYS) * (width + 8) * 2 : 0);
	dim3 grid((unsigned)((args.s.rows + args.rows - 1) / args.rows),
	          (unsigned)((tiles + args.s.stretch - 1) / args.s.stretch));
	cudaError_t code = cudaFuncSetAttribute(general_scores<width, shared_four>,
	                                        cudaFuncAttributeMaxDynamicSharedMemorySize, GENERAL_SHARED);
	if (code)
		return code;
	general_scores<width, shared_four><<<grid, WARPS * 32, shared, stream>>>(args);
	return cudaGetLastError();
}

template <int width> cudaError_t choose_general(cudaStream_t stream, const general_args &args, int tiles)
{
	return args.padded == 4 ? launch_general<width, true>(stream, args, tiles)
	                        : launch_general<width, false>(stream, args, tiles);
}

cudaError_t general(cudaStream_t stream, general_args args, int tiles)
{
	int width = args.dim <= 16 ? 16 : args.dim <= 32 ? 32 : args.dim <= 64 ? 64 : args.dim <= 128 ? 128 : 0;
	args.padded = args.heads <= 4 ? 4 : (args.heads + 7) / 8 * 8;
	/* Rows of a block: shared memory for several blocks a processor, where that leaves a few. */
	int64_t row_bytes = (int64_t)args.padded * (width + 8) * 2;
	int64_t fit = row_bytes <= 16 << 10 ? (64 << 10) / row_bytes : (128 << 10) / row_bytes;
	args.rows = fit > GENERAL_ROWS ? (int)GENERAL_ROWS : (int)fit;
	if (width == 0 || args.rows == 0) {
		width = 0;
		args.rows = GENERAL_ROWS / 2;
	}
	switch (width) {
	case 16:
		return choose_general<16>(stream, args, tiles);
	case 32:
		return choose_general<32>(stream, args, tiles);
	case 64:
		return choose_general<64>(stream, args, tiles);
	case 128:
		return choose_general<128>(stream, args, tiles);
	default:
		return choose_general<0>(stream, args, tiles);
	}
}

} // namespace

cudaError_t kernel_index_scores(cudaStream_t stream, float *scores, int64_t stride, struct dsa_tensor q,
                                struct dsa_tensor k, const float *key_scales, struct dsa_tensor weight, int heads,
                                int dim, const struct dsa_rows *rows)
{
	assert(q.dtype == DSA_BF16 && k.dtype == DSA_BF16 && weight.dtype == DSA_F32);
	if (rows->count == 0)
		return cudaSuccess;
	fast_args args = {};
	args.scores = scores;
	args.stride = stride;
	args.weight = (const float *)weight.data;
	args.weight_stride = weight.stride;
	args.pos = rows->pos;
	args.key0 = rows->key0;
	args.rows = rows->count;
	args.scale = 1.0f / sqrtf((float)dim);
	args.key_scales = key_scales;
	if (dim == DIM && (heads == 32 || heads == 64) && aligned(q) && aligned(k))
		return heads == 32 ? choose_fast<32>(stream, q, k, args, rows->max_pos)
		                   : choose_fast<64>(stream, q, k, args, rows->max_pos);
	int tiles = rows->max_pos / BLOCK_KEYS + 1;
	args.stretch = tiles > 256 ? 16 : tiles > 32 ? tiles / 16 : 2;
	general_args wide = {};
	wide.s = args;
	wide.q = (const __nv_bfloat16 *)q.data;
	wide.k = (const __nv_bfloat16 *)k.data;
	wide.q_stride = q.stride;
	wide.k_stride = k.stride;
	wide.keys = k.rows;
	wide.heads = heads;
	wide.dim = dim;
	return general(stream, wide, tiles);
}
