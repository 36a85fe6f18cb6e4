/* What a bench counts and plans, from shapes alone: FLOPs, bytes, floors, memory. */
#include "bench_private.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const struct {
	const char *name;
	enum dsa_bench_part part;
} operators[DSA_BENCH_OPERATORS] = {
    [DSA_BENCH_INPUT_NORM] = {"rmsnorm input", DSA_BENCH_EVERY},
    [DSA_BENCH_KV_A] = {"linear kv_a", DSA_BENCH_EVERY},
    [DSA_BENCH_KV_A_NORM] = {"rmsnorm kv_a", DSA_BENCH_EVERY},
    [DSA_BENCH_KEY_ROPE] = {"rope key", DSA_BENCH_EVERY},
    [DSA_BENCH_STORE_KEYS] = {"store_keys latent", DSA_BENCH_EVERY},
    [DSA_BENCH_Q_A] = {"linear q_a", DSA_BENCH_EVERY},
    [DSA_BENCH_Q_A_NORM] = {"rmsnorm q_a", DSA_BENCH_EVERY},
    [DSA_BENCH_Q_B] = {"linear q_b", DSA_BENCH_EVERY},
    [DSA_BENCH_Q_ROPE] = {"rope queries", DSA_BENCH_EVERY},
    [DSA_BENCH_ABSORB] = {"head_linear W_UK", DSA_BENCH_EVERY},
    [DSA_BENCH_COPY_HEADS] = {"copy_heads", DSA_BENCH_EVERY},
    [DSA_BENCH_ATTENTION] = {"attention", DSA_BENCH_EVERY},
    [DSA_BENCH_VALUES] = {"head_linear W_UV", DSA_BENCH_EVERY},
    [DSA_BENCH_O] = {"linear o", DSA_BENCH_EVERY},
    [DSA_BENCH_POST_NORM] = {"rmsnorm post", DSA_BENCH_EVERY},
    [DSA_BENCH_INDEX_K] = {"linear index_k", DSA_BENCH_INDEXER},
    [DSA_BENCH_INDEX_K_NORM] = {"layernorm index_k", DSA_BENCH_INDEXER},
    [DSA_BENCH_INDEX_K_ROPE] = {"rope index_k", DSA_BENCH_INDEXER},
    [DSA_BENCH_STORE_INDEX_KEYS] = {"store_keys index", DSA_BENCH_INDEXER},
    [DSA_BENCH_INDEX_Q] = {"linear index_q", DSA_BENCH_INDEXER},
    [DSA_BENCH_INDEX_Q_ROPE] = {"rope index_q", DSA_BENCH_INDEXER},
    [DSA_BENCH_INDEX_WEIGHTS] = {"linear weights", DSA_BENCH_INDEXER},
    [DSA_BENCH_SELECT_LAST] = {"select, last rows", DSA_BENCH_INDEXER},
    [DSA_BENCH_SELECT_MIDDLE] = {"select, middle", DSA_BENCH_INDEXER},
    [DSA_BENCH_GATE_UP] = {"linear gate_up", DSA_BENCH_DENSE},
    [DSA_BENCH_SILU_MUL] = {"silu_mul", DSA_BENCH_DENSE},
    [DSA_BENCH_DOWN] = {"linear down", DSA_BENCH_DENSE},
    [DSA_BENCH_ROUTER] = {"linear router", DSA_BENCH_MOE},
    [DSA_BENCH_ROUTE] = {"route", DSA_BENCH_MOE},
    [DSA_BENCH_EXPERTS] = {"experts", DSA_BENCH_MOE},
    [DSA_BENCH_SHARED_GATE_UP] = {"linear shared gate_up", DSA_BENCH_MOE},
    [DSA_BENCH_SHARED_SILU_MUL] = {"silu_mul shared", DSA_BENCH_MOE},
    [DSA_BENCH_SHARED_DOWN] = {"linear shared down", DSA_BENCH_MOE},
    [DSA_BENCH_EMBED] = {"embed", DSA_BENCH_OUTSIDE},
    [DSA_BENCH_GATHER] = {"gather", DSA_BENCH_OUTSIDE},
    [DSA_BENCH_COMPARE] = {"compare, 1 candidate", DSA_BENCH_OUTSIDE},
    [DSA_BENCH_OVERLAP] = {"overlap, 2 layers", DSA_BENCH_OUTSIDE},
};

const char *dsa_bench_part_name(enum dsa_bench_part part)
{
	static const char *const names[DSA_BENCH_PARTS] = {"every layer", "F layers", "dense layers", "MoE layers",
	                                                   "outside layers"};
	return names[part];
}

const char *dsa_bench_operator_name(enum dsa_bench_operator op)
{
	return operators[op].name;
}

enum dsa_bench_part dsa_bench_operator_part(enum dsa_bench_operator op)
{
	return operators[op].part;
}

/* Rows of a call and the bytes of an element. */
struct call {
	double rows, act, weight;
};

/* A row-wise operator that reads and writes so many bytes of a row. */
static struct dsa_bench_work move(const struct call *call, double bytes)
{
	return (struct dsa_bench_work){.bytes = call->rows * bytes};
}

/* x (R, in) · w (width, in)ᵀ; out_bytes: of one element of the output, read and written when accumulated onto. */
static struct dsa_bench_work product(const struct call *call, double width, double in, double weight_bytes,
                                     double out_bytes)
{
	return (struct dsa_bench_work){.flops = 2 * call->rows * width * in,
	                               .bytes = call->rows * in * call->act + width * in * weight_bytes +
	                                        call->rows * width * out_bytes};
}

/* Per head (in → width). */
static struct dsa_bench_work head_product(const struct call *call, double heads, double width, double in)
{
	return (struct dsa_bench_work){.flops = 2 * call->rows * heads * width * in,
	                               .bytes =
	                                   heads * (call->rows * (in + width) * call->act + in * width * call->weight)};
}

/* Keys that a query scores, summed over positions [first, first + rows): each position and those before it. */
static double scored(double rows, double first)
{
	return rows * first + rows * (rows + 1) / 2;
}

/* Keys that a query attends to, summed over the same: min(K, t + 1). */
static double attended(double rows, double first, double topk)
{
	double rising = first >= topk ? 0 : fmin(rows, topk - first);
	return scored(rising, first) + (rows - rising) * topk;
}

/* FLOPs of attention per attended key, of the indexer per scored one. */
static double attention_flops(const struct dsa_model_config *c)
{
	return 2.0 * c->heads * (2.0 * c->latent + c->rope);
}

static double score_flops(const struct dsa_model_config *c)
{
	return 2.0 * c->index_heads * c->index_dim;
}

/* Scores are F32, written and read once: what selecting by score costs when the two steps are apart. */
enum { SCORE_BYTES = 8, F32_BYTES = 4, RESIDUAL_BYTES = 8 };

static struct dsa_bench_work select_work(const struct dsa_model_config *c, const struct call *call, double first)
{
	double keys = scored(call->rows, first);
	return (struct dsa_bench_work){
	    .flops = keys * score_flops(c),
	    .bytes = keys * SCORE_BYTES + (first + call->rows) * c->index_dim * call->act +
	             call->rows * (c->index_heads * (c->index_dim * call->act + F32_BYTES) + F32_BYTES * c->topk)};
}

static struct dsa_bench_work attention_work(const struct dsa_model_config *c, const struct call *call, double first)
{
	return (struct dsa_bench_work){
	    .flops = attended(call->rows, first, c->topk) * attention_flops(c),
	    .bytes = (first + call->rows) * (c->latent + c->rope) * call->act +
	             call->rows * (c->heads * (2.0 * c->latent + c->rope) * call->act + F32_BYTES * c->topk)};
}

/* Three products for each chosen expert; every expert's weights once, as soon as there are rows for all. */
static struct dsa_bench_work experts_work(const struct dsa_model_config *c, const struct call *call)
{
	double pairs = call->rows * c->router.chosen, weights = 3.0 * c->hidden * c->expert_inner;
	return (struct dsa_bench_work){.flops = 2 * pairs * weights,
	                               .bytes = fmin(pairs, c->router.experts) * weights * call->weight +
	                                        call->rows * c->hidden * (call->act + RESIDUAL_BYTES) +
	                                        pairs * 2 * 3 * c->expert_inner * call->act};
}

struct dsa_bench_work dsa_bench_operator_work(const struct dsa_model_config *c, enum dsa_bench_operator op,
                                              int64_t rows, int64_t first, enum dsa_dtype act, enum dsa_dtype weight)
{
	const struct call *call = &(struct call){
	    .rows = (double)rows, .act = (double)dsa_dtype_bytes(act), .weight = (double)dsa_dtype_bytes(weight)};
	double a = call->act, w = call->weight, shared = (double)c->expert_inner * c->shared_experts;
	double head = c->nope + c->rope, key = c->latent + c->rope, start = (double)first;
	switch (op) {
	case DSA_BENCH_INPUT_NORM:
	case DSA_BENCH_POST_NORM:
		return move(call, c->hidden * (F32_BYTES + a));
	case DSA_BENCH_KV_A:
		return product(call, key, c->hidden, w, a);
	case DSA_BENCH_KV_A_NORM:
		return move(call, 2 * a * c->latent);
	case DSA_BENCH_KEY_ROPE:
	case DSA_BENCH_INDEX_K_ROPE:
		return move(call, 2 * a * c->rope);
	case DSA_BENCH_STORE_KEYS:
		return move(call, 2 * a * key);
	case DSA_BENCH_Q_A:
		return product(call, c->q_rank, c->hidden, w, a);
	case DSA_BENCH_Q_A_NORM:
		return move(call, 2 * a * c->q_rank);
	case DSA_BENCH_Q_B:
		return product(call, c->heads * head, c->q_rank, w, a);
	case DSA_BENCH_Q_ROPE:
	case DSA_BENCH_COPY_HEADS:
		return move(call, 2 * a * c->heads * c->rope);
	case DSA_BENCH_ABSORB:
		return head_product(call, c->heads, c->latent, c->nope);
	case DSA_BENCH_ATTENTION:
		return attention_work(c, call, start);
	case DSA_BENCH_VALUES:
		return head_product(call, c->heads, c->value, c->latent);
	case DSA_BENCH_O:
		return product(call, c->hidden, (double)c->heads * c->value, w, RESIDUAL_BYTES);
	case DSA_BENCH_INDEX_K:
		return product(call, c->index_dim, c->hidden, w, a);
	case DSA_BENCH_INDEX_K_NORM:
	case DSA_BENCH_STORE_INDEX_KEYS:
		return move(call, 2 * a * c->index_dim);
	case DSA_BENCH_INDEX_Q:
		return product(call, (double)c->index_heads * c->index_dim, c->q_rank, w, a);
	case DSA_BENCH_INDEX_Q_ROPE:
		return move(call, 2 * a * c->index_heads * c->rope);
	case DSA_BENCH_INDEX_WEIGHTS:
		return product(call, c->index_heads, c->hidden, F32_BYTES, F32_BYTES);
	case DSA_BENCH_SELECT_LAST:
	case DSA_BENCH_SELECT_MIDDLE:
		return select_work(c, call, start);
	case DSA_BENCH_GATE_UP:
		return product(call, 2.0 * c->dense_inner, c->hidden, w, a);
	case DSA_BENCH_SILU_MUL:
		return move(call, 3 * a * c->dense_inner);
	case DSA_BENCH_DOWN:
		return product(call, c->hidden, c->dense_inner, w, RESIDUAL_BYTES);
	case DSA_BENCH_ROUTER:
		return product(call, c->router.experts, c->hidden, F32_BYTES, F32_BYTES);
	case DSA_BENCH_ROUTE:
		return move(call, F32_BYTES * (c->router.experts + 2.0 * c->router.chosen));
	case DSA_BENCH_EXPERTS:
		return experts_work(c, call);
	case DSA_BENCH_SHARED_GATE_UP:
		return product(call, 2 * shared, c->hidden, w, a);
	case DSA_BENCH_SHARED_SILU_MUL:
		return move(call, 3 * a * shared);
	case DSA_BENCH_SHARED_DOWN:
		return product(call, c->hidden, shared, w, RESIDUAL_BYTES);
	case DSA_BENCH_EMBED:
		return move(call, c->hidden * (w + F32_BYTES));
	case DSA_BENCH_GATHER:
		return move(call, 2.0 * F32_BYTES * c->hidden);
	case DSA_BENCH_COMPARE: /* the reference's logits and one candidate's; they are never kept */
		return (struct dsa_bench_work){.flops = 2 * 2 * call->rows * c->vocab * c->hidden,
		                               .bytes =
		                                   (double)c->vocab * c->hidden * w + 2 * call->rows * c->hidden * a};
	case DSA_BENCH_OVERLAP:
		return move(call, (double)BENCH_OVERLAP_LAYERS * F32_BYTES * c->topk);
	case DSA_BENCH_OPERATORS:
		break;
	}
	assert(false);
	return (struct dsa_bench_work){0};
}

/* Products of a token in a layer, attention and scores left out. */
static double dense_flops(const struct dsa_model_config *c, bool full, bool moe)
{
	double flops = 0;
	for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
		enum dsa_bench_part part = operators[op].part;
		bool scores = op == DSA_BENCH_SELECT_LAST || op == DSA_BENCH_SELECT_MIDDLE;
		bool has = part == DSA_BENCH_EVERY || (part == DSA_BENCH_INDEXER && full) ||
		           (part == DSA_BENCH_DENSE && !moe) || (part == DSA_BENCH_MOE && moe);
		if (has && !scores && op != DSA_BENCH_ATTENTION)
			flops +=
			    dsa_bench_operator_work(c, (enum dsa_bench_operator)op, 1, 0, DSA_BF16, DSA_BF16).flops;
	}
	return flops;
}

double dsa_bench_floor(const struct dsa_model_config *c, int context, bool full, bool moe)
{
	/* What the best kernels measured on one H100 reach, per second. */
	const double dense_rate = 750e12, attention_rate = 640e12, score_rate = 650e12, copy_rate = 3.0e12;
	double tokens = context, seconds = dense_flops(c, full, moe) / dense_rate;
	seconds += attended(tokens, 0, c->topk) / tokens * attention_flops(c) / attention_rate;
	if (full)
		seconds += scored(tokens, 0) / tokens * (score_flops(c) / score_rate + SCORE_BYTES / copy_rate);
	return seconds;
}

/* FLOP/s of the chosen experts' products. An expert has few of a tile's rows where there are many experts: 256 rows are
 * what bench measured with 256 experts, 4096 what a run had with 16. */
static double experts_rate(const struct dsa_model_config *c)
{
	const double tile = 8192, few = 256, many = 4096, slow = 380e12, fast = 500e12;
	const double rows = tile * c->router.chosen / c->router.experts;
	const double share = log2(rows / few) / log2(many / few);
	return rows < few ? slow * rows / few : slow + (fast - slow) * fmin(share, 1);
}

double dsa_bench_measured(const struct dsa_model_config *c, int context, bool full, bool moe)
{
	const double product_rate = 690e12, small_operators = 1.05, tokens = context;
	const double attention_rate = c->heads >= 128 ? 551e12 : 522e12;
	const double select_rate = c->index_heads >= 64 ? 580e12 : 521e12;
	const double experts = moe ? 6.0 * c->hidden * c->expert_inner * c->router.chosen : 0;
	double seconds = (dense_flops(c, full, moe) - experts) / product_rate;
	seconds += attended(tokens, 0, c->topk) / tokens * attention_flops(c) / attention_rate;
	if (full)
		seconds += scored(tokens, 0) / tokens * score_flops(c) / select_rate;
	return small_operators * seconds + (moe ? experts / experts_rate(c) : 0);
}

double dsa_bench_measured_head(const struct dsa_model_config *c)
{
	const double rate = 490e12;
	return 2.0 * c->vocab * c->hidden / rate;
}

double dsa_bench_flops(const struct dsa_model_config *c, int context, bool full, bool moe)
{
	double tokens = context;
	return dense_flops(c, full, moe) + attended(tokens, 0, c->topk) / tokens * attention_flops(c) +
	       (full ? scored(tokens, 0) / tokens * score_flops(c) : 0);
}

double dsa_bench_share(const struct dsa_bench *bench, const struct dsa_bench_figure *figure, bool *by_flops)
{
	double product_seconds = figure->work.flops / bench->flops, copy_seconds = figure->work.bytes / bench->bytes;
	*by_flops = product_seconds > copy_seconds;
	return (*by_flops ? product_seconds : copy_seconds) / figure->seconds;
}

enum dsa_status dsa_bench_shape(struct dsa_model_config *config, const char *name, struct dsa_arena *arena,
                                struct dsa_error *err)
{
	/* The published configurations' sizes. */
	static const char glm5[] =
	    "{\"model_type\":\"glm_moe_dsa\",\"hidden_size\":6144,\"num_attention_heads\":64,\"q_lora_rank\":2048,"
	    "\"kv_lora_rank\":512,\"qk_nope_head_dim\":192,\"qk_rope_head_dim\":64,\"v_head_dim\":256,"
	    "\"index_n_heads\":32,\"index_head_dim\":128,\"index_topk\":2048,\"intermediate_size\":12288,"
	    "\"moe_intermediate_size\":2048,\"n_routed_experts\":256,\"num_experts_per_tok\":8,\"n_group\":1,"
	    "\"topk_group\":1,\"n_shared_experts\":1,\"vocab_size\":154880,\"rope_theta\":1000000,"
	    "\"max_position_embeddings\":202752,\"num_hidden_layers\":2,\"first_k_dense_replace\":1,"
	    "\"tie_word_embeddings\":true}";
	static const char dsv32[] =
	    "{\"model_type\":\"deepseek_v32\",\"hidden_size\":7168,\"num_attention_heads\":128,\"q_lora_rank\":1536,"
	    "\"kv_lora_rank\":512,\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"v_head_dim\":128,"
	    "\"index_n_heads\":64,\"index_head_dim\":128,\"index_topk\":2048,\"intermediate_size\":18432,"
	    "\"moe_intermediate_size\":2048,\"n_routed_experts\":256,\"num_experts_per_tok\":8,\"n_group\":8,"
	    "\"topk_group\":4,\"n_shared_experts\":1,\"vocab_size\":129280,\"rope_theta\":10000,"
	    "\"max_position_embeddings\":163840,\"num_hidden_layers\":2,\"first_k_dense_replace\":1,"
	    "\"tie_word_embeddings\":true}";
	if (!strcmp(name, "glm5"))
		return dsa_model_config_parse(config, glm5, strlen(glm5), "shape glm5", arena, err);
	if (!strcmp(name, "dsv32"))
		return dsa_model_config_parse(config, dsv32, strlen(dsv32), "shape dsv32", arena, err);
	return dsa_fail(err, DSA_E_USAGE, "shape '%s': expected glm5 or dsv32", name);
}

uint64_t dsa_bench_bytes(const struct dsa_model_config *c, const struct dsa_backend *be, int context)
{
	struct dsa_backend_limits limits = dsa_forward_limits(c, context, context, context);
	uint64_t rotary = (uint64_t)context * (uint64_t)c->rope * sizeof(float);
	return dsa_model_weight_bytes(c, be->weight) + rotary + dsa_forward_bytes(c, be, context, context, 1) +
	       be->ops->scratch_bytes(be, &limits) + bench_extra_bytes(c, be, context) + bench_ceiling_bytes(be);
}

/* Half as many experts, if the router can still do with them. */
static bool halve_experts(struct dsa_router *router)
{
	int experts = router->experts / 2;
	if (router->experts % 2 || experts % router->groups || experts / router->groups < 2 ||
	    experts / router->groups * router->chosen_groups < router->chosen)
		return false;
	router->experts = experts;
	return true;
}

bool dsa_bench_fit(struct dsa_model_config *config, const struct dsa_backend *be, int context, uint64_t limit)
{
	enum { LEAST_VOCABULARY = 4096 };
	while (dsa_bench_bytes(config, be, context) > limit) {
		if (halve_experts(&config->router))
			continue;
		if (config->vocab / 2 < LEAST_VOCABULARY)
			return false;
		config->vocab /= 2;
	}
	return true;
}

int dsa_bench_most_context(const struct dsa_model_config *config, const struct dsa_backend *be, int context,
                           uint64_t limit)
{
	int fits = 0;
	for (int above = context + 1; above - fits > 1;) {
		int middle = fits + (above - fits) / 2;
		if (dsa_bench_bytes(config, be, middle) <= limit)
			fits = middle;
		else
			above = middle;
	}
	return fits;
}
