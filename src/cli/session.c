#include "session.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dsa/arena.h"
#include "dsa/csv.h"
#include "dsa/file.h"
#include "dsa/hash.h"
#include "dsa/model_evaluator.h"
#include "dsa/plan.h"
#include "dsa/provenance.h"
#include "dsa/ranks_evaluator.h"
#include "config_file.h"
#include "documents.h"
#include "run_files.h"
#include "spill_limit.h"

/* Opens the model when the first question reaches it: a finished run is written again without loading one. */
struct lazy_evaluator {
	struct dsa_evaluator evaluator;
	struct dsa_session *session;
};

enum dsa_status dsa_session_path(struct dsa_session *session, const char *name, char **out, struct dsa_error *err)
{
	return dsa_file_join(&session->arena, session->run, name, out, err);
}

/* Files that a run leaves, and what a killed one may have left aside. */
static bool belongs_to_run(const char *name)
{
	static const char *const known[] = {"config.yaml", "journal", "log.txt",      "results.json", "pattern.yaml",
	                                    "report.html", "tokens",  "overlap.json", "tokens.check"};
	if (strstr(name, ".tmp-"))
		return true;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(name, known[i]))
			return true;
	for (int i = 0; i < DSA_CSV_TABLES; i++)
		if (!strcmp(name, dsa_csv_tables[i].file))
			return true;
	return false;
}

static enum dsa_status make_path(const char *path, struct dsa_arena *arena, struct dsa_error *err)
{
	char *copy = dsa_arena_text(arena, path, strlen(path), err);
	if (!copy)
		return DSA_E_MEMORY;
	for (char *slash = copy + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		enum dsa_status status = dsa_file_make_directory(copy, err);
		if (status)
			return status;
		*slash = '/';
	}
	return dsa_file_make_directory(copy, err);
}

/* The rules of --out and --resume (design.md, Command line). */
static enum dsa_status take_run_directory(struct dsa_session *session, struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	char **names;
	size_t count;
	session->run = dsa_arena_text(&session->arena, options->out, strlen(options->out), err);
	if (!session->run)
		return DSA_E_MEMORY;
	if (!*session->run)
		return dsa_fail(err, DSA_E_USAGE, "--out is empty");
	enum dsa_status status = make_path(session->run, &session->arena, err);
	if (status)
		return status;
	status = dsa_file_list(session->run, &session->arena, &names, &count, err);
	if (status)
		return status;
	/* A start that was refused (a missing corpus, say) leaves a log and nothing to lose. */
	bool empty = count == 0 || (count == 1 && !strcmp(names[0], "log.txt"));
	if (!empty && !options->resume)
		return dsa_fail(err, DSA_E_USAGE,
		                "--out %s is not empty: add --resume to go on with it, or name another", session->run);
	for (size_t i = 0; i < count; i++) {
		if (!belongs_to_run(names[i]))
			return dsa_fail(err, DSA_E_USAGE,
			                "--out %s: '%s' is no file of a run: name the run's own directory",
			                session->run, names[i]);
		char *path;
		if (!strstr(names[i], ".tmp-"))
			continue;
		status = dsa_session_path(session, names[i], &path, err);
		if (status)
			return status;
		unlink(path); /* written aside by a killed process, never renamed */
	}
	session->resumed = !empty;
	char *log;
	status = dsa_session_path(session, "log.txt", &log, err);
	return status ? status : dsa_terminal_log_to(session->terminal, log, err);
}

/* The batches that this rank answers for; NULL where there are no others. */
static enum dsa_status find_own(struct dsa_session *session, const bool **mine, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = session->evaluator->shape;
	const struct dsa_ranks *ranks = session->options->ranks;
	*mine = NULL;
	if (!ranks)
		return DSA_OK;
	int *owner = dsa_arena_alloc(&session->arena, (size_t)shape->batches, sizeof *owner, "batches", err);
	bool *own = dsa_arena_alloc(&session->arena, (size_t)shape->batches, sizeof *own, "batches", err);
	if (!owner || !own)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_ranks_owners(shape, ranks->count, owner, err);
	for (int b = 0; b < shape->batches && !status; b++)
		own[b] = owner[b] == ranks->rank;
	*mine = own;
	return status;
}

enum dsa_status dsa_session_fixed(struct dsa_session *session, const bool **fixed, struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	const char *pattern, *reference = session->config.native;
	const int layers = session->config.layers;
	*fixed = NULL;
	if (options->command != DSA_CMD_CALIBRATE && options->command != DSA_CMD_EVALUATE)
		return DSA_OK;
	bool *of = dsa_arena_alloc(&session->arena, (size_t)layers, sizeof *of, "constraints", err);
	if (!of)
		return DSA_E_MEMORY;
	*fixed = of;
	if (options->command == DSA_CMD_CALIBRATE)
		return dsa_cli_locked(options, layers, of, err);
	enum dsa_status status =
	    dsa_cli_pattern(options->pattern, "--pattern", layers, NULL, &session->arena, &pattern, err);
	/* One pattern is asked, which leaves the reference once. */
	int first = 0;
	while (!status && first < layers && pattern[first] == reference[first])
		first++;
	for (int l = 0; l < layers && !status; l++)
		of[l] = l != first;
	return status;
}

enum dsa_status dsa_session_load_model(struct dsa_session *session, struct dsa_error *err)
{
	const bool *mine, *fixed;
	if (session->runs_model)
		return DSA_OK;
	enum dsa_status status = dsa_session_plan_memory(session, err);
	if (!status)
		status = find_own(session, &mine, err);
	if (!status)
		status = dsa_session_fixed(session, &fixed, err);
	if (status)
		return status;
	status = dsa_model_open(&session->model, session->backend, session->options->model,
	                        dsa_session_longest(session), &session->residency, &session->terminal->log, err);
	if (status)
		return status;
	session->model->config.index_precision = session->config.index_precision;
	session->spill = dsa_spill_limit(session->options, dsa_session_on_gpu(session), session->host_memory);
	const struct dsa_model_evaluator_options options = {.host_memory = session->host_memory,
	                                                    .spill_directory = session->run,
	                                                    .spill = session->spill,
	                                                    .spill_zstd = session->options->spill_zstd,
	                                                    .overlap_memory = session->overlap_memory,
	                                                    .wave = session->wave,
	                                                    .patterns = session->patterns,
	                                                    .fixed = fixed,
	                                                    .naive = !strcmp(session->options->search, "naive"),
	                                                    .mine = mine,
	                                                    .stop = dsa_terminal_stop_flag(),
	                                                    .log = &session->terminal->log};
	return dsa_model_evaluator_open(&session->runs_model, session->model, session->spool, session->config.native,
	                                &options, err);
}

static enum dsa_status lazy_evaluate(struct dsa_evaluator *self, const struct dsa_ask *ask, const struct dsa_sink *sink,
                                     struct dsa_error *err)
{
	struct dsa_session *session = ((struct lazy_evaluator *)self)->session;
	enum dsa_status status = dsa_session_load_model(session, err);
	return status ? status : session->runs_model->evaluate(session->runs_model, ask, sink, err);
}

static enum dsa_status lazy_overlap(struct dsa_evaluator *self, int batch, const struct dsa_sink *sink,
                                    struct dsa_error *err)
{
	struct dsa_session *session = ((struct lazy_evaluator *)self)->session;
	enum dsa_status status = dsa_session_load_model(session, err);
	return status ? status : session->runs_model->overlap(session->runs_model, batch, sink, err);
}

static enum dsa_status lazy_announce(struct dsa_evaluator *self, const struct dsa_coming *coming, int count,
                                     const struct dsa_early *early, struct dsa_error *err)
{
	struct dsa_session *session = ((struct lazy_evaluator *)self)->session;
	/* What a journal knows is no reason to load a model. */
	enum dsa_status status = count ? dsa_session_load_model(session, err) : DSA_OK;
	if (status || !session->runs_model)
		return status;
	return session->runs_model->announce(session->runs_model, coming, count, early, err);
}

static void lazy_close(struct dsa_evaluator *self)
{
	(void)self; /* lies in the session's arena; the model's evaluator is closed by the session */
}

static enum dsa_status open_journal(struct dsa_session *session, struct dsa_error *err)
{
	struct dsa_journal_field *options, *fields;
	int option_count;
	char *path;
	char *documents = dsa_arena_alloc(&session->arena, DSA_HASH_HEX, 1, "a digest", err);
	if (!documents)
		return DSA_E_MEMORY;
	dsa_session_documents_digest(session, documents);
	enum dsa_status status = dsa_cli_config_fields(session->options, &session->arena, &options, &option_count, err);
	if (!status)
		status = dsa_session_path(session, "journal", &path, err);
	if (status)
		return status;
	enum { FIXED = 5 };
	fields = dsa_arena_alloc(&session->arena, (size_t)option_count + FIXED, sizeof *fields, "journal fields", err);
	if (!fields)
		return DSA_E_MEMORY;
	/* The device's kind only: another card of the same kind goes on; another kind of device gives other bits. */
	const char *kind = dsa_session_device_kind(session);
	const struct dsa_journal_field fixed[FIXED] = {
	    {"command", dsa_cli_commands[session->options->command].name},
	    {"model fingerprint", session->fingerprint},
	    {"documents", documents},
	    {"reference pattern", session->config.native},
	    {"device kind", kind},
	};
	memcpy(fields, fixed, sizeof fixed);
	memcpy(fields + FIXED, options, (size_t)option_count * sizeof *fields);
	return dsa_journal_open(&session->journal, path, fields, option_count + FIXED, &session->terminal->log, err);
}

static enum dsa_status write_config(struct dsa_session *session, struct dsa_error *err)
{
	const char *text;
	char *path;
	enum dsa_status status = dsa_cli_config_yaml(session->options, &session->arena, &text, err);
	if (!status)
		status = dsa_session_path(session, "config.yaml", &path, err);
	return status ? status : dsa_file_replace(path, text, strlen(text), err);
}

static enum dsa_status check_options(const struct dsa_cli_options *options, struct dsa_error *err)
{
	const char *name = dsa_cli_commands[options->command].name;
	if (options->operand_count)
		return dsa_fail(err, DSA_E_USAGE, "%s takes no '%s'; see 'dsacal help %s'", name, options->operands[0],
		                name);
	if (!options->model)
		return dsa_fail(err, DSA_E_USAGE, "%s needs --model DIR, a checkpoint directory", name);
	if (!options->corpus.count)
		return dsa_fail(err, DSA_E_USAGE, "%s needs --corpus PATH, the documents to measure on", name);
	if (options->command != DSA_CMD_EVALUATE && options->command != DSA_CMD_VERIFY && !options->out &&
	    !options->dry_run)
		return dsa_fail(err, DSA_E_USAGE, "%s needs --out RUN, the run directory", name);
	if (!(options->delta > 0 && options->delta < 1))
		return dsa_fail(err, DSA_E_USAGE, "--delta is %g, expected more than 0 and less than 1",
		                options->delta);
	if (options->holdout > 0.9)
		return dsa_fail(err, DSA_E_USAGE, "--holdout is %g%%, expected 0%% to 90%%", 100 * options->holdout);
	if (options->context > INT32_MAX || options->batch_tokens > INT32_MAX)
		return dsa_fail(err, DSA_E_USAGE, "--context and --batch-tokens: expected 1 to %d", INT32_MAX);
	if (options->threads > 1024)
		return dsa_fail(err, DSA_E_USAGE, "--threads is %lld, expected at most 1024",
		                (long long)options->threads);
	return DSA_OK;
}

/* What only the model's layers can refuse, before anything is written: a slip must not use up a run directory. */
static enum dsa_status check_request(struct dsa_session *session, struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	const struct dsa_log *log = &session->terminal->log;
	int layers = session->config.layers;
	struct dsa_budget budget;
	const char *pattern;
	bool given;
	bool *locked = dsa_arena_alloc(&session->arena, (size_t)layers, sizeof *locked, "constraints", err);
	if (!locked)
		return DSA_E_MEMORY;
	enum dsa_status status = dsa_cli_budget(options, layers, &budget, &given, err);
	if (!status)
		status = dsa_cli_locked(options, layers, locked, err);
	for (int i = 0; i < options->baseline.count && !status; i++)
		status = dsa_cli_pattern(options->baseline.value[i], "--baseline", layers, log, &session->arena,
		                         &pattern, err);
	if (!status && options->pattern)
		status = dsa_cli_pattern(options->pattern, "--pattern", layers, log, &session->arena, &pattern, err);
	return status;
}

bool dsa_session_on_gpu(const struct dsa_session *session)
{
	return !strncmp(session->backend->name, "cuda", 4);
}

const char *dsa_session_device_kind(const struct dsa_session *session)
{
	return dsa_session_on_gpu(session) ? "cuda" : "cpu";
}

void dsa_session_documents_digest(const struct dsa_session *session, char out[DSA_HASH_HEX])
{
	uint8_t digest[DSA_HASH_BYTES];
	dsa_spool_digest(session->spool, digest);
	dsa_hash_hex(digest, out);
}

static enum dsa_status open_ranked(struct dsa_session *session, struct dsa_evaluator *inner,
                                   const struct dsa_evaluator_shape *shape, struct dsa_error *err)
{
	struct dsa_ranks_start start = {.device = ""};
	memcpy(start.fingerprint, session->fingerprint, sizeof start.fingerprint);
	dsa_session_documents_digest(session, start.documents);
	snprintf(start.device, sizeof start.device, "%s", dsa_session_device_kind(session));
	return dsa_ranks_evaluator_open(&session->ranked, session->options->ranks, inner, shape, &start,
	                                dsa_terminal_stop_flag(), &session->terminal->log, err);
}

static enum dsa_status open_evaluator(struct dsa_session *session, struct dsa_error *err)
{
	struct dsa_evaluator_shape *shape = dsa_arena_alloc(&session->arena, 1, sizeof *shape, "the evaluator", err);
	struct lazy_evaluator *lazy = dsa_arena_alloc(&session->arena, 1, sizeof *lazy, "the evaluator", err);
	if (!shape || !lazy)
		return DSA_E_MEMORY;
	enum dsa_status status =
	    dsa_evaluator_shape_of(shape, session->spool, session->config.layers, session->config.topk,
	                           session->config.native, &session->arena, err);
	if (status)
		return status;
	*lazy = (struct lazy_evaluator){.evaluator = {.shape = shape,
	                                              .evaluate = lazy_evaluate,
	                                              .overlap = lazy_overlap,
	                                              .announce = lazy_announce,
	                                              .close = lazy_close},
	                                .session = session};
	session->evaluator = &lazy->evaluator;
	if (!session->journal)
		return DSA_OK;
	struct dsa_evaluator *inner = &lazy->evaluator;
	if (session->options->ranks) {
		status = open_ranked(session, inner, shape, err);
		inner = session->ranked;
	}
	return status ? status : dsa_journal_evaluator(&session->evaluator, session->journal, inner, shape, err);
}

/* 0: all. Ranks of one machine share its cores, where their launcher has not given each its own. */
static int choose_threads(const struct dsa_cli_options *options)
{
	cpu_set_t allowed;
	if (options->threads || !options->ranks)
		return (int)options->threads;
	long share = sysconf(_SC_NPROCESSORS_ONLN) / options->ranks->locals;
	if (!sched_getaffinity(0, sizeof allowed, &allowed) && CPU_COUNT(&allowed) < share)
		share = CPU_COUNT(&allowed);
	return share > 1 ? (int)share : 1;
}

/* Ranks of one machine may see a GPU each under one and the same number: its address tells which one it is. */
static void name_device(const struct dsa_session *session)
{
	const struct dsa_backend *backend = session->backend;
	struct dsa_ranks *ranks = session->options->ranks;
	if (ranks)
		snprintf(ranks->device, sizeof ranks->device, "%s%s%s", backend->name, *backend->address ? " at " : "",
		         backend->address);
}

/* "" where there is none: documents of ids need none. */
static enum dsa_status hash_tokenizer(struct dsa_session *session, struct dsa_error *err)
{
	char *path;
	struct dsa_mapping map;
	uint8_t digest[DSA_HASH_BYTES];
	enum dsa_status status = dsa_file_join(&session->arena, session->options->model, "tokenizer.json", &path, err);
	if (status || !dsa_file_exists(path))
		return status;
	status = dsa_mapping_open(&map, path, err);
	if (status)
		return status;
	dsa_hash_bytes(map.data, map.bytes, digest);
	dsa_hash_hex(digest, session->tokenizer);
	dsa_mapping_close(&map);
	return DSA_OK;
}

enum dsa_status dsa_session_open(struct dsa_session *session, const struct dsa_cli_options *options,
                                 struct dsa_terminal *terminal, struct dsa_error *err)
{
	return dsa_session_open_if(session, options, terminal, NULL, NULL, err);
}

enum dsa_status dsa_session_open_if(struct dsa_session *session, const struct dsa_cli_options *options,
                                    struct dsa_terminal *terminal, dsa_session_admit *admit, void *context,
                                    struct dsa_error *err)
{
	*session = (struct dsa_session){.options = options, .terminal = terminal};
	dsa_arena_init(&session->arena);
	enum dsa_status status = check_options(options, err);
	if (!status)
		status = dsa_model_config_load(&session->config, options->model, &session->arena, err);
	if (!status && !admit)
		status = dsa_cli_precision(options, &session->config, err);
	if (!status)
		status = check_request(session, err);
	if (!status && options->context > session->config.max_positions)
		dsa_log_line(&terminal->log, DSA_LOG_WARN, "--context %lld is beyond the model's %d positions",
		             (long long)options->context, session->config.max_positions);
	const bool serves = options->ranks && options->ranks->rank > 0;
	if (!status && options->out && !options->dry_run && !serves)
		status = take_run_directory(session, err);
	if (!status)
		status = dsa_backend_open(
		    &session->backend,
		    &(struct dsa_backend_options){.device = options->device,
		                                  .instance = options->ranks ? options->ranks->local : 0,
		                                  .threads = choose_threads(options),
		                                  .gpu_memory = options->gpu_memory,
		                                  .log = &terminal->log},
		    err);
	if (!status)
		name_device(session);
	if (!status)
		status = dsa_model_fingerprint(options->model, false, session->fingerprint, err);
	if (!status)
		status = hash_tokenizer(session, err);
	if (!status && admit)
		status = admit(session, context, err);
	/* Only now: of another model it would complain about what nobody has asked of that one. */
	if (!status && admit)
		status = dsa_cli_precision(options, &session->config, err);
	if (!status)
		status = dsa_documents_open(session, err);
	if (!status && session->run)
		status = open_journal(session, err);
	if (!status && session->run)
		status = dsa_documents_check(session, err);
	/* Only now: a refused resume must not touch what describes the run. */
	if (!status && session->run)
		status = write_config(session, err);
	if (!status)
		status = open_evaluator(session, err);
	if (status) {
		dsa_session_forget_start(session, status);
		dsa_session_close(session);
	}
	return status;
}

void dsa_session_forget_start(struct dsa_session *session, enum dsa_status status)
{
	static const char *const made[] = {"journal", "tokens", "config.yaml"};
	const bool damaged = status == DSA_E_INPUT || status == DSA_E_NUMERIC || status == DSA_E_MISSING;
	if (session->resumed || !session->journal)
		return;
	/* Whatever else ends it, what was measured stays. */
	const bool empty = !dsa_journal_records(session->journal);
	if (status != DSA_E_USAGE && !(empty && (damaged || status == DSA_E_MEMORY)))
		return;
	for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
		char *path;
		if (!dsa_session_path(session, made[i], &path, NULL))
			unlink(path);
	}
}

void dsa_session_close(struct dsa_session *session)
{
	if (session->evaluator)
		session->evaluator->close(session->evaluator);
	if (session->ranked)
		session->ranked->close(session->ranked);
	if (session->runs_model)
		session->runs_model->close(session->runs_model);
	dsa_journal_close(session->journal);
	dsa_model_close(session->model);
	dsa_backend_close(session->backend);
	dsa_spool_close(session->spool);
	if (session->temporary) {
		char *path;
		if (!dsa_file_join(&session->arena, session->temporary, "tokens", &path, NULL))
			unlink(path);
		rmdir(session->temporary);
	}
	dsa_arena_release(&session->arena);
}
