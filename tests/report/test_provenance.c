#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "dsa/provenance.h"

static void dates_are_iso_8601_in_utc(void **state)
{
	(void)state;
	static const struct {
		int64_t seconds;
		const char *date;
	} cases[] = {
	    {0, "1970-01-01T00:00:00Z"},          {951782399, "2000-02-28T23:59:59Z"},
	    {951782400, "2000-02-29T00:00:00Z"},  {1795503276, "2026-11-24T06:54:36Z"},
	    {4107542400, "2100-03-01T00:00:00Z"}, {INT64_MIN, "1970-01-01T00:00:00Z"},
	    {INT64_MAX, "9999-12-31T23:59:59Z"},
	};
	char date[DSA_DATE_CHARS];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		dsa_date_format(cases[i].seconds, date);
		assert_string_equal(date, cases[i].date);
	}
}

static void version_and_commit_are_never_empty(void **state)
{
	(void)state;
	assert_true(strlen(dsa_version()) > 0);
	assert_true(strlen(dsa_commit()) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dates_are_iso_8601_in_utc),
	    cmocka_unit_test(version_and_commit_are_never_empty),
	};
	return cmocka_run_group_tests_name("provenance", tests, NULL, NULL);
}
