/* index_scores_wgmma.cuh: the scores of index_scores.cu for d = 128 and h = 32 or 64, by Hopper's warpgroup products.
 *
 * A unit of work is 256 / h neighbouring query rows and a stretch of keys, taken 64 at a time; as many blocks as there
 * are processors take units in turn. Keys are the M operand, the 256 (query, head) pairs the N operand, which stays in
 * shared memory. Two warpgroups take tiles in turn, one multiplies while the other weighs: a thread holds 2 keys × 64
 * pairs, always the same pairs, so a unit's weights stay in registers, the sum over heads is made in registers and
 * closed over four lanes. In a third warpgroup one thread fetches keys and queries by bulk tensor copies, and one warp
 * prepares the unit after: its rows, their documents and their weights.
 *
 * H100 80GB HBM3, 2026-11-27, `gpu_tests speed`, 2048 rows at 65536 keys: 676 TFLOP/s with 64 heads, 656 with 32.
 * Products in halves of 128 pairs, so that a warpgroup weighs one half during the other, were slower. */
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

enum {
	DIM = 128,
	PAIRS = 256,                   /* (query, head) of a unit */
	KEYS = 64,                     /* of a tile */
	STAGES = 5,                    /* tiles in the ring */
	LAST = 2,                      /* steps of a product that the other warpgroup's may overlap */
	HALF = 64,                     /* columns of a swizzled box: 128 bytes */
	QUERY_BYTES = PAIRS * DIM * 2, /* as two boxes, columns [0, 64) and [64, 128) */
	TILE_BYTES = KEYS * DIM * 2,   /* likewise */
	FAST_THREADS = 384             /* warpgroups 0 and 1 multiply, 2 provides */
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
	int64_t rows, groups, units; /* unit = stretch · groups + group of rows */
	int stretch;                 /* tiles */
	float scale;
	const float *key_scales; /* NULL: none */
};

/* A unit, as prepared. Documents of its rows: those that have tiles in the stretch. */
struct fast_unit {
	float weight[PAIRS]; /* times d^-1/2; 0 for rows behind R */
	int32_t pos[8], key0[8];
	int32_t document[8], end[8]; /* first key row, tile behind the last */
	int documents, first;        /* tile */
	int64_t row;
};

/* Barriers: `full`, `empty` of a stage of the ring; `ready`, `queries`, `free` of a unit; `turn` of a warpgroup. */
struct fast_shared {
	uint64_t full[STAGES], empty[STAGES], ready[2], queries[2], free[2], turn[2];
	fast_unit unit[2];
};

enum { FAST_SHARED = 2 * QUERY_BYTES + STAGES * TILE_BYTES + (int)sizeof(fast_shared) };

/* The n-th unit of a block, or none. Every other time blocks line up the other way round: neighbouring units are of
 * similar lengths, ascending within a document. */
__device__ __forceinline__ bool unit_of(int n, int64_t units, int64_t *unit)
{
	int64_t place = n & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
	*unit = n * (int64_t)gridDim.x + place;
	return *unit < units;
}

/* Sum of four values' shares of four lanes: lane c (of its four) gets value c. */
__device__ __forceinline__ float close_sums(float a, float b, float c, float d, int lane)
{
	bool odd = lane & 1, upper = lane & 2;
	float ab = (odd ? b : a) + from_lane(odd ? a : b, 1);
	float cd = (odd ? d : c) + from_lane(odd ? c : d, 1);
	return (upper ? cd : ab) + from_lane(upper ? ab : cd, 2);
}

/* One warp: prepares unit after unit. */
template <int heads> __device__ __forceinline__ void fast_prepare(fast_shared *s, const fast_args &args)
{
	enum { QUERIES = PAIRS / heads };
	int lane = (int)threadIdx.x % 32;
	int64_t which;
	for (int n = 0; unit_of(n, args.units, &which); n++) {
		fast_unit *unit = &s->unit[n & 1];
		int64_t row0 = which % args.groups * QUERIES, row = row0 + lane;
		int first = (int)(which / args.groups) * args.stretch;
		bool real = lane < QUERIES && row < args.rows, head = real;
		int32_t pos = real ? args.pos[row] : -1, key0 = real ? args.key0[row] : -1, last = pos;
		float weight[PAIRS / 32];
#pragma unroll
		for (int i = 0; i < PAIRS / 32; i++) {
			int pair = i * 32 + lane;
			weight[i] =
			    row0 + pair / heads < args.rows
				? args.weight[(row0 + pair / heads) * args.weight_stride + pair % heads] * args.scale
				: 0.0f;
		}
		/* The first row of a document speaks for it. */
		for (int i = 0; i < QUERIES; i++) {
			int32_t other = __shfl_sync(~0U, pos, i);
			bool same = __shfl_sync(~0U, key0, i) == key0;
			last = same ? max(last, other) : last;
			head = head && !(same && i < lane);
		}
		int end = min(first + args.stretch, last / KEYS + 1);
		head = head && first < end;
		uint32_t all = __ballot_sync(~0U, head);
		if (n >= 2)
			barrier_wait(&s->free[n & 1], n / 2 + 1 & 1);
#pragma unroll
		for (int i = 0; i < PAIRS / 32; i++)
			unit->weight[i * 32 + lane] = weight[i];
		if (lane < QUERIES) {
			unit->pos[lane] = pos;
			unit->key0[lane] = key0;
		}
		if (head) {
			int place = __popc(all & ((1U << lane) - 1));
			unit->document[place] = key0;
			unit->end[place] = end;
		}
		if (lane == 0) {
			unit->documents = __popc(all);
			unit->first = first;
			unit->row = row0;
		}
		barrier_arrive(&s->ready[n & 1]);
	}
}

/* One thread: fetches the queries of each unit and its tiles of keys. */
template <int heads>
__device__ __forceinline__ void fast_fetch(const CUtensorMap *query_map, const CUtensorMap *key_map, fast_shared *s,
                                           char *queries, char *ring, const fast_args &args)
{
	int64_t which;
	int round = 0;
	for (int n = 0; unit_of(n, args.units, &which); n++) {
		const fast_unit *unit = &s->unit[n & 1];
		uint64_t *bar = &s->queries[n & 1];
		barrier_wait(&s->ready[n & 1], n / 2 & 1);
		if (unit->documents) {
			barrier_expect(bar, QUERY_BYTES);
			for (int half = 0; half < 2; half++)
				fetch_queries(queries + (n & 1) * QUERY_BYTES + half * QUERY_BYTES / 2, query_map,
				              half * HALF, (int)unit->row, bar);
		} else {
			barrier_arrive(bar);
		}
		for (int i = 0; i < unit->documents; i++)
			for (int tile = unit->first; tile < unit->end[i]; tile++, round++) {
				int stage = round % STAGES;
				if (round >= STAGES)
					barrier_wait(&s->empty[stage], round / STAGES + 1 & 1);
				barrier_expect(&s->full[stage], TILE_BYTES);
				for (int half = 0; half < 2; half++)
					fetch_keys(ring + stage * TILE_BYTES + half * TILE_BYTES / 2, key_map,
					           half * HALF, unit->document[i] + tile * KEYS, &s->full[stage]);
			}
		barrier_arrive(&s->free[n & 1]);
	}
}

/* d = keys (64, d) · queries (256, d)ᵀ, queued in two groups: all but the LAST steps of 16 columns, and those. */
__device__ __forceinline__ void multiply_tile(float (&d)[128], const char *keys, const char *queries)
{
	uint64_t a = operand(keys), b = operand(queries);
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
	for (int k = 0; k < DIM / 16; k++) {
		multiply(d, a + k / 4 * (TILE_BYTES / 2 >> 4) + k % 4 * 2,
		         b + k / 4 * (QUERY_BYTES / 2 >> 4) + k % 4 * 2, k == 0);
		if (k + 1 == DIM / 16 - LAST || k + 1 == DIM / 16)
			asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
	}
}

/* Until at most `pending` groups are not complete. */
template <int pending> __device__ __forceinline__ void wait_for_products()
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/* Two warpgroups: multiply and weigh every other tile of all the block's. */
template <int heads, bool scaled>
__device__ __forceinline__ void fast_consume(fast_shared *s, const char *queries, const char *ring,
                                             const fast_args &args)
{
	enum { QUERIES = PAIRS / heads, OWN = QUERIES / 4, STRIPS = heads / 8 };
	int group = (int)threadIdx.x / 128, lane = (int)threadIdx.x % 32, c = lane & 3;
	int place = (int)threadIdx.x % 128 / 32 * 16 + lane / 4;
	int64_t which;
	int round = 0;
	for (int n = 0; unit_of(n, args.units, &which); n++) {
		const fast_unit *unit = &s->unit[n & 1];
		barrier_wait(&s->ready[n & 1], n / 2 & 1);
		float weight[PAIRS / 4];
#pragma unroll
		for (int j = 0; j < PAIRS / 8; j++) {
			float2 two = *(const float2 *)&unit->weight[j * 8 + c * 2];
			weight[j * 2] = two.x;
			weight[j * 2 + 1] = two.y;
		}
		/* What this lane stores: rows c, c + 4, … of the unit. */
		int32_t own_pos[OWN], own_key0[OWN];
		float *own[OWN];
#pragma unroll
		for (int i = 0; i < OWN; i++) {
			own_pos[i] = unit->pos[i * 4 + c];
			own_key0[i] = unit->key0[i * 4 + c];
			own[i] = args.scores + (unit->row + i * 4 + c) * args.stride + place;
		}
		int documents = unit->documents, first = unit->first;
		barrier_wait(&s->queries[n & 1], n / 2 & 1);
		for (int document = 0; document < documents; document++) {
			int key0 = unit->document[document], end = unit->end[document];
			for (int tile = first; tile < end; tile++, round++) {
				if ((round & 1) != group)
					continue;
				int stage = round % STAGES;
				float d[128];
				barrier_wait(&s->full[stage], round / STAGES & 1);
				/* Warpgroup 0 begins; then each waits until the other is almost done. */
				barrier_wait(&s->turn[group], round / 2 + 1 + group & 1);
				multiply_tile(d, ring + stage * TILE_BYTES, queries + (n & 1) * QUERY_BYTES);
				/* Not earlier: products of both would share the tensor cores and end together, and the
				 * tensor cores rest while both weigh. */
				wait_for_products<1>();
				if (lane == 0)
					barrier_arrive(&s->turn[1 - group]);
				wait_for_products<0>();
#pragma unroll
				for (int i = 0; i < 128; i++)
					asm volatile("" : "+f"(d[i])::"memory");
				if (lane == 0)
					barrier_arrive(&s->empty[stage]);
				/* Of a lane's two keys; those behind the last key are read and not used. */
				float key_scale[2];
				if (scaled) {
					const float *scales = args.key_scales + key0 + tile * KEYS + place;
					key_scale[0] = scales[0];
					key_scale[1] = scales[8];
				}
				float sum[QUERIES][2];
#pragma unroll
				for (int q = 0; q < QUERIES; q++) {
					sum[q][0] = sum[q][1] = 0;
#pragma unroll
					for (int j = q * STRIPS; j < (q + 1) * STRIPS; j++)
#pragma unroll
						for (int i = 0; i < 4; i++)
							sum[q][i / 2] = fmaf(weight[j * 2 + i % 2], relu(d[j * 4 + i]),
							                     sum[q][i / 2]);
				}
#pragma unroll
				for (int i = 0; i < OWN; i++)
#pragma unroll
					for (int half = 0; half < 2; half++) {
						float score = close_sums(sum[i * 4][half], sum[i * 4 + 1][half],
						                         sum[i * 4 + 2][half], sum[i * 4 + 3][half], c);
						if (own_key0[i] == key0 && tile * KEYS + place + half * 8 <= own_pos[i])
							own[i][tile * KEYS + half * 8] =
							    scaled ? score * key_scale[half] : score;
					}
			}
		}
		barrier_arrive(&s->free[n & 1]);
	}
}

template <int heads, bool scaled>
__global__ void __launch_bounds__(FAST_THREADS, 1)
    fast_scores(const __grid_constant__ CUtensorMap query_map, const __grid_constant__ CUtensorMap key_map,
                const fast_args args)
{
	extern __shared__ __align__(1024) char fast_memory[];
	char *queries = fast_memory, *ring = queries + 2 * QUERY_BYTES;
	fast_shared &s = *(fast_shared *)(ring + STAGES * TILE_BYTES);
	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			barrier_init(&s.full[i], 1);
			barrier_init(&s.empty[i], 4); /* the warps of the warpgroup whose tile it is */
		}
		for (int i = 0; i < 2; i++) {
			barrier_init(&s.ready[i], 32);
			barrier_init(&s.queries[i], 1);
			barrier_init(&s.free[i], 256 + 1); /* those that multiply and the one that fetches */
			barrier_init(&s.turn[i], 4);
		}
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	}
	__syncthreads();
	if (threadIdx.x < 256) {
		asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
		fast_consume<heads, scaled>(&s, queries, ring, args);
	} else {
		asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
		if (threadIdx.x / 32 == 9)
			fast_prepare<heads>(&s, args);
		if (threadIdx.x == 256)
			fast_fetch<heads>(&query_map, &key_map, &s, queries, ring, args);
	}
}

} // namespace

#endif
