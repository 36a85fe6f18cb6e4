/* The main job in order: base and overlap, noise floor, budget, baselines, search, and what the results say of them. */
#include "dsa/calibration.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "dsa/announce.h"
#include "dsa/noise.h"
#include "dsa/pattern.h"

static const double least_default_kl = 0.01, default_floors = 3;

struct calibration {
	struct dsa_results *results;
	struct dsa_evaluator *evaluator;
	const struct dsa_evaluator_shape *shape;
	const struct dsa_calibration_options *options;
	struct dsa_arena *arena;
	struct dsa_error *err;
	struct dsa_search_options search; /* options->search with the budget that holds */
	int batches_done, batches;        /* before the search, for progress */
};

/* A baseline that a journal does not know leaves its batches out of the count. */
static void tell(struct calibration *c, int batches)
{
	const struct dsa_search_progress *progress = c->options->progress;
	c->batches_done += batches;
	if (progress && progress->step)
		progress->step(progress->context, 0, 1, c->batches_done, c->batches);
}

static int batches_in(const struct dsa_evaluator_shape *shape, int split)
{
	int count = 0;
	for (int b = 0; b < shape->batches; b++)
		count += shape->batch[b].split == split;
	return count;
}

static enum dsa_status check_shape(const struct dsa_evaluator_shape *shape, struct dsa_error *err)
{
	assert(shape->layers > 0 && shape->topk > 0 && shape->corpora > 0 && shape->documents > 0);
	if (batches_in(shape, DSA_CALIBRATION) == 0)
		return dsa_fail(
		    err, DSA_E_INPUT,
		    "corpora: 0 of %d batches are for calibration, at least 1 is needed; give more documents",
		    shape->batches);
	return dsa_pattern_check(shape->reference, shape->layers, "the model's own pattern", err);
}

/* It must be a pattern that this checkpoint can run. */
static enum dsa_status check_pattern(const struct dsa_evaluator_shape *shape, const char *pattern, const char *what,
                                     struct dsa_error *err)
{
	enum dsa_status status = dsa_pattern_check(pattern, shape->layers, what, err);
	if (status || dsa_pattern_respects(pattern, shape->reference))
		return status;
	int layer = 0;
	while (!(pattern[layer] == 'F' && shape->reference[layer] == 'S'))
		layer++;
	return dsa_fail(err, DSA_E_USAGE,
	                "%s: layer %d is F, but the checkpoint has no indexer there (its own pattern is %s); make it S",
	                what, layer, shape->reference);
}

/* dsa_measure_pattern with progress, on top of the reference. */
static enum dsa_status measure_split(struct calibration *c, struct dsa_measure *measure, const char *pattern, int split,
                                     struct dsa_arena *arena)
{
	const struct dsa_ask question = {.base = c->shape->reference, .patterns = &pattern, .count = 1};
	enum dsa_status status = dsa_measure_start(measure, c->shape, arena, c->err);
	if (!status)
		status = dsa_announce_split(c->evaluator, &question, split, false, c->err);
	for (int b = 0; b < c->shape->batches && !status; b++) {
		if (c->shape->batch[b].split != split)
			continue;
		status = dsa_measure_batch(measure, NULL, c->evaluator, c->shape->reference, &pattern, 1, b, 0, c->err);
		if (!status)
			tell(c, 1);
	}
	return status;
}

struct overlap_taker {
	struct dsa_overlap *overlap;
	const int *corpus_of;
};

static enum dsa_status take_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                    struct dsa_error *err)
{
	struct overlap_taker *taker = context;
	(void)err;
	for (int d = 0; d < count; d++)
		dsa_overlap_add(taker->overlap, taker->corpus_of[overlap[d].document], &overlap[d]);
	return DSA_OK;
}

enum dsa_status dsa_calibration_overlap(struct dsa_overlap *overlap, struct dsa_evaluator *evaluator, int batch,
                                        struct dsa_error *err)
{
	struct overlap_taker taker = {overlap, evaluator->shape->corpus_of};
	const struct dsa_sink sink = {.overlap = take_overlap, .context = &taker};
	return evaluator->overlap(evaluator, batch, &sink, err);
}

/* The base first: its overlap shares the run with it, and what follows is measured against it. */
static enum dsa_status measure_base(struct calibration *c)
{
	const char *reference = c->shape->reference;
	struct dsa_measure measure;
	struct dsa_arena scratch;
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&scratch);
	if (c->options->overlap)
		status = dsa_overlap_init(&c->results->overlap, c->shape->corpora, c->shape->layers, c->shape->topk,
		                          c->arena, c->err);
	if (!status)
		status = dsa_measure_start(&measure, c->shape, &scratch, c->err);
	const struct dsa_ask question = {.base = reference, .patterns = &reference, .count = 1};
	if (!status)
		status = dsa_announce_split(c->evaluator, &question, DSA_SPLITS, c->options->overlap, c->err);
	for (int b = 0; b < c->shape->batches && !status; b++) {
		if (c->options->overlap && c->shape->batch[b].split == DSA_CALIBRATION)
			status = dsa_calibration_overlap(&c->results->overlap, c->evaluator, b, c->err);
		if (!status)
			status =
			    dsa_measure_batch(&measure, NULL, c->evaluator, reference, &reference, 1, b, 0, c->err);
		if (!status)
			tell(c, 1);
	}
	dsa_arena_release(&scratch);
	return status;
}

static void tell_one(void *context)
{
	tell(context, 1);
}

static enum dsa_status measure_noise(struct calibration *c)
{
	struct dsa_arena scratch;
	dsa_arena_init(&scratch);
	enum dsa_status status =
	    dsa_noise_measure(c->results, c->evaluator, c->options->seed, tell_one, c, &scratch, c->err);
	if (!status)
		dsa_log_line(c->options->log, DSA_LOG_INFO, "noise floor: mean KL %.6g nats, on %d documents",
		             c->results->noise_floor, c->results->noise_documents);
	dsa_arena_release(&scratch);
	return status;
}

/* A flip of layer l shares the selection of the F layer before it, so what is supposed of its cost, until something is
 * measured, is the share of positions in which the two differ, by the corpora's weights. */
static enum dsa_status suppose_costs(struct calibration *c)
{
	const struct dsa_overlap *overlap = &c->results->overlap;
	double *prior = NULL;
	if (!c->options->overlap)
		return DSA_OK;
	c->search.prior = prior =
	    dsa_arena_alloc(c->arena, (size_t)c->shape->layers, sizeof *prior, "the order of candidates", c->err);
	if (!prior)
		return DSA_E_MEMORY;
	for (int corpus = 0; corpus < c->shape->corpora; corpus++) {
		if (!dsa_overlap_queries(overlap, corpus, -1))
			continue;
		for (int l = 1, before = 0; l < c->shape->layers; l++) {
			prior[l] += c->shape->weights[corpus] * (1 - dsa_overlap_at(overlap, corpus, -1, before, l));
			before = c->shape->reference[l] == 'F' ? l : before;
		}
	}
	return DSA_OK;
}

/* The floor that a KL budget has to keep above; *noisiest: the corpus that sets it, NULL for the mean of all. */
static double noise_floor(const struct calibration *c, const char **noisiest)
{
	*noisiest = NULL;
	if (c->options->search.budget.scope == DSA_SCOPE_MEAN)
		return c->results->noise_floor;
	double floor = 0;
	for (int i = 0; i < c->shape->corpora; i++)
		if (c->results->corpora[i].noise_floor > floor) { /* false for a corpus without documents: NaN */
			floor = c->results->corpora[i].noise_floor;
			*noisiest = c->shape->names[i];
		}
	return floor;
}

/* What racing may miss the best flip of a step by. */
static void settle_epsilon(struct calibration *c)
{
	const struct dsa_budget *budget = &c->search.budget;
	const double given = c->search.objective == DSA_OBJECTIVE_NLL ? budget->nll : budget->kl;
	const double whole = given >= 0 ? given : fmax(least_default_kl, default_floors * c->results->noise_floor);
	if (!isnan(c->options->epsilon_share))
		c->search.epsilon = c->options->epsilon_share * whole;
	c->results->delta = c->search.racing ? c->search.delta : NAN;
	c->results->epsilon = c->search.racing ? c->search.epsilon : NAN;
	if (c->search.racing)
		dsa_log_line(c->options->log, DSA_LOG_INFO,
		             "racing: each flip within %.6g nats of its step's best, all of them with probability %g",
		             c->search.epsilon, 1 - c->search.delta);
}

static enum dsa_status settle_budget(struct calibration *c)
{
	const char *noisiest;
	const double floor = noise_floor(c, &noisiest);
	struct dsa_budget *budget = &c->search.budget;
	if (!c->options->budget_given) {
		*budget = (struct dsa_budget){.kl = fmax(least_default_kl, default_floors * floor),
		                              .nll = NAN,
		                              .kl_p99 = NAN,
		                              .top1 = NAN,
		                              .max_shared = -1,
		                              .scope = budget->scope};
		dsa_log_line(c->options->log, DSA_LOG_INFO, "budget: mean KL up to %.6g nats (none was given)",
		             budget->kl);
	} else if (budget->kl >= 0 && budget->kl < floor) {
		return dsa_fail(
		    c->err, DSA_E_USAGE,
		    "--budget-kl %g is below the noise floor of %.6g%s%s: rounding of the embeddings alone moves "
		    "the output further; ask for more than that",
		    budget->kl, floor, noisiest ? " of corpus " : " of these corpora", noisiest ? noisiest : "");
	}
	c->results->budget = *budget;
	c->results->default_budget = !c->options->budget_given;
	return DSA_OK;
}

/* One baseline on both splits. A journal that does not know it leaves it out: not a fault. */
static enum dsa_status measure_baseline(struct calibration *c, const char *name, const char *pattern, bool *complete)
{
	struct dsa_result_baseline *baseline = &c->results->baselines[c->results->baseline_count];
	struct dsa_quality *const quality[DSA_SPLITS] = {&baseline->calibration, &baseline->heldout};
	const int done = c->batches_done;
	struct dsa_arena scratch;
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&scratch);
	*baseline = (struct dsa_result_baseline){0};
	for (int split = 0; split < DSA_SPLITS && !status; split++) {
		struct dsa_measure measure;
		status = measure_split(c, &measure, pattern, split, &scratch);
		if (!status)
			dsa_measure_quality(&measure, DSA_ALL_CORPORA, c->shape->topk, quality[split]);
	}
	dsa_arena_release(&scratch);
	if (status == DSA_E_MISSING) {
		*complete = false;
		tell(c, done + c->shape->batches - c->batches_done);
		dsa_log_line(c->options->log, DSA_LOG_WARN, "baseline %s is left out: it was not measured in this run",
		             name);
		return DSA_OK;
	}
	if (status)
		return status;
	baseline->name = dsa_arena_text(c->arena, name, strlen(name), c->err);
	baseline->pattern = dsa_arena_text(c->arena, pattern, strlen(pattern), c->err);
	if (!baseline->name || !baseline->pattern)
		return DSA_E_MEMORY;
	c->results->baseline_count++;
	return DSA_OK;
}

static bool named_before(const struct dsa_calibration_options *options, int i)
{
	for (int j = 0; j < i; j++)
		if (strcmp(options->baselines[j], options->baselines[i]) == 0)
			return true;
	return false;
}

static enum dsa_status measure_baselines(struct calibration *c, bool *complete)
{
	static const struct {
		const char *name;
		int period;
	} uniform[] = {{"uniform-1/2", 2}, {"uniform-1/4", 4}};
	enum { UNIFORM = sizeof uniform / sizeof uniform[0] };
	const struct dsa_calibration_options *options = c->options;
	c->results->baseline_count = 0;
	c->results->baselines = dsa_arena_alloc(c->arena, (size_t)options->baseline_count + UNIFORM,
	                                        sizeof *c->results->baselines, "baselines", c->err);
	char *pattern = dsa_arena_alloc(c->arena, (size_t)c->shape->layers + 1, 1, "baselines", c->err);
	if (!c->results->baselines || !pattern)
		return DSA_E_MEMORY;
	enum dsa_status status = DSA_OK;
	for (int i = 0; i < UNIFORM && !status; i++) {
		dsa_pattern_uniform(pattern, c->shape->layers, uniform[i].period, c->shape->reference,
		                    options->search.locked);
		status = measure_baseline(c, uniform[i].name, pattern, complete);
	}
	for (int i = 0; i < options->baseline_count && !status; i++)
		if (!named_before(options, i))
			status = measure_baseline(c, options->baselines[i], options->baselines[i], complete);
	return status;
}

/* Corpora as the shape knows them; what the reader counted besides is the caller's. */
static enum dsa_status fill_corpora(struct dsa_results *results, const struct dsa_evaluator_shape *shape,
                                    struct dsa_arena *arena, struct dsa_error *err)
{
	if (!results->corpora) {
		results->corpora =
		    dsa_arena_alloc(arena, (size_t)shape->corpora, sizeof *results->corpora, "corpora", err);
		if (!results->corpora)
			return DSA_E_MEMORY;
		results->corpus_count = shape->corpora;
		for (int i = 0; i < shape->corpora; i++) {
			results->corpora[i].weight = shape->weights[i];
			results->corpora[i].name = dsa_arena_text(arena, shape->names[i], strlen(shape->names[i]), err);
			if (!results->corpora[i].name)
				return DSA_E_MEMORY;
		}
	}
	assert(results->corpus_count == shape->corpora);
	for (int i = 0; i < shape->corpora; i++) {
		struct dsa_result_corpus *corpus = &results->corpora[i];
		corpus->documents_calibration = corpus->documents_heldout = 0;
		corpus->scored_calibration = corpus->scored_heldout = 0;
	}
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		struct dsa_result_corpus *corpus = &results->corpora[batch->corpus];
		if (batch->split == DSA_CALIBRATION) {
			corpus->documents_calibration += batch->count;
			corpus->scored_calibration += batch->scored;
		} else {
			corpus->documents_heldout += batch->count;
			corpus->scored_heldout += batch->scored;
		}
	}
	return DSA_OK;
}

static enum dsa_status fill_shape(struct dsa_results *results, const struct dsa_evaluator_shape *shape,
                                  struct dsa_arena *arena, struct dsa_error *err)
{
	results->layers = shape->layers;
	results->topk = shape->topk;
	results->reference = dsa_arena_text(arena, shape->reference, (size_t)shape->layers, err);
	return results->reference ? fill_corpora(results, shape, arena, err) : DSA_E_MEMORY;
}

/* What is said of the emitted pattern. */
static void fill_emitted(struct dsa_results *results)
{
	struct dsa_trace *trace = &results->trace;
	const struct dsa_refined *refined = dsa_refine_emit(trace, &results->refinement);
	const struct dsa_step *step = trace->emitted >= 0 ? &trace->steps[trace->emitted] : NULL;
	const struct dsa_quality *by_corpus = refined ? refined->by_corpus
	                                      : step  ? step->by_corpus
	                                              : trace->base_by_corpus;
	results->pattern = refined ? refined->pattern : step ? step->pattern : results->reference;
	results->base = trace->base_calibration;
	results->quality = refined ? refined->calibration : step ? step->calibration : trace->base_calibration;
	results->heldout = refined ? refined->heldout : step ? step->heldout : trace->base_heldout;
	for (int i = 0; i < results->corpus_count; i++) {
		results->corpora[i].calibration = by_corpus[DSA_CALIBRATION * results->corpus_count + i];
		results->corpora[i].heldout = by_corpus[DSA_HELDOUT * results->corpus_count + i];
	}
}

static void offer_best(struct dsa_results *results, double *objectives, const char *pattern,
                       const struct dsa_quality *calibration, const struct dsa_quality *heldout)
{
	const double objective = results->objective == DSA_OBJECTIVE_NLL ? calibration->nll : calibration->kl;
	const int shared = dsa_pattern_shared(pattern);
	struct dsa_best *best = &results->best[shared];
	if (best->pattern && !(objective < objectives[shared]))
		return;
	objectives[shared] = objective;
	*best = (struct dsa_best){.shared = shared,
	                          .pattern = pattern,
	                          .kl = calibration->kl,
	                          .heldout_kl = heldout->documents > 0 ? heldout->kl : NAN};
}

static bool keeps_locked(const char *pattern, const char *reference, const bool *locked, int layers)
{
	for (int l = 0; locked && l < layers; l++)
		if (locked[l] && pattern[l] == 'S' && reference[l] == 'F')
			return false;
	return true;
}

/* The lowest objective at each number of S layers, by that number; of equals the chain's own. A baseline that shares a
 * locked layer is for comparison only. */
static enum dsa_status fill_best(struct dsa_results *results, const bool *locked, struct dsa_arena *arena,
                                 struct dsa_error *err)
{
	const struct dsa_trace *trace = &results->trace;
	const size_t counts = (size_t)results->layers; /* 0 … L - 1 shared */
	double *objectives = dsa_arena_alloc(arena, counts, sizeof *objectives, "best patterns", err);
	results->best = dsa_arena_alloc(arena, counts, sizeof *results->best, "best patterns", err);
	if (!objectives || !results->best)
		return DSA_E_MEMORY;
	offer_best(results, objectives, results->reference, &trace->base_calibration, &trace->base_heldout);
	for (int i = 0; i < trace->count; i++)
		offer_best(results, objectives, trace->steps[i].pattern, &trace->steps[i].calibration,
		           &trace->steps[i].heldout);
	for (int i = 0; i < results->refinement.count; i++) {
		const struct dsa_refined *refined = &results->refinement.best[i];
		offer_best(results, objectives, refined->pattern, &refined->calibration, &refined->heldout);
	}
	for (int i = 0; i < results->baseline_count; i++) {
		const struct dsa_result_baseline *baseline = &results->baselines[i];
		if (keeps_locked(baseline->pattern, results->reference, locked, results->layers))
			offer_best(results, objectives, baseline->pattern, &baseline->calibration, &baseline->heldout);
	}
	results->best_count = 0;
	for (size_t i = 0; i < counts; i++)
		if (results->best[i].pattern)
			results->best[results->best_count++] = results->best[i];
	return DSA_OK;
}

/* After the search, whose work is counted by now. */
static enum dsa_status refine(struct calibration *c, struct dsa_work *work, bool *complete)
{
	const struct dsa_calibration_options *options = c->options;
	struct dsa_results *results = c->results;
	results->refinement = (struct dsa_refinement){0};
	results->refine_work = options->refine_work;
	if (options->refined_count)
		return dsa_refine_known(&results->refinement, c->evaluator, &c->search, &results->trace,
		                        options->refined, options->refined_count, c->arena, complete, c->err);
	if (!(options->refine_work > 0))
		return DSA_OK;
	enum dsa_status status = dsa_refine(&results->refinement, c->evaluator, &c->search, &results->trace,
	                                    options->refine_work, work, options->progress, c->arena, c->err);
	if (!status)
		dsa_log_line(c->options->log, DSA_LOG_INFO,
		             "refinement: better patterns at %d of %d counts, in %d rounds", results->refinement.count,
		             results->trace.count, results->refinement.rounds);
	return status;
}

static void fill_work(struct dsa_results *results, const struct dsa_work *work)
{
	results->work.token_layers = work->token_layers;
	results->work.token_layers_naive = work->naive;
	results->work.head_tokens = work->head_tokens;
}

enum dsa_status dsa_calibration_run(struct dsa_results *results, struct dsa_evaluator *evaluator,
                                    const struct dsa_calibration_options *options, struct dsa_arena *arena,
                                    bool *complete, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	struct calibration c = {.results = results,
	                        .evaluator = evaluator,
	                        .shape = shape,
	                        .options = options,
	                        .arena = arena,
	                        .err = err,
	                        .search = options->search};
	struct dsa_work work;
	bool known = true, searched = true, refined = true;
	*complete = false;
	enum dsa_status status = check_shape(shape, err);
	int baselines = 2;
	for (int i = 0; i < options->baseline_count && !status; i++) {
		status = check_pattern(shape, options->baselines[i], "--baseline", err);
		baselines += !status && !named_before(options, i);
	}
	if (status)
		return status;
	c.batches = shape->batches * (1 + baselines);
	for (int b = 0; b < shape->batches; b++)
		c.batches += dsa_noise_takes(shape, b) > 0;

	status = fill_shape(results, shape, arena, err);
	if (status)
		return status;
	results->search = options->search.racing ? "racing" : options->search.savings ? "exact" : "naive";
	results->objective = options->search.objective;
	status = measure_base(&c);
	if (!status)
		status = suppose_costs(&c);
	if (!status)
		status = measure_noise(&c);
	if (!status)
		status = settle_budget(&c);
	if (!status)
		settle_epsilon(&c);
	if (!status)
		status = measure_baselines(&c, &known);
	if (!status)
		status = dsa_work_init(&work, shape, arena, err);
	if (!status)
		dsa_log_line(options->log, DSA_LOG_DEBUG, "search begins");
	if (!status)
		status = dsa_search_greedy(&results->trace, evaluator, &c.search, &work, options->progress, arena,
		                           &searched, err);
	if (status)
		return status;
	dsa_log_line(options->log, DSA_LOG_DEBUG, "search ends");
	fill_work(results, &work);
	status = refine(&c, &work, &refined);
	if (status)
		return status;
	results->work.refine_token_layers = results->refinement.token_layers;
	fill_emitted(results);
	*complete = known && searched && refined;
	return fill_best(results, options->search.locked, arena, err);
}

enum dsa_status dsa_calibration_evaluate(struct dsa_results *results, struct dsa_evaluator *evaluator,
                                         const char *pattern, struct dsa_arena *arena, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	const char *const asked[] = {shape->reference, pattern};
	enum { BASE, PATTERN, ASKED };
	struct dsa_measure measures[ASKED];
	struct dsa_work work;
	struct dsa_arena scratch;
	dsa_arena_init(&scratch);
	enum dsa_status status = dsa_pattern_check(shape->reference, shape->layers, "the model's own pattern", err);
	if (!status)
		status = check_pattern(shape, pattern, "--pattern", err);
	if (!status)
		status = fill_shape(results, shape, arena, err);
	if (!status)
		status = dsa_work_init(&work, shape, &scratch, err);
	for (int i = 0; i < ASKED && !status; i++)
		status = dsa_measure_start(&measures[i], shape, &scratch, err);
	const struct dsa_ask question = {.base = shape->reference, .patterns = asked, .count = ASKED};
	if (!status)
		status = dsa_announce_split(evaluator, &question, DSA_SPLITS, false, err);
	for (int b = 0; b < shape->batches && !status; b++) {
		status = dsa_measure_batch(measures, NULL, evaluator, shape->reference, asked, ASKED, b, 0, err);
		for (int i = 0; i < ASKED && !status; i++)
			status = dsa_work_count(&work, b, asked[i], true, err);
	}
	if (status)
		goto cleanup;
	results->pattern = dsa_arena_text(arena, pattern, (size_t)shape->layers, err);
	if (!results->pattern) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	dsa_measure_quality(&measures[BASE], DSA_ALL_CORPORA, shape->topk, &results->base);
	dsa_measure_quality(&measures[PATTERN], DSA_ALL_CORPORA, shape->topk, &results->quality);
	results->heldout = (struct dsa_quality){0};
	results->delta = results->epsilon = NAN; /* nothing was searched */
	for (int i = 0; i < shape->corpora; i++) {
		dsa_measure_quality(&measures[PATTERN], i, shape->topk, &results->corpora[i].calibration);
		results->corpora[i].heldout = (struct dsa_quality){0};
	}
	fill_work(results, &work);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}

enum dsa_bound dsa_calibration_gate(const struct dsa_results *results, const struct dsa_budget *budget)
{
	if (budget->scope == DSA_SCOPE_MEAN)
		return dsa_budget_broken(budget, &results->quality, results->pattern);
	enum dsa_bound first = DSA_BOUND_NONE;
	for (int i = 0; i < results->corpus_count; i++) {
		enum dsa_bound broken = dsa_budget_broken(budget, &results->corpora[i].calibration, results->pattern);
		if (broken != DSA_BOUND_NONE && (first == DSA_BOUND_NONE || broken < first))
			first = broken;
	}
	return first;
}
