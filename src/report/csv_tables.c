/* The tables of report.html as files: what each figure and table shows, one row a mark. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "dsa/csv.h"
#include "dsa/gain.h"
#include "dsa/pattern.h"

const struct dsa_csv_table dsa_csv_tables[DSA_CSV_TABLES] = {
    {"trace.csv", dsa_trace_csv_write},
    {"overlap.csv", dsa_overlap_csv_write},
    {"pattern.csv", dsa_pattern_csv_write},
    {"curve.csv", dsa_curve_csv_write},
    {"sensitivity.csv", dsa_sensitivity_csv_write},
    {"corpora.csv", dsa_corpora_csv_write},
    {"positions.csv", dsa_positions_csv_write},
    {"gain.csv", dsa_gain_csv_write},
};

static const char end_of_row[] = "\r\n";

static void letters(struct dsa_text *text, const char *name, const char *pattern, int layers)
{
	for (int l = 0; l < layers; l++) {
		dsa_csv_field(text, name);
		dsa_text_printf(text, ",%d,%c,%d\r\n", l, pattern[l], dsa_pattern_source(pattern, l));
	}
}

void dsa_pattern_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "name,layer,letter,source\r\n");
	letters(text, "emitted", results->pattern, results->layers);
	letters(text, "reference", results->reference, results->layers);
	for (int b = 0; b < results->baseline_count; b++)
		letters(text, results->baselines[b].name, results->baselines[b].pattern, results->layers);
}

/* ",kl,kl_se,kl_low,kl_high,kl_p99,nll_delta,nll_delta_se,top1,documents" of one split; empty without documents. */
static void quality(struct dsa_text *text, const struct dsa_quality *of)
{
	if (!of->documents) {
		dsa_text_add(text, ",,,,,,,,,0");
		return;
	}
	dsa_csv_real(text, of->kl);
	dsa_csv_real(text, of->kl_se);
	dsa_csv_real(text, of->kl_ci.low);
	dsa_csv_real(text, of->kl_ci.high);
	dsa_csv_real(text, of->kl_p99);
	dsa_csv_real(text, of->nll_delta);
	dsa_csv_real(text, of->nll_delta_se);
	dsa_csv_real(text, of->top1);
	dsa_text_printf(text, ",%d", of->documents);
}

static void point(struct dsa_text *text, const struct dsa_results *results, const char *kind, const char *name,
                  const char *pattern, const struct dsa_quality *calibration, const struct dsa_quality *heldout,
                  enum dsa_bound broken)
{
	dsa_text_printf(text, "%s,", kind);
	dsa_csv_field(text, name);
	dsa_text_printf(text, ",%s,%d,%s", pattern, results->layers - dsa_pattern_shared(pattern),
	                broken ? dsa_bound_name(broken) : "");
	quality(text, calibration);
	quality(text, heldout);
	dsa_text_add(text, end_of_row);
}

void dsa_curve_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "kind,name,pattern,kept,broken");
	for (int split = 0; split < 2; split++) {
		const char *of = split ? "heldout_" : "";
		dsa_text_printf(text, ",%skl,%skl_se,%skl_low,%skl_high,%skl_p99,%snll_delta,%snll_delta_se,%stop1,",
		                of, of, of, of, of, of, of, of);
		dsa_text_printf(text, "%sdocuments", of);
	}
	dsa_text_add(text, end_of_row);
	point(text, results, "emitted", "", results->pattern, &results->quality, &results->heldout, DSA_BOUND_NONE);
	for (int s = 0; s < results->trace.count; s++) {
		const struct dsa_step *step = &results->trace.steps[s];
		point(text, results, "greedy", "", step->pattern, &step->calibration, &step->heldout, step->broken);
	}
	for (int i = 0; i < results->refinement.count; i++) {
		const struct dsa_refined *refined = &results->refinement.best[i];
		point(text, results, "refined", "", refined->pattern, &refined->calibration, &refined->heldout,
		      refined->broken);
	}
	for (int b = 0; b < results->baseline_count; b++) {
		const struct dsa_result_baseline *baseline = &results->baselines[b];
		point(text, results, "baseline", baseline->name, baseline->pattern, &baseline->calibration,
		      &baseline->heldout, DSA_BOUND_NONE);
	}
}

void dsa_sensitivity_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "layer,letter,kl,kl_se,nll,documents,bound\r\n");
	const struct dsa_step *step = results->trace.count ? &results->trace.steps[0] : NULL;
	for (int i = 0; step && i < step->candidate_count; i++) {
		const struct dsa_candidate *candidate = &step->candidates[i];
		dsa_text_printf(text, "%d,%c", candidate->layer, results->pattern[candidate->layer]);
		dsa_csv_real(text, candidate->kl);
		dsa_csv_real(text, candidate->kl_se);
		dsa_csv_real(text, candidate->nll);
		dsa_text_printf(text, ",%d", candidate->documents);
		dsa_csv_real(text, candidate->bound);
		dsa_text_add(text, end_of_row);
	}
}

void dsa_corpora_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "corpus,split,weight,sha256,scored_tokens,noise_floor,kl,kl_se,kl_low,kl_high,kl_p99,"
	                   "nll_delta,nll_delta_se,top1,documents\r\n");
	for (int c = 0; c < results->corpus_count; c++) {
		const struct dsa_result_corpus *corpus = &results->corpora[c];
		for (int split = 0; split < DSA_SPLITS; split++) {
			dsa_csv_field(text, corpus->name);
			dsa_text_printf(text, ",%s", split == DSA_HELDOUT ? "heldout" : "calibration");
			dsa_csv_real(text, corpus->weight);
			dsa_text_printf(text, ",%s,%" PRId64, corpus->digest,
			                split == DSA_HELDOUT ? corpus->scored_heldout : corpus->scored_calibration);
			dsa_csv_real(text, split == DSA_HELDOUT ? (double)NAN : corpus->noise_floor);
			quality(text, split == DSA_HELDOUT ? &corpus->heldout : &corpus->calibration);
			dsa_text_add(text, end_of_row);
		}
	}
}

static void position_rows(struct dsa_text *text, const char *name, const char *split, const struct dsa_quality *of)
{
	for (int i = 0; i < of->positions; i++) {
		const struct dsa_quality_at *at = &of->by_position[i];
		dsa_csv_field(text, name);
		dsa_text_printf(text, ",%s,%" PRId64 ",%" PRId64 ",%" PRId64, split, (int64_t)at->from, (int64_t)at->to,
		                at->tokens);
		dsa_csv_real(text, at->kl);
		dsa_csv_real(text, at->kl_p99);
		dsa_csv_real(text, at->nll_delta);
		dsa_csv_real(text, at->top1);
		dsa_text_add(text, end_of_row);
	}
}

void dsa_positions_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "corpus,split,from,to,scored_tokens,kl,kl_p99,nll_delta,top1\r\n");
	position_rows(text, "", "calibration", &results->quality);
	position_rows(text, "", "heldout", &results->heldout);
	for (int c = 0; c < results->corpus_count; c++) {
		position_rows(text, results->corpora[c].name, "calibration", &results->corpora[c].calibration);
		position_rows(text, results->corpora[c].name, "heldout", &results->corpora[c].heldout);
	}
}

void dsa_gain_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_gain rows[DSA_GAIN_ROWS];
	int count = dsa_gain_table(results, rows);
	dsa_text_add(text, "context,indexer_share,prefill,decode\r\n");
	for (int i = 0; i < count; i++) {
		dsa_text_printf(text, "%" PRId64, rows[i].context);
		dsa_csv_real(text, rows[i].indexer_share);
		dsa_csv_real(text, rows[i].prefill);
		dsa_csv_real(text, rows[i].decode);
		dsa_text_add(text, end_of_row);
	}
}
