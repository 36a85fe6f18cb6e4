#include "backend/cpu_fixture.h"

enum { CANDIDATES = 3 };

struct problem {
	struct dsa_tensor base, candidates[CANDIDATES], head;
	int32_t *target;
};

static struct problem problem_make(struct fixture *f, int64_t rows, int hidden, int vocab, float scale,
                                   const float *moved)
{
	struct problem p = {.base = fixture_tensor(f, rows, hidden, scale),
	                    .head = fixture_tensor(f, vocab, hidden, 1)};
	p.target = fixture_keep(f, (size_t)rows * sizeof *p.target);
	for (int64_t i = 0; i < rows; i++)
		p.target[i] = fixture_below(f, vocab);
	for (int c = 0; c < CANDIDATES; c++) {
		p.candidates[c] = fixture_tensor(f, rows, hidden, scale * moved[c]);
		for (int64_t i = 0; i < rows * hidden; i++)
			((float *)p.candidates[c].data)[i] += ((float *)p.base.data)[i];
	}
	return p;
}

static void run_compare(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_tensor candidates[CANDIDATES];
	struct dsa_row_figures *figures = malloc((size_t)count * CANDIDATES * sizeof *figures);
	assert_non_null(figures);
	for (int c = 0; c < CANDIDATES; c++)
		candidates[c] = dsa_tensor_rows(p->candidates[c], first, count);
	fixture_ok(f, f->be->ops->compare(f->be, figures, dsa_tensor_rows(p->base, first, count), candidates,
	                                  CANDIDATES, p->head, p->target + first, NULL));
	/* By row, then by candidate. */
	for (int64_t i = 0; i < count; i++)
		for (int c = 0; c < CANDIDATES; c++)
			((struct dsa_row_figures *)out)[i * CANDIDATES + c] = figures[c * count + i];
	free(figures);
}

struct reference {
	double lse;
	int best;
};

static struct reference row_reference(const float *logits, int vocab)
{
	struct reference r = {0};
	double sum = 0;
	for (int v = 1; v < vocab; v++)
		if (logits[v] > logits[r.best])
			r.best = v;
	for (int v = 0; v < vocab; v++)
		sum += exp((double)logits[v] - (double)logits[r.best]);
	r.lse = (double)logits[r.best] + log(sum);
	return r;
}

/* Σ p ln(p / q), in double, of the backend's own float logits. */
static void check(struct fixture *f, struct problem *p)
{
	int vocab = (int)p->head.rows;
	int64_t rows = p->base.rows;
	struct dsa_tensor base = fixture_poison(f, rows, vocab), logits = fixture_poison(f, rows, vocab);
	struct dsa_row_figures *figures = fixture_keep(f, (size_t)rows * CANDIDATES * sizeof *figures);
	memset(figures, 0xff, (size_t)rows * CANDIDATES * sizeof *figures);
	run_compare(f, p, 0, rows, figures);
	fixture_ok(f, f->be->ops->logits(f->be, base, p->base, p->head, NULL));
	for (int c = 0; c < CANDIDATES; c++) {
		fixture_ok(f, f->be->ops->logits(f->be, logits, p->candidates[c], p->head, NULL));
		for (int64_t i = 0; i < rows; i++) {
			const float *b = fixture_row(base, i), *l = fixture_row(logits, i);
			struct reference rb = row_reference(b, vocab), rl = row_reference(l, vocab);
			double kl = 0;
			for (int v = 0; v < vocab; v++) {
				double d = ((double)b[v] - rb.lse) - ((double)l[v] - rl.lse);
				double pv = exp((double)b[v] - rb.lse), qv = exp((double)l[v] - rl.lse);
				kl += fabs(d) < 1 ? pv * (expm1(-d) + d) : qv - pv + pv * d;
			}
			const struct dsa_row_figures *found = &figures[i * CANDIDATES + c];
			int t = p->target[i];
			assert_int_equal(found->finite, 1);
			fixture_close_to(found->kl, kl, 1e-9 + 1e-6 * kl, 1);
			assert_true(found->kl >= 0);
			fixture_close_to(found->nll_base, rb.lse - (double)b[t], 1 + rb.lse - (double)b[t], 2e-7);
			fixture_close_to(found->nll, rl.lse - (double)l[t], 1 + rl.lse - (double)l[t], 2e-7);
			assert_int_equal(found->top1, rb.best == rl.best);
		}
	}
}

static const int shapes[][3] = {/* M, D, V */ {1, 1, 1}, {3, 5, 2},    {5, 9, 16},      {7, 40, 61},
                                {70, 256, 2048},         {600, 8, 33}, {20, 2, 120000}, {257, 31, 500}};

static void figures_equal_a_double_precision_reference(void **state)
{
	(void)state;
	/* From barely moved to unrelated, logits from flat to peaked. */
	const float moved[][CANDIDATES] = {{1e-4f, 1e-2f, 0.1f}, {0.3f, 1, 2}, {0, 1e-6f, 1e-3f}};
	const float scales[] = {0.02f, 0.3f, 4};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int k = 0; k < 3; k++) {
			struct fixture f = fixture_open(1 + (int)i % 3);
			const int *s = shapes[i];
			struct problem p = problem_make(&f, s[0], s[1], s[2], scales[(k + (int)i) % 3], moved[k]);
			check(&f, &p);
			fixture_close(&f);
		}
}

static void equal_rows_diverge_by_exactly_zero(void **state)
{
	(void)state;
	const float moved[CANDIDATES] = {0, 0, 0.5f};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, 77, 64, 777, 1, moved);
	struct dsa_row_figures figures[77 * CANDIDATES];
	run_compare(&f, &p, 0, 77, figures);
	for (int i = 0; i < 77; i++)
		for (int c = 0; c < CANDIDATES; c++) {
			const struct dsa_row_figures *row = &figures[i * CANDIDATES + c];
			assert_int_equal(row->kl == 0, c < 2);
			if (c < 2) {
				assert_true(row->nll == row->nll_base);
				assert_int_equal(row->top1, 1);
			}
		}
	fixture_close(&f);
}

static void far_apart_logits_stay_finite(void **state)
{
	(void)state;
	/* Logits of ±thousands: q underflows where p is 1, and KL is the difference of logits. */
	const float moved[CANDIDATES] = {2, 2, 2};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, 40, 16, 300, 800, moved);
	check(&f, &p);
	fixture_close(&f);
}

static void equal_largest_logits_count_as_the_lowest_token(void **state)
{
	(void)state;
	const float moved[CANDIDATES] = {0, 0, 0};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, 3, 4, 100, 0, moved);
	memset(p.head.data, 0, 100 * 4 * sizeof(float));
	for (int v = 40; v < 100; v += 20)
		fixture_row(p.head, v)[0] = 1; /* tokens 40, 60, 80 */
	for (int v = 23; v < 100; v += 17)
		fixture_row(p.head, v)[1] = 1; /* tokens 23, 40, 57, 74, 91 */
	for (int i = 0; i < 3; i++)
		fixture_row(p.base, i)[0] = 1; /* token 40 first */
	fixture_row(p.candidates[0], 0)[0] = 1;
	fixture_row(p.candidates[0], 0)[1] = 1; /* 40 alone */
	fixture_row(p.candidates[0], 1)[1] = 1; /* 23 first */
	struct dsa_row_figures figures[3 * CANDIDATES];
	run_compare(&f, &p, 0, 3, figures);
	assert_int_equal(figures[0].top1, 1);
	assert_int_equal(figures[CANDIDATES].top1, 0);
	assert_int_equal(figures[2 * CANDIDATES].top1, 0); /* all equal: token 0 */
	fixture_close(&f);
}

static void rows_that_are_not_finite_are_marked(void **state)
{
	(void)state;
	const float moved[CANDIDATES] = {0.1f, 0.1f, 0.1f};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, 9, 20, 50, 1, moved);
	fixture_row(p.base, 2)[3] = NAN;
	fixture_row(p.candidates[1], 5)[0] = INFINITY;
	struct dsa_row_figures figures[9 * CANDIDATES];
	run_compare(&f, &p, 0, 9, figures);
	for (int i = 0; i < 9; i++)
		for (int c = 0; c < CANDIDATES; c++)
			assert_int_equal(figures[i * CANDIDATES + c].finite, !(i == 2 || (i == 5 && c == 1)));
	fixture_close(&f);
}

static void figures_do_not_depend_on_other_rows(void **state)
{
	(void)state;
	const float moved[CANDIDATES] = {1e-3f, 0.1f, 1};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, 1024, 48, 211, 1, moved);
	fixture_rows_are_independent(run_compare, &p, 1024, CANDIDATES * sizeof(struct dsa_row_figures), 5);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(figures_equal_a_double_precision_reference),
	    cmocka_unit_test(equal_rows_diverge_by_exactly_zero),
	    cmocka_unit_test(far_apart_logits_stay_finite),
	    cmocka_unit_test(equal_largest_logits_count_as_the_lowest_token),
	    cmocka_unit_test(rows_that_are_not_finite_are_marked),
	    cmocka_unit_test(figures_do_not_depend_on_other_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
