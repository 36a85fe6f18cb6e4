/* Exact comparison of candidates with the base over the whole vocabulary: logits of a tile of rows at a time, the
 * base's once for all candidates. */
#include "cuda.h"

enum { LEAST_ROWS = 64, MOST_CANDIDATES = 64 };
static const int64_t logits_bytes = (int64_t)768 << 20; /* of base and candidate together */

struct compare_scratch {
	int64_t tile;   /* rows */
	int64_t stride; /* V, padded so that every row is aligned */
	float *base, *logits;
	struct kernel_row_stats *stats;  /* (tile) */
	struct dsa_row_figures *figures; /* (MOST_CANDIDATES, tile) */
};

static size_t carve_scratch(struct compare_scratch *s, struct cuda_carve carve, int64_t rows, int vocab)
{
	s->stride = ((int64_t)vocab + 3) / 4 * 4;
	int64_t fits = logits_bytes / (2 * (int64_t)sizeof(float) * s->stride);
	/* Whole tiles of the product's rows, where there are so many. */
	fits = fits > 2 * LEAST_ROWS ? fits / (2 * LEAST_ROWS) * (2 * LEAST_ROWS) : LEAST_ROWS;
	s->tile = cuda_min(rows, fits);
	s->base = cuda_carve(&carve, s->tile * s->stride, sizeof *s->base);
	s->logits = cuda_carve(&carve, s->tile * s->stride, sizeof *s->logits);
	s->stats = cuda_carve(&carve, s->tile, sizeof *s->stats);
	s->figures = cuda_carve(&carve, s->tile * MOST_CANDIDATES, sizeof *s->figures);
	return carve.used;
}

size_t cuda_compare_bytes(int64_t rows, int vocab)
{
	struct compare_scratch s;
	return carve_scratch(&s, (struct cuda_carve){0}, rows, vocab);
}

static enum dsa_status head_tile(struct dsa_cuda *cuda, struct dsa_tensor logits, struct dsa_tensor x,
                                 struct dsa_tensor head, struct dsa_error *err)
{
	const struct cuda_product what = {.out = logits, .x = x, .w = head, .batches = 1};
	return cuda_product(cuda, &what, 0, err);
}

enum dsa_status cuda_compare(struct dsa_backend *be, struct dsa_row_figures *figures, struct dsa_tensor base,
                             const struct dsa_tensor *candidates, int count, struct dsa_tensor head,
                             const int32_t *target, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	struct compare_scratch s;
	int vocab = (int)head.rows;
	int64_t rows = base.rows;
	const size_t size = sizeof *figures;
	assert(base.dtype == DSA_BF16 && head.dtype == DSA_BF16 && base.cols == head.cols);
	assert(count > 0 && count <= MOST_CANDIDATES);
	carve_scratch(&s, cuda_scratch(cuda, cuda_compare_bytes(rows, vocab)), rows, vocab);
	enum dsa_status status = DSA_OK;
	for (int64_t first = 0; first < rows && !status; first += s.tile) {
		int64_t n = cuda_min(s.tile, rows - first);
		struct dsa_tensor base_logits = dsa_tensor_make(s.base, DSA_F32, n, vocab);
		struct dsa_tensor logits = dsa_tensor_make(s.logits, DSA_F32, n, vocab);
		base_logits.stride = logits.stride = s.stride;
		status = head_tile(cuda, base_logits, dsa_tensor_rows(base, first, n), head, err);
		if (!status)
			status = cuda_check(kernel_row_stats(cuda->stream, s.stats, base_logits), "comparing", err);
		for (int c = 0; c < count && !status; c++) {
			status = head_tile(cuda, logits, dsa_tensor_rows(candidates[c], first, n), head, err);
			if (!status)
				status = cuda_check(kernel_compare(cuda->stream, s.figures + c * n, base_logits,
				                                   s.stats, logits, target + first),
				                    "comparing", err);
		}
		if (!status)
			status = cuda_check(cudaMemcpy2DAsync(figures + first, (size_t)rows * size, s.figures,
			                                      (size_t)n * size, (size_t)n * size, (size_t)count,
			                                      cudaMemcpyDeviceToHost, cuda->stream),
			                    "reading figures", err);
	}
	return status ? status : cuda_check(cudaStreamSynchronize(cuda->stream), "comparing", err);
}
