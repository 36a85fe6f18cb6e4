/* The evaluator in front of another: what the journal knows is read, what it does not is asked, kept, handed on. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/journal.h"
#include "dsa/journal_record.h"

struct journal_evaluator {
	struct dsa_evaluator base; /* first, so that the one is the other */
	struct dsa_journal *journal;
	struct dsa_evaluator *inner;
	struct dsa_record_buffer record;
	struct dsa_arena arena; /* of one answer */
	struct dsa_early early; /* answers that come before they are asked for */
};

/* One question on its way to the inner evaluator. */
struct errand {
	struct journal_evaluator *self;
	const struct dsa_sink *sink;
	const struct dsa_ask *ask;
	const char **unknown; /* (unknown_count) distinct patterns passed on */
	int *place;           /* (ask->count) index into unknown, -1 = known */
	int unknown_count, answered, batch;
};

static struct dsa_record_key pattern_key(int batch, uint64_t seed, const char *pattern)
{
	return (struct dsa_record_key){
	    .kind = DSA_RECORD_PATTERN,
	    .batch = batch,
	    .seed = seed,
	    .pattern = pattern,
	    .layers = strlen(pattern),
	};
}

static struct dsa_record_key overlap_key(int batch)
{
	return (struct dsa_record_key){.kind = DSA_RECORD_OVERLAP, .batch = batch, .pattern = ""};
}

static enum dsa_status other_documents(const struct journal_evaluator *self, int batch, int found, int expected,
                                       struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_INPUT, "%s: batch %d holds document %d where this run has %d; use another --out",
	                dsa_journal_path(self->journal), batch, found, expected);
}

/* Hands the answer to the sink if the journal has it. */
static enum dsa_status answer_pattern(struct journal_evaluator *self, const struct dsa_ask *ask, int index,
                                      const struct dsa_sink *sink, bool *known, struct dsa_error *err)
{
	const struct dsa_evaluator_batch *batch = &self->base.shape->batch[ask->batch];
	struct dsa_record_key key = pattern_key(ask->batch, ask->seed, ask->patterns[index]), found;
	struct dsa_doc_stats *stats;
	enum dsa_status status = dsa_journal_find(self->journal, &key, &self->record, err);
	*known = status != DSA_E_MISSING;
	if (status)
		return *known ? status : DSA_OK;
	status = dsa_record_read_key(self->record.data, self->record.used, &found, err);
	if (!status)
		status = dsa_record_read_pattern(self->record.data, self->record.used, &self->arena, batch->count,
		                                 &stats, err);
	if (status)
		dsa_error_prefix(err, "%s: record of batch %d", dsa_journal_path(self->journal), ask->batch);
	for (int d = 0; !status && d < batch->count; d++)
		if (stats[d].document != batch->documents[d])
			status = other_documents(self, ask->batch, stats[d].document, batch->documents[d], err);
	if (!status)
		status = sink->pattern(sink->context, index, stats, batch->count, found.executed, err);
	dsa_arena_release(&self->arena);
	return status;
}

/* The inner evaluator's answer: on disk first, then to whoever asked, as often as the pattern was asked. */
static enum dsa_status keep_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                    int64_t executed, struct dsa_error *err)
{
	struct errand *errand = context;
	struct journal_evaluator *self = errand->self;
	const struct dsa_ask *ask = errand->ask;
	const struct dsa_evaluator_batch *batch = &self->base.shape->batch[ask->batch];
	assert(index >= 0 && index < errand->unknown_count && count == batch->count);
	for (int d = 0; d < count; d++)
		assert(stats[d].document == batch->documents[d]);
	struct dsa_record_key key = pattern_key(ask->batch, ask->seed, errand->unknown[index]);
	key.executed = executed;
	enum dsa_status status = dsa_record_write_pattern(&self->record, &key, stats, count, err);
	if (!status)
		status = dsa_journal_append(self->journal, &self->record, err);
	for (int i = 0; !status && i < ask->count; i++)
		if (errand->place[i] == index)
			status = errand->sink->pattern(errand->sink->context, i, stats, count, executed, err);
	errand->answered += !status;
	return status;
}

static void pass_on(struct errand *errand, int index)
{
	const char *pattern = errand->ask->patterns[index];
	int place = 0;
	while (place < errand->unknown_count && strcmp(errand->unknown[place], pattern) != 0)
		place++;
	if (place == errand->unknown_count)
		errand->unknown[errand->unknown_count++] = pattern;
	errand->place[index] = place;
}

static enum dsa_status evaluate(struct dsa_evaluator *base, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                struct dsa_error *err)
{
	struct journal_evaluator *self = (struct journal_evaluator *)base;
	assert(ask->batch >= 0 && ask->batch < base->shape->batches && ask->count >= 0);
	struct errand errand = {.self = self, .sink = sink, .ask = ask};
	enum dsa_status status = DSA_E_MEMORY;
	size_t count = (size_t)ask->count;
	errand.unknown = dsa_alloc(count, sizeof *errand.unknown, "a question", err);
	errand.place = errand.unknown ? dsa_alloc(count, sizeof *errand.place, "a question", err) : NULL;
	if (!errand.place)
		goto cleanup;
	for (int i = 0; i < ask->count; i++) {
		bool known;
		errand.place[i] = -1;
		status = answer_pattern(self, ask, i, sink, &known, err);
		if (status)
			goto cleanup;
		if (!known)
			pass_on(&errand, i);
	}
	status = DSA_OK;
	if (!errand.unknown_count)
		goto cleanup;
	if (!self->inner) {
		status = dsa_fail(err, DSA_E_MISSING, "%s: pattern %s was not measured on batch %d in this run",
		                  dsa_journal_path(self->journal), errand.unknown[0], ask->batch);
		goto cleanup;
	}
	struct dsa_ask rest = *ask;
	rest.patterns = errand.unknown;
	rest.count = errand.unknown_count;
	struct dsa_sink keeper = {.pattern = keep_pattern, .context = &errand};
	status = self->inner->evaluate(self->inner, &rest, &keeper, err);
	assert(status || errand.answered == errand.unknown_count);
	/* What was answered before a failure or an interruption is kept too; the first error is the one to tell. */
	struct dsa_error late;
	enum dsa_status synced = dsa_journal_sync(self->journal, status ? &late : err);
	status = status ? status : synced;
cleanup:
	free(errand.unknown);
	free(errand.place);
	return status;
}

static enum dsa_status keep_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                    struct dsa_error *err)
{
	struct errand *errand = context;
	struct journal_evaluator *self = errand->self;
	struct dsa_record_key key = overlap_key(errand->batch);
	assert(count == self->base.shape->batch[errand->batch].count);
	enum dsa_status status = dsa_record_write_overlap(&self->record, &key, overlap, count, err);
	if (!status)
		status = dsa_journal_append(self->journal, &self->record, err);
	if (!status)
		status = dsa_journal_sync(self->journal, err);
	if (!status)
		status = errand->sink->overlap(errand->sink->context, overlap, count, err);
	return status;
}

static enum dsa_status answer_overlap(struct journal_evaluator *self, int batch, const struct dsa_sink *sink,
                                      bool *known, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = self->base.shape;
	const struct dsa_evaluator_batch *b = &shape->batch[batch];
	struct dsa_record_key key = overlap_key(batch);
	struct dsa_doc_overlap *overlap;
	enum dsa_status status = dsa_journal_find(self->journal, &key, &self->record, err);
	*known = status != DSA_E_MISSING;
	if (status)
		return *known ? status : DSA_OK;
	status = dsa_record_read_overlap(self->record.data, self->record.used, &self->arena, b->count, &overlap, err);
	if (status)
		dsa_error_prefix(err, "%s: record of batch %d", dsa_journal_path(self->journal), batch);
	for (int d = 0; !status && d < b->count; d++) {
		if (overlap[d].document != b->documents[d])
			status = other_documents(self, batch, overlap[d].document, b->documents[d], err);
		else if (overlap[d].layers != shape->layers)
			status = dsa_fail(err, DSA_E_INPUT, "%s: overlap of %d layers, the model has %d",
			                  dsa_journal_path(self->journal), overlap[d].layers, shape->layers);
	}
	if (!status)
		status = sink->overlap(sink->context, overlap, b->count, err);
	dsa_arena_release(&self->arena);
	return status;
}

static enum dsa_status overlap_of(struct dsa_evaluator *base, int batch, const struct dsa_sink *sink,
                                  struct dsa_error *err)
{
	struct journal_evaluator *self = (struct journal_evaluator *)base;
	assert(batch >= 0 && batch < base->shape->batches);
	bool known;
	enum dsa_status status = answer_overlap(self, batch, sink, &known, err);
	if (status || known)
		return status;
	if (!self->inner)
		return dsa_fail(err, DSA_E_MISSING, "%s: the overlap of batch %d was not measured in this run",
		                dsa_journal_path(self->journal), batch);
	struct errand errand = {.self = self, .sink = sink, .batch = batch};
	struct dsa_sink keeper = {.overlap = keep_overlap, .context = &errand};
	return self->inner->overlap(self->inner, batch, &keeper, err);
}

static enum dsa_status keep_early_pattern(void *context, int batch, uint64_t seed, const char *pattern,
                                          const struct dsa_doc_stats *stats, int count, int64_t executed,
                                          struct dsa_error *err)
{
	struct journal_evaluator *self = context;
	struct dsa_record_key key = pattern_key(batch, seed, pattern);
	key.executed = executed;
	enum dsa_status status = dsa_record_write_pattern(&self->record, &key, stats, count, err);
	return status ? status : dsa_journal_append(self->journal, &self->record, err);
}

static enum dsa_status keep_early_overlap(void *context, int batch, const struct dsa_doc_overlap *overlap, int count,
                                          struct dsa_error *err)
{
	struct journal_evaluator *self = context;
	struct dsa_record_key key = overlap_key(batch);
	enum dsa_status status = dsa_record_write_overlap(&self->record, &key, overlap, count, err);
	return status ? status : dsa_journal_append(self->journal, &self->record, err);
}

/* Passes on what the journal cannot answer. */
static enum dsa_status announce(struct dsa_evaluator *base, const struct dsa_coming *coming, int count,
                                const struct dsa_early *early, struct dsa_error *err)
{
	struct journal_evaluator *self = (struct journal_evaluator *)base;
	struct dsa_arena scratch;
	enum dsa_status status = DSA_E_MEMORY;
	int left = 0;
	(void)early; /* whoever asks later is answered from the file */
	dsa_arena_init(&scratch);
	struct dsa_coming *rest = dsa_arena_alloc(&scratch, (size_t)count, sizeof *rest, "what is coming", err);
	if (!rest)
		goto cleanup;
	for (int i = 0; i < count; i++) {
		const struct dsa_ask *ask = &coming[i].ask;
		const char **patterns =
		    dsa_arena_alloc(&scratch, (size_t)ask->count, sizeof *patterns, "what is coming", err);
		if (!patterns)
			goto cleanup;
		const struct dsa_record_key overlap = overlap_key(ask->batch);
		rest[left] =
		    (struct dsa_coming){*ask, coming[i].overlap && !dsa_journal_knows(self->journal, &overlap)};
		rest[left].ask.patterns = patterns;
		rest[left].ask.count = 0;
		for (int p = 0; p < ask->count; p++) {
			const struct dsa_record_key key = pattern_key(ask->batch, ask->seed, ask->patterns[p]);
			if (!dsa_journal_knows(self->journal, &key))
				patterns[rest[left].ask.count++] = ask->patterns[p];
		}
		left += rest[left].overlap || rest[left].ask.count;
	}
	status = self->inner->announce(self->inner, rest, left, &self->early, err);
cleanup:
	dsa_arena_release(&scratch);
	return status;
}

static void close_evaluator(struct dsa_evaluator *base)
{
	struct journal_evaluator *self = (struct journal_evaluator *)base;
	if (!self)
		return;
	dsa_record_buffer_release(&self->record);
	dsa_arena_release(&self->arena);
	free(self);
}

enum dsa_status dsa_journal_evaluator(struct dsa_evaluator **out, struct dsa_journal *journal,
                                      struct dsa_evaluator *inner, const struct dsa_evaluator_shape *shape,
                                      struct dsa_error *err)
{
	*out = NULL;
	struct journal_evaluator *self = dsa_alloc(1, sizeof *self, "the journal's evaluator", err);
	if (!self)
		return DSA_E_MEMORY;
	*self = (struct journal_evaluator){
	    .base = {.shape = shape, .evaluate = evaluate, .overlap = overlap_of, .close = close_evaluator},
	    .journal = journal,
	    .inner = inner,
	};
	dsa_arena_init(&self->arena);
	if (inner && inner->announce) {
		self->base.announce = announce;
		self->base.ahead = inner->ahead;
		self->early = (struct dsa_early){keep_early_pattern, keep_early_overlap, self};
	}
	*out = &self->base;
	return DSA_OK;
}
