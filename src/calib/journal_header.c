#include <limits.h>

#include "journal_bytes.h"

static const char magic[8] = {'D', 'S', 'A', 'J', 'R', 'N', 'L', '\n'};
enum { BYTES_AT = 12, FIXED_BYTES = 16 }; /* magic, format, bytes: enough to know how the rest is to be read */

static void put_text(struct dsa_record_buffer *out, const char *text)
{
	size_t length = strlen(text);
	put_le(out, length, 4);
	put_bytes(out, text, length);
}

enum dsa_status dsa_journal_header_write(struct dsa_record_buffer *out, int64_t created,
                                         const struct dsa_journal_field *fields, int count, struct dsa_error *err)
{
	out->used = 0;
	out->failed = false;
	put_bytes(out, magic, sizeof magic);
	put_le(out, DSA_JOURNAL_FORMAT, 4);
	put_le(out, 0, 4); /* the length, known at the end */
	put_le(out, DSA_METRIC_VERSION, 4);
	put_le(out, (uint64_t)created, 8);
	put_le(out, (uint64_t)count, 4);
	for (int i = 0; i < count; i++) {
		put_text(out, fields[i].name);
		put_text(out, fields[i].value);
	}
	if (!out->failed && out->used + CHECK_BYTES > DSA_HEADER_MOST)
		return dsa_fail(err, DSA_E_USAGE, "the journal's header would have %zu bytes, at most %d",
		                out->used + CHECK_BYTES, DSA_HEADER_MOST);
	if (!out->failed)
		store_le(out->data + BYTES_AT, out->used + CHECK_BYTES, 4);
	put_check(out);
	if (out->failed)
		return dsa_fail(err, DSA_E_MEMORY, "no memory for a journal header of %zu bytes", out->used);
	return DSA_OK;
}

static const char *take_text(struct byte_reader *in, struct dsa_arena *arena, struct dsa_error *err)
{
	size_t length = (size_t)take_le(in, 4);
	const uint8_t *text = take_bytes(in, length);
	if (!text || memchr(text, 0, length)) {
		in->bad = true;
		return "";
	}
	return dsa_arena_text(arena, (const char *)text, length, err);
}

enum dsa_status dsa_journal_header_read(struct dsa_journal_header *header, const uint8_t *data, size_t bytes,
                                        const char *path, struct dsa_arena *arena, struct dsa_error *err)
{
	if (bytes < sizeof magic || memcmp(data, magic, sizeof magic) != 0)
		return dsa_fail(err, DSA_E_INPUT, "%s: not a journal of dsacal (%zu bytes, wrong beginning)", path,
		                bytes);
	if (bytes < FIXED_BYTES)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: the header is cut off after %zu bytes; restore the file or use another --out",
		                path, bytes);
	unsigned format = (unsigned)load_le(data + sizeof magic, 4);
	if (format != DSA_JOURNAL_FORMAT)
		return dsa_fail(err, DSA_E_USAGE,
		                "%s: \"journal format\" was %u in this run, is %d now; use another --out or the "
		                "version of dsacal that made it",
		                path, format, DSA_JOURNAL_FORMAT);
	size_t whole = (size_t)load_le(data + BYTES_AT, 4);
	if (whole < FIXED_BYTES + CHECK_BYTES || whole > DSA_HEADER_MOST || whole > bytes)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: the header says %zu bytes, the file has %zu; restore the file or use another "
		                "--out",
		                path, whole, bytes);
	if (!check_holds(data, whole))
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: the header is damaged (its check is wrong); restore the file or use another --out",
		                path);
	struct byte_reader in = {.at = data + FIXED_BYTES, .end = data + whole - CHECK_BYTES};
	unsigned metric = (unsigned)take_le(&in, 4);
	if (!in.bad && metric != DSA_METRIC_VERSION)
		return dsa_fail(err, DSA_E_USAGE,
		                "%s: \"metric version\" was %u in this run, is %d now; use another --out or the "
		                "version of dsacal that made it",
		                path, metric, DSA_METRIC_VERSION);
	*header = (struct dsa_journal_header){.bytes = whole};
	header->created = (int64_t)take_le(&in, 8);
	uint64_t count = take_le(&in, 4);
	if (count > bytes_left(&in) / 8) /* two lengths each */
		in.bad = true;
	header->count = in.bad ? 0 : (int)count;
	header->fields = dsa_arena_alloc(arena, (size_t)header->count, sizeof *header->fields, "a journal header", err);
	if (!header->fields)
		return DSA_E_MEMORY;
	for (int i = 0; i < header->count && !in.bad; i++) {
		header->fields[i].name = take_text(&in, arena, err);
		header->fields[i].value = take_text(&in, arena, err);
		if (!header->fields[i].name || !header->fields[i].value)
			return DSA_E_MEMORY;
	}
	if (in.bad || in.at != in.end)
		return dsa_fail(err, DSA_E_INPUT, "%s: the header does not follow the format; use another --out", path);
	return DSA_OK;
}
