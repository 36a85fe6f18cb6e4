#include "backend/cpu_fixture.h"

enum { LAYERS = 5, TOPK = 13, ROWS = 70 };

static int32_t *random_selection(struct fixture *f, int context)
{
	int32_t *selection = fixture_keep(f, ROWS * TOPK * sizeof *selection);
	for (int row = 0; row < ROWS; row++) {
		/* Some rows are shorter than K and end in -1. */
		int left = row < 9 ? row : context, wanted = left < TOPK ? left : TOPK, n = 0;
		for (int s = 0; n < wanted; s++, left--)
			if (fixture_below(f, left) < wanted - n)
				selection[row * TOPK + n++] = s;
		while (n < TOPK)
			selection[row * TOPK + n++] = -1;
	}
	return selection;
}

static int64_t common(const int32_t *a, const int32_t *b)
{
	int64_t sum = 0;
	for (int i = 0; i < TOPK; i++)
		for (int j = 0; j < TOPK; j++)
			sum += a[i] >= 0 && a[i] == b[j];
	return sum;
}

static void overlaps_are_counted_and_added(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 4; threads++) {
		struct fixture f = fixture_open(threads);
		const int32_t *selections[LAYERS];
		for (int l = 0; l < LAYERS; l++)
			selections[l] = random_selection(&f, threads == 2 ? 4096 : 30);
		selections[3] = selections[1];
		int64_t counts[LAYERS * LAYERS];
		for (int i = 0; i < LAYERS * LAYERS; i++)
			counts[i] = 1000 + i;
		for (int twice = 0; twice < 2; twice++)
			fixture_ok(&f, f.be->ops->overlap(f.be, counts, selections, LAYERS, TOPK, ROWS, NULL));
		for (int i = 0; i < LAYERS; i++)
			for (int j = 0; j < LAYERS; j++) {
				int64_t expected = 0;
				for (int row = 0; j >= i && row < ROWS; row++)
					expected += 2 * common(selections[i] + row * TOPK, selections[j] + row * TOPK);
				assert_int_equal(counts[i * LAYERS + j], 1000 + i * LAYERS + j + expected);
			}
		fixture_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(overlaps_are_counted_and_added)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
