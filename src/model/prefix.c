#include "forward_private.h"

#include <assert.h>
#include <stdlib.h>

#include "dsa/arena.h"

struct dsa_prefix {
	struct dsa_backend *be; /* whose host memory keys lie in */
	const struct dsa_model_config *config;
	enum dsa_dtype act;
	int count;
	int *tokens;                 /* (count) T */
	int64_t rows;                /* P = Σ min(K, T) */
	char *keys;                  /* per layer (P, c + r), then (P, d) */
	bool *stored, *index_stored; /* (L) */
};

static int64_t prefix_rows(const struct dsa_model_config *config, const struct dsa_pass_document *documents, int count)
{
	int64_t rows = 0;
	for (int d = 0; d < count; d++)
		rows += prefix_tokens(config, documents[d].tokens);
	return rows;
}

static size_t row_bytes(const struct dsa_model_config *config, enum dsa_dtype act)
{
	return (size_t)(config->latent + config->rope + config->index_dim) * dsa_dtype_bytes(act);
}

size_t dsa_prefix_bytes(const struct dsa_model_config *config, enum dsa_dtype act,
                        const struct dsa_pass_document *documents, int count)
{
	return (size_t)prefix_rows(config, documents, count) * row_bytes(config, act) * (size_t)config->layers;
}

enum dsa_status dsa_prefix_open(struct dsa_prefix **out, const struct dsa_model *model,
                                const struct dsa_pass_document *documents, int count, struct dsa_error *err)
{
	const struct dsa_model_config *config = &model->config;
	size_t layers = (size_t)config->layers;
	struct dsa_prefix *prefix = *out = dsa_alloc(1, sizeof *prefix, "a prefix", err);
	if (!prefix)
		return DSA_E_MEMORY;
	prefix->config = config;
	prefix->be = model->backend;
	prefix->act = model->backend->act;
	prefix->count = count;
	prefix->rows = prefix_rows(config, documents, count);
	prefix->tokens = dsa_alloc((size_t)count, sizeof *prefix->tokens, "a prefix", err);
	prefix->stored = dsa_alloc(layers, sizeof *prefix->stored, "a prefix", err);
	prefix->index_stored = dsa_alloc(layers, sizeof *prefix->index_stored, "a prefix", err);
	size_t bytes = layers * (size_t)prefix->rows * row_bytes(config, prefix->act);
	prefix->keys = prefix->be->ops->stash_alloc(prefix->be, bytes);
	if (!prefix->tokens || !prefix->stored || !prefix->index_stored || !prefix->keys) {
		if (!prefix->keys)
			(void)dsa_fail(err, DSA_E_MEMORY,
			               "no memory for keys of the positions below index_topk: %zu bytes", bytes);
		dsa_prefix_close(prefix);
		*out = NULL;
		return DSA_E_MEMORY;
	}
	for (int d = 0; d < count; d++)
		prefix->tokens[d] = documents[d].tokens;
	return DSA_OK;
}

void dsa_prefix_close(struct dsa_prefix *prefix)
{
	if (!prefix)
		return;
	free(prefix->tokens);
	free(prefix->stored);
	free(prefix->index_stored);
	if (prefix->keys)
		prefix->be->ops->stash_free(prefix->be, prefix->keys);
	free(prefix);
}

bool prefix_fits(const struct dsa_prefix *prefix, const struct dsa_pass_document *documents, int count)
{
	if (prefix->count != count)
		return false;
	for (int d = 0; d < count; d++) {
		if (prefix->tokens[d] != documents[d].tokens)
			return false;
	}
	return true;
}

/* One kind of key of a layer, all documents, to the host. */
static enum dsa_status store(struct dsa_forward *f, struct dsa_tensor keys, char *host, struct dsa_error *err)
{
	size_t size = (size_t)keys.cols * dsa_dtype_bytes(keys.dtype);
	enum dsa_status status = DSA_OK;
	for (int d = 0; d < f->pass->count && !status; d++) {
		const struct pass_document *document = &f->pass->documents[d];
		size_t bytes = (size_t)prefix_tokens(&f->model->config, document->tokens) * size;
		status =
		    f->be->ops->download(f->be, host, (char *)keys.data + (size_t)document->key0 * size, bytes, err);
		host += bytes;
	}
	return status;
}

/* … and from there to where its rows belong, through `landing`, a tensor of a tile. */
static enum dsa_status load(struct dsa_forward *f, struct dsa_tensor keys, struct dsa_tensor landing, const char *host,
                            struct dsa_error *err)
{
	size_t size = (size_t)keys.cols * dsa_dtype_bytes(keys.dtype);
	enum dsa_status status = DSA_OK;
	assert(landing.cols == keys.cols && landing.dtype == keys.dtype && landing.stride == landing.cols);
	for (int64_t first = 0; first < f->pass->prefix->rows && !status; first += landing.rows) {
		int64_t left = f->pass->prefix->rows - first, count = left < landing.rows ? left : landing.rows;
		/* The prefix's rows are laid out behind the query rows of the pass. */
		struct dsa_rows rows = {.count = count,
		                        .pos = (const int32_t *)f->work.pos.data + f->pass->rows + first,
		                        .key0 = (const int32_t *)f->work.key0.data + f->pass->rows + first,
		                        .max_pos = f->model->config.topk - 1};
		status =
		    f->be->ops->upload(f->be, landing.data, host + (size_t)first * size, (size_t)count * size, err);
		if (!status)
			status = f->be->ops->store_keys(f->be, dsa_tensor_rows(keys, 0, f->pass->key_rows),
			                                dsa_tensor_rows(landing, 0, count), &rows, err);
	}
	return status;
}

static char *layer_keys(const struct dsa_prefix *prefix, int layer)
{
	return prefix->keys + (size_t)layer * (size_t)prefix->rows * row_bytes(prefix->config, prefix->act);
}

/* The indexer's keys of a layer lie behind its latent ones. */
static size_t latent_bytes(const struct dsa_forward *f)
{
	return (size_t)f->pass->prefix->rows * (size_t)f->work.keys.cols * dsa_dtype_bytes(f->pass->prefix->act);
}

enum dsa_status prefix_store(struct dsa_forward *f, int layer, bool index, struct dsa_error *err)
{
	char *host = layer_keys(f->pass->prefix, layer);
	enum dsa_status status = store(f, f->work.keys, host, err);
	if (!status && index)
		status = store(f, f->work.index_keys, host + latent_bytes(f), err);
	if (!status) {
		f->pass->prefix->stored[layer] = true;
		f->pass->prefix->index_stored[layer] = index;
	}
	return status;
}

enum dsa_status prefix_load(struct dsa_forward *f, int layer, bool index, struct dsa_error *err)
{
	const char *host = layer_keys(f->pass->prefix, layer);
	assert(f->pass->prefix->stored[layer] && (!index || f->pass->prefix->index_stored[layer]));
	if (!f->pass->rows)
		return DSA_OK;
	enum dsa_status status = load(f, f->work.keys, f->work.kv, host, err);
	if (!status && index)
		status = load(f, f->work.index_keys, f->work.index_k, host + latent_bytes(f), err);
	return status;
}
