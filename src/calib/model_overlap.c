/* Overlap of the reference's selections on one batch.
 *
 * The selections of every layer have to lie side by side, which is L·K numbers for each scored row: more than a device
 * holds when documents are long. So rows are taken in windows, and the reference runs once for each. */
#include "model_evaluator_private.h"

#include "dsa/arena.h"
#include "dsa/plan.h"

/* Scored rows [first, first + count) of the batch in hand, in pass order. */
struct window {
	int64_t first, count;
	int32_t **selections; /* (layers) of the window's rows, on the device: (count, K) I32 */
	void *memory;         /* behind them */
	void *index;          /* (most rows of a window) I32, on the device */
};

/* Adds |S_i ∩ S_j| of one document's rows in the window, bucket by bucket: its scored rows of a bucket are neighbours.
 * doc_first: the document's first scored row in the batch. */
static enum dsa_status count_document(struct model_evaluator *me, struct dsa_doc_overlap *out, int d, int64_t doc_first,
                                      const struct window *w, struct dsa_arena *scratch, struct dsa_error *err)
{
	int layers = me->shape.layers, topk = me->shape.topk;
	int64_t begin = w->first > doc_first ? w->first : doc_first, end = doc_first + me->scored_of[d];
	end = w->first + w->count < end ? w->first + w->count : end;
	const int32_t **at = dsa_arena_alloc(scratch, (size_t)layers, sizeof *at, "selections", err);
	if (!at)
		return DSA_E_MEMORY;
	while (begin < end) {
		int bucket = dsa_position_bucket(me->position[begin], topk);
		int64_t next = begin;
		while (next < end && dsa_position_bucket(me->position[next], topk) == bucket)
			next++;
		out->queries[bucket] += next - begin;
		if (!out->counts[bucket])
			out->counts[bucket] = dsa_arena_alloc(scratch, (size_t)layers * (size_t)layers, sizeof(int64_t),
			                                      "overlap counts", err);
		if (!out->counts[bucket])
			return DSA_E_MEMORY;
		for (int l = 0; l < layers; l++)
			at[l] = w->selections[l] + (begin - w->first) * topk;
		enum dsa_status status =
		    me->be->ops->overlap(me->be, out->counts[bucket], at, layers, topk, next - begin, err);
		if (status)
			return status;
		begin = next;
	}
	return DSA_OK;
}

/* Runs the reference whole and leaves each layer's selection of the window's rows. */
static enum dsa_status gather_window(struct model_evaluator *me, const struct window *w, struct dsa_error *err)
{
	struct kept *kept = &me->kept[me->batch];
	const struct dsa_ops *ops = me->be->ops;
	int topk = me->shape.topk;
	model_evaluator_allow(me, kept);
	enum dsa_status status = model_evaluator_begin_whole(me, kept->prefix, err);
	if (status)
		return status;
	model_evaluator_find_rows(me);
	status = ops->upload(me->be, w->index, me->row + w->first, (size_t)w->count * sizeof *me->row, err);
	for (int l = 0; l < me->shape.layers && !status; l++) {
		status = dsa_forward_layer(me->forward, l, me->shape.reference[l], false, err);
		if (status)
			return status;
		struct dsa_tensor from = dsa_tensor_make((void *)(uintptr_t)dsa_forward_selection(me->forward), DSA_I32,
		                                         me->shape.batch[me->batch].tokens, topk);
		struct dsa_tensor to = dsa_tensor_make(w->selections[l], DSA_I32, w->count, topk);
		status = ops->gather(me->be, to, from, w->index, err);
		void *image = status || me->naive
		                  ? NULL
		                  : dsa_states_keep(me->states, me->batch, me->shape.reference, l + 1, false);
		if (image)
			status = dsa_forward_save(me->forward, image, err);
		if (status && image)
			dsa_states_forget(me->states, me->batch, image);
	}
	return status ? status : model_evaluator_keep_reference(me, kept, err);
}

/* Memory of a window of `rows` rows. */
static enum dsa_status open_window(struct model_evaluator *me, struct window *w, int64_t rows,
                                   struct dsa_arena *scratch, struct dsa_error *err)
{
	const struct dsa_ops *ops = me->be->ops;
	size_t layers = (size_t)me->shape.layers;
	size_t each = (size_t)rows * (size_t)me->shape.topk * sizeof(int32_t);
	w->selections = dsa_arena_alloc(scratch, layers, sizeof *w->selections, "selections", err);
	if (!w->selections)
		return DSA_E_MEMORY;
	enum dsa_status status = ops->alloc(me->be, each * layers, "the selections of every layer", &w->memory, err);
	if (!status)
		status = ops->alloc(me->be, (size_t)rows * sizeof(int32_t), "row numbers", &w->index, err);
	for (size_t l = 0; l < layers && !status; l++)
		w->selections[l] = (int32_t *)((char *)w->memory + each * l);
	return status;
}

static enum dsa_status count_all(struct model_evaluator *me, struct dsa_doc_overlap *out, int count,
                                 struct dsa_arena *scratch, struct dsa_error *err)
{
	struct window w = {0};
	int64_t rows = dsa_plan_overlap_rows(me->shape.layers, me->shape.topk, me->scored, me->overlap_memory);
	enum dsa_status status = open_window(me, &w, rows, scratch, err);
	for (w.first = 0; w.first < me->scored && !status; w.first += rows) {
		int64_t doc_first = 0;
		w.count = me->scored - w.first < rows ? me->scored - w.first : rows;
		status = model_evaluator_stopped(me) ? model_evaluator_interrupted(err) : gather_window(me, &w, err);
		for (int d = 0; d < count && !status; d++) {
			status = count_document(me, &out[d], d, doc_first, &w, scratch, err);
			doc_first += me->scored_of[d];
		}
	}
	if (w.memory)
		me->be->ops->free(me->be, w.memory);
	if (w.index)
		me->be->ops->free(me->be, w.index);
	return status;
}

enum dsa_status model_evaluator_overlap(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
                                        struct dsa_error *err)
{
	struct model_evaluator *me = (struct model_evaluator *)self;
	const struct dsa_evaluator_batch *what = &me->shape.batch[batch];
	struct dsa_arena scratch;
	dsa_arena_init(&scratch);
	enum dsa_status status = model_evaluator_take_batch(me, batch, err);
	if (!status)
		status = model_evaluator_rebase(me, me->shape.reference, err);
	if (status)
		goto cleanup;
	struct dsa_doc_overlap *out = dsa_arena_alloc(&scratch, (size_t)what->count, sizeof *out, "overlap", err);
	if (!out) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	for (int d = 0; d < what->count; d++)
		out[d] = (struct dsa_doc_overlap){.document = what->documents[d], .layers = me->shape.layers};
	status = count_all(me, out, what->count, &scratch, err);
	if (!status)
		status = sink->overlap(sink->context, out, what->count, err);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}
