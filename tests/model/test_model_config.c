#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dsa/model_config.h"

/* Small and valid. */
static const char *const basis[][2] = {
    {"model_type", "\"glm_moe_dsa\""},
    {"num_hidden_layers", "4"},
    {"hidden_size", "40"},
    {"num_attention_heads", "5"},
    {"num_key_value_heads", "5"},
    {"q_lora_rank", "22"},
    {"kv_lora_rank", "14"},
    {"qk_nope_head_dim", "10"},
    {"qk_rope_head_dim", "6"},
    {"v_head_dim", "9"},
    {"index_n_heads", "3"},
    {"index_head_dim", "14"},
    {"index_topk", "7"},
    {"vocab_size", "101"},
    {"intermediate_size", "36"},
    {"moe_intermediate_size", "9"},
    {"n_routed_experts", "6"},
    {"num_experts_per_tok", "2"},
    {"n_group", "1"},
    {"topk_group", "1"},
    {"first_k_dense_replace", "1"},
    {"rope_theta", "10000"},
};

static struct dsa_arena arena;
static struct dsa_error error;

static int set_up(void **state)
{
	(void)state;
	dsa_arena_init(&arena);
	error.text[0] = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dsa_arena_release(&arena);
	return 0;
}

/* The basis with members replaced or added: pairs of key and JSON text; a NULL text leaves the key out. */
static enum dsa_status parse_with(struct dsa_model_config *config, const char *const (*pairs)[2], size_t count)
{
	char text[8192];
	size_t used = (size_t)snprintf(text, sizeof text, "{\"unrelated\": 1");
	for (size_t i = 0; i < sizeof basis / sizeof basis[0]; i++) {
		bool replaced = false;
		for (size_t j = 0; j < count; j++)
			replaced = replaced || !strcmp(pairs[j][0], basis[i][0]);
		if (!replaced)
			used +=
			    (size_t)snprintf(text + used, sizeof text - used, ",\"%s\": %s", basis[i][0], basis[i][1]);
	}
	for (size_t j = 0; j < count; j++) {
		if (pairs[j][1])
			used +=
			    (size_t)snprintf(text + used, sizeof text - used, ",\"%s\": %s", pairs[j][0], pairs[j][1]);
	}
	used += (size_t)snprintf(text + used, sizeof text - used, "}");
	assert_true(used < sizeof text);
	return dsa_model_config_parse(config, text, used, "config.json", &arena, &error);
}

#define PARSE(config, ...)                                                                                             \
	parse_with(&(config), (const char *const[][2]){__VA_ARGS__},                                                   \
	           sizeof((const char *const[][2]){__VA_ARGS__}) / sizeof(const char *[2]))

static void assert_refused(const char *key, const char *value, const char *word)
{
	struct dsa_model_config config;
	enum dsa_status status = PARSE(config, {key, value});
	if (status != DSA_E_INPUT)
		fail_msg("%s: %s was accepted (status %d)", key, value, (int)status);
	if (!strstr(error.text, word))
		fail_msg("%s: %s: the message lacks \"%s\": %s", key, value, word, error.text);
	assert_null(strchr(error.text, '\n'));
}

static void fields_are_read(void **state)
{
	(void)state;
	struct dsa_model_config config;
	assert_int_equal(PARSE(config, {"rms_norm_eps", "0.001"}, {"attention_bias", "true"}), DSA_OK);
	assert_int_equal(config.architecture, DSA_GLM_MOE_DSA);
	assert_string_equal(config.model_type, "glm_moe_dsa");
	assert_int_equal(config.layers, 4);
	assert_int_equal(config.q_rank, 22);
	assert_int_equal(config.latent, 14);
	assert_int_equal(config.topk, 7);
	assert_int_equal(config.router.experts, 6);
	assert_true(config.norm_eps == 0.001);
	assert_true(config.attention_bias);
	assert_false(config.tied);
	assert_int_equal(config.indexer_rope_style, DSA_ROPE_INTERLEAVED);
	assert_false(config.moe[0]);
	assert_true(config.moe[1]);
	assert_string_equal(config.native, "FFFF");
	assert_false(config.native_is_explicit);
	assert_true(fabs(config.attention_scale - 0.25) < 1e-12); /* 1 / sqrt(10 + 6) */
}

static void absent_keys_take_the_architectures_defaults(void **state)
{
	(void)state;
	struct dsa_model_config config;
	const char *v32 = "{\"model_type\": \"deepseek_v32\"}", *glm = "{\"model_type\": \"glm_moe_dsa\"}";
	assert_int_equal(dsa_model_config_parse(&config, v32, strlen(v32), "v32", &arena, &error), DSA_OK);
	assert_int_equal(config.layers, 61);
	assert_int_equal(config.hidden, 7168);
	assert_int_equal(config.heads, 128);
	assert_int_equal(config.router.groups, 8);
	assert_int_equal(config.router.chosen_groups, 4);
	assert_int_equal(config.indexer_rope_style, DSA_ROPE_HALVES);
	assert_true(config.norm_eps == 1e-6);
	assert_false(config.moe[2]);
	assert_true(config.moe[3]);
	assert_int_equal(dsa_model_config_parse(&config, glm, strlen(glm), "glm", &arena, &error), DSA_OK);
	assert_int_equal(config.layers, 78);
	assert_int_equal(config.value, 256);
	assert_int_equal(config.router.groups, 1);
	assert_true(config.norm_eps == 1e-5);
}

static void every_spelling_of_a_pattern_is_read(void **state)
{
	(void)state;
	struct dsa_model_config config;
	assert_int_equal(PARSE(config, {"indexer_types", "[\"full\",\"shared\",\"full\",\"shared\"]"}), DSA_OK);
	assert_string_equal(config.native, "FSFS");
	assert_true(config.native_is_explicit);
	assert_int_equal(PARSE(config, {"index_topk_pattern", "\"FSSF\""}), DSA_OK);
	assert_string_equal(config.native, "FSSF");
	assert_int_equal(PARSE(config, {"index_topk_pattern", "[\"F\",\"S\",\"S\",\"S\"]"}), DSA_OK);
	assert_string_equal(config.native, "FSSS");
	/* indexer_types wins over index_topk_pattern, which wins over the frequency. */
	assert_int_equal(PARSE(config, {"index_topk_pattern", "\"FSSF\""}, {"index_topk_freq", "4"},
	                       {"indexer_types", "[\"full\",\"full\",\"full\",\"shared\"]"}),
	                 DSA_OK);
	assert_string_equal(config.native, "FFFS");
	assert_int_equal(PARSE(config, {"num_hidden_layers", "8"}, {"index_topk_freq", "3"}), DSA_OK);
	assert_string_equal(config.native, "FFSSFSSF"); /* offset 2: max(l - 1, 0) mod 3 == 0 */
	assert_true(config.native_is_explicit);
	assert_int_equal(
	    PARSE(config, {"num_hidden_layers", "8"}, {"index_topk_freq", "4"}, {"index_skip_topk_offset", "3"}),
	    DSA_OK);
	assert_string_equal(config.native, "FFFSSSFS");
}

static void broken_patterns_are_refused(void **state)
{
	(void)state;
	assert_refused("index_topk_pattern", "\"FSF\"", "3 letters, expected one for each of the 4 layers");
	assert_refused("index_topk_pattern", "\"FSXF\"", "'X' at layer 2");
	assert_refused("index_topk_pattern", "\"SFFF\"", "layer 0 shared");
	assert_refused("index_topk_pattern", "7", "index_topk_pattern is an integer");
	assert_refused("indexer_types", "[\"full\",\"shared\",\"full\"]", "3 entries");
	assert_refused("indexer_types", "[\"full\",\"shared\",\"half\",\"full\"]", "indexer_types[2] is half");
	assert_refused("indexer_types", "[\"full\",\"shared\",3,\"full\"]", "indexer_types[2] is an integer");
}

static void fp8_blocks_are_read_and_other_quantisations_refused_by_name(void **state)
{
	(void)state;
	struct dsa_model_config config;
	assert_int_equal(PARSE(config, {"model_type", "\"deepseek_v32\""}), DSA_OK);
	assert_int_equal(config.block_rows, 0);
	assert_false(config.scale_ue8m0);
	assert_int_equal(
	    PARSE(config, {"quantization_config",
	                   "{\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", \"activation_scheme\": "
	                   "\"dynamic\", \"weight_block_size\": [128, 64], \"modules_to_not_convert\": [\"x\"]}"}),
	    DSA_OK);
	assert_int_equal(config.block_rows, 128);
	assert_int_equal(config.block_cols, 64);
	assert_false(config.scale_ue8m0);
	assert_int_equal(PARSE(config, {"quantization_config", "{\"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\", "
	                                                       "\"weight_block_size\": [128, 128]}"}),
	                 DSA_OK);
	assert_true(config.scale_ue8m0);
	static const struct {
		const char *value, *words;
	} bad[] = {
	    {"7", "quantization_config is an integer, expected an object"},
	    {"{}", "quantization_config: quant_method is missing"},
	    {"{\"quant_method\": \"gptq\"}", "quant_method \"gptq\" is not implemented"},
	    {"{\"quant_method\": 8}", "quant_method is an integer"},
	    {"{\"quant_method\": \"fp8\"}", "weight_block_size is missing"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": 128}", "weight_block_size is an integer"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128]}", "a list of another length"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 0]}", "weight_block_size[1] is no size"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [1.5, 128]}", "weight_block_size[0] is no size"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [65537, 128]}", "weight_block_size[0] is no size"},
	    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [4294967424, 128]}",
	     "weight_block_size[0] is no size"},
	    {"{\"quant_method\": \"fp8\", \"fmt\": \"e5m2\", \"weight_block_size\": [128, 128]}", "fmt \"e5m2\""},
	    {"{\"quant_method\": \"fp8\", \"activation_scheme\": \"static\", \"weight_block_size\": [128, 128]}",
	     "activation_scheme \"static\""},
	    {"{\"quant_method\": \"fp8\", \"scale_fmt\": \"e8\", \"weight_block_size\": [128, 128]}",
	     "scale_fmt \"e8\""},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_refused("quantization_config", bad[i].value, bad[i].words);
}

static void keys_that_change_numbers_and_are_not_implemented_are_refused_by_name(void **state)
{
	(void)state;
	assert_refused("model_type", "\"llama\"", "known: deepseek_v32, glm_moe_dsa");
	assert_refused("model_type", NULL, "model_type is missing");
	assert_refused("model_type", "3", "model_type is an integer");
	assert_refused("hidden_act", "\"gelu\"", "hidden_act \"gelu\"");
	assert_refused("scoring_func", "\"softmax\"", "scoring_func \"softmax\"");
	assert_refused("topk_method", "\"greedy\"", "topk_method \"greedy\"");
	assert_refused("q_lora_rank", "null", "q_lora_rank null");
	assert_refused("indexer_rope_interleave", "false", "indexer_rope_interleave false");
	assert_refused("rope_interleave", "false", "rope_interleave false");
	assert_refused("mlp_bias", "true", "mlp_bias true");
	assert_refused("num_key_value_heads", "1", "num_key_value_heads is 1");
	assert_refused("moe_layer_freq", "2", "moe_layer_freq 2");
	assert_refused("partial_rotary_factor", "0.5", "partial_rotary_factor");
	assert_refused("layer_types", "[\"full_attention\"]", "full_attention");
	assert_refused("rope_scaling", "{\"type\": \"linear\", \"factor\": 2}", "rope_type \"linear\"");
	assert_refused("rope_parameters", "{\"rope_type\": \"llama3\"}", "rope_type \"llama3\"");
	assert_refused("rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}", "per layer type");
	assert_refused("num_local_experts", "8", "n_routed_experts is 6 but num_local_experts is 8");
	struct dsa_model_config config;
	assert_int_equal(PARSE(config, {"model_type", "\"deepseek_v32\""}, {"indexer_rope_interleave", "true"}),
	                 DSA_E_INPUT);
	assert_int_equal(PARSE(config, {"model_type", "\"deepseek_v32\""}, {"indexer_rope_interleave", "false"}),
	                 DSA_OK);
}

static void absurd_sizes_are_refused(void **state)
{
	(void)state;
	static const char *const sizes[] = {
	    "num_hidden_layers", "hidden_size", "num_attention_heads", "q_lora_rank",      "kv_lora_rank",
	    "qk_nope_head_dim",  "v_head_dim",  "index_n_heads",       "vocab_size",       "intermediate_size",
	    "qk_rope_head_dim",  "index_topk",  "index_head_dim",      "n_group",          "moe_intermediate_size",
	    "n_routed_experts",  "topk_group",  "num_experts_per_tok", "n_shared_experts", "max_position_embeddings"};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		assert_refused(sizes[i], "0", sizes[i]);
		assert_refused(sizes[i], "-3", sizes[i]);
		assert_refused(sizes[i], "2147483648", sizes[i]);
		assert_refused(sizes[i], "9223372036854775807", sizes[i]);
		assert_refused(sizes[i], "2.5", sizes[i]);
		assert_refused(sizes[i], "\"4\"", sizes[i]);
	}
	assert_refused("num_hidden_layers", "1025", "num_hidden_layers is 1025, expected 1 to 1024");
	assert_refused("qk_rope_head_dim", "7", "even");
	assert_refused("index_head_dim", "4", "at least qk_rope_head_dim");
	assert_refused("rms_norm_eps", "0", "rms_norm_eps");
	assert_refused("rms_norm_eps", "-1e-6", "rms_norm_eps");
	assert_refused("rope_theta", "0", "rope_theta");
	assert_refused("rope_theta", "-10", "rope_theta");
	assert_refused("n_group", "4", "no multiple of n_group 4");
	assert_refused("n_group", "6", "at least 2 experts");
	assert_refused("topk_group", "2", "topk_group 2");
	assert_refused("num_experts_per_tok", "7", "num_experts_per_tok 7");
	assert_refused("mlp_layer_types", "[\"dense\"]", "expected a list of 4");
	assert_refused("mlp_layer_types", "[\"dense\",\"sparse\",\"moe\",\"dense\"]", "mlp_layer_types[2]");
}

static void broken_json_is_refused(void **state)
{
	(void)state;
	static const char *const texts[] = {"",
	                                    "{",
	                                    "[]",
	                                    "7",
	                                    "\"glm_moe_dsa\"",
	                                    "null",
	                                    "{\"model_type\":",
	                                    "{\"model_type\":\"glm_moe_dsa\",\"model_type\":\"glm_moe_dsa\"}"};
	struct dsa_model_config config;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_int_equal(dsa_model_config_parse(&config, texts[i], strlen(texts[i]), "c", &arena, &error),
		                 DSA_E_INPUT);
}

static void absent_file_is_reported(void **state)
{
	(void)state;
	struct dsa_model_config config;
	assert_int_equal(dsa_model_config_load(&config, "tests/golden/nowhere", &arena, &error), DSA_E_MISSING);
	assert_non_null(strstr(error.text, "tests/golden/nowhere/config.json"));
}

/* Expected values from the formulas in double, worked out apart from the program. */
static void yarn_follows_its_formulas(void **state)
{
	(void)state;
	struct dsa_model_config config;
	const char *yarn = "{\"type\": \"yarn\", \"factor\": 40, \"beta_fast\": 32, \"beta_slow\": 1, \"mscale\": 1.0, "
			   "\"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096}";
	assert_int_equal(PARSE(config, {"qk_rope_head_dim", "64"}, {"qk_nope_head_dim", "128"},
	                       {"index_head_dim", "128"}, {"rope_scaling", yarn}),
	                 DSA_OK);
	assert_true(config.rope_scale == 1);
	/* DeepSeek-V3's softmax scale: 192^-1/2 · (0.1 ln 40 + 1)² */
	assert_true(fabs(config.attention_scale - 0.1352337788608801) < 1e-12);
	/* Correction dims 10 (floor of 10.47…) and 23 (ceil of 22.51…): untouched below, divided by 40 above. */
	assert_true(fabs(config.inv_freq[10] - pow(10000, -20.0 / 64)) < 1e-8);
	assert_true(fabs(config.inv_freq[11] / pow(10000, -22.0 / 64) - (1 - 1.0 / 13 * 39 / 40)) < 1e-6);
	assert_true(fabs(config.inv_freq[23] * 40 / pow(10000, -46.0 / 64) - 1) < 1e-6);

	const char *one = "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"mscale_all_dim\": 0.8}";
	assert_int_equal(PARSE(config, {"rope_parameters", one}), DSA_OK);
	assert_true(fabs(config.rope_scale - (0.1 * log(4) + 1)) < 1e-12);
	assert_true(fabs(config.attention_scale - 0.25 * pow(0.08 * log(4) + 1, 2)) < 1e-12);

	const char *explicit_factor = "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"attention_factor\": 1.25}";
	assert_int_equal(PARSE(config, {"rope_parameters", explicit_factor}), DSA_OK);
	assert_true(config.rope_scale == 1.25);
	assert_true(config.attention_scale == 0.25);
}

static void broken_yarn_is_refused(void **state)
{
	(void)state;
	assert_refused("rope_scaling", "{\"type\": \"yarn\"}", "factor is missing");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": 0}", "factor is 0");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": -1}", "beta_fast");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"attention_factor\": -1}",
	               "attention_factor");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": \"4\"}", "factor is a string");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": 1e300}", "factor");
	assert_refused("rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": -5}",
	               "original");
	assert_refused("rope_scaling", "[1]", "rope_scaling is an array");
	assert_refused("rope_parameters", "\"yarn\"", "rope_parameters is a string");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(fields_are_read, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(absent_keys_take_the_architectures_defaults, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(every_spelling_of_a_pattern_is_read, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(broken_patterns_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(fp8_blocks_are_read_and_other_quantisations_refused_by_name, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(keys_that_change_numbers_and_are_not_implemented_are_refused_by_name,
	                                    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(absurd_sizes_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(broken_json_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(absent_file_is_reported, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(yarn_follows_its_formulas, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(broken_yarn_is_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
