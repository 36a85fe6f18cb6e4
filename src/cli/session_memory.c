/* What a session may take of the device's memory and of the host's, and what goes where. */
#include <math.h>
#include <string.h>

#include "dsa/plan.h"
#include "dsa/ranks.h"
#include "session.h"

static const double mib = 1048576.0, gib = 1073741824.0;

size_t dsa_session_pool_limit(const struct dsa_session *session)
{
	const struct dsa_ranks *ranks = session->options->ranks;
	const size_t sharers = ranks ? (size_t)ranks->locals : 1;
	return session->options->host_memory ? (size_t)session->options->host_memory
	                                     : dsa_memory_available() / 2 / sharers;
}

int dsa_session_longest(const struct dsa_session *session)
{
	int longest = 1;
	for (int d = 0; d < dsa_spool_documents(session->spool); d++) {
		int tokens = dsa_spool_document(session->spool, d)->tokens;
		longest = tokens > longest ? tokens : longest;
	}
	return longest;
}

/* What passes ask for and what of the device is free for them. */
struct demand {
	struct dsa_plan_demand of; /* no weights, one candidate at a time */
	size_t free_bytes, total_bytes;
	size_t rest;   /* all but the weights */
	size_t stream; /* another candidate */
};

static enum dsa_status find_demand(struct dsa_session *session, struct demand *demand, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = session->evaluator->shape;
	struct dsa_plan_device plan;
	*demand = (struct demand){.of = {.context = dsa_session_longest(session),
	                                 .tokens = 1,
	                                 .scored = 1,
	                                 .wave = 1,
	                                 .patterns = session->patterns}};
	enum dsa_status status =
	    session->backend->ops->memory(session->backend, &demand->free_bytes, &demand->total_bytes, err);
	if (status)
		return status;
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		demand->of.tokens = batch->tokens > demand->of.tokens ? batch->tokens : demand->of.tokens;
		demand->of.scored = batch->scored > demand->of.scored ? batch->scored : demand->of.scored;
	}
	demand->of.overlap = dsa_plan_overlap_limit(demand->free_bytes);
	dsa_plan_device(&plan, &session->config, session->backend, &demand->of);
	demand->rest = plan.total;
	demand->stream = plan.streams;
	return DSA_OK;
}

static size_t less(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

/* What it takes of the memory that `free_bytes` counts. */
static size_t taken(const struct dsa_session *session, uint64_t device)
{
	return (size_t)(device + (dsa_session_on_gpu(session) ? 0 : session->residency.host));
}

/* Most patterns of one question: of the search's, candidates; all other questions have one. */
static enum dsa_status most_patterns(struct dsa_session *session, struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	const int layers = session->config.layers;
	int candidates = 0;
	session->patterns = 1;
	if (options->command != DSA_CMD_CALIBRATE || !strcmp(options->search, "naive"))
		return DSA_OK;
	bool *locked = dsa_arena_alloc(&session->arena, (size_t)layers, sizeof *locked, "constraints", err);
	if (!locked)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_cli_locked(options, layers, locked, err);
	for (int l = 0; l < layers && !status; l++)
		candidates += dsa_plan_is_candidate(session->evaluator->shape, locked, l);
	const int patterns = dsa_plan_patterns(candidates, options->refine);
	session->patterns = patterns > 1 ? patterns : 1;
	return status;
}

static enum dsa_status refuse_host(const struct dsa_session *session, struct dsa_error *err)
{
	const double needed = (double)session->residency.host;
	return dsa_fail(err, DSA_E_MEMORY,
	                "%s: layers that are not on the device are read from disk through %.1f MiB of host memory, of "
	                "which --host-memory leaves %.1f MiB; raise --host-memory to %.0fMiB",
	                session->options->model, needed / mib,
	                (double)dsa_plan_layers_host(dsa_session_pool_limit(session)) / mib,
	                ceil(needed / 3 * 4 / mib));
}

/* Says before anything is loaded what does not fit, and which flag to lower to what. */
static enum dsa_status refuse(const struct dsa_session *session, const struct demand *demand, struct dsa_error *err)
{
	const struct dsa_model_config *config = &session->config;
	const size_t least = taken(session, session->residency.least_device), needed = least + demand->rest;
	if (needed <= demand->free_bytes)
		return refuse_host(session, err);
	if (least > demand->free_bytes)
		return dsa_fail(err, DSA_E_MEMORY,
		                "%s: streaming the layers takes %.1f GiB for weights on this device and %.1f GiB of "
		                "memory are free; use a device with more memory",
		                session->options->model, (double)least / gib, (double)demand->free_bytes / gib);
	struct dsa_plan_demand with = demand->of;
	with.weights = least;
	const int64_t fits = dsa_plan_most_tokens(config, session->backend, &with, demand->free_bytes);
	if (!fits)
		return dsa_fail(err, DSA_E_MEMORY,
		                "%s: %.1f GiB are needed on this device and %.1f GiB are free, too little for a pass "
		                "of any length; use a device with more memory",
		                session->options->model, (double)needed / gib, (double)demand->free_bytes / gib);
	return dsa_fail(err, DSA_E_MEMORY,
	                "%s: %.1f GiB are needed on this device for a pass of %lld tokens and %.1f GiB are free, %.1f "
	                "GiB short; use %s %lld",
	                session->options->model, (double)needed / gib, (long long)demand->of.tokens,
	                (double)demand->free_bytes / gib, (double)(needed - demand->free_bytes) / gib,
	                fits < demand->of.context ? "--context" : "--batch-tokens", (long long)fits);
}

/* The device with so many bytes of weights. */
static void plan_device(struct dsa_session *session, struct demand *demand, uint64_t weights)
{
	demand->of.weights = weights;
	demand->of.wave = session->wave;
	dsa_plan_device(&session->device, &session->config, session->backend, &demand->of);
}

static uint64_t whole_model(const struct dsa_sizes *sizes)
{
	uint64_t bytes = sizes->outside;
	for (int l = 0; l < sizes->layers; l++)
		bytes += sizes->layer[l].device;
	return bytes;
}

static enum dsa_status plan_layers(struct dsa_session *session, const struct dsa_sizes *sizes,
                                   const struct demand *demand, struct dsa_error *err)
{
	const struct dsa_plan_room room = {.device = less(demand->free_bytes, demand->rest),
	                                   .host = dsa_session_pool_limit(session),
	                                   .shared = !dsa_session_on_gpu(session),
	                                   .stream = demand->stream,
	                                   .patterns = session->patterns,
	                                   .batches = session->evaluator->shape->batches};
	const enum dsa_place best = dsa_cli_residency(session->options);
	return dsa_plan_layers(&session->residency, &session->wave, sizes, best, &room) ? DSA_OK
	                                                                                : refuse(session, demand, err);
}

/* Overlap's memory is lent while it is measured; what the stash leaves is for that too. */
static size_t stash_room(const struct dsa_session *session, const struct demand *demand)
{
	const struct dsa_ops *ops = session->backend->ops;
	const struct dsa_backend_limits limits =
	    dsa_forward_limits(&session->config, demand->of.context, demand->of.tokens, demand->of.tokens);
	if (!ops->stash_reserve)
		return 0;
	return less(demand->free_bytes,
	            session->device.total - session->device.overlap + ops->stash_reserve(&limits, demand->total_bytes));
}

/* Layers that stay on the device as stored pass through one image of host memory, or through a buffer of those that
 * are read between visits. */
static uint64_t passing(const struct dsa_session *session, const struct dsa_sizes *sizes)
{
	uint64_t largest = 0;
	for (int l = 0; l < sizes->layers; l++)
		largest = sizes->layer[l].image > largest ? sizes->layer[l].image : largest;
	return session->residency.layers[DSA_PLACE_STORED] && !session->residency.layers[DSA_PLACE_DISK] ? largest : 0;
}

enum dsa_status dsa_session_plan_memory(struct dsa_session *session, struct dsa_error *err)
{
	const struct dsa_plan_device *plan = &session->device;
	struct demand demand;
	struct dsa_sizes *sizes = dsa_arena_alloc(&session->arena, 1, sizeof *sizes, "the layers' sizes", err);
	session->wave = 1;
	session->host_memory = dsa_session_pool_limit(session);
	if (!sizes)
		return DSA_E_MEMORY;
	enum dsa_status status =
	    dsa_model_sizes(sizes, &session->config, session->options->model, session->backend->weight, err);
	if (!status)
		status = most_patterns(session, err);
	if (!status)
		status = find_demand(session, &demand, err);
	if (status)
		return status;
	session->overlap_memory = demand.of.overlap;
	status = plan_layers(session, sizes, &demand, err);
	if (status) {
		/* What a dry run says of a model that does not fit. */
		session->residency = (struct dsa_residency){0};
		session->wave = 1;
		plan_device(session, &demand, whole_model(sizes));
		return status;
	}
	session->host_memory = less(session->host_memory, session->residency.host);
	plan_device(session, &demand, session->residency.device);
	session->stash_room = stash_room(session, &demand);
	session->passing = passing(session, sizes);
	dsa_log_line(&session->terminal->log, DSA_LOG_DEBUG,
	             "device memory: %.2f GiB weights, %.2f GiB for a pass of %lld tokens, %.2f GiB for %d patterns "
	             "at a time, %.2f GiB scratch, %.2f GiB hidden states, %.2f GiB overlap; %.2f GiB free",
	             (double)plan->weights / gib, (double)plan->workspace / gib, (long long)demand.of.tokens,
	             (double)plan->streams / gib, session->wave, (double)plan->scratch / gib,
	             (double)plan->hidden / gib, (double)plan->overlap / gib, (double)demand.free_bytes / gib);
	return DSA_OK;
}
