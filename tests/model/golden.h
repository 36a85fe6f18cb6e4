/* golden.h: a golden checkpoint opened, run under a pattern, and its expected tensors at hand. */
#ifndef DSA_TEST_GOLDEN_H
#define DSA_TEST_GOLDEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/file.h"
#include "dsa/forward.h"
#include "dsa/safetensors.h"

enum { GOLDEN_TOPK = 64 }; /* the most K of any of these models */

struct golden {
	char dir[512];
	struct dsa_backend *be;
	struct dsa_model *model;
	struct dsa_checkpoint *expected;
	const int32_t *ids;
	int tokens;
};

/* Every status of the program under test ends here; the message is shown. */
static struct dsa_error golden_error;
#define MUST(call)                                                                                                     \
	do {                                                                                                           \
		golden_error.text[0] = 0;                                                                              \
		if ((call) != DSA_OK)                                                                                  \
			fail_msg("%s: %s", #call, golden_error.text);                                                  \
	} while (0)

static inline const void *golden_data(const struct golden *g, const char *name, int64_t rows, int64_t cols)
{
	const struct dsa_stored *stored = dsa_checkpoint_find(g->expected, name);
	if (!stored)
		fail_msg("%s: expected.safetensors has no %s", g->dir, name);
	assert_true(stored->shape[0] == rows && (stored->dims == 1 || stored->shape[1] == cols));
	assert_true((uintptr_t)stored->data % 4 == 0);
	return stored->data;
}

/* The model of one folder and the expected tensors of another. */
static inline void golden_open_pair(struct golden *g, const char *model_dir, const char *dir, int context, int threads)
{
	char path[600];
	struct dsa_backend_options options = {.device = "cpu", .threads = threads};
	*g = (struct golden){0};
	snprintf(g->dir, sizeof g->dir, "%s", dir);
	snprintf(path, sizeof path, "%s/expected.safetensors", dir);
	MUST(dsa_backend_open(&g->be, &options, &golden_error));
	MUST(dsa_model_open(&g->model, g->be, model_dir, context, NULL, NULL, &golden_error));
	MUST(dsa_checkpoint_open_file(&g->expected, path, &golden_error));
}

static inline void golden_open(struct golden *g, const char *dir, int threads)
{
	golden_open_pair(g, dir, dir, 256, threads);
	g->tokens = (int)dsa_checkpoint_find(g->expected, "tokens")->shape[0];
	g->ids = golden_data(g, "tokens", g->tokens, 1);
}

static inline void golden_close(struct golden *g)
{
	dsa_checkpoint_close(g->expected);
	dsa_model_close(g->model);
	dsa_backend_close(g->be);
	*g = (struct golden){0};
}

/* A pass of up to these rows. */
static inline struct dsa_forward *golden_forward(const struct golden *g, int64_t rows, int documents)
{
	struct dsa_forward *f;
	MUST(dsa_forward_open(&f, g->model, rows, rows, documents, 1, &golden_error));
	return f;
}

/* Layers [from, to) of a pass under a pattern. */
static inline void golden_layers(struct dsa_forward *f, const char *pattern, int from, int to, bool unused)
{
	for (int l = from; l < to; l++)
		MUST(dsa_forward_layer(f, l, pattern[l], unused, &golden_error));
}

/* The selection in force of `rows` pass rows, (rows, K); free() it. */
static inline int32_t *golden_selection(const struct golden *g, const struct dsa_forward *f, int64_t rows)
{
	size_t bytes = (size_t)rows * (size_t)g->model->config.topk * sizeof(int32_t);
	int32_t *got = malloc(bytes);
	assert_non_null(got);
	MUST(g->be->ops->download(g->be, got, dsa_forward_selection(f), bytes, &golden_error));
	return got;
}

/* Of two ascending sets of `count`: what only the first and only the second has, in extra and lacking; how many. */
static inline int golden_set_difference(const int32_t *got, const int32_t *want, int count, int32_t *extra,
                                        int32_t *lacking)
{
	int n = 0, m = 0;
	for (int i = 0, j = 0; i < count || j < count;) {
		if (j == count || (i < count && got[i] < want[j]))
			extra[n++] = got[i++];
		else if (i == count || want[j] < got[i])
			lacking[m++] = want[j++];
		else
			i++, j++;
	}
	assert_int_equal(n, m);
	return n;
}

/* Logits (count, V) of pass rows; free() them. */
static inline float *golden_logits(const struct golden *g, struct dsa_forward *forward, const int32_t *index,
                                   int64_t count)
{
	const struct dsa_model_config *c = &g->model->config;
	void *hidden, *logits;
	size_t bytes = (size_t)count * (size_t)c->vocab * sizeof(float);
	float *host = malloc(bytes + 1);
	assert_non_null(host);
	MUST(g->be->ops->alloc(g->be, (size_t)(count + 1) * (size_t)c->hidden * sizeof(float), "hidden", &hidden,
	                       &golden_error));
	MUST(g->be->ops->alloc(g->be, bytes + 1, "logits", &logits, &golden_error));
	struct dsa_tensor x = dsa_tensor_make(hidden, g->be->act, count, c->hidden);
	struct dsa_tensor y = dsa_tensor_make(logits, DSA_F32, count, c->vocab);
	MUST(dsa_forward_hidden(forward, index, count, x, &golden_error));
	if (count)
		MUST(g->be->ops->logits(g->be, y, x, g->model->head, &golden_error));
	MUST(g->be->ops->download(g->be, host, logits, bytes, &golden_error));
	g->be->ops->free(g->be, hidden);
	g->be->ops->free(g->be, logits);
	return host;
}

/* All rows of the pass, in order. */
static inline float *golden_all_logits(const struct golden *g, struct dsa_forward *forward, int64_t rows)
{
	int32_t *index = malloc((size_t)(rows + 1) * sizeof *index);
	assert_non_null(index);
	for (int64_t i = 0; i < rows; i++)
		index[i] = (int32_t)i;
	float *logits = golden_logits(g, forward, index, rows);
	free(index);
	return logits;
}

/* Largest |a - b| in a row over the row's largest |b|, over all rows. */
static inline double golden_distance(const float *a, const float *b, int64_t rows, int cols)
{
	double worst = 0;
	for (int64_t i = 0; i < rows; i++) {
		double far = 0, large = 0;
		for (int j = 0; j < cols; j++) {
			double x = a[i * cols + j], y = b[i * cols + j];
			far = fabs(x - y) > far || !(x - y == x - y) ? fabs(x - y) : far;
			large = fabs(y) > large ? fabs(y) : large;
		}
		double relative = far / large;
		worst = relative > worst || !(relative == relative) ? relative : worst;
	}
	return worst;
}

/* Calls visit for every golden case. */
static inline void golden_each_case(void (*visit)(struct golden *g))
{
	struct dsa_arena arena;
	char **names, dir[512];
	size_t count;
	int cases = 0;
	dsa_arena_init(&arena);
	MUST(dsa_file_list("tests/golden/tiny", &arena, &names, &count, &golden_error));
	for (size_t i = 0; i < count; i++) {
		snprintf(dir, sizeof dir, "tests/golden/tiny/%s", names[i]);
		if (!dsa_file_is_directory(dir))
			continue;
		struct golden g;
		golden_open(&g, dir, 2);
		visit(&g);
		golden_close(&g);
		cases++;
	}
	assert_true(cases >= 13);
	dsa_arena_release(&arena);
}

static inline void golden_begin(struct dsa_forward *f, const struct dsa_pass_document *documents, int count, bool whole,
                                struct dsa_prefix *prefix, int64_t *rows)
{
	MUST(dsa_forward_begin(f, documents, count, whole, prefix, rows, &golden_error));
}

#endif
