#include "dsa/corpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/file.h"
#include "dsa/hash.h"
#include "dsa/json.h"
#include "dsa/reader.h"
#include "dsa/walk.h"

struct dsa_corpus {
	const struct dsa_tokenizer *tokenizer;
	int32_t vocab;
	char *root;            /* the path it was opened by; owned */
	struct dsa_walk *walk; /* NULL: a single file */
	bool opened;           /* a file was found */
	struct dsa_reader *reader;
	bool is_jsonl;                  /* the file that reader reads */
	char *relative;                 /* its name in the walk; owned */
	uint8_t digest[DSA_HASH_BYTES]; /* of the single file, once closed */
	struct dsa_hash listing;        /* of the walk's closed files */
	struct dsa_ids ids;
	uint8_t *target; /* (target_room) */
	size_t target_room;
	char *place; /* owned */
	size_t place_room;
};

static bool is_jsonl_name(const char *name)
{
	size_t length = strlen(name);
	if (length >= 4 && !strcmp(name + length - 4, ".zst"))
		length -= 4;
	return length >= 6 && !memcmp(name + length - 6, ".jsonl", 6);
}

static enum dsa_status open_file(struct dsa_corpus *corpus, const char *path, struct dsa_error *err)
{
	enum dsa_status status = dsa_reader_open(&corpus->reader, path, err);
	if (status)
		return status;
	corpus->opened = true;
	corpus->is_jsonl = is_jsonl_name(path);
	if (dsa_reader_is_nameless(corpus->reader)) {
		int first;
		status = dsa_reader_peek(corpus->reader, &first, err);
		corpus->is_jsonl = first == '{';
	}
	return status;
}

static void list_file(struct dsa_hash *listing, const struct dsa_reader *reader, const char *relative)
{
	uint8_t digest[DSA_HASH_BYTES];
	char hex[DSA_HASH_HEX];
	dsa_reader_digest(reader, digest);
	dsa_hash_hex(digest, hex);
	dsa_hash_add(listing, hex, DSA_HASH_HEX - 1);
	dsa_hash_add(listing, "  ", 2);
	dsa_hash_add(listing, relative, strlen(relative));
	dsa_hash_add(listing, "\n", 1);
}

static void close_file(struct dsa_corpus *corpus)
{
	if (corpus->walk)
		list_file(&corpus->listing, corpus->reader, corpus->relative);
	else
		dsa_reader_digest(corpus->reader, corpus->digest);
	dsa_reader_close(corpus->reader);
	corpus->reader = NULL;
}

static enum dsa_status next_file(struct dsa_corpus *corpus, struct dsa_error *err)
{
	const char *path, *relative;
	if (!corpus->walk)
		return DSA_E_MISSING;
	enum dsa_status status = dsa_walk_next(corpus->walk, &path, &relative, err);
	if (status == DSA_E_MISSING && !corpus->opened)
		return dsa_fail(err, DSA_E_INPUT, "%s: no file in this directory; expected text, .jsonl or .zst",
		                corpus->root);
	if (status)
		return status;
	free(corpus->relative);
	corpus->relative = strdup(relative);
	if (!corpus->relative)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to read it", path);
	status = open_file(corpus, path, err);
	return status == DSA_E_MISSING ? DSA_E_IO : status;
}

enum dsa_status dsa_corpus_open(struct dsa_corpus **out, const char *path, const struct dsa_tokenizer *tokenizer,
                                int32_t vocab, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_corpus *corpus = dsa_alloc(1, sizeof *corpus, "a corpus", err);
	if (!corpus)
		return DSA_E_MEMORY;
	corpus->tokenizer = tokenizer;
	corpus->vocab = vocab;
	dsa_hash_begin(&corpus->listing);
	enum dsa_status status = DSA_OK;
	corpus->root = strdup(path);
	if (!corpus->root)
		status = dsa_fail(err, DSA_E_MEMORY, "%s: no memory to read it", path);
	else if (strcmp(path, "-") != 0 && dsa_file_is_directory(path))
		status = dsa_walk_open(&corpus->walk, path, err);
	else
		status = open_file(corpus, path, err);
	if (status)
		dsa_corpus_close(corpus);
	else
		*out = corpus;
	return status;
}

void dsa_corpus_close(struct dsa_corpus *corpus)
{
	if (!corpus)
		return;
	dsa_reader_close(corpus->reader);
	dsa_walk_close(corpus->walk);
	dsa_ids_release(&corpus->ids);
	free(corpus->root);
	free(corpus->relative);
	free(corpus->target);
	free(corpus->place);
	free(corpus);
}

void dsa_corpus_digest(const struct dsa_corpus *corpus, uint8_t out[32])
{
	if (corpus->walk) {
		struct dsa_hash listing = corpus->listing;
		if (corpus->reader)
			list_file(&listing, corpus->reader, corpus->relative);
		dsa_hash_end(&listing, out);
	} else if (corpus->reader) {
		dsa_reader_digest(corpus->reader, out);
	} else {
		memcpy(out, corpus->digest, DSA_HASH_BYTES);
	}
}

/* line 0: the whole file. */
static enum dsa_status set_place(struct dsa_corpus *corpus, int64_t line, struct dsa_error *err)
{
	const char *file = dsa_reader_place(corpus->reader);
	size_t room = strlen(file) + 32;
	if (room > corpus->place_room) {
		char *grown = realloc(corpus->place, room);
		if (!grown)
			return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to read it", file);
		corpus->place = grown;
		corpus->place_room = room;
	}
	if (line)
		snprintf(corpus->place, corpus->place_room, "%s line %lld", file, (long long)line);
	else
		snprintf(corpus->place, corpus->place_room, "%s", file);
	return DSA_OK;
}

static enum dsa_status encode(struct dsa_corpus *corpus, const char *text, size_t bytes, bool with_special,
                              struct dsa_error *err)
{
	if (!corpus->tokenizer)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: text, but the model has no tokenizer.json; put it beside config.json, or give "
		                "documents as input_ids",
		                corpus->place);
	size_t first = corpus->ids.count;
	enum dsa_status status = dsa_tokenizer_encode(corpus->tokenizer, text, bytes, with_special, &corpus->ids, err);
	if (status) {
		dsa_error_prefix(err, "%s", corpus->place);
		return status;
	}
	for (size_t i = first; i < corpus->ids.count; i++)
		if (corpus->ids.ids[i] < 0 || corpus->ids.ids[i] >= corpus->vocab)
			return dsa_fail(err, DSA_E_INPUT,
			                "%s: token %zu is %d, expected 0 to %d; tokenizer.json is not this model's",
			                corpus->place, i, (int)corpus->ids.ids[i], (int)corpus->vocab - 1);
	return DSA_OK;
}

/* Makes room for a mask as long as the ids and fills it: 0 before `first`, 1 from there on. */
static enum dsa_status set_target(struct dsa_corpus *corpus, size_t first, struct dsa_error *err)
{
	size_t count = corpus->ids.count;
	if (count > corpus->target_room) {
		uint8_t *grown = realloc(corpus->target, count);
		if (!grown)
			return dsa_fail(err, DSA_E_MEMORY, "%s: no memory for a document of %zu tokens", corpus->place,
			                count);
		corpus->target = grown;
		corpus->target_room = count;
	}
	if (count) {
		memset(corpus->target, 0, first);
		memset(corpus->target + first, 1, count - first);
	}
	return DSA_OK;
}

static const json_t *field(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

static enum dsa_status encode_field(struct dsa_corpus *corpus, const char *key, const json_t *value, bool with_special,
                                    struct dsa_error *err)
{
	if (!json_is_string(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %s, expected a string", corpus->place, key,
		                dsa_json_type(value));
	return encode(corpus, json_string_value(value), json_string_length(value), with_special, err);
}

static enum dsa_status take_ids(struct dsa_corpus *corpus, const json_t *ids, struct dsa_error *err)
{
	if (!json_is_array(ids))
		return dsa_fail(err, DSA_E_INPUT, "%s: input_ids is %s, expected an array of integers", corpus->place,
		                dsa_json_type(ids));
	for (size_t i = 0; i < json_array_size(ids); i++) {
		const json_t *id = json_array_get(ids, i);
		if (!json_is_integer(id))
			return dsa_fail(err, DSA_E_INPUT, "%s: input_ids[%zu] is %s, expected an integer",
			                corpus->place, i, dsa_json_type(id));
		json_int_t value = json_integer_value(id);
		if (value < 0 || value >= corpus->vocab)
			return dsa_fail(err, DSA_E_INPUT, "%s: input_ids[%zu] is %lld, expected 0 to %d", corpus->place,
			                i, (long long)value, (int)corpus->vocab - 1);
		enum dsa_status status = dsa_ids_append(&corpus->ids, (int32_t)value, err);
		if (status)
			return status;
	}
	return DSA_OK;
}

static enum dsa_status take_mask(struct dsa_corpus *corpus, const json_t *mask, struct dsa_error *err)
{
	if (!json_is_array(mask))
		return dsa_fail(err, DSA_E_INPUT, "%s: loss_mask is %s, expected an array of 0 and 1", corpus->place,
		                dsa_json_type(mask));
	if (json_array_size(mask) != corpus->ids.count)
		return dsa_fail(err, DSA_E_INPUT, "%s: loss_mask has %zu entries, input_ids has %zu; expected as many",
		                corpus->place, json_array_size(mask), corpus->ids.count);
	for (size_t i = 0; i < corpus->ids.count; i++) {
		const json_t *entry = json_array_get(mask, i);
		bool is_bit =
		    json_is_integer(entry) && json_integer_value(entry) >= 0 && json_integer_value(entry) <= 1;
		if (!is_bit && !json_is_boolean(entry))
			return dsa_fail(err, DSA_E_INPUT, "%s: loss_mask[%zu] is not 0, 1, false or true",
			                corpus->place, i);
		corpus->target[i] = is_bit ? json_integer_value(entry) == 1 : json_is_true(entry);
	}
	return DSA_OK;
}

static enum dsa_status take_object(struct dsa_corpus *corpus, const json_t *object, struct dsa_error *err)
{
	const json_t *text = field(object, "text"), *prompt = field(object, "prompt");
	const json_t *completion = field(object, "completion"), *ids = field(object, "input_ids");
	const json_t *mask = field(object, "loss_mask");
	if (!text + (!prompt && !completion) + !ids < 2)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: ambiguous: it has more than one of text, prompt + completion and input_ids; keep "
		                "one",
		                corpus->place);
	if (!prompt != !completion)
		return dsa_fail(err, DSA_E_INPUT, "%s: %s without %s; give both, or text", corpus->place,
		                prompt ? "prompt" : "completion", prompt ? "completion" : "prompt");
	if (!text && !prompt && !ids)
		return dsa_fail(err, DSA_E_INPUT, "%s: no document: expected text, prompt + completion or input_ids",
		                corpus->place);
	if (mask && !ids)
		return dsa_fail(err, DSA_E_INPUT, "%s: loss_mask without input_ids, whose tokens it speaks of",
		                corpus->place);
	enum dsa_status status;
	size_t first = 0;
	if (text) {
		status = encode_field(corpus, "text", text, true, err);
	} else if (prompt) {
		status = encode_field(corpus, "prompt", prompt, true, err);
		first = corpus->ids.count;
		if (!status)
			status = encode_field(corpus, "completion", completion, false, err);
	} else {
		status = take_ids(corpus, ids, err);
	}
	if (!status)
		status = set_target(corpus, first, err);
	if (!status && mask)
		status = take_mask(corpus, mask, err);
	return status;
}

static bool is_blank(const char *line, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

/* DSA_E_MISSING at the end of the file. */
static enum dsa_status next_line(struct dsa_corpus *corpus, struct dsa_error *err)
{
	const char *line;
	size_t bytes;
	do {
		enum dsa_status status = dsa_reader_line(corpus->reader, DSA_CORPUS_LINE, &line, &bytes, err);
		if (status)
			return status;
	} while (is_blank(line, bytes));
	enum dsa_status status = set_place(corpus, dsa_reader_line_number(corpus->reader), err);
	if (status)
		return status;
	json_t *root;
	status = dsa_json_parse(line, bytes, corpus->place, &root, err);
	if (status)
		return status;
	if (json_is_object(root))
		status = take_object(corpus, root, err);
	else
		status = dsa_fail(err, DSA_E_INPUT, "%s: %s, expected an object", corpus->place, dsa_json_type(root));
	json_decref(root);
	return status;
}

static enum dsa_status whole_text(struct dsa_corpus *corpus, struct dsa_error *err)
{
	const char *text;
	size_t bytes;
	enum dsa_status status = dsa_reader_rest(corpus->reader, DSA_CORPUS_LINE, &text, &bytes, err);
	if (!status)
		status = set_place(corpus, 0, err);
	if (!status)
		status = encode(corpus, text, bytes, true, err);
	return status ? status : set_target(corpus, 0, err);
}

enum dsa_status dsa_corpus_next(struct dsa_corpus *corpus, struct dsa_document *document, struct dsa_error *err)
{
	enum dsa_status status;
	corpus->ids.count = 0;
	do {
		if (!corpus->reader) {
			status = next_file(corpus, err);
			if (status)
				return status;
		}
		status = corpus->is_jsonl ? next_line(corpus, err) : whole_text(corpus, err);
		if (!status && !corpus->is_jsonl)
			close_file(corpus);
		if (status == DSA_E_MISSING)
			close_file(corpus);
	} while (status == DSA_E_MISSING);
	if (status)
		return status;
	*document = (struct dsa_document){corpus->ids.ids, corpus->target, corpus->ids.count, corpus->place};
	return DSA_OK;
}
