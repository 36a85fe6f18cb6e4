#include "dsa/json.h"

#include <math.h>
#include <string.h>

#include "dsa/file.h"

/* jansson itself limits nesting to 2048 by recursion; this stops earlier, before anything is allocated. */
static bool too_deep(const char *text, size_t bytes)
{
	int depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < bytes; i++) {
		char c = text[i];
		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '{' || c == '[') {
			if (++depth > DSA_JSON_DEPTH)
				return true;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return false;
}

enum dsa_status dsa_json_parse(const char *text, size_t bytes, const char *place, json_t **out, struct dsa_error *err)
{
	json_error_t cause;
	*out = NULL;
	if (too_deep(text, bytes))
		return dsa_fail(err, DSA_E_INPUT, "%s: JSON nested deeper than %d", place, DSA_JSON_DEPTH);
	*out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &cause);
	if (*out)
		return DSA_OK;
	if (json_error_code(&cause) == json_error_out_of_memory)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to parse %zu bytes of JSON", place, bytes);
	return dsa_fail(err, DSA_E_INPUT, "%s: not valid JSON at line %d, column %d: %s", place, cause.line,
	                cause.column, cause.text);
}

enum dsa_status dsa_json_load(const char *path, size_t limit, json_t **out, struct dsa_error *err)
{
	struct dsa_arena arena;
	char *text;
	size_t bytes;
	*out = NULL;
	dsa_arena_init(&arena);
	enum dsa_status status = dsa_file_read(path, limit, &arena, &text, &bytes, err);
	if (!status)
		status = dsa_json_parse(text, bytes, path, out, err);
	dsa_arena_release(&arena);
	return status;
}

const char *dsa_json_type(const json_t *value)
{
	if (!value)
		return "nothing";
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a real number";
	case JSON_TRUE:
		return "true";
	case JSON_FALSE:
		return "false";
	case JSON_NULL:
		break;
	}
	return "null";
}

static bool absent(const json_t *value)
{
	return !value || json_is_null(value);
}

enum dsa_status dsa_json_int(const json_t *object, const char *place, const char *key, int64_t low, int64_t high,
                             int64_t fallback, int64_t *out, struct dsa_error *err)
{
	const json_t *value = json_object_get(object, key);
	*out = fallback;
	if (absent(value))
		return DSA_OK;
	if (!json_is_integer(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %s, expected an integer", place, key,
		                dsa_json_type(value));
	int64_t found = json_integer_value(value);
	if (found < low || found > high)
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %lld, expected %lld to %lld", place, key, (long long)found,
		                (long long)low, (long long)high);
	*out = found;
	return DSA_OK;
}

enum dsa_status dsa_json_real(const json_t *object, const char *place, const char *key, double fallback, double *out,
                              struct dsa_error *err)
{
	const json_t *value = json_object_get(object, key);
	*out = fallback;
	if (absent(value))
		return DSA_OK;
	if (!json_is_number(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %s, expected a number", place, key, dsa_json_type(value));
	*out = json_number_value(value);
	if (!isfinite(*out))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is not finite", place, key);
	return DSA_OK;
}

enum dsa_status dsa_json_bool(const json_t *object, const char *place, const char *key, bool fallback, bool *out,
                              struct dsa_error *err)
{
	const json_t *value = json_object_get(object, key);
	*out = fallback;
	if (absent(value))
		return DSA_OK;
	if (!json_is_boolean(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %s, expected true or false", place, key,
		                dsa_json_type(value));
	*out = json_is_true(value);
	return DSA_OK;
}

enum dsa_status dsa_json_text(const json_t *object, const char *place, const char *key, const char *fallback,
                              const char **out, struct dsa_error *err)
{
	const json_t *value = json_object_get(object, key);
	*out = fallback;
	if (absent(value))
		return DSA_OK;
	if (!json_is_string(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is %s, expected a string", place, key, dsa_json_type(value));
	const char *found = json_string_value(value);
	if (strlen(found) != json_string_length(value))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s holds a NUL character", place, key);
	*out = found;
	return DSA_OK;
}
