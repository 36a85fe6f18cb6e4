#include "dsa/config_json.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "dsa/engines.h"
#include "dsa/file.h"
#include "dsa/json.h"
#include "dsa/pattern.h"

static const char *const types_key = "indexer_types", *const letters_key = "index_topk_pattern";

/* Where the value of a member stands in the text, and where the last member ends and begins. */
struct spans {
	size_t from, to; /* of the value; to 0: there is none */
	size_t last_key; /* of the last member: its opening quote */
	size_t before;   /* what stands before that key: behind the comma or the brace */
	size_t end;      /* behind the last value */
};

static size_t skip_space(const char *text, size_t at)
{
	while (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')
		at++;
	return at;
}

static size_t skip_string(const char *text, size_t at)
{
	for (at++; text[at] != '"'; at++)
		at += text[at] == '\\';
	return at + 1;
}

/* Of valid JSON: the parser has seen it before. */
static size_t skip_value(const char *text, size_t at)
{
	if (text[at] == '"')
		return skip_string(text, at);
	if (text[at] != '{' && text[at] != '[') {
		while (!strchr(",]} \t\r\n", text[at]))
			at++;
		return at;
	}
	int depth = 0;
	do {
		if (text[at] == '"') {
			at = skip_string(text, at);
			continue;
		}
		depth += text[at] == '{' || text[at] == '[';
		depth -= text[at] == '}' || text[at] == ']';
		at++;
	} while (depth);
	return at;
}

/* Whether the string at text[from..to), quotes included, says key, however it is escaped. */
static bool says(const char *text, size_t from, size_t to, const char *key)
{
	json_t *value = json_loadb(text + from, to - from, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	bool same = json_string_length(value) == strlen(key) && !strcmp(json_string_value(value), key);
	json_decref(value);
	return same;
}

static struct spans find_spans(const char *text, const char *key)
{
	struct spans spans = {0};
	size_t at = skip_space(text, 0);
	assert(text[at] == '{');
	do {
		spans.before = ++at;
		at = skip_space(text, at);
		spans.last_key = at;
		size_t behind = skip_string(text, at);
		size_t value = skip_space(text, skip_space(text, behind) + 1);
		spans.end = skip_value(text, value);
		if (says(text, at, behind, key)) {
			spans.from = value;
			spans.to = spans.end;
		}
		at = skip_space(text, spans.end);
	} while (text[at] == ',');
	return spans;
}

static void add_value(struct dsa_text *out, const char *key, const char *pattern)
{
	if (key == letters_key)
		dsa_text_json(out, pattern);
	else
		dsa_engine_types(out, pattern);
}

/* text with one member's value in place, appended to out. */
static void put_member(struct dsa_text *out, const char *text, size_t bytes, const char *key, const char *pattern)
{
	const struct spans spans = find_spans(text, key);
	if (spans.to) {
		dsa_text_bytes(out, text, spans.from);
		add_value(out, key, pattern);
		dsa_text_bytes(out, text + spans.to, bytes - spans.to);
		return;
	}
	/* Behind the last member, on a line of its own where the file gives each one. */
	dsa_text_bytes(out, text, spans.end);
	dsa_text_add(out, ",");
	dsa_text_bytes(out, text + spans.before, spans.last_key - spans.before);
	dsa_text_printf(out, "\"%s\": ", key);
	add_value(out, key, pattern);
	dsa_text_bytes(out, text + spans.end, bytes - spans.end);
}

static enum dsa_status read_facts(struct dsa_config_facts *facts, const json_t *root, const char *place,
                                  const char *architecture, struct dsa_error *err)
{
	const char *type;
	int64_t layers, mtp;
	*facts = (struct dsa_config_facts){0};
	if (!json_is_object(root))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s, expected an object", place, dsa_json_type(root));
	enum dsa_status status = dsa_json_text(root, place, "model_type", NULL, &type, err);
	if (!status)
		status = dsa_json_int(root, place, "num_hidden_layers", 1, 1 << 16, 0, &layers, err);
	if (!status)
		status = dsa_json_int(root, place, "num_nextn_predict_layers", 0, 1 << 16, 0, &mtp, err);
	if (status)
		return status;
	if (!type || !layers)
		return dsa_fail(err, DSA_E_INPUT, "%s: there is no %s: is this a checkpoint's config.json?", place,
		                type ? "num_hidden_layers" : "model_type");
	if (architecture && strcmp(type, architecture) != 0)
		return dsa_fail(err, DSA_E_USAGE,
		                "%s: model_type is %.60s, but the pattern was found for %.60s; give the config.json of "
		                "that model",
		                place, type, architecture);
	facts->layers = (int)layers;
	facts->mtp_layers = (int)mtp;
	return DSA_OK;
}

enum dsa_status dsa_config_json_facts(struct dsa_config_facts *facts, const char *text, size_t bytes, const char *place,
                                      const char *architecture, struct dsa_error *err)
{
	json_t *root = NULL;
	*facts = (struct dsa_config_facts){0};
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (!status)
		status = read_facts(facts, root, place, architecture, err);
	json_decref(root);
	return status;
}

/* What was written says the pattern, and all else is what it was. Changes root. */
static enum dsa_status check_edited(json_t *root, const struct dsa_text *edited, const char *place, const char *pattern,
                                    bool letters, struct dsa_error *err)
{
	json_t *after = NULL;
	enum dsa_status status = dsa_json_parse(edited->data, edited->bytes, place, &after, err);
	if (status)
		return status;
	const json_t *types = json_object_get(after, types_key);
	bool good = json_array_size(types) == strlen(pattern);
	for (size_t l = 0; good && pattern[l]; l++)
		good = !strcmp(json_string_value(json_array_get(types, l)), pattern[l] == 'F' ? "full" : "shared");
	if (letters)
		good = good && !strcmp(json_string_value(json_object_get(after, letters_key)), pattern);
	const char *const keys[] = {types_key, letters_key};
	for (int k = 0; k < (letters ? 2 : 1); k++) {
		(void)json_object_del(root, keys[k]); /* it may not have been there */
		(void)json_object_del(after, keys[k]);
	}
	good = good && json_equal(root, after);
	json_decref(after);
	return good ? DSA_OK
	            : dsa_fail(err, DSA_E_INPUT, "%s: the pattern cannot be put into this file without changing more",
	                       place);
}

enum dsa_status dsa_config_json_edit(struct dsa_text *out, const char *text, size_t bytes, const char *place,
                                     const struct dsa_config_edit *edit, struct dsa_config_facts *facts,
                                     struct dsa_error *err)
{
	json_t *root = NULL;
	struct dsa_text with_types = {0};
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (!status)
		status = read_facts(facts, root, place, edit->architecture, err);
	if (!status)
		status = dsa_pattern_check(edit->pattern, facts->layers, place, err);
	if (status)
		goto cleanup;
	const json_t *letters = json_object_get(root, letters_key);
	facts->wrote_letters = edit->letters || (letters && !json_is_null(letters));
	put_member(&with_types, text, bytes, types_key, edit->pattern);
	status = dsa_text_check(&with_types, place, err);
	if (status)
		goto cleanup;
	if (facts->wrote_letters)
		put_member(out, with_types.data, with_types.bytes, letters_key, edit->pattern);
	else
		dsa_text_bytes(out, with_types.data, with_types.bytes);
	status = dsa_text_check(out, place, err);
	if (!status)
		status = check_edited(root, out, place, edit->pattern, facts->wrote_letters, err);
cleanup:
	dsa_text_release(&with_types);
	json_decref(root);
	return status;
}

static bool same_text(const struct dsa_text *a, const struct dsa_text *b)
{
	return a->bytes == b->bytes && (!a->bytes || !memcmp(a->data, b->data, a->bytes));
}

/* The new text of path; what it came from is kept, or is what was kept before. */
static enum dsa_status make_text(struct dsa_text *out, const char *path, const char *kept, struct dsa_arena *arena,
                                 const struct dsa_config_edit *edit, struct dsa_config_facts *facts,
                                 struct dsa_error *err)
{
	char *text, *first;
	size_t bytes, first_bytes;
	struct dsa_text from_first = {0};
	struct dsa_config_edit both = *edit;
	struct dsa_config_facts first_facts;
	enum dsa_status status = dsa_file_read(path, DSA_CONFIG_BYTES, arena, &text, &bytes, err);
	if (!status)
		status = dsa_config_json_edit(out, text, bytes, path, edit, facts, err);
	if (status)
		return status;
	if (!dsa_file_exists(kept))
		return dsa_file_replace(kept, text, bytes, err);
	both.letters = facts->wrote_letters;
	status = dsa_file_read(kept, DSA_CONFIG_BYTES, arena, &first, &first_bytes, err);
	if (!status)
		status = dsa_config_json_edit(&from_first, first, first_bytes, kept, &both, &first_facts, err);
	if (!status && !same_text(out, &from_first))
		status = dsa_fail(err, DSA_E_USAGE,
		                  "%s is not the original of %s: they differ in more than the pattern; move it away "
		                  "first, or put it back in place of the file",
		                  kept, path);
	dsa_text_release(&from_first);
	return status;
}

enum dsa_status dsa_config_json_write(const char *path, const struct dsa_config_edit *edit,
                                      struct dsa_config_facts *facts, struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_text out = {0}, kept = {0};
	dsa_arena_init(&arena);
	dsa_text_printf(&kept, "%s.orig", path);
	enum dsa_status status = dsa_text_check(&kept, path, err);
	if (!status)
		status = make_text(&out, path, kept.data, &arena, edit, facts, err);
	if (!status)
		status = dsa_file_replace(path, out.data, out.bytes, err);
	dsa_text_release(&kept);
	dsa_text_release(&out);
	dsa_arena_release(&arena);
	return status == DSA_E_MISSING ? DSA_E_INPUT : status;
}
