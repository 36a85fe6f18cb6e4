/* The side of the ranks that answer. */
#include <stdio.h>
#include <string.h>

#include "dsa/ranks_evaluator.h"
#include "ranks_errands.h"
#include "ranks_messages.h"

struct server {
	struct dsa_ranks *ranks;
	struct errand *queued;     /* questions that have come, the one in hand first */
	const struct dsa_ask *ask; /* in hand */
	struct dsa_record_buffer record, message;
	bool stopped; /* rank 0 wants no more answers */
};

static enum dsa_status send(struct dsa_ranks *ranks, int kind, const void *bytes, size_t count, struct dsa_error *err)
{
	return ranks->ops->send(ranks, 0, kind, bytes, count, err);
}

/* Between two patterns: has the run ended meanwhile? */
static enum dsa_status look_for_end(struct server *server, struct dsa_error *err)
{
	int from, kind;
	bool any;
	enum dsa_status status =
	    server->ranks->ops->poll(server->ranks, MESSAGE_STOP, &any, &from, &kind, &server->message, err);
	if (status || !any)
		return status;
	server->stopped = true;
	return dsa_fail(err, DSA_E_INTERRUPTED, "the run has ended");
}

static enum dsa_status send_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                    int64_t executed, struct dsa_error *err)
{
	struct server *server = context;
	const char *pattern = server->ask->patterns[index];
	const struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN,
	                                   .batch = server->ask->batch,
	                                   .seed = server->ask->seed,
	                                   .pattern = pattern,
	                                   .layers = strlen(pattern),
	                                   .executed = executed};
	enum dsa_status status = dsa_record_write_pattern(&server->record, &key, stats, count, err);
	if (!status)
		status = send(server->ranks, MESSAGE_ANSWER, server->record.data, server->record.used, err);
	return status ? status : look_for_end(server, err);
}

static enum dsa_status send_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                    struct dsa_error *err)
{
	struct server *server = context;
	const struct dsa_record_key key = {.kind = DSA_RECORD_OVERLAP, .batch = server->ask->batch, .pattern = ""};
	enum dsa_status status = dsa_record_write_overlap(&server->record, &key, overlap, count, err);
	if (!status)
		status = send(server->ranks, MESSAGE_ANSWER, server->record.data, server->record.used, err);
	return status ? status : look_for_end(server, err);
}

/* Takes all messages that have come. */
static enum dsa_status take_messages(struct server *server, const struct dsa_evaluator_shape *shape,
                                     struct dsa_error *err)
{
	struct errand **end = &server->queued;
	while (*end)
		end = &(*end)->next;
	while (!server->stopped) {
		int from, kind;
		bool any;
		enum dsa_status status =
		    server->ranks->ops->poll(server->ranks, DSA_RANK_ANY, &any, &from, &kind, &server->message, err);
		if (status || !any)
			return status;
		server->stopped = kind == MESSAGE_STOP;
		if (server->stopped)
			break;
		status = errand_open(end, err);
		if (!status)
			status = ranks_question_read(&(*end)->what, &server->message, shape, &(*end)->arena, err);
		if (status)
			return status;
		end = &(*end)->next;
	}
	return DSA_OK;
}

/* The oldest question; the evaluator knows of the others. */
static enum dsa_status answer(struct server *server, struct dsa_evaluator *evaluator, struct dsa_error *err)
{
	const struct dsa_sink sink = {.pattern = send_pattern, .overlap = send_overlap, .context = server};
	struct errand *errand = server->queued;
	const struct dsa_coming *question = &errand->what;
	server->ask = &question->ask;
	enum dsa_status status = errands_announce(errand->next, NULL, 0, evaluator, err);
	if (!status && question->overlap)
		status = evaluator->overlap(evaluator, question->ask.batch, &sink, err);
	if (!status && question->ask.count)
		status = evaluator->evaluate(evaluator, &question->ask, &sink, err);
	server->ask = NULL;
	server->queued = errand->next;
	errand_close(errand);
	return status ? status : send(server->ranks, MESSAGE_DONE, NULL, 0, err);
}

enum dsa_status dsa_ranks_await_start(struct dsa_ranks *ranks, struct dsa_ranks_start *start, bool *stopped,
                                      struct dsa_error *err)
{
	struct dsa_record_buffer message = {0};
	enum dsa_status status = DSA_OK;
	bool any = false;
	int from, kind;
	*stopped = false;
	while (!any && !status) {
		status = ranks->ops->poll(ranks, DSA_RANK_ANY, &any, &from, &kind, &message, err);
		if (!any)
			ranks_pause();
	}
	if (!status && kind == MESSAGE_STOP)
		*stopped = true;
	else if (!status && (kind != MESSAGE_START || message.used != sizeof *start))
		status =
		    dsa_fail(err, DSA_E_INPUT,
		             "rank 0 begins with %zu bytes, expected %zu: start one version of this program on all "
		             "machines",
		             message.used, sizeof *start);
	else if (!status)
		memcpy(start, message.data, sizeof *start);
	dsa_record_buffer_release(&message);
	return status;
}

enum dsa_status dsa_ranks_serve(struct dsa_ranks *ranks, struct dsa_evaluator *evaluator,
                                const volatile sig_atomic_t *stop, struct dsa_error *err)
{
	struct server server = {.ranks = ranks};
	char place[sizeof ranks->host + sizeof ranks->device + 2];
	const int length = snprintf(place, sizeof place, "%s: %s", ranks->host, ranks->device);
	enum dsa_status status = send(ranks, MESSAGE_READY, place, (size_t)length, err);
	while (!status) {
		status = take_messages(&server, evaluator->shape, err);
		if (status || server.stopped)
			break;
		if (server.queued)
			status = answer(&server, evaluator, err);
		else if (stop && *stop)
			status = dsa_fail(err, DSA_E_INTERRUPTED, "interrupted by a signal");
		else
			ranks_pause();
	}
	errands_close(server.queued);
	dsa_record_buffer_release(&server.record);
	dsa_record_buffer_release(&server.message);
	return server.stopped ? DSA_OK : status;
}

void dsa_ranks_report(struct dsa_ranks *ranks, enum dsa_status status, struct dsa_error *error)
{
	struct dsa_record_buffer message = {0};
	struct dsa_error late;
	char bytes[sizeof(int32_t) + DSA_ERROR_CHARS];
	const int32_t code = (int32_t)status;
	bool any = false;
	int from, kind = 0;
	dsa_error_prefix(error, "rank %d on %s", ranks->rank, ranks->host);
	memcpy(bytes, &code, sizeof code);
	memcpy(bytes + sizeof code, error->text, sizeof error->text);
	status = send(ranks, MESSAGE_FAILED, bytes, sizeof bytes, &late);
	while (!status && !(any && kind == MESSAGE_STOP)) {
		status = ranks->ops->poll(ranks, DSA_RANK_ANY, &any, &from, &kind, &message, &late);
		if (!any)
			ranks_pause();
	}
	dsa_record_buffer_release(&message);
}
