#include "backend/cpu_fixture.h"

enum { VOCAB = 50, HIDDEN = 37 };

struct problem {
	struct dsa_tensor table, out;
	struct dsa_rows rows;
	int32_t *ids;
};

static struct problem problem_make(struct fixture *f)
{
	const int lengths[] = {30, 50};
	int64_t keys;
	struct problem p = {.table = fixture_tensor(f, VOCAB, HIDDEN, 1)};
	p.rows = fixture_rows(f, lengths, 2, 0, &keys);
	p.ids = fixture_keep(f, (size_t)p.rows.count * sizeof *p.ids);
	for (int64_t i = 0; i < p.rows.count; i++)
		p.ids[i] = fixture_below(f, VOCAB);
	p.out = fixture_poison(f, p.rows.count, HIDDEN);
	return p;
}

static void rows_are_the_tables_rows(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f);
	fixture_ok(&f, f.be->ops->embed(f.be, p.out, p.table, p.ids, &p.rows, 0, NULL));
	for (int64_t i = 0; i < p.rows.count; i++)
		assert_memory_equal(fixture_row(p.out, i), fixture_row(p.table, p.ids[i]), HIDDEN * sizeof(float));
	fixture_close(&f);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static void a_seed_moves_every_element_by_one_bf16_ulp(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f);
	/* Magnitudes around every corner: powers of two, what rounds up to one, tiny and zero. */
	const float corner[] = {1.0f, 1.9999f, 2.0f, -0.99f, 0.998f, 1e-20f, -3e-39f, 0.0f, 1.99f, 255.9f};
	memcpy(p.table.data, corner, sizeof corner);
	p.ids[3] = 0;
	fixture_ok(&f, f.be->ops->embed(f.be, p.out, p.table, p.ids, &p.rows, 7, NULL));
	int minus = 0;
	for (int64_t i = 0; i < p.rows.count; i++)
		for (int j = 0; j < HIDDEN; j++) {
			float x = fixture_at(p.table, p.ids[i], j);
			int exponent;
			double fraction = frexp(fabs((double)x), &exponent); /* in [0.5, 1) */
			if (rint(fraction * 256) == 256)
				exponent++;
			if (x == 0 || exponent < -125)
				exponent = -125;
			float ulp = (float)ldexp(1, exponent - 8);
			uint64_t row = mix(7 ^ mix(((uint64_t)p.rows.pos[i] << 32) + (uint64_t)p.ids[i]));
			bool down = mix(row + (uint64_t)j) % 2;
			minus += down;
			float expected = down ? x - ulp : x + ulp;
			if (fixture_at(p.out, i, j) != expected)
				fail_msg("%.9g moved to %.9g, expected %.9g", (double)x,
				         (double)fixture_at(p.out, i, j), (double)expected);
		}
	double share = minus / (double)(p.rows.count * HIDDEN);
	assert_true(share > 0.45 && share < 0.55);
	fixture_close(&f);
}

static void seeds_and_positions_give_other_signs(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f);
	p.ids[0] = p.ids[1] = p.ids[2] = 9;
	struct dsa_tensor other = fixture_poison(&f, p.rows.count, HIDDEN);
	fixture_ok(&f, f.be->ops->embed(f.be, p.out, p.table, p.ids, &p.rows, 1, NULL));
	fixture_ok(&f, f.be->ops->embed(f.be, other, p.table, p.ids, &p.rows, 2, NULL));
	assert_memory_not_equal(p.out.data, other.data, HIDDEN * sizeof(float));
	assert_memory_not_equal(fixture_row(p.out, 0), fixture_row(p.out, 1), HIDDEN * sizeof(float));
	fixture_ok(&f, f.be->ops->embed(f.be, other, p.table, p.ids, &p.rows, 1, NULL));
	assert_memory_equal(p.out.data, other.data, (size_t)p.rows.count * HIDDEN * sizeof(float));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rows_are_the_tables_rows),
	    cmocka_unit_test(a_seed_moves_every_element_by_one_bf16_ulp),
	    cmocka_unit_test(seeds_and_positions_give_other_signs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
