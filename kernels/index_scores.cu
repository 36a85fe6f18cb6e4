/* index_scores.cu: the lightning indexer's scores of all earlier positions.
 *
 *   scores(i, s) = Σ_a weight(i, a) · relu(q(i, a)·k(key0(i) + s) · d^-1/2), s in [0, pos(i)], F32
 *
 * q (R, h·d) and k (N, d) BF16, weight (R, h) F32. d^-1/2 is taken into the weight, once, in float: relu commutes with
 * it. relu lets NaN pass.
 *
 * Fast kernel, d = 128 and h = 32 or 64: a block owns 256 / h neighbouring query rows and walks a stretch of keys, 64
 * at a time. Keys are the M operand of wgmma, the 256 (query, head) pairs the N operand, which stays in shared memory;
 * keys come by bulk tensor copies through a ring. Two warpgroups take tiles in turn, one multiplies while the other
 * weighs: a thread holds 2 keys × 64 pairs, always the same pairs, so its weights stay in registers, the sum over heads
 * is made in registers and closed over four lanes. A third warpgroup's first thread is the producer.
 *
 * General kernel, any h and d: mma.sync with the same roles, 16 or 32 keys a warp; heads padded with zeros to 4 or to a
 * multiple of 8, d to a multiple of 16.
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

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <assert.h>
#include <math.h>

namespace
{

__device__ __forceinline__ float relu(float x)
{
	float y;
	asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
	return y;
}

__device__ __forceinline__ float from_lane(float x, int distance)
{
	return __shfl_xor_sync(~0U, x, distance);
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

/* Fast kernel --------------------------------------------------------------------------------------------------- */

enum {
	DIM = 128,
	PAIRS = 256,                   /* (query, head) of a block */
	KEYS = 64,                     /* of a tile */
	STAGES = 8,                    /* tiles in the ring */
	HALF = 64,                     /* columns of a swizzled box: 128 bytes */
	QUERY_BYTES = PAIRS * DIM * 2, /* as two boxes, columns [0, 64) and [64, 128) */
	TILE_BYTES = KEYS * DIM * 2,   /* likewise */
	FAST_THREADS = 384,            /* warpgroups 0 and 1 multiply, 2 fetches */
	FAST_SHARED = QUERY_BYTES + STAGES * TILE_BYTES + 1024
};

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void barrier_init(uint64_t *bar, int count)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_expect(uint64_t *bar, int bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
	             : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t *bar)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t *bar, uint32_t parity)
{
	asm volatile("{\n.reg .pred done;\n"
	             "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
	             "@!done bra again;\n}\n" ::"r"(shared_address(bar)),
	             "r"(parity)
	             : "memory");
}

__device__ __forceinline__ void fetch_keys(void *to, const CUtensorMap *map, int column, int row, uint64_t *bar)
{
	asm volatile(
	    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
		"r"(shared_address(to)),
	    "l"(map), "r"(shared_address(bar)), "r"(column), "r"(row)
	    : "memory");
}

__device__ __forceinline__ void fetch_queries(void *to, const CUtensorMap *map, int column, int row, uint64_t *bar)
{
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
	             "%5}], [%2];" ::"r"(shared_address(to)),
	             "l"(map), "r"(shared_address(bar)), "r"(column), "r"(0), "r"(row)
	             : "memory");
}

/* Descriptor of rows of 128 swizzled bytes, groups of 8 rows 1024 bytes apart. */
__device__ __forceinline__ uint64_t operand(const void *p)
{
	return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (shared_address(p) & 0x3ffff) >> 4;
}

#define F4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define F16(i) F4(i), F4((i) + 4), F4((i) + 8), F4((i) + 12)
#define F64(i) F16(i), F16((i) + 16), F16((i) + 32), F16((i) + 48)

/* d (64, 256) = a (64, 16) · b (256, 16)ᵀ, + d unless `fresh`. */
__device__ __forceinline__ void multiply(float (&d)[128], uint64_t a, uint64_t b, bool fresh)
{
	asm volatile("{\n.reg .pred add;\nsetp.eq.b32 add, %130, 0;\n"
	             "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
	             "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
	             "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
	             "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
	             "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
	             "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
	             "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
	             "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
	             "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
	             "%128, %129, add, 1, 1, 0, 0;\n}\n"
	             : F64(0), F64(64)
	             : "l"(a), "l"(b), "r"((int)fresh));
}

struct fast_args {
	float *scores;
	int64_t stride;
	const float *weight;
	int64_t weight_stride;
	const int32_t *pos, *key0;
	int64_t rows;
	int stretch; /* tiles */
	float scale;
};

struct fast_shared {
	uint64_t full[STAGES], empty[STAGES], queries;
	int32_t pos[8], key0[8];
};

/* Sum of four values' shares of four lanes: lane c (of its four) gets value c. */
__device__ __forceinline__ float close_sums(float a, float b, float c, float d, int lane)
{
	bool odd = lane & 1, upper = lane & 2;
	float ab = (odd ? b : a) + from_lane(odd ? a : b, 1);
	float cd = (odd ? d : c) + from_lane(odd ? c : d, 1);
	return (upper ? cd : ab) + from_lane(upper ? ab : cd, 2);
}

/* The tiles of a block in order: of each document of its rows, those of the stretch. */
struct fast_walk {
	int row, tile, end, key0;
	template <int queries> __device__ __forceinline__ bool document(const fast_shared *s, int first, int stretch)
	{
		int last = -1;
		for (; (row = next_document(s->pos, s->key0, queries, row, &last)) < queries; row++) {
			tile = first;
			end = min(first + stretch, last / KEYS + 1);
			key0 = s->key0[row];
			if (tile < end)
				return true;
		}
		return false;
	}
	template <int queries> __device__ __forceinline__ bool next(const fast_shared *s, int first, int stretch)
	{
		if (++tile < end)
			return true;
		row++;
		return document<queries>(s, first, stretch);
	}
};

template <int heads>
__device__ __forceinline__ void fast_produce(const CUtensorMap *query_map, const CUtensorMap *key_map, fast_shared *s,
                                             char *queries, char *ring, const fast_args &args)
{
	enum { QUERIES = PAIRS / heads };
	int first = (int)blockIdx.y * args.stretch;
	fast_walk walk = {};
	if (!walk.document<QUERIES>(s, first, args.stretch))
		return;
	barrier_expect(&s->queries, QUERY_BYTES);
	for (int half = 0; half < 2; half++)
		fetch_queries(queries + half * QUERY_BYTES / 2, query_map, half * HALF, (int)blockIdx.x * QUERIES,
		              &s->queries);
	int round = 0;
	do {
		int stage = round % STAGES;
		if (round >= STAGES)
			barrier_wait(&s->empty[stage], round / STAGES + 1 & 1);
		barrier_expect(&s->full[stage], TILE_BYTES);
		for (int half = 0; half < 2; half++)
			fetch_keys(ring + stage * TILE_BYTES + half * TILE_BYTES / 2, key_map, half * HALF,
			           walk.key0 + walk.tile * KEYS, &s->full[stage]);
		round++;
	} while (walk.next<QUERIES>(s, first, args.stretch));
}

/* Named barriers 1 and 2: the turn of warpgroup 0 and 1 to multiply. */
__device__ __forceinline__ void await_turn(int group)
{
	asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}

__device__ __forceinline__ void give_turn(int group)
{
	asm volatile("bar.arrive %0, 256;" ::"r"(1 + group) : "memory");
}

template <int heads>
__device__ __forceinline__ void fast_consume(fast_shared *s, const char *queries, const char *ring,
                                             const fast_args &args)
{
	enum { QUERIES = PAIRS / heads, OWN = QUERIES / 4, STRIPS = heads / 8 };
	int group = (int)threadIdx.x / 128, lane = (int)threadIdx.x % 32, c = lane & 3;
	int64_t row0 = (int64_t)blockIdx.x * QUERIES;
	int first = (int)blockIdx.y * args.stretch;
	fast_walk walk = {};
	if (!walk.document<QUERIES>(s, first, args.stretch))
		return;

	float weight[PAIRS / 4];
#pragma unroll
	for (int j = 0; j < PAIRS / 4; j++) {
		int pair = j / 2 * 8 + c * 2 + j % 2;
		int64_t row = row0 + pair / heads;
		weight[j] = row < args.rows ? args.weight[row * args.weight_stride + pair % heads] * args.scale : 0.0f;
	}
	/* What this lane stores: rows c, c + 4, … of the block. */
	int32_t own_pos[OWN], own_key0[OWN];
	float *own[OWN];
	int place = (int)threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
	for (int i = 0; i < OWN; i++) {
		own_pos[i] = s->pos[i * 4 + c];
		own_key0[i] = s->key0[i * 4 + c];
		own[i] = args.scores + (row0 + i * 4 + c) * args.stride + place;
	}
	barrier_wait(&s->queries, 0);

	uint64_t b = operand(queries);
	bool more = true;
	if (group == 1)
		give_turn(0);
	for (int round = 0; more; round++) {
		int tile = walk.tile, key0 = walk.key0;
		more = walk.next<QUERIES>(s, first, args.stretch);
		if ((round & 1) != group)
			continue;
		int stage = round % STAGES;
		float d[128];
		barrier_wait(&s->full[stage], round / STAGES & 1);
		uint64_t a = operand(ring + stage * TILE_BYTES);
		await_turn(group);
		asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
		for (int k = 0; k < DIM / 16; k++)
			multiply(d, a + k / 4 * (TILE_BYTES / 2 >> 4) + k % 4 * 2,
			         b + k / 4 * (QUERY_BYTES / 2 >> 4) + k % 4 * 2, k == 0);
		asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
		if (more)
			give_turn(1 - group);
		asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
		for (int i = 0; i < 128; i++)
			asm volatile("" : "+f"(d[i])::"memory");
		if (threadIdx.x % 128 == 0)
			barrier_arrive(&s->empty[stage]);

		float sum[QUERIES][2];
#pragma unroll
		for (int q = 0; q < QUERIES; q++) {
			sum[q][0] = sum[q][1] = 0;
#pragma unroll
			for (int j = q * STRIPS; j < (q + 1) * STRIPS; j++)
#pragma unroll
				for (int i = 0; i < 4; i++)
					sum[q][i / 2] = fmaf(weight[j * 2 + i % 2], relu(d[j * 4 + i]), sum[q][i / 2]);
		}
#pragma unroll
		for (int i = 0; i < OWN; i++)
#pragma unroll
			for (int half = 0; half < 2; half++) {
				float score = close_sums(sum[i * 4][half], sum[i * 4 + 1][half], sum[i * 4 + 2][half],
				                         sum[i * 4 + 3][half], c);
				if (own_key0[i] == key0 && tile * KEYS + place + half * 8 <= own_pos[i])
					own[i][tile * KEYS + half * 8] = score;
			}
	}
}

template <int heads>
__global__ void __launch_bounds__(FAST_THREADS, 1)
    fast_scores(const __grid_constant__ CUtensorMap query_map, const __grid_constant__ CUtensorMap key_map,
                const fast_args args)
{
	enum { QUERIES = PAIRS / heads };
	extern __shared__ char memory[];
	__shared__ fast_shared s;
	char *queries = (char *)(((uintptr_t)memory + 1023) & ~(uintptr_t)1023), *ring = queries + QUERY_BYTES;
	if (threadIdx.x < QUERIES) {
		int64_t row = (int64_t)blockIdx.x * QUERIES + threadIdx.x;
		s.pos[threadIdx.x] = row < args.rows ? args.pos[row] : -1;
		s.key0[threadIdx.x] = row < args.rows ? args.key0[row] : -1;
	}
	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			barrier_init(&s.full[i], 1);
			barrier_init(&s.empty[i], 1);
		}
		barrier_init(&s.queries, 1);
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	}
	__syncthreads();
	if (threadIdx.x < 256) {
		asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
		fast_consume<heads>(&s, queries, ring, args);
	} else {
		asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
		if (threadIdx.x == 256)
			fast_produce<heads>(&query_map, &key_map, &s, queries, ring, args);
	}
}

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

/* Tiles of a block's stretch: long enough to hide the start of a block, short enough for several blocks a processor. */
int choose_stretch(int64_t groups, int tiles)
{
	const int64_t processors = 132, waves = 6, least = 32;
	int64_t stretches = (processors * waves + groups - 1) / groups;
	int64_t stretch = (tiles + stretches - 1) / stretches;
	stretch = stretch < least ? least : stretch;
	return (int)((tiles + (tiles + stretch - 1) / stretch - 1) / ((tiles + stretch - 1) / stretch));
}

template <int heads>
cudaError_t launch_fast(cudaStream_t stream, const CUtensorMap &query_map, const CUtensorMap &key_map,
                        const fast_args &args, int tiles)
{
	enum { QUERIES = PAIRS / heads };
	dim3 grid((unsigned)((args.rows + QUERIES - 1) / QUERIES),
	          (unsigned)((tiles + args.stretch - 1) / args.stretch));
	cudaError_t code =
	    cudaFuncSetAttribute(fast_scores<heads>, cudaFuncAttributeMaxDynamicSharedMemorySize, FAST_SHARED);
	if (code)
		return code;
	fast_scores<heads><<<grid, FAST_THREADS, FAST_SHARED, stream>>>(query_map, key_map, args);
	return cudaGetLastError();
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

/* width: d padded, rows of keys and queries in shared memory; 0: any d, operands straight from global memory.
 * shared_four: h ≤ 4, two query rows share a tile of 8 columns. */
template <int width, bool shared_four>
__global__ void __launch_bounds__(WARPS * 32) general_scores(const general_args args)
{
	enum { STEP = width + 8, SLICES = width / 16 };
	extern __shared__ __align__(16) char memory[];
	__shared__ int32_t pos[GENERAL_ROWS], key0[GENERAL_ROWS];
	const fast_args &s = args.s;
	int lane = (int)threadIdx.x % 32, c = lane & 3, g = lane >> 2, rows = args.rows, dim = args.dim;
	int64_t row0 = (int64_t)blockIdx.x * rows;
	__nv_bfloat16 *queries = (__nv_bfloat16 *)memory, *keys = queries + rows * args.padded * STEP;
	if ((int)threadIdx.x < rows) {
		int64_t row = row0 + threadIdx.x;
		pos[threadIdx.x] = row < s.rows ? s.pos[row] : -1;
		key0[threadIdx.x] = row < s.rows ? s.key0[row] : -1;
	}
	auto query = [&](int pair) -> const __nv_bfloat16 * {
		int64_t row = row0 + pair / args.padded;
		int head = pair % args.padded;
		return row < s.rows && head < args.heads ? args.q + row * args.q_stride + (int64_t)head * dim : NULL;
	};
	if (width)
		stage_rows<width ? width : 16>(queries, rows * args.padded, dim, query);
	__syncthreads();

	int first = (int)blockIdx.y * s.stretch, last = -1;
	for (int document = 0; (document = next_document(pos, key0, rows, document, &last)) < rows; document++) {
		int begin = key0[document];
		for (int tile = first; tile < min(first + s.stretch, last / BLOCK_KEYS + 1); tile++) {
			int place = tile * BLOCK_KEYS + (int)threadIdx.x / 32 * WARP_KEYS + g;
			auto key = [&](int64_t row) -> const __nv_bfloat16 * {
				row += begin;
				return row < args.keys ? args.k + row * args.k_stride : NULL;
			};
			uint32_t a[SLICES ? SLICES : 1][2][4];
			if (width) {
				stage_rows<width ? width : 16>(keys, BLOCK_KEYS, dim,
				                               [&](int row) { return key(tile * BLOCK_KEYS + row); });
				__syncthreads();
#pragma unroll
				for (int k = 0; k < SLICES; k++)
#pragma unroll
					for (int i = 0; i < 8; i++)
						a[k][i / 4][i % 4] =
						    *(const uint32_t *)(keys +
						                        (place - tile * BLOCK_KEYS + i / 4 * 16 +
						                         i % 2 * 8) *
						                            STEP +
						                        k * 16 + i % 4 / 2 * 8 + c * 2);
				__syncthreads();
			}
			for (int n = 0; n < rows * args.padded; n += shared_four ? 8 : args.padded) {
				int row = n / args.padded;
				bool here = pos[row] >= 0 && key0[row] == begin;
				bool next =
				    shared_four && row + 1 < rows && pos[row + 1] >= 0 && key0[row + 1] == begin;
				if (!here && !next)
					continue;
				float sum[4] = {0, 0, 0, 0};
				for (int strip = n; strip < n + (shared_four ? 8 : args.padded); strip += 8) {
					float d[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
					if (width) {
#pragma unroll
						for (int k = 0; k < SLICES; k++) {
							const __nv_bfloat16 *x =
							    queries + (strip + g) * STEP + k * 16 + c * 2;
							uint32_t b[2] = {*(const uint32_t *)x,
							                 *(const uint32_t *)(x + 8)};
							mma(d[0], a[k][0], b);
							mma(d[1], a[k][1], b);
						}
					} else {
						const __nv_bfloat16 *x = query(strip + g);
						for (int k = 0; k < dim; k += 16) {
							uint32_t b[2] = {two_of(x, k + c * 2, dim),
							                 two_of(x, k + c * 2 + 8, dim)};
#pragma unroll
							for (int i = 0; i < 8; i++)
								a[0][i / 4][i % 4] =
								    two_of(key(place + i / 4 * 16 + i % 2 * 8),
								           k + i % 4 / 2 * 8 + c * 2, dim);
							mma(d[0], a[0][0], b);
							mma(d[1], a[0][1], b);
						}
					}
					float w[2];
#pragma unroll
					for (int i = 0; i < 2; i++) {
						int pair = strip + c * 2 + i, head = pair % args.padded;
						int64_t of = row0 + pair / args.padded;
						w[i] = of < s.rows && head < args.heads
						           ? s.weight[of * s.weight_stride + head] * s.scale
						           : 0.0f;
					}
#pragma unroll
					for (int i = 0; i < 8; i++)
						sum[i / 2] = fmaf(w[i % 2], relu(d[i / 4][i % 4]), sum[i / 2]);
				}
				if (shared_four) {
					/* Lanes 0 and 1 of four have the one row, 2 and 3 the other. */
#pragma unroll
					for (int i = 0; i < 4; i++)
						sum[i] += from_lane(sum[i], 1);
					row += c / 2;
					here = c / 2 ? next : here;
				} else {
					sum[0] = close_sums(sum[0], sum[1], sum[2], sum[3], c);
				}
				float *out = s.scores + (row0 + row) * s.stride;
				if (shared_four) {
#pragma unroll
					for (int i = 0; i < 2; i++) {
						int at = place + (c & 1) * 16 + i * 8;
						float x = c & 1 ? sum[2 + i] : sum[i];
						if (here && at <= pos[row])
							out[at] = x;
					}
				} else if (place + c * 8 <= pos[row]) {
					out[place + c * 8] = sum[0];
				}
			}
		}
	}
}

template <int width, bool shared_four>
cudaError_t launch_general(cudaStream_t stream, const general_args &args, int tiles)
{
	size_t shared = width ? (size_t)(args.rows * args.padded + BLOCK_KEYS) * (width + 8) * 2 : 0;
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
                                struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
                                const struct dsa_rows *rows)
{
	assert(q.dtype == DSA_BF16 && k.dtype == DSA_BF16 && weight.dtype == DSA_F32);
	if (rows->count == 0)
		return cudaSuccess;
	fast_args args = {scores,      stride, (const float *)weight.data, weight.stride, rows->pos, rows->key0,
	                  rows->count, 0,      1.0f / sqrtf((float)dim)};
	if (dim == DIM && (heads == 32 || heads == 64) && aligned(q) && aligned(k)) {
		CUtensorMap query_map, key_map;
		cuuint64_t query_size[3] = {DIM, (cuuint64_t)heads, (cuuint64_t)q.rows};
		cuuint64_t key_size[2] = {DIM, (cuuint64_t)k.rows};
		int tiles = rows->max_pos / KEYS + 1, queries = PAIRS / heads;
		args.stretch = choose_stretch((rows->count + queries - 1) / queries, tiles);
		if (make_map(&query_map, q, 3, query_size, (cuuint32_t)heads, (cuuint32_t)queries) &&
		    make_map(&key_map, k, 2, key_size, KEYS, 1))
			return heads == 32 ? launch_fast<32>(stream, query_map, key_map, args, tiles)
			                   : launch_fast<64>(stream, query_map, key_map, args, tiles);
	}
	args.stretch = 4;
	general_args wide = {args,
	                     (const __nv_bfloat16 *)q.data,
	                     (const __nv_bfloat16 *)k.data,
	                     q.stride,
	                     k.stride,
	                     k.rows,
	                     heads,
	                     0,
	                     dim,
	                     0};
	return general(stream, wide, rows->max_pos / BLOCK_KEYS + 1);
}
