/* topk.cu: the exact K largest of each row of scores, ascending positions.
 *
 * scores (R, stride) F32, row i over [0, pos(i)] → selection (R, K) I32: positions of the min(K, pos + 1) largest,
 * ascending, padded with -1; of equals the lower position, -0 equal to +0. NaN is a fault.
 *
 * One block a row. Floats are mapped to unsigned integers of the same order.
 * - Short rows are held in registers; of longer ones those that can matter are: a sample of the row gives a bound that
 *   somewhat more than K scores should reach, one pass over the row collects what reaches it. Too few or too many have
 *   reached it: no harm, the next way is taken.
 * - The K-th largest of the scores in registers is found by bisection, each step a count over the block that ends as
 * soon as exactly K reach the middle. Ties are cut by the same bisection over positions.
 * - Otherwise (mostly: more equals at the bound than room) the K-th largest is found by counting digits of 11, 11 and
 * 10 bits over the whole row, unless the bound itself is it.
 * - The selected are marked in a bit map in shared memory, which is read off in ascending order: their order of arrival
 *   does not matter, so the result is determined by the scores alone.
 *
 * Bytes: 4 · (pos + 1) read once, 5 more times at worst, 4 · K written. */
#include "kernels.h"

#include <cuda_runtime.h>

#include <assert.h>

namespace
{

enum { BINS = 2048, UNROLL = 4 };

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
 * least `wanted` of the keys are not 0. *reached: how many reach v. */
template <int threads, int items>
__device__ __forceinline__ uint32_t bisect(const uint32_t (&key)[items], uint32_t wanted, uint32_t slack,
                                           shared_sums<threads> *s, uint32_t *reached)
{
	uint32_t low = ~0U, high = 0, count = 0, lane = threadIdx.x % 32;
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
	for (int turn = 1; low < high && count > wanted + slack; turn++) {
		uint32_t middle = low + (high - low) / 2 + 1, n = 0; /* low < middle ≤ high */
#pragma unroll
		for (int i = 0; i < items; i++)
			n += key[i] >= middle;
		n = block_sum(n, s, turn);
		if (n >= wanted) {
			low = middle;
			count = n;
		} else {
			high = middle - 1;
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
	for (int digit = 0; digit < 3; digit++) {
		int bits = digit < 2 ? 11 : 10, from = shift[digit];
		__syncthreads();
		for (int i = (int)threadIdx.x; i < BINS; i += threads)
			bins[i] = 0;
		__syncthreads();
#pragma unroll 4
		for (int i = (int)threadIdx.x; i / 32 * 32 < n; i += threads) {
			uint32_t key = i < n ? key_of(row[i]) : 0;
			bool counts = i < n && (digit == 0 || key >> (from + bits) == prefix >> (from + bits));
			uint32_t bin = key >> from & ((1U << bits) - 1), all = __ballot_sync(~0U, counts);
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

/* How many keys of a row are larger than v, and how many are it. */
template <int threads>
__device__ __forceinline__ void count_around(const float *row, int n, uint32_t v, shared_sums<threads> *s,
                                             uint32_t *above, uint32_t *equal)
{
	uint32_t larger = 0, same = 0;
#pragma unroll 8
	for (int i = (int)threadIdx.x; i < n; i += threads) {
		uint32_t key = key_of(row[i]);
		larger += key > v;
		same += key == v;
	}
	__syncthreads();
	*above = block_sum(larger, s, 0);
	*equal = block_sum(same, s, 1);
}

/* Marks the positions of a row whose key is v (equal) or larger (above). A word is one warp's: no atomics. */
template <int threads>
__device__ __forceinline__ void mark_row(uint32_t *map, const float *row, int n, uint32_t v, bool equal, bool above,
                                         bool add)
{
#pragma unroll 8
	for (int i = (int)threadIdx.x; i / 32 * 32 < n; i += threads) {
		uint32_t key = i < n ? key_of(row[i]) : 0;
		uint32_t word = __ballot_sync(~0U, i < n && ((equal && key == v) || (above && key > v)));
		if (threadIdx.x % 32 == 0)
			map[i / 32] = add ? map[i / 32] | word : word;
	}
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

/* Collects what reaches `bound`, and NaN, with positions, in any order: score bits and position of each, as far as
 * there is room; s->count: how many there are. NaN sets s->bad. */
template <int threads>
__device__ __forceinline__ void collect(uint2 *list, uint32_t room, const float *row, int n, float bound,
                                        shared_sums<threads> *s)
{
	int lane = (int)threadIdx.x % 32, vectors = (n + 3) / 4;
	for (int v0 = 0; v0 < vectors; v0 += threads * UNROLL) {
		float4 x[UNROLL];
		uint32_t hits = 0;
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			int v = v0 + u * threads + (int)threadIdx.x;
			/* The vector at the end may hold undefined scores, of the row's room: not counted. */
			x[u] = v < vectors ? __ldcs((const float4 *)row + v) : float4{0, 0, 0, 0};
		}
#pragma unroll
		for (int u = 0; u < UNROLL; u++) {
			uint32_t four = (uint32_t) !(x[u].x < bound) | (uint32_t) !(x[u].y < bound) << 1 |
			                (uint32_t) !(x[u].z < bound) << 2 | (uint32_t) !(x[u].w < bound) << 3;
			int left = n - (v0 + u * threads + (int)threadIdx.x) * 4;
			if (left < 4)
				four &= left > 0 ? (1U << left) - 1 : 0;
			hits |= four << (u * 4);
		}
		int own = __popc(hits), upto = own;
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
			float score = i % 4 == 0   ? x[i / 4].x
			              : i % 4 == 1 ? x[i / 4].y
			              : i % 4 == 2 ? x[i / 4].z
			                           : x[i / 4].w;
			if (score != score)
				s->bad = 1;
			if (place < room)
				list[place] = {__float_as_uint(score),
				               (uint32_t)(v0 + i / 4 * threads + (int)threadIdx.x) * 4 + i % 4};
			place++;
		}
	}
}

/* Of a long row, a bound that somewhat more than topk scores should reach. */
template <int threads, int items>
__device__ __forceinline__ float sample_bound(const float *row, int n, int topk, shared_sums<threads> *s)
{
	enum { VECTORS = 2, SAMPLES = VECTORS * 4 * threads };
	uint32_t key[VECTORS * 4], reached;
	for (int i = 0; i < VECTORS; i++) {
		int64_t place = (int64_t)(i * threads + (int)threadIdx.x) * (n / 4) / (VECTORS * threads);
		float4 x = ((const float4 *)row)[place];
		key[i * 4] = key_of(x.x);
		key[i * 4 + 1] = key_of(x.y);
		key[i * 4 + 2] = key_of(x.z);
		key[i * 4 + 3] = key_of(x.w);
	}
	/* Four standard deviations of the number of sampled scores among the topk. */
	float expected = (float)topk * SAMPLES / (float)n;
	uint32_t wanted = (uint32_t)(expected + 4 * sqrtf(expected) + 4);
	wanted = wanted < SAMPLES ? wanted : SAMPLES;
	return score_of(bisect<threads, VECTORS * 4>(key, wanted, wanted / 16, s, &reached));
}

template <int threads, int items>
__global__ void __launch_bounds__(threads)
    select_rows(int32_t *selection, int topk, const float *scores, int64_t stride, const int32_t *positions,
                const int32_t *key0, struct kernel_fault *fault)
{
	enum { ROOM = threads * items };
	extern __shared__ __align__(16) uint32_t memory[];
	__shared__ shared_sums<threads> s;
	int64_t r = blockIdx.x;
	const float *row = scores + r * stride;
	int32_t *out = selection + r * topk;
	int n = positions[r] + 1, words = (n + 31) / 32;
	uint32_t key[items], place[items], count = (uint32_t)n, v, reached;

	if (threadIdx.x == 0) {
		s.count = 0;
		s.bad = 0;
	}
	__syncthreads();
	if (n <= topk) {
		bool bad = false;
		for (int i = (int)threadIdx.x; i < n; i += threads)
			bad |= row[i] != row[i];
		for (int i = (int)threadIdx.x; i < topk; i += threads)
			out[i] = i < n ? i : -1;
		if (bad)
			atomicMin(&fault->nan_score, (unsigned long long)(key0[r] + n - 1));
		return;
	}
	if (n <= ROOM) {
#pragma unroll
		for (int i = 0; i < items; i++) {
			place[i] = (uint32_t)(i * threads) + threadIdx.x;
			float x = place[i] < count ? row[place[i]] : 0.0f;
			/* 0 is the key of no number, and of a NaN at most. */
			key[i] = place[i] < count ? max(key_of(x), 1U) : 0;
			if (x != x)
				s.bad = 1;
		}
	} else {
		float bound = sample_bound<threads, items>(row, n, topk, &s);
		collect<threads>((uint2 *)memory, ROOM, row, n, bound, &s);
		__syncthreads();
		count = s.count;
		if (count < (uint32_t)topk || count > ROOM) {
			uint32_t above = 0, equal = 0;
			v = key_of(bound);
			if (count > ROOM)
				count_around<threads>(row, n, v, &s, &above, &equal);
			if (above >= (uint32_t)topk || above + equal < (uint32_t)topk)
				v = count_digits<threads>(row, n, (uint32_t)topk, memory, &s, &above, &equal);
			if (above + equal == (uint32_t)topk) {
				mark_row<threads>(memory, row, n, v, true, true, false);
			} else {
				mark_row<threads>(memory, row, n, v, true, false, false);
				__syncthreads();
				cut_marks<threads>(memory, words, (uint32_t)topk - above, &s);
				mark_row<threads>(memory, row, n, v, false, true, true);
			}
			__syncthreads();
			read_marks<threads>(out, topk, memory, words, &s);
			if (threadIdx.x == 0 && s.bad)
				atomicMin(&fault->nan_score, (unsigned long long)(key0[r] + n - 1));
			return;
		}
#pragma unroll
		for (int i = 0; i < items; i++) {
			uint32_t at = (uint32_t)(i * threads) + threadIdx.x;
			uint2 one = at < count ? ((const uint2 *)memory)[at] : uint2{0, 0};
			key[i] = at < count ? max(key_of(__uint_as_float(one.x)), 1U) : 0;
			place[i] = one.y;
		}
	}
	v = bisect<threads, items>(key, (uint32_t)topk, 0, &s, &reached);
	uint32_t limit = ~0U; /* of the positions of those that equal v */
	if (reached > (uint32_t)topk) {
		uint32_t low[items], above = 0, same;
#pragma unroll
		for (int i = 0; i < items; i++) {
			above += key[i] > v;
			low[i] = key[i] == v ? ~place[i] : 0;
		}
		__syncthreads();
		above = block_sum(above, &s, 0);
		limit = ~bisect<threads, items>(low, (uint32_t)topk - above, 0, &s, &same);
	}
	__syncthreads();
	for (int i = (int)threadIdx.x; i < words; i += threads)
		memory[i] = 0;
	__syncthreads();
#pragma unroll
	for (int i = 0; i < items; i++)
		if (key[i] > v || (key[i] == v && place[i] <= limit))
			atomicOr(&memory[place[i] / 32], 1U << place[i] % 32);
	__syncthreads();
	read_marks<threads>(out, topk, memory, words, &s);
	if (threadIdx.x == 0 && s.bad)
		atomicMin(&fault->nan_score, (unsigned long long)(key0[r] + n - 1));
}

template <int threads, int items>
cudaError_t launch(cudaStream_t stream, int32_t *selection, int topk, const float *scores, int64_t stride,
                   const struct dsa_rows *rows, struct kernel_fault *fault)
{
	size_t bytes = (size_t)rows->max_pos / 32 * 4 + 4, list = (size_t)threads * items * sizeof(uint2);
	/* Of the list, the marks and the bins: at different times, in the same place. */
	if (rows->max_pos >= threads * items) {
		bytes = bytes > list ? bytes : list;
		bytes = bytes > BINS * 4 ? bytes : BINS * 4;
	}
	cudaError_t code =
	    cudaFuncSetAttribute(select_rows<threads, items>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
	if (code)
		return code;
	select_rows<threads, items><<<(unsigned)rows->count, threads, bytes, stream>>>(selection, topk, scores, stride,
	                                                                               rows->pos, rows->key0, fault);
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
		return launch<512, 8>(stream, selection, topk, scores, stride, rows, fault);
	return launch<512, 16>(stream, selection, topk, scores, stride, rows, fault);
}
