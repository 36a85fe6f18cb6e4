#include "dsa/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>
#include <zstd_errors.h>

#include "dsa/arena.h"

enum { CHUNK = 128 << 10, WINDOW_LOG = 27 /* 128 MiB */ };

struct chunk {
	uint8_t bytes[CHUNK];
	size_t at, end;
	bool last; /* nothing follows this chunk */
};

struct dsa_reader {
	char *place;
	int fd;
	bool nameless;
	ZSTD_DStream *zst;    /* NULL: the stored bytes are the text */
	bool in_frame;        /* the decoder waits for more bytes; also before the first frame */
	uint64_t taken;       /* stored bytes read, for messages */
	struct dsa_hash hash; /* of them */
	char *line;
	size_t line_room;
	int64_t line_number;
	struct chunk stored; /* as on disk; unused behind `text` when there is no decoder */
	struct chunk text;
};

/* Fills the whole chunk unless the file ends: what is hashed then depends on the bytes only, not on how a pipe cut
 * them into pieces. */
static enum dsa_status read_stored(struct dsa_reader *reader, struct chunk *chunk, struct dsa_error *err)
{
	chunk->at = chunk->end = 0;
	while (chunk->end < CHUNK && !chunk->last) {
		ssize_t got = read(reader->fd, chunk->bytes + chunk->end, CHUNK - chunk->end);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return dsa_fail(err, DSA_E_IO, "%s: cannot read: %s", reader->place, strerror(errno));
		if (got == 0)
			chunk->last = true;
		chunk->end += (size_t)got;
	}
	dsa_hash_add(&reader->hash, chunk->bytes, chunk->end);
	reader->taken += chunk->end;
	return DSA_OK;
}

static enum dsa_status zst_error(const struct dsa_reader *reader, size_t code, struct dsa_error *err)
{
	if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to decompress it", reader->place);
	if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge)
		return dsa_fail(
		    err, DSA_E_INPUT,
		    "%s: its zstd window is larger than 128 MiB; compress it again without --long=28 or more",
		    reader->place);
	uint64_t at = reader->taken - reader->stored.end + reader->stored.at;
	return dsa_fail(
	    err, DSA_E_INPUT,
	    "%s: damaged zstd data before byte %llu (%s); `zstd -t` should say the same: make the file anew",
	    reader->place, (unsigned long long)at, ZSTD_getErrorName(code));
}

static enum dsa_status decompress(struct dsa_reader *reader, struct dsa_error *err)
{
	struct chunk *stored = &reader->stored, *text = &reader->text;
	ZSTD_outBuffer to = {text->bytes, CHUNK, 0};
	while (to.pos < to.size) {
		if (stored->at == stored->end && !stored->last) {
			enum dsa_status status = read_stored(reader, stored, err);
			if (status)
				return status;
		}
		if (stored->at == stored->end && !reader->in_frame) {
			text->last = true;
			break;
		}
		/* Without input this flushes what the decoder still holds. */
		ZSTD_inBuffer from = {stored->bytes, stored->end, stored->at};
		size_t before = to.pos;
		size_t hint = ZSTD_decompressStream(reader->zst, &to, &from);
		bool moved = from.pos != stored->at || to.pos != before;
		stored->at = from.pos;
		if (ZSTD_isError(hint))
			return zst_error(reader, hint, err);
		reader->in_frame = hint != 0;
		if (!moved && reader->in_frame && stored->at == stored->end && stored->last)
			return dsa_fail(
			    err, DSA_E_INPUT,
			    "%s: truncated: it ends after %llu bytes, inside a zstd frame; copy or make it anew",
			    reader->place, (unsigned long long)reader->taken);
	}
	text->at = 0;
	text->end = to.pos;
	return DSA_OK;
}

static enum dsa_status refill(struct dsa_reader *reader, struct dsa_error *err)
{
	return reader->zst ? decompress(reader, err) : read_stored(reader, &reader->text, err);
}

static bool ends_in(const char *text, const char *suffix)
{
	size_t length = strlen(text), tail = strlen(suffix);
	return length >= tail && !strcmp(text + length - tail, suffix);
}

static enum dsa_status open_decoder(struct dsa_reader *reader, struct dsa_error *err)
{
	reader->zst = ZSTD_createDStream();
	if (!reader->zst || ZSTD_isError(ZSTD_DCtx_setParameter(reader->zst, ZSTD_d_windowLogMax, WINDOW_LOG)))
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to decompress it", reader->place);
	reader->in_frame = true;
	return DSA_OK;
}

/* Reads the first chunk and finds out by its magic number whether it is compressed. */
static enum dsa_status open_nameless(struct dsa_reader *reader, struct dsa_error *err)
{
	static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
	enum dsa_status status = read_stored(reader, &reader->text, err);
	if (status || reader->text.end < sizeof magic || memcmp(reader->text.bytes, magic, sizeof magic) != 0)
		return status;
	status = open_decoder(reader, err);
	if (status)
		return status;
	reader->stored = reader->text;
	reader->text.at = reader->text.end = 0;
	reader->text.last = false;
	return DSA_OK;
}

enum dsa_status dsa_reader_open(struct dsa_reader **out, const char *path, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	bool is_stdin = !strcmp(path, "-");
	const char *place = is_stdin ? "standard input" : path;
	struct stat st;
	*out = NULL;
	struct dsa_reader *reader = dsa_alloc(1, sizeof *reader, "a reader", err);
	if (!reader)
		return DSA_E_MEMORY;
	reader->fd = -1;
	dsa_hash_begin(&reader->hash);
	reader->place = strdup(place);
	if (!reader->place) {
		status = dsa_fail(err, DSA_E_MEMORY, "%s: no memory to read it", place);
		goto cleanup;
	}
	reader->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (reader->fd < 0 || fstat(reader->fd, &st)) {
		int cause = errno;
		status = dsa_fail(err, cause == ENOENT ? DSA_E_MISSING : DSA_E_IO, "%s: cannot open: %s", place,
		                  strerror(cause));
		goto cleanup;
	}
	if (S_ISDIR(st.st_mode)) {
		status = dsa_fail(err, DSA_E_INPUT, "%s: is a directory, expected a file", place);
		goto cleanup;
	}
	reader->nameless = is_stdin || !S_ISREG(st.st_mode);
	if (reader->nameless)
		status = open_nameless(reader, err);
	else if (ends_in(path, ".zst"))
		status = open_decoder(reader, err);
cleanup:
	if (status)
		dsa_reader_close(reader);
	else
		*out = reader;
	return status;
}

void dsa_reader_close(struct dsa_reader *reader)
{
	if (!reader)
		return;
	if (reader->fd > STDIN_FILENO)
		close(reader->fd);
	ZSTD_freeDStream(reader->zst);
	free(reader->line);
	free(reader->place);
	free(reader);
}

const char *dsa_reader_place(const struct dsa_reader *reader)
{
	return reader->place;
}

bool dsa_reader_is_nameless(const struct dsa_reader *reader)
{
	return reader->nameless;
}

int64_t dsa_reader_line_number(const struct dsa_reader *reader)
{
	return reader->line_number;
}

void dsa_reader_digest(const struct dsa_reader *reader, uint8_t out[DSA_HASH_BYTES])
{
	struct dsa_hash copy = reader->hash;
	dsa_hash_end(&copy, out);
}

enum dsa_status dsa_reader_peek(struct dsa_reader *reader, int *out, struct dsa_error *err)
{
	struct chunk *text = &reader->text;
	*out = -1;
	if (text->at == text->end && !text->last) {
		enum dsa_status status = refill(reader, err);
		if (status)
			return status;
	}
	for (size_t i = text->at; i < text->end && *out < 0; i++)
		if (!strchr(" \t\r\n", text->bytes[i]) || !text->bytes[i])
			*out = text->bytes[i];
	return DSA_OK;
}

/* Moves `bytes` bytes from the chunk to the end of the line, which holds `length` and may grow to limit. */
static enum dsa_status append(struct dsa_reader *reader, size_t length, size_t bytes, struct dsa_error *err)
{
	if (length + bytes > reader->line_room) {
		size_t room = 2 * (length + bytes);
		char *grown = realloc(reader->line, room);
		if (!grown)
			return dsa_fail(err, DSA_E_MEMORY, "%s: no memory for a document of %zu bytes", reader->place,
			                length + bytes);
		reader->line = grown;
		reader->line_room = room;
	}
	if (bytes)
		memcpy(reader->line + length, reader->text.bytes + reader->text.at, bytes);
	reader->text.at += bytes;
	return DSA_OK;
}

enum dsa_status dsa_reader_line(struct dsa_reader *reader, size_t limit, const char **line, size_t *bytes,
                                struct dsa_error *err)
{
	struct chunk *text = &reader->text;
	size_t length = 0;
	bool any = false, whole = false;
	while (!whole) {
		if (text->at == text->end) {
			if (text->last)
				break;
			enum dsa_status status = refill(reader, err);
			if (status)
				return status;
			continue;
		}
		any = true;
		const uint8_t *start = text->bytes + text->at;
		const uint8_t *newline = memchr(start, '\n', text->end - text->at);
		size_t piece = newline ? (size_t)(newline - start) : text->end - text->at;
		if (piece > limit - length)
			return dsa_fail(err, DSA_E_INPUT, "%s line %lld: longer than %zu bytes; split the document",
			                reader->place, (long long)reader->line_number + 1, limit);
		enum dsa_status status = append(reader, length, piece, err);
		if (status)
			return status;
		length += piece;
		if (newline) {
			text->at++;
			whole = true;
		}
	}
	if (!any)
		return DSA_E_MISSING;
	reader->line_number++;
	*line = reader->line ? reader->line : "";
	*bytes = length;
	return DSA_OK;
}

enum dsa_status dsa_reader_rest(struct dsa_reader *reader, size_t limit, const char **out, size_t *bytes,
                                struct dsa_error *err)
{
	struct chunk *text = &reader->text;
	size_t length = 0;
	while (text->at < text->end || !text->last) {
		if (text->at == text->end) {
			enum dsa_status status = refill(reader, err);
			if (status)
				return status;
			continue;
		}
		size_t piece = text->end - text->at;
		if (piece > limit - length)
			return dsa_fail(err, DSA_E_INPUT, "%s: a document longer than %zu bytes; split it",
			                reader->place, limit);
		enum dsa_status status = append(reader, length, piece, err);
		if (status)
			return status;
		length += piece;
	}
	*out = reader->line ? reader->line : "";
	*bytes = length;
	return DSA_OK;
}
