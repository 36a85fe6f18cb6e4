#include "results_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/pattern.h"

enum dsa_status reader_wrong_type(const struct results_reader *reader, const char *place, const char *key,
                                  const json_t *found, const char *expected)
{
	return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s is %s, expected %s", place, key, dsa_json_type(found),
	                expected);
}

void reader_below(char out[READER_PLACE], const char *place, const char *key)
{
	snprintf(out, READER_PLACE, "%.150s: %.150s", place, key);
}

/* *out NULL when the member is absent or null. */
enum dsa_status reader_object(const struct results_reader *reader, const json_t *parent, const char *place,
                              const char *key, const json_t **out)
{
	*out = json_object_get(parent, key);
	if (!*out || json_is_null(*out)) {
		*out = NULL;
		return DSA_OK;
	}
	return json_is_object(*out) ? DSA_OK : reader_wrong_type(reader, place, key, *out, "an object");
}

enum dsa_status reader_array(const struct results_reader *reader, const json_t *parent, const char *place,
                             const char *key, size_t most, const json_t **out)
{
	*out = json_object_get(parent, key);
	if (!*out || json_is_null(*out)) {
		*out = NULL;
		return DSA_OK;
	}
	if (!json_is_array(*out))
		return reader_wrong_type(reader, place, key, *out, "an array");
	if (json_array_size(*out) > most)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s has %zu entries, expected at most %zu", place, key,
		                json_array_size(*out), most);
	return DSA_OK;
}

enum dsa_status reader_int(const struct results_reader *reader, const json_t *object, const char *place,
                           const char *key, int low, int high, int fallback, int *out)
{
	int64_t wide;
	enum dsa_status status = dsa_json_int(object, place, key, low, high, fallback, &wide, reader->err);
	*out = status ? fallback : (int)wide;
	return status;
}

enum dsa_status reader_count(const struct results_reader *reader, const json_t *object, const char *place,
                             const char *key, int64_t *out)
{
	return dsa_json_int(object, place, key, 0, INT64_MAX, 0, out, reader->err);
}

/* A number, or digits in a string where a JSON integer is too narrow. */
enum dsa_status reader_uint(const struct results_reader *reader, const json_t *object, const char *place,
                            const char *key, uint64_t *out)
{
	const json_t *value = json_object_get(object, key);
	if (!json_is_string(value)) {
		int64_t narrow;
		enum dsa_status status = reader_count(reader, object, place, key, &narrow);
		*out = (uint64_t)narrow;
		return status;
	}
	const char *digits = json_string_value(value);
	char *end;
	errno = 0;
	*out = strtoull(digits, &end, 10);
	if (*digits < '0' || *digits > '9' || *end || errno)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s is \"%.40s\", expected a count below 2^64", place,
		                key, digits);
	return DSA_OK;
}

enum dsa_status reader_copy(const struct results_reader *reader, const char *text, const char **out)
{
	*out = dsa_arena_text(reader->arena, text, strlen(text), reader->err);
	return *out ? DSA_OK : DSA_E_MEMORY;
}

/* NULL stays NULL. */
enum dsa_status reader_text(const struct results_reader *reader, const json_t *object, const char *place,
                            const char *key, const char **out)
{
	const char *found;
	*out = NULL;
	enum dsa_status status = dsa_json_text(object, place, key, NULL, &found, reader->err);
	if (status || !found)
		return status;
	return reader_copy(reader, found, out);
}

/* A pattern of the file's own length, or NULL when absent. */
enum dsa_status reader_pattern(const struct results_reader *reader, const json_t *object, const char *place,
                               const char *key, const char **out)
{
	char what[READER_PLACE];
	enum dsa_status status = reader_text(reader, object, place, key, out);
	if (status || !*out)
		return status;
	reader_below(what, place, key);
	return dsa_pattern_check(*out, reader->results->layers, what, reader->err) ? DSA_E_INPUT : DSA_OK;
}
