#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dsa/config_json.h"
#include "dsa/file.h"
#include "report/fixture.h"

static struct dsa_error err;

static const struct dsa_config_edit fsf = {.pattern = "FSF"};

static void becomes(const char *before, bool letters, const char *after)
{
	struct dsa_text out = {0};
	struct dsa_config_facts facts;
	const struct dsa_config_edit edit = {.pattern = "FSF", .architecture = "glm_moe_dsa", .letters = letters};
	if (dsa_config_json_edit(&out, before, strlen(before), "config.json", &edit, &facts, &err))
		fail_msg("%s", err.text);
	assert_string_equal(out.data, after);
	assert_int_equal(facts.layers, 3);
	dsa_text_release(&out);
}

#define HEAD "\"model_type\": \"glm_moe_dsa\",\"num_hidden_layers\":3"
#define LIST "[\"full\", \"shared\", \"full\"]"

static void a_list_is_replaced_where_it_stands(void **state)
{
	(void)state;
	becomes("{" HEAD ", \"indexer_types\" : [\n \"full\"\t,\"full\" , \"shared\"] ,\n\"x\": 1.50e+01}\n", false,
	        "{" HEAD ", \"indexer_types\" : " LIST " ,\n\"x\": 1.50e+01}\n");
	becomes("{\"indexer_types\":\"FFS\"," HEAD "}", false, "{\"indexer_types\":" LIST "," HEAD "}");
	becomes("{\"indexer_types\":null," HEAD "}", false, "{\"indexer_types\":" LIST "," HEAD "}");
	/* However the key is escaped; and not where it is a value, or lies deeper. */
	becomes("{\"index\\u0065r_types\":0," HEAD "}", false, "{\"index\\u0065r_types\":" LIST "," HEAD "}");
	becomes("{\"a\":\"indexer_types\",\"b\":{\"indexer_types\":[{}]}," HEAD "}", false,
	        "{\"a\":\"indexer_types\",\"b\":{\"indexer_types\":[{}]}," HEAD ",\"indexer_types\": " LIST "}");
}

static void a_missing_list_goes_behind_the_last_member_on_a_line_of_its_own(void **state)
{
	(void)state;
	becomes("{\n  " HEAD ",\n  \"s\": \"}\\\"{\\\\\"\n}\n", false,
	        "{\n  " HEAD ",\n  \"s\": \"}\\\"{\\\\\",\n  \"indexer_types\": " LIST "\n}\n");
	becomes("{" HEAD "}", false, "{" HEAD ",\"indexer_types\": " LIST "}");
	becomes("{" HEAD ",\n\t\"a\":[1,[2],{\"b\":\"]\"}]\n}", false,
	        "{" HEAD ",\n\t\"a\":[1,[2],{\"b\":\"]\"}],\n\t\"indexer_types\": " LIST "\n}");
}

static void letters_are_written_where_they_are_read_or_would_disagree(void **state)
{
	(void)state;
	becomes("{ " HEAD "}", true, "{ " HEAD ",\"indexer_types\": " LIST ",\"index_topk_pattern\": \"FSF\"}");
	becomes("{\"index_topk_pattern\": \"FFF\", " HEAD "}", false,
	        "{\"index_topk_pattern\": \"FSF\", " HEAD ",\"indexer_types\": " LIST "}");
	becomes("{\"index_topk_pattern\": null, " HEAD "}", false,
	        "{\"index_topk_pattern\": null, " HEAD ",\"indexer_types\": " LIST "}");
	/* A frequency stays: both other spellings win over it. */
	becomes("{\"index_topk_freq\": 4, " HEAD "}", false,
	        "{\"index_topk_freq\": 4, " HEAD ",\"indexer_types\": " LIST "}");
}

static void refused(const char *text, enum dsa_status status, const char *expected)
{
	struct dsa_text out = {0};
	struct dsa_config_facts facts;
	const struct dsa_config_edit edit = {.pattern = "FSF", .architecture = "glm_moe_dsa"};
	assert_int_equal(dsa_config_json_edit(&out, text, strlen(text), "c.json", &edit, &facts, &err), status);
	if (!strstr(err.text, expected))
		fail_msg("%s", err.text);
	dsa_text_release(&out);
}

static void what_is_no_config_of_this_model_is_refused(void **state)
{
	(void)state;
	refused("", DSA_E_INPUT, "not valid JSON");
	refused("[]", DSA_E_INPUT, "an array, expected an object");
	refused("{}", DSA_E_INPUT, "there is no model_type");
	refused("{\"model_type\":\"glm_moe_dsa\",\"text_config\":{\"num_hidden_layers\":3}}", DSA_E_INPUT,
	        "there is no num_hidden_layers");
	refused("{" HEAD ",\"a\":1,\"a\":2}", DSA_E_INPUT, "duplicate");
	refused("{" HEAD "} x", DSA_E_INPUT, "not valid JSON");
	refused("{\"model_type\": \"deepseek_v32\",\"num_hidden_layers\":3}", DSA_E_USAGE,
	        "model_type is deepseek_v32, but the pattern was found for glm_moe_dsa");
	refused("{\"model_type\": \"glm_moe_dsa\",\"num_hidden_layers\":4}", DSA_E_USAGE,
	        "the pattern has 3 layers, the model has 4");
	refused("{\"model_type\": \"glm_moe_dsa\",\"num_hidden_layers\":\"3\"}", DSA_E_INPUT, "expected an integer");
}

/* Never a crash, and nothing but the list changes: what comes out and parses still says what went in. */
static void damaged_bytes_are_refused_or_change_nothing_else(void **state)
{
	(void)state;
	uint64_t seed = 9;
	static const char good[] =
	    "{\n \"a\": [1, {\"b\": \"c\\\\\"}],\n " HEAD ",\n \"indexer_types\": [],\n \"z\": null\n}\n";
	for (int round = 0; round < 20000; round++) {
		char text[sizeof good];
		struct dsa_text out = {0};
		struct dsa_config_facts facts;
		memcpy(text, good, sizeof good);
		size_t bytes = round < (int)sizeof good ? (size_t)round : sizeof good - 1;
		text[bytes] = 0;
		for (int i = (int)(fixture_random(&seed) % 3); bytes && i >= 0; i--)
			text[fixture_random(&seed) % bytes] = (char)fixture_random(&seed);
		if (!dsa_config_json_edit(&out, text, bytes, "c.json", &fsf, &facts, &err))
			assert_non_null(strstr(out.data, LIST));
		dsa_text_release(&out);
	}
}

static char folder[] = "/tmp/dsacal-config-XXXXXX";
static char path[64], kept[72];

static void write_file(const char *name, const char *text)
{
	assert_int_equal(dsa_file_replace(name, text, strlen(text), &err), DSA_OK);
}

static void holds(const char *name, const char *expected)
{
	struct dsa_mapping map;
	assert_int_equal(dsa_mapping_open(&map, name, &err), DSA_OK);
	assert_int_equal(map.bytes, strlen(expected));
	assert_memory_equal(map.data, expected, map.bytes);
	dsa_mapping_close(&map);
}

static void the_original_is_kept_and_a_second_export_starts_from_it(void **state)
{
	(void)state;
	struct dsa_config_facts facts;
	const char *first = "{" HEAD ", \"num_nextn_predict_layers\": 1}";
	struct dsa_config_edit edit = fsf;
	struct stat info;
	write_file(path, first);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(dsa_config_json_write(path, &fsf, &facts, &err), DSA_OK);
	assert_int_equal(facts.mtp_layers, 1);
	holds(kept, first);
	holds(path, "{" HEAD ", \"num_nextn_predict_layers\": 1, \"indexer_types\": " LIST "}");
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0640);
	edit.pattern = "FSS";
	edit.letters = true;
	assert_int_equal(dsa_config_json_write(path, &edit, &facts, &err), DSA_OK);
	holds(kept, first);
	holds(path,
	      "{" HEAD ", \"num_nextn_predict_layers\": 1, \"indexer_types\": [\"full\", \"shared\", \"shared\"], "
	      "\"index_topk_pattern\": \"FSS\"}");
	/* Letters that are there are kept in step. */
	assert_int_equal(dsa_config_json_write(path, &fsf, &facts, &err), DSA_OK);
	assert_true(facts.wrote_letters);
	holds(path, "{" HEAD ", \"num_nextn_predict_layers\": 1, \"indexer_types\": " LIST
	            ", \"index_topk_pattern\": \"FSF\"}");
}

static void another_original_is_never_overwritten(void **state)
{
	(void)state;
	struct dsa_config_facts facts;
	const char *now = "{" HEAD ", \"a\": 1}", *other = "{" HEAD ", \"a\": 2}";
	write_file(path, now);
	write_file(kept, other);
	assert_int_equal(dsa_config_json_write(path, &fsf, &facts, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "is not the original of"));
	holds(path, now);
	holds(kept, other);
	unlink(kept);
	unlink(path);
	assert_int_equal(dsa_config_json_write(path, &fsf, &facts, &err), DSA_E_INPUT);
	assert_false(dsa_file_exists(kept));
}

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/config.json", folder);
	snprintf(kept, sizeof kept, "%s.orig", path);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(path);
	unlink(kept);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_list_is_replaced_where_it_stands),
	    cmocka_unit_test(a_missing_list_goes_behind_the_last_member_on_a_line_of_its_own),
	    cmocka_unit_test(letters_are_written_where_they_are_read_or_would_disagree),
	    cmocka_unit_test(what_is_no_config_of_this_model_is_refused),
	    cmocka_unit_test(damaged_bytes_are_refused_or_change_nothing_else),
	    cmocka_unit_test(the_original_is_kept_and_a_second_export_starts_from_it),
	    cmocka_unit_test(another_original_is_never_overwritten),
	};
	return cmocka_run_group_tests_name("config_json", tests, make_folder, remove_folder);
}
