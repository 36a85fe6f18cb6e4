/* The reading half of results_json.h. Files may be hostile: every array is bounded by what its neighbours say before
 * anything of its size is allocated. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/file.h"
#include "dsa/model_config.h"
#include "dsa/results_json.h"
#include "results_gain.h"
#include "results_reader.h"

enum { FILE_LIMIT = 512 << 20 };

static enum dsa_status read_position(const struct results_reader *reader, const json_t *object, const char *place,
                                     struct dsa_quality_at *at)
{
	enum dsa_status status;
	if (!json_is_object(object))
		return reader_wrong_type(reader, place, "an entry", object, "an object");
	if ((status = reader_int(reader, object, place, "from", 0, INT_MAX, 0, &at->from)) ||
	    (status = reader_int(reader, object, place, "to", 0, INT_MAX, 0, &at->to)) ||
	    (status = reader_count(reader, object, place, "scored_tokens", &at->tokens)) ||
	    (status = dsa_json_real(object, place, "kl", NAN, &at->kl, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl_p99", NAN, &at->kl_p99, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta", NAN, &at->nll_delta, reader->err)) ||
	    (status = dsa_json_real(object, place, "top1", NAN, &at->top1, reader->err)))
		return status;
	return DSA_OK;
}

/* Two numbers; NaN where the file, an older one perhaps, has none. */
static enum dsa_status read_interval(const struct results_reader *reader, const json_t *object, const char *place,
                                     const char *key, struct dsa_interval *interval)
{
	const json_t *pair;
	*interval = (struct dsa_interval){NAN, NAN};
	enum dsa_status status = reader_array(reader, object, place, key, 2, &pair);
	if (status || !pair)
		return status;
	const json_t *low = json_array_get(pair, 0), *high = json_array_get(pair, 1);
	if (!json_is_number(low) || !json_is_number(high))
		return reader_wrong_type(reader, place, key, pair, "two numbers");
	*interval = (struct dsa_interval){json_number_value(low), json_number_value(high)};
	return DSA_OK;
}

static enum dsa_status read_quality_members(const struct results_reader *reader, const json_t *object,
                                            const char *place, struct dsa_quality *quality)
{
	enum dsa_status status;
	const json_t *kl, *positions;
	char inner[READER_PLACE];
	*quality = (struct dsa_quality){0};
	if ((status = reader_object(reader, object, place, "kl", &kl)))
		return status;
	reader_below(inner, place, "kl");
	if ((status = dsa_json_real(kl, inner, "mean", NAN, &quality->kl, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "se", NAN, &quality->kl_se, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p50", NAN, &quality->kl_p50, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p90", NAN, &quality->kl_p90, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p99", NAN, &quality->kl_p99, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "max", NAN, &quality->kl_max, reader->err)) ||
	    (status = read_interval(reader, kl, inner, "ci95", &quality->kl_ci)) ||
	    (status = read_interval(reader, object, place, "nll_delta_ci95", &quality->nll_delta_ci)) ||
	    (status = read_interval(reader, object, place, "top1_ci95", &quality->top1_ci)) ||
	    (status = dsa_json_real(object, place, "nll", NAN, &quality->nll, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_base", NAN, &quality->nll_base, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta", NAN, &quality->nll_delta, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta_se", NAN, &quality->nll_delta_se, reader->err)) ||
	    (status = dsa_json_real(object, place, "ppl_ratio", NAN, &quality->ppl_ratio, reader->err)) ||
	    (status = dsa_json_real(object, place, "top1", NAN, &quality->top1, reader->err)) ||
	    (status = reader_int(reader, object, place, "documents", 0, INT_MAX, 0, &quality->documents)) ||
	    (status = reader_count(reader, object, place, "scored_tokens", &quality->tokens)) ||
	    (status = reader_array(reader, object, place, "by_position", DSA_POSITION_BUCKETS, &positions)))
		return status;
	quality->positions = positions ? (int)json_array_size(positions) : 0;
	for (int i = 0; i < quality->positions; i++) {
		reader_below(inner, place, "by_position");
		status = read_position(reader, json_array_get(positions, (size_t)i), inner, &quality->by_position[i]);
		if (status)
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_quality(const struct results_reader *reader, const json_t *parent, const char *place,
                                    const char *key, struct dsa_quality *quality)
{
	const json_t *object;
	char inner[READER_PLACE];
	enum dsa_status status = reader_object(reader, parent, place, key, &object);
	if (status)
		return status;
	reader_below(inner, place, key);
	return read_quality_members(reader, object, inner, quality);
}

static enum dsa_status read_bound(const struct results_reader *reader, const json_t *object, const char *place,
                                  const char *key, enum dsa_bound *out)
{
	const char *name;
	*out = DSA_BOUND_NONE;
	enum dsa_status status = dsa_json_text(object, place, key, NULL, &name, reader->err);
	if (status || !name)
		return status;
	for (int bound = DSA_BOUND_NONE + 1; bound <= DSA_BOUND_ALL_SHARED; bound++) {
		if (!strcmp(name, dsa_bound_name((enum dsa_bound)bound))) {
			*out = (enum dsa_bound)bound;
			return DSA_OK;
		}
	}
	return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s is \"%.60s\", expected the name of a bound", place, key,
	                name);
}

static enum dsa_status read_budget(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[READER_PLACE];
	const char *scope;
	struct dsa_results *results = reader->results;
	struct dsa_budget *budget = &results->budget;
	if ((status = reader_object(reader, root, reader->place, "budget", &object)))
		return status;
	reader_below(inner, reader->place, "budget");
	if ((status = dsa_json_real(object, inner, "kl", NAN, &budget->kl, reader->err)) ||
	    (status = dsa_json_real(object, inner, "nll", NAN, &budget->nll, reader->err)) ||
	    (status = dsa_json_real(object, inner, "top1", NAN, &budget->top1, reader->err)) ||
	    (status = dsa_json_real(object, inner, "kl_p99", NAN, &budget->kl_p99, reader->err)) ||
	    (status = reader_int(reader, object, inner, "max_shared", 0, DSA_MAX_LAYERS, -1, &budget->max_shared)) ||
	    (status = dsa_json_text(object, inner, "scope", "mean", &scope, reader->err)) ||
	    (status = dsa_json_bool(object, inner, "default", false, &results->default_budget, reader->err)))
		return status;
	if (strcmp(scope, "mean") != 0 && strcmp(scope, "worst") != 0)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: scope is \"%.40s\", expected mean or worst", inner,
		                scope);
	budget->scope = strcmp(scope, "worst") ? DSA_SCOPE_MEAN : DSA_SCOPE_WORST;
	return DSA_OK;
}

static enum dsa_status read_model(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[READER_PLACE];
	struct dsa_results *results = reader->results;
	const struct {
		const char *key;
		int *value;
	} dims[] = {
	    {"hidden", &results->hidden},
	    {"heads", &results->heads},
	    {"index_heads", &results->index_heads},
	    {"index_dim", &results->index_dim},
	    {"latent", &results->latent},
	    {"rope", &results->rope},
	    {"q_rank", &results->q_rank},
	    {"nope", &results->nope},
	    {"value", &results->value},
	    {"dense_inner", &results->dense_inner},
	    {"expert_inner", &results->expert_inner},
	    {"experts", &results->experts},
	    {"experts_per_token", &results->experts_per_token},
	    {"dense_layers", &results->dense_layers},
	};
	if ((status = reader_object(reader, root, reader->place, "model", &object)))
		return status;
	reader_below(inner, reader->place, "model");
	if ((status = reader_text(reader, object, inner, "name", &results->model_name)) ||
	    (status = reader_text(reader, object, inner, "architecture", &results->architecture)) ||
	    (status = reader_text(reader, object, inner, "fingerprint", &results->fingerprint)) ||
	    (status = reader_text(reader, object, inner, "tokenizer", &results->tokenizer)))
		return status;
	for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
		if ((status = reader_int(reader, object, inner, dims[i].key, 0, INT_MAX, 0, dims[i].value)))
			return status;
	return DSA_OK;
}

static enum dsa_status read_candidate(const struct results_reader *reader, const json_t *object, const char *place,
                                      struct dsa_candidate *candidate)
{
	enum dsa_status status;
	if (!json_is_object(object))
		return reader_wrong_type(reader, place, "a candidate", object, "an object");
	if ((status =
	         reader_int(reader, object, place, "layer", 0, reader->results->layers - 1, 0, &candidate->layer)) ||
	    (status = dsa_json_real(object, place, "objective", NAN, &candidate->objective, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl", NAN, &candidate->kl, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl_se", NAN, &candidate->kl_se, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll", NAN, &candidate->nll, reader->err)) ||
	    (status = reader_int(reader, object, place, "documents", 0, INT_MAX, 0, &candidate->documents)) ||
	    (status = dsa_json_real(object, place, "bound", NAN, &candidate->bound, reader->err)))
		return status;
	return DSA_OK;
}

static enum dsa_status read_step(const struct results_reader *reader, const json_t *object, const char *place,
                                 struct dsa_step *step)
{
	enum dsa_status status;
	const json_t *candidates;
	const char *pattern;
	int layers = reader->results->layers;
	if (!json_is_object(object))
		return reader_wrong_type(reader, place, "a step", object, "an object");
	if ((status = reader_int(reader, object, place, "step", 1, layers, 1, &step->step)) ||
	    (status = reader_int(reader, object, place, "flip", 0, layers - 1, 0, &step->flip)) ||
	    (status = reader_pattern(reader, object, place, "pattern", &pattern)) ||
	    (status = read_bound(reader, object, place, "broken", &step->broken)) ||
	    (status = read_quality(reader, object, place, "calibration", &step->calibration)) ||
	    (status = read_quality(reader, object, place, "heldout", &step->heldout)) ||
	    (status = reader_array(reader, object, place, "candidates", (size_t)layers, &candidates)))
		return status;
	if (!pattern)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: there is no pattern", place);
	/* Borrowed from the arena, which is ours. */
	step->pattern = (char *)(uintptr_t)pattern;
	size_t count = candidates ? json_array_size(candidates) : 0;
	if (!count)
		return DSA_OK;
	step->candidates = dsa_arena_alloc(reader->arena, count, sizeof *step->candidates, "candidates", reader->err);
	if (!step->candidates)
		return DSA_E_MEMORY;
	step->candidate_count = (int)count;
	for (size_t i = 0; i < count; i++)
		if ((status = read_candidate(reader, json_array_get(candidates, i), place, &step->candidates[i])))
			return status;
	return DSA_OK;
}

static enum dsa_status read_trace(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *steps;
	char inner[READER_PLACE], index[40];
	int emitted;
	struct dsa_trace *trace = &reader->results->trace;
	trace->emitted = -1;
	if ((status = read_bound(reader, root, reader->place, "stopped_by", &trace->stopped_by)) ||
	    (status = reader_array(reader, root, reader->place, "trace", (size_t)reader->results->layers, &steps)))
		return status;
	size_t count = steps ? json_array_size(steps) : 0;
	if (count) {
		trace->steps = dsa_arena_alloc(reader->arena, count, sizeof *trace->steps, "the trace", reader->err);
		if (!trace->steps)
			return DSA_E_MEMORY;
	}
	trace->count = (int)count;
	for (size_t i = 0; i < count; i++) {
		snprintf(index, sizeof index, "trace entry %zu", i + 1);
		reader_below(inner, reader->place, index);
		if ((status = read_step(reader, json_array_get(steps, i), inner, &trace->steps[i])))
			return status;
	}
	status = reader_int(reader, root, reader->place, "emitted_step", 0, trace->count, 0, &emitted);
	trace->emitted = emitted - 1;
	return status;
}

static enum dsa_status read_best(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *entries;
	char inner[READER_PLACE];
	struct dsa_results *results = reader->results;
	size_t most = (size_t)results->layers + 1;
	if ((status = reader_array(reader, root, reader->place, "best", most, &entries)) || !entries)
		return status;
	size_t count = json_array_size(entries);
	if (!count)
		return DSA_OK;
	results->best = dsa_arena_alloc(reader->arena, count, sizeof *results->best, "best patterns", reader->err);
	if (!results->best)
		return DSA_E_MEMORY;
	results->best_count = (int)count;
	reader_below(inner, reader->place, "best");
	for (size_t i = 0; i < count; i++) {
		const json_t *object = json_array_get(entries, i);
		struct dsa_best *best = &results->best[i];
		if (!json_is_object(object))
			return reader_wrong_type(reader, inner, "an entry", object, "an object");
		if ((status = reader_int(reader, object, inner, "shared", 0, results->layers, 0, &best->shared)) ||
		    (status = reader_pattern(reader, object, inner, "pattern", &best->pattern)) ||
		    (status = dsa_json_real(object, inner, "kl", NAN, &best->kl, reader->err)) ||
		    (status = dsa_json_real(object, inner, "heldout_kl", NAN, &best->heldout_kl, reader->err)))
			return status;
		if (!best->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: an entry has no pattern", inner);
	}
	return DSA_OK;
}

static enum dsa_status read_refined(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *entries;
	char inner[READER_PLACE];
	struct dsa_refinement *refinement = &reader->results->refinement;
	size_t most = (size_t)reader->results->layers;
	if ((status = reader_array(reader, root, reader->place, "refined", most, &entries)) || !entries)
		return status;
	size_t count = json_array_size(entries);
	if (!count)
		return DSA_OK;
	refinement->best = dsa_arena_alloc(reader->arena, count, sizeof *refinement->best, "refinement", reader->err);
	if (!refinement->best)
		return DSA_E_MEMORY;
	refinement->count = (int)count;
	reader_below(inner, reader->place, "refined");
	for (size_t i = 0; i < count; i++) {
		const json_t *object = json_array_get(entries, i);
		struct dsa_refined *refined = &refinement->best[i];
		if (!json_is_object(object))
			return reader_wrong_type(reader, inner, "an entry", object, "an object");
		if ((status = reader_int(reader, object, inner, "shared", 0, reader->results->layers, 0,
		                         &refined->shared)) ||
		    (status = reader_pattern(reader, object, inner, "pattern", &refined->pattern)) ||
		    (status = dsa_json_real(object, inner, "difference", NAN, &refined->difference, reader->err)) ||
		    (status =
		         dsa_json_real(object, inner, "difference_se", NAN, &refined->difference_se, reader->err)) ||
		    (status = read_bound(reader, object, inner, "broken", &refined->broken)) ||
		    (status = read_quality(reader, object, inner, "calibration", &refined->calibration)) ||
		    (status = read_quality(reader, object, inner, "heldout", &refined->heldout)))
			return status;
		if (!refined->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: an entry has no pattern", inner);
	}
	return DSA_OK;
}

static enum dsa_status read_corpus(const struct results_reader *reader, const json_t *object, const char *place,
                                   struct dsa_result_corpus *corpus)
{
	enum dsa_status status;
	const json_t *facts;
	const char *digest;
	char inner[READER_PLACE];
	if (!json_is_object(object))
		return reader_wrong_type(reader, place, "a corpus", object, "an object");
	if ((status = read_quality_members(reader, object, place, &corpus->calibration)) ||
	    (status = read_quality(reader, object, place, "heldout", &corpus->heldout)) ||
	    (status = reader_object(reader, object, place, "corpus", &facts)))
		return status;
	reader_below(inner, place, "corpus");
	if ((status = dsa_json_real(facts, inner, "weight", 1, &corpus->weight, reader->err)) ||
	    (status = dsa_json_text(facts, inner, "sha256", "", &digest, reader->err)) ||
	    (status = reader_int(reader, facts, inner, "documents", 0, INT_MAX, 0, &corpus->documents)) ||
	    (status = reader_int(reader, facts, inner, "documents_calibration", 0, INT_MAX, 0,
	                         &corpus->documents_calibration)) ||
	    (status =
	         reader_int(reader, facts, inner, "documents_heldout", 0, INT_MAX, 0, &corpus->documents_heldout)) ||
	    (status = reader_int(reader, facts, inner, "unscored", 0, INT_MAX, 0, &corpus->unscored)) ||
	    (status = reader_int(reader, facts, inner, "cut", 0, INT_MAX, 0, &corpus->cut)) ||
	    (status = reader_count(reader, facts, inner, "tokens", &corpus->tokens)) ||
	    (status = reader_count(reader, facts, inner, "scored", &corpus->scored)) ||
	    (status = reader_count(reader, facts, inner, "scored_calibration", &corpus->scored_calibration)) ||
	    (status = reader_count(reader, facts, inner, "scored_heldout", &corpus->scored_heldout)))
		return status;
	if (strlen(digest) >= sizeof corpus->digest)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: sha256 has %zu characters, expected 64", inner,
		                strlen(digest));
	memcpy(corpus->digest, digest, strlen(digest) + 1);
	return DSA_OK;
}

static enum dsa_status read_corpora(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *members, *noise, *floors;
	json_t *value;
	const char *name;
	char inner[READER_PLACE], one[READER_PLACE];
	struct dsa_results *results = reader->results;
	if ((status = reader_object(reader, root, reader->place, "corpora", &members)) ||
	    (status = reader_object(reader, root, reader->place, "noise_floor", &noise)))
		return status;
	reader_below(inner, reader->place, "noise_floor");
	if ((status = dsa_json_real(noise, inner, "kl", NAN, &results->noise_floor, reader->err)) ||
	    (status = dsa_json_real(noise, inner, "kl_se", NAN, &results->noise_floor_se, reader->err)) ||
	    (status = reader_int(reader, noise, inner, "documents", 0, INT_MAX, 0, &results->noise_documents)) ||
	    (status = reader_object(reader, noise, inner, "corpora", &floors)))
		return status;
	size_t count = json_object_size(members);
	if (count > DSA_RESULTS_CORPORA)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %zu corpora, expected at most %d", reader->place, count,
		                DSA_RESULTS_CORPORA);
	if (!count)
		return DSA_OK;
	results->corpora = dsa_arena_alloc(reader->arena, count, sizeof *results->corpora, "corpora", reader->err);
	if (!results->corpora)
		return DSA_E_MEMORY;
	reader_below(one, reader->place, "corpora");
	json_object_foreach((json_t *)(uintptr_t)members, name, value)
	{
		struct dsa_result_corpus *corpus = &results->corpora[results->corpus_count++];
		char at[READER_PLACE];
		reader_below(at, one, name);
		if ((status = reader_copy(reader, name, &corpus->name)) ||
		    (status = read_corpus(reader, value, at, corpus)) ||
		    (status = dsa_json_real(floors, inner, name, NAN, &corpus->noise_floor, reader->err)))
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_baselines(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *members;
	json_t *value;
	const char *name;
	char inner[READER_PLACE];
	struct dsa_results *results = reader->results;
	if ((status = reader_object(reader, root, reader->place, "baselines", &members)))
		return status;
	size_t count = json_object_size(members);
	if (count > DSA_RESULTS_CORPORA)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %zu baselines, expected at most %d", reader->place,
		                count, DSA_RESULTS_CORPORA);
	if (!count)
		return DSA_OK;
	results->baselines =
	    dsa_arena_alloc(reader->arena, count, sizeof *results->baselines, "baselines", reader->err);
	if (!results->baselines)
		return DSA_E_MEMORY;
	json_object_foreach((json_t *)(uintptr_t)members, name, value)
	{
		struct dsa_result_baseline *baseline = &results->baselines[results->baseline_count++];
		reader_below(inner, reader->place, name);
		if (!json_is_object(value))
			return reader_wrong_type(reader, inner, "a baseline", value, "an object");
		if ((status = reader_copy(reader, name, &baseline->name)) ||
		    (status = reader_pattern(reader, value, inner, "pattern", &baseline->pattern)) ||
		    (status = read_quality_members(reader, value, inner, &baseline->calibration)) ||
		    (status = read_quality(reader, value, inner, "heldout", &baseline->heldout)))
			return status;
		if (!baseline->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: the baseline has no pattern", inner);
	}
	return DSA_OK;
}

static enum dsa_status read_work_and_provenance(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[READER_PLACE];
	struct dsa_result_work *work = &reader->results->work;
	struct dsa_provenance *provenance = &reader->results->provenance;
	if ((status = reader_object(reader, root, reader->place, "work", &object)))
		return status;
	reader_below(inner, reader->place, "work");
	if ((status = reader_count(reader, object, inner, "token_layers", &work->token_layers)) ||
	    (status = reader_count(reader, object, inner, "refine_token_layers", &work->refine_token_layers)) ||
	    (status = reader_count(reader, object, inner, "head_tokens", &work->head_tokens)) ||
	    (status = reader_count(reader, object, inner, "token_layers_naive", &work->token_layers_naive)) ||
	    (status = dsa_json_real(object, inner, "seconds", NAN, &work->seconds, reader->err)) ||
	    (status = reader_object(reader, root, reader->place, "provenance", &object)))
		return status;
	reader_below(inner, reader->place, "provenance");
	if ((status = reader_text(reader, object, inner, "version", &provenance->version)) ||
	    (status = reader_text(reader, object, inner, "commit", &provenance->commit)) ||
	    (status = reader_text(reader, object, inner, "device", &provenance->device)) ||
	    (status = reader_text(reader, object, inner, "date", &provenance->date)) ||
	    (status = reader_int(reader, object, inner, "threads", 0, INT_MAX, 0, &provenance->threads)) ||
	    (status = reader_uint(reader, object, inner, "host_memory", &provenance->host_memory)) ||
	    (status = reader_count(reader, object, inner, "executed", &provenance->executed)) ||
	    (status = reader_uint(reader, object, inner, "peak_memory", &provenance->peak_memory)))
		return status;
	return DSA_OK;
}

/* Schema, sizes and the two patterns that everything else refers to. */
static enum dsa_status read_head(const struct results_reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *base;
	struct dsa_results *results = reader->results;
	int schema;
	const char *objective, *precision;
	if (!json_is_object(root))
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: the file is %s, expected an object", reader->place,
		                dsa_json_type(root));
	if ((status = reader_int(reader, root, reader->place, "schema", 0, INT_MAX, 0, &schema)))
		return status;
	if (schema != DSA_RESULTS_SCHEMA)
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: schema is %d, expected %d; was it made by a newer dsacal?", reader->place, schema,
		                DSA_RESULTS_SCHEMA);
	if ((status = reader_int(reader, root, reader->place, "layers", 1, DSA_MAX_LAYERS, 0, &results->layers)) ||
	    (status = reader_int(reader, root, reader->place, "index_topk", 1, INT_MAX >> DSA_POSITION_BUCKETS / 2, 0,
	                         &results->topk)))
		return status;
	if (!results->layers || !results->topk)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: layers or index_topk is missing", reader->place);
	if ((status = reader_pattern(reader, root, reader->place, "pattern", &results->pattern)) ||
	    (status = reader_object(reader, root, reader->place, "base", &base)) ||
	    (status = reader_pattern(reader, base, reader->place, "pattern", &results->reference)) ||
	    (status = reader_text(reader, root, reader->place, "search", &results->search)) ||
	    (status = dsa_json_real(root, reader->place, "delta", NAN, &results->delta, reader->err)) ||
	    (status = dsa_json_real(root, reader->place, "epsilon", NAN, &results->epsilon, reader->err)) ||
	    (status = dsa_json_real(root, reader->place, "refine_work", NAN, &results->refine_work, reader->err)) ||
	    (status = reader_int(reader, root, reader->place, "context", 0, INT_MAX, 0, &results->context)) ||
	    (status = reader_count(reader, root, reader->place, "max_tokens", &results->max_tokens)) ||
	    (status = reader_uint(reader, root, reader->place, "seed", &results->seed)) ||
	    (status = dsa_json_real(root, reader->place, "holdout", NAN, &results->holdout, reader->err)) ||
	    (status = dsa_json_text(root, reader->place, "objective", "kl", &objective, reader->err)) ||
	    (status = dsa_json_text(root, reader->place, "indexer_precision", "f32", &precision, reader->err)))
		return status;
	if (!dsa_index_precision_find(precision, &results->index_precision))
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: indexer_precision is \"%.40s\", expected f32, bf16 or fp8", reader->place,
		                precision);
	if (strcmp(objective, "kl") != 0 && strcmp(objective, "nll") != 0)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: objective is \"%.40s\", expected kl or nll",
		                reader->place, objective);
	results->objective = strcmp(objective, "nll") ? DSA_OBJECTIVE_KL : DSA_OBJECTIVE_NLL;
	/* overlap's file names its reference at the top and has no pattern of its own. */
	if (!results->reference &&
	    (status = reader_pattern(reader, root, reader->place, "reference", &results->reference)))
		return status;
	if (!results->reference)
		results->reference = results->pattern;
	if (!results->pattern)
		results->pattern = results->reference;
	if (!results->pattern)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: there is no pattern", reader->place);
	if ((status = read_quality(reader, base, reader->place, "quality", &results->base)) ||
	    (status = read_quality(reader, base, reader->place, "calibration", &results->trace.base_calibration)) ||
	    (status = read_quality(reader, base, reader->place, "heldout", &results->trace.base_heldout)) ||
	    (status = read_quality(reader, root, reader->place, "quality", &results->quality)) ||
	    (status = read_quality(reader, root, reader->place, "heldout", &results->heldout)))
		return status;
	return DSA_OK;
}

enum dsa_status dsa_results_json_read(struct dsa_results *results, const char *text, size_t bytes, const char *place,
                                      struct dsa_arena *arena, struct dsa_error *err)
{
	json_t *root;
	struct results_reader reader = {.results = results, .arena = arena, .err = err, .place = place};
	*results = (struct dsa_results){0};
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (status)
		return status;
	if ((status = read_head(&reader, root)) || (status = read_model(&reader, root)) ||
	    (status = read_budget(&reader, root)) || (status = read_trace(&reader, root)) ||
	    (status = read_best(&reader, root)) || (status = read_refined(&reader, root)) ||
	    (status = read_corpora(&reader, root)) || (status = read_baselines(&reader, root)) ||
	    (status = results_read_overlap(&reader, root)) || (status = results_read_gain(&reader, root)))
		goto cleanup;
	status = read_work_and_provenance(&reader, root);
cleanup:
	json_decref(root);
	return status;
}

enum dsa_status dsa_results_json_load(struct dsa_results *results, const char *path, struct dsa_arena *arena,
                                      struct dsa_error *err)
{
	struct dsa_mapping map;
	enum dsa_status status = dsa_mapping_open(&map, path, err);
	if (status)
		return status;
	if (map.bytes > FILE_LIMIT)
		status = dsa_fail(err, DSA_E_INPUT, "%s: %zu bytes, more than the %d that such a file may have", path,
		                  map.bytes, FILE_LIMIT);
	else
		status = dsa_results_json_read(results, (const char *)map.data, map.bytes, path, arena, err);
	dsa_mapping_close(&map);
	return status;
}
