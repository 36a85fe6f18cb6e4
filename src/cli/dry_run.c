/* --dry-run: the documents, the work, memory and disk of a command, and its time from one batch. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "dry_run_plan.h"
#include "dsa/clock.h"
#include "dsa/file.h"
#include "dsa/pattern.h"
#include "dsa/states.h"
#include "spill_limit.h"
#include "summary.h"

enum { UNIFORM = 2 };

/* What a run adds to the program that has read its documents: code it had not come to, packed blocks of products,
 * statistics of a step, the report. Measured on the CPU. */
static const size_t running_bytes = (size_t)5 << 20;

/* Bytes of this process that are in memory; 0 where the system does not say. */
static size_t resident(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long pages = 0;
	const long size = sysconf(_SC_PAGESIZE);
	if (file && fscanf(file, "%*u %llu", &pages) != 1)
		pages = 0;
	if (file)
		fclose(file);
	return size > 0 ? (size_t)pages * (size_t)size : 0;
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
	if (options->command == DSA_CMD_CALIBRATE)
		dsa_plan_calibrate(&dry->plan, dry->shape, dry->locked, UNIFORM + options->baseline.count,
		                   session->wave, strcmp(options->search, "naive") != 0);
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
	if (!dry->memory.state) {
		dry->spill = 0;
		dry->kept = dry->memory.kept;
		return DSA_OK;
	}
	bool *heldout = dsa_arena_alloc(&dry->session->arena, batches, sizeof *heldout, "a plan", err);
	if (!heldout)
		return DSA_E_MEMORY;
	for (int b = 0; b < shape->batches; b++)
		heldout[b] = shape->batch[b].split == DSA_HELDOUT;
	const bool zstd = dry->session->options->spill_zstd;
	const struct dsa_states_disk disk = {.limit = dry->spill, .zstd = zstd};
	enum dsa_status status =
	    dsa_states_open(&states, NULL, shape->layers, shape->batches, image, heldout, dry->memory.pool, &disk, err);
	if (status)
		return status;
	const bool *fixed;
	status = dsa_session_fixed(dry->session, &fixed, err);
	if (!status && fixed)
		dsa_states_fix(states, fixed);
	if (!status)
		status = dsa_states_rebase(states, shape->reference, NULL, 0, err);
	if (!status) {
		const struct dsa_states_plan plan = dsa_states_plan(states);
		dry->base_states = plan.base;
		dry->candidate_states = plan.candidate;
		dry->spill = plan.disk;
		dry->kept = dry->memory.kept + plan.memory;
	}
	dsa_states_close(states);
	return status;
}

/* What is kept lies on the device while that has room, but no block in parts: the largest is a state. Overlap is
 * measured right behind the reference, so beside it lies no more than that leaves. */
static void plan_sides(struct dry_run *dry, size_t largest)
{
	const struct dsa_session *session = dry->session;
	const struct dsa_plan_device *device = &session->device;
	const size_t overlap = session->options->command == DSA_CMD_EVALUATE ? 0 : device->overlap;
	const size_t first = dry->memory.kept + (size_t)dry->base_states * dry->memory.state;
	size_t room = session->stash_room;
	if (!dsa_session_on_gpu(session))
		return;
	if (dry->kept > room && largest)
		room = room / largest * largest;
	dry->kept_on_device = dry->kept < room ? dry->kept : room;
	dry->kept -= dry->kept_on_device;
	const size_t early = overlap + (first < dry->kept_on_device ? first : dry->kept_on_device);
	dry->device = device->total - device->overlap + (early > dry->kept_on_device ? early : dry->kept_on_device);
}

static enum dsa_status plan_memory(struct dry_run *dry, struct dsa_error *err)
{
	struct dsa_session *session = dry->session;
	const struct dsa_evaluator_shape *shape = dry->shape;
	struct dsa_arena *arena = &session->arena;
	size_t documents = (size_t)shape->documents, batches = (size_t)shape->batches;
	int *tokens = dsa_arena_alloc(arena, documents, sizeof *tokens, "a plan", err);
	struct dsa_pass_document *scratch = dsa_arena_alloc(arena, documents, sizeof *scratch, "a plan", err);
	bool *allowed = dsa_arena_alloc(arena, batches, sizeof *allowed, "a plan", err);
	size_t *image = dsa_arena_alloc(arena, batches, sizeof *image, "a plan", err);
	if (!tokens || !scratch || !allowed || !image)
		return DSA_E_MEMORY;
	for (int d = 0; d < shape->documents; d++)
		tokens[d] = dsa_spool_document(session->spool, d)->tokens;
	dry->weights = session->device.weights;
	dry->workspace = session->device.workspace;
	dry->streams = session->device.streams;
	dry->on_host = (size_t)session->residency.host + (dsa_session_on_gpu(session) ? 0 : session->device.total);
	dry->passing = (size_t)session->passing;
	dry->limit = session->host_memory;
	dry->spill = dsa_spill_limit(session->options, dsa_session_on_gpu(session), dry->limit);
	const struct dsa_states_disk disk = {.limit = dry->spill, .zstd = session->options->spill_zstd};
	if (strcmp(session->options->search, "naive") != 0)
		dsa_plan_memory(&dry->memory, shape, NULL, tokens, &session->config, session->backend->act, dry->limit,
		                dry->spill ? &disk : NULL, scratch, allowed, image);
	size_t largest = 0;
	for (int b = 0; b < shape->batches; b++) {
		dry->batches_kept += allowed[b];
		largest = image[b] > largest ? image[b] : largest;
	}
	enum dsa_status status = plan_states(dry, image, err);
	if (!status)
		plan_sides(dry, largest);
	return status;
}

/* How this calibration will probably go, and what that costs. */
static enum dsa_status expect(struct dry_run *dry, struct dsa_error *err)
{
	const struct dsa_cli_options *options = dry->session->options;
	const struct dsa_evaluator_shape *shape = dry->shape;
	struct dsa_budget budget;
	struct dsa_course *course = &dry->course;
	bool given;
	int documents = 0;
	const int candidates = dry->plan.candidates;
	enum dsa_status status = dsa_cli_budget(options, shape->layers, &budget, &given, err);
	if (status)
		return status;
	for (int b = 0; b < shape->batches; b++)
		documents += shape->batch[b].split == DSA_CALIBRATION ? shape->batch[b].count : 0;
	const bool raced = !strcmp(options->search, "racing"), by_nll = !strcmp(options->objective, "nll");
	const int native = dsa_pattern_shared(shape->reference);
	const int deepest = budget.max_shared < 0 ? -1 : budget.max_shared > native ? budget.max_shared - native : 0;
	const bool bounded =
	    !given || !isnan(budget.kl) || !isnan(budget.nll) || !isnan(budget.kl_p99) || !isnan(budget.top1);
	*course = (struct dsa_course){
	    .steps = dsa_expect_steps(candidates, options->full_trace, deepest, bounded),
	    .raced = raced ? dsa_expect_raced(documents, by_nll ? DSA_OBJECTIVE_NLL : DSA_OBJECTIVE_KL) : 1,
	    .refine_work = options->refine ? options->refine_work : 0,
	    .base_kept = candidates ? (double)dry->base_states / candidates : 1,
	    .flips_kept = candidates ? (double)dry->candidate_states / candidates : 1,
	    .baselines = UNIFORM + options->baseline.count,
	    .wave = dry->session->wave,
	};
	dsa_expect_calibrate(&dry->expectation, shape, dry->locked, course);
	dry->expects = true;
	return DSA_OK;
}

/* Weights that do not fit are an answer, not a fault: the plan is printed without the time. */
static enum dsa_status load(struct dry_run *dry, bool *loaded, struct dsa_error *err)
{
	double begun = dsa_clock_seconds();
	enum dsa_status status = dsa_session_load_model(dry->session, err);
	dry->load_seconds = dsa_clock_seconds() - begun;
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

static enum dsa_status plan_all(struct dry_run *dry, struct dsa_error *err)
{
	const struct dsa_cli_options *options = dry->session->options;
	bool loaded = false;
	enum dsa_status status = measure_spool(dry, err);
	dry->program = resident() + running_bytes;
	if (!status)
		status = load(dry, &loaded, err);
	dry->start_seconds = dsa_terminal_seconds(dry->session->terminal);
	if (!status)
		status = plan_work(dry, err);
	if (!status)
		status = plan_memory(dry, err);
	if (!status && options->command == DSA_CMD_CALIBRATE && strcmp(options->search, "naive") != 0)
		status = expect(dry, err);
	if (!status && loaded)
		status = dsa_dry_run_probe(dry, err);
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
			dsa_dry_run_json(&text, &dry);
		else
			dsa_dry_run_text(&text, &dry);
		status = dsa_print_text(&text, "the plan", &err);
	}
	if (status)
		code = dsa_terminal_fail(terminal, status, &err);
	dsa_record_buffer_release(&dry.probe.buffer);
	dsa_session_close(&session);
	return code;
}
