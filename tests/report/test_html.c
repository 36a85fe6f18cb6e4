#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <nettle/base64.h>

#include "dsa/hash.h"
#include "dsa/html.h"
#include "dsa/svg.h"
#include "report/fixture.h"
#include "report/markup.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static void a_fixed_run_gives_the_golden_page(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_html_write(&text, &results);
	assert_int_equal(dsa_text_check(&text, "report.html", NULL), DSA_OK);
	assert_true(fixture_matches_golden(&text, "report.html"));
	assert_true(markup_check(text.data) > 500);
	dsa_text_release(&text);
}

static int occurrences(const char *from, const char *to, const char *what)
{
	int count = 0;
	for (const char *at = from; (at = strstr(at, what)) && at < to; at++)
		count++;
	return count;
}

static void every_table_row_has_a_cell_per_column(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	int tables = 0;
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_html_write(&text, &results);
	for (const char *at = text.data; (at = strstr(at, "<table>")); at++, tables++) {
		const char *body = strstr(at, "<tbody>"), *end = strstr(at, "</table>");
		int columns = occurrences(at, body, "<th scope");
		assert_true(columns >= 4);
		for (const char *row = strstr(body, "<tr"); row && row < end; row = strstr(row + 1, "<tr"))
			assert_int_equal(occurrences(row, strstr(row, "</tr>"), "<td") +
			                     occurrences(row, strstr(row, "</tr>"), "<th scope=\"row\""),
			                 columns);
	}
	/* Seven, one of candidates for each of eight steps, the sensitivities, the overlap of two corpora. */
	assert_int_equal(tables, 7 + 8 + 1 + 2);
	dsa_text_release(&text);
}

static void figures_alone_are_golden_and_well_formed(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text[4] = {{0}, {0}, {0}, {0}};
	static const char *const names[4] = {"pattern.svg", "curve.svg", "sensitivity.svg", "overlap.svg"};
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_svg_pattern(&text[0], &results, true);
	dsa_svg_curve(&text[1], &results, true);
	dsa_svg_sensitivity(&text[2], &results, true);
	dsa_svg_overlap(&text[3], &results, 0, true);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(dsa_text_check(&text[i], names[i], NULL), DSA_OK);
		assert_true(fixture_matches_golden(&text[i], names[i]));
		assert_true(markup_check(text[i].data) > 20);
		assert_non_null(strstr(text[i].data, "xmlns=\"http://www.w3.org/2000/svg\""));
		dsa_text_release(&text[i]);
	}
}

static void seventy_eight_layers_stay_under_two_megabytes(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 78, fixture_names, &arena);
	dsa_html_write(&text, &results);
	assert_true(markup_check(text.data) > 2 * 78 * 78);
	assert_true(text.bytes < 2000000);
	dsa_text_release(&text);
}

/* Thousandths of the value, the low and the high end: as the page's script reads a cell of the data block. */
static void cell_figures(const char *cells, int layers, int i, int j, int out[3])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *at = cells + 6 * (i * layers - i * (i - 1) / 2 + j - i);
	for (int k = 0; k < 3; k++)
		out[k] = (int)(64 * (strchr(digits, at[2 * k]) - digits) + (strchr(digits, at[2 * k + 1]) - digits));
}

static void cells_behind_the_switches_are_the_runs(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_html_write(&text, &results);
	const char *at = strstr(text.data, "id=\"overlap-data\">");
	assert_non_null(at);
	/* Two corpora, each over all positions and in two buckets. */
	for (int set = 0; set < 6; set++) {
		int corpus = set / 3, position = set % 3 - 1;
		assert_non_null(at = strstr(at, "\"cells\":\""));
		at += strlen("\"cells\":\"");
		assert_int_equal(strcspn(at, "\""), 6 * 78);
		for (int i = 0; i < 12; i++) {
			for (int j = i; j < 12; j++) {
				int found[3];
				struct dsa_interval interval =
				    dsa_overlap_interval(&results.overlap, corpus, position, i, j);
				cell_figures(at, 12, i, j, found);
				assert_int_equal(
				    found[0], lround(1000 * dsa_overlap_at(&results.overlap, corpus, position, i, j)));
				assert_int_equal(found[1], lround(1000 * interval.low));
				assert_int_equal(found[2], lround(1000 * interval.high));
			}
		}
	}
	assert_null(strstr(at, "\"cells\":"));
	dsa_text_release(&text);
}

static void corpora_that_do_not_fit_are_named_as_left_out(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 150, fixture_names, &arena);
	dsa_html_write(&text, &results);
	/* (150, 150) triangles of two corpora over all positions and two buckets are 68,400 cells. */
	assert_null(strstr(text.data, "those of further corpora only there"));
	assert_int_equal(occurrences(text.data, text.data + text.bytes, "\"cells\":"), 6);
	dsa_text_release(&text);
	for (int c = 0; c < 2; c++)
		for (int p = 2; p < 8; p++)
			results.overlap.queries[c * DSA_POSITION_BUCKETS + p] = 1;
	dsa_html_write(&text, &results);
	assert_non_null(strstr(text.data, "those of further corpora only there"));
	assert_int_equal(occurrences(text.data, text.data + text.bytes, "\"cells\":"), 9);
	assert_int_equal(occurrences(text.data, text.data + text.bytes, "<option dir="), 1);
	dsa_text_release(&text);
	fixture_fill(&results, 162, fixture_names, &arena);
	dsa_html_write(&text, &results);
	assert_non_null(strstr(text.data, "Too many layers to draw"));
	assert_null(strstr(text.data, "overlap-map\""));
	assert_non_null(strstr(text.data, "Those of the further steps are in trace.csv."));
	dsa_text_release(&text);
}

static void hostile_names_stay_text(void **state)
{
	(void)state;
	char *long_name = dsa_arena_alloc(&arena, 4097, 1, "a name", NULL);
	memset(long_name, '<', 4096);
	const char *const names[3] = {fixture_hostile, fixture_hostile, long_name};
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, names, &arena);
	results.baselines[0].name = fixture_hostile;
	results.baselines[1].name = long_name;
	results.architecture = fixture_hostile;
	results.fingerprint = results.search = fixture_hostile;
	results.provenance.version = results.provenance.commit = results.provenance.date = results.provenance.device =
	    fixture_hostile;
	dsa_html_write(&text, &results);
	assert_true(markup_check(text.data) > 500);
	assert_int_equal(occurrences(text.data, text.data + text.bytes, "<script"), 2);
	assert_non_null(strstr(text.data, "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&#10;&#9;"));
	dsa_text_release(&text);
	dsa_svg_pattern(&text, &results, true);
	dsa_svg_curve(&text, &results, true);
	assert_true(markup_check(text.data) > 50);
	assert_null(strstr(text.data, "<script"));
	dsa_text_release(&text);
}

/* The hash of what stands between two marks, as the policy must name it. */
static const char *hash_between(const char *text, const char *from, const char *to, char out[64])
{
	uint8_t digest[DSA_HASH_BYTES];
	const char *start = strstr(text, from) + strlen(from), *end = strstr(start, to);
	dsa_hash_bytes(start, (size_t)(end - start), digest);
	memset(out, 0, 64);
	base64_encode_raw(out, DSA_HASH_BYTES, digest);
	return end;
}

static void the_policy_allows_one_style_sheet_one_script_and_nothing_else(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	char style[64], script[64], policy[256];
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_html_write(&text, &results);
	const char *behind = hash_between(text.data, "<style>", "</style>", style);
	assert_null(strstr(behind + 1, "<style"));
	behind = hash_between(text.data, "<script>", "</script>", script);
	assert_null(strstr(behind, "<script"));
	snprintf(policy, sizeof policy,
	         "content=\"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; base-uri 'none'; "
	         "form-action 'none'\"",
	         style, script);
	assert_non_null(strstr(text.data, policy));
	assert_null(strstr(text.data, " style=\""));
	for (const char *at = text.data; (at = strstr(at, " on")); at++)
		assert_true(at[3 + strspn(at + 3, "abcdefghijklmnopqrstuvwxyz")] != '=');
	assert_null(strstr(text.data, "eval("));
	assert_null(strstr(text.data, "innerHTML"));
	assert_null(strstr(text.data, "https://"));
	/* The one address is SVG's name, which nobody fetches. */
	assert_int_equal(occurrences(text.data, text.data + text.bytes, "http://"), 1);
	assert_non_null(strstr(text.data, "'http://www.w3.org/2000/svg'"));
	dsa_text_release(&text);
}

static void the_verdict_says_the_numbers(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	results.pattern = "FSFFSSFFFSFF";
	results.heldout.kl = 0.0123;
	results.heldout.kl_se = 0.0011;
	results.quality.kl = 0.02;
	dsa_verdict_write(&text, &results);
	assert_string_equal(
	    text.data, "4 of 12 layers can share the selection of a layer before them, so 8 of 12 indexers run: on 8 "
		       "held-out documents this moves the output by a mean KL of 0.0123 ± 0.0011 nats per token, "
		       "within the budget of 0.0200; the baseline uniform-1/2, with 6 kept, moves it by 0.340, 28 "
		       "times as far.");
	assert_string_equal(dsa_verdict_reason(&results), "One more shared layer would break the mean KL budget.");
	dsa_text_release(&text);
	results.pattern = results.reference;
	results.baseline_count = 0;
	results.heldout.documents = results.quality.documents = 0;
	results.trace.stopped_by = DSA_BOUND_NONE;
	dsa_verdict_write(&text, &results);
	assert_string_equal(text.data, "No layer beyond the 0 that share already could be shared.");
	assert_string_equal(dsa_verdict_reason(&results), "");
	dsa_text_release(&text);
}

static void a_run_with_nothing_measured_still_gives_a_page(void **state)
{
	(void)state;
	struct dsa_results results = {
	    .layers = 1,
	    .topk = 4,
	    .pattern = "F",
	    .reference = "F",
	    .noise_floor = (double)NAN,
	    .noise_floor_se = (double)NAN,
	    .budget =
		{.kl = (double)NAN, .nll = (double)NAN, .kl_p99 = (double)NAN, .top1 = (double)NAN, .max_shared = -1},
	    .trace = {.emitted = -1},
	};
	struct dsa_text text = {0};
	dsa_html_write(&text, &results);
	assert_true(markup_check(text.data) > 40);
	assert_null(strstr(text.data, ">nan"));
	assert_null(strstr(text.data, "\"nan"));
	assert_null(strstr(text.data, "(null)"));
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_run_gives_the_golden_page, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(every_table_row_has_a_cell_per_column, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(figures_alone_are_golden_and_well_formed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(seventy_eight_layers_stay_under_two_megabytes, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(cells_behind_the_switches_are_the_runs, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(corpora_that_do_not_fit_are_named_as_left_out, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_names_stay_text, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_policy_allows_one_style_sheet_one_script_and_nothing_else, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(the_verdict_says_the_numbers, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_run_with_nothing_measured_still_gives_a_page, set_up, tear_down),
	};
	return cmocka_run_group_tests_name("html", tests, NULL, NULL);
}
