#include "backend/cpu_fixture.h"

static double silu(double x)
{
	return x / (1 + exp(-x));
}

static void gated_activation_equals_double_precision(void **state)
{
	(void)state;
	const int widths[] = {1, 6, 16, 33, 96, 2048};
	for (size_t n = 0; n < sizeof widths / sizeof *widths; n++) {
		struct fixture f = fixture_open(2);
		int m = widths[n];
		struct dsa_tensor x = fixture_tensor(&f, 9, 2 * m, n % 2 ? 20 : 1), out = fixture_poison(&f, 9, m);
		fixture_ok(&f, f.be->ops->silu_mul(f.be, out, x, NULL));
		for (int i = 0; i < 9; i++)
			for (int j = 0; j < m; j++) {
				double y = silu((double)fixture_at(x, i, j)) * (double)fixture_at(x, i, m + j);
				fixture_close_to((double)fixture_at(out, i, j), y, fabs(y), 1e-6);
			}
		fixture_close(&f);
	}
}

struct routing {
	struct dsa_tensor logits, correction;
	struct dsa_router router;
	float *weights;
	int32_t *ids;
};

static struct routing routing_make(struct fixture *f, int64_t rows, struct dsa_router router)
{
	struct routing r = {.router = router};
	r.logits = fixture_tensor(f, rows, router.experts, 3);
	r.correction = fixture_tensor(f, 1, router.experts, 0.2f);
	r.weights = fixture_keep(f, (size_t)(rows * router.chosen) * sizeof *r.weights);
	r.ids = fixture_keep(f, (size_t)(rows * router.chosen) * sizeof *r.ids);
	memset(r.ids, 0x7f, (size_t)(rows * router.chosen) * sizeof *r.ids);
	return r;
}

static void route(struct fixture *f, struct routing *r)
{
	fixture_ok(f, f->be->ops->route(f->be, r->ids, r->weights, r->logits, r->correction, &r->router, NULL));
}

static int compare_descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

static double two_best(const double *x, int n)
{
	double sorted[64];
	memcpy(sorted, x, (size_t)n * sizeof *x);
	qsort(sorted, (size_t)n, sizeof *sorted, compare_descending);
	return sorted[0] + sorted[1];
}

/* Ranks by counting what is better, or equal and lower. */
static int rank_of(const double *x, int n, int at)
{
	int rank = 0;
	for (int i = 0; i < n; i++)
		rank += x[i] > x[at] || (x[i] == x[at] && i < at);
	return rank;
}

static void check_row(const struct routing *r, int64_t row)
{
	const struct dsa_router *o = &r->router;
	int size = o->experts / o->groups;
	double score[64], choice[64], group[64], sum = 0;
	for (int e = 0; e < o->experts; e++) {
		score[e] = 1 / (1 + exp(-(double)fixture_at(r->logits, row, e)));
		choice[e] = score[e] + (double)fixture_at(r->correction, 0, e);
	}
	if (o->groups > 1) {
		for (int g = 0; g < o->groups; g++)
			group[g] = two_best(choice + g * size, size);
		for (int e = 0; e < o->experts; e++)
			if (rank_of(group, o->groups, e / size) >= o->chosen_groups)
				choice[e] = -INFINITY;
	}
	const int32_t *ids = r->ids + row * o->chosen;
	for (int n = 0; n < o->chosen; n++) {
		assert_true(ids[n] >= 0 && ids[n] < o->experts);
		assert_int_equal(rank_of(choice, o->experts, ids[n]), n);
		sum += score[ids[n]];
	}
	for (int n = 0; n < o->chosen; n++) {
		double weight = score[ids[n]] / (o->normalise ? sum + 1e-20 : 1) * (double)o->scale;
		fixture_close_to((double)r->weights[row * o->chosen + n], weight, weight, 1e-6);
	}
}

static void routing_follows_the_rule(void **state)
{
	(void)state;
	const struct dsa_router routers[] = {
	    {8, 2, 1, 1, true, 1},     {8, 2, 4, 2, true, 2.5f}, {16, 6, 4, 2, false, 1.5f},
	    {64, 8, 8, 4, true, 2.5f}, {5, 5, 1, 1, false, 1},   {1, 1, 1, 1, true, 1},
	};
	for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
		struct fixture f = fixture_open(1 + (int)i % 3);
		struct routing r = routing_make(&f, 200, routers[i]);
		route(&f, &r);
		for (int64_t row = 0; row < 200; row++)
			check_row(&r, row);
		fixture_close(&f);
	}
}

static void equal_scores_choose_the_lower_expert_and_group(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct routing r = routing_make(&f, 1, (struct dsa_router){8, 4, 4, 2, true, 1});
	for (int e = 0; e < 8; e++)
		((float *)r.logits.data)[e] = 0.5f, ((float *)r.correction.data)[e] = 0;
	route(&f, &r);
	for (int n = 0; n < 4; n++) {
		assert_int_equal(r.ids[n], n);
		assert_true(r.weights[n] == 0.25f);
	}
	fixture_close(&f);
}

static void experts_of_dropped_groups_lose_even_against_negative_scores(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct routing r = routing_make(&f, 1, (struct dsa_router){4, 2, 2, 1, true, 1});
	/* Group 0 has the better pair, but its second is below 0 and below everything in group 1. */
	const float logits[] = {0, 0, 0, 0}, correction[] = {9, -8, -1, -1};
	memcpy(r.logits.data, logits, sizeof logits);
	memcpy(r.correction.data, correction, sizeof correction);
	route(&f, &r);
	assert_int_equal(r.ids[0], 0);
	assert_int_equal(r.ids[1], 1);
	fixture_close(&f);
}

static void routing_of_nan_is_a_fault(void **state)
{
	(void)state;
	struct fixture f = fixture_open(2);
	struct routing r = routing_make(&f, 50, (struct dsa_router){8, 2, 4, 2, true, 1});
	fixture_row(r.logits, 31)[5] = NAN;
	fixture_row(r.logits, 40)[5] = NAN;
	struct dsa_error err = {""};
	assert_int_equal(f.be->ops->route(f.be, r.ids, r.weights, r.logits, r.correction, &r.router, &err), DSA_OK);
	assert_int_equal(f.be->ops->wait(f.be, &err), DSA_E_NUMERIC);
	assert_non_null(strstr(err.text, "row 31"));
	assert_int_equal(f.be->ops->wait(f.be, &err), DSA_OK);
	fixture_close(&f);
}

struct mixture {
	struct dsa_tensor x;
	struct dsa_experts experts;
	int32_t *ids;
	float *weights;
	int chosen;
};

static struct mixture mixture_make(struct fixture *f, int64_t rows, int hidden, int inner, int count, int chosen)
{
	struct mixture m = {.chosen = chosen, .experts = {.count = count, .inner = inner}};
	m.x = fixture_tensor(f, rows, hidden, 1);
	m.experts.gate_up = fixture_tensor(f, (int64_t)count * 2 * inner, hidden, 1);
	m.experts.down = fixture_tensor(f, (int64_t)count * hidden, inner, 1);
	m.ids = fixture_keep(f, (size_t)(rows * chosen) * sizeof *m.ids);
	m.weights = fixture_keep(f, (size_t)(rows * chosen) * sizeof *m.weights);
	for (int64_t i = 0; i < rows; i++)
		for (int n = 0; n < chosen; n++) {
			/* Favouring low experts: pieces of very different sizes. An expert may come twice. */
			m.ids[i * chosen + n] = fixture_below(f, 1 + fixture_below(f, count));
			m.weights[i * chosen + n] = fixture_float(f);
		}
	return m;
}

static void run_experts(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct mixture *m = context;
	for (int64_t i = 0; i < count * m->x.cols; i++)
		((float *)out)[i] = 0.5f;
	fixture_ok(f, f->be->ops->experts(f->be, dsa_tensor_make(out, DSA_F32, count, m->x.cols),
	                                  dsa_tensor_rows(m->x, first, count), m->ids + first * m->chosen,
	                                  m->weights + first * m->chosen, m->chosen, &m->experts, NULL));
}

static void check_expert_row(const struct mixture *m, int64_t row, const float *out)
{
	int hidden = m->x.cols, inner = m->experts.inner;
	double *sum = calloc((size_t)hidden, sizeof *sum), *act = calloc((size_t)inner, sizeof *act), magnitude = 1;
	assert_non_null(sum);
	assert_non_null(act);
	for (int n = 0; n < m->chosen; n++) {
		int64_t e = m->ids[row * m->chosen + n];
		double largest = 0;
		for (int i = 0; i < inner; i++) {
			double gate = 0, up = 0, gates = 0, ups = 0;
			for (int j = 0; j < hidden; j++) {
				double x = (double)fixture_at(m->x, row, j);
				double g = x * (double)fixture_at(m->experts.gate_up, e * 2 * inner + i, j);
				double u = x * (double)fixture_at(m->experts.gate_up, e * 2 * inner + inner + i, j);
				gate += g, gates += fabs(g);
				up += u, ups += fabs(u);
			}
			act[i] = silu(gate) * up;
			/* An error of the sums reaches the output through the other factor. */
			largest += gates * fabs(up) + ups * fabs(silu(gate));
		}
		magnitude += largest;
		for (int j = 0; j < hidden; j++)
			for (int i = 0; i < inner; i++)
				sum[j] += (double)m->weights[row * m->chosen + n] * act[i] *
				          (double)fixture_at(m->experts.down, e * hidden + j, i);
	}
	for (int j = 0; j < hidden; j++)
		fixture_close_to((double)out[j], 0.5 + sum[j], magnitude, 1e-6);
	free(sum);
	free(act);
}

static void experts_equal_double_precision(void **state)
{
	(void)state;
	const int shapes[][5] = {/* R, D, m, E, chosen */ {1, 1, 1, 1, 1},
	                         {40, 40, 6, 5, 3},
	                         {100, 256, 96, 8, 2},
	                         {33, 65, 17, 64, 8},
	                         {1500, 24, 8, 2, 2},
	                         {300, 4096, 1, 9, 8},
	                         {7, 50, 300, 4, 1}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const int *s = shapes[i];
		struct fixture f = fixture_open(1 + (int)i % 3);
		struct mixture m = mixture_make(&f, s[0], s[1], s[2], s[3], s[4]);
		struct dsa_tensor out = fixture_poison(&f, s[0], s[1]);
		run_experts(&f, &m, 0, s[0], out.data);
		for (int64_t row = 0; row < s[0]; row++)
			check_expert_row(&m, row, fixture_row(out, row));
		fixture_close(&f);
	}
}

static void a_row_of_experts_does_not_depend_on_other_rows(void **state)
{
	(void)state;
	struct fixture f = fixture_open(1);
	struct mixture m = mixture_make(&f, 1024, 128, 48, 8, 2);
	fixture_rows_are_independent(run_experts, &m, 1024, 128 * sizeof(float), 3);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(gated_activation_equals_double_precision),
	    cmocka_unit_test(routing_follows_the_rule),
	    cmocka_unit_test(equal_scores_choose_the_lower_expert_and_group),
	    cmocka_unit_test(experts_of_dropped_groups_lose_even_against_negative_scores),
	    cmocka_unit_test(routing_of_nan_is_a_fault),
	    cmocka_unit_test(experts_equal_double_precision),
	    cmocka_unit_test(a_row_of_experts_does_not_depend_on_other_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
