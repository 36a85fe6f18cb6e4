/* --dry-run: the documents, the work, memory and disk of a command, and its time from one batch. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "commands.h"
#include "dsa/file.h"
#include "dsa/journal_record.h"
#include "dsa/json_writer.h"
#include "dsa/plan.h"
#include "dsa/states.h"
#include "session.h"
#include "summary.h"

/* What one batch says. */
struct probe {
	bool done;
	int batch;
	int64_t executed;                   /* of the last question */
	double record_bytes, overlap_bytes; /* journal, per document */
	double seconds;                     /* the probe itself, without loading */
	struct dsa_plan_rates rates;
	struct dsa_record_buffer buffer;
};

struct dry_run {
	struct dsa_session *session;
	const struct dsa_evaluator_shape *shape;
	bool *locked; /* (L) */
	struct dsa_plan plan;
	struct dsa_plan_memory memory;
	size_t weights, workspace, streams, limit;
	int batches_kept;                  /* that keep keys and reference */
	int base_states, candidate_states; /* layers in front of which states are kept at first */
	uint64_t spool_bytes;
	double load_seconds;
	struct probe probe;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum dsa_status plan_work(struct dry_run *dry, struct dsa_error *err)
{
	struct dsa_session *session = dry->session;
	const struct dsa_cli_options *options = session->options;
	const int layers = session->config.layers;
	dry->locked = dsa_arena_alloc(&session->arena, (size_t)layers, sizeof *dry->locked, "constraints", err);
	if (!dry->locked)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_cli_locked(options, layers, dry->locked, err);
	if (status)
		return status;
	enum { UNIFORM = 2 };
	if (options->command == DSA_CMD_CALIBRATE)
		dsa_plan_calibrate(&dry->plan, dry->shape, dry->locked, UNIFORM + options->baseline.count,
		                   strcmp(options->search, "naive") != 0);
	else if (options->command == DSA_CMD_EVALUATE)
		dsa_plan_evaluate(&dry->plan, dry->shape);
	else
		dsa_plan_overlap(&dry->plan, dry->shape);
	return DSA_OK;
}

/* The pool as it would be planned for the first step. */
static enum dsa_status plan_states(struct dry_run *dry, const size_t *image, struct dsa_error *err)
{
	struct dsa_states *states;
	const struct dsa_evaluator_shape *shape = dry->shape;
	const size_t batches = (size_t)shape->batches;
	if (!dry->memory.state)
		return DSA_OK;
	bool *heldout = dsa_arena_alloc(&dry->session->arena, batches, sizeof *heldout, "a plan", err);
	if (!heldout)
		return DSA_E_MEMORY;
	for (int b = 0; b < shape->batches; b++)
		heldout[b] = shape->batch[b].split == DSA_HELDOUT;
	enum dsa_status status =
	    dsa_states_open(&states, NULL, shape->layers, shape->batches, image, heldout, dry->memory.pool, err);
	if (status)
		return status;
	status = dsa_states_rebase(states, shape->reference, NULL, 0, err);
	if (!status)
		dsa_states_plan(states, &dry->base_states, &dry->candidate_states);
	dsa_states_close(states);
	return status;
}

static enum dsa_status plan_memory(struct dry_run *dry, struct dsa_error *err)
{
	struct dsa_session *session = dry->session;
	const struct dsa_evaluator_shape *shape = dry->shape;
	struct dsa_arena *arena = &session->arena;
	size_t documents = (size_t)shape->documents, batches = (size_t)shape->batches;
	int64_t most = 1;
	int *tokens = dsa_arena_alloc(arena, documents, sizeof *tokens, "a plan", err);
	struct dsa_pass_document *scratch = dsa_arena_alloc(arena, documents, sizeof *scratch, "a plan", err);
	bool *allowed = dsa_arena_alloc(arena, batches, sizeof *allowed, "a plan", err);
	size_t *image = dsa_arena_alloc(arena, batches, sizeof *image, "a plan", err);
	if (!tokens || !scratch || !allowed || !image)
		return DSA_E_MEMORY;
	for (int d = 0; d < shape->documents; d++)
		tokens[d] = dsa_spool_document(session->spool, d)->tokens;
	for (int b = 0; b < shape->batches; b++)
		most = shape->batch[b].tokens > most ? shape->batch[b].tokens : most;
	dry->weights = (size_t)dsa_model_weight_bytes(&session->config, session->backend->weight);
	dry->workspace = dsa_forward_bytes(&session->config, session->backend, most, most, 0);
	dry->streams = (size_t)session->wave * dsa_forward_stream_bytes(&session->config, most);
	dry->limit = session->model ? session->host_memory : dsa_session_pool_limit(session);
	if (strcmp(session->options->search, "naive") != 0)
		dsa_plan_memory(&dry->memory, shape, tokens, &session->config, session->backend->act, dry->limit,
		                scratch, allowed, image);
	for (int b = 0; b < shape->batches; b++)
		dry->batches_kept += allowed[b];
	return plan_states(dry, image, err);
}

static enum dsa_status take_pattern(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                    int64_t executed, struct dsa_error *err)
{
	struct dry_run *dry = context;
	const struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN,
	                                   .batch = dry->probe.batch,
	                                   .pattern = dry->shape->reference,
	                                   .layers = (size_t)dry->shape->layers};
	(void)index;
	dry->probe.executed = executed;
	enum dsa_status status = dsa_record_write_pattern(&dry->probe.buffer, &key, stats, count, err);
	if (!status)
		dry->probe.record_bytes = (double)dry->probe.buffer.used / count;
	return status;
}

static enum dsa_status take_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                    struct dsa_error *err)
{
	struct dry_run *dry = context;
	const struct dsa_record_key key = {.kind = DSA_RECORD_OVERLAP, .batch = dry->probe.batch, .pattern = ""};
	enum dsa_status status = dsa_record_write_overlap(&dry->probe.buffer, &key, overlap, count, err);
	if (!status)
		dry->probe.overlap_bytes = (double)dry->probe.buffer.used / count;
	return status;
}

/* Seconds of one question on the probe's batch; what it ran is in probe.executed. */
static enum dsa_status ask(struct dry_run *dry, const char *pattern, double *seconds, struct dsa_error *err)
{
	struct dsa_evaluator *evaluator = dry->session->evaluator;
	const struct dsa_ask question = {
	    .base = dry->shape->reference, .patterns = &pattern, .count = 1, .batch = dry->probe.batch};
	const struct dsa_sink sink = {.pattern = take_pattern, .context = dry};
	double begun = now();
	enum dsa_status status = evaluator->evaluate(evaluator, &question, &sink, err);
	*seconds = now() - begun;
	return status;
}

/* Seconds per token-layer of a pattern, its products with the vocabulary taken off. */
static enum dsa_status rate_of(struct dry_run *dry, const char *pattern, double head_seconds, double *rate,
                               struct dsa_error *err)
{
	double seconds;
	enum dsa_status status = ask(dry, pattern, &seconds, err);
	if (!status && dry->probe.executed)
		*rate = fmax(seconds - head_seconds, 0) / (double)dry->probe.executed;
	return status;
}

/* The reference with its first candidate layers shared: one of them, or all. */
static enum dsa_status rates_of_candidates(struct dry_run *dry, double head_seconds, struct dsa_error *err)
{
	struct dsa_plan_rates *rates = &dry->probe.rates;
	const int layers = dry->shape->layers;
	enum dsa_status status = DSA_OK;
	rates->full = rates->shared = rates->whole;
	char *pattern = dsa_arena_text(&dry->session->arena, dry->shape->reference, (size_t)layers, err);
	if (!pattern)
		return DSA_E_MEMORY;
	int flipped = 0;
	for (int l = 1; l < layers && !status; l++) {
		if (pattern[l] != 'F' || dry->locked[l])
			continue;
		pattern[l] = 'S';
		if (flipped++ == 0)
			status = rate_of(dry, pattern, head_seconds, &rates->full, err);
	}
	if (flipped == 1)
		rates->shared = rates->full;
	else if (flipped > 1 && !status)
		status = rate_of(dry, pattern, head_seconds, &rates->shared, err);
	return status;
}

static enum dsa_status run_probe(struct dry_run *dry, struct dsa_error *err)
{
	struct dsa_evaluator *evaluator = dry->session->evaluator;
	struct probe *probe = &dry->probe;
	const struct dsa_sink sink = {.overlap = take_overlap, .context = dry};
	probe->batch = dsa_plan_probe_batch(dry->shape);
	const struct dsa_evaluator_batch *batch = &dry->shape->batch[probe->batch];
	double begun = now(), seconds;
	enum dsa_status status = evaluator->overlap(evaluator, probe->batch, &sink, err);
	probe->rates.whole = (now() - begun) / ((double)batch->tokens * dry->shape->layers);
	if (!status && dry->plan.head) {
		status = ask(dry, dry->shape->reference, &seconds, err);
		double head = fmax(seconds - (double)probe->executed * probe->rates.whole, 0);
		probe->rates.head = head / (2 * (double)batch->scored);
		if (!status)
			status = rates_of_candidates(dry, head, err);
	}
	probe->seconds = now() - begun;
	probe->done = !status;
	return status;
}

/* Weights that do not fit are an answer, not a fault: the plan is printed without the time. */
static enum dsa_status load(struct dry_run *dry, bool *loaded, struct dsa_error *err)
{
	double begun = now();
	enum dsa_status status = dsa_session_load_model(dry->session, err);
	dry->load_seconds = now() - begun;
	*loaded = !status;
	if (status != DSA_E_MEMORY)
		return status;
	dsa_log_line(&dry->session->terminal->log, DSA_LOG_WARN, "no estimate of the time: %s", err->text);
	return DSA_OK;
}

static enum dsa_status measure_spool(struct dry_run *dry, struct dsa_error *err)
{
	char *path;
	struct stat file;
	enum dsa_status status = dsa_file_join(&dry->session->arena, dry->session->temporary, "tokens", &path, err);
	if (!status && !stat(path, &file))
		dry->spool_bytes = (uint64_t)file.st_size;
	return status;
}

static double journal_bytes(const struct dry_run *dry)
{
	return dry->probe.record_bytes * (double)dry->plan.records +
	       dry->probe.overlap_bytes * (double)dry->plan.overlaps;
}

/* Token-layers that refinement may take after a full trace. */
static double refine_most(const struct dry_run *dry)
{
	const struct dsa_cli_options *options = dry->session->options;
	const bool refines =
	    options->command == DSA_CMD_CALIBRATE && options->refine && strcmp(options->search, "naive") != 0;
	return refines ? options->refine_work * (double)dry->plan.token_layers : 0;
}

/* Without refinement, which stops where it is told to. */
static double seconds(const struct dry_run *dry, bool most)
{
	return dry->load_seconds + dsa_plan_seconds(&dry->plan, &dry->probe.rates, most);
}

static int batches_of(const struct dsa_evaluator_shape *shape, int corpus, int split)
{
	int count = 0;
	for (int b = 0; b < shape->batches; b++)
		count += shape->batch[b].corpus == corpus && shape->batch[b].split == split;
	return count;
}

/* Named as in results.json where that has the same. */
static void write_corpora(struct dsa_json_writer *json, const struct dry_run *dry)
{
	dsa_json_array(json, "corpora");
	for (int c = 0; c < dry->shape->corpora; c++) {
		const struct dsa_spool_corpus *corpus = dsa_spool_corpus(dry->session->spool, c);
		dsa_json_object(json, NULL);
		dsa_json_put_text(json, "name", corpus->name);
		dsa_json_put_real(json, "weight", corpus->weight);
		dsa_json_put_int(json, "documents", corpus->documents);
		dsa_json_put_int(json, "documents_calibration", corpus->documents_in[DSA_CALIBRATION]);
		dsa_json_put_int(json, "documents_heldout", corpus->documents_in[DSA_HELDOUT]);
		dsa_json_put_int(json, "unscored", corpus->unscored);
		dsa_json_put_int(json, "cut", corpus->cut);
		dsa_json_put_int(json, "tokens", corpus->tokens);
		dsa_json_put_int(json, "cut_tokens", corpus->cut_tokens);
		dsa_json_put_int(json, "scored", corpus->scored);
		dsa_json_put_int(json, "scored_calibration", corpus->scored_in[DSA_CALIBRATION]);
		dsa_json_put_int(json, "scored_heldout", corpus->scored_in[DSA_HELDOUT]);
		dsa_json_put_int(json, "batches_calibration", batches_of(dry->shape, c, DSA_CALIBRATION));
		dsa_json_put_int(json, "batches_heldout", batches_of(dry->shape, c, DSA_HELDOUT));
		dsa_json_end(json);
	}
	dsa_json_end(json);
}

static void write_search(struct dsa_json_writer *json, const struct dry_run *dry)
{
	const struct dsa_plan *plan = &dry->plan;
	dsa_json_object(json, "search");
	dsa_json_put_int(json, "candidate_layers", plan->candidates);
	dsa_json_put_int(json, "evaluations", plan->evaluations);
	dsa_json_put_int(json, "token_layers_least", plan->token_layers);
	dsa_json_put_int(json, "token_layers_most", plan->most);
	dsa_json_put_int(json, "token_layers_naive", plan->naive);
	dsa_json_put_real(json, "refine_token_layers_most", floor(refine_most(dry)));
	dsa_json_end(json);
}

static void write_memory(struct dsa_json_writer *json, const struct dry_run *dry)
{
	dsa_json_object(json, "memory");
	dsa_json_put_uint(json, "weights", dry->weights);
	dsa_json_put_uint(json, "workspace", dry->workspace);
	dsa_json_put_int(json, "candidates_together", dry->session->wave);
	dsa_json_put_uint(json, "candidates", dry->streams);
	dsa_json_put_uint(json, "limit", dry->limit);
	dsa_json_put_uint(json, "keys_and_references", dry->memory.kept);
	dsa_json_put_int(json, "batches", dry->shape->batches);
	dsa_json_put_int(json, "batches_kept", dry->batches_kept);
	dsa_json_put_uint(json, "state_pool", dry->memory.pool);
	dsa_json_put_uint(json, "state_of_one_layer", dry->memory.state);
	dsa_json_put_int(json, "base_layers_kept", dry->base_states);
	dsa_json_put_int(json, "candidate_layers_kept", dry->candidate_states);
	dsa_json_end(json);
}

static void write_time(struct dsa_json_writer *json, const struct dry_run *dry)
{
	const struct probe *probe = &dry->probe;
	if (!probe->done) {
		dsa_json_put_null(json, "seconds");
		return;
	}
	dsa_json_object(json, "seconds");
	dsa_json_put_real(json, "load", dry->load_seconds);
	dsa_json_put_real(json, "least", seconds(dry, false));
	dsa_json_put_real(json, "most", seconds(dry, true));
	dsa_json_put_int(json, "probe_batch", probe->batch);
	dsa_json_put_real(json, "probe", probe->seconds);
	dsa_json_put_real(json, "per_token_layer_whole", probe->rates.whole);
	dsa_json_put_real(json, "per_token_layer_full", probe->rates.full);
	dsa_json_put_real(json, "per_token_layer_shared", probe->rates.shared);
	dsa_json_put_real(json, "per_token_head", probe->rates.head);
	dsa_json_end(json);
}

static void write_json(struct dsa_text *text, const struct dry_run *dry)
{
	struct dsa_json_writer json;
	const struct dsa_cli_options *options = dry->session->options;
	dsa_json_writer_init(&json, text, 2);
	dsa_json_object(&json, NULL);
	dsa_json_put_int(&json, "schema", 1);
	dsa_json_put_text(&json, "command", dsa_cli_commands[options->command].name);
	write_corpora(&json, dry);
	if (options->command == DSA_CMD_CALIBRATE)
		write_search(&json, dry);
	write_memory(&json, dry);
	dsa_json_object(&json, "disk");
	dsa_json_put_uint(&json, "tokens", dry->spool_bytes);
	dsa_json_put_real(&json, "journal", dry->probe.done ? ceil(journal_bytes(dry)) : NAN);
	dsa_json_end(&json);
	write_time(&json, dry);
	dsa_json_end(&json);
}

static void add_mib(struct dsa_text *text, double bytes)
{
	dsa_text_printf(text, "%.1f MiB", bytes / 1048576.0);
}

static void add_duration(struct dsa_text *text, double s)
{
	if (s < 120)
		dsa_text_printf(text, "%.1f s", s);
	else if (s < 7200)
		dsa_text_printf(text, "%.0f min", s / 60);
	else
		dsa_text_printf(text, "%.1f h", s / 3600);
}

static void add_corpora(struct dsa_text *text, const struct dry_run *dry)
{
	for (int c = 0; c < dry->shape->corpora; c++) {
		const struct dsa_spool_corpus *corpus = dsa_spool_corpus(dry->session->spool, c);
		dsa_text_printf(text, "%-13s ", c ? "" : "documents");
		dsa_text_utf8(text, corpus->name);
		dsa_text_printf(text, ": %d, %lld tokens; %d without a scored token, %d cut by %lld tokens\n",
		                corpus->documents, (long long)corpus->tokens, corpus->unscored, corpus->cut,
		                (long long)corpus->cut_tokens);
		for (int split = 0; split < DSA_SPLITS; split++)
			if (corpus->documents_in[split])
				dsa_text_printf(text, "%-13s   %s: %d documents, %lld scored tokens, %d batches\n", "",
				                split == DSA_HELDOUT ? "held out" : "calibration",
				                corpus->documents_in[split], (long long)corpus->scored_in[split],
				                batches_of(dry->shape, c, split));
	}
}

static void add_memory(struct dsa_text *text, const struct dry_run *dry)
{
	dsa_text_printf(text, "%-13s ", "memory");
	add_mib(text, (double)dry->weights);
	dsa_text_add(text, " weights, ");
	add_mib(text, (double)dry->workspace);
	dsa_text_add(text, " workspace, ");
	add_mib(text, (double)dry->streams);
	dsa_text_printf(text, " for %d candidates at a time\n%-13s of --host-memory ", dry->session->wave, "");
	add_mib(text, (double)dry->limit);
	dsa_text_add(text, ": ");
	add_mib(text, (double)dry->memory.kept);
	dsa_text_printf(text, " for keys and references of %d of %d batches, ", dry->batches_kept, dry->shape->batches);
	add_mib(text, (double)dry->memory.pool);
	dsa_text_add(text, " for states");
	if (dry->session->options->command == DSA_CMD_CALIBRATE) {
		dsa_text_add(text, " of ");
		add_mib(text, (double)dry->memory.state);
		dsa_text_printf(text, " per layer,\n%-13s kept in front of %d layers of the base, %d of candidates", "",
		                dry->base_states, dry->candidate_states);
	}
	dsa_text_add(text, "\n");
}

static void add_time(struct dsa_text *text, const struct dry_run *dry)
{
	bool range = dry->plan.suffix_most > dry->plan.suffix_least;
	dsa_text_printf(text, "%-13s ", "time");
	if (!dry->probe.done) {
		dsa_text_add(text, "not estimated\n");
		return;
	}
	dsa_text_add(text, "about ");
	add_duration(text, seconds(dry, false));
	if (range) {
		dsa_text_add(text, " with every state kept, ");
		add_duration(text, seconds(dry, true));
		dsa_text_add(text, " with none");
	}
	if (dry->session->options->command == DSA_CMD_CALIBRATE && !strcmp(dry->session->options->search, "racing"))
		dsa_text_add(text, "; less as far as candidates leave the race early");
	dsa_text_printf(text, "; from batch %d, measured in ", dry->probe.batch);
	add_duration(text, dry->probe.seconds);
	dsa_text_add(text, "\n");
}

static void write_text(struct dsa_text *text, const struct dry_run *dry)
{
	const struct dsa_plan *plan = &dry->plan;
	add_corpora(text, dry);
	if (dry->session->options->command == DSA_CMD_CALIBRATE) {
		dsa_text_printf(text,
		                "%-13s %d of %d layers can be flipped; a full trace asks for %lld patterns, a budget "
		                "that binds for fewer\n",
		                "search", plan->candidates, dry->shape->layers, (long long)plan->evaluations);
		dsa_text_printf(text, "%-13s %.3g token-layers with every state kept, %.3g with none, %.3g naive\n",
		                "work", (double)plan->token_layers, (double)plan->most, (double)plan->naive);
		if (refine_most(dry) > 0)
			dsa_text_printf(text, "%-13s up to %.3g token-layers more, not in the time below\n",
			                "refinement", refine_most(dry));
	}
	add_memory(text, dry);
	dsa_text_printf(text, "%-13s ", "disk");
	add_mib(text, (double)dry->spool_bytes);
	dsa_text_add(text, " tokens");
	if (dry->probe.done && dry->session->options->command != DSA_CMD_EVALUATE) {
		dsa_text_add(text, ", about ");
		add_mib(text, journal_bytes(dry));
		dsa_text_add(text, " journal");
	}
	dsa_text_add(text, "\n");
	add_time(text, dry);
}

static enum dsa_status plan_all(struct dry_run *dry, struct dsa_error *err)
{
	bool loaded = false;
	enum dsa_status status = plan_work(dry, err);
	if (!status)
		status = measure_spool(dry, err);
	if (!status)
		status = load(dry, &loaded, err);
	if (!status)
		status = plan_memory(dry, err);
	if (!status && loaded)
		status = run_probe(dry, err);
	return status;
}

int dsa_dry_run(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_session session;
	struct dsa_text text = {0};
	int code = 0;
	enum dsa_status status = dsa_session_open(&session, options, terminal, &err);
	if (status)
		return dsa_terminal_fail(terminal, status, &err);
	struct dry_run dry = {.session = &session, .shape = session.evaluator->shape};
	status = plan_all(&dry, &err);
	if (!status) {
		if (options->json)
			write_json(&text, &dry);
		else
			write_text(&text, &dry);
		status = dsa_print_text(&text, "the plan", &err);
	}
	if (status)
		code = dsa_terminal_fail(terminal, status, &err);
	dsa_record_buffer_release(&dry.probe.buffer);
	dsa_session_close(&session);
	return code;
}
