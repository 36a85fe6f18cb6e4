#include "backend/cpu_fixture.h"

#include "../src/backend/lanes.h"

static void exponentiate(float *y, const float *x)
{
	for (int l = 0; l < LANES; l += WIDE)
		wide_store(y + l, wide_exp(wide_load(x + l)));
}

static struct lanes load(const float *x)
{
	struct lanes out;
	for (int p = 0; p < PARTS; p++)
		out.part[p] = wide_load(x + p * WIDE);
	return out;
}

static void exponential_is_within_two_ulp(void **state)
{
	(void)state;
	double worst = 0;
	for (double at = -87.33; at < 88.3; at += 0.000711) {
		float x[LANES], y[LANES];
		for (int l = 0; l < LANES; l++)
			x[l] = (float)(at + l * 0.0000431);
		exponentiate(y, x);
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
	exponentiate(y, x);
	const float expected[] = {1, 1, 0, 0, 0, INFINITY, INFINITY, INFINITY};
	assert_memory_equal(y, expected, sizeof expected);
	assert_true(isnan(y[8]) && isnan(y[9]));
	assert_true(y[10] == 0 && isinf(y[11]));
}

static void sums_and_selections_use_every_lane(void **state)
{
	(void)state;
	float x[LANES];
	struct lanes_int n;
	struct lanes_double twice = {0};
	for (int l = 0; l < LANES; l++) {
		x[l] = (float)(1 << l);
		n.part[l / WIDE][l % WIDE] = 1 << l;
	}
	assert_true(lanes_sum(load(x)) == 65535);
	assert_int_equal(lanes_sum_int(n), 65535);
	lanes_add_double(&twice, x);
	lanes_add_double(&twice, x);
	assert_true(lanes_sum_double(twice) == 131070);
	struct lanes low = load(x);
	for (int p = 0; p < PARTS; p++)
		low.part[p] = wide_select(low.part[p] < wide_splat(256), low.part[p], wide_splat(0));
	assert_true(lanes_sum(low) == 255);
	for (int count = 0; count <= WIDE; count++) {
		float *part = malloc((size_t)count * sizeof *part + 1),
		      *copy = malloc((size_t)count * sizeof *copy + 1);
		float whole[WIDE], sum = 0;
		assert_non_null(part);
		assert_non_null(copy);
		memcpy(part, x, (size_t)count * sizeof *part);
		wide_store(whole, wide_load_part(part, count));
		for (int l = 0; l < WIDE; l++)
			sum += whole[l];
		assert_true(sum == (float)((1 << count) - 1));
		wide_store_part(copy, wide_load_part(part, count), count);
		assert_memory_equal(copy, x, (size_t)count * sizeof *copy);
		free(part);
		free(copy);
	}
}

/* The tree that lanes.h states, whatever the width of a vector: rounding shows the order. */
static void a_sum_is_the_tree_of_its_lanes(void **state)
{
	(void)state;
	float x[LANES], part[LANES];
	for (int l = 0; l < LANES; l++)
		x[l] = part[l] = 1.0f / (float)(3 + l * l);
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] += part[l + width];
	assert_true(lanes_sum(load(x)) == part[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exponential_is_within_two_ulp),
	    cmocka_unit_test(exponential_ends_are_zero_infinity_and_nan),
	    cmocka_unit_test(sums_and_selections_use_every_lane),
	    cmocka_unit_test(a_sum_is_the_tree_of_its_lanes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
