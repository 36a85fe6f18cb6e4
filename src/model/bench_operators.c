/* One operator of a layer at a time, on the workspace that a forward pass left. layer.c has them in their chains. */
#include "bench_private.h"

#include <assert.h>

static const float inner_eps = 1e-6f;

/* Views of the rows at hand. */
struct view {
	struct bench_run *run;
	struct dsa_backend *be;
	const struct dsa_ops *ops;
	const struct dsa_model_config *c;
	struct workspace w;
	struct dsa_rows rows;
	int64_t count;
};

static struct view make_view(struct bench_run *run, int64_t first, int64_t count)
{
	struct view v = {.run = run,
	                 .be = run->be,
	                 .ops = run->be->ops,
	                 .c = &run->model->config,
	                 .w = run->forward->work,
	                 .count = count};
	struct dsa_tensor *const in_pass[] = {&v.w.residual, &v.w.selection, &v.w.pos, &v.w.key0};
	struct dsa_tensor *const in_tile[] = {&v.w.normed,  &v.w.q_low,          &v.w.q,       &v.w.q_absorbed,
	                                      &v.w.kv,      &v.w.index_q,        &v.w.index_k, &v.w.index_weights,
	                                      &v.w.dropped, &v.w.mixed,          &v.w.values,  &v.w.router,
	                                      &v.w.chosen,  &v.w.chosen_weights, &v.w.gathered};
	for (size_t i = 0; i < sizeof in_pass / sizeof in_pass[0]; i++)
		*in_pass[i] = dsa_tensor_rows(*in_pass[i], first, count);
	for (size_t i = 0; i < sizeof in_tile / sizeof in_tile[0]; i++)
		*in_tile[i] = dsa_tensor_rows(*in_tile[i], 0, count);
	v.rows = (struct dsa_rows){
	    .count = count, .pos = v.w.pos.data, .key0 = v.w.key0.data, .max_pos = (int)(first + count - 1)};
	return v;
}

static enum dsa_status product(struct view *v, struct dsa_tensor out, struct dsa_tensor x, struct dsa_tensor w,
                               struct dsa_tensor bias, bool accumulate, struct dsa_error *err)
{
	return v->ops->linear(v->be, out, x, w, bias, accumulate, err);
}

static enum dsa_status rotate(struct view *v, struct dsa_tensor x, int heads, int step, int offset,
                              enum dsa_rope_style style, struct dsa_error *err)
{
	const struct dsa_model *model = v->run->model;
	return v->ops->rope(v->be, x, &v->rows, heads, step, offset, v->c->rope, style, model->cos, model->sin, err);
}

static enum dsa_status call_attention_part(struct view *v, enum dsa_bench_operator op, struct dsa_error *err)
{
	const struct dsa_layer *layer = v->run->any;
	const struct dsa_model_config *c = v->c;
	struct workspace *w = &v->w;
	struct dsa_tensor none = {0}, latent = dsa_tensor_columns(w->kv, 0, c->latent);
	struct dsa_tensor w_uv = dsa_tensor_rows(layer->kv_b, c->nope, layer->kv_b.rows - c->nope);
	int head = c->nope + c->rope, absorbed = c->latent + c->rope;
	int64_t per_head = (int64_t)(c->nope + c->value) * c->latent;
	float eps = (float)c->norm_eps;
	switch (op) {
	case DSA_BENCH_INPUT_NORM:
		return v->ops->rmsnorm(v->be, w->normed, w->residual, layer->input_norm, eps, err);
	case DSA_BENCH_KV_A:
		return product(v, w->kv, w->normed, layer->kv_a, layer->kv_a_bias, false, err);
	case DSA_BENCH_KV_A_NORM:
		return v->ops->rmsnorm(v->be, latent, latent, layer->kv_a_norm, inner_eps, err);
	case DSA_BENCH_KEY_ROPE:
		return rotate(v, w->kv, 1, 0, c->latent, c->rope_style, err);
	case DSA_BENCH_STORE_KEYS:
		return v->ops->store_keys(v->be, w->keys, w->kv, &v->rows, err);
	case DSA_BENCH_Q_A:
		return product(v, w->q_low, w->normed, layer->q_a, layer->q_a_bias, false, err);
	case DSA_BENCH_Q_A_NORM:
		return v->ops->rmsnorm(v->be, w->q_low, w->q_low, layer->q_a_norm, inner_eps, err);
	case DSA_BENCH_Q_B:
		return product(v, w->q, w->q_low, layer->q_b, none, false, err);
	case DSA_BENCH_Q_ROPE:
		return rotate(v, w->q, c->heads, head, c->nope, c->rope_style, err);
	case DSA_BENCH_ABSORB:
		return v->ops->head_linear(v->be, w->q_absorbed, absorbed, w->q, head, layer->kv_b, per_head, c->heads,
		                           c->nope, c->latent, false, err);
	case DSA_BENCH_COPY_HEADS:
		return v->ops->copy_heads(v->be, w->q_absorbed, absorbed, c->latent, w->q, head, c->nope, c->heads,
		                          c->rope, err);
	case DSA_BENCH_ATTENTION:
		return v->ops->attention(v->be, w->mixed, w->q_absorbed, w->keys, w->selection.data, c->topk, c->heads,
		                         c->latent, c->rope, (float)c->attention_scale, &v->rows, err);
	case DSA_BENCH_VALUES:
		return v->ops->head_linear(v->be, w->values, c->value, w->mixed, c->latent, w_uv, per_head, c->heads,
		                           c->latent, c->value, true, err);
	case DSA_BENCH_O:
		return product(v, w->residual, w->values, layer->o, layer->o_bias, true, err);
	default:
		assert(op == DSA_BENCH_POST_NORM);
		return v->ops->rmsnorm(v->be, w->normed, w->residual, layer->post_norm, eps, err);
	}
}

static enum dsa_status call_indexer(struct view *v, enum dsa_bench_operator op, struct dsa_error *err)
{
	const struct dsa_layer *layer = v->run->any;
	const struct dsa_model_config *c = v->c;
	struct workspace *w = &v->w;
	struct dsa_tensor none = {0};
	switch (op) {
	case DSA_BENCH_INDEX_K:
		return product(v, w->index_k, w->normed, layer->index_k, none, false, err);
	case DSA_BENCH_INDEX_K_NORM:
		return v->ops->layernorm(v->be, w->index_k, w->index_k, layer->index_k_norm, layer->index_k_bias,
		                         inner_eps, err);
	case DSA_BENCH_INDEX_K_ROPE:
		return rotate(v, w->index_k, 1, 0, 0, c->indexer_rope_style, err);
	case DSA_BENCH_STORE_INDEX_KEYS:
		return v->ops->store_keys(v->be, w->index_keys, w->index_k, &v->rows, err);
	case DSA_BENCH_INDEX_Q:
		return product(v, w->index_q, w->q_low, layer->index_q, none, false, err);
	case DSA_BENCH_INDEX_Q_ROPE:
		return rotate(v, w->index_q, c->index_heads, c->index_dim, 0, c->indexer_rope_style, err);
	case DSA_BENCH_INDEX_WEIGHTS:
		return product(v, w->index_weights, w->normed, layer->index_weights, none, false, err);
	default:
		assert(op == DSA_BENCH_SELECT_LAST || op == DSA_BENCH_SELECT_MIDDLE);
		return v->ops->select(v->be, w->dropped.data, c->topk, w->index_q, w->index_keys, w->index_weights,
		                      c->index_heads, c->index_dim, c->index_precision, &v->rows, err);
	}
}

static enum dsa_status call_feed_forward(struct view *v, enum dsa_bench_operator op, struct dsa_error *err)
{
	const struct dsa_layer *moe = v->run->moe;
	bool is_dense = dsa_bench_operator_part(op) == DSA_BENCH_DENSE;
	struct dsa_tensor gate_up = is_dense ? v->run->dense->gate_up : moe->shared_gate_up;
	struct dsa_tensor down = is_dense ? v->run->dense->down : moe->shared_down, none = {0};
	struct workspace *w = &v->w;
	struct dsa_tensor both = dsa_tensor_make(w->gate_up.data, w->gate_up.dtype, v->count, (int)gate_up.rows);
	struct dsa_tensor inner = dsa_tensor_make(w->inner.data, w->inner.dtype, v->count, down.cols);
	switch (op) {
	case DSA_BENCH_GATE_UP:
	case DSA_BENCH_SHARED_GATE_UP:
		return product(v, both, w->normed, gate_up, none, false, err);
	case DSA_BENCH_SILU_MUL:
	case DSA_BENCH_SHARED_SILU_MUL:
		return v->ops->silu_mul(v->be, inner, both, err);
	case DSA_BENCH_DOWN:
	case DSA_BENCH_SHARED_DOWN:
		return product(v, w->residual, inner, down, none, true, err);
	case DSA_BENCH_ROUTER:
		return product(v, w->router, w->normed, moe->router, none, false, err);
	case DSA_BENCH_ROUTE:
		return v->ops->route(v->be, w->chosen.data, w->chosen_weights.data, w->router, moe->correction,
		                     &v->c->router, err);
	default:
		assert(op == DSA_BENCH_EXPERTS);
		return v->ops->experts(v->be, w->residual, w->normed, w->chosen.data, w->chosen_weights.data,
		                       v->c->router.chosen, &moe->experts, err);
	}
}

static enum dsa_status call_outside(struct view *v, enum dsa_bench_operator op, struct dsa_error *err)
{
	struct bench_run *run = v->run;
	struct workspace *w = &v->w;
	const int32_t *selections[BENCH_OVERLAP_LAYERS] = {w->selection.data, run->forward->work.selection.data};
	int64_t counts[BENCH_OVERLAP_LAYERS * BENCH_OVERLAP_LAYERS] = {0};
	switch (op) {
	case DSA_BENCH_EMBED:
		return v->ops->embed(v->be, w->gathered, run->model->embed, run->target, &v->rows, 0, err);
	case DSA_BENCH_GATHER:
		return v->ops->gather(v->be, w->gathered, dsa_forward_residual(run->forward), run->order, err);
	case DSA_BENCH_COMPARE:
		return v->ops->compare(v->be, run->figures, run->base, &run->candidate, 1, run->model->head,
		                       run->target, err);
	default:
		assert(op == DSA_BENCH_OVERLAP);
		return v->ops->overlap(v->be, counts, selections, BENCH_OVERLAP_LAYERS, v->c->topk, v->count, err);
	}
}

enum dsa_status bench_call(struct bench_run *run, enum dsa_bench_operator op, int64_t first, int64_t count,
                           struct dsa_error *err)
{
	struct view v = make_view(run, first, count);
	switch (dsa_bench_operator_part(op)) {
	case DSA_BENCH_EVERY:
		return call_attention_part(&v, op, err);
	case DSA_BENCH_INDEXER:
		return call_indexer(&v, op, err);
	case DSA_BENCH_DENSE:
	case DSA_BENCH_MOE:
		return call_feed_forward(&v, op, err);
	case DSA_BENCH_OUTSIDE:
	case DSA_BENCH_PARTS:
		break;
	}
	return call_outside(&v, op, err);
}
