#include "gpu_fixture.h"

/* What is measured: figures of rows against the base, overlap of selections. */

enum { CANDIDATES = 4 };

/* Rows where the two best logits are as good as equal may name either. */
static bool near_tie(const float *logits, int V)
{
	double first = -INFINITY, second = -INFINITY;
	for (int v = 0; v < V; v++) {
		double x = (double)logits[v];
		if (x > first)
			second = first, first = x;
		else if (x > second)
			second = x;
	}
	return first - second < 1e-5 * fmax(fabs(first), 1);
}

static void same_figure(const struct dsa_row_figures *got, const struct dsa_row_figures *want, bool tie, int c, int row)
{
	assert_int_equal(got->finite, want->finite);
	if (!want->finite)
		return;
	if (!(fabs(got->kl - want->kl) <= 1e-3 * want->kl + 1e-9))
		fail_msg("candidate %d row %d: KL %.9g, expected %.9g", c, row, got->kl, want->kl);
	/* A logit is a float32 sum of thousands of products in another order: 1e-5 of its size. */
	double near = 3e-5 + 1e-5 * fmax(want->nll_base, want->nll);
	if (!(fabs(got->nll_base - want->nll_base) <= near) || !(fabs(got->nll - want->nll) <= near))
		fail_msg("candidate %d row %d: NLL %.9g and %.9g, expected %.9g and %.9g", c, row, got->nll_base,
		         got->nll, want->nll_base, want->nll);
	if (got->top1 != want->top1 && !tie)
		fail_msg("candidate %d row %d: top1 is %d, expected %d", c, row, got->top1, want->top1);
}

struct comparison {
	struct both base, candidates[CANDIDATES], head;
	struct both_ints target;
};

static struct comparison make_comparison(struct gpu *g, int M, int V, int D, int bad_row)
{
	static const float moved[CANDIDATES] = {0, 0.02f, 0.3f, 2}; /* the first is the base again */
	struct comparison k;
	float *base = gpu_values(g, M, D, 1, GPU_ACT);
	int32_t *target = gpu_host(g, (size_t)M * sizeof *target);
	gpu_reserve(g, (struct dsa_backend_limits){.rows = M, .hidden = D, .vocab = V});
	for (int i = 0; i < M; i++)
		target[i] = gpu_below(g, V);
	k.target = gpu_ints(g, target, M);
	/* Logits of about ±3. */
	k.head = gpu_tensor(g, V, D, 9 / sqrtf((float)D), GPU_WEIGHT, 0);
	k.base = gpu_put(g, base, M, D, GPU_ACT, 0);
	for (int c = 0; c < CANDIDATES; c++) {
		float *x = gpu_values(g, M, D, moved[c], GPU_ACT);
		for (int64_t j = 0; j < (int64_t)M * D; j++)
			x[j] = g->be[GPU]->act == DSA_BF16 ? gpu_bf16(base[j] + x[j]) : base[j] + x[j];
		if (c == 2 && bad_row >= 0)
			x[(int64_t)bad_row * D] = INFINITY;
		k.candidates[c] = gpu_put(g, x, M, D, GPU_ACT, 0);
	}
	return k;
}

static void figures_equal_the_cpu(struct gpu *g)
{
	static const int sizes[][3] = {/* M, V, D */ {40, 101, 40},
	                               {33, 97, 40},
	                               {1, 1, 1},
	                               {70, 2048, 256},
	                               {1, 2048, 256},
	                               {700, 2048, 256},
	                               {130, 3001, 333},
	                               {1500, 4096, 64},
	                               {20, 154880, 6144},
	                               {300, 129280, 256}};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		int M = sizes[i][0], V = sizes[i][1], D = sizes[i][2];
		if (g->small && (M > 100 || V > 4096))
			continue;
		struct comparison k = make_comparison(g, M, V, D, i % 2 ? M / 2 : -1);
		struct dsa_row_figures *figures[2];
		struct both logits[2] = {gpu_poison(g, M, V, GPU_F32, 0), gpu_poison(g, M, V, GPU_F32, 0)};
		for (int s = CPU; s <= GPU; s++) {
			size_t bytes = (size_t)(CANDIDATES * M) * sizeof **figures;
			figures[s] = gpu_host(g, bytes);
			memset(figures[s], 0xff, bytes);
		}
		struct dsa_tensor candidates[2][CANDIDATES];
		for (int c = 0; c < CANDIDATES; c++)
			for (int s = CPU; s <= GPU; s++)
				candidates[s][c] = k.candidates[c].at[s];
		BOTH(g, compare, figures[s], k.base.at[s], candidates[s], CANDIDATES, k.head.at[s], k.target.at[s]);
		OK(g, g->be[CPU]->ops->logits(g->be[CPU], logits[0].at[CPU], k.base.at[CPU], k.head.at[CPU], &g->err));
		const float *base = gpu_fetch(g, g->be[CPU], logits[0].at[CPU]);
		for (int c = 0; c < CANDIDATES; c++) {
			OK(g, g->be[CPU]->ops->logits(g->be[CPU], logits[1].at[CPU], k.candidates[c].at[CPU],
			                              k.head.at[CPU], &g->err));
			const float *other = gpu_fetch(g, g->be[CPU], logits[1].at[CPU]);
			for (int row = 0; row < M; row++) {
				const struct dsa_row_figures *got = &figures[GPU][c * M + row];
				bool tie =
				    near_tie(base + (int64_t)row * V, V) || near_tie(other + (int64_t)row * V, V);
				same_figure(got, &figures[CPU][c * M + row], tie, c, row);
				if (c == 0 && (got->kl != 0 || got->top1 != 1))
					fail_msg("row %d against itself: KL %.9g, top1 %d", row, got->kl, got->top1);
			}
		}
		gpu_end_case(g);
	}
}

/* Equal logits everywhere: the lowest index is the arg max of both. */
static void top1_of_equal_logits_is_the_lowest(struct gpu *g)
{
	enum { M = 9, V = 300, D = 32 };
	struct dsa_row_figures figures[M];
	gpu_reserve(g, (struct dsa_backend_limits){.rows = M, .hidden = D, .vocab = V});
	float *head = gpu_values(g, V, D, 1, GPU_WEIGHT), *x = gpu_values(g, M, D, 1, GPU_ACT),
	      *y = gpu_host(g, M * D * sizeof *y);
	/* Rows 7, 100 and 250 of the head are the best for x; of y, 100 alone: the same direction, but 7 and 250 differ
	 * in the last dimension, which x lacks. */
	for (int v = 0; v < V; v++) {
		for (int j = 0; j < D; j++)
			head[v * D + j] =
			    v == 7 || v == 100 || v == 250 ? (j == D - 1 ? (v == 100 ? 1 : 0) : 1) : -0.5f;
	}
	for (int i = 0; i < M; i++)
		for (int j = 0; j < D; j++) {
			x[i * D + j] = j == D - 1 ? 0 : 1;
			y[i * D + j] = j == D - 1 && i % 2 == 0 ? 0 : 1;
		}
	int32_t target[M] = {0};
	struct both base = gpu_put(g, x, M, D, GPU_ACT, 0), other = gpu_put(g, y, M, D, GPU_ACT, 0),
		    w = gpu_put(g, head, V, D, GPU_WEIGHT, 0);
	struct both_ints at = gpu_ints(g, target, M);
	memset(figures, 0xff, sizeof figures);
	OK(g, g->be[GPU]->ops->compare(g->be[GPU], figures, base.at[GPU], &other.at[GPU], 1, w.at[GPU], at.at[GPU],
	                               &g->err));
	for (int i = 0; i < M; i++)
		assert_int_equal(figures[i].top1, i % 2 == 0);
}

static void overlap_counts_equal_the_cpu(struct gpu *g)
{
	static const int shapes[][4] = {/* layers, K, rows, T */ {4, 7, 50, 40},
	                                {16, 64, 400, 600},
	                                {1, 5, 3, 9},
	                                {3, 13, 301, 1000},
	                                {78, 2048, 12, 5000},
	                                {8, 2048, 60, 65536}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 2 : 0); i++) {
		int L = shapes[i][0], K = shapes[i][1], R = shapes[i][2], T = shapes[i][3];
		const int32_t *selections[2][128];
		int64_t *counts[2];
		gpu_reserve(g, (struct dsa_backend_limits){.rows = R, .layers = L, .topk = K, .max_context = T});
		for (int l = 0; l < L; l++) {
			int32_t *values = gpu_host(g, (size_t)(R * K) * sizeof *values);
			for (int r = 0; r < R; r++) {
				/* Some rows see fewer than K positions. */
				int t = r % 5 ? gpu_below(g, T) : gpu_below(g, K), need = t + 1 < K ? t + 1 : K, n = 0;
				for (int at = 0; at <= t && n < need; at++)
					if (gpu_below(g, t + 1 - at) < need - n)
						values[r * K + n++] = at;
				while (n < K)
					values[r * K + n++] = -1;
			}
			struct both_ints at = gpu_ints(g, values, (int64_t)R * K);
			for (int s = CPU; s <= GPU; s++)
				selections[s][l] = at.at[s];
		}
		for (int s = CPU; s <= GPU; s++) {
			counts[s] = gpu_host(g, (size_t)(L * L) * sizeof **counts);
			for (int j = 0; j < L * L; j++)
				counts[s][j] = 1000 * j; /* added to */
		}
		BOTH(g, overlap, counts[s], selections[s], L, K, R);
		for (int j = 0; j < L * L; j++)
			assert_int_equal(counts[GPU][j], counts[CPU][j]);
		gpu_end_case(g);
	}
}

const struct check_test figures_tests[] = {
    CHECK_TEST(figures_equal_the_cpu),
    CHECK_TEST(top1_of_equal_logits_is_the_lowest),
    CHECK_TEST(overlap_counts_equal_the_cpu),
    {NULL, NULL},
};
