#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "dsa/file.h"
#include "dsa/results_json.h"
#include "dsa/svg.h"
#include "run_files.h"

static enum dsa_status write_figures(const struct dsa_results *results, const char *directory, struct dsa_arena *arena,
                                     struct dsa_error *err)
{
	static const struct {
		const char *name;
		void (*draw)(struct dsa_text *text, const struct dsa_results *results, bool standalone);
	} figures[] = {
	    {"pattern.svg", dsa_svg_pattern}, {"curve.svg", dsa_svg_curve}, {"sensitivity.svg", dsa_svg_sensitivity}};
	struct dsa_text text = {0};
	enum dsa_status status = dsa_file_make_directory(directory, err);
	for (size_t f = 0; f < sizeof figures / sizeof *figures && !status; f++) {
		figures[f].draw(&text, results, true);
		status = dsa_write_text(&text, directory, figures[f].name, arena, err);
	}
	/* Numbered, not named: a corpus may be called anything. */
	for (int c = 0; c < results->overlap.corpora && !status; c++) {
		char name[32];
		snprintf(name, sizeof name, "overlap-%d.svg", c + 1);
		dsa_svg_overlap(&text, results, c, true);
		status = dsa_write_text(&text, directory, name, arena, err);
	}
	return status;
}

/* What the run measured of a pattern; NULL where it never met it. */
static const struct dsa_quality *measured(const struct dsa_results *results, const char *pattern,
                                          const struct dsa_quality **heldout)
{
	for (int s = 0; s < results->trace.count; s++) {
		const struct dsa_step *step = &results->trace.steps[s];
		*heldout = &step->heldout;
		if (!strcmp(step->pattern, pattern))
			return &step->calibration;
	}
	for (int r = 0; r < results->refinement.count; r++) {
		const struct dsa_refined *refined = &results->refinement.best[r];
		*heldout = &refined->heldout;
		if (!strcmp(refined->pattern, pattern))
			return &refined->calibration;
	}
	return NULL;
}

/* Adds each --baseline: its letters beside the emitted pattern's, and figures where the run measured that pattern. */
static enum dsa_status add_baselines(struct dsa_results *results, const struct dsa_cli_list *list,
                                     const struct dsa_log *log, struct dsa_arena *arena, struct dsa_error *err)
{
	size_t most = (size_t)results->baseline_count + (size_t)list->count;
	struct dsa_result_baseline *all = dsa_arena_alloc(arena, most, sizeof *all, "baselines", err);
	if (!all)
		return DSA_E_MEMORY;
	for (int b = 0; b < results->baseline_count; b++)
		all[b] = results->baselines[b];
	results->baselines = all;
	for (int i = 0; i < list->count; i++) {
		const struct dsa_quality *calibration, *heldout;
		const char *pattern;
		bool known = false;
		enum dsa_status status =
		    dsa_cli_pattern(list->value[i], "--baseline", results->layers, log, arena, &pattern, err);
		if (status)
			return status;
		for (int b = 0; b < results->baseline_count && !known; b++)
			known = !strcmp(all[b].pattern, pattern);
		if (known)
			continue;
		struct dsa_result_baseline *baseline = &all[results->baseline_count++];
		const char *slash = strrchr(list->value[i], '/');
		*baseline =
		    (struct dsa_result_baseline){.name = slash ? slash + 1 : list->value[i], .pattern = pattern};
		calibration = measured(results, pattern, &heldout);
		if (calibration) {
			baseline->calibration = *calibration;
			baseline->heldout = *heldout;
		} else {
			dsa_log_line(log, DSA_LOG_WARN,
			             "the run never measured the baseline %s: the page shows its letters without "
			             "figures (calibrate --baseline measures it)",
			             pattern);
		}
	}
	return DSA_OK;
}

static enum dsa_status write_report(const struct dsa_cli_options *options, const struct dsa_log *log,
                                    struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_results results = {0};
	const char *run = options->operands[0];
	char *path;
	dsa_arena_init(&arena);
	enum dsa_status status = dsa_file_join(&arena, run, "results.json", &path, err);
	if (!status)
		status = dsa_results_json_load(&results, path, &arena, err);
	if (status == DSA_E_MISSING)
		status = dsa_fail(err, DSA_E_INPUT,
		                  "%s holds no results.json: it is no run directory, or the run has not finished "
		                  "(calibrate --resume goes on with it)",
		                  run);
	if (!status && options->baseline.count)
		status = add_baselines(&results, &options->baseline, log, &arena, err);
	if (!status)
		status = dsa_report_files_write(run, &results, &arena, err);
	if (!status && options->svg)
		status = write_figures(&results, options->svg, &arena, err);
	dsa_arena_release(&arena);
	return status;
}

int dsa_cmd_report(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	enum dsa_status status;
	if (options->operand_count != 1)
		status = dsa_fail(&err, DSA_E_USAGE, "report needs one RUN, found %d", options->operand_count);
	else
		status = write_report(options, &terminal->log, &err);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
