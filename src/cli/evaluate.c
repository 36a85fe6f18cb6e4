#include <math.h>
#include <string.h>

#include "commands.h"
#include "dsa/calibration.h"
#include "run_files.h"
#include "session.h"
#include "summary.h"

enum { GATE_FAILED = 1 };

static enum dsa_status evaluate(struct dsa_session *session, struct dsa_results *results, enum dsa_bound *broken,
                                struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	const char *pattern;
	bool given;
	enum dsa_status status = dsa_cli_pattern(options->pattern, "--pattern", session->config.layers,
	                                         &session->terminal->log, &session->arena, &pattern, err);
	if (!status)
		status = dsa_cli_budget(options, session->config.layers, &results->budget, &given, err);
	if (!status)
		status = dsa_calibration_evaluate(results, session->evaluator, pattern, &session->arena, err);
	if (!status)
		status = dsa_session_describe(session, results, err);
	/* Never measured here, so it must not read as 0. */
	results->noise_floor = results->noise_floor_se = NAN;
	for (int c = 0; c < results->corpus_count && !status; c++)
		results->corpora[c].noise_floor = NAN;
	if (!status)
		*broken = given ? dsa_calibration_gate(results, &results->budget) : DSA_BOUND_NONE;
	return status;
}

int dsa_cmd_evaluate(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_session session;
	struct dsa_results results = {0};
	enum dsa_bound broken = DSA_BOUND_NONE;
	int code = 0;
	if (!options->pattern) {
		enum dsa_status missing =
		    dsa_fail(&err, DSA_E_USAGE, "evaluate needs --pattern STRING|FILE, the pattern to measure");
		return dsa_terminal_fail(terminal, missing, &err);
	}
	if (options->dry_run)
		return dsa_dry_run(options, terminal);
	enum dsa_status status = dsa_session_open(&session, options, terminal, &err);
	if (status)
		return dsa_terminal_fail(terminal, status, &err);
	status = evaluate(&session, &results, &broken, &err);
	if (!status) {
		dsa_terminal_clear(terminal);
		status = dsa_print_evaluation(&results, broken, options->json, &err);
	}
	if (status)
		code = dsa_terminal_fail(terminal, status, &err);
	else if (broken != DSA_BOUND_NONE)
		code = GATE_FAILED;
	dsa_session_close(&session);
	return code;
}
