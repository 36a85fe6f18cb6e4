/* The reading half of pattern_yaml.h. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/file.h"
#include "dsa/model_config.h"
#include "dsa/pattern.h"
#include "dsa/pattern_yaml.h"
#include "dsa/yaml.h"

struct reader {
	struct dsa_results *results;
	struct dsa_arena *arena;
	struct dsa_error *err;
	const char *place;
	const struct dsa_log *log;
};

static enum dsa_status read_int(const struct reader *reader, const struct dsa_yaml *map, const char *key, int low,
                                int fallback, int *out)
{
	int64_t wide;
	enum dsa_status status = dsa_yaml_int(map, reader->place, key, low, INT_MAX, fallback, &wide, reader->err);
	*out = status ? fallback : (int)wide;
	return status;
}

static enum dsa_status read_real(const struct reader *reader, const struct dsa_yaml *map, const char *key, double *out)
{
	return dsa_yaml_real(map, reader->place, key, NAN, out, reader->err);
}

static enum dsa_status read_text(const struct reader *reader, const struct dsa_yaml *map, const char *key,
                                 const char **out)
{
	return dsa_yaml_text(map, reader->place, key, NULL, out, reader->err);
}

/* Two numbers; NaN where the file has none. */
static enum dsa_status read_interval(const struct reader *reader, const struct dsa_yaml *map, const char *key,
                                     struct dsa_interval *interval)
{
	const struct dsa_yaml *pair;
	*interval = (struct dsa_interval){NAN, NAN};
	enum dsa_status status = dsa_yaml_child(map, reader->place, key, DSA_YAML_LIST, &pair, reader->err);
	if (status || !pair)
		return status;
	double *const to[] = {&interval->low, &interval->high};
	const struct dsa_yaml *item = pair->first;
	for (int i = 0; i < 2 && pair->count == 2; i++, item = item->next) {
		char *end = NULL;
		*to[i] = item->kind == DSA_YAML_SCALAR ? strtod(item->text, &end) : NAN;
		if (!end || end == item->text || *end)
			*to[i] = NAN;
	}
	if (isfinite(interval->low) && isfinite(interval->high))
		return DSA_OK;
	return dsa_fail(reader->err, DSA_E_INPUT, "%s, line %d: %s: expected two numbers", reader->place, pair->line,
	                key);
}

static enum dsa_status read_quality(const struct reader *reader, const struct dsa_yaml *parent, const char *key,
                                    struct dsa_quality *quality)
{
	const struct dsa_yaml *map;
	*quality = (struct dsa_quality){
	    .kl_p50 = NAN, .kl_p90 = NAN, .kl_max = NAN, .nll = NAN, .nll_base = NAN, .ppl_ratio = NAN};
	enum dsa_status status = dsa_yaml_child(parent, reader->place, key, DSA_YAML_MAP, &map, reader->err);
	if (status)
		return status;
	if ((status = read_real(reader, map, "kl", &quality->kl)) ||
	    (status = read_real(reader, map, "kl_se", &quality->kl_se)) ||
	    (status = read_interval(reader, map, "kl_ci95", &quality->kl_ci)) ||
	    (status = read_real(reader, map, "kl_p99", &quality->kl_p99)) ||
	    (status = read_real(reader, map, "nll_delta", &quality->nll_delta)) ||
	    (status = read_real(reader, map, "nll_delta_se", &quality->nll_delta_se)) ||
	    (status = read_interval(reader, map, "nll_delta_ci95", &quality->nll_delta_ci)) ||
	    (status = read_real(reader, map, "top1", &quality->top1)) ||
	    (status = read_interval(reader, map, "top1_ci95", &quality->top1_ci)) ||
	    (status = read_int(reader, map, "documents", 0, 0, &quality->documents)) ||
	    (status =
	         dsa_yaml_int(map, reader->place, "scored_tokens", 0, INT64_MAX, 0, &quality->tokens, reader->err)))
		return status;
	return DSA_OK;
}

/* The pattern of `map` under key, `layers` long unless that is 0; NULL when absent. */
static enum dsa_status read_pattern(const struct reader *reader, const struct dsa_yaml *map, const char *key,
                                    int layers, const char **out)
{
	char what[512];
	enum dsa_status status = read_text(reader, map, key, out);
	if (status || !*out)
		return status;
	size_t length = strlen(*out);
	snprintf(what, sizeof what, "%.300s: line %d: %s", reader->place, dsa_yaml_find(map, key)->line, key);
	if (!length || length > DSA_MAX_LAYERS)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s has %zu characters, expected 1 to %d", what, length,
		                DSA_MAX_LAYERS);
	return dsa_pattern_check(*out, layers ? layers : (int)length, what, reader->err) ? DSA_E_INPUT : DSA_OK;
}

/* True when list holds exactly values[0..count). */
static bool list_equals(const struct dsa_yaml *list, const int *values, int count)
{
	const struct dsa_yaml *entry = list->first;
	char digits[24];
	if (list->count != count)
		return false;
	for (int i = 0; i < count; i++, entry = entry->next) {
		snprintf(digits, sizeof digits, "%d", values[i]);
		if (entry->kind != DSA_YAML_SCALAR || strcmp(entry->text, digits) != 0)
			return false;
	}
	return true;
}

/* A derived field that no longer follows from the pattern is worth a word, not a refusal. */
static enum dsa_status check_derived(const struct reader *reader, const struct dsa_yaml *root, const char *key,
                                     const int *values, int count)
{
	const struct dsa_yaml *list;
	enum dsa_status status = dsa_yaml_child(root, reader->place, key, DSA_YAML_LIST, &list, reader->err);
	if (!status && list && !list_equals(list, values, count))
		dsa_log_line(reader->log, DSA_LOG_WARN,
		             "%s: line %d: %s does not follow from the pattern; the pattern counts", reader->place,
		             list->line, key);
	return status;
}

static enum dsa_status read_head(const struct reader *reader, const struct dsa_yaml *root)
{
	enum dsa_status status;
	const struct dsa_yaml *model;
	struct dsa_results *results = reader->results;
	int schema, layers, values[DSA_MAX_LAYERS], count = 0;
	if (root->kind != DSA_YAML_MAP)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: line %d: expected a map with the key pattern",
		                reader->place, root->line);
	if ((status = read_int(reader, root, "schema", 0, DSA_PATTERN_SCHEMA, &schema)))
		return status;
	if (schema != DSA_PATTERN_SCHEMA)
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: schema is %d, expected %d; was it made by a newer dsacal?", reader->place, schema,
		                DSA_PATTERN_SCHEMA);
	if ((status = read_pattern(reader, root, "pattern", 0, &results->pattern)))
		return status;
	if (!results->pattern)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: there is no pattern", reader->place);
	results->layers = (int)strlen(results->pattern);
	if ((status = dsa_yaml_child(root, reader->place, "model", DSA_YAML_MAP, &model, reader->err)) ||
	    (status = read_text(reader, model, "name", &results->model_name)) ||
	    (status = read_text(reader, model, "architecture", &results->architecture)) ||
	    (status = read_text(reader, model, "fingerprint", &results->fingerprint)) ||
	    (status = read_text(reader, model, "tokenizer", &results->tokenizer)) ||
	    (status = read_int(reader, model, "index_topk", 0, 0, &results->topk)) ||
	    (status = read_int(reader, model, "layers", 0, results->layers, &layers)))
		return status;
	if (layers != results->layers)
		dsa_log_line(reader->log, DSA_LOG_WARN,
		             "%s: model.layers is %d, but the pattern has %d; the pattern counts", reader->place,
		             layers, results->layers);
	for (int l = 0; l < results->layers; l++)
		if (results->pattern[l] == 'F')
			values[count++] = l;
	if ((status = check_derived(reader, root, "full_layers", values, count)))
		return status;
	for (int l = 0; l < results->layers; l++)
		values[l] = dsa_pattern_source(results->pattern, l);
	if ((status = check_derived(reader, root, "source_of", values, results->layers)))
		return status;
	return read_pattern(reader, root, "reference", results->layers, &results->reference);
}

/* Figures of the corpus called name in quality.corpora, if they are there. */
static enum dsa_status read_corpus_quality(const struct reader *reader, const struct dsa_yaml *list,
                                           struct dsa_result_corpus *corpus)
{
	enum dsa_status status;
	const struct dsa_yaml *found = NULL;
	for (const struct dsa_yaml *entry = list ? list->first : NULL; entry && !found; entry = entry->next) {
		const char *name;
		if ((status = read_text(reader, entry, "name", &name)))
			return status;
		if (name && corpus->name && !strcmp(name, corpus->name))
			found = entry;
	}
	if ((status = read_quality(reader, found, "calibration", &corpus->calibration)) ||
	    (status = read_quality(reader, found, "heldout", &corpus->heldout)))
		return status;
	return read_real(reader, found, "noise_floor", &corpus->noise_floor);
}

static enum dsa_status read_corpora(const struct reader *reader, const struct dsa_yaml *root)
{
	enum dsa_status status;
	const struct dsa_yaml *corpora, *quality, *figures;
	const char *precision;
	struct dsa_results *results = reader->results;
	if ((status = dsa_yaml_child(root, reader->place, "corpora", DSA_YAML_LIST, &corpora, reader->err)) ||
	    (status = dsa_yaml_child(root, reader->place, "quality", DSA_YAML_MAP, &quality, reader->err)) ||
	    (status = dsa_yaml_child(quality, reader->place, "corpora", DSA_YAML_LIST, &figures, reader->err)) ||
	    (status = read_quality(reader, quality, "calibration", &results->quality)) ||
	    (status = read_quality(reader, quality, "heldout", &results->heldout)) ||
	    (status = read_real(reader, root, "noise_floor", &results->noise_floor)) ||
	    (status = read_real(reader, root, "holdout", &results->holdout)) ||
	    (status = dsa_yaml_text(root, reader->place, "indexer_precision", "f32", &precision, reader->err)) ||
	    (status =
	         dsa_yaml_int(root, reader->place, "max_tokens", 0, INT64_MAX, 0, &results->max_tokens, reader->err)))
		return status;
	if (!dsa_index_precision_find(precision, &results->index_precision))
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: indexer_precision is %.40s, expected f32, bf16 or fp8",
		                reader->place, precision);
	if (results->holdout < 0 || results->holdout > 0.9)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: holdout is %g, expected 0 to 0.9", reader->place,
		                results->holdout);
	if (!corpora || !corpora->count)
		return DSA_OK;
	if (corpora->count > 4096)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: line %d: %d corpora, expected at most 4096",
		                reader->place, corpora->line, corpora->count);
	results->corpora =
	    dsa_arena_alloc(reader->arena, (size_t)corpora->count, sizeof *results->corpora, "corpora", reader->err);
	if (!results->corpora)
		return DSA_E_MEMORY;
	for (const struct dsa_yaml *entry = corpora->first; entry; entry = entry->next) {
		struct dsa_result_corpus *corpus = &results->corpora[results->corpus_count++];
		const char *digest;
		if ((status = read_text(reader, entry, "name", &corpus->name)) ||
		    (status = dsa_yaml_text(entry, reader->place, "sha256", "", &digest, reader->err)) ||
		    (status = dsa_yaml_real(entry, reader->place, "weight", 1, &corpus->weight, reader->err)) ||
		    (status = read_int(reader, entry, "documents", 0, 0, &corpus->documents)) ||
		    (status =
		         dsa_yaml_int(entry, reader->place, "tokens", 0, INT64_MAX, 0, &corpus->tokens, reader->err)) ||
		    (status = dsa_yaml_int(entry, reader->place, "scored_tokens", 0, INT64_MAX, 0, &corpus->scored,
		                           reader->err)) ||
		    (status = read_int(reader, entry, "context", 0, results->context, &results->context)))
			return status;
		if (!corpus->name || strlen(digest) >= sizeof corpus->digest)
			return dsa_fail(reader->err, DSA_E_INPUT,
			                "%s: line %d: a corpus needs a name and a sha256 of 64 characters",
			                reader->place, entry->line);
		memcpy(corpus->digest, digest, strlen(digest) + 1);
		if ((status = read_corpus_quality(reader, figures, corpus)))
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_baselines(const struct reader *reader, const struct dsa_yaml *root)
{
	const struct dsa_yaml *list;
	struct dsa_results *results = reader->results;
	enum dsa_status status = dsa_yaml_child(root, reader->place, "baselines", DSA_YAML_LIST, &list, reader->err);
	if (status || !list || !list->count)
		return status;
	results->baselines =
	    dsa_arena_alloc(reader->arena, (size_t)list->count, sizeof *results->baselines, "baselines", reader->err);
	if (!results->baselines)
		return DSA_E_MEMORY;
	for (const struct dsa_yaml *entry = list->first; entry; entry = entry->next) {
		struct dsa_result_baseline *baseline = &results->baselines[results->baseline_count++];
		if ((status = read_text(reader, entry, "name", &baseline->name)) ||
		    (status = read_pattern(reader, entry, "pattern", results->layers, &baseline->pattern)) ||
		    (status = read_quality(reader, entry, "calibration", &baseline->calibration)) ||
		    (status = read_quality(reader, entry, "heldout", &baseline->heldout)))
			return status;
		if (!baseline->name || !baseline->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: line %d: a baseline needs a name and a pattern",
			                reader->place, entry->line);
	}
	return DSA_OK;
}

static enum dsa_status read_steps(const struct reader *reader, const struct dsa_yaml *root)
{
	const struct dsa_yaml *list;
	struct dsa_trace *trace = &reader->results->trace;
	enum dsa_status status = dsa_yaml_child(root, reader->place, "steps", DSA_YAML_LIST, &list, reader->err);
	trace->emitted = -1;
	if (status || !list || !list->count)
		return status;
	if (list->count > reader->results->layers)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: line %d: %d steps for %d layers", reader->place,
		                list->line, list->count, reader->results->layers);
	trace->steps = dsa_arena_alloc(reader->arena, (size_t)list->count, sizeof *trace->steps, "steps", reader->err);
	if (!trace->steps)
		return DSA_E_MEMORY;
	for (const struct dsa_yaml *entry = list->first; entry; entry = entry->next) {
		struct dsa_step *step = &trace->steps[trace->count++];
		if ((status = read_int(reader, entry, "step", 1, trace->count, &step->step)) ||
		    (status = read_int(reader, entry, "flip", 0, 0, &step->flip)) ||
		    (status = read_real(reader, entry, "kl", &step->calibration.kl)) ||
		    (status = read_real(reader, entry, "kl_se", &step->calibration.kl_se)) ||
		    (status = read_real(reader, entry, "heldout_kl", &step->heldout.kl)))
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_search(const struct reader *reader, const struct dsa_yaml *root)
{
	enum dsa_status status;
	const struct dsa_yaml *map;
	const char *scope, *bound;
	struct dsa_results *results = reader->results;
	struct dsa_budget *budget = &results->budget;
	if ((status = dsa_yaml_child(root, reader->place, "budget", DSA_YAML_MAP, &map, reader->err)) ||
	    (status = read_real(reader, map, "kl", &budget->kl)) ||
	    (status = read_real(reader, map, "nll", &budget->nll)) ||
	    (status = read_real(reader, map, "top1", &budget->top1)) ||
	    (status = read_real(reader, map, "kl_p99", &budget->kl_p99)) ||
	    (status = read_int(reader, map, "max_shared", 0, -1, &budget->max_shared)) ||
	    (status = dsa_yaml_text(map, reader->place, "scope", "mean", &scope, reader->err)) ||
	    (status = read_text(reader, root, "stopped_by", &bound)))
		return status;
	if (strcmp(scope, "mean") != 0 && strcmp(scope, "worst") != 0)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: budget scope is %.40s, expected mean or worst",
		                reader->place, scope);
	budget->scope = strcmp(scope, "worst") ? DSA_SCOPE_MEAN : DSA_SCOPE_WORST;
	for (int b = DSA_BOUND_NONE + 1; bound && b <= DSA_BOUND_ALL_SHARED; b++)
		if (!strcmp(bound, dsa_bound_name((enum dsa_bound)b)))
			results->trace.stopped_by = (enum dsa_bound)b;
	return read_steps(reader, root);
}

static enum dsa_status read_provenance(const struct reader *reader, const struct dsa_yaml *root)
{
	enum dsa_status status;
	const struct dsa_yaml *map;
	struct dsa_provenance *provenance = &reader->results->provenance;
	const char *seed;
	if ((status = dsa_yaml_child(root, reader->place, "provenance", DSA_YAML_MAP, &map, reader->err)) ||
	    (status = read_text(reader, map, "version", &provenance->version)) ||
	    (status = read_text(reader, map, "commit", &provenance->commit)) ||
	    (status = read_text(reader, map, "device", &provenance->device)) ||
	    (status = read_text(reader, map, "date", &provenance->date)) ||
	    (status = dsa_yaml_text(map, reader->place, "seed", "0", &seed, reader->err)))
		return status;
	char *end;
	errno = 0;
	reader->results->seed = strtoull(seed, &end, 10);
	if (*seed < '0' || *seed > '9' || *end || errno)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: seed is %.40s, expected a count below 2^64",
		                reader->place, seed);
	return DSA_OK;
}

enum dsa_status dsa_pattern_yaml_read(struct dsa_results *results, const char *text, size_t bytes, const char *place,
                                      const struct dsa_log *log, struct dsa_arena *arena, struct dsa_error *err)
{
	const struct dsa_yaml *root;
	struct reader reader = {.results = results, .arena = arena, .err = err, .place = place, .log = log};
	*results = (struct dsa_results){0};
	enum dsa_status status = dsa_yaml_parse(&root, text, bytes, place, arena, err);
	if (status)
		return status;
	if ((status = read_head(&reader, root)) || (status = read_corpora(&reader, root)) ||
	    (status = read_baselines(&reader, root)) || (status = read_search(&reader, root)))
		return status;
	return read_provenance(&reader, root);
}

enum dsa_status dsa_pattern_yaml_load(struct dsa_results *results, const char *path, const struct dsa_log *log,
                                      struct dsa_arena *arena, struct dsa_error *err)
{
	char *text;
	size_t bytes;
	*results = (struct dsa_results){0};
	enum dsa_status status = dsa_file_read(path, DSA_YAML_BYTES, arena, &text, &bytes, err);
	return status ? status : dsa_pattern_yaml_read(results, text, bytes, path, log, arena, err);
}
