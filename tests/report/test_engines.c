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

static enum dsa_status export_as(struct dsa_export *export, enum dsa_engine engine, const char *architecture,
                                 int layers, const char *pattern, int stages)
{
	const struct dsa_export_request request = {
	    .engine = engine, .architecture = architecture, .pattern = pattern, .layers = layers, .stages = stages};
	return dsa_engine_export(export, &request, &err);
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
			assert_int_equal(export_as(&export, (enum dsa_engine)e, "glm_moe_dsa", layers, pattern, 1),
			                 DSA_OK);
			assert_int_equal(export.warnings, 0);
			parse_back((enum dsa_engine)e, export.text.data, back);
			assert_string_equal(back, pattern);
			dsa_export_release(&export);
		}
	}
}

/* Names as an enemy would choose them: quotes, line ends, YAML's and shells' own marks, bytes that are no UTF-8. */
static const char *hostile_name(uint64_t *seed, char out[64])
{
	static const char *const bits[] = {"\"",       "'",
	                                   "\n",       "pattern: \"S\"",
	                                   "\\",       ": ",
	                                   "#",        "---",
	                                   "\xff\xfe", "\xe2\x80\xae",
	                                   "&a",       "*a",
	                                   "!!python", "{",
	                                   "]",        "\t",
	                                   "%",        "\x7f",
	                                   "\x01",     "$(x)",
	                                   "`",        "null",
	                                   "\xc3\xa9", "|",
	                                   ">",        "\r\n",
	                                   "</pre>",   "a"};
	out[0] = 0;
	for (int i = (int)(fixture_random(seed) % 6); i >= 0; i--) {
		const char *bit = bits[fixture_random(seed) % (sizeof bits / sizeof *bits)];
		if (strlen(out) + strlen(bit) < 64)
			strcat(out, bit);
	}
	return out;
}

/* The whole way: pattern.yaml with hostile names, read, exported for each engine, parsed as the engine parses it. */
static void ten_thousand_pattern_files_are_read_exported_and_parsed(void **state)
{
	(void)state;
	uint64_t seed = 6;
	char pattern[32], back[DSA_ERROR_CHARS], model[64], name[64];
	for (int round = 0; round < 10000; round++) {
		struct dsa_arena arena;
		struct dsa_results written = {0}, read;
		struct dsa_result_corpus corpus = {.name = hostile_name(&seed, name), .weight = 1};
		struct dsa_text text = {0};
		struct dsa_export export;
		written.layers = 1 + (int)(fixture_random(&seed) % 31);
		for (int l = 0; l < written.layers; l++)
			pattern[l] = l && fixture_random(&seed) & 1 ? 'S' : 'F';
		pattern[written.layers] = 0;
		written.topk = 64;
		written.pattern = pattern;
		written.model_name = hostile_name(&seed, model);
		written.corpora = &corpus;
		written.corpus_count = 1;
		dsa_arena_init(&arena);
		dsa_pattern_yaml_write(&text, &written);
		if (dsa_pattern_yaml_read(&read, text.data, text.bytes, "p.yaml", NULL, &arena, &err))
			fail_msg("%s in\n%s", err.text, text.data);
		for (int e = 0; e < DSA_ENGINES; e++) {
			enum dsa_engine engine = (enum dsa_engine)e;
			assert_int_equal(export_as(&export, engine, read.architecture, read.layers, read.pattern, 1),
			                 DSA_OK);
			parse_back(engine, export.text.data, back);
			assert_string_equal(back, pattern);
			dsa_export_release(&export);
		}
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
		assert_int_equal(export_as(&export, named, "glm_moe_dsa", 3, "FSF", 1), DSA_OK);
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
	assert_int_equal(export_as(&export, engine, NULL, layers, pattern, stages), DSA_E_USAGE);
	if (!strstr(err.text, expected))
		fail_msg("%s", err.text);
	assert_int_equal(export.text.bytes, 0);
	dsa_export_release(&export);
}

static void unsafe_patterns_are_refused_by_rule(void **state)
{
	(void)state;
	for (int e = 0; e < DSA_ENGINES; e++) {
		enum dsa_engine engine = (enum dsa_engine)e;
		refused("SFF", 3, 1, engine, "layer 0 of the pattern is S");
		refused("FS", 3, 1, engine, "has 2 layers, the model has 3");
		refused("FSFF", 3, 1, engine, "has 4 layers, the model has 3");
		refused("FsF", 3, 1, engine, "is 's'");
		refused("FXF", 3, 1, engine, "is 'X'");
		refused("", 3, 1, engine, "has 0 layers");
		refused("FFSS", 4, 2, engine, "stage 1 at layer 2, which is S");
	}
	refused("FSF", 3, 0, DSA_ENGINE_VLLM, "--pp 0: expected 1 to 3");
	refused("FSF", 3, 4, DSA_ENGINE_VLLM, "--pp 4: expected 1 to 3");
	struct dsa_export export;
	assert_int_equal(export_as(&export, DSA_ENGINE_VLLM, NULL, 4, "FSFS", 2), DSA_OK);
	dsa_export_release(&export);
}

/* What the engine's source was seen to do with it is told, each in words of its own. */
static void a_refusal_says_what_the_engine_would_have_done(void **state)
{
	(void)state;
	refused("FsF", 3, 1, DSA_ENGINE_VLLM, "; vLLM runs every letter but an upper-case S as F");
	refused("FS", 3, 1, DSA_ENGINE_VLLM, "; vLLM would run the layers behind its end as F");
	refused("FSFF", 3, 1, DSA_ENGINE_VLLM, "; vLLM would ignore the letters behind the last layer");
	refused("SFF", 3, 1, DSA_ENGINE_VLLM, "; vLLM would read a buffer that nobody wrote");
	refused("FFSS", 4, 2, DSA_ENGINE_VLLM, "; vLLM gives each rank a buffer of its own");
	refused("FS", 3, 1, DSA_ENGINE_SGLANG, "; SGLang crashes on it in older versions");
	refused("FFSS", 4, 2, DSA_ENGINE_SGLANG, "; SGLang crashes on such a stage in older versions");
	refused("FsF", 3, 1, DSA_ENGINE_TRTLLM, "; TensorRT-LLM would take lower case");
	refused("SFF", 3, 1, DSA_ENGINE_TRTLLM, "; TensorRT-LLM would force that layer to F");
	refused("FXF", 3, 1, DSA_ENGINE_TRANSFORMERS, "; transformers raises KeyError on it");
	refused("FS", 3, 1, DSA_ENGINE_TRANSFORMERS, "; transformers does not check the length");
	refused("FSFF", 3, 1, DSA_ENGINE_TRANSFORMERS, "; transformers does not check the length");
	refused("SFF", 3, 1, DSA_ENGINE_LMDEPLOY, "; LMDeploy raises on a buffer that nobody wrote");
	refused("FFSS", 4, 2, DSA_ENGINE_LMDEPLOY, "; LMDeploy raises on a buffer that nobody wrote");
}

static void layers_of_multi_token_prediction_are_not_counted(void **state)
{
	(void)state;
	struct dsa_export export;
	struct dsa_export_request request = {
	    .engine = DSA_ENGINE_VLLM, .pattern = "FSFF", .layers = 3, .mtp_layers = 1, .stages = 1};
	assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "4 letters for 3 decoder layers: the 1 of multi-token prediction"));
	request.pattern = "FSF";
	assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_OK);
	dsa_export_release(&export);
	request.pattern = "FSFFF"; /* not by the prediction layer: the usual words */
	assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "has 5 layers, the model has 3"));
}

static void letters_per_decoder_layer_are_not_what_vllm_reads_for_deepseek_v4(void **state)
{
	(void)state;
	struct dsa_export export;
	assert_int_equal(export_as(&export, DSA_ENGINE_VLLM, "deepseek_v4", 3, "FSF", 1), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "one letter per C4 layer"));
	assert_int_equal(export_as(&export, DSA_ENGINE_SGLANG, "deepseek_v4", 3, "FSF", 1), DSA_OK);
	assert_int_equal(export.warnings, 1);
	dsa_export_release(&export);
}

static void a_native_list_has_to_be_replaced(void **state)
{
	(void)state;
	struct dsa_export export;
	struct dsa_export_request request = {
	    .architecture = "glm_moe_dsa", .pattern = "FSSS", .reference = "FFSF", .layers = 4, .stages = 1};
	for (int e = 0; e < DSA_ENGINES; e++) {
		bool reads_list = e == DSA_ENGINE_TRANSFORMERS || e == DSA_ENGINE_LMDEPLOY;
		request.engine = (enum dsa_engine)e;
		assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_OK);
		assert_int_equal(export.warnings, reads_list);
		if (reads_list)
			assert_non_null(strstr(export.warning[0].text, "must be replaced by this list or it wins"));
		dsa_export_release(&export);
	}
	request.engine = DSA_ENGINE_TRANSFORMERS;
	request.replaces = true;
	assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_OK);
	assert_int_equal(export.warnings, 0);
	dsa_export_release(&export);
	request.pattern = "FFFS";
	assert_int_equal(dsa_engine_export(&export, &request, &err), DSA_OK);
	assert_int_equal(export.warnings, 1);
	assert_string_equal(export.warning[0].text,
	                    "layer 2 is F, but the checkpoint shares there and may hold no indexer for it");
	dsa_export_release(&export);
}

static void the_frequency_is_never_emitted(void **state)
{
	(void)state;
	for (int e = 0; e < DSA_ENGINES; e++) {
		struct dsa_export export;
		assert_int_equal(export_as(&export, (enum dsa_engine)e, "glm_moe_dsa", 8, "FSSSFSSS", 1), DSA_OK);
		assert_null(strstr(export.text.data, "freq"));
		assert_non_null(export.note);
		dsa_export_release(&export);
	}
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
		assert_int_equal(export_as(&export, (enum dsa_engine)e, "deepseek_v32", 3, "FSF", 1), DSA_OK);
		assert_int_equal(export.warnings, warns_for_v32[e]);
		dsa_export_release(&export);
		assert_int_equal(export_as(&export, (enum dsa_engine)e, "llama\n4", 3, "FSF", 1), DSA_OK);
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
	    cmocka_unit_test(a_refusal_says_what_the_engine_would_have_done),
	    cmocka_unit_test(layers_of_multi_token_prediction_are_not_counted),
	    cmocka_unit_test(letters_per_decoder_layer_are_not_what_vllm_reads_for_deepseek_v4),
	    cmocka_unit_test(a_native_list_has_to_be_replaced),
	    cmocka_unit_test(the_frequency_is_never_emitted),
	    cmocka_unit_test(stages_start_where_each_engine_cuts),
	    cmocka_unit_test(engines_that_would_ignore_the_pattern_are_warned_about),
	};
	return cmocka_run_group_tests_name("engines", tests, NULL, NULL);
}
