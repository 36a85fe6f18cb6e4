/* Greedy search, one flip a step: every candidate on every calibration batch, or as far as its race goes. */
#include "dsa/search.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "dsa/announce.h"
#include "dsa/pattern.h"
#include "dsa/racing.h"

struct taker {
	struct dsa_measure *measures;
	const int *places; /* of the patterns asked; NULL: in order */
};

static enum dsa_status take_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                    int64_t executed, struct dsa_error *err)
{
	const struct taker *taker = context;
	struct dsa_measure *measure = &taker->measures[taker->places ? taker->places[index] : index];
	(void)executed; /* the journal's affair: it knows the repeats of earlier, killed runs too */
	for (int d = 0; d < count; d++) {
		enum dsa_status status = dsa_measure_add(measure, &stats[d], err);
		if (status)
			return status;
	}
	return DSA_OK;
}

enum dsa_status dsa_measure_batch(struct dsa_measure *measures, const int *places, struct dsa_evaluator *evaluator,
                                  const char *base, const char *const *patterns, int count, int batch, uint64_t seed,
                                  struct dsa_error *err)
{
	assert(count > 0 && batch >= 0 && batch < evaluator->shape->batches && (seed == 0 || count == 1));
	const struct dsa_ask ask = {.base = base, .patterns = patterns, .count = count, .batch = batch, .seed = seed};
	struct taker taker = {.measures = measures, .places = places};
	const struct dsa_sink sink = {.pattern = take_pattern, .context = &taker};
	return evaluator->evaluate(evaluator, &ask, &sink, err);
}

enum dsa_status dsa_measure_start(struct dsa_measure *measure, const struct dsa_evaluator_shape *shape,
                                  struct dsa_arena *arena, struct dsa_error *err)
{
	enum dsa_status status =
	    dsa_measure_init(measure, shape->corpora, shape->documents, shape->weights, shape->corpus_of, arena, err);
	measure->intervals = shape->intervals;
	return status;
}

enum dsa_status dsa_measure_pattern(struct dsa_measure *measure, struct dsa_evaluator *evaluator, const char *base,
                                    const char *pattern, int split, uint64_t seed, struct dsa_arena *arena,
                                    struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	const struct dsa_ask question = {.base = base, .patterns = &pattern, .count = 1, .seed = seed};
	enum dsa_status status = dsa_measure_start(measure, shape, arena, err);
	if (!status)
		status = dsa_announce_split(evaluator, &question, split, false, err);
	for (int b = 0; b < shape->batches && !status; b++)
		if (shape->batch[b].split == split)
			status = dsa_measure_batch(measure, NULL, evaluator, base, &pattern, 1, b, seed, err);
	return status;
}

struct greedy {
	struct dsa_trace *trace;
	struct dsa_evaluator *evaluator;
	const struct dsa_evaluator_shape *shape;
	const struct dsa_search_options *options;
	struct dsa_work *work;
	const struct dsa_search_progress *progress;
	struct dsa_arena *arena;
	int batches_in[DSA_SPLITS];
	int *order;        /* (batches_in[DSA_CALIBRATION]) calibration batches as the candidates see them */
	double pair_delta; /* racing: delta's share of one candidate against another, whatever the budget */
	int sounding;      /* racing: batches of `order` that hold documents of every corpus */
	double *behind;    /* (layers) what a flip cost in the step before beyond the best one, where both were seen */
};

/* The candidates of one step. */
struct field {
	int count;
	const char **patterns;        /* (count) */
	struct dsa_measure *measures; /* (count) on calibration batches */
	int *seen;                    /* (count) batches of g->order */
	bool ahead;                   /* one has seen all of them before the others */
	struct dsa_race race;         /* an exact search does not look at it */
	const char **asked;           /* (count) room for a question's patterns */
	int *places;                  /* (count) their places in the field */
};

static void tell(const struct greedy *g, int candidates, int done)
{
	if (g->progress && g->progress->step)
		g->progress->step(g->progress->context, g->trace->count + 1, candidates, done,
		                  g->batches_in[DSA_CALIBRATION] + g->batches_in[DSA_HELDOUT]);
}

static bool is_candidate(const struct greedy *g, const char *pattern, int layer)
{
	return layer > 0 && pattern[layer] == 'F' && !(g->options->locked && g->options->locked[layer]);
}

static int count_candidates(const struct greedy *g, const char *pattern)
{
	int count = 0;
	for (int l = 1; l < g->shape->layers; l++)
		count += is_candidate(g, pattern, l);
	return count;
}

/* Layers and patterns of a step's candidates, ascending by layer. */
static enum dsa_status list_candidates(const struct greedy *g, const char *current, struct dsa_candidate *candidates,
                                       const char **patterns, struct dsa_arena *scratch, struct dsa_error *err)
{
	int count = 0;
	for (int l = 1; l < g->shape->layers; l++) {
		if (!is_candidate(g, current, l))
			continue;
		char *pattern = dsa_arena_text(scratch, current, (size_t)g->shape->layers, err);
		if (!pattern)
			return DSA_E_MEMORY;
		pattern[l] = 'S';
		candidates[count].layer = l;
		patterns[count++] = pattern;
	}
	return DSA_OK;
}

static enum dsa_status field_init(struct field *field, const struct greedy *g, const char *current,
                                  struct dsa_candidate *candidates, int count, struct dsa_arena *scratch,
                                  struct dsa_error *err)
{
	const size_t n = (size_t)count;
	*field = (struct field){.count = count};
	if (!(field->patterns = dsa_arena_alloc(scratch, n, sizeof *field->patterns, "candidates", err)) ||
	    !(field->measures = dsa_arena_alloc(scratch, n, sizeof *field->measures, "candidates", err)) ||
	    !(field->seen = dsa_arena_alloc(scratch, n, sizeof *field->seen, "candidates", err)) ||
	    !(field->asked = dsa_arena_alloc(scratch, n, sizeof *field->asked, "candidates", err)) ||
	    !(field->places = dsa_arena_alloc(scratch, n, sizeof *field->places, "candidates", err)))
		return DSA_E_MEMORY;
	enum dsa_status status = list_candidates(g, current, candidates, field->patterns, scratch, err);
	for (int i = 0; i < count && !status; i++)
		status = dsa_measure_start(&field->measures[i], g->shape, scratch, err);
	if (!status)
		status = dsa_race_init(&field->race, g->shape, g->options->objective, g->pair_delta * (count - 1),
		                       g->options->epsilon, count, scratch, err);
	return status;
}

/* An exact search announces all that is left of a step at its beginning; a race, batch by batch, what those who are in
 * it would see next if they all stayed. */
static enum dsa_status announce(const struct greedy *g, const struct field *field, const char *current, int k,
                                int count, struct dsa_error *err)
{
	const struct dsa_ask question = {.base = current, .patterns = field->asked, .count = count};
	const int left = g->batches_in[DSA_CALIBRATION] - k, ahead = g->evaluator->ahead;
	if (!g->options->racing)
		return k == 0 ? dsa_announce(g->evaluator, &question, g->order, left, false, err) : DSA_OK;
	return dsa_announce(g->evaluator, &question, g->order + k, left < ahead ? left : ahead, false, err);
}

/* Who is still racing sees the step's batch k, if it is the next one for it; *count of them. */
static enum dsa_status advance(const struct greedy *g, struct field *field, const char *current, int k, int *count,
                               struct dsa_error *err)
{
	*count = 0;
	for (int i = 0; i < field->count; i++) {
		if (!field->race.racing[i] || field->seen[i] != k)
			continue;
		field->places[*count] = i;
		field->asked[(*count)++] = field->patterns[i];
		field->seen[i]++;
	}
	if (!*count)
		return DSA_OK;
	enum dsa_status status = announce(g, field, current, k, *count, err);
	return status ? status
	              : dsa_measure_batch(field->measures, field->places, g->evaluator, current, field->asked, *count,
	                                  g->order[k], 0, err);
}

/* Who was least behind the best one in the step before; in the first step, who has the lowest objective so far. */
static int favourite(const struct greedy *g, const struct field *field, const struct dsa_candidate *candidates)
{
	double lowest = 0;
	int best = -1;
	for (int i = 0; i < field->count; i++) {
		double figure = g->behind[candidates[i].layer], se;
		if (!field->race.racing[i])
			continue;
		if (!g->trace->count && !g->options->prior)
			dsa_measure_objective(&field->measures[i], g->options->objective, &figure, &se);
		if (best < 0 || figure < lowest) {
			best = i;
			lowest = figure;
		}
	}
	return best;
}

/* Who is better than the one ahead by more than epsilon and by more than others, so far; -1: nobody. */
static int rival(const struct greedy *g, const struct field *field)
{
	const struct dsa_measure *first = &field->measures[field->race.leader];
	double lowest = -g->options->epsilon;
	int best = -1;
	for (int i = 0; i < field->count; i++) {
		double difference, se;
		if (!field->race.racing[i] || field->seen[i] == g->batches_in[DSA_CALIBRATION])
			continue;
		dsa_measure_difference(&field->measures[i], first, g->options->objective, &difference, &se);
		if (difference < lowest) {
			best = i;
			lowest = difference;
		}
	}
	return best;
}

/* Who is to see all batches before the others go on to batch k; -1: nobody. Only of a KL anything is certain then. */
static int who_runs_ahead(const struct greedy *g, const struct field *field, const struct dsa_candidate *candidates,
                          int k)
{
	if (!g->options->racing || g->options->objective != DSA_OBJECTIVE_KL || field->race.live == 1)
		return -1;
	if (!field->ahead)
		return !g->trace->count && !g->options->prior && k < g->sounding ? -1 : favourite(g, field, candidates);
	return k < 2 * g->sounding ? -1 : rival(g, field);
}

/* Candidate `first` sees all batches: then a few documents tell who cannot come down to it. */
static enum dsa_status run_ahead(const struct greedy *g, struct field *field, int first, const char *current, int *done,
                                 struct dsa_error *err)
{
	const int batches = g->batches_in[DSA_CALIBRATION], from = field->seen[first];
	const struct dsa_ask question = {.base = current, .patterns = &field->patterns[first], .count = 1};
	enum dsa_status status = dsa_announce(g->evaluator, &question, g->order + from, batches - from, false, err);
	while (field->seen[first] < batches && !status) {
		const int k = field->seen[first]++;
		status = dsa_measure_batch(field->measures, &first, g->evaluator, current, question.patterns, 1,
		                           g->order[k], 0, err);
		*done = *done > k ? *done : k + 1;
		if (!status)
			tell(g, field->race.live, *done);
	}
	field->ahead = true;
	if (!status)
		dsa_race_look(&field->race, field->measures);
	return status;
}

/* Until one is left, measured on every document, that nobody who left could beat. */
static enum dsa_status run_race(const struct greedy *g, struct field *field, const struct dsa_candidate *candidates,
                                const char *current, int *done, struct dsa_error *err)
{
	const int batches = g->batches_in[DSA_CALIBRATION];
	enum dsa_status status = DSA_OK;
	do {
		for (int k = 0; k < batches && !status; k++) {
			const int first = who_runs_ahead(g, field, candidates, k);
			int count;
			if (first >= 0)
				status = run_ahead(g, field, first, current, done, err);
			if (!status)
				status = advance(g, field, current, k, &count, err);
			if (status || !count)
				continue;
			*done += *done == k;
			tell(g, field->race.live, *done);
			if (g->options->racing && field->race.live > 1 && k + 1 < batches)
				dsa_race_look(&field->race, field->measures);
		}
	} while (!status && g->options->racing && dsa_race_recall(&field->race, field->measures));
	return status;
}

/* What each candidate cost beyond the winner on the documents that it has seen: it tells the next step's favourite. */
static void remember(const struct greedy *g, const struct field *field, const struct dsa_candidate *candidates,
                     int winner)
{
	for (int i = 0; i < field->count; i++) {
		double se;
		dsa_measure_difference(&field->measures[i], &field->measures[winner], g->options->objective,
		                       &g->behind[candidates[i].layer], &se);
	}
}

/* Figures of each candidate from its measure; *winner, of those who saw every document, has the lowest objective, the
 * lower layer where two are equal. */
static enum dsa_status judge(const struct greedy *g, struct dsa_candidate *candidates, const struct field *field,
                             int *winner, struct dsa_error *err)
{
	const bool by_nll = g->options->objective == DSA_OBJECTIVE_NLL;
	*winner = -1;
	for (int i = 0; i < field->count; i++) {
		const struct dsa_measure *measure = &field->measures[i];
		struct dsa_candidate *candidate = &candidates[i];
		double nll_se;
		dsa_measure_objective(measure, DSA_OBJECTIVE_KL, &candidate->kl, &candidate->kl_se);
		dsa_measure_objective(measure, DSA_OBJECTIVE_NLL, &candidate->nll, &nll_se);
		candidate->objective = by_nll ? candidate->nll : candidate->kl;
		const bool whole = field->seen[i] == g->batches_in[DSA_CALIBRATION];
		candidate->bound = whole ? NAN : field->race.bound[i];
		for (int d = 0; d < g->shape->documents; d++)
			candidate->documents += measure->totals[d].tokens > 0;
		if (!isfinite(candidate->objective))
			return dsa_fail(err, DSA_E_NUMERIC,
			                "search, step %d: with layer %d shared the mean %s is %g, expected a finite "
			                "number; look for damaged weights",
			                g->trace->count + 1, candidate->layer, by_nll ? "NLL" : "KL",
			                candidate->objective);
		if (whole && (*winner < 0 || candidate->objective < candidates[*winner].objective))
			*winner = i;
	}
	return DSA_OK;
}

static void fill_by_corpus(const struct greedy *g, const struct dsa_measure *measure, int split,
                           struct dsa_quality *by_corpus)
{
	for (int c = 0; c < g->shape->corpora; c++)
		dsa_measure_quality(measure, c, g->shape->topk, &by_corpus[split * g->shape->corpora + c]);
}

/* What the step says of its winner. */
static enum dsa_status fill_step(struct greedy *g, struct dsa_step *step, const char *pattern,
                                 const struct dsa_measure *calibration, const struct dsa_measure *heldout,
                                 struct dsa_error *err)
{
	const struct dsa_budget *budget = &g->options->budget;
	const int topk = g->shape->topk;
	step->pattern = dsa_arena_text(g->arena, pattern, (size_t)g->shape->layers, err);
	if (!step->pattern)
		return DSA_E_MEMORY;
	dsa_measure_quality(calibration, DSA_ALL_CORPORA, topk, &step->calibration);
	dsa_measure_quality(heldout, DSA_ALL_CORPORA, topk, &step->heldout);
	fill_by_corpus(g, calibration, DSA_CALIBRATION, step->by_corpus);
	fill_by_corpus(g, heldout, DSA_HELDOUT, step->by_corpus);
	step->broken = dsa_budget_judge(budget, calibration, heldout, topk, pattern);
	return DSA_OK;
}

/* Measures all candidates on top of `current` and adds the step to the trace; on failure the trace does not have it. */
static enum dsa_status take_step(struct greedy *g, const char *current, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = g->shape;
	const int count = count_candidates(g, current), batches = g->batches_in[DSA_CALIBRATION];
	struct dsa_step *step = &g->trace->steps[g->trace->count];
	struct field field;
	struct dsa_measure heldout;
	struct dsa_arena scratch;
	enum dsa_status status = DSA_E_MEMORY;
	int winner, done = 0;
	dsa_arena_init(&scratch);
	*step = (struct dsa_step){.step = g->trace->count + 1, .candidate_count = count};

	step->candidates = dsa_arena_alloc(g->arena, (size_t)count, sizeof *step->candidates, "the trace", err);
	step->by_corpus =
	    dsa_arena_alloc(g->arena, (size_t)shape->corpora * DSA_SPLITS, sizeof *step->by_corpus, "the trace", err);
	if (!step->candidates || !step->by_corpus)
		goto cleanup;
	status = field_init(&field, g, current, step->candidates, count, &scratch, err);
	if (!status)
		status = run_race(g, &field, step->candidates, current, &done, err);
	if (!status)
		status = judge(g, step->candidates, &field, &winner, err);
	if (status)
		goto cleanup;

	const struct dsa_ask question = {.base = current, .patterns = &field.patterns[winner], .count = 1};
	status = dsa_measure_start(&heldout, shape, &scratch, err);
	if (!status)
		status = dsa_announce_split(g->evaluator, &question, DSA_HELDOUT, false, err);
	for (int b = 0; b < shape->batches && !status; b++) {
		if (shape->batch[b].split != DSA_HELDOUT)
			continue;
		status =
		    dsa_measure_batch(&heldout, NULL, g->evaluator, current, &field.patterns[winner], 1, b, 0, err);
		if (!status)
			tell(g, field.race.live, ++done);
	}
	/* Only now, so that the work is that of the steps in the trace wherever a journal ends. */
	for (int k = 0; k < batches; k++)
		for (int i = 0; i < count && !status; i++)
			if (k < field.seen[i])
				status =
				    dsa_work_count(g->work, g->order[k], field.patterns[i], g->options->savings, err);
			else
				dsa_work_spare(g->work, g->order[k]);
	if (status)
		goto cleanup;

	step->flip = step->candidates[winner].layer;
	status = fill_step(g, step, field.patterns[winner], &field.measures[winner], &heldout, err);
	if (status)
		goto cleanup;
	g->trace->count++;
	remember(g, &field, step->candidates, winner);
	if (g->progress && g->progress->done)
		g->progress->done(g->progress->context, step);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}

static enum dsa_status measure_base(struct greedy *g, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = g->shape;
	struct dsa_quality *const quality[DSA_SPLITS] = {&g->trace->base_calibration, &g->trace->base_heldout};
	struct dsa_arena scratch;
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&scratch);
	for (int split = 0; split < DSA_SPLITS && !status; split++) {
		struct dsa_measure measure;
		status = dsa_measure_pattern(&measure, g->evaluator, shape->reference, shape->reference, split, 0,
		                             &scratch, err);
		if (status)
			break;
		dsa_measure_quality(&measure, DSA_ALL_CORPORA, shape->topk, quality[split]);
		fill_by_corpus(g, &measure, split, g->trace->base_by_corpus);
	}
	for (int b = 0; b < shape->batches && !status; b++)
		if (shape->batch[b].split == DSA_CALIBRATION)
			status = dsa_work_count(g->work, b, shape->reference, g->options->savings, err);
	dsa_arena_release(&scratch);
	return status;
}

/* *end: what ended the search where no step's break did. */
static enum dsa_status descend(struct greedy *g, enum dsa_bound *end, struct dsa_error *err)
{
	const struct dsa_budget *budget = &g->options->budget;
	const bool full_trace = g->options->full_trace;
	const char *current = g->shape->reference;
	enum dsa_status status = measure_base(g, err);
	while (!status) {
		if (count_candidates(g, current) == 0) {
			*end = DSA_BOUND_ALL_SHARED;
			break;
		}
		if (!full_trace && budget->max_shared >= 0 && dsa_pattern_shared(current) >= budget->max_shared) {
			*end = DSA_BOUND_MAX_SHARED;
			break;
		}
		status = take_step(g, current, err);
		if (status)
			break;
		const struct dsa_step *step = &g->trace->steps[g->trace->count - 1];
		/* Held-out documents alone do not stop: a deeper step may hold again on both. */
		if (!full_trace && step->broken != DSA_BOUND_NONE && step->broken != DSA_BOUND_HELDOUT)
			break;
		current = step->pattern;
	}
	return status;
}

/* The first batches of g->order that hold documents of every corpus. */
static int count_sounding(const struct greedy *g)
{
	int count = 0;
	for (int c = 0; c < g->shape->corpora; c++)
		for (int k = 0; k < g->batches_in[DSA_CALIBRATION]; k++) {
			if (g->shape->batch[g->order[k]].corpus != c)
				continue;
			count = k + 1 > count ? k + 1 : count;
			break;
		}
	return count;
}

/* An exact search asks in the order of the file. */
static enum dsa_status order_batches(struct greedy *g, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = g->shape;
	int count = 0;
	g->order = dsa_arena_alloc(g->arena, (size_t)shape->batches, sizeof *g->order, "the order of batches", err);
	if (!g->order)
		return DSA_E_MEMORY;
	enum dsa_status status = g->options->racing ? dsa_race_order(shape, g->order, &count, err) : DSA_OK;
	for (int b = 0; b < shape->batches && !g->options->racing; b++)
		if (shape->batch[b].split == DSA_CALIBRATION)
			g->order[count++] = b;
	if (!status)
		g->sounding = count_sounding(g);
	return status;
}

enum dsa_status dsa_search_greedy(struct dsa_trace *trace, struct dsa_evaluator *evaluator,
                                  const struct dsa_search_options *options, struct dsa_work *work,
                                  const struct dsa_search_progress *progress, struct dsa_arena *arena, bool *complete,
                                  struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	struct greedy g = {.trace = trace,
	                   .evaluator = evaluator,
	                   .shape = shape,
	                   .options = options,
	                   .work = work,
	                   .progress = progress,
	                   .arena = arena};
	enum dsa_bound end = DSA_BOUND_NONE;
	*trace = (struct dsa_trace){.emitted = -1};
	*complete = true;
	enum dsa_status status = dsa_pattern_check(shape->reference, shape->layers, "the model's own pattern", err);
	if (status)
		return status;
	for (int b = 0; b < shape->batches; b++)
		g.batches_in[shape->batch[b].split]++;
	if (g.batches_in[DSA_CALIBRATION] == 0)
		return dsa_fail(err, DSA_E_INPUT,
		                "search: 0 of %d batches are for calibration, at least 1 is needed; give more "
		                "documents",
		                shape->batches);
	status = order_batches(&g, err);
	if (status)
		return status;
	/* All pairs of all steps alike: early steps have most of them, and most of the near ties. */
	const int most = count_candidates(&g, shape->reference);
	g.pair_delta = most > 1 ? options->delta / (most * (most - 1) / 2.0) : options->delta;
	trace->steps = dsa_arena_alloc(arena, (size_t)shape->layers, sizeof *trace->steps, "the trace", err);
	trace->base_by_corpus = dsa_arena_alloc(arena, (size_t)shape->corpora * DSA_SPLITS,
	                                        sizeof *trace->base_by_corpus, "the trace", err);
	g.behind = dsa_arena_alloc(arena, (size_t)shape->layers, sizeof *g.behind, "the order of candidates", err);
	if (!trace->steps || !trace->base_by_corpus || !g.behind)
		return DSA_E_MEMORY;
	if (options->prior)
		memcpy(g.behind, options->prior, (size_t)shape->layers * sizeof *g.behind);

	status = descend(&g, &end, err);
	if (status == DSA_E_MISSING) {
		*complete = false;
		status = DSA_OK;
	}
	for (int i = 0; i < trace->count; i++)
		if (trace->steps[i].broken == DSA_BOUND_NONE)
			trace->emitted = i;
	trace->end = end;
	trace->stopped_by = trace->emitted + 1 < trace->count ? trace->steps[trace->emitted + 1].broken : end;
	return status;
}
