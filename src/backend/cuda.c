/* The CUDA backend: opening, scratch, faults, the operator table. */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"

/* The kernels are built for one generation of the hardware: their matrix instructions exist on no other. */
enum { CUDA_MAJOR = 9, CUDA_TILE = 8192 };

void *cuda_carve(struct cuda_carve *carve, int64_t count, size_t size)
{
	assert(count >= 0);
	char *piece = carve->base ? carve->base + carve->used : NULL;
	carve->used += ((size_t)count * size + 255) / 256 * 256;
	return piece;
}

struct cuda_carve cuda_scratch(struct dsa_cuda *cuda, size_t bytes)
{
	(void)bytes;
	assert(bytes <= cuda->scratch_bytes);
	return (struct cuda_carve){.base = cuda->scratch};
}

enum dsa_status cuda_check(cudaError_t code, const char *doing, struct dsa_error *err)
{
	if (code == cudaSuccess)
		return DSA_OK;
	return dsa_fail(err, DSA_E_DEVICE, "%s on the GPU: %s", doing, cudaGetErrorString(code));
}

enum dsa_status cuda_take_fault(struct dsa_cuda *cuda, struct kernel_fault *out, struct dsa_error *err)
{
	static const struct kernel_fault none = {~0ULL, ~0ULL, ~0ULL};
	struct kernel_fault *host = cuda->fault_host;
	enum dsa_status status =
	    cuda_check(cudaMemcpyAsync(host, cuda->fault, sizeof *host, cudaMemcpyDeviceToHost, cuda->stream),
	               "reading faults", err);
	if (!status)
		status = cuda_check(cudaStreamSynchronize(cuda->stream), "waiting", err);
	*out = none;
	if (status || !memcmp(host, &none, sizeof none))
		return status;
	*out = *host;
	return cuda_check(cudaMemsetAsync(cuda->fault, 0xff, sizeof *host, cuda->stream), "clearing faults", err);
}

static enum dsa_status cuda_wait(struct dsa_backend *be, struct dsa_error *err)
{
	struct kernel_fault fault;
	enum dsa_status status = cuda_take_fault(cuda_of(be), &fault, err);
	if (status)
		return status;
	if (fault.nan_score != ~0ULL)
		return dsa_fail(err, DSA_E_NUMERIC,
		                "indexer: a score of the query at key row %llu is NaN, expected numbers",
		                fault.nan_score);
	if (fault.bad_router != ~0ULL)
		return dsa_fail(err, DSA_E_NUMERIC,
		                "router: a score of query row %llu is not finite, expected finite numbers",
		                fault.bad_router);
	return DSA_OK;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t cuda_scratch_bytes(const struct dsa_backend *be, const struct dsa_backend_limits *l)
{
	int64_t tile = cuda_min(l->rows, be->tile);
	size_t bytes = cuda_linear_bytes(l->experts > l->index_heads ? l->experts : l->index_heads, l->hidden);
	bytes = larger(bytes, cuda_experts_bytes(tile, l->hidden, l->expert_inner, l->experts, l->chosen));
	bytes = larger(
	    bytes, cuda_select_bytes(tile, l->keys, l->max_context, l->index_heads, l->index_dim, l->index_precision));
	bytes = larger(bytes, cuda_compare_bytes(l->rows, l->vocab));
	return larger(bytes, cuda_overlap_bytes(l->layers));
}

static enum dsa_status cuda_reserve(struct dsa_backend *be, const struct dsa_backend_limits *l, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	size_t bytes = cuda_scratch_bytes(be, l);
	void *scratch;
	cuda->limits = *l;
	if (bytes <= cuda->scratch_bytes)
		return DSA_OK;
	enum dsa_status status = cuda_wait(be, err);
	if (status)
		return status;
	cuda_give(cuda, cuda->scratch);
	cuda->scratch = NULL;
	cuda->scratch_bytes = 0;
	status = cuda_take(cuda, bytes, "the operators' scratch", &scratch, err);
	if (status)
		return status;
	cuda->scratch = scratch;
	cuda->scratch_bytes = bytes;
	/* NaN in every format: an operator that read what it has not written would show. */
	return cuda_check(cudaMemsetAsync(scratch, 0xff, bytes, cuda->stream), "taking scratch", err);
}

static void cuda_close(struct dsa_backend *be)
{
	struct dsa_cuda *cuda = cuda_of(be);
	if (cuda->stream)
		(void)cudaStreamSynchronize(cuda->stream);
	cuda_products_close(cuda);
	if (cuda->lt)
		(void)cuda->library.destroy(cuda->lt);
	cuda_library_close(&cuda->library);
	cuda_give(cuda, cuda->scratch);
	cuda_give(cuda, cuda->landing);
	cuda_give(cuda, cuda->fault);
	cuda_forget_spare(cuda);
	assert(!cuda->blocks && !cuda->stashed);
	(void)cudaFreeHost(cuda->fault_host);
	(void)cudaFreeHost(cuda->expert_starts);
	for (int s = 0; s < CUDA_STREAMS; s++) {
		if (cuda->side[s])
			(void)cudaStreamDestroy(cuda->side[s]);
		if (cuda->join[s])
			(void)cudaEventDestroy(cuda->join[s]);
	}
	const cudaEvent_t events[] = {cuda->fork, cuda->queued, cuda->fetch_begins, cuda->fetch_ends};
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		if (events[i])
			(void)cudaEventDestroy(events[i]);
	if (cuda->bus)
		(void)cudaStreamDestroy(cuda->bus);
	if (cuda->stream)
		(void)cudaStreamDestroy(cuda->stream);
	free(cuda);
}

static const struct dsa_ops cuda_ops = {
    .alloc = cuda_alloc,
    .free = cuda_free,
    .stash_alloc = cuda_stash_alloc,
    .stash_free = cuda_stash_free,
    .stash_reserve = cuda_stash_reserve,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .wait = cuda_wait,
    .load_weight = cuda_load_weight,
    .load_fp8 = cuda_load_fp8,
    .pinned_alloc = cuda_pinned_alloc,
    .pinned_free = cuda_pinned_free,
    .fetch = cuda_fetch,
    .fetched = cuda_fetched,
    .convert = cuda_convert,
    .scale = cuda_scale,
    .embed = cuda_embed,
    .rmsnorm = cuda_rmsnorm,
    .layernorm = cuda_layernorm,
    .linear = cuda_linear,
    .head_linear = cuda_head_linear,
    .rope = cuda_rope,
    .copy_heads = cuda_copy_heads,
    .store_keys = cuda_store_keys,
    .select = cuda_select,
    .attention = cuda_attention,
    .silu_mul = cuda_silu_mul,
    .route = cuda_route,
    .experts = cuda_experts,
    .gather = cuda_gather,
    .compare = cuda_compare,
    .logits = cuda_logits,
    .overlap = cuda_overlap,
    .memory = cuda_memory,
    .scratch_bytes = cuda_scratch_bytes,
    .reserve = cuda_reserve,
    .close = cuda_close,
};

/* The device of that number; index < 0: of those that the kernels run on, counted round and round, the one at place
 * `instance`. */
static enum dsa_status find_device(int index, int instance, int *device, struct cudaDeviceProp *properties,
                                   struct dsa_error *err)
{
	int count = 0, suitable = 0;
	cudaError_t code = cudaGetDeviceCount(&count);
	if (code || !count)
		return dsa_fail(err, DSA_E_DEVICE, "no GPU is to be seen here (%s); use --device cpu",
		                code ? cudaGetErrorString(code) : "the driver lists none");
	if (index >= count)
		return dsa_fail(err, DSA_E_DEVICE, "there %s %d GPU%s here, numbered from 0", count == 1 ? "is" : "are",
		                count, count == 1 ? "" : "s");
	for (int i = 0; i < count * (instance + 1); i++) {
		const int d = index < 0 ? i % count : index;
		enum dsa_status status =
		    cuda_check(cudaGetDeviceProperties(properties, d), "asking for its properties", err);
		if (status)
			return status;
		*device = d;
		if (properties->major == CUDA_MAJOR && (index >= 0 || suitable++ == instance))
			return DSA_OK;
		if (index >= 0)
			break;
	}
	return dsa_fail(err, DSA_E_DEVICE,
	                "%s has compute capability %d.%d, the kernels are written for %d.x (Hopper); use --device cpu",
	                properties->name, properties->major, properties->minor, CUDA_MAJOR);
}

static enum dsa_status open_streams(struct dsa_cuda *cuda, struct dsa_error *err)
{
	cudaError_t code = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
	for (int s = 0; s < CUDA_STREAMS && !code; s++) {
		code = cudaStreamCreateWithFlags(&cuda->side[s], cudaStreamNonBlocking);
		if (!code)
			code = cudaEventCreateWithFlags(&cuda->join[s], cudaEventDisableTiming);
	}
	if (!code)
		code = cudaEventCreateWithFlags(&cuda->fork, cudaEventDisableTiming);
	if (!code)
		code = cudaEventCreateWithFlags(&cuda->queued, cudaEventDisableTiming);
	if (!code)
		code = cudaEventCreate(&cuda->fetch_begins);
	if (!code)
		code = cudaEventCreate(&cuda->fetch_ends);
	if (!code)
		code = cudaStreamCreateWithFlags(&cuda->bus, cudaStreamNonBlocking);
	return cuda_check(code, "making streams", err);
}

static enum dsa_status open_memory(struct dsa_cuda *cuda, struct dsa_error *err)
{
	void *memory;
	enum dsa_status status = cuda_take(cuda, CUDA_LANDING_BYTES, "weights on their way", &memory, err);
	if (status)
		return status;
	cuda->landing = memory;
	status = cuda_take(cuda, sizeof *cuda->fault, "faults", &memory, err);
	if (status)
		return status;
	cuda->fault = memory;
	cudaError_t code = cudaMallocHost(&memory, sizeof *cuda->fault_host);
	if (!code) {
		cuda->fault_host = memory;
		code = cudaMallocHost(&memory, (CUDA_MOST_EXPERTS + 1) * sizeof *cuda->expert_starts);
	}
	if (!code) {
		cuda->expert_starts = memory;
		code = cudaMemsetAsync(cuda->fault, 0xff, sizeof *cuda->fault, cuda->stream);
	}
	return cuda_check(code, "taking memory", err);
}

enum dsa_status dsa_cuda_open(struct dsa_backend **out, int index, const struct dsa_backend_options *options,
                              struct dsa_error *err)
{
	struct cudaDeviceProp properties;
	int device = 0;
	*out = NULL;
	enum dsa_status status = find_device(index, options->instance, &device, &properties, err);
	if (status)
		return status;
	struct dsa_cuda *cuda = dsa_alloc(1, sizeof *cuda, "the CUDA backend", err);
	if (!cuda)
		return DSA_E_MEMORY;
	cuda->base = (struct dsa_backend){.ops = &cuda_ops,
	                                  .act = DSA_BF16,
	                                  .weight = DSA_BF16,
	                                  .tile = CUDA_TILE,
	                                  .pass_tokens = 4 * CUDA_TILE,
	                                  .log = options->log};
	cuda->device = device;
	cuda->memory_limit = (size_t)options->gpu_memory;
	status = cuda_check(cudaSetDevice(device), "opening the device", err);
	if (!status)
		status = open_streams(cuda, err);
	if (!status)
		status = cuda_library_open(&cuda->library, err);
	if (!status && cuda->library.create(&cuda->lt) != CUBLAS_STATUS_SUCCESS)
		status = dsa_fail(err, DSA_E_DEVICE, "cuBLASLt does not start on %s", properties.name);
	if (!status)
		status = open_memory(cuda, err);
	if (!status)
		status = cuda_products_open(cuda, err);
	if (status) {
		cuda_close(&cuda->base);
		return status;
	}
	/* %.64s: a vendor's name is never longer, and the compiler knows it then. */
	snprintf(cuda->base.name, sizeof cuda->base.name, "cuda:%d: %.64s", device, properties.name);
	/* Only people ask for it. */
	if (cudaDeviceGetPCIBusId(cuda->base.address, (int)sizeof cuda->base.address, device)) {
		cuda->base.address[0] = '\0';
		(void)cudaGetLastError();
	}
	*out = &cuda->base;
	return DSA_OK;
}
