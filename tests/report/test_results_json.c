#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/json.h"
#include "dsa/results_json.h"
#include "report/fixture.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static void assert_rewrites_itself(const struct dsa_results *results)
{
	struct dsa_text first = {0}, second = {0};
	struct dsa_results back;
	struct dsa_error err = {""};
	dsa_results_json_write(&first, results);
	assert_int_equal(dsa_text_check(&first, "results", &err), DSA_OK);
	if (dsa_results_json_read(&back, first.data, first.bytes, "results.json", &arena, &err))
		fail_msg("%s", err.text);
	dsa_results_json_write(&second, &back);
	assert_int_equal(first.bytes, second.bytes);
	assert_memory_equal(first.data, second.data, first.bytes);
	dsa_text_release(&first);
	dsa_text_release(&second);
}

static void a_fixed_run_gives_the_golden_file(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	assert_true(fixture_matches_golden(&text, "results.json"));
	dsa_text_release(&text);
}

static void writing_reading_writing_gives_the_same_bytes(void **state)
{
	(void)state;
	struct dsa_results results;
	fixture_fill(&results, 12, fixture_names, &arena);
	assert_rewrites_itself(&results);
	fixture_fill(&results, 78, fixture_names, &arena);
	results.seed = UINT64_MAX;
	results.budget.max_shared = 7;
	results.budget.scope = DSA_SCOPE_WORST;
	results.objective = DSA_OBJECTIVE_NLL;
	results.index_precision = DSA_INDEX_BF16;
	results.trace.stopped_by = DSA_BOUND_MAX_SHARED;
	results.quality.kl = -0.0;
	results.quality.nll = 0.1 + 0.2;
	results.quality.kl_max = 5e-324;
	results.base.nll = 1.7976931348623157e308;
	assert_rewrites_itself(&results);
	results.costs[0] = (struct dsa_layer_costs){8192, 1e-6, 0.5e-6, 3e-6, 2.5e-6};
	results.costs[1] = (struct dsa_layer_costs){65536, 2e-6, 0.5e-6, 5e-6, 2.5e-6};
	results.cost_count = 2;
	results.costs_device = "a GPU, <b>\"x\"";
	assert_rewrites_itself(&results);
}

static void a_bare_result_survives_the_round_trip(void **state)
{
	(void)state;
	struct dsa_results results = {
	    .layers = 3,
	    .topk = 4,
	    .pattern = "FFF",
	    .reference = "FFF",
	    .noise_floor = (double)NAN,
	    .noise_floor_se = (double)NAN,
	    .budget =
		{.kl = (double)NAN, .nll = (double)NAN, .kl_p99 = (double)NAN, .top1 = (double)NAN, .max_shared = -1},
	    .trace = {.emitted = -1},
	};
	assert_rewrites_itself(&results);
}

static void everything_a_report_needs_comes_back(void **state)
{
	(void)state;
	struct dsa_results results, back;
	struct dsa_text text = {0};
	struct dsa_error err;
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "results.json", &arena, &err), DSA_OK);
	assert_string_equal(back.pattern, results.pattern);
	assert_int_equal(back.trace.count, 8);
	assert_int_equal(back.trace.emitted, results.trace.emitted);
	assert_int_equal(back.trace.stopped_by, DSA_BOUND_KL);
	assert_true(back.trace.steps[3].candidates[2].kl == results.trace.steps[3].candidates[2].kl);
	const struct dsa_refined *refined = &results.refinement.best[0];
	assert_int_equal(back.refinement.count, 1);
	assert_int_equal(back.refinement.best[0].shared, refined->shared);
	assert_string_equal(back.refinement.best[0].pattern, refined->pattern);
	assert_true(back.refinement.best[0].difference_se == refined->difference_se);
	assert_true(back.refinement.best[0].heldout.kl == refined->heldout.kl && back.refine_work == 1);
	assert_int_equal(back.refinement.best[0].broken, DSA_BOUND_KL);
	assert_true(back.quality.kl_p99 == results.quality.kl_p99);
	assert_true(isnan(back.budget.nll) && back.budget.max_shared == -1 && back.budget.kl == 0.02);
	assert_string_equal(back.corpora[1].name, "rag");
	assert_int_equal(back.corpora[1].documents_heldout, 4);
	for (int i = 0; i < 12; i++)
		for (int j = 0; j < 12; j++) {
			assert_true(dsa_overlap_at(&back.overlap, 1, -1, i, j) ==
			            dsa_overlap_at(&results.overlap, 1, -1, i, j));
			assert_true(dsa_overlap_at(&back.overlap, 0, 1, i, j) ==
			            dsa_overlap_at(&results.overlap, 0, 1, i, j));
			for (int p = -1; p < 2; p++)
				assert_true(dsa_overlap_se(&back.overlap, 0, p, i, j) ==
				            dsa_overlap_se(&results.overlap, 0, p, i, j));
		}
	dsa_text_release(&text);
}

/* Files of before the precision was written are of the default one. */
static void the_precision_comes_back_and_f32_is_what_goes_without_saying(void **state)
{
	(void)state;
	static const enum dsa_index_precision precisions[] = {DSA_INDEX_ACT, DSA_INDEX_BF16, DSA_INDEX_FP8,
	                                                      DSA_INDEX_FP8_UE8M0};
	static const char *const names[] = {"f32", "bf16", "fp8", "fp8"};
	for (int i = 0; i < 4; i++) {
		struct dsa_results results, back;
		struct dsa_text text = {0};
		struct dsa_error err = {""};
		char line[64];
		fixture_fill(&results, 6, fixture_names, &arena);
		results.index_precision = precisions[i];
		dsa_results_json_write(&text, &results);
		assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "r.json", &arena, &err), DSA_OK);
		assert_string_equal(dsa_index_precision_name(back.index_precision), names[i]);
		snprintf(line, sizeof line, "\"indexer_precision\": \"%s\"", names[i]);
		char *at = strstr(text.data, line);
		assert_non_null(at);
		memcpy(at, "\"_ndexer", 8);
		assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "r.json", &arena, &err), DSA_OK);
		assert_int_equal(back.index_precision, DSA_INDEX_ACT);
		dsa_text_release(&text);
	}
}

static void names_of_the_contract_are_all_there(void **state)
{
	(void)state;
	static const char *const top[] = {"schema",     "layers",    "index_topk",  "pattern",          "base",
	                                  "trace",      "best",      "refined",     "quality",          "heldout",
	                                  "corpora",    "baselines", "noise_floor", "overlap",          "gain",
	                                  "stopped_by", "work",      "provenance",  "indexer_precision"};
	static const char *const work[] = {"token_layers", "refine_token_layers", "head_tokens", "token_layers_naive",
	                                   "seconds"};
	struct dsa_results results;
	struct dsa_text text = {0};
	json_t *root;
	const char *key, *last = NULL, *before_last = NULL;
	json_t *value;
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	assert_int_equal(dsa_json_parse(text.data, text.bytes, "results.json", &root, NULL), DSA_OK);
	for (size_t i = 0; i < sizeof top / sizeof *top; i++)
		assert_non_null(json_object_get(root, top[i]));
	for (size_t i = 0; i < sizeof work / sizeof *work; i++)
		assert_non_null(json_object_get(json_object_get(root, "work"), work[i]));
	json_object_foreach(root, key, value)
	{
		before_last = last;
		last = key;
	}
	assert_string_equal(last, "provenance");
	assert_string_equal(before_last, "work");
	json_object_foreach(json_object_get(root, "work"), key, value) last = key;
	assert_string_equal(last, "seconds");
	assert_int_equal(json_array_size(json_object_get(json_object_get(root, "overlap"), "legal")), 12);
	const json_t *slots[2] = {
	    json_object_get(json_object_get(root, "overlap_documents"), "rag"),
	    json_array_get(json_object_get(json_object_get(root, "overlap_by_position"), "rag"), 1)};
	for (int i = 0; i < 2; i++) {
		assert_true(json_is_integer(json_object_get(slots[i], "documents")));
		assert_true(json_is_number(json_object_get(slots[i], "weight2")));
		assert_int_equal(json_array_size(json_object_get(slots[i], "squared")), 12);
		assert_int_equal(json_array_size(json_object_get(slots[i], "crossed")), 12);
	}
	assert_true(json_is_null(json_object_get(json_object_get(root, "budget"), "nll")));
	assert_string_equal(json_string_value(json_object_get(root, "stopped_by")), "budget-kl");
	const json_t *step = json_array_get(json_object_get(root, "trace"), 0);
	assert_non_null(json_object_get(json_array_get(json_object_get(step, "candidates"), 0), "kl_se"));
	json_decref(root);
	dsa_text_release(&text);
}

static void hostile_and_repeated_names_come_back(void **state)
{
	(void)state;
	char *long_name = dsa_arena_alloc(&arena, 4097, 1, "a name", NULL);
	memset(long_name, 'x', 4096);
	const char *const names[3] = {fixture_hostile, fixture_hostile, fixture_hostile};
	struct dsa_results results, back;
	struct dsa_text text = {0}, clean = {0};
	struct dsa_error err;
	fixture_fill(&results, 12, names, &arena);
	results.provenance.device = long_name;
	dsa_results_json_write(&text, &results);
	assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "results.json", &arena, &err), DSA_OK);
	dsa_text_utf8(&clean, fixture_hostile);
	assert_string_equal(back.model_name, clean.data);
	assert_string_equal(back.corpora[0].name, clean.data);
	dsa_text_add(&clean, " (2)");
	assert_string_equal(back.corpora[1].name, clean.data);
	assert_string_equal(back.provenance.device, long_name);
	dsa_text_release(&text);
	dsa_text_release(&clean);
}

static void evaluate_and_overlap_files_are_readable(void **state)
{
	(void)state;
	struct dsa_results results, back;
	struct dsa_text text = {0};
	struct dsa_error err;
	fixture_fill(&results, 12, fixture_names, &arena);
	dsa_evaluate_json_write(&text, &results);
	assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "evaluate", &arena, &err), DSA_OK);
	assert_string_equal(back.pattern, results.pattern);
	assert_true(back.quality.kl == results.quality.kl);
	assert_true(back.quality.kl_ci.low == results.quality.kl_ci.low &&
	            back.quality.kl_ci.high == results.quality.kl_ci.high);
	assert_true(back.quality.nll_delta_ci.high == results.quality.nll_delta_ci.high);
	assert_true(back.quality.top1_ci.low == results.quality.top1_ci.low);
	assert_int_equal(back.trace.count, 0);
	dsa_text_release(&text);
	dsa_overlap_json_write(&text, &results);
	assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "overlap", &arena, &err), DSA_OK);
	assert_string_equal(back.pattern, results.reference);
	assert_true(dsa_overlap_at(&back.overlap, 1, -1, 3, 7) == dsa_overlap_at(&results.overlap, 1, -1, 3, 7));
	dsa_text_release(&text);
}

/* Shares of a run whose indexers have a precision, with null for layers that the reference shares. */
static void shares_of_float32_selections_survive(void **state)
{
	(void)state;
	enum { LAYERS = 12 };
	struct dsa_results results, back;
	struct dsa_text text = {0}, bad = {0};
	struct dsa_error err = {""};
	int64_t plain[LAYERS], counts[LAYERS * LAYERS] = {0};
	struct dsa_doc_overlap document = {.layers = LAYERS};
	fixture_fill(&results, LAYERS, fixture_names, &arena);
	results.reference = "FFSFSFSFFFFF";
	document.queries[1] = 50;
	document.counts[1] = counts;
	document.plain[1] = plain;
	for (int l = 0; l < LAYERS; l++)
		plain[l] = results.reference[l] == 'F' ? 50 * results.topk - 17 * l : 0;
	assert_int_equal(dsa_overlap_init(&results.overlap, results.corpus_count, LAYERS, results.topk, &arena, &err),
	                 DSA_OK);
	dsa_overlap_add(&results.overlap, 1, &document);
	dsa_overlap_json_write(&text, &results);
	const char *totals = strstr(text.data, "\"overlap_with_f32\": {");
	assert_non_null(totals);
	totals = strchr(totals, '1');
	assert_memory_equal(totals, "1,\n      0.9946875,\n      null,\n      0.9840625,\n      null,", 59);
	assert_int_equal(dsa_results_json_read(&back, text.data, text.bytes, "shares", &arena, &err), DSA_OK);
	assert_true(back.overlap.has_plain);
	for (int l = 0; l < LAYERS; l++)
		assert_true(dsa_overlap_plain(&back.overlap, 1, -1, l) ==
		            dsa_overlap_plain(&results.overlap, 1, -1, l));
	const char *const hostile[] = {"\"with_f32\": [1.5", "\"with_f32\": [\"1\"", "\"with_f32\": [1, 1"};
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		const char *at = strstr(text.data, "\"with_f32\": [1");
		assert_non_null(at);
		dsa_text_bytes(&bad, text.data, (size_t)(at - text.data));
		dsa_text_add(&bad, hostile[i]);
		dsa_text_add(&bad, at + strlen("\"with_f32\": [1"));
		assert_int_equal(dsa_results_json_read(&back, bad.data, bad.bytes, "shares", &arena, &err),
		                 DSA_E_INPUT);
		assert_non_null(strstr(err.text, "with_f32"));
		dsa_text_release(&bad);
	}
	dsa_text_release(&text);
}

/* `from` becomes `to` in a good file; the message has to hold `expected`. */
static void refused(const char *from, const char *to, const char *expected)
{
	struct dsa_results results;
	struct dsa_text text = {0}, bad = {0};
	struct dsa_error err = {""};
	fixture_fill(&results, 6, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	const char *at = strstr(text.data, from);
	assert_non_null(at);
	dsa_text_bytes(&bad, text.data, (size_t)(at - text.data));
	dsa_text_add(&bad, to);
	dsa_text_add(&bad, at + strlen(from));
	if (dsa_results_json_read(&results, bad.data, bad.bytes, "bad.json", &arena, &err) != DSA_E_INPUT)
		fail_msg("%s was taken", to);
	assert_non_null(strstr(err.text, "bad.json"));
	if (!strstr(err.text, expected))
		fail_msg("%s", err.text);
	dsa_text_release(&text);
	dsa_text_release(&bad);
}

static void hostile_files_are_refused_with_their_place(void **state)
{
	(void)state;
	refused("\"schema\": 1", "\"schema\": 2", "schema is 2");
	refused("\"layers\": 6", "\"layers\": 1000000000", "expected 1 to 1024");
	refused("\"layers\": 6", "\"layers\": 7", "the model has 7");
	refused("\"index_topk\": 64", "\"index_topk\": \"64\"", "index_topk is a string");
	refused("\"index_topk\": 64", "\"index_topk\": 0", "index_topk is 0");
	refused("\"pattern\": \"F", "\"pattern\": \"f", "layer 0 of the pattern is 'f'");
	refused("\"flip\": ", "\"flip\": 99", "flip is 99");
	refused("\"flip\": ", "\"flip\": -", "trace entry 1: flip is -");
	refused("\"trace\": [", "\"trace\": [1, 2, 3, 4, 5, 6, ", "trace has 10 entries");
	refused("\"stopped_by\": \"budget-kl\"", "\"stopped_by\": \"boredom\"", "stopped_by is \"boredom\"");
	refused("\"emitted_step\": ", "\"emitted_step\": 9", "emitted_step is 9");
	refused("\"bucket\": 0", "\"bucket\": 24", "bucket is 24");
	refused("\"bucket\": 1", "\"bucket\": 0", "bucket 0 occurs twice");
	refused("\"overlap\": [[1,", "\"overlap\": [[1.5,", "expected 0 to 1");
	refused("\"overlap\": [[1,", "\"overlap\": [[", "row 0 is not an array of 6 numbers");
	refused("\"sum\": [[3,", "\"sum\": [[null,", "column 0 is null");
	refused("\"squared\": [[", "\"squared\": [[1, ", "row 0 is not an array of 6 numbers");
	refused("\"crossed\": [[", "\"crossed\": [{}, [", "crossed has 7 entries");
	refused("\"weight2\": ", "\"weight2\": \"\", \"_\": ", "weight2 is a string");
	refused("\"queries\": ", "\"queries\": 9999999999", "queries is");
	refused("\"indexer_precision\": \"fp8\"", "\"indexer_precision\": \"fp4\"", "indexer_precision is \"fp4\"");
	refused("\"indexer_precision\": \"fp8\"", "\"indexer_precision\": 8", "indexer_precision is an integer");
	refused("\"scope\": \"mean\"", "\"scope\": \"sum\"", "scope is \"sum\"");
	refused("\"seed\": 1", "\"seed\": \"99999999999999999999\"", "seed is");
	refused("\"documents\": 17", "\"documents\": 1.7", "documents is a real number");
	refused("\"work\": {", "\"work\": {\"seconds\": 1, ", "not valid JSON");
	refused("\"work\": {", "\"work\": [", "not valid JSON");
	refused("\"sha256\": \"", "\"sha256\": \"0", "sha256 has 65 characters");
	refused("\"kl\": {\"mean\": ", "\"kl\": {\"mean\": 1e999, \"_\": ", "not valid JSON");
}

static void truncated_files_never_read(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	struct dsa_error err;
	fixture_fill(&results, 6, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	for (size_t bytes = 0; bytes + 2 < text.bytes; bytes += 1 + bytes / 16)
		assert_int_equal(dsa_results_json_read(&results, text.data, bytes, "cut.json", &arena, &err),
		                 DSA_E_INPUT);
	dsa_text_release(&text);
}

/* Every byte is somebody's idea; nothing may crash (the sanitizer run makes this a real test). */
static void damaged_bytes_never_crash_the_reader(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_text text = {0};
	uint64_t seed = 7;
	int read = 0;
	fixture_fill(&results, 6, fixture_names, &arena);
	dsa_results_json_write(&text, &results);
	for (int round = 0; round < 2000; round++) {
		struct dsa_arena local;
		struct dsa_error err = {""};
		size_t at = fixture_random(&seed) % text.bytes;
		char old = text.data[at];
		text.data[at] = "0123456789-\"{}[],:eN\n\xff"[fixture_random(&seed) % 22];
		dsa_arena_init(&local);
		enum dsa_status status =
		    dsa_results_json_read(&results, text.data, text.bytes, "fuzz.json", &local, &err);
		assert_true(status == DSA_OK || (status == DSA_E_INPUT && *err.text));
		read += status == DSA_OK;
		dsa_arena_release(&local);
		text.data[at] = old;
	}
	assert_true(read > 0 && read < 2000);
	dsa_text_release(&text);
}

static void a_missing_file_is_named(void **state)
{
	(void)state;
	struct dsa_results results;
	struct dsa_error err;
	assert_int_equal(dsa_results_json_load(&results, "/nonexistent/results.json", &arena, &err), DSA_E_MISSING);
	assert_non_null(strstr(err.text, "/nonexistent/results.json"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_fixed_run_gives_the_golden_file, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(writing_reading_writing_gives_the_same_bytes, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_bare_result_survives_the_round_trip, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(everything_a_report_needs_comes_back, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_precision_comes_back_and_f32_is_what_goes_without_saying, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(names_of_the_contract_are_all_there, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_and_repeated_names_come_back, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(shares_of_float32_selections_survive, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(evaluate_and_overlap_files_are_readable, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_files_are_refused_with_their_place, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(truncated_files_never_read, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(damaged_bytes_never_crash_the_reader, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_missing_file_is_named, set_up, tear_down),
	};
	return cmocka_run_group_tests_name("results_json", tests, NULL, NULL);
}
