#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "dsa/overlap.h"

enum { LAYERS = 3, TOPK = 10 };

static struct dsa_overlap overlap;
static struct dsa_arena arena;

static void begin(void)
{
	struct dsa_error err;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_overlap_init(&overlap, 2, LAYERS, TOPK, &arena, &err), DSA_OK);
}

/* One document with `queries` queries in bucket p; c01 common positions of layers 0 and 1, none with layer 2. */
static void add(int corpus, int p, int64_t queries, int64_t c01)
{
	int64_t counts[LAYERS * LAYERS] = {0};
	struct dsa_doc_overlap document = {.layers = LAYERS};
	for (int l = 0; l < LAYERS; l++)
		counts[l * LAYERS + l] = queries * TOPK;
	counts[1] = c01;
	document.queries[p] = queries;
	document.counts[p] = counts;
	dsa_overlap_add(&overlap, corpus, &document);
}

static void overlap_is_the_mean_share_of_common_positions(void **state)
{
	(void)state;
	begin();
	add(0, 0, 20, 150);
	add(0, 1, 5, 10);
	add(1, 0, 4, 4);
	assert_true(dsa_overlap_at(&overlap, 0, 0, 0, 1) == 150.0 / 200.0);
	assert_true(dsa_overlap_at(&overlap, 0, 1, 0, 1) == 10.0 / 50.0);
	assert_true(dsa_overlap_at(&overlap, 0, -1, 0, 1) == 160.0 / 250.0);
	assert_true(dsa_overlap_at(&overlap, 0, -1, 1, 0) == 160.0 / 250.0);
	assert_true(dsa_overlap_at(&overlap, 0, -1, 2, 2) == 1.0);
	assert_true(dsa_overlap_at(&overlap, 0, -1, 0, 2) == 0.0);
	assert_true(dsa_overlap_at(&overlap, 1, -1, 0, 1) == 0.1);
	dsa_arena_release(&arena);
}

static void what_float32_would_have_selected_is_counted_where_it_is_known(void **state)
{
	(void)state;
	int64_t counts[LAYERS * LAYERS] = {0}, plain[LAYERS] = {190, 0, 200};
	struct dsa_doc_overlap document = {.layers = LAYERS};
	begin();
	add(0, 0, 20, 150);
	assert_true(isnan(dsa_overlap_plain(&overlap, 0, -1, 0)));
	dsa_arena_release(&arena);
	begin();
	document.queries[1] = 20;
	document.counts[1] = counts;
	document.plain[1] = plain;
	dsa_overlap_add(&overlap, 1, &document);
	document.queries[1] = 0;
	document.queries[2] = 20;
	document.counts[2] = counts;
	document.plain[2] = plain;
	plain[0] = 150;
	dsa_overlap_add(&overlap, 1, &document);
	assert_true(dsa_overlap_plain(&overlap, 1, 1, 0) == 190.0 / (20 * TOPK));
	assert_true(dsa_overlap_plain(&overlap, 1, -1, 0) == 340.0 / (40 * TOPK));
	assert_true(dsa_overlap_plain(&overlap, 1, -1, 1) == 0);
	assert_true(dsa_overlap_plain(&overlap, 1, 2, 2) == 200.0 / (20 * TOPK));
	assert_true(isnan(dsa_overlap_plain(&overlap, 0, -1, 0)));
	dsa_arena_release(&arena);
}

static void overlap_of_nothing_is_undefined(void **state)
{
	(void)state;
	begin();
	add(0, 2, 20, 150);
	assert_true(isnan(dsa_overlap_at(&overlap, 1, -1, 0, 1)));
	assert_true(isnan(dsa_overlap_at(&overlap, 0, 1, 0, 1)));
	assert_true(isnan(dsa_overlap_se(&overlap, 0, -1, 0, 1)));
	dsa_arena_release(&arena);
}

/* Four documents of 2, 10, 5 and 1 queries whose means are 0.5, 0.8, 0.2 and 0.9. With w the queries, m the means,
 * r = Σwm/Σw: sqrt(4/3 Σ w²(m - r)²) / Σw, worked out with numpy; the reach is scipy.stats.t.ppf(0.975, 3) times that.
 */
static void the_error_weighs_documents_by_their_queries(void **state)
{
	(void)state;
	begin();
	add(0, 0, 2, 10);
	add(0, 1, 10, 80);
	add(0, 0, 5, 10);
	add(0, 3, 1, 9);
	assert_true(fabs(dsa_overlap_at(&overlap, 0, -1, 0, 1) - 10.9 / 18) < 1e-15);
	assert_true(fabs(dsa_overlap_se(&overlap, 0, -1, 1, 0) - 0.18171578615230619) < 1e-14);
	assert_true(dsa_overlap_se(&overlap, 0, -1, 1, 1) == 0);
	struct dsa_interval all = dsa_overlap_interval(&overlap, 0, -1, 0, 1);
	assert_true(fabs(all.low - 0.027254823303323628) < 0.002 && all.high == 1);
	/* Two of them in the first bucket: one degree of freedom, and an interval that leaves 0 … 1 on both sides. */
	assert_true(fabs(dsa_overlap_se(&overlap, 0, 0, 0, 1) - 0.12244897959183672) < 1e-14);
	struct dsa_interval first = dsa_overlap_interval(&overlap, 0, 0, 0, 1);
	assert_true(first.low == 0 && first.high == 1);
	/* One document has no error. */
	assert_true(isnan(dsa_overlap_se(&overlap, 0, 1, 0, 1)) &&
	            isnan(dsa_overlap_interval(&overlap, 0, 1, 0, 1).low));
	dsa_arena_release(&arena);
}

static void intervals_reach_as_far_as_students_t(void **state)
{
	(void)state;
	/* scipy.stats.t.ppf(0.975, n - 1) */
	static const struct {
		int documents;
		double t;
	} known[] = {{2, 12.706204736}, {3, 4.302652730},  {4, 3.182446305},
	             {6, 2.570581836},  {16, 2.131449546}, {101, 1.983971519}};
	for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
		begin();
		for (int d = 0; d < known[k].documents; d++)
			add(0, 0, 1000, 5000 + d % 2);
		double se = dsa_overlap_se(&overlap, 0, -1, 0, 1), mean = dsa_overlap_at(&overlap, 0, -1, 0, 1);
		struct dsa_interval interval = dsa_overlap_interval(&overlap, 0, -1, 0, 1);
		assert_true(se > 0);
		assert_true(fabs((interval.high - mean) / se / known[k].t - 1) < 0.003);
		assert_true(fabs((mean - interval.low) / se / known[k].t - 1) < 0.003);
		dsa_arena_release(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(overlap_is_the_mean_share_of_common_positions),
	    cmocka_unit_test(what_float32_would_have_selected_is_counted_where_it_is_known),
	    cmocka_unit_test(overlap_of_nothing_is_undefined),
	    cmocka_unit_test(the_error_weighs_documents_by_their_queries),
	    cmocka_unit_test(intervals_reach_as_far_as_students_t),
	};
	return cmocka_run_group_tests_name("overlap", tests, NULL, NULL);
}
