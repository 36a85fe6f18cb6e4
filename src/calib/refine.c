/* Exchanges at one count of S layers, raced against the best pattern known there. */
#include "dsa/refine.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "dsa/announce.h"
#include "dsa/pattern.h"
#include "dsa/racing.h"

struct refiner {
	struct dsa_refinement *out;
	struct dsa_evaluator *evaluator;
	const struct dsa_evaluator_shape *shape;
	const struct dsa_search_options *options;
	const struct dsa_trace *trace;
	struct dsa_work *work;
	const struct dsa_search_progress *progress;
	struct dsa_arena *arena;
	int64_t limit; /* what work->token_layers may reach */
	int *order;    /* (batches) calibration batches as a race sees them */
	int batches;
};

/* The racers of one round: the best known pattern, then its exchanges, cheapest first. */
struct field {
	int count;
	const char **patterns;        /* (count) */
	struct dsa_measure *measures; /* (count) */
	int64_t *price;               /* (count) of the batch ahead */
	struct dsa_race race;
	const char **asked; /* (count) room for a question's patterns */
	int *places;        /* (count) their places in the field */
};

enum { BEST_KNOWN = 0 };

/* The checkpoint has an indexer there and nothing forces it. */
static bool is_free(const struct refiner *r, int layer)
{
	return layer > 0 && r->shape->reference[layer] == 'F' && !(r->options->locked && r->options->locked[layer]);
}

static bool is_exchange(const struct refiner *r, const char *pattern, int low, int high)
{
	return pattern[low] != pattern[high] && is_free(r, low) && is_free(r, high);
}

/* The later an exchange changes the pattern, the less of it has to be run, and what it leaves behind serves those that
 * change it earlier: so they come in that order. */
static enum dsa_status list_exchanges(const struct refiner *r, const char *pattern, const char **out,
                                      struct dsa_arena *scratch, struct dsa_error *err)
{
	const int layers = r->shape->layers;
	int count = 0;
	for (int low = layers - 1; low > 0; low--)
		for (int high = layers - 1; high > low; high--) {
			if (!is_exchange(r, pattern, low, high))
				continue;
			char *exchange = dsa_arena_text(scratch, pattern, (size_t)layers, err);
			if (!exchange)
				return DSA_E_MEMORY;
			exchange[low] = pattern[high];
			exchange[high] = pattern[low];
			out[count++] = exchange;
		}
	return DSA_OK;
}

static int count_exchanges(const struct refiner *r, const char *pattern)
{
	int count = 0;
	for (int low = 1; low < r->shape->layers; low++)
		for (int high = low + 1; high < r->shape->layers; high++)
			count += is_exchange(r, pattern, low, high);
	return count;
}

static enum dsa_status field_init(struct field *field, const struct refiner *r, const char *pattern, int exchanges,
                                  struct dsa_arena *scratch, struct dsa_error *err)
{
	const size_t n = (size_t)exchanges + 1;
	*field = (struct field){.count = exchanges + 1};
	if (!(field->patterns = dsa_arena_alloc(scratch, n, sizeof *field->patterns, "exchanges", err)) ||
	    !(field->measures = dsa_arena_alloc(scratch, n, sizeof *field->measures, "exchanges", err)) ||
	    !(field->price = dsa_arena_alloc(scratch, n, sizeof *field->price, "exchanges", err)) ||
	    !(field->asked = dsa_arena_alloc(scratch, n, sizeof *field->asked, "exchanges", err)) ||
	    !(field->places = dsa_arena_alloc(scratch, n, sizeof *field->places, "exchanges", err)))
		return DSA_E_MEMORY;
	field->patterns[BEST_KNOWN] = pattern;
	enum dsa_status status = list_exchanges(r, pattern, field->patterns + 1, scratch, err);
	for (int i = 0; i < field->count && !status; i++)
		status = dsa_measure_start(&field->measures[i], r->shape, scratch, err);
	if (!status)
		status = dsa_race_init(&field->race, r->shape, r->options->objective, r->options->delta,
		                       r->options->epsilon, field->count, scratch, err);
	return status;
}

static int exchanges_left(const struct field *field)
{
	return field->race.live - field->race.racing[BEST_KNOWN];
}

static double objective_of(const struct refiner *r, const struct dsa_measure *measure)
{
	double mean, se;
	dsa_measure_objective(measure, r->options->objective, &mean, &se);
	return mean;
}

/* The exchange with the lowest objective so far and the one with the highest; in front of the first batch the first and
 * the last one. */
static void find_ends(const struct refiner *r, const struct field *field, int *first, int *last)
{
	double lowest = 0, highest = 0;
	*first = *last = -1;
	for (int i = 1; i < field->count; i++) {
		if (!field->race.racing[i])
			continue;
		const double objective = objective_of(r, &field->measures[i]);
		if (*first < 0 || objective < lowest) {
			*first = i;
			lowest = objective;
		}
		if (*last < 0 || !(objective < highest)) {
			*last = i;
			highest = objective;
		}
	}
}

/* Lets exchanges go until batch number `at` of all that are left, and the rest of the foremost, are within the limit.
 */
static void keep_affordable(const struct refiner *r, struct field *field, int at)
{
	const bool savings = r->options->savings;
	int64_t ahead = 0;
	for (int i = 0; i < field->count; i++) {
		field->price[i] = 0;
		if (field->race.racing[i])
			field->price[i] = dsa_work_price(r->work, r->order[at], field->patterns[i], savings);
		ahead += field->price[i];
	}
	while (exchanges_left(field) > 0) {
		int first, last;
		int64_t rest = 0;
		find_ends(r, field, &first, &last);
		for (int k = at + 1; k < r->batches; k++)
			rest += dsa_work_price(r->work, r->order[k], field->patterns[first], savings);
		if (ahead + rest <= r->limit - r->work->token_layers)
			return;
		ahead -= field->price[last];
		dsa_race_withdraw(&field->race, last);
	}
}

static enum dsa_status check_figures(const struct refiner *r, const struct field *field, int asked,
                                     struct dsa_error *err)
{
	for (int i = 0; i < asked; i++) {
		const double objective = objective_of(r, &field->measures[field->places[i]]);
		if (!isfinite(objective))
			return dsa_fail(err, DSA_E_NUMERIC,
			                "refinement: under %s the mean %s is %g, expected a finite number; look for "
			                "damaged weights",
			                field->asked[i], r->options->objective == DSA_OBJECTIVE_NLL ? "NLL" : "KL",
			                objective);
	}
	return DSA_OK;
}

/* The exchanges still racing see batch number k, and are expected to see those behind it. */
static enum dsa_status advance(struct refiner *r, struct field *field, int k, struct dsa_error *err)
{
	const int batch = r->order[k], left = r->batches - k, ahead = r->evaluator->ahead;
	const char *base = field->patterns[BEST_KNOWN];
	int count = 0;
	for (int i = 1; i < field->count; i++) {
		if (!field->race.racing[i])
			continue;
		field->places[count] = i;
		field->asked[count++] = field->patterns[i];
	}
	const struct dsa_ask question = {.base = base, .patterns = field->asked, .count = count};
	enum dsa_status status =
	    dsa_announce(r->evaluator, &question, r->order + k, left < ahead ? left : ahead, false, err);
	if (!status)
		status = dsa_measure_batch(field->measures, field->places, r->evaluator, base, field->asked, count,
		                           batch, 0, err);
	for (int i = 0; i < count && !status; i++)
		status = dsa_work_count(r->work, batch, field->asked[i], r->options->savings, err);
	return status ? status : check_figures(r, field, count, err);
}

/* Runs the race, which the best known pattern has behind it; *finished: exchanges have seen every batch. */
static enum dsa_status run_race(struct refiner *r, struct field *field, int shared, bool *finished,
                                struct dsa_error *err)
{
	*finished = false;
	/* No KL is below 0. */
	if (r->options->objective == DSA_OBJECTIVE_KL &&
	    objective_of(r, &field->measures[BEST_KNOWN]) <= r->options->epsilon)
		return DSA_OK;
	for (int k = 0; k < r->batches; k++) {
		keep_affordable(r, field, k);
		if (exchanges_left(field) == 0)
			return DSA_OK;
		enum dsa_status status = advance(r, field, k, err);
		if (status)
			return status;
		if (r->progress && r->progress->refine)
			r->progress->refine(r->progress->context, shared, exchanges_left(field), k + 1, r->batches);
		if (k + 1 < r->batches)
			dsa_race_look(&field->race, field->measures);
	}
	*finished = true;
	return DSA_OK;
}

/* Of those that ran to the end and beat the best known pattern beyond the paired standard error, the one with the
 * lowest objective; -1: none. */
static int find_better(const struct refiner *r, const struct field *field)
{
	int better = -1;
	double lowest = 0;
	for (int i = 1; i < field->count; i++) {
		double difference, se;
		if (!field->race.racing[i])
			continue;
		dsa_measure_difference(&field->measures[i], &field->measures[BEST_KNOWN], r->options->objective,
		                       &difference, &se);
		const double objective = objective_of(r, &field->measures[i]);
		if (-difference > se && (better < 0 || objective < lowest)) {
			better = i;
			lowest = objective;
		}
	}
	return better;
}

/* One round; *found: a better pattern, from r->arena, or NULL. */
static enum dsa_status run_round(struct refiner *r, const char *pattern, const char **found, struct dsa_error *err)
{
	const int exchanges = count_exchanges(r, pattern);
	struct field field;
	struct dsa_arena scratch;
	bool finished;
	*found = NULL;
	if (exchanges == 0 || r->work->token_layers >= r->limit)
		return DSA_OK;
	dsa_arena_init(&scratch);
	r->out->rounds++;
	enum dsa_status status = field_init(&field, r, pattern, exchanges, &scratch, err);
	/* It was measured before, so a journal knows what every exchange has to beat. */
	if (!status)
		status = dsa_measure_pattern(&field.measures[BEST_KNOWN], r->evaluator, pattern, pattern,
		                             DSA_CALIBRATION, 0, &scratch, err);
	if (!status)
		status = run_race(r, &field, dsa_pattern_shared(pattern), &finished, err);
	if (!status && finished) {
		const int better = find_better(r, &field);
		if (better >= 0) {
			*found = dsa_arena_text(r->arena, field.patterns[better], (size_t)r->shape->layers, err);
			status = *found ? DSA_OK : DSA_E_MEMORY;
		}
	}
	dsa_arena_release(&scratch);
	return status;
}

static int step_with(const struct dsa_trace *trace, int shared)
{
	for (int i = 0; i < trace->count; i++)
		if (dsa_pattern_shared(trace->steps[i].pattern) == shared)
			return i;
	return -1;
}

/* Everything that is said of a pattern; *better: it beats greedy's at its count, or there is none. */
static enum dsa_status describe(const struct refiner *r, struct dsa_refined *refined, const char *pattern, bool *better,
                                struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = r->shape;
	struct dsa_measure measures[DSA_SPLITS], greedy;
	struct dsa_arena scratch;
	enum dsa_status status = DSA_OK;
	const int step = step_with(r->trace, dsa_pattern_shared(pattern));
	*refined = (struct dsa_refined){.shared = dsa_pattern_shared(pattern),
	                                .pattern = pattern,
	                                .difference = (double)NAN,
	                                .difference_se = (double)NAN};
	refined->by_corpus = dsa_arena_alloc(r->arena, (size_t)shape->corpora * DSA_SPLITS, sizeof *refined->by_corpus,
	                                     "refinement", err);
	if (!refined->by_corpus)
		return DSA_E_MEMORY;
	dsa_arena_init(&scratch);
	for (int split = 0; split < DSA_SPLITS && !status; split++) {
		status = dsa_measure_pattern(&measures[split], r->evaluator, pattern, pattern, split, 0, &scratch, err);
		for (int c = 0; c < shape->corpora && !status; c++)
			dsa_measure_quality(&measures[split], c, shape->topk,
			                    &refined->by_corpus[split * shape->corpora + c]);
	}
	if (!status && step >= 0) {
		const char *base = r->trace->steps[step].pattern;
		status = dsa_measure_pattern(&greedy, r->evaluator, base, base, DSA_CALIBRATION, 0, &scratch, err);
		if (!status)
			dsa_measure_difference(&measures[DSA_CALIBRATION], &greedy, r->options->objective,
			                       &refined->difference, &refined->difference_se);
	}
	if (!status) {
		dsa_measure_quality(&measures[DSA_CALIBRATION], DSA_ALL_CORPORA, shape->topk, &refined->calibration);
		dsa_measure_quality(&measures[DSA_HELDOUT], DSA_ALL_CORPORA, shape->topk, &refined->heldout);
		refined->broken = dsa_budget_judge(&r->options->budget, &measures[DSA_CALIBRATION],
		                                   &measures[DSA_HELDOUT], shape->topk, pattern);
	}
	*better = step < 0 || refined->difference < 0;
	dsa_arena_release(&scratch);
	return status;
}

/* Rounds at the count of a step until one changes nothing; the last improvement into *refined. */
static enum dsa_status refine_count(struct refiner *r, int step, struct dsa_refined *refined, struct dsa_error *err)
{
	const char *best = r->trace->steps[step].pattern, *found;
	bool better;
	enum dsa_status status = run_round(r, best, &found, err);
	while (!status && found) {
		best = found;
		status = run_round(r, best, &found, err);
	}
	if (status || best == r->trace->steps[step].pattern)
		return status;
	status = describe(r, refined, best, &better, err);
	/* A chain of improvements improves on its start. */
	assert(status || better);
	return status;
}

enum dsa_status dsa_refine(struct dsa_refinement *refinement, struct dsa_evaluator *evaluator,
                           const struct dsa_search_options *options, const struct dsa_trace *trace, double share,
                           struct dsa_work *work, const struct dsa_search_progress *progress, struct dsa_arena *arena,
                           struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	const int64_t before = work->token_layers;
	struct refiner r = {.out = refinement,
	                    .evaluator = evaluator,
	                    .shape = shape,
	                    .options = options,
	                    .trace = trace,
	                    .work = work,
	                    .progress = progress,
	                    .arena = arena};
	assert(share >= 0);
	*refinement = (struct dsa_refinement){0};
	const double most = (double)before * (1 + share);
	r.limit = most < 9e18 ? (int64_t)most : INT64_MAX;
	r.order = dsa_arena_alloc(arena, (size_t)shape->batches, sizeof *r.order, "the order of batches", err);
	struct dsa_refined *best =
	    dsa_arena_alloc(arena, (size_t)trace->count, sizeof *refinement->best, "refinement", err);
	if (!r.order || !best)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_race_order(shape, r.order, &r.batches, err);
	for (int away = 0; away <= trace->count && !status; away++) {
		const int nearest[] = {trace->emitted - away, trace->emitted + 1 + away};
		for (size_t i = 0; i < sizeof nearest / sizeof *nearest && !status; i++)
			if (nearest[i] >= 0 && nearest[i] < trace->count)
				status = refine_count(&r, nearest[i], &best[nearest[i]], err);
	}
	refinement->best = best;
	for (int i = 0; i < trace->count; i++)
		if (best[i].pattern)
			best[refinement->count++] = best[i];
	refinement->token_layers = work->token_layers - before;
	return status;
}

/* A pattern that the search could have reached. */
static bool is_reachable(const struct refiner *r, const char *pattern)
{
	if (!dsa_pattern_respects(pattern, r->shape->reference))
		return false;
	for (int l = 0; l < r->shape->layers; l++)
		if (pattern[l] != r->shape->reference[l] && !is_free(r, l))
			return false;
	return true;
}

enum dsa_status dsa_refine_known(struct dsa_refinement *refinement, struct dsa_evaluator *evaluator,
                                 const struct dsa_search_options *options, const struct dsa_trace *trace,
                                 const char *const *patterns, int count, struct dsa_arena *arena, bool *complete,
                                 struct dsa_error *err)
{
	struct refiner r = {.out = refinement,
	                    .evaluator = evaluator,
	                    .shape = evaluator->shape,
	                    .options = options,
	                    .trace = trace,
	                    .arena = arena};
	enum dsa_status status = DSA_OK;
	int shared = -1;
	*complete = true;
	*refinement = (struct dsa_refinement){0};
	refinement->best = dsa_arena_alloc(arena, (size_t)count, sizeof *refinement->best, "refinement", err);
	if (!refinement->best)
		return DSA_E_MEMORY;
	for (int i = 0; i < count && !status; i++) {
		bool better;
		if (!is_reachable(&r, patterns[i]) || dsa_pattern_shared(patterns[i]) <= shared)
			continue;
		status = describe(&r, &refinement->best[refinement->count], patterns[i], &better, err);
		if (status == DSA_E_MISSING) {
			*complete = false;
			status = DSA_OK;
		} else if (!status && better) {
			shared = refinement->best[refinement->count++].shared;
		}
	}
	return status;
}

static bool holds_on_calibration(enum dsa_bound broken)
{
	return broken == DSA_BOUND_NONE || broken == DSA_BOUND_HELDOUT;
}

/* What is best known at a count: its break, and whose pattern it is; false: nothing is known there. */
static bool best_at(const struct dsa_trace *trace, const struct dsa_refinement *refinement, int shared,
                    enum dsa_bound *broken, const struct dsa_refined **refined)
{
	const int step = step_with(trace, shared);
	*refined = NULL;
	for (int i = 0; i < refinement->count; i++)
		if (refinement->best[i].shared == shared)
			*refined = &refinement->best[i];
	if (*refined && step >= 0 && !holds_on_calibration((*refined)->broken) &&
	    holds_on_calibration(trace->steps[step].broken))
		*refined = NULL;
	if (!*refined && step < 0)
		return false;
	*broken = *refined ? (*refined)->broken : trace->steps[step].broken;
	return true;
}

const struct dsa_refined *dsa_refine_emit(struct dsa_trace *trace, const struct dsa_refinement *refinement)
{
	const struct dsa_step *last = trace->count ? &trace->steps[trace->count - 1] : NULL;
	const struct dsa_refined *refined = NULL;
	int shared = last ? dsa_pattern_shared(last->pattern) : 0;
	if (refinement->count && refinement->best[refinement->count - 1].shared > shared)
		shared = refinement->best[refinement->count - 1].shared;
	/* Where nothing is known deeper, what ended the search. */
	trace->stopped_by = last && !holds_on_calibration(last->broken) ? last->broken : trace->end;
	trace->emitted = -1;
	for (; shared > 0; shared--) {
		enum dsa_bound broken;
		if (!best_at(trace, refinement, shared, &broken, &refined))
			continue;
		if (broken == DSA_BOUND_NONE)
			break;
		trace->stopped_by = broken;
	}
	if (shared == 0)
		return NULL;
	trace->emitted = step_with(trace, shared);
	if (trace->emitted < 0)
		trace->emitted = trace->count - 1;
	return refined;
}
