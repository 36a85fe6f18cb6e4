/* Products of shapes that the tensor-core library does not take: odd widths, unaligned rows, F32 operands.
 *
 * kernel_linear: out[i, a·out_head + n] (+)= Σ_m x[i, a·x_head + m] · W_a[n, m] + bias[n]; shapes in kernels.h.
 * A block of 256 threads makes a tile of 64 rows × 64 columns of one head, a thread 4 × 4 of them. 16 elements of the
 * inner dimension at a time go through shared memory as F32, the next 16 are fetched into registers meanwhile. Blocks:
 * row tiles in x, column tiles in y, heads in z.
 * 2·R·N·M FLOPs on the FP32 units; x is read N/64 times, w R/64 times, mostly from L2.
 *
 * Every element is one chain of fused multiply-adds in ascending m, whatever the tile it lies in: row-invariant.
 *
 * kernel_add_bias: x[i, n] += bias[n], one block per row; each element read and written once. */
#include "kernels.h"

#include <assert.h>

#include "element.cuh"

enum { TILE = 64, DEPTH = 16, THREADS = 256, EACH = 4, FETCHED = TILE * DEPTH / THREADS, BIAS_THREADS = 256 };

/* An operand: element (row, m) at row·row_step + m·col_step. */
template <typename T> struct operand {
	const T *data;
	int64_t row_step, col_step, rows;
	bool rows_adjacent; /* neighbouring threads take neighbouring rows, else neighbouring m */
};

static __device__ void place_of(bool rows_adjacent, int piece, int *row, int *m)
{
	int index = piece * THREADS + (int)threadIdx.x;
	*row = rows_adjacent ? index % TILE : index / DEPTH;
	*m = rows_adjacent ? index / TILE : index % DEPTH;
}

template <typename T>
static __device__ void fetch(float (&out)[FETCHED], const operand<T> &from, int64_t first_row, int first, int in)
{
#pragma unroll
	for (int piece = 0; piece < FETCHED; piece++) {
		int row, m;
		place_of(from.rows_adjacent, piece, &row, &m);
		bool inside = first_row + row < from.rows && first + m < in;
		out[piece] =
		    inside ? widen(from.data[(first_row + row) * from.row_step + (first + m) * from.col_step]) : 0;
	}
}

static __device__ void keep(float (&tile)[DEPTH][TILE + EACH], const float (&fetched)[FETCHED], bool rows_adjacent)
{
#pragma unroll
	for (int piece = 0; piece < FETCHED; piece++) {
		int row, m;
		place_of(rows_adjacent, piece, &row, &m);
		tile[m][row] = fetched[piece];
	}
}

template <typename Out> struct result {
	Out *data;
	int64_t stride;
	const float *bias;
	bool accumulate;
};

template <typename Out, typename X, typename W>
__global__ void __launch_bounds__(THREADS)
    linear(result<Out> out, operand<X> x, operand<W> w, int64_t w_head, int out_head, int x_head, int in)
{
	/* Padded by a whole vector: rows stay aligned for 16-byte reads and transposing writes meet fewer conflicts. */
	__shared__ __align__(16) float xs[DEPTH][TILE + EACH], ws[DEPTH][TILE + EACH];
	int64_t first_row = blockIdx.x * (int64_t)TILE, first_col = blockIdx.y * (int64_t)TILE;
	int row = (int)threadIdx.x / (TILE / EACH) * EACH, col = (int)threadIdx.x % (TILE / EACH) * EACH;
	x.data += (int64_t)blockIdx.z * x_head;
	w.data += (int64_t)blockIdx.z * w_head;
	out.data += (int64_t)blockIdx.z * out_head;
	float sum[EACH][EACH] = {}, x_next[FETCHED], w_next[FETCHED];
	fetch(x_next, x, first_row, 0, in);
	fetch(w_next, w, first_col, 0, in);
	for (int first = 0; first < in; first += DEPTH) {
		keep(xs, x_next, x.rows_adjacent);
		keep(ws, w_next, w.rows_adjacent);
		__syncthreads();
		fetch(x_next, x, first_row, first + DEPTH, in);
		fetch(w_next, w, first_col, first + DEPTH, in);
#pragma unroll
		for (int m = 0; m < DEPTH; m++) {
			float4 a = *(const float4 *)&xs[m][row], b = *(const float4 *)&ws[m][col];
			const float as[EACH] = {a.x, a.y, a.z, a.w}, bs[EACH] = {b.x, b.y, b.z, b.w};
#pragma unroll
			for (int i = 0; i < EACH; i++)
#pragma unroll
				for (int j = 0; j < EACH; j++)
					sum[i][j] = fmaf(as[i], bs[j], sum[i][j]);
		}
		__syncthreads();
	}
#pragma unroll
	for (int i = 0; i < EACH; i++)
#pragma unroll
		for (int j = 0; j < EACH; j++) {
			int64_t at_row = first_row + row + i, at_col = first_col + col + j;
			if (at_row >= x.rows || at_col >= w.rows)
				continue;
			Out *to = out.data + at_row * out.stride + at_col;
			float value = sum[i][j];
			if (out.bias)
				value += out.bias[at_col];
			if (out.accumulate)
				value += widen(*to);
			narrow(to, value);
		}
}

template <typename Out, typename X, typename W>
static void launch(cudaStream_t stream, const struct kernel_linear *what)
{
	result<Out> out = {(Out *)what->out.data, what->out.stride, what->bias, what->accumulate};
	operand<X> x = {(const X *)what->x.data, what->x.stride, 1, what->x.rows, false};
	operand<W> w = {(const W *)what->w, what->w_row, what->w_col, what->width, what->w_row < what->w_col};
	dim3 grid((unsigned)((what->x.rows + TILE - 1) / TILE), (unsigned)((what->width + TILE - 1) / TILE),
	          (unsigned)what->heads);
	linear<<<grid, THREADS, 0, stream>>>(out, x, w, what->w_head, what->out_head, what->x_head, what->in);
}

template <typename Out, typename X> static void launch_w(cudaStream_t stream, const struct kernel_linear *what)
{
	if (what->w_dtype == DSA_F32)
		launch<Out, X, float>(stream, what);
	else
		launch<Out, X, __nv_bfloat16>(stream, what);
}

template <typename Out> static void launch_x(cudaStream_t stream, const struct kernel_linear *what)
{
	if (what->x.dtype == DSA_F32)
		launch_w<Out, float>(stream, what);
	else
		launch_w<Out, __nv_bfloat16>(stream, what);
}

extern "C" cudaError_t kernel_linear(cudaStream_t stream, const struct kernel_linear *what)
{
	assert(what->out.dtype == DSA_F32 || what->out.dtype == DSA_BF16);
	assert(what->x.dtype == DSA_F32 || what->x.dtype == DSA_BF16);
	assert(what->w_dtype == DSA_F32 || what->w_dtype == DSA_BF16);
	assert(what->heads > 0 && what->heads <= 65535 && what->in > 0 && what->width > 0);
	assert(what->width <= 65535 * TILE && what->out.rows == what->x.rows);
	if (what->x.rows == 0)
		return cudaSuccess;
	if (what->out.dtype == DSA_F32)
		launch_x<float>(stream, what);
	else
		launch_x<__nv_bfloat16>(stream, what);
	return cudaGetLastError();
}

template <typename T>
__global__ void __launch_bounds__(BIAS_THREADS) add_bias(T *x, int64_t stride, int cols, const float *bias)
{
	T *row = x + blockIdx.x * stride;
	for (int j = (int)threadIdx.x; j < cols; j += BIAS_THREADS)
		narrow(row + j, widen(row[j]) + bias[j]);
}

extern "C" cudaError_t kernel_add_bias(cudaStream_t stream, struct dsa_tensor x, const float *bias)
{
	assert(x.dtype == DSA_F32 || x.dtype == DSA_BF16);
	if (x.rows == 0)
		return cudaSuccess;
	if (x.dtype == DSA_F32)
		add_bias<<<(unsigned)x.rows, BIAS_THREADS, 0, stream>>>((float *)x.data, x.stride, x.cols, bias);
	else
		add_bias<<<(unsigned)x.rows, BIAS_THREADS, 0, stream>>>((__nv_bfloat16 *)x.data, x.stride, x.cols,
		                                                        bias);
	return cudaGetLastError();
}
