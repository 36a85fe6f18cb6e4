/* attention_512.cuh: sparse attention for a latent of 512 and 64 rope dims, any number of heads, on warpgroup products.
 *
 * A tile is 64 heads of one query row; blocks are persistent and take tiles in order, so that the head groups of a row
 * and neighbouring rows, whose selections are much alike, read the same keys from L2 at about the same time. 3
 * warpgroups: one gathers 64 selected keys (64 × 576) at a time, alternately into two buffers, 16 bytes per copy; two
 * compute. "Even" takes the logits of the 1st, 3rd, … 64 keys and output columns 0 … 255, "odd" those of the 2nd, 4th,
 * … and columns 256 … 511: logits are computed once, and what one needs of the other's is its maximum and its
 * probabilities, through shared memory. While one is at its softmax the other keeps the tensor cores busy.
 *
 * A pair of 64-key blocks (x even's, y odd's):
 *   even: logits x → maximum m, p(x) → O += p(x)·x → takes odd's maximum, p(x) to shared memory, → O += p(y)·y
 *   odd:  logits y → takes even's maximum, p(y) → O += p(y)·y, p(y) to shared memory → O += p(x)·x
 * Even's probabilities lie over the rope dims of x, which only the logits, done by then, need.
 *
 * Key buffers are handed over by halves: columns 0 … 255, whose last reader is even, and the rest, whose is odd. */
#ifndef DSA_KERNELS_ATTENTION_512_CUH
#define DSA_KERNELS_ATTENTION_512_CUH

#include <math.h>

#include "attention_job.cuh"
#include "attention_wgmma.cuh"

namespace attention_512
{

using namespace attention;

constexpr int latent = 512, width = 576, heads = 64, block = 64, threads = 384;
constexpr int half = latent / 2;
constexpr uint32_t tile = 64 * 128;   /* bytes of 64 rows × 64 columns */
constexpr int tiles = width / 64;     /* of a query group or a key block */
constexpr int half_tiles = half / 64; /* of the left half; the right one has the rope dims too */

/* Shared memory, in bytes from its start. */
constexpr uint32_t queries = 0;
__host__ __device__ constexpr uint32_t keys_at(int buffer)
{
	return (1 + buffer) * tiles * tile;
}
constexpr uint32_t p_even = keys_at(0) + (tiles - 1) * tile;
constexpr uint32_t p_odd = keys_at(2);
constexpr uint32_t maxima = p_odd + tile;        /* [2][64] float, by who wrote them */
constexpr uint32_t sums = maxima + 2 * 64 * 4;   /* [2][64] float */
constexpr uint32_t barriers = sums + 2 * 64 * 4; /* mbarriers: ready[buffer][half], free[buffer][half], told ones */
/* What one computing warpgroup tells the other once a pair, and where both meet, twice a tile. */
enum { READY = 0, FREE = 4, MAX_EVEN = 8, MAX_ODD, P_EVEN, P_ODD, COMPUTE, BARRIERS };
constexpr uint32_t shared_bytes = barriers + BARRIERS * 8;

/* What this thread wrote to or saw in shared memory comes before what tensor cores read from here on. */
__device__ __forceinline__ void publish()
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void await(uint32_t barrier, int parity)
{
	asm volatile("{\n.reg .pred done;\nagain:\n"
	             "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
	             "@!done bra again;\n}\n" ::"r"(barrier),
	             "r"(parity)
	             : "memory");
}

__device__ __forceinline__ void arrive(uint32_t barrier)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* One arrival per warp. */
__device__ __forceinline__ void release(uint32_t barrier)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		arrive(barrier);
}

__device__ __forceinline__ uint32_t ready(uint32_t shared, int buffer, int right)
{
	return shared + barriers + (uint32_t)(READY + buffer * 2 + right) * 8;
}

__device__ __forceinline__ uint32_t free_again(uint32_t shared, int buffer, int right)
{
	return shared + barriers + (uint32_t)(FREE + buffer * 2 + right) * 8;
}

/* What this thread wrote is there for who awaits `name`. Every thread arrives for itself, which costs nothing
 * measurable: racecheck follows that, but not a warp's lane 0 arriving for lanes that it synchronised with. */
__device__ __forceinline__ void tell(uint32_t shared, int name)
{
	arrive(shared + barriers + (uint32_t)name * 8);
}

__device__ __forceinline__ void await_told(uint32_t shared, int name, int parity)
{
	await(shared + barriers + (uint32_t)name * 8, parity);
	__syncwarp();
}

__device__ __forceinline__ int pairs_of(int count)
{
	return (count + 2 * block - 1) / (2 * block);
}

/* The gathering warpgroup ---------------------------------------------------------------------------------------- */

/* 8 lanes copy 128 bytes of a row; a thread copies chunk `chunk` of every 64 columns of rows line, line + 16, … */
struct gatherer {
	const __nv_bfloat16 *from[2][4];
	uint32_t valid; /* bit buffer · 4 + i */

	/* Where the keys of pair `pair` are. */
	__device__ __forceinline__ void find(const struct attention_job &job, int64_t row, int count, int pair)
	{
		int line = (int)(threadIdx.x % 128) / 8, chunk = (int)threadIdx.x % 8;
		int32_t last = job.pos[row];
		int64_t key0 = job.key0[row];
		const int32_t *selection = job.selection + row * job.topk;
		valid = 0;
#pragma unroll
		for (int n = 0; n < 8; n++) {
			int at = pair * 2 * block + line + 16 * n;
			int32_t key = at < count ? __ldg(selection + at) : -1;
			bool inside = key >= 0 && key <= last;
			from[n / 4][n % 4] = job.keys + (key0 + (inside ? key : 0)) * job.key_stride + chunk * 8;
			valid |= (uint32_t)inside << n;
		}
	}

	template <int buffer, int right> __device__ __forceinline__ void copy(uint32_t shared, int parity)
	{
		int line = (int)(threadIdx.x % 128) / 8, chunk = (int)threadIdx.x % 8;
		uint32_t to = shared + keys_at(buffer) + (uint32_t)(line * 128 + ((chunk ^ (line & 7)) << 4));
		await(free_again(shared, buffer, right), parity);
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int t = right ? half_tiles : 0; t < (right ? tiles : half_tiles); t++)
				copy_16(to + t * tile + i * 16 * 128, from[buffer][i] + t * 64,
				        valid >> (buffer * 4 + i) & 1);
		asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(ready(shared, buffer, right))
		             : "memory");
	}
};

__device__ __forceinline__ void gather(const struct attention_job &job, uint32_t shared)
{
	int parity = 1;
	for (int64_t at = blockIdx.x; at < job.tiles; at += gridDim.x) {
		int64_t row = at / job.groups;
		int count = selected(job, row), pairs = pairs_of(count);
		struct gatherer keys;
		for (int pair = 0; pair < pairs; pair++, parity ^= 1) {
			keys.find(job, row, count, pair);
			/* In the order in which the computing warpgroups need them and set them free. */
			keys.copy<0, 0>(shared, parity);
			keys.copy<1, 1>(shared, parity);
			keys.copy<0, 1>(shared, parity);
			keys.copy<1, 0>(shared, parity);
		}
	}
	await_copies();
}

/* The computing warpgroups --------------------------------------------------------------------------------------- */

/* What a thread holds of its warpgroup's 64 heads: rows line and line + 8 of its warp's 16, of every 8 columns two. */
struct part {
	float o[128];         /* 64 heads × 256 columns */
	float s[32];          /* 64 heads × 64 keys: logits, then probabilities */
	uint32_t p[16];       /* probabilities in bf16 */
	float max[2], sum[2]; /* max in units of the exponent; sum: of this thread's columns */
};

/* The 64-key block in `buffer`: s = (first ? 0 : s) + q·key over tiles [from, to) of the columns. */
template <int buffer, int from, int to>
__device__ __forceinline__ void logits(struct part &x, uint32_t shared, bool first)
{
#pragma unroll
	for (int t = from; t < to; t++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			wgmma::product_64(x.s, wgmma::along(shared + queries + t * tile + k * 32),
			                  wgmma::along(shared + keys_at(buffer) + t * tile + k * 32),
			                  !first || t > from || k > 0);
}

template <int buffer, int right> __device__ __forceinline__ uint64_t values(uint32_t shared, int k)
{
	return wgmma::across(shared + keys_at(buffer) + right * half_tiles * tile + k * 16 * 128, tile);
}

/* O += own probabilities · values of `buffer`. */
template <int buffer, int right> __device__ __forceinline__ void add_own(struct part &x, uint32_t shared)
{
#pragma unroll
	for (int k = 0; k < 4; k++)
		wgmma::product_256(x.o, x.p[4 * k], x.p[4 * k + 1], x.p[4 * k + 2], x.p[4 * k + 3],
		                   values<buffer, right>(shared, k));
}

/* O += the other's probabilities, at `p` in shared memory, · values of `buffer`. */
template <int buffer, int right> __device__ __forceinline__ void add_other(struct part &x, uint32_t shared, uint32_t p)
{
#pragma unroll
	for (int k = 0; k < 4; k++)
		wgmma::product_256(x.o, wgmma::along(shared + p + k * 32), values<buffer, right>(shared, k));
}

/* O and the sums to a new maximum. */
__device__ __forceinline__ void rescale(struct part &x, const float (&by)[2])
{
	x.sum[0] *= by[0];
	x.sum[1] *= by[1];
#pragma unroll
	for (int i = 0; i < 128; i++)
		x.o[i] *= by[i >> 1 & 1];
}

/* s to probabilities under the maximum of `floor` and s; O and sum go along. Keys from `left` on do not count. */
__device__ __forceinline__ void softmax(struct part &x, const float (&floor)[2], float scale, int left)
{
	int column = (int)(threadIdx.x % 4) * 2;
	if (left < block) {
#pragma unroll
		for (int i = 0; i < 32; i++)
			if (i / 4 * 8 + column + (i & 1) >= left)
				x.s[i] = -INFINITY;
	}
	float max[2] = {x.s[0], x.s[2]}, by[2];
#pragma unroll
	for (int i = 0; i < 32; i++)
		max[i >> 1 & 1] = fmaxf(max[i >> 1 & 1], x.s[i]);
#pragma unroll
	for (int h = 0; h < 2; h++) {
		max[h] = fmaxf(max[h], __shfl_xor_sync(0xffffffff, max[h], 1));
		max[h] = fmaxf(max[h], __shfl_xor_sync(0xffffffff, max[h], 2));
		max[h] = fmaxf(floor[h], max[h] * scale);
		by[h] = exp2_fast(x.max[h] - max[h]);
		x.max[h] = max[h];
	}
	rescale(x, by);
#pragma unroll
	for (int i = 0; i < 32; i++) {
		x.s[i] = exp2_fast(fmaf(x.s[i], scale, -max[i >> 1 & 1]));
		x.sum[i >> 1 & 1] += x.s[i];
	}
}

__device__ __forceinline__ void round_p(struct part &x)
{
#pragma unroll
	for (int i = 0; i < 16; i++)
		x.p[i] = pack(x.s[2 * i], x.s[2 * i + 1]);
}

/* p to shared memory, as the other's left operand. */
__device__ __forceinline__ void store_p(const struct part &x, uint32_t to)
{
	uint32_t line = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 16, side = threadIdx.x % 32 / 16;
#pragma unroll
	for (uint32_t k = 0; k < 4; k++)
		asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
				 to + line * 128 + ((2 * k + side ^ (line & 7)) << 4)),
		             "r"(x.p[4 * k]), "r"(x.p[4 * k + 1]), "r"(x.p[4 * k + 2]), "r"(x.p[4 * k + 3])
		             : "memory");
}

/* Row of the accumulator, of the thread's two. */
__device__ __forceinline__ int head_of(int h)
{
	return (int)(threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4) + 8 * h;
}

__device__ __forceinline__ float *shared_floats(unsigned char *memory, uint32_t at)
{
	return (float *)(memory + at);
}

__device__ __forceinline__ void tell_max(const struct part &x, float *max)
{
	if (threadIdx.x % 4 == 0) {
		max[head_of(0)] = x.max[0];
		max[head_of(1)] = x.max[1];
	}
}

/* The queries of a tile to shared memory, by both computing warpgroups; heads behind the last are zero. */
__device__ __forceinline__ void load_queries(const struct attention_job &job, uint32_t shared, int64_t at)
{
	int line = (int)threadIdx.x / 8, chunk = (int)threadIdx.x % 8;
	int64_t row = at / job.groups;
	int first = (int)(at % job.groups) * heads;
	const __nv_bfloat16 *from = job.q + row * job.q_stride + chunk * 8;
	uint32_t to = shared + queries + (uint32_t)(line * 128 + ((chunk ^ (line & 7)) << 4));
#pragma unroll
	for (int i = 0; i < 2; i++) {
		int head = first + line + 32 * i;
		bool valid = head < job.heads;
		const __nv_bfloat16 *q = from + (int64_t)(valid ? head : 0) * width;
#pragma unroll
		for (int t = 0; t < tiles; t++)
			copy_16(to + t * tile + i * 32 * 128, q + t * 64, valid);
	}
}

/* The words that 4 neighbouring lanes hold of 4 groups of 8 columns → each lane all words of one group. */
__device__ __forceinline__ uint4 collect(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
	uint32_t ab = __shfl_xor_sync(0xffffffff, odd ? a : b, 1), cd = __shfl_xor_sync(0xffffffff, odd ? c : d, 1);
	a = odd ? ab : a, b = odd ? b : ab;
	c = odd ? cd : c, d = odd ? d : cd;
	uint32_t ac = __shfl_xor_sync(0xffffffff, high ? a : c, 2), bd = __shfl_xor_sync(0xffffffff, high ? b : d, 2);
	return high ? make_uint4(ac, bd, c, d) : make_uint4(a, b, ac, bd);
}

__device__ __forceinline__ void store_output(const struct attention_job &job, const struct part &x, int64_t at,
                                             int right, const float (&sum)[2])
{
	int64_t row = at / job.groups;
	int first = (int)(at % job.groups) * heads;
#pragma unroll
	for (int h = 0; h < 2; h++) {
		int head = first + head_of(h);
		float by = 1.0f / sum[h];
		__nv_bfloat16 *to =
		    job.out + row * job.out_stride + (int64_t)head * latent + right * half + threadIdx.x % 4 * 8;
#pragma unroll
		for (int j = 0; j < 8; j++) {
			const float *o = x.o + j * 16 + h * 2;
			uint4 words = collect(pack(o[0] * by, o[1] * by), pack(o[4] * by, o[5] * by),
			                      pack(o[8] * by, o[9] * by), pack(o[12] * by, o[13] * by));
			if (head < job.heads)
				*(uint4 *)(to + j * 32) = words;
		}
	}
}

__device__ __forceinline__ void start(struct part &x)
{
#pragma unroll
	for (int i = 0; i < 128; i++)
		x.o[i] = 0.0f;
	x.max[0] = x.max[1] = -1e30f;
	x.sum[0] = x.sum[1] = 0.0f;
}

__device__ __forceinline__ void await_queries(uint32_t shared)
{
	await_copies();
	publish();
	tell(shared, COMPUTE);
	await_told(shared, COMPUTE, 0);
}

__device__ __forceinline__ void await_keys(uint32_t barrier, int parity)
{
	await(barrier, parity);
	__syncwarp();
	publish();
}

/* The tile's last step: whole sums, the next tile's queries on their way while the output is written. */
__device__ __forceinline__ void finish(const struct attention_job &job, struct part &x, unsigned char *memory,
                                       uint32_t shared, int64_t at, int odd)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		x.sum[h] += __shfl_xor_sync(0xffffffff, x.sum[h], 1);
		x.sum[h] += __shfl_xor_sync(0xffffffff, x.sum[h], 2);
		if (threadIdx.x % 4 == 0)
			shared_floats(memory, sums)[odd * 64 + head_of(h)] = x.sum[h];
	}
	tell(shared, COMPUTE);
	await_told(shared, COMPUTE, 1);
	if (at + gridDim.x < job.tiles)
		load_queries(job, shared, at + gridDim.x);
	float sum[2];
#pragma unroll
	for (int h = 0; h < 2; h++)
		sum[h] = shared_floats(memory, sums)[head_of(h)] + shared_floats(memory, sums)[64 + head_of(h)];
	store_output(job, x, at, odd, sum);
}

__device__ __forceinline__ void even(const struct attention_job &job, unsigned char *memory, uint32_t shared)
{
	float *max_even = shared_floats(memory, maxima), *max_odd = max_even + 64;
	struct part x;
	int parity = 0;
	for (int64_t at = blockIdx.x; at < job.tiles; at += gridDim.x) {
		int count = selected(job, at / job.groups), pairs = pairs_of(count);
		start(x);
		await_queries(shared);
		await_keys(ready(shared, 0, 0), parity);
		await_keys(ready(shared, 0, 1), parity);
		wgmma::hold(x.s);
		wgmma::fence();
		logits<0, 0, tiles>(x, shared, true);
		wgmma::commit();
		wgmma::wait<0>();
		wgmma::hold(x.s);
		for (int pair = 0; pair < pairs; pair++) {
			const float floor[2] = {x.max[0], x.max[1]};
			softmax(x, floor, job.scale, count - pair * 2 * block);
			tell_max(x, max_even);
			tell(shared, MAX_EVEN);
			round_p(x);

			wgmma::hold(x.o);
			wgmma::fence();
			add_own<0, 0>(x, shared);
			wgmma::commit();
			wgmma::wait<0>();
			wgmma::hold(x.o);
			wgmma::hold(x.p);
			release(free_again(shared, 0, 0));

			/* Odd's maximum is at least ours. */
			await_told(shared, MAX_ODD, parity);
			float by[2];
#pragma unroll
			for (int h = 0; h < 2; h++) {
				float max = max_odd[head_of(h)];
				by[h] = exp2_fast(x.max[h] - max);
				x.max[h] = max;
			}
#pragma unroll
			for (int i = 0; i < 32; i++)
				x.s[i] *= by[i >> 1 & 1];
			round_p(x);
			store_p(x, shared + p_even);
			publish();
			tell(shared, P_EVEN);
			rescale(x, by);

			await_told(shared, P_ODD, parity);
			wgmma::hold(x.o);
			wgmma::fence();
			add_other<1, 0>(x, shared, p_odd);
			wgmma::commit();
			parity ^= 1;
			if (pair + 1 < pairs) {
				wgmma::hold(x.s);
				await_keys(ready(shared, 0, 0), parity);
				wgmma::fence();
				logits<0, 0, half_tiles>(x, shared, true);
				wgmma::commit();
				wgmma::wait<1>();
				release(free_again(shared, 1, 0));
				await_keys(ready(shared, 0, 1), parity);
				wgmma::fence();
				logits<0, half_tiles, tiles>(x, shared, false);
				wgmma::commit();
				wgmma::wait<0>();
				wgmma::hold(x.s);
				wgmma::hold(x.o);
			} else {
				wgmma::wait<0>();
				wgmma::hold(x.o);
				release(free_again(shared, 1, 0));
			}
		}
		finish(job, x, memory, shared, at, 0);
	}
}

__device__ __forceinline__ void odd(const struct attention_job &job, unsigned char *memory, uint32_t shared)
{
	float *max_even = shared_floats(memory, maxima), *max_odd = max_even + 64;
	struct part x;
	int parity = 0;
	for (int64_t at = blockIdx.x; at < job.tiles; at += gridDim.x) {
		int count = selected(job, at / job.groups), pairs = pairs_of(count);
		start(x);
		await_queries(shared);
		for (int pair = 0; pair < pairs; pair++) {
			wgmma::hold(x.s);
			await_keys(ready(shared, 1, 1), parity);
			wgmma::fence();
			logits<1, half_tiles, tiles>(x, shared, true);
			await_keys(ready(shared, 1, 0), parity);
			wgmma::fence();
			logits<1, 0, half_tiles>(x, shared, false);
			wgmma::commit();
			wgmma::wait<0>();
			wgmma::hold(x.s);

			await_told(shared, MAX_EVEN, parity);
			const float floor[2] = {max_even[head_of(0)], max_even[head_of(1)]};
			softmax(x, floor, job.scale, count - pair * 2 * block - block);
			tell_max(x, max_odd);
			tell(shared, MAX_ODD);
			round_p(x);

			wgmma::hold(x.o);
			wgmma::fence();
			add_own<1, 1>(x, shared);
			wgmma::commit();
			store_p(x, shared + p_odd);
			publish();
			tell(shared, P_ODD);
			await_told(shared, P_EVEN, parity);
			wgmma::fence();
			add_other<0, 1>(x, shared, p_even);
			wgmma::commit();
			wgmma::wait<1>();
			release(free_again(shared, 1, 1));
			wgmma::wait<0>();
			wgmma::hold(x.o);
			wgmma::hold(x.p);
			release(free_again(shared, 0, 1));
			parity ^= 1;
		}
		finish(job, x, memory, shared, at, 1);
	}
}

__global__ void __launch_bounds__(threads, 1) attend(const __grid_constant__ struct attention_job job)
{
	extern __shared__ __align__(1024) unsigned char memory[];
	uint32_t shared = (uint32_t)__cvta_generic_to_shared(memory);
	if (threadIdx.x == 0) {
		/* Free: the warps of the last reader; else all threads that gather, tell, or compute. */
		for (uint32_t i = 0; i < BARRIERS; i++)
			asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared + barriers + i * 8),
			             "r"(i >= FREE && i < MAX_EVEN ? 4
			                 : i == COMPUTE            ? 256
			                                           : 128)
			             : "memory");
		asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	}
	__syncthreads();
	if (threadIdx.x >= 256) {
		asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
		gather(job, shared);
	} else {
		asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
		if (blockIdx.x < job.tiles)
			load_queries(job, shared, blockIdx.x);
		if (threadIdx.x < 128)
			even(job, memory, shared);
		else
			odd(job, memory, shared);
	}
}

} // namespace attention_512

#endif
