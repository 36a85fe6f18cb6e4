#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/junit.h"
#include "report/markup.h"
#include "report/verify_fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

static const char prolog[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/* Elements of the file; -1 if it is not well-formed. */
static int elements(const struct dsa_text *text)
{
	assert_int_equal(dsa_text_check(text, "verify.xml", &err), DSA_OK);
	assert_int_equal(strncmp(text->data, prolog, sizeof prolog - 1), 0);
	return markup_check(text->data + sizeof prolog - 1);
}

static int occurrences(const struct dsa_text *text, const char *what)
{
	int count = 0;
	for (const char *at = text->data; (at = strstr(at, what)); at++)
		count++;
	return count;
}

static void a_fixed_verification_gives_the_golden_file(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	dsa_junit_write(&text, &v.report);
	assert_true(elements(&text) > 30);
	assert_true(fixture_matches_golden(&text, "verify.xml"));
	dsa_text_release(&text);
}

static void failures_and_skipped_are_counted_where_they_stand(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	const struct dsa_judgement *judgement = &v.verification.judgement;
	dsa_junit_write(&text, &v.report);
	assert_true(judgement->worse >= 2 && judgement->better >= 1 && judgement->judged < judgement->count);
	assert_int_equal(occurrences(&text, "<testcase "), judgement->count);
	assert_int_equal(occurrences(&text, "<failure "), judgement->worse);
	assert_int_equal(occurrences(&text, "<skipped "), judgement->count - judgement->judged);
	assert_int_equal(occurrences(&text, "<error "), 0);
	assert_int_equal(occurrences(&text, "<testsuite "), 3);
	dsa_text_release(&text);
	verify_fixture_holds(&v, "pattern.yaml", fixture_names, &arena);
	dsa_junit_write(&text, &v.report);
	assert_int_equal(occurrences(&text, "<failure "), 0);
	dsa_text_release(&text);
}

static void an_error_is_no_failure(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	dsa_junit_write_error(&text, "pattern.yaml", "could not measure", "model: cannot open: no such file");
	assert_int_equal(elements(&text), 4);
	assert_true(fixture_matches_golden(&text, "verify_error.xml"));
	dsa_text_release(&text);
	dsa_junit_write_error(&text, NULL, "usage", fixture_hostile);
	assert_int_equal(elements(&text), 4);
	assert_int_equal(occurrences(&text, "<failure "), 0);
	dsa_text_release(&text);
}

static void hostile_names_stay_inside_their_attributes(void **state)
{
	(void)state;
	char *long_name = fixture_alloc(&arena, 4097, 1);
	memset(long_name, '<', 4096);
	const char *const names[3] = {fixture_hostile, fixture_hostile, long_name};
	struct verify_fixture v, plain;
	struct dsa_text text = {0}, other = {0};
	verify_fixture_fill(&v, fixture_hostile, names, &arena);
	verify_fixture_fill(&plain, "pattern.yaml", fixture_names, &arena);
	dsa_junit_write(&text, &v.report);
	dsa_junit_write(&other, &plain.report);
	assert_true(elements(&text) > 30);
	assert_int_equal(elements(&text), elements(&other));
	dsa_text_release(&text);
	dsa_text_release(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_verification_gives_the_golden_file, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(failures_and_skipped_are_counted_where_they_stand, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(an_error_is_no_failure, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_names_stay_inside_their_attributes, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
