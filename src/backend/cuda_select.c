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

/* Grows with both, so that what is reserved for the limits is enough for any call. */
size_t cuda_select_bytes(int64_t rows, int context)
{
	size_t row = row_bytes(context), most = row * LEAST_ROWS > SCORE_BYTES ? row * LEAST_ROWS : SCORE_BYTES;
	return row * (size_t)rows < most ? row * (size_t)rows : most;
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
	size_t bytes = cuda_select_bytes(rows->count, context), row = row_bytes(context);
	struct cuda_carve carve = cuda_scratch(cuda, bytes);
	int64_t tile = (int64_t)(bytes / row), stride = (int64_t)(row / sizeof(float));
	float *scores = cuda_carve(&carve, tile * stride, sizeof *scores);
	for (int64_t first = 0; first < rows->count; first += tile) {
		int64_t count = cuda_min(tile, rows->count - first);
		struct dsa_rows part = {
		    .count = count, .pos = rows->pos + first, .key0 = rows->key0 + first, .max_pos = rows->max_pos};
		cudaError_t code = kernel_index_scores(cuda->stream, scores, stride, dsa_tensor_rows(q, first, count),
		                                       k, dsa_tensor_rows(weight, first, count), heads, dim, &part);
		if (!code)
			code = kernel_topk(cuda->stream, selection + first * topk, topk, scores, stride, &part,
			                   cuda->fault);
		if (code)
			return cuda_check(code, "selecting positions", err);
	}
	return DSA_OK;
}
