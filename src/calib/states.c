#include "dsa/states.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/spill.h"

struct entry {
	struct entry *next;
	int layer;
	bool winner;  /* on the path of what is about to be the base */
	char *prefix; /* (layer) letters, behind the entry in one block */
	void *image;  /* NULL: on disk */
	struct dsa_spilled spilled;
};

struct dsa_states {
	struct dsa_backend *be;
	int layers, batches;
	size_t *image_bytes;      /* (batches) */
	bool *heldout;            /* (batches) */
	size_t base_images;       /* Σ image_bytes: a state in front of one layer, of every batch */
	size_t candidate_images;  /* … of every batch that is not held out */
	struct entry **entries;   /* (batches) */
	size_t largest, smallest; /* of image_bytes that are not 0; 0: there are none */
	size_t limit, held;       /* memory of images; the buffer is apart */
	size_t most_held;
	struct dsa_spill *spill; /* NULL: no disk */
	uint64_t disk_limit;
	bool spill_planned; /* but there is no file to write to */
	bool spill_lost;    /* it failed: nothing more goes there */
	const struct dsa_log *log;
	void *buffer;          /* of one image on its way to or from the disk; NULL until it is needed */
	size_t buffer_bytes;   /* what it takes of the limit */
	struct entry *filling; /* handed out to be filled, in no list yet; its image may be the buffer */
	int filling_batch;
	char *base;           /* (layers + 1); empty before the first rebase */
	bool *fixed;          /* (layers) that nobody flips */
	bool *started;        /* (layers) could be flipped at some rebase: what lies in front of it may still be kept */
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
	if (entry->image) {
		states->held -= states->image_bytes[batch];
		give(states, entry->image);
	} else {
		dsa_spill_drop(states->spill, &entry->spilled);
	}
	free(entry);
}

size_t dsa_states_buffer(size_t image, bool zstd)
{
	return image + dsa_spill_memory(zstd, image);
}

/* The disk takes its buffer from the memory; where that has no room for one there is no disk. */
static enum dsa_status open_disk(struct dsa_states *states, const struct dsa_states_disk *disk, struct dsa_error *err)
{
	const size_t buffer = dsa_states_buffer(states->largest, disk->zstd);
	if (!disk->limit || !states->smallest || buffer > states->limit)
		return DSA_OK;
	const struct dsa_spill_options options = {.directory = disk->directory ? disk->directory : "",
	                                          .limit = disk->limit,
	                                          .image = states->smallest,
	                                          .zstd = disk->zstd};
	enum dsa_status status = dsa_spill_open(&states->spill, &options, err);
	if (status)
		return status;
	states->spill_planned = !disk->directory;
	states->disk_limit = disk->limit;
	states->log = disk->log;
	states->buffer_bytes = buffer;
	states->limit -= buffer;
	return DSA_OK;
}

enum dsa_status dsa_states_open(struct dsa_states **out, struct dsa_backend *be, int layers, int batches,
                                const size_t *image_bytes, const bool *heldout, size_t limit,
                                const struct dsa_states_disk *disk, struct dsa_error *err)
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
	states->fixed = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->started = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_base = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_next = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	states->keep_candidate = dsa_alloc((size_t)layers, sizeof(bool), "the state pool", err);
	if (!states->image_bytes || !states->heldout || !states->entries || !states->base || !states->fixed ||
	    !states->started || !states->keep_base || !states->keep_next || !states->keep_candidate) {
		dsa_states_close(states);
		return DSA_E_MEMORY;
	}
	for (int b = 0; b < batches; b++) {
		states->image_bytes[b] = image_bytes[b];
		states->heldout[b] = heldout && heldout[b];
		states->base_images += image_bytes[b];
		states->candidate_images += states->heldout[b] ? 0 : image_bytes[b];
		states->largest = image_bytes[b] > states->largest ? image_bytes[b] : states->largest;
		if (image_bytes[b] && (!states->smallest || image_bytes[b] < states->smallest))
			states->smallest = image_bytes[b];
	}
	enum dsa_status status = disk ? open_disk(states, disk, err) : DSA_OK;
	if (status) {
		dsa_states_close(states);
		return status;
	}
	*out = states;
	return DSA_OK;
}

void dsa_states_close(struct dsa_states *states)
{
	if (!states)
		return;
	if (states->filling)
		dsa_states_forget(states);
	for (int b = 0; states->entries && b < states->batches; b++)
		while (states->entries[b])
			drop(states, b, &states->entries[b]);
	free(states->entries);
	free(states->image_bytes);
	free(states->heldout);
	free(states->base);
	free(states->fixed);
	free(states->started);
	free(states->keep_base);
	free(states->keep_next);
	free(states->keep_candidate);
	free(states->buffer);
	dsa_spill_close(states->spill);
	free(states);
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
	return layer > 0 && states->base[layer] == 'F' && !states->fixed[layer];
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

/* Bytes of states that memory and disk hold together. A state lies on one side whole, so what both leave free may be of
 * no use to the largest; with that much less planned, whatever is planned fits. */
static size_t room_of(const struct dsa_states *states)
{
	if (!states->spill || states->spill_lost)
		return states->limit;
	const uint64_t disk = dsa_spill_room(states->spill, states->largest);
	return disk > states->largest ? states->limit + (size_t)disk - states->largest : states->limit;
}

static void plan(struct dsa_states *states, const int *likely, int count)
{
	const size_t room = room_of(states);
	size_t marked = 0;
	memset(states->keep_base, 0, (size_t)states->layers * sizeof(bool));
	memset(states->keep_next, 0, (size_t)states->layers * sizeof(bool));
	memset(states->keep_candidate, 0, (size_t)states->layers * sizeof(bool));
	states->next = count > 0 ? likely[0] : -1;
	for (int n = 1; n < states->layers; n++) {
		marked = (size_t)mark_every(states, states->keep_base, n);
		if (fits(marked, states->base_images, room)) {
			/* A sparse base path is better completed before candidates keep anything of their own. */
			if (n == 1)
				mark_candidates(states, room - marked * states->base_images, likely, count);
			return;
		}
	}
	memset(states->keep_base, 0, (size_t)states->layers * sizeof(bool));
}

void dsa_states_fix(struct dsa_states *states, const bool *fixed)
{
	memcpy(states->fixed, fixed, (size_t)states->layers * sizeof *fixed);
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
	for (int m = 1; m < states->layers; m++)
		states->started[m] = states->started[m] || is_start(states, m);
	for (int b = 0; b < states->batches; b++) {
		struct entry **link = &states->entries[b];
		/* Of a batch held out the next to be asked starts on the base's path. */
		const int most = states->heldout[b] ? 0 : 1;
		while (*link) {
			(*link)->winner = false; /* it is the base now, or was not committed after all */
			if (changed(states, (*link)->prefix, (*link)->layer) > most)
				drop(states, b, link);
			else
				link = &(*link)->next;
		}
	}
	plan(states, likely, count);
	return DSA_OK;
}

/* States of a batch at most. In front of a layer are the base's and those with one letter before it changed; of a batch
 * held out the base's and the winner's, which are one up to its flip. */
static uint64_t most_states(const struct dsa_states *states, int batch)
{
	uint64_t starts = 0;
	for (int m = 1; m < states->layers; m++)
		starts += states->started[m];
	const uint64_t all = starts * (starts + 1) / 2, paths = starts ? 2 * starts - 1 : 0;
	return states->heldout[batch] && paths < all ? paths : all;
}

struct dsa_states_plan dsa_states_plan(const struct dsa_states *states)
{
	struct dsa_states_plan plan = {0};
	for (int m = 1; m < states->layers; m++) {
		plan.base += states->keep_base[m];
		plan.candidate += states->keep_candidate[m];
	}
	bool fit = true;
	for (int b = 0; b < states->batches && fit; b++) {
		const uint64_t count = most_states(states, b);
		const size_t left = states->limit - plan.memory;
		fit = !count || states->image_bytes[b] <= left / count;
		plan.memory += fit ? (size_t)count * states->image_bytes[b] : 0;
	}
	/* Whole states fill it. */
	if (!fit)
		plan.memory = states->limit - states->limit % states->smallest + states->buffer_bytes;
	if (fit || !states->spill || states->spill_lost)
		return plan;
	for (int b = 0; b < states->batches; b++)
		plan.disk += most_states(states, b) * dsa_spill_size(states->spill, states->image_bytes[b]);
	/* The file grows only when memory has no room for one more. */
	const size_t full = states->limit > states->largest ? states->limit - states->largest : 0;
	plan.disk = plan.disk > full ? plan.disk - full : 0;
	plan.disk = plan.disk < states->disk_limit ? plan.disk : states->disk_limit;
	return plan;
}

static bool has_buffer(struct dsa_states *states)
{
	if (!states->buffer)
		states->buffer = malloc(states->largest);
	return states->buffer != NULL;
}

/* What fails once fails again: nothing more is written. */
static void lose_disk(struct dsa_states *states, const struct dsa_error *err, const char *consequence)
{
	if (!states->spill_lost)
		dsa_log_line(states->log, DSA_LOG_WARN, "%s; %s, and no more of them go to disk", err->text,
		             consequence);
	states->spill_lost = true;
}

/* A full disk has to have room for the journal: what lies there is run again too. */
static void give_disk_back(struct dsa_states *states)
{
	for (int b = 0; b < states->batches; b++)
		for (struct entry **link = &states->entries[b]; *link;) {
			if ((*link)->image)
				link = &(*link)->next;
			else
				drop(states, b, link);
		}
	dsa_spill_empty(states->spill);
}

/* The link to the entry of the longest prefix; NULL: none of at least `least` letters. */
static struct entry **longest(struct dsa_states *states, int batch, const char *pattern, int least)
{
	struct entry **best = NULL;
	for (struct entry **link = &states->entries[batch]; *link; link = &(*link)->next) {
		const struct entry *entry = *link;
		if (entry->layer >= least && (!best || entry->layer > (*best)->layer) &&
		    !memcmp(entry->prefix, pattern, (size_t)entry->layer))
			best = link;
	}
	return best;
}

const void *dsa_states_find(struct dsa_states *states, int batch, const char *pattern, int least, int *layer)
{
	struct entry **link;
	assert(!states->filling);
	while ((link = longest(states, batch, pattern, least))) {
		const struct entry *entry = *link;
		struct dsa_error err;
		*layer = entry->layer;
		if (entry->image)
			return entry->image;
		/* The buffer was there when the entry was written. */
		if (!dsa_spill_read(states->spill, &entry->spilled, states->buffer, &err))
			return states->buffer;
		lose_disk(states, &err, "its layers are run again");
		drop(states, batch, link);
	}
	*layer = 0;
	return NULL;
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

static bool memory_fits(const struct dsa_states *states, size_t bytes)
{
	return bytes <= states->limit - states->held;
}

static bool disk_fits(const struct dsa_states *states, size_t bytes)
{
	return states->spill && !states->spill_planned && !states->spill_lost && dsa_spill_fits(states->spill, bytes);
}

static bool has_room(const struct dsa_states *states, size_t bytes)
{
	return memory_fits(states, bytes) || disk_fits(states, bytes);
}

/* Drops entries of the batch that are not on the winner's path, until one more state fits. */
static void make_way(struct dsa_states *states, int batch, const char *pattern)
{
	struct entry **link = &states->entries[batch];
	while (*link && !has_room(states, states->image_bytes[batch])) {
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
		for (int i = 0; i < states->batches && !has_room(states, bytes); i++) {
			int b = (batch + i) % states->batches;
			struct entry **link = &states->entries[b];
			while (*link && !has_room(states, bytes)) {
				const struct entry *entry = *link;
				if (worth(states, b, entry->prefix, entry->layer, entry->winner) <= least)
					drop(states, b, link);
				else
					link = &(*link)->next;
			}
		}
	}
	return has_room(states, bytes);
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

/* Memory for an image: its own, or the buffer of the disk's; NULL: the machine has none. */
static void *place(struct dsa_states *states, size_t bytes)
{
	void *image = memory_fits(states, bytes) ? take(states, bytes) : NULL;
	if (image) {
		states->held += bytes;
		states->most_held = states->held > states->most_held ? states->held : states->most_held;
		return image;
	}
	return disk_fits(states, bytes) && has_buffer(states) ? states->buffer : NULL;
}

void *dsa_states_keep(struct dsa_states *states, int batch, const char *pattern, int layer, bool winner)
{
	size_t bytes = states->image_bytes[batch];
	assert(!states->filling);
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
	void *image = entry ? place(states, bytes) : NULL;
	if (!image) {
		free(entry);
		return NULL;
	}
	*entry = (struct entry){.layer = layer, .winner = winner, .image = image};
	entry->prefix = (char *)(entry + 1);
	memcpy(entry->prefix, pattern, (size_t)layer);
	states->filling = entry;
	states->filling_batch = batch;
	return image;
}

void dsa_states_kept(struct dsa_states *states)
{
	struct entry *entry = states->filling;
	const int batch = states->filling_batch;
	struct dsa_error err;
	assert(entry);
	states->filling = NULL;
	if (entry->image == states->buffer) {
		if (dsa_spill_write(states->spill, entry->image, states->image_bytes[batch], &entry->spilled, &err)) {
			lose_disk(states, &err, "what memory cannot hold is run again");
			give_disk_back(states);
			free(entry);
			return;
		}
		entry->image = NULL;
	}
	entry->next = states->entries[batch];
	states->entries[batch] = entry;
}

void dsa_states_forget(struct dsa_states *states)
{
	struct entry *entry = states->filling;
	assert(entry);
	states->filling = NULL;
	if (entry->image == states->buffer)
		free(entry);
	else
		drop(states, states->filling_batch, &entry);
}

struct dsa_states_usage dsa_states_usage(const struct dsa_states *states)
{
	const size_t buffer = states->buffer ? states->buffer_bytes : 0;
	struct dsa_states_usage usage = {.memory = states->held + buffer, .most_memory = states->most_held + buffer};
	if (states->spill) {
		const struct dsa_spill_usage *disk = dsa_spill_usage(states->spill);
		usage.disk = disk->bytes;
		usage.most_disk = disk->most;
		usage.written = disk->written;
		usage.read = disk->read;
		usage.reads = disk->reads;
	}
	return usage;
}
