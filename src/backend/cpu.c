/* The CPU backend: opening, scratch, faults, the operator table. */
#include "cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include <blis.h>

#include "dsa/arena.h"

void *cpu_carve(struct cpu_carve *carve, int64_t count, size_t size)
{
	assert(count >= 0);
	char *piece = carve->base ? carve->base + carve->used : NULL;
	carve->used += ((size_t)count * size + 63) / 64 * 64;
	return piece;
}

struct cpu_carve cpu_scratch(struct dsa_cpu *cpu, size_t bytes)
{
	assert(bytes <= cpu->scratch_bytes);
	return (struct cpu_carve){.base = cpu->scratch};
}

void cpu_fault_record(struct dsa_cpu *cpu, enum dsa_status code, const char *fmt, ...)
{
	if (cpu->fault.code != DSA_OK)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(cpu->fault.text, sizeof cpu->fault.text, fmt, args);
	va_end(args);
	cpu->fault.code = code;
}

static enum dsa_status cpu_wait(struct dsa_backend *be, struct dsa_error *err)
{
	struct dsa_cpu *cpu = cpu_of(be);
	struct cpu_fault fault = cpu->fault;
	cpu->fault.code = DSA_OK;
	return fault.code == DSA_OK ? DSA_OK : dsa_fail(err, fault.code, "%s", fault.text);
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t cpu_scratch_bytes(const struct dsa_backend *be, const struct dsa_backend_limits *l)
{
	int threads = ((const struct dsa_cpu *)be)->threads;
	size_t bytes =
	    cpu_select_bytes(l->keys, l->index_heads, l->index_dim, l->max_context, l->index_precision, threads);
	bytes = larger(bytes, cpu_attention_bytes(l->latent + l->rope, l->topk, threads));
	bytes = larger(bytes, cpu_route_bytes(l->experts, threads));
	bytes = larger(bytes, cpu_experts_bytes(l->rows, l->hidden, l->expert_inner, l->experts, l->chosen, threads));
	bytes = larger(bytes, cpu_compare_bytes(l->vocab, threads));
	return larger(bytes, cpu_overlap_bytes(l->max_context, threads));
}

static enum dsa_status cpu_reserve(struct dsa_backend *be, const struct dsa_backend_limits *l, struct dsa_error *err)
{
	struct dsa_cpu *cpu = cpu_of(be);
	size_t bytes = cpu_scratch_bytes(be, l);
	cpu->max_context = l->max_context > cpu->max_context ? l->max_context : cpu->max_context;
	if (bytes <= cpu->scratch_bytes)
		return DSA_OK;
	free(cpu->scratch);
	cpu->scratch_bytes = 0;
	cpu->scratch = dsa_alloc(bytes, 1, "the operators' scratch", err);
	if (!cpu->scratch)
		return DSA_E_MEMORY;
	cpu->scratch_bytes = bytes;
	return DSA_OK;
}

static void cpu_close(struct dsa_backend *be)
{
	struct dsa_cpu *cpu = cpu_of(be);
	free(cpu->scratch);
	free(cpu);
}

static const struct dsa_ops cpu_ops = {
    .alloc = cpu_alloc,
    .free = cpu_free,
    .stash_alloc = cpu_stash_alloc,
    .stash_free = cpu_stash_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .copy = cpu_copy,
    .wait = cpu_wait,
    .load_weight = cpu_load_weight,
    .load_fp8 = cpu_load_fp8,
    .pinned_alloc = cpu_pinned_alloc,
    .pinned_free = cpu_pinned_free,
    .fetch = cpu_fetch,
    .fetched = cpu_fetched,
    .convert = cpu_convert,
    .scale = cpu_scale,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .layernorm = cpu_layernorm,
    .linear = cpu_linear,
    .head_linear = cpu_head_linear,
    .rope = cpu_rope,
    .copy_heads = cpu_copy_heads,
    .store_keys = cpu_store_keys,
    .select = cpu_select,
    .attention = cpu_attention,
    .silu_mul = cpu_silu_mul,
    .route = cpu_route,
    .experts = cpu_experts,
    .gather = cpu_gather,
    .compare = cpu_compare,
    .logits = cpu_logits,
    .overlap = cpu_overlap,
    .memory = cpu_memory,
    .scratch_bytes = cpu_scratch_bytes,
    .reserve = cpu_reserve,
    .close = cpu_close,
};

enum dsa_status dsa_cpu_open(struct dsa_backend **out, const struct dsa_backend_options *options, struct dsa_error *err)
{
	struct dsa_cpu *cpu = dsa_alloc(1, sizeof *cpu, "the CPU backend", err);
	*out = NULL;
	if (!cpu)
		return DSA_E_MEMORY;
	cpu->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
	enum dsa_status status = cpu_start_threads(cpu->threads, err);
	if (status) {
		free(cpu);
		return status;
	}
	cpu->base = (struct dsa_backend){.ops = &cpu_ops,
	                                 .act = DSA_F32,
	                                 .weight = DSA_F32,
	                                 .tile = CPU_TILE,
	                                 .pass_tokens = 2 * CPU_TILE,
	                                 .log = options->log};
	snprintf(cpu->base.name, sizeof cpu->base.name, "cpu: %d thread%s, BLIS %s", cpu->threads,
	         cpu->threads == 1 ? "" : "s", bli_info_get_version_str());
	*out = &cpu->base;
	return DSA_OK;
}
