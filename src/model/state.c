#include "forward_private.h"

#include <assert.h>

/* Rows of positions ≥ min(K, T): in a whole pass one stretch per document, in a scored-part pass every row. */
static int64_t state_rows(const struct dsa_model_config *config, int tokens)
{
	return tokens - prefix_tokens(config, tokens);
}

size_t dsa_state_bytes(const struct dsa_model_config *config, const struct dsa_pass_document *documents, int count)
{
	size_t row = (size_t)config->hidden * sizeof(float) + (size_t)config->topk * sizeof(int32_t), rows = 0;
	for (int d = 0; d < count; d++)
		rows += (size_t)state_rows(config, documents[d].tokens);
	return rows * row;
}

/* One tensor's rows of the image, document after document. */
static enum dsa_status save(struct dsa_forward *f, struct dsa_tensor device, char *host, struct dsa_error *err)
{
	const struct dsa_model_config *config = &f->model->config;
	size_t size = (size_t)device.cols * dsa_dtype_bytes(device.dtype);
	enum dsa_status status = DSA_OK;
	if (!f->pass->whole)
		return f->be->ops->download(f->be, host, device.data, (size_t)f->pass->rows * size, err);
	for (int d = 0; d < f->pass->count && !status; d++) {
		int tokens = f->pass->documents[d].tokens;
		int64_t first =
		    f->pass->documents[d].row0 + prefix_tokens(config, tokens) - f->pass->documents[d].first;
		size_t bytes = (size_t)state_rows(config, tokens) * size;
		status =
		    f->be->ops->download(f->be, host, (const char *)device.data + (size_t)first * size, bytes, err);
		host += bytes;
	}
	return status;
}

static int64_t image_rows(const struct dsa_forward *f)
{
	int64_t rows = 0;
	for (int d = 0; d < f->pass->count; d++)
		rows += state_rows(&f->model->config, f->pass->documents[d].tokens);
	return rows;
}

enum dsa_status dsa_forward_save(struct dsa_forward *f, void *image, struct dsa_error *err)
{
	const struct stream *stream = f->stream;
	const int32_t none = -1;
	size_t rows = (size_t)image_rows(f);
	if (!rows)
		return DSA_OK;
	char *selection = (char *)image + rows * (size_t)stream->residual.cols * sizeof(float);
	enum dsa_status status = save(f, stream->residual, image, err);
	if (!status && stream->has_selection)
		status = save(f, stream->selection, selection, err);
	else if (!status) /* none in force: the first entry says so */
		status = f->be->ops->upload(f->be, selection, &none, sizeof none, err);
	return status ? status : f->be->ops->wait(f->be, err);
}

enum dsa_status dsa_forward_restore(struct dsa_forward *f, const void *image, struct dsa_error *err)
{
	struct stream *stream = f->stream;
	size_t rows = (size_t)f->pass->rows, residual_bytes = rows * (size_t)stream->residual.cols * sizeof(float);
	const char *selection = (const char *)image + residual_bytes;
	assert(!f->pass->whole);
	stream->pass = f->pass;
	stream->has_selection = true;
	if (!rows)
		return DSA_OK;
	int32_t first;
	enum dsa_status status = f->be->ops->download(f->be, &first, selection, sizeof first, err);
	if (status)
		return status;
	stream->has_selection = first >= 0; /* a row at or past K selects K positions */
	status = f->be->ops->upload(f->be, stream->residual.data, image, residual_bytes, err);
	if (!status)
		status = f->be->ops->upload(f->be, stream->selection.data, selection,
		                            rows * (size_t)stream->selection.cols * sizeof(int32_t), err);
	/* The image may be gone as soon as this returns. */
	return status ? status : f->be->ops->wait(f->be, err);
}
