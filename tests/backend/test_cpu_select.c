#include "backend/cpu_fixture.h"

struct problem {
	struct dsa_rows rows;
	struct dsa_tensor q, k, weight;
	int heads, dim, topk;
};

static void run_select(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_rows rows = fixture_some_rows(&p->rows, first, count);
	fixture_ok(f, f->be->ops->select(f->be, out, p->topk, dsa_tensor_rows(p->q, first, count), p->k,
	                                 dsa_tensor_rows(p->weight, first, count), p->heads, p->dim, &rows, NULL));
}

static int32_t *selected(struct fixture *f, struct problem *p)
{
	int32_t *selection = fixture_keep(f, (size_t)p->rows.count * (size_t)p->topk * sizeof *selection);
	memset(selection, 0x7f, (size_t)p->rows.count * (size_t)p->topk * sizeof *selection);
	run_select(f, p, 0, p->rows.count, selection);
	return selection;
}

static double score(const struct problem *p, int64_t row, int s)
{
	const float *key = fixture_row(p->k, p->rows.key0[row] + s);
	double sum = 0;
	for (int a = 0; a < p->heads; a++) {
		double dot = 0;
		for (int j = 0; j < p->dim; j++)
			dot += (double)fixture_at(p->q, row, a * p->dim + j) * (double)key[j];
		sum += (double)fixture_at(p->weight, row, a) * fmax(dot / sqrt(p->dim), 0);
	}
	return sum;
}

/* How many of the row's positions come before s: larger, or equal (within `within`) and lower. */
static int rank_of(const double *scores, int count, int s, double within)
{
	int rank = 0;
	for (int i = 0; i < count; i++)
		rank += scores[i] > scores[s] + within || (i < s && fabs(scores[i] - scores[s]) <= within);
	return rank;
}

/* exact: every selection is the rule's, ties included; else scores closer than 1e-5 may be taken for each other. */
static void check(struct fixture *f, struct problem *p, bool exact)
{
	int32_t *selection = selected(f, p);
	for (int64_t i = 0; i < p->rows.count; i++) {
		const int32_t *row = selection + i * p->topk;
		int count = p->rows.pos[i] + 1, chosen = count < p->topk ? count : p->topk;
		double *scores = malloc((size_t)count * sizeof *scores);
		assert_non_null(scores);
		for (int s = 0; s < count; s++)
			scores[s] = score(p, i, s);
		for (int n = 0; n < p->topk; n++) {
			if (n >= chosen) {
				assert_int_equal(row[n], -1);
				continue;
			}
			assert_true(row[n] >= 0 && row[n] < count);
			assert_true(n == 0 || row[n] > row[n - 1]);
			int rank = rank_of(scores, count, row[n], 0);
			if (rank >= chosen && !exact) {
				int sure = 0; /* positions clearly better */
				for (int s = 0; s < count; s++)
					sure += scores[s] > scores[row[n]] + 1e-5;
				rank = sure;
			}
			if (rank >= chosen)
				fail_msg("row %lld takes position %d of rank %d", (long long)i, row[n], rank);
		}
		free(scores);
	}
}

static struct problem problem_make(struct fixture *f, const int *lengths, int documents, int from, int heads, int dim,
                                   int topk)
{
	int64_t keys;
	struct problem p = {.heads = heads, .dim = dim, .topk = topk};
	p.rows = fixture_rows(f, lengths, documents, from, &keys);
	p.q = fixture_tensor(f, p.rows.count, heads * dim, 1);
	p.k = fixture_tensor(f, keys, dim, 1);
	p.weight = fixture_tensor(f, p.rows.count, heads, 1);
	return p;
}

/* Small integers: every score is exact in float, and ties are everywhere. */
static void make_whole(struct fixture *f, struct dsa_tensor t, int range)
{
	for (int64_t i = 0; i < t.rows; i++)
		for (int j = 0; j < t.cols; j++)
			fixture_row(t, i)[j] = (float)(fixture_below(f, 2 * range + 1) - range);
}

static void exact_scores_give_the_exact_selection_with_ties_to_the_lower_position(void **state)
{
	(void)state;
	const int lengths[] = {1, 70, 7, 200, 33, 129};
	const int shapes[][3] = {{1, 4, 1}, {3, 16, 7}, {4, 16, 64}, {5, 4, 100}, {8, 64, 33}, {9, 16, 500}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int range = 1; range <= 3; range++) {
			struct fixture f = fixture_open(1 + (int)i % 3);
			struct problem p =
			    problem_make(&f, lengths, 6, range == 2 ? 5 : 0, shapes[i][0], shapes[i][1], shapes[i][2]);
			make_whole(&f, p.q, range);
			make_whole(&f, p.k, range);
			make_whole(&f, p.weight, range);
			check(&f, &p, true);
			fixture_close(&f);
		}
}

static void real_scores_give_the_largest(void **state)
{
	(void)state;
	const int lengths[] = {300, 17, 90};
	const int shapes[][3] = {{1, 1, 5}, {3, 14, 7}, {4, 32, 64}, {6, 33, 16}, {16, 128, 40}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct fixture f = fixture_open(2);
		struct problem p = problem_make(&f, lengths, 3, 0, shapes[i][0], shapes[i][1], shapes[i][2]);
		check(&f, &p, false);
		fixture_close(&f);
	}
}

static void fill(struct dsa_tensor t, float x)
{
	for (int64_t i = 0; i < t.rows * t.cols; i++)
		((float *)t.data)[i] = x;
}

static void assert_first_positions(struct fixture *f, struct problem *p)
{
	int32_t *selection = selected(f, p);
	for (int64_t i = 0; i < p->rows.count; i++)
		for (int n = 0; n < p->topk; n++)
			assert_int_equal(selection[i * p->topk + n], n <= p->rows.pos[i] ? n : -1);
}

static void equal_scores_select_the_first_positions(void **state)
{
	(void)state;
	const int lengths[] = {100, 37};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, lengths, 2, 0, 3, 16, 20);
	fill(p.k, 0.5f); /* all keys alike */
	assert_first_positions(&f, &p);
	fill(p.q, -1); /* all products negative: every score is zero */
	assert_first_positions(&f, &p);
	fill(p.weight, -0.0f);
	assert_first_positions(&f, &p);
	fixture_close(&f);
}

static void minus_zero_equals_plus_zero(void **state)
{
	(void)state;
	/* One head with key · query = ±0 or below, weight negative: the products of weights are -0 and +0 in turn. */
	const int lengths[] = {90};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, lengths, 1, 0, 1, 1, 11);
	fill(p.weight, -1);
	fill(p.q, 1);
	for (int s = 0; s < 90; s++)
		fixture_row(p.k, s)[0] = s % 3 == 0 ? -0.0f : s % 3 == 1 ? 0.0f : -2.0f;
	assert_first_positions(&f, &p);
	fixture_close(&f);
}

static void negative_scores_compete(void **state)
{
	(void)state;
	const int lengths[] = {64};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, lengths, 1, 0, 1, 1, 4);
	fill(p.weight, -1);
	fill(p.q, 1);
	for (int s = 0; s < 64; s++)
		fixture_row(p.k, s)[0] = (float)(1 + (s * 37 + 11) % 64); /* a permutation: score -(1 … 64) */
	check(&f, &p, true);
	fixture_close(&f);
}

static void scores_of_all_sizes_are_ordered(void **state)
{
	(void)state;
	const int lengths[] = {240};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, lengths, 1, 0, 2, 1, 50);
	fill(p.q, 1);
	for (int64_t i = 0; i < 240; i++) {
		fixture_row(p.q, i)[1] = -1;
		fixture_row(p.weight, i)[0] = 1;
		fixture_row(p.weight, i)[1] = -1;
		/* ± 2^(-120 … 120), infinities and subnormals at the ends: score = key */
		fixture_row(p.k, i)[0] = (i % 2 ? 1.0f : -1.0f) * (float)ldexp(1, (int)(i * 97 % 240) - 120);
	}
	fixture_row(p.k, 17)[0] = INFINITY;
	fixture_row(p.k, 40)[0] = -INFINITY;
	fixture_row(p.k, 41)[0] = 1e-42f;
	check(&f, &p, true);
	fixture_close(&f);
}

static void nan_is_a_fault_reported_once_with_its_place(void **state)
{
	(void)state;
	const int lengths[] = {60, 80};
	for (int place = 0; place < 2; place++) {
		struct fixture f = fixture_open(4);
		struct problem p = problem_make(&f, lengths, 2, 0, 3, 16, 8);
		int32_t *selection = fixture_keep(&f, 140 * 8 * sizeof *selection);
		struct dsa_error err = {""};
		if (place)
			fixture_row(p.q, 110)[17] = NAN; /* position 50 of the second document */
		else
			fixture_row(p.k, 110)[3] = NAN; /* seen by positions 50 … 79 */
		assert_int_equal(f.be->ops->select(f.be, selection, 8, p.q, p.k, p.weight, 3, 16, &p.rows, &err),
		                 DSA_OK);
		assert_int_equal(f.be->ops->wait(f.be, &err), DSA_E_NUMERIC);
		assert_non_null(strstr(err.text, "NaN"));
		assert_non_null(strstr(err.text, "row 110 (position 50)"));
		assert_int_equal(f.be->ops->wait(f.be, &err), DSA_OK);
		fixture_close(&f);
	}
}

static void a_selection_does_not_depend_on_other_rows(void **state)
{
	(void)state;
	const int lengths[] = {500, 3, 421, 100};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, lengths, 4, 0, 4, 32, 64);
	fixture_rows_are_independent(run_select, &p, 1024, 64 * sizeof(int32_t), 5);
	fixture_close(&f);
}

static void a_selection_does_not_depend_on_where_its_document_lies(void **state)
{
	(void)state;
	/* The same document alone and behind others whose lengths shift it against every tile. */
	struct fixture f = fixture_open(1);
	const int alone[] = {300};
	struct problem p = problem_make(&f, alone, 1, 0, 5, 20, 30);
	int32_t *expected = selected(&f, &p);
	for (int shift = 1; shift < 70; shift += 4) {
		const int lengths[] = {shift, 300};
		struct problem moved = problem_make(&f, lengths, 2, 0, 5, 20, 30);
		memcpy(fixture_row(moved.q, shift), p.q.data, 300 * 100 * sizeof(float));
		memcpy(fixture_row(moved.k, shift), p.k.data, 300 * 20 * sizeof(float));
		memcpy(fixture_row(moved.weight, shift), p.weight.data, 300 * 5 * sizeof(float));
		int32_t *selection = selected(&f, &moved);
		assert_memory_equal(selection + shift * 30, expected, 300 * 30 * sizeof *expected);
	}
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exact_scores_give_the_exact_selection_with_ties_to_the_lower_position),
	    cmocka_unit_test(real_scores_give_the_largest),
	    cmocka_unit_test(equal_scores_select_the_first_positions),
	    cmocka_unit_test(minus_zero_equals_plus_zero),
	    cmocka_unit_test(negative_scores_compete),
	    cmocka_unit_test(scores_of_all_sizes_are_ordered),
	    cmocka_unit_test(nan_is_a_fault_reported_once_with_its_place),
	    cmocka_unit_test(a_selection_does_not_depend_on_other_rows),
	    cmocka_unit_test(a_selection_does_not_depend_on_where_its_document_lies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
