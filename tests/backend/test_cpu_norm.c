#include "backend/cpu_fixture.h"

static const int widths[] = {1, 2, 15, 16, 17, 40, 64, 257, 1000, 4096};

static void rms_norm_equals_double_precision(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof widths / sizeof *widths; n++) {
		struct fixture f = fixture_open(2);
		int cols = widths[n];
		struct dsa_tensor x = dsa_tensor_columns(fixture_tensor(&f, 5, cols + 3, 2), 1, cols);
		struct dsa_tensor w = fixture_tensor(&f, 1, cols, 1), out = fixture_poison(&f, 5, cols);
		fixture_ok(&f, f.be->ops->rmsnorm(f.be, out, x, w, 1e-3f, NULL));
		for (int i = 0; i < 5; i++) {
			double squares = 0;
			for (int j = 0; j < cols; j++)
				squares += (double)fixture_at(x, i, j) * (double)fixture_at(x, i, j);
			for (int j = 0; j < cols; j++) {
				double y = (double)fixture_at(x, i, j) / sqrt(squares / cols + (double)1e-3f) *
				           (double)fixture_at(w, 0, j);
				fixture_close_to((double)fixture_at(out, i, j), y, fabs(y), 1e-6);
			}
		}
		/* In place: the same bits. */
		fixture_ok(&f, f.be->ops->rmsnorm(f.be, x, x, w, 1e-3f, NULL));
		for (int i = 0; i < 5; i++)
			assert_memory_equal(fixture_row(x, i), fixture_row(out, i), (size_t)cols * sizeof(float));
		fixture_close(&f);
	}
}

static void layer_norm_equals_double_precision(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof widths / sizeof *widths; n++) {
		struct fixture f = fixture_open(2);
		int cols = widths[n];
		struct dsa_tensor x = dsa_tensor_columns(fixture_tensor(&f, 5, cols + 3, 2), 2, cols);
		struct dsa_tensor w = fixture_tensor(&f, 1, cols, 1), b = fixture_tensor(&f, 1, cols, 1);
		struct dsa_tensor out = fixture_poison(&f, 5, cols);
		for (int i = 0; i < 5; i++)
			for (int j = 0; j < cols; j++)
				fixture_row(x, i)[j] += 3; /* a mean that matters */
		fixture_ok(&f, f.be->ops->layernorm(f.be, out, x, w, b, 1e-6f, NULL));
		for (int i = 0; i < 5; i++) {
			double sum = 0, squares = 0;
			for (int j = 0; j < cols; j++)
				sum += (double)fixture_at(x, i, j);
			for (int j = 0; j < cols; j++)
				squares += pow((double)fixture_at(x, i, j) - sum / cols, 2);
			double deviation = sqrt(squares / cols + (double)1e-6f);
			for (int j = 0; j < cols; j++) {
				double y = ((double)fixture_at(x, i, j) - sum / cols) / deviation *
				               (double)fixture_at(w, 0, j) +
				           (double)fixture_at(b, 0, j);
				fixture_close_to((double)fixture_at(out, i, j), y, 4 / deviation + 1, 1e-6);
			}
		}
		fixture_ok(&f, f.be->ops->layernorm(f.be, x, x, w, b, 1e-6f, NULL));
		for (int i = 0; i < 5; i++)
			assert_memory_equal(fixture_row(x, i), fixture_row(out, i), (size_t)cols * sizeof(float));
		fixture_close(&f);
	}
}

struct problem {
	struct dsa_tensor x, w, b;
};

static void run_norms(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_tensor y = dsa_tensor_make(out, DSA_F32, count, p->x.cols);
	fixture_ok(f, f->be->ops->layernorm(f->be, y, dsa_tensor_rows(p->x, first, count), p->w, p->b, 1e-6f, NULL));
	fixture_ok(f, f->be->ops->rmsnorm(f->be, y, y, p->w, 1e-6f, NULL));
}

static void norms_do_not_depend_on_other_rows(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct problem p = {fixture_tensor(&f, 300, 72, 1), fixture_tensor(&f, 1, 72, 1), fixture_tensor(&f, 1, 72, 1)};
	fixture_rows_are_independent(run_norms, &p, 300, 72 * sizeof(float), 1);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rms_norm_equals_double_precision),
	    cmocka_unit_test(layer_norm_equals_double_precision),
	    cmocka_unit_test(norms_do_not_depend_on_other_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
