#include "dsa/bench_json.h"

#include <math.h>
#include <string.h>

#include "dsa/gain.h"
#include "dsa/json.h"

enum { BENCH_BYTES = 1 << 20, BENCH_SCHEMA = 1 };

/* Dimensions that a layer's time follows from, those of kinds of layers that the model lacks aside. */
static enum dsa_status check_dimensions(const json_t *root, const char *path, const struct dsa_results *results,
                                        struct dsa_error *err)
{
	const bool dense = results->dense_layers > 0, experts = results->dense_layers < results->layers;
	const struct {
		const char *name;
		int expected;
		bool counts;
	} rows[] = {
	    {"hidden", results->hidden, true},
	    {"heads", results->heads, true},
	    {"q_rank", results->q_rank, true},
	    {"latent", results->latent, true},
	    {"rope", results->rope, true},
	    {"nope", results->nope, true},
	    {"value", results->value, true},
	    {"index_heads", results->index_heads, true},
	    {"index_dim", results->index_dim, true},
	    {"index_topk", results->topk, true},
	    {"dense_inner", results->dense_inner, dense},
	    {"expert_inner", results->expert_inner, experts},
	    {"experts_per_token", results->experts_per_token, experts},
	};
	const json_t *object = json_object_get(root, "dimensions");
	if (!json_is_object(object))
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: there are no dimensions: is it what bench --json of this version printed?", path);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int64_t found;
		if (!rows[i].counts)
			continue;
		enum dsa_status status = dsa_json_int(object, path, rows[i].name, 0, INT32_MAX, 0, &found, err);
		if (status)
			return status;
		if (found != rows[i].expected)
			return dsa_fail(err, DSA_E_INPUT,
			                "%s: measured with %s %lld, the run's model has %d: bench that model", path,
			                rows[i].name, (long long)found, rows[i].expected);
	}
	return DSA_OK;
}

static enum dsa_status read_layer(const json_t *layer, const char *path, struct dsa_layer_costs *costs,
                                  struct dsa_error *err)
{
	const char *kind, *mode;
	double seconds;
	enum dsa_status status = dsa_json_text(layer, path, "kind", "", &kind, err);
	if (!status)
		status = dsa_json_text(layer, path, "mode", "", &mode, err);
	if (!status)
		status = dsa_json_real(layer, path, "seconds_per_token", 0, &seconds, err);
	if (status)
		return status;
	bool moe = !strcmp(kind, "moe"), full = !strcmp(mode, "F");
	if ((!moe && strcmp(kind, "dense") != 0) || (!full && strcmp(mode, "S") != 0))
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: a layer of kind '%.20s' as '%.20s', expected dense or moe, F or S", path, kind,
		                mode);
	if (moe)
		*(full ? &costs->moe_full : &costs->moe_shared) = seconds;
	else
		*(full ? &costs->dense_full : &costs->dense_shared) = seconds;
	return DSA_OK;
}

static enum dsa_status read_bench(const json_t *root, const char *path, struct dsa_results *results,
                                  struct dsa_arena *arena, struct dsa_error *err)
{
	struct dsa_layer_costs costs = {.dense_full = NAN, .dense_shared = NAN, .moe_full = NAN, .moe_shared = NAN};
	int64_t schema;
	const char *device;
	if (!json_is_object(root))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s, expected an object", path, dsa_json_type(root));
	enum dsa_status status = dsa_json_int(root, path, "schema", 0, INT32_MAX, 0, &schema, err);
	if (!status && schema != BENCH_SCHEMA)
		status = dsa_fail(err, DSA_E_INPUT, "%s: schema is %lld, expected %d: is it what bench --json printed?",
		                  path, (long long)schema, BENCH_SCHEMA);
	if (!status)
		status = dsa_json_int(root, path, "context", 1, INT32_MAX, 0, &costs.context, err);
	if (!status)
		status = dsa_json_text(root, path, "device", "", &device, err);
	if (!status)
		status = check_dimensions(root, path, results, err);
	const json_t *layers = json_object_get(root, "layers");
	for (size_t i = 0; i < json_array_size(layers) && !status; i++)
		status = read_layer(json_array_get(layers, i), path, &costs, err);
	if (status)
		return status;
	device = dsa_arena_text(arena, device, strlen(device), err);
	return device ? dsa_gain_add_costs(results, &costs, device, path, err) : DSA_E_MEMORY;
}

enum dsa_status dsa_bench_json_load(struct dsa_results *results, const char *path, struct dsa_arena *arena,
                                    struct dsa_error *err)
{
	json_t *root = NULL;
	enum dsa_status status = dsa_json_load(path, BENCH_BYTES, &root, err);
	if (!status)
		status = read_bench(root, path, results, arena, err);
	json_decref(root);
	return status == DSA_E_MISSING ? DSA_E_INPUT : status;
}
