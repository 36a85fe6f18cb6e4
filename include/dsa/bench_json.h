/* bench_json.h: what `dsacal bench --json` printed, read back as the costs of a run's layers. */
#ifndef DSA_BENCH_JSON_H
#define DSA_BENCH_JSON_H

#include "dsa/arena.h"
#include "dsa/results.h"

/* Adds the file's costs to results (gain.h). Its dimensions must be those of the run's model: random weights of the
 * same shape will do, since time hardly depends on them. DSA_E_INPUT with what differs. Strings from the arena. */
DSA_CHECKED enum dsa_status dsa_bench_json_load(struct dsa_results *results, const char *path, struct dsa_arena *arena,
                                                struct dsa_error *err);

#endif
