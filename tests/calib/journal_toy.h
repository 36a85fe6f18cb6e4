/* What the tests of the journal share: a toy evaluator in place of a model, and a catcher that checks every bit. */
#ifndef DSA_TEST_JOURNAL_TOY_H
#define DSA_TEST_JOURNAL_TOY_H

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

/* One program, one directory at a time. */
static char dir[64], path[96];

static inline int set_up(void **state)
{
	(void)state;
	/* Thousands of syncs: in memory where there is such a place. */
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/dsa-journal-XXXXXX" : "/tmp/dsa-journal-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/journal", dir);
	return 0;
}

static inline int tear_down(void **state)
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

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline double any_double(uint64_t *random)
{
	static const uint64_t odd[] = {0x8000000000000000u, 1, 0x7ff8000000001234u, 0x7fefffffffffffffu};
	*random = mix(*random);
	uint64_t bits = *random & 7 ? *random : odd[*random >> 3 & 3];
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

enum { BINS_MOST = 40 };

static inline void fill_stats(struct dsa_doc_stats *stats, struct dsa_bin *bins, int document, const char *pattern,
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

static inline enum dsa_status toy_evaluate(struct dsa_evaluator *base, const struct dsa_ask *ask,
                                           const struct dsa_sink *sink, struct dsa_error *err)
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

/* counts (2, LAYERS · LAYERS), and of every other document also of what was selected without a precision. */
static inline void fill_overlap(struct dsa_doc_overlap *overlap, int64_t *counts, int64_t *plain, int document)
{
	*overlap = (struct dsa_doc_overlap){.document = document, .layers = LAYERS};
	for (int p = 0; p < 2; p++) {
		overlap->queries[2 * p] = 10 + document;
		overlap->counts[2 * p] = counts + p * LAYERS * LAYERS;
		for (int i = 0; i < LAYERS; i++)
			for (int j = i; j < LAYERS; j++)
				overlap->counts[2 * p][i * LAYERS + j] = (document + 1) * (i + 1) * 1000003L * (j + p);
		if (document % 2)
			overlap->plain[2 * p] = plain + p * LAYERS;
		for (int i = 0; i < LAYERS; i++)
			plain[p * LAYERS + i] = (document + 1) * 1000L * (i + p);
	}
}

static inline enum dsa_status toy_overlap(struct dsa_evaluator *base, int batch, const struct dsa_sink *sink,
                                          struct dsa_error *err)
{
	struct dsa_doc_overlap overlap[2];
	int64_t counts[2][2 * LAYERS * LAYERS] = {{0}}, plain[2][2 * LAYERS];
	((struct toy *)base)->overlaps++;
	for (int d = 0; d < shape.batch[batch].count; d++)
		fill_overlap(&overlap[d], counts[d], plain[d], shape.batch[batch].documents[d]);
	return sink->overlap(sink->context, overlap, shape.batch[batch].count, err);
}

static inline struct toy toy_make(void)
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

static inline enum dsa_status catch_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
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

static inline enum dsa_status catch_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                            struct dsa_error *err)
{
	struct catcher *catcher = context;
	(void)err;
	assert_int_equal(count, shape.batch[catcher->batch].count);
	for (int d = 0; d < count; d++) {
		struct dsa_doc_overlap expected;
		int64_t counts[2 * LAYERS * LAYERS] = {0}, plain[2 * LAYERS];
		fill_overlap(&expected, counts, plain, shape.batch[catcher->batch].documents[d]);
		assert_int_equal(overlap[d].document, expected.document);
		assert_int_equal(overlap[d].layers, LAYERS);
		assert_memory_equal(overlap[d].queries, expected.queries, sizeof expected.queries);
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			assert_int_equal(overlap[d].counts[p] != NULL, expected.counts[p] != NULL);
			if (expected.counts[p])
				assert_memory_equal(overlap[d].counts[p], expected.counts[p],
				                    LAYERS * LAYERS * sizeof(int64_t));
			assert_int_equal(overlap[d].plain[p] != NULL, expected.plain[p] != NULL);
			if (expected.plain[p])
				assert_memory_equal(overlap[d].plain[p], expected.plain[p], LAYERS * sizeof(int64_t));
		}
	}
	catcher->overlaps++;
	return DSA_OK;
}

static inline enum dsa_status ask_for(struct dsa_evaluator *evaluator, int batch, const char *const *patterns,
                                      int count, uint64_t seed, struct catcher *catcher, struct dsa_error *err)
{
	struct dsa_ask ask = {.base = "FFFFFF", .patterns = patterns, .count = count, .batch = batch, .seed = seed};
	*catcher = (struct catcher){.ask = &ask, .batch = batch};
	struct dsa_sink sink = {.pattern = catch_pattern, .overlap = catch_overlap, .context = catcher};
	return evaluator->evaluate(evaluator, &ask, &sink, err);
}

static inline enum dsa_status ask_overlap(struct dsa_evaluator *evaluator, int batch, struct catcher *catcher,
                                          struct dsa_error *err)
{
	*catcher = (struct catcher){.batch = batch};
	struct dsa_sink sink = {.pattern = catch_pattern, .overlap = catch_overlap, .context = catcher};
	return evaluator->overlap(evaluator, batch, &sink, err);
}

static struct dsa_error err;

static inline struct dsa_journal *open_it(void)
{
	struct dsa_journal *journal;
	if (dsa_journal_open(&journal, path, fields, 2, NULL, &err))
		fail_msg("%s", err.text);
	return journal;
}

static const char *const three[] = {"FSFFFF", "FFSFFF", "FFFFFS"};

/* Everything the tests ask for: 3 patterns on batches 0 and 2, one noise floor, overlap of batch 1. */
static inline void ask_everything(struct dsa_journal *journal, struct toy *toy)
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

static inline void make_full_journal(void)
{
	struct toy toy = toy_make();
	struct dsa_journal *journal = open_it();
	ask_everything(journal, &toy);
	assert_int_equal(dsa_journal_records(journal), RECORDS);
	dsa_journal_close(journal);
}

static inline void write_file(const uint8_t *data, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, bytes), bytes);
	close(fd);
}

static inline uint8_t *read_file(size_t *bytes)
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

static inline size_t header_bytes(const uint8_t *data)
{
	return (size_t)data[12] | (size_t)data[13] << 8;
}

/* Start of record n (n = RECORDS: the end). */
static inline size_t record_at(const uint8_t *data, int n)
{
	size_t at = header_bytes(data);
	for (; n; n--)
		at += dsa_record_bytes(data + at);
	return at;
}

static inline void put_right_check(uint8_t *data, size_t bytes)
{
	uint8_t digest[DSA_HASH_BYTES];
	dsa_hash_bytes(data, bytes - 8, digest);
	memcpy(data + bytes - 8, digest, 8);
}

#define JOURNAL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
