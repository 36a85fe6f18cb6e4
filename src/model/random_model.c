/* Models of random weights, for measuring speed without a checkpoint. A chunk of numbers crosses from the host; the
 * rest of a tensor is copied from what is there, twice as much each time. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_private.h"

enum dsa_status random_numbers_open(struct random_numbers *numbers, uint64_t seed, struct dsa_error *err)
{
	uint64_t state = seed * 2 + 1;
	numbers->unit = dsa_alloc(RANDOM_CHUNK, sizeof *numbers->unit, "random numbers", err);
	numbers->scaled = dsa_alloc(RANDOM_CHUNK, sizeof *numbers->scaled, "random numbers", err);
	if (!numbers->unit || !numbers->scaled) {
		random_numbers_close(numbers);
		return DSA_E_MEMORY;
	}
	for (int i = 0; i < RANDOM_CHUNK; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		numbers->unit[i] = (float)(state >> 40) * 0x1p-23f - 1;
	}
	return DSA_OK;
}

void random_numbers_close(struct random_numbers *numbers)
{
	free(numbers->unit);
	free(numbers->scaled);
	*numbers = (struct random_numbers){0};
}

enum dsa_status random_fill(const struct random_numbers *numbers, struct dsa_backend *be, struct dsa_tensor t,
                            double centre, double amplitude, struct dsa_error *err)
{
	size_t count = (size_t)t.rows * (size_t)t.cols, element = dsa_dtype_bytes(t.dtype);
	size_t filled = count < RANDOM_CHUNK ? count : RANDOM_CHUNK;
	char *data = t.data;
	assert(t.stride == t.cols);
	for (size_t i = 0; i < filled; i++)
		numbers->scaled[i] = (float)(centre + amplitude * numbers->unit[i]);
	enum dsa_status status =
	    be->ops->load_weight(be, dsa_tensor_make(data, t.dtype, 1, (int)filled), numbers->scaled, DSA_F32, err);
	while (filled < count && !status) {
		size_t more = count - filled < filled ? count - filled : filled;
		status = be->ops->copy(be, data + filled * element, data, more * element, err);
		filled += more;
	}
	return status ? status : be->ops->wait(be, err);
}

static enum dsa_status fill_slot(const struct weight_slot *slot, const struct random_numbers *numbers,
                                 struct dsa_backend *be, void *at, struct dsa_error *err)
{
	const double norm_spread = 0.1, bias_spread = 0.01;
	*slot->tensor = dsa_tensor_make(at, slot->dtype, slot->rows, slot->cols);
	if (slot->source != WEIGHT_VECTOR)
		return random_fill(numbers, be, *slot->tensor, 0, slot->scale * sqrt(3.0 / slot->cols), err);
	if (strstr(slot->name, "bias"))
		return random_fill(numbers, be, *slot->tensor, 0, bias_spread, err);
	return random_fill(numbers, be, *slot->tensor, 1, norm_spread, err);
}

static enum dsa_status fill_block(struct dsa_model *model, const struct weight_slot *slots, int count, int block,
                                  const struct random_numbers *numbers, struct dsa_error *err)
{
	struct dsa_backend *be = model->backend;
	void **memory = &model->private->blocks[block];
	uint64_t bytes = weight_slots_bytes(slots, count), at = 0;
	enum dsa_status status = be->ops->alloc(be, bytes, "random weights", memory, err);
	for (int i = 0; i < count && !status; i++) {
		status = fill_slot(&slots[i], numbers, be, (char *)*memory + at, err);
		at += weight_slots_bytes(&slots[i], 1);
	}
	model->weight_bytes += bytes;
	return status;
}

static enum dsa_status fill_model(struct dsa_model *model, const struct random_numbers *numbers, struct dsa_error *err)
{
	const struct dsa_model_config *config = &model->config;
	struct weight_slot slots[WEIGHT_SLOTS];
	int count = weight_model_slots(slots, model, config, model->backend->weight);
	enum dsa_status status = fill_block(model, slots, count, config->layers, numbers, err);
	for (int l = 0; l < config->layers && !status; l++) {
		count = weight_layer_slots(slots, &model->private->layers[l], config, l, true, model->backend->weight);
		status = fill_block(model, slots, count, l, numbers, err);
	}
	if (config->tied)
		model->head = model->embed;
	return status;
}

enum dsa_status dsa_model_random(struct dsa_model **out, struct dsa_backend *backend,
                                 const struct dsa_model_config *config, int context, uint64_t seed,
                                 struct dsa_error *err)
{
	struct random_numbers numbers = {0};
	enum dsa_status status = DSA_E_MEMORY;
	size_t layers = (size_t)config->layers;
	assert(context > 0);
	struct dsa_model *model = *out = dsa_alloc(1, sizeof *model, "a model", err);
	if (!model)
		return status;
	model->backend = backend;
	model->context = context;
	struct dsa_model_private *private = model->private = dsa_alloc(1, sizeof *private, "a model", err);
	if (!private)
		goto cleanup;
	dsa_arena_init(&private->arena);
	model->config = *config;
	private->layers = dsa_arena_alloc(&private->arena, layers, sizeof *private->layers, "layers", err);
	private->blocks = dsa_arena_alloc(&private->arena, layers + 2, sizeof *private->blocks, "layers", err);
	if (!private->layers || !private->blocks)
		goto cleanup;
	status = random_numbers_open(&numbers, seed, err);
	if (!status)
		status = fill_model(model, &numbers, err);
	if (!status)
		status = model_rope_tables(model, err);
cleanup:
	random_numbers_close(&numbers);
	if (status) {
		dsa_model_close(model);
		*out = NULL;
	}
	return status;
}
