#include "backend/cpu_fixture.h"

#include "../src/backend/fp8.h"

/* The format's definition, in double. */
static double value_of(int code)
{
	int exponent = code >> 3 & 15, fraction = code & 7;
	double x = exponent ? ldexp(1 + fraction / 8.0, exponent - 7) : ldexp(fraction / 8.0, -6);
	return code & 0x80 ? -x : x;
}

static void every_code_has_the_value_of_its_definition(void **state)
{
	(void)state;
	for (int code = 0; code < 256; code++) {
		float x = fp8_value((uint8_t)code);
		if ((code & 0x7f) == 0x7f) {
			assert_true(isnan(x));
			continue;
		}
		assert_true((double)x == value_of(code));
		assert_int_equal(signbit(x) != 0, code >> 7);
	}
	assert_true(fp8_value(0x7e) == FP8_MOST);
}

/* All neighbours of the numbers and of the middles between them. */
static void rounding_takes_the_nearest_number_and_the_even_one_of_two(void **state)
{
	(void)state;
	for (int code = 0; code < 0x7e; code++) {
		float low = (float)value_of(code), high = (float)value_of(code + 1), middle = (low + high) / 2;
		float even = code % 2 ? high : low;
		for (int sign = -1; sign <= 1; sign += 2) {
			float s = (float)sign;
			assert_true(fp8_round(s * low) == s * low);
			assert_true(fp8_round(s * nextafterf(low, high)) == s * low);
			assert_true(fp8_round(s * nextafterf(middle, low)) == s * low);
			assert_true(fp8_round(s * middle) == s * even);
			assert_true(fp8_round(s * nextafterf(middle, high)) == s * high);
			assert_true(fp8_round(s * nextafterf(high, low)) == s * high);
		}
	}
	assert_true(fp8_round(449) == 448 && fp8_round(-3e38f) == -448 && fp8_round(INFINITY) == 448);
	assert_true(fp8_round(1e-30f) == 0 && signbit(fp8_round(-1e-30f)));
	assert_true(isnan(fp8_round(NAN)) && isnan(fp8_round(-NAN)));
}

/* Weights of ragged blocks: every number times its own block's scale, rounded once to float32. */
static void weights_are_numbers_times_the_scales_of_their_blocks(void **state)
{
	(void)state;
	static const int shapes[][4] = {{1, 1, 128, 128}, {7, 13, 4, 5},        {128, 128, 128, 128},
	                                {9, 6, 1, 1},     {130, 257, 128, 128}, {129, 5, 128, 128}};
	for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++) {
		struct fixture f = fixture_open(1);
		const int rows = shapes[n][0], cols = shapes[n][1], block_rows = shapes[n][2],
			  block_cols = shapes[n][3];
		int down = (rows + block_rows - 1) / block_rows, across = (cols + block_cols - 1) / block_cols;
		/* Unaligned, and of exactly their size. */
		uint8_t *host = fixture_keep(&f, (size_t)(rows * cols));
		char *scale_bytes = fixture_keep(&f, (size_t)(down * across) * sizeof(float) + 1);
		float *scales = fixture_keep(&f, (size_t)(down * across) * sizeof *scales);
		for (int i = 0; i < down * across; i++)
			scales[i] = ldexpf((float)(fixture_random(&f) % 1000), (int)(fixture_random(&f) % 9) - 12);
		memcpy(scale_bytes + 1, scales, (size_t)(down * across) * sizeof *scales);
		for (int i = 0; i < rows * cols; i++) {
			host[i] = (uint8_t)fixture_random(&f);
			host[i] = (host[i] & 0x7f) == 0x7f ? 0x80 : host[i];
		}
		struct dsa_tensor w = fixture_poison(&f, rows, cols);
		const struct dsa_block_scales s = {scale_bytes + 1, block_rows, block_cols};
		fixture_ok(&f, f.be->ops->load_fp8(f.be, w, host, &s, NULL));
		for (int i = 0; i < rows; i++)
			for (int j = 0; j < cols; j++) {
				float scale = scales[i / block_rows * across + j / block_cols];
				float want = (float)value_of(host[i * cols + j]) * scale;
				assert_true(fixture_at(w, i, j) == want);
			}
		fixture_close(&f);
	}
}

static void refuse(struct fixture *f, const uint8_t *host, const float *scales, const char *words)
{
	struct dsa_error err = {""};
	const struct dsa_block_scales s = {scales, 2, 4};
	assert_int_equal(f->be->ops->load_fp8(f->be, fixture_poison(f, 5, 6), host, &s, &err), DSA_E_NUMERIC);
	if (!strstr(err.text, words))
		fail_msg("the message lacks \"%s\": %s", words, err.text);
}

static void nan_codes_and_scales_that_are_no_factors_are_refused_with_their_place(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	uint8_t host[5 * 6] = {0};
	float scales[3 * 2] = {1, 1, 1, 1, 1, 1};
	host[3 * 6 + 4] = 0x7f;
	refuse(&f, host, scales, "row 3, column 4: NaN");
	host[3 * 6 + 4] = 0xff;
	refuse(&f, host, scales, "row 3, column 4: NaN");
	host[3 * 6 + 4] = 0x7e;
	scales[3] = 3e38f;
	refuse(&f, host, scales, "row 3, column 4: infinity");
	const float bad[] = {NAN, INFINITY, -1, -INFINITY};
	for (int i = 0; i < 4; i++) {
		scales[3] = bad[i];
		refuse(&f, host, scales, "scale of block row 1, block column 1");
	}
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_code_has_the_value_of_its_definition),
	    cmocka_unit_test(rounding_takes_the_nearest_number_and_the_even_one_of_two),
	    cmocka_unit_test(weights_are_numbers_times_the_scales_of_their_blocks),
	    cmocka_unit_test(nan_codes_and_scales_that_are_no_factors_are_refused_with_their_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
