#include "backend/cpu_fixture.h"

static void dtypes_have_their_names_and_sizes(void **state)
{
	(void)state;
	const char *names[] = {"F32", "BF16", "F16", "F8_E4M3", "I32", "I64", "F64", "U8"};
	const size_t bytes[] = {4, 2, 2, 1, 4, 8, 8, 1};
	for (int i = 0; i < DSA_DTYPES; i++) {
		assert_string_equal(dsa_dtype_name((enum dsa_dtype)i), names[i]);
		assert_int_equal(dsa_dtype_bytes((enum dsa_dtype)i), bytes[i]);
	}
}

static void views_point_at_their_rows_and_columns(void **state)
{
	(void)state;
	uint16_t data[6 * 10];
	struct dsa_tensor t = dsa_tensor_make(data, DSA_BF16, 6, 10);
	assert_int_equal(t.stride, 10);
	struct dsa_tensor v = dsa_tensor_rows(dsa_tensor_columns(t, 3, 4), 2, 3);
	assert_ptr_equal(v.data, data + 2 * 10 + 3);
	assert_int_equal(v.rows, 3);
	assert_int_equal(v.cols, 4);
	assert_int_equal(v.stride, 10);
	v = dsa_tensor_columns(dsa_tensor_rows(v, 1, 2), 1, 3);
	assert_ptr_equal(v.data, data + 3 * 10 + 4);
	assert_int_equal(dsa_tensor_rows(t, 6, 0).rows, 0);
}

static enum dsa_status opened(const char *device, struct dsa_error *err)
{
	struct dsa_backend *be = NULL;
	const struct dsa_backend_options options = {.device = device, .threads = 3};
	enum dsa_status status = dsa_backend_open(&be, &options, err);
	if (status == DSA_OK) {
		assert_memory_equal(be->name, "cpu: 3 threads, BLIS ", 21);
		assert_int_equal(be->act, DSA_F32);
		assert_int_equal(be->weight, DSA_F32);
	} else {
		assert_null(be);
	}
	dsa_backend_close(be);
	return status;
}

static void cpu_and_auto_open_the_cpu(void **state)
{
	(void)state;
	struct dsa_error err;
	assert_int_equal(opened("cpu", &err), DSA_OK);
	assert_int_equal(opened("auto", &err), DSA_OK);
}

static void unknown_devices_are_a_wrong_request(void **state)
{
	(void)state;
	const char *devices[] = {"", "gpu", "cuda:", "cuda:x", "cudax", "cpu:0", "cuda:1x"};
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		struct dsa_error err = {""};
		assert_int_equal(opened(devices[i], &err), DSA_E_USAGE);
		assert_non_null(strstr(err.text, devices[i]));
		assert_non_null(strstr(err.text, "cuda:INDEX"));
	}
}

static void a_gpu_that_is_not_there_is_refused_by_name(void **state)
{
	(void)state;
	const char *devices[] = {"cuda", "cuda:0", "cuda:17"};
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		struct dsa_error err = {""};
		assert_int_equal(opened(devices[i], &err), DSA_E_DEVICE);
		assert_non_null(strstr(err.text, devices[i]));
		assert_non_null(strstr(err.text, "--device cpu"));
	}
}

static void closing_nothing_is_fine(void **state)
{
	(void)state;
	dsa_backend_close(NULL);
}

static void all_processors_are_used_unless_told(void **state)
{
	(void)state;
	struct dsa_backend *be;
	struct dsa_error err;
	const struct dsa_backend_options options = {.device = NULL, .threads = 0};
	assert_int_equal(dsa_backend_open(&be, &options, &err), DSA_OK);
	int threads = 0;
	assert_int_equal(sscanf(be->name, "cpu: %d thread", &threads), 1);
	assert_true(threads >= 1);
	dsa_backend_close(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_gpu_that_is_not_there_is_refused_by_name),
	    cmocka_unit_test(dtypes_have_their_names_and_sizes),
	    cmocka_unit_test(views_point_at_their_rows_and_columns),
	    cmocka_unit_test(cpu_and_auto_open_the_cpu),
	    cmocka_unit_test(unknown_devices_are_a_wrong_request),
	    cmocka_unit_test(all_processors_are_used_unless_told),
	    cmocka_unit_test(closing_nothing_is_fine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
