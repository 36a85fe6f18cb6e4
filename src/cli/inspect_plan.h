/* inspect_plan.h: inspect --plan: what a calibration would take on one H100 and on eight, as text and JSON.
 *
 * An estimate without a device: what a run is going to take, its own --dry-run says. */
#ifndef DSA_CLI_INSPECT_PLAN_H
#define DSA_CLI_INSPECT_PLAN_H

#include "dsa/json_writer.h"
#include "dsa/streaming.h"
#include "options.h"

enum { DSA_INSPECT_MACHINES = 2 };

struct dsa_inspect_plan {
	int context;
	int64_t tokens;
	const char *rates_from; /* device that bench measured on, by --bench; NULL: the built-in ones */
	struct dsa_streaming_rates rates;
	struct dsa_streaming_machine machine[DSA_INSPECT_MACHINES];
	struct dsa_streaming_plan plan[DSA_INSPECT_MACHINES];
};

/* DSA_E_USAGE for a context that leaves no scored token or fewer tokens than one document has; DSA_E_INPUT for a file
 * of
 * --bench that is of another model. gpu_memory: bytes. Strings from the arena. */
DSA_CHECKED enum dsa_status dsa_inspect_plan(struct dsa_inspect_plan *out, const struct dsa_cli_options *options,
                                             const struct dsa_model_config *config, const char *directory,
                                             uint64_t gpu_memory, struct dsa_arena *arena, struct dsa_error *err);
void dsa_inspect_plan_print(const struct dsa_inspect_plan *plan);
void dsa_inspect_plan_json(struct dsa_json_writer *json, const struct dsa_inspect_plan *plan);

#endif
