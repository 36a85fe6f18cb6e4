#include "dsa/bootstrap.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { FIGURES = 3, TAIL = DSA_RESAMPLES / 40 }; /* KL, ΔNLL, top-1; 2.5% on each side */

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Any measured document of the corpus; there is one. */
static const struct dsa_sums *draw(const struct dsa_measure *measure, int corpus, uint64_t *state)
{
	for (;;) {
		uint64_t d = ((next(state) >> 32) * (uint64_t)measure->documents) >> 32;
		if (measure->corpus_of[d] == corpus && measure->totals[d].tokens)
			return &measure->totals[d];
	}
}

static int documents_of(const struct dsa_measure *measure, int corpus)
{
	int count = 0;
	for (int d = 0; d < measure->documents; d++)
		count += measure->corpus_of[d] == corpus && measure->totals[d].tokens;
	return count;
}

/* Adds w times one resample's means of a corpus of `count` documents. */
static void add_resample(const struct dsa_measure *measure, int corpus, int count, double w, uint64_t *state,
                         double means[FIGURES])
{
	double kl = 0, delta = 0;
	int64_t top1 = 0, tokens = 0;
	for (int i = 0; i < count; i++) {
		const struct dsa_sums *sums = draw(measure, corpus, state);
		kl += sums->kl;
		delta += sums->nll - sums->nll_base;
		top1 += sums->top1;
		tokens += sums->tokens;
	}
	means[0] += w * (kl / (double)tokens);
	means[1] += w * (delta / (double)tokens);
	means[2] += w * ((double)top1 / (double)tokens);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct dsa_interval interval_of(double *values)
{
	qsort(values, DSA_RESAMPLES, sizeof *values, ascending);
	return (struct dsa_interval){values[TAIL - 1], values[DSA_RESAMPLES - TAIL]};
}

void dsa_bootstrap_intervals(const struct dsa_measure *measure, int corpus, struct dsa_quality *quality)
{
	const struct dsa_interval undefined = {(double)NAN, (double)NAN};
	double values[FIGURES][DSA_RESAMPLES] = {0}, weights = 0;
	uint64_t state = 0x647361; /* any constant */
	assert(corpus >= DSA_ALL_CORPORA && corpus < measure->corpora);
	quality->kl_ci = quality->nll_delta_ci = quality->top1_ci = undefined;
	for (int c = 0; c < measure->corpora; c++) {
		const int count = corpus == DSA_ALL_CORPORA || corpus == c ? documents_of(measure, c) : 0;
		const double w = corpus == DSA_ALL_CORPORA ? measure->weights[c] : 1;
		if (count == 1)
			return;
		if (count == 0)
			continue;
		weights += w;
		for (int b = 0; b < DSA_RESAMPLES; b++) {
			double means[FIGURES] = {0};
			add_resample(measure, c, count, w, &state, means);
			for (int f = 0; f < FIGURES; f++)
				values[f][b] += means[f];
		}
	}
	if (!(weights > 0))
		return;
	for (int f = 0; f < FIGURES; f++)
		for (int b = 0; b < DSA_RESAMPLES; b++)
			values[f][b] /= weights;
	quality->kl_ci = interval_of(values[0]);
	quality->nll_delta_ci = interval_of(values[1]);
	quality->top1_ci = interval_of(values[2]);
}
