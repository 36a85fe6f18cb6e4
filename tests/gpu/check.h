/* check.h: assertions and a runner for the GPU's tests.
 *
 * cmocka has no static library, and the program has to run on a machine that has nothing but a driver. The names are
 * cmocka's where they mean the same, so headers of other tests serve here too. A failed assertion ends its test. */
#ifndef DSA_TESTS_GPU_CHECK_H
#define DSA_TESTS_GPU_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Prints what and where, and leaves the test. */
_Noreturn void check_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define fail_msg(...) check_fail(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(condition)                                                                                         \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			check_fail(__FILE__, __LINE__, "%s", #condition);                                              \
	} while (0)
#define assert_non_null(pointer) assert_true((pointer) != NULL)
#define assert_int_equal(found, expected)                                                                              \
	do {                                                                                                           \
		long long check_found = (long long)(found), check_expected = (long long)(expected);                    \
		if (check_found != check_expected)                                                                     \
			check_fail(__FILE__, __LINE__, "%s is %lld, expected %lld", #found, check_found,               \
			           check_expected);                                                                    \
	} while (0)

struct gpu; /* gpu_fixture.h */

struct check_test {
	const char *name;
	void (*run)(struct gpu *g);
};

/* A file's tests, ended by a name of NULL. */
extern const struct check_test rows_tests[], products_tests[], experts_tests[], select_tests[], attention_tests[],
    figures_tests[], invariance_tests[], forward_tests[], residency_tests[], speed_tests[], profile_tests[],
    profile_experts_tests[];

#define CHECK_TEST(function)                                                                                           \
	{                                                                                                              \
#function, function                                                                                    \
	}

#endif
