#include "gpu_fixture.h"

/* Attention over selected positions. */

/* Some min(K, t + 1) positions of 0 … t, ascending, the last of them t itself. */
static void draw(struct gpu *g, int32_t *out, int topk, int t)
{
	int need = t + 1 < topk ? t + 1 : topk, n = 0;
	for (int s = 0; s <= t && n < need; s++)
		if (gpu_below(g, t + 1 - s) < need - n)
			out[n++] = s;
	while (n < topk)
		out[n++] = -1;
}

static void check(struct gpu *g, struct both_rows rows, int heads, int latent, int r, int topk, float sharp)
{
	int64_t R = rows.at[CPU].count;
	gpu_reserve(g, (struct dsa_backend_limits){.rows = R,
	                                           .keys = rows.keys,
	                                           .heads = heads,
	                                           .latent = latent,
	                                           .rope = r,
	                                           .topk = topk,
	                                           .max_context = rows.at[CPU].max_pos + 1});
	const int32_t *pos = gpu_download(g, g->be[CPU], rows.at[CPU].pos, (size_t)R * sizeof *pos);
	int32_t *selection = gpu_host(g, (size_t)R * (size_t)topk * sizeof *selection);
	for (int64_t i = 0; i < R; i++)
		draw(g, selection + i * topk, topk, pos[i]);
	struct both_ints at = gpu_ints(g, selection, R * topk);
	struct both q = gpu_tensor(g, R, heads * (latent + r), sharp, GPU_ACT, 0),
		    keys = gpu_tensor(g, rows.keys, latent + r, 1, GPU_ACT, 0);
	struct both out = gpu_poison(g, R, heads * latent, GPU_ACT, 0);
	BOTH(g, attention, out.at[s], q.at[s], keys.at[s], at.at[s], topk, heads, latent, r,
	     1 / sqrtf((float)(latent + r)), &rows.at[s]);
	assert_same(g, out, gpu_product, "attention: %d heads, c %d, r %d, K %d, queries up to %g", heads, latent, r,
	            topk, (double)sharp);
	gpu_end_case(g);
}

/* Flat and sharp distributions: mean over everything, a few positions, one position. */
static const float sharpness[] = {1, 6, 60};

static void attention_of_small_models_equals_the_cpu(struct gpu *g)
{
	static const int shapes[][4] = {/* H, c, r, K */ {5, 14, 6, 7},
	                                {7, 14, 12, 7},
	                                {3, 14, 6, 7},
	                                {5, 14, 10, 5},
	                                {5, 14, 8, 7},
	                                {5, 14, 6, 13},
	                                {8, 64, 16, 64},
	                                {1, 1, 2, 1},
	                                {9, 33, 4, 17},
	                                {16, 128, 32, 100},
	                                {20, 512, 64, 256}};
	static const int lengths[] = {1, 200, 17, 64, 129, 500};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 1 : 0); i++)
		for (int k = 0; k < 3; k++) {
			const int *n = shapes[i];
			check(g, gpu_documents(g, lengths, g->small ? 3 : 6, i % 2 && !g->small ? 16 : 0), n[0], n[1],
			      n[2], n[3], sharpness[k]);
		}
}

static void attention_of_published_models_equals_the_cpu(struct gpu *g)
{
	/* Rows that have less than K, just K, and far more. */
	const int lengths[] = {30, 2048, 2100, 20000};
	for (int k = 0; k < 3; k++)
		for (int heads = 64; heads <= 128; heads *= 2)
			check(g, gpu_last_rows(g, lengths, g->small ? 1 : 4, g->small ? 3 : 25), heads, 512, 64, 2048,
			      sharpness[k]);
}

const struct check_test attention_tests[] = {
    CHECK_TEST(attention_of_small_models_equals_the_cpu),
    CHECK_TEST(attention_of_published_models_equals_the_cpu),
    {NULL, NULL},
};
