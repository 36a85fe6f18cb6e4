/* results_json.h: results.json, written from struct dsa_results and read back into it.
 *
 * The names are a contract (design.md): added freely, never renamed. What is undefined is null. `work.seconds` and
 * `provenance` come last, so that two runs of the same inputs differ in nothing before them. Doubles read back to the
 * same bits: write, read, write gives the same bytes, and `report`, `export` and `solve` need nothing else.
 *
 * Corpora and baselines are object members; a name that occurs twice is written "name (2)" the second time. */
#ifndef DSA_RESULTS_JSON_H
#define DSA_RESULTS_JSON_H

#include "dsa/arena.h"
#include "dsa/results.h"
#include "dsa/text.h"

enum { DSA_RESULTS_SCHEMA = 1, DSA_RESULTS_CORPORA = 4096 /* most of a file, baselines likewise */ };

/* Each appends one JSON document that ends with a newline. */
void dsa_results_json_write(struct dsa_text *text, const struct dsa_results *results);
/* `evaluate --json`: layers, index_topk, pattern, base, quality, corpora, noise_floor, work, provenance. */
void dsa_evaluate_json_write(struct dsa_text *text, const struct dsa_results *results);
/* `overlap --json`: layers, index_topk, reference, overlap, overlap_by_position, work, provenance. */
void dsa_overlap_json_write(struct dsa_text *text, const struct dsa_results *results);

/* Reads text[0..bytes), written by any of the three or by hand. Everything is checked before it is believed: patterns,
 * counts against the layers, ranges, types. DSA_E_INPUT names place, field, found and expected. Memory from arena. */
DSA_CHECKED enum dsa_status dsa_results_json_read(struct dsa_results *results, const char *text, size_t bytes,
                                                  const char *place, struct dsa_arena *arena, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_results_json_load(struct dsa_results *results, const char *path,
                                                  struct dsa_arena *arena, struct dsa_error *err);

#endif
