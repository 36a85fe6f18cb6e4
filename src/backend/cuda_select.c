/* The lightning indexer: scores of all earlier positions, the exact top K of them; a tile of query rows at a time, so
 * that their scores fit the scratch whatever the context. */
#include "cuda.h"

enum {
	SCORE_BYTES = 512 << 20, /* of a tile's scores, unless */
	LEAST_ROWS = 64          /* as many rows need more */
};

/* Bytes of a row's scores: rows begin on 256 bytes. */
static size_t row_bytes(int context)
{
	return ((size_t)context * sizeof(float) + 255) / 256 * 256;
}

struct select_scratch {
	float *scores;
	int64_t tile, stride; /* rows whose scores there is room for, a row's floats */
	/* Of FP8: the numbers of queries and keys, weights times the queries' scales, the keys' scales. */
	void *queries, *keys;
	float *weights, *key_scales;
};

static bool in_fp8(enum dsa_index_precision precision)
{
	return precision == DSA_INDEX_FP8 || precision == DSA_INDEX_FP8_UE8M0;
}

/* Grows with every size, so that what is reserved for the limits is enough for any call. */
static size_t carve_scratch(struct select_scratch *s, struct cuda_carve carve, int64_t rows, int64_t keys, int context,
                            int heads, int dim, enum dsa_index_precision precision)
{
	size_t row = row_bytes(context), most = row * LEAST_ROWS > SCORE_BYTES ? row * LEAST_ROWS : SCORE_BYTES;
	size_t bytes = row * (size_t)rows < most ? row * (size_t)rows : most;
	*s = (struct select_scratch){.tile = (int64_t)(bytes / row), .stride = (int64_t)(row / sizeof(float))};
	s->scores = cuda_carve(&carve, (int64_t)bytes, 1);
	if (in_fp8(precision)) {
		s->queries = cuda_carve(&carve, rows * heads * dim, sizeof(uint16_t));
		s->weights = cuda_carve(&carve, rows * heads, sizeof *s->weights);
		s->keys = cuda_carve(&carve, keys * dim, sizeof(uint16_t));
		s->key_scales = cuda_carve(&carve, keys + KERNEL_KEY_ROOM, sizeof *s->key_scales);
	}
	return carve.used;
}

size_t cuda_select_bytes(int64_t rows, int64_t keys, int context, int heads, int dim,
                         enum dsa_index_precision precision)
{
	struct select_scratch s;
	return carve_scratch(&s, (struct cuda_carve){0}, rows, keys, context, heads, dim, precision);
}

/* Puts the FP8 numbers in the place of q, k and weight. */
static cudaError_t take_rows(struct dsa_cuda *cuda, const struct select_scratch *s, struct dsa_tensor *q,
                             struct dsa_tensor *k, struct dsa_tensor *weight, int heads, int dim,
                             enum dsa_index_precision precision)
{
	bool ue8m0 = precision == DSA_INDEX_FP8_UE8M0;
	cudaError_t code = kernel_index_rows(cuda->stream, s->queries, s->weights, *q, *weight, heads, dim, ue8m0);
	if (!code)
		code =
		    kernel_index_rows(cuda->stream, s->keys, s->key_scales, *k, (struct dsa_tensor){0}, 1, dim, ue8m0);
	*q = dsa_tensor_make(s->queries, DSA_BF16, q->rows, q->cols);
	*k = dsa_tensor_make(s->keys, DSA_BF16, k->rows, k->cols);
	*weight = dsa_tensor_make(s->weights, DSA_F32, weight->rows, weight->cols);
	return code;
}

enum dsa_status cuda_select(struct dsa_backend *be, int32_t *selection, int topk, struct dsa_tensor q,
                            struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
                            enum dsa_index_precision precision, const struct dsa_rows *rows, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	assert(q.dtype == DSA_BF16 && k.dtype == DSA_BF16 && weight.dtype == DSA_F32);
	assert(q.rows == rows->count && weight.rows == rows->count && topk > 0);
	assert(q.cols == heads * dim && k.cols == dim && weight.cols == heads);
	int context = rows->max_pos + 1;
	struct select_scratch s;
	size_t bytes = cuda_select_bytes(rows->count, k.rows, context, heads, dim, precision);
	carve_scratch(&s, cuda_scratch(cuda, bytes), rows->count, k.rows, context, heads, dim, precision);
	cudaError_t code =
	    in_fp8(precision) ? take_rows(cuda, &s, &q, &k, &weight, heads, dim, precision) : cudaSuccess;
	for (int64_t first = 0; first < rows->count && !code; first += s.tile) {
		int64_t count = cuda_min(s.tile, rows->count - first);
		struct dsa_rows part = {
		    .count = count, .pos = rows->pos + first, .key0 = rows->key0 + first, .max_pos = rows->max_pos};
		code = kernel_index_scores(cuda->stream, s.scores, s.stride, dsa_tensor_rows(q, first, count), k,
		                           s.key_scales, dsa_tensor_rows(weight, first, count), heads, dim, &part);
		if (!code)
			code = kernel_topk(cuda->stream, selection + first * topk, topk, s.scores, s.stride, &part,
			                   cuda->fault);
	}
	return cuda_check(code, "selecting positions", err);
}
