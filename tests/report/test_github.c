#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/github.h"
#include "report/verify_fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

static int lines(const struct dsa_text *text, const char *with)
{
	int count = 0;
	const char *at = text->data;
	while (at && *at) {
		count += !strncmp(at, with, strlen(with));
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	return count;
}

static void a_fixed_verification_gives_the_golden_summary(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "pattern.yaml", fixture_names, &arena);
	dsa_github_summary(&text, &v.report);
	assert_int_equal(dsa_text_check(&text, "summary", &err), DSA_OK);
	assert_true(fixture_matches_golden(&text, "verify_summary.md"));
	dsa_text_release(&text);
}

static void one_annotation_says_the_worst(void **state)
{
	(void)state;
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, "a:b,c%.yaml", fixture_names, &arena);
	dsa_github_annotation(&text, &v.report);
	assert_int_equal(lines(&text, "::error file=a%3Ab%2Cc%25.yaml,title=dsacal verify::"), 1);
	assert_non_null(strstr(text.data, "(budget-kl)"));
	assert_int_equal(lines(&text, ""), 1);
	dsa_text_release(&text);
	/* Nothing worse: a warning where something is better, else nothing. */
	verify_fixture_holds(&v, "pattern.yaml", fixture_names, &arena);
	dsa_github_annotation(&text, &v.report);
	assert_int_equal(text.bytes, 0);
	v.verification.judgement.better = 2;
	dsa_github_annotation(&text, &v.report);
	assert_int_equal(lines(&text, "::warning "), 1);
	assert_non_null(strstr(text.data, "2 figures moved for the better"));
	dsa_text_release(&text);
	v.report.accepted = true;
	dsa_github_annotation(&text, &v.report);
	assert_int_equal(text.bytes, 0);
	dsa_text_release(&text);
}

static void hostile_names_neither_format_nor_command(void **state)
{
	(void)state;
	const char *const names[3] = {"m", fixture_hostile, "@all [x](http://y) <b> `c` | *d* \r\n::error::e ~~f~~ \\"};
	struct verify_fixture v;
	struct dsa_text text = {0};
	verify_fixture_fill(&v, fixture_hostile, names, &arena);
	dsa_github_summary(&text, &v.report);
	assert_null(strpbrk(text.data, "<>@[]`~\\'\"\r"));
	assert_null(strstr(text.data, "\xe2\x80\xae"));
	assert_int_equal(lines(&text, "::"), 0);
	assert_int_equal(lines(&text, "### "), 1);
	assert_int_equal(lines(&text, "| "), v.verification.judgement.count + 1);
	dsa_text_release(&text);
	dsa_github_summary_error(&text, fixture_hostile, fixture_hostile);
	assert_null(strpbrk(text.data, "<>@[]`~\\'\"\r"));
	assert_int_equal(lines(&text, "### "), 1);
	dsa_text_release(&text);
	dsa_github_annotation_error(&text, fixture_hostile, fixture_hostile);
	assert_int_equal(lines(&text, ""), 1);
	assert_null(strstr(text.data, "\xe2\x80\xae"));
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_verification_gives_the_golden_summary, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(one_annotation_says_the_worst, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_names_neither_format_nor_command, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
