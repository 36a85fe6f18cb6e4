#include "dsa/results_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/json_writer.h"
#include "results_gain.h"

/* Members of one object must differ: the second "legal" is written "legal (2)". */
static const char *unique_name(struct dsa_text *scratch, const char *name, int earlier)
{
	if (!name)
		name = "";
	if (!earlier)
		return name;
	scratch->bytes = 0;
	dsa_text_printf(scratch, "%s (%d)", name, earlier + 1);
	return scratch->data ? scratch->data : name;
}

static int earlier_corpora(const struct dsa_results *results, int at)
{
	int count = 0;
	for (int i = 0; i < at; i++)
		count += !strcmp(results->corpora[i].name ? results->corpora[i].name : "",
		                 results->corpora[at].name ? results->corpora[at].name : "");
	return count;
}

static int earlier_baselines(const struct dsa_results *results, int at)
{
	int count = 0;
	for (int i = 0; i < at; i++)
		count += !strcmp(results->baselines[i].name, results->baselines[at].name);
	return count;
}

/* Nothing measured: every figure is undefined, whatever the struct was filled with. */
static const struct dsa_quality unmeasured = {
    .kl = NAN,
    .kl_se = NAN,
    .kl_p50 = NAN,
    .kl_p90 = NAN,
    .kl_p99 = NAN,
    .kl_max = NAN,
    .nll = NAN,
    .nll_base = NAN,
    .nll_delta = NAN,
    .nll_delta_se = NAN,
    .ppl_ratio = NAN,
    .top1 = NAN,
    .kl_ci = {NAN, NAN},
    .nll_delta_ci = {NAN, NAN},
    .top1_ci = {NAN, NAN},
};

static void put_interval(struct dsa_json_writer *writer, const char *key, const struct dsa_interval *interval)
{
	if (isnan(interval->low) || isnan(interval->high)) {
		dsa_json_put_null(writer, key);
		return;
	}
	dsa_json_array(writer, key);
	dsa_json_put_real(writer, NULL, interval->low);
	dsa_json_put_real(writer, NULL, interval->high);
	dsa_json_end(writer);
}

static void put_quality_members(struct dsa_json_writer *writer, const struct dsa_quality *quality)
{
	if (!quality->documents)
		quality = &unmeasured;
	dsa_json_object(writer, "kl");
	dsa_json_put_real(writer, "mean", quality->kl);
	dsa_json_put_real(writer, "se", quality->kl_se);
	dsa_json_put_real(writer, "p50", quality->kl_p50);
	dsa_json_put_real(writer, "p90", quality->kl_p90);
	dsa_json_put_real(writer, "p99", quality->kl_p99);
	dsa_json_put_real(writer, "max", quality->kl_max);
	put_interval(writer, "ci95", &quality->kl_ci);
	dsa_json_end(writer);
	dsa_json_put_real(writer, "nll", quality->nll);
	dsa_json_put_real(writer, "nll_base", quality->nll_base);
	dsa_json_put_real(writer, "nll_delta", quality->nll_delta);
	dsa_json_put_real(writer, "nll_delta_se", quality->nll_delta_se);
	put_interval(writer, "nll_delta_ci95", &quality->nll_delta_ci);
	dsa_json_put_real(writer, "ppl_ratio", quality->ppl_ratio);
	dsa_json_put_real(writer, "top1", quality->top1);
	put_interval(writer, "top1_ci95", &quality->top1_ci);
	dsa_json_put_int(writer, "documents", quality->documents);
	dsa_json_put_int(writer, "scored_tokens", quality->tokens);
	dsa_json_array(writer, "by_position");
	for (int i = 0; i < quality->positions; i++) {
		const struct dsa_quality_at *at = &quality->by_position[i];
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "from", at->from);
		dsa_json_put_int(writer, "to", at->to);
		dsa_json_put_int(writer, "scored_tokens", at->tokens);
		dsa_json_put_real(writer, "kl", at->kl);
		dsa_json_put_real(writer, "kl_p99", at->kl_p99);
		dsa_json_put_real(writer, "nll_delta", at->nll_delta);
		dsa_json_put_real(writer, "top1", at->top1);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

static void put_quality(struct dsa_json_writer *writer, const char *key, const struct dsa_quality *quality)
{
	if (!quality->documents) {
		dsa_json_put_null(writer, key);
		return;
	}
	dsa_json_object(writer, key);
	put_quality_members(writer, quality);
	dsa_json_end(writer);
}

/* NaN and negative mean "not asked for" in struct dsa_budget; null says so here. */
static double asked(double bound)
{
	return bound >= 0 ? bound : (double)NAN;
}

static void put_budget(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	const struct dsa_budget *budget = &results->budget;
	dsa_json_object(writer, "budget");
	dsa_json_put_real(writer, "kl", asked(budget->kl));
	dsa_json_put_real(writer, "nll", asked(budget->nll));
	dsa_json_put_real(writer, "top1", asked(budget->top1));
	dsa_json_put_real(writer, "kl_p99", asked(budget->kl_p99));
	if (budget->max_shared >= 0)
		dsa_json_put_int(writer, "max_shared", budget->max_shared);
	else
		dsa_json_put_null(writer, "max_shared");
	dsa_json_put_text(writer, "scope", budget->scope == DSA_SCOPE_WORST ? "worst" : "mean");
	dsa_json_put_bool(writer, "default", results->default_budget);
	dsa_json_end(writer);
}

static void put_model(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	dsa_json_object(writer, "model");
	dsa_json_put_text(writer, "name", results->model_name);
	dsa_json_put_text(writer, "architecture", results->architecture);
	dsa_json_put_text(writer, "fingerprint", results->fingerprint);
	dsa_json_put_text(writer, "tokenizer", results->tokenizer);
	dsa_json_put_int(writer, "hidden", results->hidden);
	dsa_json_put_int(writer, "heads", results->heads);
	dsa_json_put_int(writer, "index_heads", results->index_heads);
	dsa_json_put_int(writer, "index_dim", results->index_dim);
	dsa_json_put_int(writer, "latent", results->latent);
	dsa_json_put_int(writer, "rope", results->rope);
	dsa_json_put_int(writer, "q_rank", results->q_rank);
	dsa_json_put_int(writer, "nope", results->nope);
	dsa_json_put_int(writer, "value", results->value);
	dsa_json_put_int(writer, "dense_inner", results->dense_inner);
	dsa_json_put_int(writer, "expert_inner", results->expert_inner);
	dsa_json_put_int(writer, "experts", results->experts);
	dsa_json_put_int(writer, "experts_per_token", results->experts_per_token);
	dsa_json_put_int(writer, "dense_layers", results->dense_layers);
	dsa_json_end(writer);
}

static void put_base(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	dsa_json_object(writer, "base");
	dsa_json_put_text(writer, "pattern", results->reference);
	dsa_json_put_real(writer, "nll", results->base.documents ? results->base.nll : (double)NAN);
	dsa_json_put_int(writer, "scored_tokens", results->base.tokens);
	dsa_json_put_int(writer, "documents", results->base.documents);
	put_quality(writer, "quality", &results->base);
	put_quality(writer, "calibration", &results->trace.base_calibration);
	put_quality(writer, "heldout", &results->trace.base_heldout);
	dsa_json_end(writer);
}

static void put_step(struct dsa_json_writer *writer, const struct dsa_step *step)
{
	dsa_json_object(writer, NULL);
	dsa_json_put_int(writer, "step", step->step);
	dsa_json_put_int(writer, "flip", step->flip);
	dsa_json_put_text(writer, "pattern", step->pattern);
	dsa_json_put_real(writer, "kl", step->calibration.kl);
	dsa_json_put_real(writer, "kl_se", step->calibration.kl_se);
	dsa_json_put_real(writer, "nll", step->calibration.nll);
	dsa_json_put_real(writer, "top1", step->calibration.top1);
	dsa_json_put_text(writer, "broken", step->broken ? dsa_bound_name(step->broken) : NULL);
	put_quality(writer, "calibration", &step->calibration);
	put_quality(writer, "heldout", &step->heldout);
	dsa_json_array(writer, "candidates");
	for (int i = 0; i < step->candidate_count; i++) {
		const struct dsa_candidate *candidate = &step->candidates[i];
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "layer", candidate->layer);
		dsa_json_put_real(writer, "objective", candidate->objective);
		dsa_json_put_real(writer, "kl", candidate->kl);
		dsa_json_put_real(writer, "kl_se", candidate->kl_se);
		dsa_json_put_real(writer, "nll", candidate->nll);
		dsa_json_put_int(writer, "documents", candidate->documents);
		dsa_json_put_real(writer, "bound", candidate->bound);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
	dsa_json_end(writer);
}

static void put_best(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	dsa_json_array(writer, "best");
	for (int i = 0; i < results->best_count; i++) {
		const struct dsa_best *best = &results->best[i];
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "shared", best->shared);
		dsa_json_put_text(writer, "pattern", best->pattern);
		dsa_json_put_real(writer, "kl", best->kl);
		dsa_json_put_real(writer, "heldout_kl", best->heldout_kl);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

/* What exchanging layers found: only counts at which it beat greedy's pattern. */
static void put_refined(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	dsa_json_array(writer, "refined");
	for (int i = 0; i < results->refinement.count; i++) {
		const struct dsa_refined *refined = &results->refinement.best[i];
		dsa_json_object(writer, NULL);
		dsa_json_put_int(writer, "shared", refined->shared);
		dsa_json_put_text(writer, "pattern", refined->pattern);
		dsa_json_put_real(writer, "difference", refined->difference);
		dsa_json_put_real(writer, "difference_se", refined->difference_se);
		dsa_json_put_text(writer, "broken", refined->broken ? dsa_bound_name(refined->broken) : NULL);
		put_quality(writer, "calibration", &refined->calibration);
		put_quality(writer, "heldout", &refined->heldout);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

static void put_corpora(struct dsa_json_writer *writer, const struct dsa_results *results, struct dsa_text *scratch)
{
	dsa_json_object(writer, "corpora");
	for (int i = 0; i < results->corpus_count; i++) {
		const struct dsa_result_corpus *corpus = &results->corpora[i];
		dsa_json_object(writer, unique_name(scratch, corpus->name, earlier_corpora(results, i)));
		put_quality_members(writer, &corpus->calibration);
		put_quality(writer, "heldout", &corpus->heldout);
		dsa_json_object(writer, "corpus");
		dsa_json_put_real(writer, "weight", corpus->weight);
		dsa_json_put_text(writer, "sha256", corpus->digest);
		dsa_json_put_int(writer, "documents", corpus->documents);
		dsa_json_put_int(writer, "documents_calibration", corpus->documents_calibration);
		dsa_json_put_int(writer, "documents_heldout", corpus->documents_heldout);
		dsa_json_put_int(writer, "unscored", corpus->unscored);
		dsa_json_put_int(writer, "cut", corpus->cut);
		dsa_json_put_int(writer, "tokens", corpus->tokens);
		dsa_json_put_int(writer, "scored", corpus->scored);
		dsa_json_put_int(writer, "scored_calibration", corpus->scored_calibration);
		dsa_json_put_int(writer, "scored_heldout", corpus->scored_heldout);
		dsa_json_end(writer);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

static void put_baselines(struct dsa_json_writer *writer, const struct dsa_results *results, struct dsa_text *scratch)
{
	dsa_json_object(writer, "baselines");
	for (int i = 0; i < results->baseline_count; i++) {
		const struct dsa_result_baseline *baseline = &results->baselines[i];
		dsa_json_object(writer, unique_name(scratch, baseline->name, earlier_baselines(results, i)));
		dsa_json_put_text(writer, "pattern", baseline->pattern);
		put_quality_members(writer, &baseline->calibration);
		put_quality(writer, "heldout", &baseline->heldout);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

static void put_noise_floor(struct dsa_json_writer *writer, const struct dsa_results *results, struct dsa_text *scratch)
{
	dsa_json_object(writer, "noise_floor");
	dsa_json_put_real(writer, "kl", results->noise_floor);
	dsa_json_put_real(writer, "kl_se", results->noise_floor_se);
	dsa_json_put_int(writer, "documents", results->noise_documents);
	dsa_json_object(writer, "corpora");
	for (int i = 0; i < results->corpus_count; i++)
		dsa_json_put_real(writer, unique_name(scratch, results->corpora[i].name, earlier_corpora(results, i)),
		                  results->corpora[i].noise_floor);
	dsa_json_end(writer);
	dsa_json_end(writer);
}

static void put_matrix(struct dsa_json_writer *writer, const char *key, const struct dsa_overlap *overlap, int corpus,
                       int position)
{
	dsa_json_array(writer, key);
	for (int i = 0; i < overlap->layers; i++) {
		dsa_json_array(writer, NULL);
		for (int j = 0; j < overlap->layers; j++)
			dsa_json_put_real(writer, NULL, dsa_overlap_at(overlap, corpus, position, i, j));
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

/* Per layer what share of its selections is float32's; null for S layers, which select nothing. */
static void put_plain(struct dsa_json_writer *writer, const char *key, const struct dsa_results *results, int corpus,
                      int position)
{
	dsa_json_array(writer, key);
	for (int l = 0; l < results->layers; l++)
		dsa_json_put_real(writer, NULL,
		                  results->reference[l] == 'F'
		                      ? dsa_overlap_plain(&results->overlap, corpus, position, l)
		                      : (double)NAN);
	dsa_json_end(writer);
}

/* (L, L) of one corpus, upper triangle by rows: what the standard errors come from. */
static void put_triangle(struct dsa_json_writer *writer, const char *key, const double *matrix, int layers)
{
	dsa_json_array(writer, key);
	for (int i = 0; i < layers; i++) {
		dsa_json_array(writer, NULL);
		for (int j = i; j < layers; j++)
			dsa_json_put_real(writer, NULL, matrix[(size_t)i * (size_t)layers + (size_t)j]);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

/* The sums over documents behind the errors of one slot; `documents` is written by the caller. */
static void put_overlap_sums(struct dsa_json_writer *writer, const struct dsa_overlap *overlap, size_t slot)
{
	size_t square = (size_t)overlap->layers * (size_t)overlap->layers;
	dsa_json_put_real(writer, "weight2", overlap->weight2[slot]);
	put_triangle(writer, "squared", overlap->squared + slot * square, overlap->layers);
	put_triangle(writer, "crossed", overlap->crossed + slot * square, overlap->layers);
}

static void put_overlap(struct dsa_json_writer *writer, const struct dsa_results *results, struct dsa_text *scratch)
{
	const struct dsa_overlap *overlap = &results->overlap;
	size_t square = (size_t)overlap->layers * (size_t)overlap->layers;
	dsa_json_object(writer, "overlap");
	for (int c = 0; c < overlap->corpora; c++)
		put_matrix(writer, unique_name(scratch, results->corpora[c].name, earlier_corpora(results, c)), overlap,
		           c, -1);
	dsa_json_end(writer);
	dsa_json_object(writer, "overlap_by_position");
	for (int c = 0; c < overlap->corpora; c++) {
		dsa_json_array(writer, unique_name(scratch, results->corpora[c].name, earlier_corpora(results, c)));
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			int64_t queries = overlap->queries[(size_t)c * DSA_POSITION_BUCKETS + (size_t)p];
			if (!queries)
				continue;
			dsa_json_object(writer, NULL);
			dsa_json_put_int(writer, "bucket", p);
			dsa_json_put_int(writer, "from", (int64_t)overlap->topk << p);
			dsa_json_put_int(writer, "to", (int64_t)overlap->topk << (p + 1));
			dsa_json_put_int(writer, "queries", queries);
			put_matrix(writer, "overlap", overlap, c, p);
			if (overlap->has_plain)
				put_plain(writer, "with_f32", results, c, p);
			size_t slot = (size_t)c * DSA_OVERLAP_SLOTS + (size_t)p;
			dsa_json_put_int(writer, "documents", overlap->documents[slot]);
			put_overlap_sums(writer, overlap, slot);
			dsa_json_end(writer);
		}
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
	dsa_json_object(writer, "overlap_documents");
	for (int c = 0; c < overlap->corpora; c++) {
		dsa_json_object(writer, unique_name(scratch, results->corpora[c].name, earlier_corpora(results, c)));
		size_t slot = (size_t)c * DSA_OVERLAP_SLOTS + DSA_POSITION_BUCKETS;
		dsa_json_put_int(writer, "documents", overlap->documents[slot]);
		put_triangle(writer, "sum", overlap->sum + (size_t)c * square, overlap->layers);
		put_triangle(writer, "sum2", overlap->sum2 + (size_t)c * square, overlap->layers);
		put_overlap_sums(writer, overlap, slot);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
	if (!overlap->has_plain)
		return;
	dsa_json_object(writer, "overlap_with_f32");
	for (int c = 0; c < overlap->corpora; c++)
		put_plain(writer, unique_name(scratch, results->corpora[c].name, earlier_corpora(results, c)), results,
		          c, -1);
	dsa_json_end(writer);
}

/* Last in every file. */
static void put_work_and_provenance(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	const struct dsa_result_work *work = &results->work;
	const struct dsa_provenance *provenance = &results->provenance;
	dsa_json_object(writer, "work");
	dsa_json_put_int(writer, "token_layers", work->token_layers);
	dsa_json_put_int(writer, "refine_token_layers", work->refine_token_layers);
	dsa_json_put_int(writer, "head_tokens", work->head_tokens);
	dsa_json_put_int(writer, "token_layers_naive", work->token_layers_naive);
	dsa_json_put_real(writer, "seconds", work->seconds);
	dsa_json_end(writer);
	dsa_json_object(writer, "provenance");
	dsa_json_put_text(writer, "version", provenance->version);
	dsa_json_put_text(writer, "commit", provenance->commit);
	dsa_json_put_text(writer, "device", provenance->device);
	dsa_json_put_text(writer, "date", provenance->date);
	dsa_json_put_int(writer, "threads", provenance->threads);
	dsa_json_put_uint(writer, "host_memory", provenance->host_memory);
	dsa_json_put_int(writer, "executed", provenance->executed);
	dsa_json_put_uint(writer, "peak_memory", provenance->peak_memory);
	dsa_json_end(writer);
}

static void put_settings(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	put_model(writer, results);
	dsa_json_put_int(writer, "context", results->context);
	dsa_json_put_text(writer, "indexer_precision", dsa_index_precision_name(results->index_precision));
	dsa_json_put_int(writer, "max_tokens", results->max_tokens);
	dsa_json_put_uint(writer, "seed", results->seed);
	dsa_json_put_real(writer, "holdout", results->holdout);
	dsa_json_put_text(writer, "search", results->search);
	dsa_json_put_real(writer, "delta", results->delta);
	dsa_json_put_real(writer, "epsilon", results->epsilon);
	dsa_json_put_real(writer, "refine_work", results->refine_work > 0 ? results->refine_work : (double)NAN);
	dsa_json_put_text(writer, "objective", results->objective == DSA_OBJECTIVE_NLL ? "nll" : "kl");
	put_budget(writer, results);
}

static void put_head(struct dsa_json_writer *writer, const struct dsa_results *results)
{
	dsa_json_object(writer, NULL);
	dsa_json_put_int(writer, "schema", DSA_RESULTS_SCHEMA);
	dsa_json_put_int(writer, "layers", results->layers);
	dsa_json_put_int(writer, "index_topk", results->topk);
	dsa_json_put_text(writer, "pattern", results->pattern);
}

void dsa_results_json_write(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_json_writer writer;
	struct dsa_text scratch = {0};
	dsa_json_writer_init(&writer, text, 3);
	put_head(&writer, results);
	put_settings(&writer, results);
	put_base(&writer, results);
	dsa_json_array(&writer, "trace");
	for (int i = 0; i < results->trace.count; i++)
		put_step(&writer, &results->trace.steps[i]);
	dsa_json_end(&writer);
	dsa_json_put_int(&writer, "emitted_step", results->trace.emitted + 1);
	put_best(&writer, results);
	put_refined(&writer, results);
	put_quality(&writer, "quality", &results->quality);
	put_quality(&writer, "heldout", &results->heldout);
	put_corpora(&writer, results, &scratch);
	put_baselines(&writer, results, &scratch);
	put_noise_floor(&writer, results, &scratch);
	put_overlap(&writer, results, &scratch);
	results_put_gain(&writer, results);
	enum dsa_bound stopped_by = results->trace.stopped_by;
	dsa_json_put_text(&writer, "stopped_by", stopped_by ? dsa_bound_name(stopped_by) : NULL);
	put_work_and_provenance(&writer, results);
	dsa_json_end(&writer);
	text->failed |= scratch.failed;
	dsa_text_release(&scratch);
}

void dsa_evaluate_json_write(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_json_writer writer;
	struct dsa_text scratch = {0};
	dsa_json_writer_init(&writer, text, 3);
	put_head(&writer, results);
	put_settings(&writer, results);
	put_base(&writer, results);
	put_quality(&writer, "quality", &results->quality);
	put_quality(&writer, "heldout", &results->heldout);
	put_corpora(&writer, results, &scratch);
	put_noise_floor(&writer, results, &scratch);
	put_work_and_provenance(&writer, results);
	dsa_json_end(&writer);
	text->failed |= scratch.failed;
	dsa_text_release(&scratch);
}

void dsa_overlap_json_write(struct dsa_text *text, const struct dsa_results *results)
{
	struct dsa_json_writer writer;
	struct dsa_text scratch = {0};
	dsa_json_writer_init(&writer, text, 3);
	dsa_json_object(&writer, NULL);
	dsa_json_put_int(&writer, "schema", DSA_RESULTS_SCHEMA);
	dsa_json_put_int(&writer, "layers", results->layers);
	dsa_json_put_int(&writer, "index_topk", results->topk);
	dsa_json_put_text(&writer, "reference", results->reference);
	put_model(&writer, results);
	dsa_json_put_int(&writer, "context", results->context);
	dsa_json_put_text(&writer, "indexer_precision", dsa_index_precision_name(results->index_precision));
	put_corpora(&writer, results, &scratch);
	put_overlap(&writer, results, &scratch);
	put_work_and_provenance(&writer, results);
	dsa_json_end(&writer);
	text->failed |= scratch.failed;
	dsa_text_release(&scratch);
}
