/* index_scores_wgmma.cuh: the scores of index_scores.cu for d = 128 and h = 32 or 64, by Hopper's warpgroup products.
 *
 * A block owns 256 / h neighbouring query rows and walks a stretch of keys, 64 at a time. Keys are the M operand, the
 * 256 (query, head) pairs the N operand, which stays in shared memory; keys come by bulk tensor copies through a ring.
 * Two warpgroups take tiles in turn, one multiplies while the other weighs: a thread holds 2 keys × 64 pairs, always
 * the same pairs, so its weights stay in registers, the sum over heads is made in registers and closed over four lanes.
 * A third warpgroup's first thread is the producer. */
#ifndef DSA_KERNELS_INDEX_SCORES_WGMMA_CUH
#define DSA_KERNELS_INDEX_SCORES_WGMMA_CUH

#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

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

} // namespace

#endif
