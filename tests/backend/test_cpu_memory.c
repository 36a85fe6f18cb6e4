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

static void fetched_memory_is_what_was_pinned(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	const struct dsa_ops *ops = f.be->ops;
	for (size_t bytes = 1; bytes < 40000; bytes = bytes * 3 + 1) {
		void *device;
		double seconds = -1;
		uint8_t *pinned = ops->pinned_alloc(f.be, bytes);
		assert_non_null(pinned);
		assert_int_equal((uintptr_t)pinned % 4096, 0);
		for (size_t i = 0; i < bytes; i++)
			pinned[i] = (uint8_t)fixture_random(&f);
		fixture_ok(&f, ops->alloc(f.be, bytes, "a", &device, NULL));
		memset(device, 0xff, bytes);
		assert_int_equal(ops->fetch(f.be, device, pinned, bytes, NULL), DSA_OK);
		assert_int_equal(ops->fetched(f.be, &seconds, NULL), DSA_OK);
		assert_memory_equal(device, pinned, bytes);
		assert_true(seconds >= 0 && seconds < 1);
		ops->free(f.be, device);
		ops->pinned_free(f.be, pinned);
	}
	ops->pinned_free(f.be, NULL);
	fixture_close(&f);
}

/* Of random finite bits in each type. */
static void converted_weights_have_the_bits_of_loaded_ones(void **state)
{
	(void)state;
	static const enum dsa_dtype dtypes[] = {DSA_F32, DSA_BF16, DSA_F16, DSA_F8_E4M3};
	static const int shapes[][4] = {{1, 1, 128, 128}, {3, 7, 2, 2}, {40, 45, 16, 24}, {130, 257, 128, 128}};
	for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++)
		for (size_t k = 0; k < sizeof dtypes / sizeof *dtypes; k++) {
			struct fixture f = fixture_open(1);
			const int rows = shapes[n][0], cols = shapes[n][1];
			const size_t size = dsa_dtype_bytes(dtypes[k]), count = (size_t)(rows * cols);
			const int blocks =
			    (rows + shapes[n][2] - 1) / shapes[n][2] * ((cols + shapes[n][3] - 1) / shapes[n][3]);
			uint8_t *stored = fixture_keep(&f, count * size);
			float *scales = fixture_keep(&f, (size_t)blocks * sizeof *scales);
			const struct dsa_block_scales of = {scales, shapes[n][2], shapes[n][3]};
			const bool fp8 = dtypes[k] == DSA_F8_E4M3;
			for (int i = 0; i < blocks; i++)
				scales[i] = fabsf(fixture_float(&f));
			for (size_t i = 0; i < count * size; i++)
				stored[i] = (uint8_t)(fixture_random(&f) & 0xbf); /* no exponent is full */
			struct dsa_tensor a = fixture_poison(&f, rows, cols), b = fixture_poison(&f, rows, cols);
			if (fp8)
				fixture_ok(&f, f.be->ops->load_fp8(f.be, a, stored, &of, NULL));
			else
				fixture_ok(&f, f.be->ops->load_weight(f.be, a, stored, dtypes[k], NULL));
			fixture_ok(&f, f.be->ops->convert(f.be, b, stored, dtypes[k], fp8 ? &of : NULL, NULL));
			assert_memory_equal(a.data, b.data, count * sizeof(float));
			assert_true(isfinite(fixture_at(b, rows - 1, cols - 1)));
			fixture_close(&f);
		}
}

static void scaled_numbers_are_products_rounded_once(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	static const float factors[] = {0.5f, 0.17677669f, 3, -1, 0};
	for (size_t n = 0; n < sizeof factors / sizeof *factors; n++) {
		struct dsa_tensor x = fixture_tensor(&f, 9, 13, 2), t = fixture_poison(&f, 9, 13);
		memcpy(t.data, x.data, 9 * 13 * sizeof(float));
		fixture_ok(&f, f.be->ops->scale(f.be, t, factors[n], NULL));
		for (int i = 0; i < 9 * 13; i++) {
			const float want = (float)((double)fixture_at(x, 0, i) * (double)factors[n]);
			assert_true(fixture_at(t, 0, i) == want);
		}
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
	    cmocka_unit_test(fetched_memory_is_what_was_pinned),
	    cmocka_unit_test(converted_weights_have_the_bits_of_loaded_ones),
	    cmocka_unit_test(scaled_numbers_are_products_rounded_once),
	    cmocka_unit_test(keys_go_to_the_rows_of_their_positions),
	    cmocka_unit_test(gather_takes_the_named_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
