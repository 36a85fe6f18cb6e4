#include "inspect_plan.h"

#include <stdio.h>

static const double gib = 1073741824.0;

/* A pinned copy to an H100 on PCIe 5 and one fast NVMe drive. */
static const double link_rate = 53e9, disk_rate = 7e9;
enum { CONTEXT = 32768, TOKENS = 1 << 20, HOST_GIB = 1024 };

enum dsa_status dsa_inspect_plan(struct dsa_inspect_plan *out, const struct dsa_cli_options *options,
                                 const struct dsa_model_config *config, const struct dsa_footprint *footprint,
                                 uint64_t gpu_memory, struct dsa_error *err)
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
	for (int i = 0; i < DSA_INSPECT_MACHINES; i++) {
		out->machine[i] = (struct dsa_streaming_machine){
		    .gpus = gpus[i],
		    .gpu_memory = (double)gpu_memory,
		    .host_memory = options->host_memory ? (double)options->host_memory : HOST_GIB * gib,
		    .link_rate = link_rate,
		    .disk_rate = disk_rate,
		};
		dsa_streaming_plan(&out->plan[i], config, footprint, &out->machine[i], out->tokens, out->context);
	}
	return DSA_OK;
}

static const char *const places[] = {"device", "host", "disk"};
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
	printf(", %.3g TB to GPUs in ", cost->link_bytes / 1e12);
	print_duration(cost->link_seconds);
	printf(", %.3g TB off disk in ", cost->disk_bytes / 1e12);
	print_duration(cost->disk_seconds);
	printf("\n");
}

static void print_machine(const struct dsa_streaming_machine *machine, const struct dsa_streaming_plan *plan)
{
	printf("%-14s %d H100: ", "", machine->gpus);
	if (!plan->fits) {
		printf("two layers and one document do not fit into %.1f GiB\n", machine->gpu_memory / gib);
		return;
	}
	if (plan->place == DSA_STREAMING_DEVICE)
		printf("the whole model on every GPU");
	else if (plan->place == DSA_STREAMING_HOST)
		printf("layers from pinned host memory");
	else
		printf("layers from disk, %.0f%% of them kept in pinned host memory", 100 * plan->pinned);
	printf("; %d of %d candidates together, %d documents a visit\n", plan->wave, plan->candidates, plan->visit);
	print_cost("reference", &plan->base);
	print_cost("first step", &plan->first);
	print_cost("all steps", &plan->whole);
}

void dsa_inspect_plan_print(const struct dsa_inspect_plan *out)
{
	printf("on paper       layers that do not fit are streamed. Exact search, batches (--batch-tokens) of as many "
	       "documents as\n%-14s fit, %d documents of %d tokens, %.0f GiB of host memory, PCIe %.0f GB/s, disk %.0f "
	       "GB/s, kernels\n%-14s as fast as the best known on an H100, would take about:\n",
	       "", out->plan[0].documents, out->context, out->machine[0].host_memory / gib, link_rate / 1e9,
	       disk_rate / 1e9, "");
	for (int i = 0; i < DSA_INSPECT_MACHINES; i++)
		print_machine(&out->machine[i], &out->plan[i]);
}

static void put_cost(struct dsa_json_writer *json, const char *name, const struct dsa_streaming_cost *cost)
{
	static const char *const names[] = {"compute", "link", "disk"};
	dsa_json_object(json, name);
	dsa_json_put_real(json, "flops", cost->flops);
	dsa_json_put_real(json, "link_bytes", cost->link_bytes);
	dsa_json_put_real(json, "disk_bytes", cost->disk_bytes);
	dsa_json_put_real(json, "compute_seconds", cost->compute_seconds);
	dsa_json_put_real(json, "link_seconds", cost->link_seconds);
	dsa_json_put_real(json, "disk_seconds", cost->disk_seconds);
	dsa_json_put_real(json, "seconds", cost->seconds);
	dsa_json_put_text(json, "bound_by", names[cost->bound]);
	dsa_json_end(json);
}

void dsa_inspect_plan_json(struct dsa_json_writer *json, const struct dsa_inspect_plan *out)
{
	dsa_json_object(json, "streaming");
	dsa_json_put_bool(json, "implemented", true);
	dsa_json_put_int(json, "context", out->context);
	dsa_json_put_int(json, "documents", out->plan[0].documents);
	dsa_json_put_real(json, "host_memory", out->machine[0].host_memory);
	dsa_json_put_real(json, "link_rate", link_rate);
	dsa_json_put_real(json, "disk_rate", disk_rate);
	dsa_json_array(json, "machines");
	for (int i = 0; i < DSA_INSPECT_MACHINES; i++) {
		const struct dsa_streaming_plan *plan = &out->plan[i];
		dsa_json_object(json, NULL);
		dsa_json_put_int(json, "gpus", out->machine[i].gpus);
		dsa_json_put_bool(json, "fits", plan->fits);
		if (plan->fits) {
			dsa_json_put_text(json, "residency", places[plan->place]);
			dsa_json_put_real(json, "pinned_share", plan->pinned);
			dsa_json_put_int(json, "candidates", plan->candidates);
			dsa_json_put_int(json, "wave", plan->wave);
			dsa_json_put_int(json, "documents_a_visit", plan->visit);
			put_cost(json, "reference", &plan->base);
			put_cost(json, "first_step", &plan->first);
			put_cost(json, "all_steps", &plan->whole);
		}
		dsa_json_end(json);
	}
	dsa_json_end(json);
	dsa_json_end(json);
}
