#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "golden.h"

static int fp8_cases;

/* Every layer's positions from K on and the logits, by an implementation that shares nothing with ours. */
static void compare_fp8_indexers(struct golden *g)
{
	struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document document = {g->ids, g->tokens};
	char name[64];
	int64_t rows;
	size_t K = (size_t)c->topk, scored = (size_t)(g->tokens - c->topk) * K;
	if (!dsa_checkpoint_find(g->expected, "fp8.logits"))
		return;
	fp8_cases++;
	c->index_precision = c->scale_ue8m0 ? DSA_INDEX_FP8_UE8M0 : DSA_INDEX_FP8;
	struct dsa_forward *f = golden_forward(g, g->tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++) {
		golden_layers(f, c->native, l, l + 1, false);
		snprintf(name, sizeof name, "fp8.selection.%d", l);
		const int32_t *want = golden_data(g, name, g->tokens, c->topk);
		int32_t *got = golden_selection(g, f, g->tokens);
		if (memcmp(got + K * K, want + K * K, scored * sizeof *got))
			fail_msg("%s: layer %d selects other positions in FP8", g->dir, l);
		free(got);
	}
	float *logits = golden_all_logits(g, f, rows);
	double off = golden_distance(logits, golden_data(g, "fp8.logits", g->tokens, c->vocab), g->tokens, c->vocab);
	if (!(off <= 1e-5))
		fail_msg("%s: logits with indexers in FP8 are off by %.2e", g->dir, off);
	free(logits);
	dsa_forward_close(f);
}

static void indexers_in_fp8_select_what_the_reference_selects(void **state)
{
	(void)state;
	fp8_cases = 0;
	golden_each_case(compare_fp8_indexers);
	assert_true(fp8_cases >= 3);
}

/* In layer 0 the state is the embeddings whatever the indexer's precision: what would have been selected without one is
 * what is selected without one. */
static void selections_without_the_precision_are_kept_beside(void **state)
{
	(void)state;
	struct golden g;
	int64_t rows;
	golden_open(&g, "tests/golden/tiny/glm-fp8-ue8m0", 2);
	struct dsa_model_config *c = &g.model->config;
	struct dsa_pass_document document = {g.ids, g.tokens};
	size_t count = (size_t)g.tokens * (size_t)c->topk;
	int32_t *plain = malloc(count * sizeof *plain);
	assert_non_null(plain);
	struct dsa_forward *f = golden_forward(&g, g.tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, c->native, 0, 1, false);
	int32_t *exact = golden_selection(&g, f, rows);
	dsa_forward_close(f);
	assert_true(c->scale_ue8m0);
	c->index_precision = DSA_INDEX_FP8_UE8M0;
	f = golden_forward(&g, g.tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	dsa_forward_keep_plain(f, plain);
	golden_layers(f, c->native, 0, 1, false);
	int32_t *taken = golden_selection(&g, f, rows);
	assert_memory_equal(plain, exact, count * sizeof *plain);
	assert_memory_not_equal(taken, exact, count * sizeof *taken);
	/* An S layer selects nothing, and leaves what is there. */
	golden_layers(f, c->native, 1, 2, false);
	assert_memory_equal(plain, exact, count * sizeof *plain);
	dsa_forward_keep_plain(f, NULL);
	golden_layers(f, c->native, 2, 3, false);
	assert_memory_equal(plain, exact, count * sizeof *plain);
	free(plain);
	free(exact);
	free(taken);
	dsa_forward_close(f);
	golden_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(indexers_in_fp8_select_what_the_reference_selects),
	    cmocka_unit_test(selections_without_the_precision_are_kept_beside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
