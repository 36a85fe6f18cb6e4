#include "backend/cpu_fixture.h"

static void check(int heads, int step, int offset, int r, enum dsa_rope_style style)
{
	struct fixture f = fixture_open(2);
	const int lengths[] = {5, 1, 17};
	int64_t keys;
	struct dsa_rows rows = fixture_rows(&f, lengths, 3, 0, &keys);
	int pairs = r / 2, cols = (heads - 1) * step + offset + r + 3;
	struct dsa_tensor x = fixture_tensor(&f, rows.count, cols, 1), before = fixture_tensor(&f, rows.count, cols, 1);
	memcpy(before.data, x.data, (size_t)(rows.count * cols) * sizeof(float));
	struct dsa_tensor cos_table = fixture_tensor(&f, 17, pairs, 1), sin_table = fixture_tensor(&f, 17, pairs, 1);
	fixture_ok(
	    &f, f.be->ops->rope(f.be, x, &rows, heads, step, offset, r, style, cos_table.data, sin_table.data, NULL));
	struct dsa_tensor expected = before;
	for (int64_t i = 0; i < rows.count; i++)
		for (int a = 0; a < heads; a++)
			for (int p = 0; p < pairs; p++) {
				int at = offset + a * step;
				int first = at + (style == DSA_ROPE_INTERLEAVED ? 2 * p : p);
				int second = style == DSA_ROPE_INTERLEAVED ? first + 1 : first + pairs;
				double c = (double)fixture_at(cos_table, rows.pos[i], p);
				double s = (double)fixture_at(sin_table, rows.pos[i], p);
				double x0 = (double)fixture_at(before, i, first);
				double x1 = (double)fixture_at(before, i, second);
				fixture_row(expected, i)[first] = (float)(x0 * c - x1 * s);
				fixture_row(expected, i)[second] = (float)(x1 * c + x0 * s);
			}
	for (int64_t i = 0; i < rows.count; i++)
		for (int j = 0; j < cols; j++)
			fixture_close_to((double)fixture_at(x, i, j), (double)fixture_at(expected, i, j), 1, 3e-7);
	/* Everything outside the rotated columns keeps its bits: the last three, and those before the offset. */
	for (int64_t i = 0; i < rows.count; i++) {
		assert_memory_equal(fixture_row(x, i) + cols - 3, fixture_row(before, i) + cols - 3, 3 * sizeof(float));
		assert_memory_equal(fixture_row(x, i), fixture_row(before, i), (size_t)offset * sizeof(float));
	}
	fixture_close(&f);
}

static void interleaved_pairs_rotate_in_place(void **state)
{
	(void)state;
	check(1, 0, 14, 6, DSA_ROPE_INTERLEAVED);
	check(8, 48, 32, 16, DSA_ROPE_INTERLEAVED);
	check(3, 2, 0, 2, DSA_ROPE_INTERLEAVED);
}

static void halves_rotate_in_place(void **state)
{
	(void)state;
	check(1, 0, 0, 6, DSA_ROPE_HALVES);
	check(4, 32, 0, 16, DSA_ROPE_HALVES);
	check(5, 15, 1, 14, DSA_ROPE_HALVES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(interleaved_pairs_rotate_in_place),
	    cmocka_unit_test(halves_rotate_in_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
