#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "dsa/pattern_diff.h"
#include "report/verify_fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

/* The recorded side of a verification and the measured one, of another pattern; rag is only on the left. */
static void fill(struct verify_fixture *v, struct dsa_pattern_diff *diff, const char *const names[3])
{
	verify_fixture_fill(v, "pattern.yaml", names, &arena);
	v->now.pattern = "FSSFFFFSFSSS";
	v->now.corpus_count = 1;
	v->now.index_precision = DSA_INDEX_BF16;
	*diff =
	    (struct dsa_pattern_diff){.file = {"main/pattern.yaml", "pattern.yaml"}, .side = {&v->recorded, &v->now}};
}

static void fixed_files_give_the_golden_text(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_pattern_diff diff;
	struct dsa_text text = {0};
	fill(&v, &diff, fixture_names);
	dsa_pattern_diff_write(&text, &diff);
	assert_int_equal(dsa_text_check(&text, "text", &err), DSA_OK);
	assert_true(fixture_matches_golden(&text, "diff.txt"));
	dsa_text_release(&text);
}

static void json_lists_layers_and_both_sides_figures(void **state)
{
	(void)state;
	const char *const names[3] = {fixture_hostile, fixture_hostile, "rag"};
	struct verify_fixture v;
	struct dsa_pattern_diff diff;
	struct dsa_text text = {0};
	json_error_t fault;
	fill(&v, &diff, names);
	dsa_pattern_diff_json_write(&text, &diff);
	json_t *root = json_loadb(text.data, text.bytes, JSON_REJECT_DUPLICATES, &fault);
	assert_non_null(root);
	const json_t *layers = json_object_get(root, "layers"), *figures = json_object_get(root, "figures");
	assert_int_equal(json_array_size(layers), 2);
	static const char *const sides[] = {"a", "b"}, *const precisions[] = {"fp8", "bf16"};
	for (int s = 0; s < 2; s++) {
		const json_t *side = json_object_get(root, sides[s]);
		assert_string_equal(json_string_value(json_object_get(side, "indexer_precision")), precisions[s]);
	}
	assert_int_equal(json_integer_value(json_object_get(json_array_get(layers, 0), "layer")), 4);
	assert_string_equal(json_string_value(json_object_get(json_array_get(layers, 1), "to")), "S");
	assert_int_equal(json_array_size(figures), 3); /* all, and two corpora */
	const json_t *rag = json_object_get(json_array_get(figures, 2), "heldout");
	assert_true(json_real_value(json_object_get(json_object_get(rag, "a"), "kl")) ==
	            v.recorded.corpora[1].heldout.kl);
	assert_true(json_is_null(json_object_get(rag, "b")));
	json_decref(root);
	dsa_text_release(&text);
}

static void only_another_precision_is_worth_a_line(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_pattern_diff diff;
	struct dsa_text text = {0};
	fill(&v, &diff, fixture_names);
	v.now.index_precision = DSA_INDEX_FP8_UE8M0; /* the model's kind of fp8 */
	dsa_pattern_diff_write(&text, &diff);
	assert_null(strstr(text.data, "indexer "));
	dsa_text_release(&text);
	v.now.index_precision = DSA_INDEX_ACT;
	dsa_pattern_diff_write(&text, &diff);
	assert_non_null(strstr(text.data, "\nindexer       fp8 > f32\n"));
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(fixed_files_give_the_golden_text, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(json_lists_layers_and_both_sides_figures, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(only_another_precision_is_worth_a_line, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
