#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/json.h"
#include "dsa/json_writer.h"
#include "dsa/text.h"

static void assert_text(struct dsa_text *text, const char *expected)
{
	assert_int_equal(dsa_text_check(text, "a test", NULL), DSA_OK);
	assert_string_equal(text->data, expected);
	assert_int_equal(text->bytes, strlen(expected));
	dsa_text_release(text);
}

static void appended_pieces_stand_in_order(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	for (int i = 0; i < 20000; i++)
		dsa_text_printf(&text, "%d,", i % 10);
	assert_int_equal(text.bytes, 40000);
	for (size_t i = 0; i < 20000; i++)
		assert_int_equal(text.data[2 * i], '0' + (int)(i % 10));
	dsa_text_release(&text);
	assert_null(text.data);
	char *wide = malloc(5001);
	memset(wide, 'w', 5000);
	wide[5000] = 0;
	dsa_text_printf(&text, "<%s>", wide);
	assert_int_equal(text.bytes, 5002);
	assert_int_equal(text.data[5001], '>');
	dsa_text_release(&text);
	free(wide);
}

static void running_out_of_memory_is_remembered(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	struct dsa_error err;
	dsa_text_add(&text, "good");
	dsa_text_bytes(&text, "x", SIZE_MAX / 2);
	dsa_text_add(&text, "more");
	assert_true(text.failed);
	assert_string_equal(text.data, "good");
	assert_int_equal(dsa_text_check(&text, "report.html", &err), DSA_E_MEMORY);
	assert_non_null(strstr(err.text, "report.html"));
	dsa_text_release(&text);
}

static void doubles_read_back_to_the_same_bits(void **state)
{
	(void)state;
	uint64_t bits = 88172645463325252u;
	for (int i = 0; i < 100000; i++) {
		struct dsa_text text = {0};
		double value;
		bits ^= bits << 13;
		bits ^= bits >> 7;
		bits ^= bits << 17;
		memcpy(&value, &bits, sizeof value);
		dsa_text_real(&text, value);
		if (isfinite(value)) {
			double back = strtod(text.data, NULL);
			assert_memory_equal(&back, &value, sizeof value);
		} else {
			assert_string_equal(text.data, "null");
		}
		dsa_text_release(&text);
	}
}

static void reals_are_short_where_they_can_be(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	const double values[] = {0.1, 1.0 / 3, -0.0, 1e300, 2, (double)NAN, (double)INFINITY};
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		dsa_text_real(&text, values[i]);
		dsa_text_add(&text, " ");
	}
	assert_text(&text, "0.1 0.3333333333333333 0 1e+300 2 null null ");
}

static void figures_have_three_digits_and_errors_two(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	const double values[] = {0.005312, 0.09996, 12.3456, 1234.5, 999999.9, 3.14159e-5, 2.5e7, -0.5, 0, (double)NAN};
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		dsa_text_figure(&text, values[i]);
		dsa_text_add(&text, " ");
	}
	assert_text(&text, "0.00531 0.100 12.3 1234 1000000 3.14e-5 2.50e7 −0.500 0 – ");
	dsa_text_error(&text, 0.001571);
	dsa_text_add(&text, " ");
	dsa_text_error(&text, 2.34e-6);
	assert_text(&text, "0.0016 2.3e-6");
}

static void json_strings_hold_any_bytes(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	dsa_text_json(&text, "a\"\\\n\t\x01\x7f\xe2\x80\xa8\xc3\xa9\xf0\x9f\x98\x80");
	assert_text(&text, "\"a\\\"\\\\\\n\\t\\u0001\\u007f\\u2028\xc3\xa9\xf0\x9f\x98\x80\"");
	dsa_text_json(&text, NULL);
	assert_text(&text, "null");
	/* Overlong, a surrogate, past U+10FFFF, cut short, a stray continuation: each byte becomes U+FFFD. */
	dsa_text_json(&text, "\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82|\x80|\xe0\x80\xaf|\xf0\x80\x80\xaf");
	static const int bad[] = {2, 3, 4, 2, 1, 3, 4};
	struct dsa_text expected = {0};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		dsa_text_add(&expected, i ? "|" : "\"");
		for (int k = 0; k < bad[i]; k++)
			dsa_text_add(&expected, "\xef\xbf\xbd");
	}
	dsa_text_add(&expected, "\"");
	assert_text(&text, expected.data);
	dsa_text_release(&expected);
}

static void random_bytes_become_strings_that_parse(void **state)
{
	(void)state;
	uint64_t random = 1;
	for (int round = 0; round < 5000; round++) {
		char bytes[64];
		struct dsa_text text = {0}, clean = {0};
		json_t *root;
		for (size_t i = 0; i < sizeof bytes; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			bytes[i] = (char)(random >> 40);
		}
		bytes[sizeof bytes - 1] = 0;
		dsa_text_add(&text, "[");
		dsa_text_json(&text, bytes);
		dsa_text_add(&text, "]");
		dsa_text_utf8(&clean, bytes);
		assert_int_equal(dsa_json_parse(text.data, text.bytes, "a test", &root, NULL), DSA_OK);
		assert_string_equal(json_string_value(json_array_get(root, 0)), clean.bytes ? clean.data : "");
		json_decref(root);
		dsa_text_release(&text);
		dsa_text_release(&clean);
	}
}

static void markup_is_escaped_for_text_and_attributes(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	dsa_text_markup(&text, "<a href='x' b=\"y\">&\n\t\r\x02\x7f\xc2\x85\xef\xbf\xbf\xff");
	assert_text(&text,
	            "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;&#10;&#9;\xe2\x90\x8d\xe2\x90\x82\xe2\x90\xa1"
	            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	dsa_text_markup_cut(&text, "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 3);
	assert_text(&text, "\xc3\xa9\xc3\xa9\xc3\xa9…");
	dsa_text_markup_cut(&text, "abc", 3);
	assert_text(&text, "abc");
}

static void the_json_writer_places_commas_and_lines(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	struct dsa_json_writer writer;
	dsa_json_writer_init(&writer, &text, 1);
	dsa_json_object(&writer, NULL);
	dsa_json_put_int(&writer, "a", -1);
	dsa_json_array(&writer, "b");
	dsa_json_put_real(&writer, NULL, 0.5);
	dsa_json_put_null(&writer, NULL);
	dsa_json_object(&writer, NULL);
	dsa_json_end(&writer);
	dsa_json_end(&writer);
	dsa_json_put_bool(&writer, "c", true);
	dsa_json_put_uint(&writer, "d", UINT64_MAX);
	dsa_json_put_text(&writer, "e\"", "f");
	dsa_json_end(&writer);
	assert_text(&text,
	            "{\n  \"a\": -1,\n  \"b\": [0.5, null, {}],\n  \"c\": true,\n  \"d\": \"18446744073709551615\",\n"
	            "  \"e\\\"\": \"f\"\n}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(appended_pieces_stand_in_order),
	    cmocka_unit_test(running_out_of_memory_is_remembered),
	    cmocka_unit_test(doubles_read_back_to_the_same_bits),
	    cmocka_unit_test(reals_are_short_where_they_can_be),
	    cmocka_unit_test(figures_have_three_digits_and_errors_two),
	    cmocka_unit_test(json_strings_hold_any_bytes),
	    cmocka_unit_test(random_bytes_become_strings_that_parse),
	    cmocka_unit_test(markup_is_escaped_for_text_and_attributes),
	    cmocka_unit_test(the_json_writer_places_commas_and_lines),
	};
	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
