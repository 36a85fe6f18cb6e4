#include <math.h>
#include <string.h>

#include "commands.h"
#include "dsa/calibration.h"
#include "dsa/pattern.h"
#include "run_files.h"
#include "session.h"
#include "summary.h"

static enum dsa_status baselines(struct dsa_session *session, const char ***out, struct dsa_error *err)
{
	const struct dsa_cli_list *list = &session->options->baseline;
	const char **patterns =
	    dsa_arena_alloc(&session->arena, (size_t)list->count, sizeof *patterns, "baselines", err);
	if (!patterns)
		return DSA_E_MEMORY;
	for (int i = 0; i < list->count; i++) {
		enum dsa_status status = dsa_cli_pattern(list->value[i], "--baseline", session->config.layers,
		                                         &session->terminal->log, &session->arena, &patterns[i], err);
		if (status)
			return status;
	}
	*out = patterns;
	return DSA_OK;
}

static enum dsa_status search_options(struct dsa_session *session, struct dsa_calibration_options *out,
                                      struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	int layers = session->config.layers;
	const char **patterns;
	bool *locked = dsa_arena_alloc(&session->arena, (size_t)layers, sizeof *locked, "constraints", err);
	if (!locked)
		return DSA_E_MEMORY;
	*out = (struct dsa_calibration_options){
	    .search = {.objective = !strcmp(options->objective, "nll") ? DSA_OBJECTIVE_NLL : DSA_OBJECTIVE_KL,
	               .full_trace = options->full_trace,
	               .savings = strcmp(options->search, "naive") != 0,
	               .racing = !strcmp(options->search, "racing"),
	               .delta = options->delta,
	               .locked = locked},
	    .epsilon_share = options->epsilon,
	    /* A naive search is there to be compared with. */
	    .refine_work = options->refine && strcmp(options->search, "naive") != 0 ? options->refine_work : NAN,
	    .baseline_count = options->baseline.count,
	    .seed = (uint64_t)options->seed,
	    .overlap = true,
	    .progress = &session->terminal->progress,
	    .log = &session->terminal->log};
	enum dsa_status status = dsa_cli_budget(options, layers, &out->search.budget, &out->budget_given, err);
	if (!status)
		status = dsa_cli_locked(options, layers, locked, err);
	if (!status)
		status = baselines(session, &patterns, err);
	if (!status)
		out->baselines = patterns;
	return status;
}

/* Before anything is measured: a file that will not do is better refused now than behind hours of work. */
static enum dsa_status check_costs(struct dsa_session *session, struct dsa_error *err)
{
	struct dsa_results shape = {0};
	dsa_results_dimensions(&shape, &session->config);
	return dsa_cli_costs(&session->options->bench, &shape, &session->arena, err);
}

#define RESUMABLE "%s keeps all that was measured"

int dsa_cmd_calibrate(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_session session;
	struct dsa_results results = {0};
	struct dsa_calibration_options how;
	bool complete;
	int code = 0;
	if (options->dry_run)
		return dsa_dry_run(options, terminal);
	enum dsa_status status = dsa_session_open(&session, options, terminal, &err);
	if (status == DSA_E_INTERRUPTED)
		dsa_error_prefix(&err, RESUMABLE, options->out);
	if (status)
		return dsa_terminal_fail(terminal, status, &err);
	status = search_options(&session, &how, &err);
	if (!status)
		status = check_costs(&session, &err);
	if (!status)
		status = dsa_calibration_run(&results, session.evaluator, &how, &session.arena, &complete, &err);
	if (!status)
		status = dsa_session_describe(&session, &results, &err);
	if (!status)
		status = dsa_cli_costs(&options->bench, &results, &session.arena, &err);
	if (!status)
		status = dsa_run_files_write(session.run, &results, &session.arena, &err);
	if (!status) {
		dsa_terminal_clear(terminal);
		status = dsa_print_results(&results, session.run, options->json, &err);
	}
	if (status == DSA_E_INTERRUPTED)
		dsa_error_prefix(&err, RESUMABLE, options->out);
	if (status) {
		code = dsa_terminal_fail(terminal, status, &err);
		dsa_session_forget_start(&session, status);
	}
	dsa_session_close(&session);
	return code;
}
