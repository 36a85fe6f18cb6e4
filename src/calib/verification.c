#include "dsa/verification.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "dsa/noise.h"
#include "dsa/pattern.h"
#include "dsa/racing.h"

static const double doubt = 0.01; /* chance that an early decision is wrong */
static const char undecided[] = "not decided by the documents measured";

struct verifier {
	const struct dsa_verification_options *options;
	const struct dsa_evaluator_shape *shape;
	struct dsa_evaluator *evaluator;
	struct dsa_results *now;
	struct dsa_measure measures[DSA_SPLITS];
	int *population; /* (DSA_SPLITS, corpora) documents */
	int *seen;       /* (DSA_SPLITS, corpora) of them measured */
	bool *done;      /* (batches) */
	int batches_done, batches;
	struct dsa_arena *arena;
	struct dsa_error *err;
};

static int at(const struct verifier *v, int split, int corpus)
{
	return split * v->shape->corpora + corpus;
}

static void tell(struct verifier *v)
{
	const struct dsa_search_progress *progress = v->options->progress;
	v->batches_done++;
	if (progress && progress->step)
		progress->step(progress->context, 0, 1, v->batches_done, v->batches);
}

/* Whole batches, until every corpus and split has so many documents or no more. */
static enum dsa_status measure_until(struct verifier *v, int documents)
{
	enum dsa_status status = DSA_OK;
	const char *pattern = v->now->pattern;
	for (int b = 0; b < v->shape->batches && !status; b++) {
		const struct dsa_evaluator_batch *batch = &v->shape->batch[b];
		int *seen = &v->seen[at(v, batch->split, batch->corpus)];
		if (v->done[b] || *seen >= documents)
			continue;
		status = dsa_measure_batch(&v->measures[batch->split], NULL, v->evaluator, v->shape->reference,
		                           &pattern, 1, b, 0, v->err);
		if (status)
			break;
		v->done[b] = true;
		*seen += batch->count;
		tell(v);
	}
	return status;
}

static void fill_quality(struct verifier *v)
{
	struct dsa_results *now = v->now;
	dsa_measure_quality(&v->measures[DSA_CALIBRATION], DSA_ALL_CORPORA, v->shape->topk, &now->quality);
	dsa_measure_quality(&v->measures[DSA_HELDOUT], DSA_ALL_CORPORA, v->shape->topk, &now->heldout);
	for (int c = 0; c < v->shape->corpora; c++) {
		dsa_measure_quality(&v->measures[DSA_CALIBRATION], c, v->shape->topk, &now->corpora[c].calibration);
		dsa_measure_quality(&v->measures[DSA_HELDOUT], c, v->shape->topk, &now->corpora[c].heldout);
	}
}

/* What a figure of check is the mean of, summed over a document. */
static double summed(enum dsa_figure figure, const struct dsa_sums *sums)
{
	if (figure == DSA_FIGURE_KL)
		return sums->kl;
	return figure == DSA_FIGURE_NLL ? sums->nll - sums->nll_base : (double)sums->top1;
}

/* Variance of a corpus' mean under sampling without replacement, by the ratio estimator (metrics.h). */
static double variance_of(const struct dsa_measure *measure, int corpus, enum dsa_figure figure, int seen,
                          int population)
{
	double sum = 0, tokens = 0, squares = 0;
	for (int d = 0; d < measure->documents; d++)
		if (measure->corpus_of[d] == corpus) {
			sum += summed(figure, &measure->totals[d]);
			tokens += (double)measure->totals[d].tokens;
		}
	for (int d = 0; d < measure->documents; d++)
		if (measure->corpus_of[d] == corpus && measure->totals[d].tokens) {
			double rest =
			    summed(figure, &measure->totals[d]) - sum / tokens * (double)measure->totals[d].tokens;
			squares += rest * rest;
		}
	return (1 - (double)seen / population) * (seen / (seen - 1.0)) * squares / (tokens * tokens);
}

/* Which documents a check is about, and how far its figure over all of them may be from what was found. */
struct sample {
	int seen, all;
	double width; /* HUGE_VAL: too few to tell */
};

static struct sample sample_of(const struct verifier *v, const struct dsa_check *check, double alpha)
{
	struct sample sample = {0};
	double variance = 0, shares = 0, weights = 0;
	bool enough = true;
	for (int c = 0; c < v->shape->corpora; c++) {
		if (check->corpus != DSA_ALL_CORPORA && check->corpus != c)
			continue;
		const int population = v->population[at(v, check->split, c)], seen = v->seen[at(v, check->split, c)];
		const double w = v->shape->weights[c];
		if (!population)
			continue;
		sample.seen += seen;
		sample.all += population;
		weights += w;
		if (seen == population)
			continue;
		enough = enough && seen >= DSA_RACE_DOCUMENTS / 2;
		if (!enough || check->figure > DSA_FIGURE_TOP1)
			continue;
		/* The unseen documents' mean is as far from normal as that of as many seen ones. */
		const int least = seen < population - seen ? seen : population - seen;
		const double share =
		    w * w * variance_of(&v->measures[check->split], c, check->figure, seen, population);
		variance += share;
		shares += share * share / (least > 1 ? least - 1 : 0.5);
	}
	if (sample.seen == sample.all)
		return sample;
	sample.width = HUGE_VAL;
	if (!enough || sample.seen < DSA_RACE_DOCUMENTS || check->figure > DSA_FIGURE_TOP1 || isnan(variance))
		return sample;
	const double tau = sample.seen / (1 - (double)sample.seen / sample.all);
	sample.width = 0;
	if (variance > 0)
		sample.width = dsa_race_reach(alpha, variance * variance / shares, tau) * sqrt(variance) / weights;
	return sample;
}

/* How much worse than `limit` the figure is, in its own direction. */
static double beyond(const struct dsa_check *check, double limit)
{
	return check->figure == DSA_FIGURE_TOP1 ? limit - check->found : check->found - limit;
}

/* Turns a check of part of the documents into what it says of all of them. */
static void look_at(const struct verifier *v, const struct dsa_judgement *judgement, struct dsa_check *check,
                    double alpha)
{
	if (check->figure == DSA_FIGURE_SHARED)
		return;
	const struct sample sample = sample_of(v, check, alpha);
	if (sample.seen == sample.all)
		return;
	const enum dsa_documents_state documents =
	    check->corpus == DSA_ALL_CORPORA ? judgement->all : judgement->documents[check->corpus];
	if (check->outcome == DSA_OUTCOME_UNJUDGED) {
		/* Too few of other documents so far: more may be enough. */
		if (documents == DSA_DOCUMENTS_CHANGED && sample.all >= DSA_JUDGEMENT_DOCUMENTS)
			check->reason = undecided;
		return;
	}
	const double excess = beyond(check, check->against) - check->allowed;
	check->outcome = DSA_OUTCOME_UNJUDGED;
	check->reason = undecided;
	if (excess - sample.width > 0) {
		check->outcome = DSA_OUTCOME_WORSE;
	} else if (check->bound) {
		if (excess + sample.width <= 0)
			check->outcome = DSA_OUTCOME_HOLDS;
	} else {
		const double x = v->options->judge.tolerance, part = (double)sample.seen / sample.all;
		/* Of other documents the tolerance holds the sample's own error already. */
		const bool widened = documents == DSA_DOCUMENTS_SAME && check->against_se > 0;
		const double rest = widened ? check->against_se * x * sqrt(1 / part - 1) : 0;
		const double wide = sqrt(check->allowed * check->allowed + rest * rest);
		if (!isnan(check->found) && beyond(check, check->against) <= wide) {
			check->outcome = DSA_OUTCOME_HOLDS;
			check->allowed = wide;
		}
	}
	if (check->outcome != DSA_OUTCOME_UNJUDGED)
		check->reason = NULL;
}

/* The judgement of the documents measured so far; true: it is what all of them would give, as far as can be told. */
static bool look(const struct verifier *v, struct dsa_judgement *judgement)
{
	int open = 0, bounds = 0;
	judgement->worse = judgement->better = judgement->judged = 0;
	for (int i = 0; i < judgement->count; i++) {
		struct dsa_check *check = &judgement->checks[i];
		/* Two sides of every check. */
		look_at(v, judgement, check, doubt / (2 * judgement->count));
		judgement->worse += check->outcome == DSA_OUTCOME_WORSE;
		judgement->better += check->outcome == DSA_OUTCOME_BETTER;
		judgement->judged += check->outcome != DSA_OUTCOME_UNJUDGED;
		open += check->reason == undecided;
		bounds += check->bound && check->figure != DSA_FIGURE_SHARED;
	}
	return judgement->worse > 0 || (open == 0 && bounds > 0);
}

static enum dsa_status measure_and_judge(struct verifier *v, struct dsa_verification *verification)
{
	int documents = v->options->quick > 0 ? v->options->quick : INT_MAX;
	for (;;) {
		enum dsa_status status = measure_until(v, documents);
		if (status)
			return status;
		fill_quality(v);
		status = dsa_judgement_make(&verification->judgement, v->options->recorded, v->now, &v->options->judge,
		                            v->arena, v->err);
		if (status)
			return status;
		verification->documents = v->now->quality.documents + v->now->heldout.documents;
		if (verification->documents == verification->all)
			return DSA_OK;
		if (look(v, &verification->judgement)) {
			verification->early = true;
			verification->confidence = 1 - doubt;
			return DSA_OK;
		}
		documents = documents > INT_MAX / 2 ? INT_MAX : 2 * documents;
	}
}

/* The file's baselines on these documents; what a journal does not know, or the checkpoint cannot run, is left out. */
static enum dsa_status measure_baselines(struct verifier *v)
{
	const struct dsa_results *recorded = v->options->recorded;
	struct dsa_results *now = v->now;
	now->baseline_count = 0;
	now->baselines =
	    dsa_arena_alloc(v->arena, (size_t)recorded->baseline_count, sizeof *now->baselines, "baselines", v->err);
	if (!now->baselines)
		return DSA_E_MEMORY;
	for (int i = 0; i < recorded->baseline_count; i++) {
		const struct dsa_result_baseline *from = &recorded->baselines[i];
		struct dsa_result_baseline *to = &now->baselines[now->baseline_count];
		struct dsa_quality *const quality[DSA_SPLITS] = {&to->calibration, &to->heldout};
		enum dsa_status status = DSA_OK;
		*to = (struct dsa_result_baseline){.name = from->name, .pattern = from->pattern};
		if (!dsa_pattern_respects(from->pattern, v->shape->reference))
			status = DSA_E_MISSING;
		for (int split = 0; split < DSA_SPLITS && !status; split++) {
			struct dsa_measure measure;
			status = dsa_measure_pattern(&measure, v->evaluator, v->shape->reference, from->pattern, split,
			                             0, v->arena, v->err);
			if (!status)
				dsa_measure_quality(&measure, DSA_ALL_CORPORA, v->shape->topk, quality[split]);
		}
		if (status && status != DSA_E_MISSING)
			return status;
		if (status)
			dsa_log_line(v->options->log, DSA_LOG_WARN,
			             "baseline %s is left out: it could not be measured here", from->name);
		now->baseline_count += !status;
	}
	return DSA_OK;
}

static enum dsa_status check_pattern(const struct verifier *v)
{
	const char *pattern = v->now->pattern, *reference = v->shape->reference;
	if (dsa_pattern_respects(pattern, reference))
		return DSA_OK;
	int layer = 0;
	while (!(pattern[layer] == 'F' && reference[layer] == 'S'))
		layer++;
	return dsa_fail(v->err, DSA_E_INPUT,
	                "the pattern's layer %d is F, but the checkpoint has no indexer there (its own pattern is %s)",
	                layer, reference);
}

static enum dsa_status open_verifier(struct verifier *v, int *documents)
{
	const struct dsa_evaluator_shape *shape = v->shape;
	const size_t places = (size_t)shape->corpora * DSA_SPLITS;
	v->population = dsa_arena_alloc(v->arena, places, sizeof *v->population, "the documents", v->err);
	v->seen = dsa_arena_alloc(v->arena, places, sizeof *v->seen, "the documents", v->err);
	v->done = dsa_arena_alloc(v->arena, (size_t)shape->batches, sizeof *v->done, "the batches", v->err);
	if (!v->population || !v->seen || !v->done)
		return DSA_E_MEMORY;
	v->batches = shape->batches;
	*documents = 0;
	for (int b = 0; b < shape->batches; b++) {
		v->population[at(v, shape->batch[b].split, shape->batch[b].corpus)] += shape->batch[b].count;
		*documents += shape->batch[b].count;
	}
	enum dsa_status status = check_pattern(v);
	for (int split = 0; split < DSA_SPLITS && !status; split++)
		status = dsa_measure_start(&v->measures[split], shape, v->arena, v->err);
	return status;
}

enum dsa_status dsa_verification_run(struct dsa_verification *verification, struct dsa_results *now,
                                     struct dsa_evaluator *evaluator, const struct dsa_verification_options *options,
                                     struct dsa_arena *arena, struct dsa_error *err)
{
	struct verifier v = {.options = options,
	                     .shape = evaluator->shape,
	                     .evaluator = evaluator,
	                     .now = now,
	                     .arena = arena,
	                     .err = err};
	*verification = (struct dsa_verification){.confidence = (double)NAN};
	/* A corpus that is missing is said before hours of measuring. */
	enum dsa_status status = dsa_judgement_match(&verification->judgement, options->recorded, now, arena, err);
	if (!status)
		status = open_verifier(&v, &verification->all);
	if (!status)
		status = measure_and_judge(&v, verification);
	if (!status && options->renew)
		status = dsa_noise_measure(v.now, v.evaluator, v.now->seed, NULL, NULL, v.arena, v.err);
	if (!status && options->renew)
		status = measure_baselines(&v);
	return status;
}
