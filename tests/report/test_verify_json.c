#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "dsa/verify_json.h"
#include "report/verify_fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

static json_t *load(const struct dsa_text *text)
{
	json_error_t fault;
	assert_int_equal(dsa_text_check(text, "json", &err), DSA_OK);
	json_t *root = json_loadb(text->data, text->bytes, JSON_REJECT_DUPLICATES, &fault);
	if (!root)
		fail_msg("%s", fault.text);
	return root;
}

static void a_fixed_verification_gives_the_golden_file(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	v.now.index_precision = DSA_INDEX_ACT;
	dsa_verify_json_write(&text, &v.report);
	json_decref(load(&text));
	assert_true(fixture_matches_golden(&text, "verify.json"));
	dsa_text_release(&text);
}

static void verdict_and_names_can_be_relied_on(void **state)
{
	(void)state;
	const char *const names[3] = {"m", fixture_hostile, "rag"};
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, fixture_hostile, names, &arena);
	dsa_verify_json_write(&text, &v.report);
	json_t *root = load(&text);
	assert_string_equal(json_string_value(json_object_get(root, "verdict")), "worse");
	assert_true(json_is_true(json_object_get(json_object_get(root, "model"), "changed")));
	assert_int_equal(json_array_size(json_object_get(root, "checks")), v.verification.judgement.count);
	assert_int_equal(json_array_size(json_object_get(root, "corpora")), 2);
	assert_true(json_is_null(json_object_get(root, "confidence")));
	json_decref(root);
	dsa_text_release(&text);
	verify_fixture_holds(&v, "p", fixture_names, &arena);
	dsa_verify_json_write(&text, &v.report);
	root = load(&text);
	assert_string_equal(json_string_value(json_object_get(root, "verdict")), "holds");
	assert_true(json_is_false(json_object_get(json_object_get(root, "model"), "changed")));
	json_decref(root);
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_verification_gives_the_golden_file, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(verdict_and_names_can_be_relied_on, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
