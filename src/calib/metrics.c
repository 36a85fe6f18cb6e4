#include "dsa/metrics.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "dsa/bootstrap.h"

static const double kl_least = 1e-12;
static const double kl_step = 0.017348638334613073; /* ln g, g = 1.0175 */

int dsa_position_bucket(int position, int topk)
{
	assert(topk > 0 && position >= topk);
	/* K·2^p ≤ t exactly when 2^p ≤ floor(t / K). */
	int bucket = 31 - __builtin_clz((unsigned)(position / topk));
	return bucket < DSA_POSITION_BUCKETS ? bucket : DSA_POSITION_BUCKETS - 1;
}

int dsa_kl_bin(double kl)
{
	if (!(kl >= kl_least)) /* rounding may leave a KL of nothing slightly negative */
		return 0;
	double bin = 1 + floor(log(kl / kl_least) / kl_step);
	return bin < DSA_KL_BINS - 1 ? (int)bin : DSA_KL_BINS - 1;
}

double dsa_kl_bin_value(int bin)
{
	assert(bin >= 0 && bin < DSA_KL_BINS);
	return bin ? kl_least * exp((bin - 0.5) * kl_step) : 0;
}

void dsa_sums_add(struct dsa_sums *a, const struct dsa_sums *b)
{
	a->tokens += b->tokens;
	a->top1 += b->top1;
	a->kl += b->kl;
	a->kl2 += b->kl2;
	a->nll += b->nll;
	a->nll_base += b->nll_base;
	a->dnll2 += b->dnll2;
	if (b->kl_max > a->kl_max)
		a->kl_max = b->kl_max;
}

struct dsa_sums dsa_doc_stats_total(const struct dsa_doc_stats *stats)
{
	struct dsa_sums total = {0};
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
		dsa_sums_add(&total, &stats->at[p]);
	return total;
}

/* Counts the rows [first, end) of one position bucket into counts; returns how many bins are not empty. */
static int count_bins(uint32_t counts[DSA_KL_BINS], const struct dsa_row_figures *figures, int first, int end)
{
	int used = 0;
	memset(counts, 0, DSA_KL_BINS * sizeof *counts);
	for (int i = first; i < end; i++)
		used += counts[dsa_kl_bin(figures[i].kl)]++ == 0;
	return used;
}

static int bucket_end(const int *positions, int count, int topk, int first)
{
	int bucket = dsa_position_bucket(positions[first], topk), end = first + 1;
	while (end < count && dsa_position_bucket(positions[end], topk) == bucket)
		end++;
	return end;
}

static void add_row(struct dsa_sums *sums, const struct dsa_row_figures *row)
{
	double delta = row->nll - row->nll_base;
	sums->tokens++;
	sums->top1 += row->top1 != 0;
	sums->kl += row->kl;
	sums->kl2 += row->kl * row->kl;
	sums->nll += row->nll;
	sums->nll_base += row->nll_base;
	sums->dnll2 += delta * delta;
	if (row->kl > sums->kl_max)
		sums->kl_max = row->kl;
}

enum dsa_status dsa_doc_stats_collect(struct dsa_doc_stats *stats, int document, int topk,
                                      const struct dsa_row_figures *figures, const int *positions, int count,
                                      struct dsa_arena *arena, struct dsa_error *err)
{
	uint32_t counts[DSA_KL_BINS];
	int used = 0;
	*stats = (struct dsa_doc_stats){.document = document};
	for (int i = 0; i < count; i++) {
		const struct dsa_row_figures *row = &figures[i];
		assert(i == 0 || positions[i] > positions[i - 1]);
		if (!row->finite || !isfinite(row->kl) || !isfinite(row->nll) || !isfinite(row->nll_base))
			return dsa_fail(err, DSA_E_NUMERIC,
			                "document %d, position %d: the logits hold NaN or infinity, expected finite "
			                "numbers; check the checkpoint's weights",
			                document, positions[i]);
		add_row(&stats->at[dsa_position_bucket(positions[i], topk)], row);
	}
	for (int first = 0, end; first < count; first = end) {
		end = bucket_end(positions, count, topk, first);
		used += count_bins(counts, figures, first, end);
	}
	stats->bins = dsa_arena_alloc(arena, (size_t)used, sizeof *stats->bins, "a histogram", err);
	if (!stats->bins)
		return DSA_E_MEMORY;
	for (int first = 0, end; first < count; first = end) {
		end = bucket_end(positions, count, topk, first);
		count_bins(counts, figures, first, end);
		for (int b = 0; b < DSA_KL_BINS; b++)
			if (counts[b])
				stats->bins[stats->bin_count++] = (struct dsa_bin){
				    .position = (uint8_t)dsa_position_bucket(positions[first], topk),
				    .bin = (uint16_t)b,
				    .count = counts[b],
				};
	}
	return DSA_OK;
}

enum dsa_status dsa_measure_init(struct dsa_measure *measure, int corpora, int documents, const double *weights,
                                 const int *corpus_of, struct dsa_arena *arena, struct dsa_error *err)
{
	assert(corpora > 0 && documents >= 0);
	static const char what[] = "the measure of a pattern";
	*measure = (struct dsa_measure){
	    .corpora = corpora,
	    .documents = documents,
	    .weights = weights,
	    .corpus_of = corpus_of,
	    .arena = arena,
	};
	measure->totals = dsa_arena_alloc(arena, (size_t)documents, sizeof *measure->totals, what, err);
	if (!measure->totals)
		return DSA_E_MEMORY;
	measure->at = dsa_arena_alloc(arena, (size_t)documents, sizeof *measure->at, what, err);
	if (!measure->at)
		return DSA_E_MEMORY;
	measure->buckets = dsa_arena_alloc(arena, (size_t)documents, sizeof *measure->buckets, what, err);
	if (!measure->buckets)
		return DSA_E_MEMORY;
	measure->bins =
	    dsa_arena_alloc(arena, (size_t)corpora * DSA_POSITION_BUCKETS, sizeof *measure->bins, what, err);
	return measure->bins ? DSA_OK : DSA_E_MEMORY;
}

enum dsa_status dsa_measure_add(struct dsa_measure *measure, const struct dsa_doc_stats *stats, struct dsa_error *err)
{
	int d = stats->document;
	assert(d >= 0 && d < measure->documents && measure->totals[d].tokens == 0);
	int buckets = 0;
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
		if (stats->at[p].tokens)
			buckets = p + 1;
	if (!buckets)
		return DSA_OK;
	measure->at[d] = dsa_arena_alloc(measure->arena, (size_t)buckets, sizeof **measure->at, "a document", err);
	if (!measure->at[d])
		return DSA_E_MEMORY;
	size_t corpus = (size_t)measure->corpus_of[d];
	for (int i = 0; i < stats->bin_count; i++) {
		const struct dsa_bin *bin = &stats->bins[i];
		assert(bin->position < DSA_POSITION_BUCKETS && bin->bin < DSA_KL_BINS);
		uint64_t **bins = &measure->bins[corpus * DSA_POSITION_BUCKETS + bin->position];
		if (!*bins)
			*bins = dsa_arena_alloc(measure->arena, DSA_KL_BINS, sizeof **bins, "a histogram", err);
		if (!*bins)
			return DSA_E_MEMORY;
		(*bins)[bin->bin] += bin->count;
	}
	memcpy(measure->at[d], stats->at, (size_t)buckets * sizeof *stats->at);
	measure->buckets[d] = (uint8_t)buckets;
	measure->totals[d] = dsa_doc_stats_total(stats);
	return DSA_OK;
}

enum { ALL_POSITIONS = -1, QUANTILES = 3 };

/* The sums of a document at a position bucket (or all), NULL when it has no tokens there. */
static const struct dsa_sums *document_sums(const struct dsa_measure *measure, int document, int position)
{
	const struct dsa_sums *sums = NULL;
	if (position == ALL_POSITIONS)
		sums = &measure->totals[document];
	else if (position < measure->buckets[document])
		sums = &measure->at[document][position];
	return sums && sums->tokens ? sums : NULL;
}

struct corpus_sums {
	struct dsa_sums sums;
	double delta; /* Σ (nll - nll_base) */
	int documents;
};

static struct corpus_sums sum_corpus(const struct dsa_measure *measure, int corpus, int position)
{
	struct corpus_sums all = {0};
	for (int d = 0; d < measure->documents; d++) {
		const struct dsa_sums *sums =
		    measure->corpus_of[d] == corpus ? document_sums(measure, d, position) : NULL;
		if (!sums)
			continue;
		dsa_sums_add(&all.sums, sums);
		all.delta += sums->nll - sums->nll_base;
		all.documents++;
	}
	return all;
}

enum figure { FIGURE_KL, FIGURE_NLL, FIGURE_DELTA };

static double figure_of(const struct dsa_sums *sums, enum figure figure)
{
	switch (figure) {
	case FIGURE_KL:
		return sums->kl;
	case FIGURE_NLL:
		return sums->nll;
	case FIGURE_DELTA:
		break;
	}
	return sums->nll - sums->nll_base;
}

/* SE² of the ratio Σy / Σn over the documents of a corpus (metrics.h); NaN under two documents. */
static double ratio_variance(const struct dsa_measure *measure, int corpus, const struct corpus_sums *all, double ratio,
                             enum figure figure)
{
	double squares = 0, n = (double)all->sums.tokens;
	if (all->documents < 2)
		return (double)NAN;
	for (int d = 0; d < measure->documents; d++) {
		const struct dsa_sums *sums = &measure->totals[d];
		if (measure->corpus_of[d] != corpus || !sums->tokens)
			continue;
		double residual = figure_of(sums, figure) - ratio * (double)sums->tokens;
		squares += residual * residual;
	}
	return (double)all->documents / (all->documents - 1) * squares / (n * n);
}

static bool chosen(const struct dsa_measure *measure, int corpus, int c)
{
	assert(corpus >= DSA_ALL_CORPORA && corpus < measure->corpora);
	return corpus == DSA_ALL_CORPORA || corpus == c;
}

/* Alone, a corpus is not weighted: not even the last bit of its figures may depend on the weight. */
static double weight_of(const struct dsa_measure *measure, int corpus, int c)
{
	return corpus == DSA_ALL_CORPORA ? measure->weights[c] : 1;
}

/* Fills values[q] for the shares, ascending or not. NaN where no histogram was kept. */
static void quantiles(const struct dsa_measure *measure, int corpus, int position, double kl_max, const double *shares,
                      int count, double *values)
{
	double reached[DSA_KL_BINS] = {0}; /* cumulated weight up to and with the bin */
	double whole = 0;
	for (int c = 0; c < measure->corpora; c++) {
		uint64_t counts[DSA_KL_BINS] = {0}, tokens = 0, below = 0;
		if (!chosen(measure, corpus, c))
			continue;
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			const uint64_t *bins = measure->bins[(size_t)c * DSA_POSITION_BUCKETS + (size_t)p];
			if (!bins || (position != ALL_POSITIONS && p != position))
				continue;
			for (int b = 0; b < DSA_KL_BINS; b++) {
				counts[b] += bins[b];
				tokens += bins[b];
			}
		}
		if (!tokens)
			continue;
		double w = weight_of(measure, corpus, c);
		whole += w;
		for (int b = 0; b < DSA_KL_BINS; b++) {
			below += counts[b];
			reached[b] += w * ((double)below / (double)tokens);
		}
	}
	for (int q = 0; q < count; q++) {
		values[q] = (double)NAN;
		if (!(whole > 0))
			continue;
		/* The last bits of the weights must not push a quantile that falls on a boundary one bin up. */
		double wanted = shares[q] * whole * (1 - 1e-12);
		int bin = 0;
		while (bin < DSA_KL_BINS - 1 && reached[bin] < wanted)
			bin++;
		values[q] = fmin(dsa_kl_bin_value(bin), kl_max);
	}
}

static bool quality_at(const struct dsa_measure *measure, int corpus, int topk, int position,
                       struct dsa_quality_at *out)
{
	static const double share = 0.99;
	double weights = 0, kl_max = 0;
	int64_t from = (int64_t)topk << position, to = from * 2;
	*out = (struct dsa_quality_at){
	    .from = (int)(from < INT_MAX ? from : INT_MAX),
	    .to = (int)(to < INT_MAX && position < DSA_POSITION_BUCKETS - 1 ? to : INT_MAX),
	};
	for (int c = 0; c < measure->corpora; c++) {
		if (!chosen(measure, corpus, c))
			continue;
		struct corpus_sums all = sum_corpus(measure, c, position);
		if (!all.sums.tokens)
			continue;
		double n = (double)all.sums.tokens, w = weight_of(measure, corpus, c);
		weights += w;
		out->tokens += all.sums.tokens;
		out->kl += w * (all.sums.kl / n);
		out->nll_delta += w * (all.delta / n);
		out->top1 += w * ((double)all.sums.top1 / n);
		kl_max = fmax(kl_max, all.sums.kl_max);
	}
	if (!out->tokens)
		return false;
	out->kl /= weights;
	out->nll_delta /= weights;
	out->top1 /= weights;
	quantiles(measure, corpus, position, kl_max, &share, 1, &out->kl_p99);
	return true;
}

static const struct dsa_quality undefined_quality = {
    .kl = (double)NAN,
    .kl_se = (double)NAN,
    .kl_p50 = (double)NAN,
    .kl_p90 = (double)NAN,
    .kl_p99 = (double)NAN,
    .kl_max = (double)NAN,
    .nll = (double)NAN,
    .nll_base = (double)NAN,
    .nll_delta = (double)NAN,
    .nll_delta_se = (double)NAN,
    .ppl_ratio = (double)NAN,
    .top1 = (double)NAN,
    .kl_ci = {(double)NAN, (double)NAN},
    .nll_delta_ci = {(double)NAN, (double)NAN},
    .top1_ci = {(double)NAN, (double)NAN},
};

void dsa_measure_quality(const struct dsa_measure *measure, int corpus, int topk, struct dsa_quality *out)
{
	static const double shares[QUANTILES] = {0.5, 0.9, 0.99};
	double weights = 0, kl_variance = 0, delta_variance = 0, values[QUANTILES];
	struct dsa_quality q = {0};
	for (int c = 0; c < measure->corpora; c++) {
		if (!chosen(measure, corpus, c))
			continue;
		struct corpus_sums all = sum_corpus(measure, c, ALL_POSITIONS);
		if (!all.documents)
			continue;
		double n = (double)all.sums.tokens, w = weight_of(measure, corpus, c);
		double kl = all.sums.kl / n, delta = all.delta / n;
		weights += w;
		q.documents += all.documents;
		q.tokens += all.sums.tokens;
		q.kl += w * kl;
		q.nll += w * (all.sums.nll / n);
		q.nll_base += w * (all.sums.nll_base / n);
		q.nll_delta += w * delta;
		q.top1 += w * ((double)all.sums.top1 / n);
		q.kl_max = fmax(q.kl_max, all.sums.kl_max);
		kl_variance += w * w * ratio_variance(measure, c, &all, kl, FIGURE_KL);
		delta_variance += w * w * ratio_variance(measure, c, &all, delta, FIGURE_DELTA);
	}
	if (!q.documents) {
		*out = undefined_quality;
		return;
	}
	q.kl /= weights;
	q.nll /= weights;
	q.nll_base /= weights;
	q.nll_delta /= weights;
	q.top1 /= weights;
	q.kl_se = sqrt(kl_variance) / weights;
	q.nll_delta_se = sqrt(delta_variance) / weights;
	q.ppl_ratio = exp(q.nll_delta);
	quantiles(measure, corpus, ALL_POSITIONS, q.kl_max, shares, QUANTILES, values);
	q.kl_p50 = values[0];
	q.kl_p90 = values[1];
	q.kl_p99 = values[2];
	q.kl_ci = q.nll_delta_ci = q.top1_ci = undefined_quality.kl_ci;
	if (measure->intervals)
		dsa_bootstrap_intervals(measure, corpus, &q);
	for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
		q.positions += quality_at(measure, corpus, topk, p, &q.by_position[q.positions]);
	*out = q;
}

void dsa_measure_objective(const struct dsa_measure *measure, enum dsa_objective objective, double *mean, double *se)
{
	enum figure figure = objective == DSA_OBJECTIVE_KL ? FIGURE_KL : FIGURE_NLL;
	double weights = 0, sum = 0, variance = 0;
	for (int c = 0; c < measure->corpora; c++) {
		struct corpus_sums all = sum_corpus(measure, c, ALL_POSITIONS);
		if (!all.documents)
			continue;
		double ratio = figure_of(&all.sums, figure) / (double)all.sums.tokens, w = measure->weights[c];
		weights += w;
		sum += w * ratio;
		variance += w * w * ratio_variance(measure, c, &all, ratio, figure);
	}
	*mean = weights > 0 ? sum / weights : (double)NAN;
	*se = weights > 0 ? sqrt(variance) / weights : (double)NAN;
}

/* Σ of the document's figure under a, less that under b; false: one of them has not seen it. */
static bool paired(const struct dsa_measure *a, const struct dsa_measure *b, int document, int corpus,
                   enum figure figure, double *difference)
{
	const struct dsa_sums *of_a = &a->totals[document], *of_b = &b->totals[document];
	if (a->corpus_of[document] != corpus || !of_a->tokens || !of_b->tokens)
		return false;
	*difference = figure_of(of_a, figure) - figure_of(of_b, figure);
	return true;
}

void dsa_measure_difference(const struct dsa_measure *a, const struct dsa_measure *b, enum dsa_objective objective,
                            double *mean, double *se)
{
	const enum figure figure = objective == DSA_OBJECTIVE_KL ? FIGURE_KL : FIGURE_NLL;
	double weights = 0, whole = 0, variance = 0;
	for (int c = 0; c < a->corpora; c++) {
		const double w = a->weights[c];
		double tokens = 0, sum = 0, squares = 0, y;
		int documents = 0;
		for (int d = 0; d < a->documents; d++) {
			if (!paired(a, b, d, c, figure, &y))
				continue;
			documents++;
			tokens += (double)a->totals[d].tokens;
			sum += y;
		}
		if (!documents)
			continue;
		for (int d = 0; d < a->documents; d++) {
			if (!paired(a, b, d, c, figure, &y))
				continue;
			const double rest = y - sum / tokens * (double)a->totals[d].tokens;
			squares += rest * rest;
		}
		const double freedom = documents > 1 ? documents / (double)(documents - 1) : (double)NAN;
		weights += w;
		whole += w * (sum / tokens);
		variance += w * w * freedom * squares / (tokens * tokens);
	}
	*mean = weights > 0 ? whole / weights : (double)NAN;
	*se = weights > 0 ? sqrt(variance) / weights : (double)NAN;
}
