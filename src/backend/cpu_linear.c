/* Products with weights. */
#include "cpu.h"

#include <omp.h>
#include <signal.h>
#include <string.h>

#include <blis.h>

/* What a signal handler reads of the thread that the signal stopped. */
static _Thread_local volatile sig_atomic_t in_blis;

bool dsa_backend_in_product(void)
{
	return in_blis;
}

void cpu_product(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w, int64_t w_row,
                 int64_t w_col, int64_t m, int n, int k, bool accumulate)
{
	assert(n > 0 && k > 0);
	if (m == 0)
		return;
	rntm_t runtime = BLIS_RNTM_INITIALIZER;
	bli_rntm_set_num_threads(1, &runtime);
	/* The small-matrix path gives other bits below some number of rows. */
	bli_rntm_disable_l3_sup(&runtime);
	float one = 1, beta = accumulate ? 1 : 0;
	in_blis = 1;
	bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &one, (float *)x, x_stride, 1, (float *)w, w_row,
	             w_col, &beta, out, out_stride, 1, NULL, &runtime);
	in_blis = 0;
}

/* Fills the rows with the bias, or adds it, before a product is added to them. */
static void add_bias(struct dsa_tensor out, struct dsa_tensor bias, bool accumulate)
{
	const float *b = cpu_row(bias, 0);
	for (int64_t i = 0; i < out.rows; i++) {
		float *row = cpu_row(out, i);
		if (!accumulate)
			memcpy(row, b, (size_t)out.cols * sizeof *row);
		else
			for (int j = 0; j < out.cols; j++)
				row[j] += b[j];
	}
}

enum dsa_status cpu_linear(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                           struct dsa_tensor bias, bool accumulate, struct dsa_error *err)
{
	(void)err;
	int threads = cpu_of(be)->threads;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && w.dtype == DSA_F32);
	assert(out.rows == x.rows && out.cols == w.rows && x.cols == w.cols);
	assert(!bias.data || (bias.dtype == DSA_F32 && bias.cols == out.cols));
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int thread = 0; thread < threads; thread++) {
		int64_t first = cpu_first(x.rows, threads, thread);
		int64_t count = cpu_first(x.rows, threads, thread + 1) - first;
		if (bias.data)
			add_bias(dsa_tensor_rows(out, first, count), bias, accumulate);
		cpu_product(cpu_row(out, first), out.stride, cpu_row(x, first), x.stride, w.data, 1, w.stride, count,
		            out.cols, x.cols, accumulate || bias.data);
	}
	return DSA_OK;
}

enum dsa_status cpu_head_linear(struct dsa_backend *be, struct dsa_tensor out, int out_head, struct dsa_tensor x,
                                int x_head, struct dsa_tensor w, int64_t w_head, int heads, int in, int width,
                                bool transposed, struct dsa_error *err)
{
	(void)err;
	int threads = cpu_of(be)->threads;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && w.dtype == DSA_F32 && out.rows == x.rows);
	assert(heads > 0 && (int64_t)(heads - 1) * out_head + width <= out.cols);
	assert((int64_t)(heads - 1) * x_head + in <= x.cols);
	int64_t w_row = transposed ? 1 : w.stride, w_col = transposed ? w.stride : 1;
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int thread = 0; thread < threads; thread++) {
		int64_t first = cpu_first(x.rows, threads, thread);
		int64_t count = cpu_first(x.rows, threads, thread + 1) - first;
		for (int a = 0; a < heads; a++)
			cpu_product(cpu_row(out, first) + (int64_t)a * out_head, out.stride,
			            cpu_row(x, first) + (int64_t)a * x_head, x.stride,
			            (const float *)w.data + a * w_head, w_row, w_col, count, width, in, false);
	}
	return DSA_OK;
}

enum dsa_status cpu_logits(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor head,
                           struct dsa_error *err)
{
	return cpu_linear(be, out, x, head, (struct dsa_tensor){0}, false, err);
}
