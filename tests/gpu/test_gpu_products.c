#include "gpu_fixture.h"

/* Products with weights: linear, head_linear, logits. */

struct shape {
	int rows, width, in; /* R, N, M */
	int forms;           /* which of the forms below, as bits */
	bool large;
};

enum { TO_ACT = 1, TO_F32 = 2, ADDED = 4, BIASED = 8, SPACED = 16, FLOAT_WEIGHT = 32 };

static const struct shape shapes[] = {
    /* tiny goldens: nothing a multiple of anything */
    {40, 22, 40, 31, false},
    {41, 80, 22, 31, false},
    {40, 20, 40, 31, false},
    {39, 40, 45, 31, false},
    {43, 3, 40, 2, false},
    {43, 6, 40, 34, false},
    {1, 1, 1, 31, false},
    {17, 9, 14, 31, false},
    {129, 131, 133, 31, false},
    /* the demo */
    {600, 128, 256, 31, false},
    {601, 384, 128, 1, false},
    {257, 80, 256, 9, false},
    {1000, 256, 256, 12, false},
    {577, 1536, 256, 1, false},
    {577, 256, 768, 4, false},
    {300, 192, 256, 1, false},
    {300, 256, 96, 4, false},
    {300, 8, 256, 34, false},
    {300, 4, 256, 2, false},
    /* GLM-5 and DeepSeek-V3.2 */
    {130, 2048, 6144, 1, true},
    {67, 16384, 2048, 1, true},
    {129, 576, 6144, 9, true},
    {100, 6144, 16384, 12, true},
    {128, 4096, 2048, 1, true},
    {300, 128, 6144, 1, true},
    {300, 32, 6144, 2, true},
    {300, 256, 6144, 34, true},
    {65, 24576, 6144, 1, true},
    {65, 6144, 12288, 4, true},
    {33, 1536, 7168, 1, true},
    {33, 24576, 1536, 1, true},
    {33, 7168, 16384, 4, true},
    {300, 256, 7168, 34, true},
};

static void linear_form(struct gpu *g, const struct shape *shape, int form)
{
	bool f32 = form & (TO_F32 | ADDED), exact = form & FLOAT_WEIGHT;
	int R = shape->rows, N = shape->width, pad = form & SPACED ? 5 : 0;
	struct both x = gpu_tensor(g, R, shape->in, 1, GPU_ACT, pad);
	struct both w = gpu_tensor(g, N, shape->in, 1, exact ? GPU_F32 : GPU_WEIGHT, 0);
	struct both bias = form & BIASED ? gpu_tensor(g, 1, N, 2, GPU_F32, 0) : gpu_none();
	struct both out =
	    form & ADDED ? gpu_tensor(g, R, N, 20, GPU_F32, pad) : gpu_poison(g, R, N, f32 ? GPU_F32 : GPU_ACT, pad);
	BOTH(g, linear, out.at[s], x.at[s], w.at[s], bias.at[s], (form & ADDED) != 0);
	assert_same(g, out,
	            exact ? gpu_float
	            : f32 ? gpu_sum
	                  : gpu_product,
	            "linear %d × %d × %d, form %d", R, N, shape->in, form);
	gpu_end_case(g);
}

static void products_with_weights_equal_the_cpu(struct gpu *g)
{
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const struct shape *shape = &shapes[i];
		if (g->small && (shape->large || shape->rows > 300))
			continue;
		gpu_reserve(g, (struct dsa_backend_limits){.rows = shape->rows,
		                                           .hidden = shape->in,
		                                           .experts = shape->width,
		                                           .index_heads = shape->width});
		if (shape->forms & FLOAT_WEIGHT)
			linear_form(g, shape, TO_F32 | FLOAT_WEIGHT);
		if (shape->forms & TO_ACT)
			linear_form(g, shape, TO_ACT);
		if (shape->forms & TO_F32 && !(shape->forms & FLOAT_WEIGHT))
			linear_form(g, shape, TO_F32);
		if (shape->forms & ADDED) {
			linear_form(g, shape, ADDED);
			if (shape->forms & BIASED)
				linear_form(g, shape, ADDED | BIASED);
		}
		if (shape->forms & BIASED)
			linear_form(g, shape, TO_ACT | BIASED);
		if (shape->forms & SPACED) {
			linear_form(g, shape, TO_ACT | SPACED);
			linear_form(g, shape, ADDED | BIASED | SPACED);
		}
	}
}

/* Queries into latent space and values out of it: W_UK and W_UV of one kv_b. */
static void products_per_head_equal_the_cpu(struct gpu *g)
{
	static const int models[][6] = {/* R, H, n, r, v, c */ {40, 5, 10, 6, 9, 14},
	                                {41, 7, 10, 12, 9, 14},
	                                {47, 3, 10, 6, 9, 14},
	                                {1, 1, 1, 2, 1, 1},
	                                {600, 8, 32, 16, 32, 64},
	                                {130, 64, 192, 64, 256, 512},
	                                {70, 128, 128, 64, 128, 512}};
	for (size_t i = 0; i < sizeof models / sizeof *models - (g->small ? 3 : 0); i++) {
		int R = models[i][0], H = models[i][1], n = models[i][2], r = models[i][3], v = models[i][4],
		    c = models[i][5];
		int64_t per_head = (int64_t)(n + v) * c;
		gpu_reserve(g, (struct dsa_backend_limits){
				   .rows = R, .hidden = H * (n + r), .heads = H, .latent = c, .rope = r});
		struct both kv_b = gpu_tensor(g, (int64_t)H * (n + v), c, 1, GPU_WEIGHT, 0);
		struct both q = gpu_tensor(g, R, H * (n + r), 1, GPU_ACT, 0),
			    absorbed = gpu_tensor(g, R, H * (c + r), 1, GPU_ACT, 0);
		BOTH(g, head_linear, absorbed.at[s], c + r, q.at[s], n + r, kv_b.at[s], per_head, H, n, c, false);
		assert_same(g, absorbed, gpu_product, "head_linear to latents, model %d", (int)i);
		struct both mixed = gpu_tensor(g, R, H * c, 1, GPU_ACT, 0),
			    values = gpu_poison(g, R, H * v, GPU_ACT, 0);
		struct both w_uv = gpu_rows_of(kv_b, n, (int64_t)H * (n + v) - n);
		BOTH(g, head_linear, values.at[s], v, mixed.at[s], c, w_uv.at[s], per_head, H, c, v, true);
		assert_same(g, values, gpu_product, "head_linear from latents, model %d", (int)i);
		gpu_end_case(g);
	}
}

static void logits_equal_the_cpu(struct gpu *g)
{
	static const int sizes[][3] = {
	    /* M, V, D */ {40, 101, 40}, {47, 97, 40}, {1, 2048, 256}, {333, 2048, 256}, {5, 154880, 6144}};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes - (g->small ? 2 : 0); i++) {
		int M = sizes[i][0], V = sizes[i][1], D = sizes[i][2];
		gpu_reserve(g, (struct dsa_backend_limits){.rows = M, .hidden = D, .vocab = V});
		struct both x = gpu_tensor(g, M, D, 1, GPU_ACT, 0), head = gpu_tensor(g, V, D, 1, GPU_WEIGHT, 0),
			    out = gpu_poison(g, M, V, GPU_F32, 0);
		BOTH(g, logits, out.at[s], x.at[s], head.at[s]);
		assert_same(g, out, gpu_sum, "logits %d × %d × %d", M, V, D);
		gpu_end_case(g);
	}
}

const struct check_test products_tests[] = {
    CHECK_TEST(products_with_weights_equal_the_cpu),
    CHECK_TEST(products_per_head_equal_the_cpu),
    CHECK_TEST(logits_equal_the_cpu),
    {NULL, NULL},
};
