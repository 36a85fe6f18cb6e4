#include "commands.h"
#include "dsa/csv.h"
#include "dsa/calibration.h"
#include "dsa/results_json.h"
#include "run_files.h"
#include "session.h"
#include "summary.h"

static enum dsa_status measure(struct dsa_session *session, struct dsa_results *results, struct dsa_error *err)
{
	struct dsa_evaluator *evaluator = session->evaluator;
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	const struct dsa_search_progress *progress = &session->terminal->progress;
	enum dsa_status status =
	    dsa_overlap_init(&results->overlap, shape->corpora, shape->layers, shape->topk, &session->arena, err);
	for (int b = 0; b < shape->batches && !status; b++) {
		status = dsa_calibration_overlap(&results->overlap, evaluator, b, err);
		if (!status)
			progress->step(progress->context, 0, 1, b + 1, shape->batches);
	}
	return status;
}

static enum dsa_status write_files(struct dsa_session *session, const struct dsa_results *results, bool json,
                                   struct dsa_error *err)
{
	struct dsa_text csv = {0}, text = {0};
	dsa_overlap_csv_write(&csv, results);
	enum dsa_status status = dsa_write_text(&csv, session->run, "overlap.csv", &session->arena, err);
	if (status)
		return status;
	dsa_overlap_json_write(&text, results);
	status = dsa_write_text(&text, session->run, "overlap.json", &session->arena, err);
	if (status)
		return status;
	if (json)
		dsa_overlap_json_write(&text, results);
	for (int c = 0; c < results->corpus_count && !json; c++) {
		double sum = 0;
		for (int l = 1; l < results->layers; l++)
			sum += dsa_overlap_at(&results->overlap, c, -1, l - 1, l);
		dsa_text_utf8(&text, results->corpora[c].name);
		dsa_text_add(&text, ": neighbouring layers share ");
		dsa_text_figure(&text, sum / (results->layers > 1 ? results->layers - 1 : 1));
		dsa_text_add(&text, " of their selections on average\n");
	}
	dsa_terminal_clear(session->terminal);
	return dsa_print_text(&text, "the overlap", err);
}

int dsa_cmd_overlap(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_session session;
	struct dsa_results results = {0};
	int code = 0;
	if (options->dry_run)
		return dsa_dry_run(options, terminal);
	enum dsa_status status = dsa_session_open(&session, options, terminal, &err);
	if (status)
		return dsa_terminal_fail(terminal, status, &err);
	status = measure(&session, &results, &err);
	if (!status)
		status = dsa_session_describe(&session, &results, &err);
	if (!status)
		status = write_files(&session, &results, options->json, &err);
	if (status) {
		code = dsa_terminal_fail(terminal, status, &err);
		dsa_session_forget_start(&session, status);
	}
	dsa_session_close(&session);
	return code;
}
