/* Memory of the CUDA backend, on both sides of the bus. */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dsa/arena.h"

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
 * rows as a pass has or an eighth of the device (plan.h), and some. */
size_t cuda_stash_reserve(const struct dsa_backend_limits *l, size_t total)
{
	const size_t selections = (size_t)l->layers * (size_t)l->rows * (size_t)l->topk * sizeof(int32_t);
	const size_t share = total / 8, large = (size_t)8 << 30, more = (size_t)1 << 30;
	const size_t most = share < large ? share : large;
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
		if (!cuda_memory(be, &free_bytes, &total, NULL) &&
		    bytes + cuda_stash_reserve(&cuda->limits, total) <= free_bytes)
			block->on_device = !cudaMalloc(&block->memory, bytes ? bytes : 1);
		if (!block->on_device)
			block->memory = cuda_pinned_alloc(be, bytes);
		if (!block->memory) {
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
		if (block->on_device)
			(void)cudaFree(block->memory);
		else
			cuda_pinned_free(&cuda->base, block->memory);
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

/* The driver's own page-locked allocation takes page after page in one thread; large pages that several threads have
 * touched before are only registered. */
void *cuda_pinned_alloc(struct dsa_backend *be, size_t bytes)
{
	const size_t page = 4096, large = (size_t)2 << 20, unit = bytes < large ? page : large;
	const size_t size = bytes ? (bytes + unit - 1) / unit * unit : unit;
	char *memory = aligned_alloc(unit, size);
	(void)be;
	if (!memory)
		return NULL;
	(void)madvise(memory, size, MADV_HUGEPAGE); /* a hint: without large pages it takes longer */
#pragma omp parallel for schedule(static)
	for (size_t at = 0; at < size; at += unit)
		for (size_t touched = at; touched < at + unit; touched += page)
			memory[touched] = 0;
	if (!cudaHostRegister(memory, size, cudaHostRegisterDefault))
		return memory;
	(void)cudaGetLastError();
	free(memory);
	return NULL;
}

void cuda_pinned_free(struct dsa_backend *be, void *memory)
{
	(void)be;
	if (memory)
		(void)cudaHostUnregister(memory);
	free(memory);
}
