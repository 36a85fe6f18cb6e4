/* Overlap of the reference's selections on one batch.
 *
 * The selections of every layer have to lie side by side, which is L·K numbers for each scored row: more than a device
 * holds when documents are long. So rows are taken in windows. The first goes through the whole reference, which leaves
 * what later patterns start from; each of the others runs it again, over no more than its rows depend on: their
 * documents, up to the window's last position. */
#include "model_evaluator_private.h"

#include "dsa/arena.h"
#include "dsa/plan.h"

/* Scored rows [first, first + count) of the batch in hand, in pass order. */
struct window {
	int64_t first, count;
	int32_t **selections; /* (layers) of the window's rows, on the device: (count, K) I32 */
	void *memory;         /* behind them */
	void *index;          /* (most rows of a window) I32, on the device */
	/* Where the indexer has a precision, on the device: what a layer would have selected without, (the batch's
	 * tokens, K) and (rows of the window, K); else NULL. */
	void *plain_pass, *plain;
};

/* Rows [*begin, end) of a document's that lie in the window; doc_first: its first scored row in the batch. */
static int64_t rows_in_window(const struct model_evaluator *me, int d, int64_t doc_first, const struct window *w,
                              int64_t *begin)
{
	int64_t end = doc_first + me->scored_of[d];
	*begin = w->first > doc_first ? w->first : doc_first;
	return w->first + w->count < end ? w->first + w->count : end;
}

/* The row behind those from `begin` on that are in the bucket of `begin`: scored rows of a bucket are neighbours. */
static int64_t bucket_end(const struct model_evaluator *me, int64_t begin, int64_t end, int *bucket)
{
	int64_t next = begin;
	*bucket = dsa_position_bucket(me->position[begin], me->shape.topk);
	while (next < end && dsa_position_bucket(me->position[next], me->shape.topk) == *bucket)
		next++;
	return next;
}

/* Adds |S_i ∩ S_j| of one document's rows in the window, bucket by bucket. */
static enum dsa_status count_document(struct model_evaluator *me, struct dsa_doc_overlap *out, int d, int64_t doc_first,
                                      const struct window *w, struct dsa_arena *scratch, struct dsa_error *err)
{
	int layers = me->shape.layers, topk = me->shape.topk, bucket;
	int64_t begin, end = rows_in_window(me, d, doc_first, w, &begin), next;
	const int32_t **at = dsa_arena_alloc(scratch, (size_t)layers, sizeof *at, "selections", err);
	if (!at)
		return DSA_E_MEMORY;
	for (; begin < end; begin = next) {
		next = bucket_end(me, begin, end, &bucket);
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
	}
	return DSA_OK;
}

/* Adds |S_l ∩ what layer l would have selected without a precision| of every document's rows in the window. */
static enum dsa_status count_plain(struct model_evaluator *me, struct dsa_doc_overlap *out, int count, int l,
                                   const struct window *w, struct dsa_arena *scratch, struct dsa_error *err)
{
	int topk = me->shape.topk, bucket;
	int64_t doc_first = 0, begin, next;
	for (int d = 0; d < count; doc_first += me->scored_of[d++]) {
		int64_t end = rows_in_window(me, d, doc_first, w, &begin);
		for (; begin < end; begin = next) {
			next = bucket_end(me, begin, end, &bucket);
			int64_t pairs[4] = {0}, row = (begin - w->first) * topk;
			const int32_t *const at[] = {w->selections[l] + row, (const int32_t *)w->plain + row};
			if (!out[d].plain[bucket])
				out[d].plain[bucket] = dsa_arena_alloc(scratch, (size_t)me->shape.layers,
				                                       sizeof(int64_t), "overlap counts", err);
			if (!out[d].plain[bucket])
				return DSA_E_MEMORY;
			enum dsa_status status = me->be->ops->overlap(me->be, pairs, at, 2, topk, next - begin, err);
			if (status)
				return status;
			out[d].plain[bucket][l] += pairs[1];
		}
	}
	return DSA_OK;
}

/* Begins a pass over what the window's rows depend on, and finds their row numbers. *rows: of the pass. */
static enum dsa_status begin_window(struct model_evaluator *me, int count, const struct window *w,
                                    struct dsa_arena *scratch, int64_t *rows, struct dsa_error *err)
{
	int64_t doc_first = 0, begin;
	int taken = 0;
	struct dsa_pass_document *documents =
	    dsa_arena_alloc(scratch, (size_t)count, sizeof *documents, "a window's documents", err);
	if (!documents)
		return DSA_E_MEMORY;
	for (int d = 0; d < count; doc_first += me->scored_of[d++]) {
		const int64_t end = rows_in_window(me, d, doc_first, w, &begin);
		if (begin < end)
			documents[taken++] = (struct dsa_pass_document){.ids = me->documents[d].ids,
			                                                .tokens = me->position[end - 1] + 1};
	}
	enum dsa_status status = dsa_forward_begin(me->forward, documents, taken, true, NULL, rows, err);
	doc_first = taken = 0;
	for (int d = 0; d < count && !status; doc_first += me->scored_of[d++]) {
		const int64_t end = rows_in_window(me, d, doc_first, w, &begin);
		for (int64_t i = begin; i < end; i++)
			me->row[i] = (int32_t)dsa_forward_row(me->forward, taken, me->position[i]);
		taken += begin < end;
	}
	return status ? status : dsa_forward_embed(me->forward, 0, err);
}

/* Layer l of the reference has run: leaves its selection of the window's rows in place, and what became of the pass for
 * later patterns, if it is the whole one. */
static enum dsa_status gather_layer(struct model_evaluator *me, struct dsa_doc_overlap *out, int count, int l,
                                    const struct window *w, int64_t rows, struct dsa_arena *scratch,
                                    struct dsa_error *err)
{
	const struct dsa_ops *ops = me->be->ops;
	const int topk = me->shape.topk;
	struct dsa_tensor from =
	    dsa_tensor_make((void *)(uintptr_t)dsa_forward_selection(me->forward), DSA_I32, rows, topk);
	struct dsa_tensor to = dsa_tensor_make(w->selections[l], DSA_I32, w->count, topk);
	enum dsa_status status = ops->gather(me->be, to, from, w->index, err);
	if (!status && w->plain && me->shape.reference[l] == 'F') {
		from.data = w->plain_pass;
		to.data = w->plain;
		status = ops->gather(me->be, to, from, w->index, err);
		if (!status)
			status = count_plain(me, out, count, l, w, scratch, err);
	}
	void *image = status || me->naive || w->first
	                  ? NULL
	                  : dsa_states_keep(me->states, me->batch, me->shape.reference, l + 1, false);
	if (image)
		status = dsa_forward_save(me->forward, image, err);
	if (status && image)
		dsa_states_forget(me->states);
	else if (image)
		dsa_states_kept(me->states);
	return status;
}

/* Runs the reference and leaves each layer's selection of the window's rows. */
static enum dsa_status gather_window(struct model_evaluator *me, struct dsa_doc_overlap *out, int count,
                                     const struct window *w, struct dsa_arena *scratch, struct dsa_error *err)
{
	struct kept *kept = &me->kept[me->batch];
	int64_t rows = me->shape.batch[me->batch].tokens;
	enum dsa_status status;
	if (w->first) {
		status = begin_window(me, count, w, scratch, &rows, err);
	} else {
		model_evaluator_allow(me, kept);
		status = model_evaluator_begin_whole(me, kept->prefix, err);
		if (!status)
			model_evaluator_find_rows(me);
	}
	if (!status)
		status =
		    me->be->ops->upload(me->be, w->index, me->row + w->first, (size_t)w->count * sizeof *me->row, err);
	for (int l = 0; l < me->shape.layers && !status; l++) {
		status = dsa_forward_layer(me->forward, l, me->shape.reference[l], false, err);
		if (!status)
			status = gather_layer(me, out, count, l, w, rows, scratch, err);
	}
	return status || w->first ? status : model_evaluator_keep_reference(me, kept, err);
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
	if (status || me->model->config.index_precision == DSA_INDEX_ACT)
		return status;
	size_t pass = (size_t)me->shape.batch[me->batch].tokens * (size_t)me->shape.topk * sizeof(int32_t);
	status = ops->alloc(me->be, pass, "the selections without a precision", &w->plain_pass, err);
	if (!status)
		status = ops->alloc(me->be, each, "the selections without a precision", &w->plain, err);
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
		dsa_forward_keep_plain(me->forward, w.plain_pass);
		status = model_evaluator_stopped(me) ? model_evaluator_interrupted(err)
		                                     : gather_window(me, out, count, &w, scratch, err);
		dsa_forward_keep_plain(me->forward, NULL);
		for (int d = 0; d < count && !status; d++) {
			status = count_document(me, &out[d], d, doc_first, &w, scratch, err);
			doc_first += me->scored_of[d];
		}
	}
	void *const taken[] = {w.memory, w.index, w.plain_pass, w.plain};
	for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
		if (taken[i])
			me->be->ops->free(me->be, taken[i]);
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
		status = model_flips_rebase(me, me->shape.reference, err);
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
