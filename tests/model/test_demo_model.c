#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dsa/file.h"
#include "golden.h"

/* Long documents: several tiles of rows. On the shipped demo model, at widths beyond the tiny goldens' (several blocks
 * of a matrix product); on a golden where a tree has no demo model. */

static const char *const demo = "calib_data/demo", *const tiny = "tests/golden/tiny/glm-all-full";
enum { CONTEXT = 4096 };

static void scored_part_of_long_documents_equals_the_whole_pass(void **state)
{
	(void)state;
	struct golden g = {0};
	struct dsa_backend_options options = {.device = "cpu", .threads = 2};
	struct dsa_prefix *prefix;
	struct dsa_forward *f;
	int64_t rows, part_rows;
	const char *dir = dsa_file_exists("calib_data/demo/config.json") ? demo : tiny;
	MUST(dsa_backend_open(&g.be, &options, &golden_error));
	MUST(dsa_model_open(&g.model, g.be, dir, CONTEXT, NULL, NULL, &golden_error));
	const struct dsa_model_config *c = &g.model->config;
	int K = c->topk, long_tokens = 2100, short_tokens = K + 40;
	assert_true(K + 40 < CONTEXT);
	int32_t ids[CONTEXT];
	uint32_t random = 1;
	for (int t = 0; t < CONTEXT; t++) {
		random = random * 1664525 + 1013904223;
		ids[t] = (int32_t)((random >> 8) % (uint32_t)c->vocab);
	}
	struct dsa_pass_document documents[2] = {{ids, short_tokens}, {ids + 7, long_tokens}};
	char pattern[DSA_MAX_LAYERS + 1] = {0};
	for (int l = 0; l < c->layers; l++)
		pattern[l] = l % 2 ? 'S' : 'F';

	MUST(
	    dsa_forward_open(&f, g.model, short_tokens + long_tokens, short_tokens + long_tokens, 2, 1, &golden_error));
	MUST(dsa_prefix_open(&prefix, g.model, documents, 2, &golden_error));
	MUST(dsa_forward_begin(f, documents, 2, true, prefix, &rows, &golden_error));
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++)
		MUST(dsa_forward_layer(f, l, pattern[l], false, &golden_error));
	size_t bytes = dsa_state_bytes(c, documents, 2);
	char *whole = malloc(bytes), *part = malloc(bytes);
	assert_true(whole && part);
	MUST(dsa_forward_save(f, whole, &golden_error));
	int32_t index[4];
	for (int i = 0; i < 4; i++)
		index[i] = (int32_t)dsa_forward_row(f, 1, long_tokens - 1 - 300 * i);
	float *logits = golden_logits(&g, f, index, 4);
	for (int i = 0; i < 4 * c->vocab; i++)
		assert_true(isfinite(logits[i]));

	MUST(dsa_forward_begin(f, documents, 2, false, prefix, &part_rows, &golden_error));
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++)
		MUST(dsa_forward_layer(f, l, pattern[l], false, &golden_error));
	MUST(dsa_forward_save(f, part, &golden_error));
	assert_int_equal(rows - part_rows, K + (long_tokens < K ? long_tokens : K));
	assert_memory_equal(whole, part, bytes);

	/* The second document alone. */
	size_t first = (size_t)40 * (size_t)c->hidden * sizeof(float);
	size_t second = (size_t)(long_tokens - K) * (size_t)c->hidden * sizeof(float);
	MUST(dsa_forward_begin(f, documents + 1, 1, true, NULL, &rows, &golden_error));
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++)
		MUST(dsa_forward_layer(f, l, pattern[l], false, &golden_error));
	MUST(dsa_forward_save(f, part, &golden_error));
	assert_memory_equal(whole + first, part, second);

	free(logits);
	free(whole);
	free(part);
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
	golden_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(scored_part_of_long_documents_equals_the_whole_pass),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
