#include "inspect_plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "dsa/bench_json.h"
#include "dsa/model.h"
#include "session.h"

static const double gib = 1073741824.0;

/* A pinned copy to an H100 on PCIe 5 and one fast NVMe drive. */
static const double link_rate = 53e9, disk_rate = 7e9;
enum { CONTEXT = 32768, TOKENS = 1 << 20, BATCH_TOKENS = 32768 /* of a run on a GPU */ };
/* Half of what a machine of 1 TiB has free, which its ranks share: what a run takes unasked. */
static const uint64_t host_memory = (uint64_t)512 << 30;

static double between(double shared, double full, double longer)
{
	return shared + (full - shared) * longer;
}

/* The file of the nearest context; an indexer's cost grows with the keys it scores. */
static void take_costs(struct dsa_streaming_rates *rates, const struct dsa_results *results, int context)
{
	const struct dsa_layer_costs *nearest = &results->costs[0];
	for (int i = 1; i < results->cost_count; i++)
		if (llabs(results->costs[i].context - context) < llabs(nearest->context - context))
			nearest = &results->costs[i];
	const double longer = (double)context / (double)nearest->context;
	rates->dense_shared = nearest->dense_shared;
	rates->dense_full = between(nearest->dense_shared, nearest->dense_full, longer);
	rates->moe_shared = nearest->moe_shared;
	rates->moe_full = between(nearest->moe_shared, nearest->moe_full, longer);
}

static enum dsa_status find_rates(struct dsa_inspect_plan *out, const struct dsa_cli_options *options,
                                  const struct dsa_model_config *config, struct dsa_arena *arena, struct dsa_error *err)
{
	dsa_streaming_measured(&out->rates, config, out->context);
	if (!options->bench.count)
		return DSA_OK;
	struct dsa_results *results = dsa_arena_alloc(arena, 1, sizeof *results, "measured costs", err);
	if (!results)
		return DSA_E_MEMORY;
	dsa_results_dimensions(results, config);
	for (int i = 0; i < options->bench.count; i++) {
		enum dsa_status status = dsa_bench_json_load(results, options->bench.value[i], arena, err);
		if (status)
			return status;
	}
	take_costs(&out->rates, results, out->context);
	out->rates_from = results->costs_device;
	return DSA_OK;
}

enum dsa_status dsa_inspect_plan(struct dsa_inspect_plan *out, const struct dsa_cli_options *options,
                                 const struct dsa_model_config *config, const char *directory, uint64_t gpu_memory,
                                 struct dsa_arena *arena, struct dsa_error *err)
{
	static const int gpus[DSA_INSPECT_MACHINES] = {1, 8};
	const int64_t most = config->max_positions, usual = CONTEXT < most ? CONTEXT : most;
	const int64_t context = options->context ? options->context : usual;
	out->tokens = options->max_tokens ? options->max_tokens : TOKENS;
	if (context <= config->topk || context > most)
		return dsa_fail(err, DSA_E_USAGE,
		                "--context %lld: expected more than index_topk (%d) and at most the %d positions of "
		                "the model",
		                (long long)context, config->topk, config->max_positions);
	if (out->tokens < context)
		return dsa_fail(err, DSA_E_USAGE, "--max-tokens %lld: expected at least --context (%lld)",
		                (long long)out->tokens, (long long)context);
	out->context = (int)context;
	struct dsa_sizes *sizes = dsa_arena_alloc(arena, 1, sizeof *sizes, "the layers' sizes", err);
	if (!sizes)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_model_sizes(sizes, config, directory, DSA_BF16, err);
	if (!status)
		status = find_rates(out, options, config, arena, err);
	for (int i = 0; i < DSA_INSPECT_MACHINES && !status; i++) {
		out->machine[i] = (struct dsa_streaming_machine){
		    .gpus = gpus[i],
		    .gpu_memory = gpu_memory,
		    .host_memory = options->host_memory ? options->host_memory : host_memory / (unsigned)gpus[i],
		    .link_rate = link_rate,
		    .disk_rate = disk_rate,
		};
		dsa_streaming_plan(&out->plan[i], config, sizes, dsa_cli_residency(options), &out->machine[i],
		                   &out->rates, out->tokens, out->context,
		                   options->batch_tokens ? options->batch_tokens : BATCH_TOKENS);
	}
	return status;
}

static const char *const bounds[] = {"compute", "PCIe", "disk"};

static void print_duration(double seconds)
{
	if (seconds < 120)
		printf("%.1f s", seconds);
	else if (seconds < 7200)
		printf("%.1f min", seconds / 60);
	else
		printf("%.1f h", seconds / 3600);
}

static void print_cost(const char *what, const struct dsa_streaming_cost *cost)
{
	printf("%-14s   %-10s ", "", what);
	print_duration(cost->seconds);
	printf(", %s binds: %.3g PFLOP in ", bounds[cost->bound], cost->flops / 1e15);
	print_duration(cost->compute_seconds);
	printf(", %.3g TB between hosts and GPUs in ", cost->link_bytes / 1e12);
	print_duration(cost->link_seconds);
	printf(", %.3g TB off disk in ", cost->disk_bytes / 1e12);
	print_duration(cost->disk_seconds);
	if (cost->locked_bytes > 0) {
		printf(", and %.3g TB of the hosts taken for states in ", cost->locked_bytes / 1e12);
		print_duration(cost->lock_seconds);
	}
	printf("\n");
}

static void print_places(const struct dsa_residency *residency)
{
	static const char *const where[DSA_PLACES] = {"on the GPU", "on it as stored", "in host memory", "on disk"};
	const char *comma = "layers ";
	for (int place = 0; place < DSA_PLACES; place++) {
		if (!residency->layers[place])
			continue;
		printf("%s%d %s", comma, residency->layers[place], where[place]);
		comma = ", ";
	}
}

static void print_machine(const struct dsa_streaming_machine *machine, const struct dsa_streaming_plan *plan)
{
	printf("%-14s %d H100: ", "", machine->gpus);
	if (!plan->fits) {
		printf("a pass of one document and streaming the layers do not fit into %.1f GiB and %.0f GiB of host "
		       "memory\n",
		       (double)machine->gpu_memory / gib, (double)machine->host_memory / gib);
		return;
	}
	print_places(&plan->residency);
	printf("; %d of %d candidates together, %d documents a visit; --host-memory %.0f GiB%s keeps states of %.0f%% "
	       "of the base's layers and %.0f%% of candidates'\n",
	       plan->wave, plan->candidates, plan->visit, (double)machine->host_memory / gib,
	       machine->gpus > 1 ? " each" : "", 100 * plan->base_kept, 100 * plan->flips_kept);
	print_cost("reference", &plan->base);
	print_cost("first step", &plan->first);
	print_cost("all steps", &plan->whole);
}

void dsa_inspect_plan_print(const struct dsa_inspect_plan *out)
{
	const struct dsa_streaming_rates *rates = &out->rates;
	printf(
	    "on paper       exact search over %d documents of %d tokens, the search alone: no loading, overlap, noise "
	    "floor,\n%-14s baselines or held-out documents. PCIe %.0f GB/s, disk %.0f GB/s; us per token of a layer "
	    "as F and S,\n%-14s %s: dense %.2f and %.2f, MoE %.2f and %.2f. It would take about:\n",
	    out->plan[0].documents, out->context, "", link_rate / 1e9, disk_rate / 1e9, "",
	    out->rates_from ? out->rates_from : "as measured on an H100", 1e6 * rates->dense_full,
	    1e6 * rates->dense_shared, 1e6 * rates->moe_full, 1e6 * rates->moe_shared);
	for (int i = 0; i < DSA_INSPECT_MACHINES; i++)
		print_machine(&out->machine[i], &out->plan[i]);
}

static void put_cost(struct dsa_json_writer *json, const char *name, const struct dsa_streaming_cost *cost)
{
	static const char *const names[] = {"compute", "link", "disk"};
	dsa_json_object(json, name);
	dsa_json_put_real(json, "token_layers", cost->token_layers);
	dsa_json_put_real(json, "flops", cost->flops);
	dsa_json_put_real(json, "link_bytes", cost->link_bytes);
	dsa_json_put_real(json, "disk_bytes", cost->disk_bytes);
	dsa_json_put_real(json, "compute_seconds", cost->compute_seconds);
	dsa_json_put_real(json, "link_seconds", cost->link_seconds);
	dsa_json_put_real(json, "lock_seconds", cost->lock_seconds);
	dsa_json_put_real(json, "disk_seconds", cost->disk_seconds);
	dsa_json_put_real(json, "seconds", cost->seconds);
	dsa_json_put_text(json, "bound_by", names[cost->bound]);
	dsa_json_end(json);
}

static void put_machine(struct dsa_json_writer *json, const struct dsa_streaming_machine *machine,
                        const struct dsa_streaming_plan *plan)
{
	dsa_json_object(json, NULL);
	dsa_json_put_int(json, "gpus", machine->gpus);
	dsa_json_put_uint(json, "host_memory", machine->host_memory);
	dsa_json_put_bool(json, "fits", plan->fits);
	if (plan->fits) {
		dsa_json_put_text(json, "residency", dsa_place_name(plan->slowest));
		dsa_json_object(json, "layers");
		for (int place = 0; place < DSA_PLACES; place++)
			dsa_json_put_int(json, dsa_place_name((enum dsa_place)place), plan->residency.layers[place]);
		dsa_json_end(json);
		dsa_json_put_real(json, "pinned_share", plan->pinned);
		dsa_json_put_real(json, "base_states_kept", plan->base_kept);
		dsa_json_put_real(json, "candidate_states_kept", plan->flips_kept);
		dsa_json_put_int(json, "candidates", plan->candidates);
		dsa_json_put_int(json, "wave", plan->wave);
		dsa_json_put_int(json, "documents_a_visit", plan->visit);
		put_cost(json, "reference", &plan->base);
		put_cost(json, "first_step", &plan->first);
		put_cost(json, "all_steps", &plan->whole);
	}
	dsa_json_end(json);
}

void dsa_inspect_plan_json(struct dsa_json_writer *json, const struct dsa_inspect_plan *out)
{
	const struct dsa_streaming_rates *rates = &out->rates;
	dsa_json_object(json, "streaming");
	dsa_json_put_bool(json, "implemented", true);
	dsa_json_put_int(json, "context", out->context);
	dsa_json_put_int(json, "documents", out->plan[0].documents);
	dsa_json_put_uint(json, "host_memory", out->machine[0].host_memory);
	dsa_json_put_real(json, "link_rate", link_rate);
	dsa_json_put_real(json, "disk_rate", disk_rate);
	dsa_json_object(json, "seconds_per_token");
	dsa_json_put_text(json, "measured_on", out->rates_from);
	dsa_json_put_real(json, "dense_full", rates->dense_full);
	dsa_json_put_real(json, "dense_shared", rates->dense_shared);
	dsa_json_put_real(json, "moe_full", rates->moe_full);
	dsa_json_put_real(json, "moe_shared", rates->moe_shared);
	dsa_json_put_real(json, "head", rates->head);
	dsa_json_end(json);
	dsa_json_array(json, "machines");
	for (int i = 0; i < DSA_INSPECT_MACHINES; i++)
		put_machine(json, &out->machine[i], &out->plan[i]);
	dsa_json_end(json);
	dsa_json_end(json);
}
