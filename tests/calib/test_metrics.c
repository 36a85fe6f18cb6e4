/* The oracle is the plain recomputation from raw rows: sort for quantiles, two passes for errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/metrics.h"

enum { TOPK = 16, DOCUMENTS = 9, ROWS = 500, CORPORA = 2 };

static const double weights[CORPORA] = {3, 0.7};
static const int corpus_of[DOCUMENTS] = {0, 1, 0, 0, 1, 0, 1, 0, 1};

static struct dsa_row_figures rows[DOCUMENTS][ROWS];
static int positions[DOCUMENTS][ROWS], counts[DOCUMENTS];
static struct dsa_doc_stats stats[DOCUMENTS];
static struct dsa_arena arena;

static uint64_t random_state;
static double uniform(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static int set_up(void **state)
{
	(void)state;
	struct dsa_error err;
	dsa_arena_init(&arena);
	random_state = 7;
	for (int d = 0; d < DOCUMENTS; d++) {
		counts[d] = ROWS - 43 * d;
		for (int i = 0; i < counts[d]; i++) {
			struct dsa_row_figures *row = &rows[d][i];
			positions[d][i] = TOPK + i + (i > 60 ? 5 : 0) + d;
			row->kl = exp(normal() * 2.5 - 6 + d * 0.1);
			row->nll_base = -log(uniform());
			row->nll = row->nll_base + 0.1 * normal() + row->kl;
			row->top1 = uniform() < 0.9;
			row->finite = 1;
		}
		/* Rounding leaves some KL at or a little under zero. */
		rows[d][3].kl = 0;
		rows[d][4].kl = -1e-16;
		if (dsa_doc_stats_collect(&stats[d], d, TOPK, rows[d], positions[d], counts[d], &arena, &err))
			return -1;
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dsa_arena_release(&arena);
	return 0;
}

static void measure_documents(struct dsa_measure *measure, const int *order, int count)
{
	struct dsa_error err;
	assert_int_equal(dsa_measure_init(measure, CORPORA, DOCUMENTS, weights, corpus_of, &arena, &err), DSA_OK);
	for (int i = 0; i < count; i++)
		assert_int_equal(dsa_measure_add(measure, &stats[order[i]], &err), DSA_OK);
}

static const int in_order[DOCUMENTS] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

static void assert_close(double found, double expected, double relative)
{
	if (!(fabs(found - expected) <= relative * fabs(expected)))
		fail_msg("%.17g is not within %g of %.17g", found, relative, expected);
}

static void positions_fall_into_doubling_buckets(void **state)
{
	(void)state;
	assert_int_equal(dsa_position_bucket(10, 10), 0);
	assert_int_equal(dsa_position_bucket(19, 10), 0);
	assert_int_equal(dsa_position_bucket(20, 10), 1);
	assert_int_equal(dsa_position_bucket(39, 10), 1);
	assert_int_equal(dsa_position_bucket(40, 10), 2);
	assert_int_equal(dsa_position_bucket(2048 * 100, 2048), 6);
	assert_int_equal(dsa_position_bucket(INT32_MAX, 1), DSA_POSITION_BUCKETS - 1);
}

static void every_kl_is_within_a_hundredth_of_its_bin_value(void **state)
{
	(void)state;
	assert_int_equal(dsa_kl_bin(0), 0);
	assert_int_equal(dsa_kl_bin(-1e-9), 0);
	assert_int_equal(dsa_kl_bin(9.999e-13), 0);
	assert_int_equal(dsa_kl_bin(1.0001e-12), 1);
	assert_int_equal(dsa_kl_bin(1.0174e-12), 1);
	assert_int_equal(dsa_kl_bin(1.0176e-12), 2);
	assert_int_equal(dsa_kl_bin(DBL_MAX), DSA_KL_BINS - 1);
	assert_true(dsa_kl_bin_value(0) == 0);
	int last = 0;
	for (double kl = 1e-12; kl < 2500; kl *= 1.0037) {
		int bin = dsa_kl_bin(kl);
		assert_true(bin >= last && bin <= last + 1);
		assert_close(dsa_kl_bin_value(bin), kl, 0.009);
		last = bin;
	}
	assert_true(last > 2040 && last < DSA_KL_BINS);
}

static void document_sums_equal_a_plain_loop_over_its_rows(void **state)
{
	(void)state;
	for (int d = 0; d < DOCUMENTS; d++) {
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			struct dsa_sums e = {0};
			uint32_t bins[DSA_KL_BINS] = {0};
			for (int i = 0; i < counts[d]; i++) {
				const struct dsa_row_figures *row = &rows[d][i];
				double low = TOPK * pow(2, p);
				if (positions[d][i] < low || positions[d][i] >= 2 * low)
					continue;
				double delta = row->nll - row->nll_base;
				e.tokens++;
				e.top1 += row->top1;
				e.kl += row->kl;
				e.kl2 += row->kl * row->kl;
				e.nll += row->nll;
				e.nll_base += row->nll_base;
				e.dnll2 += delta * delta;
				e.kl_max = fmax(e.kl_max, row->kl);
				bins[dsa_kl_bin(row->kl)]++;
			}
			assert_memory_equal(&stats[d].at[p], &e, sizeof e);
			for (int i = 0; i < stats[d].bin_count; i++)
				if (stats[d].bins[i].position == p) {
					assert_int_equal(bins[stats[d].bins[i].bin], stats[d].bins[i].count);
					bins[stats[d].bins[i].bin] = 0;
				}
			for (int b = 0; b < DSA_KL_BINS; b++)
				assert_int_equal(bins[b], 0);
		}
		for (int i = 1; i < stats[d].bin_count; i++) {
			const struct dsa_bin *a = &stats[d].bins[i - 1], *b = &stats[d].bins[i];
			assert_true(a->position < b->position || (a->position == b->position && a->bin < b->bin));
		}
		assert_int_equal(dsa_doc_stats_total(&stats[d]).tokens, counts[d]);
	}
}

static void a_row_that_is_not_finite_is_refused_with_its_position(void **state)
{
	(void)state;
	struct dsa_row_figures bad[3] = {{.finite = 1}, {.finite = 0}, {.finite = 1}};
	static const int at[3] = {20, 31, 40};
	struct dsa_doc_stats out;
	struct dsa_error err;
	assert_int_equal(dsa_doc_stats_collect(&out, 5, TOPK, bad, at, 3, &arena, &err), DSA_E_NUMERIC);
	assert_non_null(strstr(err.text, "document 5, position 31"));
	bad[1].finite = 1;
	bad[2].kl = (double)INFINITY;
	assert_int_equal(dsa_doc_stats_collect(&out, 5, TOPK, bad, at, 3, &arena, &err), DSA_E_NUMERIC);
	assert_non_null(strstr(err.text, "position 40"));
}

static double row_value(const struct dsa_row_figures *row, int figure)
{
	return figure == 0 ? row->kl : figure == 1 ? row->nll : row->nll - row->nll_base;
}

/* Mean and SE² of one corpus from raw rows, in long double. */
static void plain_ratio(int corpus, int figure, double *mean, double *variance)
{
	long double y = 0, n = 0, squares = 0;
	int documents = 0;
	for (int d = 0; d < DOCUMENTS; d++)
		for (int i = 0; corpus_of[d] == corpus && i < counts[d]; i++) {
			y += row_value(&rows[d][i], figure);
			n++;
		}
	for (int d = 0; d < DOCUMENTS; d++) {
		long double yd = 0;
		if (corpus_of[d] != corpus)
			continue;
		for (int i = 0; i < counts[d]; i++)
			yd += row_value(&rows[d][i], figure);
		squares += (yd - y / n * counts[d]) * (yd - y / n * counts[d]);
		documents++;
	}
	*mean = (double)(y / n);
	*variance = (double)(squares * documents / (documents - 1) / n / n);
}

struct weighted {
	double kl, weight;
};

static int by_kl(const void *a, const void *b)
{
	double x = ((const struct weighted *)a)->kl, y = ((const struct weighted *)b)->kl;
	return (x > y) - (x < y);
}

/* The exact pooled quantile: smallest KL whose cumulated weight reaches the share. */
static double plain_quantile(int corpus, int low, int high, double share)
{
	static struct weighted all[DOCUMENTS * ROWS];
	int used = 0;
	double tokens[CORPORA] = {0}, whole = 0, reached = 0;
	for (int pass = 0; pass < 2; pass++)
		for (int d = 0; d < DOCUMENTS; d++)
			for (int i = 0; i < counts[d]; i++) {
				int c = corpus_of[d];
				if ((corpus >= 0 && c != corpus) || positions[d][i] < low || positions[d][i] >= high)
					continue;
				if (pass == 0)
					tokens[c]++;
				else
					all[used++] = (struct weighted){fmax(rows[d][i].kl, 0), weights[c] / tokens[c]};
			}
	qsort(all, (size_t)used, sizeof *all, by_kl);
	for (int i = 0; i < used; i++)
		whole += all[i].weight;
	int i = 0;
	for (reached = all[0].weight; i < used - 1 && reached < share * whole * (1 - 1e-12);)
		reached += all[++i].weight;
	return all[i].kl;
}

static void quality_equals_the_figures_of_the_raw_rows(void **state)
{
	(void)state;
	struct dsa_measure measure;
	measure_documents(&measure, in_order, DOCUMENTS);
	for (int corpus = DSA_ALL_CORPORA; corpus < CORPORA; corpus++) {
		double mean[3] = {0}, variance[3] = {0}, top1 = 0, kl_max = 0, w_all = 0;
		int documents = 0, tokens = 0;
		for (int c = 0; c < CORPORA; c++) {
			double w = corpus == DSA_ALL_CORPORA ? weights[c] : 1, same = 0, n = 0;
			if (corpus != DSA_ALL_CORPORA && corpus != c)
				continue;
			for (int f = 0; f < 3; f++) {
				double m, v;
				plain_ratio(c, f, &m, &v);
				mean[f] += w * m;
				variance[f] += w * w * v;
			}
			for (int d = 0; d < DOCUMENTS; d++)
				for (int i = 0; corpus_of[d] == c && i < counts[d]; i++) {
					documents += i == 0;
					tokens++;
					n++;
					same += rows[d][i].top1;
					kl_max = fmax(kl_max, rows[d][i].kl);
				}
			top1 += w * same / n;
			w_all += w;
		}
		struct dsa_quality q;
		dsa_measure_quality(&measure, corpus, TOPK, &q);
		assert_int_equal(q.documents, documents);
		assert_int_equal(q.tokens, tokens);
		assert_close(q.kl, mean[0] / w_all, 1e-13);
		assert_close(q.kl_se, sqrt(variance[0]) / w_all, 1e-12);
		assert_close(q.nll, mean[1] / w_all, 1e-13);
		assert_close(q.nll_delta, mean[2] / w_all, 1e-12);
		assert_close(q.nll_delta_se, sqrt(variance[2]) / w_all, 1e-11);
		assert_close(q.nll - q.nll_base, q.nll_delta, 1e-11);
		assert_close(q.ppl_ratio, exp(mean[2] / w_all), 1e-13);
		assert_close(q.top1, top1 / w_all, 1e-13);
		assert_true(q.kl_max == kl_max);
		assert_close(q.kl_p50, plain_quantile(corpus, 0, INT32_MAX, 0.5), 0.009);
		assert_close(q.kl_p90, plain_quantile(corpus, 0, INT32_MAX, 0.9), 0.009);
		assert_close(q.kl_p99, plain_quantile(corpus, 0, INT32_MAX, 0.99), 0.009);
		assert_int_equal(q.positions, corpus == 1 ? 5 : 6);
		int64_t in_buckets = 0;
		for (int p = 0; p < q.positions; p++) {
			assert_int_equal(q.by_position[p].from, TOPK << p);
			assert_int_equal(q.by_position[p].to, TOPK << (p + 1));
			assert_close(q.by_position[p].kl_p99, plain_quantile(corpus, TOPK << p, TOPK << (p + 1), 0.99),
			             0.009);
			in_buckets += q.by_position[p].tokens;
		}
		assert_int_equal(in_buckets, tokens);
		for (int objective = 0; corpus == DSA_ALL_CORPORA && objective < 2; objective++) {
			double m, se;
			dsa_measure_objective(&measure, objective ? DSA_OBJECTIVE_NLL : DSA_OBJECTIVE_KL, &m, &se);
			assert_close(m, mean[objective] / w_all, 1e-13);
			assert_close(se, sqrt(variance[objective]) / w_all, 1e-12);
			assert_true(objective || (m == q.kl && se == q.kl_se));
		}
	}
}

static void a_worked_example_gives_the_figures_of_numpy(void **state)
{
	(void)state;
	/* n = [2, 3, 1], y = [0.5, 0.3, 0.4]: r = 0.2, residuals 0.1, -0.3, 0.2, SE = sqrt(1.5 · 0.14) / 6. */
	static const double kl[3][3] = {{0.4, 0.1}, {0.1, 0.1, 0.1}, {0.4}};
	static const int n[3] = {2, 3, 1}, at[3] = {16, 17, 40}, same_corpus[3] = {0, 0, 0};
	struct dsa_measure measure;
	struct dsa_quality q;
	struct dsa_error err;
	assert_int_equal(dsa_measure_init(&measure, 1, 3, weights, same_corpus, &arena, &err), DSA_OK);
	for (int d = 2; d >= 0; d--) {
		struct dsa_row_figures row[3] = {{0}};
		struct dsa_doc_stats document;
		for (int i = 0; i < n[d]; i++)
			row[i] = (struct dsa_row_figures){
			    .kl = kl[d][i], .nll = 2, .nll_base = 1.5, .top1 = i == 0, .finite = 1};
		assert_int_equal(dsa_doc_stats_collect(&document, d, TOPK, row, at, n[d], &arena, &err), DSA_OK);
		assert_int_equal(dsa_measure_add(&measure, &document, &err), DSA_OK);
		dsa_measure_quality(&measure, 0, TOPK, &q);
		assert_true(isnan(q.kl_se) == (d == 2)); /* one document has no error */
	}
	assert_close(q.kl, 0.2, 1e-15);
	assert_close(q.kl_se, 0.07637626158259734, 1e-14);
	assert_close(q.nll_delta, 0.5, 1e-15);
	assert_close(q.ppl_ratio, 1.6487212707001282, 1e-14);
	assert_close(q.top1, 0.5, 1e-15);
	assert_int_equal(q.positions, 2);
	assert_int_equal(q.by_position[1].from, 32);
	assert_int_equal(q.by_position[1].tokens, 1);
	assert_close(q.by_position[1].kl, 0.1, 1e-15);
	assert_true(q.kl_max == 0.4 && q.kl_p99 <= q.kl_max);
	/* Four of six values are 0.1, so that the median is exactly on the boundary's safe side. */
	assert_close(q.kl_p50, 0.1, 0.009);
}

static void figures_do_not_depend_on_the_order_of_adding(void **state)
{
	(void)state;
	static const int shuffled[DOCUMENTS] = {7, 2, 8, 0, 5, 1, 6, 3, 4};
	for (int corpus = DSA_ALL_CORPORA; corpus < CORPORA; corpus++) {
		struct dsa_measure a, b;
		struct dsa_quality qa, qb;
		memset(&qa, 0, sizeof qa);
		memset(&qb, 0, sizeof qb);
		measure_documents(&a, in_order, DOCUMENTS);
		measure_documents(&b, shuffled, DOCUMENTS);
		dsa_measure_quality(&a, corpus, TOPK, &qa);
		dsa_measure_quality(&b, corpus, TOPK, &qb);
		assert_memory_equal(&qa.kl, &qb.kl, 12 * sizeof(double));
		for (int p = 0; p < qa.positions; p++)
			assert_memory_equal(&qa.by_position[p].kl, &qb.by_position[p].kl, 4 * sizeof(double));
	}
}

static void a_corpus_without_documents_takes_no_part(void **state)
{
	(void)state;
	static const int first_only[] = {0, 2, 3, 5, 7};
	struct dsa_measure measure;
	struct dsa_quality all, own, none;
	measure_documents(&measure, first_only, 5);
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, TOPK, &all);
	dsa_measure_quality(&measure, 0, TOPK, &own);
	dsa_measure_quality(&measure, 1, TOPK, &none);
	assert_close(all.kl, own.kl, 1e-15);
	assert_close(all.kl_se, own.kl_se, 1e-15);
	assert_true(all.kl_p99 == own.kl_p99);
	assert_int_equal(none.documents, 0);
	assert_int_equal(none.positions, 0);
	assert_true(isnan(none.kl) && isnan(none.kl_se) && isnan(none.kl_p50) && isnan(none.kl_max));
	assert_true(isnan(none.nll) && isnan(none.nll_delta) && isnan(none.ppl_ratio) && isnan(none.top1));
}

static void an_unmeasured_pattern_has_undefined_figures(void **state)
{
	(void)state;
	struct dsa_measure measure;
	double mean, se;
	measure_documents(&measure, in_order, 0);
	dsa_measure_objective(&measure, DSA_OBJECTIVE_KL, &mean, &se);
	assert_true(isnan(mean) && isnan(se));
}

static void the_reference_itself_has_exactly_zero_loss(void **state)
{
	(void)state;
	struct dsa_measure measure;
	struct dsa_quality q;
	struct dsa_error err;
	assert_int_equal(dsa_measure_init(&measure, CORPORA, DOCUMENTS, weights, corpus_of, &arena, &err), DSA_OK);
	for (int d = 0; d < DOCUMENTS; d++) {
		struct dsa_row_figures row[ROWS];
		struct dsa_doc_stats document;
		memcpy(row, rows[d], sizeof row);
		for (int i = 0; i < counts[d]; i++) {
			row[i].kl = 0;
			row[i].nll = row[i].nll_base;
			row[i].top1 = 1;
		}
		assert_int_equal(dsa_doc_stats_collect(&document, d, TOPK, row, positions[d], counts[d], &arena, &err),
		                 DSA_OK);
		assert_int_equal(dsa_measure_add(&measure, &document, &err), DSA_OK);
	}
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, TOPK, &q);
	assert_true(q.kl == 0 && q.kl_se == 0 && q.kl_p50 == 0 && q.kl_p99 == 0 && q.kl_max == 0);
	assert_true(q.nll_delta == 0 && q.nll_delta_se == 0 && q.ppl_ratio == 1);
	assert_close(q.top1, 1, 1e-15);
}

static void a_measure_takes_memory_only_for_buckets_in_use(void **state)
{
	(void)state;
	struct dsa_measure measure;
	size_t before = arena.bytes;
	measure_documents(&measure, in_order, DOCUMENTS);
	/* Two corpora of at most 6 buckets each. */
	assert_true(arena.bytes - before < 12 * DSA_KL_BINS * sizeof(uint64_t) + 16384);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(positions_fall_into_doubling_buckets),
	    cmocka_unit_test(every_kl_is_within_a_hundredth_of_its_bin_value),
	    cmocka_unit_test(document_sums_equal_a_plain_loop_over_its_rows),
	    cmocka_unit_test(a_row_that_is_not_finite_is_refused_with_its_position),
	    cmocka_unit_test(quality_equals_the_figures_of_the_raw_rows),
	    cmocka_unit_test(a_worked_example_gives_the_figures_of_numpy),
	    cmocka_unit_test(figures_do_not_depend_on_the_order_of_adding),
	    cmocka_unit_test(a_corpus_without_documents_takes_no_part),
	    cmocka_unit_test(an_unmeasured_pattern_has_undefined_figures),
	    cmocka_unit_test(the_reference_itself_has_exactly_zero_loss),
	    cmocka_unit_test(a_measure_takes_memory_only_for_buckets_in_use),
	};
	return cmocka_run_group_tests_name("metrics", tests, set_up, tear_down);
}
