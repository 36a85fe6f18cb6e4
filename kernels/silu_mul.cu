/* silu_mul.cu: the gated activation.
 *
 *   out (R, m) = g / (1 + e^-g) · u, gate_up (R, 2m) = [g | u]; BF16 or F32 in and out, float arithmetic
 *
 * A thread takes eight neighbouring columns of a row, by 16-byte accesses where the view allows them. Bytes: gate_up
 * once, out once; one e^x and one division per element: bound by memory.
 * Measured (H100 80GB HBM3, 2026-11-26, a device copy beside it 2.96 TB/s): m 12288, 8192 rows, BF16 2.86 TB/s.
 *
 * Determinism: every element on its own, the same arithmetic on either path. */
#include "pack.cuh"

namespace
{

template <typename In, typename Out, bool VEC>
__global__ void __launch_bounds__(PACK_THREADS)
    silu_mul(Out *out, int64_t out_stride, const In *gate_up, int64_t stride, int64_t rows, int cols)
{
	const int64_t row = unit_row();
	const int j = unit_first(1) * PACK;
	if (row >= rows || j >= cols)
		return;
	const In *gate = gate_up + row * stride, *up = gate + cols;
	float g[PACK], u[PACK];
	pack_load<VEC>(g, gate, j, cols);
	pack_load<VEC>(u, up, j, cols);
#pragma unroll
	for (int e = 0; e < PACK; e++)
		g[e] = __fdividef(g[e], 1.0f + expf(-g[e])) * u[e];
	pack_store<VEC>(out + row * out_stride, g, j, cols);
}

template <typename In, typename Out>
void launch(cudaStream_t stream, const struct dsa_tensor &out, const struct dsa_tensor &gate_up)
{
	const struct unit_grid g = unit_grid(out.rows, (out.cols + PACK - 1) / PACK, 1);
	const bool vec = packs_fit(&out) && packs_aligned(&gate_up, 0) && packs_aligned(&gate_up, out.cols);
	auto kernel = vec ? silu_mul<In, Out, true> : silu_mul<In, Out, false>;
	kernel<<<g.grid, g.block, 0, stream>>>((Out *)out.data, out.stride, (const In *)gate_up.data, gate_up.stride,
	                                       out.rows, out.cols);
}

} // namespace

cudaError_t kernel_silu_mul(cudaStream_t stream, struct dsa_tensor out, struct dsa_tensor gate_up)
{
	if (!out.rows || !out.cols)
		return cudaSuccess;
	if (gate_up.dtype == DSA_F32 && out.dtype == DSA_F32)
		launch<float, float>(stream, out, gate_up);
	else if (gate_up.dtype == DSA_F32)
		launch<float, bf16>(stream, out, gate_up);
	else if (out.dtype == DSA_F32)
		launch<bf16, float>(stream, out, gate_up);
	else
		launch<bf16, bf16>(stream, out, gate_up);
	return cudaGetLastError();
}
