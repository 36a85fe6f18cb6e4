/* Matrix products, row-invariant: what a row gives does not depend on how many rows share the call.
 *
 * cuBLASLt chooses another algorithm for every number of rows, and some cut the inner dimension between blocks in a
 * way that depends on it. So one algorithm is chosen for every kind of product, at one canonical number of rows, and
 * used for every other: no split of the inner dimension, and no workspace (without one there is no place for partial
 * sums, which excludes stream-K). The choice is the first such in the heuristic's order, so it is the same in every run
 * on a device with one library; nothing is timed. The library's own check of an algorithm is not asked: from 8192 rows
 * on it wants 4 bytes of workspace for what runs without any, with the same bits.
 *
 * In the column-major words of the library, with (rows × columns): out (N × R) = op(w) (N × K) · x (K × R). */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

enum { CANONICAL_ROWS = 4096, CANDIDATES = 32, ALIGNMENT = 16 };

/* All that a choice depends on. Of one size throughout: compared as bytes. */
struct kind {
	int64_t n, k, batches, w_transposed, accumulate, out_dtype;
	int64_t out_stride, x_stride, w_stride, out_step, x_step, w_step;
};

struct choice {
	struct kind kind;
	bool found; /* else kernel_linear takes it */
	cublasLtMatmulAlgo_t algo;
};

struct cuda_products {
	struct choice *list;
	size_t count, capacity;
};

/* What the library is told of one product. */
struct description {
	cublasLtMatmulDescOpaque_t desc;
	cublasLtMatrixLayoutOpaque_t w, x, out;
};

enum dsa_status cuda_products_open(struct dsa_cuda *cuda, struct dsa_error *err)
{
	cuda->products = calloc(1, sizeof *cuda->products);
	return cuda->products ? DSA_OK : dsa_fail(err, DSA_E_MEMORY, "no memory for the table of matrix products");
}

void cuda_products_close(struct dsa_cuda *cuda)
{
	if (cuda->products)
		free(cuda->products->list);
	free(cuda->products);
	cuda->products = NULL;
}

static enum dsa_status check(const struct dsa_cuda *cuda, cublasStatus_t status, const char *doing,
                             const struct kind *kind, int64_t rows, struct dsa_error *err)
{
	if (status == CUBLAS_STATUS_SUCCESS)
		return DSA_OK;
	return dsa_fail(err, DSA_E_DEVICE, "%s of %lld rows, N %lld, K %lld, %lld heads: cuBLASLt says %s", doing,
	                (long long)rows, (long long)kind->n, (long long)kind->k, (long long)kind->batches,
	                cuda->library.status_string(status));
}

static bool aligned(struct dsa_tensor t, int64_t step, int batches)
{
	int64_t size = (int64_t)dsa_dtype_bytes(t.dtype);
	return (uintptr_t)t.data % ALIGNMENT == 0 && t.stride * size % ALIGNMENT == 0 &&
	       (batches == 1 || step * size % ALIGNMENT == 0);
}

bool cuda_product_fits(const struct cuda_product *what)
{
	int64_t out_size = (int64_t)dsa_dtype_bytes(what->out.dtype);
	return what->x.cols * 2 % ALIGNMENT == 0 && what->out.cols * out_size % ALIGNMENT == 0 &&
	       aligned(what->out, what->out_step, what->batches) && aligned(what->x, what->x_step, what->batches) &&
	       aligned(what->w, what->w_step, what->batches);
}

static struct kind kind_of(const struct cuda_product *what)
{
	struct kind kind = {
	    .n = what->out.cols,
	    .k = what->x.cols,
	    .batches = what->batches,
	    .w_transposed = what->w_transposed,
	    .accumulate = what->accumulate,
	    .out_dtype = (int64_t)what->out.dtype,
	    .out_stride = what->out.stride,
	    .x_stride = what->x.stride,
	    .w_stride = what->w.stride,
	};
	if (what->batches > 1) {
		kind.out_step = what->out_step;
		kind.x_step = what->x_step;
		kind.w_step = what->w_step;
	}
	return kind;
}

static cublasStatus_t layout(const struct cuda_library *library, cublasLtMatrixLayout_t out, cudaDataType type,
                             int64_t rows, int64_t cols, int64_t stride, int64_t batches, int64_t step)
{
	cublasStatus_t status = library->layout_init(out, sizeof *out, type, (uint64_t)rows, (uint64_t)cols, stride);
	int32_t count = (int32_t)batches;
	if (!status && batches > 1)
		status = library->layout_set(out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
	if (!status && batches > 1)
		status = library->layout_set(out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
	return status;
}

static cublasStatus_t describe(const struct cuda_library *library, struct description *d, const struct kind *kind,
                               int64_t rows)
{
	cudaDataType out = kind->out_dtype == DSA_F32 ? CUDA_R_32F : CUDA_R_16BF;
	cublasOperation_t op = kind->w_transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
	cublasStatus_t status = library->desc_init(&d->desc, sizeof d->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
	if (!status)
		status = library->desc_set(&d->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op, sizeof op);
	if (!status)
		status = layout(library, &d->w, CUDA_R_16BF, kind->w_transposed ? kind->n : kind->k,
		                kind->w_transposed ? kind->k : kind->n, kind->w_stride, kind->batches, kind->w_step);
	if (!status)
		status =
		    layout(library, &d->x, CUDA_R_16BF, kind->k, rows, kind->x_stride, kind->batches, kind->x_step);
	if (!status)
		status = layout(library, &d->out, out, kind->n, rows, kind->out_stride, kind->batches, kind->out_step);
	return status;
}

/* The heuristic's candidates at the canonical number of rows, none that would reduce partial sums. */
static cublasStatus_t list_candidates(const struct dsa_cuda *cuda, const struct kind *kind,
                                      cublasLtMatmulHeuristicResult_t *results, int *count)
{
	const struct cuda_library *library = &cuda->library;
	struct description d;
	cublasLtMatmulPreferenceOpaque_t preference;
	uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = ALIGNMENT;
	uint64_t workspace = 0;
	const struct {
		cublasLtMatmulPreferenceAttributes_t attribute;
		const void *value;
		size_t size;
	} wishes[] = {
	    {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_reduction, sizeof no_reduction},
	    {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
	    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment},
	    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment},
	    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment},
	    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment},
	};
	*count = 0;
	cublasStatus_t status = describe(library, &d, kind, CANONICAL_ROWS);
	if (!status)
		status = library->preference_init(&preference, sizeof preference);
	for (size_t i = 0; !status && i < sizeof wishes / sizeof *wishes; i++)
		status = library->preference_set(&preference, wishes[i].attribute, wishes[i].value, wishes[i].size);
	if (!status)
		status = library->heuristic(cuda->lt, &d.desc, &d.w, &d.x, &d.out, &d.out, &preference, CANDIDATES,
		                            results, count);
	return status;
}

static uint32_t config(const struct cuda_library *library, const cublasLtMatmulAlgo_t *algo,
                       cublasLtMatmulAlgoConfigAttributes_t attribute)
{
	uint32_t value = UINT32_MAX;
	size_t written;
	return library->algo_get(algo, attribute, &value, sizeof value, &written) ? UINT32_MAX : value;
}

/* Does the algorithm reduce whole inner dimensions, with no memory for parts of them? */
static bool acceptable(const struct cuda_library *library, const cublasLtMatmulHeuristicResult_t *result)
{
	return result->state == CUBLAS_STATUS_SUCCESS && result->workspaceSize == 0 &&
	       config(library, &result->algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) <= 1 &&
	       config(library, &result->algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) == CUBLASLT_REDUCTION_SCHEME_NONE;
}

static enum dsa_status choose(const struct dsa_cuda *cuda, struct choice *choice, struct dsa_error *err)
{
	cublasLtMatmulHeuristicResult_t results[CANDIDATES];
	int count;
	cublasStatus_t status = list_candidates(cuda, &choice->kind, results, &count);
	choice->found = false;
	/* No candidate at all is an answer: the shape is not the library's. */
	if (status == CUBLAS_STATUS_NOT_SUPPORTED)
		return DSA_OK;
	for (int i = 0; !status && !choice->found && i < count; i++)
		if (acceptable(&cuda->library, &results[i])) {
			choice->algo = results[i].algo;
			choice->found = true;
		}
	return check(cuda, status, "choosing the algorithm of a product", &choice->kind, CANONICAL_ROWS, err);
}

static enum dsa_status find_choice(struct dsa_cuda *cuda, const struct kind *kind, const struct choice **out,
                                   struct dsa_error *err)
{
	struct cuda_products *p = cuda->products;
	for (size_t i = 0; i < p->count; i++)
		if (!memcmp(&p->list[i].kind, kind, sizeof *kind)) {
			*out = &p->list[i];
			return DSA_OK;
		}
	if (p->count == p->capacity) {
		size_t capacity = p->capacity ? 2 * p->capacity : 32;
		struct choice *list = realloc(p->list, capacity * sizeof *list);
		if (!list)
			return dsa_fail(err, DSA_E_MEMORY, "no memory for the table of matrix products");
		p->list = list;
		p->capacity = capacity;
	}
	struct choice *choice = &p->list[p->count];
	choice->kind = *kind;
	enum dsa_status status = choose(cuda, choice, err);
	if (!status) {
		p->count++;
		*out = choice;
	}
	return status;
}

static enum dsa_status run_kernel(const struct cuda_product *what, cudaStream_t stream, struct dsa_error *err)
{
	const struct kernel_linear linear = {
	    .out = what->out,
	    .x = what->x,
	    .w = what->w.data,
	    .w_dtype = what->w.dtype,
	    .w_row = what->w_transposed ? 1 : what->w.stride,
	    .w_col = what->w_transposed ? what->w.stride : 1,
	    .w_head = what->w_step,
	    .heads = what->batches,
	    .out_head = (int)what->out_step,
	    .x_head = (int)what->x_step,
	    .in = what->x.cols,
	    .width = what->out.cols,
	    .accumulate = what->accumulate,
	};
	return cuda_check(kernel_linear(stream, &linear), "a product", err);
}

enum dsa_status cuda_product(struct dsa_cuda *cuda, const struct cuda_product *what, int stream, struct dsa_error *err)
{
	assert(stream >= 0 && stream <= CUDA_STREAMS && what->batches > 0);
	assert(what->x.dtype == DSA_BF16 && what->w.dtype == DSA_BF16 && what->x.rows == what->out.rows);
	assert(what->out.dtype == DSA_F32 || (what->out.dtype == DSA_BF16 && !what->accumulate));
	cudaStream_t queue = stream ? cuda->side[stream - 1] : cuda->stream;
	int64_t rows = what->out.rows;
	if (rows == 0)
		return DSA_OK;
	if (!cuda_product_fits(what))
		return run_kernel(what, queue, err);
	const struct choice *choice = NULL;
	struct kind kind = kind_of(what);
	enum dsa_status status = find_choice(cuda, &kind, &choice, err);
	if (status || !choice->found)
		return status ? status : run_kernel(what, queue, err);
	struct description d;
	const float one = 1, beta = what->accumulate ? 1 : 0;
	cublasStatus_t done = describe(&cuda->library, &d, &kind, rows);
	if (!done)
		done =
		    cuda->library.matmul(cuda->lt, &d.desc, &one, what->w.data, &d.w, what->x.data, &d.x, &beta,
		                         what->out.data, &d.out, what->out.data, &d.out, &choice->algo, NULL, 0, queue);
	return check(cuda, done, "a product", &kind, rows, err);
}
