#include "backend/cpu_fixture.h"

static void memory_is_aligned_and_copied(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	const struct dsa_ops *ops = f.be->ops;
	for (size_t bytes = 0; bytes < 3000; bytes += 499) {
		void *a, *b;
		fixture_ok(&f, ops->alloc(f.be, bytes, "a", &a, NULL));
		fixture_ok(&f, ops->alloc(f.be, bytes, "b", &b, NULL));
		assert_int_equal((uintptr_t)a % 256, 0);
		char host[3000], back[3000] = {0};
		for (size_t i = 0; i < bytes; i++)
			host[i] = (char)(i * 7);
		fixture_ok(&f, ops->upload(f.be, a, host, bytes, NULL));
		fixture_ok(&f, ops->copy(f.be, b, a, bytes, NULL));
		fixture_ok(&f, ops->download(f.be, back, b, bytes, NULL));
		assert_memory_equal(host, back, bytes);
		ops->free(f.be, a);
		ops->free(f.be, b);
	}
	ops->free(f.be, NULL);
	fixture_close(&f);
}

static void hopeless_request_is_refused_with_its_size(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct dsa_error err = {""};
	void *memory = &f;
	assert_int_equal(f.be->ops->alloc(f.be, SIZE_MAX / 2, "the weights", &memory, &err), DSA_E_MEMORY);
	assert_null(memory);
	assert_non_null(strstr(err.text, "the weights"));
	assert_non_null(strstr(err.text, "9223372036854775807"));
	fixture_close(&f);
}

static double half_value(uint16_t half)
{
	int exponent = half >> 10 & 31, fraction = half & 1023;
	double x = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
	return half & 0x8000 ? -x : x;
}

static void every_finite_f16_becomes_the_same_number(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	uint8_t *host = fixture_keep(&f, 65536 * 2 + 1);
	int count = 0;
	for (int bits = 0; bits < 65536; bits++)
		if ((bits & 0x7c00) != 0x7c00) {
			uint16_t half = (uint16_t)bits;
			memcpy(host + 1 + 2 * count++, &half, 2); /* unaligned, as in a file */
		}
	struct dsa_tensor w = fixture_poison(&f, 1, count);
	fixture_ok(&f, f.be->ops->load_weight(f.be, w, host + 1, DSA_F16, NULL));
	for (int i = 0; i < count; i++) {
		uint16_t half;
		memcpy(&half, host + 1 + 2 * i, 2);
		assert_true((double)fixture_at(w, 0, i) == half_value(half));
		assert_int_equal(signbit(fixture_at(w, 0, i)) != 0, half >> 15);
	}
	fixture_close(&f);
}

static void bf16_and_f32_keep_their_bits(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct dsa_tensor x = fixture_tensor(&f, 7, 13, 3), w = fixture_poison(&f, 7, 13);
	uint8_t *host = fixture_keep(&f, 7 * 13 * 4 + 3);
	memcpy(host + 3, x.data, 7 * 13 * 4);
	fixture_ok(&f, f.be->ops->load_weight(f.be, w, host + 3, DSA_F32, NULL));
	assert_memory_equal(w.data, x.data, 7 * 13 * 4);
	for (int i = 0; i < 7 * 13; i++)
		memcpy(host + 1 + 2 * i, (char *)x.data + 4 * i + 2, 2); /* the upper halves */
	fixture_ok(&f, f.be->ops->load_weight(f.be, w, host + 1, DSA_BF16, NULL));
	for (int i = 0; i < 7 * 13; i++) {
		uint32_t expected, found;
		memcpy(&expected, (char *)x.data + 4 * i, 4);
		memcpy(&found, (char *)w.data + 4 * i, 4);
		assert_int_equal(found, expected & 0xffff0000u);
	}
	fixture_close(&f);
}

static void weights_that_are_not_finite_are_refused_with_their_place(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	const struct {
		enum dsa_dtype dtype;
		uint32_t bits;
		const char *what;
	} bad[] = {
	    {DSA_F32, 0x7fc00000, "NaN"}, {DSA_F32, 0xff800000, "infinity"}, {DSA_BF16, 0x7f80, "infinity"},
	    {DSA_BF16, 0xffc1, "NaN"},    {DSA_F16, 0xfc00, "infinity"},     {DSA_F16, 0x7c01, "NaN"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint8_t host[5 * 6 * 4] = {0};
		size_t size = dsa_dtype_bytes(bad[i].dtype);
		memcpy(host + (3 * 6 + 4) * size, &bad[i].bits, size);
		struct dsa_error err = {""};
		struct dsa_tensor w = fixture_poison(&f, 5, 6);
		assert_int_equal(f.be->ops->load_weight(f.be, w, host, bad[i].dtype, &err), DSA_E_NUMERIC);
		assert_non_null(strstr(err.text, "row 3, column 4"));
		assert_non_null(strstr(err.text, bad[i].what));
	}
	fixture_close(&f);
}

static void keys_go_to_the_rows_of_their_positions(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	const int lengths[] = {3, 9, 6};
	int64_t count;
	struct dsa_rows rows = fixture_rows(&f, lengths, 3, 4, &count); /* positions 4… of the last two */
	struct dsa_tensor wide = fixture_tensor(&f, rows.count, 11, 1), keys = fixture_poison(&f, count, 5);
	struct dsa_tensor x = dsa_tensor_columns(wide, 2, 5);
	fixture_ok(&f, f.be->ops->store_keys(f.be, keys, x, &rows, NULL));
	assert_int_equal(rows.count, 7);
	const int at[] = {7, 8, 9, 10, 11, 16, 17};
	for (int i = 0; i < 7; i++)
		assert_memory_equal(fixture_row(keys, at[i]), fixture_row(x, i), 5 * sizeof(float));
	for (int i = 0; i < 18; i++)
		assert_int_equal(isnan(fixture_at(keys, i, 0)) != 0, i < 7 || (i > 11 && i < 16));
	fixture_close(&f);
}

static void gather_takes_the_named_rows(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct dsa_tensor x = fixture_tensor(&f, 9, 12, 1), out = fixture_poison(&f, 4, 7);
	const int32_t index[] = {8, 0, 3, 3};
	fixture_ok(&f, f.be->ops->gather(f.be, out, dsa_tensor_columns(x, 5, 7), index, NULL));
	for (int i = 0; i < 4; i++)
		assert_memory_equal(fixture_row(out, i), fixture_row(x, index[i]) + 5, 7 * sizeof(float));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(memory_is_aligned_and_copied),
	    cmocka_unit_test(hopeless_request_is_refused_with_its_size),
	    cmocka_unit_test(every_finite_f16_becomes_the_same_number),
	    cmocka_unit_test(bf16_and_f32_keep_their_bits),
	    cmocka_unit_test(weights_that_are_not_finite_are_refused_with_their_place),
	    cmocka_unit_test(keys_go_to_the_rows_of_their_positions),
	    cmocka_unit_test(gather_takes_the_named_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
