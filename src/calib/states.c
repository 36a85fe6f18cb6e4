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
	struct dsa_backend *be;
	int layers, batches;
	size_t *image_bytes;    /* (batches) */
	size_t all_images;      /* Σ image_bytes: a state in front of one layer, of every batch */
	struct entry **entries; /* (batches) */
	size_t limit, held;
	char *base;           /* (layers + 1); empty before the first rebase */
	bool *keep_base;      /* (layers) keep the base's state in front of this layer */
	bool *keep_candidate; /* (layers) and a candidate's */
};

static void *take(struct dsa_states *states, size_t bytes)
{
	return states->be ? states->be->ops->stash_alloc(states->be, bytes) : malloc(bytes);
}

static void give(struct dsa_states *states, void *image)
{
	if (states->be)
		states->be->ops->stash_free(states->be, image);
	else
		free(image);
}

static void drop(struct dsa_states *states, int batch, struct entry **link)
{
	struct entry *entry = *link;
	*link = entry->next;
	states->held -= states->image_bytes[batch];
	give(states, entry->image);
	free(entry);
}

enum dsa_status dsa_states_open(struct dsa_states **out, struct dsa_backend *be, int layers, int batches,
                                const size_t *image_bytes, size_t limit, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_states *states = dsa_alloc(1, sizeof *states, "the state pool", err);
	if (!states)
		return DSA_E_MEMORY;
	states->be = be;
	states->layers = layers;
	states->batches = batches;
	states->limit = limit;
	states->image_bytes = dsa_alloc((size_t)batches, sizeof *states->image_bytes, "the state pool", err);
	states->entries = dsa_alloc((size_t)batches, sizeof(struct entry *), "the state pool", err);
	states->base = dsa_alloc((size_t)layers + 1, 1, "the state pool", err);
	states->keep_base = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_candidate = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	if (!states->image_bytes || !states->entries || !states->base || !states->keep_base ||
	    !states->keep_candidate) {
		dsa_states_close(states);
		return DSA_E_MEMORY;
	}
	for (int b = 0; b < batches; b++) {
		states->image_bytes[b] = image_bytes[b];
		states->all_images += image_bytes[b];
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
	free(states->keep_base);
	free(states->keep_candidate);
	free(states);
}

void dsa_states_plan(const struct dsa_states *states, int *base, int *candidate)
{
	*base = *candidate = 0;
	for (int m = 0; m < states->layers; m++) {
		*base += states->keep_base[m];
		*candidate += states->keep_candidate[m];
	}
}

/* Letters of prefix that differ from the base. */
static int changed(const struct dsa_states *states, const char *prefix, int layer)
{
	int count = 0;
	for (int l = 0; l < layer; l++)
		count += prefix[l] != states->base[l];
	return count;
}

/* Layers in front of which a candidate of the base may start: those that can still become S. */
static bool is_start(const struct dsa_states *states, int layer)
{
	return layer > 0 && states->base[layer] == 'F';
}

/* Marks every nth start layer, the last ones first: the further back a state lies, the more it saves. */
static int mark_every(const struct dsa_states *states, bool *keep, int n)
{
	int marked = 0, seen = 0;
	for (int m = states->layers - 1; m > 0; m--) {
		keep[m] = is_start(states, m) && seen++ % n == 0;
		marked += keep[m];
	}
	return marked;
}

/* States of candidates that marked layers mean: one for every start layer before each of them. */
static size_t candidate_states(const struct dsa_states *states, const bool *keep)
{
	size_t count = 0;
	for (int m = 1; m < states->layers; m++)
		for (int l = 1; keep[m] && l < m; l++)
			count += is_start(states, l);
	return count;
}

static bool fits(const struct dsa_states *states, size_t count, size_t room)
{
	return count == 0 || states->all_images <= room / count;
}

/* The most likely layers, as many as room allows; where nothing is known, evenly spread ones. */
static void mark_candidates(struct dsa_states *states, size_t room, const int *likely, int count)
{
	memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	for (int i = 0; i < count; i++) {
		if (!is_start(states, likely[i]))
			continue;
		states->keep_candidate[likely[i]] = true;
		if (!fits(states, candidate_states(states, states->keep_candidate), room)) {
			states->keep_candidate[likely[i]] = false;
			return;
		}
	}
	for (int n = 1; count == 0 && n < states->layers; n++) {
		mark_every(states, states->keep_candidate, n);
		if (fits(states, candidate_states(states, states->keep_candidate), room))
			return;
		memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	}
}

static void plan(struct dsa_states *states, const int *likely, int count)
{
	int marked = 0;
	memset(states->keep_base, 0, (size_t)states->layers * sizeof(bool));
	memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	for (int n = 1; n < states->layers; n++) {
		marked = mark_every(states, states->keep_base, n);
		if (fits(states, (size_t)marked, states->limit)) {
			/* A sparse base path is better completed before candidates keep anything of their own. */
			if (n == 1)
				mark_candidates(states, states->limit - (size_t)marked * states->all_images, likely,
				                count);
			return;
		}
	}
	memset(states->keep_base, 0, (size_t)states->layers * sizeof(bool));
}

enum dsa_status dsa_states_rebase(struct dsa_states *states, const char *base, const int *likely, int count,
                                  struct dsa_error *err)
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
	plan(states, likely, count);
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

/* How little an entry would be missed: 0 not at all (its layer is not to be kept, it only serves candidates that have
 * not had their turn), 1 it is a shortcut of a candidate, 2 every candidate needs it. */
static int worth(const struct dsa_states *states, const struct entry *entry)
{
	bool on_base = changed(states, entry->prefix, entry->layer) == 0;
	if (on_base)
		return states->keep_base[entry->layer] ? 2 : 0;
	return states->keep_candidate[entry->layer] ? 1 : 0;
}

/* Drops entries worth less than `value`, least first and of this batch first (its candidates had their turn), until one
 * more state of the batch fits. */
static bool make_room(struct dsa_states *states, int batch, int value)
{
	size_t bytes = states->image_bytes[batch];
	for (int least = 0; least < value; least++) {
		for (int i = 0; i < states->batches && states->held + bytes > states->limit; i++) {
			int b = (batch + i) % states->batches;
			struct entry **link = &states->entries[b];
			while (*link && states->held + bytes > states->limit) {
				if (worth(states, *link) <= least)
					drop(states, b, link);
				else
					link = &(*link)->next;
			}
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
	if (away > 1 || !(away ? states->keep_candidate : states->keep_base)[layer])
		return NULL;
	for (const struct entry *entry = states->entries[batch]; entry; entry = entry->next)
		if (entry->layer == layer && !memcmp(entry->prefix, pattern, (size_t)layer))
			return NULL;
	if (!make_room(states, batch, away ? 1 : 2))
		return NULL;
	struct entry *entry = malloc(sizeof *entry + (size_t)layer);
	void *image = take(states, bytes);
	if (!entry || !image) {
		free(entry);
		if (image)
			give(states, image);
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
