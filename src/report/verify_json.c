#include "dsa/verify_json.h"

#include <math.h>
#include <string.h>

#include "dsa/json_writer.h"

static void put_quality(struct dsa_json_writer *writer, const char *key, const struct dsa_quality *quality)
{
	if (!quality || !quality->documents) {
		dsa_json_put_null(writer, key);
		return;
	}
	dsa_json_object(writer, key);
	dsa_json_put_real(writer, "kl", quality->kl);
	dsa_json_put_real(writer, "kl_se", quality->kl_se);
	dsa_json_put_real(writer, "kl_p99", quality->kl_p99);
	dsa_json_put_real(writer, "nll_delta", quality->nll_delta);
	dsa_json_put_real(writer, "nll_delta_se", quality->nll_delta_se);
	dsa_json_put_real(writer, "top1", quality->top1);
	dsa_json_put_int(writer, "documents", quality->documents);
	dsa_json_put_int(writer, "scored_tokens", quality->tokens);
	dsa_json_end(writer);
}

static void put_both(struct dsa_json_writer *writer, const char *key, const struct dsa_quality *found,
                     const struct dsa_quality *recorded)
{
	dsa_json_object(writer, key);
	put_quality(writer, "found", found);
	put_quality(writer, "recorded", recorded);
	dsa_json_end(writer);
}

static bool changed(const char *recorded, const char *now)
{
	return recorded && (!now || strcmp(recorded, now) != 0);
}

static void put_model(struct dsa_json_writer *writer, const struct dsa_verify_report *report)
{
	const struct dsa_results *now = report->now, *recorded = report->recorded;
	dsa_json_object(writer, "model");
	dsa_json_put_text(writer, "name", now->model_name);
	dsa_json_put_text(writer, "architecture", now->architecture);
	dsa_json_put_text(writer, "fingerprint", now->fingerprint);
	dsa_json_put_text(writer, "recorded_fingerprint", recorded->fingerprint);
	dsa_json_put_text(writer, "tokenizer", now->tokenizer);
	dsa_json_put_text(writer, "recorded_tokenizer", recorded->tokenizer);
	dsa_json_put_bool(writer, "changed",
	                  changed(recorded->fingerprint, now->fingerprint) ||
	                      changed(recorded->tokenizer, now->tokenizer));
	dsa_json_end(writer);
}

static void put_bound(struct dsa_json_writer *writer, const char *key, double bound)
{
	dsa_json_put_real(writer, key, bound >= 0 ? bound : (double)NAN);
}

static void put_budget(struct dsa_json_writer *writer, const struct dsa_budget *budget)
{
	dsa_json_object(writer, "budget");
	put_bound(writer, "kl", budget->kl);
	put_bound(writer, "nll", budget->nll);
	put_bound(writer, "top1", budget->top1);
	put_bound(writer, "kl_p99", budget->kl_p99);
	put_bound(writer, "max_shared", budget->max_shared);
	dsa_json_put_text(writer, "scope", budget->scope == DSA_SCOPE_WORST ? "worst" : "mean");
	dsa_json_end(writer);
}

static void put_corpora(struct dsa_json_writer *writer, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	dsa_json_array(writer, "corpora");
	for (int c = 0; c < report->now->corpus_count; c++) {
		const struct dsa_result_corpus *now = &report->now->corpora[c];
		const int r = judgement->recorded_as[c];
		const struct dsa_result_corpus *then = r < 0 ? NULL : &report->recorded->corpora[r];
		dsa_json_object(writer, NULL);
		dsa_json_put_text(writer, "name", now->name);
		dsa_json_put_text(writer, "recorded_name", then ? then->name : NULL);
		dsa_json_put_text(writer, "documents", dsa_documents_name(judgement->documents[c]));
		dsa_json_put_text(writer, "sha256", now->digest);
		dsa_json_put_text(writer, "recorded_sha256", then && *then->digest ? then->digest : NULL);
		dsa_json_put_real(writer, "weight", now->weight);
		put_both(writer, "calibration", &now->calibration, then ? &then->calibration : NULL);
		put_both(writer, "heldout", &now->heldout, then ? &then->heldout : NULL);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

static void put_checks(struct dsa_json_writer *writer, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	dsa_json_array(writer, "checks");
	for (int i = 0; i < judgement->count; i++) {
		const struct dsa_check *check = &judgement->checks[i];
		const bool pattern = check->figure == DSA_FIGURE_SHARED, all = check->corpus == DSA_ALL_CORPORA;
		dsa_json_object(writer, NULL);
		dsa_json_put_text(writer, "outcome", dsa_outcome_name(check->outcome));
		dsa_json_put_text(writer, "figure", dsa_figure_name(check->figure));
		dsa_json_put_text(writer, "bound", check->bound ? dsa_figure_bound_name(check->figure) : NULL);
		dsa_json_put_text(writer, "corpus", all ? NULL : report->now->corpora[check->corpus].name);
		dsa_json_put_text(writer, "split",
		                  pattern                       ? NULL
		                  : check->split == DSA_HELDOUT ? "heldout"
		                                                : "calibration");
		dsa_json_put_real(writer, "found", check->found);
		dsa_json_put_real(writer, "found_se", check->found_se);
		dsa_json_put_real(writer, "against", check->against);
		dsa_json_put_real(writer, "against_se", check->against_se);
		dsa_json_put_real(writer, "allowed", check->allowed);
		dsa_json_put_text(writer, "reason", check->reason);
		dsa_json_end(writer);
	}
	dsa_json_end(writer);
}

void dsa_verify_json_write(struct dsa_text *text, const struct dsa_verify_report *report)
{
	struct dsa_json_writer writer;
	const struct dsa_results *now = report->now;
	const struct dsa_verification *verification = report->verification;
	dsa_json_writer_init(&writer, text, 2);
	dsa_json_object(&writer, NULL);
	dsa_json_put_int(&writer, "schema", DSA_VERIFY_SCHEMA);
	dsa_json_put_text(&writer, "verdict", verification->judgement.worse ? "worse" : "holds");
	dsa_json_put_text(&writer, "file", report->file);
	dsa_json_put_int(&writer, "layers", now->layers);
	dsa_json_put_int(&writer, "index_topk", now->topk);
	dsa_json_put_text(&writer, "pattern", now->pattern);
	put_model(&writer, report);
	dsa_json_put_int(&writer, "context", now->context);
	dsa_json_put_text(&writer, "indexer_precision", dsa_index_precision_name(now->index_precision));
	dsa_json_put_text(&writer, "recorded_indexer_precision",
	                  dsa_index_precision_name(report->recorded->index_precision));
	dsa_json_put_int(&writer, "max_tokens", now->max_tokens);
	dsa_json_put_real(&writer, "holdout", now->holdout);
	dsa_json_put_uint(&writer, "seed", now->seed);
	put_budget(&writer, &report->options->judge.budget);
	dsa_json_put_real(&writer, "tolerance", report->options->judge.tolerance);
	dsa_json_put_int(&writer, "documents", verification->documents);
	dsa_json_put_int(&writer, "documents_all", verification->all);
	dsa_json_put_bool(&writer, "early", verification->early);
	dsa_json_put_real(&writer, "confidence", verification->confidence);
	dsa_json_put_bool(&writer, "accepted", report->accepted);
	put_checks(&writer, report);
	put_both(&writer, "calibration", &now->quality, &report->recorded->quality);
	put_both(&writer, "heldout", &now->heldout, &report->recorded->heldout);
	put_corpora(&writer, report);
	dsa_json_object(&writer, "provenance");
	dsa_json_put_text(&writer, "version", now->provenance.version);
	dsa_json_put_text(&writer, "commit", now->provenance.commit);
	dsa_json_put_text(&writer, "device", now->provenance.device);
	dsa_json_put_text(&writer, "date", now->provenance.date);
	dsa_json_end(&writer);
	dsa_json_end(&writer);
}
