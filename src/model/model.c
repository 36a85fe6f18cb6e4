#include "dsa/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "config_reader.h"
#include "model_private.h"
#include "residency_private.h"

const char *model_layer_prefix(char text[LAYER_PREFIX_CHARS], int layer)
{
	snprintf(text, LAYER_PREFIX_CHARS, "model.layers.%d.", layer);
	return text;
}

bool model_has_indexer(const struct dsa_model_config *config, const struct dsa_checkpoint *cp, int layer)
{
	static const char *const names[] = {"wq_b.weight", "wk.weight", "weights_proj.weight", "k_norm.weight",
	                                    "k_norm.bias"};
	char name[128];
	if (config->native[layer] == 'F')
		return true;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		snprintf(name, sizeof name, "model.layers.%d.self_attn.indexer.%s", layer, names[i]);
		if (dsa_checkpoint_find(cp, name))
			return true;
	}
	return false;
}

static enum dsa_status check_tensors(struct dsa_model *model, const struct dsa_checkpoint *cp, struct dsa_error *err)
{
	const struct dsa_model_config *config = &model->config;
	struct weight_slot slots[WEIGHT_SLOTS];
	char prefix[LAYER_PREFIX_CHARS];
	int count = weight_model_slots(slots, model, config, model->backend->weight);
	enum dsa_status status = weight_slots_check(slots, count, cp, "", err);
	model->weight_bytes = weight_slots_bytes(slots, count);
	for (int l = 0; l < config->layers && !status; l++) {
		count = weight_layer_slots(slots, &model->private->layers[l], config, l,
		                           model_has_indexer(config, cp, l), model->backend->weight);
		status = weight_slots_check(slots, count, cp, model_layer_prefix(prefix, l), err);
		model->weight_bytes += weight_slots_bytes(slots, count);
	}
	return status;
}

static enum dsa_status load_block(struct dsa_model *model, const struct weight_slot *slots, int count, int block,
                                  const struct dsa_checkpoint *cp, const char *prefix, struct dsa_error *err)
{
	struct dsa_backend *be = model->backend;
	void **memory = &model->private->blocks[block];
	enum dsa_status status = be->ops->alloc(be, weight_slots_bytes(slots, count), "weights", memory, err);
	return status ? status : weight_slots_load(slots, count, cp, prefix, be, *memory, err);
}

/* What no layer owns, and the layers that have a place of their own. */
static enum dsa_status load_tensors(struct dsa_model *model, const struct dsa_checkpoint *cp, bool layers,
                                    struct dsa_error *err)
{
	const struct dsa_model_config *config = &model->config;
	struct weight_slot slots[WEIGHT_SLOTS];
	char prefix[LAYER_PREFIX_CHARS];
	int count = weight_model_slots(slots, model, config, model->backend->weight);
	enum dsa_status status = load_block(model, slots, count, config->layers, cp, "", err);
	for (int l = 0; l < config->layers && layers && !status; l++) {
		count = weight_layer_slots(slots, &model->private->layers[l], config, l,
		                           model_has_indexer(config, cp, l), model->backend->weight);
		status = load_block(model, slots, count, l, cp, model_layer_prefix(prefix, l), err);
	}
	if (config->tied)
		model->head = model->embed;
	return status;
}

enum dsa_status model_rope_tables(struct dsa_model *model, struct dsa_error *err)
{
	struct dsa_backend *be = model->backend;
	size_t count = (size_t)model->context * (size_t)model->config.rope / 2, bytes = count * sizeof(float);
	void **memory = &model->private->blocks[model->config.layers + 1];
	float *host = dsa_alloc(2 * count, sizeof *host, "rotary tables", err);
	if (!host)
		return DSA_E_MEMORY;
	dsa_rope_tables(&model->config, model->context, host, host + count);
	enum dsa_status status = be->ops->alloc(be, 2 * bytes, "rotary tables", memory, err);
	if (!status)
		status = be->ops->upload(be, *memory, host, 2 * bytes, err);
	if (!status)
		status = be->ops->wait(be, err);
	model->cos = *memory;
	model->sin = model->cos ? model->cos + count : NULL;
	free(host);
	return status;
}

static enum dsa_status measure_sizes(struct dsa_sizes *sizes, const struct dsa_model_config *config,
                                     const struct dsa_checkpoint *cp, enum dsa_dtype weight, struct dsa_error *err)
{
	struct weight_slot slots[WEIGHT_SLOTS];
	struct dsa_model model = {0};
	struct dsa_layer layer = {0};
	struct dsa_arena scratch;
	char prefix[LAYER_PREFIX_CHARS];
	int count = weight_model_slots(slots, &model, config, weight);
	enum dsa_status status = weight_slots_check(slots, count, cp, "", err);
	sizes->layers = config->layers;
	sizes->outside = weight_slots_bytes(slots, count);
	for (int l = 0; l < config->layers && !status; l++) {
		struct weight_piece *pieces;
		struct image image;
		int piece_count;
		dsa_arena_init(&scratch);
		count = weight_layer_slots(slots, &layer, config, l, model_has_indexer(config, cp, l), weight);
		weight_slots_place(slots, count, NULL);
		status = weight_slots_pieces(slots, count, cp, model_layer_prefix(prefix, l), &scratch, &pieces,
		                             &piece_count, err);
		if (!status)
			status = image_lay_out(&image, cp, pieces, piece_count, &scratch, err);
		if (!status)
			sizes->layer[l] = (struct dsa_layer_size){weight_slots_bytes(slots, count), image.bytes};
		dsa_arena_release(&scratch);
	}
	return status;
}

enum dsa_status dsa_model_sizes(struct dsa_sizes *sizes, const struct dsa_model_config *config, const char *model_dir,
                                enum dsa_dtype weight, struct dsa_error *err)
{
	struct dsa_checkpoint *cp = NULL;
	enum dsa_status status = dsa_checkpoint_open(&cp, model_dir, err);
	if (!status)
		status = measure_sizes(sizes, config, cp, weight, err);
	dsa_checkpoint_close(cp);
	return status;
}

enum dsa_status dsa_model_open(struct dsa_model **out, struct dsa_backend *backend, const char *model_dir, int context,
                               const struct dsa_residency *residency, const struct dsa_log *log, struct dsa_error *err)
{
	const bool resident = !residency || residency->layers[DSA_PLACE_DEVICE];
	struct dsa_checkpoint *cp = NULL;
	struct dsa_model_private *private = NULL;
	enum dsa_status status = DSA_E_MEMORY;
	assert(context > 0);
	struct dsa_model *model = *out = dsa_alloc(1, sizeof *model, "a model", err);
	if (!model)
		goto cleanup;
	model->backend = backend;
	model->context = context;
	private = model->private = dsa_alloc(1, sizeof *private, "a model", err);
	if (!private)
		goto cleanup;
	dsa_arena_init(&private->arena);
	status = dsa_model_config_load(&model->config, model_dir, &private->arena, err);
	if (status) {
		model->config.layers = 0;
		status = status == DSA_E_MISSING ? DSA_E_INPUT : status;
		goto cleanup;
	}
	size_t layers = (size_t)model->config.layers;
	private->layers = dsa_arena_alloc(&private->arena, layers, sizeof *private->layers, "layers", err);
	private->blocks = dsa_arena_alloc(&private->arena, layers + 2, sizeof *private->blocks, "layers", err);
	if (!private->layers || !private->blocks) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	if (context > model->config.max_positions)
		dsa_log_line(log, DSA_LOG_WARN, "%s: context %d is beyond max_position_embeddings (%d)", model_dir,
		             context, model->config.max_positions);
	status = dsa_checkpoint_open(&cp, model_dir, err);
	if (!status)
		status = check_tensors(model, cp, err);
	if (!status)
		status = fingerprint_checkpoint(cp, model_dir, false, model->fingerprint, err);
	/* A plan has all layers there or none. */
	assert(status || !resident || !residency || residency->layers[DSA_PLACE_DEVICE] == model->config.layers);
	if (!status)
		status = load_tensors(model, cp, resident, err);
	if (!status)
		status = model_rope_tables(model, err);
	if (!status && !resident) {
		status = residency_open(&private->residency, model, cp, residency, err);
		cp = NULL;
		model->weight_bytes = residency->device;
	}
	if (!status)
		dsa_log_line(log, DSA_LOG_INFO, "%s: %s, %d layers, %.1f MB of weights on %s", model_dir,
		             model->config.model_type, model->config.layers, (double)model->weight_bytes / 1e6,
		             backend->name);
	if (!status && !resident)
		dsa_log_line(log, DSA_LOG_INFO,
		             "%s: of the layers as they are stored %d lie on the device, %d in pinned host memory, %d "
		             "on disk; a visit of all of them moves %.1f MB",
		             model_dir, residency->layers[DSA_PLACE_STORED], residency->layers[DSA_PLACE_HOST],
		             residency->layers[DSA_PLACE_DISK], (double)residency->link / 1e6);
cleanup:
	dsa_checkpoint_close(cp);
	if (status) {
		dsa_model_close(model);
		*out = NULL;
	}
	return status;
}

void dsa_model_close(struct dsa_model *model)
{
	if (!model)
		return;
	struct dsa_model_private *private = model->private;
	if (private) {
		residency_close(private->residency);
		for (int b = 0; private->blocks && b < model->config.layers + 2; b++) {
			if (private->blocks[b])
				model->backend->ops->free(model->backend, private->blocks[b]);
		}
		dsa_arena_release(&private->arena);
		free(private);
	}
	free(model);
}

bool dsa_model_has_indexer(const struct dsa_model *model, int layer)
{
	assert(layer >= 0 && layer < model->config.layers);
	return model->private->layers[layer].index_q.data;
}

bool dsa_model_brings_layers(const struct dsa_model *model)
{
	return model->private->residency != NULL;
}

enum dsa_status dsa_model_acquire(struct dsa_model *model, int layer, const struct dsa_layer **out,
                                  struct dsa_error *err)
{
	struct residency *residency = model->private->residency;
	assert(layer >= 0 && layer < model->config.layers);
	*out = &model->private->layers[layer];
	return residency ? residency_acquire(residency, layer, err) : DSA_OK;
}

void dsa_model_release(struct dsa_model *model, int layer)
{
	(void)model;
	(void)layer;
}

uint64_t dsa_model_weight_bytes(const struct dsa_model_config *config, enum dsa_dtype weight)
{
	struct weight_slot slots[WEIGHT_SLOTS];
	struct dsa_model model = {0};
	struct dsa_layer layer = {0};
	uint64_t bytes = weight_slots_bytes(slots, weight_model_slots(slots, &model, config, weight));
	for (int l = 0; l < config->layers; l++)
		bytes += weight_slots_bytes(slots, weight_layer_slots(slots, &layer, config, l, true, weight));
	return bytes;
}
