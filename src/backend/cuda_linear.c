/* Products with weights, of all columns or head by head. */
#include "cuda.h"

/* A float32 weight in bf16 pieces: their products, added in float32, are the product with the weight itself. */
enum { PIECES = 3 };

size_t cuda_linear_bytes(int width, int in)
{
	struct cuda_carve carve = {0};
	cuda_carve(&carve, (int64_t)PIECES * width * in, sizeof(uint16_t));
	return carve.used;
}

static enum dsa_status add_bias(struct dsa_cuda *cuda, struct dsa_tensor out, struct dsa_tensor bias,
                                struct dsa_error *err)
{
	if (!bias.data)
		return DSA_OK;
	assert(bias.dtype == DSA_F32 && bias.cols == out.cols);
	return cuda_check(kernel_add_bias(cuda->stream, out, bias.data), "adding a bias", err);
}

/* The largest piece first: an accumulating call has its old content to begin with. */
static enum dsa_status with_pieces(struct dsa_cuda *cuda, struct cuda_product what, struct dsa_tensor w,
                                   struct dsa_error *err)
{
	struct cuda_carve carve = cuda_scratch(cuda, cuda_linear_bytes((int)w.rows, w.cols));
	int64_t count = w.rows * w.cols;
	uint16_t *pieces = cuda_carve(&carve, PIECES * count, sizeof *pieces);
	enum dsa_status status = cuda_check(kernel_split(cuda->stream, pieces, w), "splitting a weight", err);
	for (int p = 0; p < PIECES && !status; p++) {
		what.w = dsa_tensor_make(pieces + p * count, DSA_BF16, w.rows, w.cols);
		what.accumulate |= p > 0;
		status = cuda_product(cuda, &what, 0, err);
	}
	return status;
}

enum dsa_status cuda_linear(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                            struct dsa_tensor bias, bool accumulate, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	struct cuda_product what = {.out = out, .x = x, .w = w, .batches = 1, .accumulate = accumulate};
	enum dsa_status status;
	assert(x.dtype == DSA_BF16 && out.rows == x.rows && out.cols == w.rows && x.cols == w.cols);
	if (w.dtype == DSA_BF16) {
		status = cuda_product(cuda, &what, 0, err);
	} else if (w.cols % 8 == 0 && cuda_product_fits(&what)) {
		assert(w.dtype == DSA_F32 && out.dtype == DSA_F32);
		status = with_pieces(cuda, what, w, err);
	} else {
		const struct kernel_linear plain = {.out = out,
		                                    .x = x,
		                                    .w = w.data,
		                                    .w_dtype = w.dtype,
		                                    .w_row = w.stride,
		                                    .w_col = 1,
		                                    .heads = 1,
		                                    .in = x.cols,
		                                    .width = out.cols,
		                                    .accumulate = accumulate};
		status = cuda_check(kernel_linear(cuda->stream, &plain), "a product", err);
	}
	return status ? status : add_bias(cuda, out, bias, err);
}

enum dsa_status cuda_head_linear(struct dsa_backend *be, struct dsa_tensor out, int out_head, struct dsa_tensor x,
                                 int x_head, struct dsa_tensor w, int64_t w_head, int heads, int in, int width,
                                 bool transposed, struct dsa_error *err)
{
	struct dsa_cuda *cuda = cuda_of(be);
	struct dsa_tensor one_out = out, one_x = x;
	assert(x.dtype == DSA_BF16 && w.dtype == DSA_BF16 && out.rows == x.rows);
	one_out.cols = width;
	one_x.cols = in;
	const struct cuda_product what = {.out = one_out,
	                                  .x = one_x,
	                                  .w = w,
	                                  .out_step = out_head,
	                                  .x_step = x_head,
	                                  .w_step = w_head,
	                                  .batches = heads,
	                                  .w_transposed = !transposed};
	return cuda_product(cuda, &what, 0, err);
}

enum dsa_status cuda_logits(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor head,
                            struct dsa_error *err)
{
	assert(out.dtype == DSA_F32);
	return cuda_linear(be, out, x, head, (struct dsa_tensor){0}, false, err);
}
