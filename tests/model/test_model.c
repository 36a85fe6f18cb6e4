#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "golden.h"

/* A copy of a golden checkpoint that a test may damage. */
static char dir[64];
static struct dsa_backend *backend;

static void copy_golden(const char *name)
{
	char command[256];
	snprintf(command, sizeof command,
	         "rm -rf %s/* && cp tests/golden/tiny/%s/*.json tests/golden/tiny/%s/model*.safetensors %s", dir, name,
	         name, dir);
	assert_int_equal(system(command), 0);
}

static int set_up(void **state)
{
	(void)state;
	struct dsa_backend_options options = {.device = "cpu", .threads = 1};
	strcpy(dir, "/tmp/dsacal-test-XXXXXX");
	return mkdtemp(dir) && !dsa_backend_open(&backend, &options, &golden_error) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	char command[128];
	dsa_backend_close(backend);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static const char *in_dir(const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

/* Overwrites the tensor's element `index` with the low bytes of `bits`. */
static void patch(const char *tensor, int64_t index, uint32_t bits)
{
	struct dsa_checkpoint *cp;
	MUST(dsa_checkpoint_open(&cp, dir, &golden_error));
	const struct dsa_stored *stored = dsa_checkpoint_find(cp, tensor);
	assert_non_null(stored);
	const char *path = dsa_checkpoint_shard_path(cp, stored->shard);
	const uint8_t *header;
	uint64_t header_bytes;
	dsa_checkpoint_shard_header(cp, stored->shard, &header, &header_bytes);
	size_t size = dsa_dtype_bytes(stored->dtype);
	long offset = (long)(stored->data - header) + 8 + (long)index * (long)size;
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, offset, SEEK_SET), 0);
	assert_int_equal(fwrite(&bits, size, 1, file), 1);
	assert_int_equal(fclose(file), 0);
	dsa_checkpoint_close(cp);
}

/* Replaces the first `from` in a file by `to`. */
static void edit(const char *name, const char *from, const char *to)
{
	static char text[1 << 20];
	size_t from_bytes = strlen(from), to_bytes = strlen(to);
	FILE *file = fopen(in_dir(name), "rb");
	assert_non_null(file);
	size_t bytes = fread(text, 1, sizeof text - 64, file);
	assert_int_equal(fclose(file), 0);
	char *at = memmem(text, bytes, from, from_bytes);
	if (!at)
		fail_msg("%s holds no %s", name, from);
	memmove(at + to_bytes, at + from_bytes, bytes - (size_t)(at - text) - from_bytes);
	memcpy(at, to, to_bytes);
	bytes = bytes - from_bytes + to_bytes;
	file = fopen(in_dir(name), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, bytes, file), bytes);
	assert_int_equal(fclose(file), 0);
}

static void assert_refused(enum dsa_status expected, const char *word)
{
	struct dsa_model *model;
	enum dsa_status status = dsa_model_open(&model, backend, dir, 64, NULL, NULL, &golden_error);
	if (status != expected || !strstr(golden_error.text, word))
		fail_msg("status %d, expected %d and \"%s\": %s", (int)status, (int)expected, word, golden_error.text);
	assert_null(model);
}

static void weights_that_are_not_finite_are_refused_by_name_and_place(void **state)
{
	(void)state;
	copy_golden("glm-all-full");
	patch("model.layers.2.self_attn.o_proj.weight", 45 * 3 + 7, 0x7fc00000); /* (40, 45) F32 */
	assert_refused(DSA_E_NUMERIC, "tensor model.layers.2.self_attn.o_proj.weight: row 3, column 7: NaN");
	copy_golden("glm-pattern-string");
	patch("model.layers.1.mlp.gate.e_score_correction_bias", 4, 0xfc00); /* F16 */
	assert_refused(DSA_E_NUMERIC, "e_score_correction_bias: row 0, column 4: infinity");
	copy_golden("v32-groups-yarn");
	patch("model.layers.3.mlp.experts.11.up_proj.weight", 5, 0x7f80); /* BF16 */
	assert_refused(DSA_E_NUMERIC, "model.layers.3.mlp.experts.11.up_proj.weight: row 0, column 5: infinity");
}

static void tensors_that_are_missing_or_of_another_shape_are_refused_by_name(void **state)
{
	(void)state;
	copy_golden("glm-all-full");
	edit("model.safetensors", "model.layers.1.mlp.experts.4.down_proj.weight",
	     "model.layers.1.mlp.experts.9.down_proj.weight");
	assert_refused(DSA_E_INPUT, "model.layers.1.mlp.experts.4.down_proj.weight (40 x 6) is missing");
	copy_golden("glm-all-full");
	edit("config.json", "\"kv_lora_rank\": 14", "\"kv_lora_rank\": 15");
	assert_refused(DSA_E_INPUT, "kv_a_proj_with_mqa.weight has shape 20 x 40, expected 21 x 40");
	copy_golden("glm-all-full");
	edit("config.json", "\"vocab_size\": 101", "\"vocab_size\": 103");
	assert_refused(DSA_E_INPUT, "model.embed_tokens.weight has shape 101 x 40, expected 103 x 40");
	/* An F layer must have its indexer, and one that has a part of it must have all. */
	copy_golden("glm-all-full");
	edit("model.safetensors", "layers.3.self_attn.indexer.wq_b", "layers.3.self_attn.indexer.wq_x");
	assert_refused(DSA_E_INPUT, "model.layers.3.self_attn.indexer.wq_b.weight (42 x 22) is missing");
	copy_golden("glm-pattern-string");
	edit("model.safetensors", "layers.1.self_attn.indexer.k_norm.bias", "layers.1.self_attn.indexer.k_norm.bios");
	assert_refused(DSA_E_INPUT, "model.layers.1.self_attn.indexer.k_norm.bias (14) is missing");
}

static void fp8_weights_that_cannot_be_what_was_meant_are_refused_by_name(void **state)
{
	(void)state;
	copy_golden("glm-fp8-blocks"); /* blocks of 16 x 24; o_proj (40, 45) */
	patch("model.layers.2.self_attn.o_proj.weight", 45 * 3 + 7, 0x7f);
	assert_refused(DSA_E_NUMERIC, "tensor model.layers.2.self_attn.o_proj.weight: row 3, column 7: NaN");
	copy_golden("glm-fp8-blocks");
	patch("model.layers.0.self_attn.o_proj.weight_scale_inv", 3, 0x7f800000);
	assert_refused(DSA_E_NUMERIC, "o_proj.weight: the scale of block row 1, block column 1 is inf");
	copy_golden("glm-fp8-blocks");
	edit("model.safetensors", "layers.1.self_attn.q_a_proj.weight_scale_inv",
	     "layers.1.self_attn.q_a_proj.weight_scale_inw");
	assert_refused(DSA_E_INPUT, "model.layers.1.self_attn.q_a_proj.weight_scale_inv (2 x 2) is missing");
	/* Scales of blocks of another size. */
	copy_golden("glm-fp8-blocks");
	edit("config.json", "      16,\n", "      24,\n");
	assert_refused(DSA_E_INPUT, "q_a_proj.weight_scale_inv has shape 2 x 2, expected 1 x 2");
	copy_golden("glm-fp8-blocks");
	edit("config.json", "\"quantization_config\"", "\"quantization_confix\"");
	assert_refused(DSA_E_INPUT, "is F8_E4M3, but config.json has no quantization_config");
	copy_golden("glm-fp8-ue8m0");
	patch("model.layers.1.mlp.experts.gate_up_proj", (2 * 140 + 139) * 144 + 5, 0xff);
	assert_refused(DSA_E_NUMERIC, "model.layers.1.mlp.experts.gate_up_proj: expert 2: row 139, column 5: NaN");
	copy_golden("glm-fp8-ue8m0");
	edit("model-00002-of-00002.safetensors", "\"dtype\":\"F32\",\"shape\":[4,2,2]",
	     "\"dtype\":\"I32\",\"shape\":[4,2,2]");
	assert_refused(DSA_E_INPUT, "gate_up_proj_scale_inv is I32");
	/* Scales beside a weight that is not FP8: were its numbers multiplied already? */
	copy_golden("glm-fp8-blocks");
	edit("model.safetensors", "model.layers.0.self_attn.o_proj.weight_scale_inv\":",
	     "model.norm.weight_scale_inv\"                     :");
	assert_refused(DSA_E_INPUT, "tensor model.norm.weight is F32 but model.norm.weight_scale_inv is there");
}

static void huge_sizes_are_refused_before_memory_is_taken(void **state)
{
	(void)state;
	copy_golden("glm-all-full");
	edit("config.json", "\"intermediate_size\": 36", "\"intermediate_size\":500000");
	assert_refused(DSA_E_INPUT, "mlp.gate_proj.weight has shape 36 x 40, expected 500000 x 40");
}

static void directory_without_a_checkpoint_is_refused(void **state)
{
	(void)state;
	assert_refused(DSA_E_INPUT, "config.json");
	copy_golden("glm-all-full");
	assert_int_equal(unlink(in_dir("model.safetensors")), 0);
	assert_refused(DSA_E_INPUT, "neither model.safetensors");
}

static void assert_fingerprints(char sampled[65], char full[65])
{
	MUST(dsa_model_fingerprint(dir, false, sampled, &golden_error));
	MUST(dsa_model_fingerprint(dir, true, full, &golden_error));
	assert_int_equal(strlen(sampled), 64);
	assert_string_not_equal(sampled, full);
}

static void fingerprint_sees_config_tokenizer_and_weights(void **state)
{
	(void)state;
	char sampled[4][65], full[4][65];
	struct dsa_model *model;
	copy_golden("glm-all-full");
	assert_fingerprints(sampled[0], full[0]);
	assert_fingerprints(sampled[1], full[1]);
	assert_string_equal(sampled[0], sampled[1]);
	assert_string_equal(full[0], full[1]);
	MUST(dsa_model_open(&model, backend, dir, 64, NULL, NULL, &golden_error));
	assert_string_equal(model->fingerprint, sampled[0]);
	dsa_model_close(model);

	patch("model.norm.weight", 39, 0x3f800001);
	assert_fingerprints(sampled[1], full[1]);
	FILE *file = fopen(in_dir("tokenizer.json"), "wb");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
	assert_fingerprints(sampled[2], full[2]);
	edit("config.json", "\"ep_size\": 1", "\"ep_size\": 2");
	assert_fingerprints(sampled[3], full[3]);
	for (int i = 0; i < 4; i++) {
		for (int j = 0; j < i; j++) {
			assert_string_not_equal(sampled[i], sampled[j]);
			assert_string_not_equal(full[i], full[j]);
		}
	}
	/* (101, 40) F32 is 16160 bytes: byte 5000 is in no sampled block, byte 8000 is in the middle one. */
	patch("model.embed_tokens.weight", 1250, 0x3f800001);
	assert_fingerprints(sampled[0], full[0]);
	assert_string_equal(sampled[0], sampled[3]);
	assert_string_not_equal(full[0], full[3]);
	patch("model.embed_tokens.weight", 2000, 0x3f800001);
	assert_fingerprints(sampled[1], full[1]);
	assert_string_not_equal(sampled[1], sampled[0]);
}

static void weight_bytes_are_known_before_loading(void **state)
{
	(void)state;
	struct dsa_model *model;
	copy_golden("glm-all-full");
	MUST(dsa_model_open(&model, backend, dir, 64, NULL, NULL, &golden_error));
	/* Parameters times 4 and some padding to 256 bytes per tensor. */
	const struct dsa_model_config *c = &model->config;
	int64_t attention = 22 * 40 + 5 * 16 * 22 + 20 * 40 + 5 * 19 * 14 + 40 * 45 + 2 * 40 + 22 + 14;
	int64_t indexer = 42 * 22 + 14 * 40 + 2 * 14 + 3 * 40, dense = 3 * 36 * 40;
	int64_t moe = 7 * 3 * 6 * 40 + 6 * 40 + 6;
	int64_t total = 2 * 101 * 40 + 40 + 4 * (attention + indexer) + dense + 3 * moe;
	assert_true((int64_t)model->weight_bytes >= 4 * total);
	assert_true((int64_t)model->weight_bytes < 4 * total + 256 * 100);
	assert_int_equal(dsa_model_weight_bytes(c, DSA_F32), model->weight_bytes);
	assert_true(dsa_model_weight_bytes(c, DSA_BF16) < model->weight_bytes * 6 / 10);
	dsa_model_close(model);
	/* An S layer's absent indexer takes no memory, but the forecast counts it. */
	copy_golden("glm-types-spared");
	MUST(dsa_model_open(&model, backend, dir, 64, NULL, NULL, &golden_error));
	assert_true(dsa_model_weight_bytes(&model->config, DSA_F32) > model->weight_bytes);
	const struct dsa_layer *layer;
	MUST(dsa_model_acquire(model, 2, &layer, &golden_error));
	assert_null(layer->index_q.data);
	dsa_model_release(model, 2);
	dsa_model_close(model);
}

struct lines {
	int warnings;
	char last[512];
};

static void take_line(void *context, enum dsa_log_level level, const char *text)
{
	struct lines *lines = context;
	if (level == DSA_LOG_WARN) {
		lines->warnings++;
		snprintf(lines->last, sizeof lines->last, "%s", text);
	}
}

static void context_beyond_the_trained_positions_is_warned_about(void **state)
{
	(void)state;
	struct lines lines = {0};
	struct dsa_log log = {.line = take_line, .context = &lines};
	struct dsa_model *model;
	copy_golden("glm-all-full");
	MUST(dsa_model_open(&model, backend, dir, 2048, NULL, &log, &golden_error));
	assert_int_equal(lines.warnings, 0);
	dsa_model_close(model);
	MUST(dsa_model_open(&model, backend, dir, 2049, NULL, &log, &golden_error));
	assert_int_equal(lines.warnings, 1);
	assert_non_null(strstr(lines.last, "context 2049 is beyond max_position_embeddings (2048)"));
	dsa_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(weights_that_are_not_finite_are_refused_by_name_and_place, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(tensors_that_are_missing_or_of_another_shape_are_refused_by_name, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(fp8_weights_that_cannot_be_what_was_meant_are_refused_by_name, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(huge_sizes_are_refused_before_memory_is_taken, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(directory_without_a_checkpoint_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(fingerprint_sees_config_tokenizer_and_weights, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(weight_bytes_are_known_before_loading, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(context_beyond_the_trained_positions_is_warned_about, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
