#include "dsa/footprint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_private.h"

/* The layer that a tensor's name puts it into, -1 for none. *rest: the name behind the layer's prefix. */
static int layer_of(const char *name, const char **rest)
{
	static const char prefix[] = "model.layers.";
	*rest = name;
	if (strncmp(name, prefix, sizeof prefix - 1))
		return -1;
	char *end;
	const char *digits = name + sizeof prefix - 1;
	const long layer = strtol(digits, &end, 10);
	if (*digits < '0' || *digits > '9' || *end != '.')
		return -1;
	*rest = end + 1;
	return layer > DSA_MAX_LAYERS ? DSA_MAX_LAYERS : (int)layer;
}

static enum dsa_footprint_kind kind_of(const struct dsa_model_config *config, int layer)
{
	return config->moe[layer] ? DSA_FOOTPRINT_MOE : DSA_FOOTPRINT_DENSE;
}

static bool is_outside(const struct dsa_model_config *config, const char *name)
{
	return !strncmp(name, "model.embed_tokens.", 19) || !strcmp(name, "model.norm.weight") ||
	       (!config->tied && !strncmp(name, "lm_head.", 8));
}

static void add_stored(struct dsa_footprint *footprint, const struct dsa_model_config *config,
                       const struct dsa_checkpoint *cp)
{
	for (int i = 0; i < dsa_checkpoint_count(cp); i++) {
		const struct dsa_stored *tensor = dsa_checkpoint_at(cp, i);
		const char *rest;
		const int layer = layer_of(tensor->name, &rest);
		if (layer >= config->layers || (layer < 0 && !is_outside(config, tensor->name))) {
			footprint->unused_stored += tensor->bytes;
			continue;
		}
		const enum dsa_footprint_kind kind = layer < 0 ? DSA_FOOTPRINT_OUTSIDE : kind_of(config, layer);
		footprint->part[kind].stored += tensor->bytes;
		if (layer >= 0 && !strncmp(rest, "self_attn.indexer.", 18))
			footprint->indexers_stored += tensor->bytes;
	}
}

static void add_device(struct dsa_footprint *footprint, enum dsa_footprint_kind kind, uint64_t bytes)
{
	struct dsa_footprint_part *part = &footprint->part[kind];
	part->layers++;
	part->device += bytes;
	part->largest = bytes > part->largest ? bytes : part->largest;
	footprint->device += bytes;
}

enum dsa_status dsa_footprint_measure(struct dsa_footprint *footprint, const struct dsa_model_config *config,
                                      const struct dsa_checkpoint *cp, enum dsa_dtype weight, uint64_t limit,
                                      struct dsa_error *err)
{
	struct weight_slot slots[WEIGHT_SLOTS];
	struct dsa_model model = {0};
	struct dsa_layer layer = {0};
	char prefix[64];
	*footprint = (struct dsa_footprint){0};
	int count = weight_model_slots(slots, &model, config, weight);
	enum dsa_status status = weight_slots_check(slots, count, cp, "", err);
	if (status)
		return status;
	add_device(footprint, DSA_FOOTPRINT_OUTSIDE, weight_slots_bytes(slots, count));
	for (int l = 0; l < config->layers; l++) {
		const bool indexer = model_has_indexer(config, cp, l);
		snprintf(prefix, sizeof prefix, "model.layers.%d.", l);
		count = weight_layer_slots(slots, &layer, config, l, indexer, weight);
		status = weight_slots_check(slots, count, cp, prefix, err);
		if (status)
			return status;
		footprint->indexers += indexer;
		add_device(footprint, kind_of(config, l), weight_slots_bytes(slots, count));
		if (footprint->first_layers == l && footprint->device <= limit)
			footprint->first_layers++;
	}
	add_stored(footprint, config, cp);
	return DSA_OK;
}
