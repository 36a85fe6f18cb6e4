#include "dsa/pattern_yaml.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <yaml.h>

#include "dsa/engines.h"
#include "dsa/gain.h"
#include "dsa/pattern.h"

/* libyaml's emitter, so that quoting and escapes are its affair; one failure drops the rest. */
struct writer {
	yaml_emitter_t emitter;
	struct dsa_text *text;
	struct dsa_text scratch;
	bool failed;
};

static int append(void *data, unsigned char *bytes, size_t count)
{
	struct writer *writer = data;
	dsa_text_bytes(writer->text, bytes, count);
	return !writer->text->failed;
}

/* `made` is what the event's constructor returned; the emitter owns the event afterwards, whatever happens. */
static void emit(struct writer *writer, yaml_event_t *event, int made)
{
	if (!made)
		writer->failed = true;
	else if (writer->failed)
		yaml_event_delete(event);
	else if (!yaml_emitter_emit(&writer->emitter, event))
		writer->failed = true;
}

static void scalar(struct writer *writer, const char *text, size_t length, yaml_scalar_style_t style)
{
	yaml_event_t event;
	int made =
	    yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)length, 1, 1, style);
	emit(writer, &event, made);
}

static void plain(struct writer *writer, const char *text)
{
	scalar(writer, text, strlen(text), YAML_PLAIN_SCALAR_STYLE);
}

static void map_begin(struct writer *writer, const char *key, bool inline_style)
{
	yaml_event_t event;
	if (key)
		plain(writer, key);
	int made = yaml_mapping_start_event_initialize(
	    &event, NULL, NULL, 1, inline_style ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE);
	emit(writer, &event, made);
}

static void map_end(struct writer *writer)
{
	yaml_event_t event;
	emit(writer, &event, yaml_mapping_end_event_initialize(&event));
}

static void list_begin(struct writer *writer, const char *key, bool inline_style)
{
	yaml_event_t event;
	plain(writer, key);
	int made = yaml_sequence_start_event_initialize(
	    &event, NULL, NULL, 1, inline_style ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE);
	emit(writer, &event, made);
}

static void list_end(struct writer *writer)
{
	yaml_event_t event;
	emit(writer, &event, yaml_sequence_end_event_initialize(&event));
}

/* Every string is double-quoted: no pattern or name is ever taken for a number, a bool or a null. */
static void put_text(struct writer *writer, const char *key, const char *value)
{
	plain(writer, key);
	if (!value) {
		plain(writer, "null");
		return;
	}
	writer->scratch.bytes = 0;
	dsa_text_utf8(&writer->scratch, value);
	scalar(writer, writer->scratch.bytes ? writer->scratch.data : "", writer->scratch.bytes,
	       YAML_DOUBLE_QUOTED_SCALAR_STYLE);
}

static void put_int(struct writer *writer, const char *key, int64_t value)
{
	char digits[24];
	snprintf(digits, sizeof digits, "%" PRId64, value);
	if (key)
		plain(writer, key);
	plain(writer, digits);
}

static void put_real(struct writer *writer, const char *key, double value)
{
	if (key)
		plain(writer, key);
	writer->scratch.bytes = 0;
	dsa_text_real(&writer->scratch, value);
	if (!writer->scratch.failed)
		plain(writer, writer->scratch.data);
}

static void put_interval(struct writer *writer, const char *key, const struct dsa_interval *interval)
{
	if (isnan(interval->low) || isnan(interval->high)) {
		put_real(writer, key, NAN);
		return;
	}
	list_begin(writer, key, true);
	put_real(writer, NULL, interval->low);
	put_real(writer, NULL, interval->high);
	list_end(writer);
}

static void put_quality(struct writer *writer, const char *key, const struct dsa_quality *quality)
{
	if (!quality->documents) {
		plain(writer, key);
		plain(writer, "null");
		return;
	}
	map_begin(writer, key, true);
	put_real(writer, "kl", quality->kl);
	put_real(writer, "kl_se", quality->kl_se);
	put_interval(writer, "kl_ci95", &quality->kl_ci);
	put_real(writer, "kl_p99", quality->kl_p99);
	put_real(writer, "nll_delta", quality->nll_delta);
	put_real(writer, "nll_delta_se", quality->nll_delta_se);
	put_interval(writer, "nll_delta_ci95", &quality->nll_delta_ci);
	put_real(writer, "top1", quality->top1);
	put_interval(writer, "top1_ci95", &quality->top1_ci);
	put_int(writer, "documents", quality->documents);
	put_int(writer, "scored_tokens", quality->tokens);
	map_end(writer);
}

static void put_model(struct writer *writer, const struct dsa_results *results)
{
	map_begin(writer, "model", false);
	put_text(writer, "name", results->model_name);
	put_text(writer, "architecture", results->architecture);
	put_int(writer, "layers", results->layers);
	put_int(writer, "index_topk", results->topk);
	put_text(writer, "fingerprint", results->fingerprint);
	put_text(writer, "tokenizer", results->tokenizer);
	map_end(writer);
}

static void put_corpora(struct writer *writer, const struct dsa_results *results)
{
	list_begin(writer, "corpora", false);
	for (int i = 0; i < results->corpus_count; i++) {
		const struct dsa_result_corpus *corpus = &results->corpora[i];
		map_begin(writer, NULL, false);
		put_text(writer, "name", corpus->name);
		put_text(writer, "sha256", corpus->digest);
		put_real(writer, "weight", corpus->weight);
		put_int(writer, "documents", corpus->documents);
		put_int(writer, "tokens", corpus->tokens);
		put_int(writer, "scored_tokens", corpus->scored);
		put_int(writer, "context", results->context);
		map_end(writer);
	}
	list_end(writer);
	put_text(writer, "indexer_precision", dsa_index_precision_name(results->index_precision));
	put_int(writer, "max_tokens", results->max_tokens);
	put_real(writer, "holdout", results->holdout);
}

static void put_pattern(struct writer *writer, const struct dsa_results *results)
{
	put_text(writer, "pattern", results->pattern);
	put_text(writer, "reference", results->reference);
	list_begin(writer, "full_layers", true);
	for (int l = 0; l < results->layers; l++)
		if (results->pattern[l] == 'F')
			put_int(writer, NULL, l);
	list_end(writer);
	list_begin(writer, "source_of", true);
	for (int l = 0; l < results->layers; l++)
		put_int(writer, NULL, dsa_pattern_source(results->pattern, l));
	list_end(writer);
}

static void put_figures(struct writer *writer, const struct dsa_results *results)
{
	map_begin(writer, "quality", false);
	put_quality(writer, "calibration", &results->quality);
	put_quality(writer, "heldout", &results->heldout);
	list_begin(writer, "corpora", false);
	for (int i = 0; i < results->corpus_count; i++) {
		map_begin(writer, NULL, false);
		put_text(writer, "name", results->corpora[i].name);
		put_quality(writer, "calibration", &results->corpora[i].calibration);
		put_quality(writer, "heldout", &results->corpora[i].heldout);
		put_real(writer, "noise_floor", results->corpora[i].noise_floor);
		map_end(writer);
	}
	list_end(writer);
	map_end(writer);
	put_real(writer, "noise_floor", results->noise_floor);
	list_begin(writer, "baselines", false);
	for (int i = 0; i < results->baseline_count; i++) {
		map_begin(writer, NULL, false);
		put_text(writer, "name", results->baselines[i].name);
		put_text(writer, "pattern", results->baselines[i].pattern);
		put_quality(writer, "calibration", &results->baselines[i].calibration);
		put_quality(writer, "heldout", &results->baselines[i].heldout);
		map_end(writer);
	}
	list_end(writer);
}

static void put_search(struct writer *writer, const struct dsa_results *results)
{
	const struct dsa_budget *budget = &results->budget;
	map_begin(writer, "budget", true);
	if (budget->kl >= 0)
		put_real(writer, "kl", budget->kl);
	if (budget->nll >= 0)
		put_real(writer, "nll", budget->nll);
	if (budget->top1 >= 0)
		put_real(writer, "top1", budget->top1);
	if (budget->kl_p99 >= 0)
		put_real(writer, "kl_p99", budget->kl_p99);
	if (budget->max_shared >= 0)
		put_int(writer, "max_shared", budget->max_shared);
	put_text(writer, "scope", budget->scope == DSA_SCOPE_WORST ? "worst" : "mean");
	map_end(writer);
	put_text(writer, "stopped_by", results->trace.stopped_by ? dsa_bound_name(results->trace.stopped_by) : NULL);
	list_begin(writer, "steps", false);
	for (int i = 0; i < results->trace.count; i++) {
		const struct dsa_step *step = &results->trace.steps[i];
		map_begin(writer, NULL, true);
		put_int(writer, "step", step->step);
		put_int(writer, "flip", step->flip);
		put_real(writer, "kl", step->calibration.kl);
		put_real(writer, "kl_se", step->calibration.kl_se);
		put_real(writer, "heldout_kl", step->heldout.documents ? step->heldout.kl : NAN);
		map_end(writer);
	}
	list_end(writer);
	if (!results->refinement.count)
		return;
	list_begin(writer, "refined", false);
	for (int i = 0; i < results->refinement.count; i++) {
		const struct dsa_refined *refined = &results->refinement.best[i];
		map_begin(writer, NULL, true);
		put_int(writer, "shared", refined->shared);
		put_text(writer, "pattern", refined->pattern);
		put_real(writer, "kl", refined->calibration.kl);
		put_real(writer, "kl_se", refined->calibration.kl_se);
		put_real(writer, "heldout_kl", refined->heldout.documents ? refined->heldout.kl : NAN);
		map_end(writer);
	}
	list_end(writer);
}

static void put_gain(struct writer *writer, const struct dsa_results *results)
{
	struct dsa_gain rows[DSA_GAIN_ROWS];
	struct dsa_text basis = {0};
	int count = dsa_gain_table(results, rows);
	if (!count)
		return;
	map_begin(writer, "expected_gain", false);
	if (results->cost_count)
		dsa_text_printf(&basis,
		                "prefill measured on %s where a row says so; the rest FLOPs of the layers by model "
		                "shape, no clock",
		                results->costs_device);
	else
		dsa_text_add(&basis, "FLOPs of the layers by model shape, no clock: an estimate for prefill, at long "
		                     "contexts far above what decoding gains");
	writer->failed |= basis.failed;
	put_text(writer, "basis", basis.failed ? NULL : basis.data);
	dsa_text_release(&basis);
	list_begin(writer, "by_context", false);
	for (int i = 0; i < count; i++) {
		map_begin(writer, NULL, true);
		put_int(writer, "context", rows[i].context);
		put_text(writer, "basis", dsa_gain_basis_name(rows[i].basis));
		/* Three decimals are more than an estimate deserves. */
		put_real(writer, "prefill", round(rows[i].prefill * 1e3) / 1e3);
		put_real(writer, "decode", round(rows[i].decode * 1e3) / 1e3);
		map_end(writer);
	}
	list_end(writer);
	map_end(writer);
}

/* All in one string, as readers of the key expect. */
static void put_warnings(struct writer *writer, const struct dsa_export *export)
{
	struct dsa_text all = {0};
	for (int w = 0; w < export->warnings; w++) {
		dsa_text_add(&all, w ? "; " : "");
		dsa_text_add(&all, export->warning[w].text);
	}
	writer->failed |= all.failed;
	put_text(writer, "warning", all.failed ? NULL : all.data);
	dsa_text_release(&all);
}

static void put_engines(struct writer *writer, const struct dsa_results *results)
{
	map_begin(writer, "engines", false);
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
			map_begin(writer, dsa_engine_name(engine), false);
			/* As a block: to be copied as it stands. */
			plain(writer, export.where);
			scalar(writer, export.text.data, export.text.bytes, YAML_LITERAL_SCALAR_STYLE);
			if (export.warnings)
				put_warnings(writer, &export);
			map_end(writer);
		}
		writer->failed |= export.text.failed;
		dsa_export_release(&export);
	}
	map_end(writer);
}

static void put_provenance(struct writer *writer, const struct dsa_results *results)
{
	map_begin(writer, "provenance", false);
	put_text(writer, "version", results->provenance.version);
	put_text(writer, "commit", results->provenance.commit);
	put_text(writer, "device", results->provenance.device);
	put_text(writer, "date", results->provenance.date);
	plain(writer, "seed");
	char digits[24];
	snprintf(digits, sizeof digits, "%" PRIu64, results->seed);
	plain(writer, digits);
	map_end(writer);
}

void dsa_pattern_yaml_write(struct dsa_text *text, const struct dsa_results *results)
{
	struct writer writer = {.text = text};
	yaml_event_t event;
	if (!yaml_emitter_initialize(&writer.emitter)) {
		text->failed = true;
		return;
	}
	yaml_emitter_set_output(&writer.emitter, append, &writer);
	yaml_emitter_set_encoding(&writer.emitter, YAML_UTF8_ENCODING);
	yaml_emitter_set_unicode(&writer.emitter, 1);
	yaml_emitter_set_width(&writer.emitter, -1);
	emit(&writer, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	emit(&writer, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	map_begin(&writer, NULL, false);
	put_int(&writer, "schema", DSA_PATTERN_SCHEMA);
	put_model(&writer, results);
	put_corpora(&writer, results);
	put_pattern(&writer, results);
	put_figures(&writer, results);
	put_search(&writer, results);
	put_gain(&writer, results);
	put_engines(&writer, results);
	put_provenance(&writer, results);
	map_end(&writer);
	emit(&writer, &event, yaml_document_end_event_initialize(&event, 1));
	emit(&writer, &event, yaml_stream_end_event_initialize(&event));
	yaml_emitter_delete(&writer.emitter);
	text->failed |= writer.failed || writer.scratch.failed;
	dsa_text_release(&writer.scratch);
}
