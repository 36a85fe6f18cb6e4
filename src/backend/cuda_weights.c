/* Weights of the CUDA backend on their way to the dtype of products. */
#include "cuda.h"

#include <float.h>
#include <math.h>

#include "stored.h"

/* The device has seen a weight that is not finite: which one is looked up here, and said as the CPU backend says it.
 * Beyond the largest bf16 number lie a few of float32, which are infinite only once they are rounded. scales: of FP8,
 * else NULL. */
static enum dsa_status name_fault(struct dsa_tensor to, const uint8_t *from, enum dsa_dtype stored,
                                  const struct dsa_block_scales *scales, struct dsa_error *err)
{
	const float most = to.dtype == DSA_F32 ? FLT_MAX : 0x1.fefffep127f;
	size_t size = dsa_dtype_bytes(stored);
	for (int64_t row = 0; row < to.rows; row++)
		for (int col = 0; col < to.cols; col++, from += size) {
			float x = stored_value(from, stored) * (scales ? fp8_scale_at(scales, to.cols, row, col) : 1);
			if (!(fabsf(x) <= most))
				return dsa_fail(err, DSA_E_NUMERIC, "row %lld, column %d: %s, expected a finite number",
				                (long long)row, col, isnan(x) ? "NaN" : "infinity");
		}
	return dsa_fail(err, DSA_E_DEVICE, "the device found a weight that is not finite, the host does not");
}

enum dsa_status cuda_load_weight(struct dsa_backend *be, struct dsa_tensor to, const void *host, enum dsa_dtype stored,
                                 struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	const uint8_t *from = host;
	int64_t count = to.rows * to.cols, size = (int64_t)dsa_dtype_bytes(stored);
	int64_t chunk = CUDA_LANDING_BYTES / size;
	enum dsa_status status = DSA_OK;
	assert(to.stride == to.cols && (to.dtype == DSA_F32 || to.dtype == DSA_BF16));
	for (int64_t first = 0; first < count && !status; first += chunk) {
		int64_t n = cuda_min(chunk, count - first);
		char *at = (char *)to.data + (size_t)first * dsa_dtype_bytes(to.dtype);
		status = cuda_upload(be, cuda->landing, from + first * size, (size_t)(n * size), err);
		if (!status)
			status = cuda_check(kernel_convert(cuda->stream, dsa_tensor_make(at, to.dtype, 1, (int)n),
			                                   cuda->landing, stored, cuda->fault),
			                    "converting weights", err);
	}
	struct kernel_fault fault;
	if (!status)
		status = cuda_take_fault(cuda, &fault, err);
	if (!status && fault.not_finite != ~0ULL)
		status = name_fault(to, from, stored, NULL, err);
	return status;
}

/* Pieces of whole rows, each behind the rows of scales that it needs. */
enum dsa_status cuda_load_fp8(struct dsa_backend *be, struct dsa_tensor to, const void *host,
                              const struct dsa_block_scales *scales, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	const uint8_t *from = host;
	const int64_t block = scales->block_rows, align = 256;
	int64_t across = (to.cols + scales->block_cols - 1) / scales->block_cols;
	int64_t scale_row = across * (int64_t)sizeof(float);
	/* n rows lie in at most n / block + 2 rows of blocks; with one scale per number a row still takes 5 bytes. */
	int64_t chunk = (CUDA_LANDING_BYTES - align - 2 * scale_row) * block / (to.cols * block + scale_row);
	enum dsa_status status = fp8_check_scales(scales, to.rows, to.cols, err);
	assert(to.stride == to.cols && (to.dtype == DSA_F32 || to.dtype == DSA_BF16));
	assert(chunk > 0);
	for (int64_t first = 0; first < to.rows && !status; first += chunk) {
		int64_t n = cuda_min(chunk, to.rows - first), top = first / block;
		int64_t scale_bytes = ((first + n - 1) / block - top + 1) * scale_row;
		char *numbers = cuda->landing + (scale_bytes + align - 1) / align * align;
		status = cuda_upload(be, cuda->landing, (const char *)scales->data + top * scale_row,
		                     (size_t)scale_bytes, err);
		if (!status)
			status = cuda_upload(be, numbers, from + first * to.cols, (size_t)(n * to.cols), err);
		if (!status)
			status = cuda_check(kernel_convert_fp8(cuda->stream, dsa_tensor_rows(to, first, n), numbers,
			                                       (const float *)cuda->landing, (int)block,
			                                       scales->block_cols, (int)(first % block), cuda->fault),
			                    "converting weights", err);
	}
	struct kernel_fault fault;
	if (!status)
		status = cuda_take_fault(cuda, &fault, err);
	if (!status && fault.not_finite != ~0ULL)
		status = name_fault(to, from, DSA_F8_E4M3, scales, err);
	return status;
}

enum dsa_status cuda_convert(struct dsa_backend *be, struct dsa_tensor to, const void *from, enum dsa_dtype stored,
                             const struct dsa_block_scales *scales, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	cudaError_t code;
	if (scales)
		code = kernel_convert_fp8(cuda->stream, to, from, scales->data, scales->block_rows, scales->block_cols,
		                          0, cuda->fault);
	else
		code = kernel_convert(cuda->stream, to, from, stored, cuda->fault);
	return cuda_check(code, "converting weights", err);
}

enum dsa_status cuda_scale(struct dsa_backend *be, struct dsa_tensor t, float factor, struct dsa_error *err)
{
	return cuda_check(kernel_scale(cuda_of(be)->stream, t, factor), "scaling weights", err);
}

enum dsa_status cuda_fetch(struct dsa_backend *be, void *device, const void *pinned, size_t bytes,
                           struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	cudaError_t code = cudaEventRecord(cuda->queued, cuda->stream);
	if (!code)
		code = cudaStreamWaitEvent(cuda->bus, cuda->queued, 0);
	if (!code)
		code = cudaEventRecord(cuda->fetch_begins, cuda->bus);
	if (!code)
		code = cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, cuda->bus);
	if (!code)
		code = cudaEventRecord(cuda->fetch_ends, cuda->bus);
	return cuda_check(code, "fetching weights", err);
}

enum dsa_status cuda_fetched(struct dsa_backend *be, double *seconds, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	float milliseconds = 0;
	cudaError_t code = cudaEventSynchronize(cuda->fetch_ends);
	if (!code)
		code = cudaEventElapsedTime(&milliseconds, cuda->fetch_begins, cuda->fetch_ends);
	*seconds = (double)milliseconds / 1000;
	return cuda_check(code, "fetching weights", err);
}
