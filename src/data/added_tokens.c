#include "tokenizer_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/json.h"

enum { ID_LIMIT = 1 << 24, CONTENT_MAX = 512 };

/* What one entry of added_tokens says. */
struct entry {
	struct dsa_added_token token;
	const char *raw; /* content as written */
	bool special;
	size_t order;
};

static enum dsa_status read_flag(const json_t *object, const char *where, const char *key, bool *out,
                                 struct dsa_error *err)
{
	if (!json_object_get(object, key))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is missing, expected true or false", where, key);
	return dsa_json_bool(object, where, key, false, out, err);
}

static enum dsa_status read_entry(struct entry *entry, const json_t *object, const char *where, struct dsa_error *err)
{
	int64_t id;
	struct dsa_added_token *token = &entry->token;
	if (!json_is_object(object))
		return dsa_fail(err, DSA_E_INPUT, "%s is %s, expected an object", where, dsa_json_type(object));
	enum dsa_status status = dsa_json_text(object, where, "content", NULL, &entry->raw, err);
	if (status)
		return status;
	if (!entry->raw)
		return dsa_fail(err, DSA_E_INPUT, "%s: content is missing", where);
	status = dsa_json_int(object, where, "id", 0, ID_LIMIT - 1, -1, &id, err);
	if (!status && id < 0)
		status = dsa_fail(err, DSA_E_INPUT, "%s: id is missing", where);
	if (!status)
		status = read_flag(object, where, "single_word", &token->single_word, err);
	if (!status)
		status = read_flag(object, where, "lstrip", &token->lstrip, err);
	if (!status)
		status = read_flag(object, where, "rstrip", &token->rstrip, err);
	if (!status)
		status = read_flag(object, where, "normalized", &token->normalized, err);
	if (!status)
		status = read_flag(object, where, "special", &entry->special, err);
	if (!status && strlen(entry->raw) > CONTENT_MAX)
		status = dsa_fail(err, DSA_E_INPUT, "%s: content has %zu bytes, expected at most %d", where,
		                  strlen(entry->raw), CONTENT_MAX);
	return status;
}

static bool same(const struct entry *a, const struct entry *b)
{
	return a->token.single_word == b->token.single_word && a->token.lstrip == b->token.lstrip &&
	       a->token.rstrip == b->token.rstrip && a->token.normalized == b->token.normalized &&
	       a->special == b->special;
}

/* The id that the reference gives: not the one written beside the token, but the vocabulary's if the content is an
 * entry, else the next one behind as many ids as the vocabulary has entries. */
static enum dsa_status assign_ids(struct entry *entries, size_t *count, const json_t *list, const char *place,
                                  const struct dsa_bpe *bpe, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	int32_t next = bpe->count;
	char where[256];
	json_t *seen = json_object(); /* content → index into entries */
	if (!seen)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory for the added tokens", place);
	for (size_t i = 0; i < json_array_size(list); i++) {
		struct entry *entry = entries + *count;
		*entry = (struct entry){.order = i};
		snprintf(where, sizeof where, "%.200s: added_tokens[%zu]", place, i);
		status = read_entry(entry, json_array_get(list, i), where, err);
		if (status)
			break;
		assert(entry->raw);
		if (!*entry->raw)
			continue;
		const json_t *known = json_object_get(seen, entry->raw);
		int32_t id = dsa_bpe_id(bpe, entry->raw);
		if (known) {
			const struct entry *earlier = entries + json_integer_value(known);
			if (same(earlier, entry))
				continue;
			id = earlier->token.id;
		} else if (id < 0) {
			id = next++;
		}
		entry->token.id = id;
		if (json_object_set_new(seen, entry->raw, json_integer((json_int_t)*count))) {
			status = dsa_fail(err, DSA_E_MEMORY, "%s: no memory for the added tokens", place);
			break;
		}
		++*count;
	}
	json_decref(seen);
	return status;
}

static int by_id(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->token.id != y->token.id)
		return x->token.id < y->token.id ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static int by_content(const void *a, const void *b)
{
	const struct dsa_added_token *x = a, *y = b;
	int order = memcmp(x->content, y->content, x->bytes < y->bytes ? x->bytes : y->bytes);
	return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static enum dsa_status index_set(struct dsa_added_set *set, const char *place, struct dsa_error *err)
{
	if (set->count)
		qsort(set->tokens, set->count, sizeof *set->tokens, by_content);
	for (size_t i = 0; i < set->count; i++) {
		if (i && !by_content(set->tokens + i - 1, set->tokens + i))
			return dsa_fail(err, DSA_E_INPUT, "%s: two added tokens are \"%.60s\" once normalized", place,
			                set->tokens[i].content);
		set->first[(unsigned char)set->tokens[i].content[0] + 1]++;
	}
	for (size_t b = 0; b < 256; b++)
		set->first[b + 1] += set->first[b];
	return DSA_OK;
}

enum dsa_status dsa_added_parse(struct dsa_added *added, const json_t *list, const char *place,
                                const struct dsa_bpe *bpe, bool nfc, struct dsa_arena *arena, struct dsa_error *err)
{
	enum dsa_status status;
	struct dsa_nfc_scratch scratch = {0};
	size_t count = 0;
	added->size = 0;
	if (!list || json_is_null(list))
		return DSA_OK;
	if (!json_is_array(list))
		return dsa_fail(err, DSA_E_INPUT, "%s: added_tokens is %s, expected an array", place,
		                dsa_json_type(list));
	size_t listed = json_array_size(list);
	struct entry *entries = dsa_alloc(listed + 1, sizeof *entries, "the added tokens", err);
	if (!entries)
		return DSA_E_MEMORY;
	status = assign_ids(entries, &count, list, place, bpe, err);
	if (status)
		goto cleanup;
	added->raw.tokens = dsa_arena_alloc(arena, count, sizeof *added->raw.tokens, "the added tokens", err);
	added->normalized.tokens = dsa_arena_alloc(arena, count, sizeof *added->raw.tokens, "the added tokens", err);
	if (!added->raw.tokens || !added->normalized.tokens) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	if (count)
		qsort(entries, count, sizeof *entries, by_id);
	for (size_t i = 0; i < count; i++) {
		/* Of tokens with one id the reference keeps the last. */
		if (i + 1 < count && entries[i].token.id == entries[i + 1].token.id)
			continue;
		struct dsa_added_token *token = &entries[i].token;
		struct dsa_added_set *set = token->normalized ? &added->normalized : &added->raw;
		const char *content = entries[i].raw;
		token->bytes = strlen(content);
		if (token->normalized && nfc)
			status = dsa_nfc_apply(&scratch, content, token->bytes, &content, &token->bytes, err);
		if (status)
			goto cleanup;
		token->content = dsa_arena_text(arena, content, token->bytes, err);
		if (!token->content) {
			status = DSA_E_MEMORY;
			goto cleanup;
		}
		set->tokens[set->count++] = *token;
		added->size = token->id + 1; /* sorted: the last is the largest */
	}
	status = index_set(&added->raw, place, err);
	if (!status)
		status = index_set(&added->normalized, place, err);
cleanup:
	dsa_nfc_release(&scratch);
	free(entries);
	return status;
}

/* The longest token of which text[0..bytes) begins with; tokens[low..high) all begin with text[0]. */
static const struct dsa_added_token *longest(const struct dsa_added_set *set, size_t low, size_t high, const char *text,
                                             size_t bytes)
{
	const struct dsa_added_token *best = NULL, *tokens = set->tokens;
	for (size_t depth = 1; low < high; depth++) {
		if (tokens[low].bytes == depth)
			best = tokens + low++; /* sorted: the shorter first, and none twice */
		if (depth == bytes)
			break;
		unsigned char next = (unsigned char)text[depth];
		size_t from = low, to = high;
		while (from < to) {
			size_t middle = (from + to) / 2;
			if ((unsigned char)tokens[middle].content[depth] < next)
				from = middle + 1;
			else
				to = middle;
		}
		low = from;
		to = high;
		while (from < to) {
			size_t middle = (from + to) / 2;
			if ((unsigned char)tokens[middle].content[depth] <= next)
				from = middle + 1;
			else
				to = middle;
		}
		high = from;
	}
	return best;
}

static bool word_before(const char *text, size_t at)
{
	uint32_t code;
	if (!at)
		return false;
	do
		at--;
	while ((text[at] & 0xc0) == 0x80);
	dsa_utf8_decode(text + at, &code);
	return dsa_unicode_is_word(code);
}

static bool word_behind(const char *text, size_t bytes, size_t at)
{
	uint32_t code;
	if (at == bytes)
		return false;
	dsa_utf8_decode(text + at, &code);
	return dsa_unicode_is_word(code);
}

static size_t spaces_before(const char *text, size_t at, size_t floor)
{
	while (at > floor) {
		uint32_t code;
		size_t back = at;
		do
			back--;
		while ((text[back] & 0xc0) == 0x80);
		dsa_utf8_decode(text + back, &code);
		if (!dsa_unicode_is_space(code))
			break;
		at = back;
	}
	return at;
}

static size_t spaces_behind(const char *text, size_t bytes, size_t at)
{
	while (at < bytes) {
		uint32_t code;
		size_t length = dsa_utf8_decode(text + at, &code);
		if (!dsa_unicode_is_space(code))
			break;
		at += length;
	}
	return at;
}

enum dsa_status dsa_added_cut(const struct dsa_added_set *set, const char *text, size_t bytes, dsa_between_fn between,
                              void *context, struct dsa_ids *ids, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	size_t done = 0;                       /* the text before is spoken for */
	size_t spaces_from = 1, spaces_to = 0; /* the last run of spaces that was walked */
	for (size_t at = 0; set->count && at < bytes;) {
		const unsigned char byte = (unsigned char)text[at];
		const struct dsa_added_token *token = NULL;
		if (set->first[byte] < set->first[byte + 1])
			token = longest(set, set->first[byte], set->first[byte + 1], text + at, bytes - at);
		if (!token) {
			at++;
			continue;
		}
		size_t start = at, stop = at + token->bytes;
		/* The search goes on behind the match itself, also if the match is given up here or if it takes the
		 * spaces behind it: so does the reference. */
		at = stop;
		if (token->single_word && (word_before(text, start) || word_behind(text, bytes, stop)))
			continue;
		if (token->lstrip)
			start = done > start ? done : spaces_before(text, start, done);
		if (token->rstrip) {
			if (stop < spaces_from || stop > spaces_to) {
				spaces_from = stop;
				spaces_to = spaces_behind(text, bytes, stop);
			}
			stop = spaces_to;
		}
		/* Nothing is left of a token whose spaces an earlier one took. Where even more than it was taken, the
		 * reference panics; here that token is dropped like the other. */
		if (start >= stop)
			continue;
		if (done < start)
			status = between(context, text + done, start - done, err);
		if (!status)
			status = dsa_ids_append(ids, token->id, err);
		if (status)
			return status;
		done = stop;
	}
	if (done < bytes)
		status = between(context, text + done, bytes - done, err);
	return status;
}
