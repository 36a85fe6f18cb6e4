#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/tokenizer.h"

/* Small tokenizers written out here; the ids were taken from the reference, tokenizers 0.23, for the same JSON. The
 * vocabulary lacks most letters: what is made of them is dropped, by the reference too. */

#define VOCAB                                                                                                             \
	"\"a\":0,\"b\":1,\"c\":2,\"Ġ\":3,\"Ċ\":4,\"'\":5,\"s\":6,\"1\":7,\"2\":8,\"Ã\":9,\"©\":10,\"e\":11,\"<\":12," \
	"\">\":13,\"ab\":14,\"abc\":15,\"Ġa\":16,\"Ġab\":17,\"aa\":18,\"aaaa\":19,\"'s\":20,\"Ã©\":21,\"12\":22,"     \
	"\"ĠĠ\":23,\"bc\":24,\"ba\":25,\"<c>\":40"
#define PAIRS                                                                                                          \
	"[\"a\",\"b\"],[\"Ġ\",\"a\"],[\"Ġ\",\"ab\"],[\"b\",\"c\"],[\"ab\",\"c\"],[\"a\",\"a\"],[\"aa\",\"aa\"],"     \
	"[\"'\",\"s\"],[\"Ã\",\"©\"],[\"1\",\"2\"],[\"Ġ\",\"Ġ\"],[\"b\",\"a\"]"
#define STRINGS                                                                                                           \
	"\"#version: 0.2\",\"a b\",\"Ġ a\",\"Ġ ab\",\"b c\",\"ab c\",\"a a\",\"aa aa\",\"' s\",\"Ã ©\",\"1 2\",\"Ġ " \
	"Ġ\","                                                                                                           \
	"\"b a\""
#define MODEL_OF(more, vocab, merges)                                                                                  \
	"\"model\":{\"type\":\"BPE\"," more "\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define MODEL MODEL_OF("", VOCAB, PAIRS)
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define PRE(stages) "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" stages LEVEL "]}"
#define SPLIT(kind, pattern, behavior, invert)                                                                         \
	"{\"type\":\"Split\",\"pattern\":{\"" kind "\":\"" pattern "\"},\"behavior\":\"" behavior                      \
	"\",\"invert\":" invert "},"
#define REGEX(pattern) PRE(SPLIT("Regex", pattern, "Isolated", "false"))
#define FILE_OF(sections) "{\"version\":\"1.0\"," sections "}"
#define PLAIN FILE_OF(PRE("") "," MODEL)

static struct dsa_tokenizer *parsed(const char *json)
{
	struct dsa_tokenizer *tokenizer;
	struct dsa_error err = {""};
	if (dsa_tokenizer_parse(&tokenizer, json, strlen(json), "t.json", &err))
		fail_msg("%s", err.text);
	return tokenizer;
}

/* "1 2 3" for the ids of text. */
static void check_ids(const struct dsa_tokenizer *tokenizer, const char *text, size_t bytes, bool special,
                      const char *expected)
{
	struct dsa_ids ids = {0};
	struct dsa_error err = {""};
	char found[4096] = "";
	size_t used = 0;
	if (dsa_tokenizer_encode(tokenizer, text, bytes, special, &ids, &err))
		fail_msg("%s", err.text);
	for (size_t i = 0; i < ids.count && used < sizeof found - 16; i++)
		used += (size_t)sprintf(found + used, i ? " %d" : "%d", ids.ids[i]);
	dsa_ids_release(&ids);
	assert_string_equal(found, expected);
}

static void check(const char *json, const char *text, const char *expected)
{
	struct dsa_tokenizer *tokenizer = parsed(json);
	check_ids(tokenizer, text, strlen(text), true, expected);
	/* Once more, from the word cache. */
	check_ids(tokenizer, text, strlen(text), true, expected);
	dsa_tokenizer_close(tokenizer);
}

static void the_lowest_rank_is_merged_first_then_the_leftmost(void **state)
{
	(void)state;
	static const char *const cases[][2] = {{"abc", "15"},     {"aabab", "0 14 14"}, {"aaaaa", "19 0"},
	                                       {"bcab", "24 14"}, {"abab", "14 14"},    {"a\n", "0 4"},
	                                       {"", ""}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		check(PLAIN, cases[i][0], cases[i][1]);
		check(FILE_OF(PRE("") "," MODEL_OF("", VOCAB, STRINGS)), cases[i][0], cases[i][1]);
	}
}

static void bytes_without_a_letter_are_dropped(void **state)
{
	(void)state;
	check(PLAIN, "xyab", "14");
	check(PLAIN, "axb", "14");
	check(PLAIN, "\xf0\x9f\x98\x80", "");
}

static void of_equal_merges_the_last_counts(void **state)
{
	(void)state;
	check(FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\",\"b\"],[\"b\",\"a\"]")), "aba", "14 0");
	check(FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\",\"b\"],[\"b\",\"a\"],[\"a\",\"b\"]")), "aba", "0 25");
}

static void ignore_merges_takes_whole_words(void **state)
{
	(void)state;
	check(FILE_OF(PRE("") "," MODEL_OF("\"ignore_merges\":true,", VOCAB ",\"bab\":26", PAIRS)), "bab", "26");
	check(FILE_OF(PRE("") "," MODEL_OF("\"ignore_merges\":false,", VOCAB ",\"bab\":26", PAIRS)), "bab", "1 14");
}

static void words_too_long_to_scan_merge_alike(void **state)
{
	(void)state;
	char text[100] = "";
	memset(text, 'a', 66);
	strcpy(text + 66, "bc");
	check(PLAIN, text, "19 19 19 19 19 19 19 19 19 19 19 19 19 19 19 19 0 15");
	for (size_t i = 0; i < 30; i++)
		memcpy(text + 3 * i, "abc", 4);
	check(PLAIN, text, "15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15");
}

static void a_merge_whose_right_side_grew_waits_for_its_own_rank(void **state)
{
	(void)state;
	const char *json =
	    FILE_OF(PRE("") "," MODEL_OF("", VOCAB ",\"d\":26,\"bcd\":27", "\"b c\",\"a b\",\"bc d\",\"a bc\""));
	char text[100] = "";
	check(json, "abcd", "0 27");
	/* Past the length up to which words are scanned; x is dropped. */
	memset(text, 'x', 70);
	check(json, strcat(text, "abcd"), "0 27");
}

static void a_megabyte_of_spaces_is_one_word(void **state)
{
	(void)state;
	enum { BYTES = 1000000 };
	struct dsa_tokenizer *tokenizer =
	    parsed(FILE_OF(REGEX("\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," MODEL));
	struct dsa_ids ids = {0};
	struct dsa_error err;
	char *text = malloc(BYTES + 1);
	assert_non_null(text);
	memset(text, ' ', BYTES);
	text[BYTES] = 'a';
	assert_int_equal(dsa_tokenizer_encode(tokenizer, text, BYTES + 1, false, &ids, &err), DSA_OK);
	/* All spaces but the last, in pairs and one over; that one; the letter. */
	assert_int_equal(ids.count, BYTES / 2 + 2);
	assert_int_equal(ids.ids[0], 23);
	assert_int_equal(ids.ids[ids.count - 1], 0);
	free(text);
	dsa_ids_release(&ids);
	dsa_tokenizer_close(tokenizer);
}

static void every_split_behaviour_cuts_as_the_reference(void **state)
{
	(void)state;
#define EVERY(behavior, invert, one, empty, string)                                                                    \
	check(FILE_OF(PRE(SPLIT("Regex", "b", behavior, invert)) "," MODEL), "abbcaab", one);                          \
	check(FILE_OF(PRE(SPLIT("Regex", "b*", behavior, invert)) "," MODEL), "abbcaab", empty);                       \
	check(FILE_OF(PRE(SPLIT("String", "ab", behavior, invert)) "," MODEL), "cababab", string)
	EVERY("Isolated", "false", "0 1 1 2 18 1", "0 1 1 2 0 0 1", "2 14 14 14");
	EVERY("Isolated", "true", "0 1 1 2 18 1", "0 1 1 2 0 0 1", "2 14 14 14");
	EVERY("Removed", "false", "0 2 18", "0 2 0 0", "2");
	EVERY("Removed", "true", "1 1 1", "1 1 1", "14 14 14");
	EVERY("MergedWithPrevious", "false", "14 1 2 0 14", "14 1 2 0 14", "2 14 14 14");
	EVERY("MergedWithPrevious", "true", "0 1 24 18 1", "0 1 24 0 0 1", "2 14 14 14");
	EVERY("MergedWithNext", "false", "0 1 24 18 1", "0 1 24 0 0 1", "2 14 14 14");
	EVERY("MergedWithNext", "true", "14 1 2 0 14", "14 1 2 0 14", "2 14 14 14");
	EVERY("Contiguous", "false", "0 1 1 2 18 1", "0 1 1 2 0 0 1", "2 14 14 14");
	check(FILE_OF(PRE(SPLIT("Regex", "a", "MergedWithNext", "true")) "," MODEL), "baa", "25 0");
	check(FILE_OF(PRE(SPLIT("Regex", "a", "MergedWithPrevious", "false")) "," MODEL), "baa", "25 0");
	EVERY("Contiguous", "true", "0 1 1 2 18 1", "0 1 1 2 0 0 1", "2 14 14 14");
}

static void a_mongolian_vowel_separator_is_no_space(void **state)
{
	(void)state;
	const char *text = "a\xe1\xa0\x8e"
			   "b a\xe2\x80\xa9"
			   "b";
	check(FILE_OF(PRE(SPLIT("Regex", "\\\\s", "Removed", "false")) "," MODEL), text, "14 0 1");
	check(FILE_OF(PRE(SPLIT("Regex", "[^\\\\S]", "Removed", "false")) "," MODEL), text, "14 0 1");
}

static void categories_are_those_of_unicode_16(void **state)
{
	(void)state;
	/* U+105C0 became a letter in Unicode 16, U+1E6C0 in 17. */
	check(FILE_OF(PRE(SPLIT("Regex", "\\\\P{L}", "Removed", "false")) "," MODEL),
	      "a\xf0\x90\x97\x80"
	      "b a\xf0\x9e\x9b\x80"
	      "b",
	      "14 0 1");
}

static void byte_level_puts_a_space_and_cuts_words(void **state)
{
	(void)state;
	const char *json = FILE_OF("\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
	                           "\"trim_offsets\":true}," MODEL);
	check(json, "ab a's  a12", "17 16 20 3 16 22");
	check(json, " ab", "17");
}

static void digits_stand_alone_or_together(void **state)
{
	(void)state;
	const char *text = "a1212\xe2\x85\xa7"
			   "b";
	check(FILE_OF(PRE("{\"type\":\"Digits\",\"individual_digits\":false},") "," MODEL), text, "0 22 22 1");
	check(FILE_OF(PRE("{\"type\":\"Digits\",\"individual_digits\":true},") "," MODEL), text, "0 7 8 7 8 1");
}

static void text_is_composed(void **state)
{
	(void)state;
	const char *json =
	    FILE_OF("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}," PRE("") "," MODEL);
	check(json, "e\xcc\x81", "21");
	check(json, "e\xcc\xa7\xcc\x81", "10");
	check(json, "e\xcc\x81\xcc\xa7", "10");
	check(json, "\xc3\xa9", "21");
	/* U+0899 is a mark since Unicode 14 only, too late for the reference's tables: it keeps e and U+0301 apart. */
	check(json, "e\xe0\xa2\x99\xcc\x81", "11");
	char text[200] = "e";
	for (size_t i = 0; i < 30; i++)
		strcat(text, "\xcc\x81\xcc\xa7");
	check(json, strcat(text, "b"), "10 1");
}

static void added_tokens_are_found_as_their_flags_say(void **state)
{
	(void)state;
#define TOKEN(id, content, single, left, right, normalized)                                                            \
	"{\"id\":" id ",\"content\":\"" content "\",\"single_word\":" single ",\"lstrip\":" left ",\"rstrip\":" right  \
	",\"normalized\":" normalized ",\"special\":true}"
	const char *json = FILE_OF("\"added_tokens\":[" TOKEN("40", "<c>", "false", "false", "false", "false") "," TOKEN(
	    "27", "<c><c>",
	    "false", "false", "false",
	    "false") "," TOKEN("14", "ab", "true", "false", "false",
	                       "false") "," TOKEN("28", "<l>", "false", "true", "false",
	                                          "false") "," TOKEN("29", "<r>", "false", "false", "true",
	                                                             "false") "," TOKEN("30", "e\\u0301", "false",
	                                                                                "false", "false",
	                                                                                "true") "," TOKEN("31",
	                                                                                                  "\\u00e9s",
	                                                                                                  "false",
	                                                                                                  "false",
	                                                                                                  "false",
	                                                                                                  "false") "],"
	                                                                                                           "\"n"
	                                                                                                           "orm"
	                                                                                                           "ali"
	                                                                                                           "zer"
	                                                                                                           "\":"
	                                                                                                           "{\""
	                                                                                                           "typ"
	                                                                                                           "e\""
	                                                                                                           ":\""
	                                                                                                           "NFC"
	                                                                                                           "\"}"
	                                                                                                           "," PRE(
														       "") "," MODEL);
	check(json, "a<c><c><c>b", "0 27 40 1");
	check(json, "ab abc ab", "14 17 2 3 14");
	check(json, "a <l> b", "0 28 3 1");
	check(json, "a <r>  b", "0 3 29 1");
	check(json, "ce\xcc\x81 e\xcc\x81s \xc3\xa9s", "2 30 3 30 6 3 31");
	check(json, "\xc3\xa9", "30");
	check(json, "a<r> <l>", "0 29 28");
	check(json, "<r>\n\n<r>", "29 29");
	struct dsa_tokenizer *tokenizer = parsed(json);
	assert_int_equal(dsa_tokenizer_size(tokenizer), 41);
	dsa_tokenizer_close(tokenizer);
}

#define TEMPLATE(single)                                                                                               \
	"{\"type\":\"TemplateProcessing\",\"single\":[" single                                                         \
	"],\"pair\":[],\"special_tokens\":{\"x\":{\"id\":\"x\","                                                       \
	"\"ids\":[7,8],\"tokens\":[\"1\",\"2\"]},\"y\":{\"id\":\"y\",\"ids\":[2],\"tokens\":[\"c\"]}}}"
#define SPECIAL(id) "{\"SpecialToken\":{\"id\":\"" id "\",\"type_id\":0}}"
#define SEQUENCE(id) "{\"Sequence\":{\"id\":\"" id "\",\"type_id\":0}}"

static void a_template_stands_around_the_text(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer =
	    parsed(FILE_OF("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[" LEVEL
	                   "," TEMPLATE(SPECIAL("x") "," SEQUENCE("A") "," SPECIAL("y")) "]}," PRE("") "," MODEL));
	check_ids(tokenizer, "ab", 2, true, "7 8 14 2");
	check_ids(tokenizer, "ab", 2, false, "14");
	check_ids(tokenizer, "", 0, true, "7 8 2");
	assert_int_equal(dsa_tokenizer_size(tokenizer), 41);
	dsa_tokenizer_close(tokenizer);
}

static void the_size_counts_the_template(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer = parsed(FILE_OF("\"post_processor\":" TEMPLATE(
	    SEQUENCE("A") "," SPECIAL("x")) "," PRE("") "," MODEL_OF("", "\"a\":0,\"b\":1", "")));
	assert_int_equal(dsa_tokenizer_size(tokenizer), 9);
	dsa_tokenizer_close(tokenizer);
}

static void the_demo_tokenizer_gives_the_reference_ids(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer;
	struct dsa_error err = {""};
	if (dsa_tokenizer_open(&tokenizer, "calib_data/demo/tokenizer.json", &err))
		fail_msg("%s", err.text);
	const char *text = "Hello world  x 123456 \xe4\xbd\xa0\xe5\xa5\xbd \xef\xb7\xbd\n";
	check_ids(
	    tokenizer, text, strlen(text), true,
	    "1 43 654 82 282 273 691 224 1786 224 669 22 23 1120 224 164 125 258 165 102 125 224 175 119 125 202");
	assert_int_equal(dsa_tokenizer_size(tokenizer), 2048);
	dsa_tokenizer_close(tokenizer);
}

static void what_is_not_utf8_is_refused_and_leaves_the_ids_alone(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer = parsed(PLAIN);
	struct dsa_ids ids = {0};
	struct dsa_error err;
	assert_int_equal(dsa_ids_append(&ids, 77, &err), DSA_OK);
	static const struct {
		const char *text;
		const char *where;
	} cases[] = {{"abcdefghij\xff", "byte 10 (0xff)"},
	             {"a\xc0\x80", "byte 1 (0xc0)"},         /* overlong */
	             {"ab\xed\xa0\x80", "byte 2 (0xed)"},    /* a surrogate */
	             {"\xf4\x90\x80\x80", "byte 0 (0xf4)"},  /* past U+10FFFF */
	             {"\xc3\xa9\xe2\x82", "byte 2 (0xe2)"}}; /* cut */
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(
		    dsa_tokenizer_encode(tokenizer, cases[i].text, strlen(cases[i].text), true, &ids, &err),
		    DSA_E_INPUT);
		assert_non_null(strstr(err.text, cases[i].where));
		assert_int_equal(ids.count, 1);
		assert_int_equal(ids.ids[0], 77);
	}
	dsa_ids_release(&ids);
	/* NUL is a character like others. */
	check_ids(tokenizer, "a\0b", 3, true, "14");
	dsa_tokenizer_close(tokenizer);
}

static void a_pattern_that_would_run_forever_is_an_error(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer = parsed(FILE_OF(REGEX("(?:a|aa|aaa)+b") "," MODEL));
	struct dsa_ids ids = {0};
	struct dsa_error err = {""};
	char text[100] = "ab"; /* a first word that goes well */
	memset(text + 2, 'a', 80);
	strcat(text, "cb");
	assert_int_equal(dsa_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "pattern gives up on a text of 84 bytes"));
	assert_int_equal(ids.count, 0);
	/* And goes on with the next document. */
	check_ids(tokenizer, "cab", 3, true, "2 14");
	dsa_ids_release(&ids);
	dsa_tokenizer_close(tokenizer);
}

struct reader {
	const struct dsa_tokenizer *tokenizer;
	struct dsa_ids ids;
	enum dsa_status status;
};

static void *encode_often(void *argument)
{
	struct reader *reader = argument;
	char text[200];
	for (int i = 0; i < 500 && !reader->status; i++) {
		int length = snprintf(text, sizeof text, "ab e\xcc\x81 %d<r> a's %*s", i % 97, i % 80, "a");
		reader->status =
		    dsa_tokenizer_encode(reader->tokenizer, text, (size_t)length, true, &reader->ids, NULL);
	}
	return NULL;
}

static void threads_may_share_a_tokenizer(void **state)
{
	(void)state;
	enum { THREADS = 4 };
	struct dsa_tokenizer *tokenizer =
	    parsed(FILE_OF("\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\","
	                   "\"add_prefix_space\":true,\"trim_offsets\":true}," MODEL));
	struct reader alone = {.tokenizer = tokenizer}, readers[THREADS];
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++) {
		readers[i] = (struct reader){.tokenizer = tokenizer};
		assert_int_equal(pthread_create(threads + i, NULL, encode_often, readers + i), 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	encode_often(&alone);
	assert_int_equal(alone.status, DSA_OK);
	assert_true(alone.ids.count > 5000);
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(readers[i].status, DSA_OK);
		assert_int_equal(readers[i].ids.count, alone.ids.count);
		assert_memory_equal(readers[i].ids.ids, alone.ids.ids, alone.ids.count * sizeof *alone.ids.ids);
		dsa_ids_release(&readers[i].ids);
	}
	dsa_ids_release(&alone.ids);
	dsa_tokenizer_close(tokenizer);
}

/* ---- What is refused ---- */

static void check_refused(const char *json, size_t bytes, const char *cause)
{
	struct dsa_tokenizer *tokenizer;
	struct dsa_error err = {""};
	enum dsa_status status = dsa_tokenizer_parse(&tokenizer, json, bytes, "t.json", &err);
	if (status != DSA_E_INPUT || strncmp(err.text, "t.json", 6) || !strstr(err.text, cause) ||
	    strchr(err.text, '\n'))
		fail_msg("status %d, \"%s\", expected \"%s\"", (int)status, err.text, cause);
	assert_null(tokenizer);
}

static void damaged_files_are_refused_in_one_line(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
	    {"", "not valid JSON"},
	    {"[]", "the file is an array"},
	    {"{}", "pre_tokenizer is nothing"},
	    {"{\"version\":\"2.0\"}", "version is \"2.0\""},
	    {FILE_OF(PRE("") "," PRE("") "," MODEL), "duplicate"},
	    {FILE_OF(PRE("")), "model is nothing"},
	    {FILE_OF(PRE("") ",\"model\":[]"), "model is an array"},
	    {FILE_OF(PRE("") ",\"model\":{\"vocab\":[]}"), "model.vocab is an array"},
	    {FILE_OF(PRE("") ",\"model\":{\"vocab\":{\"a\":0}}"), "model.merges is nothing"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "", "")), "vocabulary is empty"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":0,\"a\":1", "")), "duplicate"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":3,\"b\":3", "")), "two vocab entries have id 3"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":-1", "")), "has id -1"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":2147483647", "")), "has id 2147483647"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":99999999999999999999", "")), "not valid JSON"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":\"0\"", "")), "\"a\" is a string"},
	    {FILE_OF(PRE("") "," MODEL_OF("", "\"a\":1.5", "")), "\"a\" is a real number"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\",\"x\"]")), "merge 0 needs \"x\""},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "\"a b\",\"c c\"")), "merge 1 needs \"cc\""},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "\"ab\"")), "merge 0 is not two vocab entries"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "\"a b c\"")), "merge 0 is not two vocab entries"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "\"a b\\u0000\"")), "merge 0 is not two vocab entries"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\"]")), "merge 0 is not a pair"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\",1]")), "merge 0 is not a pair"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "[\"a\",\"b\"],\"a a\"")), "merge 1 is a string"},
	    {FILE_OF(PRE("") "," MODEL_OF("", VOCAB, "7")), "merge 0 is not two vocab entries"},
	    {FILE_OF(PRE("") ",\"added_tokens\":{}," MODEL), "added_tokens is an object"},
	    {FILE_OF(PRE("") ",\"added_tokens\":[3]," MODEL), "added_tokens[0] is an integer"},
	    {FILE_OF(PRE("") ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," MODEL), "single_word is missing"},
	    {FILE_OF(PRE("") ",\"added_tokens\":[{\"id\":-7,\"content\":\"x\"}]," MODEL), "id is -7"},
	    {FILE_OF("\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[" TOKEN(
		 "41", "\\u00e9", "false", "false", "false", "true") "," TOKEN("42", "e\\u0301", "false", "false",
	                                                                       "false", "true") "]," PRE("") "," MODEL),
	     "two added tokens are"},
	    {FILE_OF(PRE("{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false},") "," MODEL),
	     "without exactly one of String and Regex"},
	    {FILE_OF(PRE(SPLIT("String", "", "Isolated", "false")) "," MODEL), "the pattern is empty"},
	    {FILE_OF(REGEX("(a") "," MODEL), "( without )"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(cases[i][0], strlen(cases[i][0]), cases[i][1]);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
	(void)state;
	const char *whole = FILE_OF(REGEX("a|b") "," MODEL);
	for (size_t bytes = 0; bytes < strlen(whole); bytes++)
		check_refused(whole, bytes, "t.json");
}

static void a_million_brackets_are_refused(void **state)
{
	(void)state;
	enum { DEPTH = 1000000 };
	char *text = malloc(DEPTH);
	assert_non_null(text);
	memset(text, '[', DEPTH);
	check_refused(text, DEPTH, "nested deeper");
	free(text);
}

static void what_would_change_ids_is_refused_by_name(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
	    {FILE_OF("\"truncation\":{\"max_length\":9}," PRE("") "," MODEL), "truncation"},
	    {FILE_OF("\"padding\":{\"strategy\":{\"Fixed\":9}}," PRE("") "," MODEL), "padding"},
	    {FILE_OF("\"normalizer\":{\"type\":\"Lowercase\"}," PRE("") "," MODEL), "type is Lowercase"},
	    {FILE_OF("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"}]}," PRE("") "," MODEL),
	     "type is NFKC"},
	    {FILE_OF("\"pre_tokenizer\":{\"type\":\"Metaspace\"}," MODEL), "type is Metaspace"},
	    {FILE_OF("\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":true}," MODEL), "has no ByteLevel"},
	    {FILE_OF(PRE(LEVEL ",{\"type\":\"Digits\",\"individual_digits\":true},") "," MODEL),
	     "Digits comes after ByteLevel"},
	    {FILE_OF(PRE(SPLIT("Regex", "a", "Sideways", "false")) "," MODEL), "behavior is Sideways"},
	    {FILE_OF("\"post_processor\":{\"type\":\"RobertaProcessing\"}," PRE("") "," MODEL), "RobertaProcessing"},
	    {FILE_OF("\"post_processor\":" TEMPLATE(SPECIAL("z") "," SEQUENCE("A")) "," PRE("") "," MODEL),
	     "no ids for \"z\""},
	    {FILE_OF("\"post_processor\":" TEMPLATE(SEQUENCE("B")) "," PRE("") "," MODEL), "single[0]"},
	    {FILE_OF("\"post_processor\":" TEMPLATE(SPECIAL("x")) "," PRE("") "," MODEL), "no Sequence A"},
	    {FILE_OF(PRE("") "," MODEL_OF("\"dropout\":0.1,", VOCAB, PAIRS)), "dropout is 0.1"},
	    {FILE_OF(PRE("") "," MODEL_OF("\"byte_fallback\":true,", VOCAB, PAIRS)), "byte_fallback"},
	    {FILE_OF(PRE("") "," MODEL_OF("\"unk_token\":\"a\",", VOCAB, PAIRS)), "unk_token"},
	    {FILE_OF(PRE("") "," MODEL_OF("\"end_of_word_suffix\":\"x\",", VOCAB, PAIRS)), "end_of_word_suffix"},
	    {FILE_OF(PRE("") ",\"model\":{\"type\":\"Unigram\"}"), "the model is Unigram"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(cases[i][0], strlen(cases[i][0]), cases[i][1]);
}

static void patterns_that_the_engines_read_differently_are_refused(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
	    {FILE_OF(REGEX("\\\\w+") "," MODEL), "\\w"},
	    {FILE_OF(REGEX("a\\\\b") "," MODEL), "\\b"},
	    {FILE_OF(REGEX("\\\\h") "," MODEL), "\\h"},
	    {FILE_OF(REGEX("[\\\\R]") "," MODEL), "\\R"},
	    {FILE_OF(REGEX("(a)\\\\1") "," MODEL), "\\1"},
	    {FILE_OF(REGEX("\\\\x85") "," MODEL), "\\x that is not"},
	    {FILE_OF(REGEX("\\\\p{Han}") "," MODEL), "general category"},
	    {FILE_OF(REGEX("^a") "," MODEL), "an anchor"},
	    {FILE_OF(REGEX("a$") "," MODEL), "an anchor"},
	    {FILE_OF(REGEX("[a[b]]") "," MODEL), "class inside a class"},
	    {FILE_OF(REGEX("[a&&b]") "," MODEL), "class inside a class"},
	    {FILE_OF(REGEX("[[:alpha:]]") "," MODEL), "class inside a class"},
	    {FILE_OF(REGEX("[a-\\\\s]") "," MODEL), "range that does not end"},
	    {FILE_OF(REGEX("[\\\\s-a]") "," MODEL), "a - that is neither"},
	    {FILE_OF(REGEX("a{1,3}+") "," MODEL), "interval with +"},
	    {FILE_OF(REGEX("a{3}?") "," MODEL), "interval with +"},
	    {FILE_OF(REGEX("a{,3}") "," MODEL), "a { that is not"},
	    {FILE_OF(REGEX("a**") "," MODEL), "a quantifier with nothing"},
	    {FILE_OF(REGEX("(*UCP)a") "," MODEL), "a quantifier with nothing"},
	    {FILE_OF(REGEX("(?i)a") "," MODEL), "a group other than"},
	    {FILE_OF(REGEX("(?<n>a)") "," MODEL), "a group other than"},
	    {FILE_OF(REGEX("(?i:st)") "," MODEL), "ss, st, ff, fi or fl"},
	    {FILE_OF(REGEX("(?i:\\\\p{Lu})") "," MODEL), "\\p inside (?i:"},
	    /* Half of the range has a stand-in outside of it. */
	    {FILE_OF(REGEX("[\\u0870-\\u08ff]|[\\ud803\\udd40-\\ud803\\udd45]") "," MODEL), "unassigned before"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		check_refused(cases[i][0], strlen(cases[i][0]), cases[i][1]);
}

static void a_file_that_is_not_there_is_missing(void **state)
{
	(void)state;
	struct dsa_tokenizer *tokenizer;
	struct dsa_error err = {""};
	assert_int_equal(dsa_tokenizer_open(&tokenizer, "/nonexistent/tokenizer.json", &err), DSA_E_MISSING);
	assert_null(tokenizer);
	dsa_tokenizer_close(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_lowest_rank_is_merged_first_then_the_leftmost),
	    cmocka_unit_test(bytes_without_a_letter_are_dropped),
	    cmocka_unit_test(of_equal_merges_the_last_counts),
	    cmocka_unit_test(ignore_merges_takes_whole_words),
	    cmocka_unit_test(words_too_long_to_scan_merge_alike),
	    cmocka_unit_test(a_merge_whose_right_side_grew_waits_for_its_own_rank),
	    cmocka_unit_test(a_megabyte_of_spaces_is_one_word),
	    cmocka_unit_test(every_split_behaviour_cuts_as_the_reference),
	    cmocka_unit_test(a_mongolian_vowel_separator_is_no_space),
	    cmocka_unit_test(categories_are_those_of_unicode_16),
	    cmocka_unit_test(byte_level_puts_a_space_and_cuts_words),
	    cmocka_unit_test(digits_stand_alone_or_together),
	    cmocka_unit_test(text_is_composed),
	    cmocka_unit_test(added_tokens_are_found_as_their_flags_say),
	    cmocka_unit_test(a_template_stands_around_the_text),
	    cmocka_unit_test(the_size_counts_the_template),
	    cmocka_unit_test(the_demo_tokenizer_gives_the_reference_ids),
	    cmocka_unit_test(what_is_not_utf8_is_refused_and_leaves_the_ids_alone),
	    cmocka_unit_test(a_pattern_that_would_run_forever_is_an_error),
	    cmocka_unit_test(threads_may_share_a_tokenizer),
	    cmocka_unit_test(damaged_files_are_refused_in_one_line),
	    cmocka_unit_test(a_file_cut_anywhere_is_refused),
	    cmocka_unit_test(a_million_brackets_are_refused),
	    cmocka_unit_test(what_would_change_ids_is_refused_by_name),
	    cmocka_unit_test(patterns_that_the_engines_read_differently_are_refused),
	    cmocka_unit_test(a_file_that_is_not_there_is_missing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
