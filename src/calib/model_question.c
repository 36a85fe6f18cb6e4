/* Answers a question: the reference of its batch where that is lacking, waves of its patterns, comparisons. Questions
 * that are about to be asked go with its last wave. */
#include <assert.h>
#include <string.h>

#include "model_evaluator_private.h"

/* The first stream of part p of the wave that has run. */
static enum dsa_status turn_to(struct model_evaluator *me, const struct wave_part *part, int p, struct dsa_error *err)
{
	enum dsa_status status = dsa_forward_turn(me->forward, p, err);
	if (!status)
		status = model_evaluator_take_batch(me, part->batch, err);
	if (!status)
		dsa_forward_use(me->forward, part->first);
	return status;
}

/* Runs the reference of those questions' batches that nothing is kept of, in one wave. Where the first one's batch
 * cannot keep it, it is in base_hidden, and the others are put off until they are asked; so is any other that cannot.
 */
static enum dsa_status need_references(struct model_evaluator *me, struct question *questions, int *count,
                                       struct dsa_error *err)
{
	struct wave_part parts[DSA_TOGETHER];
	int of[DSA_TOGETHER], lacking = 0, left = 0;
	enum dsa_status status = DSA_OK;
	for (int q = 0; q < *count && !status; q++) {
		struct kept *kept = &me->kept[questions[q].batch];
		if (!kept->ready) {
			status = model_evaluator_take_batch(me, questions[q].batch, err);
			if (!status)
				model_evaluator_allow(me, kept);
		}
		const bool off = q && !(kept->allowed && me->kept[questions[0].batch].allowed);
		if (off && !status) {
			model_early_release(&questions[q]);
			continue;
		}
		if (!kept->ready) {
			of[lacking] = left;
			parts[lacking++] = (struct wave_part){.batch = questions[q].batch,
			                                      .patterns = &me->shape.reference,
			                                      .count = 1,
			                                      .whole = true,
			                                      .prefix = kept->prefix,
			                                      .keep = me->naive ? KEEP_NOTHING : KEEP_STATES};
		}
		if (left < q) {
			questions[left] = questions[q];
			questions[q].owner = NULL;
		}
		left++;
	}
	*count = status ? *count : left;
	if (!status && lacking)
		status = model_wave_run(me, parts, lacking, err);
	for (int p = 0; p < lacking && !status; p++) {
		status = turn_to(me, &parts[p], p, err);
		if (!status)
			status = model_evaluator_keep_reference(me, &me->kept[parts[p].batch], err);
		questions[of[p]].spent = parts[p].executed[0];
	}
	return status;
}

/* After this the reference's hidden states of the batch in hand are in base_hidden. */
static enum dsa_status need_hidden(struct model_evaluator *me, struct dsa_error *err)
{
	if (me->hidden_of == me->batch)
		return DSA_OK;
	const struct kept *kept = &me->kept[me->batch];
	assert(kept->ready);
	me->hidden_of = -1;
	enum dsa_status status =
	    me->be->ops->upload(me->be, me->base_hidden, kept->hidden, model_hidden_bytes(me, me->scored), err);
	if (!status)
		me->hidden_of = me->batch;
	return status;
}

/* Turns the figures of one pattern's scored rows into statistics per document, and hands them on. */
static enum dsa_status report(struct model_evaluator *me, const struct question *question, int index,
                              const struct dsa_row_figures *figures, int64_t executed, struct dsa_error *err)
{
	const struct dsa_evaluator_batch *batch = &me->shape.batch[me->batch];
	struct dsa_arena scratch;
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&scratch);
	struct dsa_doc_stats *stats = dsa_arena_alloc(&scratch, (size_t)batch->count, sizeof *stats, "statistics", err);
	if (!stats) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	int64_t first = 0;
	for (int d = 0; d < batch->count; d++) {
		for (int j = 0; j < me->scored_of[d]; j++)
			me->positions[j] = me->position[first + j];
		status = dsa_doc_stats_collect(&stats[d], batch->documents[d], me->shape.topk, figures + first,
		                               me->positions, me->scored_of[d], &scratch, err);
		if (status)
			goto cleanup;
		first += me->scored_of[d];
	}
	const struct dsa_sink *sink = question->sink;
	status = sink ? sink->pattern(sink->context, question->index[index], stats, batch->count, executed, err)
	              : model_early_give(me, question, index, stats, batch->count, executed, err);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}

/* Patterns of a question whose final hidden states wait for their comparison with the reference's. */
struct waiting {
	const struct question *question;
	int count;
	int index[DSA_TOGETHER]; /* in the question */
	struct dsa_tensor hidden[DSA_TOGETHER];
	int64_t executed[DSA_TOGETHER];
};

/* Compares those that wait in one pass over the head, and hands their figures on. */
static enum dsa_status compare(struct model_evaluator *me, struct waiting *w, struct dsa_error *err)
{
	if (!w->count)
		return DSA_OK;
	enum dsa_status status =
	    me->be->ops->compare(me->be, me->figures, model_hidden_tensor(me, me->base_hidden, me->scored), w->hidden,
	                         w->count, me->model->head, me->target, err);
	for (int i = 0; i < w->count && !status; i++) {
		const struct dsa_row_figures *figures = me->figures + i * me->scored;
		if (!w->question->seed)
			model_flips_note(me, w->question->patterns[w->index[i]], figures);
		status = report(me, w->question, w->index[i], figures, w->executed[i], err);
	}
	w->count = 0;
	model_flips_expect(me);
	return status;
}

/* Pattern `index` of the question waits, the others first where there is no more room. stream: that holds it behind the
 * last layer, or -1: it is the reference. */
static enum dsa_status let_wait(struct model_evaluator *me, struct waiting *w, int index, int stream, int64_t executed,
                                struct dsa_error *err)
{
	enum dsa_status status = w->count < me->together ? DSA_OK : compare(me, w, err);
	if (status)
		return status;
	char *const room = (char *)me->candidate_hidden + (size_t)w->count * model_hidden_bytes(me, me->most_scored);
	void *const hidden = stream < 0 ? me->base_hidden : (void *)room;
	if (stream >= 0) {
		dsa_forward_use(me->forward, stream);
		status = model_evaluator_final_hidden(me, hidden, err);
	}
	w->index[w->count] = index;
	w->hidden[w->count] = model_hidden_tensor(me, hidden, me->scored);
	w->executed[w->count++] = executed;
	return status;
}

bool model_question_is_reference(const struct model_evaluator *me, const struct question *question, int index)
{
	return !question->seed && !me->naive && !strcmp(question->patterns[index], me->shape.reference);
}

/* What of a question goes through the layers in one wave. */
struct wave_question {
	struct question *question;
	struct waiting waiting; /* from one wave to the next */
	struct wave_part part;
	const char *patterns[DSA_TOGETHER];
	int place; /* of the part in the wave; -1: none of its patterns has to be run */
	int end;   /* of the question's patterns, behind those of the wave */
};

/* Takes patterns of the question from its next one on, at most `room` that have to be run. */
static void fill_wave(struct model_evaluator *me, struct wave_question *w, struct question *question, int room)
{
	const struct kept *kept = &me->kept[question->batch];
	const bool whole = question->seed || !kept->ready;
	/* A flip asked alone is what the step commits: the last in the race, or a winner on held-out documents. */
	const enum keep keep =
	    question->count == 1 && model_flips_layer(me, question->patterns[0]) > 0 ? KEEP_WINNER : KEEP_STATES;
	w->question = question;
	w->waiting.question = question;
	w->part = (struct wave_part){.batch = question->batch,
	                             .patterns = w->patterns,
	                             .whole = whole,
	                             .seed = question->seed,
	                             .prefix = whole ? NULL : kept->prefix,
	                             .keep = whole ? KEEP_NOTHING : keep};
	for (w->end = question->next; w->end < question->count; w->end++) {
		if (model_question_is_reference(me, question, w->end))
			continue;
		if (w->part.count == room)
			break;
		w->patterns[w->part.count++] = question->patterns[w->end];
	}
}

/* What the wave brought of one question waits for its comparison, which the last of its patterns brings. */
static enum dsa_status answer(struct model_evaluator *me, struct wave_question *w, struct dsa_error *err)
{
	struct question *question = w->question;
	int run = 0;
	enum dsa_status status =
	    w->place < 0 ? model_evaluator_take_batch(me, question->batch, err) : turn_to(me, &w->part, w->place, err);
	if (!status)
		status = need_hidden(me, err);
	for (; question->next < w->end && !status; question->next++) {
		const bool ran = !model_question_is_reference(me, question, question->next);
		const int stream = ran ? w->part.first + run : -1;
		const int64_t executed = ran ? w->part.executed[run] : 0;
		status = let_wait(me, &w->waiting, question->next, stream, executed + question->spent, err);
		question->spent = 0;
		run += ran;
	}
	return status || question->next < question->count ? status : compare(me, &w->waiting, err);
}

/* One wave: patterns of the first question, and if those are its last ones, all of the others. */
static enum dsa_status run_wave(struct model_evaluator *me, struct question *questions, int count,
                                struct wave_question *waves, struct dsa_error *err)
{
	struct wave_part parts[DSA_TOGETHER];
	int room = me->wave, part_count = 0, taken = 0;
	enum dsa_status status = DSA_OK;
	for (int q = 0; q < count && (!q || waves[0].end == questions[0].count); q++) {
		struct wave_question *w = &waves[taken++];
		fill_wave(me, w, &questions[q], room);
		room -= w->part.count;
		w->place = w->part.count ? part_count : -1;
		if (w->part.count)
			parts[part_count++] = w->part;
	}
	if (part_count)
		status = model_wave_run(me, parts, part_count, err);
	for (int q = 0; q < taken && !status; q++) {
		if (waves[q].place >= 0)
			waves[q].part = parts[waves[q].place];
		status = answer(me, &waves[q], err);
	}
	return status;
}

enum dsa_status model_question_evaluate(struct dsa_evaluator *self, const struct dsa_ask *ask,
                                        const struct dsa_sink *sink, struct dsa_error *err)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	struct question questions[DSA_TOGETHER];
	struct wave_question *waves;
	struct dsa_arena scratch;
	int count = 0;
	dsa_arena_init(&scratch);
	enum dsa_status status = model_early_take(me, ask, sink, &questions[0], &scratch, err);
	if (status || !questions[0].count)
		goto cleanup;
	waves = dsa_arena_alloc(&scratch, DSA_TOGETHER, sizeof *waves, "a wave", err);
	status = waves ? model_flips_rebase(me, ask->base, err) : DSA_E_MEMORY;
	if (!status && model_evaluator_stopped(me))
		status = model_evaluator_interrupted(err);
	if (status)
		goto cleanup;
	count = model_early_company(me, questions);
	status = need_references(me, questions, &count, err);
	while (questions[0].next < questions[0].count && !status)
		status = run_wave(me, questions, count, waves, err);
cleanup:
	for (int q = 1; q < count; q++)
		model_early_release(&questions[q]);
	dsa_arena_release(&scratch);
	return status;
}
