#include "dsa/states.h"

#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"

struct entry {
	struct entry *next;
	int layer;
	char *prefix; /* (layer) letters, behind the entry in one block */
	void *image;
};

struct dsa_states {
	int layers, batches;
	size_t *image_bytes;    /* (batches) */
	struct entry **entries; /* (batches) */
	size_t limit, held;
	int base_stride, candidate_stride;
	char *base; /* (layers + 1); empty before the first rebase */
};

/* Layers 1 … layers - 1 hold a state worth keeping: at layer 0 it is the embedding, behind the last one nothing starts.
 */
static size_t kept_layers(int first, int layers, int stride)
{
	size_t count = 0;
	for (int m = first; m < layers; m++)
		count += m % stride == 0;
	return count;
}

/* The smallest stride whose states fit into room; 0 if none does. copies(stride) counts images per batch. */
static int base_stride(int layers, size_t all_images, size_t room)
{
	for (int stride = 1; stride < layers; stride++) {
		size_t images = kept_layers(1, layers, stride);
		if (all_images <= SIZE_MAX / images && all_images * images <= room)
			return stride;
	}
	return 0;
}

static size_t candidate_images(int layers, int stride)
{
	size_t images = 0;
	for (int flip = 1; flip < layers; flip++)
		images += kept_layers(flip + 1, layers, stride);
	return images;
}

static int candidate_stride(int layers, size_t all_images, size_t room)
{
	for (int stride = 1; stride < layers; stride++) {
		size_t images = candidate_images(layers, stride);
		if (!images)
			break;
		if (all_images <= SIZE_MAX / images && all_images * images <= room)
			return stride;
	}
	return 0;
}

static void drop(struct dsa_states *states, int batch, struct entry **link)
{
	struct entry *entry = *link;
	*link = entry->next;
	states->held -= states->image_bytes[batch];
	free(entry->image);
	free(entry);
}

enum dsa_status dsa_states_open(struct dsa_states **out, int layers, int batches, const size_t *image_bytes,
                                size_t limit, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_states *states = dsa_alloc(1, sizeof *states, "the state pool", err);
	if (!states)
		return DSA_E_MEMORY;
	states->layers = layers;
	states->batches = batches;
	states->limit = limit;
	states->image_bytes = dsa_alloc((size_t)batches, sizeof *states->image_bytes, "the state pool", err);
	states->entries = dsa_alloc((size_t)batches, sizeof(struct entry *), "the state pool", err);
	states->base = dsa_alloc((size_t)layers + 1, 1, "the state pool", err);
	if (!states->image_bytes || !states->entries || !states->base) {
		dsa_states_close(states);
		return DSA_E_MEMORY;
	}
	size_t all = 0;
	for (int b = 0; b < batches; b++) {
		states->image_bytes[b] = image_bytes[b];
		all += image_bytes[b];
	}
	states->base_stride = base_stride(layers, all, limit);
	if (states->base_stride) {
		size_t base_bytes = all * kept_layers(1, layers, states->base_stride);
		/* A sparse base path is better completed before candidates keep anything of their own. */
		if (states->base_stride == 1)
			states->candidate_stride = candidate_stride(layers, all, limit - base_bytes);
	}
	*out = states;
	return DSA_OK;
}

void dsa_states_close(struct dsa_states *states)
{
	if (!states)
		return;
	for (int b = 0; states->entries && b < states->batches; b++)
		while (states->entries[b])
			drop(states, b, &states->entries[b]);
	free(states->entries);
	free(states->image_bytes);
	free(states->base);
	free(states);
}

void dsa_states_strides(const struct dsa_states *states, int *base, int *candidate)
{
	*base = states->base_stride;
	*candidate = states->candidate_stride;
}

/* Letters of prefix that differ from the base. */
static int changed(const struct dsa_states *states, const char *prefix, int layer)
{
	int count = 0;
	for (int l = 0; l < layer; l++)
		count += prefix[l] != states->base[l];
	return count;
}

enum dsa_status dsa_states_rebase(struct dsa_states *states, const char *base, struct dsa_error *err)
{
	if (strlen(base) != (size_t)states->layers)
		return dsa_fail(err, DSA_E_USAGE, "a base pattern of %zu letters for %d layers", strlen(base),
		                states->layers);
	if (!strcmp(states->base, base))
		return DSA_OK;
	memcpy(states->base, base, (size_t)states->layers + 1);
	for (int b = 0; b < states->batches; b++) {
		struct entry **link = &states->entries[b];
		while (*link) {
			if (changed(states, (*link)->prefix, (*link)->layer) > 1)
				drop(states, b, link);
			else
				link = &(*link)->next;
		}
	}
	return DSA_OK;
}

const void *dsa_states_find(const struct dsa_states *states, int batch, const char *pattern, int *layer)
{
	const struct entry *best = NULL;
	for (const struct entry *entry = states->entries[batch]; entry; entry = entry->next)
		if ((!best || entry->layer > best->layer) && !memcmp(entry->prefix, pattern, (size_t)entry->layer))
			best = entry;
	*layer = best ? best->layer : 0;
	return best ? best->image : NULL;
}

/* Room for the base's path may be taken from candidates: theirs is only a shortcut, its is what every candidate needs.
 */
static bool make_room(struct dsa_states *states, int batch)
{
	size_t bytes = states->image_bytes[batch];
	for (int b = 0; b < states->batches; b++) {
		struct entry **link = &states->entries[b];
		while (*link && states->held + bytes > states->limit) {
			if (changed(states, (*link)->prefix, (*link)->layer) > 0)
				drop(states, b, link);
			else
				link = &(*link)->next;
		}
	}
	return states->held + bytes <= states->limit;
}

void *dsa_states_keep(struct dsa_states *states, int batch, const char *pattern, int layer)
{
	size_t bytes = states->image_bytes[batch];
	if (!bytes || !states->base[0] || layer < 1 || layer >= states->layers)
		return NULL;
	int away = changed(states, pattern, layer);
	int stride = away == 0 ? states->base_stride : away == 1 ? states->candidate_stride : 0;
	if (!stride || layer % stride)
		return NULL;
	for (const struct entry *entry = states->entries[batch]; entry; entry = entry->next)
		if (entry->layer == layer && !memcmp(entry->prefix, pattern, (size_t)layer))
			return NULL;
	if (states->held + bytes > states->limit && (away > 0 || !make_room(states, batch)))
		return NULL;
	struct entry *entry = malloc(sizeof *entry + (size_t)layer);
	void *image = malloc(bytes);
	if (!entry || !image) {
		free(entry);
		free(image);
		return NULL;
	}
	*entry = (struct entry){.next = states->entries[batch], .layer = layer, .image = image};
	entry->prefix = (char *)(entry + 1);
	memcpy(entry->prefix, pattern, (size_t)layer);
	states->entries[batch] = entry;
	states->held += bytes;
	return image;
}

void dsa_states_forget(struct dsa_states *states, int batch, const void *image)
{
	for (struct entry **link = &states->entries[batch]; *link; link = &(*link)->next)
		if ((*link)->image == image) {
			drop(states, batch, link);
			return;
		}
}

size_t dsa_states_bytes(const struct dsa_states *states)
{
	return states->held;
}
