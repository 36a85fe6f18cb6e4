/* pattern_yaml.h: pattern.yaml, the file that is kept, reviewed, exported and verified.
 *
 * It holds the pattern, what it was measured on, how far the output moves, and what to paste into each engine
 * (design.md). The first `pattern` is authoritative: model.layers, full_layers and source_of follow from it, and where
 * they disagree (a hand edit) the reader warns and recomputes. Unknown keys are ignored, so newer files are readable;
 * a file of the one line `pattern: "FFS"` is a pattern file too. `provenance` comes last. */
#ifndef DSA_PATTERN_YAML_H
#define DSA_PATTERN_YAML_H

#include "dsa/arena.h"
#include "dsa/log.h"
#include "dsa/results.h"
#include "dsa/text.h"

enum { DSA_PATTERN_SCHEMA = 1 };

void dsa_pattern_yaml_write(struct dsa_text *text, const struct dsa_results *results);

/* Restores what the file says: pattern, layers, topk (0 = not said), reference, model names and fingerprint, corpora
 * with their figures, index_precision (not said: f32), max_tokens, holdout, quality, heldout, noise_floor, baselines,
 * budget, stopped_by, provenance, seed. The trace's steps keep their number, flip and KL. What the file does not say is
 * NULL, 0 or NaN. DSA_E_INPUT with place and line. Memory from arena. */
DSA_CHECKED enum dsa_status dsa_pattern_yaml_read(struct dsa_results *results, const char *text, size_t bytes,
                                                  const char *place, const struct dsa_log *log, struct dsa_arena *arena,
                                                  struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_pattern_yaml_load(struct dsa_results *results, const char *path,
                                                  const struct dsa_log *log, struct dsa_arena *arena,
                                                  struct dsa_error *err);

#endif
