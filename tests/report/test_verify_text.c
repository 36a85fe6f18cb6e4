#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/verify_text.h"
#include "report/verify_fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

static void a_fixed_verification_gives_the_golden_text(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	dsa_verify_text_write(&text, &v.report);
	assert_int_equal(dsa_text_check(&text, "text", &err), DSA_OK);
	assert_true(fixture_matches_golden(&text, "verify.txt"));
	dsa_text_release(&text);
}

static void names_are_harmless_on_a_terminal(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	dsa_verify_text_name(&text, "a\x1b[31m\r\n\t\xc2\x9b\xe2\x80\xae\xe2\x81\xa6\xd7\xa9\xff z");
	assert_string_equal(text.data, "a\xef\xbf\xbd[31m\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
	                               "\xef\xbf\xbd\xd7\xa9\xef\xbf\xbd z");
	dsa_text_release(&text);
}

static void the_headline_names_the_broken_bound_first(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	dsa_verify_text_headline(&text, &v.report);
	assert_non_null(
	    strstr(text.data, "got worse: all corpora, calibration: mean KL 0.0625, at most 0.0200 (budget-kl)"));
	assert_non_null(strstr(text.data, "more checks"));
	dsa_text_release(&text);
	verify_fixture_holds(&v, "pattern.yaml", fixture_names, &arena);
	v.verification.early = true;
	v.verification.documents = 20;
	v.verification.confidence = 0.99;
	dsa_verify_text_headline(&text, &v.report);
	assert_non_null(strstr(text.data, "holds: "));
	assert_non_null(strstr(text.data, "20 of 32 documents, decided early with 99% confidence"));
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_verification_gives_the_golden_text, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(names_are_harmless_on_a_terminal, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_headline_names_the_broken_bound_first, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
