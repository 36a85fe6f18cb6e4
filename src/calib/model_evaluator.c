#include "dsa/model_evaluator.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/forward.h"
#include "dsa/plan.h"
#include "dsa/states.h"

/* What is kept of one batch beside its states: both are needed by every pattern asked on it. */
struct kept {
	struct dsa_prefix *prefix; /* keys of positions below K; NULL: none kept */
	void *hidden;              /* (M, D) act, the reference behind the final norm, on the host */
	bool ready;                /* both are filled */
	bool allowed;              /* the memory limit has room for them */
};

struct model_evaluator {
	struct dsa_evaluator evaluator;
	struct dsa_evaluator_shape shape;
	struct dsa_arena arena;
	struct dsa_model *model;
	struct dsa_backend *be;
	const struct dsa_spool *spool;
	struct dsa_forward *forward;
	struct dsa_states *states;
	struct kept *kept; /* (batches) */
	bool naive;
	const volatile sig_atomic_t *stop;
	const struct dsa_log *log;
	/* Of the batch in hand: */
	int batch;
	struct dsa_pass_document *documents; /* (largest count) */
	int32_t *position;                   /* (largest scored) positions of its scored rows, document by document */
	int32_t *row;                        /* (largest scored) their row numbers in the current pass */
	int *scored_of;                      /* (largest count) scored rows of each document */
	int32_t *target_host;                /* (largest scored) */
	int64_t scored;
	/* Σ KL of each layer's flip of the base in hand, < 0 unknown: foretells what is flipped next. */
	char *base;        /* (layers + 1) */
	double *flip_cost; /* (layers) */
	int *likely;       /* (layers) */
	/* On the device, for the largest batch: */
	int64_t most_scored;
	int together;
	void *base_hidden, *candidate_hidden, *target;
	struct dsa_row_figures *figures; /* (together, most_scored) */
	int *positions;                  /* (most_scored) of one document, for the metrics */
};

static size_t hidden_bytes(const struct model_evaluator *me, int64_t rows)
{
	return (size_t)rows * (size_t)me->model->config.hidden * dsa_dtype_bytes(me->be->act);
}

static struct dsa_tensor hidden_tensor(const struct model_evaluator *me, void *data, int64_t rows)
{
	return dsa_tensor_make(data, me->be->act, rows, me->model->config.hidden);
}

/* Makes `batch` the one in hand: its documents, scored positions and targets. */
static enum dsa_status take_batch(struct model_evaluator *me, int batch, struct dsa_error *err)
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

static void find_rows(struct model_evaluator *me)
{
	int64_t i = 0;
	for (int d = 0; d < me->shape.batch[me->batch].count; d++)
		for (int j = 0; j < me->scored_of[d]; j++, i++)
			me->row[i] = (int32_t)dsa_forward_row(me->forward, d, me->position[i]);
}

/* Runs layers [from, L) of pattern on the pass begun, keeping the states that are worth it. */
static enum dsa_status run_layers(struct model_evaluator *me, const char *pattern, int from, bool keep,
                                  struct dsa_error *err)
{
	for (int l = from; l < me->shape.layers; l++) {
		enum dsa_status status = dsa_forward_layer(me->forward, l, pattern[l], me->naive, err);
		if (status)
			return status;
		void *image = keep ? dsa_states_keep(me->states, me->batch, pattern, l + 1) : NULL;
		if (!image)
			continue;
		status = dsa_forward_save(me->forward, image, err);
		if (status) {
			dsa_states_forget(me->states, me->batch, image);
			return status;
		}
	}
	return DSA_OK;
}

static enum dsa_status final_hidden(struct model_evaluator *me, void *out, struct dsa_error *err)
{
	find_rows(me);
	return dsa_forward_hidden(me->forward, me->row, me->scored, hidden_tensor(me, out, me->scored), err);
}

/* Begins a whole pass and embeds; seed ≠ 0 disturbs. Keys of positions below K go to prefix if it is not NULL. */
static enum dsa_status begin_whole(struct model_evaluator *me, struct dsa_prefix *prefix, uint64_t seed,
                                   struct dsa_error *err)
{
	int64_t rows;
	enum dsa_status status =
	    dsa_forward_begin(me->forward, me->documents, me->shape.batch[me->batch].count, true, prefix, &rows, err);
	return status ? status : dsa_forward_embed(me->forward, seed, err);
}

static int64_t whole_cost(const struct model_evaluator *me)
{
	return me->shape.batch[me->batch].tokens * me->shape.layers;
}

/* What a whole run of the reference leaves behind for every later pattern of the batch. */
static enum dsa_status keep_reference(struct model_evaluator *me, struct kept *kept, struct dsa_error *err)
{
	enum dsa_status status = final_hidden(me, me->base_hidden, err);
	if (status || !kept->allowed)
		return status;
	status = me->be->ops->download(me->be, kept->hidden, me->base_hidden, hidden_bytes(me, me->scored), err);
	if (!status)
		kept->ready = true;
	return status;
}

/* Prefix and hidden memory of a batch, taken when it is first run. Lack of memory only costs time. */
static void allow(struct model_evaluator *me, struct kept *kept)
{
	if (!kept->allowed || kept->hidden)
		return;
	int count = me->shape.batch[me->batch].count;
	assert(me->scored > 0); /* documents without a scored token are in no batch */
	kept->hidden = malloc(hidden_bytes(me, me->scored));
	if (kept->hidden && !dsa_prefix_open(&kept->prefix, me->model, me->documents, count, NULL))
		return;
	free(kept->hidden);
	kept->hidden = NULL;
	kept->allowed = false;
	dsa_log_line(me->log, DSA_LOG_WARN, "no memory to keep batch %d; its reference is run again for every question",
	             me->batch);
}

/* After this the reference's hidden states of the batch in hand are in base_hidden. */
static enum dsa_status need_reference(struct model_evaluator *me, int64_t *executed, struct dsa_error *err)
{
	struct kept *kept = &me->kept[me->batch];
	if (kept->ready)
		return me->be->ops->upload(me->be, me->base_hidden, kept->hidden, hidden_bytes(me, me->scored), err);
	allow(me, kept);
	enum dsa_status status = begin_whole(me, kept->prefix, 0, err);
	if (!status)
		status = run_layers(me, me->shape.reference, 0, !me->naive, err);
	if (!status)
		status = keep_reference(me, kept, err);
	*executed += whole_cost(me);
	return status;
}

/* Final hidden states of one pattern into out. */
static enum dsa_status run_pattern(struct model_evaluator *me, const char *pattern, uint64_t seed, void *out,
                                   int64_t *executed, struct dsa_error *err)
{
	const struct kept *kept = &me->kept[me->batch];
	const struct dsa_evaluator_batch *batch = &me->shape.batch[me->batch];
	enum dsa_status status;
	int from = 0;
	if (seed || !kept->ready) {
		status = begin_whole(me, NULL, seed, err);
		*executed += whole_cost(me);
		if (!status)
			status = run_layers(me, pattern, 0, false, err);
		return status ? status : final_hidden(me, out, err);
	}
	const void *image = dsa_states_find(me->states, me->batch, pattern, &from);
	int64_t rows;
	status = dsa_forward_begin(me->forward, me->documents, batch->count, false, kept->prefix, &rows, err);
	if (!status)
		status = image ? dsa_forward_restore(me->forward, image, err) : dsa_forward_embed(me->forward, 0, err);
	if (!status)
		status = run_layers(me, pattern, from, true, err);
	*executed += rows * (me->shape.layers - from);
	return status ? status : final_hidden(me, out, err);
}

/* Turns the figures of one pattern's scored rows into statistics per document, and hands them on. */
static enum dsa_status report(struct model_evaluator *me, int index, const struct dsa_row_figures *figures,
                              int64_t executed, const struct dsa_sink *sink, struct dsa_error *err)
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
	status = sink->pattern(sink->context, index, stats, batch->count, executed, err);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}

/* Remembers what the flip of one layer of the base costs. */
static void note_cost(struct model_evaluator *me, const char *pattern, const struct dsa_row_figures *figures)
{
	int flip = -1;
	for (int l = 0; l < me->shape.layers; l++) {
		if (pattern[l] == me->base[l])
			continue;
		if (flip >= 0)
			return;
		flip = l;
	}
	if (flip < 0)
		return;
	double sum = me->flip_cost[flip] < 0 ? 0 : me->flip_cost[flip];
	for (int64_t i = 0; i < me->scored; i++)
		sum += figures[i].kl;
	me->flip_cost[flip] = sum;
}

/* A new base: what its last candidates cost tells which are likely to be next. The order only decides what is kept. */
static enum dsa_status rebase(struct model_evaluator *me, const char *base, struct dsa_error *err)
{
	int count = 0;
	if (!strcmp(me->base, base))
		return DSA_OK;
	for (int l = 1; l < me->shape.layers; l++) {
		if (base[l] != 'F' || me->flip_cost[l] < 0)
			continue;
		int at = count++;
		for (; at > 0 && me->flip_cost[me->likely[at - 1]] > me->flip_cost[l]; at--)
			me->likely[at] = me->likely[at - 1];
		me->likely[at] = l;
	}
	enum dsa_status status = dsa_states_rebase(me->states, base, me->likely, count, err);
	if (status)
		return status;
	memcpy(me->base, base, (size_t)me->shape.layers + 1);
	for (int l = 0; l < me->shape.layers; l++)
		me->flip_cost[l] = -1;
	int on_base, of_candidates;
	dsa_states_plan(me->states, &on_base, &of_candidates);
	dsa_log_line(me->log, DSA_LOG_DEBUG, "base %s: states kept in front of %d layers of it, %d of its candidates",
	             base, on_base, of_candidates);
	return DSA_OK;
}

static bool asked_to_stop(const struct model_evaluator *me)
{
	return me->stop && *me->stop;
}

static enum dsa_status interrupted(struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_INTERRUPTED, "interrupted by a signal");
}

static void *candidate_slot(const struct model_evaluator *me, int slot)
{
	return (char *)me->candidate_hidden + (size_t)slot * hidden_bytes(me, me->most_scored);
}

/* Patterns [first, first + count) of ask: run each, then compare all with the reference in one pass over the head. */
static enum dsa_status evaluate_some(struct model_evaluator *me, const struct dsa_ask *ask, int first, int count,
                                     const struct dsa_sink *sink, struct dsa_error *err)
{
	struct dsa_tensor candidates[DSA_TOGETHER];
	int64_t executed[DSA_TOGETHER] = {0};
	enum dsa_status status = need_reference(me, &executed[0], err);
	for (int i = 0; i < count && !status; i++) {
		const char *pattern = ask->patterns[first + i];
		bool is_reference = !ask->seed && !me->naive && !strcmp(pattern, me->shape.reference);
		candidates[i] = hidden_tensor(me, is_reference ? me->base_hidden : candidate_slot(me, i), me->scored);
		if (asked_to_stop(me))
			return interrupted(err);
		if (!is_reference)
			status = run_pattern(me, pattern, ask->seed, candidates[i].data, &executed[i], err);
	}
	if (!status)
		status = me->be->ops->compare(me->be, me->figures, hidden_tensor(me, me->base_hidden, me->scored),
		                              candidates, count, me->model->head, me->target, err);
	for (int i = 0; i < count && !status; i++) {
		if (!ask->seed)
			note_cost(me, ask->patterns[first + i], me->figures + i * me->scored);
		status = report(me, first + i, me->figures + i * me->scored, executed[i], sink, err);
	}
	return status;
}

static enum dsa_status evaluate(struct dsa_evaluator *self, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                struct dsa_error *err)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	enum dsa_status status = take_batch(me, ask->batch, err);
	if (!status)
		status = rebase(me, ask->base, err);
	for (int first = 0; first < ask->count && !status; first += me->together) {
		int count = ask->count - first < me->together ? ask->count - first : me->together;
		status = asked_to_stop(me) ? interrupted(err) : evaluate_some(me, ask, first, count, sink, err);
	}
	return status;
}

/* Counts |S_i ∩ S_j| of one document, bucket by bucket: its scored rows of a bucket are neighbours. */
static enum dsa_status count_document(struct model_evaluator *me, struct dsa_doc_overlap *out, int d, int64_t first,
                                      int32_t *const *selections, struct dsa_arena *scratch, struct dsa_error *err)
{
	int layers = me->shape.layers, topk = me->shape.topk;
	const int32_t **at = dsa_arena_alloc(scratch, (size_t)layers, sizeof *at, "selections", err);
	if (!at)
		return DSA_E_MEMORY;
	*out = (struct dsa_doc_overlap){.document = me->shape.batch[me->batch].documents[d], .layers = layers};
	for (int j = 0; j < me->scored_of[d];) {
		int bucket = dsa_position_bucket(me->position[first + j], topk), end = j;
		while (end < me->scored_of[d] && dsa_position_bucket(me->position[first + end], topk) == bucket)
			end++;
		out->queries[bucket] = end - j;
		out->counts[bucket] =
		    dsa_arena_alloc(scratch, (size_t)layers * (size_t)layers, sizeof(int64_t), "overlap counts", err);
		if (!out->counts[bucket])
			return DSA_E_MEMORY;
		for (int l = 0; l < layers; l++)
			at[l] = selections[l] + (first + j) * topk;
		enum dsa_status status =
		    me->be->ops->overlap(me->be, out->counts[bucket], at, layers, topk, end - j, err);
		if (status)
			return status;
		j = end;
	}
	return DSA_OK;
}

/* Runs the reference whole and leaves each layer's selection of the scored rows in selections. */
static enum dsa_status gather_selections(struct model_evaluator *me, int32_t *const *selections, struct dsa_error *err)
{
	struct kept *kept = &me->kept[me->batch];
	int topk = me->shape.topk;
	void *index = NULL;
	allow(me, kept);
	enum dsa_status status = begin_whole(me, kept->prefix, 0, err);
	if (status)
		return status;
	find_rows(me);
	size_t bytes = (size_t)me->scored * sizeof(int32_t);
	status = me->be->ops->alloc(me->be, bytes, "row numbers", &index, err);
	if (!status)
		status = me->be->ops->upload(me->be, index, me->row, bytes, err);
	for (int l = 0; l < me->shape.layers && !status; l++) {
		status = dsa_forward_layer(me->forward, l, me->shape.reference[l], false, err);
		if (status)
			break;
		struct dsa_tensor from = dsa_tensor_make((void *)(uintptr_t)dsa_forward_selection(me->forward), DSA_I32,
		                                         me->shape.batch[me->batch].tokens, topk);
		struct dsa_tensor to = dsa_tensor_make(selections[l], DSA_I32, me->scored, topk);
		status = me->be->ops->gather(me->be, to, from, index, err);
		void *image =
		    status || me->naive ? NULL : dsa_states_keep(me->states, me->batch, me->shape.reference, l + 1);
		if (image)
			status = dsa_forward_save(me->forward, image, err);
		if (status && image)
			dsa_states_forget(me->states, me->batch, image);
	}
	if (!status)
		status = keep_reference(me, kept, err);
	if (index)
		me->be->ops->free(me->be, index);
	return status;
}

static enum dsa_status overlap(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
                               struct dsa_error *err)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	int layers = me->shape.layers, count = me->shape.batch[batch].count;
	void *memory = NULL;
	struct dsa_arena scratch;
	dsa_arena_init(&scratch);
	if (asked_to_stop(me))
		return interrupted(err);
	enum dsa_status status = take_batch(me, batch, err);
	if (!status)
		status = rebase(me, me->shape.reference, err);
	if (status)
		goto cleanup;
	int32_t **selections = dsa_arena_alloc(&scratch, (size_t)layers, sizeof *selections, "selections", err);
	struct dsa_doc_overlap *out = dsa_arena_alloc(&scratch, (size_t)count, sizeof *out, "overlap", err);
	if (!selections || !out) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	size_t each = (size_t)me->scored * (size_t)me->shape.topk * sizeof(int32_t);
	status = me->be->ops->alloc(me->be, each * (size_t)layers, "the selections of every layer", &memory, err);
	if (status)
		goto cleanup;
	for (int l = 0; l < layers; l++)
		selections[l] = (int32_t *)((char *)memory + each * (size_t)l);
	status = gather_selections(me, selections, err);
	int64_t first = 0;
	for (int d = 0; d < count && !status; d++) {
		status = count_document(me, &out[d], d, first, selections, &scratch, err);
		first += me->scored_of[d];
	}
	if (!status)
		status = sink->overlap(sink->context, out, count, err);
cleanup:
	if (memory)
		me->be->ops->free(me->be, memory);
	dsa_arena_release(&scratch);
	return status;
}

static void close_evaluator(struct dsa_evaluator *self)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	if (!me)
		return;
	for (int b = 0; me->kept && b < me->shape.batches; b++) {
		dsa_prefix_close(me->kept[b].prefix);
		free(me->kept[b].hidden);
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

static enum dsa_status plan_memory(struct model_evaluator *me, size_t limit, struct dsa_error *err)
{
	const struct dsa_model_config *config = &me->model->config;
	struct dsa_plan_memory plan = {0};
	size_t batches = (size_t)me->shape.batches, documents = (size_t)me->shape.documents;
	size_t *image = dsa_arena_alloc(&me->arena, batches, sizeof *image, "a plan", err);
	bool *allowed = dsa_arena_alloc(&me->arena, batches, sizeof *allowed, "a plan", err);
	int *tokens = dsa_arena_alloc(&me->arena, documents, sizeof *tokens, "a plan", err);
	if (!image || !allowed || !tokens)
		return DSA_E_MEMORY;
	for (int d = 0; d < me->shape.documents; d++)
		tokens[d] = dsa_spool_document(me->spool, d)->tokens;
	if (!me->naive)
		dsa_plan_memory(&plan, &me->shape, tokens, config, me->be->act, limit, me->documents, allowed, image);
	for (int b = 0; b < me->shape.batches; b++)
		me->kept[b].allowed = allowed[b];
	enum dsa_status status =
	    dsa_states_open(&me->states, me->shape.layers, me->shape.batches, image, plan.pool, err);
	if (status)
		return status;
	dsa_log_line(me->log, DSA_LOG_DEBUG,
	             "state pool: %.0f MiB for prefixes and reference, %.0f MiB for states of %.1f MiB per layer",
	             (double)plan.kept / 1048576.0, (double)plan.pool / 1048576.0, (double)plan.state / 1048576.0);
	return DSA_OK;
}

static enum dsa_status take_memory(struct model_evaluator *me, struct dsa_error *err)
{
	struct largest most = largest_batch(&me->shape);
	size_t documents = (size_t)most.count, scored = (size_t)most.scored;
	me->most_scored = most.scored;
	/* At most 256 MiB of waiting candidates, at least one. */
	size_t each = hidden_bytes(me, most.scored);
	size_t fit = ((size_t)256 << 20) / (each ? each : 1);
	me->together = me->naive || fit < 1 ? 1 : fit < DSA_TOGETHER ? (int)fit : DSA_TOGETHER;
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
	for (int l = 0; l < me->shape.layers; l++)
		me->flip_cost[l] = -1;
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
		status = dsa_forward_open(&me->forward, me->model, most.tokens, most.tokens, most.count, err);
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
	me->stop = options->stop;
	me->log = options->log;
	me->batch = -1;
	enum dsa_status status = dsa_evaluator_shape_of(&me->shape, spool, model->config.layers, model->config.topk,
	                                                reference, &me->arena, err);
	if (!status)
		status = take_memory(me, err);
	if (!status)
		status = plan_memory(me, options->host_memory, err);
	if (status) {
		close_evaluator(&me->evaluator);
		return status;
	}
	me->evaluator = (struct dsa_evaluator){
	    .shape = &me->shape, .evaluate = evaluate, .overlap = overlap, .close = close_evaluator};
	*out = &me->evaluator;
	return DSA_OK;
}
