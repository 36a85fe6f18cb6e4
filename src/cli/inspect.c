#include <string.h>

#include "commands.h"
#include "dsa/footprint.h"
#include "dsa/json_writer.h"
#include "dsa/model.h"
#include "dsa/pattern.h"
#include "dsa/safetensors.h"
#include "inspect_plan.h"

struct inspection {
	const char *directory;
	struct dsa_model_config config;
	int tensors, shards;
	uint64_t stored, resident;      /* bytes: in the files; as weights of the CPU backend */
	uint64_t stored_as[DSA_DTYPES]; /* of stored, by dtype */
	uint64_t gpu;                   /* bytes of the GPU that the weights are held against */
	struct dsa_footprint footprint; /* on a GPU: BF16 */
	const struct dsa_cli_options *options;
	struct dsa_inspect_plan plan; /* where options->plan */
	char fingerprint[65];
};

/* What is free on an H100 of 80 GB. */
static const uint64_t gpu_bytes = (uint64_t)78 << 30;

static enum dsa_status inspect(struct inspection *found, struct dsa_arena *arena, struct dsa_error *err)
{
	struct dsa_checkpoint *checkpoint = NULL;
	enum dsa_status status = dsa_model_config_load(&found->config, found->directory, arena, err);
	if (!status)
		status = dsa_checkpoint_open(&checkpoint, found->directory, err);
	if (!status)
		status =
		    dsa_footprint_measure(&found->footprint, &found->config, checkpoint, DSA_BF16, found->gpu, err);
	if (!status && found->options->plan)
		status = dsa_inspect_plan(&found->plan, found->options, &found->config, found->directory, found->gpu,
		                          arena, err);
	if (!status)
		status = dsa_model_fingerprint(found->directory, false, found->fingerprint, err);
	if (!status) {
		found->tensors = dsa_checkpoint_count(checkpoint);
		found->shards = dsa_checkpoint_shards(checkpoint);
		for (int i = 0; i < found->tensors; i++) {
			const struct dsa_stored *tensor = dsa_checkpoint_at(checkpoint, i);
			found->stored += tensor->bytes;
			found->stored_as[tensor->dtype] += tensor->bytes;
		}
		found->resident = dsa_model_weight_bytes(&found->config, DSA_F32);
	}
	dsa_checkpoint_close(checkpoint);
	return status;
}

static int dense_layers(const struct dsa_model_config *config)
{
	int dense = 0;
	for (int l = 0; l < config->layers; l++)
		dense += !config->moe[l];
	return dense;
}

static const char *const kind_names[DSA_FOOTPRINT_KINDS] = {"embeddings and head", "dense layers", "MoE layers"};

static void print_footprint(const struct inspection *found)
{
	const struct dsa_footprint *footprint = &found->footprint;
	const double mib = 1048576.0, gib = 1073741824.0;
	for (int k = 0; k < DSA_FOOTPRINT_KINDS; k++) {
		const struct dsa_footprint_part *part = &footprint->part[k];
		if (!part->layers)
			continue;
		printf("%-14s %.1f MiB %s: ", k ? "" : "of these", (double)part->stored / mib, kind_names[k]);
		if (k)
			printf("%d, each up to ", part->layers);
		printf("%.1f MiB on a GPU (bfloat16)\n", (double)part->largest / mib);
	}
	printf("%-14s %.1f MiB of it indexers of %d layers\n", "", (double)footprint->indexers_stored / mib,
	       footprint->indexers);
	if (footprint->unused_stored)
		printf("%-14s %.1f MiB of multi-token prediction and other tensors that are not used\n", "",
		       (double)footprint->unused_stored / mib);
	printf("memory         %.1f MiB of weights on the CPU (float32)\n", (double)found->resident / mib);
	if (footprint->device <= found->gpu)
		printf("%-14s %.1f GiB on a GPU (bfloat16), which leaves %.1f of %.1f GiB\n", "",
		       (double)footprint->device / gib, (double)(found->gpu - footprint->device) / gib,
		       (double)found->gpu / gib);
	else
		printf("%-14s %.1f GiB on a GPU (bfloat16): %.1f GiB more than the %.1f GiB of one, which hold %d of "
		       "%d layers; the others lie there as stored, in host memory or on disk\n",
		       "", (double)footprint->device / gib, (double)(footprint->device - found->gpu) / gib,
		       (double)found->gpu / gib, footprint->first_layers, found->config.layers);
}

static void print_text(const struct inspection *found)
{
	const struct dsa_model_config *c = &found->config;
	printf("architecture   %s\n", c->model_type);
	printf("layers         %d (%d dense, %d mixture of experts)\n", c->layers, dense_layers(c),
	       c->layers - dense_layers(c));
	printf("hidden         %d, %d heads, q rank %d, latent %d, nope/rope/value %d/%d/%d\n", c->hidden, c->heads,
	       c->q_rank, c->latent, c->nope, c->rope, c->value);
	printf("indexer        %d heads x %d, top-k %d\n", c->index_heads, c->index_dim, c->topk);
	printf("experts        %d, %d per token, inner %d, %d shared\n", c->router.experts, c->router.chosen,
	       c->expert_inner, c->shared_experts);
	printf("vocabulary     %d, positions %d\n", c->vocab, c->max_positions);
	printf("native pattern %s (%d S%s)\n", c->native, dsa_pattern_shared(c->native),
	       c->native_is_explicit ? "" : "; the checkpoint says nothing, so all F");
	printf("files          %d tensors in %d files, %.1f MiB:", found->tensors, found->shards,
	       (double)found->stored / 1048576.0);
	for (int d = 0; d < DSA_DTYPES; d++)
		if (found->stored_as[d])
			printf(" %s %.1f", dsa_dtype_name((enum dsa_dtype)d), (double)found->stored_as[d] / 1048576.0);
	printf("\n");
	if (c->block_rows)
		printf("quantisation   FP8 e4m3, one %sscale per block of %d x %d\n",
		       c->scale_ue8m0 ? "power-of-two (ue8m0) " : "", c->block_rows, c->block_cols);
	print_footprint(found);
	if (found->options->plan)
		dsa_inspect_plan_print(&found->plan);
	printf("fingerprint    %s\n", found->fingerprint);
}

static void put_footprint(struct dsa_json_writer *writer, const struct inspection *found)
{
	static const char *const names[DSA_FOOTPRINT_KINDS] = {"outside", "dense", "moe"};
	const struct dsa_footprint *footprint = &found->footprint;
	dsa_json_object(writer, "weights");
	for (int k = 0; k < DSA_FOOTPRINT_KINDS; k++) {
		const struct dsa_footprint_part *part = &footprint->part[k];
		dsa_json_object(writer, names[k]);
		dsa_json_put_int(writer, "layers", k ? part->layers : 0);
		dsa_json_put_uint(writer, "stored_bytes", part->stored);
		dsa_json_put_uint(writer, "gpu_bytes", part->device);
		dsa_json_put_uint(writer, "largest_gpu_bytes", part->largest);
		dsa_json_end(writer);
	}
	dsa_json_put_int(writer, "indexers", footprint->indexers);
	dsa_json_put_uint(writer, "indexer_stored_bytes", footprint->indexers_stored);
	dsa_json_put_uint(writer, "unused_stored_bytes", footprint->unused_stored);
	dsa_json_end(writer);
	dsa_json_put_uint(writer, "gpu_weight_bytes", footprint->device);
	dsa_json_put_uint(writer, "gpu_memory", found->gpu);
	dsa_json_put_bool(writer, "fits_gpu_memory", footprint->device <= found->gpu);
	dsa_json_put_int(writer, "layers_in_gpu_memory", footprint->first_layers);
}

static void print_json(const struct inspection *found, struct dsa_text *text)
{
	const struct dsa_model_config *c = &found->config;
	struct dsa_json_writer writer;
	dsa_json_writer_init(&writer, text, 1);
	dsa_json_object(&writer, NULL);
	dsa_json_put_text(&writer, "architecture", c->model_type);
	dsa_json_put_int(&writer, "layers", c->layers);
	dsa_json_put_int(&writer, "dense_layers", dense_layers(c));
	dsa_json_put_int(&writer, "hidden", c->hidden);
	dsa_json_put_int(&writer, "heads", c->heads);
	dsa_json_put_int(&writer, "q_lora_rank", c->q_rank);
	dsa_json_put_int(&writer, "kv_lora_rank", c->latent);
	dsa_json_put_int(&writer, "index_n_heads", c->index_heads);
	dsa_json_put_int(&writer, "index_head_dim", c->index_dim);
	dsa_json_put_int(&writer, "index_topk", c->topk);
	dsa_json_put_int(&writer, "experts", c->router.experts);
	dsa_json_put_int(&writer, "experts_per_token", c->router.chosen);
	dsa_json_put_int(&writer, "vocabulary", c->vocab);
	dsa_json_put_text(&writer, "native_pattern", c->native);
	dsa_json_put_bool(&writer, "native_pattern_is_explicit", c->native_is_explicit);
	dsa_json_put_int(&writer, "tensors", found->tensors);
	dsa_json_put_int(&writer, "files", found->shards);
	dsa_json_put_uint(&writer, "stored_bytes", found->stored);
	dsa_json_object(&writer, "stored_bytes_as");
	for (int d = 0; d < DSA_DTYPES; d++)
		if (found->stored_as[d])
			dsa_json_put_uint(&writer, dsa_dtype_name((enum dsa_dtype)d), found->stored_as[d]);
	dsa_json_end(&writer);
	dsa_json_put_text(&writer, "quantisation", c->block_rows ? "fp8" : NULL);
	if (c->block_rows) {
		dsa_json_put_text(&writer, "scale_format", c->scale_ue8m0 ? "ue8m0" : "f32");
		dsa_json_put_int(&writer, "scale_block_rows", c->block_rows);
		dsa_json_put_int(&writer, "scale_block_columns", c->block_cols);
	}
	dsa_json_put_uint(&writer, "cpu_weight_bytes", found->resident);
	put_footprint(&writer, found);
	if (found->options->plan)
		dsa_inspect_plan_json(&writer, &found->plan);
	dsa_json_put_text(&writer, "fingerprint", found->fingerprint);
	dsa_json_end(&writer);
}

int dsa_cmd_inspect(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_arena arena;
	struct dsa_text text = {0};
	struct inspection found = {0};
	enum dsa_status status;
	dsa_arena_init(&arena);
	if (options->operand_count != 1) {
		status = dsa_fail(&err, DSA_E_USAGE, "inspect needs one MODEL_DIR, found %d", options->operand_count);
	} else {
		found.options = options;
		found.directory = options->operands[0];
		found.gpu = options->gpu_memory ? (uint64_t)options->gpu_memory : gpu_bytes;
		status = inspect(&found, &arena, &err);
	}
	if (!status && options->json) {
		print_json(&found, &text);
		status = dsa_text_check(&text, "the inspection", &err);
		if (!status)
			fwrite(text.data, 1, text.bytes, stdout);
	} else if (!status) {
		print_text(&found);
	}
	dsa_text_release(&text);
	dsa_arena_release(&arena);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
