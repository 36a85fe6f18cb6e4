#include "gpu_fixture.h"

/* A row's bits on the GPU are its own: every operator that computes, called with few rows and with many, at moving
 * places. The operators that only move data are compared bit for bit with the CPU (test_gpu_rows.c). */

enum { ROWS = 4096, SMALL_ROWS = 150, COUNTS = 10 };
static const int some_counts[COUNTS] = {1, 2, 3, 17, 64, 127, 128, 129, 1000, ROWS};

/* Every size of tile and its neighbours, and what lies between. */
static const int many_counts[] = {1,   2,   3,   4,   5,    7,    8,    9,    15,   16,   17,   24,  31,
                                  32,  33,  47,  48,  63,   64,   65,   80,   95,   96,   97,   120, 127,
                                  128, 129, 160, 191, 192,  193,  255,  256,  257,  320,  383,  384, 385,
                                  511, 512, 513, 777, 1000, 1023, 1025, 1536, 2047, 2049, 3333, ROWS};

/* Runs rows [first, first + count) of a problem into out, on the GPU. */
typedef void run_rows(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out);

static int64_t all_rows(const struct gpu *g)
{
	return g->small ? SMALL_ROWS : ROWS;
}

static void rows_are_independent(struct gpu *g, run_rows *run, const void *problem, int64_t rows, size_t row_bytes,
                                 const int *counts, size_t different, const char *what)
{
	struct dsa_backend *be = g->be[GPU];
	size_t bytes = (size_t)rows * row_bytes;
	char *whole = gpu_host(g, bytes), *part = gpu_host(g, bytes), *out = gpu_device(g, be, bytes);
	memset(whole, 0xff, bytes);
	OK(g, be->ops->upload(be, out, whole, bytes, &g->err));
	OK(g, be->ops->wait(be, &g->err));
	run(g, problem, 0, rows, out);
	OK(g, be->ops->download(be, whole, out, bytes, &g->err));
	OK(g, be->ops->wait(be, &g->err));
	for (size_t i = 0; i < different; i++) {
		int64_t count = counts[i] < rows ? counts[i] : rows;
		int64_t first = gpu_below(g, (int)(rows - count + 1));
		if (g->small && i % 4)
			continue;
		size_t some = (size_t)count * row_bytes;
		memset(part, 0xff, some);
		OK(g, be->ops->upload(be, out, part, some, &g->err));
		OK(g, be->ops->wait(be, &g->err));
		run(g, problem, first, count, out);
		OK(g, be->ops->download(be, part, out, some, &g->err));
		OK(g, be->ops->wait(be, &g->err));
		for (int64_t row = 0; row < count; row++)
			if (memcmp(part + (size_t)row * row_bytes, whole + (size_t)(first + row) * row_bytes,
			           row_bytes) != 0)
				fail_msg("%s: row %lld has other bits among %lld rows from %lld than among all %lld",
				         what, (long long)(first + row), (long long)count, (long long)first,
				         (long long)rows);
	}
	gpu_end_case(g);
}

static void some_rows_are_independent(struct gpu *g, run_rows *run, const void *problem, int64_t rows, size_t row_bytes,
                                      const char *what)
{
	rows_are_independent(g, run, problem, rows, row_bytes, some_counts, COUNTS, what);
}

/* Rows of a tensor's device memory onto another place there. */
static void copy_rows(struct gpu *g, void *out, struct dsa_tensor t)
{
	struct dsa_backend *be = g->be[GPU];
	OK(g, be->ops->copy(be, out, t.data, (size_t)(t.rows * t.stride) * dsa_dtype_bytes(t.dtype), &g->err));
}

static size_t act_bytes(const struct gpu *g, int cols)
{
	return (size_t)cols * dsa_dtype_bytes(g->be[GPU]->act);
}

struct product {
	struct dsa_tensor x, w, start; /* start: what is added to, or no data */
	bool logits, act;
};

static void run_product(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct product *p = problem;
	struct dsa_backend *be = g->be[GPU];
	struct dsa_tensor to = dsa_tensor_make(out, p->act ? be->act : DSA_F32, count, (int)p->w.rows);
	struct dsa_tensor x = dsa_tensor_rows(p->x, first, count);
	if (p->start.data)
		copy_rows(g, out, dsa_tensor_rows(p->start, first, count));
	if (p->logits)
		OK(g, be->ops->logits(be, to, x, p->w, &g->err));
	else
		OK(g, be->ops->linear(be, to, x, p->w, (struct dsa_tensor){0}, p->start.data != NULL, &g->err));
}

/* Each (N, K) of the demo, of GLM-5 and of a tiny model, as the forward pass asks for it. */
static void products_do_not_depend_on_other_rows(struct gpu *g)
{
	enum { ACT, F32, ADDED, EXACT, LOGITS };
	static const int shapes[][3] = {
	    {128, 256, ACT},    {384, 128, ACT},      {80, 256, ACT},       {256, 256, ADDED}, {128, 128, ACT},
	    {32, 256, ACT},     {4, 256, F32},        {8, 256, EXACT},      {1536, 256, ACT},  {256, 768, ADDED},
	    {192, 256, ACT},    {256, 96, ADDED},     {2048, 256, LOGITS},  {22, 40, ACT},     {80, 22, ACT},
	    {40, 45, ADDED},    {101, 40, LOGITS},    {3, 40, F32},         {2048, 6144, ACT}, {16384, 2048, ACT},
	    {576, 6144, ACT},   {6144, 16384, ADDED}, {4096, 2048, ACT},    {128, 6144, ACT},  {32, 6144, F32},
	    {256, 6144, EXACT}, {24576, 6144, ACT},   {6144, 12288, ADDED}, {4096, 6144, ACT}, {6144, 2048, ADDED},
	};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		int N = shapes[i][0], K = shapes[i][1], form = shapes[i][2];
		int64_t rows = all_rows(g);
		char what[64];
		if (g->small && N * K > 100000)
			continue;
		snprintf(what, sizeof what, "product %d × %d", N, K);
		gpu_reserve(g, (struct dsa_backend_limits){
				   .rows = rows, .hidden = K, .experts = N, .index_heads = N, .vocab = N});
		struct product p = {.logits = form == LOGITS, .act = form == ACT};
		p.x = gpu_alone(g, rows, K, 1, GPU_ACT);
		p.w = gpu_alone(g, N, K, 1, form == EXACT ? GPU_F32 : GPU_WEIGHT);
		if (form == ADDED)
			p.start = gpu_alone(g, rows, N, 1, GPU_F32);
		rows_are_independent(g, run_product, &p, rows, p.act ? act_bytes(g, N) : (size_t)N * sizeof(float),
		                     many_counts, sizeof many_counts / sizeof *many_counts, what);
	}
	if (g->small)
		return;
	/* The head: 154880 logits a row. */
	static const int counts[] = {1, 2, 3, 16, 17, 64, 65, 127, 128, 129, 200};
	struct product head = {.logits = true};
	gpu_reserve(g, (struct dsa_backend_limits){.rows = 300, .hidden = 6144, .vocab = 154880});
	head.x = gpu_alone(g, 300, 6144, 1, GPU_ACT);
	head.w = gpu_alone(g, 154880, 6144, 1, GPU_WEIGHT);
	rows_are_independent(g, run_product, &head, 300, 154880 * sizeof(float), counts, sizeof counts / sizeof *counts,
	                     "the head");
}

struct heads {
	struct dsa_tensor x, w;
	int heads, in, width, x_head;
	int64_t w_head;
	bool transposed;
};

static void run_heads(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct heads *p = problem;
	struct dsa_backend *be = g->be[GPU];
	OK(g, be->ops->head_linear(be, dsa_tensor_make(out, be->act, count, p->heads * p->width), p->width,
	                           dsa_tensor_rows(p->x, first, count), p->x_head, p->w, p->w_head, p->heads, p->in,
	                           p->width, p->transposed, &g->err));
}

static void products_per_head_do_not_depend_on_other_rows(struct gpu *g)
{
	static const int models[][5] = {
	    /* H, n, r, v, c */ {5, 10, 6, 9, 14}, {8, 32, 16, 32, 64}, {16, 192, 64, 256, 512}};
	for (size_t i = 0; i < sizeof models / sizeof *models - (g->small ? 1 : 0); i++)
		for (int out = 0; out < 2; out++) {
			int H = models[i][0], n = models[i][1], r = models[i][2], v = models[i][3], c = models[i][4];
			int64_t rows = all_rows(g);
			gpu_reserve(g, (struct dsa_backend_limits){
					   .rows = rows, .hidden = H * (n + r), .heads = H, .latent = c, .rope = r});
			struct heads p = {.heads = H, .w_head = (int64_t)(n + v) * c, .transposed = out};
			p.in = out ? c : n, p.width = out ? v : c, p.x_head = out ? c : n + r;
			p.x = gpu_alone(g, rows, H * p.x_head, 1, GPU_ACT);
			p.w = dsa_tensor_rows(gpu_alone(g, (int64_t)H * (n + v), c, 1, GPU_WEIGHT), out ? n : 0,
			                      (int64_t)H * (n + v) - (out ? n : 0));
			some_rows_are_independent(g, run_heads, &p, rows, act_bytes(g, H * p.width), "head_linear");
		}
}

struct rowwise {
	struct dsa_tensor x, weight, bias, cos;
	struct dsa_rows rows;
	const int32_t *ids;
	int form, width;
};
enum { RMSNORM, LAYERNORM, ROPE, SILU, EMBED };

static void run_rowwise(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct rowwise *p = problem;
	struct dsa_backend *be = g->be[GPU];
	struct dsa_tensor to = dsa_tensor_make(out, p->form == EMBED ? DSA_F32 : be->act, count, p->width);
	struct dsa_tensor x = p->form == EMBED ? p->x : dsa_tensor_rows(p->x, first, count);
	struct dsa_rows rows = p->rows.count ? gpu_some_rows(p->rows, first, count) : p->rows;
	if (p->form == RMSNORM)
		OK(g, be->ops->rmsnorm(be, to, x, p->weight, 1e-5f, &g->err));
	else if (p->form == LAYERNORM)
		OK(g, be->ops->layernorm(be, to, x, p->weight, p->bias, 1e-5f, &g->err));
	else if (p->form == SILU)
		OK(g, be->ops->silu_mul(be, to, x, &g->err));
	else if (p->form == EMBED)
		OK(g, be->ops->embed(be, to, x, p->ids + first, &rows, 77, &g->err));
	else {
		copy_rows(g, out, x);
		OK(g, be->ops->rope(be, to, &rows, p->width / 16, 16, 0, 16, DSA_ROPE_INTERLEAVED, p->cos.data,
		                    p->cos.data, &g->err));
	}
}

static void rowwise_operators_do_not_depend_on_other_rows(struct gpu *g)
{
	static const int widths[] = {40, 256, 6144};
	for (size_t i = 0; i < sizeof widths / sizeof *widths - (g->small ? 1 : 0); i++)
		for (int form = RMSNORM; form <= EMBED; form++) {
			int64_t rows = all_rows(g);
			int D = form == ROPE ? widths[i] / 16 * 16 : widths[i];
			const int lengths[] = {(int)rows / 3, (int)rows - (int)rows / 3};
			struct both_rows documents = gpu_documents(g, lengths, 2, 0);
			int32_t *ids = gpu_host(g, (size_t)rows * sizeof *ids);
			for (int64_t j = 0; j < rows; j++)
				ids[j] = gpu_below(g, 500);
			struct rowwise p = {
			    .form = form, .width = D, .rows = documents.at[GPU], .ids = gpu_ints(g, ids, rows).at[GPU]};
			p.x = form == EMBED ? gpu_alone(g, 500, D, 1, GPU_WEIGHT)
			                    : gpu_alone(g, rows, form == SILU ? 2 * D : D, 1,
			                                form == RMSNORM ? GPU_F32 : GPU_ACT);
			p.weight = gpu_alone(g, 1, D, 1, GPU_F32);
			p.bias = gpu_alone(g, 1, D, 1, GPU_F32);
			p.cos = gpu_alone(g, rows, 8, 1, GPU_F32);
			some_rows_are_independent(g, run_rowwise, &p, rows,
			                          form == EMBED ? (size_t)D * sizeof(float) : act_bytes(g, D),
			                          "a row by row operator");
		}
}

struct indexer {
	struct dsa_tensor q, k, weight;
	struct dsa_rows rows;
	int heads, dim, topk;
	enum dsa_index_precision precision;
};

static void run_select(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct indexer *p = problem;
	struct dsa_backend *be = g->be[GPU];
	struct dsa_rows rows = gpu_some_rows(p->rows, first, count);
	OK(g,
	   be->ops->select(be, out, p->topk, dsa_tensor_rows(p->q, first, count), p->k,
	                   dsa_tensor_rows(p->weight, first, count), p->heads, p->dim, p->precision, &rows, &g->err));
}

/* Documents of lengths that no tile divides, which sum to `rows`. */
static struct dsa_rows documents_of(struct gpu *g, int64_t rows, int64_t *keys)
{
	const int lengths[] = {(int)rows / 2 + 1, 3, (int)rows / 5, 1, (int)rows - (int)rows / 2 - (int)rows / 5 - 5};
	struct both_rows documents = gpu_documents(g, lengths, 5, 0);
	*keys = documents.keys;
	assert_int_equal(documents.at[GPU].count, rows);
	return documents.at[GPU];
}

static void selections_do_not_depend_on_other_rows(struct gpu *g)
{
	static const int shapes[][3] = {{3, 14, 7}, {4, 32, 64}, {32, 128, 256}, {64, 128, 1024}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 1 : 0); i++) {
		int64_t rows = all_rows(g), keys;
		struct indexer p = {.heads = shapes[i][0], .dim = shapes[i][1], .topk = shapes[i][2]};
		p.rows = documents_of(g, rows, &keys);
		gpu_reserve(g, (struct dsa_backend_limits){.rows = rows,
		                                           .keys = keys,
		                                           .topk = p.topk,
		                                           .index_heads = p.heads,
		                                           .index_dim = p.dim,
		                                           .max_context = p.rows.max_pos + 1,
		                                           .index_precision = DSA_INDEX_FP8});
		p.q = gpu_alone(g, rows, p.heads * p.dim, 1, GPU_ACT);
		p.k = gpu_alone(g, keys, p.dim, 1, GPU_ACT);
		p.weight = gpu_alone(g, rows, p.heads, 1, GPU_F32);
		p.precision = i % 2 ? DSA_INDEX_FP8 : DSA_INDEX_ACT;
		some_rows_are_independent(g, run_select, &p, rows, (size_t)p.topk * sizeof(int32_t), "select");
	}
}

struct attention {
	struct dsa_tensor q, keys;
	const int32_t *selection;
	struct dsa_rows rows;
	int heads, latent, r, topk;
};

static void run_attention(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct attention *p = problem;
	struct dsa_backend *be = g->be[GPU];
	struct dsa_rows rows = gpu_some_rows(p->rows, first, count);
	OK(g, be->ops->attention(be, dsa_tensor_make(out, be->act, count, p->heads * p->latent),
	                         dsa_tensor_rows(p->q, first, count), p->keys, p->selection + first * p->topk, p->topk,
	                         p->heads, p->latent, p->r, 0.1f, &rows, &g->err));
}

static void attention_does_not_depend_on_other_rows(struct gpu *g)
{
	static const int shapes[][4] = {{5, 14, 6, 7}, {8, 64, 16, 64}, {64, 512, 64, 512}, {128, 512, 64, 256}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 1 : 0); i++) {
		int64_t rows = i > 1 && !g->small ? ROWS / 2 : all_rows(g), keys;
		struct attention p = {
		    .heads = shapes[i][0], .latent = shapes[i][1], .r = shapes[i][2], .topk = shapes[i][3]};
		p.rows = documents_of(g, rows, &keys);
		gpu_reserve(g, (struct dsa_backend_limits){.rows = rows,
		                                           .keys = keys,
		                                           .heads = p.heads,
		                                           .latent = p.latent,
		                                           .rope = p.r,
		                                           .topk = p.topk,
		                                           .max_context = p.rows.max_pos + 1});
		const int32_t *pos = gpu_download(g, g->be[GPU], p.rows.pos, (size_t)rows * sizeof *pos);
		int32_t *selection = gpu_host(g, (size_t)rows * (size_t)p.topk * sizeof *selection);
		for (int64_t row = 0; row < rows; row++)
			for (int n = 0; n < p.topk; n++) /* spread over what the row may see */
				selection[row * p.topk + n] = n > pos[row] ? -1
				                              : pos[row] < p.topk
				                                  ? n
				                                  : (int32_t)((int64_t)n * (pos[row] + 1) / p.topk);
		p.selection = gpu_ints(g, selection, rows * p.topk).at[GPU];
		p.q = gpu_alone(g, rows, p.heads * (p.latent + p.r), 1, GPU_ACT);
		p.keys = gpu_alone(g, keys, p.latent + p.r, 1, GPU_ACT);
		some_rows_are_independent(g, run_attention, &p, rows, act_bytes(g, p.heads * p.latent), "attention");
	}
}

struct mixture {
	struct dsa_tensor x, start, weights, logits, correction;
	struct dsa_experts experts;
	struct dsa_router router;
	const int32_t *ids;
};

static void run_experts(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct mixture *p = problem;
	struct dsa_backend *be = g->be[GPU];
	int chosen = p->weights.cols;
	copy_rows(g, out, dsa_tensor_rows(p->start, first, count));
	OK(g, be->ops->experts(be, dsa_tensor_make(out, DSA_F32, count, p->start.cols),
	                       dsa_tensor_rows(p->x, first, count), p->ids + first * chosen,
	                       dsa_tensor_rows(p->weights, first, count).data, chosen, &p->experts, &g->err));
}

/* ids of all rows, then weights */
static void run_route(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct mixture *p = problem;
	struct dsa_backend *be = g->be[GPU];
	float *weights = gpu_device(g, be, (size_t)(count * p->router.chosen) * sizeof *weights);
	OK(g, be->ops->route(be, out, weights, dsa_tensor_rows(p->logits, first, count), p->correction, &p->router,
	                     &g->err));
	OK(g, be->ops->wait(be, &g->err));
}

static void run_route_weights(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct mixture *p = problem;
	struct dsa_backend *be = g->be[GPU];
	int32_t *ids = gpu_device(g, be, (size_t)(count * p->router.chosen) * sizeof *ids);
	OK(g,
	   be->ops->route(be, ids, out, dsa_tensor_rows(p->logits, first, count), p->correction, &p->router, &g->err));
	OK(g, be->ops->wait(be, &g->err));
}

static void routing_does_not_depend_on_other_rows(struct gpu *g)
{
	static const struct dsa_router routers[] = {
	    {8, 2, 1, 1, true, 2}, {12, 3, 4, 2, false, 1}, {256, 8, 8, 4, true, 2.5f}};
	run_rows *const parts[] = {run_route, run_route_weights};
	for (size_t i = 0; i < sizeof routers / sizeof *routers; i++)
		for (int part = 0; part < 2; part++) {
			int64_t rows = all_rows(g);
			struct mixture p = {.router = routers[i]};
			gpu_reserve(g, (struct dsa_backend_limits){
					   .rows = rows, .experts = p.router.experts, .chosen = p.router.chosen});
			p.logits = gpu_alone(g, rows, p.router.experts, 4, GPU_F32);
			p.correction = gpu_alone(g, 1, p.router.experts, 1, GPU_F32);
			some_rows_are_independent(g, parts[part], &p, rows, (size_t)p.router.chosen * sizeof(float),
			                          "route");
		}
}

static void experts_do_not_depend_on_other_rows(struct gpu *g)
{
	static const int shapes[][4] = {
	    /* D, m, E, chosen */ {40, 9, 6, 2}, {256, 96, 8, 2}, {1024, 512, 64, 8}, {6144, 2048, 12, 8}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 2 : 0); i++) {
		int D = shapes[i][0], m = shapes[i][1], E = shapes[i][2], chosen = shapes[i][3];
		int64_t rows = all_rows(g);
		gpu_reserve(g, (struct dsa_backend_limits){
				   .rows = rows, .hidden = D, .expert_inner = m, .experts = E, .chosen = chosen});
		struct mixture p = {.experts = {.count = E, .inner = m}};
		p.x = gpu_alone(g, rows, D, 1, GPU_ACT);
		p.start = gpu_alone(g, rows, D, 1, GPU_F32);
		p.weights = gpu_alone(g, rows, chosen, 1, GPU_F32);
		p.experts.gate_up = gpu_alone(g, (int64_t)E * 2 * m, D, 2 / sqrtf((float)D), GPU_WEIGHT);
		p.experts.down = gpu_alone(g, (int64_t)E * D, m, 2 / sqrtf((float)m), GPU_WEIGHT);
		int32_t *ids = gpu_host(g, (size_t)(rows * chosen) * sizeof *ids);
		for (int64_t j = 0; j < rows * chosen; j++)
			ids[j] = gpu_below(g, 1 + gpu_below(g, E));
		p.ids = gpu_ints(g, ids, rows * chosen).at[GPU];
		some_rows_are_independent(g, run_experts, &p, rows, (size_t)D * sizeof(float), "experts");
	}
}

struct comparison {
	struct dsa_tensor base, candidates[3], head;
	const int32_t *target;
	int count;
};

/* compare's figures lie on the host, candidate by candidate: brought into rows of them. */
static void run_compare(struct gpu *g, const void *problem, int64_t first, int64_t count, void *out)
{
	const struct comparison *p = problem;
	struct dsa_backend *be = g->be[GPU];
	size_t bytes = (size_t)(count * p->count) * sizeof(struct dsa_row_figures);
	struct dsa_row_figures *figures = calloc(1, bytes), *rows = calloc(1, bytes);
	struct dsa_tensor candidates[3];
	assert_true(figures && rows);
	for (int c = 0; c < p->count; c++)
		candidates[c] = dsa_tensor_rows(p->candidates[c], first, count);
	OK(g, be->ops->compare(be, figures, dsa_tensor_rows(p->base, first, count), candidates, p->count, p->head,
	                       p->target + first, &g->err));
	for (int c = 0; c < p->count; c++)
		for (int64_t i = 0; i < count; i++)
			rows[i * p->count + c] = figures[c * count + i];
	OK(g, be->ops->upload(be, out, rows, bytes, &g->err));
	OK(g, be->ops->wait(be, &g->err));
	free(figures);
	free(rows);
}

static void figures_do_not_depend_on_other_rows(struct gpu *g)
{
	static const int sizes[][2] = {/* V, D */ {101, 40}, {2048, 256}, {129280, 512}};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes - (g->small ? 1 : 0); i++) {
		int V = sizes[i][0], D = sizes[i][1];
		int64_t rows = i == 2 ? 600 : all_rows(g);
		gpu_reserve(g, (struct dsa_backend_limits){.rows = rows, .hidden = D, .vocab = V});
		struct comparison p = {.count = 3};
		p.base = gpu_alone(g, rows, D, 1, GPU_ACT);
		for (int c = 0; c < 3; c++)
			p.candidates[c] = gpu_alone(g, rows, D, 1, GPU_ACT);
		p.head = gpu_alone(g, V, D, 5 / sqrtf((float)D), GPU_WEIGHT);
		int32_t *target = gpu_host(g, (size_t)rows * sizeof *target);
		for (int64_t j = 0; j < rows; j++)
			target[j] = gpu_below(g, V);
		p.target = gpu_ints(g, target, rows).at[GPU];
		some_rows_are_independent(g, run_compare, &p, rows, 3 * sizeof(struct dsa_row_figures), "compare");
	}
}

const struct check_test invariance_tests[] = {
    CHECK_TEST(products_do_not_depend_on_other_rows),
    CHECK_TEST(products_per_head_do_not_depend_on_other_rows),
    CHECK_TEST(rowwise_operators_do_not_depend_on_other_rows),
    CHECK_TEST(selections_do_not_depend_on_other_rows),
    CHECK_TEST(attention_does_not_depend_on_other_rows),
    CHECK_TEST(routing_does_not_depend_on_other_rows),
    CHECK_TEST(experts_do_not_depend_on_other_rows),
    CHECK_TEST(figures_do_not_depend_on_other_rows),
    {NULL, NULL},
};
