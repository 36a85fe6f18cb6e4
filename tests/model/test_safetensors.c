#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dsa/safetensors.h"

static char dir[64];
static struct dsa_error error;
static struct dsa_checkpoint *checkpoint;

static int set_up(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/dsacal-test-XXXXXX");
	error.text[0] = 0;
	checkpoint = NULL;
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	char command[128];
	dsa_checkpoint_close(checkpoint);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static const char *in_dir(const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void write_bytes(const char *name, const void *data, size_t bytes)
{
	FILE *file = fopen(in_dir(name), "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, bytes, file), bytes);
	assert_int_equal(fclose(file), 0);
}

/* A safetensors file: its header's length, the header, data_bytes bytes 0, 1, 2, … */
static void write_tensors(const char *name, const char *header, size_t data_bytes)
{
	uint8_t bytes[4096];
	size_t length = strlen(header);
	assert_true(8 + length + data_bytes <= sizeof bytes);
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)((uint64_t)length >> (8 * i));
	memcpy(bytes + 8, header, length);
	for (size_t i = 0; i < data_bytes; i++)
		bytes[8 + length + i] = (uint8_t)i;
	write_bytes(name, bytes, 8 + length + data_bytes);
}

static void assert_refused(const char *word)
{
	enum dsa_status status = dsa_checkpoint_open(&checkpoint, dir, &error);
	if (status != DSA_E_INPUT)
		fail_msg("accepted (status %d), expected to be refused for \"%s\"", (int)status, word);
	assert_null(checkpoint);
	if (!strstr(error.text, word))
		fail_msg("the message lacks \"%s\": %s", word, error.text);
}

static void assert_header_refused(const char *header, size_t data_bytes, const char *word)
{
	write_tensors("model.safetensors", header, data_bytes);
	assert_refused(word);
}

static void tensors_are_found_by_name_dtype_and_shape(void **state)
{
	(void)state;
	const struct dsa_stored *tensor;
	write_tensors("model.safetensors",
	              "{\"__metadata__\":{\"format\":\"pt\"},"
	              "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[9,21]},"
	              "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
	              "\"p\":{\"dtype\":\"F16\",\"shape\":[1,2,1],\"data_offsets\":[21,25]},"
	              "\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[25,29]},"
	              "\"i\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]},"
	              "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]},"
	              "\"y\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[29,32]},"
	              "\"z\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[40,41]},"
	              "\"none\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[3,3]}}   ",
	              41);
	assert_int_equal(dsa_checkpoint_open(&checkpoint, dir, &error), DSA_OK);
	assert_int_equal(dsa_checkpoint_count(checkpoint), 9);
	assert_string_equal(dsa_checkpoint_at(checkpoint, 0)->name, "a");
	assert_null(dsa_checkpoint_find(checkpoint, "c"));
	assert_null(dsa_checkpoint_find(checkpoint, "__metadata__"));
	assert_int_equal(dsa_checkpoint_get(checkpoint, "a", 2, 0, &tensor, &error), DSA_OK);
	assert_int_equal(tensor->bytes, 8);
	assert_int_equal(dsa_checkpoint_get(checkpoint, "b", 2, 3, &tensor, &error), DSA_OK);
	assert_int_equal(tensor->dtype, DSA_BF16);
	assert_int_equal(tensor->data[0], 9); /* an odd offset behind a gap */
	assert_int_equal(tensor->data[11], 20);
	const int64_t packed[3] = {1, 2, 1};
	assert_int_equal(dsa_checkpoint_get_shape(checkpoint, "p", 3, packed, &tensor, &error), DSA_OK);

	assert_int_equal(dsa_checkpoint_get(checkpoint, "b", 3, 2, &tensor, &error), DSA_E_INPUT);
	assert_non_null(strstr(error.text, "b has shape 2 x 3, expected 3 x 2"));
	assert_int_equal(dsa_checkpoint_get(checkpoint, "a", 2, 1, &tensor, &error), DSA_E_INPUT);
	assert_int_equal(dsa_checkpoint_get(checkpoint, "c", 7, 0, &tensor, &error), DSA_E_INPUT);
	assert_non_null(strstr(error.text, "c (7) is missing"));
	assert_int_equal(dsa_checkpoint_get(checkpoint, "q", 2, 2, &tensor, &error), DSA_OK);
	assert_int_equal(tensor->dtype, DSA_F8_E4M3);
	assert_int_equal(dsa_checkpoint_get(checkpoint, "i", 1, 0, &tensor, &error), DSA_E_INPUT);
	assert_non_null(strstr(error.text, "I64"));
}

static void absent_and_truncated_files_are_refused(void **state)
{
	(void)state;
	assert_refused("neither model.safetensors nor model.safetensors.index.json");
	write_bytes("model.safetensors", "", 0);
	assert_refused("too short");
	write_bytes("model.safetensors", "\x02\0\0\0", 4);
	assert_refused("too short");
	write_bytes("model.safetensors", "\x09\0\0\0\0\0\0\0{}", 10);
	assert_refused("header is said to take 9 bytes");
	write_bytes("model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
	assert_refused("header is said to take");
	write_bytes("model.safetensors", "\0\0\0\0\0\0\0\0", 8);
	assert_refused("not valid JSON");
	const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
	write_tensors("model.safetensors", header, 16);
	assert_int_equal(dsa_checkpoint_open(&checkpoint, dir, &error), DSA_OK);
	dsa_checkpoint_close(checkpoint);
	/* Cut anywhere, it is refused. */
	for (int cut = 1; cut < (int)(8 + strlen(header) + 16); cut++) {
		write_tensors("model.safetensors", header, 16);
		assert_int_equal(truncate(in_dir("model.safetensors"), (off_t)(8 + strlen(header) + 16) - cut), 0);
		assert_refused("");
	}
}

static void hostile_headers_are_refused(void **state)
{
	(void)state;
#define ONE(dtype, shape, range) "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" range "}}"
	assert_header_refused("[]", 0, "the header is an array");
	assert_header_refused("{\"a\":", 0, "not valid JSON");
	assert_header_refused("{\"a\":7}", 0, "expected dtype");
	assert_header_refused("{\"a\":{\"dtype\":\"F32\"}}", 0, "expected dtype");
	assert_header_refused(ONE("\"F32\"", "[1]", "[0]"), 4, "expected dtype");
	assert_header_refused(ONE("\"X9\"", "[1]", "[0,4]"), 4, "dtype X9");
	assert_header_refused(ONE("7", "[1]", "[0,4]"), 4, "expected dtype");
	assert_header_refused(ONE("\"F32\"", "[1]", "[4,0]"), 4, "data_offsets");
	assert_header_refused(ONE("\"F32\"", "[1]", "[-4,0]"), 4, "data_offsets");
	assert_header_refused(ONE("\"F32\"", "[1]", "[1,5]"), 4, "not inside the 4 bytes");
	assert_header_refused(ONE("\"F32\"", "[1]", "[0,9223372036854775807]"), 4, "not inside");
	assert_header_refused(ONE("\"F32\"", "[1]", "[0.0,4.0]"), 4, "data_offsets");
	assert_header_refused(ONE("\"F32\"", "[-1]", "[0,4]"), 4, "dimension 0");
	assert_header_refused(ONE("\"F32\"", "[\"1\"]", "[0,4]"), 4, "dimension 0");
	assert_header_refused(ONE("\"F32\"", "[2]", "[0,4]"), 4, "its shape takes 8 bytes");
	assert_header_refused(ONE("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 4, "overflows");
	assert_header_refused(ONE("\"F32\"", "[9223372036854775807]", "[0,4]"), 4, "overflows");
	assert_header_refused(ONE("\"F32\"", "[1,1,1,1,1]", "[0,4]"), 4, "5 dimensions");
#undef ONE
	assert_header_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
	                      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
	                      8, "duplicate");
	assert_header_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
	                      "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]},"
	                      "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[7,11]}}",
	                      16, "a and b overlap");
	assert_header_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
	                      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9,17]}}",
	                      17, "take 16 of 17 bytes");
}

static void shards_are_opened_through_their_index(void **state)
{
	(void)state;
	const char *index = "{\"metadata\":{\"total_size\":12},"
			    "\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}";
	write_bytes("model.safetensors.index.json", index, strlen(index));
	write_tensors("m-1.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	assert_refused("m-2.safetensors: this file of the checkpoint is missing");
	write_tensors("m-2.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
	assert_int_equal(dsa_checkpoint_open(&checkpoint, dir, &error), DSA_OK);
	assert_int_equal(dsa_checkpoint_shards(checkpoint), 2);
	assert_int_equal(dsa_checkpoint_find(checkpoint, "b")->shard, 1);
	assert_non_null(strstr(dsa_checkpoint_shard_path(checkpoint, 1), "/m-2.safetensors"));
	const uint8_t *header;
	uint64_t bytes;
	dsa_checkpoint_shard_header(checkpoint, 1, &header, &bytes);
	assert_int_equal(bytes, strlen("{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"));
	assert_memory_equal(header, "{\"b\"", 4);
	dsa_checkpoint_close(checkpoint);
	checkpoint = NULL;

	write_tensors("m-2.safetensors", "{\"c\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
	assert_refused("tensor b is said to be in m-2.safetensors, which lacks it");
	write_tensors("m-2.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
	assert_refused("tensor a is both in m-1.safetensors and in m-2.safetensors");
	write_tensors("m-1.safetensors", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
	assert_refused("tensor a is said to be in m-1.safetensors but is in m-2.safetensors");
}

static void assert_index_refused(const char *index, const char *word)
{
	write_bytes("model.safetensors.index.json", index, strlen(index));
	assert_refused(word);
}

static void hostile_indexes_are_refused(void **state)
{
	(void)state;
	assert_index_refused("{", "not valid JSON");
	assert_index_refused("[]", "weight_map is nothing");
	assert_index_refused("{\"weight_map\":[]}", "weight_map is an array");
	assert_index_refused("{\"weight_map\":{}}", "weight_map is empty");
	assert_index_refused("{\"weight_map\":{\"a\":3}}", "an integer for tensor a");
	assert_index_refused("{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "../x.safetensors for tensor a");
	assert_index_refused("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "/etc/passwd for tensor a");
	assert_index_refused("{\"weight_map\":{\"a\":\"\"}}", "expected the name of a file");
	assert_index_refused("{\"weight_map\":{\"a\":\"..\"}}", "expected the name of a file");
	assert_index_refused("{\"weight_map\":{\"a\":\"x\\u0000y\"}}", "expected the name of a file");
}

static void golden_checkpoints_open(void **state)
{
	(void)state;
	const struct dsa_stored *tensor;
	assert_int_equal(dsa_checkpoint_open(&checkpoint, "tests/golden/tiny/v32-groups-yarn", &error), DSA_OK);
	assert_int_equal(dsa_checkpoint_shards(checkpoint), 2);
	assert_int_equal(dsa_checkpoint_get(checkpoint, "model.embed_tokens.weight", 101, 40, &tensor, &error), DSA_OK);
	assert_int_equal(tensor->dtype, DSA_BF16);
	dsa_checkpoint_close(checkpoint);
	assert_int_equal(
	    dsa_checkpoint_open_file(&checkpoint, "tests/golden/tiny/v32-groups-yarn/expected.safetensors", &error),
	    DSA_OK);
	assert_int_equal(dsa_checkpoint_get(checkpoint, "logits", 41, 101, &tensor, &error), DSA_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(tensors_are_found_by_name_dtype_and_shape, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(absent_and_truncated_files_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_headers_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(shards_are_opened_through_their_index, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_indexes_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(golden_checkpoints_open, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
