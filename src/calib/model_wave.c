/* Patterns that advance together, layer by layer, each in a stream of the forward pass. */
#include <assert.h>

#include "dsa/pattern.h"
#include "model_evaluator_private.h"

/* A pattern on its way through the layers; it has the stream of its own number. */
struct runner {
	const char *pattern;
	int from;   /* the first layer it runs itself */
	int source; /* the runner before it whose state in front of that layer it takes over, or -1 */
};

/* Where to start: behind the longest prefix whose state is kept or on the way of a runner before this one. */
static enum dsa_status start(struct model_evaluator *me, struct runner *runners, int i, bool whole, uint64_t seed,
                             struct dsa_error *err)
{
	struct runner *runner = &runners[i];
	const void *image = NULL;
	int kept = 0;
	runner->from = 0;
	runner->source = -1;
	for (int j = 0; j < i && !seed; j++) {
		const int common = dsa_pattern_common(runners[j].pattern, runner->pattern);
		if (common > runner->from && common >= runners[j].from) {
			runner->from = common;
			runner->source = j;
		}
	}
	/* Only one that is not behind that is looked for: it may have to come from disk. */
	if (!whole)
		image = dsa_states_find(me->states, me->batch, runner->pattern, runner->from, &kept);
	if (image) {
		runner->from = kept;
		runner->source = -1;
	}
	if (runner->source >= 0)
		return DSA_OK;
	dsa_forward_use(me->forward, i);
	/* At once: what other runners keep may take the image's place. */
	return image ? dsa_forward_restore(me->forward, image, err) : dsa_forward_embed(me->forward, seed, err);
}

/* One layer of the stream in use, and its state behind it if that is worth keeping. */
static enum dsa_status run_layer(struct model_evaluator *me, const char *pattern, int layer, enum keep keep,
                                 struct dsa_error *err)
{
	enum dsa_status status = dsa_forward_layer(me->forward, layer, pattern[layer], me->naive, err);
	if (status || keep == KEEP_NOTHING)
		return status;
	void *image = dsa_states_keep(me->states, me->batch, pattern, layer + 1, keep == KEEP_WINNER);
	if (!image)
		return DSA_OK;
	status = dsa_forward_save(me->forward, image, err);
	if (status)
		dsa_states_forget(me->states);
	else
		dsa_states_kept(me->states);
	return status;
}

/* All of them up to behind the last layer. */
static enum dsa_status sweep(struct model_evaluator *me, const struct runner *runners, int count, enum keep keep,
                             struct dsa_error *err)
{
	const int layers = me->shape.layers;
	enum dsa_status status = DSA_OK;
	for (int l = 0; l <= layers; l++) {
		if (l < layers && model_evaluator_stopped(me))
			return model_evaluator_interrupted(err);
		/* Before any of them runs the layer. A source that starts here itself has a lower number. */
		for (int i = 0; i < count && !status; i++) {
			if (runners[i].from != l || runners[i].source < 0)
				continue;
			dsa_forward_use(me->forward, i);
			status = dsa_forward_fork(me->forward, runners[i].source, err);
		}
		for (int i = 0; i < count && l < layers && !status; i++) {
			if (runners[i].from > l)
				continue;
			dsa_forward_use(me->forward, i);
			status = run_layer(me, runners[i].pattern, l, keep, err);
		}
		if (status)
			return status;
	}
	return DSA_OK;
}

enum dsa_status model_wave_run(struct model_evaluator *me, const char *const *patterns, int count, uint64_t seed,
                               enum keep keep, int64_t *executed, struct dsa_error *err)
{
	const struct kept *kept = &me->kept[me->batch];
	const bool whole = seed || !kept->ready;
	struct runner runners[DSA_TOGETHER];
	int64_t rows;
	assert(count > 0 && count <= me->wave);
	enum dsa_status status = dsa_forward_begin(me->forward, me->documents, me->shape.batch[me->batch].count, whole,
	                                           whole ? NULL : kept->prefix, &rows, err);
	for (int i = 0; i < count && !status; i++) {
		runners[i].pattern = patterns[i];
		status = start(me, runners, i, whole, seed, err);
		executed[i] = rows * (me->shape.layers - runners[i].from);
	}
	return status ? status : sweep(me, runners, count, whole ? KEEP_NOTHING : keep, err);
}

enum dsa_status model_wave_reference(struct model_evaluator *me, struct dsa_prefix *prefix, int64_t *executed,
                                     struct dsa_error *err)
{
	const struct runner runner = {.pattern = me->shape.reference, .from = 0, .source = -1};
	enum dsa_status status = model_evaluator_begin_whole(me, prefix, err);
	if (!status)
		status = sweep(me, &runner, 1, me->naive ? KEEP_NOTHING : KEEP_STATES, err);
	*executed = me->shape.batch[me->batch].tokens * me->shape.layers;
	return status;
}
