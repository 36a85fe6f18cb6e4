#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/scratch.h"
#include "dsa/reader.h"

/* All lines of the file, joined by '|', or the error's text. */
static enum dsa_status lines(const char *path, size_t limit, char *out, size_t room, struct dsa_error *err)
{
	struct dsa_reader *reader;
	const char *line;
	size_t bytes;
	*out = 0;
	enum dsa_status status = dsa_reader_open(&reader, path, err);
	if (status)
		return status;
	while (!(status = dsa_reader_line(reader, limit, &line, &bytes, err))) {
		size_t used = strlen(out);
		snprintf(out + used, room - used, "%.*s|", (int)bytes, line);
	}
	dsa_reader_close(reader);
	return status;
}

static void lines_are_cut_at_newlines_and_the_last_may_lack_one(void **state)
{
	struct dsa_error err = {.text = "untouched"};
	char out[64];
	assert_int_equal(lines(scratch_text(*state, "a", "one\n\ntwo\r\nthree"), 99, out, sizeof out, &err),
	                 DSA_E_MISSING);
	assert_string_equal(out, "one||two\r|three|");
	assert_int_equal(lines(scratch_text(*state, "a", "x\n"), 99, out, sizeof out, &err), DSA_E_MISSING);
	assert_string_equal(out, "x|");
	assert_int_equal(lines(scratch_text(*state, "a", ""), 99, out, sizeof out, &err), DSA_E_MISSING);
	assert_string_equal(out, "");
	assert_string_equal(err.text, "untouched");
}

static void lines_longer_than_a_chunk_come_out_whole(void **state)
{
	enum { LONG = 300000 };
	static char text[2 * LONG + 2];
	struct dsa_error err;
	struct dsa_reader *reader;
	const char *line;
	size_t bytes;
	memset(text, 'a', LONG);
	text[LONG] = '\n';
	memset(text + LONG + 1, 'b', LONG);
	assert_int_equal(dsa_reader_open(&reader, scratch_zst(*state, "long.zst", text), &err), DSA_OK);
	assert_int_equal(dsa_reader_line(reader, LONG, &line, &bytes, &err), DSA_OK);
	assert_int_equal(bytes, LONG);
	assert_memory_equal(line, text, LONG);
	assert_int_equal(dsa_reader_line(reader, LONG, &line, &bytes, &err), DSA_OK);
	assert_int_equal(bytes, LONG);
	assert_memory_equal(line, text + LONG + 1, LONG);
	assert_int_equal(dsa_reader_line_number(reader), 2);
	assert_int_equal(dsa_reader_line(reader, LONG, &line, &bytes, &err), DSA_E_MISSING);
	dsa_reader_close(reader);
}

static void frames_one_after_another_read_as_one_text(void **state)
{
	struct dsa_error err;
	char out[64], two[256];
	size_t first, second;
	void *a = scratch_compress("one\ntw", 6, &first), *b = scratch_compress("o\nthree\n", 8, &second);
	memcpy(two, a, first);
	memcpy(two + first, b, second);
	free(a);
	free(b);
	assert_int_equal(lines(scratch_write(*state, "two.zst", two, first + second), 99, out, sizeof out, &err),
	                 DSA_E_MISSING);
	assert_string_equal(out, "one|two|three|");
}

static void zst_truncated_anywhere_is_refused(void **state)
{
	struct dsa_error err;
	char out[4096], text[2000];
	size_t bytes;
	for (size_t i = 0; i < sizeof text; i++)
		text[i] = (char)('a' + i * i % 23);
	char *frame = scratch_compress(text, sizeof text, &bytes);
	for (size_t cut = 0; cut < bytes; cut++) {
		const char *path = scratch_write(*state, "cut.zst", frame, cut);
		assert_int_equal(lines(path, 4000, out, sizeof out, &err), DSA_E_INPUT);
		assert_non_null(strstr(err.text, "cut.zst: truncated"));
	}
	assert_int_equal(lines(scratch_write(*state, "cut.zst", frame, bytes), 4000, out, sizeof out, &err),
	                 DSA_E_MISSING);
	assert_memory_equal(out, text, sizeof text);
	free(frame);
}

static void zst_with_a_changed_byte_or_trailing_bytes_is_refused(void **state)
{
	struct dsa_error err;
	char out[4096];
	char text[1500] = {0};
	size_t bytes;
	memset(text, 'q', sizeof text - 1);
	memcpy(text + 700, "the checksum sees it", 20);
	uint8_t *frame = scratch_compress(text, strlen(text), &bytes);
	frame[bytes - 10] ^= 1;
	assert_int_equal(lines(scratch_write(*state, "bad.zst", frame, bytes), 4000, out, sizeof out, &err),
	                 DSA_E_INPUT);
	assert_non_null(strstr(err.text, "bad.zst: damaged zstd data"));
	frame[bytes - 10] ^= 1;
	uint8_t *longer = calloc(1, bytes + 8);
	memcpy(longer, frame, bytes);
	memcpy(longer + bytes, "garbage!", 8);
	for (size_t extra = 1; extra <= 8; extra++) {
		const char *path = scratch_write(*state, "bad.zst", longer, bytes + extra);
		assert_int_equal(lines(path, 4000, out, sizeof out, &err), DSA_E_INPUT);
		assert_non_null(strstr(err.text, "bad.zst: "));
	}
	free(longer);
	free(frame);
	assert_int_equal(lines(scratch_text(*state, "bad.zst", "plain text"), 99, out, sizeof out, &err), DSA_E_INPUT);
}

static void a_window_over_128_mib_is_refused(void **state)
{
	/* magic; no content size, no single segment; window 2^(10 + (byte >> 3)); one last raw block of one byte */
	uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3, 0x09, 0x00, 0x00, 'a'};
	struct dsa_error err;
	char out[64];
	assert_int_equal(lines(scratch_write(*state, "w.zst", frame, sizeof frame), 99, out, sizeof out, &err),
	                 DSA_E_MISSING);
	assert_string_equal(out, "a|");
	frame[5] = 18 << 3;
	assert_int_equal(lines(scratch_write(*state, "w.zst", frame, sizeof frame), 99, out, sizeof out, &err),
	                 DSA_E_INPUT);
	assert_non_null(strstr(err.text, "w.zst: its zstd window is larger than 128 MiB"));
}

static void a_line_over_the_limit_is_refused_by_its_number(void **state)
{
	struct dsa_error err;
	char out[64];
	const char *path = scratch_text(*state, "a", "12345\n123456\n");
	assert_int_equal(lines(path, 6, out, sizeof out, &err), DSA_E_MISSING);
	assert_int_equal(lines(path, 5, out, sizeof out, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "/a line 2: longer than 5 bytes"));
	struct dsa_reader *reader;
	size_t bytes;
	const char *text;
	assert_int_equal(dsa_reader_open(&reader, path, &err), DSA_OK);
	assert_int_equal(dsa_reader_rest(reader, 12, &text, &bytes, &err), DSA_E_INPUT);
	dsa_reader_close(reader);
	assert_int_equal(dsa_reader_open(&reader, path, &err), DSA_OK);
	assert_int_equal(dsa_reader_rest(reader, 13, &text, &bytes, &err), DSA_OK);
	assert_int_equal(bytes, 13);
	assert_memory_equal(text, "12345\n123456\n", 13);
	dsa_reader_close(reader);
}

static void the_digest_is_what_sha256sum_prints(void **state)
{
	struct dsa_error err;
	struct dsa_reader *reader;
	const char *text;
	size_t bytes;
	uint8_t digest[DSA_HASH_BYTES];
	char hex[DSA_HASH_HEX];
	assert_int_equal(dsa_reader_open(&reader, scratch_text(*state, "abc", "abc\n"), &err), DSA_OK);
	assert_int_equal(dsa_reader_rest(reader, 99, &text, &bytes, &err), DSA_OK);
	dsa_reader_digest(reader, digest);
	dsa_hash_hex(digest, hex);
	assert_string_equal(hex, "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb");
	dsa_reader_close(reader);
}

static void a_pipe_is_decompressed_by_its_magic_number(void **state)
{
	(void)state;
	struct dsa_error err;
	char out[64], path[64];
	size_t bytes;
	for (int compressed = 0; compressed < 2; compressed++) {
		int ends[2];
		assert_int_equal(pipe(ends), 0);
		void *frame = scratch_compress("one\ntwo\n", 8, &bytes);
		const void *data = compressed ? frame : "one\ntwo\n";
		assert_int_equal(write(ends[1], data, compressed ? bytes : 8), compressed ? bytes : 8);
		close(ends[1]);
		free(frame);
		snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
		assert_int_equal(lines(path, 99, out, sizeof out, &err), DSA_E_MISSING);
		assert_string_equal(out, "one|two|");
		close(ends[0]);
	}
}

static void what_is_no_file_is_refused_by_name(void **state)
{
	struct dsa_error err;
	char out[64];
	assert_int_equal(lines(scratch_path(*state, "none"), 99, out, sizeof out, &err), DSA_E_MISSING);
	assert_non_null(strstr(err.text, "/none: cannot open"));
	assert_int_equal(lines("/tmp", 99, out, sizeof out, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "is a directory"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lines_are_cut_at_newlines_and_the_last_may_lack_one),
	    cmocka_unit_test(lines_longer_than_a_chunk_come_out_whole),
	    cmocka_unit_test(frames_one_after_another_read_as_one_text),
	    cmocka_unit_test(zst_truncated_anywhere_is_refused),
	    cmocka_unit_test(zst_with_a_changed_byte_or_trailing_bytes_is_refused),
	    cmocka_unit_test(a_window_over_128_mib_is_refused),
	    cmocka_unit_test(a_line_over_the_limit_is_refused_by_its_number),
	    cmocka_unit_test(the_digest_is_what_sha256sum_prints),
	    cmocka_unit_test(a_pipe_is_decompressed_by_its_magic_number),
	    cmocka_unit_test(what_is_no_file_is_refused_by_name),
	};
	return cmocka_run_group_tests_name("reader", tests, scratch_open, scratch_close);
}
