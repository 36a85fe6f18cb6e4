#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

#include "dsa/json.h"

/* Larger ids than any vocabulary has; keeps a table indexed by id from being a hostile file's way to all memory. */
enum { ID_LIMIT = 1 << 24 };

/* The letter that stands for a byte in a byte-level vocabulary: the byte's own character if that is visible in
 * Latin-1, else the next one from U+0100 on. */
static void byte_letters(uint32_t letters[256])
{
	uint32_t next = 0x100;
	for (uint32_t b = 0; b < 256; b++) {
		bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
		letters[b] = visible ? b : next++;
	}
}

static enum dsa_status refuse_options(const json_t *model, const char *place, bool *ignore_merges,
                                      struct dsa_error *err)
{
	const char *type, *text;
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	double dropout;
	enum dsa_status status = dsa_json_text(model, place, "type", "BPE", &type, err);
	if (!status && strcmp(type, "BPE") != 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: the model is %s; only byte-level BPE is supported", place, type);
	if (!status)
		status = dsa_json_bool(model, place, "ignore_merges", false, ignore_merges, err);
	for (size_t i = 0; !status && i < sizeof affixes / sizeof *affixes; i++) {
		status = dsa_json_text(model, place, affixes[i], "", &text, err);
		if (!status && *text)
			return dsa_fail(err, DSA_E_INPUT,
			                "%s: %s is \"%s\", which is not supported in a byte-level model", place,
			                affixes[i], text);
	}
	if (!status)
		status = dsa_json_real(model, place, "dropout", 0, &dropout, err);
	if (!status && (dropout < 0 || dropout > 0))
		return dsa_fail(err, DSA_E_INPUT, "%s: dropout is %g, which makes ids random; set it to null", place,
		                dropout);
	return status;
}

/* An unknown letter is dropped by the reference unless one of these says otherwise. */
static enum dsa_status refuse_unknowns(const struct dsa_bpe *bpe, const json_t *model, const char *place,
                                       struct dsa_error *err)
{
	bool byte_fallback;
	const char *unknown;
	enum dsa_status status = dsa_json_bool(model, place, "byte_fallback", false, &byte_fallback, err);
	if (!status)
		status = dsa_json_text(model, place, "unk_token", NULL, &unknown, err);
	for (int b = 0; !status && b < 256; b++)
		if (bpe->byte_id[b] < 0 && (byte_fallback || unknown))
			return dsa_fail(
			    err, DSA_E_INPUT,
			    "%s: the vocabulary has no letter for byte 0x%02x, and %s is not supported then", place,
			    (unsigned)b, byte_fallback ? "byte_fallback" : "unk_token");
	return status;
}

static enum dsa_status read_vocab(struct dsa_bpe *bpe, const char *place, struct dsa_arena *arena,
                                  struct dsa_error *err)
{
	const char *key;
	json_t *value;
	json_int_t largest = -1;
	json_object_foreach((json_t *)(uintptr_t)bpe->vocab, key, value)
	{
		if (!json_is_integer(value))
			return dsa_fail(err, DSA_E_INPUT, "%s: vocab entry \"%.60s\" is %s, expected an id", place, key,
			                dsa_json_type(value));
		json_int_t id = json_integer_value(value);
		if (id < 0 || id >= ID_LIMIT)
			return dsa_fail(err, DSA_E_INPUT, "%s: vocab entry \"%.60s\" has id %lld, expected 0 to %d",
			                place, key, (long long)id, ID_LIMIT - 1);
		largest = id > largest ? id : largest;
		bpe->count++;
	}
	if (largest < 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: the vocabulary is empty", place);
	bpe->size = (int32_t)largest + 1;
	uint8_t *seen = dsa_arena_alloc(arena, (size_t)bpe->size, 1, "a vocabulary", err);
	if (!seen)
		return DSA_E_MEMORY;
	json_object_foreach((json_t *)(uintptr_t)bpe->vocab, key, value)
	{
		int32_t id = (int32_t)json_integer_value(value);
		if (seen[id])
			return dsa_fail(err, DSA_E_INPUT, "%s: two vocab entries have id %d; \"%.60s\" is one of them",
			                place, id, key);
		seen[id] = 1;
	}
	uint32_t letters[256];
	byte_letters(letters);
	for (int b = 0; b < 256; b++) {
		char entry[3] = {(char)letters[b]};
		if (letters[b] >= 0x80) {
			entry[0] = (char)(0xc0 | letters[b] >> 6);
			entry[1] = (char)(0x80 | (letters[b] & 0x3f));
		}
		bpe->byte_id[b] = dsa_bpe_id(bpe, entry);
	}
	return DSA_OK;
}

int32_t dsa_bpe_id(const struct dsa_bpe *bpe, const char *entry)
{
	const json_t *value = json_object_get(bpe->vocab, entry);
	return value ? (int32_t)json_integer_value(value) : -1;
}

static int by_pair(const void *a, const void *b)
{
	const struct dsa_merge *x = a, *y = b;
	if (x->left != y->left)
		return x->left < y->left ? -1 : 1;
	if (x->right != y->right)
		return x->right < y->right ? -1 : 1;
	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Both sides of "left right" or ["left","right"], without NULs inside. left is written to text, right behind it. */
static enum dsa_status split_merge(const json_t *entry, size_t index, bool pairs, const char *place,
                                   struct dsa_text *text, const char **left, const char **right, struct dsa_error *err)
{
	dsa_text_reset(text);
	if (json_is_array(entry) != pairs)
		return dsa_fail(err, DSA_E_INPUT, "%s: merge %zu is %s, unlike the first one", place, index,
		                dsa_json_type(entry));
	if (pairs) {
		const json_t *first = json_array_get(entry, 0), *second = json_array_get(entry, 1);
		*left = json_string_value(first);
		*right = json_string_value(second);
		if (json_array_size(entry) != 2 || !*left || !*right || strlen(*left) != json_string_length(first) ||
		    strlen(*right) != json_string_length(second))
			return dsa_fail(err, DSA_E_INPUT, "%s: merge %zu is not a pair of vocab entries", place, index);
		return DSA_OK;
	}
	const char *whole = json_string_value(entry);
	const char *space = whole ? strchr(whole, ' ') : NULL;
	if (!space || strchr(space + 1, ' ') || strlen(whole) != json_string_length(entry))
		return dsa_fail(err, DSA_E_INPUT, "%s: merge %zu is not two vocab entries with one space between",
		                place, index);
	dsa_text_bytes(text, whole, strlen(whole));
	enum dsa_status status = dsa_text_check(text, "a merge", err);
	if (status)
		return status;
	text->data[space - whole] = 0;
	*left = text->data;
	*right = text->data + (space - whole) + 1;
	return DSA_OK;
}

static enum dsa_status read_merges(struct dsa_bpe *bpe, const json_t *list, const char *place, struct dsa_arena *arena,
                                   struct dsa_error *err)
{
	struct dsa_text text = {0}, whole = {0};
	enum dsa_status status = DSA_OK;
	size_t entries = json_array_size(list), count = 0, kept = 0;
	bool pairs = json_is_array(json_array_get(list, 0));
	if (entries > INT32_MAX)
		return dsa_fail(err, DSA_E_INPUT, "%s: %zu merges are too many", place, entries);
	bpe->merges = dsa_arena_alloc(arena, entries, sizeof *bpe->merges, "the merges", err);
	bpe->first = dsa_arena_alloc(arena, (size_t)bpe->size + 1, sizeof *bpe->first, "the merges", err);
	if (!bpe->merges || !bpe->first)
		return DSA_E_MEMORY;
	for (size_t i = 0; i < entries; i++) {
		const char *left = NULL, *right = NULL;
		const json_t *entry = json_array_get(list, i);
		/* The header line of a merges.txt that was pasted into the file. */
		if (!pairs && json_is_string(entry) && !strncmp(json_string_value(entry), "#version", 8))
			continue;
		status = split_merge(entry, i, pairs, place, &text, &left, &right, err);
		if (status)
			goto cleanup;
		dsa_text_reset(&whole);
		dsa_text_add(&whole, left);
		dsa_text_add(&whole, right);
		status = dsa_text_check(&whole, "a merge", err);
		if (status)
			goto cleanup;
		struct dsa_merge merge = {dsa_bpe_id(bpe, left), dsa_bpe_id(bpe, right), (int32_t)count,
		                          dsa_bpe_id(bpe, whole.data)};
		if (merge.left < 0 || merge.right < 0 || merge.merged < 0) {
			const char *missing = merge.left < 0 ? left : merge.right < 0 ? right : whole.data;
			status = dsa_fail(err, DSA_E_INPUT, "%s: merge %zu needs \"%.60s\", which the vocabulary lacks",
			                  place, i, missing);
			goto cleanup;
		}
		bpe->merges[count++] = merge;
	}
	if (count)
		qsort(bpe->merges, count, sizeof *bpe->merges, by_pair);
	/* Of equal pairs the reference keeps the last. */
	for (size_t i = 0; i < count; i++) {
		bool again = i + 1 < count && bpe->merges[i].left == bpe->merges[i + 1].left &&
		             bpe->merges[i].right == bpe->merges[i + 1].right;
		if (!again)
			bpe->merges[kept++] = bpe->merges[i];
	}
	for (size_t i = 0; i < kept; i++)
		bpe->first[bpe->merges[i].left + 1]++;
	for (int32_t id = 0; id < bpe->size; id++)
		bpe->first[id + 1] += bpe->first[id];
cleanup:
	dsa_text_release(&text);
	dsa_text_release(&whole);
	return status;
}

static int by_bytes(const void *a, const void *b)
{
	const struct dsa_word *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
	return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* The vocabulary by the bytes that its entries stand for. Entries with other letters can never be a whole word. */
static enum dsa_status read_words(struct dsa_bpe *bpe, struct dsa_arena *arena, struct dsa_error *err)
{
	int16_t byte_of[512];
	uint32_t letters[256];
	const char *key;
	json_t *value;
	byte_letters(letters);
	memset(byte_of, -1, sizeof byte_of);
	for (int b = 0; b < 256; b++)
		byte_of[letters[b]] = (int16_t)b;
	bpe->words = dsa_arena_alloc(arena, (size_t)bpe->count, sizeof *bpe->words, "the words", err);
	if (!bpe->words)
		return DSA_E_MEMORY;
	json_object_foreach((json_t *)(uintptr_t)bpe->vocab, key, value)
	{
		size_t letters_left = strlen(key), length = 0;
		char *bytes = dsa_arena_text(arena, key, letters_left, err);
		if (!bytes)
			return DSA_E_MEMORY;
		bool known = letters_left > 0;
		for (const char *at = key; *at && known;) {
			uint32_t code;
			at += dsa_utf8_decode(at, &code);
			known = code < 512 && byte_of[code] >= 0;
			if (known)
				bytes[length++] = (char)byte_of[code];
		}
		if (known)
			bpe->words[bpe->word_count++] =
			    (struct dsa_word){bytes, length, (int32_t)json_integer_value(value)};
	}
	if (bpe->word_count)
		qsort(bpe->words, bpe->word_count, sizeof *bpe->words, by_bytes);
	return DSA_OK;
}

enum dsa_status dsa_bpe_parse(struct dsa_bpe *bpe, const json_t *model, const char *place, struct dsa_arena *arena,
                              struct dsa_error *err)
{
	bool ignore_merges = false;
	if (!json_is_object(model))
		return dsa_fail(err, DSA_E_INPUT, "%s: model is %s, expected an object", place, dsa_json_type(model));
	enum dsa_status status = refuse_options(model, place, &ignore_merges, err);
	if (status)
		return status;
	bpe->vocab = json_object_get(model, "vocab");
	const json_t *merges = json_object_get(model, "merges");
	if (!json_is_object(bpe->vocab) || !json_is_array(merges))
		return dsa_fail(err, DSA_E_INPUT, "%s: model.%s is %s, expected %s", place,
		                json_is_object(bpe->vocab) ? "merges" : "vocab",
		                dsa_json_type(json_is_object(bpe->vocab) ? merges : bpe->vocab),
		                json_is_object(bpe->vocab) ? "an array" : "an object");
	status = read_vocab(bpe, place, arena, err);
	if (!status)
		status = refuse_unknowns(bpe, model, place, err);
	if (!status)
		status = read_merges(bpe, merges, place, arena, err);
	if (!status && ignore_merges)
		status = read_words(bpe, arena, err);
	return status;
}
