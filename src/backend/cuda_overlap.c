/* Overlap of selections between layers. */
#include "cuda.h"

struct overlap_scratch {
	unsigned long long *counts; /* (L, L) */
	const int32_t **selections; /* (L) */
};

static size_t carve_overlap(struct overlap_scratch *s, struct cuda_carve carve, int layers)
{
	s->counts = cuda_carve(&carve, (int64_t)layers * layers, sizeof *s->counts);
	s->selections = cuda_carve(&carve, layers, sizeof *s->selections);
	return carve.used;
}

size_t cuda_overlap_bytes(int layers)
{
	struct overlap_scratch s;
	return carve_overlap(&s, (struct cuda_carve){0}, layers);
}

/* The device goes on counting from what the caller has: nothing is added up here. */
enum dsa_status cuda_overlap(struct dsa_backend *be, int64_t *counts, const int32_t *const *selections, int layers,
                             int topk, int64_t rows, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	struct overlap_scratch s;
	int context = cuda->limits.max_context;
	size_t bytes = (size_t)layers * (size_t)layers * sizeof *counts;
	carve_overlap(&s, cuda_scratch(cuda, cuda_overlap_bytes(layers)), layers);
	enum dsa_status status = cuda_upload(be, s.counts, counts, bytes, err);
	if (!status)
		status = cuda_upload(be, s.selections, selections, (size_t)layers * sizeof *selections, err);
	if (!status)
		status = cuda_check(kernel_overlap(cuda->stream, s.counts, s.selections, layers, topk, rows, context),
		                    "counting overlaps", err);
	return status ? status : cuda_download(be, counts, s.counts, bytes, err);
}
