/* Questions that were announced and have not been asked yet. Where a visit has to bring the layer, those that fit into
 * the streams which the question in hand leaves empty are run with it: their batches share its visits. */
#include <stdlib.h>
#include <string.h>

#include "model_evaluator_private.h"

struct coming {
	struct coming *next;
	struct question question;
	struct dsa_arena arena; /* of its texts */
	bool overlap;           /* comes first, and runs the reference */
};

struct answer {
	struct answer *next;
	struct dsa_arena arena; /* of its text and its statistics */
	const char *pattern;
	uint64_t seed;
	int batch, count;
	struct dsa_doc_stats *stats; /* (count) */
	int64_t executed;
};

static void free_coming(struct coming *coming)
{
	dsa_arena_release(&coming->arena);
	free(coming);
}

static void free_answer(struct answer *answer)
{
	dsa_arena_release(&answer->arena);
	free(answer);
}

static void forget_coming(struct model_evaluator *me)
{
	while (me->coming) {
		struct coming *next = me->coming->next;
		free_coming(me->coming);
		me->coming = next;
	}
}

void model_early_close(struct model_evaluator *me)
{
	forget_coming(me);
	while (me->held) {
		struct answer *next = me->held->next;
		free_answer(me->held);
		me->held = next;
	}
}

static struct answer **find_held(struct model_evaluator *me, int batch, uint64_t seed, const char *pattern)
{
	struct answer **at = &me->held;
	while (*at && ((*at)->batch != batch || (*at)->seed != seed || strcmp((*at)->pattern, pattern) != 0))
		at = &(*at)->next;
	return at;
}

/* A copy of what of the question is not held; *out NULL: nothing. */
static enum dsa_status copy_coming(struct model_evaluator *me, struct coming **out, const struct dsa_coming *from,
                                   struct dsa_error *err)
{
	const struct dsa_ask *ask = &from->ask;
	const size_t layers = (size_t)me->shape.layers;
	*out = NULL;
	struct coming *coming = dsa_alloc(1, sizeof *coming, "what is coming", err);
	if (!coming)
		return DSA_E_MEMORY;
	dsa_arena_init(&coming->arena);
	coming->overlap = from->overlap;
	struct question *question = &coming->question;
	*question = (struct question){.batch = ask->batch, .seed = ask->seed};
	const char **patterns =
	    dsa_arena_alloc(&coming->arena, (size_t)ask->count, sizeof *patterns, "what is coming", err);
	question->base = dsa_arena_text(&coming->arena, ask->base, layers, err);
	if (!patterns || !question->base)
		goto failed;
	for (int i = 0; i < ask->count; i++) {
		if (*find_held(me, ask->batch, ask->seed, ask->patterns[i]))
			continue;
		patterns[question->count] = dsa_arena_text(&coming->arena, ask->patterns[i], layers, err);
		if (!patterns[question->count++])
			goto failed;
	}
	question->patterns = patterns;
	if (question->count)
		*out = coming;
	else
		free_coming(coming);
	return DSA_OK;
failed:
	free_coming(coming);
	return DSA_E_MEMORY;
}

enum dsa_status model_early_announce(struct dsa_evaluator *self, const struct dsa_coming *coming, int count,
                                     const struct dsa_early *early, struct dsa_error *err)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	struct coming **end = &me->coming;
	forget_coming(me);
	me->early = early ? *early : (struct dsa_early){0};
	for (int i = 0; i < count; i++) {
		enum dsa_status status = copy_coming(me, end, &coming[i], err);
		if (status)
			return status;
		if (*end)
			end = &(*end)->next;
	}
	return DSA_OK;
}

static void came_true(struct model_evaluator *me, const struct dsa_ask *ask)
{
	for (struct coming **at = &me->coming; *at;) {
		struct coming *coming = *at;
		if (coming->question.batch != ask->batch || coming->question.seed != ask->seed) {
			at = &coming->next;
			continue;
		}
		*at = coming->next;
		free_coming(coming);
	}
}

enum dsa_status model_early_take(struct model_evaluator *me, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                 struct question *question, struct dsa_arena *arena, struct dsa_error *err)
{
	const char **patterns = dsa_arena_alloc(arena, (size_t)ask->count, sizeof *patterns, "a question", err);
	int *index = dsa_arena_alloc(arena, (size_t)ask->count, sizeof *index, "a question", err);
	if (!patterns || !index)
		return DSA_E_MEMORY;
	*question = (struct question){.base = ask->base,
	                              .patterns = patterns,
	                              .batch = ask->batch,
	                              .seed = ask->seed,
	                              .index = index,
	                              .sink = sink};
	came_true(me, ask);
	for (int i = 0; i < ask->count; i++) {
		struct answer **at = find_held(me, ask->batch, ask->seed, ask->patterns[i]), *answer = *at;
		if (!answer) {
			patterns[question->count] = ask->patterns[i];
			index[question->count++] = i;
			continue;
		}
		*at = answer->next;
		enum dsa_status status =
		    sink->pattern(sink->context, i, answer->stats, answer->count, answer->executed, err);
		free_answer(answer);
		if (status)
			return status;
	}
	return DSA_OK;
}

/* Patterns of it that take a stream. */
static int count_runners(const struct model_evaluator *me, const struct question *question)
{
	int count = 0;
	for (int i = 0; i < question->count; i++)
		count += !model_question_is_reference(me, question, i);
	return count;
}

/* May it be run together with `first`? Its reference too, if that has not been run: not where overlap is about to. */
static bool goes_with(const struct model_evaluator *me, const struct coming *coming, const struct question *first)
{
	const struct kept *kept = &me->kept[coming->question.batch];
	return kept->allowed && (kept->ready || !coming->overlap) && coming->question.seed == first->seed &&
	       !strcmp(coming->question.base, first->base);
}

int model_early_company(struct model_evaluator *me, struct question *questions)
{
	const int runners = count_runners(me, &questions[0]), last = runners % me->wave;
	int count = 1, room = runners && !last ? 0 : me->wave - last;
	if (me->naive || !dsa_model_brings_layers(me->model) || !me->kept[questions[0].batch].allowed)
		return count;
	for (struct coming **at = &me->coming; *at && count < me->wave;) {
		struct coming *coming = *at;
		const int more = count_runners(me, &coming->question);
		if (!goes_with(me, coming, &questions[0])) {
			at = &coming->next;
			continue;
		}
		if (more > room)
			break;
		room -= more;
		*at = coming->next;
		questions[count] = coming->question;
		questions[count++].owner = coming;
	}
	return count;
}

void model_early_release(struct question *question)
{
	if (question->owner)
		free_coming(question->owner);
	question->owner = NULL;
}

static enum dsa_status hold(struct model_evaluator *me, const struct question *question, int index,
                            const struct dsa_doc_stats *stats, int count, int64_t executed, struct dsa_error *err)
{
	struct answer *answer = dsa_alloc(1, sizeof *answer, "an answer", err);
	if (!answer)
		return DSA_E_MEMORY;
	dsa_arena_init(&answer->arena);
	answer->batch = question->batch;
	answer->seed = question->seed;
	answer->count = count;
	answer->executed = executed;
	answer->pattern = dsa_arena_text(&answer->arena, question->patterns[index], (size_t)me->shape.layers, err);
	answer->stats = dsa_arena_alloc(&answer->arena, (size_t)count, sizeof *stats, "an answer", err);
	bool whole = answer->pattern && answer->stats;
	for (int d = 0; d < count && whole; d++) {
		const size_t bins = (size_t)stats[d].bin_count;
		answer->stats[d] = stats[d];
		answer->stats[d].bins = dsa_arena_alloc(&answer->arena, bins, sizeof *stats[d].bins, "an answer", err);
		whole = answer->stats[d].bins != NULL;
		if (whole && bins)
			memcpy(answer->stats[d].bins, stats[d].bins, bins * sizeof *stats[d].bins);
	}
	if (!whole) {
		free_answer(answer);
		return DSA_E_MEMORY;
	}
	answer->next = me->held;
	me->held = answer;
	return DSA_OK;
}

enum dsa_status model_early_give(struct model_evaluator *me, const struct question *question, int index,
                                 const struct dsa_doc_stats *stats, int count, int64_t executed, struct dsa_error *err)
{
	if (!me->early.pattern)
		return hold(me, question, index, stats, count, executed, err);
	return me->early.pattern(me->early.context, question->batch, question->seed, question->patterns[index], stats,
	                         count, executed, err);
}
