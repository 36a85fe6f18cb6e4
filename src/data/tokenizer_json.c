#include "tokenizer_private.h"

#include <stdio.h>
#include <string.h>

#include "dsa/json.h"

enum { ID_LIMIT = 1 << 24, TEMPLATE_IDS_MAX = 1024 };

static bool absent(const json_t *value)
{
	return !value || json_is_null(value);
}

/* value's "type", or an error that names place. */
static enum dsa_status type_of(const json_t *value, const char *place, const char **type, struct dsa_error *err)
{
	if (!json_is_object(value))
		return dsa_fail(err, DSA_E_INPUT, "%s is %s, expected an object", place, dsa_json_type(value));
	return dsa_json_text(value, place, "type", "nothing", type, err);
}

static enum dsa_status read_normalizer(struct dsa_tokenizer *tokenizer, const json_t *value, const char *place,
                                       struct dsa_error *err)
{
	const char *type = "";
	if (absent(value))
		return DSA_OK;
	enum dsa_status status = type_of(value, place, &type, err);
	if (status)
		return status;
	if (!strcmp(type, "NFC")) {
		tokenizer->nfc = true;
		return DSA_OK;
	}
	if (strcmp(type, "Sequence") != 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: type is %s; supported are none, NFC and Sequence", place, type);
	const json_t *list = json_object_get(value, "normalizers");
	if (!json_is_array(list))
		return dsa_fail(err, DSA_E_INPUT, "%s: normalizers is %s, expected an array", place,
		                dsa_json_type(list));
	for (size_t i = 0; !status && i < json_array_size(list); i++)
		status = read_normalizer(tokenizer, json_array_get(list, i), place, err);
	return status;
}

/* The ids of one special token of a template. */
static enum dsa_status append_special(int32_t *ids, size_t *count, const json_t *tokens, const json_t *piece,
                                      const char *place, struct dsa_error *err)
{
	const char *name;
	enum dsa_status status = dsa_json_text(piece, place, "id", "", &name, err);
	if (status)
		return status;
	const json_t *list = json_object_get(json_object_get(tokens, name), "ids");
	if (!json_is_array(list))
		return dsa_fail(err, DSA_E_INPUT, "%s: special_tokens has no ids for \"%.60s\"", place, name);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *id = json_array_get(list, i);
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= ID_LIMIT)
			return dsa_fail(err, DSA_E_INPUT, "%s: the ids of \"%.60s\" are not all between 0 and %d",
			                place, name, ID_LIMIT - 1);
		if (*count == TEMPLATE_IDS_MAX)
			return dsa_fail(err, DSA_E_INPUT, "%s: more than %d ids", place, TEMPLATE_IDS_MAX);
		ids[(*count)++] = (int32_t)json_integer_value(id);
	}
	return DSA_OK;
}

static enum dsa_status read_template(struct dsa_tokenizer *tokenizer, const json_t *value, const char *place,
                                     struct dsa_error *err)
{
	const json_t *single = json_object_get(value, "single"), *tokens = json_object_get(value, "special_tokens");
	bool seen = false;
	if (tokenizer->before)
		return dsa_fail(err, DSA_E_INPUT, "%s: a second TemplateProcessing is not supported", place);
	if (!json_is_array(single))
		return dsa_fail(err, DSA_E_INPUT, "%s: single is %s, expected an array", place, dsa_json_type(single));
	tokenizer->before = dsa_arena_alloc(&tokenizer->arena, TEMPLATE_IDS_MAX, sizeof(int32_t), "a template", err);
	tokenizer->after = dsa_arena_alloc(&tokenizer->arena, TEMPLATE_IDS_MAX, sizeof(int32_t), "a template", err);
	if (!tokenizer->before || !tokenizer->after)
		return DSA_E_MEMORY;
	for (size_t i = 0; i < json_array_size(single); i++) {
		const json_t *piece = json_array_get(single, i);
		const json_t *special = json_object_get(piece, "SpecialToken");
		const json_t *sequence = json_object_get(piece, "Sequence");
		enum dsa_status status = DSA_OK;
		if (special) {
			status = seen ? append_special(tokenizer->after, &tokenizer->after_count, tokens, special,
			                               place, err)
			              : append_special(tokenizer->before, &tokenizer->before_count, tokens, special,
			                               place, err);
		} else {
			const char *id = json_string_value(json_object_get(sequence, "id"));
			if (seen || !id || strcmp(id, "A") != 0)
				return dsa_fail(err, DSA_E_INPUT,
				                "%s: single[%zu] is neither a SpecialToken nor the one Sequence A",
				                place, i);
			seen = true;
		}
		if (status)
			return status;
	}
	for (size_t i = 0; i < tokenizer->before_count; i++)
		if (tokenizer->before[i] >= tokenizer->template_size)
			tokenizer->template_size = tokenizer->before[i] + 1;
	for (size_t i = 0; i < tokenizer->after_count; i++)
		if (tokenizer->after[i] >= tokenizer->template_size)
			tokenizer->template_size = tokenizer->after[i] + 1;
	if (!seen)
		return dsa_fail(err, DSA_E_INPUT, "%s: single has no Sequence A, so it would drop the text", place);
	return DSA_OK;
}

static enum dsa_status read_post_processor(struct dsa_tokenizer *tokenizer, const json_t *value, const char *place,
                                           struct dsa_error *err)
{
	const char *type = "";
	if (absent(value))
		return DSA_OK;
	enum dsa_status status = type_of(value, place, &type, err);
	if (status)
		return status;
	if (!strcmp(type, "ByteLevel"))
		return DSA_OK; /* offsets only */
	if (!strcmp(type, "TemplateProcessing"))
		return read_template(tokenizer, value, place, err);
	if (strcmp(type, "Sequence") != 0)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: type is %s; supported are TemplateProcessing, ByteLevel and Sequence", place,
		                type);
	const json_t *list = json_object_get(value, "processors");
	if (!json_is_array(list))
		return dsa_fail(err, DSA_E_INPUT, "%s: processors is %s, expected an array", place,
		                dsa_json_type(list));
	for (size_t i = 0; !status && i < json_array_size(list); i++)
		status = read_post_processor(tokenizer, json_array_get(list, i), place, err);
	return status;
}

/* Sections that change ids from outside the model. */
static enum dsa_status refuse_sections(const json_t *root, const char *place, struct dsa_error *err)
{
	const char *version;
	enum dsa_status status = dsa_json_text(root, place, "version", "1.0", &version, err);
	if (status)
		return status;
	if (strcmp(version, "1.0") != 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: version is \"%.20s\", expected \"1.0\"", place, version);
	if (!absent(json_object_get(root, "truncation")))
		return dsa_fail(err, DSA_E_INPUT, "%s: truncation is set, which would cut documents; set it to null",
		                place);
	/* Padding a lone text to the longest of its batch does nothing. */
	const json_t *padding = json_object_get(root, "padding");
	const char *strategy = json_string_value(json_object_get(padding, "strategy"));
	if (!absent(padding) && (!strategy || strcmp(strategy, "BatchLongest") != 0 ||
	                         !absent(json_object_get(padding, "pad_to_multiple_of"))))
		return dsa_fail(err, DSA_E_INPUT, "%s: padding is set, which would add tokens; set it to null", place);
	return DSA_OK;
}

enum dsa_status dsa_tokenizer_read(struct dsa_tokenizer *tokenizer, const json_t *root, const char *place,
                                   struct dsa_error *err)
{
	char where[256];
	if (!json_is_object(root))
		return dsa_fail(err, DSA_E_INPUT, "%s: the file is %s, expected an object", place, dsa_json_type(root));
	enum dsa_status status = refuse_sections(root, place, err);
	if (!status) {
		snprintf(where, sizeof where, "%.200s: normalizer", place);
		status = read_normalizer(tokenizer, json_object_get(root, "normalizer"), where, err);
	}
	if (!status) {
		snprintf(where, sizeof where, "%.200s: pre_tokenizer", place);
		status = dsa_pretokenizer_parse(&tokenizer->pre, json_object_get(root, "pre_tokenizer"), where, err);
	}
	if (!status && !tokenizer->pre.byte_level)
		status = dsa_fail(err, DSA_E_INPUT, "%s has no ByteLevel; only byte-level BPE is supported", where);
	if (!status)
		status = dsa_bpe_parse(&tokenizer->bpe, json_object_get(root, "model"), place, &tokenizer->arena, err);
	if (!status)
		status = dsa_added_parse(&tokenizer->added, json_object_get(root, "added_tokens"), place,
		                         &tokenizer->bpe, tokenizer->nfc, &tokenizer->arena, err);
	if (!status) {
		snprintf(where, sizeof where, "%.200s: post_processor", place);
		status = read_post_processor(tokenizer, json_object_get(root, "post_processor"), where, err);
	}
	/* Owned by root, which the caller lets go. */
	tokenizer->bpe.vocab = NULL;
	return status;
}
