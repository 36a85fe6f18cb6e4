#include "model_evaluator_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/plan.h"

static const double mib = 1048576.0;

enum dsa_status model_evaluator_take_batch(struct model_evaluator *me, int batch, struct dsa_error *err)
{
	if (me->batch == batch)
		return DSA_OK;
	me->batch = -1;
	const struct dsa_evaluator_batch *what = &me->shape.batch[batch];
	int64_t count = 0;
	for (int i = 0; i < what->count; i++) {
		const struct dsa_spool_document *document = dsa_spool_document(me->spool, what->documents[i]);
		me->documents[i] = (struct dsa_pass_document){.ids = document->ids, .tokens = document->tokens};
		me->scored_of[i] = 0;
		for (int t = 0; t < document->tokens; t++) {
			if (!dsa_spool_is_scored(document, me->shape.topk, t))
				continue;
			me->position[count] = t;
			me->target_host[count] = document->ids[t + 1];
			me->scored_of[i]++;
			count++;
		}
	}
	me->scored = count;
	enum dsa_status status =
	    me->be->ops->upload(me->be, me->target, me->target_host, (size_t)count * sizeof(int32_t), err);
	if (!status)
		me->batch = batch;
	return status;
}

void model_evaluator_find_rows(struct model_evaluator *me)
{
	int64_t i = 0;
	for (int d = 0; d < me->shape.batch[me->batch].count; d++)
		for (int j = 0; j < me->scored_of[d]; j++, i++)
			me->row[i] = (int32_t)dsa_forward_row(me->forward, d, me->position[i]);
}

enum dsa_status model_evaluator_final_hidden(struct model_evaluator *me, void *out, struct dsa_error *err)
{
	model_evaluator_find_rows(me);
	return dsa_forward_hidden(me->forward, me->row, me->scored, model_hidden_tensor(me, out, me->scored), err);
}

enum dsa_status model_evaluator_begin_whole(struct model_evaluator *me, struct dsa_prefix *prefix,
                                            struct dsa_error *err)
{
	int64_t rows;
	enum dsa_status status =
	    dsa_forward_begin(me->forward, me->documents, me->shape.batch[me->batch].count, true, prefix, &rows, err);
	return status ? status : dsa_forward_embed(me->forward, 0, err);
}

enum dsa_status model_evaluator_keep_reference(struct model_evaluator *me, struct kept *kept, struct dsa_error *err)
{
	me->hidden_of = -1;
	enum dsa_status status = model_evaluator_final_hidden(me, me->base_hidden, err);
	if (status)
		return status;
	me->hidden_of = me->batch;
	if (!kept->allowed)
		return DSA_OK;
	status = me->be->ops->download(me->be, kept->hidden, me->base_hidden, model_hidden_bytes(me, me->scored), err);
	if (!status)
		kept->ready = true;
	return status;
}

void model_evaluator_allow(struct model_evaluator *me, struct kept *kept)
{
	if (!kept->allowed || kept->hidden)
		return;
	int count = me->shape.batch[me->batch].count;
	assert(me->scored > 0); /* documents without a scored token are in no batch */
	kept->hidden = me->be->ops->stash_alloc(me->be, model_hidden_bytes(me, me->scored));
	if (kept->hidden && !dsa_prefix_open(&kept->prefix, me->model, me->documents, count, NULL))
		return;
	if (kept->hidden)
		me->be->ops->stash_free(me->be, kept->hidden);
	kept->hidden = NULL;
	kept->allowed = false;
	dsa_log_line(me->log, DSA_LOG_WARN, "no memory to keep batch %d; its reference is run again for every question",
	             me->batch);
}

bool model_evaluator_stopped(const struct model_evaluator *me)
{
	return me->stop && *me->stop;
}

enum dsa_status model_evaluator_interrupted(struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_INTERRUPTED, "interrupted by a signal");
}

static void say_usage(const struct model_evaluator *me)
{
	const struct dsa_states_usage usage = dsa_states_usage(me->states);
	dsa_log_line(
	    me->log, DSA_LOG_DEBUG,
	    "states: at most %.1f MiB in memory and %.1f MiB on disk, %.1f MiB written to it, %.1f MiB of %llu "
	    "states read back",
	    (double)usage.most_memory / mib, (double)usage.most_disk / mib, (double)usage.written / mib,
	    (double)usage.read / mib, (unsigned long long)usage.reads);
}

static void close_evaluator(struct dsa_evaluator *self)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	if (!me)
		return;
	if (me->states)
		say_usage(me);
	model_early_close(me);
	for (int b = 0; me->kept && b < me->shape.batches; b++) {
		dsa_prefix_close(me->kept[b].prefix);
		if (me->kept[b].hidden)
			me->be->ops->stash_free(me->be, me->kept[b].hidden);
	}
	dsa_states_close(me->states);
	dsa_forward_close(me->forward);
	if (me->base_hidden)
		me->be->ops->free(me->be, me->base_hidden);
	if (me->candidate_hidden)
		me->be->ops->free(me->be, me->candidate_hidden);
	if (me->target)
		me->be->ops->free(me->be, me->target);
	dsa_arena_release(&me->arena);
	free(me);
}

struct largest {
	int64_t tokens, scored;
	int count;
};

static struct largest largest_batch(const struct dsa_evaluator_shape *shape)
{
	struct largest most = {1, 1, 1};
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		most.tokens = batch->tokens > most.tokens ? batch->tokens : most.tokens;
		most.scored = batch->scored > most.scored ? batch->scored : most.scored;
		most.count = batch->count > most.count ? batch->count : most.count;
	}
	return most;
}

static enum dsa_status plan_memory(struct model_evaluator *me, const struct dsa_model_evaluator_options *options,
                                   struct dsa_error *err)
{
	const struct dsa_states_disk disk = {.directory = options->spill_directory,
	                                     .limit = options->spill,
	                                     .zstd = options->spill_zstd,
	                                     .log = options->log};
	const bool spills = disk.directory && disk.limit;
	const struct dsa_model_config *config = &me->model->config;
	struct dsa_plan_memory plan = {0};
	size_t batches = (size_t)me->shape.batches, documents = (size_t)me->shape.documents;
	size_t *image = dsa_arena_alloc(&me->arena, batches, sizeof *image, "a plan", err);
	bool *allowed = dsa_arena_alloc(&me->arena, batches, sizeof *allowed, "a plan", err);
	bool *heldout = dsa_arena_alloc(&me->arena, batches, sizeof *heldout, "a plan", err);
	int *tokens = dsa_arena_alloc(&me->arena, documents, sizeof *tokens, "a plan", err);
	if (!image || !allowed || !heldout || !tokens)
		return DSA_E_MEMORY;
	for (int d = 0; d < me->shape.documents; d++)
		tokens[d] = dsa_spool_document(me->spool, d)->tokens;
	if (!me->naive)
		dsa_plan_memory(&plan, &me->shape, options->mine, tokens, config, me->be->act, options->host_memory,
		                spills ? &disk : NULL, me->documents, allowed, image);
	for (int b = 0; b < me->shape.batches; b++) {
		me->kept[b].allowed = allowed[b];
		heldout[b] = me->shape.batch[b].split == DSA_HELDOUT;
	}
	enum dsa_status status = dsa_states_open(&me->states, me->be, me->shape.layers, me->shape.batches, image,
	                                         heldout, plan.pool, spills ? &disk : NULL, err);
	if (status)
		return status;
	if (options->fixed)
		dsa_states_fix(me->states, options->fixed);
	dsa_log_line(
	    me->log, DSA_LOG_DEBUG,
	    "state pool: %.0f MiB for prefixes and reference, %.0f MiB and %.0f MiB of disk for states of %.1f "
	    "MiB per layer",
	    (double)plan.kept / mib, (double)plan.pool / mib, spills ? (double)disk.limit / mib : 0.0,
	    (double)plan.state / mib);
	return DSA_OK;
}

static enum dsa_status take_memory(struct model_evaluator *me, int wave, int patterns, struct dsa_error *err)
{
	struct largest most = largest_batch(&me->shape);
	size_t documents = (size_t)most.count, scored = (size_t)most.scored;
	me->most_scored = most.scored;
	size_t each = model_hidden_bytes(me, most.scored);
	me->together = me->naive ? 1 : dsa_plan_together(each, patterns);
	me->wave = me->naive ? 1 : wave > 0 && wave < DSA_TOGETHER ? wave : DSA_TOGETHER;
	me->documents = dsa_arena_alloc(&me->arena, documents, sizeof *me->documents, "documents", err);
	me->scored_of = dsa_arena_alloc(&me->arena, documents, sizeof *me->scored_of, "documents", err);
	me->position = dsa_arena_alloc(&me->arena, scored, sizeof *me->position, "scored positions", err);
	me->row = dsa_arena_alloc(&me->arena, scored, sizeof *me->row, "scored positions", err);
	me->target_host = dsa_arena_alloc(&me->arena, scored, sizeof *me->target_host, "targets", err);
	me->positions = dsa_arena_alloc(&me->arena, scored, sizeof *me->positions, "scored positions", err);
	me->figures = dsa_arena_alloc(&me->arena, scored * (size_t)me->together, sizeof *me->figures, "figures", err);
	me->kept = dsa_arena_alloc(&me->arena, (size_t)me->shape.batches, sizeof *me->kept, "batches", err);
	me->base = dsa_arena_alloc(&me->arena, (size_t)me->shape.layers + 1, 1, "the base", err);
	me->flip_cost = dsa_arena_alloc(&me->arena, (size_t)me->shape.layers, sizeof *me->flip_cost, "costs", err);
	me->likely = dsa_arena_alloc(&me->arena, (size_t)me->shape.layers, sizeof *me->likely, "costs", err);
	if (!me->base || !me->flip_cost || !me->likely)
		return DSA_E_MEMORY;
	if (!me->documents || !me->scored_of || !me->position || !me->row || !me->target_host || !me->positions ||
	    !me->figures || !me->kept)
		return DSA_E_MEMORY;
	const struct dsa_ops *ops = me->be->ops;
	enum dsa_status status = ops->alloc(me->be, each, "the reference's hidden states", &me->base_hidden, err);
	if (!status)
		status = ops->alloc(me->be, each * (size_t)me->together, "candidates' hidden states",
		                    &me->candidate_hidden, err);
	if (!status)
		status = ops->alloc(me->be, scored * sizeof(int32_t), "targets", &me->target, err);
	if (!status)
		status = dsa_forward_open(&me->forward, me->model, most.tokens, most.tokens, most.count, me->wave, err);
	return status;
}

enum dsa_status dsa_model_evaluator_open(struct dsa_evaluator **out, struct dsa_model *model,
                                         const struct dsa_spool *spool, const char *reference,
                                         const struct dsa_model_evaluator_options *options, struct dsa_error *err)
{
	*out = NULL;
	struct model_evaluator *me = dsa_alloc(1, sizeof *me, "the evaluator", err);
	if (!me)
		return DSA_E_MEMORY;
	dsa_arena_init(&me->arena);
	me->model = model;
	me->be = model->backend;
	me->spool = spool;
	me->naive = options->naive;
	me->overlap_memory = options->overlap_memory ? options->overlap_memory : DSA_OVERLAP_BYTES;
	me->stop = options->stop;
	me->log = options->log;
	me->batch = me->hidden_of = -1;
	enum dsa_status status = dsa_evaluator_shape_of(&me->shape, spool, model->config.layers, model->config.topk,
	                                                reference, &me->arena, err);
	if (!status)
		status = take_memory(me, options->wave, options->patterns, err);
	if (!status)
		status = plan_memory(me, options, err);
	if (status) {
		close_evaluator(&me->evaluator);
		return status;
	}
	me->evaluator = (struct dsa_evaluator){.shape = &me->shape,
	                                       .evaluate = model_question_evaluate,
	                                       .overlap = model_evaluator_overlap,
	                                       .announce = model_early_announce,
	                                       .close = close_evaluator};
	*out = &me->evaluator;
	return DSA_OK;
}
