#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "dsa/calibration.h"
#include "dsa/file.h"
#include "dsa/journal.h"
#include "dsa/model_evaluator.h"
#include "dsa/pattern_yaml.h"
#include "dsa/results_json.h"
#include "replay.h"
#include "run_files.h"
#include "summary.h"

/* The --baselines of the run; the uniform ones are asked anyway. */
static enum dsa_status known_baselines(struct dsa_replay *replay, struct dsa_calibration_options *how,
                                       struct dsa_error *err)
{
	int count = replay->before.baseline_count;
	const char **patterns = dsa_arena_alloc(&replay->arena, (size_t)count, sizeof *patterns, "baselines", err);
	if (!patterns)
		return DSA_E_MEMORY;
	for (int b = 0; b < count; b++) {
		const struct dsa_result_baseline *baseline = &replay->before.baselines[b];
		if (strcmp(baseline->name, baseline->pattern) == 0) /* not a uniform one */
			patterns[how->baseline_count++] = baseline->pattern;
	}
	how->baselines = patterns;
	return DSA_OK;
}

/* What the run's refinement found. */
static enum dsa_status known_refined(struct dsa_replay *replay, struct dsa_calibration_options *how,
                                     struct dsa_error *err)
{
	const struct dsa_refinement *refinement = &replay->before.refinement;
	const char **patterns =
	    dsa_arena_alloc(&replay->arena, (size_t)refinement->count, sizeof *patterns, "refinement", err);
	if (!patterns)
		return DSA_E_MEMORY;
	for (int i = 0; i < refinement->count; i++)
		patterns[i] = refinement->best[i].pattern;
	how->refined = patterns;
	how->refined_count = refinement->count;
	return DSA_OK;
}

/* A text option as the journal keeps it: quoted, or null. */
static enum dsa_status option_of_run(struct dsa_replay *replay, const char *name, const char **out,
                                     struct dsa_error *err)
{
	const char *value = dsa_journal_field(replay->journal, name);
	size_t length = value ? strlen(value) : 0;
	*out = NULL;
	if (length < 2 || value[0] != '"')
		return DSA_OK;
	*out = dsa_arena_text(&replay->arena, value + 1, length - 2, err);
	return *out ? DSA_OK : DSA_E_MEMORY;
}

/* The layers that the run had to keep F were never tried, so they stay F. */
static enum dsa_status run_constraints(struct dsa_replay *replay, bool **locked, struct dsa_error *err)
{
	struct dsa_cli_options then = {0};
	int layers = replay->before.layers;
	const char *pp = dsa_journal_field(replay->journal, "pp");
	enum dsa_status status = option_of_run(replay, "force-full", &then.force_full, err);
	if (!status)
		status = option_of_run(replay, "pp-starts", &then.pp_starts, err);
	if (status)
		return status;
	then.pp = pp ? strtoll(pp, NULL, 10) : 0;
	*locked = dsa_arena_alloc(&replay->arena, (size_t)layers, sizeof **locked, "constraints", err);
	return *locked ? dsa_cli_locked(&then, layers, *locked, err) : DSA_E_MEMORY;
}

/* Everything that the run's results say and measuring does not. */
static void keep_description(struct dsa_results *now, const struct dsa_results *before)
{
	struct dsa_results measured = *now;
	*now = *before;
	now->pattern = measured.pattern;
	now->objective = measured.objective;
	now->budget = measured.budget;
	now->default_budget = measured.default_budget;
	now->quality = measured.quality;
	now->heldout = measured.heldout;
	now->base = measured.base;
	now->trace = measured.trace;
	now->refinement = measured.refinement;
	now->best = measured.best;
	now->best_count = measured.best_count;
	now->baselines = measured.baselines;
	now->baseline_count = measured.baseline_count;
	for (int c = 0; c < now->corpus_count && c < measured.corpus_count; c++) {
		now->corpora[c].calibration = measured.corpora[c].calibration;
		now->corpora[c].heldout = measured.corpora[c].heldout;
	}
}

static enum dsa_status solve(struct dsa_replay *replay, const struct dsa_cli_options *options,
                             const struct dsa_log *log, struct dsa_results *results, struct dsa_error *err)
{
	int layers = replay->before.layers;
	bool complete, *locked = NULL;
	enum dsa_status status = run_constraints(replay, &locked, err);
	if (status)
		return status;
	enum dsa_objective objective = replay->before.objective;
	if (options->objective)
		objective = !strcmp(options->objective, "nll") ? DSA_OBJECTIVE_NLL : DSA_OBJECTIVE_KL;
	struct dsa_calibration_options how = {
	    .search = {.objective = objective, .full_trace = options->full_trace, .savings = true, .locked = locked},
	    .epsilon_share = NAN,
	    .refine_work = NAN,
	    .seed = replay->before.seed,
	    .overlap = true, /* a race begins with it */
	    .log = log};
	/* The run's own race whatever the budget is now: other rules would ask what it never measured. */
	if (replay->before.search && !strcmp(replay->before.search, "racing")) {
		if (!(replay->before.delta > 0 && replay->before.delta < 1 && replay->before.epsilon >= 0))
			return dsa_fail(err, DSA_E_INPUT,
			                "results.json: delta is %g and epsilon %g, expected 0 < delta < 1 and 0 or "
			                "more; run calibrate again with --resume",
			                replay->before.delta, replay->before.epsilon);
		how.search.racing = true;
		how.search.delta = replay->before.delta;
		how.search.epsilon = replay->before.epsilon;
	}
	status = dsa_cli_budget(options, layers, &how.search.budget, &how.budget_given, err);
	if (!options->scope)
		how.search.budget.scope = replay->before.budget.scope;
	if (!status)
		status = known_baselines(replay, &how, err);
	if (!status)
		status = known_refined(replay, &how, err);
	if (!status)
		status = dsa_calibration_run(results, replay->evaluator, &how, &replay->arena, &complete, err);
	if (!status && !complete)
		dsa_log_line(log, DSA_LOG_WARN,
		             "the run's trace ends before this budget does: the pattern may share more than this one; "
		             "calibrate with --full-trace to know");
	if (!status)
		keep_description(results, &replay->before);
	return status;
}

static enum dsa_status write_pattern(const char *path, const struct dsa_results *results, struct dsa_error *err)
{
	struct dsa_text text = {0};
	dsa_pattern_yaml_write(&text, results);
	enum dsa_status status = dsa_text_check(&text, path, err);
	if (!status)
		status = dsa_file_replace(path, text.data, text.bytes, err);
	dsa_text_release(&text);
	return status;
}

int dsa_cmd_solve(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_replay replay = {0};
	struct dsa_results results = {0};
	enum dsa_status status;
	if (options->operand_count != 1)
		status = dsa_fail(&err, DSA_E_USAGE, "solve needs one RUN, found %d", options->operand_count);
	else
		status = dsa_replay_open(&replay, options->operands[0], &terminal->log, &err);
	if (!status)
		status = solve(&replay, options, &terminal->log, &results, &err);
	if (!status && options->out)
		status = write_pattern(options->out, &results, &err);
	if (!status)
		status = dsa_print_results(&results, NULL, options->json, &err);
	int code = status ? dsa_terminal_fail(terminal, status, &err) : 0;
	dsa_replay_close(&replay);
	return code;
}
