/* The experts of a mixture: rows grouped by expert, products per expert, combined per row in the order of its ids.
 *
 * A tile of rows is permuted so that an expert's rows lie together. How many each has, the host must know to queue the
 * products: one small download a tile. The products of experts are dealt to side streams, which changes no bit. An
 * expert's outputs replace its inputs: nobody reads those any more. */
#include "cuda.h"

/* Below so many elements of permuted rows, products are too short for several streams to pay. */
enum { LEAST_FOR_STREAMS = 1 << 22, LEAST_TILE_ROWS = 64 };
static const int64_t tile_bytes = (int64_t)7 << 28;

struct experts_scratch {
	int64_t tile; /* rows */
	uint16_t *x;  /* (tile · chosen, D) BF16: rows by expert, then what the experts make of them */
	uint16_t *gate_up, *inner;
	int32_t *sorted, *places, *starts;
};

static size_t carve_scratch(struct experts_scratch *s, struct cuda_carve carve, int64_t rows, int hidden, int inner,
                            int experts, int chosen)
{
	int64_t width = (int64_t)hidden + 3 * (int64_t)inner;
	int64_t fits = tile_bytes / ((int64_t)sizeof(uint16_t) * width * (chosen > 0 ? chosen : 1));
	s->tile = cuda_min(rows, fits > LEAST_TILE_ROWS ? fits : LEAST_TILE_ROWS);
	int64_t pairs = s->tile * chosen;
	s->x = cuda_carve(&carve, pairs * hidden, sizeof *s->x);
	s->gate_up = cuda_carve(&carve, pairs * 2 * inner, sizeof *s->gate_up);
	s->inner = cuda_carve(&carve, pairs * inner, sizeof *s->inner);
	s->sorted = cuda_carve(&carve, pairs, sizeof *s->sorted);
	s->places = cuda_carve(&carve, pairs, sizeof *s->places);
	s->starts = cuda_carve(&carve, experts + 1, sizeof *s->starts);
	return carve.used;
}

size_t cuda_experts_bytes(int64_t rows, int hidden, int inner, int experts, int chosen)
{
	struct experts_scratch s;
	return carve_scratch(&s, (struct cuda_carve){0}, rows, hidden, inner, experts, chosen);
}

static enum dsa_status fork_streams(struct dsa_cuda *cuda, int streams, struct dsa_error *err)
{
	if (!streams)
		return DSA_OK;
	cudaError_t code = cudaEventRecord(cuda->fork, cuda->stream);
	for (int s = 0; s < streams && !code; s++)
		code = cudaStreamWaitEvent(cuda->side[s], cuda->fork, 0);
	return cuda_check(code, "dealing products to streams", err);
}

static enum dsa_status join_streams(struct dsa_cuda *cuda, int streams, struct dsa_error *err)
{
	cudaError_t code = cudaSuccess;
	for (int s = 0; s < streams && !code; s++) {
		code = cudaEventRecord(cuda->join[s], cuda->side[s]);
		if (!code)
			code = cudaStreamWaitEvent(cuda->stream, cuda->join[s], 0);
	}
	return cuda_check(code, "joining streams", err);
}

/* Every expert's rows of out = its rows of x times its rows of w, which has out.cols of them per expert. */
static enum dsa_status multiply(struct dsa_cuda *cuda, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                                const struct dsa_experts *experts, int streams, struct dsa_error *err)
{
	const int32_t *starts = cuda->expert_starts;
	enum dsa_status status = fork_streams(cuda, streams, err);
	for (int e = 0, turn = 0; e < experts->count && !status; e++) {
		int64_t first = starts[e], count = starts[e + 1] - first;
		if (count == 0)
			continue;
		const struct cuda_product what = {.out = dsa_tensor_rows(out, first, count),
		                                  .x = dsa_tensor_rows(x, first, count),
		                                  .w = dsa_tensor_rows(w, (int64_t)e * out.cols, out.cols),
		                                  .batches = 1};
		status = cuda_product(cuda, &what, streams ? 1 + turn++ % streams : 0, err);
	}
	return status ? status : join_streams(cuda, streams, err);
}

static enum dsa_status run_tile(struct dsa_cuda *cuda, const struct experts_scratch *s, struct dsa_tensor out,
                                struct dsa_tensor x, const int32_t *ids, const float *weights, int chosen,
                                const struct dsa_experts *experts, struct dsa_error *err)
{
	int64_t pairs = x.rows * chosen;
	int count = experts->count, hidden = x.cols, inner = experts->inner;
	int streams = pairs * hidden < LEAST_FOR_STREAMS ? 0 : CUDA_STREAMS;
	struct dsa_tensor sorted = dsa_tensor_make(s->x, DSA_BF16, pairs, hidden);
	struct dsa_tensor gate_up = dsa_tensor_make(s->gate_up, DSA_BF16, pairs, 2 * inner);
	struct dsa_tensor middle = dsa_tensor_make(s->inner, DSA_BF16, pairs, inner);
	cudaError_t code = kernel_sort_pairs(cuda->stream, s->starts, s->sorted, s->places, ids, pairs, count);
	if (!code)
		code = cudaMemcpyAsync(cuda->expert_starts, s->starts, (size_t)(count + 1) * sizeof *s->starts,
		                       cudaMemcpyDeviceToHost, cuda->stream);
	if (!code)
		code = cudaEventRecord(cuda->fork, cuda->stream);
	/* Queued before the host waits: the device has it to do meanwhile. */
	if (!code)
		code = kernel_permute(cuda->stream, sorted, x, s->sorted, chosen);
	if (!code)
		code = cudaEventSynchronize(cuda->fork);
	enum dsa_status status = cuda_check(code, "sorting rows by expert", err);
	if (!status)
		status = multiply(cuda, gate_up, sorted, experts->gate_up, experts, streams, err);
	if (!status)
		status = cuda_check(kernel_silu_mul(cuda->stream, middle, gate_up), "an expert's gate", err);
	if (!status)
		status = multiply(cuda, sorted, middle, experts->down, experts, streams, err);
	return status ? status
	              : cuda_check(kernel_combine(cuda->stream, out, sorted, s->places, weights, chosen),
	                           "combining experts", err);
}

enum dsa_status cuda_experts(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *ids,
                             const float *weights, int chosen, const struct dsa_experts *experts, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	struct experts_scratch s;
	int hidden = x.cols, inner = experts->inner;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_BF16 && out.rows == x.rows && out.cols == hidden && chosen > 0);
	assert(experts->count <= CUDA_MOST_EXPERTS);
	size_t bytes = cuda_experts_bytes(x.rows, hidden, inner, experts->count, chosen);
	carve_scratch(&s, cuda_scratch(cuda, bytes), x.rows, hidden, inner, experts->count, chosen);
	enum dsa_status status = DSA_OK;
	for (int64_t first = 0; first < x.rows && !status; first += s.tile) {
		int64_t count = cuda_min(s.tile, x.rows - first);
		status = run_tile(cuda, &s, dsa_tensor_rows(out, first, count), dsa_tensor_rows(x, first, count),
		                  ids + first * chosen, weights + first * chosen, chosen, experts, err);
	}
	return status;
}
