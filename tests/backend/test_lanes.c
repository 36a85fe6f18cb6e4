#include "backend/cpu_fixture.h"

#include "../src/backend/lanes.h"

static void exponential_is_within_two_ulp(void **state)
{
	(void)state;
	double worst = 0;
	for (double at = -87.33; at < 88.3; at += 0.000711) {
		float x[LANES], y[LANES];
		for (int l = 0; l < LANES; l++)
			x[l] = (float)(at + l * 0.0000431);
		lanes_store(y, lanes_exp(lanes_load(x)));
		for (int l = 0; l < LANES; l++) {
			double exact = exp((double)x[l]);
			int exponent;
			frexp(exact, &exponent);
			double ulps = fabs((double)y[l] - exact) / ldexp(1, exponent - 24);
			worst = ulps > worst ? ulps : worst;
		}
	}
	if (worst > 2)
		fail_msg("%.3f ulp", worst);
}

static void exponential_ends_are_zero_infinity_and_nan(void **state)
{
	(void)state;
	const float x[LANES] = {0.0f, -0.0f, -87.4f, -1000, -INFINITY, 89, 1000, INFINITY, NAN, -NAN, -3e38f, 3e38f};
	float y[LANES];
	lanes_store(y, lanes_exp(lanes_load(x)));
	const float expected[] = {1, 1, 0, 0, 0, INFINITY, INFINITY, INFINITY};
	assert_memory_equal(y, expected, sizeof expected);
	assert_true(isnan(y[8]) && isnan(y[9]));
	assert_true(y[10] == 0 && isinf(y[11]));
}

static void transposition_moves_every_element(void **state)
{
	(void)state;
	lanes row[LANES];
	for (int i = 0; i < LANES; i++)
		for (int l = 0; l < LANES; l++)
			row[i][l] = (float)(100 * i + l);
	lanes_transpose(row);
	for (int i = 0; i < LANES; i++)
		for (int l = 0; l < LANES; l++)
			assert_true(row[i][l] == (float)(100 * l + i));
}

static void sums_and_selections_use_every_lane(void **state)
{
	(void)state;
	float x[LANES];
	int32_t n[LANES];
	for (int l = 0; l < LANES; l++)
		x[l] = (float)(1 << l), n[l] = 1 << l;
	assert_true(lanes_sum(lanes_load(x)) == 65535);
	assert_int_equal(lanes_sum_int(lanes_load_int(n)), 65535);
	assert_true(lanes_max(lanes_load(x)) == 32768);
	assert_true(lanes_sum_double(lanes_low(lanes_load(x))) == 255);
	assert_true(lanes_sum_double(lanes_high(lanes_load(x))) == 65280);
	lanes low = lanes_select(lanes_load(x) < lanes_splat(256), lanes_load(x), lanes_splat(0));
	assert_true(lanes_sum(low) == 255);
	for (int count = 1; count <= LANES; count++) {
		float *part = malloc((size_t)count * sizeof *part), *copy = malloc((size_t)count * sizeof *copy);
		assert_non_null(part);
		assert_non_null(copy);
		memcpy(part, x, (size_t)count * sizeof *part);
		assert_true(lanes_sum(lanes_load_part(part, count)) == (float)((1 << count) - 1));
		lanes_store_part(copy, lanes_load_part(part, count), count);
		assert_memory_equal(copy, x, (size_t)count * sizeof *copy);
		free(part);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exponential_is_within_two_ulp),
	    cmocka_unit_test(exponential_ends_are_zero_infinity_and_nan),
	    cmocka_unit_test(transposition_moves_every_element),
	    cmocka_unit_test(sums_and_selections_use_every_lane),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
