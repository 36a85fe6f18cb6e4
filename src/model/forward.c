#include "forward_private.h"

#include <assert.h>
#include <stdlib.h>

#include "dsa/arena.h"

enum { ALIGNMENT = 256 };

/* Hands out tensors one behind another; with base NULL it only counts. */
struct carver {
	char *base;
	size_t used;
};

static struct dsa_tensor carve(struct carver *carver, enum dsa_dtype dtype, int64_t rows, int cols)
{
	struct dsa_tensor t = dsa_tensor_make(carver->base ? carver->base + carver->used : NULL, dtype, rows, cols);
	size_t bytes = (size_t)rows * (size_t)cols * dsa_dtype_bytes(dtype);
	carver->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return t;
}

static size_t plan_workspace(struct workspace *w, const struct dsa_model_config *c, const struct dsa_backend *be,
                             int64_t rows, int64_t keys, void *base)
{
	struct carver carver = {.base = base};
	enum dsa_dtype act = be->act;
	int64_t tile = rows < be->tile ? rows : be->tile;
	int shared = c->expert_inner * c->shared_experts, wide = c->dense_inner > shared ? c->dense_inner : shared;
	w->keys = carve(&carver, act, keys, c->latent + c->rope);
	w->index_keys = carve(&carver, act, keys, c->index_dim);
	w->pos = carve(&carver, DSA_I32, keys, 1);
	w->key0 = carve(&carver, DSA_I32, keys, 1);
	w->ids = carve(&carver, DSA_I32, rows, 1);
	w->normed = carve(&carver, act, tile, c->hidden);
	w->q_low = carve(&carver, act, tile, c->q_rank);
	w->q = carve(&carver, act, tile, c->heads * (c->nope + c->rope));
	w->q_absorbed = carve(&carver, act, tile, c->heads * (c->latent + c->rope));
	w->kv = carve(&carver, act, tile, c->latent + c->rope);
	w->index_q = carve(&carver, act, tile, c->index_heads * c->index_dim);
	w->index_k = carve(&carver, act, tile, c->index_dim);
	w->index_weights = carve(&carver, DSA_F32, tile, c->index_heads);
	w->dropped = carve(&carver, DSA_I32, tile, c->topk);
	w->mixed = carve(&carver, act, tile, c->heads * c->latent);
	w->values = carve(&carver, act, tile, c->heads * c->value);
	w->gate_up = carve(&carver, act, tile, 2 * wide);
	w->inner = carve(&carver, act, tile, wide);
	w->router = carve(&carver, DSA_F32, tile, c->router.experts);
	w->chosen = carve(&carver, DSA_I32, tile, c->router.chosen);
	w->chosen_weights = carve(&carver, DSA_F32, tile, c->router.chosen);
	w->gathered = carve(&carver, DSA_F32, tile, c->hidden);
	return carver.used;
}

static size_t plan_stream(struct stream *stream, const struct dsa_model_config *c, int64_t rows, void *base)
{
	struct carver carver = {.base = base};
	stream->residual = carve(&carver, DSA_F32, rows, c->hidden);
	stream->selection = carve(&carver, DSA_I32, rows, c->topk);
	return carver.used;
}

size_t dsa_forward_stream_bytes(const struct dsa_model_config *config, int64_t max_rows)
{
	struct stream stream;
	return plan_stream(&stream, config, max_rows, NULL);
}

size_t dsa_forward_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int64_t max_rows,
                         int64_t max_keys, int streams)
{
	struct workspace work;
	return plan_workspace(&work, config, be, max_rows, max_keys, NULL) +
	       (size_t)streams * dsa_forward_stream_bytes(config, max_rows);
}

/* The streams lie behind the workspace. */
static void lay_out_memory(struct dsa_forward *f)
{
	const struct dsa_model_config *c = &f->model->config;
	size_t used = plan_workspace(&f->work, c, f->be, f->max_rows, f->max_keys, f->memory);
	for (int i = 0; i < f->stream_count; i++)
		used += plan_stream(&f->streams[i], c, f->max_rows, (char *)f->memory + used);
	dsa_forward_use(f, 0);
}

struct dsa_backend_limits dsa_forward_limits(const struct dsa_model_config *c, int context, int64_t max_rows,
                                             int64_t max_keys)
{
	return (struct dsa_backend_limits){
	    .rows = max_rows,
	    .keys = max_keys,
	    .layers = c->layers,
	    .hidden = c->hidden,
	    .heads = c->heads,
	    .latent = c->latent,
	    .rope = c->rope,
	    .topk = c->topk,
	    .vocab = c->vocab,
	    .experts = c->router.experts,
	    .chosen = c->router.chosen,
	    .expert_inner = c->expert_inner,
	    .index_heads = c->index_heads,
	    .index_dim = c->index_dim,
	    .max_context = context,
	    .index_precision = c->index_precision,
	};
}

enum dsa_status dsa_forward_open(struct dsa_forward **out, struct dsa_model *model, int64_t max_rows, int64_t max_keys,
                                 int max_documents, int streams, struct dsa_error *err)
{
	const struct dsa_model_config *c = &model->config;
	struct dsa_backend *be = model->backend;
	enum dsa_status status = DSA_E_MEMORY;
	assert(max_rows > 0 && max_keys >= max_rows && max_keys <= INT32_MAX && max_documents > 0 && streams > 0);
	struct dsa_forward *forward = *out = dsa_alloc(1, sizeof *forward, "a forward pass", err);
	if (!forward)
		return status;
	forward->model = model;
	forward->be = be;
	forward->max_rows = max_rows;
	forward->max_keys = max_keys;
	forward->max_documents = max_documents;
	forward->stream_count = streams;
	forward->streams = dsa_alloc((size_t)streams, sizeof *forward->streams, "the streams of a pass", err);
	forward->passes = dsa_alloc((size_t)streams, sizeof *forward->passes, "the passes in progress", err);
	if (!forward->streams || !forward->passes)
		goto cleanup;
	forward->pass = forward->passes;
	struct dsa_backend_limits limits = dsa_forward_limits(c, model->context, max_rows, max_keys);
	status = dsa_backend_reserve(be, &limits, err);
	if (!status)
		status = be->ops->alloc(be, dsa_forward_bytes(c, be, max_rows, max_keys, streams),
		                        "activations of a forward pass", &forward->memory, err);
	if (!status)
		lay_out_memory(forward);
cleanup:
	if (status) {
		dsa_forward_close(forward);
		*out = NULL;
	}
	return status;
}

void dsa_forward_close(struct dsa_forward *forward)
{
	if (!forward)
		return;
	if (forward->memory)
		forward->be->ops->free(forward->be, forward->memory);
	for (int i = 0; forward->passes && i < forward->stream_count; i++) {
		free(forward->passes[i].documents);
		free(forward->passes[i].host);
	}
	free(forward->streams);
	free(forward->passes);
	free(forward);
}

/* Rows, keys and places of the documents. */
static enum dsa_status place(struct dsa_forward *f, struct pass *pass, const struct dsa_pass_document *documents,
                             int count, bool whole, struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	if (count > pass->document_room) {
		free(pass->documents);
		pass->document_room = 0;
		pass->documents = dsa_alloc((size_t)count, sizeof *pass->documents, "the documents of a pass", err);
		if (!pass->documents)
			return DSA_E_MEMORY;
		pass->document_room = count;
	}
	pass->rows = pass->key_rows = 0;
	for (int d = 0; d < count; d++) {
		int tokens = documents[d].tokens, first = whole ? 0 : prefix_tokens(c, tokens);
		if (tokens < 1 || tokens > f->model->context)
			return dsa_fail(err, DSA_E_USAGE,
			                "document %d of a pass has %d tokens, expected 1 to the context of %d", d,
			                tokens, f->model->context);
		if (tokens - first > f->max_rows - pass->rows || tokens > f->max_keys - pass->key_rows)
			return dsa_fail(err, DSA_E_USAGE,
			                "the documents of a pass have more than the %lld rows or %lld keys planned for",
			                (long long)f->max_rows, (long long)f->max_keys);
		pass->documents[d] = (struct pass_document){
		    .tokens = tokens, .first = first, .row0 = pass->rows, .key0 = pass->key_rows};
		pass->rows += tokens - first;
		pass->key_rows += tokens;
	}
	return DSA_OK;
}

/* Per query row, position, first key and token id; behind them, of the rows whose keys come from the prefix. */
static enum dsa_status describe(const struct dsa_forward *f, struct pass *pass,
                                const struct dsa_pass_document *documents, int count, struct dsa_error *err)
{
	const int vocab = f->model->config.vocab;
	if (pass->key_rows > pass->room) {
		free(pass->host);
		pass->room = 0;
		pass->host = dsa_alloc(3 * (size_t)pass->key_rows, sizeof *pass->host, "the rows of a pass", err);
		if (!pass->host)
			return DSA_E_MEMORY;
		pass->room = pass->key_rows;
	}
	int32_t *pos = pass->host, *key0 = pos + pass->room, *ids = key0 + pass->room;
	int64_t row = 0;
	for (int d = 0; d < count; d++)
		for (int t = pass->documents[d].first; t < documents[d].tokens; t++, row++) {
			int32_t id = documents[d].ids[t];
			if (id < 0 || id >= vocab)
				return dsa_fail(
				    err, DSA_E_INPUT,
				    "token id %d at position %d of document %d is outside the model's vocabulary "
				    "of %d; does the tokenizer belong to the model?",
				    (int)id, t, d, vocab);
			pos[row] = t;
			key0[row] = (int32_t)pass->documents[d].key0;
			ids[row] = id;
		}
	for (int d = 0; d < count; d++)
		for (int t = 0; t < pass->documents[d].first; t++, row++) {
			pos[row] = t;
			key0[row] = (int32_t)pass->documents[d].key0;
		}
	pass->laid_out = row;
	return DSA_OK;
}

/* What the device has to know of the rows of the pass at hand. */
static enum dsa_status send_rows(struct dsa_forward *f, struct dsa_error *err)
{
	const struct dsa_ops *ops = f->be->ops;
	const struct pass *pass = f->pass;
	const size_t bytes = (size_t)pass->laid_out * sizeof *pass->host;
	f->loaded = -1;
	enum dsa_status status = ops->upload(f->be, f->work.pos.data, pass->host, bytes, err);
	if (!status)
		status = ops->upload(f->be, f->work.key0.data, pass->host + pass->room, bytes, err);
	if (!status)
		status = ops->upload(f->be, f->work.ids.data, pass->host + 2 * pass->room,
		                     (size_t)pass->rows * sizeof *pass->host, err);
	return status;
}

enum dsa_status dsa_forward_begin(struct dsa_forward *f, const struct dsa_pass_document *documents, int count,
                                  bool whole, struct dsa_prefix *prefix, int64_t *rows, struct dsa_error *err)
{
	struct pass *pass = f->pass;
	assert(count > 0 && count <= f->max_documents);
	assert(whole || prefix);
	assert(!prefix || prefix_fits(prefix, documents, count));
	pass->count = 0;
	for (int i = 0; i < f->stream_count; i++)
		if (f->streams[i].pass == pass)
			f->streams[i].pass = NULL;
	dsa_forward_use(f, 0);
	/* The rows that it had before may still be on their way from the same host memory. */
	enum dsa_status status = f->be->ops->wait(f->be, err);
	if (!status)
		status = place(f, pass, documents, count, whole, err);
	if (!status)
		status = describe(f, pass, documents, count, err);
	if (status)
		return status;
	pass->count = count;
	pass->whole = whole;
	pass->prefix = prefix;
	*rows = pass->rows;
	return send_rows(f, err);
}

enum dsa_status dsa_forward_turn(struct dsa_forward *f, int pass, struct dsa_error *err)
{
	assert(pass >= 0 && pass < f->stream_count);
	if (f->pass == &f->passes[pass])
		return DSA_OK;
	f->pass = &f->passes[pass];
	return f->pass->count ? send_rows(f, err) : DSA_OK;
}

void dsa_forward_use(struct dsa_forward *f, int stream)
{
	assert(stream >= 0 && stream < f->stream_count);
	f->stream = &f->streams[stream];
	f->work.residual = f->stream->residual;
	f->work.selection = f->stream->selection;
}

enum dsa_status dsa_forward_fork(struct dsa_forward *f, int from, struct dsa_error *err)
{
	const struct dsa_ops *ops = f->be->ops;
	assert(from >= 0 && from < f->stream_count);
	const struct stream *source = &f->streams[from];
	const size_t rows = (size_t)f->pass->rows;
	assert(source != f->stream && source->pass == f->pass);
	f->stream->pass = f->pass;
	f->stream->has_selection = source->has_selection;
	if (!rows)
		return DSA_OK;
	enum dsa_status status = ops->copy(f->be, f->stream->residual.data, source->residual.data,
	                                   rows * (size_t)source->residual.cols * sizeof(float), err);
	if (!status && source->has_selection)
		status = ops->copy(f->be, f->stream->selection.data, source->selection.data,
		                   rows * (size_t)source->selection.cols * sizeof(int32_t), err);
	return status;
}

enum dsa_status dsa_forward_embed(struct dsa_forward *f, uint64_t seed, struct dsa_error *err)
{
	struct dsa_rows rows = {.count = f->pass->rows,
	                        .pos = f->work.pos.data,
	                        .key0 = f->work.key0.data,
	                        .max_pos = f->model->context - 1};
	f->stream->pass = f->pass;
	f->stream->has_selection = false;
	if (!f->pass->rows)
		return DSA_OK;
	return f->be->ops->embed(f->be, dsa_tensor_rows(f->stream->residual, 0, f->pass->rows), f->model->embed,
	                         f->work.ids.data, &rows, seed, err);
}

void dsa_forward_keep_plain(struct dsa_forward *f, int32_t *plain)
{
	f->plain = plain;
}

enum dsa_status dsa_forward_hidden(struct dsa_forward *f, const int32_t *index, int64_t count, struct dsa_tensor out,
                                   struct dsa_error *err)
{
	const struct dsa_ops *ops = f->be->ops;
	float eps = (float)f->model->config.norm_eps;
	assert(f->stream->pass == f->pass);
	assert(out.rows >= count && out.cols == f->model->config.hidden && count <= f->max_rows);
	struct dsa_tensor x = dsa_tensor_rows(f->stream->residual, 0, f->pass->rows);
	/* The token ids are spent: their memory takes the index. */
	int32_t *device_index = f->work.ids.data;
	if (!count)
		return DSA_OK;
	enum dsa_status status = ops->upload(f->be, device_index, index, (size_t)count * sizeof *index, err);
	for (int64_t first = 0; first < count && !status; first += f->be->tile) {
		int64_t tile = count - first < f->be->tile ? count - first : f->be->tile;
		struct dsa_tensor gathered = dsa_tensor_rows(f->work.gathered, 0, tile);
		status = ops->gather(f->be, gathered, x, device_index + first, err);
		if (!status)
			status = ops->rmsnorm(f->be, dsa_tensor_rows(out, first, tile), gathered, f->model->final_norm,
			                      eps, err);
	}
	/* The upload reads the caller's memory. */
	return status ? status : ops->wait(f->be, err);
}

int64_t dsa_forward_row(const struct dsa_forward *f, int document, int position)
{
	if (document < 0 || document >= f->pass->count)
		return -1;
	const struct pass_document *d = &f->pass->documents[document];
	return position >= d->first && position < d->tokens ? d->row0 + position - d->first : -1;
}

const int32_t *dsa_forward_selection(const struct dsa_forward *f)
{
	return f->stream->pass == f->pass && f->stream->has_selection ? f->stream->selection.data : NULL;
}

struct dsa_tensor dsa_forward_residual(const struct dsa_forward *f)
{
	return dsa_tensor_rows(f->stream->residual, 0, f->pass->rows);
}
