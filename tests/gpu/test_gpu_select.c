#include "gpu_fixture.h"

#include "../src/backend/cpu.h"

/* The indexer's selections: sets against the CPU's, the tie rule exactly. */

struct problem {
	struct both_rows rows;
	struct both q, k, weight;
	const float *q_values, *k_values, *weights;
	int heads, dim, topk;
	enum dsa_index_precision precision;
};

static struct problem problem_of(struct gpu *g, struct both_rows rows, int heads, int dim, int topk)
{
	gpu_reserve(g, (struct dsa_backend_limits){.rows = rows.at[CPU].count,
	                                           .keys = rows.keys,
	                                           .topk = topk,
	                                           .index_heads = heads,
	                                           .index_dim = dim,
	                                           .max_context = rows.at[CPU].max_pos + 1,
	                                           .index_precision = DSA_INDEX_FP8});
	return (struct problem){.rows = rows, .heads = heads, .dim = dim, .topk = topk};
}

static void place(struct gpu *g, struct problem *p)
{
	int64_t R = p->rows.at[CPU].count;
	p->q = gpu_put(g, p->q_values, R, p->heads * p->dim, GPU_ACT, 0);
	p->k = gpu_put(g, p->k_values, p->rows.keys, p->dim, GPU_ACT, 0);
	p->weight = gpu_put(g, p->weights, R, p->heads, GPU_F32, 0);
}

static void fill_random(struct gpu *g, struct problem *p)
{
	int64_t R = p->rows.at[CPU].count;
	p->q_values = gpu_values(g, R, p->heads * p->dim, 1, GPU_ACT);
	p->k_values = gpu_values(g, p->rows.keys, p->dim, 1, GPU_ACT);
	p->weights = gpu_values(g, R, p->heads, 1, GPU_F32);
	place(g, p);
}

struct answer {
	const int32_t *cpu, *gpu;  /* (R, K) */
	const int32_t *pos, *key0; /* host copies */
};

/* Runs both; the GPU's answer has the form that it must have. */
static struct answer ask(struct gpu *g, const struct problem *p)
{
	int64_t R = p->rows.at[CPU].count;
	size_t bytes = (size_t)R * (size_t)p->topk * sizeof(int32_t);
	struct both out = gpu_poison(g, R, p->topk, GPU_F32, 0);
	BOTH(g, select, out.at[s].data, p->topk, p->q.at[s], p->k.at[s], p->weight.at[s], p->heads, p->dim,
	     p->precision, &p->rows.at[s]);
	struct answer a = {gpu_download(g, g->be[CPU], out.at[CPU].data, bytes),
	                   gpu_download(g, g->be[GPU], out.at[GPU].data, bytes),
	                   gpu_download(g, g->be[CPU], p->rows.at[CPU].pos, (size_t)R * sizeof(int32_t)),
	                   gpu_download(g, g->be[CPU], p->rows.at[CPU].key0, (size_t)R * sizeof(int32_t))};
	for (int64_t i = 0; i < R; i++)
		for (int n = 0; n < p->topk; n++) {
			int s = a.gpu[i * p->topk + n], before = n ? a.gpu[i * p->topk + n - 1] : -1;
			bool good = n > a.pos[i] ? s == -1 : s > before && s <= a.pos[i];
			if (!good)
				fail_msg("%d heads of %d, K %d: row %lld at position %d has %d at place %d, after %d",
				         p->heads, p->dim, p->topk, (long long)i, a.pos[i], s, n, before);
		}
	return a;
}

enum { MOST_DIM = 4096 };

/* In double, of rows in the precision asked for; the magnitude is that of the terms. */
static double score(const struct problem *p, const struct answer *a, int64_t row, int s, double *magnitude)
{
	static float q[MOST_DIM], key[MOST_DIM];
	double sum = 0, key_scale = (double)cpu_index_row(key, p->k_values + (int64_t)(a->key0[row] + s) * p->dim,
	                                                  p->dim, p->precision);
	*magnitude = 0;
	for (int h = 0; h < p->heads; h++) {
		double dot = 0, scale = (double)cpu_index_row(q, p->q_values + (row * p->heads + h) * p->dim, p->dim,
		                                              p->precision);
		for (int j = 0; j < p->dim; j++)
			dot += (double)q[j] * (double)key[j];
		double term = (double)p->weights[row * p->heads + h] * fmax(dot, 0) * scale * key_scale / sqrt(p->dim);
		sum += term;
		*magnitude += fabs(term);
	}
	return sum;
}

/* Equal sets, but for positions whose scores are within 1e-5 of the size of their terms. Returns how many were swapped.
 */
static int64_t same_sets(struct gpu *g, const struct problem *p, bool exact)
{
	struct answer a = ask(g, p);
	int64_t swaps = 0;
	for (int64_t i = 0; i < p->rows.at[CPU].count; i++) {
		const int32_t *want = a.cpu + i * p->topk, *got = a.gpu + i * p->topk;
		int count = a.pos[i] + 1 < p->topk ? a.pos[i] + 1 : p->topk;
		double lowest = INFINITY, highest = -INFINITY, largest = 0, size; /* wrongly in, wrongly out */
		for (int x = 0, y = 0; x < count || y < count;) {
			if (x < count && y < count && got[x] == want[y]) {
				x++, y++;
				continue;
			}
			if (exact)
				fail_msg(
				    "%d heads of %d, K %d: row %lld at position %d takes %d where the rule takes %d",
				    p->heads, p->dim, p->topk, (long long)i, a.pos[i], x < count ? got[x] : -1,
				    y < count ? want[y] : -1);
			if (y == count || (x < count && got[x] < want[y]))
				lowest = fmin(lowest, score(p, &a, i, got[x++], &size)), swaps++;
			else
				highest = fmax(highest, score(p, &a, i, want[y++], &size));
			largest = fmax(largest, size);
		}
		if (highest - lowest > 1e-5 * largest)
			fail_msg("%d heads of %d, K %d: row %lld at position %d takes a score of %.9g and leaves one "
			         "of %.9g",
			         p->heads, p->dim, p->topk, (long long)i, a.pos[i], lowest, highest);
	}
	return swaps;
}

static void selections_equal_the_cpu(struct gpu *g)
{
	static const int shapes[][3] = {/* h, d, K */ {3, 14, 7},
	                                {5, 14, 7},
	                                {1, 6, 13},
	                                {3, 18, 7},
	                                {3, 12, 7},
	                                {3, 14, 5},
	                                {1, 14, 7},
	                                {4, 32, 64},
	                                {1, 1, 1},
	                                {6, 33, 16},
	                                {16, 128, 40},
	                                {7, 100, 130},
	                                {32, 128, 64},
	                                {64, 128, 64}};
	static const int lengths[] = {1, 300, 17, 90, 129, 64, 1000};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const int *n = shapes[i];
		struct problem p =
		    problem_of(g, gpu_documents(g, lengths, g->small ? 4 : 7, i % 3 == 2 ? 5 : 0), n[0], n[1], n[2]);
		fill_random(g, &p);
		same_sets(g, &p, false);
		gpu_end_case(g);
	}
}

static float *whole_numbers(struct gpu *g, int64_t count, int range)
{
	float *values = gpu_host(g, (size_t)count * sizeof *values);
	for (int64_t i = 0; i < count; i++)
		values[i] = (float)(gpu_below(g, 2 * range + 1) - range);
	return values;
}

/* Rotated and quantised: the GPU's numbers and scales are the CPU's to the bit, so scores differ by their sums alone.
 */
static void fp8_selections_equal_the_cpu(struct gpu *g)
{
	static const int shapes[][3] = {/* h, d, K */ {3, 16, 7},
	                                {1, 1, 13},
	                                {5, 2, 9},
	                                {4, 32, 64},
	                                {2, 1024, 30},
	                                {3, 4096, 20},
	                                {6, 64, 16},
	                                {16, 128, 40},
	                                {32, 128, 64},
	                                {64, 128, 64},
	                                {32, 128, 2048},
	                                {64, 128, 2048}};
	static const int lengths[] = {1, 300, 17, 90, 129, 64, 1000}, few[] = {5000, 2100};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 4 : 0); i++)
		for (int ue8m0 = 0; ue8m0 < 2; ue8m0++) {
			const int *n = shapes[i];
			struct both_rows rows = n[2] == 2048 ? gpu_last_rows(g, few, 2, 70)
			                                     : gpu_documents(g, lengths,
			                                                     g->small     ? 4
			                                                     : n[1] > 128 ? 5
			                                                                  : 7,
			                                                     i % 3 == 2 ? 5 : 0);
			struct problem p = problem_of(g, rows, n[0], n[1], n[2]);
			fill_random(g, &p);
			p.precision = ue8m0 ? DSA_INDEX_FP8_UE8M0 : DSA_INDEX_FP8;
			same_sets(g, &p, false);
			gpu_end_case(g);
		}
}

/* Scores that are powers of two times small whole numbers are exact, and so are their ties. */
static void fp8_ties_go_to_the_lower_position(struct gpu *g)
{
	static const int shapes[][3] = {{1, 4, 3}, {3, 16, 7}, {4, 16, 64}, {8, 64, 33}, {32, 64, 64}};
	static const int lengths[] = {1, 70, 7, 200, 33, 129, 900};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const int *n = shapes[i];
		struct problem p = problem_of(g, gpu_documents(g, lengths, g->small ? 5 : 7, 0), n[0], n[1], n[2]);
		int64_t R = p.rows.at[CPU].count;
		/* One number of each row: rotated, all of the row are of its size, and exact in F8_E4M3. */
		float *q = whole_numbers(g, R * p.heads * p.dim, 0), *k = whole_numbers(g, p.rows.keys * p.dim, 0);
		for (int64_t row = 0; row < R * p.heads; row++)
			q[row * p.dim + gpu_below(g, p.dim)] = (float)(1 << gpu_below(g, 3));
		for (int64_t row = 0; row < p.rows.keys; row++)
			k[row * p.dim + gpu_below(g, p.dim)] = (float)(1 << gpu_below(g, 3));
		p.q_values = q;
		p.k_values = k;
		p.weights = whole_numbers(g, R * p.heads, 3);
		p.precision = DSA_INDEX_FP8_UE8M0;
		place(g, &p);
		same_sets(g, &p, true);
		gpu_end_case(g);
	}
}

/* K 2048 of long documents, by the rows that see most. */
static void selections_of_published_models_equal_the_cpu(struct gpu *g)
{
	static const int shapes[][4] = {/* h, T, second T, rows of each */ {32, 2047, 2049, 70},
	                                {64, 5000, 2600, 80},
	                                {32, 20000, 4097, 33},
	                                {64, 66000, 3000, 9},
	                                {32, 200000, 100, 3}};
	int64_t swaps = 0;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !g->small; i++) {
		const int *n = shapes[i], lengths[] = {n[1], n[2]};
		struct problem p = problem_of(g, gpu_last_rows(g, lengths, 2, n[3]), n[0], 128, 2048);
		fill_random(g, &p);
		swaps += same_sets(g, &p, false);
		gpu_end_case(g);
	}
	printf("# %lld positions swapped with ones as good\n", (long long)swaps);
}

/* Small integers, d a power of 4: every score is exact in float, whatever the order of the sum. */
static void exact_ties_go_to_the_lower_position(struct gpu *g)
{
	static const int shapes[][3] = {{1, 4, 1},    {3, 16, 7},   {4, 16, 64},   {5, 4, 100}, {8, 64, 33},
	                                {9, 16, 500}, {32, 64, 64}, {64, 64, 256}, {4, 256, 64}};
	static const int lengths[] = {1, 70, 7, 200, 33, 129, 900};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int range = 1; range <= 3; range++) {
			const int *n = shapes[i];
			struct problem p = problem_of(
			    g, gpu_documents(g, lengths, g->small ? 5 : 7, range == 2 ? 5 : 0), n[0], n[1], n[2]);
			int64_t R = p.rows.at[CPU].count;
			p.q_values = whole_numbers(g, R * p.heads * p.dim, range);
			p.k_values = whole_numbers(g, p.rows.keys * p.dim, range);
			p.weights = whole_numbers(g, R * p.heads, range);
			place(g, &p);
			same_sets(g, &p, true);
			gpu_end_case(g);
		}
}

/* Keys drawn from few: equal keys have equal scores, so of each kind a selection holds the first ones, and of at most
 * one kind some and not all. At the published widths, where d is no power of 4. */
static void of_equal_keys_the_first_are_taken(struct gpu *g)
{
	static const int shapes[][4] = {
	    /* h, d, K, T */ {32, 128, 2048, 6000}, {64, 128, 2048, 5000}, {4, 32, 64, 700}, {3, 14, 7, 100}};
	enum { KINDS = 23 };
	for (size_t i = g->small ? 2 : 0; i < sizeof shapes / sizeof *shapes; i++) {
		const int *n = shapes[i], lengths[] = {n[3], n[2] + 1};
		struct problem p = problem_of(g, gpu_last_rows(g, lengths, 2, 60), n[0], n[1], n[2]);
		int64_t R = p.rows.at[CPU].count;
		float *kinds = gpu_values(g, KINDS, p.dim, 1, GPU_ACT),
		      *keys = gpu_host(g, (size_t)(p.rows.keys * p.dim) * sizeof *keys);
		int *kind = gpu_host(g, (size_t)p.rows.keys * sizeof *kind);
		for (int64_t s = 0; s < p.rows.keys; s++) {
			kind[s] = gpu_below(g, KINDS);
			memcpy(keys + s * p.dim, kinds + (int64_t)kind[s] * p.dim, (size_t)p.dim * sizeof *keys);
		}
		p.q_values = gpu_values(g, R, p.heads * p.dim, 1, GPU_ACT);
		p.weights = gpu_values(g, R, p.heads, 1, GPU_F32);
		p.k_values = keys;
		place(g, &p);
		struct answer a = ask(g, &p);
		for (int64_t row = 0; row < R; row++) {
			int left[KINDS] = {0}, taken[KINDS] = {0}, parted = 0;
			for (int s = 0, next = 0; s <= a.pos[row]; s++) {
				int of = kind[a.key0[row] + s];
				bool chosen = next < p.topk && a.gpu[row * p.topk + next] == s;
				next += chosen;
				if (chosen && left[of])
					fail_msg("row %lld takes position %d and leaves an equal one before it",
					         (long long)row, s);
				taken[of] += chosen, left[of] += !chosen;
			}
			/* Scores that no weight is positive for are all zero: kinds may tie. */
			for (int k = 0; k < KINDS; k++)
				parted += taken[k] && left[k];
			if (parted > 1 && p.heads > 8)
				fail_msg("row %lld takes part of %d kinds of keys", (long long)row, parted);
		}
		gpu_end_case(g);
	}
}

static float *constant(struct gpu *g, int64_t count, float x)
{
	float *values = gpu_host(g, (size_t)count * sizeof *values);
	for (int64_t i = 0; i < count; i++)
		values[i] = x;
	return values;
}

static void equal_scores_select_the_first_positions(struct gpu *g)
{
	static const int shapes[][4] = {/* h, d, K, T */ {3, 16, 20, 100},
	                                {1, 6, 13, 56},
	                                {4, 32, 64, 500},
	                                {32, 128, 2048, 9000},
	                                {64, 128, 2048, 40000}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 2 : 0); i++)
		for (int form = 0; form < 4; form++) {
			const int *n = shapes[i], lengths[] = {n[3], n[2] / 2 + 3};
			struct problem p = problem_of(g, gpu_last_rows(g, lengths, 2, 40), n[0], n[1], n[2]);
			int64_t R = p.rows.at[CPU].count;
			p.q_values = form == 1 ? constant(g, R * p.heads * p.dim, -1)
			                       : gpu_values(g, R, p.heads * p.dim, 1, GPU_ACT);
			/* All keys alike; every product negative; weights of -0; keys of ±0. */
			float *keys = constant(g, p.rows.keys * p.dim, 0.5f);
			for (int64_t j = 0; j < p.rows.keys * p.dim && form == 3; j++)
				keys[j] = gpu_below(g, 2) ? -0.0f : 0.0f;
			p.k_values = keys;
			p.weights = form == 2   ? constant(g, R * p.heads, -0.0f)
			            : form == 3 ? constant(g, R * p.heads, -1)
			                        : gpu_values(g, R, p.heads, 1, GPU_F32);
			place(g, &p);
			struct answer a = ask(g, &p);
			for (int64_t row = 0; row < R; row++)
				for (int m = 0; m < p.topk && m <= a.pos[row]; m++)
					if (a.gpu[row * p.topk + m] != m)
						fail_msg("form %d: row %lld has %d at place %d", form, (long long)row,
						         a.gpu[row * p.topk + m], m);
			gpu_end_case(g);
		}
}

/* Scores from 2^-120 to 2^120 of both signs, zeros and numbers without an exponent among them. */
static void scores_of_all_sizes_are_ordered(struct gpu *g)
{
	const int lengths[] = {240, 480};
	struct problem p = problem_of(g, gpu_documents(g, lengths, 2, 0), 2, 1, 50);
	int64_t R = p.rows.at[CPU].count;
	float *q = constant(g, R * 2, 1), *weights = constant(g, R * 2, 1), *keys = constant(g, p.rows.keys, 0);
	for (int64_t i = 0; i < R; i++)
		q[2 * i + 1] = weights[2 * i + 1] = -1; /* score = key */
	for (int64_t s = 0; s < p.rows.keys; s++)
		keys[s] = s % 17 == 5 ? 0 : (s % 2 ? 1.0f : -1.0f) * (float)ldexp(1, (int)(s * 97 % 240) - 120);
	keys[41] = 0x1p-130f;
	p.q_values = q, p.k_values = keys, p.weights = weights;
	place(g, &p);
	same_sets(g, &p, true);
}

static void nan_is_a_fault_reported_once(struct gpu *g)
{
	static const int shapes[][3] = {{3, 16, 7}, {4, 32, 64}, {32, 128, 64}};
	const int lengths[] = {60, 80};
	struct dsa_backend *be = g->be[GPU];
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int form = 0; form < 6; form++) {
			int place_of = form % 3;
			struct problem p =
			    problem_of(g, gpu_documents(g, lengths, 2, 0), shapes[i][0], shapes[i][1], shapes[i][2]);
			fill_random(g, &p);
			p.precision = form < 3 ? DSA_INDEX_ACT : DSA_INDEX_FP8;
			int64_t R = p.rows.at[CPU].count;
			/* Row 110 is position 50 of the second document, and its own key. */
			float *values = (float *)(place_of == 0 ? p.q_values : place_of == 1 ? p.k_values : p.weights);
			values[(int64_t)110 * (place_of == 0   ? p.heads * p.dim
			                       : place_of == 1 ? p.dim
			                                       : p.heads)] = NAN;
			place(g, &p);
			struct both out = gpu_poison(g, R, p.topk, GPU_F32, 0);
			OK(g, be->ops->select(be, out.at[GPU].data, p.topk, p.q.at[GPU], p.k.at[GPU], p.weight.at[GPU],
			                      p.heads, p.dim, p.precision, &p.rows.at[GPU], &g->err));
			assert_int_equal(be->ops->wait(be, &g->err), DSA_E_NUMERIC);
			if (!strstr(g->err.text, "NaN") || !strstr(g->err.text, "row 110"))
				fail_msg("the message names something else: %s", g->err.text);
			assert_int_equal(be->ops->wait(be, &g->err), DSA_OK);
			gpu_end_case(g);
		}
}

const struct check_test select_tests[] = {
    CHECK_TEST(selections_equal_the_cpu),
    CHECK_TEST(fp8_selections_equal_the_cpu),
    CHECK_TEST(fp8_ties_go_to_the_lower_position),
    CHECK_TEST(selections_of_published_models_equal_the_cpu),
    CHECK_TEST(exact_ties_go_to_the_lower_position),
    CHECK_TEST(of_equal_keys_the_first_are_taken),
    CHECK_TEST(equal_scores_select_the_first_positions),
    CHECK_TEST(scores_of_all_sizes_are_ordered),
    CHECK_TEST(nan_is_a_fault_reported_once),
    {NULL, NULL},
};
