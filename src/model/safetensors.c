#include "dsa/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/file.h"
#include "dsa/json.h"

/* HEADER_BYTES is the format's own limit. */
enum { HEADER_BYTES = 100 * 1000 * 1000, INDEX_BYTES = 100 * 1000 * 1000, MAX_SHARDS = 4096, MAX_TENSORS = 1 << 24 };

struct shard {
	const char *name, *path;
	struct dsa_mapping map;
	uint64_t header_bytes;
};

struct dsa_checkpoint {
	struct dsa_arena arena;
	const char *place; /* directory or file, for messages */
	struct shard *shards;
	int shard_count;
	struct dsa_stored *tensors; /* sorted by name */
	size_t count, room;
};

static bool parse_dtype(const char *text, enum dsa_dtype *out)
{
	for (int d = 0; d < DSA_DTYPES; d++) {
		if (!strcmp(text, dsa_dtype_name((enum dsa_dtype)d))) {
			*out = (enum dsa_dtype)d;
			return true;
		}
	}
	return false;
}

static uint64_t little_endian_64(const uint8_t *bytes)
{
	uint64_t value = 0;
	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct dsa_stored *)a)->name, ((const struct dsa_stored *)b)->name);
}

static int by_data(const void *a, const void *b)
{
	const struct dsa_stored *x = a, *y = b;
	return x->data != y->data ? (x->data < y->data ? -1 : 1) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static enum dsa_status add_room(struct dsa_checkpoint *cp, size_t more, struct dsa_error *err)
{
	if (more <= cp->room - cp->count)
		return DSA_OK;
	if (more > MAX_TENSORS - cp->count)
		return dsa_fail(err, DSA_E_INPUT, "%s: more than %d tensors", cp->place, MAX_TENSORS);
	size_t room = 2 * cp->room > cp->count + more ? 2 * cp->room : cp->count + more;
	struct dsa_stored *wider = dsa_arena_alloc(&cp->arena, room, sizeof *wider, "the list of tensors", err);
	if (!wider)
		return DSA_E_MEMORY;
	if (cp->count)
		memcpy(wider, cp->tensors, cp->count * sizeof *wider);
	cp->tensors = wider;
	cp->room = room;
	return DSA_OK;
}

/* The fields of one header entry. data_bytes: the file's bytes behind the header, which start at data. */
static enum dsa_status read_entry(struct dsa_stored *tensor, const json_t *entry, const uint8_t *data,
                                  uint64_t data_bytes, const char *path, struct dsa_error *err)
{
	const char *name = tensor->name, *dtype = json_string_value(json_object_get(entry, "dtype"));
	const json_t *shape = json_object_get(entry, "shape"), *range = json_object_get(entry, "data_offsets");
	if (!dtype || !json_is_array(shape) || !json_is_array(range) || json_array_size(range) != 2)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: tensor %.200s: expected dtype (text), shape (list) and data_offsets (two numbers)",
		                path, name);
	if (!parse_dtype(dtype, &tensor->dtype))
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s: dtype %.32s is not one this program knows", path,
		                name, dtype);
	if (json_array_size(shape) > DSA_TENSOR_DIMS)
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s: %zu dimensions, expected at most %d", path, name,
		                json_array_size(shape), DSA_TENSOR_DIMS);
	uint64_t bytes = dsa_dtype_bytes(tensor->dtype);
	tensor->dims = (int)json_array_size(shape);
	for (int i = 0; i < tensor->dims; i++) {
		const json_t *size = json_array_get(shape, (size_t)i);
		tensor->shape[i] = json_integer_value(size);
		if (!json_is_integer(size) || tensor->shape[i] < 0)
			return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s: dimension %d is not a size", path, name,
			                i);
		if (__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes))
			return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s: its shape overflows 64 bits", path, name);
	}
	const json_t *first = json_array_get(range, 0), *last = json_array_get(range, 1);
	json_int_t begin = json_integer_value(first), end = json_integer_value(last);
	if (!json_is_integer(first) || !json_is_integer(last) || begin < 0 || end < begin || (uint64_t)end > data_bytes)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: tensor %.200s: data_offsets %" PRId64 " to %" PRId64 " are not inside the %" PRIu64
		                " bytes of data; the file is damaged or cut short, fetch it again",
		                path, name, (int64_t)begin, (int64_t)end, data_bytes);
	if ((uint64_t)(end - begin) != bytes)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: tensor %.200s: its shape takes %" PRIu64 " bytes but data_offsets hold %" PRId64,
		                path, name, bytes, (int64_t)(end - begin));
	tensor->data = data + begin;
	tensor->bytes = bytes;
	return DSA_OK;
}

/* No two overlap and no byte belongs to none, as the format demands: what is left over is another file's or a torn one.
 */
static enum dsa_status check_cover(struct dsa_stored *tensors, size_t count, uint64_t data_bytes, const char *path,
                                   struct dsa_error *err)
{
	uint64_t taken = 0;
	qsort(tensors, count, sizeof *tensors, by_data);
	const struct dsa_stored *before = NULL; /* the last one that takes any bytes */
	for (size_t i = 0; i < count; i++) {
		if (before && tensors[i].bytes && tensors[i].data < before->data + before->bytes)
			return dsa_fail(err, DSA_E_INPUT, "%s: tensors %.200s and %.200s overlap", path, before->name,
			                tensors[i].name);
		if (tensors[i].bytes)
			before = &tensors[i];
		taken += tensors[i].bytes;
	}
	if (taken != data_bytes)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: its tensors take %" PRIu64 " of %" PRIu64
		                " bytes of data, expected all; the file is damaged, fetch it again",
		                path, taken, data_bytes);
	return DSA_OK;
}

static enum dsa_status read_shard(struct dsa_checkpoint *cp, int number, struct dsa_error *err)
{
	struct shard *shard = &cp->shards[number];
	const char *path = shard->path;
	json_t *root = NULL;
	enum dsa_status status = dsa_mapping_open(&shard->map, path, err);
	if (status == DSA_E_MISSING)
		return dsa_fail(err, DSA_E_INPUT, "%s: this file of the checkpoint is missing; fetch it again", path);
	if (status)
		return status;
	if (shard->map.bytes < 8)
		return dsa_fail(err, DSA_E_INPUT, "%s: %zu bytes, too short for a safetensors file; fetch it again",
		                path, shard->map.bytes);
	shard->header_bytes = little_endian_64(shard->map.data);
	uint64_t rest = shard->map.bytes - 8;
	if (shard->header_bytes > HEADER_BYTES || shard->header_bytes > rest)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: the header is said to take %" PRIu64 " bytes, but the file has %" PRIu64
		                " and at most %d are allowed; it is no safetensors file, or damaged",
		                path, shard->header_bytes, rest, HEADER_BYTES);
	const uint8_t *data = shard->map.data + 8 + shard->header_bytes;
	uint64_t data_bytes = rest - shard->header_bytes;
	status = dsa_json_parse((const char *)shard->map.data + 8, (size_t)shard->header_bytes, path, &root, err);
	if (status)
		goto cleanup;
	if (!json_is_object(root)) {
		status =
		    dsa_fail(err, DSA_E_INPUT, "%s: the header is %s, expected an object", path, dsa_json_type(root));
		goto cleanup;
	}
	status = add_room(cp, json_object_size(root), err);
	if (status)
		goto cleanup;
	size_t first = cp->count;
	const char *name;
	json_t *entry;
	json_object_foreach(root, name, entry)
	{
		if (!strcmp(name, "__metadata__"))
			continue;
		struct dsa_stored *tensor = &cp->tensors[cp->count];
		*tensor = (struct dsa_stored){.shard = number};
		tensor->name = dsa_arena_text(&cp->arena, name, strlen(name), err);
		status = tensor->name ? read_entry(tensor, entry, data, data_bytes, path, err) : DSA_E_MEMORY;
		if (status)
			goto cleanup;
		cp->count++;
	}
	status = check_cover(cp->tensors + first, cp->count - first, data_bytes, path, err);
cleanup:
	json_decref(root);
	return status;
}

static enum dsa_status read_shards(struct dsa_checkpoint *cp, struct dsa_error *err)
{
	for (int s = 0; s < cp->shard_count; s++) {
		enum dsa_status status = read_shard(cp, s, err);
		if (status)
			return status;
	}
	if (cp->count)
		qsort(cp->tensors, cp->count, sizeof *cp->tensors, by_name);
	for (size_t i = 1; i < cp->count; i++) {
		const struct dsa_stored *a = &cp->tensors[i - 1], *b = &cp->tensors[i];
		if (!strcmp(a->name, b->name))
			return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s is both in %.200s and in %.200s",
			                cp->place, a->name, cp->shards[a->shard].name, cp->shards[b->shard].name);
	}
	return DSA_OK;
}

/* A shard is a file beside the index: nothing else may be opened on a hostile index's word. */
static bool plain_name(const char *name, size_t length)
{
	return length && length < 256 && strlen(name) == length && !strchr(name, '/') && name[0] != '.';
}

static int by_shard_name(const void *a, const void *b)
{
	return strcmp(((const struct shard *)a)->name, ((const struct shard *)b)->name);
}

/* The distinct shards that weight_map names, sorted. */
static enum dsa_status list_shards(struct dsa_checkpoint *cp, const char *dir, json_t *map, const char *path,
                                   struct dsa_error *err)
{
	const char *name;
	json_t *value;
	size_t used = 0, count = json_object_size(map);
	struct shard *all = dsa_arena_alloc(&cp->arena, count, sizeof *all, "the list of shards", err);
	if (!all)
		return DSA_E_MEMORY;
	json_object_foreach(map, name, value)
	{
		const char *file = json_string_value(value);
		if (!file || !plain_name(file, json_string_length(value)))
			return dsa_fail(
			    err, DSA_E_INPUT,
			    "%s: weight_map gives %.200s for tensor %.200s, expected the name of a file in the "
			    "same directory",
			    path, file ? file : dsa_json_type(value), name);
		all[used++].name = file;
	}
	if (!used)
		return dsa_fail(err, DSA_E_INPUT, "%s: weight_map is empty", path);
	qsort(all, used, sizeof *all, by_shard_name);
	size_t distinct = 1;
	for (size_t i = 1; i < used; i++) {
		if (strcmp(all[i].name, all[distinct - 1].name))
			all[distinct++].name = all[i].name;
	}
	if (distinct > MAX_SHARDS)
		return dsa_fail(err, DSA_E_INPUT, "%s: %zu shards, expected at most %d", path, distinct, MAX_SHARDS);
	for (size_t i = 0; i < distinct; i++) {
		char *joined = NULL;
		enum dsa_status status = dsa_file_join(&cp->arena, dir, all[i].name, &joined, err);
		if (status)
			return status;
		all[i].path = joined;
		all[i].name = joined + strlen(joined) - strlen(all[i].name); /* outlives the JSON */
	}
	cp->shards = all;
	cp->shard_count = (int)distinct;
	return DSA_OK;
}

static enum dsa_status check_index(const struct dsa_checkpoint *cp, json_t *map, const char *path,
                                   struct dsa_error *err)
{
	const char *name;
	json_t *value;
	json_object_foreach(map, name, value)
	{
		const struct dsa_stored *tensor = dsa_checkpoint_find(cp, name);
		const char *file = json_string_value(value);
		if (!tensor)
			return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s is said to be in %.200s, which lacks it",
			                path, name, file);
		if (strcmp(file, cp->shards[tensor->shard].name))
			return dsa_fail(err, DSA_E_INPUT, "%s: tensor %.200s is said to be in %.200s but is in %.200s",
			                path, name, file, cp->shards[tensor->shard].name);
	}
	return DSA_OK;
}

static enum dsa_status open_sharded(struct dsa_checkpoint *cp, const char *dir, const char *path, struct dsa_error *err)
{
	json_t *root = NULL;
	enum dsa_status status = dsa_json_load(path, INDEX_BYTES, &root, err);
	if (status)
		return status;
	json_t *map = json_object_get(root, "weight_map");
	if (!json_is_object(map))
		status =
		    dsa_fail(err, DSA_E_INPUT, "%s: weight_map is %s, expected an object", path, dsa_json_type(map));
	if (!status)
		status = list_shards(cp, dir, map, path, err);
	if (!status)
		status = read_shards(cp, err);
	if (!status)
		status = check_index(cp, map, path, err);
	json_decref(root);
	return status;
}

static enum dsa_status open_single(struct dsa_checkpoint *cp, const char *path, struct dsa_error *err)
{
	cp->shards = dsa_arena_alloc(&cp->arena, 1, sizeof *cp->shards, "the list of shards", err);
	char *copy = dsa_arena_text(&cp->arena, path, strlen(path), err);
	if (!cp->shards || !copy)
		return DSA_E_MEMORY;
	const char *slash = strrchr(copy, '/');
	cp->shard_count = 1;
	cp->shards[0].path = copy;
	cp->shards[0].name = slash ? slash + 1 : copy;
	return read_shards(cp, err);
}

static enum dsa_status start(struct dsa_checkpoint **out, const char *place, struct dsa_error *err)
{
	struct dsa_checkpoint *cp = *out = dsa_alloc(1, sizeof *cp, "a checkpoint", err);
	if (!cp)
		return DSA_E_MEMORY;
	dsa_arena_init(&cp->arena);
	cp->place = dsa_arena_text(&cp->arena, place, strlen(place), err);
	return cp->place ? DSA_OK : DSA_E_MEMORY;
}

enum dsa_status dsa_checkpoint_open_file(struct dsa_checkpoint **out, const char *path, struct dsa_error *err)
{
	enum dsa_status status = start(out, path, err);
	if (!status)
		status = open_single(*out, path, err);
	if (status) {
		dsa_checkpoint_close(*out);
		*out = NULL;
	}
	return status;
}

enum dsa_status dsa_checkpoint_open(struct dsa_checkpoint **out, const char *model_dir, struct dsa_error *err)
{
	char *single = NULL, *index = NULL;
	enum dsa_status status = start(out, model_dir, err);
	if (!status)
		status = dsa_file_join(&(*out)->arena, model_dir, "model.safetensors", &single, err);
	if (!status)
		status = dsa_file_join(&(*out)->arena, model_dir, "model.safetensors.index.json", &index, err);
	if (status)
		goto cleanup;
	if (dsa_file_exists(single))
		status = open_single(*out, single, err);
	else if (dsa_file_exists(index))
		status = open_sharded(*out, model_dir, index, err);
	else
		status = dsa_fail(err, DSA_E_INPUT,
		                  "%s: neither model.safetensors nor model.safetensors.index.json is there; expected a "
		                  "checkpoint directory",
		                  model_dir);
cleanup:
	if (status) {
		dsa_checkpoint_close(*out);
		*out = NULL;
	}
	return status;
}

void dsa_checkpoint_close(struct dsa_checkpoint *cp)
{
	if (!cp)
		return;
	for (int s = 0; s < cp->shard_count; s++)
		dsa_mapping_close(&cp->shards[s].map);
	dsa_arena_release(&cp->arena);
	free(cp);
}

const struct dsa_stored *dsa_checkpoint_find(const struct dsa_checkpoint *cp, const char *name)
{
	struct dsa_stored key = {.name = name};
	return cp->count ? bsearch(&key, cp->tensors, cp->count, sizeof key, by_name) : NULL;
}

static void print_shape(char *text, size_t room, int dims, const int64_t *shape)
{
	size_t used = 0;
	text[0] = 0;
	for (int i = 0; i < dims && used < room; i++)
		used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, i ? " x " : "", shape[i]);
}

enum dsa_status dsa_checkpoint_get_shape(const struct dsa_checkpoint *cp, const char *name, int dims,
                                         const int64_t *shape, const struct dsa_stored **out, struct dsa_error *err)
{
	char wanted[128], found[128];
	const struct dsa_stored *tensor = *out = dsa_checkpoint_find(cp, name);
	print_shape(wanted, sizeof wanted, dims, shape);
	if (!tensor)
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %s (%s) is missing", cp->place, name, wanted);
	if (tensor->dtype != DSA_F32 && tensor->dtype != DSA_F16 && tensor->dtype != DSA_BF16 &&
	    tensor->dtype != DSA_F8_E4M3)
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %s is %s, expected F32, F16, BF16 or F8_E4M3", cp->place,
		                name, dsa_dtype_name(tensor->dtype));
	if (tensor->dims != dims || memcmp(tensor->shape, shape, (size_t)dims * sizeof *shape)) {
		print_shape(found, sizeof found, tensor->dims, tensor->shape);
		return dsa_fail(err, DSA_E_INPUT, "%s: tensor %s has shape %s, expected %s from config.json", cp->place,
		                name, tensor->dims ? found : "of a scalar", wanted);
	}
	return DSA_OK;
}

enum dsa_status dsa_checkpoint_get(const struct dsa_checkpoint *cp, const char *name, int64_t rows, int64_t cols,
                                   const struct dsa_stored **out, struct dsa_error *err)
{
	const int64_t shape[2] = {rows, cols};
	return dsa_checkpoint_get_shape(cp, name, cols ? 2 : 1, shape, out, err);
}

void dsa_checkpoint_advise(const struct dsa_checkpoint *cp, bool scattered)
{
	for (int s = 0; s < cp->shard_count; s++)
		dsa_mapping_advise(&cp->shards[s].map, scattered);
}

int dsa_checkpoint_count(const struct dsa_checkpoint *cp)
{
	return (int)cp->count;
}

const struct dsa_stored *dsa_checkpoint_at(const struct dsa_checkpoint *cp, int index)
{
	return &cp->tensors[index];
}

int dsa_checkpoint_shards(const struct dsa_checkpoint *cp)
{
	return cp->shard_count;
}

const char *dsa_checkpoint_shard_path(const struct dsa_checkpoint *cp, int shard)
{
	return cp->shards[shard].path;
}

uint64_t dsa_checkpoint_offset(const struct dsa_checkpoint *cp, int shard, const uint8_t *data)
{
	return (uint64_t)(data - cp->shards[shard].map.data);
}

void dsa_checkpoint_shard_header(const struct dsa_checkpoint *cp, int shard, const uint8_t **data, uint64_t *bytes)
{
	*data = cp->shards[shard].map.data + 8;
	*bytes = cp->shards[shard].header_bytes;
}
