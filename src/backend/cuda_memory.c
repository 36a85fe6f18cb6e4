/* Memory of the CUDA backend, and weights on their way in. */
#include "cuda.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "stored.h"

struct cuda_block {
	struct cuda_block *next;
	void *memory;
	size_t bytes;
	bool on_device; /* of the stash: else pinned host memory */
};

static const double gib = 1073741824.0;

enum dsa_status cuda_memory(struct dsa_backend *be, size_t *free_bytes, size_t *total, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	enum dsa_status status = cuda_check(cudaMemGetInfo(free_bytes, total), "asking for free memory", err);
	if (status || !cuda->memory_limit)
		return status;
	size_t left = cuda->memory_limit > cuda->taken ? cuda->memory_limit - cuda->taken : 0;
	*free_bytes = left < *free_bytes ? left : *free_bytes;
	*total = cuda->memory_limit < *total ? cuda->memory_limit : *total;
	return DSA_OK;
}

enum dsa_status cuda_take(struct dsa_cuda *cuda, size_t bytes, const char *what, void **out, struct dsa_error *err)
{
	size_t free_bytes, total;
	*out = NULL;
	enum dsa_status status = cuda_memory(&cuda->base, &free_bytes, &total, err);
	if (status)
		return status;
	if (bytes > free_bytes) {
		cuda_forget_spare(cuda);
		status = cuda_memory(&cuda->base, &free_bytes, &total, err);
		if (status)
			return status;
	}
	struct cuda_block *block = dsa_alloc(1, sizeof *block, what, err);
	if (!block)
		return DSA_E_MEMORY;
	cudaError_t code = bytes > free_bytes ? cudaErrorMemoryAllocation : cudaMalloc(out, bytes ? bytes : 1);
	if (!code) {
		*block = (struct cuda_block){.next = cuda->blocks, .memory = *out, .bytes = bytes};
		cuda->blocks = block;
		cuda->taken += bytes;
		return DSA_OK;
	}
	free(block);
	*out = NULL;
	if (code != cudaErrorMemoryAllocation)
		return cuda_check(code, "taking memory", err);
	(void)cudaGetLastError();
	return dsa_fail(err, DSA_E_MEMORY,
	                "no device memory for %s: %.2f GiB asked for, %.2f GiB free, %.2f GiB short; lower "
	                "--batch-tokens or --context, or raise --gpu-memory",
	                what, (double)bytes / gib, (double)free_bytes / gib,
	                bytes > free_bytes ? (double)(bytes - free_bytes) / gib : 0.0);
}

void cuda_give(struct dsa_cuda *cuda, void *memory)
{
	for (struct cuda_block **at = &cuda->blocks; *at; at = &(*at)->next) {
		struct cuda_block *block = *at;
		if (block->memory != memory)
			continue;
		*at = block->next;
		cuda->taken -= block->bytes;
		/* Fails only when the device is lost, and then there is nothing to give back to. */
		(void)cudaFree(memory);
		free(block);
		return;
	}
	assert(!memory);
}

enum dsa_status cuda_alloc(struct dsa_backend *be, size_t bytes, const char *what, void **out, struct dsa_error *err)
{
	return cuda_take(cuda_of(be), bytes, what, out, err);
}

void cuda_free(struct dsa_backend *be, void *memory)
{
	cuda_give(cuda_of(be), memory);
}

/* What callers may still ask alloc for while kept blocks fill the device: the selections of every layer, of as many
 * rows as a pass has or 8 GiB, and some. */
static size_t device_reserve(const struct dsa_cuda *cuda)
{
	const struct dsa_backend_limits *l = &cuda->limits;
	size_t selections = (size_t)l->layers * (size_t)l->rows * (size_t)l->topk * sizeof(int32_t);
	const size_t most = (size_t)8 << 30, more = (size_t)1 << 30;
	return (selections < most ? selections : most) + more;
}

/* Taking and pinning cost more than a copy, so blocks are handed out again: one that is large enough and not much
 * larger. */
static struct cuda_block *reuse(struct dsa_cuda *cuda, size_t bytes)
{
	for (struct cuda_block **at = &cuda->spare; *at; at = &(*at)->next) {
		struct cuda_block *block = *at;
		if (block->bytes < bytes || block->bytes > bytes + bytes / 4)
			continue;
		*at = block->next;
		return block;
	}
	return NULL;
}

void *cuda_stash_alloc(struct dsa_backend *be, size_t bytes)
{
	struct dsa_cuda *cuda = cuda_of(be);
	size_t free_bytes = 0, total;
	struct cuda_block *block = reuse(cuda, bytes);
	if (!block) {
		/* What does not serve makes room, so that not much more is held than callers hold. */
		cuda_forget_spare(cuda);
		block = malloc(sizeof *block);
		if (!block)
			return NULL;
		*block = (struct cuda_block){.bytes = bytes};
		if (!cuda_memory(be, &free_bytes, &total, NULL) && bytes + device_reserve(cuda) <= free_bytes)
			block->on_device = !cudaMalloc(&block->memory, bytes ? bytes : 1);
		if (!block->on_device && cudaMallocHost(&block->memory, bytes ? bytes : 1)) {
			free(block);
			block = NULL;
		}
		(void)cudaGetLastError();
		if (!block)
			return NULL;
		cuda->taken += block->on_device ? bytes : 0;
	}
	block->next = cuda->stashed;
	cuda->stashed = block;
	return block->memory;
}

void cuda_stash_free(struct dsa_backend *be, void *memory)
{
	struct dsa_cuda *cuda = cuda_of(be);
	for (struct cuda_block **at = &cuda->stashed; *at; at = &(*at)->next) {
		struct cuda_block *block = *at;
		if (block->memory != memory)
			continue;
		*at = block->next;
		block->next = cuda->spare;
		cuda->spare = block;
		return;
	}
	assert(!memory);
}

void cuda_forget_spare(struct dsa_cuda *cuda)
{
	while (cuda->spare) {
		struct cuda_block *block = cuda->spare;
		cuda->spare = block->next;
		cuda->taken -= block->on_device ? block->bytes : 0;
		(void)(block->on_device ? cudaFree(block->memory) : cudaFreeHost(block->memory));
		free(block);
	}
}

/* The stash may lie on either side, so the library finds out which way a copy goes. */
static enum dsa_status move(struct dsa_backend *be, void *to, const void *from, size_t bytes, struct dsa_error *err)
{
	return bytes ? cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_of(be)->stream),
	                          "copying memory", err)
	             : DSA_OK;
}

enum dsa_status cuda_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes, struct dsa_error *err)
{
	return move(be, device, host, bytes, err);
}

enum dsa_status cuda_download(struct dsa_backend *be, void *host, const void *device, size_t bytes,
                              struct dsa_error *err)
{
	enum dsa_status status = move(be, host, device, bytes, err);
	return status ? status : cuda_check(cudaStreamSynchronize(cuda_of(be)->stream), "reading results", err);
}

enum dsa_status cuda_copy(struct dsa_backend *be, void *to, const void *from, size_t bytes, struct dsa_error *err)
{
	return move(be, to, from, bytes, err);
}

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
