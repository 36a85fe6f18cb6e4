/* The side of rank 0: deals questions out, answers its own share, hands on what the others answer. */
#include "dsa/ranks_evaluator.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/plan.h"
#include "ranks_errands.h"
#include "ranks_messages.h"

/* Questions that a rank has in hand: it need not wait for the next, and those whose layers have to be brought are
 * answered together, as many as its evaluator may take. */
enum { IN_HAND = DSA_TOGETHER };

/* What the caller of evaluate or overlap waits for. */
struct wait {
	const struct dsa_ask *ask; /* NULL: the overlap of batch */
	const struct dsa_sink *sink;
	bool *answered; /* (ask->count) */
	int batch, left;
};

struct ranks_evaluator {
	struct dsa_evaluator base; /* first, so that the one is the other */
	struct dsa_ranks *ranks;
	struct dsa_evaluator *inner;
	const volatile sig_atomic_t *stop;
	int *owner;             /* (batches) */
	struct errand *queued;  /* not begun, foremost first */
	struct errand **begun;  /* (ranks) oldest first, the order in which they are answered */
	int *in_hand;           /* (ranks) errands in begun */
	struct dsa_early early; /* .pattern NULL: nobody takes such answers */
	struct wait *wait;      /* NULL: nobody waits */
	struct dsa_record_buffer message;
};

static bool asks_pattern(const struct errand *errand, int batch, uint64_t seed, const char *pattern)
{
	const struct dsa_ask *ask = &errand->what.ask;
	if (ask->batch != batch || ask->seed != seed)
		return false;
	for (int i = 0; i < ask->count; i++)
		if (!strcmp(ask->patterns[i], pattern))
			return true;
	return false;
}

/* Is an answer to that on its way? pattern NULL: the batch's overlap. */
static bool is_begun(const struct ranks_evaluator *self, int batch, uint64_t seed, const char *pattern)
{
	const struct errand *errand = self->begun[self->owner[batch]];
	for (; errand; errand = errand->next) {
		if (pattern && asks_pattern(errand, batch, seed, pattern))
			return true;
		if (!pattern && errand->what.overlap && errand->what.ask.batch == batch)
			return true;
	}
	return false;
}

/* A copy of what of the question is not on its way yet; *out NULL: all of it is. */
static enum dsa_status make_errand(const struct ranks_evaluator *self, const struct dsa_coming *coming,
                                   struct errand **out, struct dsa_error *err)
{
	const size_t layers = (size_t)self->base.shape->layers;
	const struct dsa_ask *ask = &coming->ask;
	*out = NULL;
	struct errand *errand;
	if (errand_open(&errand, err))
		return DSA_E_MEMORY;
	errand->what = *coming;
	errand->what.overlap = coming->overlap && !is_begun(self, ask->batch, 0, NULL);
	const char **patterns =
	    dsa_arena_alloc(&errand->arena, (size_t)ask->count, sizeof *patterns, "a question", err);
	const char *base = dsa_arena_text(&errand->arena, ask->base, layers, err);
	if (!patterns || !base)
		goto failed;
	int count = 0;
	for (int i = 0; i < ask->count; i++) {
		if (is_begun(self, ask->batch, ask->seed, ask->patterns[i]))
			continue;
		patterns[count] = dsa_arena_text(&errand->arena, ask->patterns[i], layers, err);
		if (!patterns[count++])
			goto failed;
	}
	errand->what.ask.base = base;
	errand->what.ask.patterns = patterns;
	errand->what.ask.count = count;
	if (count || errand->what.overlap)
		*out = errand;
	else
		errand_close(errand);
	return DSA_OK;
failed:
	errand_close(errand);
	return DSA_E_MEMORY;
}

/* Takes the first queued errand of that batch out of the queue, or else of that rank (batch < 0). */
static struct errand *take_queued(struct ranks_evaluator *self, int rank, int batch)
{
	for (struct errand **at = &self->queued; *at; at = &(*at)->next) {
		struct errand *errand = *at;
		const int its = errand->what.ask.batch;
		if (batch >= 0 ? its != batch : self->owner[its] != rank)
			continue;
		*at = errand->next;
		errand->next = NULL;
		return errand;
	}
	return NULL;
}

static enum dsa_status announce(struct dsa_evaluator *base, const struct dsa_coming *coming, int count,
                                const struct dsa_early *early, struct dsa_error *err)
{
	struct ranks_evaluator *self = (struct ranks_evaluator *)base;
	if (!early)
		return DSA_OK;
	self->early = *early;
	errands_close(self->queued);
	self->queued = NULL;
	struct errand **end = &self->queued;
	for (int i = 0; i < count; i++) {
		enum dsa_status status = make_errand(self, &coming[i], end, err);
		if (status)
			return status;
		if (*end)
			end = &(*end)->next;
	}
	return DSA_OK;
}

static enum dsa_status deliver_pattern(struct ranks_evaluator *self, int batch, uint64_t seed, const char *pattern,
                                       const struct dsa_doc_stats *stats, int count, int64_t executed,
                                       struct dsa_error *err)
{
	struct wait *wait = self->wait;
	bool awaited = false;
	enum dsa_status status = DSA_OK;
	for (int i = 0; wait && wait->ask && i < wait->ask->count && !status; i++) {
		if (wait->answered[i] || wait->ask->batch != batch || wait->ask->seed != seed ||
		    strcmp(wait->ask->patterns[i], pattern) != 0)
			continue;
		awaited = wait->answered[i] = true;
		wait->left--;
		status = wait->sink->pattern(wait->sink->context, i, stats, count, executed, err);
	}
	if (awaited || !self->early.pattern)
		return status;
	return self->early.pattern(self->early.context, batch, seed, pattern, stats, count, executed, err);
}

static enum dsa_status deliver_overlap(struct ranks_evaluator *self, int batch, const struct dsa_doc_overlap *overlap,
                                       int count, struct dsa_error *err)
{
	struct wait *wait = self->wait;
	if (wait && !wait->ask && wait->batch == batch && wait->left) {
		wait->left = 0;
		return wait->sink->overlap(wait->sink->context, overlap, count, err);
	}
	return self->early.overlap ? self->early.overlap(self->early.context, batch, overlap, count, err) : DSA_OK;
}

/* Another rank's record is looked at as closely as one from a file. */
static enum dsa_status deliver_record(struct ranks_evaluator *self, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = self->base.shape;
	const uint8_t *data = self->message.data;
	const size_t used = self->message.used;
	struct dsa_record_key key;
	struct dsa_doc_stats *stats;
	struct dsa_doc_overlap *overlap;
	struct dsa_arena arena;
	if (!dsa_record_intact(data, used))
		return dsa_fail(err, DSA_E_INPUT, "an answer of %zu bytes is damaged", used);
	enum dsa_status status = dsa_record_read_key(data, used, &key, err);
	if (status)
		return status;
	if (key.batch < 0 || key.batch >= shape->batches)
		return dsa_fail(err, DSA_E_INPUT, "an answer speaks of batch %d of %d", key.batch, shape->batches);
	const struct dsa_evaluator_batch *batch = &shape->batch[key.batch];
	dsa_arena_init(&arena);
	if (key.kind == DSA_RECORD_OVERLAP) {
		status = dsa_record_read_overlap(data, used, &arena, batch->count, &overlap, err);
		for (int d = 0; d < batch->count && !status; d++)
			if (overlap[d].document != batch->documents[d] || overlap[d].layers != shape->layers)
				status =
				    dsa_fail(err, DSA_E_INPUT, "an answer speaks of another batch than %d", key.batch);
		if (!status)
			status = deliver_overlap(self, key.batch, overlap, batch->count, err);
	} else {
		char *pattern = dsa_arena_text(&arena, key.pattern, key.layers, err);
		status =
		    pattern ? dsa_record_read_pattern(data, used, &arena, batch->count, &stats, err) : DSA_E_MEMORY;
		for (int d = 0; d < batch->count && !status; d++)
			if (stats[d].document != batch->documents[d])
				status =
				    dsa_fail(err, DSA_E_INPUT, "an answer speaks of another batch than %d", key.batch);
		if (!status)
			status =
			    deliver_pattern(self, key.batch, key.seed, pattern, stats, batch->count, key.executed, err);
	}
	dsa_arena_release(&arena);
	return status;
}

/* What another rank could not do ends the run, in its own words. */
static enum dsa_status take_failure(const struct dsa_record_buffer *message, int from, struct dsa_error *err)
{
	int32_t code = DSA_E_INPUT;
	if (message->used != sizeof code + DSA_ERROR_CHARS)
		return dsa_fail(err, DSA_E_INPUT, "rank %d failed and did not say why", from);
	memcpy(&code, message->data, sizeof code);
	const enum dsa_status status = code > DSA_OK && code < DSA_E_MISSING ? (enum dsa_status)code : DSA_E_INPUT;
	return dsa_fail(err, status, "%.*s", DSA_ERROR_CHARS - 1, (const char *)message->data + sizeof code);
}

static enum dsa_status take_message(struct ranks_evaluator *self, int from, int kind, struct dsa_error *err)
{
	enum dsa_status status;
	struct errand *done;
	switch (kind) {
	case MESSAGE_ANSWER:
		status = deliver_record(self, err);
		if (status == DSA_E_INPUT)
			dsa_error_prefix(err, "rank %d", from);
		return status;
	case MESSAGE_DONE:
		done = self->begun[from];
		if (!done)
			return dsa_fail(err, DSA_E_INPUT, "rank %d answered what it was not asked", from);
		self->begun[from] = done->next;
		self->in_hand[from]--;
		errand_close(done);
		return DSA_OK;
	case MESSAGE_FAILED:
		return take_failure(&self->message, from, err);
	default:
		return dsa_fail(err, DSA_E_INPUT, "rank %d sent a message of the unknown kind %d", from, kind);
	}
}

static enum dsa_status begin(struct ranks_evaluator *self, struct errand *errand, struct dsa_error *err)
{
	const int rank = self->owner[errand->what.ask.batch];
	struct errand **end = &self->begun[rank];
	while (*end)
		end = &(*end)->next;
	*end = errand;
	self->in_hand[rank]++;
	if (rank == 0)
		return DSA_OK;
	enum dsa_status status = ranks_question_write(&self->message, &errand->what, self->base.shape->layers, err);
	if (!status)
		status = self->ranks->ops->send(self->ranks, rank, MESSAGE_QUESTION, self->message.data,
		                                self->message.used, err);
	return status;
}

/* Takes all messages that have come and gives the others something to do. */
static enum dsa_status attend(struct ranks_evaluator *self, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	bool any = true;
	while (any && !status) {
		int from, kind;
		status = self->ranks->ops->poll(self->ranks, DSA_RANK_ANY, &any, &from, &kind, &self->message, err);
		if (!status && any)
			status = take_message(self, from, kind, err);
	}
	for (int r = 1; r < self->ranks->count && !status; r++)
		while (self->in_hand[r] < IN_HAND && !status) {
			struct errand *errand = take_queued(self, r, -1);
			if (!errand)
				break;
			status = begin(self, errand, err);
		}
	return status;
}

struct own {
	struct ranks_evaluator *self;
	const struct dsa_coming *what;
};

/* The others are looked after whenever a pattern of rank 0's own share is done. */
static enum dsa_status own_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                   int64_t executed, struct dsa_error *err)
{
	const struct own *own = context;
	const struct dsa_ask *ask = &own->what->ask;
	enum dsa_status status =
	    deliver_pattern(own->self, ask->batch, ask->seed, ask->patterns[index], stats, count, executed, err);
	return status ? status : attend(own->self, err);
}

static enum dsa_status own_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                   struct dsa_error *err)
{
	const struct own *own = context;
	enum dsa_status status = deliver_overlap(own->self, own->what->ask.batch, overlap, count, err);
	return status ? status : attend(own->self, err);
}

/* The first of rank 0's own share; *any: there was one. */
static enum dsa_status do_own(struct ranks_evaluator *self, bool *any, struct dsa_error *err)
{
	struct errand *errand = take_queued(self, 0, -1);
	*any = errand != NULL;
	if (!errand)
		return DSA_OK;
	enum dsa_status status = begin(self, errand, err);
	if (!status)
		status = errands_announce(self->queued, self->owner, 0, self->inner, err);
	struct own own = {self, &errand->what};
	const struct dsa_sink sink = {.pattern = own_pattern, .overlap = own_overlap, .context = &own};
	if (!status && errand->what.overlap)
		status = self->inner->overlap(self->inner, errand->what.ask.batch, &sink, err);
	if (!status && errand->what.ask.count)
		status = self->inner->evaluate(self->inner, &errand->what.ask, &sink, err);
	self->begun[0] = errand->next;
	self->in_hand[0]--;
	errand_close(errand);
	return status;
}

/* Has a rank said that it is done without having answered what is waited for? */
static bool is_forgotten(const struct ranks_evaluator *self, int batch)
{
	const int rank = self->owner[batch];
	for (const struct errand *errand = self->begun[rank]; errand; errand = errand->next)
		if (errand->what.ask.batch == batch)
			return false;
	for (const struct errand *errand = self->queued; errand; errand = errand->next)
		if (errand->what.ask.batch == batch)
			return false;
	return true;
}

static enum dsa_status run(struct ranks_evaluator *self, struct wait *wait, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	self->wait = wait;
	while (!status) {
		bool worked = false;
		status = attend(self, err);
		if (status || !wait->left)
			break;
		if (self->stop && *self->stop)
			status = dsa_fail(err, DSA_E_INTERRUPTED, "interrupted by a signal");
		else if (is_forgotten(self, wait->batch))
			status = dsa_fail(err, DSA_E_INPUT, "rank %d left a question about batch %d unanswered",
			                  self->owner[wait->batch], wait->batch);
		else
			status = do_own(self, &worked, err);
		if (!status && !worked)
			ranks_pause();
	}
	self->wait = NULL;
	return status;
}

/* The question comes before all that is queued; what was announced of its batch goes with it, if that holds all of it,
 * or gives way to it. */
static enum dsa_status put_first(struct ranks_evaluator *self, const struct dsa_coming *coming, struct dsa_error *err)
{
	struct errand *fresh, *announced = take_queued(self, -1, coming->ask.batch);
	enum dsa_status status = make_errand(self, coming, &fresh, err);
	if (status) {
		errands_close(announced);
		return status;
	}
	bool holds = announced != NULL && (!fresh || !fresh->what.overlap || announced->what.overlap);
	for (int i = 0; holds && fresh && i < fresh->what.ask.count; i++)
		holds =
		    asks_pattern(announced, fresh->what.ask.batch, fresh->what.ask.seed, fresh->what.ask.patterns[i]);
	/* More of it than is asked is work that may be for nothing, except behind an overlap. */
	if (holds && fresh && fresh->what.ask.count < announced->what.ask.count && !fresh->what.overlap)
		holds = false;
	if (holds && fresh) {
		errand_close(fresh);
		fresh = announced;
	} else {
		errands_close(announced);
	}
	if (fresh) {
		fresh->next = self->queued;
		self->queued = fresh;
	}
	return DSA_OK;
}

static enum dsa_status evaluate(struct dsa_evaluator *base, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                struct dsa_error *err)
{
	struct ranks_evaluator *self = (struct ranks_evaluator *)base;
	struct wait wait = {.ask = ask, .sink = sink, .batch = ask->batch, .left = ask->count};
	const struct dsa_coming coming = {.ask = *ask};
	wait.answered = dsa_alloc((size_t)ask->count, sizeof *wait.answered, "a question", err);
	if (!wait.answered)
		return DSA_E_MEMORY;
	enum dsa_status status = put_first(self, &coming, err);
	if (!status)
		status = run(self, &wait, err);
	free(wait.answered);
	return status;
}

static enum dsa_status overlap_of(struct dsa_evaluator *base, int batch, const struct dsa_sink *sink,
                                  struct dsa_error *err)
{
	struct ranks_evaluator *self = (struct ranks_evaluator *)base;
	struct wait wait = {.sink = sink, .batch = batch, .left = 1};
	const struct dsa_coming coming = {.ask = {.base = base->shape->reference, .batch = batch}, .overlap = true};
	enum dsa_status status = put_first(self, &coming, err);
	return status ? status : run(self, &wait, err);
}

static void close_evaluator(struct dsa_evaluator *base)
{
	struct ranks_evaluator *self = (struct ranks_evaluator *)base;
	if (!self)
		return;
	errands_close(self->queued);
	for (int r = 0; self->begun && r < self->ranks->count; r++)
		errands_close(self->begun[r]);
	free(self->begun);
	free(self->in_hand);
	free(self->owner);
	dsa_record_buffer_release(&self->message);
	free(self);
}

static enum dsa_status await_ready(struct ranks_evaluator *self, const struct dsa_log *log, struct dsa_error *err)
{
	int ready = 1;
	dsa_log_line(log, DSA_LOG_DEBUG, "rank 0 on %s: %s", self->ranks->host, self->ranks->device);
	while (ready < self->ranks->count) {
		int from, kind;
		bool any;
		enum dsa_status status =
		    self->ranks->ops->poll(self->ranks, DSA_RANK_ANY, &any, &from, &kind, &self->message, err);
		if (!status && any && kind != MESSAGE_READY)
			status = take_message(self, from, kind, err);
		if (!status && self->stop && *self->stop)
			status = dsa_fail(err, DSA_E_INTERRUPTED, "interrupted by a signal");
		if (status)
			return status;
		if (any) {
			dsa_log_line(log, DSA_LOG_DEBUG, "rank %d on %.*s", from, (int)self->message.used,
			             (const char *)self->message.data);
			ready++;
		} else {
			ranks_pause();
		}
	}
	return DSA_OK;
}

enum dsa_status dsa_ranks_evaluator_open(struct dsa_evaluator **out, struct dsa_ranks *ranks,
                                         struct dsa_evaluator *inner, const struct dsa_evaluator_shape *shape,
                                         const struct dsa_ranks_start *start, const volatile sig_atomic_t *stop,
                                         const struct dsa_log *log, struct dsa_error *err)
{
	assert(ranks->rank == 0 && ranks->count > 1);
	const size_t count = (size_t)ranks->count;
	enum dsa_status status = DSA_E_MEMORY;
	*out = NULL;
	struct ranks_evaluator *self = dsa_alloc(1, sizeof *self, "the ranks' evaluator", err);
	if (!self)
		return DSA_E_MEMORY;
	*self = (struct ranks_evaluator){.base = {.shape = shape,
	                                          .evaluate = evaluate,
	                                          .overlap = overlap_of,
	                                          .announce = announce,
	                                          .ahead = ranks->count,
	                                          .close = close_evaluator},
	                                 .ranks = ranks,
	                                 .inner = inner,
	                                 .stop = stop};
	if (!(self->begun = dsa_alloc(count, sizeof *self->begun, "the ranks", err)) ||
	    !(self->in_hand = dsa_alloc(count, sizeof *self->in_hand, "the ranks", err)) ||
	    !(self->owner = dsa_alloc((size_t)shape->batches, sizeof *self->owner, "the ranks", err)))
		goto cleanup;
	status = dsa_ranks_owners(shape, ranks->count, self->owner, err);
	for (int r = 1; r < ranks->count && !status; r++)
		status = ranks->ops->send(ranks, r, MESSAGE_START, start, sizeof *start, err);
	if (!status)
		status = await_ready(self, log, err);
	if (!status)
		dsa_log_line(log, DSA_LOG_INFO, "%d ranks, %d of them on %s", ranks->count, ranks->locals, ranks->host);
cleanup:
	if (status)
		close_evaluator(&self->base);
	else
		*out = &self->base;
	return status;
}

void dsa_ranks_stop(struct dsa_ranks *ranks)
{
	struct dsa_error err;
	for (int r = 1; r < ranks->count; r++)
		if (ranks->ops->send(ranks, r, MESSAGE_STOP, NULL, 0, &err))
			return;
}
