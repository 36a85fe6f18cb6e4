/* model_config.h: config.json of a DSA checkpoint, read and checked.
 *
 * Architectures deepseek_v32 and glm_moe_dsa, in old and new spellings (model.md, Rotary tables and Checkpoints). Every
 * key that changes numbers and is not implemented is refused by name; keys that change nothing are ignored. */
#ifndef DSA_MODEL_CONFIG_H
#define DSA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "dsa/arena.h"
#include "dsa/backend.h"
#include "dsa/status.h"

enum { DSA_MAX_LAYERS = 1024 };

enum dsa_architecture { DSA_DEEPSEEK_V32, DSA_GLM_MOE_DSA };

struct dsa_model_config {
	enum dsa_architecture architecture;
	const char *model_type;                                       /* "deepseek_v32", "glm_moe_dsa" */
	int layers, hidden, heads, q_rank, latent, nope, rope, value; /* L D H q c n r v */
	int index_heads, index_dim, topk;                             /* h d K */
	int vocab, dense_inner, expert_inner, shared_experts;
	struct dsa_router router; /* experts, chosen, groups, chosen_groups, normalise, scale */
	bool *moe;                /* (L) true where the feed-forward is a mixture of experts */
	double norm_eps;
	bool attention_bias, tied;
	enum dsa_rope_style rope_style, indexer_rope_style;
	/* Rotary. inv_freq (r/2); rope_scale multiplies cos and sin; attention_scale is the softmax scale, yarn
	 * included. */
	double *inv_freq;
	double rope_scale, attention_scale;
	/* quantization_config: FP8 weights with one scale per block of these sizes; 0 where there is none. scale_ue8m0:
	 * its scales are powers of two, and so are those that serving gives the indexer's rows. */
	int block_rows, block_cols;
	bool scale_ue8m0;
	/* How the indexer is run: not the checkpoint's to say, ACT until somebody sets it. */
	enum dsa_index_precision index_precision;
	int max_positions;       /* max_position_embeddings: longer contexts are warned about */
	char *native;            /* (L + 1) "FFS…": the pattern the checkpoint ships with; all F if it says nothing */
	bool native_is_explicit; /* from indexer_types or index_topk_pattern or a freq > 1 */
};

/* Parses text; place names it in errors. Memory from arena. */
DSA_CHECKED enum dsa_status dsa_model_config_parse(struct dsa_model_config *config, const char *text, size_t bytes,
                                                   const char *place, struct dsa_arena *arena, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_model_config_load(struct dsa_model_config *config, const char *model_dir,
                                                  struct dsa_arena *arena, struct dsa_error *err);

#endif
