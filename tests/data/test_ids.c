#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/tokenizer.h"

static void appended_ids_stay_in_order_while_the_list_grows(void **state)
{
	(void)state;
	struct dsa_ids ids = {0};
	struct dsa_error err;
	for (int32_t i = 0; i < 100000; i++)
		assert_int_equal(dsa_ids_append(&ids, 7 * i - 3, &err), DSA_OK);
	assert_int_equal(ids.count, 100000);
	assert_true(ids.room >= ids.count);
	for (int32_t i = 0; i < 100000; i++)
		assert_int_equal(ids.ids[i], 7 * i - 3);
	dsa_ids_release(&ids);
}

static void a_released_list_is_empty_and_usable_again(void **state)
{
	(void)state;
	struct dsa_ids ids = {0};
	struct dsa_error err;
	assert_int_equal(dsa_ids_append(&ids, 1, &err), DSA_OK);
	dsa_ids_release(&ids);
	assert_null(ids.ids);
	assert_int_equal(ids.count, 0);
	assert_int_equal(dsa_ids_append(&ids, 2, &err), DSA_OK);
	assert_int_equal(ids.count, 1);
	assert_int_equal(ids.ids[0], 2);
	dsa_ids_release(&ids);
	dsa_ids_release(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(appended_ids_stay_in_order_while_the_list_grows),
	    cmocka_unit_test(a_released_list_is_empty_and_usable_again),
	};
	return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
