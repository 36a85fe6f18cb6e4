#include "dsa/bench.h"

#include <math.h>
#include <string.h>

#include "commands.h"
#include "dsa/json_writer.h"
#include "dsa/provenance.h"
#include "summary.h"

struct benching {
	const struct dsa_cli_options *options;
	struct dsa_arena arena;
	struct dsa_backend *backend;
	struct dsa_model *model;
	struct dsa_model_config config; /* as it is run */
	int experts, vocab;             /* as the shape says */
	int context;
	struct dsa_bench bench;
};

static enum dsa_status check_options(const struct dsa_cli_options *options, struct dsa_error *err)
{
	if (options->operand_count)
		return dsa_fail(err, DSA_E_USAGE, "bench takes no '%s'; see 'dsacal help bench'", options->operands[0]);
	if (!options->model == !options->shape)
		return dsa_fail(err, DSA_E_USAGE, "bench needs either --model DIR or --shape glm5|dsv32");
	if (options->context > INT32_MAX)
		return dsa_fail(err, DSA_E_USAGE, "--context: expected 1 to %d", INT32_MAX);
	if (options->threads > 1024)
		return dsa_fail(err, DSA_E_USAGE, "--threads is %lld, expected at most 1024",
		                (long long)options->threads);
	return DSA_OK;
}

/* Experts and vocabulary, then a context that nobody asked for, give way to the memory that there is. */
static enum dsa_status fit(struct benching *b, struct dsa_error *err)
{
	const double gib = 1073741824.0;
	size_t free_bytes, total;
	enum dsa_status status = b->backend->ops->memory(b->backend, &free_bytes, &total, err);
	if (status)
		return status;
	uint64_t limit = free_bytes - free_bytes / 16;
	bool fits = b->options->shape ? dsa_bench_fit(&b->config, b->backend, b->context, limit)
	                              : dsa_bench_bytes(&b->config, b->backend, b->context) <= limit;
	if (fits)
		return DSA_OK;
	int most = dsa_bench_most_context(&b->config, b->backend, b->context, limit);
	if (most && !b->options->context) {
		b->context = most;
		return DSA_OK;
	}
	double needed = (double)dsa_bench_bytes(&b->config, b->backend, b->context) / gib;
	if (most)
		return dsa_fail(err, DSA_E_MEMORY,
		                "%.1f GiB are needed for a context of %d and %.1f GiB are free on this device; use "
		                "--context %d",
		                needed, b->context, (double)limit / gib, most);
	return dsa_fail(err, DSA_E_MEMORY,
	                "%.1f GiB are needed and %.1f GiB are free on this device, too little for any context; use a "
	                "machine with more memory",
	                needed, (double)limit / gib);
}

static enum dsa_status measure(struct benching *b, struct dsa_terminal *terminal, struct dsa_error *err)
{
	const struct dsa_cli_options *options = b->options;
	enum dsa_status status = options->shape ? dsa_bench_shape(&b->config, options->shape, &b->arena, err)
	                                        : dsa_model_config_load(&b->config, options->model, &b->arena, err);
	if (status)
		return status == DSA_E_MISSING ? DSA_E_INPUT : status;
	status = dsa_cli_precision(options, &b->config, err);
	if (status)
		return status;
	const struct dsa_backend_options device = {.device = options->device,
	                                           .threads = (int)options->threads,
	                                           .gpu_memory = options->gpu_memory,
	                                           .log = &terminal->log};
	status = dsa_backend_open(&b->backend, &device, err);
	if (status)
		return status;
	enum { CPU_CONTEXT = 512, GPU_CONTEXT = 65536 };
	b->experts = b->config.router.experts;
	b->vocab = b->config.vocab;
	b->context = strncmp(b->backend->name, "cpu", 3) ? GPU_CONTEXT : CPU_CONTEXT;
	if (b->context > b->config.max_positions)
		b->context = b->config.max_positions;
	if (options->context)
		b->context = (int)options->context;
	status = fit(b, err);
	if (status)
		return status;
	if (options->shape)
		status = dsa_model_random(&b->model, b->backend, &b->config, b->context, 1, err);
	else
		status = dsa_model_open(&b->model, b->backend, options->model, b->context, NULL, &terminal->log, err);
	if (status)
		return status;
	b->model->config.index_precision = b->config.index_precision;
	return dsa_bench_run(&b->bench, b->model, b->context, dsa_terminal_stop_flag(), &terminal->log, err);
}

static const char *model_name(const struct benching *b)
{
	return b->options->shape ? b->options->shape : b->options->model;
}

static double rate(double work, double seconds, double unit)
{
	return work / seconds / unit;
}

static void write_operators(struct dsa_text *text, const struct benching *b)
{
	const struct dsa_bench *bench = &b->bench;
	for (int part = 0; part < DSA_BENCH_PARTS; part++) {
		bool headed = false;
		for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
			const struct dsa_bench_figure *figure = &bench->figures[op];
			if (!figure->measured || (int)dsa_bench_operator_part((enum dsa_bench_operator)op) != part)
				continue;
			if (!headed)
				dsa_text_printf(text, "%s\n", dsa_bench_part_name((enum dsa_bench_part)part));
			headed = true;
			bool by_flops;
			double share = dsa_bench_share(bench, figure, &by_flops);
			dsa_text_printf(text, "  %-22s %10.4f ms", dsa_bench_operator_name((enum dsa_bench_operator)op),
			                1e3 * figure->seconds);
			if (by_flops)
				dsa_text_printf(text, " %9.2f TFLOP/s",
				                rate(figure->work.flops, figure->seconds, 1e12));
			else
				dsa_text_printf(text, " %9.1f GB/s   ", rate(figure->work.bytes, figure->seconds, 1e9));
			dsa_text_printf(text, " %6.1f%%\n", 100 * share);
		}
	}
}

static void write_layers(struct dsa_text *text, const struct dsa_bench *bench)
{
	dsa_text_printf(text, "%-13s %14s %14s %14s %8s\n", "layers", "us per token", "its operators", "floor (H100)",
	                "share");
	for (int l = 0; l < bench->layer_count; l++) {
		const struct dsa_bench_layer *layer = &bench->layers[l];
		dsa_text_printf(text, "  %d %-5s as %c %14.4f %14.4f", layer->layer, layer->moe ? "MoE" : "dense",
		                layer->full ? 'F' : 'S', 1e6 * layer->seconds, 1e6 * layer->operators);
		if (isnan(layer->floor))
			dsa_text_printf(text, " %14s %8s\n", "-", "-");
		else
			dsa_text_printf(text, " %14.4f %7.1f%%\n", 1e6 * layer->floor,
			                100 * layer->floor / layer->seconds);
	}
}

static void write_text(struct dsa_text *text, const struct benching *b)
{
	const struct dsa_bench *bench = &b->bench;
	dsa_text_printf(text, "%-13s %s\n", "device", b->backend->name);
	dsa_text_printf(text, "%-13s %s, %s\n", "model", model_name(b),
	                b->options->shape ? "random weights, one dense layer and one with experts" : "its weights");
	if (b->config.router.experts != b->experts)
		dsa_text_printf(text, "%-13s %d of %d, as memory allows\n", "experts", b->config.router.experts,
		                b->experts);
	if (b->config.vocab != b->vocab)
		dsa_text_printf(text, "%-13s %d of %d, as memory allows\n", "vocabulary", b->config.vocab, b->vocab);
	dsa_text_printf(text, "%-13s one document of %d random tokens; operators on %lld rows\n", "context",
	                bench->context, (long long)bench->rows);
	dsa_text_printf(text, "%-13s product of %d x %d x %d %.2f TFLOP/s, copy %.1f GB/s\n\n", "ceilings",
	                bench->product, bench->product, bench->product, bench->flops / 1e12, bench->bytes / 1e9);
	dsa_text_printf(text, "%-24s %10s    %17s %7s\n", "operators", "time", "rate", "ceiling");
	write_operators(text, b);
	dsa_text_add(text, "\n");
	write_layers(text, bench);
}

static void json_operators(struct dsa_json_writer *json, const struct dsa_bench *bench)
{
	dsa_json_array(json, "operators");
	for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
		const struct dsa_bench_figure *figure = &bench->figures[op];
		bool by_flops;
		if (!figure->measured)
			continue;
		double share = dsa_bench_share(bench, figure, &by_flops);
		dsa_json_object(json, NULL);
		dsa_json_put_text(json, "name", dsa_bench_operator_name((enum dsa_bench_operator)op));
		dsa_json_put_text(json, "part",
		                  dsa_bench_part_name(dsa_bench_operator_part((enum dsa_bench_operator)op)));
		dsa_json_put_int(json, "rows", figure->rows);
		dsa_json_put_int(json, "first", figure->first);
		dsa_json_put_real(json, "seconds", figure->seconds);
		dsa_json_put_real(json, "flops", figure->work.flops);
		dsa_json_put_real(json, "bytes", figure->work.bytes);
		dsa_json_put_text(json, "bound", by_flops ? "product" : "copy");
		dsa_json_put_real(json, "share", share);
		dsa_json_end(json);
	}
	dsa_json_end(json);
}

/* What a layer's time follows from, in results.json's names. */
static void json_dimensions(struct dsa_json_writer *json, const struct dsa_model_config *config)
{
	dsa_json_object(json, "dimensions");
	dsa_json_put_int(json, "hidden", config->hidden);
	dsa_json_put_int(json, "heads", config->heads);
	dsa_json_put_int(json, "q_rank", config->q_rank);
	dsa_json_put_int(json, "latent", config->latent);
	dsa_json_put_int(json, "rope", config->rope);
	dsa_json_put_int(json, "nope", config->nope);
	dsa_json_put_int(json, "value", config->value);
	dsa_json_put_int(json, "index_heads", config->index_heads);
	dsa_json_put_int(json, "index_dim", config->index_dim);
	dsa_json_put_int(json, "index_topk", config->topk);
	dsa_json_put_int(json, "dense_inner", config->dense_inner);
	dsa_json_put_int(json, "expert_inner", config->expert_inner);
	dsa_json_put_int(json, "experts_per_token", config->router.chosen + config->shared_experts);
	dsa_json_end(json);
}

static void write_json(struct dsa_text *text, const struct benching *b)
{
	const struct dsa_bench *bench = &b->bench;
	struct dsa_json_writer json;
	dsa_json_writer_init(&json, text, 2);
	dsa_json_object(&json, NULL);
	dsa_json_put_int(&json, "schema", 1);
	dsa_json_put_text(&json, "version", dsa_version());
	dsa_json_put_text(&json, "commit", dsa_commit());
	dsa_json_put_text(&json, "device", b->backend->name);
	dsa_json_put_text(&json, "model", b->options->model);
	dsa_json_put_text(&json, "shape", b->options->shape);
	dsa_json_put_text(&json, "indexer_precision", b->options->indexer_precision);
	dsa_json_put_int(&json, "context", bench->context);
	json_dimensions(&json, &b->config);
	dsa_json_put_int(&json, "experts", b->config.router.experts);
	dsa_json_put_int(&json, "experts_of_shape", b->experts);
	dsa_json_put_int(&json, "vocabulary", b->config.vocab);
	dsa_json_put_int(&json, "vocabulary_of_shape", b->vocab);
	dsa_json_object(&json, "ceilings");
	dsa_json_put_int(&json, "product", bench->product);
	dsa_json_put_real(&json, "flops_per_second", bench->flops);
	dsa_json_put_real(&json, "bytes_per_second", bench->bytes);
	dsa_json_end(&json);
	json_operators(&json, bench);
	dsa_json_array(&json, "layers");
	for (int l = 0; l < bench->layer_count; l++) {
		const struct dsa_bench_layer *layer = &bench->layers[l];
		dsa_json_object(&json, NULL);
		dsa_json_put_int(&json, "layer", layer->layer);
		dsa_json_put_text(&json, "kind", layer->moe ? "moe" : "dense");
		dsa_json_put_text(&json, "mode", layer->full ? "F" : "S");
		dsa_json_put_real(&json, "seconds_per_token", layer->seconds);
		dsa_json_put_real(&json, "operators_seconds_per_token", layer->operators);
		dsa_json_put_real(&json, "floor_seconds_per_token", layer->floor);
		dsa_json_end(&json);
	}
	dsa_json_end(&json);
	dsa_json_end(&json);
}

int dsa_cmd_bench(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_text text = {0};
	struct benching b = {.options = options};
	dsa_arena_init(&b.arena);
	enum dsa_status status = check_options(options, &err);
	if (!status)
		status = measure(&b, terminal, &err);
	if (!status) {
		if (options->json)
			write_json(&text, &b);
		else
			write_text(&text, &b);
		status = dsa_print_text(&text, "the bench", &err);
	}
	int code = status ? dsa_terminal_fail(terminal, status, &err) : 0;
	dsa_model_close(b.model);
	dsa_backend_close(b.backend);
	dsa_arena_release(&b.arena);
	return code;
}
