#include "summary.h"

#include <math.h>
#include <stdio.h>

#include "dsa/pattern.h"
#include "dsa/results_json.h"

enum dsa_status dsa_print_text(struct dsa_text *text, const char *what, struct dsa_error *err)
{
	enum dsa_status status = dsa_text_check(text, what, err);
	if (!status && text->bytes)
		fwrite(text->data, 1, text->bytes, stdout); /* a full disk is noticed once, at the end of main() */
	dsa_text_release(text);
	return status;
}

static void add_quality(struct dsa_text *text, const char *label, const struct dsa_quality *quality)
{
	if (!quality->documents)
		return;
	dsa_text_printf(text, "%-13s KL ", label);
	dsa_text_figure(text, quality->kl);
	if (!isnan(quality->kl_se)) {
		dsa_text_add(text, " +- ");
		dsa_text_figure(text, quality->kl_se);
	}
	dsa_text_add(text, ", p99 ");
	dsa_text_figure(text, quality->kl_p99);
	dsa_text_add(text, ", NLL rise ");
	dsa_text_figure(text, quality->nll_delta);
	dsa_text_printf(text, ", top-1 %.2f%%  (%d documents, %lld tokens)\n", 100 * quality->top1, quality->documents,
	                (long long)quality->tokens);
}

static void add_corpora(struct dsa_text *text, const struct dsa_results *results)
{
	if (results->corpus_count < 2)
		return;
	for (int c = 0; c < results->corpus_count; c++) {
		char label[32];
		snprintf(label, sizeof label, "  %.11s", results->corpora[c].name);
		add_quality(text, label, &results->corpora[c].calibration);
	}
}

static void add_refined(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_refinement *refinement = &results->refinement;
	if (!refinement->count)
		return;
	dsa_text_printf(text, "%-13s better than greedy at", "refinement");
	for (int i = 0; i < refinement->count; i++) {
		dsa_text_printf(text, "%s %d shared (KL ", i ? "," : "", refinement->best[i].shared);
		dsa_text_figure(text, refinement->best[i].calibration.kl);
		dsa_text_printf(text, ")");
	}
	dsa_text_add(text, "\n");
}

static void add_work(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_result_work *work = &results->work;
	dsa_text_printf(text, "%-13s %.3g of %.3g naive token-layers (%.2f)", "work", (double)work->token_layers,
	                (double)work->token_layers_naive,
	                work->token_layers_naive ? (double)work->token_layers / (double)work->token_layers_naive : 0.0);
	if (results->provenance.executed)
		dsa_text_printf(text, "; %.3g run in all, with a pool of %.0f MiB",
		                (double)results->provenance.executed,
		                (double)results->provenance.host_memory / 1048576.0);
	if (work->refine_token_layers)
		dsa_text_printf(text, "; refinement %.3g more", (double)work->refine_token_layers);
	dsa_text_printf(text, "; %.1f s, %.0f MiB at most\n", work->seconds,
	                (double)results->provenance.peak_memory / 1048576.0);
}

enum dsa_status dsa_print_results(const struct dsa_results *results, const char *run, bool json, struct dsa_error *err)
{
	struct dsa_text text = {0};
	if (json) {
		dsa_results_json_write(&text, results);
		return dsa_print_text(&text, "the results", err);
	}
	dsa_text_printf(&text, "%-13s %s\n", "pattern", results->pattern);
	int shared = dsa_pattern_shared(results->pattern);
	dsa_text_printf(&text, "%-13s %d of %d layers share (%d keep their indexer), stopped by %s\n", "shared", shared,
	                results->layers, results->layers - shared, dsa_bound_name(results->trace.stopped_by));
	add_refined(&text, results);
	add_quality(&text, "calibration", &results->quality);
	add_corpora(&text, results);
	add_quality(&text, "held out", &results->heldout);
	for (int b = 0; b < results->baseline_count; b++) {
		char label[32];
		snprintf(label, sizeof label, "%.13s", results->baselines[b].name);
		add_quality(&text, label, &results->baselines[b].calibration);
	}
	dsa_text_printf(&text, "%-13s KL ", "noise floor");
	dsa_text_figure(&text, results->noise_floor);
	dsa_text_add(&text, "\n");
	/* Without a run nothing was run: the figures come from a journal. */
	if (run) {
		add_work(&text, results);
		dsa_text_printf(&text, "%-13s ", "files");
		dsa_text_utf8(&text, run);
		dsa_text_add(&text, "/pattern.yaml, report.html, results.json, and the report's tables as *.csv\n");
	}
	return dsa_print_text(&text, "the results", err);
}

enum dsa_status dsa_print_evaluation(const struct dsa_results *results, enum dsa_bound broken, bool json,
                                     struct dsa_error *err)
{
	struct dsa_text text = {0};
	if (json) {
		dsa_evaluate_json_write(&text, results);
		return dsa_print_text(&text, "the results", err);
	}
	dsa_text_printf(&text, "%-13s %s\n", "pattern", results->pattern);
	add_quality(&text, "quality", &results->quality);
	add_corpora(&text, results);
	if (broken != DSA_BOUND_NONE)
		dsa_text_printf(&text, "%-13s broken: %s\n", "bounds", dsa_bound_name(broken));
	return dsa_print_text(&text, "the results", err);
}
