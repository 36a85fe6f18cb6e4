#include "dsa/json_writer.h"

#include <assert.h>
#include <inttypes.h>

void dsa_json_writer_init(struct dsa_json_writer *writer, struct dsa_text *text, int lines)
{
	*writer = (struct dsa_json_writer){.text = text, .lines = lines};
}

static void new_line(struct dsa_json_writer *writer)
{
	dsa_text_add(writer->text, "\n");
	for (int i = 0; i < writer->depth; i++)
		dsa_text_add(writer->text, "  ");
}

/* What stands before a value: comma, line, key. */
static void begin(struct dsa_json_writer *writer, const char *key)
{
	if (writer->depth) {
		int at = writer->depth - 1;
		assert((writer->closing[at] == '}') == (key != NULL));
		if (writer->filled[at])
			dsa_text_add(writer->text, writer->broken_up[at] ? "," : ", ");
		writer->filled[at] = true;
		if (writer->broken_up[at])
			new_line(writer);
	}
	if (key) {
		dsa_text_json(writer->text, key);
		dsa_text_add(writer->text, ": ");
	}
}

static void open_container(struct dsa_json_writer *writer, const char *key, char opening, char closing)
{
	begin(writer, key);
	assert(writer->depth < DSA_JSON_WRITER_DEPTH);
	dsa_text_bytes(writer->text, &opening, 1);
	writer->filled[writer->depth] = false;
	writer->closing[writer->depth] = closing;
	writer->broken_up[writer->depth] = writer->depth < writer->lines;
	writer->depth++;
}

void dsa_json_object(struct dsa_json_writer *writer, const char *key)
{
	open_container(writer, key, '{', '}');
}

void dsa_json_array(struct dsa_json_writer *writer, const char *key)
{
	open_container(writer, key, '[', ']');
}

void dsa_json_end(struct dsa_json_writer *writer)
{
	assert(writer->depth);
	int at = --writer->depth;
	if (writer->filled[at] && writer->broken_up[at])
		new_line(writer);
	dsa_text_bytes(writer->text, &writer->closing[at], 1);
	if (!at)
		dsa_text_add(writer->text, "\n");
}

void dsa_json_put_text(struct dsa_json_writer *writer, const char *key, const char *value)
{
	begin(writer, key);
	dsa_text_json(writer->text, value);
}

void dsa_json_put_int(struct dsa_json_writer *writer, const char *key, int64_t value)
{
	begin(writer, key);
	dsa_text_printf(writer->text, "%" PRId64, value);
}

void dsa_json_put_uint(struct dsa_json_writer *writer, const char *key, uint64_t value)
{
	begin(writer, key);
	dsa_text_printf(writer->text, value > INT64_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, value);
}

void dsa_json_put_real(struct dsa_json_writer *writer, const char *key, double value)
{
	begin(writer, key);
	dsa_text_real(writer->text, value);
}

void dsa_json_put_bool(struct dsa_json_writer *writer, const char *key, bool value)
{
	begin(writer, key);
	dsa_text_add(writer->text, value ? "true" : "false");
}

void dsa_json_put_null(struct dsa_json_writer *writer, const char *key)
{
	begin(writer, key);
	dsa_text_add(writer->text, "null");
}
