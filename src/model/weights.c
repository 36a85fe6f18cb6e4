#include "model_private.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { NAME_CHARS = 160 };

struct slot_list {
	struct weight_slot *slots;
	int count;
	enum dsa_dtype weight;
	int block_rows, block_cols;
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
	                             .scale = 1,
	                             .block_rows = list->block_rows,
	                             .block_cols = list->block_cols};
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
	struct slot_list list = {
	    .slots = slots, .weight = weight, .block_rows = c->block_rows, .block_cols = c->block_cols};
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
	struct slot_list list = {
	    .slots = slots, .weight = weight, .block_rows = c->block_rows, .block_cols = c->block_cols};
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
	const struct dsa_stored *stored, *scales; /* scales: of F8_E4M3, else NULL */
	int64_t first, rows;
	int matrices; /* of as many rows each lie one behind another; blocks of scales begin anew with each */
};

static int blocks(int64_t size, int block)
{
	return (int)((size + block - 1) / block);
}

/* The scales beside an FP8 weight. Beside any other weight they are refused: whether its numbers are still to be
 * multiplied by them, nobody could tell. */
static enum dsa_status find_scales(const struct weight_slot *slot, const struct dsa_checkpoint *cp, struct part *part,
                                   struct dsa_error *err)
{
	const struct dsa_stored *weight = part->stored;
	const char *path = dsa_checkpoint_shard_path(cp, weight->shard);
	char name[NAME_CHARS];
	int64_t shape[3] = {part->matrices};
	snprintf(name, sizeof name, "%s_scale_inv", weight->name);
	if (weight->dtype != DSA_F8_E4M3) {
		if (!dsa_checkpoint_find(cp, name))
			return DSA_OK;
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: tensor %s is %s but %s is there, which only an F8_E4M3 weight has; is the weight "
		                "dequantised already? Then remove its scales",
		                path, weight->name, dsa_dtype_name(weight->dtype), name);
	}
	if (slot->source == WEIGHT_VECTOR)
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %s is F8_E4M3, expected F32, F16 or BF16", path,
		                weight->name);
	if (!slot->block_rows)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: tensor %s is F8_E4M3, but config.json has no quantization_config, which says what "
		                "its scales mean",
		                path, weight->name);
	int dims = weight->dims;
	shape[dims - 2] = blocks(part->rows / part->matrices, slot->block_rows);
	shape[dims - 1] = blocks(slot->cols, slot->block_cols);
	enum dsa_status status = dsa_checkpoint_get_shape(cp, name, dims, shape, &part->scales, err);
	if (status || part->scales->dtype == DSA_F32)
		return status;
	return dsa_fail(err, DSA_E_INPUT, "%s: tensor %s is %s, expected F32",
	                dsa_checkpoint_shard_path(cp, part->scales->shard), name, dsa_dtype_name(part->scales->dtype));
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

/* The name behind the prefix of part `index` of `parts`. */
static void part_name(char name[NAME_CHARS], const struct weight_slot *slot, const char *prefix, int index, int parts)
{
	static const char *const halves[] = {"gate_proj", "up_proj"};
	switch (slot->source) {
	case WEIGHT_VECTOR:
	case WEIGHT_MATRIX:
		snprintf(name, NAME_CHARS, "%s%s", prefix, slot->name);
		return;
	case WEIGHT_GATE_UP:
		snprintf(name, NAME_CHARS, "%s%s.%s.weight", prefix, slot->name, halves[index]);
		return;
	case WEIGHT_EXPERTS_GATE_UP:
		if (parts == 1)
			snprintf(name, NAME_CHARS, "%s%s.gate_up_proj", prefix, slot->name);
		else
			snprintf(name, NAME_CHARS, "%s%s.%d.%s.weight", prefix, slot->name, index / 2,
			         halves[index % 2]);
		return;
	case WEIGHT_EXPERTS_DOWN:
		if (parts == 1)
			snprintf(name, NAME_CHARS, "%s%s.down_proj", prefix, slot->name);
		else
			snprintf(name, NAME_CHARS, "%s%s.%d.down_proj.weight", prefix, slot->name, index);
		return;
	}
}

static enum dsa_status find_part(const struct weight_slot *slot, int index, int parts, const struct dsa_checkpoint *cp,
                                 const char *prefix, struct part *part, struct dsa_error *err)
{
	char name[NAME_CHARS];
	int64_t rows = slot->rows / parts, shape[3] = {slot->count, slot->rows / slot->count, slot->cols};
	bool packed = parts == 1 && slot->source >= WEIGHT_EXPERTS_GATE_UP;
	*part = (struct part){.first = rows * index, .rows = rows, .matrices = packed ? slot->count : 1};
	part_name(name, slot, prefix, index, parts);
	enum dsa_status status;
	if (packed)
		status = dsa_checkpoint_get_shape(cp, name, 3, shape, &part->stored, err);
	else if (slot->source == WEIGHT_VECTOR)
		status = dsa_checkpoint_get(cp, name, slot->cols, 0, &part->stored, err);
	else
		status = dsa_checkpoint_get(cp, name, rows, slot->cols, &part->stored, err);
	return status ? status : find_scales(slot, cp, part, err);
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

void weight_slots_place(const struct weight_slot *slots, int count, void *block)
{
	char *at = block;
	for (int i = 0; i < count; i++) {
		*slots[i].tensor = dsa_tensor_make(at, slots[i].dtype, slots[i].rows, slots[i].cols);
		at = at ? at + slot_bytes(&slots[i]) : NULL;
	}
}

/* The matrices of one stored tensor. */
static void split_part(const struct weight_slot *slot, const struct part *part, struct weight_piece *pieces)
{
	const int64_t rows = part->rows / part->matrices;
	const uint64_t bytes = part->stored->bytes / (uint64_t)part->matrices;
	const uint64_t scale_bytes = part->scales ? part->scales->bytes / (uint64_t)part->matrices : 0;
	for (int m = 0; m < part->matrices; m++)
		pieces[m] = (struct weight_piece){
		    .to = dsa_tensor_rows(*slot->tensor, part->first + m * rows, rows),
		    .stored = part->stored,
		    .scale_shard = part->scales ? part->scales->shard : 0,
		    .numbers = part->stored->data + (uint64_t)m * bytes,
		    .bytes = bytes,
		    .scales = part->scales ? part->scales->data + (uint64_t)m * scale_bytes : NULL,
		    .scale_bytes = scale_bytes,
		    .block_rows = slot->block_rows,
		    .block_cols = slot->block_cols,
		    .matrix = part->matrices > 1 ? m : -1,
		    .factor = (float)slot->scale,
		};
}

enum dsa_status weight_slots_pieces(const struct weight_slot *slots, int count, const struct dsa_checkpoint *cp,
                                    const char *prefix, struct dsa_arena *arena, struct weight_piece **out,
                                    int *out_count, struct dsa_error *err)
{
	size_t room = 0;
	for (int i = 0; i < count; i++) /* a packed tensor has a matrix for each expert */
		room += (size_t)slots[i].count * 2;
	struct weight_piece *pieces = *out = dsa_arena_alloc(arena, room, sizeof *pieces, "the list of weights", err);
	*out_count = 0;
	if (!pieces)
		return DSA_E_MEMORY;
	for (int i = 0; i < count; i++) {
		const int parts = slot_parts(&slots[i], cp, prefix);
		for (int j = 0; j < parts; j++) {
			struct part part;
			enum dsa_status status = find_part(&slots[i], j, parts, cp, prefix, &part, err);
			if (status)
				return status;
			assert((size_t)(*out_count + part.matrices) <= room);
			split_part(&slots[i], &part, pieces + *out_count);
			*out_count += part.matrices;
		}
	}
	return DSA_OK;
}

static void name_piece(const struct weight_piece *piece, const struct dsa_checkpoint *cp, struct dsa_error *err)
{
	if (piece->matrix >= 0)
		dsa_error_prefix(err, "expert %d", piece->matrix);
	dsa_error_prefix(err, "%s: tensor %s", dsa_checkpoint_shard_path(cp, piece->stored->shard),
	                 piece->stored->name);
}

enum dsa_status weight_piece_load(const struct weight_piece *piece, const void *numbers, const void *scales,
                                  const struct dsa_checkpoint *cp, struct dsa_backend *be, struct dsa_error *err)
{
	const struct dsa_block_scales blocks = {scales, piece->block_rows, piece->block_cols};
	enum dsa_status status;
	if (scales)
		status = be->ops->load_fp8(be, piece->to, numbers, &blocks, err);
	else
		status = be->ops->load_weight(be, piece->to, numbers, piece->stored->dtype, err);
	if (status) {
		name_piece(piece, cp, err);
		return status;
	}
	return piece->factor == 1 ? DSA_OK : be->ops->scale(be, piece->to, piece->factor, err);
}

enum dsa_status weight_piece_convert(const struct weight_piece *piece, const void *numbers, const void *scales,
                                     const struct dsa_checkpoint *cp, struct dsa_backend *be, struct dsa_error *err)
{
	const struct dsa_block_scales blocks = {scales, piece->block_rows, piece->block_cols};
	enum dsa_status status =
	    be->ops->convert(be, piece->to, numbers, piece->stored->dtype, scales ? &blocks : NULL, err);
	if (status) {
		name_piece(piece, cp, err);
		return status;
	}
	return piece->factor == 1 ? DSA_OK : be->ops->scale(be, piece->to, piece->factor, err);
}

enum dsa_status weight_slots_load(const struct weight_slot *slots, int count, const struct dsa_checkpoint *cp,
                                  const char *prefix, struct dsa_backend *be, void *block, struct dsa_error *err)
{
	struct dsa_arena scratch;
	struct weight_piece *pieces;
	int piece_count;
	dsa_arena_init(&scratch);
	weight_slots_place(slots, count, block);
	enum dsa_status status = weight_slots_pieces(slots, count, cp, prefix, &scratch, &pieces, &piece_count, err);
	for (int i = 0; i < piece_count && !status; i++)
		status = weight_piece_load(&pieces[i], pieces[i].numbers, pieces[i].scales, cp, be, err);
	dsa_arena_release(&scratch);
	return status;
}
