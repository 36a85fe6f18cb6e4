#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/csv.h"
#include "report/fixture.h"

static void assert_field(const char *name, const char *expected)
{
	struct dsa_text text = {0};
	dsa_csv_field(&text, name);
	assert_string_equal(text.data ? text.data : "", expected);
	dsa_text_release(&text);
}

static void fields_are_quoted_and_no_formula(void **state)
{
	(void)state;
	assert_field("legal", "legal");
	assert_field("a,b", "\"a,b\"");
	assert_field("a \"b\"", "\"a \"\"b\"\"\"");
	assert_field("a\r\nb", "\"a\r\nb\"");
	assert_field(" a", "\" a\"");
	assert_field("", "");
	assert_field("=1+1", "'=1+1");
	assert_field("+1", "'+1");
	assert_field("-1", "'-1");
	assert_field("@SUM(A1)", "'@SUM(A1)");
	assert_field("\t=1", "'\t=1");
	assert_field("=a,\"b\"", "\"'=a,\"\"b\"\"\"");
	assert_field("\xff", "\xef\xbf\xbd");
}

/* Splits one record by RFC 4180; returns the start of the next, NULL at the end. */
static const char *record(const char *at, int *fields, char first[512])
{
	size_t length = 0;
	bool quoted = false;
	*fields = 1;
	if (!*at)
		return NULL;
	for (; *at; at++) {
		if (quoted && at[0] == '"' && at[1] == '"') {
			at++;
		} else if (*at == '"') {
			quoted = !quoted;
			continue;
		} else if (!quoted && *at == ',') {
			++*fields;
			continue;
		} else if (!quoted && at[0] == '\r' && at[1] == '\n') {
			first[length] = 0;
			return at + 2;
		}
		if (*fields == 1 && length < 511)
			first[length++] = *at;
	}
	fail_msg("a record without its end");
	return NULL;
}

static int rows(const struct dsa_text *text, int expected_fields, const char *expected_first)
{
	int count = 0, fields;
	char first[512];
	for (const char *at = text->data; (at = record(at, &fields, first)); count++) {
		assert_int_equal(fields, expected_fields);
		if (count && expected_first)
			assert_string_equal(first, expected_first);
	}
	return count;
}

static void every_candidate_of_every_step_has_a_row(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_results results;
	struct dsa_text text = {0};
	dsa_arena_init(&arena);
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_trace_csv_write(&text, &results);
	assert_int_equal(rows(&text, 9, NULL), 1 + 11 + 10 + 9 + 8 + 7 + 6 + 5 + 4);
	char row[64];
	snprintf(row, sizeof row, "\r\n1,%d,1,", results.trace.steps[0].flip);
	assert_non_null(strstr(text.data, row));
	assert_true(fixture_matches_golden(&text, "trace.csv"));
	dsa_text_release(&text);
	dsa_arena_release(&arena);
}

static void overlap_has_all_positions_and_each_bucket(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_results results;
	struct dsa_text text = {0}, clean = {0};
	const char *const names[3] = {"m", fixture_hostile, fixture_hostile};
	dsa_arena_init(&arena);
	fixture_fill(&results, 6, names, &arena);
	dsa_overlap_csv_write(&text, &results);
	dsa_text_add(&clean, "'");
	dsa_text_utf8(&clean, fixture_hostile);
	assert_int_equal(rows(&text, 11, clean.data), 1 + 2 * 3 * 21);
	assert_non_null(strstr(text.data, ",64,,6045,0,0,1,0,3,1,1\r\n"));
	assert_non_null(strstr(text.data, ",64,128,3021,5,5,1,0,3,1,1\r\n"));
	dsa_text_release(&text);
	dsa_text_release(&clean);
	dsa_arena_release(&arena);
}

static int lines_with(const char *text, const char *start)
{
	int count = 0;
	for (const char *at = text; (at = strstr(at, "\r\n")); at += 2)
		count += !strncmp(at + 2, start, strlen(start));
	return count;
}

static void every_mark_of_the_figures_has_a_row(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_results results;
	struct dsa_text text = {0};
	dsa_arena_init(&arena);
	fixture_fill(&results, 12, fixture_names, &arena);
	/* Rows behind the header: four patterns of twelve layers; emitted, steps, refined, baselines; the candidates of
	 * step 1; two corpora on two sides; they and all together, in two buckets; six context lengths. */
	static const struct {
		const char *file;
		int fields, rows;
	} tables[] = {{"pattern.csv", 4, 48}, {"curve.csv", 23, 1 + 8 + 1 + 2}, {"sensitivity.csv", 7, 11},
	              {"corpora.csv", 15, 4}, {"positions.csv", 9, 12},         {"gain.csv", 5, 6}};
	for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
		const struct dsa_csv_table *table = &dsa_csv_tables[t + 2];
		assert_string_equal(table->file, tables[t].file);
		table->write(&text, &results);
		assert_int_equal(rows(&text, tables[t].fields, NULL), 1 + tables[t].rows);
		assert_true(fixture_matches_golden(&text, table->file));
		dsa_text_release(&text);
	}
	dsa_curve_csv_write(&text, &results);
	assert_int_equal(lines_with(text.data, "emitted,"), 1);
	assert_int_equal(lines_with(text.data, "greedy,"), 8);
	assert_int_equal(lines_with(text.data, "refined,"), 1);
	assert_int_equal(lines_with(text.data, "baseline,uniform-1/"), 2);
	dsa_text_release(&text);
	dsa_arena_release(&arena);
}

static void names_stay_fields_in_every_table(void **state)
{
	(void)state;
	struct dsa_arena arena;
	struct dsa_results results;
	struct dsa_text text = {0};
	const char *const names[3] = {"m", fixture_hostile, fixture_hostile};
	int fields;
	char first[512];
	dsa_arena_init(&arena);
	fixture_fill(&results, 6, names, &arena);
	results.baselines[0].name = fixture_hostile;
	for (int t = 0; t < DSA_CSV_TABLES; t++) {
		int columns = 0;
		dsa_csv_tables[t].write(&text, &results);
		for (const char *at = text.data; (at = record(at, &fields, first));) {
			columns = columns ? columns : fields;
			assert_int_equal(fields, columns);
			assert_null(strchr("=+@", *first ? *first : 'x'));
		}
		dsa_text_release(&text);
	}
	dsa_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(fields_are_quoted_and_no_formula),
	    cmocka_unit_test(every_candidate_of_every_step_has_a_row),
	    cmocka_unit_test(every_mark_of_the_figures_has_a_row),
	    cmocka_unit_test(names_stay_fields_in_every_table),
	    cmocka_unit_test(overlap_has_all_positions_and_each_bucket),
	};
	return cmocka_run_group_tests_name("csv", tests, NULL, NULL);
}
