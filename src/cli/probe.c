/* The rates of a plan, from questions on one batch; where batches share visits, on as many as do. */
#include <math.h>

#include "commands.h"
#include "dry_run_plan.h"
#include "dsa/clock.h"

static enum dsa_status take_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                    int64_t executed, struct dsa_error *err)
{
	struct dry_run *dry = context;
	const struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN,
	                                   .batch = dry->probe.batch,
	                                   .pattern = dry->shape->reference,
	                                   .layers = (size_t)dry->shape->layers};
	(void)index;
	dry->probe.executed += executed;
	dry->probe.buffer.used = 0;
	enum dsa_status status = dsa_record_write_pattern(&dry->probe.buffer, &key, stats, count, err);
	if (!status)
		dry->probe.record_bytes = (double)dry->probe.buffer.used / count;
	return status;
}

static enum dsa_status take_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                    struct dsa_error *err)
{
	struct dry_run *dry = context;
	const struct dsa_record_key key = {.kind = DSA_RECORD_OVERLAP, .batch = dry->probe.batch, .pattern = ""};
	enum dsa_status status = dsa_record_write_overlap(&dry->probe.buffer, &key, overlap, count, err);
	if (!status)
		dry->probe.overlap_bytes = (double)dry->probe.buffer.used / count;
	return status;
}

static enum dsa_status take_early(void *context, int batch, uint64_t seed, const char *pattern,
                                  const struct dsa_doc_stats *stats, int count, int64_t executed, struct dsa_error *err)
{
	struct dry_run *dry = context;
	(void)batch, (void)seed, (void)pattern, (void)stats, (void)count, (void)err;
	dry->probe.executed += executed;
	return DSA_OK;
}

/* The probe's batch with others, as many as share a visit. */
struct group {
	int batch[DSA_TOGETHER], count;
	int64_t scored;
};

static struct group group_of(const struct dry_run *dry, int most)
{
	const struct dsa_evaluator_shape *shape = dry->shape;
	struct group group = {.batch = {dry->probe.batch}, .count = 1, .scored = shape->batch[dry->probe.batch].scored};
	for (int b = 0; b < shape->batches && group.count < most; b++) {
		if (b == dry->probe.batch)
			continue;
		group.batch[group.count++] = b;
		group.scored += shape->batch[b].scored;
	}
	return group;
}

/* Seconds of one question on the group's batches; what it ran is in probe.executed. */
static enum dsa_status ask(struct dry_run *dry, const struct group *group, const char *const *patterns, int count,
                           double *seconds, struct dsa_error *err)
{
	struct dsa_evaluator *evaluator = dry->session->evaluator;
	const struct dsa_ask question = {
	    .base = dry->shape->reference, .patterns = patterns, .count = count, .batch = dry->probe.batch};
	const struct dsa_sink sink = {.pattern = take_pattern, .context = dry};
	const struct dsa_early early = {.pattern = take_early, .context = dry};
	struct dsa_coming coming[DSA_TOGETHER];
	for (int i = 1; i < group->count; i++) {
		coming[i - 1] = (struct dsa_coming){.ask = question};
		coming[i - 1].ask.batch = group->batch[i];
	}
	double begun = dsa_clock_seconds();
	dry->probe.executed = 0;
	enum dsa_status status = evaluator->announce(evaluator, coming, group->count - 1, &early, err);
	if (!status)
		status = evaluator->evaluate(evaluator, &question, &sink, err);
	*seconds = dsa_clock_seconds() - begun;
	return status;
}

/* One question is short on a small batch, and a machine that does other things is not always equally busy: what takes
 * less than a second is measured up to three times, and the one in the middle counts. */
enum { SAMPLES = 3 };
static const double enough_seconds = 1;

struct sample {
	double begun, value[SAMPLES];
	int count;
};

static bool wants_more(const struct sample *sample)
{
	return sample->count == 0 || (sample->count < SAMPLES && dsa_clock_seconds() - sample->begun < enough_seconds);
}

/* Keeps the values in ascending order. */
static void add_sample(struct sample *sample, double value)
{
	int at = sample->count++;
	for (; at > 0 && sample->value[at - 1] > value; at--)
		sample->value[at] = sample->value[at - 1];
	sample->value[at] = value;
}

static double middle(const struct sample *sample)
{
	return sample->count ? sample->value[(sample->count - 1) / 2] : 0;
}

/* Seconds per token-layer of patterns of one question, their products with the vocabulary taken off. */
static enum dsa_status add_rate(struct dry_run *dry, struct sample *sample, const struct group *group,
                                const char *const *patterns, int count, struct dsa_error *err)
{
	const struct probe *probe = &dry->probe;
	const int products = count + (count + DSA_TOGETHER - 1) / DSA_TOGETHER;
	const double head = products * probe->rates.head * (double)group->scored;
	double seconds;
	enum dsa_status status = ask(dry, group, patterns, count, &seconds, err);
	if (!status && probe->executed)
		add_sample(sample, fmax(seconds - head, 0) / (double)probe->executed);
	return status;
}

/* A step asks for all its candidates at once, and what a question takes apart from its patterns is theirs together, as
 * is a layer that comes in: so the probe asks for as many as SAMPLES questions leave each, and a second allows. */
static int candidates_of_question(const struct dry_run *dry)
{
	const double each =
	    dry->probe.rates.whole * (double)dry->shape->batch[dry->probe.batch].suffix * dry->shape->layers / 2;
	const int share = (dry->plan.candidates + SAMPLES - 1) / SAMPLES, wave = dry->session->wave;
	double count = fmin(share, wave);
	if (each > 0)
		count = fmin(count, enough_seconds / each);
	/* Where layers come in, how long that takes is shared by as many as a step lets share it. */
	if (dry->session->residency.link)
		count = fmin(wave, dry->plan.candidates);
	return (int)fmax(count, 1);
}

/* The reference with candidate layers shared: each alone, as many as make a question, in turn, as each keeps states
 * behind it; then all. */
static enum dsa_status rates_of_candidates(struct dry_run *dry, const struct group *group, struct dsa_error *err)
{
	struct dsa_plan_rates *rates = &dry->probe.rates;
	const int layers = dry->shape->layers, count = group->count > 1 ? 1 : candidates_of_question(dry);
	const char *reference = dry->shape->reference, *asked[DSA_TOGETHER];
	struct sample full = {.begun = dsa_clock_seconds()}, shared = {0};
	enum dsa_status status = DSA_OK;
	int flipped = 0, waiting = 0;
	char *all = dsa_arena_text(&dry->session->arena, reference, (size_t)layers, err);
	if (!all)
		return DSA_E_MEMORY;
	for (int l = 1; l < layers && !status; l++) {
		if (!dsa_plan_is_candidate(dry->shape, dry->locked, l))
			continue;
		char *pattern = dsa_arena_text(&dry->session->arena, reference, (size_t)layers, err);
		if (!pattern)
			return DSA_E_MEMORY;
		pattern[l] = all[l] = 'S';
		asked[waiting++] = pattern;
		if (++flipped < dry->plan.candidates && waiting < count)
			continue;
		if (wants_more(&full))
			status = add_rate(dry, &full, group, asked, waiting, err);
		waiting = 0;
	}
	shared.begun = dsa_clock_seconds();
	asked[0] = all;
	while (!status && flipped > 1 && wants_more(&shared)) {
		const int before = shared.count;
		status = add_rate(dry, &shared, group, asked, 1, err);
		if (shared.count == before)
			break; /* nothing was run */
	}
	rates->full = full.count ? middle(&full) : rates->whole;
	rates->shared = shared.count ? middle(&shared) : rates->full;
	return status;
}

static enum dsa_status overlap_once(struct dry_run *dry, double *seconds, struct dsa_error *err)
{
	struct dsa_evaluator *evaluator = dry->session->evaluator;
	const struct dsa_sink sink = {.overlap = take_overlap, .context = dry};
	const double begun = dsa_clock_seconds();
	enum dsa_status status = evaluator->overlap(evaluator, dry->probe.batch, &sink, err);
	*seconds = dsa_clock_seconds() - begun;
	return status;
}

/* Seconds per token-layer of whole passes by those that overlap takes, which visit every layer for one batch. */
static enum dsa_status rate_of_overlap(struct dry_run *dry, struct dsa_error *err)
{
	const struct dsa_evaluator_batch *batch = &dry->shape->batch[dry->probe.batch];
	enum dsa_status status = DSA_OK;
	double seconds, first = 0;
	/* Layers that are seen for the first time are looked through for what is not finite. */
	if (dry->session->residency.link)
		status = overlap_once(dry, &first, err);
	struct sample whole = {.begun = dsa_clock_seconds()};
	while (!status && wants_more(&whole)) {
		status = overlap_once(dry, &seconds, err);
		add_sample(&whole, seconds);
	}
	dry->probe.first_visits = fmax(first - middle(&whole), 0);
	dry->probe.rates.whole = middle(&whole) / ((double)batch->tokens * dry->shape->layers);
	return status;
}

/* Of the group's reference once it is kept there is nothing to run: two products with the vocabulary. */
static enum dsa_status rate_of_head(struct dry_run *dry, const struct group *alone, struct dsa_error *err)
{
	struct probe *probe = &dry->probe;
	struct sample head = {.begun = dsa_clock_seconds()};
	enum dsa_status status = DSA_OK;
	while (!status && wants_more(&head)) {
		double seconds = 0;
		status = ask(dry, alone, &dry->shape->reference, 1, &seconds, err);
		add_sample(&head, fmax(seconds - (double)probe->executed * probe->rates.whole, 0));
	}
	probe->rates.head = middle(&head) / (2 * (double)alone->scored);
	return status;
}

/* evaluate measures no overlap, so that the references of batches share visits. */
static enum dsa_status rates_of_group(struct dry_run *dry, const struct group *group, const struct group *alone,
                                      struct dsa_error *err)
{
	double seconds = 0, first = 0, again = 0;
	enum dsa_status status = overlap_once(dry, &first, err);
	if (!status)
		status = overlap_once(dry, &again, err);
	dry->probe.first_visits = fmax(first - again, 0);
	if (!status)
		status = ask(dry, group, &dry->shape->reference, 1, &seconds, err);
	const double executed = (double)dry->probe.executed;
	if (!status)
		status = rate_of_head(dry, alone, err);
	seconds -= 2 * dry->probe.rates.head * (double)group->scored;
	dry->probe.rates.whole = executed > 0 ? fmax(seconds, 0) / executed : 0;
	return status;
}

enum dsa_status dsa_dry_run_probe(struct dry_run *dry, struct dsa_error *err)
{
	struct probe *probe = &dry->probe;
	const struct dsa_session *session = dry->session;
	const double begun = dsa_clock_seconds();
	probe->batch = dsa_plan_probe_batch(dry->shape);
	const bool shares = session->options->command == DSA_CMD_EVALUATE && session->residency.link;
	const struct group alone = group_of(dry, 1), group = group_of(dry, shares ? session->wave : 1);
	enum dsa_status status = shares ? rates_of_group(dry, &group, &alone, err) : rate_of_overlap(dry, err);
	if (!status && dry->plan.head) {
		if (!shares)
			status = rate_of_head(dry, &alone, err);
		if (!status)
			status = rates_of_candidates(dry, &group, err);
	}
	probe->seconds = dsa_clock_seconds() - begun;
	probe->done = !status;
	return status;
}
