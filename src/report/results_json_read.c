/* The reading half of results_json.h. Files may be hostile: every array is bounded by what its neighbours say before
 * anything of its size is allocated. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/file.h"
#include "dsa/json.h"
#include "dsa/model_config.h"
#include "dsa/pattern.h"
#include "dsa/results_json.h"

enum { FILE_LIMIT = 512 << 20, PLACE_CHARS = 320 };
/* Most bytes of overlap counts a file can make us allocate: 26 corpora of 78 layers are 30 MB. */
static const size_t overlap_limit = (size_t)1 << 30;

struct reader {
	struct dsa_results *results;
	struct dsa_arena *arena;
	struct dsa_error *err;
	const char *place;
};

static enum dsa_status wrong_type(const struct reader *reader, const char *place, const char *key, const json_t *found,
                                  const char *expected)
{
	return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s is %s, expected %s", place, key, dsa_json_type(found),
	                expected);
}

static void below(char out[PLACE_CHARS], const char *place, const char *key)
{
	snprintf(out, PLACE_CHARS, "%.150s: %.150s", place, key);
}

/* *out NULL when the member is absent or null. */
static enum dsa_status member_object(const struct reader *reader, const json_t *parent, const char *place,
                                     const char *key, const json_t **out)
{
	*out = json_object_get(parent, key);
	if (!*out || json_is_null(*out)) {
		*out = NULL;
		return DSA_OK;
	}
	return json_is_object(*out) ? DSA_OK : wrong_type(reader, place, key, *out, "an object");
}

static enum dsa_status member_array(const struct reader *reader, const json_t *parent, const char *place,
                                    const char *key, size_t most, const json_t **out)
{
	*out = json_object_get(parent, key);
	if (!*out || json_is_null(*out)) {
		*out = NULL;
		return DSA_OK;
	}
	if (!json_is_array(*out))
		return wrong_type(reader, place, key, *out, "an array");
	if (json_array_size(*out) > most)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s has %zu entries, expected at most %zu", place, key,
		                json_array_size(*out), most);
	return DSA_OK;
}

static enum dsa_status read_int(const struct reader *reader, const json_t *object, const char *place, const char *key,
                                int low, int high, int fallback, int *out)
{
	int64_t wide;
	enum dsa_status status = dsa_json_int(object, place, key, low, high, fallback, &wide, reader->err);
	*out = status ? fallback : (int)wide;
	return status;
}

static enum dsa_status read_count(const struct reader *reader, const json_t *object, const char *place, const char *key,
                                  int64_t *out)
{
	return dsa_json_int(object, place, key, 0, INT64_MAX, 0, out, reader->err);
}

/* A number, or digits in a string where a JSON integer is too narrow. */
static enum dsa_status read_uint(const struct reader *reader, const json_t *object, const char *place, const char *key,
                                 uint64_t *out)
{
	const json_t *value = json_object_get(object, key);
	if (!json_is_string(value)) {
		int64_t narrow;
		enum dsa_status status = read_count(reader, object, place, key, &narrow);
		*out = (uint64_t)narrow;
		return status;
	}
	const char *digits = json_string_value(value);
	char *end;
	errno = 0;
	*out = strtoull(digits, &end, 10);
	if (*digits < '0' || *digits > '9' || *end || errno)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: %s is \"%.40s\", expected a count below 2^64", place,
		                key, digits);
	return DSA_OK;
}

static enum dsa_status copy_text(const struct reader *reader, const char *text, const char **out)
{
	*out = dsa_arena_text(reader->arena, text, strlen(text), reader->err);
	return *out ? DSA_OK : DSA_E_MEMORY;
}

/* NULL stays NULL. */
static enum dsa_status read_text(const struct reader *reader, const json_t *object, const char *place, const char *key,
                                 const char **out)
{
	const char *found;
	*out = NULL;
	enum dsa_status status = dsa_json_text(object, place, key, NULL, &found, reader->err);
	if (status || !found)
		return status;
	return copy_text(reader, found, out);
}

/* A pattern of the file's own length, or NULL when absent. */
static enum dsa_status read_pattern(const struct reader *reader, const json_t *object, const char *place,
                                    const char *key, const char **out)
{
	char what[PLACE_CHARS];
	enum dsa_status status = read_text(reader, object, place, key, out);
	if (status || !*out)
		return status;
	below(what, place, key);
	return dsa_pattern_check(*out, reader->results->layers, what, reader->err) ? DSA_E_INPUT : DSA_OK;
}

static enum dsa_status read_position(const struct reader *reader, const json_t *object, const char *place,
                                     struct dsa_quality_at *at)
{
	enum dsa_status status;
	if (!json_is_object(object))
		return wrong_type(reader, place, "an entry", object, "an object");
	if ((status = read_int(reader, object, place, "from", 0, INT_MAX, 0, &at->from)) ||
	    (status = read_int(reader, object, place, "to", 0, INT_MAX, 0, &at->to)) ||
	    (status = read_count(reader, object, place, "scored_tokens", &at->tokens)) ||
	    (status = dsa_json_real(object, place, "kl", NAN, &at->kl, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl_p99", NAN, &at->kl_p99, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta", NAN, &at->nll_delta, reader->err)) ||
	    (status = dsa_json_real(object, place, "top1", NAN, &at->top1, reader->err)))
		return status;
	return DSA_OK;
}

static enum dsa_status read_quality_members(const struct reader *reader, const json_t *object, const char *place,
                                            struct dsa_quality *quality)
{
	enum dsa_status status;
	const json_t *kl, *positions;
	char inner[PLACE_CHARS];
	*quality = (struct dsa_quality){0};
	if ((status = member_object(reader, object, place, "kl", &kl)))
		return status;
	below(inner, place, "kl");
	if ((status = dsa_json_real(kl, inner, "mean", NAN, &quality->kl, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "se", NAN, &quality->kl_se, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p50", NAN, &quality->kl_p50, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p90", NAN, &quality->kl_p90, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "p99", NAN, &quality->kl_p99, reader->err)) ||
	    (status = dsa_json_real(kl, inner, "max", NAN, &quality->kl_max, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll", NAN, &quality->nll, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_base", NAN, &quality->nll_base, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta", NAN, &quality->nll_delta, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll_delta_se", NAN, &quality->nll_delta_se, reader->err)) ||
	    (status = dsa_json_real(object, place, "ppl_ratio", NAN, &quality->ppl_ratio, reader->err)) ||
	    (status = dsa_json_real(object, place, "top1", NAN, &quality->top1, reader->err)) ||
	    (status = read_int(reader, object, place, "documents", 0, INT_MAX, 0, &quality->documents)) ||
	    (status = read_count(reader, object, place, "scored_tokens", &quality->tokens)) ||
	    (status = member_array(reader, object, place, "by_position", DSA_POSITION_BUCKETS, &positions)))
		return status;
	quality->positions = positions ? (int)json_array_size(positions) : 0;
	for (int i = 0; i < quality->positions; i++) {
		below(inner, place, "by_position");
		status = read_position(reader, json_array_get(positions, (size_t)i), inner, &quality->by_position[i]);
		if (status)
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_quality(const struct reader *reader, const json_t *parent, const char *place,
                                    const char *key, struct dsa_quality *quality)
{
	const json_t *object;
	char inner[PLACE_CHARS];
	enum dsa_status status = member_object(reader, parent, place, key, &object);
	if (status)
		return status;
	below(inner, place, key);
	return read_quality_members(reader, object, inner, quality);
}

static enum dsa_status read_bound(const struct reader *reader, const json_t *object, const char *place, const char *key,
                                  enum dsa_bound *out)
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

static enum dsa_status read_budget(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[PLACE_CHARS];
	const char *scope;
	struct dsa_results *results = reader->results;
	struct dsa_budget *budget = &results->budget;
	if ((status = member_object(reader, root, reader->place, "budget", &object)))
		return status;
	below(inner, reader->place, "budget");
	if ((status = dsa_json_real(object, inner, "kl", NAN, &budget->kl, reader->err)) ||
	    (status = dsa_json_real(object, inner, "nll", NAN, &budget->nll, reader->err)) ||
	    (status = dsa_json_real(object, inner, "top1", NAN, &budget->top1, reader->err)) ||
	    (status = dsa_json_real(object, inner, "kl_p99", NAN, &budget->kl_p99, reader->err)) ||
	    (status = read_int(reader, object, inner, "max_shared", 0, DSA_MAX_LAYERS, -1, &budget->max_shared)) ||
	    (status = dsa_json_text(object, inner, "scope", "mean", &scope, reader->err)) ||
	    (status = dsa_json_bool(object, inner, "default", false, &results->default_budget, reader->err)))
		return status;
	if (strcmp(scope, "mean") && strcmp(scope, "worst"))
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: scope is \"%.40s\", expected mean or worst", inner,
		                scope);
	budget->scope = strcmp(scope, "worst") ? DSA_SCOPE_MEAN : DSA_SCOPE_WORST;
	return DSA_OK;
}

static enum dsa_status read_model(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[PLACE_CHARS];
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
	if ((status = member_object(reader, root, reader->place, "model", &object)))
		return status;
	below(inner, reader->place, "model");
	if ((status = read_text(reader, object, inner, "name", &results->model_name)) ||
	    (status = read_text(reader, object, inner, "architecture", &results->architecture)) ||
	    (status = read_text(reader, object, inner, "fingerprint", &results->fingerprint)))
		return status;
	for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
		if ((status = read_int(reader, object, inner, dims[i].key, 0, INT_MAX, 0, dims[i].value)))
			return status;
	return DSA_OK;
}

static enum dsa_status read_candidate(const struct reader *reader, const json_t *object, const char *place,
                                      struct dsa_candidate *candidate)
{
	enum dsa_status status;
	if (!json_is_object(object))
		return wrong_type(reader, place, "a candidate", object, "an object");
	if ((status = read_int(reader, object, place, "layer", 0, reader->results->layers - 1, 0, &candidate->layer)) ||
	    (status = dsa_json_real(object, place, "objective", NAN, &candidate->objective, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl", NAN, &candidate->kl, reader->err)) ||
	    (status = dsa_json_real(object, place, "kl_se", NAN, &candidate->kl_se, reader->err)) ||
	    (status = dsa_json_real(object, place, "nll", NAN, &candidate->nll, reader->err)) ||
	    (status = read_int(reader, object, place, "documents", 0, INT_MAX, 0, &candidate->documents)))
		return status;
	return DSA_OK;
}

static enum dsa_status read_step(const struct reader *reader, const json_t *object, const char *place,
                                 struct dsa_step *step)
{
	enum dsa_status status;
	const json_t *candidates;
	const char *pattern;
	int layers = reader->results->layers;
	if (!json_is_object(object))
		return wrong_type(reader, place, "a step", object, "an object");
	if ((status = read_int(reader, object, place, "step", 1, layers, 1, &step->step)) ||
	    (status = read_int(reader, object, place, "flip", 0, layers - 1, 0, &step->flip)) ||
	    (status = read_pattern(reader, object, place, "pattern", &pattern)) ||
	    (status = read_bound(reader, object, place, "broken", &step->broken)) ||
	    (status = read_quality(reader, object, place, "calibration", &step->calibration)) ||
	    (status = read_quality(reader, object, place, "heldout", &step->heldout)) ||
	    (status = member_array(reader, object, place, "candidates", (size_t)layers, &candidates)))
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

static enum dsa_status read_trace(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *steps;
	char inner[PLACE_CHARS], index[40];
	int emitted;
	struct dsa_trace *trace = &reader->results->trace;
	trace->emitted = -1;
	if ((status = read_bound(reader, root, reader->place, "stopped_by", &trace->stopped_by)) ||
	    (status = member_array(reader, root, reader->place, "trace", (size_t)reader->results->layers, &steps)))
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
		below(inner, reader->place, index);
		if ((status = read_step(reader, json_array_get(steps, i), inner, &trace->steps[i])))
			return status;
	}
	status = read_int(reader, root, reader->place, "emitted_step", 0, trace->count, 0, &emitted);
	trace->emitted = emitted - 1;
	return status;
}

static enum dsa_status read_best(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *entries;
	char inner[PLACE_CHARS];
	struct dsa_results *results = reader->results;
	size_t most = (size_t)results->layers + 1;
	if ((status = member_array(reader, root, reader->place, "best", most, &entries)) || !entries)
		return status;
	size_t count = json_array_size(entries);
	if (!count)
		return DSA_OK;
	results->best = dsa_arena_alloc(reader->arena, count, sizeof *results->best, "best patterns", reader->err);
	if (!results->best)
		return DSA_E_MEMORY;
	results->best_count = (int)count;
	below(inner, reader->place, "best");
	for (size_t i = 0; i < count; i++) {
		const json_t *object = json_array_get(entries, i);
		struct dsa_best *best = &results->best[i];
		if (!json_is_object(object))
			return wrong_type(reader, inner, "an entry", object, "an object");
		if ((status = read_int(reader, object, inner, "shared", 0, results->layers, 0, &best->shared)) ||
		    (status = read_pattern(reader, object, inner, "pattern", &best->pattern)) ||
		    (status = dsa_json_real(object, inner, "kl", NAN, &best->kl, reader->err)) ||
		    (status = dsa_json_real(object, inner, "heldout_kl", NAN, &best->heldout_kl, reader->err)))
			return status;
		if (!best->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: an entry has no pattern", inner);
	}
	return DSA_OK;
}

static enum dsa_status read_corpus(const struct reader *reader, const json_t *object, const char *place,
                                   struct dsa_result_corpus *corpus)
{
	enum dsa_status status;
	const json_t *facts;
	const char *digest;
	char inner[PLACE_CHARS];
	if (!json_is_object(object))
		return wrong_type(reader, place, "a corpus", object, "an object");
	if ((status = read_quality_members(reader, object, place, &corpus->calibration)) ||
	    (status = read_quality(reader, object, place, "heldout", &corpus->heldout)) ||
	    (status = member_object(reader, object, place, "corpus", &facts)))
		return status;
	below(inner, place, "corpus");
	if ((status = dsa_json_real(facts, inner, "weight", 1, &corpus->weight, reader->err)) ||
	    (status = dsa_json_text(facts, inner, "sha256", "", &digest, reader->err)) ||
	    (status = read_int(reader, facts, inner, "documents", 0, INT_MAX, 0, &corpus->documents)) ||
	    (status = read_int(reader, facts, inner, "documents_calibration", 0, INT_MAX, 0,
	                       &corpus->documents_calibration)) ||
	    (status = read_int(reader, facts, inner, "documents_heldout", 0, INT_MAX, 0, &corpus->documents_heldout)) ||
	    (status = read_int(reader, facts, inner, "unscored", 0, INT_MAX, 0, &corpus->unscored)) ||
	    (status = read_int(reader, facts, inner, "cut", 0, INT_MAX, 0, &corpus->cut)) ||
	    (status = read_count(reader, facts, inner, "tokens", &corpus->tokens)) ||
	    (status = read_count(reader, facts, inner, "scored", &corpus->scored)) ||
	    (status = read_count(reader, facts, inner, "scored_calibration", &corpus->scored_calibration)) ||
	    (status = read_count(reader, facts, inner, "scored_heldout", &corpus->scored_heldout)))
		return status;
	if (strlen(digest) >= sizeof corpus->digest)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: sha256 has %zu characters, expected 64", inner,
		                strlen(digest));
	memcpy(corpus->digest, digest, strlen(digest) + 1);
	return DSA_OK;
}

static enum dsa_status read_corpora(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *members, *noise, *floors;
	json_t *value;
	const char *name;
	char inner[PLACE_CHARS], one[PLACE_CHARS];
	struct dsa_results *results = reader->results;
	if ((status = member_object(reader, root, reader->place, "corpora", &members)) ||
	    (status = member_object(reader, root, reader->place, "noise_floor", &noise)))
		return status;
	below(inner, reader->place, "noise_floor");
	if ((status = dsa_json_real(noise, inner, "kl", NAN, &results->noise_floor, reader->err)) ||
	    (status = member_object(reader, noise, inner, "corpora", &floors)))
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
	below(one, reader->place, "corpora");
	json_object_foreach((json_t *)(uintptr_t)members, name, value)
	{
		struct dsa_result_corpus *corpus = &results->corpora[results->corpus_count++];
		char at[PLACE_CHARS];
		below(at, one, name);
		if ((status = copy_text(reader, name, &corpus->name)) ||
		    (status = read_corpus(reader, value, at, corpus)) ||
		    (status = dsa_json_real(floors, inner, name, NAN, &corpus->noise_floor, reader->err)))
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_baselines(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *members;
	json_t *value;
	const char *name;
	char inner[PLACE_CHARS];
	struct dsa_results *results = reader->results;
	if ((status = member_object(reader, root, reader->place, "baselines", &members)))
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
		below(inner, reader->place, name);
		if (!json_is_object(value))
			return wrong_type(reader, inner, "a baseline", value, "an object");
		if ((status = copy_text(reader, name, &baseline->name)) ||
		    (status = read_pattern(reader, value, inner, "pattern", &baseline->pattern)) ||
		    (status = read_quality_members(reader, value, inner, &baseline->calibration)) ||
		    (status = read_quality(reader, value, inner, "heldout", &baseline->heldout)))
			return status;
		if (!baseline->pattern)
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: the baseline has no pattern", inner);
	}
	return DSA_OK;
}

/* Row `row` of a matrix, `columns` numbers long; every one of them checked. */
static enum dsa_status matrix_row(const struct reader *reader, const json_t *matrix, const char *place, int row,
                                  int columns, const json_t **out)
{
	*out = json_array_get(matrix, (size_t)row);
	if (!json_is_array(*out) || json_array_size(*out) != (size_t)columns)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: row %d is not an array of %d numbers", place, row,
		                columns);
	for (int j = 0; j < columns; j++)
		if (!json_is_number(json_array_get(*out, (size_t)j)))
			return dsa_fail(reader->err, DSA_E_INPUT, "%s: row %d, column %d is %s, expected a number",
			                place, row, j, dsa_json_type(json_array_get(*out, (size_t)j)));
	return DSA_OK;
}

static enum dsa_status read_bucket(const struct reader *reader, const json_t *object, const char *place, int corpus)
{
	enum dsa_status status;
	const json_t *matrix, *row;
	int bucket, layers = reader->results->layers;
	struct dsa_overlap *overlap = &reader->results->overlap;
	int64_t queries;
	if (!json_is_object(object))
		return wrong_type(reader, place, "an entry", object, "an object");
	/* Counts stay exact in a double below 2^53. */
	const int64_t most = ((int64_t)1 << 50) / reader->results->topk;
	if ((status = read_int(reader, object, place, "bucket", 0, DSA_POSITION_BUCKETS - 1, 0, &bucket)) ||
	    (status = dsa_json_int(object, place, "queries", 1, most, 1, &queries, reader->err)) ||
	    (status = member_array(reader, object, place, "overlap", (size_t)layers, &matrix)))
		return status;
	if (!matrix || json_array_size(matrix) != (size_t)layers)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: overlap has not %d rows", place, layers);
	size_t at = (size_t)corpus * DSA_POSITION_BUCKETS + (size_t)bucket;
	if (overlap->queries[at])
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: bucket %d occurs twice", place, bucket);
	overlap->queries[at] = queries;
	int64_t *counts = overlap->counts + at * (size_t)layers * (size_t)layers;
	for (int i = 0; i < layers; i++) {
		if ((status = matrix_row(reader, matrix, place, i, layers, &row)))
			return status;
		for (int j = i; j < layers; j++) {
			double share = json_number_value(json_array_get(row, (size_t)j));
			if (!(share >= 0 && share <= 1))
				return dsa_fail(reader->err, DSA_E_INPUT,
				                "%s: row %d, column %d is %g, expected 0 to 1", place, i, j, share);
			counts[(size_t)i * (size_t)layers + (size_t)j] =
			    llround(share * (double)queries * (double)reader->results->topk);
		}
	}
	return DSA_OK;
}

static enum dsa_status read_triangle(const struct reader *reader, const json_t *object, const char *place,
                                     const char *key, double *out)
{
	const json_t *matrix, *row;
	int layers = reader->results->layers;
	enum dsa_status status = member_array(reader, object, place, key, (size_t)layers, &matrix);
	if (status || !matrix)
		return status;
	for (int i = 0; i < layers; i++) {
		if ((status = matrix_row(reader, matrix, place, i, layers - i, &row)))
			return status;
		for (int j = i; j < layers; j++) {
			double sum = json_number_value(json_array_get(row, (size_t)(j - i)));
			out[(size_t)i * (size_t)layers + (size_t)j] = sum;
		}
	}
	return DSA_OK;
}

static enum dsa_status read_overlap(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *positions, *documents, *facts, *buckets;
	char inner[PLACE_CHARS];
	struct dsa_results *results = reader->results;
	struct dsa_overlap *overlap = &results->overlap;
	if ((status = member_object(reader, root, reader->place, "overlap_by_position", &positions)) ||
	    (status = member_object(reader, root, reader->place, "overlap_documents", &documents)))
		return status;
	if (!json_object_size(positions))
		return DSA_OK;
	size_t square = (size_t)results->layers * (size_t)results->layers;
	size_t corpora = (size_t)results->corpus_count;
	if (json_object_size(positions) != corpora)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: overlap_by_position has %zu corpora, expected %zu",
		                reader->place, json_object_size(positions), corpora);
	if (corpora > overlap_limit / (square * DSA_POSITION_BUCKETS * sizeof(int64_t)))
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: overlap of %zu corpora and %d layers is more than a file may hold", reader->place,
		                corpora, results->layers);
	status = dsa_overlap_init(overlap, results->corpus_count, results->layers, results->topk, reader->arena,
	                          reader->err);
	if (status)
		return status;
	for (int c = 0; c < results->corpus_count; c++) {
		const char *name = results->corpora[c].name;
		below(inner, reader->place, "overlap_by_position");
		if ((status = member_array(reader, positions, inner, name, DSA_POSITION_BUCKETS, &buckets)))
			return status;
		for (size_t i = 0; buckets && i < json_array_size(buckets); i++)
			if ((status = read_bucket(reader, json_array_get(buckets, i), inner, c)))
				return status;
		below(inner, reader->place, "overlap_documents");
		if ((status = member_object(reader, documents, inner, name, &facts)) ||
		    (status = read_int(reader, facts, inner, "documents", 0, INT_MAX, 0, &overlap->documents[c])) ||
		    (status = read_triangle(reader, facts, inner, "sum", overlap->sum + (size_t)c * square)) ||
		    (status = read_triangle(reader, facts, inner, "sum2", overlap->sum2 + (size_t)c * square)))
			return status;
	}
	return DSA_OK;
}

static enum dsa_status read_work_and_provenance(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *object;
	char inner[PLACE_CHARS];
	struct dsa_result_work *work = &reader->results->work;
	struct dsa_provenance *provenance = &reader->results->provenance;
	if ((status = member_object(reader, root, reader->place, "work", &object)))
		return status;
	below(inner, reader->place, "work");
	if ((status = read_count(reader, object, inner, "token_layers", &work->token_layers)) ||
	    (status = read_count(reader, object, inner, "refine_token_layers", &work->refine_token_layers)) ||
	    (status = read_count(reader, object, inner, "head_tokens", &work->head_tokens)) ||
	    (status = read_count(reader, object, inner, "token_layers_naive", &work->token_layers_naive)) ||
	    (status = dsa_json_real(object, inner, "seconds", NAN, &work->seconds, reader->err)) ||
	    (status = member_object(reader, root, reader->place, "provenance", &object)))
		return status;
	below(inner, reader->place, "provenance");
	if ((status = read_text(reader, object, inner, "version", &provenance->version)) ||
	    (status = read_text(reader, object, inner, "commit", &provenance->commit)) ||
	    (status = read_text(reader, object, inner, "device", &provenance->device)) ||
	    (status = read_text(reader, object, inner, "date", &provenance->date)) ||
	    (status = read_int(reader, object, inner, "threads", 0, INT_MAX, 0, &provenance->threads)) ||
	    (status = read_uint(reader, object, inner, "host_memory", &provenance->host_memory)) ||
	    (status = read_count(reader, object, inner, "executed", &provenance->executed)) ||
	    (status = read_uint(reader, object, inner, "peak_memory", &provenance->peak_memory)))
		return status;
	return DSA_OK;
}

/* Schema, sizes and the two patterns that everything else refers to. */
static enum dsa_status read_head(const struct reader *reader, const json_t *root)
{
	enum dsa_status status;
	const json_t *base;
	struct dsa_results *results = reader->results;
	int schema;
	const char *objective;
	if (!json_is_object(root))
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: the file is %s, expected an object", reader->place,
		                dsa_json_type(root));
	if ((status = read_int(reader, root, reader->place, "schema", 0, INT_MAX, 0, &schema)))
		return status;
	if (schema != DSA_RESULTS_SCHEMA)
		return dsa_fail(reader->err, DSA_E_INPUT,
		                "%s: schema is %d, expected %d; was it made by a newer dsacal?", reader->place, schema,
		                DSA_RESULTS_SCHEMA);
	if ((status = read_int(reader, root, reader->place, "layers", 1, DSA_MAX_LAYERS, 0, &results->layers)) ||
	    (status = read_int(reader, root, reader->place, "index_topk", 1, INT_MAX >> DSA_POSITION_BUCKETS / 2, 0,
	                       &results->topk)))
		return status;
	if (!results->layers || !results->topk)
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: layers or index_topk is missing", reader->place);
	if ((status = read_pattern(reader, root, reader->place, "pattern", &results->pattern)) ||
	    (status = member_object(reader, root, reader->place, "base", &base)) ||
	    (status = read_pattern(reader, base, reader->place, "pattern", &results->reference)) ||
	    (status = read_text(reader, root, reader->place, "search", &results->search)) ||
	    (status = read_int(reader, root, reader->place, "context", 0, INT_MAX, 0, &results->context)) ||
	    (status = read_uint(reader, root, reader->place, "seed", &results->seed)) ||
	    (status = dsa_json_real(root, reader->place, "holdout", NAN, &results->holdout, reader->err)) ||
	    (status = dsa_json_text(root, reader->place, "objective", "kl", &objective, reader->err)))
		return status;
	if (strcmp(objective, "kl") && strcmp(objective, "nll"))
		return dsa_fail(reader->err, DSA_E_INPUT, "%s: objective is \"%.40s\", expected kl or nll",
		                reader->place, objective);
	results->objective = strcmp(objective, "nll") ? DSA_OBJECTIVE_KL : DSA_OBJECTIVE_NLL;
	/* overlap's file names its reference at the top and has no pattern of its own. */
	if (!results->reference &&
	    (status = read_pattern(reader, root, reader->place, "reference", &results->reference)))
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
	struct reader reader = {.results = results, .arena = arena, .err = err, .place = place};
	*results = (struct dsa_results){0};
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (status)
		return status;
	if ((status = read_head(&reader, root)) || (status = read_model(&reader, root)) ||
	    (status = read_budget(&reader, root)) || (status = read_trace(&reader, root)) ||
	    (status = read_best(&reader, root)) || (status = read_corpora(&reader, root)) ||
	    (status = read_baselines(&reader, root)) || (status = read_overlap(&reader, root)) ||
	    (status = read_work_and_provenance(&reader, root)))
		goto cleanup;
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
