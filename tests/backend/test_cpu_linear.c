#include "backend/cpu_fixture.h"

static const int sizes[][3] = {/* R, N, M */
                               {1, 1, 1},       {1, 5, 3},      {3, 1, 7},       {2, 17, 33},   {31, 13, 1},
                               {64, 64, 64},    {65, 63, 129},  {200, 4, 256},   {201, 96, 80}, {257, 384, 128},
                               {40, 2048, 256}, {7, 100, 1000}, {3, 3000, 2100}, {500, 31, 385}};

/* Σ x w in double and Σ |x w|. */
static double dot(const float *x, const float *w, int64_t w_step, int n, double *magnitude)
{
	double sum = 0;
	for (int k = 0; k < n; k++) {
		double term = (double)x[k] * (double)w[k * w_step];
		sum += term;
		*magnitude += fabs(term);
	}
	return sum;
}

static void check_linear(struct fixture *f, const int *size, bool with_bias, bool accumulate)
{
	int64_t rows = size[0];
	int width = size[1], in = size[2];
	/* Views into wider tensors: strides differ from the columns. */
	struct dsa_tensor x = dsa_tensor_columns(fixture_tensor(f, rows, in + 3, 1), 2, in);
	struct dsa_tensor w = dsa_tensor_columns(fixture_tensor(f, width, in + 5, 1), 1, in);
	struct dsa_tensor bias = with_bias ? fixture_tensor(f, 1, width, 1) : fixture_none();
	struct dsa_tensor before = fixture_tensor(f, rows, width, 1), whole = fixture_poison(f, rows, width + 4);
	struct dsa_tensor out = dsa_tensor_columns(whole, 1, width);
	if (accumulate)
		for (int64_t i = 0; i < rows; i++)
			memcpy(fixture_row(out, i), fixture_row(before, i), (size_t)width * sizeof(float));
	fixture_ok(f, f->be->ops->linear(f->be, out, x, w, bias, accumulate, NULL));
	for (int64_t i = 0; i < rows; i++) {
		for (int j = 0; j < width; j++) {
			double magnitude = 0;
			double sum = dot(fixture_row(x, i), fixture_row(w, j), 1, in, &magnitude);
			double b = with_bias ? (double)fixture_at(bias, 0, j) : 0;
			double old = accumulate ? (double)fixture_at(before, i, j) : 0;
			fixture_close_to((double)fixture_at(out, i, j), sum + b + old, magnitude + fabs(b) + fabs(old),
			                 1e-6);
		}
		assert_true(isnan(fixture_at(whole, i, 0)) && isnan(fixture_at(whole, i, width + 1)));
	}
}

static void products_equal_double_precision(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct fixture f = fixture_open(1 + (int)i % 3);
		for (int form = 0; form < 4; form++)
			check_linear(&f, sizes[i], form & 1, form & 2);
		fixture_close(&f);
	}
}

static void no_rows_are_no_work(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	struct dsa_tensor x = fixture_tensor(&f, 0, 4, 1), out = fixture_tensor(&f, 0, 3, 1);
	fixture_ok(&f, f.be->ops->linear(f.be, out, x, fixture_tensor(&f, 3, 4, 1), fixture_none(), false, NULL));
	fixture_close(&f);
}

static void check_heads(struct fixture *f, int64_t rows, int heads, int in, int width, bool transposed)
{
	int x_head = in + 3, out_head = width + 2, stride = (transposed ? in : width) + 1;
	int w_rows = transposed ? width : in;
	struct dsa_tensor x = fixture_tensor(f, rows, heads * x_head, 1);
	struct dsa_tensor w = fixture_tensor(f, (int64_t)heads * (w_rows + 2), stride, 1);
	struct dsa_tensor out = fixture_poison(f, rows, heads * out_head);
	int64_t w_head = (int64_t)(w_rows + 2) * stride;
	fixture_ok(
	    f, f->be->ops->head_linear(f->be, out, out_head, x, x_head, w, w_head, heads, in, width, transposed, NULL));
	for (int64_t i = 0; i < rows; i++)
		for (int a = 0; a < heads; a++) {
			const float *wa = (const float *)w.data + a * w_head;
			for (int j = 0; j < width; j++) {
				double magnitude = 0;
				double sum = dot(fixture_row(x, i) + a * x_head, wa + (transposed ? j * stride : j),
				                 transposed ? 1 : stride, in, &magnitude);
				fixture_close_to((double)fixture_at(out, i, a * out_head + j), sum, magnitude, 1e-6);
			}
			assert_true(isnan(fixture_at(out, i, a * out_head + width)));
		}
}

static void head_products_equal_double_precision(void **state)
{
	(void)state;
	const int cases[][4] = {{1, 1, 1, 1}, {5, 5, 10, 14}, {33, 5, 14, 9}, {100, 8, 32, 64}, {3, 16, 512, 128}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct fixture f = fixture_open(1 + (int)i % 3);
		for (int transposed = 0; transposed < 2; transposed++)
			check_heads(&f, cases[i][0], cases[i][1], cases[i][2], cases[i][3], transposed);
		fixture_close(&f);
	}
}

struct problem {
	struct dsa_tensor x, w, bias;
	int width;
	bool accumulate;
};

static void run_linear(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_tensor y = dsa_tensor_make(out, DSA_F32, count, p->width);
	for (int64_t i = 0; p->accumulate && i < count * p->width; i++)
		((float *)out)[i] = 1.25f;
	fixture_ok(
	    f, f->be->ops->linear(f->be, y, dsa_tensor_rows(p->x, first, count), p->w, p->bias, p->accumulate, NULL));
}

static void a_row_has_the_same_bits_at_1_to_1024_rows(void **state)
{
	(void)state;
	const int shapes[][3] = {/* N, M, step */ {96, 80, 1},
	                         {1, 33, 3},
	                         {13, 1000, 5},
	                         {32, 256, 3},
	                         {768, 256, 11},
	                         {256, 768, 17},
	                         {2048, 256, 67},
	                         {144, 2048, 31}};
	struct fixture f = fixture_open(1);
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		int width = shapes[i][0], in = shapes[i][1];
		struct problem p = {.x = fixture_tensor(&f, 1024, in, 1),
		                    .w = fixture_tensor(&f, width, in, 1),
		                    .bias = i % 2 ? fixture_tensor(&f, 1, width, 1) : fixture_none(),
		                    .width = width,
		                    .accumulate = i % 3 == 0};
		fixture_rows_are_independent(run_linear, &p, 1024, (size_t)width * sizeof(float), shapes[i][2]);
	}
	fixture_close(&f);
}

static void run_heads(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_tensor y = dsa_tensor_make(out, DSA_F32, count, 8 * 64);
	fixture_ok(f, f->be->ops->head_linear(f->be, y, 64, dsa_tensor_rows(p->x, first, count), 48, p->w, 32 * 64, 8,
	                                      32, 64, p->accumulate, NULL));
}

static void a_row_of_heads_has_the_same_bits_at_1_to_1024_rows(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	for (int transposed = 0; transposed < 2; transposed++) {
		struct problem p = {.x = fixture_tensor(&f, 1024, 8 * 48, 1),
		                    .w = transposed ? fixture_tensor(&f, 8 * 64, 32, 1)
		                                    : fixture_tensor(&f, 8 * 32, 64, 1),
		                    .accumulate = transposed};
		fixture_rows_are_independent(run_heads, &p, 1024, 8 * 64 * sizeof(float), 7);
	}
	fixture_close(&f);
}

static void logits_are_the_product_with_the_head(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	struct dsa_tensor x = fixture_tensor(&f, 9, 21, 1), head = fixture_tensor(&f, 50, 21, 1);
	struct dsa_tensor a = fixture_poison(&f, 9, 50), b = fixture_poison(&f, 9, 50);
	fixture_ok(&f, f.be->ops->logits(f.be, a, x, head, NULL));
	fixture_ok(&f, f.be->ops->linear(f.be, b, x, head, fixture_none(), false, NULL));
	assert_memory_equal(a.data, b.data, 9 * 50 * sizeof(float));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(products_equal_double_precision),
	    cmocka_unit_test(no_rows_are_no_work),
	    cmocka_unit_test(head_products_equal_double_precision),
	    cmocka_unit_test(a_row_has_the_same_bits_at_1_to_1024_rows),
	    cmocka_unit_test(a_row_of_heads_has_the_same_bits_at_1_to_1024_rows),
	    cmocka_unit_test(logits_are_the_product_with_the_head),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
