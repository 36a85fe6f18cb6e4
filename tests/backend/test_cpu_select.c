#include "backend/cpu_fixture.h"

struct problem {
	struct dsa_rows rows;
	struct dsa_tensor q, k, weight;
	int heads, dim, topk;
	enum dsa_index_precision precision;
};

static void run_select(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_rows rows = fixture_some_rows(&p->rows, first, count);
	fixture_ok(f, f->be->ops->select(f->be, out, p->topk, dsa_tensor_rows(p->q, first, count), p->k,
	                                 dsa_tensor_rows(p->weight, first, count), p->heads, p->dim, p->precision,
	                                 &rows, NULL));
}

static int32_t *selected(struct fixture *f, struct problem *p)
{
	int32_t *selection = fixture_keep(f, (size_t)p->rows.count * (size_t)p->topk * sizeof *selection);
	memset(selection, 0x7f, (size_t)p->rows.count * (size_t)p->topk * sizeof *selection);
	run_select(f, p, 0, p->rows.count, selection);
	return selection;
}

/* The F8_E4M3 number nearest to x, of two the one with the even code, by trying all. */
static double nearest_fp8(double x)
{
	double best = 0;
	int best_code = 0;
	for (int code = 1; code < 0x7f; code++) {
		int exponent = code >> 3, fraction = code & 7;
		double value = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
		double far = fabs(fabs(x) - value), before = fabs(fabs(x) - best);
		if (far < before || (far == before && best_code % 2))
			best = value, best_code = code;
	}
	return x < 0 ? -best : best;
}

/* The row as codes (dim) times the scale returned, by the definition in backend.h. Exact numbers in, d a power of 4:
 * the rotated ones are exact too, and the quotients are float's. */
static double as_taken(double *out, const float *x, int dim, enum dsa_index_precision precision)
{
	float y[512], most = 1e-4f;
	assert_true(dim <= 512);
	for (int i = 0; i < dim; i++)
		out[i] = (double)x[i];
	if (precision < DSA_INDEX_FP8)
		return 1;
	for (int i = 0; i < dim; i++) {
		double sum = 0;
		for (int j = 0; j < dim; j++)
			sum += __builtin_popcount((unsigned)(i & j)) % 2 ? -(double)x[j] : (double)x[j];
		y[i] = (float)(sum / sqrt(dim));
		most = fmaxf(most, fabsf(y[i]));
	}
	float scale = most / 448;
	if (precision == DSA_INDEX_FP8_UE8M0)
		scale = (float)exp2(ceil(log2((double)scale)));
	for (int i = 0; i < dim; i++)
		out[i] = nearest_fp8((double)(y[i] / scale));
	return (double)scale;
}

static double score(const struct problem *p, int64_t row, int s)
{
	double key[512], query[512], sum = 0;
	double key_scale = as_taken(key, fixture_row(p->k, p->rows.key0[row] + s), p->dim, p->precision);
	for (int a = 0; a < p->heads; a++) {
		double dot = 0, scale = as_taken(query, fixture_row(p->q, row) + a * p->dim, p->dim, p->precision);
		for (int j = 0; j < p->dim; j++)
			dot += query[j] * key[j];
		sum += (double)fixture_at(p->weight, row, a) * scale * fmax(dot / sqrt(p->dim), 0);
	}
	return sum * key_scale;
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

static void fp8_scores_are_those_of_rotated_and_quantised_rows(void **state)
{
	(void)state;
	const int lengths[] = {60, 9, 33};
	const int shapes[][3] = {{1, 1, 5}, {3, 4, 7}, {3, 16, 7}, {5, 64, 20}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int ue8m0 = 0; ue8m0 < 2; ue8m0++) {
			struct fixture f = fixture_open(2);
			struct problem p =
			    problem_make(&f, lengths, 3, ue8m0 ? 4 : 0, shapes[i][0], shapes[i][1], shapes[i][2]);
			p.precision = ue8m0 ? DSA_INDEX_FP8_UE8M0 : DSA_INDEX_FP8;
			make_whole(&f, p.q, 50);
			make_whole(&f, p.k, 50);
			fixture_row(p.q, 7)[0] = 3000; /* others of its row fall among the smallest numbers */
			memset(fixture_row(p.k, 20), 0, (size_t)p.dim * sizeof(float));
			for (int64_t j = 0; j < p.weight.rows * p.heads; j++)
				((float *)p.weight.data)[j] *= 0x1p-8f; /* scores near 1, as check() supposes */
			check(&f, &p, false);
			fixture_close(&f);
		}
}

/* Most rows take other positions than in float32, and the most of each row the same. */
static void fp8_takes_nearly_the_positions_of_float32(void **state)
{
	(void)state;
	const int lengths[] = {700};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, lengths, 1, 600, 8, 128, 64);
	int32_t *exact = selected(&f, &p);
	for (enum dsa_index_precision precision = DSA_INDEX_BF16; precision <= DSA_INDEX_FP8_UE8M0; precision++) {
		p.precision = precision;
		int32_t *taken = selected(&f, &p);
		int64_t same = 0, all = p.rows.count * p.topk;
		for (int64_t i = 0; i < p.rows.count; i++)
			for (int n = 0; n < p.topk; n++)
				for (int m = 0; m < p.topk; m++)
					same += taken[i * p.topk + n] == exact[i * p.topk + m];
		double share = (double)same / (double)all, least = precision == DSA_INDEX_BF16 ? 0.985 : 0.9;
		if (!(share > least && share < 1))
			fail_msg("precision %d takes %.4f of the positions", (int)precision, share);
	}
	fixture_close(&f);
}

static void bf16_takes_the_positions_of_rounded_rows(void **state)
{
	(void)state;
	const int lengths[] = {200, 30};
	struct fixture f = fixture_open(1);
	struct problem p = problem_make(&f, lengths, 2, 0, 3, 14, 20);
	p.precision = DSA_INDEX_BF16;
	int32_t *taken = selected(&f, &p);
	struct dsa_tensor both[] = {p.q, p.k};
	for (int t = 0; t < 2; t++)
		for (int64_t i = 0; i < both[t].rows * both[t].cols; i++) {
			float *x = (float *)both[t].data + i;
			double unit = ldexp(1, ilogb((double)*x) - 7);
			*x = (float)(rint((double)*x / unit) * unit);
		}
	p.precision = DSA_INDEX_ACT;
	assert_memory_equal(selected(&f, &p), taken, (size_t)(p.rows.count * p.topk) * sizeof *taken);
	fixture_close(&f);
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
	for (int form = 0; form < 2 * 4; form++) {
		struct fixture f = fixture_open(4);
		int place = form % 2;
		struct problem p = problem_make(&f, lengths, 2, 0, 3, 16, 8);
		p.precision = (enum dsa_index_precision)(form / 2);
		int32_t *selection = fixture_keep(&f, 140 * 8 * sizeof *selection);
		struct dsa_error err = {""};
		if (place)
			fixture_row(p.q, 110)[17] = NAN; /* position 50 of the second document */
		else
			fixture_row(p.k, 110)[3] = NAN; /* seen by positions 50 … 79 */
		assert_int_equal(
		    f.be->ops->select(f.be, selection, 8, p.q, p.k, p.weight, 3, 16, p.precision, &p.rows, &err),
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
	for (int fp8 = 0; fp8 < 2; fp8++) {
		struct fixture f = fixture_open(1);
		struct problem p = problem_make(&f, lengths, 4, 0, 4, 32, 64);
		p.precision = fp8 ? DSA_INDEX_FP8 : DSA_INDEX_ACT;
		fixture_rows_are_independent(run_select, &p, 1024, 64 * sizeof(int32_t), 5);
		fixture_close(&f);
	}
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
	    cmocka_unit_test(fp8_scores_are_those_of_rotated_and_quantised_rows),
	    cmocka_unit_test(fp8_takes_nearly_the_positions_of_float32),
	    cmocka_unit_test(bf16_takes_the_positions_of_rounded_rows),
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
