#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/pattern_yaml.h"
#include "dsa/yaml.h"
#include "report/fixture.h"
#include "arena_fixture.h"

static struct dsa_error err;
static int warnings;
static char last_warning[DSA_ERROR_CHARS];

static void take_warning(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	assert_int_equal(level, DSA_LOG_WARN);
	warnings++;
	snprintf(last_warning, sizeof last_warning, "%s", text);
}

static const struct dsa_log warning_log = {.line = take_warning};

static int set_up_unwarned(void **state)
{
	warnings = 0;
	return set_up(state);
}

static void a_fixed_run_gives_the_golden_file(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_pattern_yaml_write(&text, &results);
	assert_int_equal(dsa_text_check(&text, "pattern.yaml", &err), DSA_OK);
	assert_true(fixture_matches_golden(&text, "pattern.yaml"));
	dsa_text_release(&text);
}

static void what_the_file_says_comes_back(void **state)
{
	(void)state;
	struct dsa_results results, back;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	results.seed = UINT64_MAX;
	results.budget.max_shared = 9;
	results.budget.scope = DSA_SCOPE_WORST;
	dsa_pattern_yaml_write(&text, &results);
	if (dsa_pattern_yaml_read(&back, text.data, text.bytes, "pattern.yaml", &warning_log, &arena, &err))
		fail_msg("%s", err.text);
	assert_int_equal(warnings, 0);
	assert_string_equal(back.pattern, results.pattern);
	assert_string_equal(back.reference, results.reference);
	assert_int_equal(back.layers, 12);
	assert_int_equal(back.topk, 64);
	assert_string_equal(back.model_name, "glm-demo");
	assert_string_equal(back.architecture, "glm_moe_dsa");
	assert_string_equal(back.fingerprint, results.fingerprint);
	assert_string_equal(back.tokenizer, results.tokenizer);
	assert_int_equal(back.context, 1024);
	assert_int_equal(back.index_precision, DSA_INDEX_FP8);
	assert_true(back.max_tokens == 100000 && back.holdout == 0.25);
	assert_true(back.quality.kl == results.quality.kl && back.quality.kl_se == results.quality.kl_se);
	assert_true(back.quality.kl_ci.low == results.quality.kl_ci.low &&
	            back.quality.kl_ci.high == results.quality.kl_ci.high);
	assert_true(back.quality.nll_delta_ci.high == results.quality.nll_delta_ci.high);
	assert_true(back.quality.top1_ci.low == results.quality.top1_ci.low);
	assert_true(back.heldout.nll_delta == results.heldout.nll_delta && back.heldout.documents == 8);
	assert_int_equal(back.corpus_count, 2);
	assert_string_equal(back.corpora[1].digest, results.corpora[1].digest);
	assert_true(back.corpora[1].heldout.kl_p99 == results.corpora[1].heldout.kl_p99);
	assert_true(back.corpora[0].noise_floor == 0.0001 && back.noise_floor == 0.000125);
	assert_int_equal(back.baseline_count, 2);
	assert_string_equal(back.baselines[1].pattern, "FSSSFSSSFSSS");
	assert_true(back.budget.kl == 0.02 && isnan(back.budget.nll) && back.budget.max_shared == 9);
	assert_int_equal(back.budget.scope, DSA_SCOPE_WORST);
	assert_int_equal(back.trace.stopped_by, results.trace.stopped_by);
	assert_int_equal(back.trace.count, results.trace.count);
	assert_int_equal(back.trace.steps[2].flip, results.trace.steps[2].flip);
	assert_true(back.seed == UINT64_MAX);
	assert_string_equal(back.provenance.date, "2026-11-24T06:54:36Z");
	dsa_text_release(&text);
}

static void the_pattern_is_quoted_and_provenance_is_last(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	const struct dsa_yaml *root;
	char line[64];
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_pattern_yaml_write(&text, &results);
	snprintf(line, sizeof line, "\npattern: \"%s\"\n", results.pattern);
	assert_non_null(strstr(text.data, line));
	assert_int_equal(dsa_yaml_parse(&root, text.data, text.bytes, "pattern.yaml", &arena, &err), DSA_OK);
	assert_string_equal(root->last->key, "provenance");
	dsa_text_release(&text);
}

static void hostile_names_come_back_whole(void **state)
{
	(void)state;
	char *long_name = dsa_arena_alloc(&arena, 4097, 1, "a name", NULL);
	memset(long_name, ':', 4096);
	const char *const names[3] = {fixture_hostile, "- a: &b *c # !d\n\n  e", long_name};
	struct dsa_results results, back;
	struct dsa_text text = {0}, clean = {0};
	fixture_fill(&results, 12, names, &arena);
	results.provenance.device = "null";
	dsa_pattern_yaml_write(&text, &results);
	if (dsa_pattern_yaml_read(&back, text.data, text.bytes, "pattern.yaml", NULL, &arena, &err))
		fail_msg("%s", err.text);
	dsa_text_utf8(&clean, fixture_hostile);
	assert_string_equal(back.model_name, clean.data);
	assert_string_equal(back.corpora[0].name, names[1]);
	assert_string_equal(back.corpora[1].name, long_name);
	assert_true(back.corpora[1].calibration.kl == results.corpora[1].calibration.kl);
	assert_string_equal(back.provenance.device, "null");
	dsa_text_release(&text);
	dsa_text_release(&clean);
}

static enum dsa_status read_text(struct dsa_results *results, const char *text)
{
	return dsa_pattern_yaml_read(results, text, strlen(text), "p.yaml", &warning_log, &arena, &err);
}

static void one_line_is_a_pattern_file(void **state)
{
	(void)state;
	struct dsa_results results;
	assert_int_equal(read_text(&results, "pattern: \"FSFS\"\n"), DSA_OK);
	assert_string_equal(results.pattern, "FSFS");
	assert_int_equal(results.layers, 4);
	assert_int_equal(results.topk, 0);
	assert_null(results.architecture);
	assert_int_equal(results.index_precision, DSA_INDEX_ACT);
	assert_int_equal(results.quality.documents, 0);
	assert_true(isnan(results.budget.kl) && results.budget.max_shared == -1);
	assert_int_equal(read_text(&results, "pattern: FSFS\nfuture: {x: [1, {y: 2}]}\n"), DSA_OK);
	assert_int_equal(warnings, 0);
}

static void derived_fields_that_disagree_are_warned_about_and_recomputed(void **state)
{
	(void)state;
	struct dsa_results results;
	assert_int_equal(read_text(&results, "model: {layers: 5}\npattern: \"FSFS\"\n"), DSA_OK);
	assert_int_equal(results.layers, 4);
	assert_int_equal(warnings, 1);
	assert_string_equal(last_warning, "p.yaml: model.layers is 5, but the pattern has 4; the pattern counts");
	assert_int_equal(read_text(&results, "pattern: \"FSFS\"\nfull_layers: [0, 1]\n"), DSA_OK);
	assert_int_equal(warnings, 2);
	assert_non_null(strstr(last_warning, "line 2: full_layers"));
	assert_int_equal(read_text(&results, "pattern: \"FSFS\"\nsource_of: [0, 0, 2, 3]\n"), DSA_OK);
	assert_int_equal(warnings, 3);
	assert_int_equal(
	    read_text(&results,
	              "pattern: \"FSFS\"\nfull_layers: [0, 2]\nsource_of: [0, 0, 2, 2]\nmodel: {layers: 4}\n"),
	    DSA_OK);
	assert_int_equal(warnings, 3);
}

static void bad_files_are_refused_with_their_line(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
	    {"model: {layers: 4}\n", "there is no pattern"},
	    {"pattern:\n", "there is no pattern"},
	    {"- pattern\n", "expected a map with the key pattern"},
	    {"FSFS\n", "expected a map with the key pattern"},
	    {"pattern: \"SFFF\"\n", "line 1: pattern: layer 0 of the pattern is S"},
	    {"\npattern: \"FsFF\"\n", "line 2: pattern: layer 1 of the pattern is 's'"},
	    {"pattern: \"\"\n", "has 0 characters"},
	    {"pattern: [F, S]\n", "pattern is a list"},
	    {"schema: 9\npattern: \"FF\"\n", "schema is 9, expected 1"},
	    {"pattern: \"FF\"\nreference: \"FFF\"\n", "reference: the pattern has 3 layers"},
	    {"pattern: \"FF\"\nmodel: [1]\n", "model is a list"},
	    {"pattern: \"FF\"\nsource_of: 3\n", "source_of is 3, expected a list"},
	    {"pattern: \"FF\"\ncorpora: [{sha256: x}]\n", "a corpus needs a name"},
	    {"pattern: \"FF\"\ncorpora: [legal]\n", "a corpus needs a name"},
	    {"pattern: \"FF\"\nbaselines: [{name: x}]\n", "a baseline needs a name and a pattern"},
	    {"pattern: \"FF\"\nsteps: [1, 2, 3]\n", "3 steps for 2 layers"},
	    {"pattern: \"FF\"\nindexer_precision: fp4\n", "indexer_precision is fp4, expected f32, bf16 or fp8"},
	    {"pattern: \"FF\"\nbudget: {scope: all}\n", "scope is all"},
	    {"pattern: \"FF\"\nbudget: {kl: inf}\n", "kl is inf"},
	    {"pattern: \"FF\"\nprovenance: {seed: -1}\n", "seed is -1"},
	    {"pattern: \"FF\"\npattern: \"FS\"\n", "the key pattern stands at line 1"},
	};
	struct dsa_results results;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(read_text(&results, cases[i][0]), DSA_E_INPUT);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("%s", err.text);
	}
	struct dsa_text text = {0};
	dsa_text_add(&text, "pattern: \"");
	for (int i = 0; i < 2000; i++)
		dsa_text_add(&text, "F");
	dsa_text_add(&text, "\"\n");
	assert_int_equal(read_text(&results, text.data), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "has 2000 characters, expected 1 to 1024"));
	dsa_text_release(&text);
}

static void damaged_bytes_never_crash_the_reader(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	uint64_t seed = 11;
	int read = 0;
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_pattern_yaml_write(&text, &results);
	for (int round = 0; round < 3000; round++) {
		struct dsa_arena local;
		size_t at = fixture_random(&seed) % text.bytes;
		char old = text.data[at];
		text.data[at] = "0123456789-\"'{}[],:&*!?|>#~ \n\t\xff"[fixture_random(&seed) % 31];
		dsa_arena_init(&local);
		err.text[0] = 0;
		enum dsa_status status =
		    dsa_pattern_yaml_read(&results, text.data, text.bytes, "fuzz.yaml", NULL, &local, &err);
		assert_true(status == DSA_OK || (status == DSA_E_INPUT && *err.text));
		read += status == DSA_OK;
		dsa_arena_release(&local);
		text.data[at] = old;
	}
	assert_true(read > 0 && read < 3000);
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_run_gives_the_golden_file, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(what_the_file_says_comes_back, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(the_pattern_is_quoted_and_provenance_is_last, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_names_come_back_whole, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(one_line_is_a_pattern_file, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(derived_fields_that_disagree_are_warned_about_and_recomputed, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(bad_files_are_refused_with_their_line, set_up_unwarned, tear_down),
	    cmocka_unit_test_setup_teardown(damaged_bytes_never_crash_the_reader, set_up_unwarned, tear_down),
	};
	return cmocka_run_group_tests_name("pattern_yaml", tests, NULL, NULL);
}
