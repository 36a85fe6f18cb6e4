/* RMS norm and layer norm over rows. */
#include "cpu.h"

#include <math.h>

#include "lanes.h"

/* squares += x² of the first min(n, LANES) floats at `from`. */
LANES_INLINE void add_squares(struct lanes *squares, const float *from, int n)
{
	for (int p = 0; p < PARTS; p++) {
		wide x = wide_load_part(from + p * WIDE, n - p * WIDE);
		squares->part[p] += x * x;
	}
}

enum dsa_status cpu_rmsnorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                            struct dsa_tensor weight, float eps, struct dsa_error *err)
{
	(void)err;
	int cols = x.cols;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && weight.dtype == DSA_F32);
	assert(out.rows == x.rows && out.cols == cols && weight.cols == cols);
	const float *w = weight.data;
#pragma omp parallel for num_threads(cpu_of(be)->threads) schedule(static)
	for (int64_t i = 0; i < x.rows; i++) {
		const float *from = cpu_row(x, i);
		float *to = cpu_row(out, i);
		struct lanes squares = {0};
		for (int j = 0; j < cols; j += LANES)
			add_squares(&squares, from + j, cols - j);
		float scale = 1.0f / sqrtf(lanes_sum(squares) / (float)cols + eps);
		for (int j = 0; j < cols; j++)
			to[j] = w[j] * (from[j] * scale);
	}
	return DSA_OK;
}

enum dsa_status cpu_layernorm(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x,
                              struct dsa_tensor weight, struct dsa_tensor bias, float eps, struct dsa_error *err)
{
	(void)err;
	int cols = x.cols;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && weight.dtype == DSA_F32 && bias.dtype == DSA_F32);
	assert(out.rows == x.rows && out.cols == cols && weight.cols == cols && bias.cols == cols);
	const float *w = weight.data, *b = bias.data;
#pragma omp parallel for num_threads(cpu_of(be)->threads) schedule(static)
	for (int64_t i = 0; i < x.rows; i++) {
		const float *from = cpu_row(x, i);
		float *to = cpu_row(out, i);
		struct lanes sum = {0}, squares = {0};
		for (int j = 0; j < cols; j += LANES)
			for (int p = 0; p < PARTS; p++)
				sum.part[p] += wide_load_part(from + j + p * WIDE, cols - j - p * WIDE);
		float mean = lanes_sum(sum) / (float)cols;
		for (int j = 0; j < cols; j++)
			to[j] = from[j] - mean;
		for (int j = 0; j < cols; j += LANES)
			add_squares(&squares, to + j, cols - j);
		float scale = 1.0f / sqrtf(lanes_sum(squares) / (float)cols + eps);
		for (int j = 0; j < cols; j++)
			to[j] = to[j] * scale * w[j] + b[j];
	}
	return DSA_OK;
}
