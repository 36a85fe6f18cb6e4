/* topk.cu: the exact K largest of each row of scores, ascending positions.
 *
 * scores (R, stride) F32, row i over [0, pos(i)] → selection (R, K) I32: positions of the min(K, pos + 1) largest,
 * ascending, padded with -1; of equals the lower position, -0 equal to +0. NaN is a fault.
 *
 * One block a row. Floats are mapped to unsigned integers of the same order.
 * - Short rows are held in registers; of longer ones those that can matter are: a sample of the row gives a bound that
 *   somewhat more than K scores should reach, one pass over the row collects what reaches it. Where too few or too many
 *   do, a better bound is made of what was seen and the pass repeated.
 * - The K-th largest of the scores in registers is found by narrowing a range, each step a count over the block, that
 *   ends as soon as exactly K reach the bound. Ties are cut by the same search over positions.
 * - Otherwise (mostly: more equals at the bound than room) the K-th largest is the bound itself or found by counting
 *   digits of 11, 11 and 10 bits over the row, and one more pass splits the row at it.
 * - The selected are marked in a bit map in shared memory, which is read off in ascending order: their order of arrival
 *   does not matter, so the result is determined by the scores alone.
 *
 * Bytes: 4 · (pos + 1) read once, two or three times where equals abound or the sample misled, seven times at worst;
 * 4 · K written.
 *
 * H100 80GB HBM3, 2026-11-27, `gpu_tests speed`, K = 2048, the indexer's scores: 1024 rows of 32768 in 0.144 ms, of
 * 65536 in 0.187, of 131072 in 0.332: 2.1, 1.7 and 1.7 times one read of them. */
#include "kernels.h"

#include <cuda_runtime.h>

#include <assert.h>

namespace
{

enum { BINS = 2048, UNROLL = 4, SAMPLES = 4096 };

/* -0 is +0's key; a NaN's lies above infinity's or below its negative. */
__device__ __forceinline__ uint32_t key_of(float x)
{
	uint32_t bits = __float_as_uint(x + 0.0f);
	return bits ^ (uint32_t)((int32_t)bits >> 31 | INT32_MIN);
}

__device__ __forceinline__ float score_of(uint32_t key)
{
	return __uint_as_float(key ^ (key >> 31 ? 1U << 31 : ~0U));
}

template <int threads> struct shared_sums {
	uint32_t part[2][threads / 32];
	uint32_t least[threads / 32], most[threads / 32];
	uint32_t count, bad, found, above, equal;
};

/* Sum over the block; `turn` alternates between calls, so that one barrier a call is enough. */
template <int threads> __device__ __forceinline__ uint32_t block_sum(uint32_t x, shared_sums<threads> *s, int turn)
{
	x = __reduce_add_sync(~0U, x);
	if (threadIdx.x % 32 == 0)
		s->part[turn & 1][threadIdx.x / 32] = x;
	__syncthreads();
	uint32_t lane = threadIdx.x % 32;
	return __reduce_add_sync(~0U, lane < threads / 32 ? s->part[turn & 1][lane] : 0);
}

/* Sum over the threads before this one. */
template <int threads> __device__ __forceinline__ uint32_t block_scan(uint32_t x, shared_sums<threads> *s)
{
	uint32_t lane = threadIdx.x % 32, sum = x;
	for (uint32_t d = 1; d < 32; d *= 2) {
		uint32_t below = __shfl_up_sync(~0U, sum, d);
		sum += lane >= d ? below : 0;
	}
	__syncthreads();
	if (lane == 31)
		s->part[0][threadIdx.x / 32] = sum;
	__syncthreads();
	uint32_t before = __reduce_add_sync(~0U, lane < threadIdx.x / 32 ? s->part[0][lane] : 0);
	__syncthreads();
	return before + sum - x;
}

/* The bound v that `wanted` … wanted + slack of the keys reach, or else the largest that at least `wanted` reach; at
 * least `wanted` of the keys are not 0. *reached: how many reach v. Steps go where the counts so far, taken for
 * straight lines, would cross; every third halves the range, whatever the keys are like. */
template <int threads, int items>
__device__ __forceinline__ uint32_t search(const uint32_t (&key)[items], uint32_t wanted, uint32_t slack,
                                           shared_sums<threads> *s, uint32_t *reached)
{
	uint32_t low = ~0U, high = 0, count = 0, beyond = 0, lane = threadIdx.x % 32;
#pragma unroll
	for (int i = 0; i < items; i++) {
		low = key[i] && key[i] < low ? key[i] : low;
		high = key[i] > high ? key[i] : high;
		count += key[i] != 0;
	}
	low = __reduce_min_sync(~0U, low);
	high = __reduce_max_sync(~0U, high);
	__syncthreads();
	if (lane == 0) {
		s->least[threadIdx.x / 32] = low;
		s->most[threadIdx.x / 32] = high;
	}
	count = block_sum(count, s, 0);
	low = __reduce_min_sync(~0U, lane < threads / 32 ? s->least[lane] : ~0U);
	high = __reduce_max_sync(~0U, lane < threads / 32 ? s->most[lane] : 0);
	/* `count` ≥ wanted reach low, `beyond` < wanted reach high + 1. */
	for (int turn = 1; low < high && count > wanted + slack; turn++) {
		float part = ((float)(count - wanted) - 0.5f * (float)slack) / (float)(count - beyond);
		uint32_t step = turn % 3 ? (uint32_t)((float)(high - low) * part) : (high - low) / 2;
		uint32_t middle = low + min(step, high - low - 1) + 1, n = 0;
#pragma unroll
		for (int i = 0; i < items; i++)
			n += key[i] >= middle;
		n = block_sum(n, s, turn);
		if (n >= wanted) {
			low = middle;
			count = n;
		} else {
			high = middle - 1;
			beyond = n;
		}
	}
	*reached = count;
	return low;
}

/* The K-th largest key of a row, by digits; *above: how many are larger, *equal: how many are it. */
template <int threads>
__device__ __forceinline__ uint32_t count_digits(const float *row, int n, uint32_t wanted, uint32_t *bins,
                                                 shared_sums<threads> *s, uint32_t *above, uint32_t *equal)
{
	static const int shift[3] = {21, 10, 0};
	uint32_t prefix = 0, larger = 0;
	int vectors = (n + 3) / 4;
	for (int digit = 0; digit < 3; digit++) {
		int bits = digit < 2 ? 11 : 10, from = shift[digit];
		__syncthreads();
		for (int i = (int)threadIdx.x; i < BINS; i += threads)
			bins[i] = 0;
		__syncthreads();
		for (int v0 = 0; v0 < vectors; v0 += threads * 2) {
			uint32_t key[8];
			int left[2];
#pragma unroll
			for (int u = 0; u < 2; u++) {
				int at = v0 + u * threads + (int)threadIdx.x;
				float4 x = at < vectors ? __ldcs((const float4 *)row + at) : float4{0, 0, 0, 0};
				key[u * 4] = key_of(x.x);
				key[u * 4 + 1] = key_of(x.y);
				key[u * 4 + 2] = key_of(x.z);
				key[u * 4 + 3] = key_of(x.w);
				left[u] = n - at * 4;
			}
#pragma unroll
			for (int i = 0; i < 8; i++) {
				bool counts = i % 4 < left[i / 4] &&
				              (digit == 0 || key[i] >> (from + bits) == prefix >> (from + bits));
				uint32_t bin = key[i] >> from & ((1U << bits) - 1), all = __ballot_sync(~0U, counts);
				if (!all)
					continue;
				/* Equals come in crowds: those of the first lane's bin are counted at once. */
				int leader = __ffs((int)all) - 1;
				uint32_t crowd = __shfl_sync(~0U, bin, leader);
				uint32_t same = __ballot_sync(~0U, counts && bin == crowd);
				if ((int)(threadIdx.x % 32) == leader)
					atomicAdd(&bins[bin], (uint32_t)__popc(same));
				else if (counts && bin != crowd)
					atomicAdd(&bins[bin], 1U);
			}
		}
		__syncthreads();
		/* From the highest bin down: thread t has the t-th share from above. */
		enum { SHARE = BINS / threads };
		int top = BINS - 1 - (int)threadIdx.x * SHARE;
		uint32_t sum = 0;
		for (int i = 0; i < SHARE; i++)
			sum += bins[top - i];
		uint32_t before = larger + block_scan(sum, s);
		for (int i = 0; i < SHARE; i++) {
			uint32_t here = bins[top - i];
			if (before < wanted && before + here >= wanted) {
				s->found = (uint32_t)(top - i);
				s->above = before;
				s->equal = here;
			}
			before += here;
		}
		__syncthreads();
		prefix |= s->found << from;
		larger = s->above;
	}
	*above = larger;
	*equal = s->equal;
	__syncthreads();
	return prefix;
}

/* Clears all marks but the lowest `keep`. */
template <int threads>
__device__ __forceinline__ void cut_marks(uint32_t *map, int words, uint32_t keep, shared_sums<threads> *s)
{
	int share = (words + threads - 1) / threads, first = (int)threadIdx.x * share;
	uint32_t sum = 0;
	for (int i = first; i < min(first + share, words); i++)
		sum += (uint32_t)__popc(map[i]);
	uint32_t before = block_scan(sum, s);
	for (int i = first; i < min(first + share, words); i++) {
		uint32_t word = map[i], left = before < keep ? keep - before : 0;
		before += (uint32_t)__popc(word);
		while ((uint32_t)__popc(word) > left)
			word &= ~(1U << (31 - __clz((int)word)));
		map[i] = word;
	}
	__syncthreads();
}

/* Writes the positions marked, at most `topk`, ascending. Warps take stretches of words, lanes neighbouring words. */
template <int threads>
__device__ __forceinline__ void read_marks(int32_t *out, int topk, const uint32_t *map, int words,
                                           shared_sums<threads> *s)
{
	int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
	int share = ((words + threads - 1) / threads) * 32, first = warp * share, end = min(first + share, words);
	uint32_t sum = 0;
	for (int i = first + lane; i < end; i += 32)
		sum += (uint32_t)__popc(map[i]);
	sum = __reduce_add_sync(~0U, sum);
	if (lane == 0)
		s->part[0][warp] = sum;
	__syncthreads();
	int place = (int)__reduce_add_sync(~0U, lane < warp ? s->part[0][lane] : 0);
	for (int i = first; i < end; i += 32) {
		uint32_t word = i + lane < end ? map[i + lane] : 0;
		int own = __popc(word), upto = own;
		for (int d = 1; d < 32; d *= 2) {
			int below = __shfl_up_sync(~0U, upto, (unsigned)d);
			upto += lane >= d ? below : 0;
		}
		int to = place + upto - own;
		for (; word; word &= word - 1, to++)
			if (to < topk)
				out[to] = (i + lane) * 32 + __ffs((int)word) - 1;
		place += __shfl_sync(~0U, upto, 31);
	}
}

/* Where a lane's hits of a step go: `hits` of its UNROLL vectors, appended to the list. */
template <int threads>
__device__ __forceinline__ void append(uint2 *list, uint32_t room, const float4 (&x)[UNROLL], uint32_t hits, int v0,
                                       shared_sums<threads> *s)
{
	int lane = (int)threadIdx.x % 32, own = __popc(hits), upto = own;
	for (int d = 1; d < 32; d *= 2) {
		int below = __shfl_up_sync(~0U, upto, (unsigned)d);
		upto += lane >= d ? below : 0;
	}
	uint32_t place = 0;
	if (lane == 31 && upto)
		place = atomicAdd(&s->count, (uint32_t)upto);
	place = __shfl_sync(~0U, place, 31) + (uint32_t)(upto - own);
#pragma unroll
	for (int i = 0; i < UNROLL * 4; i++) {
		if (!(hits >> i & 1))
			continue;
		float score = i % 4 == 0 ? x[i / 4].x : i % 4 == 1 ? x[i / 4].y : i % 4 == 2 ? x[i / 4].z : x[i / 4].w;
		if (score != score)
			s->bad = 1;
		if (place < room)
			list[place] = {__float_as_uint(score),
			               (uint32_t)(v0 + i / 4 * threads + (int)threadIdx.x) * 4 + i % 4};
		place++;
	}
}

/* The first `left` of four bits. */
__device__ __forceinline__ uint32_t first_of_four(uint32_t four, int left)
{
	return left >= 4 ? four : left > 0 ? four & ((1U << left) - 1) : 0;
}

/* Collects what reaches `bound`, and NaN, in any order: score bits and position of each, as far as there is room;
 * returns how many there are. NaN sets s->bad. */
template <int threads>
__device__ __forceinline__ uint32_t collect(uint2 *list, uint32_t room, const float *row, int n, float bound,
                                            shared_sums<threads> *s)
{
	int vectors = (n + 3) / 4;
	__syncthreads();
	if (threadIdx.x == 0)
		s->count = 0;
	__syncthreads();
	for (int v0 = 0; v0 < vectors; v0 += threads * UNROLL) {
		float4 x[UNROLL];
		uint32_t hits = 0;
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			int v = v0 + u * threads + (int)threadIdx.x;
			/* The last vector may end in undefined scores, of the row's room: not counted. */
			x[u] = v < vectors ? __ldcs((const float4 *)row + v) : float4{0, 0, 0, 0};
		}
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			uint32_t four = (uint32_t) !(x[u].x < bound) | (uint32_t) !(x[u].y < bound) << 1 |
			                (uint32_t) !(x[u].z < bound) << 2 | (uint32_t) !(x[u].w < bound) << 3;
			int left = n - (v0 + u * threads + (int)threadIdx.x) * 4;
			hits |= first_of_four(four, left) << (u * 4);
		}
		append(list, room, x, hits, v0, s);
	}
	__syncthreads();
	return s->count;
}

/* Collects the scores whose key is larger than v and marks those that equal it, all the map written. Returns how many
 * are larger, *equal: how many are equal. */
template <int threads>
__device__ __forceinline__ uint32_t split(uint2 *list, uint32_t room, uint32_t *map, const float *row, int n,
                                          uint32_t v, shared_sums<threads> *s, uint32_t *equal)
{
	int vectors = (n + 3) / 4, words = (n + 31) / 32;
	uint32_t same = 0;
	__syncthreads();
	if (threadIdx.x == 0)
		s->count = 0;
	__syncthreads();
	for (int v0 = 0; v0 < vectors; v0 += threads * UNROLL) {
		float4 x[UNROLL];
		uint32_t hits = 0, ties = 0;
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			int i = v0 + u * threads + (int)threadIdx.x;
			x[u] = i < vectors ? __ldcs((const float4 *)row + i) : float4{0, 0, 0, 0};
		}
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			uint32_t k[4] = {key_of(x[u].x), key_of(x[u].y), key_of(x[u].z), key_of(x[u].w)};
			uint32_t larger = 0, four = 0;
#pragma unroll
			for (int i = 0; i < 4; i++) {
				larger |= (uint32_t)(k[i] > v) << i;
				four |= (uint32_t)(k[i] == v) << i;
			}
			int left = n - (v0 + u * threads + (int)threadIdx.x) * 4;
			hits |= first_of_four(larger, left) << (u * 4);
			ties |= first_of_four(four, left) << (u * 4);
		}
		same += (uint32_t)__popc(ties);
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			/* Eight lanes' vectors are a word of the map. */
			uint32_t word = (ties >> (u * 4) & 15) << threadIdx.x % 8 * 4;
			word |= __shfl_xor_sync(~0U, word, 1);
			word |= __shfl_xor_sync(~0U, word, 2);
			word |= __shfl_xor_sync(~0U, word, 4);
			int at = (v0 + u * threads + (int)threadIdx.x) / 8;
			if (threadIdx.x % 8 == 0 && at < words)
				map[at] = word;
		}
		append(list, room, x, hits, v0, s);
	}
	__syncthreads();
	*equal = block_sum(same, s, 0);
	__syncthreads();
	return s->count;
}

/* Of a long row, a bound that somewhat more than topk scores, not more than `room`, should reach: four standard
 * deviations of the number of sampled ones above the mean, or else half way, `widen` times as many. */
template <int threads>
__device__ __forceinline__ float sample_bound(const float *row, int n, int topk, int room, int widen,
                                              shared_sums<threads> *s)
{
	enum { VECTORS = SAMPLES / 4 / threads };
	uint32_t key[VECTORS * 4], reached;
#pragma unroll
	for (int i = 0; i < VECTORS; i++) {
		int64_t place = (int64_t)(i * threads + (int)threadIdx.x) * (n / 4) / (VECTORS * threads);
		float4 x = ((const float4 *)row)[place];
		key[i * 4] = max(key_of(x.x), 1U);
		key[i * 4 + 1] = max(key_of(x.y), 1U);
		key[i * 4 + 2] = max(key_of(x.z), 1U);
		key[i * 4 + 3] = max(key_of(x.w), 1U);
	}
	float least = (float)topk * SAMPLES / (float)n,
	      half = 0.5f * (sqrtf(least) + sqrtf((float)room * SAMPLES / (float)n));
	float most = least + 4 * sqrtf(least) + 4;
	uint32_t wanted = (uint32_t)(half * half < most ? half * half : most) * (uint32_t)widen + 1;
	wanted = wanted < SAMPLES ? wanted : SAMPLES;
	return score_of(search<threads, VECTORS * 4>(key, wanted, wanted / 16, s, &reached));
}

/* 0 is the key of no number, and of one NaN: it stands for nothing. */
template <int threads, int items>
__device__ __forceinline__ void take_list(uint32_t (&key)[items], const uint2 *list, uint32_t count)
{
#pragma unroll
	for (int i = 0; i < items; i++) {
		uint32_t at = (uint32_t)(i * threads) + threadIdx.x;
		key[i] = at < count ? max(key_of(__uint_as_float(list[at].x)), 1U) : 0;
	}
}

/* Collects between topk and threads · items scores of a long row that no other score exceeds, and returns how many; or
 * returns another number: there are none such, or they were not found. *bound: what they reach. */
template <int threads, int items>
__device__ __forceinline__ uint32_t collect_best(uint2 *list, const float *row, int n, int topk,
                                                 shared_sums<threads> *s, float *bound)
{
	enum { ROOM = threads * items };
	*bound = sample_bound<threads>(row, n, topk, ROOM, 1, s);
	uint32_t count = collect<threads>(list, ROOM, row, n, *bound, s), reached;
	if (count > ROOM) {
		/* The list is a sample, of most of those that can matter. */
		uint32_t key[items];
		float expected = (float)topk * ROOM / (float)count;
		uint32_t wanted = (uint32_t)(expected + 4 * sqrtf(expected) + 4);
		take_list<threads, items>(key, list, ROOM);
		float better =
		    score_of(search<threads, items>(key, wanted < ROOM ? wanted : ROOM, wanted / 16, s, &reached));
		if (!(better > *bound))
			return count;
		*bound = better;
	} else if (count < (uint32_t)topk) {
		*bound = sample_bound<threads>(row, n, topk, ROOM, 2, s);
	} else {
		return count;
	}
	return collect<threads>(list, ROOM, row, n, *bound, s);
}

template <int threads, int items>
__global__ void __launch_bounds__(threads, threads == 256 ? 4 : 1)
    select_rows(int32_t *selection, int topk, const float *scores, int64_t stride, const int32_t *positions,
                const int32_t *key0, bool has_list, struct kernel_fault *fault)
{
	enum { ROOM = threads * items, LONG = ROOM >= SAMPLES };
	extern __shared__ __align__(16) uint32_t memory[];
	__shared__ shared_sums<threads> s;
	int64_t r = blockIdx.x;
	const float *row = scores + r * stride;
	int32_t *out = selection + r * topk;
	int n = positions[r] + 1, words = (n + 31) / 32;
	uint2 *list = (uint2 *)memory; /* the bins lie in its place */
	uint32_t *map = memory + (has_list ? ROOM * 2 : 0), key[items], count = (uint32_t)n, reached;

	if (threadIdx.x == 0)
		s.bad = 0;
	__syncthreads();
	if (n <= topk) {
		for (int i = (int)threadIdx.x; i < n; i += threads)
			if (row[i] != row[i])
				s.bad = 1;
		for (int i = (int)threadIdx.x; i < topk; i += threads)
			out[i] = i < n ? i : -1;
		__syncthreads();
		if (threadIdx.x == 0 && s.bad)
			atomicMin(&fault->nan_score, (unsigned long long)(key0[r] + n - 1));
		return;
	}
	bool whole = !LONG || n <= ROOM; /* the row is in registers */
	float bound = 0;
	if (whole) {
#pragma unroll
		for (int i = 0; i < items; i++) {
			int at = i * threads + (int)threadIdx.x;
			float x = at < n ? row[at] : 0.0f;
			key[i] = at < n ? max(key_of(x), 1U) : 0;
			if (x != x)
				s.bad = 1;
		}
	} else {
		count = collect_best<threads, items>(list, row, n, topk, &s, &bound);
	}
	if (whole || (count >= (uint32_t)topk && count <= ROOM)) {
		if (!whole)
			take_list<threads, items>(key, list, count);
		for (int i = (int)threadIdx.x; i < words; i += threads)
			map[i] = 0;
		uint32_t v = search<threads, items>(key, (uint32_t)topk, 0, &s, &reached);
		uint32_t limit = ~0U; /* of the positions of those that equal v */
		if (reached > (uint32_t)topk) {
			uint32_t low[items], above = 0, same;
#pragma unroll
			for (int i = 0; i < items; i++) {
				uint32_t at = (uint32_t)(i * threads) + threadIdx.x;
				above += key[i] > v;
				low[i] = key[i] == v ? ~(whole ? at : list[at].y) : 0;
			}
			__syncthreads();
			above = block_sum(above, &s, 0);
			limit = ~search<threads, items>(low, (uint32_t)topk - above, 0, &s, &same);
		}
#pragma unroll
		for (int i = 0; i < items; i++) {
			uint32_t at = (uint32_t)(i * threads) + threadIdx.x;
			if (whole) {
				/* A warp's positions are a word of the map. */
				uint32_t word = __ballot_sync(~0U, key[i] > v || (key[i] == v && at <= limit));
				if (at % 32 == 0 && at < count)
					map[at / 32] = word;
			} else if (key[i] >= v) {
				at = list[at].y;
				if (key[i] > v || at <= limit)
					atomicOr(&map[at / 32], 1U << at % 32);
			}
		}
	} else {
		uint32_t above = 0, equal = 0, v = key_of(bound);
		if (count > ROOM)
			above = split<threads>(list, ROOM, map, row, n, v, &s, &equal);
		if (above >= (uint32_t)topk || above + equal < (uint32_t)topk) {
			v = count_digits<threads>(row, n, (uint32_t)topk, memory, &s, &above, &equal);
			above = split<threads>(list, ROOM, map, row, n, v, &s, &equal);
		}
		cut_marks<threads>(map, words, (uint32_t)topk - above, &s);
		for (uint32_t i = threadIdx.x; i < above; i += threads)
			atomicOr(&map[list[i].y / 32], 1U << list[i].y % 32);
	}
	__syncthreads();
	read_marks<threads>(out, topk, map, words, &s);
	if (threadIdx.x == 0 && s.bad)
		atomicMin(&fault->nan_score, (unsigned long long)(key0[r] + n - 1));
}

template <int threads, int items>
cudaError_t launch(cudaStream_t stream, int32_t *selection, int topk, const float *scores, int64_t stride,
                   const struct dsa_rows *rows, struct kernel_fault *fault)
{
	bool has_list = rows->max_pos >= threads * items;
	size_t bytes = (size_t)rows->max_pos / 32 * 4 + 4 + (has_list ? (size_t)threads * items * sizeof(uint2) : 0);
	cudaError_t code =
	    cudaFuncSetAttribute(select_rows<threads, items>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
	if (code)
		return code;
	select_rows<threads, items><<<(unsigned)rows->count, threads, bytes, stream>>>(
	    selection, topk, scores, stride, rows->pos, rows->key0, has_list, fault);
	return cudaGetLastError();
}

} // namespace

cudaError_t kernel_topk(cudaStream_t stream, int32_t *selection, int topk, const float *scores, int64_t stride,
                        const struct dsa_rows *rows, struct kernel_fault *fault)
{
	assert(topk > 0 && topk <= 4096 && rows->max_pos < 1 << 20);
	assert(!((uintptr_t)scores % 16) && !(stride % 4) && stride > rows->max_pos);
	if (rows->count == 0)
		return cudaSuccess;
	if (rows->max_pos < 1024)
		return launch<128, 8>(stream, selection, topk, scores, stride, rows, fault);
	if (topk <= 2048 && rows->max_pos < 1 << 18)
		return launch<256, 16>(stream, selection, topk, scores, stride, rows, fault);
	return launch<512, 16>(stream, selection, topk, scores, stride, rows, fault);
}
