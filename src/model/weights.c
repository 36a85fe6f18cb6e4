#include "model_private.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_CHARS = 160 };

struct slot_list {
	struct weight_slot *slots;
	int count;
	enum dsa_dtype weight;
};

static struct weight_slot *add(struct slot_list *list, struct dsa_tensor *tensor, const char *name,
                               enum weight_source source, enum dsa_dtype dtype, int64_t rows, int cols)
{
	assert(list->count < WEIGHT_SLOTS);
	struct weight_slot *slot = &list->slots[list->count++];
	*slot = (struct weight_slot){.tensor = tensor,
	                             .name = name,
	                             .source = source,
	                             .dtype = dtype,
	                             .rows = rows,
	                             .cols = cols,
	                             .count = 1,
	                             .scale = 1};
	return slot;
}

static void vector(struct slot_list *list, struct dsa_tensor *tensor, const char *name, int cols)
{
	add(list, tensor, name, WEIGHT_VECTOR, DSA_F32, 1, cols);
}

static void matrix(struct slot_list *list, struct dsa_tensor *tensor, const char *name, int rows, int cols)
{
	add(list, tensor, name, WEIGHT_MATRIX, list->weight, rows, cols);
}

static void gate_up(struct slot_list *list, struct dsa_tensor *tensor, const char *name, int inner, int cols)
{
	add(list, tensor, name, WEIGHT_GATE_UP, list->weight, (int64_t)2 * inner, cols);
}

static void add_feed_forward(struct slot_list *list, struct dsa_layer *layer, const struct dsa_model_config *c,
                             bool moe)
{
	if (!moe) {
		gate_up(list, &layer->gate_up, "mlp", c->dense_inner, c->hidden);
		matrix(list, &layer->down, "mlp.down_proj.weight", c->hidden, c->dense_inner);
		return;
	}
	int count = c->router.experts, inner = c->expert_inner, shared = inner * c->shared_experts;
	/* The router decides by small differences, so it is kept in float32 whatever the products use. */
	add(list, &layer->router, "mlp.gate.weight", WEIGHT_MATRIX, DSA_F32, count, c->hidden);
	vector(list, &layer->correction, "mlp.gate.e_score_correction_bias", count);
	layer->experts.count = count;
	layer->experts.inner = inner;
	add(list, &layer->experts.gate_up, "mlp.experts", WEIGHT_EXPERTS_GATE_UP, list->weight,
	    (int64_t)count * 2 * inner, c->hidden)
	    ->count = count;
	add(list, &layer->experts.down, "mlp.experts", WEIGHT_EXPERTS_DOWN, list->weight, (int64_t)count * c->hidden,
	    inner)
	    ->count = count;
	gate_up(list, &layer->shared_gate_up, "mlp.shared_experts", shared, c->hidden);
	matrix(list, &layer->shared_down, "mlp.shared_experts.down_proj.weight", c->hidden, shared);
}

int weight_layer_slots(struct weight_slot slots[WEIGHT_SLOTS], struct dsa_layer *layer,
                       const struct dsa_model_config *c, int index, bool indexer, enum dsa_dtype weight)
{
	struct slot_list list = {.slots = slots, .weight = weight};
	int heads = c->heads;
	vector(&list, &layer->input_norm, "input_layernorm.weight", c->hidden);
	vector(&list, &layer->post_norm, "post_attention_layernorm.weight", c->hidden);
	matrix(&list, &layer->q_a, "self_attn.q_a_proj.weight", c->q_rank, c->hidden);
	vector(&list, &layer->q_a_norm, "self_attn.q_a_layernorm.weight", c->q_rank);
	matrix(&list, &layer->q_b, "self_attn.q_b_proj.weight", heads * (c->nope + c->rope), c->q_rank);
	matrix(&list, &layer->kv_a, "self_attn.kv_a_proj_with_mqa.weight", c->latent + c->rope, c->hidden);
	vector(&list, &layer->kv_a_norm, "self_attn.kv_a_layernorm.weight", c->latent);
	matrix(&list, &layer->kv_b, "self_attn.kv_b_proj.weight", heads * (c->nope + c->value), c->latent);
	matrix(&list, &layer->o, "self_attn.o_proj.weight", c->hidden, heads * c->value);
	if (c->attention_bias) {
		vector(&list, &layer->q_a_bias, "self_attn.q_a_proj.bias", c->q_rank);
		vector(&list, &layer->kv_a_bias, "self_attn.kv_a_proj_with_mqa.bias", c->latent + c->rope);
		vector(&list, &layer->o_bias, "self_attn.o_proj.bias", c->hidden);
	}
	if (indexer) {
		matrix(&list, &layer->index_q, "self_attn.indexer.wq_b.weight", c->index_heads * c->index_dim,
		       c->q_rank);
		matrix(&list, &layer->index_k, "self_attn.indexer.wk.weight", c->index_dim, c->hidden);
		vector(&list, &layer->index_k_norm, "self_attn.indexer.k_norm.weight", c->index_dim);
		vector(&list, &layer->index_k_bias, "self_attn.indexer.k_norm.bias", c->index_dim);
		add(&list, &layer->index_weights, "self_attn.indexer.weights_proj.weight", WEIGHT_MATRIX, DSA_F32,
		    c->index_heads, c->hidden)
		    ->scale = 1 / sqrt(c->index_heads);
	}
	add_feed_forward(&list, layer, c, c->moe[index]);
	return list.count;
}

int weight_model_slots(struct weight_slot slots[WEIGHT_SLOTS], struct dsa_model *model,
                       const struct dsa_model_config *c, enum dsa_dtype weight)
{
	struct slot_list list = {.slots = slots, .weight = weight};
	matrix(&list, &model->embed, "model.embed_tokens.weight", c->vocab, c->hidden);
	vector(&list, &model->final_norm, "model.norm.weight", c->hidden);
	if (!c->tied)
		matrix(&list, &model->head, "lm_head.weight", c->vocab, c->hidden);
	return list.count;
}

static uint64_t slot_bytes(const struct weight_slot *slot)
{
	uint64_t bytes = (uint64_t)slot->rows * (uint64_t)slot->cols * dsa_dtype_bytes(slot->dtype);
	return (bytes + WEIGHT_ALIGNMENT - 1) / WEIGHT_ALIGNMENT * WEIGHT_ALIGNMENT;
}

uint64_t weight_slots_bytes(const struct weight_slot *slots, int count)
{
	uint64_t bytes = 0;
	for (int i = 0; i < count; i++)
		bytes += slot_bytes(&slots[i]);
	return bytes;
}

/* One stored tensor and the rows of its slot that it fills. */
struct part {
	const struct dsa_stored *stored;
	int64_t first, rows;
};

static enum dsa_status find_matrix(const struct dsa_checkpoint *cp, const char *prefix, const char *name, int64_t rows,
                                   int cols, struct part *part, struct dsa_error *err)
{
	char full[NAME_CHARS];
	snprintf(full, sizeof full, "%s%s", prefix, name);
	part->rows = rows;
	return dsa_checkpoint_get(cp, full, rows, cols, &part->stored, err);
}

/* How many stored tensors make up the slot. */
static int slot_parts(const struct weight_slot *slot, const struct dsa_checkpoint *cp, const char *prefix)
{
	char packed[NAME_CHARS];
	switch (slot->source) {
	case WEIGHT_VECTOR:
	case WEIGHT_MATRIX:
		return 1;
	case WEIGHT_GATE_UP:
		return 2;
	case WEIGHT_EXPERTS_GATE_UP:
		snprintf(packed, sizeof packed, "%s%s.gate_up_proj", prefix, slot->name);
		return dsa_checkpoint_find(cp, packed) ? 1 : 2 * slot->count;
	case WEIGHT_EXPERTS_DOWN:
		snprintf(packed, sizeof packed, "%s%s.down_proj", prefix, slot->name);
		return dsa_checkpoint_find(cp, packed) ? 1 : slot->count;
	}
	return 0;
}

static enum dsa_status find_part(const struct weight_slot *slot, int index, int parts, const struct dsa_checkpoint *cp,
                                 const char *prefix, struct part *part, struct dsa_error *err)
{
	static const char *const halves[] = {"gate_proj", "up_proj"};
	char name[NAME_CHARS];
	int64_t rows = slot->rows / parts;
	part->first = rows * index;
	if (slot->source == WEIGHT_VECTOR) {
		snprintf(name, sizeof name, "%s%s", prefix, slot->name);
		part->rows = 1;
		return dsa_checkpoint_get(cp, name, slot->cols, 0, &part->stored, err);
	}
	if (slot->source == WEIGHT_MATRIX)
		return find_matrix(cp, prefix, slot->name, rows, slot->cols, part, err);
	bool down = slot->source == WEIGHT_EXPERTS_DOWN;
	if (slot->source != WEIGHT_GATE_UP && parts == 1) {
		const int64_t shape[3] = {slot->count, slot->rows / slot->count, slot->cols};
		snprintf(name, sizeof name, "%s%s.%s", prefix, slot->name, down ? "down_proj" : "gate_up_proj");
		part->rows = slot->rows;
		return dsa_checkpoint_get_shape(cp, name, 3, shape, &part->stored, err);
	}
	if (slot->source == WEIGHT_GATE_UP)
		snprintf(name, sizeof name, "%s.%s.weight", slot->name, halves[index]);
	else if (down)
		snprintf(name, sizeof name, "%s.%d.down_proj.weight", slot->name, index);
	else
		snprintf(name, sizeof name, "%s.%d.%s.weight", slot->name, index / 2, halves[index % 2]);
	return find_matrix(cp, prefix, name, rows, slot->cols, part, err);
}

enum dsa_status weight_slots_check(const struct weight_slot *slots, int count, const struct dsa_checkpoint *cp,
                                   const char *prefix, struct dsa_error *err)
{
	for (int i = 0; i < count; i++) {
		int parts = slot_parts(&slots[i], cp, prefix);
		for (int j = 0; j < parts; j++) {
			struct part part;
			enum dsa_status status = find_part(&slots[i], j, parts, cp, prefix, &part, err);
			if (status)
				return status;
		}
	}
	return DSA_OK;
}

/* Through the host: this happens once, to tensors of a few kilobytes. */
static enum dsa_status multiply(struct dsa_backend *be, struct dsa_tensor t, double scale, struct dsa_error *err)
{
	assert(t.dtype == DSA_F32);
	size_t count = (size_t)t.rows * (size_t)t.cols;
	float *host = dsa_alloc(count, sizeof *host, "a scaled weight", err);
	if (!host)
		return DSA_E_MEMORY;
	enum dsa_status status = be->ops->download(be, host, t.data, count * sizeof *host, err);
	for (size_t i = 0; i < count && !status; i++)
		host[i] *= (float)scale;
	if (!status)
		status = be->ops->upload(be, t.data, host, count * sizeof *host, err);
	if (!status)
		status = be->ops->wait(be, err); /* the upload reads host memory that is freed here */
	free(host);
	return status;
}

static enum dsa_status load_slot(const struct weight_slot *slot, const struct dsa_checkpoint *cp, const char *prefix,
                                 struct dsa_backend *be, void *at, struct dsa_error *err)
{
	int parts = slot_parts(slot, cp, prefix);
	*slot->tensor = dsa_tensor_make(at, slot->dtype, slot->rows, slot->cols);
	for (int i = 0; i < parts; i++) {
		struct part part;
		enum dsa_status status = find_part(slot, i, parts, cp, prefix, &part, err);
		if (status)
			return status;
		status = be->ops->load_weight(be, dsa_tensor_rows(*slot->tensor, part.first, part.rows),
		                              part.stored->data, part.stored->dtype, err);
		if (status) {
			dsa_error_prefix(err, "%s: tensor %s", dsa_checkpoint_shard_path(cp, part.stored->shard),
			                 part.stored->name);
			return status;
		}
	}
	return slot->scale == 1 ? DSA_OK : multiply(be, *slot->tensor, slot->scale, err);
}

enum dsa_status weight_slots_load(const struct weight_slot *slots, int count, const struct dsa_checkpoint *cp,
                                  const char *prefix, struct dsa_backend *be, void *block, struct dsa_error *err)
{
	char *at = block;
	for (int i = 0; i < count; i++) {
		enum dsa_status status = load_slot(&slots[i], cp, prefix, be, at, err);
		if (status)
			return status;
		at += slot_bytes(&slots[i]);
	}
	return DSA_OK;
}
