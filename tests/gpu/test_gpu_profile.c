/* What scripts/gpu_profile.py runs under a profiler: the kernels that take a layer's time, launched once at the shapes
 * of GLM-5 and DeepSeek-V3.2, 64K tokens, a tile of 8192 rows.
 *
 * A profiler repeats each launch a dozen times and puts back what it wrote, so a case holds little memory: one
 * operator's tensors, and of the experts one. Only what lies between begin() and end() is profiled. A mark is launched
 * first, add_bias over as many rows as the case's number, by which the launches behind it are known: the numbers' names
 * are printed. Experts as a whole run on several streams at once, which is seen only where a profiler leaves launches
 * alone and counts over a range of them: the group profile-experts. */
#include "gpu_cuda.h"

#include <cuda_profiler_api.h>

#include "dsa/bench.h"

enum { CONTEXT = 65536, BLOCK_ROWS = 1024, BLOCK_COLS = 4096 };

struct profile {
	struct gpu *g;
	struct dsa_backend *be;
	const char *model;
	struct dsa_model_config c;
	int cases;
};

/* Random numbers on the GPU: a block of them over and over, since drawing and sending gigabytes takes minutes. Rows
 * differ where their width does not divide the block. */
static struct dsa_tensor filled(struct profile *p, int64_t rows, int cols, float scale, enum gpu_kind kind)
{
	const int64_t count = rows * cols, block = (int64_t)BLOCK_ROWS * BLOCK_COLS;
	const struct dsa_tensor from = gpu_alone(p->g, BLOCK_ROWS, BLOCK_COLS, scale, kind);
	const size_t size = dsa_dtype_bytes(from.dtype);
	char *to = gpu_device(p->g, p->be, (size_t)count * size);
	for (int64_t at = 0; at < count; at += block)
		CUDA(cudaMemcpy(to + (size_t)at * size, from.data,
		                (size_t)(count - at < block ? count - at : block) * size, cudaMemcpyDeviceToDevice));
	CUDA(cudaDeviceSynchronize()); /* the backend's stream waits for no other */
	return dsa_tensor_make(to, from.dtype, rows, cols);
}

static struct dsa_tensor empty(struct profile *p, int64_t rows, int cols, enum dsa_dtype dtype)
{
	void *memory = gpu_device(p->g, p->be, (size_t)(rows * cols) * dsa_dtype_bytes(dtype));
	return dsa_tensor_make(memory, dtype, rows, cols);
}

static struct dsa_tensor ints(struct profile *p, const int32_t *values, int64_t rows, int cols)
{
	struct dsa_tensor t = empty(p, rows, cols, DSA_I32);
	CUDA(cudaMemcpy(t.data, values, (size_t)(rows * cols) * sizeof *values, cudaMemcpyHostToDevice));
	return t;
}

static void begin(struct profile *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void begin(struct profile *p, const char *fmt, ...)
{
	va_list args;
	const int number = ++p->cases;
	const struct dsa_tensor mark = filled(p, number, 1, 1, GPU_F32), bias = filled(p, 1, 1, 1, GPU_F32);
	printf("# profile %d: %s, ", number, p->model);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	CUDA(cudaDeviceSynchronize());
	CUDA(cudaProfilerStart());
	CUDA(kernel_add_bias(NULL, mark, bias.data));
	CUDA(cudaDeviceSynchronize());
}

static void end(struct profile *p)
{
	assert_int_equal(p->be->ops->wait(p->be, &p->g->err), DSA_OK);
	CUDA(cudaDeviceSynchronize());
	CUDA(cudaProfilerStop());
	gpu_end_case(p->g);
}

static void profile_select(struct profile *p)
{
	const int64_t rows = 2048; /* as many as their scores of 64K keys leave room for */
	const int length = CONTEXT, heads = p->c.index_heads, dim = p->c.index_dim;
	const struct dsa_rows at = gpu_last_rows(p->g, &length, 1, (int)rows).at[GPU];
	const struct dsa_tensor q = filled(p, rows, heads * dim, 1, GPU_ACT), k = filled(p, CONTEXT, dim, 1, GPU_ACT);
	const struct dsa_tensor weight = filled(p, rows, heads, 1, GPU_F32);
	float *scores = empty(p, rows, CONTEXT, DSA_F32).data;
	int32_t *selection = empty(p, rows, p->c.topk, DSA_I32).data;
	struct kernel_fault *fault = gpu_device(p->g, p->be, sizeof *fault), found;
	CUDA(cudaMemset(fault, 0xff, sizeof *fault));
	begin(p, "%lld rows of 64K keys, %d index heads, top %d", (long long)rows, heads, p->c.topk);
	CUDA(kernel_index_scores(NULL, scores, CONTEXT, q, k, NULL, weight, heads, dim, &at));
	CUDA(kernel_topk(NULL, selection, p->c.topk, scores, CONTEXT, &at, fault));
	CUDA(cudaMemcpy(&found, fault, sizeof found, cudaMemcpyDeviceToHost));
	assert_true(found.nan_score == ~0ull);
	end(p);
}

static void profile_attention(struct profile *p)
{
	const int64_t rows = p->be->tile;
	const int length = CONTEXT, topk = p->c.topk, width = p->c.latent + p->c.rope, heads = p->c.heads;
	const struct dsa_rows at = gpu_last_rows(p->g, &length, 1, (int)rows).at[GPU];
	const struct dsa_tensor q = filled(p, rows, heads * width, 1, GPU_ACT);
	const struct dsa_tensor keys = filled(p, CONTEXT, width, 1, GPU_ACT);
	const struct dsa_tensor out = empty(p, rows, heads * p->c.latent, DSA_BF16);
	int32_t *chosen = gpu_host(p->g, (size_t)(rows * topk) * sizeof *chosen);
	/* One position in each of K equal stretches: ascending, and as far apart as chance has them. */
	for (int64_t i = 0; i < rows; i++)
		for (int64_t n = 0, t = CONTEXT - rows + i + 1; n < topk; n++) {
			const int64_t first = n * t / topk, after = (n + 1) * t / topk;
			chosen[i * topk + n] = (int32_t)first + gpu_below(p->g, (int)(after - first));
		}
	const struct dsa_tensor selection = ints(p, chosen, rows, topk);
	begin(p, "attention, %lld rows, %d heads, %d of 64K keys", (long long)rows, heads, topk);
	CUDA(kernel_sparse_attention(NULL, out, q, keys, selection.data, topk, heads, p->c.latent, p->c.rope,
	                             (float)p->c.attention_scale, &at));
	end(p);
}

static void profile_product(struct profile *p, const char *name, int64_t rows, int in, int width, bool accumulate)
{
	const struct dsa_tensor x = filled(p, rows, in, 1, GPU_ACT), none = {0};
	const struct dsa_tensor w = filled(p, width, in, 1 / sqrtf((float)in), GPU_WEIGHT);
	const struct dsa_tensor out = accumulate ? filled(p, rows, width, 1, GPU_F32) : empty(p, rows, width, DSA_BF16);
	begin(p, "%s, %lld × %d → %d", name, (long long)rows, in, width);
	OK(p->g, p->be->ops->linear(p->be, out, x, w, none, accumulate, &p->g->err));
	end(p);
}

/* Different experts for a row, about as many rows for each expert. */
static struct dsa_tensor draw_experts(struct profile *p, int64_t rows)
{
	const int chosen = p->c.router.chosen, experts = p->c.router.experts;
	int32_t *ids = gpu_host(p->g, (size_t)(rows * chosen) * sizeof *ids);
	for (int64_t i = 0; i < rows; i++) {
		const int first = gpu_below(p->g, experts), step = 1 + gpu_below(p->g, experts / chosen - 1);
		for (int n = 0; n < chosen; n++)
			ids[i * chosen + n] = (first + n * step) % experts;
	}
	return ints(p, ids, rows, chosen);
}

/* What lies around the products of experts. */
static void profile_pairs(struct profile *p)
{
	const int64_t rows = p->be->tile, pairs = rows * p->c.router.chosen;
	const int chosen = p->c.router.chosen, hidden = p->c.hidden, inner = p->c.expert_inner;
	const struct dsa_tensor ids = draw_experts(p, rows), x = filled(p, rows, hidden, 1, GPU_ACT);
	const struct dsa_tensor weights = filled(p, rows, chosen, 1, GPU_F32);
	const struct dsa_tensor starts = empty(p, 1, p->c.router.experts + 1, DSA_I32);
	const struct dsa_tensor sorted = empty(p, pairs, 1, DSA_I32), places = empty(p, pairs, 1, DSA_I32);
	const struct dsa_tensor parts = empty(p, pairs, hidden, DSA_BF16), middle = empty(p, pairs, inner, DSA_BF16);
	const struct dsa_tensor gate_up = filled(p, pairs, 2 * inner, 1, GPU_ACT);
	const struct dsa_tensor out = filled(p, rows, hidden, 1, GPU_F32);
	begin(p, "experts, %lld rows for %d of %d each", (long long)rows, chosen, p->c.router.experts);
	CUDA(kernel_sort_pairs(NULL, starts.data, sorted.data, places.data, ids.data, pairs, p->c.router.experts));
	CUDA(kernel_permute(NULL, parts, x, sorted.data, chosen));
	CUDA(kernel_silu_mul(NULL, middle, gate_up));
	CUDA(kernel_combine(NULL, out, parts, places.data, weights.data, chosen));
	end(p);
}

static void profile_compare(struct profile *p)
{
	const int64_t rows = 640; /* no more than one tile of logits with either vocabulary */
	const struct dsa_tensor base = filled(p, rows, p->c.hidden, 1, GPU_ACT);
	const struct dsa_tensor other = filled(p, rows + 1, p->c.hidden, 1, GPU_ACT);
	const struct dsa_tensor candidate = dsa_tensor_rows(other, 1, rows);
	const struct dsa_tensor head = filled(p, p->c.vocab, p->c.hidden, 9 / sqrtf((float)p->c.hidden), GPU_WEIGHT);
	int32_t *target = gpu_host(p->g, (size_t)rows * sizeof *target);
	struct dsa_row_figures *figures = gpu_host(p->g, (size_t)rows * sizeof *figures);
	for (int64_t i = 0; i < rows; i++)
		target[i] = gpu_below(p->g, p->c.vocab);
	const struct dsa_tensor targets = ints(p, target, rows, 1);
	gpu_reserve(p->g, (struct dsa_backend_limits){.rows = rows, .hidden = p->c.hidden, .vocab = p->c.vocab});
	begin(p, "compare, %lld rows, %d → %d", (long long)rows, p->c.hidden, p->c.vocab);
	OK(p->g, p->be->ops->compare(p->be, figures, base, &candidate, 1, head, targets.data, &p->g->err));
	assert_int_equal(figures[0].finite, 1);
	end(p);
}

static void profile_model(struct profile *p)
{
	const struct dsa_model_config *c = &p->c;
	const int64_t rows = p->be->tile, few = rows * c->router.chosen / c->router.experts;
	profile_select(p);
	profile_attention(p);
	profile_product(p, "q_b", rows, c->q_rank, c->heads * (c->nope + c->rope), false);
	profile_product(p, "o", rows, c->heads * c->value, c->hidden, true);
	profile_product(p, "gate_up", rows, c->hidden, 2 * c->dense_inner, false);
	profile_product(p, "down", rows, c->dense_inner, c->hidden, true);
	profile_product(p, "one expert's gate_up", few, c->hidden, 2 * c->expert_inner, false);
	profile_product(p, "one expert's down", few, c->expert_inner, c->hidden, false);
	profile_pairs(p);
	profile_compare(p);
}

/* Every expert of a layer: gigabytes, which nothing puts back when whole runs of the program are repeated. */
static void profile_layer_of_experts(struct profile *p)
{
	const int64_t rows = p->be->tile;
	const int chosen = p->c.router.chosen, count = p->c.router.experts, hidden = p->c.hidden;
	const int inner = p->c.expert_inner;
	const struct dsa_tensor ids = draw_experts(p, rows), x = filled(p, rows, hidden, 1, GPU_ACT);
	const struct dsa_tensor weights = filled(p, rows, chosen, 1, GPU_F32);
	const struct dsa_tensor out = filled(p, rows, hidden, 1, GPU_F32);
	const float scale = 1 / sqrtf((float)hidden);
	const struct dsa_experts experts = {
	    .gate_up = filled(p, (int64_t)count * 2 * inner, hidden, scale, GPU_WEIGHT),
	    .down = filled(p, (int64_t)count * hidden, inner, 1 / sqrtf((float)inner), GPU_WEIGHT),
	    .count = count,
	    .inner = inner};
	gpu_reserve(p->g,
	            (struct dsa_backend_limits){
			.rows = rows, .hidden = hidden, .expert_inner = inner, .experts = count, .chosen = chosen});
	/* The first call chooses algorithms and loads kernels. */
	for (int i = 0; i < 2; i++) {
		if (i)
			begin(p, "all %d experts, %lld rows for %d each", count, (long long)rows, chosen);
		OK(p->g, p->be->ops->experts(p->be, out, x, ids.data, weights.data, chosen, &experts, &p->g->err));
		assert_int_equal(p->be->ops->wait(p->be, &p->g->err), DSA_OK);
	}
	end(p);
}

static void for_each_model(struct gpu *g, void (*run)(struct profile *p))
{
	static const char *const names[][2] = {{"glm5", "GLM-5"}, {"dsv32", "V3.2"}};
	struct profile p = {.g = g, .be = g->be[GPU]};
	if (!gpu_is_there(g))
		return;
	for (int m = 0; m < 2; m++) {
		struct dsa_arena arena;
		dsa_arena_init(&arena);
		p.model = names[m][1];
		OK(g, dsa_bench_shape(&p.c, names[m][0], &arena, &g->err));
		run(&p);
		dsa_arena_release(&arena);
	}
}

static void every_kernel_runs_at_published_shapes(struct gpu *g)
{
	for_each_model(g, profile_model);
}

static void all_experts_of_a_layer_run_at_published_shapes(struct gpu *g)
{
	for_each_model(g, profile_layer_of_experts);
}

const struct check_test profile_tests[] = {
    CHECK_TEST(every_kernel_runs_at_published_shapes),
    {NULL, NULL},
};

const struct check_test profile_experts_tests[] = {
    CHECK_TEST(all_experts_of_a_layer_run_at_published_shapes),
    {NULL, NULL},
};
