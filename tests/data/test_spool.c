#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "../../src/data/spool_format.h"
#include "data/fake_tokenizer.h"
#include "data/scratch.h"
#include "dsa/hash.h"
#include "dsa/spool.h"

enum { K = 8, CONTEXT = 24 };

struct collected {
	char text[4096];
};

static void collect(void *context, enum dsa_log_level level, const char *line)
{
	struct collected *collected = context;
	size_t used = strlen(collected->text);
	snprintf(collected->text + used, sizeof collected->text - used, "%s%s\n",
	         level == DSA_LOG_WARN ? "warning: " : "", line);
}

static struct dsa_spool_options options_for(const struct dsa_corpus_source *sources, int count)
{
	return (struct dsa_spool_options){
	    .sources = sources, .count = count, .context = CONTEXT, .topk = K, .holdout = 0.25, .batch_tokens = 60};
}

static void put_ids(FILE *file, int first, int step, int modulus, int count)
{
	fprintf(file, "{\"input_ids\":[");
	for (int j = 0; j < count; j++)
		fprintf(file, "%s%d", j ? "," : "", (first + j * step) % modulus);
	fprintf(file, "]}\n");
}

/* 14 documents of 14 to 30 tokens, the fourth again, one of K+1 tokens and an empty one. */
static void write_numbers(const char *path)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	for (int i = 0; i < 14; i++)
		put_ids(file, i * 31, 7, 97, 14 + i * 7 % 17);
	put_ids(file, 3 * 31, 7, 97, 14 + 3 * 7 % 17);
	put_ids(file, 5, 0, 97, 9);
	put_ids(file, 0, 0, 97, 0);
	assert_int_equal(fclose(file), 0);
}

/* n different documents of `tokens` tokens. */
static void write_documents(const char *path, int n, int tokens)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	for (int i = 0; i < n; i++)
		put_ids(file, i, 1, 97, tokens);
	assert_int_equal(fclose(file), 0);
}

static struct dsa_spool *written(const char *path, const struct dsa_spool_options *options, const struct dsa_log *log)
{
	struct dsa_error err;
	struct dsa_spool *spool;
	static const struct dsa_tokenizer tokenizer;
	if (dsa_spool_write(path, options, &tokenizer, FAKE_VOCAB, log, &err))
		fail_msg("%s", err.text);
	if (dsa_spool_open(&spool, path, &err))
		fail_msg("%s", err.text);
	return spool;
}

static void assert_not_written(struct scratch *scratch, const struct dsa_spool_options *options, enum dsa_status code,
                               const char *why)
{
	struct dsa_error err;
	char path[256];
	static const struct dsa_tokenizer tokenizer;
	snprintf(path, sizeof path, "%s/refused", scratch->root);
	int before = scratch_entries(scratch);
	assert_int_equal(dsa_spool_write(path, options, &tokenizer, FAKE_VOCAB, NULL, &err), code);
	if (!strstr(err.text, why))
		fail_msg("'%s' is not in '%s'", why, err.text);
	assert_int_equal(scratch_entries(scratch), before);
}

/* Split, order and batches as computed by an independent program (hashlib, math.floor(P * n + 0.5), sorted). */
static void split_order_and_batches_are_the_known_ones(void **state)
{
	static const int order[2][15] = {{5, 4, 0, 7, 2, 9, 3, 14, 11, 8, 6, 1, 10, 13, 12},
	                                 {5, 7, 9, 8, 4, 11, 2, 3, 14, 0, 6, 1, 13, 10, 12}};
	static const int batches[2][7][5] = {{{0, 0, 3, 53, 26},
	                                      {0, 3, 2, 48, 30},
	                                      {0, 5, 3, 60, 33},
	                                      {0, 8, 2, 42, 24},
	                                      {0, 10, 1, 22, 13},
	                                      {1, 11, 3, 57, 30},
	                                      {1, 14, 1, 24, 15}},
	                                     {{0, 0, 2, 39, 21},
	                                      {0, 2, 2, 43, 25},
	                                      {0, 4, 2, 47, 29},
	                                      {0, 6, 3, 60, 33},
	                                      {0, 9, 2, 36, 18},
	                                      {1, 11, 3, 57, 30},
	                                      {1, 14, 1, 24, 15}}};
	struct scratch *scratch = *state;
	char path[256], hex[DSA_HASH_HEX];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	write_numbers(scratch_path(scratch, "numbers.jsonl"));
	struct dsa_corpus_source source = {.path = scratch_path(scratch, "numbers.jsonl"), .weight = 2};
	struct dsa_spool_options options = options_for(&source, 1);
	for (int seeded = 0; seeded < 2; seeded++) {
		options.seed = seeded ? 12345 : 0;
		struct dsa_spool *spool = written(path, &options, NULL);
		for (int i = 0; i < 15; i++)
			assert_int_equal(dsa_spool_order(spool, i), order[seeded][i]);
		assert_int_equal(dsa_spool_batches(spool), 7);
		for (int i = 0; i < 7; i++) {
			const struct dsa_batch *batch = dsa_spool_batch(spool, i);
			assert_int_equal(batch->corpus, 0);
			assert_int_equal(batch->split, batches[seeded][i][0]);
			assert_int_equal(batch->first, batches[seeded][i][1]);
			assert_int_equal(batch->count, batches[seeded][i][2]);
			assert_int_equal(batch->tokens, batches[seeded][i][3]);
			assert_int_equal(batch->scored, batches[seeded][i][4]);
		}
		assert_int_equal(dsa_spool_documents(spool), 17);
		for (int i = 0; i < 15; i++) {
			const struct dsa_spool_document *document = dsa_spool_document(spool, i);
			bool held_out = i == 1 || i == 10 || i == 13 || i == 12;
			assert_int_equal(document->split, held_out ? DSA_HELDOUT : DSA_CALIBRATION);
			assert_int_equal(document->scored, document->tokens - 1 - K);
		}
		const struct dsa_spool_document *document = dsa_spool_document(spool, 0);
		dsa_hash_hex(document->hash, hex);
		assert_string_equal(hex, "a2462f32c199426ca42b10f67ce0026598f4915457d4d10153403811a2d869f8");
		assert_int_equal(document->tokens, 14);
		for (int j = 0; j < 14; j++) {
			assert_int_equal(document->ids[j], j * 7 % 97);
			assert_int_equal(document->target[j], 1);
		}
		dsa_spool_close(spool);
	}
}

static void counts_and_warnings_tell_what_happened_to_every_document(void **state)
{
	struct scratch *scratch = *state;
	struct collected collected = {{0}};
	struct dsa_log log = {collect, &collected};
	char path[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	write_numbers(scratch_path(scratch, "numbers.jsonl"));
	struct dsa_corpus_source source = {.path = scratch_path(scratch, "numbers.jsonl"), .weight = 2};
	struct dsa_spool_options options = options_for(&source, 1);
	struct dsa_spool *spool = written(path, &options, &log);
	const struct dsa_spool_corpus *corpus = dsa_spool_corpus(spool, 0);
	assert_int_equal(dsa_spool_corpora(spool), 1);
	assert_int_equal(dsa_spool_vocab(spool), FAKE_VOCAB);
	assert_string_equal(corpus->name, "numbers");
	assert_true(corpus->weight == 2);
	assert_int_equal(corpus->documents, 17);
	assert_int_equal(corpus->unscored, 2);
	assert_int_equal(corpus->cut, 5);
	assert_int_equal(corpus->cut_tokens, 18);
	assert_int_equal(corpus->duplicates, 1);
	assert_int_equal(corpus->tokens, 315);
	assert_int_equal(corpus->scored, 171);
	assert_int_equal(corpus->documents_in[DSA_CALIBRATION], 11);
	assert_int_equal(corpus->documents_in[DSA_HELDOUT], 4);
	assert_int_equal(corpus->scored_in[DSA_CALIBRATION], 126);
	assert_int_equal(corpus->scored_in[DSA_HELDOUT], 45);
	assert_string_equal(
	    collected.text,
	    "corpus numbers: 17 documents, 315 tokens, 171 scored; 11 documents to calibrate on, 4 held out\n"
	    "warning: corpus numbers: 5 documents cut to --context 24, 18 tokens cut away\n"
	    "warning: corpus numbers: 2 of 17 documents have no scored token (K = 8) and take part in nothing\n"
	    "warning: corpus numbers: 1 documents repeat another one; they are kept, and may stand on both sides of "
	    "the held-out split\n");
	dsa_spool_close(spool);
}

static void held_out_share_is_rounded_half_up_and_leaves_one_on_each_side(void **state)
{
	static const struct {
		int documents;
		double share;
		int held_out;
	} cases[] = {{10, 0.25, 3}, {10, 0.24, 2}, {9, 0.2, 2},  {6, 0.25, 2}, {5, 0.01, 1},
	             {5, 0.9, 4},   {5, 0.2, 1},   {4, 0.25, 0}, {1, 0.25, 0}, {10, 0, 0}};
	struct scratch *scratch = *state;
	char path[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	struct dsa_corpus_source source = {.name = "few", .weight = 1};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct collected collected = {{0}};
		struct dsa_log log = {collect, &collected};
		source.path = scratch_path(scratch, "few.jsonl");
		write_documents(source.path, cases[i].documents, 12);
		struct dsa_spool_options options = options_for(&source, 1);
		options.holdout = cases[i].share;
		struct dsa_spool *spool = written(path, &options, &log);
		const struct dsa_spool_corpus *corpus = dsa_spool_corpus(spool, 0);
		assert_int_equal(corpus->documents_in[DSA_HELDOUT], cases[i].held_out);
		assert_int_equal(corpus->documents_in[DSA_CALIBRATION], cases[i].documents - cases[i].held_out);
		bool warned = strstr(collected.text, "warning: corpus few: nothing held out") != NULL;
		assert_int_equal(warned, cases[i].documents < 5);
		dsa_spool_close(spool);
	}
}

static void only_late_targets_are_scored(void **state)
{
	struct scratch *scratch = *state;
	char path[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	/* 1 + 8 prompt tokens, then 4: positions 8 to 11 have a target; in the mask only 9 and 12 of those count */
	const char *text = "{\"prompt\":\"12345678\",\"completion\":\"abcd\"}\n"
			   "{\"prompt\":\"1234\",\"completion\":\"abcdefgh\"}\n"
			   "{\"input_ids\":[0,1,2,3,4,5,6,7,8,9,10,11,12],"
			   "\"loss_mask\":[1,1,1,1,1,1,1,1,1,1,0,0,1]}\n"
			   "{\"text\":\"123456789\"}\n"
			   "{\"text\":\"12345678\"}\n";
	struct dsa_corpus_source source = {.path = scratch_text(scratch, "late.jsonl", text), .weight = 1};
	struct dsa_spool_options options = options_for(&source, 1);
	struct dsa_spool *spool = written(path, &options, NULL);
	static const int scored[] = {4, 4, 2, 1, 0};
	for (int i = 0; i < 5; i++)
		assert_int_equal(dsa_spool_document(spool, i)->scored, scored[i]);
	const struct dsa_spool_document *document = dsa_spool_document(spool, 2);
	for (int t = -1; t < 14; t++)
		assert_int_equal(dsa_spool_is_scored(document, K, t), t == 8 || t == 11);
	dsa_spool_close(spool);
}

static void batches_never_mix_corpora_and_a_long_document_stands_alone(void **state)
{
	struct scratch *scratch = *state;
	char path[256], other[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	snprintf(other, sizeof other, "%s/other.jsonl", scratch->root);
	write_documents(other, 3, 20);
	struct dsa_corpus_source sources[] = {{.path = scratch_path(scratch, "few.jsonl"), .weight = 1},
	                                      {.path = other, .weight = 0.5}};
	write_documents(sources[0].path, 6, 12);
	struct dsa_spool_options options = options_for(sources, 2);
	options.batch_tokens = 13;
	struct dsa_spool *spool = written(path, &options, NULL);
	assert_int_equal(dsa_spool_batches(spool), 9);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(dsa_spool_batch(spool, i)->count, 1);
		assert_int_equal(dsa_spool_batch(spool, i)->first, i);
		assert_int_equal(dsa_spool_batch(spool, i)->corpus, i >= 6);
		assert_int_equal(dsa_spool_batch(spool, i)->split, i == 4 || i == 5);
		assert_int_equal(dsa_spool_batch(spool, i)->tokens, i < 6 ? 12 : 20);
	}
	assert_string_equal(dsa_spool_corpus(spool, 1)->name, "other");
	dsa_spool_close(spool);
	options.batch_tokens = 1000;
	spool = written(path, &options, NULL);
	assert_int_equal(dsa_spool_batches(spool), 3);
	dsa_spool_close(spool);
}

static void reading_stops_after_the_document_that_reaches_max_tokens(void **state)
{
	struct scratch *scratch = *state;
	char path[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	struct dsa_corpus_source source = {.path = scratch_path(scratch, "few.jsonl"), .weight = 1};
	write_documents(source.path, 10, 12);
	struct dsa_spool_options options = options_for(&source, 1);
	static const int expected[][2] = {{0, 10}, {1, 1}, {12, 1}, {13, 2}, {24, 2}, {25, 3}, {121, 10}};
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		options.max_tokens = expected[i][0];
		struct dsa_spool *spool = written(path, &options, NULL);
		assert_int_equal(dsa_spool_documents(spool), expected[i][1]);
		dsa_spool_close(spool);
	}
}

static void the_same_corpora_and_settings_give_the_same_identity(void **state)
{
	struct scratch *scratch = *state;
	char path[256];
	uint8_t first[32], again[32], seeded[32], file[32];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	struct dsa_corpus_source source = {.path = scratch_text(scratch, "abc", "abc\n"), .weight = 1};
	struct dsa_spool_options options = options_for(&source, 1);
	options.topk = 1;
	struct dsa_spool *spool = written(path, &options, NULL);
	dsa_spool_digest(spool, first);
	char hex[DSA_HASH_HEX];
	dsa_hash_hex(dsa_spool_corpus(spool, 0)->digest, hex);
	assert_string_equal(hex, "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb");
	dsa_spool_close(spool);
	spool = written(path, &options, NULL);
	dsa_spool_digest(spool, again);
	dsa_spool_close(spool);
	options.seed = 1;
	spool = written(path, &options, NULL);
	dsa_spool_digest(spool, seeded);
	dsa_spool_close(spool);
	assert_memory_equal(first, again, 32);
	assert_memory_not_equal(first, seeded, 32);
	dsa_hash_bytes("abc\n", 4, file);
	assert_memory_not_equal(first, file, 32);
}

static void a_corpus_without_signal_is_refused_with_advice(void **state)
{
	struct scratch *scratch = *state;
	struct dsa_corpus_source source = {.name = "short", .path = scratch_path(scratch, "s.jsonl"), .weight = 1};
	struct dsa_spool_options options = options_for(&source, 1);
	write_documents(source.path, 3, K + 1);
	assert_not_written(scratch, &options, DSA_E_INPUT,
	                   "none of its 3 documents has a scored token: the model selects K = 8, so a document counts "
	                   "from 10 tokens on; the longest has 9, --context is 24: use longer documents");
	write_documents(source.path, 3, K + 2);
	options.context = K + 1;
	assert_not_written(scratch, &options, DSA_E_INPUT, "the longest has 10, --context is 9: raise --context");
	scratch_text(scratch, "s.jsonl", "{\"prompt\":\"aaaaaaaaaaaaaaaaaaaaa\",\"completion\":\"\"}\n");
	source.path = scratch_path(scratch, "s.jsonl");
	options.context = CONTEXT;
	assert_not_written(scratch, &options, DSA_E_INPUT, "no completion or loss_mask marks a target that late");
	scratch_text(scratch, "s.jsonl", "");
	source.path = scratch_path(scratch, "s.jsonl");
	assert_not_written(scratch, &options, DSA_E_INPUT, "s.jsonl): no documents in it");
	/* One silent corpus is refused even beside a good one: it has a weight and no figure. */
	char good[256];
	snprintf(good, sizeof good, "%s/good.jsonl", scratch->root);
	write_documents(good, 5, 20);
	struct dsa_corpus_source both[] = {{.path = good, .weight = 1}, source};
	options = options_for(both, 2);
	assert_not_written(scratch, &options, DSA_E_INPUT, "corpus short (");
}

static void options_out_of_range_are_refused(void **state)
{
	struct scratch *scratch = *state;
	char good[256];
	snprintf(good, sizeof good, "%s/good.jsonl", scratch->root);
	write_documents(good, 5, 20);
	struct dsa_corpus_source sources[] = {{.path = good, .weight = 1}, {.path = good, .weight = 1}};
	struct dsa_spool_options options = options_for(sources, 2);
	assert_not_written(scratch, &options, DSA_E_USAGE, "two corpora are called good (");
	sources[1].name = "";
	assert_not_written(scratch, &options, DSA_E_USAGE, "its name is empty");
	sources[1].path = sources[0].path = "-";
	assert_not_written(scratch, &options, DSA_E_USAGE, "--corpus - is given 2 times");
	options = options_for(sources, 1);
	sources[0].path = good;
	sources[0].weight = 0;
	assert_not_written(scratch, &options, DSA_E_USAGE, "weight 0, expected a number above 0");
	sources[0].weight = (double)NAN;
	assert_not_written(scratch, &options, DSA_E_USAGE, "expected a number above 0");
	sources[0].weight = 1;
	options.holdout = 0.91;
	assert_not_written(scratch, &options, DSA_E_USAGE, "--holdout 91%: expected 0% to 90%");
	options.holdout = (double)NAN;
	assert_not_written(scratch, &options, DSA_E_USAGE, "expected 0% to 90%");
	options = options_for(sources, 1);
	options.context = 1;
	assert_not_written(scratch, &options, DSA_E_USAGE, "--context 1: expected at least 2");
	options = options_for(sources, 1);
	options.max_tokens = -1;
	assert_not_written(scratch, &options, DSA_E_USAGE, "--max-tokens -1");
	options = options_for(sources, 1);
	options.batch_tokens = 0;
	assert_not_written(scratch, &options, DSA_E_USAGE, "batches of 0 tokens");
	options = options_for(sources, 0);
	assert_not_written(scratch, &options, DSA_E_USAGE, "no corpus");
	sources[0].path = "/nonexistent/corpus";
	options = options_for(sources, 1);
	assert_not_written(scratch, &options, DSA_E_MISSING, "/nonexistent/corpus: cannot open");
}

static void default_names_are_file_names_without_extensions(void **state)
{
	static const char *const cases[][2] = {{"d/legal.jsonl.zst", "legal"},
	                                       {"d/my.notes.txt", "my.notes"},
	                                       {"d/README", "README"},
	                                       {"d/sub.d//", "sub"},
	                                       {"d/.zst", ".zst"}};
	struct scratch *scratch = *state;
	char path[256], corpus[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	snprintf(corpus, sizeof corpus, "%s/d", scratch->root);
	mkdir(corpus, 0700);
	snprintf(corpus, sizeof corpus, "%s/d/sub.d", scratch->root);
	mkdir(corpus, 0700);
	scratch_text(scratch, "d/sub.d/f", "a document of some length");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(corpus, sizeof corpus, "%s/%s", scratch->root, cases[i][0]);
		if (strstr(cases[i][0], "zst"))
			scratch_zst(scratch, cases[i][0],
			            strstr(cases[i][0], "jsonl") ? "{\"text\":\"a document of some length\"}"
			                                         : "a document of some length");
		else if (!strstr(cases[i][0], "sub"))
			scratch_text(scratch, cases[i][0], "a document of some length");
		struct dsa_corpus_source source = {.path = corpus, .weight = 1};
		struct dsa_spool_options options = options_for(&source, 1);
		struct dsa_spool *spool = written(path, &options, NULL);
		assert_string_equal(dsa_spool_corpus(spool, 0)->name, cases[i][1]);
		dsa_spool_close(spool);
	}
}

/* A small spool's bytes; free() them. */
static uint8_t *small_spool(struct scratch *scratch, size_t *bytes)
{
	char path[256];
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	struct dsa_corpus_source source = {.path = scratch_path(scratch, "few.jsonl"), .weight = 1};
	write_documents(source.path, 5, 12);
	struct dsa_spool_options options = options_for(&source, 1);
	dsa_spool_close(written(path, &options, NULL));
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	uint8_t *data = calloc(1, 4096);
	*bytes = fread(data, 1, 4096, file);
	assert_in_range(*bytes, 200, 4095);
	fclose(file);
	return data;
}

static void assert_open_refused(const char *path, const char *why)
{
	struct dsa_error err;
	struct dsa_spool *spool;
	assert_int_equal(dsa_spool_open(&spool, path, &err), DSA_E_INPUT);
	assert_null(spool);
	if (!strstr(err.text, why) || !strstr(err.text, "start the run anew"))
		fail_msg("'%s' is not in '%s'", why, err.text);
}

static void a_spool_truncated_or_altered_anywhere_is_refused(void **state)
{
	struct scratch *scratch = *state;
	size_t bytes;
	uint8_t *data = small_spool(scratch, &bytes);
	for (size_t i = 0; i < bytes; i++)
		assert_open_refused(scratch_write(scratch, "cut", data, i), "/cut: truncated or altered");
	for (size_t i = 0; i < bytes; i++) {
		data[i] ^= 0x10;
		assert_open_refused(scratch_write(scratch, "bent", data, bytes), "/bent: ");
		data[i] ^= 0x10;
	}
	data[8]++;
	assert_open_refused(scratch_write(scratch, "new", data, bytes), "written in format 2 by another version");
	free(data);
}

/* Writes the spool with one value overwritten and the checksum put right again: what an attacker would do. */
static void assert_forgery_refused(struct scratch *scratch, uint8_t *data, size_t bytes, size_t at, const void *value,
                                   size_t size, const char *why)
{
	uint8_t saved[8];
	memcpy(saved, data + at, size);
	memcpy(data + at, value, size);
	dsa_hash_bytes(data, bytes - 32, data + bytes - 32);
	assert_open_refused(scratch_write(scratch, "forged", data, bytes), why);
	memcpy(data + at, saved, size);
}

static void a_spool_forged_with_a_right_checksum_cannot_reach_outside(void **state)
{
	struct scratch *scratch = *state;
	size_t bytes;
	uint8_t *data = small_spool(scratch, &bytes);
	struct dsa_spool_foot foot;
	size_t end = bytes - sizeof foot;
	memcpy(&foot, data + end, sizeof foot);
	size_t row = foot.documents_offset, corpus = foot.corpora_offset;
	const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 7, UINT64_MAX / 56 + 1, 1ull << 62, bytes, bytes - 64};
	const int32_t wild[] = {-1, INT32_MIN, INT32_MAX, FAKE_VOCAB};
	for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
		const size_t counts[] = {end + offsetof(struct dsa_spool_foot, corpora),
		                         end + offsetof(struct dsa_spool_foot, documents),
		                         end + offsetof(struct dsa_spool_foot, names_offset),
		                         end + offsetof(struct dsa_spool_foot, corpora_offset),
		                         end + offsetof(struct dsa_spool_foot, documents_offset),
		                         corpus + offsetof(struct dsa_spool_corpus_row, name_bytes),
		                         row + offsetof(struct dsa_spool_document_row, offset)};
		for (size_t j = 0; j < sizeof counts / sizeof *counts; j++)
			assert_forgery_refused(scratch, data, bytes, counts[j], &huge[i], 8, "truncated or altered");
	}
	for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
		const size_t fields[] = {sizeof(struct dsa_spool_head), /* the first id */
		                         row + offsetof(struct dsa_spool_document_row, tokens),
		                         row + offsetof(struct dsa_spool_document_row, scored),
		                         row + offsetof(struct dsa_spool_document_row, corpus)};
		for (size_t j = 0; j < sizeof fields / sizeof *fields; j++)
			assert_forgery_refused(scratch, data, bytes, fields[j], &wild[i], 4, "truncated or altered");
	}
	uint8_t two = 2;
	assert_forgery_refused(scratch, data, bytes, sizeof(struct dsa_spool_head) + 48, &two, 1,
	                       "a document is wrong");
	double bad = (double)NAN;
	assert_forgery_refused(scratch, data, bytes, corpus, &bad, 8, "table of corpora");
	assert_forgery_refused(scratch, data, bytes, end + offsetof(struct dsa_spool_foot, settings.holdout), &bad, 8,
	                       "settings");
	dsa_hash_bytes(data, bytes - 32, data + bytes - 32);
	struct dsa_spool *spool;
	struct dsa_error err;
	assert_int_equal(dsa_spool_open(&spool, scratch_write(scratch, "forged", data, bytes), &err), DSA_OK);
	dsa_spool_close(spool);
	free(data);
}

static void a_full_disk_leaves_no_file(void **state)
{
	struct scratch *scratch = *state;
	struct rlimit old, small;
	struct dsa_corpus_source source = {.path = scratch_path(scratch, "few.jsonl"), .weight = 1};
	write_documents(source.path, 400, 24);
	struct dsa_spool_options options = options_for(&source, 1);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	/* In the middle of the documents, of the tables, and in the last byte. */
	char path[256];
	struct stat st;
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	dsa_spool_close(written(path, &options, NULL));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(remove(path), 0);
	const rlim_t limits[] = {20000, 60000, (rlim_t)st.st_size - 1};
	for (size_t i = 0; i < 3; i++) {
		small = old;
		small.rlim_cur = limits[i];
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		struct dsa_error err;
		enum dsa_status status = dsa_spool_write(path, &options, NULL, FAKE_VOCAB, NULL, &err);
		setrlimit(RLIMIT_FSIZE, &old);
		assert_int_equal(status, DSA_E_IO);
		assert_non_null(strstr(err.text, "/tokens: cannot write: File too large"));
	}
	assert_int_equal(scratch_entries(scratch), 1); /* the corpus */
}

static void a_failed_write_leaves_the_old_file(void **state)
{
	struct scratch *scratch = *state;
	char path[256], corpus[256];
	struct dsa_error err;
	struct dsa_spool *spool;
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	snprintf(corpus, sizeof corpus, "%s/few.jsonl", scratch->root);
	struct dsa_corpus_source source = {.path = corpus, .weight = 1};
	struct dsa_spool_options options = options_for(&source, 1);
	write_documents(corpus, 5, 12);
	dsa_spool_close(written(path, &options, NULL));
	int before = scratch_entries(scratch);
	scratch_text(scratch, "few.jsonl", "{\"input_ids\":[1,2,3,4,5,6,7,8,9,10,11]}\n{\"input_ids\":[259]}\n");
	assert_int_equal(dsa_spool_write(path, &options, NULL, FAKE_VOCAB, NULL, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "few.jsonl line 2: input_ids[0] is 259"));
	assert_int_equal(scratch_entries(scratch), before);
	assert_int_equal(dsa_spool_open(&spool, path, &err), DSA_OK);
	assert_int_equal(dsa_spool_documents(spool), 5);
	dsa_spool_close(spool);
	assert_int_equal(dsa_spool_write("/nonexistent/tokens", &options, NULL, FAKE_VOCAB, NULL, &err), DSA_E_IO);
	assert_int_equal(dsa_spool_open(&spool, "/nonexistent/tokens", &err), DSA_E_MISSING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(split_order_and_batches_are_the_known_ones, scratch_open, scratch_close),
	    cmocka_unit_test_setup_teardown(counts_and_warnings_tell_what_happened_to_every_document, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(held_out_share_is_rounded_half_up_and_leaves_one_on_each_side, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(only_late_targets_are_scored, scratch_open, scratch_close),
	    cmocka_unit_test_setup_teardown(batches_never_mix_corpora_and_a_long_document_stands_alone, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(reading_stops_after_the_document_that_reaches_max_tokens, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(the_same_corpora_and_settings_give_the_same_identity, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(a_corpus_without_signal_is_refused_with_advice, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(options_out_of_range_are_refused, scratch_open, scratch_close),
	    cmocka_unit_test_setup_teardown(default_names_are_file_names_without_extensions, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(a_spool_truncated_or_altered_anywhere_is_refused, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(a_spool_forged_with_a_right_checksum_cannot_reach_outside, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(a_full_disk_leaves_no_file, scratch_open, scratch_close),
	    cmocka_unit_test_setup_teardown(a_failed_write_leaves_the_old_file, scratch_open, scratch_close),
	};
	return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
