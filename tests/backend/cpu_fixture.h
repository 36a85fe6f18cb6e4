/* cpu_fixture.h: a CPU backend, random tensors of exactly their size (so that a sanitizer sees a read beyond them) and
 * the check that a row's bits are its own. */
#ifndef DSA_TESTS_CPU_FIXTURE_H
#define DSA_TESTS_CPU_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/backend.h"

enum { FIXTURE_KEPT = 512 };

struct fixture {
	struct dsa_backend *be;
	uint64_t random;
	void *kept[FIXTURE_KEPT];
	int count;
};

/* Limits that all tests stay within. */
static const struct dsa_backend_limits fixture_limits = {
    .rows = 2048,
    .keys = 4096,
    .hidden = 4096,
    .heads = 16,
    .latent = 512,
    .rope = 64,
    .topk = 512,
    .vocab = 120000,
    .experts = 64,
    .chosen = 8,
    .expert_inner = 300,
    .index_heads = 16,
    .index_dim = 128,
    .max_context = 4096,
    .index_precision = DSA_INDEX_FP8,
};

static inline struct fixture fixture_open(int threads)
{
	struct fixture f = {.random = 88172645463325252u};
	struct dsa_error err = {""};
	const struct dsa_backend_options options = {.device = "cpu", .threads = threads};
	if (dsa_backend_open(&f.be, &options, &err) != DSA_OK)
		fail_msg("%s", err.text);
	if (dsa_backend_reserve(f.be, &fixture_limits, &err) != DSA_OK)
		fail_msg("%s", err.text);
	return f;
}

static inline void fixture_close(struct fixture *f)
{
	for (int i = 0; i < f->count; i++)
		free(f->kept[i]);
	dsa_backend_close(f->be);
}

static inline void *fixture_keep(struct fixture *f, size_t bytes)
{
	assert_true(f->count < FIXTURE_KEPT);
	void *memory = malloc(bytes ? bytes : 1);
	assert_non_null(memory);
	f->kept[f->count++] = memory;
	return memory;
}

static inline uint64_t fixture_random(struct fixture *f)
{
	f->random ^= f->random << 13;
	f->random ^= f->random >> 7;
	f->random ^= f->random << 17;
	return f->random >> 11;
}

static inline int fixture_below(struct fixture *f, int bound)
{
	return (int)(fixture_random(f) % (uint64_t)bound);
}

/* Uniform in ±1. */
static inline float fixture_float(struct fixture *f)
{
	return (float)((double)fixture_random(f) * 0x1p-52 - 1);
}

static inline struct dsa_tensor fixture_tensor(struct fixture *f, int64_t rows, int cols, float scale)
{
	float *data = fixture_keep(f, (size_t)rows * (size_t)cols * sizeof *data);
	for (int64_t i = 0; i < rows * cols; i++)
		data[i] = scale * fixture_float(f);
	return dsa_tensor_make(data, DSA_F32, rows, cols);
}

/* All NaN: an element that an operator does not write shows. */
static inline struct dsa_tensor fixture_poison(struct fixture *f, int64_t rows, int cols)
{
	return fixture_tensor(f, rows, cols, NAN);
}

static inline float *fixture_row(struct dsa_tensor t, int64_t row)
{
	return (float *)t.data + row * t.stride;
}

static inline float fixture_at(struct dsa_tensor t, int64_t row, int64_t col)
{
	return fixture_row(t, row)[col];
}

static inline struct dsa_tensor fixture_none(void)
{
	return (struct dsa_tensor){0};
}

static inline void fixture_ok(struct fixture *f, enum dsa_status status)
{
	assert_int_equal(status, DSA_OK);
	struct dsa_error err = {""};
	if (f->be->ops->wait(f->be, &err) != DSA_OK)
		fail_msg("%s", err.text);
}

/* within: absolute error allowed, as a multiple of the sum of magnitudes that went into the value. */
static inline void fixture_close_to(double found, double expected, double magnitude, double within)
{
	if (!(fabs(found - expected) <= within * (magnitude + 1e-30)))
		fail_msg("%.9g, expected %.9g within %.3g", found, expected, within * magnitude);
}

/* Documents of the given lengths, all their positions ≥ from. */
static inline struct dsa_rows fixture_rows(struct fixture *f, const int *lengths, int documents, int from,
                                           int64_t *keys)
{
	int64_t room = 0;
	for (int i = 0; i < documents; i++)
		room += lengths[i];
	int32_t *pos = fixture_keep(f, (size_t)room * sizeof *pos),
		*key0 = fixture_keep(f, (size_t)room * sizeof *key0);
	struct dsa_rows rows = {.pos = pos, .key0 = key0};
	*keys = 0;
	for (int i = 0; i < documents; i++) {
		for (int t = from; t < lengths[i]; t++) {
			pos[rows.count] = t;
			key0[rows.count++] = (int32_t)*keys;
			rows.max_pos = t > rows.max_pos ? t : rows.max_pos;
		}
		*keys += lengths[i];
	}
	return rows;
}

static inline struct dsa_rows fixture_some_rows(const struct dsa_rows *rows, int64_t first, int64_t count)
{
	return (struct dsa_rows){
	    .count = count, .pos = rows->pos + first, .key0 = rows->key0 + first, .max_pos = rows->max_pos};
}

/* Runs rows [first, first + count) of a problem on be; out receives count rows of row_bytes. */
typedef void fixture_run(struct fixture *f, void *problem, int64_t first, int64_t count, void *out);

/* Every count from 1 to rows in steps of `step`, at a moving place, on 1, 2 and 4 threads, gives the bits of the whole
 * call on one thread. */
static inline void fixture_rows_are_independent(fixture_run *run, void *problem, int64_t rows, size_t row_bytes,
                                                int step)
{
	char *whole = malloc((size_t)rows * row_bytes), *part = malloc((size_t)rows * row_bytes);
	assert_non_null(whole);
	assert_non_null(part);
	struct fixture on[3] = {fixture_open(1), fixture_open(2), fixture_open(4)};
	run(&on[0], problem, 0, rows, whole);
	for (int64_t count = 1; count <= rows; count += step) {
		int64_t first = (rows - count) * (count % 7) / 6;
		struct fixture *f = &on[count / step % 3];
		memset(part, 0xff, (size_t)rows * row_bytes);
		run(f, problem, first, count, part);
		if (memcmp(part, whole + (size_t)first * row_bytes, (size_t)count * row_bytes) != 0)
			fail_msg("%s: other bits at %lld rows from row %lld", f->be->name, (long long)count,
			         (long long)first);
	}
	for (int i = 0; i < 3; i++) {
		memset(part, 0xff, (size_t)rows * row_bytes);
		run(&on[i], problem, 0, rows, part);
		if (memcmp(part, whole, (size_t)rows * row_bytes) != 0)
			fail_msg("%s: other bits", on[i].be->name);
		fixture_close(&on[i]);
	}
	free(whole);
	free(part);
}

#endif
