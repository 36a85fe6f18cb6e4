#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>

#include "data/fake_tokenizer.h"
#include "data/scratch.h"
#include "dsa/corpus.h"
#include "dsa/hash.h"

/* Reads the corpus to its end or first error; *out has a line per document: ids, '/', target bits. */
static enum dsa_status read_all(const char *path, bool with_tokenizer, int32_t vocab, char *out, size_t room,
                                uint8_t digest[32], struct dsa_error *err)
{
	static const struct dsa_tokenizer tokenizer;
	struct dsa_corpus *corpus;
	struct dsa_document document;
	size_t used = 0;
	*out = 0;
	strcpy(err->text, "untouched");
	enum dsa_status status = dsa_corpus_open(&corpus, path, with_tokenizer ? &tokenizer : NULL, vocab, err);
	if (status)
		return status;
	while (!(status = dsa_corpus_next(corpus, &document, err))) {
		assert_non_null(document.place);
		for (size_t i = 0; i < document.count && used < room - 16; i++)
			used += (size_t)snprintf(out + used, room - used, "%d ", (int)document.ids[i]);
		used += (size_t)snprintf(out + used, room - used, "/");
		for (size_t i = 0; i < document.count && used < room - 16; i++)
			used += (size_t)snprintf(out + used, room - used, "%d", document.target[i]);
		used += (size_t)snprintf(out + used, room - used, "\n");
	}
	if (digest)
		dsa_corpus_digest(corpus, digest);
	dsa_corpus_close(corpus);
	return status;
}

static void assert_reads(const char *path, const char *expected)
{
	char out[4096];
	struct dsa_error err;
	assert_int_equal(read_all(path, true, FAKE_VOCAB, out, sizeof out, NULL, &err), DSA_E_MISSING);
	assert_string_equal(err.text, "untouched");
	assert_string_equal(out, expected);
}

static void assert_refuses(const char *path, enum dsa_status code, const char *why)
{
	char out[4096];
	struct dsa_error err;
	assert_int_equal(read_all(path, true, FAKE_VOCAB, out, sizeof out, NULL, &err), code);
	if (!strstr(err.text, why))
		fail_msg("'%s' is not in '%s'", why, err.text);
}

static void assert_line_refused(struct scratch *scratch, const char *line, const char *why)
{
	char text[4096], where[64];
	snprintf(text, sizeof text, "{\"text\":\"\"}\n\n%s\n", line);
	snprintf(where, sizeof where, "/bad.jsonl line 3: ");
	assert_refuses(scratch_text(scratch, "bad.jsonl", text), DSA_E_INPUT, where);
	assert_refuses(scratch_path(scratch, "bad.jsonl"), DSA_E_INPUT, why);
	assert_refuses(scratch_zst(scratch, "bad.jsonl.zst", text), DSA_E_INPUT, why);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DSA_TEST_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define DSA_TEST_SANITIZED
#endif

/* First in the program: the peak of memory can only grow. */
static void two_hundred_megabytes_pass_through_a_few(void **state)
{
#if defined(DSA_TEST_SANITIZED)
	const bool measured = false; /* the sanitizer keeps freed memory for a while */
	const int64_t total = 20 << 20;
#else
	const bool measured = true;
	const int64_t total = 200 << 20;
#endif
	const char *path = scratch_path(*state, "big.jsonl.zst");
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	ZSTD_CCtx *context = ZSTD_createCCtx();
	static char line[65536], frame[65536];
	int64_t written = 0, count = 0;
	memset(line, 'x', sizeof line);
	while (written < total) {
		int head = snprintf(line, sizeof line, "{\"input_ids\":[%3d,2,3],\"note\":\"", (int)(count % 200));
		line[head] = 'y';
		memcpy(line + sizeof line - 3, "\"}\n", 3);
		ZSTD_inBuffer from = {line, sizeof line, 0};
		while (from.pos < from.size) {
			ZSTD_outBuffer to = {frame, sizeof frame, 0};
			assert_false(ZSTD_isError(ZSTD_compressStream2(context, &to, &from, ZSTD_e_continue)));
			assert_int_equal(fwrite(frame, 1, to.pos, file), to.pos);
		}
		written += (int64_t)sizeof line;
		count++;
	}
	for (size_t left = 1; left;) {
		ZSTD_inBuffer from = {line, 0, 0};
		ZSTD_outBuffer to = {frame, sizeof frame, 0};
		left = ZSTD_compressStream2(context, &to, &from, ZSTD_e_end);
		assert_false(ZSTD_isError(left));
		assert_int_equal(fwrite(frame, 1, to.pos, file), to.pos);
	}
	ZSTD_freeCCtx(context);
	assert_int_equal(fclose(file), 0);

	struct rusage before, after;
	struct dsa_corpus *corpus;
	struct dsa_document document;
	struct dsa_error err;
	enum dsa_status status;
	int64_t seen = 0;
	assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
	assert_int_equal(dsa_corpus_open(&corpus, path, NULL, 200, &err), DSA_OK);
	while (!(status = dsa_corpus_next(corpus, &document, &err))) {
		assert_int_equal(document.count, 3);
		assert_int_equal(document.ids[0], seen % 200);
		seen++;
	}
	assert_int_equal(status, DSA_E_MISSING);
	dsa_corpus_close(corpus);
	assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
	assert_int_equal(seen, count);
	if (measured)
		assert_in_range(after.ru_maxrss - before.ru_maxrss, 0, 8 << 10); /* KiB */
	assert_int_equal(remove(path), 0);
}

static void a_text_file_is_one_document_whatever_its_name(void **state)
{
	const char *expected = "1 100 101 13 102 /11111\n";
	assert_reads(scratch_text(*state, "a.txt", "ab\nc"), expected);
	assert_reads(scratch_text(*state, "LICENSE", "ab\nc"), expected);
	assert_reads(scratch_zst(*state, "a.txt.zst", "ab\nc"), expected);
	assert_reads(scratch_text(*state, "empty", ""), "1 /1\n");
}

static const char forms[] = "{\"text\":\"ab\",\"title\":\"ignored\",\"prompt\":null}\n"
			    "\r\n"
			    "{\"prompt\":\"a\",\"completion\":\"bc\"}\n"
			    " {\"input_ids\":[5,0,258]}\r\n"
			    "\n"
			    "{\"input_ids\":[5,6,7,8],\"loss_mask\":[0,1,true,false]}\n"
			    "{\"input_ids\":[]}\n"
			    "{\"prompt\":\"\",\"completion\":\"\"}\n"
			    "{\"text\":\"\\u0000\\ud83d\\ude00\"}";
static const char forms_read[] = "1 100 101 /111\n"
				 "1 100 101 102 /0011\n"
				 "5 0 258 /111\n"
				 "5 6 7 8 /0110\n"
				 "/\n"
				 "1 /0\n"
				 "1 3 243 162 155 131 /111111\n";

static void jsonl_lines_may_mix_all_forms(void **state)
{
	assert_reads(scratch_text(*state, "forms.jsonl", forms), forms_read);
	assert_reads(scratch_zst(*state, "forms.jsonl.zst", forms), forms_read);
	assert_reads(scratch_text(*state, "none.jsonl", ""), "");
	assert_reads(scratch_text(*state, "none.jsonl", "\n \n\t\r\n"), "");
}

static void a_pipe_is_jsonl_if_it_begins_with_a_brace(void **state)
{
	struct {
		const char *text, *expected;
		bool compressed;
	} cases[] = {
	    {forms, forms_read, false},
	    {forms, forms_read, true},
	    {"\n\n  {\"text\":\"a\"}", "1 100 /11\n", false},
	    {"a{}", "1 100 126 128 /1111\n", false},
	    {"a{}", "1 100 126 128 /1111\n", true},
	    {"", "1 /1\n", false},
	};
	(void)state;
	int saved = dup(STDIN_FILENO);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int ends[2];
		size_t bytes;
		assert_int_equal(pipe(ends), 0);
		void *frame = scratch_compress(cases[i].text, strlen(cases[i].text), &bytes);
		if (!cases[i].compressed)
			bytes = strlen(cases[i].text);
		assert_int_equal(write(ends[1], cases[i].compressed ? frame : cases[i].text, bytes), bytes);
		close(ends[1]);
		free(frame);
		dup2(ends[0], STDIN_FILENO);
		close(ends[0]);
		assert_reads("-", cases[i].expected);
	}
	dup2(saved, STDIN_FILENO);
	close(saved);
}

static void a_directory_is_walked_in_sorted_order_without_dot_files(void **state)
{
	struct scratch *scratch = *state;
	char tree[256], path[512], hex[DSA_HASH_HEX], command[512], expected[DSA_HASH_HEX];
	snprintf(tree, sizeof tree, "%s", scratch_path(scratch, "tree"));
	assert_int_equal(mkdir(tree, 0700), 0);
	snprintf(path, sizeof path, "%s/b", tree);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/empty", tree);
	assert_int_equal(mkdir(path, 0700), 0);
	scratch_text(scratch, "tree/c", "c");
	scratch_text(scratch, "tree/b.txt", "d");
	scratch_text(scratch, "tree/a.jsonl", "{\"input_ids\":[7]}\n{\"input_ids\":[8]}\n");
	scratch_text(scratch, "tree/.hidden", "hidden");
	scratch_text(scratch, "tree/b/z", "z");
	scratch_zst(scratch, "tree/b/Y.zst", "Y");
	assert_reads(tree, "7 /1\n8 /1\n1 92 /11\n1 125 /11\n1 103 /11\n1 102 /11\n");

	char out[4096];
	struct dsa_error err;
	uint8_t digest[32];
	assert_int_equal(read_all(tree, true, FAKE_VOCAB, out, sizeof out, digest, &err), DSA_E_MISSING);
	dsa_hash_hex(digest, hex);
	snprintf(command, sizeof command, "cd %s && sha256sum a.jsonl b/Y.zst b/z b.txt c | sha256sum", tree);
	FILE *pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%64s", expected), 1);
	pclose(pipe);
	assert_string_equal(hex, expected);

	/* A link to a file is a file; one back up is refused instead of going round. */
	snprintf(path, sizeof path, "%s/d", tree);
	assert_int_equal(symlink("c", path), 0);
	assert_reads(tree, "7 /1\n8 /1\n1 92 /11\n1 125 /11\n1 103 /11\n1 102 /11\n1 102 /11\n");
	snprintf(path, sizeof path, "%s/b/up", tree);
	assert_int_equal(symlink("..", path), 0);
	assert_refuses(tree, DSA_E_INPUT, "/tree/b/up: a link back to ");
	assert_int_equal(remove(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_refuses(tree, DSA_E_INPUT, "/tree/b/up: neither a file nor a directory");
}

static void a_directory_without_files_is_refused(void **state)
{
	char path[256];
	snprintf(path, sizeof path, "%s", scratch_path(*state, "hollow"));
	assert_int_equal(mkdir(path, 0700), 0);
	assert_refuses(path, DSA_E_INPUT, "/hollow: no file in this directory");
	scratch_text(*state, "hollow/.only", "x");
	assert_refuses(path, DSA_E_INPUT, "/hollow: no file in this directory");
}

static void bad_lines_are_refused_by_file_and_number(void **state)
{
	struct scratch *s = *state;
	assert_line_refused(s, "{\"text\":\"a\"", "not valid JSON");
	assert_line_refused(s, "{\"text\":\"a\"} x", "not valid JSON");
	assert_line_refused(s, "{\"text\":\"\\ud800\"}", "not valid JSON");
	assert_line_refused(s, "{\"text\":\"\xc3\x28\"}", "not valid JSON");
	assert_line_refused(s, "{\"text\":\"a\",\"text\":\"b\"}", "not valid JSON");
	assert_line_refused(s, "[1,2]", "an array, expected an object");
	assert_line_refused(s, "{}", "expected text, prompt + completion or input_ids");
	assert_line_refused(s, "{\"text\":null}", "expected text, prompt + completion or input_ids");
	assert_line_refused(s, "{\"text\":7}", "text is an integer, expected a string");
	assert_line_refused(s, "{\"prompt\":\"a\"}", "prompt without completion");
	assert_line_refused(s, "{\"completion\":\"a\"}", "completion without prompt");
	assert_line_refused(s, "{\"prompt\":\"a\",\"completion\":[]}", "completion is an array, expected a string");
	assert_line_refused(s, "{\"text\":\"a\",\"input_ids\":[1]}", "ambiguous");
	assert_line_refused(s, "{\"text\":\"a\",\"completion\":\"b\"}", "ambiguous");
	assert_line_refused(s, "{\"prompt\":\"a\",\"completion\":\"b\",\"input_ids\":[1]}", "ambiguous");
	assert_line_refused(s, "{\"text\":\"a\",\"loss_mask\":[1]}", "loss_mask without input_ids");
	assert_line_refused(s, "{\"input_ids\":\"1\"}", "input_ids is a string, expected an array");
	assert_line_refused(s, "{\"input_ids\":[1,2.0]}", "input_ids[1] is a real number, expected an integer");
	assert_line_refused(s, "{\"input_ids\":[1,-1]}", "input_ids[1] is -1, expected 0 to 258");
	assert_line_refused(s, "{\"input_ids\":[259]}", "input_ids[0] is 259, expected 0 to 258");
	assert_line_refused(s, "{\"input_ids\":[4294967297]}", "input_ids[0] is 4294967297, expected 0 to 258");
	assert_line_refused(s, "{\"input_ids\":[99999999999999999999]}", "not valid JSON");
	assert_line_refused(s, "{\"input_ids\":[1,2],\"loss_mask\":[1]}", "loss_mask has 1 entries, input_ids has 2");
	assert_line_refused(s, "{\"input_ids\":[1,2],\"loss_mask\":[1,2]}", "loss_mask[1] is not 0, 1, false or true");
	assert_line_refused(s, "{\"input_ids\":[1],\"loss_mask\":[null]}", "loss_mask[0] is not 0, 1, false or true");
	assert_line_refused(s, "{\"input_ids\":[1],\"loss_mask\":1}", "loss_mask is an integer, expected an array");
	assert_line_refused(s, "{\"text\":\"\xff\"}", "not valid JSON");
	char deep[300];
	memset(deep, '[', sizeof deep - 1);
	deep[sizeof deep - 1] = 0;
	assert_line_refused(s, deep, "nested deeper than 64");
}

static void raw_nul_bytes_in_a_line_are_refused(void **state)
{
	static const char inside[] = "{\"text\":\"a\0b\"}\n", behind[] = "{\"text\":\"a\"}\0\n";
	assert_refuses(scratch_write(*state, "nul.jsonl", inside, sizeof inside - 1), DSA_E_INPUT,
	               "/nul.jsonl line 1: not valid JSON");
	assert_refuses(scratch_write(*state, "nul.jsonl", behind, sizeof behind - 1), DSA_E_INPUT,
	               "/nul.jsonl line 1: not valid JSON");
}

static void text_errors_name_the_file(void **state)
{
	assert_refuses(scratch_text(*state, "bin", "abc\xff"), DSA_E_INPUT, "/bin: invalid UTF-8 at byte 3");
	assert_refuses(scratch_text(*state, "cut.jsonl.zst", "\x28\xb5\x2f\xfd"), DSA_E_INPUT,
	               "/cut.jsonl.zst: truncated");
	assert_refuses(scratch_text(*state, "nothing.zst", ""), DSA_E_INPUT, "/nothing.zst: truncated");
	assert_refuses(scratch_path(*state, "absent"), DSA_E_MISSING, "/absent: cannot open");
}

static void text_without_a_tokenizer_is_refused_and_ids_are_not(void **state)
{
	char out[256];
	struct dsa_error err;
	const char *path = scratch_text(*state, "ids.jsonl", "{\"input_ids\":[3]}\n{\"text\":\"a\"}\n");
	assert_int_equal(read_all(path, false, 10, out, sizeof out, NULL, &err), DSA_E_INPUT);
	assert_string_equal(out, "3 /1\n");
	assert_non_null(strstr(err.text, "/ids.jsonl line 2: text, but the model has no tokenizer.json"));
}

static void a_tokenizer_of_another_model_is_found_out(void **state)
{
	char out[256];
	struct dsa_error err;
	const char *path = scratch_text(*state, "t", "!a");
	assert_int_equal(read_all(path, true, 101, out, sizeof out, NULL, &err), DSA_E_MISSING);
	assert_int_equal(read_all(path, true, 100, out, sizeof out, NULL, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "/t: token 2 is 100, expected 0 to 99"));
}

static void a_line_that_unpacks_past_the_limit_is_refused(void **state)
{
	const char *path = scratch_path(*state, "bomb.jsonl.zst");
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	size_t bytes, piece = 1 << 20;
	char *spaces = malloc(piece + 1);
	memset(spaces, ' ', piece);
	char *frame = scratch_compress(spaces, piece, &bytes);
	for (int i = 0; i < 257; i++)
		assert_int_equal(fwrite(frame, 1, bytes, file), bytes);
	fclose(file);
	free(frame);
	free(spaces);
	assert_refuses(path, DSA_E_INPUT, "/bomb.jsonl.zst line 1: longer than 268435456 bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_hundred_megabytes_pass_through_a_few),
	    cmocka_unit_test(a_text_file_is_one_document_whatever_its_name),
	    cmocka_unit_test(jsonl_lines_may_mix_all_forms),
	    cmocka_unit_test(a_pipe_is_jsonl_if_it_begins_with_a_brace),
	    cmocka_unit_test(a_directory_is_walked_in_sorted_order_without_dot_files),
	    cmocka_unit_test(a_directory_without_files_is_refused),
	    cmocka_unit_test(bad_lines_are_refused_by_file_and_number),
	    cmocka_unit_test(raw_nul_bytes_in_a_line_are_refused),
	    cmocka_unit_test(text_errors_name_the_file),
	    cmocka_unit_test(text_without_a_tokenizer_is_refused_and_ids_are_not),
	    cmocka_unit_test(a_tokenizer_of_another_model_is_found_out),
	    cmocka_unit_test(a_line_that_unpacks_past_the_limit_is_refused),
	};
	return cmocka_run_group_tests_name("corpus", tests, scratch_open, scratch_close);
}
