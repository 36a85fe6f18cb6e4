#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dsa/file.h"
#include "dsa/hash.h"
#include "dsa/journal.h"
#include "dsa/journal_record.h"

enum { LAYERS = 6, BATCHES = 3, DOCUMENTS = 5 };

static const int batch0[] = {4, 0}, batch1[] = {2}, batch2[] = {1, 3};
static const struct dsa_evaluator_batch batches[BATCHES] = {
    {.documents = batch0, .count = 2}, {.documents = batch1, .count = 1}, {.documents = batch2, .count = 2}};
static const struct dsa_evaluator_shape shape = {
    .layers = LAYERS, .topk = 4, .documents = DOCUMENTS, .batches = BATCHES, .batch = batches};

static const struct dsa_journal_field fields[] = {{"model", "3fa9"}, {"context", "1024"}};

static char dir[64], path[96];

static int set_up(void **state)
{
	(void)state;
	/* Thousands of syncs: in memory where there is such a place. */
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/dsa-journal-XXXXXX" : "/tmp/dsa-journal-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/journal", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir); /* fails when something was left aside */
}

/* A stand-in for the model: figures are a hash of the question, with every kind of double among them. */
struct toy {
	struct dsa_evaluator base;
	int asks, patterns, overlaps;
	int stop_after; /* patterns answered before it says that it was interrupted; -1 = never */
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static double any_double(uint64_t *random)
{
	static const uint64_t odd[] = {0x8000000000000000u, 1, 0x7ff8000000001234u, 0x7fefffffffffffffu};
	*random = mix(*random);
	uint64_t bits = *random & 7 ? *random : odd[*random >> 3 & 3];
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

enum { BINS_MOST = 40 };

static void fill_stats(struct dsa_doc_stats *stats, struct dsa_bin *bins, int document, const char *pattern,
                       uint64_t seed)
{
	uint64_t random = seed + (uint64_t)document * 1000;
	for (int l = 0; pattern[l]; l++)
		random = mix(random + (uint64_t)pattern[l]);
	*stats = (struct dsa_doc_stats){.document = document, .bins = bins};
	for (int p = 0; p < 3 + (int)(random & 1); p++) {
		if (p == 1 && document == 3)
			continue; /* a gap */
		stats->at[p] = (struct dsa_sums){.tokens = (int64_t)(random >> 40), .top1 = (int64_t)(random >> 45)};
		double *sums = &stats->at[p].kl;
		for (int i = 0; i < 6; i++)
			sums[i] = any_double(&random);
		for (int b = 0; b < 5 + document; b++) {
			random = mix(random);
			bins[stats->bin_count++] = (struct dsa_bin){
			    .position = (uint8_t)p,
			    .bin = (uint16_t)(b == 0 ? 0 : b * 200 + (int)(random & 127)),
			    .count = (uint32_t)(random >> (32 + random % 32)) + 1,
			};
		}
	}
}

static enum dsa_status toy_evaluate(struct dsa_evaluator *base, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                    struct dsa_error *err)
{
	struct toy *toy = (struct toy *)base;
	toy->asks++;
	/* Backwards, since any order is allowed. */
	for (int i = ask->count - 1; i >= 0; i--) {
		const struct dsa_evaluator_batch *batch = &shape.batch[ask->batch];
		struct dsa_doc_stats stats[2];
		struct dsa_bin bins[2][BINS_MOST];
		if (toy->stop_after >= 0 && toy->patterns >= toy->stop_after)
			return dsa_fail(err, DSA_E_INTERRUPTED, "stopped");
		toy->patterns++;
		for (int d = 0; d < batch->count; d++)
			fill_stats(&stats[d], bins[d], batch->documents[d], ask->patterns[i], ask->seed);
		enum dsa_status status = sink->pattern(sink->context, i, stats, batch->count, 100 + i, err);
		if (status)
			return status;
	}
	return DSA_OK;
}

static void fill_overlap(struct dsa_doc_overlap *overlap, int64_t *counts, int document)
{
	*overlap = (struct dsa_doc_overlap){.document = document, .layers = LAYERS};
	for (int p = 0; p < 2; p++) {
		overlap->queries[2 * p] = 10 + document;
		overlap->counts[2 * p] = counts + p * LAYERS * LAYERS;
		for (int i = 0; i < LAYERS; i++)
			for (int j = i; j < LAYERS; j++)
				overlap->counts[2 * p][i * LAYERS + j] = (document + 1) * (i + 1) * 1000003L * (j + p);
	}
}

static enum dsa_status toy_overlap(struct dsa_evaluator *base, int batch, const struct dsa_sink *sink,
                                   struct dsa_error *err)
{
	struct dsa_doc_overlap overlap[2];
	int64_t counts[2][2 * LAYERS * LAYERS] = {{0}};
	((struct toy *)base)->overlaps++;
	for (int d = 0; d < shape.batch[batch].count; d++)
		fill_overlap(&overlap[d], counts[d], shape.batch[batch].documents[d]);
	return sink->overlap(sink->context, overlap, shape.batch[batch].count, err);
}

static struct toy toy_make(void)
{
	return (struct toy){.base = {.shape = &shape, .evaluate = toy_evaluate, .overlap = toy_overlap},
	                    .stop_after = -1};
}

/* Checks every bit of what arrives. */
struct catcher {
	const struct dsa_ask *ask;
	int batch, seen, overlaps;
	int times[8]; /* per pattern of the ask */
	int64_t executed;
};

static enum dsa_status catch_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                     int64_t executed, struct dsa_error *err)
{
	struct catcher *catcher = context;
	(void)err;
	assert_int_equal(count, shape.batch[catcher->ask->batch].count);
	for (int d = 0; d < count; d++) {
		struct dsa_doc_stats expected;
		struct dsa_bin bins[BINS_MOST];
		fill_stats(&expected, bins, shape.batch[catcher->ask->batch].documents[d],
		           catcher->ask->patterns[index], catcher->ask->seed);
		assert_int_equal(stats[d].document, expected.document);
		assert_memory_equal(stats[d].at, expected.at, sizeof expected.at);
		assert_int_equal(stats[d].bin_count, expected.bin_count);
		for (int b = 0; b < expected.bin_count; b++) {
			assert_int_equal(stats[d].bins[b].position, bins[b].position);
			assert_int_equal(stats[d].bins[b].bin, bins[b].bin);
			assert_int_equal(stats[d].bins[b].count, bins[b].count);
		}
	}
	catcher->seen++;
	catcher->times[index]++;
	catcher->executed += executed;
	return DSA_OK;
}

static enum dsa_status catch_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                     struct dsa_error *err)
{
	struct catcher *catcher = context;
	(void)err;
	assert_int_equal(count, shape.batch[catcher->batch].count);
	for (int d = 0; d < count; d++) {
		struct dsa_doc_overlap expected;
		int64_t counts[2 * LAYERS * LAYERS] = {0};
		fill_overlap(&expected, counts, shape.batch[catcher->batch].documents[d]);
		assert_int_equal(overlap[d].document, expected.document);
		assert_int_equal(overlap[d].layers, LAYERS);
		assert_memory_equal(overlap[d].queries, expected.queries, sizeof expected.queries);
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			assert_int_equal(overlap[d].counts[p] != NULL, expected.counts[p] != NULL);
			if (expected.counts[p])
				assert_memory_equal(overlap[d].counts[p], expected.counts[p],
				                    LAYERS * LAYERS * sizeof(int64_t));
		}
	}
	catcher->overlaps++;
	return DSA_OK;
}

static enum dsa_status ask_for(struct dsa_evaluator *evaluator, int batch, const char *const *patterns, int count,
                               uint64_t seed, struct catcher *catcher, struct dsa_error *err)
{
	struct dsa_ask ask = {.base = "FFFFFF", .patterns = patterns, .count = count, .batch = batch, .seed = seed};
	*catcher = (struct catcher){.ask = &ask, .batch = batch};
	struct dsa_sink sink = {.pattern = catch_pattern, .overlap = catch_overlap, .context = catcher};
	return evaluator->evaluate(evaluator, &ask, &sink, err);
}

static enum dsa_status ask_overlap(struct dsa_evaluator *evaluator, int batch, struct catcher *catcher,
                                   struct dsa_error *err)
{
	*catcher = (struct catcher){.batch = batch};
	struct dsa_sink sink = {.pattern = catch_pattern, .overlap = catch_overlap, .context = catcher};
	return evaluator->overlap(evaluator, batch, &sink, err);
}

static struct dsa_error err;

static struct dsa_journal *open_it(void)
{
	struct dsa_journal *journal;
	if (dsa_journal_open(&journal, path, fields, 2, NULL, &err))
		fail_msg("%s", err.text);
	return journal;
}

static const char *const three[] = {"FSFFFF", "FFSFFF", "FFFFFS"};

/* Everything the tests ask for: 3 patterns on batches 0 and 2, one noise floor, overlap of batch 1. */
static void ask_everything(struct dsa_journal *journal, struct toy *toy)
{
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, toy ? &toy->base : NULL, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 0, three, 3, 0, &catcher, &err), DSA_OK);
	assert_int_equal(catcher.seen, 3);
	assert_int_equal(ask_for(evaluator, 2, three, 3, 0, &catcher, &err), DSA_OK);
	assert_int_equal(catcher.seen, 3);
	assert_int_equal(ask_for(evaluator, 0, three, 1, 77, &catcher, &err), DSA_OK);
	assert_int_equal(catcher.seen, 1);
	assert_int_equal(ask_overlap(evaluator, 1, &catcher, &err), DSA_OK);
	assert_int_equal(catcher.overlaps, 1);
	evaluator->close(evaluator);
}

enum { RECORDS = 8, PATTERN_RECORDS = 7 };

static void make_full_journal(void)
{
	struct toy toy = toy_make();
	struct dsa_journal *journal = open_it();
	ask_everything(journal, &toy);
	assert_int_equal(dsa_journal_records(journal), RECORDS);
	dsa_journal_close(journal);
}

static void write_file(const uint8_t *data, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, bytes), bytes);
	close(fd);
}

static uint8_t *read_file(size_t *bytes)
{
	struct dsa_mapping map;
	assert_int_equal(dsa_mapping_open(&map, path, &err), DSA_OK);
	uint8_t *copy = malloc(map.bytes);
	assert_non_null(copy);
	memcpy(copy, map.data, map.bytes);
	*bytes = map.bytes;
	dsa_mapping_close(&map);
	return copy;
}

static size_t header_bytes(const uint8_t *data)
{
	return (size_t)data[12] | (size_t)data[13] << 8;
}

/* Start of record n (n = RECORDS: the end). */
static size_t record_at(const uint8_t *data, int n)
{
	size_t at = header_bytes(data);
	for (; n; n--)
		at += dsa_record_bytes(data + at);
	return at;
}

static void nothing_known_is_asked_twice_and_bits_are_equal(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_journal *journal = open_it();
	ask_everything(journal, &toy);
	assert_int_equal(toy.patterns, PATTERN_RECORDS);
	assert_int_equal(toy.overlaps, 1);
	ask_everything(journal, &toy);
	assert_int_equal(toy.asks, 3);
	dsa_journal_close(journal);

	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS);
	assert_int_equal(dsa_journal_executed(journal), 2 * (100 + 101 + 102) + 100);
	ask_everything(journal, &toy);
	assert_int_equal(toy.asks, 3);
	assert_int_equal(toy.overlaps, 1);
	dsa_journal_close(journal);
}

static void only_unknown_patterns_are_passed_on_and_known_ones_come_first(void **state)
{
	(void)state;
	static const char *const mixed[] = {"FFFFSS", "FFSFFF", "FFFFSS", "FSSFFF", "FSFFFF"};
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	make_full_journal();
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 5, 0, &catcher, &err), DSA_OK);
	assert_int_equal(toy.asks, 1);
	assert_int_equal(toy.patterns, 2); /* the one asked twice is measured once */
	for (int i = 0; i < 5; i++)
		assert_int_equal(catcher.times[i], 1);
	assert_int_equal(dsa_journal_records(journal), RECORDS + 2);
	/* The same patterns on another batch, or with another seed, are other questions. */
	assert_int_equal(ask_for(evaluator, 1, mixed, 1, 0, &catcher, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 1, 5, &catcher, &err), DSA_OK);
	assert_int_equal(toy.patterns, 4);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

static void without_an_inner_evaluator_the_unknown_is_missing_by_name(void **state)
{
	(void)state;
	static const char *const mixed[] = {"FSFFFF", "FSSSSS"};
	struct dsa_evaluator *evaluator;
	struct dsa_journal *journal;
	struct catcher catcher;
	make_full_journal();
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_OK);
	assert_string_equal(dsa_journal_field(journal, "context"), "1024");
	assert_null(dsa_journal_field(journal, "colour"));
	ask_everything(journal, NULL);
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, NULL, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 2, 0, &catcher, &err), DSA_E_MISSING);
	assert_int_equal(catcher.times[0], 1);
	assert_non_null(strstr(err.text, "FSSSSS"));
	assert_non_null(strstr(err.text, "batch 2"));
	assert_int_equal(ask_overlap(evaluator, 0, &catcher, &err), DSA_E_MISSING);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

static void what_was_answered_before_an_interruption_is_kept(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	toy.stop_after = 2;
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 0, three, 3, 0, &catcher, &err), DSA_E_INTERRUPTED);
	assert_int_equal(catcher.seen, 2);
	evaluator->close(evaluator);
	dsa_journal_close(journal);

	toy.stop_after = -1;
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), 2);
	ask_everything(journal, &toy);
	assert_int_equal(toy.patterns, PATTERN_RECORDS);
	dsa_journal_close(journal);
}

static void a_journal_cut_anywhere_loses_only_its_last_record(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t header = header_bytes(data);
	assert_int_equal(record_at(data, RECORDS), bytes);
	int whole = 0;
	for (size_t cut = header; cut <= bytes; cut++) {
		struct toy toy = toy_make();
		struct stat st;
		write_file(data, cut);
		while (whole < RECORDS && record_at(data, whole + 1) <= cut)
			whole++;
		struct dsa_journal *journal = open_it();
		assert_int_equal(dsa_journal_records(journal), whole);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, record_at(data, whole));
		ask_everything(journal, &toy);
		assert_int_equal(toy.patterns + toy.overlaps, RECORDS - whole);
		assert_int_equal(dsa_journal_records(journal), RECORDS);
		dsa_journal_close(journal);
	}
	free(data);
}

static void a_header_cut_anywhere_is_refused(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	for (size_t cut = 1; cut < header_bytes(data); cut++) {
		struct dsa_journal *journal;
		write_file(data, cut);
		assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_INPUT);
		assert_null(journal);
	}
	free(data);
}

static void an_empty_file_becomes_a_new_journal(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	write_file((const uint8_t *)"", 0);
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_E_INPUT);
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), 0);
	assert_true(dsa_journal_created(journal) > 1600000000);
	int64_t created = dsa_journal_created(journal);
	dsa_journal_close(journal);
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_OK);
	assert_int_equal(dsa_journal_created(journal), created);
	dsa_journal_close(journal);
}

static void a_missing_file_is_missing_for_a_reader(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_E_MISSING);
	assert_false(dsa_file_exists(path));
}

static void every_flipped_byte_but_in_the_last_record_is_refused(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	int in_record = 0;
	for (size_t at = 0; at < record_at(data, RECORDS - 1); at++) {
		struct dsa_journal *journal;
		char place[64];
		size_t header = header_bytes(data);
		size_t start = record_at(data, in_record), end = record_at(data, in_record + 1);
		if (at >= header && at == end) {
			in_record++;
			start = end;
		}
		data[at] ^= at % 3 ? 0x80 : 0x01;
		write_file(data, bytes);
		data[at] ^= at % 3 ? 0x80 : 0x01;
		enum dsa_status status = dsa_journal_open(&journal, path, fields, 2, NULL, &err);
		if (at < header) {
			assert_true(status == DSA_E_INPUT || status == DSA_E_USAGE);
			continue;
		}
		assert_int_equal(status, DSA_E_INPUT);
		snprintf(place, sizeof place, "record at byte %zu is damaged", start);
		if (!strstr(err.text, place))
			fail_msg("byte %zu: %s", at, err.text);
	}
	free(data);
}

static char logged[DSA_ERROR_CHARS];
static int lines;

static void keep_line(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	(void)level;
	snprintf(logged, sizeof logged, "%s", text);
	lines++;
}

static void a_damaged_last_record_is_cut_off_with_a_line_in_the_log(void **state)
{
	(void)state;
	static const struct dsa_log log = {.line = keep_line};
	size_t bytes;
	struct dsa_journal *journal;
	struct stat st;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t last = record_at(data, RECORDS - 1);
	data[bytes - 20] ^= 4;
	write_file(data, bytes);
	lines = 0;
	/* A reader leaves the file alone. */
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_int_equal(lines, 1);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	assert_int_equal(lines, 2);
	assert_non_null(strstr(logged, "half-written"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, last);
	/* Zeros, as some file systems leave them behind a crash. */
	memset(data + last, 0, bytes - last);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	free(data);
}

static void a_full_disk_leaves_the_earlier_records(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	struct rlimit old, small;
	struct stat st;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = bytes + 100; /* the next record is longer: its first 100 bytes get written */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	enum dsa_status status = ask_for(evaluator, 1, three, 3, 0, &catcher, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(status, DSA_E_IO);
	assert_int_equal(catcher.seen, 0); /* nothing is handed on that is not on disk */
	assert_non_null(strstr(err.text, path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, bytes);
	/* With room again the same journal goes on. */
	assert_int_equal(ask_for(evaluator, 1, three, 3, 0, &catcher, &err), DSA_OK);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS + 3);
	dsa_journal_close(journal);
	free(data);
}

static void two_runs_cannot_share_a_journal(void **state)
{
	(void)state;
	struct dsa_journal *first = open_it(), *second;
	assert_int_equal(dsa_journal_open(&second, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_null(second);
	assert_non_null(strstr(err.text, "another dsacal is at work"));
	/* Readers may look on. */
	assert_int_equal(dsa_journal_open(&second, path, NULL, 0, NULL, &err), DSA_OK);
	dsa_journal_close(second);
	dsa_journal_close(first);
	dsa_journal_close(open_it());
}

static void another_setting_is_refused_with_both_values(void **state)
{
	(void)state;
	static const struct dsa_journal_field other[] = {{"model", "3fa9"}, {"context", "2048"}};
	static const struct dsa_journal_field more[] = {{"model", "3fa9"}, {"context", "1024"}, {"seed", "1"}};
	char expected[256];
	struct dsa_journal *journal;
	dsa_journal_close(open_it());
	assert_int_equal(dsa_journal_open(&journal, path, other, 2, NULL, &err), DSA_E_USAGE);
	snprintf(expected, sizeof expected,
	         "%s: \"context\" was 1024 in this run, is 2048 now; use another --out or the old setting", path);
	assert_string_equal(err.text, expected);
	assert_int_equal(dsa_journal_open(&journal, path, more, 3, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"seed\" was not recorded"));
	assert_int_equal(dsa_journal_open(&journal, path, fields, 1, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"context\" was 1024 in this run, is unknown now"));
}

static void put_right_check(uint8_t *data, size_t bytes)
{
	uint8_t digest[DSA_HASH_BYTES];
	dsa_hash_bytes(data, bytes - 8, digest);
	memcpy(data + bytes - 8, digest, 8);
}

static void another_format_or_metric_version_is_refused_by_name(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	size_t bytes;
	dsa_journal_close(open_it());
	uint8_t *data = read_file(&bytes);
	data[16] = DSA_METRIC_VERSION + 4;
	put_right_check(data, bytes);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"metric version\" was 5 in this run, is 1 now"));
	data[8] = 9;
	put_right_check(data, bytes);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"journal format\" was 9 in this run, is 1 now"));
	free(data);
}

static void a_file_that_is_no_journal_is_refused_and_left_alone(void **state)
{
	(void)state;
	static const char text[] = "step,flip,kl\n1,3,0.001\n";
	struct dsa_journal *journal;
	size_t bytes;
	write_file((const uint8_t *)text, sizeof text - 1);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "not a journal"));
	uint8_t *data = read_file(&bytes);
	assert_int_equal(bytes, sizeof text - 1);
	assert_memory_equal(data, text, bytes);
	free(data);
}

static void of_two_records_of_one_question_the_first_counts(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t first = record_at(data, 0), length = record_at(data, 1) - first;
	uint8_t *longer = malloc(bytes + length);
	assert_non_null(longer);
	memcpy(longer, data, bytes);
	memcpy(longer + bytes, data + first, length);
	longer[bytes + 8 + 12] = 55; /* other work, other figures */
	longer[bytes + length - 20] ^= 1;
	put_right_check(longer + bytes, length);
	write_file(longer, bytes + length);
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS + 1);
	ask_everything(journal, NULL);
	dsa_journal_close(journal);
	free(longer);
	free(data);
}

static void records_of_other_documents_are_refused(void **state)
{
	(void)state;
	static const int swapped[] = {0, 4}, fewer[] = {4};
	struct dsa_evaluator_batch other[BATCHES];
	struct dsa_evaluator_shape moved = shape;
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	make_full_journal();
	struct dsa_journal *journal = open_it();
	memcpy(other, batches, sizeof other);
	moved.batch = other;
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, NULL, &moved, &err), DSA_OK);
	other[0].documents = swapped;
	assert_int_equal(ask_for(evaluator, 0, three, 1, 0, &catcher, &err), DSA_E_INPUT);
	other[0] = (struct dsa_evaluator_batch){.documents = fewer, .count = 1};
	assert_int_equal(ask_for(evaluator, 0, three, 1, 0, &catcher, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "it holds 2 documents, its batch has 1"));
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

static void hundreds_of_records_are_found_again(void **state)
{
	(void)state;
	enum { MANY = 800 }; /* the index grows twice */
	struct dsa_journal *journal = open_it();
	struct dsa_record_buffer record = {0};
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < MANY; i++) {
			struct dsa_doc_stats stats = {.document = i};
			stats.at[0].kl = i * 0.1;
			struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN,
			                             .batch = i % 7,
			                             .seed = (uint64_t)i,
			                             .pattern = "FSFFFF",
			                             .layers = 6,
			                             .executed = 3},
					      found;
			if (pass == 0) {
				assert_int_equal(dsa_record_write_pattern(&record, &key, &stats, 1, &err), DSA_OK);
				if (dsa_journal_append(journal, &record, &err))
					fail_msg("%s", err.text);
				continue;
			}
			struct dsa_arena arena;
			struct dsa_doc_stats *back;
			dsa_arena_init(&arena);
			assert_int_equal(dsa_journal_find(journal, &key, &record, &err), DSA_OK);
			assert_int_equal(dsa_record_read_key(record.data, record.used, &found, &err), DSA_OK);
			assert_true(dsa_record_key_equal(&key, &found));
			assert_int_equal(dsa_record_read_pattern(record.data, record.used, &arena, 1, &back, &err),
			                 DSA_OK);
			assert_int_equal(back->document, i);
			assert_true(back->at[0].kl == i * 0.1);
			dsa_arena_release(&arena);
			key.seed += MANY;
			assert_int_equal(dsa_journal_find(journal, &key, &record, &err), DSA_E_MISSING);
		}
		dsa_journal_close(journal);
		journal = open_it();
		assert_int_equal(dsa_journal_records(journal), MANY);
		assert_int_equal(dsa_journal_executed(journal), 3 * MANY);
	}
	dsa_record_buffer_release(&record);
	dsa_journal_close(journal);
}

static void hostile_records_with_a_right_check_never_break_the_reader(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	uint64_t random = 1;
	int refused = 0, accepted = 0;
	for (int round = 0; round < 40000; round++) {
		size_t at = record_at(data, round % RECORDS), length = dsa_record_bytes(data + at);
		uint8_t record[4096];
		struct dsa_record_key key;
		struct dsa_arena arena;
		struct dsa_doc_stats *stats;
		struct dsa_doc_overlap *overlap;
		assert_true(length <= sizeof record);
		memcpy(record, data + at, length);
		for (int k = 0; k < 1 + round % 3; k++) {
			random = mix(random);
			record[8 + random % (length - 16)] = (uint8_t)(random >> 48 & 1 ? 0xff : random >> 32);
		}
		put_right_check(record, length);
		assert_true(dsa_record_intact(record, length));
		dsa_arena_init(&arena);
		enum dsa_status status = dsa_record_read_key(record, length, &key, &err);
		if (!status)
			status = key.kind == DSA_RECORD_PATTERN
			             ? dsa_record_read_pattern(record, length, &arena, 2, &stats, &err)
			             : dsa_record_read_overlap(record, length, &arena, 1, &overlap, &err);
		assert_true(status == DSA_OK || status == DSA_E_INPUT);
		assert_true(arena.bytes < 1 << 20);
		refused += status != DSA_OK;
		accepted += status == DSA_OK;
		dsa_arena_release(&arena);
	}
	/* A changed double is a good record: both outcomes happen. */
	assert_true(refused > 1000 && accepted > 1000);
	free(data);
}

static void keys_are_equal_only_in_every_part(void **state)
{
	(void)state;
	const struct dsa_record_key key = {
	    .kind = DSA_RECORD_PATTERN, .batch = 3, .seed = 9, .pattern = "FSF", .layers = 3};
	struct dsa_record_key other[5] = {key, key, key, key, key};
	other[0].kind = DSA_RECORD_OVERLAP;
	other[1].batch = 4;
	other[2].seed = 10;
	other[3].pattern = "FFF";
	other[4].layers = 2;
	for (int i = 0; i < 5; i++) {
		assert_false(dsa_record_key_equal(&key, &other[i]));
		assert_true(dsa_record_key_hash(&key) != dsa_record_key_hash(&other[i]));
	}
	other[0] = key;
	other[0].executed = 5;
	assert_true(dsa_record_key_equal(&key, &other[0]));
}

static void the_largest_bins_and_gaps_survive(void **state)
{
	(void)state;
	struct dsa_bin bins[] = {
	    {0, 0, 1},
	    {0, 15, 15},
	    {0, 16, 16},
	    {0, 31, 17},
	    {0, 48, 1},
	    {23, 2046, UINT32_MAX - 1},
	    {23, 2047, UINT32_MAX},
	};
	enum { BINS = sizeof bins / sizeof *bins };
	struct dsa_doc_stats stats = {.document = INT32_MAX, .bins = bins, .bin_count = BINS}, *back;
	struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN, .pattern = "F", .layers = 1};
	struct dsa_record_buffer record = {0};
	struct dsa_arena arena;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_record_write_pattern(&record, &key, &stats, 1, &err), DSA_OK);
	assert_int_equal(dsa_record_read_pattern(record.data, record.used, &arena, 1, &back, &err), DSA_OK);
	assert_int_equal(back->bin_count, BINS);
	for (int i = 0; i < BINS; i++) {
		assert_int_equal(back->bins[i].position, bins[i].position);
		assert_int_equal(back->bins[i].bin, bins[i].bin);
		assert_int_equal(back->bins[i].count, bins[i].count);
	}
	dsa_arena_release(&arena);
	dsa_record_buffer_release(&record);
}

#define JOURNAL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    JOURNAL_TEST(nothing_known_is_asked_twice_and_bits_are_equal),
	    JOURNAL_TEST(only_unknown_patterns_are_passed_on_and_known_ones_come_first),
	    JOURNAL_TEST(without_an_inner_evaluator_the_unknown_is_missing_by_name),
	    JOURNAL_TEST(what_was_answered_before_an_interruption_is_kept),
	    JOURNAL_TEST(a_journal_cut_anywhere_loses_only_its_last_record),
	    JOURNAL_TEST(a_header_cut_anywhere_is_refused),
	    JOURNAL_TEST(an_empty_file_becomes_a_new_journal),
	    JOURNAL_TEST(a_missing_file_is_missing_for_a_reader),
	    JOURNAL_TEST(every_flipped_byte_but_in_the_last_record_is_refused),
	    JOURNAL_TEST(a_damaged_last_record_is_cut_off_with_a_line_in_the_log),
	    JOURNAL_TEST(a_full_disk_leaves_the_earlier_records),
	    JOURNAL_TEST(two_runs_cannot_share_a_journal),
	    JOURNAL_TEST(another_setting_is_refused_with_both_values),
	    JOURNAL_TEST(another_format_or_metric_version_is_refused_by_name),
	    JOURNAL_TEST(a_file_that_is_no_journal_is_refused_and_left_alone),
	    JOURNAL_TEST(of_two_records_of_one_question_the_first_counts),
	    JOURNAL_TEST(records_of_other_documents_are_refused),
	    JOURNAL_TEST(hundreds_of_records_are_found_again),
	    cmocka_unit_test(keys_are_equal_only_in_every_part),
	    cmocka_unit_test(the_largest_bins_and_gaps_survive),
	    JOURNAL_TEST(hostile_records_with_a_right_check_never_break_the_reader),
	};
	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
