#include "gpu_fixture.h"

/* The feed-forward's own: which experts, and what they add. */

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

/* Equal choices, but where the CPU's two choice scores are as good as equal; equal weights where the choice is. */
static void same_routing(struct gpu *g, const struct dsa_router *o, int64_t rows, struct both_ints ids,
                         struct both weights, const float *logits, const float *correction, bool exact)
{
	size_t bytes = (size_t)(rows * o->chosen) * sizeof(int32_t);
	const int32_t *want = gpu_download(g, g->be[CPU], ids.at[CPU], bytes),
		      *got = gpu_download(g, g->be[GPU], ids.at[GPU], bytes);
	const float *want_weight = gpu_fetch(g, g->be[CPU], weights.at[CPU]),
		    *got_weight = gpu_fetch(g, g->be[GPU], weights.at[GPU]);
	int64_t swapped = 0;
	for (int64_t i = 0; i < rows; i++) {
		bool equal = true;
		for (int n = 0; n < o->chosen; n++) {
			int a = got[i * o->chosen + n], b = want[i * o->chosen + n];
			if (a < 0 || a >= o->experts)
				fail_msg("row %lld chooses expert %d of %d", (long long)i, a, o->experts);
			double x = sigmoid((double)logits[i * o->experts + a]) + (double)correction[a];
			double y = sigmoid((double)logits[i * o->experts + b]) + (double)correction[b];
			/* Groups are chosen by sums of two: their near-ties change whole sets. */
			if (a != b && (exact || (o->chosen_groups == o->groups && fabs(x - y) > 1e-6)))
				fail_msg("row %lld choice %d is expert %d, expected %d", (long long)i, n, a, b);
			equal &= a == b;
		}
		swapped += !equal;
		for (int n = 0; n < o->chosen && equal; n++) {
			double a = (double)got_weight[i * o->chosen + n], b = (double)want_weight[i * o->chosen + n];
			if (!(fabs(a - b) <= 1e-5 * fabs(b)))
				fail_msg("row %lld weight %d is %.9g, expected %.9g", (long long)i, n, a, b);
		}
	}
	if (swapped > rows / 200 + 1)
		fail_msg("%lld of %lld rows choose otherwise", (long long)swapped, (long long)rows);
}

static void route(struct gpu *g, const struct dsa_router *o, int64_t rows, const float *logits, const float *correction,
                  bool exact)
{
	gpu_reserve(g, (struct dsa_backend_limits){.rows = rows, .experts = o->experts, .chosen = o->chosen});
	struct both x = gpu_put(g, logits, rows, o->experts, GPU_F32, 0),
		    c = gpu_put(g, correction, 1, o->experts, GPU_F32, 0);
	struct both weights = gpu_poison(g, rows, o->chosen, GPU_F32, 0),
		    ids = gpu_poison(g, rows, o->chosen, GPU_F32, 0);
	BOTH(g, route, ids.at[s].data, weights.at[s].data, x.at[s], c.at[s], o);
	same_routing(g, o, rows, (struct both_ints){NULL, {ids.at[CPU].data, ids.at[GPU].data}}, weights, logits,
	             correction, exact);
}

static const struct dsa_router routers[] = {
    {6, 2, 1, 1, true, 1},      {8, 2, 1, 1, true, 2},        {8, 2, 2, 1, true, 2.5f},  {12, 3, 4, 2, false, 1.5f},
    {16, 2, 1, 1, true, 1},     {64, 4, 1, 1, true, 1.8f},    {64, 8, 8, 4, true, 2.5f}, {256, 8, 1, 1, true, 2.5f},
    {256, 8, 8, 4, true, 2.5f}, {160, 6, 8, 3, false, 16.0f}, {5, 5, 1, 1, false, 1},    {1, 1, 1, 1, true, 1},
};

static void routing_equals_the_cpu(struct gpu *g)
{
	for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
		const struct dsa_router *o = &routers[i];
		int64_t rows = g->small ? 33 : 3001;
		route(g, o, rows, gpu_values(g, rows, o->experts, 4, GPU_F32),
		      gpu_values(g, 1, o->experts, i % 2 ? 1.5f : 0.1f, GPU_F32), false);
		gpu_end_case(g);
	}
}

/* Logits of few values and no correction: ties everywhere, none of them by rounding. */
static void routing_ties_go_to_the_lower_expert_and_group(struct gpu *g)
{
	for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
		const struct dsa_router *o = &routers[i];
		int64_t rows = g->small ? 33 : 501;
		float *logits = gpu_host(g, (size_t)(rows * o->experts) * sizeof *logits),
		      *correction = gpu_host(g, (size_t)o->experts * sizeof *correction);
		for (int64_t j = 0; j < rows * o->experts; j++)
			logits[j] = (float)(gpu_below(g, 3) - 1) * 8;
		for (int e = 0; e < o->experts; e++)
			correction[e] = 0;
		route(g, o, rows, logits, correction, true);
		gpu_end_case(g);
	}
}

static void routing_of_nan_is_a_fault_reported_once(struct gpu *g)
{
	struct dsa_backend *be = g->be[GPU];
	const struct dsa_router *o = &routers[8];
	gpu_reserve(g, (struct dsa_backend_limits){.rows = 100, .experts = o->experts, .chosen = o->chosen});
	float *logits = gpu_values(g, 100, o->experts, 1, GPU_F32);
	logits[31 * o->experts + 100] = NAN;
	logits[77 * o->experts + 3] = INFINITY;
	struct both x = gpu_put(g, logits, 100, o->experts, GPU_F32, 0),
		    c = gpu_tensor(g, 1, o->experts, 1, GPU_F32, 0);
	struct both weights = gpu_poison(g, 100, o->chosen, GPU_F32, 0),
		    ids = gpu_poison(g, 100, o->chosen, GPU_F32, 0);
	OK(g, be->ops->route(be, ids.at[GPU].data, weights.at[GPU].data, x.at[GPU], c.at[GPU], o, &g->err));
	assert_int_equal(be->ops->wait(be, &g->err), DSA_E_NUMERIC);
	if (!strstr(g->err.text, "row 31"))
		fail_msg("the message names another row: %s", g->err.text);
	assert_int_equal(be->ops->wait(be, &g->err), DSA_OK);
}

static void experts_equal_the_cpu(struct gpu *g)
{
	static const int shapes[][5] = {/* R, D, m, E, chosen */ {40, 40, 6, 6, 2},
	                                {43, 40, 9, 8, 2},
	                                {41, 40, 7, 12, 3},
	                                {37, 40, 5, 16, 2},
	                                {1, 40, 9, 6, 2},
	                                {1, 1, 1, 1, 1},
	                                {65, 33, 17, 9, 4},
	                                {50, 40, 9, 6, 1},
	                                {600, 256, 96, 8, 2},
	                                {3, 256, 96, 8, 2},
	                                {777, 256, 96, 8, 2},
	                                {500, 512, 64, 256, 8},
	                                {300, 6144, 2048, 12, 8},
	                                {1000, 2048, 1536, 16, 4}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 4 : 0); i++) {
		const int *n = shapes[i];
		int64_t R = n[0];
		int D = n[1], m = n[2], E = n[3], chosen = n[4];
		if (g->small && R > 100)
			continue;
		gpu_reserve(g, (struct dsa_backend_limits){
				   .rows = R, .hidden = D, .expert_inner = m, .experts = E, .chosen = chosen});
		/* Of the size that keeps every inner result near 1. */
		float scale = 2 / sqrtf((float)D);
		struct both x = gpu_tensor(g, R, D, 1, GPU_ACT, 0), out = gpu_tensor(g, R, D, 0.5f, GPU_F32, 0);
		struct both gate_up = gpu_tensor(g, (int64_t)E * 2 * m, D, scale, GPU_WEIGHT, 0);
		struct both down = gpu_tensor(g, (int64_t)E * D, m, 2 / sqrtf((float)m), GPU_WEIGHT, 0);
		struct both weights = gpu_tensor(g, R, chosen, 1, GPU_F32, 0);
		int32_t *ids = gpu_host(g, (size_t)(R * chosen) * sizeof *ids);
		for (int64_t j = 0; j < R * chosen; j++) /* low experts get most; one may come twice; some get none */
			ids[j] = gpu_below(g, 1 + gpu_below(g, E));
		struct both_ints at = gpu_ints(g, ids, R * chosen);
		struct dsa_experts experts[2] = {{gate_up.at[CPU], down.at[CPU], E, m},
		                                 {gate_up.at[GPU], down.at[GPU], E, m}};
		BOTH(g, experts, out.at[s], x.at[s], at.at[s], (const float *)weights.at[s].data, chosen, &experts[s]);
		assert_same(g, out, gpu_product, "experts: %lld rows, D %d, %d of %d experts of %d", (long long)R, D,
		            chosen, E, m);
		gpu_end_case(g);
	}
}

const struct check_test experts_tests[] = {
    CHECK_TEST(routing_equals_the_cpu),
    CHECK_TEST(routing_ties_go_to_the_lower_expert_and_group),
    CHECK_TEST(routing_of_nan_is_a_fault_reported_once),
    CHECK_TEST(experts_equal_the_cpu),
    {NULL, NULL},
};
