#include "dsa/model_config.h"

#include <string.h>

#include "config_reader.h"
#include "dsa/file.h"

/* Caps that keep every product of two dimensions inside an int and every tensor inside an int64_t, several times above
 * any published model. */
enum {
	MAX_WIDTH = 1 << 17, /* hidden, ranks */
	MAX_HEADS = 1 << 10,
	MAX_HEAD_DIM = 1 << 12,
	MAX_INNER = 1 << 19,
	MAX_EXPERTS = 1 << 12,
	MAX_VOCAB = 1 << 22,
	MAX_POSITIONS = 1 << 30,
	MAX_TOPK = 1 << 20,
	CONFIG_BYTES = 16 << 20,
};

/* What a key that is absent means: transformers' defaults, which are not the published models' values everywhere. */
struct defaults {
	const char *model_type;
	enum dsa_architecture architecture;
	enum dsa_rope_style indexer_rope_style;
	int vocab, hidden, dense_inner, layers, heads, q_rank, nope, value, index_heads, groups, chosen_groups,
	    positions;
	double norm_eps;
};

static const struct defaults known[] = {
    {"deepseek_v32", DSA_DEEPSEEK_V32, DSA_ROPE_HALVES, 129280, 7168, 18432, 61, 128, 1536, 128, 128, 64, 8, 4, 163840,
     1e-6},
    {"glm_moe_dsa", DSA_GLM_MOE_DSA, DSA_ROPE_INTERLEAVED, 154880, 6144, 12288, 78, 64, 2048, 192, 256, 32, 1, 1,
     202752, 1e-5},
};
enum { KNOWN = sizeof known / sizeof known[0] };

static const struct defaults *find_architecture(struct config_reader *reader)
{
	const char *type = NULL;
	reader->status = dsa_json_text(reader->object, reader->place, "model_type", NULL, &type, reader->err);
	if (reader->status)
		return NULL;
	for (int i = 0; type && i < KNOWN; i++) {
		if (!strcmp(type, known[i].model_type))
			return &known[i];
	}
	if (type)
		config_refuse(reader,
		              "model_type \"%.64s\" is not a DSA architecture this program knows; known: deepseek_v32, "
		              "glm_moe_dsa",
		              type);
	else
		config_refuse(reader, "model_type is missing; known: deepseek_v32, glm_moe_dsa");
	return NULL;
}

/* Keys that change numbers in some engine and of which one value is implemented. */
static void refuse_unimplemented(struct config_reader *reader, const struct dsa_model_config *config)
{
	config_only_text(reader, "hidden_act", "silu");
	config_only_text(reader, "scoring_func", "sigmoid");
	config_only_text(reader, "topk_method", "noaux_tc");
	config_only_bool(reader, "rope_interleave", true);
	config_only_bool(reader, "indexer_rope_interleave", config->indexer_rope_style == DSA_ROPE_INTERLEAVED);
	config_only_bool(reader, "mlp_bias", false);
	const json_t *q_rank = json_object_get(reader->object, "q_lora_rank");
	if (json_is_null(q_rank))
		config_refuse(reader, "q_lora_rank null (queries without a low-rank step) is not implemented");
	int kv_heads = config_int(reader, "num_key_value_heads", 1, MAX_HEADS, config->heads);
	if (kv_heads != config->heads)
		config_refuse(reader, "num_key_value_heads is %d, expected num_attention_heads (%d)", kv_heads,
		              config->heads);
	int freq = config_int(reader, "moe_layer_freq", 0, DSA_MAX_LAYERS, 1);
	if (freq != 1)
		config_refuse(reader, "moe_layer_freq %d is not implemented, only 1 is; use mlp_layer_types", freq);
	const json_t *types = config_value(reader, "layer_types");
	if (types && !json_is_array(types))
		config_refuse(reader, "layer_types is %s, expected a list", dsa_json_type(types));
	for (size_t i = 0; i < json_array_size(types); i++) {
		const char *type = json_string_value(json_array_get(types, i));
		if (!type || strcmp(type, "deepseek_sparse_attention"))
			config_refuse(reader,
			              "layer_types[%zu] is \"%.64s\", only deepseek_sparse_attention is "
			              "implemented",
			              i, type ? type : dsa_json_type(json_array_get(types, i)));
	}
}

static void read_experts(struct config_reader *reader, const struct defaults *defaults, struct dsa_model_config *config)
{
	/* One number under three names, depending on who wrote the file. */
	static const char *const names[] = {"n_routed_experts", "num_local_experts", "num_experts"};
	int experts = 0;
	const char *named = names[0];
	for (int i = 0; i < 3; i++) {
		int found = config_int(reader, names[i], 1, MAX_EXPERTS, 0);
		if (found && experts && found != experts)
			config_refuse(reader, "%s is %d but %s is %d; they mean the same", named, experts, names[i],
			              found);
		if (found) {
			experts = found;
			named = names[i];
		}
	}
	struct dsa_router *router = &config->router;
	router->experts = experts ? experts : 256;
	router->chosen = config_int(reader, "num_experts_per_tok", 1, MAX_EXPERTS, 8);
	router->groups = config_int(reader, "n_group", 1, MAX_EXPERTS, defaults->groups);
	router->chosen_groups = config_int(reader, "topk_group", 1, MAX_EXPERTS, defaults->chosen_groups);
	router->normalise = config_bool(reader, "norm_topk_prob", true);
	double scale = config_real(reader, "routed_scaling_factor", 2.5);
	if (!(scale > 0 && scale <= 1e6))
		config_refuse(reader, "routed_scaling_factor is %g, expected more than 0 and at most 1e6", scale);
	router->scale = (float)scale;
	config->expert_inner = config_int(reader, "moe_intermediate_size", 1, MAX_INNER / 2, 2048);
	config->shared_experts = config_int(reader, "n_shared_experts", 1, 64, 1);
}

static void check_router(struct config_reader *reader, const struct dsa_router *router)
{
	if (router->experts % router->groups)
		config_refuse(reader, "n_routed_experts %d is no multiple of n_group %d", router->experts,
		              router->groups);
	else if (router->experts / router->groups < 2)
		config_refuse(reader,
		              "n_routed_experts %d in n_group %d groups: a group needs at least 2 experts, its score "
		              "is the sum of its 2 best",
		              router->experts, router->groups);
	else if (router->chosen_groups > router->groups)
		config_refuse(reader, "topk_group %d of n_group %d groups", router->chosen_groups, router->groups);
	else if (router->chosen > router->experts / router->groups * router->chosen_groups)
		config_refuse(reader, "num_experts_per_tok %d, but the %d kept groups hold only %d experts",
		              router->chosen, router->chosen_groups,
		              router->experts / router->groups * router->chosen_groups);
}

static void read_feed_forward(struct config_reader *reader, struct dsa_model_config *config)
{
	int layers = config->layers;
	int dense = config_int(reader, "first_k_dense_replace", 0, MAX_WIDTH, 3);
	const json_t *types = config_value(reader, "mlp_layer_types");
	if (reader->status)
		return;
	config->moe = dsa_arena_alloc(reader->arena, (size_t)layers, sizeof *config->moe, "layer types", reader->err);
	if (!config->moe) {
		reader->status = DSA_E_MEMORY;
		return;
	}
	if (types && (!json_is_array(types) || json_array_size(types) != (size_t)layers)) {
		config_refuse(reader, "mlp_layer_types is %s with %zu entries, expected a list of %d",
		              dsa_json_type(types), json_array_size(types), layers);
		return;
	}
	bool any = false;
	for (int l = 0; l < layers; l++) {
		const char *type = json_string_value(json_array_get(types, (size_t)l));
		if (types && (!type || (strcmp(type, "dense") && strcmp(type, "sparse"))))
			config_refuse(reader, "mlp_layer_types[%d] is \"%.64s\", expected \"dense\" or \"sparse\"", l,
			              type ? type : "no text");
		config->moe[l] = types ? type && !strcmp(type, "sparse") : l >= dense;
		any = any || config->moe[l];
	}
	if (any)
		check_router(reader, &config->router);
}

enum dsa_status dsa_model_config_parse(struct dsa_model_config *config, const char *text, size_t bytes,
                                       const char *place, struct dsa_arena *arena, struct dsa_error *err)
{
	json_t *root = NULL;
	*config = (struct dsa_model_config){0};
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (status)
		return status;
	struct config_reader reader = {.object = root, .place = place, .arena = arena, .err = err};
	struct config_reader *r = &reader;
	if (!json_is_object(root)) {
		config_refuse(r, "%s, expected an object", dsa_json_type(root));
		goto cleanup;
	}
	const struct defaults *defaults = find_architecture(r);
	if (!defaults)
		goto cleanup;
	config->architecture = defaults->architecture;
	config->model_type = defaults->model_type;
	config->rope_style = DSA_ROPE_INTERLEAVED;
	config->indexer_rope_style = defaults->indexer_rope_style;
	config->layers = config_int(r, "num_hidden_layers", 1, DSA_MAX_LAYERS, defaults->layers);
	config->hidden = config_int(r, "hidden_size", 1, MAX_WIDTH, defaults->hidden);
	config->heads = config_int(r, "num_attention_heads", 1, MAX_HEADS, defaults->heads);
	config->q_rank = config_int(r, "q_lora_rank", 1, MAX_WIDTH, defaults->q_rank);
	config->latent = config_int(r, "kv_lora_rank", 1, MAX_WIDTH, 512);
	config->nope = config_int(r, "qk_nope_head_dim", 1, MAX_HEAD_DIM, defaults->nope);
	config->rope = config_int(r, "qk_rope_head_dim", 2, MAX_HEAD_DIM, 64);
	config->value = config_int(r, "v_head_dim", 1, MAX_HEAD_DIM, defaults->value);
	config->index_heads = config_int(r, "index_n_heads", 1, MAX_HEADS, defaults->index_heads);
	config->index_dim = config_int(r, "index_head_dim", 1, MAX_HEAD_DIM, 128);
	config->topk = config_int(r, "index_topk", 1, MAX_TOPK, 2048);
	config->vocab = config_int(r, "vocab_size", 1, MAX_VOCAB, defaults->vocab);
	config->dense_inner = config_int(r, "intermediate_size", 1, MAX_INNER, defaults->dense_inner);
	config->norm_eps = config_real(r, "rms_norm_eps", defaults->norm_eps);
	config->attention_bias = config_bool(r, "attention_bias", false);
	config->tied = config_bool(r, "tie_word_embeddings", false);
	config->max_positions = config_int(r, "max_position_embeddings", 1, MAX_POSITIONS, defaults->positions);
	if (config->rope % 2)
		config_refuse(r, "qk_rope_head_dim is %d, expected an even number", config->rope);
	if (config->index_dim < config->rope)
		config_refuse(r, "index_head_dim is %d, expected at least qk_rope_head_dim (%d)", config->index_dim,
		              config->rope);
	if (!(config->norm_eps > 0 && config->norm_eps < 1))
		config_refuse(r, "rms_norm_eps is %g, expected more than 0 and less than 1", config->norm_eps);
	refuse_unimplemented(r, config);
	read_experts(r, defaults, config);
	read_feed_forward(r, config);
	config_read_rope(r, config);
	config_read_quantisation(r, config);
	config_read_pattern(r, config);
cleanup:
	json_decref(root);
	return reader.status;
}

enum dsa_status dsa_model_config_load(struct dsa_model_config *config, const char *model_dir, struct dsa_arena *arena,
                                      struct dsa_error *err)
{
	char *path = NULL, *text = NULL;
	size_t bytes = 0;
	*config = (struct dsa_model_config){0};
	enum dsa_status status = dsa_file_join(arena, model_dir, "config.json", &path, err);
	if (!status)
		status = dsa_file_read(path, CONFIG_BYTES, arena, &text, &bytes, err);
	if (!status)
		status = dsa_model_config_parse(config, text, bytes, path, arena, err);
	return status;
}
