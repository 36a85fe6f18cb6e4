#include "dsa/judgement.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "dsa/pattern.h"
#include "dsa/spool.h"

/* 95% intervals reach 1.96 standard errors to either side. */
static const double reach_of_95 = 1.959963984540054;
static const double bin_ratio = 0.0175; /* of the KL histogram, metrics.h */

enum { BOUNDS = 4, COMPARED = 3 };

const char *dsa_figure_name(enum dsa_figure figure)
{
	static const char *const names[] = {"kl", "nll_delta", "top1", "kl_p99", "shared"};
	return names[figure];
}

const char *dsa_figure_words(enum dsa_figure figure)
{
	static const char *const words[] = {"mean KL", "NLL rise", "top-1 agreement", "KL p99", "shared layers"};
	return words[figure];
}

const char *dsa_figure_bound_name(enum dsa_figure figure)
{
	static const enum dsa_bound bounds[] = {DSA_BOUND_KL, DSA_BOUND_NLL, DSA_BOUND_TOP1, DSA_BOUND_KL_P99,
	                                        DSA_BOUND_MAX_SHARED};
	return dsa_bound_name(bounds[figure]);
}

const char *dsa_outcome_name(enum dsa_outcome outcome)
{
	static const char *const names[] = {"holds", "better", "worse", "not judged"};
	return names[outcome];
}

const char *dsa_documents_name(enum dsa_documents_state state)
{
	static const char *const names[] = {"same", "changed", "new"};
	return names[state];
}

bool dsa_figure_worse(enum dsa_figure figure, double found, double limit)
{
	return figure == DSA_FIGURE_TOP1 ? !(found >= limit) : !(found <= limit);
}

double dsa_figure_of(const struct dsa_quality *quality, enum dsa_figure figure)
{
	const double figures[] = {quality->kl, quality->nll_delta, quality->top1, quality->kl_p99, (double)NAN};
	return quality->documents ? figures[figure] : (double)NAN;
}

double dsa_figure_se(const struct dsa_quality *quality, enum dsa_figure figure)
{
	const double half = (quality->top1_ci.high - quality->top1_ci.low) / 2;
	const double errors[] = {quality->kl_se, quality->nll_delta_se, half / reach_of_95, (double)NAN, (double)NAN};
	return quality->documents ? errors[figure] : (double)NAN;
}

static bool differ(const char *a, const char *b)
{
	return a && b && strcmp(a, b) != 0;
}

enum dsa_status dsa_judgement_admit(const struct dsa_results *recorded, const struct dsa_results *now,
                                    bool allow_change, const struct dsa_log *log, struct dsa_error *err)
{
	if (recorded->layers != now->layers)
		return dsa_fail(err, DSA_E_INPUT,
		                "the pattern is for %d layers and the model has %d: it is another model; calibrate it",
		                recorded->layers, now->layers);
	if (recorded->topk && recorded->topk != now->topk)
		return dsa_fail(err, DSA_E_INPUT,
		                "index_topk: the pattern was found for K = %d and the model has %d; calibrate it anew",
		                recorded->topk, now->topk);
	if (differ(recorded->architecture, now->architecture))
		return dsa_fail(err, DSA_E_INPUT,
		                "the pattern was found for %.64s and the model is %.64s: calibrate it anew",
		                recorded->architecture, now->architecture);
	if (differ(recorded->reference, now->reference))
		return dsa_fail(
		    err, DSA_E_INPUT,
		    "the recorded figures are against the pattern %s and the checkpoint's own is %s; measure "
		    "against a config.json without the deployed pattern",
		    recorded->reference, now->reference);
	bool tokenizer = recorded->tokenizer && (!now->tokenizer || differ(recorded->tokenizer, now->tokenizer));
	if (tokenizer && !allow_change)
		return dsa_fail(err, DSA_E_INPUT,
		                "the tokenizer is another one: tokenizer.json has SHA-256 %.64s, recorded is %.64s; if "
		                "that is meant, --allow-model-change",
		                now->tokenizer ? now->tokenizer : "none (it is missing)", recorded->tokenizer);
	if (differ(recorded->fingerprint, now->fingerprint) && !allow_change)
		return dsa_fail(err, DSA_E_INPUT,
		                "the model is another one: its fingerprint is %.64s, recorded is %.64s; for a new "
		                "fine-tune, --allow-model-change",
		                now->fingerprint, recorded->fingerprint);
	if (!recorded->fingerprint)
		dsa_log_line(log, DSA_LOG_WARN, "the pattern file names no model: whether this is it is not checked");
	else if (tokenizer || differ(recorded->fingerprint, now->fingerprint))
		dsa_log_line(log, DSA_LOG_WARN, "%s is not the recorded one; measured all the same",
		             tokenizer ? "the tokenizer" : "the model");
	const char *then = dsa_index_precision_name(recorded->index_precision);
	const char *precision = dsa_index_precision_name(now->index_precision);
	if (differ(then, precision))
		dsa_log_line(log, DSA_LOG_WARN,
		             "the indexers run in %s and the recorded figures are of %s; what differs may be that",
		             precision, then);
	return DSA_OK;
}

static bool same_digest(const struct dsa_result_corpus *a, const struct dsa_result_corpus *b)
{
	return *a->digest && !strcmp(a->digest, b->digest);
}

static int find_recorded(const struct dsa_results *recorded, const struct dsa_result_corpus *corpus)
{
	int by_name = -1, by_digest = -1;
	for (int r = recorded->corpus_count - 1; r >= 0; r--) {
		bool name = !differ(recorded->corpora[r].name, corpus->name);
		bool digest = same_digest(&recorded->corpora[r], corpus);
		if (name && digest)
			return r;
		by_name = name ? r : by_name;
		by_digest = digest ? r : by_digest;
	}
	return by_name >= 0 ? by_name : by_digest;
}

/* Per split, as far as the file has figures of it. */
static bool same_split(const struct dsa_quality *recorded, int documents, int64_t scored)
{
	return !recorded->documents || (recorded->documents == documents && recorded->tokens == scored);
}

static enum dsa_documents_state state_of(const struct dsa_results *recorded, const struct dsa_results *now,
                                         const struct dsa_result_corpus *then, const struct dsa_result_corpus *corpus)
{
	bool same = same_digest(then, corpus) && then->documents == corpus->documents &&
	            then->tokens == corpus->tokens && then->scored == corpus->scored &&
	            then->weight == corpus->weight && !differ(recorded->tokenizer, now->tokenizer) &&
	            same_split(&then->calibration, corpus->documents_calibration, corpus->scored_calibration) &&
	            same_split(&then->heldout, corpus->documents_heldout, corpus->scored_heldout);
	return same ? DSA_DOCUMENTS_SAME : DSA_DOCUMENTS_CHANGED;
}

enum dsa_status dsa_judgement_match(struct dsa_judgement *judgement, const struct dsa_results *recorded,
                                    const struct dsa_results *now, struct dsa_arena *arena, struct dsa_error *err)
{
	*judgement = (struct dsa_judgement){.all = DSA_DOCUMENTS_SAME};
	judgement->documents =
	    dsa_arena_alloc(arena, (size_t)now->corpus_count, sizeof *judgement->documents, "the judgement", err);
	judgement->recorded_as =
	    dsa_arena_alloc(arena, (size_t)now->corpus_count, sizeof *judgement->recorded_as, "the judgement", err);
	bool *given = dsa_arena_alloc(arena, (size_t)recorded->corpus_count, sizeof *given, "the judgement", err);
	if (!judgement->documents || !judgement->recorded_as || !given)
		return DSA_E_MEMORY;
	for (int c = 0; c < now->corpus_count; c++) {
		int r = find_recorded(recorded, &now->corpora[c]);
		if (r >= 0 && given[r])
			r = -1;
		judgement->recorded_as[c] = r;
		judgement->documents[c] =
		    r < 0 ? DSA_DOCUMENTS_NEW : state_of(recorded, now, &recorded->corpora[r], &now->corpora[c]);
		if (r >= 0)
			given[r] = true;
		if (judgement->documents[c] > judgement->all)
			judgement->all = judgement->documents[c];
	}
	for (int r = 0; r < recorded->corpus_count; r++)
		if (!given[r])
			return dsa_fail(err, DSA_E_USAGE,
			                "the pattern was measured on the corpus '%.200s' too: give it with --corpus",
			                recorded->corpora[r].name);
	return DSA_OK;
}

/* What rounding alone moves a figure by. */
static double rounding(enum dsa_figure figure, double floor, double value)
{
	const double nats = floor > 0 ? floor : 0; /* false for NaN */
	const double moved[] = {nats, nats, sqrt(nats / 2), bin_ratio * fabs(value), 0};
	return moved[figure];
}

/* What of it a bound gives way: a bound is a promise, so no more than 1% of what it allows; the p99, which is known to
 * a bin, by one bin. */
static double give(enum dsa_figure figure, double floor, double bound)
{
	const double most = 0.01 * (figure == DSA_FIGURE_TOP1 ? 1 - bound : bound);
	const double r = rounding(figure, floor, bound);
	return figure == DSA_FIGURE_KL_P99 || r < most ? r : most;
}

static double square(double value)
{
	return value > 0 ? value * value : 0; /* no standard error: nothing of its own */
}

/* One corpus, or all, on one split. */
struct place {
	int corpus, split;
	const struct dsa_quality *now, *then; /* then: NULL or without documents where nothing was recorded */
	double floor;
	enum dsa_documents_state documents;
};

static void count(struct dsa_judgement *judgement, const struct dsa_check *check)
{
	judgement->worse += check->outcome == DSA_OUTCOME_WORSE;
	judgement->better += check->outcome == DSA_OUTCOME_BETTER;
	judgement->judged += check->outcome != DSA_OUTCOME_UNJUDGED;
	judgement->checks[judgement->count++] = *check;
}

static void judge_bound(struct dsa_judgement *judgement, const struct place *place, enum dsa_figure figure,
                        double bound)
{
	struct dsa_check check = {.figure = figure,
	                          .bound = true,
	                          .corpus = place->corpus,
	                          .split = place->split,
	                          .found = dsa_figure_of(place->now, figure),
	                          .found_se = dsa_figure_se(place->now, figure),
	                          .against = bound,
	                          .against_se = (double)NAN};
	const bool kept = place->then && place->then->documents &&
	                  !dsa_figure_worse(figure, dsa_figure_of(place->then, figure), bound);
	if (kept && place->documents == DSA_DOCUMENTS_SAME)
		check.allowed = give(figure, place->floor, bound);
	const double limit = figure == DSA_FIGURE_TOP1 ? bound - check.allowed : bound + check.allowed;
	check.outcome = dsa_figure_worse(figure, check.found, limit) ? DSA_OUTCOME_WORSE : DSA_OUTCOME_HOLDS;
	count(judgement, &check);
}

static void judge_recorded(struct dsa_judgement *judgement, const struct dsa_judgement_options *options,
                           const struct place *place, enum dsa_figure figure)
{
	struct dsa_check check = {.figure = figure,
	                          .corpus = place->corpus,
	                          .split = place->split,
	                          .found = dsa_figure_of(place->now, figure),
	                          .found_se = dsa_figure_se(place->now, figure),
	                          .against = dsa_figure_of(place->then, figure),
	                          .against_se = dsa_figure_se(place->then, figure)};
	const bool same = place->documents == DSA_DOCUMENTS_SAME;
	const double r = rounding(figure, place->floor, check.against);
	const double own = same ? 0 : square(check.found_se);
	const double sign = figure == DSA_FIGURE_TOP1 ? -1 : 1;
	if (isnan(check.against))
		return; /* the file does not say it */
	check.allowed = sqrt(square(options->tolerance) * (square(check.against_se) + own) + r * r);
	if (place->documents == DSA_DOCUMENTS_NEW) {
		check.outcome = DSA_OUTCOME_UNJUDGED;
		check.reason = "a corpus takes part that the file does not know";
	} else if (!same && (place->now->documents < DSA_JUDGEMENT_DOCUMENTS ||
	                     place->then->documents < DSA_JUDGEMENT_DOCUMENTS)) {
		check.outcome = DSA_OUTCOME_UNJUDGED;
		check.reason = "other documents than the recorded ones, and fewer than 16 of them";
	} else if (dsa_figure_worse(figure, check.found, check.against + sign * check.allowed)) {
		check.outcome = DSA_OUTCOME_WORSE;
	} else if (sign * (check.against - check.found) > check.allowed) {
		check.outcome = DSA_OUTCOME_BETTER;
	}
	count(judgement, &check);
}

static void judge_place(struct dsa_judgement *judgement, const struct dsa_judgement_options *options,
                        const struct place *place)
{
	const struct dsa_budget *budget = &options->budget;
	const double bounds[BOUNDS] = {budget->kl, budget->nll, budget->top1, budget->kl_p99};
	const bool bound_here = (place->corpus == DSA_ALL_CORPORA) == (budget->scope == DSA_SCOPE_MEAN);
	if (!place->now->documents)
		return;
	for (int f = 0; f < BOUNDS && bound_here; f++)
		if (bounds[f] >= 0)
			judge_bound(judgement, place, (enum dsa_figure)f, bounds[f]);
	for (int f = 0; f < COMPARED && place->then && place->then->documents; f++)
		judge_recorded(judgement, options, place, (enum dsa_figure)f);
}

static void judge_shared(struct dsa_judgement *judgement, const struct dsa_results *now, int most)
{
	struct dsa_check check = {.figure = DSA_FIGURE_SHARED,
	                          .bound = true,
	                          .corpus = DSA_ALL_CORPORA,
	                          .found = dsa_pattern_shared(now->pattern),
	                          .found_se = (double)NAN,
	                          .against = most,
	                          .against_se = (double)NAN};
	check.outcome = check.found > most ? DSA_OUTCOME_WORSE : DSA_OUTCOME_HOLDS;
	count(judgement, &check);
}

enum dsa_status dsa_judgement_make(struct dsa_judgement *judgement, const struct dsa_results *recorded,
                                   const struct dsa_results *now, const struct dsa_judgement_options *options,
                                   struct dsa_arena *arena, struct dsa_error *err)
{
	const size_t most = ((size_t)now->corpus_count + 1) * DSA_SPLITS * (BOUNDS + COMPARED) + 1;
	enum dsa_status status = dsa_judgement_match(judgement, recorded, now, arena, err);
	if (status)
		return status;
	judgement->checks = dsa_arena_alloc(arena, most, sizeof *judgement->checks, "the judgement", err);
	if (!judgement->checks)
		return DSA_E_MEMORY;
	if (options->budget.max_shared >= 0)
		judge_shared(judgement, now, options->budget.max_shared);
	const struct place all[DSA_SPLITS] = {
	    {DSA_ALL_CORPORA, DSA_CALIBRATION, &now->quality, &recorded->quality, recorded->noise_floor,
	     judgement->all},
	    {DSA_ALL_CORPORA, DSA_HELDOUT, &now->heldout, &recorded->heldout, recorded->noise_floor, judgement->all}};
	for (int s = 0; s < DSA_SPLITS; s++)
		judge_place(judgement, options, &all[s]);
	/* A single corpus is all of them. */
	const bool alone = now->corpus_count == 1 && recorded->corpus_count <= 1;
	for (int c = 0; c < now->corpus_count && !(alone && options->budget.scope == DSA_SCOPE_MEAN); c++) {
		const int r = judgement->recorded_as[c];
		const struct dsa_result_corpus *corpus = &now->corpora[c], *then = r < 0 ? NULL : &recorded->corpora[r];
		const struct place places[DSA_SPLITS] = {
		    {c, DSA_CALIBRATION, &corpus->calibration, then ? &then->calibration : NULL,
		     then ? then->noise_floor : 0, judgement->documents[c]},
		    {c, DSA_HELDOUT, &corpus->heldout, then ? &then->heldout : NULL, then ? then->noise_floor : 0,
		     judgement->documents[c]}};
		for (int s = 0; s < DSA_SPLITS; s++)
			judge_place(judgement, options, &places[s]);
	}
	if (judgement->judged)
		return DSA_OK;
	return dsa_fail(err, DSA_E_INPUT,
	                "nothing to judge: the pattern file has no bounds and no figures that these documents can be "
	                "held against; give a bound, such as --budget-kl");
}
