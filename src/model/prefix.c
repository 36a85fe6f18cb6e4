#include "forward_private.h"

#include <assert.h>
#include <stdlib.h>

#include "dsa/arena.h"

struct dsa_prefix {
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
	prefix->act = model->backend->act;
	prefix->count = count;
	prefix->rows = prefix_rows(config, documents, count);
	prefix->tokens = dsa_alloc((size_t)count, sizeof *prefix->tokens, "a prefix", err);
	prefix->stored = dsa_alloc(layers, sizeof *prefix->stored, "a prefix", err);
	prefix->index_stored = dsa_alloc(layers, sizeof *prefix->index_stored, "a prefix", err);
	prefix->keys = dsa_alloc(layers * (size_t)prefix->rows, row_bytes(config, prefix->act),
	                         "keys of the positions below index_topk", err);
	if (!prefix->tokens || !prefix->stored || !prefix->index_stored || !prefix->keys) {
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
	free(prefix->keys);
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

/* Moves one kind of key of a layer, all documents, between host and device. */
static enum dsa_status move(struct dsa_forward *f, struct dsa_tensor device, char *host, bool store,
                            struct dsa_error *err)
{
	size_t size = (size_t)device.cols * dsa_dtype_bytes(device.dtype);
	enum dsa_status status = DSA_OK;
	for (int d = 0; d < f->count && !status; d++) {
		const struct pass_document *document = &f->documents[d];
		size_t bytes = (size_t)prefix_tokens(&f->model->config, document->tokens) * size;
		char *at = (char *)device.data + (size_t)document->key0 * size;
		status = store ? f->be->ops->download(f->be, host, at, bytes, err)
		               : f->be->ops->upload(f->be, at, host, bytes, err);
		host += bytes;
	}
	return status;
}

static enum dsa_status move_layer(struct dsa_forward *f, int layer, bool index, bool store, struct dsa_error *err)
{
	struct dsa_prefix *prefix = f->prefix;
	size_t rows = (size_t)prefix->rows;
	char *host = prefix->keys + (size_t)layer * rows * row_bytes(prefix->config, prefix->act);
	char *index_host = host + rows * (size_t)f->work.keys.cols * dsa_dtype_bytes(prefix->act);
	enum dsa_status status = move(f, f->work.keys, host, store, err);
	if (!status && index)
		status = move(f, f->work.index_keys, index_host, store, err);
	return status;
}

enum dsa_status prefix_store(struct dsa_forward *f, int layer, bool index, struct dsa_error *err)
{
	enum dsa_status status = move_layer(f, layer, index, true, err);
	if (!status) {
		f->prefix->stored[layer] = true;
		f->prefix->index_stored[layer] = index;
	}
	return status;
}

enum dsa_status prefix_load(struct dsa_forward *f, int layer, bool index, struct dsa_error *err)
{
	assert(f->prefix->stored[layer] && (!index || f->prefix->index_stored[layer]));
	return f->rows ? move_layer(f, layer, index, false, err) : DSA_OK;
}
