#include "option_table.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool dsa_option_count(const char *text, int64_t *out)
{
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < 0)
		return false;
	*out = value;
	return true;
}

bool dsa_option_real(const char *text, double *out)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end || !isfinite(value))
		return false;
	*out = value;
	return true;
}

/* 512M, 4GiB, 4GB, 1.5g: powers of 1024 whichever way they are written. */
bool dsa_option_size(const char *text, uint64_t *out)
{
	static const char units[] = "kmgt";
	char *end;
	double value = strtod(text, &end);
	if (end == text || !(value >= 0) || !isfinite(value))
		return false;
	if (*end) {
		const char *unit = strchr(units, *end | 0x20);
		if (!unit)
			return false;
		for (const char *u = units; u <= unit; u++)
			value *= 1024;
		end++;
		if (strcmp(end, "") && strcasecmp(end, "b") && strcasecmp(end, "ib"))
			return false;
	}
	if (value >= 9e18)
		return false;
	*out = (uint64_t)value;
	return true;
}

/* "25%" and "0.25" are the same share. */
bool dsa_option_share(const char *text, double *out)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || !isfinite(value))
		return false;
	if (!strcmp(end, "%"))
		value /= 100;
	else if (*end)
		return false;
	*out = value;
	return value >= 0 && value <= 1;
}

enum dsa_status dsa_cli_corpus(const char *value, struct dsa_corpus_source *source, struct dsa_arena *arena,
                               struct dsa_error *err)
{
	const char *path = value, *end = value + strlen(value);
	*source = (struct dsa_corpus_source){.weight = 1};
	const char *equals = strchr(value, '=');
	const char *slash = strchr(value, '/');
	const char *weight = strstr(value, ":weight=");
	/* A name comes before the first slash; "./a=b.txt" is a path. */
	if (equals && (!slash || equals < slash) && (!weight || equals < weight)) {
		source->name = dsa_arena_text(arena, value, (size_t)(equals - value), err);
		if (!source->name)
			return DSA_E_MEMORY;
		if (!*source->name)
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: the name before '=' is empty", value);
		path = equals + 1;
	}
	if (weight) {
		end = weight;
		if (!dsa_option_real(weight + strlen(":weight="), &source->weight) || !(source->weight > 0))
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: the weight must be a number above 0", value);
	}
	if (end <= path)
		return dsa_fail(err, DSA_E_USAGE, "--corpus %s: no path", value);
	source->path = dsa_arena_text(arena, path, (size_t)(end - path), err);
	if (!source->path)
		return DSA_E_MEMORY;
	return DSA_OK; /* without a name the spool derives one from the path */
}

static enum dsa_status max_shared(const char *text, int layers, int *out, struct dsa_error *err)
{
	int64_t count;
	double share;
	*out = -1;
	if (!text)
		return DSA_OK;
	if (strchr(text, '%')) {
		if (!dsa_option_share(text, &share))
			return dsa_fail(err, DSA_E_USAGE, "--max-shared: found '%s', expected 0%% to 100%%", text);
		*out = (int)floor(share * layers + 1e-9);
		return DSA_OK;
	}
	if (!dsa_option_count(text, &count) || count > layers)
		return dsa_fail(err, DSA_E_USAGE, "--max-shared: found '%s', expected 0 to %d, or P%%", text, layers);
	*out = (int)count;
	return DSA_OK;
}

enum dsa_status dsa_cli_budget(const struct dsa_cli_options *options, int layers, struct dsa_budget *budget,
                               bool *given, struct dsa_error *err)
{
	*budget = (struct dsa_budget){.kl = options->budget_kl,
	                              .nll = options->budget_nll,
	                              .kl_p99 = options->budget_kl_p99,
	                              .top1 = options->min_top1,
	                              .max_shared = -1,
	                              .scope = options->scope && !strcmp(options->scope, "worst") ? DSA_SCOPE_WORST
	                                                                                          : DSA_SCOPE_MEAN};
	const struct {
		const char *name;
		double value;
	} bounds[] = {{"budget-kl", options->budget_kl},
	              {"budget-nll", options->budget_nll},
	              {"budget-kl-p99", options->budget_kl_p99}};
	for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
		if (bounds[i].value < 0)
			return dsa_fail(err, DSA_E_USAGE, "--%s is %g, expected 0 or more", bounds[i].name,
			                bounds[i].value);
	if (options->min_top1 < 0 || options->min_top1 > 1)
		return dsa_fail(err, DSA_E_USAGE, "--min-top1 is %g, expected 0 to 1", options->min_top1);
	enum dsa_status status = max_shared(options->max_shared, layers, &budget->max_shared, err);
	if (status)
		return status;
	*given = !isnan(budget->kl) || !isnan(budget->nll) || !isnan(budget->kl_p99) || !isnan(budget->top1) ||
	         budget->max_shared >= 0;
	return DSA_OK;
}

enum dsa_status dsa_cli_precision(const struct dsa_cli_options *options, struct dsa_model_config *config,
                                  struct dsa_error *err)
{
	if (!dsa_index_precision_find(options->indexer_precision, &config->index_precision))
		assert(false); /* one of the option's choices */
	if (config->index_precision != DSA_INDEX_FP8)
		return DSA_OK;
	if (config->index_dim & (config->index_dim - 1))
		return dsa_fail(err, DSA_E_USAGE,
		                "--indexer-precision fp8: the model's index_head_dim is %d, and the rotation needs a "
		                "power of two; use f32 or bf16",
		                config->index_dim);
	if (config->scale_ue8m0)
		config->index_precision = DSA_INDEX_FP8_UE8M0;
	return DSA_OK;
}

/* Marks the layers of "3,7,10-12". */
static enum dsa_status mark_list(const char *name, const char *list, int layers, bool *locked, struct dsa_error *err)
{
	const char *at = list;
	while (at && *at) {
		char *end;
		long first = strtol(at, &end, 10), last = first;
		if (end != at && *end == '-') {
			const char *second = end + 1;
			last = strtol(second, &end, 10);
			if (end == second)
				end = (char *)(uintptr_t)at;
		}
		if (end == at || first < 0 || last < first || last >= layers || (*end && (*end != ',' || !end[1])))
			return dsa_fail(err, DSA_E_USAGE, "--%s: found '%s', expected layers 0 to %d such as 3,7,10-12",
			                name, list, layers - 1);
		for (long l = first; l <= last; l++)
			locked[l] = true;
		at = *end ? end + 1 : end;
	}
	return DSA_OK;
}

enum dsa_place dsa_cli_residency(const struct dsa_cli_options *options)
{
	enum dsa_place place = DSA_PLACE_DEVICE;
	while (place < DSA_PLACE_DISK && strcmp(options->residency, dsa_place_name(place)) != 0)
		place++;
	return place;
}

enum dsa_status dsa_cli_locked(const struct dsa_cli_options *options, int layers, bool *locked, struct dsa_error *err)
{
	memset(locked, 0, (size_t)layers * sizeof *locked);
	locked[0] = true;
	enum dsa_status status = mark_list("force-full", options->force_full, layers, locked, err);
	if (!status)
		status = mark_list("pp-starts", options->pp_starts, layers, locked, err);
	if (status)
		return status;
	if (options->pp > layers)
		return dsa_fail(err, DSA_E_USAGE, "--pp %lld: the model has %d layers", (long long)options->pp, layers);
	/* A remainder makes the first stages one layer longer; where an engine cuts otherwise, --pp-starts says it. */
	for (int64_t s = 0, first = 0; s < options->pp; s++) {
		locked[first] = true;
		first += layers / options->pp + (s < layers % options->pp);
	}
	return DSA_OK;
}
