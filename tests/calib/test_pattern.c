#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "dsa/pattern.h"

static void a_good_pattern_is_accepted(void **state)
{
	(void)state;
	struct dsa_error err = {{0}};
	assert_int_equal(dsa_pattern_check("F", 1, "--pattern", &err), DSA_OK);
	assert_int_equal(dsa_pattern_check("FSFS", 4, "--pattern", &err), DSA_OK);
}

static void the_first_fault_of_a_pattern_is_named(void **state)
{
	(void)state;
	struct dsa_error err = {{0}};
	assert_int_equal(dsa_pattern_check("FSxS", 4, "--pattern", &err), DSA_E_USAGE);
	assert_string_equal(err.text, "--pattern: layer 2 of the pattern is 'x', expected F (full) or S (shared)");
	assert_int_equal(dsa_pattern_check("FsFS", 4, "p.yaml", &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "p.yaml: layer 1 of the pattern is 's'"));
	assert_int_equal(dsa_pattern_check("FSF", 4, "--pattern", &err), DSA_E_USAGE);
	assert_string_equal(err.text, "--pattern: the pattern has 3 layers, the model has 4");
	assert_int_equal(dsa_pattern_check("", 4, "--pattern", &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "has 0 layers"));
	assert_int_equal(dsa_pattern_check("FSFSF", 4, "--pattern", &err), DSA_E_USAGE);
	assert_int_equal(dsa_pattern_check("SFFF", 4, "--pattern", &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "layer 0 of the pattern is S"));
	assert_int_equal(dsa_pattern_check("F\nFF", 4, "--pattern", &err), DSA_E_USAGE);
	assert_null(strchr(err.text, '\n'));
}

static void shared_layers_and_their_sources_are_counted(void **state)
{
	(void)state;
	static const char pattern[] = "FFSFSSSF";
	static const int source[] = {0, 1, 1, 3, 3, 3, 3, 7};
	assert_int_equal(dsa_pattern_shared(pattern), 4);
	assert_int_equal(dsa_pattern_shared("FFF"), 0);
	for (int l = 0; l < 8; l++)
		assert_int_equal(dsa_pattern_source(pattern, l), source[l]);
}

static void uniform_patterns_keep_native_and_forced_layers(void **state)
{
	(void)state;
	char out[9];
	static const bool force[8] = {[3] = true, [5] = true};
	dsa_pattern_uniform(out, 8, 2, "FFFFFFFF", NULL);
	assert_string_equal(out, "FSFSFSFS");
	dsa_pattern_uniform(out, 8, 4, "FFFFFFFF", NULL);
	assert_string_equal(out, "FSSSFSSS");
	dsa_pattern_uniform(out, 8, 4, "FFFFSSFF", force);
	assert_string_equal(out, "FSSFSSSS");
}

static void common_prefix_stops_at_the_first_difference(void **state)
{
	(void)state;
	assert_int_equal(dsa_pattern_common("FFSF", "FFSF"), 4);
	assert_int_equal(dsa_pattern_common("FFSF", "FFFF"), 2);
	assert_int_equal(dsa_pattern_common("FFSF", "FF"), 2);
	assert_int_equal(dsa_pattern_common("FFSF", ""), 0);
}

static void a_native_shared_layer_cannot_become_full(void **state)
{
	(void)state;
	assert_true(dsa_pattern_respects("FSSF", "FFSF"));
	assert_true(dsa_pattern_respects("FFSF", "FFSF"));
	assert_false(dsa_pattern_respects("FSFF", "FFSF"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_good_pattern_is_accepted),
	    cmocka_unit_test(the_first_fault_of_a_pattern_is_named),
	    cmocka_unit_test(shared_layers_and_their_sources_are_counted),
	    cmocka_unit_test(uniform_patterns_keep_native_and_forced_layers),
	    cmocka_unit_test(common_prefix_stops_at_the_first_difference),
	    cmocka_unit_test(a_native_shared_layer_cannot_become_full),
	};
	return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
