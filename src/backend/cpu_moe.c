/* The feed-forward's own operators: gated activation, router, experts. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "lanes.h"

/* 1 / (1 + e^-x) */
LANES_INLINE wide sigmoid(wide x)
{
	return wide_splat(1.0f) / (wide_splat(1.0f) + wide_exp(-x));
}

void cpu_silu_row(float *out, const float *gate, const float *up, int n)
{
	for (int j = 0; j < n; j += WIDE) {
		wide g = wide_load_part(gate + j, n - j), u = wide_load_part(up + j, n - j);
		wide_store_part(out + j, g * sigmoid(g) * u, n - j);
	}
}

enum dsa_status cpu_silu_mul(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor gate_up,
                             struct dsa_error *err)
{
	(void)err;
	assert(out.dtype == DSA_F32 && gate_up.dtype == DSA_F32 && out.rows == gate_up.rows);
	assert(gate_up.cols == 2 * out.cols);
#pragma omp parallel for num_threads(cpu_of(be)->threads) schedule(static)
	for (int64_t i = 0; i < out.rows; i++)
		cpu_silu_row(cpu_row(out, i), cpu_row(gate_up, i), cpu_row(gate_up, i) + out.cols, out.cols);
	return DSA_OK;
}

struct route_scratch {
	float *score;  /* (E) sigmoid of the logits */
	float *choice; /* (E) with the correction, -infinity once out of the race */
	float *group;  /* (groups ≤ E) */
};

static size_t carve_route(struct route_scratch *s, struct cpu_carve carve, int experts)
{
	s->score = cpu_carve(&carve, experts, sizeof *s->score);
	s->choice = cpu_carve(&carve, experts, sizeof *s->choice);
	s->group = cpu_carve(&carve, experts, sizeof *s->group);
	return carve.used;
}

size_t cpu_route_bytes(int experts, int threads)
{
	struct route_scratch s;
	return carve_route(&s, (struct cpu_carve){0}, experts) * (size_t)threads;
}

/* Lowest index of the largest; -1 if all are -infinity. */
static int best(const float *x, int n)
{
	int index = -1;
	float most = -INFINITY;
	for (int i = 0; i < n; i++)
		if (x[i] > most)
			most = x[i], index = i;
	return index;
}

static float two_best(const float *x, int n)
{
	float first = -INFINITY, second = -INFINITY;
	for (int i = 0; i < n; i++) {
		if (x[i] > first)
			second = first, first = x[i];
		else if (x[i] > second)
			second = x[i];
	}
	return n > 1 ? first + second : first;
}

/* Leaves only the experts of the best groups in the race. */
static void keep_groups(const struct route_scratch *s, const struct dsa_router *router)
{
	int size = router->experts / router->groups;
	for (int g = 0; g < router->groups; g++)
		s->group[g] = two_best(s->choice + g * size, size);
	for (int n = 0; n < router->chosen_groups; n++) {
		int g = best(s->group, router->groups);
		if (g >= 0)
			s->group[g] = NAN; /* kept, and never best again */
	}
	for (int g = 0; g < router->groups; g++)
		if (!isnan(s->group[g]))
			for (int i = 0; i < size; i++)
				s->choice[g * size + i] = -INFINITY;
}

/* False if a choice score is not finite. */
static bool route_row(const struct route_scratch *s, int32_t *ids, float *weights, const float *logits,
                      const float *correction, const struct dsa_router *router)
{
	bool finite = true;
	for (int e = 0; e < router->experts; e += WIDE) {
		int n = router->experts - e;
		wide_store_part(s->score + e, sigmoid(wide_load_part(logits + e, n)), n);
	}
	for (int e = 0; e < router->experts; e++) {
		s->choice[e] = s->score[e] + correction[e];
		finite &= isfinite(s->choice[e]) != 0;
	}
	if (!finite)
		for (int e = 0; e < router->experts; e++)
			s->choice[e] = 0;
	if (router->chosen_groups < router->groups)
		keep_groups(s, router);
	float sum = 0;
	for (int n = 0; n < router->chosen; n++) {
		int e = best(s->choice, router->experts);
		assert(e >= 0);
		s->choice[e] = -INFINITY;
		ids[n] = e;
		weights[n] = s->score[e];
		sum += s->score[e];
	}
	for (int n = 0; n < router->chosen; n++) {
		if (router->normalise)
			weights[n] /= sum + 1e-20f;
		weights[n] *= router->scale;
	}
	return finite;
}

enum dsa_status cpu_route(struct dsa_backend *be, int32_t *ids, float *weights, struct dsa_tensor logits,
                          struct dsa_tensor correction, const struct dsa_router *router, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	assert(logits.dtype == DSA_F32 && correction.dtype == DSA_F32);
	assert(logits.cols == router->experts && correction.cols == router->experts);
	assert(router->groups > 0 && router->experts % router->groups == 0);
	assert(router->chosen > 0 && router->chosen <= router->experts / router->groups * router->chosen_groups);
	struct cpu_carve carve = cpu_scratch(cpu, cpu_route_bytes(router->experts, cpu->threads));
	size_t own = cpu_route_bytes(router->experts, 1);
	int64_t bad_row = INT64_MAX;
#pragma omp parallel for num_threads(cpu->threads) schedule(static) reduction(min : bad_row)
	for (int64_t i = 0; i < logits.rows; i++) {
		struct route_scratch s;
		carve_route(&s, (struct cpu_carve){.base = carve.base + own * (size_t)omp_get_thread_num()},
		            router->experts);
		if (!route_row(&s, ids + i * router->chosen, weights + i * router->chosen, cpu_row(logits, i),
		               correction.data, router))
			bad_row = cpu_min(bad_row, i);
	}
	if (bad_row != INT64_MAX)
		cpu_fault_record(cpu, DSA_E_NUMERIC,
		                 "router: a score of query row %lld is not finite, expected finite numbers",
		                 (long long)bad_row);
	return DSA_OK;
}
