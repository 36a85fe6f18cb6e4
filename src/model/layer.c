/* One layer of the forward pass, as chains of operators; what each computes is said at the operator (backend.h). */
#include "forward_private.h"

#include <assert.h>

/* A chain of operators stops at the first that fails; TRY keeps the lines readable. */
#define TRY(call)                                                                                                      \
	do {                                                                                                           \
		enum dsa_status try_status = (call);                                                                   \
		if (try_status)                                                                                        \
			return try_status;                                                                             \
	} while (0)

/* The norms inside attention, and the indexer's, have an eps of their own, whatever rms_norm_eps says. */
static const float inner_eps = 1e-6f;

/* What the layer does at hand. */
struct task {
	const struct dsa_layer *layer;
	bool select;     /* run the indexer */
	bool keep;       /* … and put its selection in force */
	bool index_keys; /* compute the indexer's keys */
};

/* The tile at hand: views of the workspace with as many rows as the tile has. */
struct tile {
	int64_t first, count;
	struct dsa_rows rows;
	struct workspace w;
};

static struct tile make_tile(const struct dsa_forward *f, int64_t first, int64_t count)
{
	struct tile t = {.first = first, .count = count, .w = f->work};
	const int32_t *pos = f->pass->host + first;
	int max_pos = 0;
	for (int64_t i = 0; i < count; i++)
		max_pos = pos[i] > max_pos ? pos[i] : max_pos;
	t.rows = (struct dsa_rows){.count = count,
	                           .pos = (const int32_t *)f->work.pos.data + first,
	                           .key0 = (const int32_t *)f->work.key0.data + first,
	                           .max_pos = max_pos};
	struct dsa_tensor *const in_pass[] = {&t.w.residual, &t.w.selection};
	struct dsa_tensor *const in_tile[] = {&t.w.normed,  &t.w.q_low,   &t.w.q,       &t.w.q_absorbed,
	                                      &t.w.kv,      &t.w.index_q, &t.w.index_k, &t.w.index_weights,
	                                      &t.w.dropped, &t.w.mixed,   &t.w.values,  &t.w.gate_up,
	                                      &t.w.inner,   &t.w.router,  &t.w.chosen,  &t.w.chosen_weights};
	for (size_t i = 0; i < sizeof in_pass / sizeof in_pass[0]; i++)
		*in_pass[i] = dsa_tensor_rows(*in_pass[i], first, count);
	for (size_t i = 0; i < sizeof in_tile / sizeof in_tile[0]; i++)
		*in_tile[i] = dsa_tensor_rows(*in_tile[i], 0, count);
	t.w.keys = dsa_tensor_rows(t.w.keys, 0, f->pass->key_rows);
	t.w.index_keys = dsa_tensor_rows(t.w.index_keys, 0, f->pass->key_rows);
	return t;
}

/* normed, and from it the latent and the rotated shared key, stored where attention reads them. */
static enum dsa_status run_keys(struct dsa_forward *f, const struct task *task, struct tile *t, struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	const struct dsa_layer *layer = task->layer;
	const struct dsa_ops *ops = f->be->ops;
	struct dsa_tensor latent = dsa_tensor_columns(t->w.kv, 0, c->latent);
	TRY(ops->rmsnorm(f->be, t->w.normed, t->w.residual, layer->input_norm, (float)c->norm_eps, err));
	TRY(ops->linear(f->be, t->w.kv, t->w.normed, layer->kv_a, layer->kv_a_bias, false, err));
	TRY(ops->rmsnorm(f->be, latent, latent, layer->kv_a_norm, inner_eps, err));
	TRY(ops->rope(f->be, t->w.kv, &t->rows, 1, 0, c->latent, c->rope, c->rope_style, f->model->cos, f->model->sin,
	              err));
	return ops->store_keys(f->be, t->w.keys, t->w.kv, &t->rows, err);
}

/* q_low, and from it the queries in latent space: per head q_nope · W_UK beside the rotated q_rope. */
static enum dsa_status run_queries(struct dsa_forward *f, const struct task *task, struct tile *t,
                                   struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	const struct dsa_layer *layer = task->layer;
	const struct dsa_ops *ops = f->be->ops;
	int head = c->nope + c->rope, absorbed = c->latent + c->rope;
	TRY(ops->linear(f->be, t->w.q_low, t->w.normed, layer->q_a, layer->q_a_bias, false, err));
	TRY(ops->rmsnorm(f->be, t->w.q_low, t->w.q_low, layer->q_a_norm, inner_eps, err));
	TRY(ops->linear(f->be, t->w.q, t->w.q_low, layer->q_b, (struct dsa_tensor){0}, false, err));
	TRY(ops->rope(f->be, t->w.q, &t->rows, c->heads, head, c->nope, c->rope, c->rope_style, f->model->cos,
	              f->model->sin, err));
	TRY(ops->head_linear(f->be, t->w.q_absorbed, absorbed, t->w.q, head, layer->kv_b,
	                     (int64_t)(c->nope + c->value) * c->latent, c->heads, c->nope, c->latent, false, err));
	return ops->copy_heads(f->be, t->w.q_absorbed, absorbed, c->latent, t->w.q, head, c->nope, c->heads, c->rope,
	                       err);
}

static enum dsa_status run_indexer(struct dsa_forward *f, const struct task *task, struct tile *t,
                                   struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	const struct dsa_layer *layer = task->layer;
	const struct dsa_ops *ops = f->be->ops;
	struct dsa_tensor none = {0};
	if (task->index_keys) {
		TRY(ops->linear(f->be, t->w.index_k, t->w.normed, layer->index_k, none, false, err));
		TRY(ops->layernorm(f->be, t->w.index_k, t->w.index_k, layer->index_k_norm, layer->index_k_bias,
		                   inner_eps, err));
		TRY(ops->rope(f->be, t->w.index_k, &t->rows, 1, 0, 0, c->rope, c->indexer_rope_style, f->model->cos,
		              f->model->sin, err));
		TRY(ops->store_keys(f->be, t->w.index_keys, t->w.index_k, &t->rows, err));
	}
	if (!task->select)
		return DSA_OK;
	TRY(ops->linear(f->be, t->w.index_q, t->w.q_low, layer->index_q, none, false, err));
	TRY(ops->rope(f->be, t->w.index_q, &t->rows, c->index_heads, c->index_dim, 0, c->rope, c->indexer_rope_style,
	              f->model->cos, f->model->sin, err));
	TRY(ops->linear(f->be, t->w.index_weights, t->w.normed, layer->index_weights, none, false, err));
	TRY(ops->select(f->be, task->keep ? t->w.selection.data : t->w.dropped.data, c->topk, t->w.index_q,
	                t->w.index_keys, t->w.index_weights, c->index_heads, c->index_dim, c->index_precision, &t->rows,
	                err));
	if (!task->keep || !f->plain)
		return DSA_OK;
	return ops->select(f->be, f->plain + t->first * c->topk, c->topk, t->w.index_q, t->w.index_keys,
	                   t->w.index_weights, c->index_heads, c->index_dim, DSA_INDEX_ACT, &t->rows, err);
}

static enum dsa_status run_attention(struct dsa_forward *f, const struct task *task, struct tile *t,
                                     struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	const struct dsa_layer *layer = task->layer;
	const struct dsa_ops *ops = f->be->ops;
	int64_t per_head = (int64_t)(c->nope + c->value) * c->latent;
	struct dsa_tensor w_uv = dsa_tensor_rows(layer->kv_b, c->nope, layer->kv_b.rows - c->nope);
	TRY(ops->attention(f->be, t->w.mixed, t->w.q_absorbed, t->w.keys, t->w.selection.data, c->topk, c->heads,
	                   c->latent, c->rope, (float)c->attention_scale, &t->rows, err));
	TRY(ops->head_linear(f->be, t->w.values, c->value, t->w.mixed, c->latent, w_uv, per_head, c->heads, c->latent,
	                     c->value, true, err));
	return ops->linear(f->be, t->w.residual, t->w.values, layer->o, layer->o_bias, true, err);
}

/* residual += down(silu(gate x) · up x) */
static enum dsa_status run_dense(struct dsa_forward *f, struct tile *t, struct dsa_tensor gate_up,
                                 struct dsa_tensor down, struct dsa_error *err)
{
	const struct dsa_ops *ops = f->be->ops;
	struct dsa_tensor none = {0};
	struct dsa_tensor both = dsa_tensor_make(t->w.gate_up.data, t->w.gate_up.dtype, t->count, (int)gate_up.rows);
	struct dsa_tensor inner = dsa_tensor_make(t->w.inner.data, t->w.inner.dtype, t->count, down.cols);
	TRY(ops->linear(f->be, both, t->w.normed, gate_up, none, false, err));
	TRY(ops->silu_mul(f->be, inner, both, err));
	return ops->linear(f->be, t->w.residual, inner, down, none, true, err);
}

static enum dsa_status run_feed_forward(struct dsa_forward *f, const struct task *task, struct tile *t,
                                        struct dsa_error *err)
{
	const struct dsa_model_config *c = &f->model->config;
	const struct dsa_layer *layer = task->layer;
	const struct dsa_ops *ops = f->be->ops;
	TRY(ops->rmsnorm(f->be, t->w.normed, t->w.residual, layer->post_norm, (float)c->norm_eps, err));
	if (!layer->router.data)
		return run_dense(f, t, layer->gate_up, layer->down, err);
	TRY(ops->linear(f->be, t->w.router, t->w.normed, layer->router, (struct dsa_tensor){0}, false, err));
	TRY(ops->route(f->be, t->w.chosen.data, t->w.chosen_weights.data, t->w.router, layer->correction, &c->router,
	               err));
	TRY(ops->experts(f->be, t->w.residual, t->w.normed, t->w.chosen.data, t->w.chosen_weights.data,
	                 c->router.chosen, &layer->experts, err));
	return run_dense(f, t, layer->shared_gate_up, layer->shared_down, err);
}

static enum dsa_status run_tiles(struct dsa_forward *f, const struct task *task, struct dsa_error *err)
{
	for (int64_t first = 0; first < f->pass->rows; first += f->be->tile) {
		int64_t count = f->pass->rows - first < f->be->tile ? f->pass->rows - first : f->be->tile;
		struct tile t = make_tile(f, first, count);
		TRY(run_keys(f, task, &t, err));
		TRY(run_queries(f, task, &t, err));
		TRY(run_indexer(f, task, &t, err));
		TRY(run_attention(f, task, &t, err));
		TRY(run_feed_forward(f, task, &t, err));
	}
	return DSA_OK;
}

/* The prefix's keys lie between those that a layer stores, so they serve every stream that runs it in turn. */
static enum dsa_status need_prefix(struct dsa_forward *f, int layer, bool index, struct dsa_error *err)
{
	if (f->loaded == layer && (f->index_loaded || !index))
		return DSA_OK;
	f->loaded = -1;
	enum dsa_status status = prefix_load(f, layer, index, err);
	if (!status) {
		f->loaded = layer;
		f->index_loaded = index;
	}
	return status;
}

enum dsa_status dsa_forward_layer(struct dsa_forward *f, int index, char mode, bool index_unused, struct dsa_error *err)
{
	struct task task = {0};
	assert(index >= 0 && index < f->model->config.layers);
	assert(mode == 'F' || mode == 'S');
	assert(f->stream->pass == f->pass);
	const bool indexer = dsa_model_has_indexer(f->model, index);
	enum dsa_status status = DSA_OK;
	if (mode == 'F' && !indexer)
		return dsa_fail(err, DSA_E_USAGE,
		                "layer %d cannot run its own indexer (F): the checkpoint ships it as shared, without "
		                "indexer weights",
		                index);
	if (mode == 'S' && !f->stream->has_selection && f->pass->rows)
		return dsa_fail(err, DSA_E_USAGE,
		                "layer %d cannot share a selection (S): no layer before it has made one", index);
	task.keep = mode == 'F';
	task.select = task.keep || (index_unused && indexer);
	/* A prefix serves every pattern, so it takes the keys of indexers that this pass does not ask. */
	task.index_keys = task.select || (indexer && f->pass->whole && f->pass->prefix);
	/* Before the layer is acquired: that sends the next one over the bus, and what comes behind it waits. */
	if (f->pass->prefix && !f->pass->whole)
		status = need_prefix(f, index, task.select, err);
	if (status) {
		dsa_error_prefix(err, "layer %d", index);
		return status;
	}
	status = dsa_model_acquire(f->model, index, &task.layer, err);
	if (status)
		return status;
	status = run_tiles(f, &task, err);
	if (!status)
		status = f->be->ops->wait(f->be, err);
	if (!status && f->pass->prefix && f->pass->whole)
		status = prefix_store(f, index, task.index_keys, err);
	if (!status && task.keep)
		f->stream->has_selection = true;
	if (status)
		dsa_error_prefix(err, "layer %d", index);
	dsa_model_release(f->model, index);
	return status;
}
