#include <math.h>

#include "commands.h"
#include "dsa/announce.h"
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
	const struct dsa_ask nothing = {.base = shape->reference};
	if (!status)
		status = dsa_announce_split(evaluator, &nothing, DSA_SPLITS, true, err);
	for (int b = 0; b < shape->batches && !status; b++) {
		status = dsa_calibration_overlap(&results->overlap, evaluator, b, err);
		if (!status)
			progress->step(progress->context, 0, 1, b + 1, shape->batches);
	}
	return status;
}

/* How much of what the indexers select is what they select in float32, on average and in the layer that has least. */
static void write_plain(struct dsa_text *text, const struct dsa_results *results, int corpus, const char *precision)
{
	double sum = 0, least = INFINITY;
	int full = 0, at = 0;
	for (int l = 0; l < results->layers; l++) {
		double share = dsa_overlap_plain(&results->overlap, corpus, -1, l);
		if (results->reference[l] != 'F' || isnan(share))
			continue;
		full++;
		sum += share;
		if (share < least)
			least = share, at = l;
	}
	if (!full)
		return;
	dsa_text_utf8(text, results->corpora[corpus].name);
	dsa_text_printf(text, ": in %s, indexers select ", precision);
	dsa_text_figure(text, sum / full);
	dsa_text_add(text, " of the positions that they select in f32, least in layer ");
	dsa_text_printf(text, "%d: ", at);
	dsa_text_figure(text, least);
	dsa_text_add(text, "\n");
}

static enum dsa_status write_files(struct dsa_session *session, const struct dsa_results *results, bool json,
                                   struct dsa_error *err)
{
	const char *precision = session->options->indexer_precision;
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
		write_plain(&text, results, c, precision);
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
