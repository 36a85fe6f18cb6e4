/* sparse_attention.cu: absorbed multi-head latent attention of each query row over its selected keys.
 *
 *   logit(a, s) = scale · q_a · key(s), out_a = Σ_s softmax_s(logit(a, ·)) · key(s)[0 … c)
 *
 * q (R, H · (c + r)), keys (N, c + r), out (R, H · c) BF16; selection (R, K) I32, of a row at position t the first
 * min(K, t + 1) entries, key row = key0 + entry. Logits, softmax (base 2, online) and sums are F32.
 *
 * c = 512, r = 64, the shape of every published model: attention_512.cuh, probabilities rounded to BF16 for the second
 * product. Other multiples of 16: attention_16.cuh. Any other shape, and rows that are not 16-byte aligned: below.
 * There a block takes one row and up to 8 heads in 4 warps, 64 keys at a time in shared memory (BF16, an odd number of
 * words apart, so that neighbouring keys lie in different banks): for the logits a thread has one key and 4 heads, from
 * then on a warp has 2 heads and a lane pairs of output columns, in F32 throughout.
 *
 * FLOPs per row: 2 · H · K · (2c + r). Bytes per row: (c + r) · 2 · K of keys for every 64 heads (here: 8), which
 * neighbouring rows mostly find in L2, H · (2c + r) · 2 of queries and outputs, 4 · K of the selection.
 *
 * H100 80GB HBM3, 2026-11-27, `dsacal bench` at 65536 tokens, the last 8192 rows, K = 2048: 528 TFLOP/s with 64 heads,
 * 545 with 128, where a product of 8192³ by cuBLAS makes 730 and 712 in the same runs.
 *
 * Deterministic: a row and head is summed by one block in an order that only its number of keys decides. */
#include <assert.h>
#include <math.h>

#include "attention_16.cuh"
#include "attention_512.cuh"
#include "attention_job.cuh"
#include "kernels.h"

namespace
{

using namespace attention;

constexpr int group = 8, block = 64, threads = 128;

/* Words of two columns. */
struct layout {
	int words, pitch, out_words;
	__host__ __device__ layout(int latent, int width)
	    : words((width + 1) / 2), pitch(words | 1), out_words((latent + 1) / 2)
	{
	}
	__host__ __device__ size_t bytes() const
	{
		return (size_t)group * ((size_t)words * 8 + (size_t)out_words * 8 + block * 4) +
		       (size_t)block * (size_t)pitch * 4;
	}
};

/* Columns 2 · word and the next of a row, zero from `width` on. */
__device__ __forceinline__ uint32_t load_pair(const __nv_bfloat16 *row, int word, int width, bool even)
{
	if (even)
		return ((const uint32_t *)row)[word];
	const uint16_t *bits = (const uint16_t *)row + 2 * word;
	return bits[0] | (uint32_t)(2 * word + 1 < width ? bits[1] : 0) << 16;
}

/* keys[i] = the row's selected key first + i, for i in [0, count): a warp takes 16 keys, 8 loads in flight per lane. */
__device__ __forceinline__ void gather(uint32_t *keys, const struct attention_job &job, const struct layout &l,
                                       int64_t row, int first, int count)
{
	constexpr int own = block / (threads / 32), flight = 8;
	int lane = (int)threadIdx.x % 32, base = (int)threadIdx.x / 32 * own;
	int32_t place = 0, last = job.pos[row];
	if (lane < own && base + lane < count)
		place = min(max(job.selection[row * job.topk + first + base + lane], 0), last);
	const __nv_bfloat16 *document = job.keys + job.key0[row] * job.key_stride;
	for (int i = 0; i < own && base + i < count; i += flight) {
		const __nv_bfloat16 *from[flight];
#pragma unroll
		for (int n = 0; n < flight; n++)
			from[n] = document + __shfl_sync(0xffffffff, place, i + n) * job.key_stride;
		for (int w = lane; w < l.words; w += 32) {
			uint32_t word[flight];
#pragma unroll
			for (int n = 0; n < flight; n++)
				word[n] = load_pair(from[n], w, job.width, job.even_keys);
#pragma unroll
			for (int n = 0; n < flight; n++)
				keys[(base + i + n) * l.pitch + w] = word[n];
		}
	}
}

/* p[a][i] = logit of head a and key i, for the thread's key and 4 heads. */
__device__ __forceinline__ void logits(float *p, const float2 *q, const uint32_t *keys, const struct layout &l,
                                       float scale)
{
	int i = (int)threadIdx.x % block, a = (int)threadIdx.x / block * 4;
	float sum[4] = {};
	for (int w = 0; w < l.words; w++) {
		float2 key = unpack(keys[i * l.pitch + w]);
#pragma unroll
		for (int b = 0; b < 4; b++) {
			float2 x = q[(a + b) * l.words + w];
			sum[b] = fmaf(x.y, key.y, fmaf(x.x, key.x, sum[b]));
		}
	}
#pragma unroll
	for (int b = 0; b < 4; b++)
		p[(a + b) * block + i] = sum[b] * scale;
}

/* One head's logits, by a warp: to probabilities under the new maximum. Returns what the sums so far shrink by. */
__device__ __forceinline__ float softmax(float *p, int count, float *max, float *sum)
{
	int lane = (int)threadIdx.x % 32;
	float x[2];
	for (int n = 0; n < 2; n++)
		x[n] = lane + 32 * n < count ? p[lane + 32 * n] : -INFINITY;
	float top = fmaxf(*max, warp_max(fmaxf(x[0], x[1])));
	float by = exp2f(*max - top);
	for (int n = 0; n < 2; n++)
		p[lane + 32 * n] = x[n] = exp2f(x[n] - top);
	*sum = *sum * by + warp_sum(x[0] + x[1]);
	*max = top;
	return by;
}

/* out[w] = out[w] · by + Σ_i p[i] · key i for a warp's two heads. */
__device__ __forceinline__ void add_values(float2 *out, const float *p, const float (&by)[2], const uint32_t *keys,
                                           const struct layout &l, int count)
{
	for (int w = (int)threadIdx.x % 32; w < l.out_words; w += 32) {
		float2 sum[2];
#pragma unroll
		for (int b = 0; b < 2; b++) {
			sum[b] = out[b * l.out_words + w];
			sum[b].x *= by[b];
			sum[b].y *= by[b];
		}
		for (int i = 0; i < count; i++) {
			float2 value = unpack(keys[i * l.pitch + w]);
#pragma unroll
			for (int b = 0; b < 2; b++) {
				float x = p[b * block + i];
				sum[b].x = fmaf(x, value.x, sum[b].x);
				sum[b].y = fmaf(x, value.y, sum[b].y);
			}
		}
#pragma unroll
		for (int b = 0; b < 2; b++)
			out[b * l.out_words + w] = sum[b];
	}
}

__device__ __forceinline__ void store(const struct attention_job &job, const struct layout &l, int64_t row, int head,
                                      const float2 *out, float sum)
{
	__nv_bfloat16 *to = job.out + row * job.out_stride + (int64_t)head * job.latent;
	float by = 1.0f / sum;
	for (int w = (int)threadIdx.x % 32; w < l.out_words; w += 32) {
		__nv_bfloat162 pair = __floats2bfloat162_rn(out[w].x * by, out[w].y * by);
		if (job.even_out) {
			((__nv_bfloat162 *)to)[w] = pair;
			continue;
		}
		to[2 * w] = pair.x;
		if (2 * w + 1 < job.latent)
			to[2 * w + 1] = pair.y;
	}
}

__global__ void __launch_bounds__(threads) attend(const __grid_constant__ struct attention_job job)
{
	extern __shared__ float2 memory[];
	const struct layout l(job.latent, job.width);
	float2 *q = memory;
	float2 *out = q + group * l.words;
	float *p = (float *)(out + group * l.out_words);
	uint32_t *keys = (uint32_t *)(p + group * block);

	int64_t row = blockIdx.x / (unsigned)job.groups;
	int first = (int)(blockIdx.x % (unsigned)job.groups) * group, heads = min(group, job.heads - first);
	int count = selected(job, row);
	const __nv_bfloat16 *from = job.q + row * job.q_stride + (int64_t)first * job.width;
	for (int i = (int)threadIdx.x; i < group * l.words; i += threads) {
		int a = i / l.words, w = i % l.words;
		q[i] =
		    a < heads ? unpack(load_pair(from + a * job.width, w, job.width, job.even_q)) : make_float2(0, 0);
	}
	for (int i = (int)threadIdx.x; i < group * l.out_words; i += threads)
		out[i] = make_float2(0, 0);

	int own = (int)threadIdx.x / 32 * 2;
	float max[2] = {-1e30f, -1e30f}, sum[2] = {}, by[2];
	for (int at = 0; at < count; at += block) {
		int some = min(block, count - at);
		gather(keys, job, l, row, at, some);
		__syncthreads();
		/* Threads without a key too, over what is there: softmax() leaves it out. */
		logits(p, q, keys, l, job.scale);
		__syncthreads();
		if (own < heads) {
			for (int b = 0; b < 2; b++)
				by[b] = softmax(p + (own + b) * block, some, &max[b], &sum[b]);
			__syncwarp();
			add_values(out + own * l.out_words, p + own * block, by, keys, l, some);
		}
		__syncthreads();
	}
	for (int b = 0; b < 2 && own + b < heads; b++)
		store(job, l, row, first + own + b, out + (own + b) * l.out_words, sum[b]);
}

using kernel = void (*)(struct attention_job);

cudaError_t launch(cudaStream_t stream, kernel what, int64_t blocks, int block_threads, size_t bytes,
                   const struct attention_job &job)
{
	cudaError_t code = cudaFuncSetAttribute(what, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
	if (code)
		return code;
	assert(blocks <= INT32_MAX);
	what<<<(unsigned)blocks, (unsigned)block_threads, bytes, stream>>>(job);
	return cudaGetLastError();
}

/* Groups of `heads` heads. */
void divide(struct attention_job *job, int64_t rows, int heads)
{
	job->groups = (job->heads + heads - 1) / heads;
	job->tiles = rows * job->groups;
}

/* Are the rows of t whole `bytes`, and aligned to them? */
bool aligned(struct dsa_tensor t, unsigned bytes)
{
	return (uintptr_t)t.data % bytes == 0 && t.stride * 2 % bytes == 0;
}

} // namespace

cudaError_t kernel_sparse_attention(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor q,
                                    struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent,
                                    int r, float scale, const struct dsa_rows *rows)
{
	if (rows->count == 0)
		return cudaSuccess;
	struct attention_job job = {};
	job.out = (__nv_bfloat16 *)out.data;
	job.q = (const __nv_bfloat16 *)q.data;
	job.keys = (const __nv_bfloat16 *)keys.data;
	job.selection = selection;
	job.pos = rows->pos;
	job.key0 = rows->key0;
	job.out_stride = out.stride;
	job.q_stride = q.stride;
	job.key_stride = keys.stride;
	job.topk = topk;
	job.heads = heads;
	job.latent = latent;
	job.width = latent + r;
	job.scale = scale * 1.4426950408889634f;
	bool whole = aligned(out, 16) && aligned(q, 16) && aligned(keys, 16);
	if (whole && latent == attention_512::latent && job.width == attention_512::width) {
		divide(&job, rows->count, attention_512::heads);
		int device, processors;
		cudaError_t code = cudaGetDevice(&device);
		if (!code)
			code = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
		if (code)
			return code;
		return launch(stream, attention_512::attend, job.tiles < processors ? job.tiles : processors,
		              attention_512::threads, attention_512::shared_bytes, job);
	}
	if (whole && latent % 16 == 0 && r % 16 == 0 && latent <= 512 && job.width <= 1024) {
		divide(&job, rows->count, attention_16::heads);
		return launch(stream,
		              latent <= 64 ? attention_16::attend<1> : attention_16::attend<attention_16::most_tiles>,
		              job.tiles, attention_16::threads, attention_16::layout(job.width).total, job);
	}
	divide(&job, rows->count, group);
	job.even_out = latent % 2 == 0 && aligned(out, 4);
	job.even_q = job.width % 2 == 0 && aligned(q, 4);
	job.even_keys = job.width % 2 == 0 && aligned(keys, 4);
	return launch(stream, attend, job.tiles, threads, layout(latent, job.width).bytes(), job);
}
