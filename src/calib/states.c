#include "dsa/states.h"

#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"

struct entry {
	struct entry *next;
	int layer;
	bool winner;  /* on the path of what is about to be the base */
	char *prefix; /* (layer) letters, behind the entry in one block */
	void *image;
};

struct dsa_states {
	struct dsa_backend *be;
	int layers, batches;
	size_t *image_bytes;     /* (batches) */
	bool *heldout;           /* (batches) */
	size_t base_images;      /* Σ image_bytes: a state in front of one layer, of every batch */
	size_t candidate_images; /* … of every batch that is not held out */
	struct entry **entries;  /* (batches) */
	size_t limit, held;
	char *base;           /* (layers + 1); empty before the first rebase */
	bool *keep_base;      /* (layers) keep the base's state in front of this layer */
	bool *keep_next;      /* (layers) and the expected winner's */
	bool *keep_candidate; /* (layers) and a candidate's */
	int next;             /* the layer expected to be flipped, or -1 */
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
                                const size_t *image_bytes, const bool *heldout, size_t limit, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_states *states = dsa_alloc(1, sizeof *states, "the state pool", err);
	if (!states)
		return DSA_E_MEMORY;
	states->be = be;
	states->layers = layers;
	states->batches = batches;
	states->limit = limit;
	states->next = -1;
	states->image_bytes = dsa_alloc((size_t)batches, sizeof *states->image_bytes, "the state pool", err);
	states->heldout = dsa_alloc((size_t)batches, sizeof *states->heldout, "the state pool", err);
	states->entries = dsa_alloc((size_t)batches, sizeof(struct entry *), "the state pool", err);
	states->base = dsa_alloc((size_t)layers + 1, 1, "the state pool", err);
	states->keep_base = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_next = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_candidate = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	if (!states->image_bytes || !states->heldout || !states->entries || !states->base || !states->keep_base ||
	    !states->keep_next || !states->keep_candidate) {
		dsa_states_close(states);
		return DSA_E_MEMORY;
	}
	for (int b = 0; b < batches; b++) {
		states->image_bytes[b] = image_bytes[b];
		states->heldout[b] = heldout && heldout[b];
		states->base_images += image_bytes[b];
		states->candidate_images += states->heldout[b] ? 0 : image_bytes[b];
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
	free(states->heldout);
	free(states->base);
	free(states->keep_base);
	free(states->keep_next);
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

static bool fits(size_t count, size_t each, size_t room)
{
	return count == 0 || each <= room / count;
}

/* Start layers behind the expected flip. */
static size_t mark_next(struct dsa_states *states)
{
	size_t marked = 0;
	for (int m = states->next + 1; states->next > 0 && m < states->layers; m++) {
		states->keep_next[m] = is_start(states, m) && states->keep_base[m];
		marked += states->keep_next[m];
	}
	return marked;
}

/* The most likely layers, as many as room allows, and behind the first of them its own path; where nothing is known,
 * evenly spread ones. */
static void mark_candidates(struct dsa_states *states, size_t room, const int *likely, int count)
{
	const size_t each = states->candidate_images;
	size_t path = 0;
	for (int i = 0; i < count; i++) {
		if (!is_start(states, likely[i]))
			continue;
		states->keep_candidate[likely[i]] = true;
		if (!fits(path + candidate_states(states, states->keep_candidate), each, room)) {
			states->keep_candidate[likely[i]] = false;
			return;
		}
		if (path || likely[i] != states->next)
			continue;
		/* A state of candidates saves what lies between a flip and this one, a state of the path only what
		 * lies between two start layers: the candidates of the likeliest flip come first. */
		path = mark_next(states);
		if (!fits(path + candidate_states(states, states->keep_candidate), each, room)) {
			memset(states->keep_next, 0, (size_t)states->layers * sizeof(bool));
			path = 0;
		}
	}
	for (int n = 1; count == 0 && n < states->layers; n++) {
		mark_every(states, states->keep_candidate, n);
		if (fits(candidate_states(states, states->keep_candidate), each, room))
			return;
		memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	}
}

static void plan(struct dsa_states *states, const int *likely, int count)
{
	size_t marked = 0;
	memset(states->keep_base, 0, (size_t)states->layers * sizeof(bool));
	memset(states->keep_next, 0, (size_t)states->layers * sizeof(bool));
	memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	states->next = count > 0 ? likely[0] : -1;
	for (int n = 1; n < states->layers; n++) {
		marked = (size_t)mark_every(states, states->keep_base, n);
		if (fits(marked, states->base_images, states->limit)) {
			/* A sparse base path is better completed before candidates keep anything of their own. */
			if (n == 1)
				mark_candidates(states, states->limit - marked * states->base_images, likely, count);
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
			(*link)->winner = false; /* it is the base now, or was not committed after all */
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

/* How much an entry would be missed. */
enum worth {
	WORTH_NOTHING,   /* its layer is not to be kept, it only serves candidates that have not had their turn */
	WORTH_SHORTCUT,  /* a candidate may start from it */
	WORTH_EXPECTED,  /* on the path of the flip that is expected to be committed */
	WORTH_NECESSARY, /* on the base's path, or on what takes its place */
};

static enum worth worth(const struct dsa_states *states, int batch, const char *prefix, int layer, bool winner)
{
	const int away = changed(states, prefix, layer);
	if (away > 1)
		return WORTH_NOTHING;
	if (away == 0 || winner)
		return states->keep_base[layer] ? WORTH_NECESSARY : WORTH_NOTHING;
	if (states->heldout[batch])
		return WORTH_NOTHING;
	if (states->next > 0 && states->next < layer && prefix[states->next] != states->base[states->next] &&
	    states->keep_next[layer])
		return WORTH_EXPECTED;
	return states->keep_candidate[layer] ? WORTH_SHORTCUT : WORTH_NOTHING;
}

/* Drops entries of the batch that are not on the winner's path, until one more state fits. */
static void make_way(struct dsa_states *states, int batch, const char *pattern)
{
	struct entry **link = &states->entries[batch];
	while (*link && states->held + states->image_bytes[batch] > states->limit) {
		const struct entry *entry = *link;
		if (changed(states, entry->prefix, entry->layer) == 0 &&
		    memcmp(entry->prefix, pattern, (size_t)entry->layer) != 0)
			drop(states, batch, link);
		else
			link = &(*link)->next;
	}
}

/* Drops entries worth less than `value`, least first and of this batch first (its candidates had their turn), until one
 * more state of the batch fits. */
static bool make_room(struct dsa_states *states, int batch, enum worth value)
{
	size_t bytes = states->image_bytes[batch];
	for (enum worth least = WORTH_NOTHING; least < value; least++) {
		for (int i = 0; i < states->batches && states->held + bytes > states->limit; i++) {
			int b = (batch + i) % states->batches;
			struct entry **link = &states->entries[b];
			while (*link && states->held + bytes > states->limit) {
				const struct entry *entry = *link;
				if (worth(states, b, entry->prefix, entry->layer, entry->winner) <= least)
					drop(states, b, link);
				else
					link = &(*link)->next;
			}
		}
	}
	return states->held + bytes <= states->limit;
}

void dsa_states_expect(struct dsa_states *states, int flip)
{
	if (flip == states->next || !states->base[0])
		return;
	/* Where there is room for one path there is room for another. */
	bool room = states->next < 0;
	for (int m = 0; m < states->layers; m++)
		room = room || states->keep_next[m];
	memset(states->keep_next, 0, (size_t)states->layers * sizeof(bool));
	states->next = flip;
	if (room)
		mark_next(states);
}

void *dsa_states_keep(struct dsa_states *states, int batch, const char *pattern, int layer, bool winner)
{
	size_t bytes = states->image_bytes[batch];
	if (!bytes || !states->base[0] || layer < 1 || layer >= states->layers)
		return NULL;
	enum worth value = worth(states, batch, pattern, layer, winner);
	if (value == WORTH_NOTHING)
		return NULL;
	for (struct entry *entry = states->entries[batch]; entry; entry = entry->next)
		if (entry->layer == layer && !memcmp(entry->prefix, pattern, (size_t)layer)) {
			entry->winner = entry->winner || winner;
			return NULL;
		}
	if (winner)
		make_way(states, batch, pattern);
	if (!make_room(states, batch, value))
		return NULL;
	struct entry *entry = malloc(sizeof *entry + (size_t)layer);
	void *image = take(states, bytes);
	if (!entry || !image) {
		free(entry);
		if (image)
			give(states, image);
		return NULL;
	}
	*entry = (struct entry){.next = states->entries[batch], .layer = layer, .winner = winner, .image = image};
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
