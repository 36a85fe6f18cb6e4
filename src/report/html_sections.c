#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/engines.h"
#include "dsa/gain.h"
#include "dsa/pattern.h"
#include "html_parts.h"

enum { FACT_SHOWN = 400 };

/* The figures of a quality that every table shows, documents first. */
static const char *const quality_columns[] = {"KL", "KL p99", "ΔNLL", "top-1 agreement"};

static void quality_cells(struct dsa_text *text, const struct dsa_quality *quality)
{
	if (!quality->documents) {
		dsa_text_add(text, "<td>–</td><td>–</td><td>–</td><td>–</td>");
		return;
	}
	html_measure_cell(text, quality->kl, quality->kl_se);
	html_figure_cell(text, quality->kl_p99);
	html_measure_cell(text, quality->nll_delta, quality->nll_delta_se);
	html_percent_cell(text, quality->top1);
}

static void tile_begin(struct dsa_text *text, const char *name)
{
	dsa_text_printf(text, "<li><span>%s</span> <strong>", name);
}

static void tile_error(struct dsa_text *text, double error, const struct dsa_interval *interval, const char *unit)
{
	dsa_text_add(text, "</strong> <span>");
	if (isfinite(error)) {
		dsa_text_add(text, "± ");
		dsa_text_error(text, error);
		dsa_text_add(text, " ");
	}
	dsa_text_printf(text, "%s", unit);
	if (isfinite(interval->low) && isfinite(interval->high)) {
		dsa_text_add(text, ", 95%: ");
		dsa_text_figure(text, interval->low);
		dsa_text_add(text, " to ");
		dsa_text_figure(text, interval->high);
	}
	dsa_text_add(text, "</span></li>\n");
}

void html_tiles(struct dsa_text *text, const struct dsa_results *results)
{
	bool heldout = results->heldout.documents > 0;
	const struct dsa_quality *quality = heldout ? &results->heldout : &results->quality;
	struct dsa_gain rows[DSA_GAIN_ROWS];
	int gains = dsa_gain_table(results, rows);
	dsa_text_add(text, "<ul class=\"tiles\">\n");
	tile_begin(text, "Indexers kept");
	dsa_text_printf(text, "%d of %d</strong> <span>", results->layers - dsa_pattern_shared(results->pattern),
	                results->layers);
	dsa_text_printf(text, "%d shared</span></li>\n", dsa_pattern_shared(results->pattern));
	tile_begin(text, heldout ? "Mean KL, held-out" : "Mean KL, calibration");
	dsa_text_figure(text, quality->documents ? quality->kl : NAN);
	tile_error(text, quality->kl_se, &quality->kl_ci, "nats");
	tile_begin(text, heldout ? "ΔNLL, held-out" : "ΔNLL, calibration");
	dsa_text_figure(text, quality->documents ? quality->nll_delta : NAN);
	tile_error(text, quality->nll_delta_se, &quality->nll_delta_ci, "nats");
	tile_begin(text, heldout ? "Top-1, held-out" : "Top-1, calibration");
	html_percent(text, quality->documents ? quality->top1 : NAN);
	dsa_text_add(text, "</strong> <span>same most likely token</span></li>\n");
	if (gains) {
		const struct dsa_gain *longest = &rows[gains - 1];
		bool clock = longest->basis != DSA_GAIN_FLOPS;
		tile_begin(text, clock ? "Prefill time saved" : "Prefill arithmetic saved");
		dsa_text_printf(text, "%.0f%%</strong> <span>of %s at ", 100 * (1 - 1 / longest->prefill),
		                clock ? "measured time" : "FLOPs");
		html_count(text, longest->context);
		dsa_text_add(text, " tokens</span></li>\n");
	}
	dsa_text_add(text, "</ul>\n");
}

void html_baselines(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {
	    "Pattern",          "kept",       quality_columns[0], quality_columns[1], quality_columns[2],
	    quality_columns[3], "held-out KL"};
	HTML_TABLE_BEGIN(text, "Patterns compared", columns);
	for (int i = -1; i < results->baseline_count; i++) {
		const struct dsa_result_baseline own = {.name = "this pattern",
		                                        .pattern = results->pattern,
		                                        .calibration = results->quality,
		                                        .heldout = results->heldout};
		const struct dsa_result_baseline *row = i < 0 ? &own : &results->baselines[i];
		dsa_text_add(text, i < 0 ? "<tr class=\"emitted\">" : "<tr>");
		html_name_head(text, row->name);
		html_int_cell(text, results->layers - dsa_pattern_shared(row->pattern));
		quality_cells(text, &row->calibration);
		html_measure_cell(text, row->heldout.documents ? row->heldout.kl : NAN, row->heldout.kl_se);
		dsa_text_add(text, "</tr>\n");
	}
	html_table_end(text);
}

void html_corpora(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const figures[] = {"Corpus",           quality_columns[0], quality_columns[1], quality_columns[2],
	                               quality_columns[3], "held-out KL",      "noise floor"};
	const char *const facts[] = {"Corpus",     "weight",         "documents", "calibration", "held-out",
	                             "not scored", "cut to context", "tokens",    "scored",      "SHA-256"};
	if (!results->corpus_count)
		return;
	html_section(text, "corpora", "Corpora");
	HTML_TABLE_BEGIN(text, "Quality by corpus", figures);
	for (int i = 0; i < results->corpus_count; i++) {
		const struct dsa_result_corpus *corpus = &results->corpora[i];
		dsa_text_add(text, "<tr>");
		html_name_head(text, corpus->name);
		quality_cells(text, &corpus->calibration);
		html_measure_cell(text, corpus->heldout.documents ? corpus->heldout.kl : NAN, corpus->heldout.kl_se);
		html_figure_cell(text, corpus->noise_floor);
		dsa_text_add(text, "</tr>\n");
	}
	html_table_end(text);
	HTML_TABLE_BEGIN(text, "Contents of each corpus", facts);
	for (int i = 0; i < results->corpus_count; i++) {
		const struct dsa_result_corpus *corpus = &results->corpora[i];
		dsa_text_add(text, "<tr>");
		html_name_head(text, corpus->name);
		html_figure_cell(text, corpus->weight);
		html_int_cell(text, corpus->documents);
		html_int_cell(text, corpus->documents_calibration);
		html_int_cell(text, corpus->documents_heldout);
		html_int_cell(text, corpus->unscored);
		html_int_cell(text, corpus->cut);
		html_int_cell(text, corpus->tokens);
		html_int_cell(text, corpus->scored);
		dsa_text_add(text, "<td><code title=\"");
		dsa_text_markup(text, corpus->digest);
		dsa_text_add(text, "\">");
		dsa_text_markup_cut(text, corpus->digest, 12);
		dsa_text_add(text, "</code></td></tr>\n");
	}
	html_table_end(text);
	dsa_text_add(text, "<p class=\"soft\">Also in corpora.csv.</p>\n</section>\n");
}

static void position_rows(struct dsa_text *text, const char *name, const struct dsa_quality *quality)
{
	for (int i = 0; i < quality->positions; i++) {
		const struct dsa_quality_at *at = &quality->by_position[i];
		dsa_text_add(text, "<tr>");
		html_name_head(text, name);
		dsa_text_add(text, "<td>");
		html_count(text, at->from);
		dsa_text_add(text, " – ");
		html_count(text, (int64_t)at->to - 1);
		dsa_text_add(text, "</td>");
		html_int_cell(text, at->tokens);
		html_figure_cell(text, at->kl);
		html_figure_cell(text, at->kl_p99);
		html_figure_cell(text, at->nll_delta);
		html_percent_cell(text, at->top1);
		dsa_text_add(text, "</tr>\n");
	}
}

void html_positions(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {"Corpus", "positions", "scored tokens", "KL", "KL p99", "ΔNLL", "top-1"};
	if (!results->quality.positions)
		return;
	html_section(text, "positions", "By position");
	dsa_text_add(text,
	             "<p class=\"soft\">Calibration documents. Positions before K are the same under every pattern and "
	             "are not counted.</p>\n");
	HTML_TABLE_BEGIN(text, "Quality by position", columns);
	if (results->corpus_count != 1)
		position_rows(text, "all", &results->quality);
	for (int i = 0; i < results->corpus_count; i++)
		position_rows(text, results->corpora[i].name, &results->corpora[i].calibration);
	html_table_end(text);
	dsa_text_add(text, "<p class=\"soft\">Also in positions.csv, with the held-out documents.</p>\n</section>\n");
}

void html_gain(struct dsa_text *text, const struct dsa_results *results)
{
	const char *const columns[] = {"Context", "from", "indexer share of prefill", "prefill", "decode (FLOPs)"};
	struct dsa_gain rows[DSA_GAIN_ROWS];
	int count = dsa_gain_table(results, rows);
	if (!count)
		return;
	html_section(text, "gain", "Expected gain");
	dsa_text_add(text, "<p class=\"soft\">");
	if (results->cost_count) {
		dsa_text_add(text, "Prefill measured layer by layer on ");
		dsa_text_markup(text, results->costs_device);
		dsa_text_add(text,
		             " where a row says so; other figures are FLOPs of the model's shape, not from a clock.");
	} else {
		dsa_text_add(text,
		             "From the FLOPs of the model's shape, not from a clock, as if every part ran at the same "
		             "rate.");
	}
	dsa_text_add(text, " Decoding is bound by memory and launches: at long contexts it gains far less than its "
	                   "FLOPs say.</p>\n");
	HTML_TABLE_BEGIN(text, "Expected gain by context length", columns);
	for (int i = 0; i < count; i++) {
		dsa_text_add(text, "<tr>");
		html_int_head(text, rows[i].context);
		dsa_text_printf(text, "<td>%s</td>",
		                rows[i].basis == DSA_GAIN_FLOPS ? "FLOPs" : dsa_gain_basis_name(rows[i].basis));
		html_percent_cell(text, rows[i].indexer_share);
		dsa_text_printf(text, "<td>%.2f×</td><td>%.2f×</td></tr>\n", rows[i].prefill, rows[i].decode);
	}
	html_table_end(text);
	dsa_text_add(text, "</section>\n");
}

void html_engines(struct dsa_text *text, const struct dsa_results *results)
{
	html_section(text, "engines", "For the serving engine");
	for (int e = 0; e < DSA_ENGINES; e++) {
		struct dsa_export export;
		enum dsa_engine engine = (enum dsa_engine)e;
		const struct dsa_export_request request = {.engine = engine,
		                                           .architecture = results->architecture,
		                                           .pattern = results->pattern,
		                                           .reference = results->reference,
		                                           .layers = results->layers,
		                                           .stages = 1};
		if (!dsa_engine_export(&export, &request, NULL)) {
			dsa_text_printf(text, "<h3>%s <span class=\"soft\">(%s)</span></h3>\n<pre>",
			                dsa_engine_title(engine), export.where);
			dsa_text_markup(text, export.text.data);
			dsa_text_add(text, "</pre>\n");
			for (int w = 0; w < export.warnings; w++) {
				dsa_text_add(text, "<p class=\"warn\">");
				dsa_text_markup(text, export.warning[w].text);
				dsa_text_add(text, "</p>\n");
			}
		}
		text->failed |= export.text.failed;
		dsa_export_release(&export);
	}
	dsa_text_add(text, "</section>\n");
}

static void fact(struct dsa_text *text, const char *name, const char *value)
{
	dsa_text_printf(text, "<dt>%s</dt><dd><bdi>", name);
	dsa_text_markup_cut(text, value ? value : "–", FACT_SHOWN);
	dsa_text_add(text, "</bdi></dd>\n");
}

void html_provenance(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_result_work *work = &results->work;
	const struct dsa_provenance *provenance = &results->provenance;
	char digits[64];
	html_section(text, "provenance", "Provenance");
	dsa_text_add(text, "<dl class=\"facts\">\n");
	fact(text, "model", results->model_name);
	fact(text, "architecture", results->architecture);
	fact(text, "fingerprint", results->fingerprint);
	fact(text, "reference", results->reference);
	fact(text, "search", results->search);
	fact(text, "objective", results->objective == DSA_OBJECTIVE_NLL ? "nll" : "kl");
	snprintf(digits, sizeof digits, "%d", results->context);
	fact(text, "context", digits);
	fact(text, "indexer precision", dsa_index_precision_name(results->index_precision));
	snprintf(digits, sizeof digits, "%" PRIu64, results->seed);
	fact(text, "seed", digits);
	fact(text, "stopped by", results->trace.stopped_by ? dsa_bound_name(results->trace.stopped_by) : NULL);
	dsa_text_add(text, "<dt>work</dt><dd>");
	html_count(text, work->token_layers);
	dsa_text_add(text, " token-layers");
	if (work->token_layers_naive > 0) {
		dsa_text_printf(text, ", %.1f%% of the naive ",
		                100.0 * (double)work->token_layers / (double)work->token_layers_naive);
		html_count(text, work->token_layers_naive);
	}
	dsa_text_add(text, "</dd>\n");
	if (isfinite(work->seconds)) {
		snprintf(digits, sizeof digits, "%.1f s", work->seconds);
		fact(text, "time", digits);
	}
	if (provenance->peak_memory) {
		snprintf(digits, sizeof digits, "%.2f GiB",
		         (double)provenance->peak_memory / (1024.0 * 1024.0 * 1024.0));
		fact(text, "peak memory", digits);
	}
	fact(text, "device", provenance->device);
	snprintf(digits, sizeof digits, "%d", provenance->threads);
	fact(text, "threads", digits);
	fact(text, "version", provenance->version);
	fact(text, "commit", provenance->commit);
	fact(text, "date", provenance->date);
	dsa_text_add(text, "</dl>\n</section>\n");
}
