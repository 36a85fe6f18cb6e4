/* Layers that are not on the device in the form of products: brought there when they are visited.
 *
 * A visit needs the layer's image in device memory and converts it into the block that all of these layers share. While
 * the layer works, the image of the next one that is not on the device crosses the bus, and the one behind that is read
 * from disk, each into the buffer that is free. Which one is next is a guess (layers come in order, a pass begins where
 * the one before began); a wrong one costs time only.
 *
 * The first visit of a layer goes through the host, which looks at every number and names one that is not finite. */
#include <assert.h>
#include <stdlib.h>

#include "dsa/clock.h"
#include "residency_private.h"

enum { NONE = -1, BUFFERS = 2 };

struct buffer {
	void *memory;
	int layer; /* whose image is in it or on its way; NONE */
};

struct traffic {
	long long visits, late; /* late: the device waited */
	double link_bytes, link_seconds, disk_bytes, disk_seconds, waited_seconds;
};

struct residency {
	struct dsa_model *model;
	struct dsa_backend *be;
	struct dsa_checkpoint *cp;
	struct dsa_arena arena;
	struct image_reader *reader;
	struct dsa_residency plan;
	struct image *images; /* (L) */
	void **stored;        /* (L) device memory, of layers at DSA_PLACE_STORED */
	void **host;          /* (L) pinned, of layers at DSA_PLACE_HOST */
	bool *seen;           /* (L) has been visited through the host */
	void *block;
	int held; /* the layer in the block, or NONE */
	struct buffer landing[BUFFERS], staging[BUFFERS];
	int fetching, source; /* the landing that is being filled or NONE, the staging that it is filled from or NONE */
	int reading;          /* the staging that is being filled, or NONE */
	int first;            /* layer of the pass in progress */
	struct traffic traffic;
};

static int layer_slots(struct residency *r, struct weight_slot slots[WEIGHT_SLOTS], int layer)
{
	return weight_layer_slots(slots, &r->model->private->layers[layer], &r->model->config, layer,
	                          model_has_indexer(&r->model->config, r->cp, layer), r->be->weight);
}

static enum dsa_status take_block(struct residency *r, struct dsa_error *err)
{
	struct weight_slot slots[WEIGHT_SLOTS];
	uint64_t largest = 0;
	for (int l = 0; l < r->model->config.layers; l++) {
		const uint64_t bytes = weight_slots_bytes(slots, layer_slots(r, slots, l));
		largest = bytes > largest ? bytes : largest;
	}
	return r->be->ops->alloc(r->be, largest, "a layer's weights", &r->block, err);
}

/* Lists every layer's pieces, places its tensors in the block. */
static enum dsa_status lay_out(struct residency *r, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	for (int l = 0; l < r->model->config.layers && !status; l++) {
		struct weight_slot slots[WEIGHT_SLOTS];
		struct weight_piece *pieces;
		char prefix[LAYER_PREFIX_CHARS];
		int piece_count;
		const int count = layer_slots(r, slots, l);
		weight_slots_place(slots, count, r->block);
		status = weight_slots_pieces(slots, count, r->cp, model_layer_prefix(prefix, l), &r->arena, &pieces,
		                             &piece_count, err);
		if (!status)
			status = image_lay_out(&r->images[l], r->cp, pieces, piece_count, &r->arena, err);
	}
	return status;
}

/* Fills the block from the layer's image. on_host: through the host, where what is not finite is named; else it is on
 * the device. */
static enum dsa_status fill(struct residency *r, int layer, const char *image, bool on_host, struct dsa_error *err)
{
	const struct image *what = &r->images[layer];
	enum dsa_status status = DSA_OK;
	r->held = NONE;
	for (int i = 0; i < what->piece_count && !status; i++) {
		const struct weight_piece *piece = &what->pieces[i];
		const char *numbers = image + what->places[i].numbers;
		const char *scales = piece->scales ? image + what->places[i].scales : NULL;
		status = on_host ? weight_piece_load(piece, numbers, scales, r->cp, r->be, err)
		                 : weight_piece_convert(piece, numbers, scales, r->cp, r->be, err);
	}
	if (!status) {
		r->held = layer;
		r->seen[layer] = true;
	}
	return status;
}

static enum dsa_status no_pinned(const struct residency *r, uint64_t bytes, struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_MEMORY,
	                "no host memory for weights on their way: %.2f GiB asked for, %.2f GiB in all; lower "
	                "--host-memory, or use --residency disk",
	                (double)bytes / 1073741824.0, (double)r->plan.host / 1073741824.0);
}

/* All of them come in once, so that later visits find them in their place. */
static enum dsa_status bring(struct residency *r, int layer, void *passing, struct dsa_error *err)
{
	const struct image *image = &r->images[layer];
	const enum dsa_place place = r->plan.place[layer];
	double seconds;
	void *memory = passing;
	if (place == DSA_PLACE_HOST) {
		memory = r->host[layer] = r->be->ops->pinned_alloc(r->be, image->bytes);
		if (!memory)
			return no_pinned(r, image->bytes, err);
	}
	image_reader_start(r->reader, image, memory);
	enum dsa_status status = image_reader_finish(r->reader, &seconds, err);
	if (status || place == DSA_PLACE_HOST)
		return status;
	status = r->be->ops->alloc(r->be, image->bytes, "weights", &r->stored[layer], err);
	if (!status)
		status = fill(r, layer, memory, true, err);
	if (!status)
		status = r->be->ops->upload(r->be, r->stored[layer], memory, image->bytes, err);
	return status ? status : r->be->ops->wait(r->be, err); /* the next one takes its place on the host */
}

static enum dsa_status bring_all(struct residency *r, uint64_t largest, struct dsa_error *err)
{
	void *taken = NULL, *passing = r->staging[0].memory;
	enum dsa_status status = DSA_OK;
	if (r->plan.layers[DSA_PLACE_STORED] && !passing) {
		passing = taken = r->be->ops->pinned_alloc(r->be, largest);
		if (!passing)
			return no_pinned(r, largest, err);
	}
	for (int l = 0; l < r->model->config.layers && !status; l++)
		if (r->plan.place[l] == DSA_PLACE_STORED || r->plan.place[l] == DSA_PLACE_HOST)
			status = bring(r, l, passing, err);
	r->be->ops->pinned_free(r->be, taken);
	return status;
}

static enum dsa_status take_buffers(struct residency *r, uint64_t largest, struct dsa_error *err)
{
	const bool crosses = r->plan.layers[DSA_PLACE_HOST] || r->plan.layers[DSA_PLACE_DISK];
	enum dsa_status status = DSA_OK;
	for (int i = 0; i < BUFFERS && !status; i++) {
		r->landing[i].layer = r->staging[i].layer = NONE;
		if (crosses)
			status = r->be->ops->alloc(r->be, largest, "weights on their way", &r->landing[i].memory, err);
		if (status || !r->plan.layers[DSA_PLACE_DISK])
			continue;
		r->staging[i].memory = r->be->ops->pinned_alloc(r->be, largest);
		if (!r->staging[i].memory)
			status = no_pinned(r, largest, err);
	}
	return status;
}

enum dsa_status residency_open(struct residency **out, struct dsa_model *model, struct dsa_checkpoint *cp,
                               const struct dsa_residency *plan, struct dsa_error *err)
{
	const size_t layers = (size_t)model->config.layers;
	uint64_t image = 0;
	enum dsa_status status = DSA_E_MEMORY;
	struct residency *r = *out = dsa_alloc(1, sizeof *r, "the weights' residency", err);
	if (!r) {
		dsa_checkpoint_close(cp);
		return status;
	}
	*r = (struct residency){.model = model, .be = model->backend, .cp = cp, .plan = *plan};
	r->held = r->fetching = r->source = r->reading = NONE;
	dsa_arena_init(&r->arena);
	r->images = dsa_arena_alloc(&r->arena, layers, sizeof *r->images, "layers", err);
	r->stored = dsa_arena_alloc(&r->arena, layers, sizeof *r->stored, "layers", err);
	r->host = dsa_arena_alloc(&r->arena, layers, sizeof *r->host, "layers", err);
	r->seen = dsa_arena_alloc(&r->arena, layers, sizeof *r->seen, "layers", err);
	if (!r->images || !r->stored || !r->host || !r->seen)
		goto cleanup;
	status = take_block(r, err);
	if (!status)
		status = lay_out(r, err);
	for (size_t l = 0; l < layers; l++)
		image = r->images[l].bytes > image ? r->images[l].bytes : image;
	if (!status)
		status = image_reader_open(&r->reader, cp, err);
	if (!status)
		status = take_buffers(r, image, err);
	if (!status)
		status = bring_all(r, image, err);
cleanup:
	if (status) {
		residency_close(r);
		*out = NULL;
	}
	return status;
}

static void report(const struct residency *r)
{
	const struct traffic *t = &r->traffic;
	if (!t->visits)
		return;
	dsa_log_line(r->be->log, DSA_LOG_DEBUG,
	             "weights: %lld visits brought %.2f GB over the bus in %.2f s (%.1f GB/s) and %.2f GB off the "
	             "disk in %.2f s (%.1f GB/s); %lld of them kept the device waiting, %.2f s in all",
	             t->visits, t->link_bytes / 1e9, t->link_seconds,
	             t->link_seconds > 0 ? t->link_bytes / 1e9 / t->link_seconds : 0, t->disk_bytes / 1e9,
	             t->disk_seconds, t->disk_seconds > 0 ? t->disk_bytes / 1e9 / t->disk_seconds : 0, t->late,
	             t->waited_seconds);
}

void residency_close(struct residency *r)
{
	double seconds;
	if (!r)
		return;
	const struct dsa_ops *ops = r->be->ops;
	if (r->fetching != NONE)
		(void)!ops->fetched(r->be, &seconds, NULL);
	if (r->reading != NONE)
		(void)!image_reader_finish(r->reader, &seconds, NULL);
	report(r);
	image_reader_close(r->reader);
	for (int l = 0; r->stored && r->host && l < r->model->config.layers; l++) {
		if (r->stored[l])
			ops->free(r->be, r->stored[l]);
		if (r->host[l])
			ops->pinned_free(r->be, r->host[l]);
	}
	for (int i = 0; i < BUFFERS; i++) {
		if (r->landing[i].memory)
			ops->free(r->be, r->landing[i].memory);
		if (r->staging[i].memory)
			ops->pinned_free(r->be, r->staging[i].memory);
	}
	if (r->block)
		ops->free(r->be, r->block);
	dsa_checkpoint_close(r->cp);
	dsa_arena_release(&r->arena);
	free(r);
}

static int find(const struct buffer *buffers, int layer)
{
	for (int i = 0; i < BUFFERS; i++)
		if (buffers[i].layer == layer)
			return i;
	return NONE;
}

/* The next layer behind this one that crosses the bus; NONE: there is no other. */
static int next_crossing(const struct residency *r, int layer)
{
	const int layers = r->model->config.layers;
	for (int i = 0, at = layer; i < layers; i++) {
		at = at + 1 < layers ? at + 1 : r->first;
		if (at == layer)
			return NONE;
		if (r->plan.place[at] >= DSA_PLACE_HOST)
			return at;
	}
	return NONE;
}

static void start_reading(struct residency *r, int layer, int into)
{
	r->staging[into].layer = layer;
	r->reading = into;
	image_reader_start(r->reader, &r->images[layer], r->staging[into].memory);
}

static enum dsa_status finish_reading(struct residency *r, struct dsa_error *err)
{
	double seconds = 0;
	const int into = r->reading;
	if (into == NONE)
		return DSA_OK;
	r->reading = NONE;
	const enum dsa_status status = image_reader_finish(r->reader, &seconds, err);
	if (status) {
		r->staging[into].layer = NONE;
		return status;
	}
	r->traffic.disk_bytes += (double)r->images[r->staging[into].layer].bytes;
	r->traffic.disk_seconds += seconds;
	return DSA_OK;
}

static enum dsa_status finish_fetching(struct residency *r, struct dsa_error *err)
{
	double seconds = 0;
	const int into = r->fetching;
	if (into == NONE)
		return DSA_OK;
	r->fetching = r->source = NONE;
	const enum dsa_status status = r->be->ops->fetched(r->be, &seconds, err);
	if (status) {
		r->landing[into].layer = NONE;
		return status;
	}
	r->traffic.link_bytes += (double)r->images[r->landing[into].layer].bytes;
	r->traffic.link_seconds += seconds;
	return DSA_OK;
}

static enum dsa_status start_fetching(struct residency *r, int layer, int into, struct dsa_error *err)
{
	const int from = find(r->staging, layer);
	const void *image = r->plan.place[layer] == DSA_PLACE_HOST ? r->host[layer] : r->staging[from].memory;
	const enum dsa_status status =
	    r->be->ops->fetch(r->be, r->landing[into].memory, image, r->images[layer].bytes, err);
	r->landing[into].layer = status ? NONE : layer;
	r->fetching = status ? NONE : into;
	r->source = status || r->plan.place[layer] == DSA_PLACE_HOST ? NONE : from;
	return status;
}

/* Is the layer's image on the host, whole? */
static bool on_host(const struct residency *r, int layer)
{
	const int at = find(r->staging, layer);
	return r->plan.place[layer] == DSA_PLACE_HOST || (at != NONE && at != r->reading);
}

/* Starts reading the layer unless it is there or nothing is free for it: not what `keep` waits in, not what is being
 * fetched from. */
static void want_read(struct residency *r, int layer, int keep)
{
	if (layer == NONE || r->plan.place[layer] != DSA_PLACE_DISK || r->reading != NONE ||
	    find(r->staging, layer) != NONE)
		return;
	for (int i = 0; i < BUFFERS; i++)
		if (i != r->source && (keep == NONE || r->staging[i].layer != keep)) {
			start_reading(r, layer, i);
			return;
		}
}

/* While `layer` works: what comes after it, as far as buffers are free. */
static enum dsa_status look_ahead(struct residency *r, int layer, struct dsa_error *err)
{
	const int next = next_crossing(r, layer);
	enum dsa_status status = DSA_OK;
	if (next == NONE)
		return DSA_OK;
	const int after = next_crossing(r, next);
	if (r->reading != NONE && image_reader_done(r->reader))
		status = finish_reading(r, err);
	/* The first visit needs it on the host only. */
	if (!status && r->fetching == NONE && r->seen[next] && find(r->landing, next) == NONE && on_host(r, next)) {
		const int used = find(r->landing, layer);
		status = start_fetching(r, next, used == 0 ? 1 : 0, err);
	}
	if (status)
		return status;
	if (find(r->landing, next) == NONE)
		want_read(r, next, NONE);
	want_read(r, after, find(r->landing, next) == NONE ? next : NONE);
	return DSA_OK;
}

/* After this the image is on the host, whole. */
static enum dsa_status need_on_host(struct residency *r, int layer, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	if (!on_host(r, layer)) {
		status = finish_reading(r, err); /* this layer, or what a wrong guess began */
		if (!status)
			want_read(r, layer, NONE);
		if (!status)
			status = finish_reading(r, err);
	}
	assert(status || on_host(r, layer));
	return status;
}

static enum dsa_status need_on_device(struct residency *r, int layer, struct dsa_error *err)
{
	enum dsa_status status = finish_fetching(r, err);
	if (status || find(r->landing, layer) != NONE)
		return status;
	r->traffic.late++;
	status = need_on_host(r, layer, err);
	if (!status)
		status = start_fetching(r, layer, 0, err);
	/* The disk need not rest while this one crosses. */
	if (!status)
		want_read(r, next_crossing(r, layer), layer);
	return status ? status : finish_fetching(r, err);
}

static enum dsa_status visit(struct residency *r, int layer, struct dsa_error *err)
{
	const enum dsa_place place = r->plan.place[layer];
	const double begin = dsa_clock_seconds();
	enum dsa_status status;
	if (place == DSA_PLACE_STORED)
		return fill(r, layer, r->stored[layer], false, err);
	r->traffic.visits++;
	if (!r->seen[layer]) {
		status = finish_fetching(r, err);
		if (!status)
			status = need_on_host(r, layer, err);
		if (status)
			return status;
		const int at = find(r->staging, layer);
		want_read(r, next_crossing(r, layer), layer);
		return fill(r, layer, place == DSA_PLACE_HOST ? r->host[layer] : r->staging[at].memory, true, err);
	}
	status = need_on_device(r, layer, err);
	r->traffic.waited_seconds += dsa_clock_seconds() - begin;
	return status ? status : fill(r, layer, r->landing[find(r->landing, layer)].memory, false, err);
}

enum dsa_status residency_acquire(struct residency *r, int layer, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	if (r->held != layer) {
		if (r->held == NONE || layer <= r->held)
			r->first = layer;
		status = visit(r, layer, err);
	}
	return status ? status : look_ahead(r, layer, err);
}
