/* Patterns that advance together, layer by layer, each in a stream of the forward pass: of one batch, or of several,
 * each a pass of its own, so that a layer is visited once for all of them. */
#include <assert.h>

#include "dsa/pattern.h"
#include "model_evaluator_private.h"

/* A pattern on its way through the layers; it has the stream of its own number. */
struct runner {
	const char *pattern;
	int from;   /* the first layer it runs itself */
	int source; /* the runner before it whose state in front of that layer it takes over, or -1 */
};

/* Where runner i of the part starts: behind the longest prefix whose state is kept or on the way of a runner of the
 * part before this one. */
static enum dsa_status start(struct model_evaluator *me, const struct wave_part *part, struct runner *runners, int i,
                             struct dsa_error *err)
{
	struct runner *runner = &runners[i];
	const void *image = NULL;
	int kept = 0;
	runner->from = 0;
	runner->source = -1;
	for (int j = part->first; j < i && !part->seed; j++) {
		const int common = dsa_pattern_common(runners[j].pattern, runner->pattern);
		if (common > runner->from && common >= runners[j].from) {
			runner->from = common;
			runner->source = j;
		}
	}
	/* Only one that is not behind that is looked for: it may have to come from disk. */
	if (!part->whole)
		image = dsa_states_find(me->states, part->batch, runner->pattern, runner->from, &kept);
	if (image) {
		runner->from = kept;
		runner->source = -1;
	}
	if (runner->source >= 0)
		return DSA_OK;
	dsa_forward_use(me->forward, i);
	/* At once: what other runners keep may take the image's place. */
	return image ? dsa_forward_restore(me->forward, image, err) : dsa_forward_embed(me->forward, part->seed, err);
}

/* Begins the pass at hand for the part's batch. */
static enum dsa_status begin(struct model_evaluator *me, struct wave_part *part, struct runner *runners,
                             struct dsa_error *err)
{
	int64_t rows;
	enum dsa_status status = model_evaluator_take_batch(me, part->batch, err);
	if (!status)
		status = dsa_forward_begin(me->forward, me->documents, me->shape.batch[part->batch].count, part->whole,
		                           part->prefix, &rows, err);
	for (int i = 0; i < part->count && !status; i++) {
		runners[part->first + i].pattern = part->patterns[i];
		status = start(me, part, runners, part->first + i, err);
		part->executed[i] = rows * (me->shape.layers - runners[part->first + i].from);
	}
	return status;
}

/* One layer of the stream in use, and its state behind it if that is worth keeping. */
static enum dsa_status run_layer(struct model_evaluator *me, const struct wave_part *part, const char *pattern,
                                 int layer, struct dsa_error *err)
{
	enum dsa_status status = dsa_forward_layer(me->forward, layer, pattern[layer], me->naive, err);
	if (status || part->keep == KEEP_NOTHING)
		return status;
	void *image = dsa_states_keep(me->states, part->batch, pattern, layer + 1, part->keep == KEEP_WINNER);
	if (!image)
		return DSA_OK;
	status = dsa_forward_save(me->forward, image, err);
	if (status)
		dsa_states_forget(me->states);
	else
		dsa_states_kept(me->states);
	return status;
}

static bool has_started(const struct wave_part *part, const struct runner *runners, int layer)
{
	for (int i = part->first; i < part->first + part->count; i++)
		if (runners[i].from <= layer)
			return true;
	return false;
}

/* One layer of the part in the pass at hand; behind the last, only who parts there. */
static enum dsa_status run_part(struct model_evaluator *me, const struct wave_part *part, const struct runner *runners,
                                int layer, struct dsa_error *err)
{
	const int end = part->first + part->count;
	enum dsa_status status = DSA_OK;
	/* Before any of them runs the layer. A source that starts here itself has a lower number. */
	for (int i = part->first; i < end && !status; i++) {
		if (runners[i].from != layer || runners[i].source < 0)
			continue;
		dsa_forward_use(me->forward, i);
		status = dsa_forward_fork(me->forward, runners[i].source, err);
	}
	for (int i = part->first; i < end && layer < me->shape.layers && !status; i++) {
		if (runners[i].from > layer)
			continue;
		dsa_forward_use(me->forward, i);
		status = run_layer(me, part, runners[i].pattern, layer, err);
	}
	return status;
}

enum dsa_status model_wave_run(struct model_evaluator *me, struct wave_part *parts, int count, struct dsa_error *err)
{
	const int layers = me->shape.layers;
	struct runner runners[DSA_TOGETHER];
	enum dsa_status status = DSA_OK;
	int streams = 0;
	for (int p = 0; p < count && !status; p++) {
		parts[p].first = streams;
		streams += parts[p].count;
		assert(parts[p].count > 0 && streams <= me->wave);
		status = dsa_forward_turn(me->forward, p, err);
		if (!status)
			status = begin(me, &parts[p], runners, err);
	}
	for (int l = 0; l <= layers && !status; l++) {
		if (l < layers && model_evaluator_stopped(me))
			return model_evaluator_interrupted(err);
		for (int p = 0; p < count && !status; p++) {
			if (!has_started(&parts[p], runners, l))
				continue;
			status = dsa_forward_turn(me->forward, p, err);
			if (!status)
				status = run_part(me, &parts[p], runners, l, err);
		}
	}
	return status;
}
