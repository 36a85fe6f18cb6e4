#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/engines.h"
#include "dsa/json.h"
#include "dsa/pattern_yaml.h"
#include "report/fixture.h"

static struct dsa_error err;

/* What the engine would understand: the text's JSON, read back into a pattern. */
static void parse_back(enum dsa_engine engine, const char *text, char out[DSA_ERROR_CHARS])
{
	const char *from = strchr(text, '{'), *to = strrchr(text, '}') + 1;
	json_t *root;
	assert_int_equal(dsa_json_parse(from, (size_t)(to - from), "the export", &root, &err), DSA_OK);
	const char *string = json_string_value(json_object_get(root, "index_topk_pattern"));
	const json_t *types = json_object_get(root, "indexer_types");
	const json_t *gguf = json_object_get(root, "glm-dsa.attention.indexer.types");
	size_t count = 0;
	for (size_t i = 0; i < json_array_size(types); i++) {
		const char *type = json_string_value(json_array_get(types, i));
		assert_true(!strcmp(type, "full") || !strcmp(type, "shared"));
		out[count++] = *type == 'f' ? 'F' : 'S';
	}
	for (size_t i = 0; i < json_array_size(gguf); i++)
		out[count++] = json_integer_value(json_array_get(gguf, i)) == 1 ? 'F' : 'S';
	out[count] = 0;
	if (string && !count)
		strcpy(out, string);
	else if (string) /* both spellings say the same */
		assert_string_equal(string, out);
	if (engine == DSA_ENGINE_VLLM)
		assert_true(json_is_true(json_object_get(root, "use_index_cache")));
	json_decref(root);
}

static void ten_thousand_random_patterns_come_back_from_every_engine(void **state)
{
	(void)state;
	uint64_t seed = 5;
	char pattern[129], back[DSA_ERROR_CHARS];
	for (int round = 0; round < 10000; round++) {
		int layers = 1 + (int)(fixture_random(&seed) % 128);
		for (int l = 0; l < layers; l++)
			pattern[l] = l && fixture_random(&seed) & 1 ? 'S' : 'F';
		pattern[layers] = 0;
		for (int e = 0; e < DSA_ENGINES; e++) {
			struct dsa_export export;
			assert_int_equal(
			    dsa_engine_export(&export, (enum dsa_engine)e, "glm_moe_dsa", layers, pattern, 1, &err),
			    DSA_OK);
			assert_int_equal(export.warnings, 0);
			parse_back((enum dsa_engine)e, export.text.data, back);
			assert_string_equal(back, pattern);
			dsa_export_release(&export);
		}
	}
}

static void ten_thousand_pattern_files_are_read_exported_and_parsed(void **state)
{
	(void)state;
	uint64_t seed = 6;
	char pattern[32], back[DSA_ERROR_CHARS];
	for (int round = 0; round < 10000; round++) {
		struct dsa_arena arena;
		struct dsa_results written = {0}, read;
		struct dsa_text text = {0};
		struct dsa_export export;
		enum dsa_engine engine = (enum dsa_engine)(round % DSA_ENGINES);
		written.layers = 1 + (int)(fixture_random(&seed) % 31);
		for (int l = 0; l < written.layers; l++)
			pattern[l] = l && fixture_random(&seed) & 1 ? 'S' : 'F';
		pattern[written.layers] = 0;
		written.topk = 64;
		written.pattern = written.reference = pattern;
		dsa_arena_init(&arena);
		dsa_pattern_yaml_write(&text, &written);
		assert_int_equal(dsa_pattern_yaml_read(&read, text.data, text.bytes, "p.yaml", NULL, &arena, &err),
		                 DSA_OK);
		assert_int_equal(
		    dsa_engine_export(&export, engine, read.architecture, read.layers, read.pattern, 1, &err), DSA_OK);
		parse_back(engine, export.text.data, back);
		assert_string_equal(back, pattern);
		dsa_export_release(&export);
		dsa_text_release(&text);
		dsa_arena_release(&arena);
	}
}

static void each_engine_gets_its_own_words(void **state)
{
	(void)state;
	static const char *const expected[DSA_ENGINES] = {
	    "--hf-overrides '{\"use_index_cache\": true, \"index_topk_pattern\": \"FSF\"}'",
	    "--json-model-override-args '{\"index_topk_pattern\": \"FSF\"}'",
	    "{\"index_topk_pattern\": \"FSF\"}",
	    "{\"index_topk_pattern\": \"FSF\", \"indexer_types\": [\"full\", \"shared\", \"full\"]}",
	    "{\"indexer_types\": [\"full\", \"shared\", \"full\"]}",
	    "{\"glm-dsa.attention.indexer.types\": [1, 0, 1]}",
	};
	for (int e = 0; e < DSA_ENGINES; e++) {
		struct dsa_export export;
		enum dsa_engine named;
		assert_int_equal(dsa_engine_parse(dsa_engine_name((enum dsa_engine)e), &named, &err), DSA_OK);
		assert_int_equal(named, e);
		assert_int_equal(dsa_engine_export(&export, named, "glm_moe_dsa", 3, "FSF", 1, &err), DSA_OK);
		assert_string_equal(export.text.data, expected[e]);
		dsa_export_release(&export);
	}
	enum dsa_engine engine;
	assert_int_equal(dsa_engine_parse("tgi", &engine, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "--engine tgi: expected vllm, sglang"));
}

static void refused(const char *pattern, int layers, int stages, enum dsa_engine engine, const char *expected)
{
	struct dsa_export export;
	assert_int_equal(dsa_engine_export(&export, engine, NULL, layers, pattern, stages, &err), DSA_E_USAGE);
	if (!strstr(err.text, expected))
		fail_msg("%s", err.text);
	assert_int_equal(export.text.bytes, 0);
	dsa_export_release(&export);
}

static void unsafe_patterns_are_refused_by_rule(void **state)
{
	(void)state;
	refused("SFF", 3, 1, DSA_ENGINE_VLLM, "layer 0 of the pattern is S");
	refused("FS", 3, 1, DSA_ENGINE_VLLM, "has 2 layers, the model has 3");
	refused("FSFF", 3, 1, DSA_ENGINE_VLLM, "has 4 layers, the model has 3");
	refused("FsF", 3, 1, DSA_ENGINE_VLLM, "is 's'");
	refused("FSF", 3, 0, DSA_ENGINE_VLLM, "--pp 0: expected 1 to 3");
	refused("FSF", 3, 4, DSA_ENGINE_VLLM, "--pp 4: expected 1 to 3");
	refused("FFSS", 4, 2, DSA_ENGINE_SGLANG, "--pp 2: SGLang starts pipeline stage 1 at layer 2, which is S");
	struct dsa_export export;
	assert_int_equal(dsa_engine_export(&export, DSA_ENGINE_VLLM, NULL, 4, "FSFS", 2, &err), DSA_OK);
	dsa_export_release(&export);
}

/* 61 layers on 4 ranks: 15 15 16 15 in vLLM, 15 15 15 16 in SGLang, 16 15 15 15 elsewhere; on 8 of 78, ten or nine. */
static void stages_start_where_each_engine_cuts(void **state)
{
	(void)state;
	static const int vllm[] = {0, 15, 30, 46}, sglang[] = {0, 15, 30, 45}, others[] = {0, 16, 31, 46};
	for (int stage = 0; stage < 4; stage++) {
		assert_int_equal(dsa_engine_stage_start(DSA_ENGINE_VLLM, 61, 4, stage), vllm[stage]);
		assert_int_equal(dsa_engine_stage_start(DSA_ENGINE_SGLANG, 61, 4, stage), sglang[stage]);
		assert_int_equal(dsa_engine_stage_start(DSA_ENGINE_TRTLLM, 61, 4, stage), others[stage]);
	}
	static const int eight[] = {0, 9, 19, 29, 39, 49, 59, 69};
	for (int stage = 0; stage < 8; stage++)
		assert_int_equal(dsa_engine_stage_start(DSA_ENGINE_VLLM, 78, 8, stage), eight[stage]);
}

static void engines_that_would_ignore_the_pattern_are_warned_about(void **state)
{
	(void)state;
	static const int warns_for_v32[DSA_ENGINES] = {
	    [DSA_ENGINE_TRANSFORMERS] = 1, [DSA_ENGINE_LMDEPLOY] = 1, [DSA_ENGINE_LLAMACPP] = 1};
	for (int e = 0; e < DSA_ENGINES; e++) {
		struct dsa_export export;
		assert_int_equal(dsa_engine_export(&export, (enum dsa_engine)e, "deepseek_v32", 3, "FSF", 1, &err),
		                 DSA_OK);
		assert_int_equal(export.warnings, warns_for_v32[e]);
		dsa_export_release(&export);
		assert_int_equal(dsa_engine_export(&export, (enum dsa_engine)e, "llama\n4", 3, "FSF", 1, &err), DSA_OK);
		assert_int_equal(export.warnings, 1);
		assert_non_null(strstr(export.warning[0].text, "the architecture llama?4"));
		dsa_export_release(&export);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ten_thousand_random_patterns_come_back_from_every_engine),
	    cmocka_unit_test(ten_thousand_pattern_files_are_read_exported_and_parsed),
	    cmocka_unit_test(each_engine_gets_its_own_words),
	    cmocka_unit_test(unsafe_patterns_are_refused_by_rule),
	    cmocka_unit_test(stages_start_where_each_engine_cuts),
	    cmocka_unit_test(engines_that_would_ignore_the_pattern_are_warned_about),
	};
	return cmocka_run_group_tests_name("engines", tests, NULL, NULL);
}
