#include "config_reader.h"

#include <stdio.h>
#include <string.h>

int config_int(struct config_reader *reader, const char *key, int low, int high, int fallback)
{
	int64_t value = fallback;
	if (!reader->status)
		reader->status =
		    dsa_json_int(reader->object, reader->place, key, low, high, fallback, &value, reader->err);
	return reader->status ? fallback : (int)value;
}

double config_real(struct config_reader *reader, const char *key, double fallback)
{
	double value = fallback;
	if (!reader->status)
		reader->status = dsa_json_real(reader->object, reader->place, key, fallback, &value, reader->err);
	return reader->status ? fallback : value;
}

bool config_bool(struct config_reader *reader, const char *key, bool fallback)
{
	bool value = fallback;
	if (!reader->status)
		reader->status = dsa_json_bool(reader->object, reader->place, key, fallback, &value, reader->err);
	return reader->status ? fallback : value;
}

void config_only_text(struct config_reader *reader, const char *key, const char *only)
{
	const char *value = only;
	if (!reader->status)
		reader->status = dsa_json_text(reader->object, reader->place, key, only, &value, reader->err);
	if (!reader->status && strcmp(value, only))
		config_refuse(reader, "%s \"%.64s\" is not implemented, only \"%s\" is", key, value, only);
}

void config_only_bool(struct config_reader *reader, const char *key, bool only)
{
	if (config_bool(reader, key, only) != only)
		config_refuse(reader, "%s %s is not implemented for this architecture, only %s is", key,
		              only ? "false" : "true", only ? "true" : "false");
}

const json_t *config_value(const struct config_reader *reader, const char *key)
{
	const json_t *value = json_object_get(reader->object, key);
	return json_is_null(value) ? NULL : value;
}

void config_refuse(struct config_reader *reader, const char *fmt, ...)
{
	char text[DSA_ERROR_CHARS];
	if (reader->status)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	reader->status = dsa_fail(reader->err, DSA_E_INPUT, "%s: %s", reader->place, text);
}
