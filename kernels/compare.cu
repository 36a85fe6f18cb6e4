/* Comparison of a candidate's logits with the base's, row by row over the whole vocabulary.
 *
 * kernel_row_stats: of a row of V logits the maximum, its lowest place, Σ e^(logit - max), whether all are finite.
 * kernel_compare: with d = ln p - ln q of a token, KL = Σ p (e^-d - 1 + d), every term ≥ 0, so nothing cancels; both
 * NLLs; whether the arg max is the same. Exponentials are float, sums double, as on the CPU.
 *
 * One block of THREADS per row; thread i takes tokens i, i + THREADS, …, then partial results meet in one fixed tree:
 * the order is the row's own. Statistics take one pass with a running maximum. The candidate is read twice, the base
 * once more: 12 bytes a token and candidate, 4 for the base's own statistics; about 40 FLOPs a token. */
#include "kernels.h"

#include <assert.h>
#include <limits.h>
#include <math_constants.h>

enum { THREADS = 512, WARP = 32, WARPS = THREADS / WARP };
static const unsigned ALL_LANES = 0xffffffffu;

/* What a part of a row has: Σ e^(logit - max) belongs to its own maximum. */
struct part {
	float max;
	int arg_max;
	int finite;
	double sum;
};

static __device__ part join(const part &a, const part &b)
{
	bool first = a.max > b.max || (a.max == b.max && a.arg_max < b.arg_max);
	part both = {first ? a.max : b.max, first ? a.arg_max : b.arg_max, a.finite & b.finite, 0};
	/* A part without tokens has no sum, and its maximum is no number to subtract from. */
	double of_a = a.sum > 0 ? a.sum * (double)expf(a.max - both.max) : 0;
	double of_b = b.sum > 0 ? b.sum * (double)expf(b.max - both.max) : 0;
	both.sum = of_a + of_b;
	return both;
}

static __device__ part from_lane(const part &own, int distance)
{
	return {__shfl_down_sync(ALL_LANES, own.max, distance), __shfl_down_sync(ALL_LANES, own.arg_max, distance),
	        __shfl_down_sync(ALL_LANES, own.finite, distance), __shfl_down_sync(ALL_LANES, own.sum, distance)};
}

/* Of the whole row, in every thread. */
static __device__ part row_part(const float *logits, int vocab)
{
	__shared__ part of_warp[WARPS];
	part own = {-CUDART_INF_F, INT_MAX, 1, 0};
	for (int v = (int)threadIdx.x; v < vocab; v += THREADS) {
		float x = logits[v];
		own.finite &= isfinite(x);
		if (x > own.max) {
			own.sum = own.sum > 0 ? own.sum * (double)expf(own.max - x) : 0;
			own.max = x;
			own.arg_max = v;
		}
		own.sum += (double)expf(x - own.max);
	}
	for (int distance = WARP / 2; distance > 0; distance /= 2)
		own = join(own, from_lane(own, distance));
	if (threadIdx.x % WARP == 0)
		of_warp[threadIdx.x / WARP] = own;
	__syncthreads();
	part all = of_warp[0];
	for (int w = 1; w < WARPS; w++)
		all = join(all, of_warp[w]);
	__syncthreads();
	return all;
}

static __device__ double block_sum(double x)
{
	__shared__ double of_warp[WARPS];
	for (int distance = WARP / 2; distance > 0; distance /= 2)
		x += __shfl_down_sync(ALL_LANES, x, distance);
	if (threadIdx.x % WARP == 0)
		of_warp[threadIdx.x / WARP] = x;
	__syncthreads();
	double all = 0;
	for (int w = 0; w < WARPS; w++)
		all += of_warp[w];
	return all;
}

static __global__ void __launch_bounds__(THREADS)
    row_stats(struct kernel_row_stats *stats, const float *logits, int64_t stride, int vocab)
{
	part all = row_part(logits + blockIdx.x * stride, vocab);
	if (threadIdx.x == 0)
		stats[blockIdx.x] = {all.max, all.arg_max, all.finite, 0, all.sum, (double)all.max + log(all.sum)};
}

extern "C" cudaError_t kernel_row_stats(cudaStream_t stream, struct kernel_row_stats *stats, struct dsa_tensor logits)
{
	assert(logits.dtype == DSA_F32 && logits.cols > 0);
	if (logits.rows == 0)
		return cudaSuccess;
	row_stats<<<(unsigned)logits.rows, THREADS, 0, stream>>>(stats, (const float *)logits.data, logits.stride,
	                                                         logits.cols);
	return cudaGetLastError();
}

/* e^-d - 1 + d for |d| < 1, by its series to d^11 (remainder 2e-9). */
static __device__ float near_divergence(float d)
{
	float p = -1.0f / 39916800;
	p = p * d + 1.0f / 3628800;
	p = p * d + -1.0f / 362880;
	p = p * d + 1.0f / 40320;
	p = p * d + -1.0f / 5040;
	p = p * d + 1.0f / 720;
	p = p * d + -1.0f / 120;
	p = p * d + 1.0f / 24;
	p = p * d + -1.0f / 6;
	p = p * d + 0.5f;
	return p * d * d;
}

static __global__ void __launch_bounds__(THREADS)
    compare(struct dsa_row_figures *figures, const float *base_logits, int64_t base_stride,
            const struct kernel_row_stats *base_stats, const float *all_logits, int64_t stride, int vocab,
            const int32_t *target)
{
	const float *base = base_logits + blockIdx.x * base_stride, *logits = all_logits + blockIdx.x * stride;
	const struct kernel_row_stats b = base_stats[blockIdx.x];
	const part c = row_part(logits, vocab);
	const double lse = (double)c.max + log(c.sum);
	const float shift = (float)(b.lse - lse), p_scale = (float)(1 / b.sum), q_scale = (float)(1 / c.sum);
	double sum = 0;
	for (int v = (int)threadIdx.x; v < vocab; v += THREADS) {
		float x = base[v], y = logits[v];
		float d = (x - y) - shift;
		float p = expf(x - b.max) * p_scale;
		float term = fabsf(d) < 1 ? p * near_divergence(d) : (expf(y - c.max) * q_scale - p) + p * d;
		sum += (double)term;
	}
	double kl = block_sum(sum);
	if (threadIdx.x != 0)
		return;
	struct dsa_row_figures row = {};
	if (b.finite && c.finite) {
		int at = target[blockIdx.x];
		row.kl = kl;
		row.nll_base = b.lse - (double)base[at];
		row.nll = lse - (double)logits[at];
		row.top1 = b.arg_max == c.arg_max;
		row.finite = 1;
	}
	figures[blockIdx.x] = row;
}

extern "C" cudaError_t kernel_compare(cudaStream_t stream, struct dsa_row_figures *figures, struct dsa_tensor base,
                                      const struct kernel_row_stats *base_stats, struct dsa_tensor logits,
                                      const int32_t *target)
{
	assert(base.dtype == DSA_F32 && logits.dtype == DSA_F32 && base.cols == logits.cols &&
	       base.rows == logits.rows);
	if (logits.rows == 0)
		return cudaSuccess;
	compare<<<(unsigned)logits.rows, THREADS, 0, stream>>>(figures, (const float *)base.data, base.stride,
	                                                       base_stats, (const float *)logits.data, logits.stride,
	                                                       logits.cols, target);
	return cudaGetLastError();
}
