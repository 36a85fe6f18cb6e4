#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dsa/text.h"
#include "dsa/yaml.h"

/* Behind the others: their functions call a parameter as it calls its arena. */
#include "arena_fixture.h"

static struct dsa_error err;

static const struct dsa_yaml *parse(const char *text)
{
	const struct dsa_yaml *root;
	if (dsa_yaml_parse(&root, text, strlen(text), "t.yaml", &arena, &err))
		fail_msg("%s", err.text);
	return root;
}

static void a_tree_keeps_keys_order_lines_and_quoting(void **state)
{
	(void)state;
	const struct dsa_yaml *root = parse("a: 1\nb:\n  - x\n  - \"1\"\n  - {c: ~, d: ''}\ne: {}\n");
	assert_int_equal(root->kind, DSA_YAML_MAP);
	assert_int_equal(root->count, 3);
	assert_string_equal(root->first->key, "a");
	const struct dsa_yaml *list = dsa_yaml_find(root, "b");
	assert_int_equal(list->kind, DSA_YAML_LIST);
	assert_int_equal(list->count, 3);
	assert_false(list->first->quoted);
	assert_true(list->first->next->quoted);
	assert_int_equal(list->first->next->line, 4);
	const struct dsa_yaml *map = list->last;
	assert_true(dsa_yaml_is_null(dsa_yaml_find(map, "c")));
	assert_false(dsa_yaml_is_null(dsa_yaml_find(map, "d")));
	assert_int_equal(dsa_yaml_find(root, "e")->count, 0);
	assert_null(dsa_yaml_find(root, "nothing"));
	assert_null(dsa_yaml_find(NULL, "a"));
}

static void values_are_typed_by_their_reader(void **state)
{
	(void)state;
	const struct dsa_yaml *root = parse("i: -12\nr: 2.5e-3\nb: true\nt: FFS\nq: \"12\"\nn: null\nl: []\nx: 0x10\n");
	int64_t i;
	double r;
	bool b;
	const char *t;
	const struct dsa_yaml *child;
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "i", -20, 20, 0, &i, &err), DSA_OK);
	assert_int_equal(i, -12);
	assert_int_equal(dsa_yaml_real(root, "t.yaml", "r", 0, &r, &err), DSA_OK);
	assert_true(r == 2.5e-3);
	assert_int_equal(dsa_yaml_bool(root, "t.yaml", "b", false, &b, &err), DSA_OK);
	assert_true(b);
	assert_int_equal(dsa_yaml_text(root, "t.yaml", "q", NULL, &t, &err), DSA_OK);
	assert_string_equal(t, "12");
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "n", 0, 9, 7, &i, &err), DSA_OK);
	assert_int_equal(i, 7);
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "absent", 0, 9, 8, &i, &err), DSA_OK);
	assert_int_equal(i, 8);
	assert_int_equal(dsa_yaml_child(root, "t.yaml", "l", DSA_YAML_LIST, &child, &err), DSA_OK);
	assert_non_null(child);
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "q", 0, 99, 0, &i, &err), DSA_E_INPUT);
	assert_string_equal(err.text, "t.yaml: line 5: q is 12, expected an integer");
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "i", 0, 9, 0, &i, &err), DSA_E_INPUT);
	assert_string_equal(err.text, "t.yaml: line 1: i is -12, expected 0 to 9");
	assert_int_equal(dsa_yaml_int(root, "t.yaml", "x", 0, 99, 0, &i, &err), DSA_E_INPUT);
	assert_int_equal(dsa_yaml_real(root, "t.yaml", "x", 0, &r, &err), DSA_E_INPUT);
	assert_int_equal(dsa_yaml_real(root, "t.yaml", "t", 0, &r, &err), DSA_E_INPUT);
	assert_int_equal(dsa_yaml_bool(root, "t.yaml", "t", false, &b, &err), DSA_E_INPUT);
	assert_int_equal(dsa_yaml_text(root, "t.yaml", "l", NULL, &t, &err), DSA_E_INPUT);
	assert_string_equal(err.text, "t.yaml: line 7: l is a list, expected a string");
	assert_int_equal(dsa_yaml_child(root, "t.yaml", "i", DSA_YAML_MAP, &child, &err), DSA_E_INPUT);
}

static void refused(const char *text, size_t bytes, const char *expected)
{
	const struct dsa_yaml *root;
	assert_int_equal(dsa_yaml_parse(&root, text, bytes, "t.yaml", &arena, &err), DSA_E_INPUT);
	assert_null(root);
	if (!strstr(err.text, expected))
		fail_msg("%s", err.text);
}

static void hostile_constructs_are_refused_with_their_line(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
	    {"a: &x 1\n", "line 1: an anchor"},
	    {"a: 1\nb: *x\n", "line 2: an alias"},
	    {"a: &x [1]\n", "an anchor"},
	    {"a: &x {b: 1}\n", "an anchor"},
	    {"a: !!python/object:os.system x\n", "a tag"},
	    {"a: !!str 1\n", "a tag"},
	    {"a: !t [1]\n", "a tag"},
	    {"a: !t {b: 1}\n", "a tag"},
	    {"a: 1\nb: 2\na: 3\n", "line 3: the key a stands at line 1 already"},
	    {"{a: 1, b: {c: 1, c: 2}}", "the key c stands"},
	    {"? [1, 2]\n: 3\n", "a key must be a plain word"},
	    {"? {a: 1}\n: 3\n", "a key must be a plain word"},
	    {"a: 1\n---\nb: 2\n", "a second document"},
	    {"", "the file is empty"},
	    {"# only a comment\n", "the file is empty"},
	    {"a: \"unfinished\n", "not valid YAML"},
	    {"a: [1, 2\n", "not valid YAML"},
	    {"a: {b: 1\nc: 2\n", "not valid YAML"},
	    {"a: 1\n b: 2\n", "not valid YAML"},
	    {"a:\tb: c\n", "not valid YAML"},
	    {"a: \"\\0\"\n", "NUL"},
	    {"a: \xff\n", "not valid YAML"},
	    {"a: \x01\n", "not valid YAML"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(cases[i][0], strlen(cases[i][0]), cases[i][1]);
	refused("a: b\0c\n", 7, "not valid YAML");
}

static void nesting_past_the_limit_is_refused_quickly(void **state)
{
	(void)state;
	static const char *const openings[] = {"[", "{a: ", "- ", "? ", "[[[{x: ", "a: [", "- - ? "};
	for (size_t o = 0; o < sizeof openings / sizeof *openings; o++) {
		struct dsa_text text = {0};
		const struct dsa_yaml *root;
		while (text.bytes < DSA_YAML_BYTES - 100)
			dsa_text_add(&text, openings[o]);
		clock_t start = clock();
		assert_int_equal(dsa_yaml_parse(&root, text.data, text.bytes, "deep.yaml", &arena, &err), DSA_E_INPUT);
		assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 2);
		dsa_text_release(&text);
	}
	/* Just inside and just outside. */
	char nested[2 * DSA_YAML_DEPTH + 3];
	memset(nested, '[', DSA_YAML_DEPTH);
	memset(nested + DSA_YAML_DEPTH, ']', DSA_YAML_DEPTH);
	nested[2 * DSA_YAML_DEPTH] = 0;
	assert_non_null(parse(nested));
	memset(nested, '[', DSA_YAML_DEPTH + 1);
	memset(nested + DSA_YAML_DEPTH + 1, ']', DSA_YAML_DEPTH + 1);
	refused(nested, 2 * (DSA_YAML_DEPTH + 1), "nested deeper than 24");
}

static void large_files_are_refused_before_they_are_read(void **state)
{
	(void)state;
	char path[] = "/tmp/dsa-yaml-XXXXXX";
	const struct dsa_yaml *root;
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");
	for (int i = 0; i < 50; i++)
		for (int k = 0; k < 1 << 20; k += 8)
			fputs("- [1,2]\n", file);
	fclose(file);
	assert_int_equal(dsa_yaml_load(&root, path, &arena, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "52428800 bytes"));
	assert_true(arena.bytes < 1 << 20);
	remove(path);
}

static void many_values_are_refused_and_many_keys_are_not_quadratic(void **state)
{
	(void)state;
	struct dsa_text text = {0};
	const struct dsa_yaml *root;
	for (int i = 0; i <= DSA_YAML_NODES; i++)
		dsa_text_add(&text, "- 1\n");
	refused(text.data, text.bytes, "more than 200000 values");
	text.bytes = 0;
	for (int i = 0; i < 100000; i++)
		dsa_text_printf(&text, "key%d: 1\n", i);
	clock_t start = clock();
	assert_int_equal(dsa_yaml_parse(&root, text.data, text.bytes, "wide.yaml", &arena, &err), DSA_OK);
	assert_int_equal(root->count, 100000);
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5);
	dsa_text_add(&text, "key77: 1\n");
	refused(text.data, text.bytes, "line 100001: the key key77 stands at line 78 already");
	dsa_text_release(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_tree_keeps_keys_order_lines_and_quoting, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(values_are_typed_by_their_reader, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(hostile_constructs_are_refused_with_their_line, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(nesting_past_the_limit_is_refused_quickly, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(large_files_are_refused_before_they_are_read, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(many_values_are_refused_and_many_keys_are_not_quadratic, set_up, tear_down),
	};
	return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
