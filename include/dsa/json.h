/* json.h: jansson with the guards that hostile files need, and field access that explains itself.
 *
 * Parsing rejects duplicate keys, NUL in keys, nesting past DSA_JSON_DEPTH and text past the caller's limit.
 * Values are jansson's; whoever parsed a root calls json_decref() on it. `place` names the file or line in every error.
 */
#ifndef DSA_JSON_H
#define DSA_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/status.h"

enum { DSA_JSON_DEPTH = 64 };

/* Parses text[0..bytes). place: how errors call it ("config.json", "legal.jsonl line 7"). *out: json_decref(). */
DSA_CHECKED enum dsa_status dsa_json_parse(const char *text, size_t bytes, const char *place, json_t **out,
                                           struct dsa_error *err);
/* Reads and parses a file of at most `limit` bytes. */
DSA_CHECKED enum dsa_status dsa_json_load(const char *path, size_t limit, json_t **out, struct dsa_error *err);

/* Each: absent or null gives *out = fallback and DSA_OK; another type or out of range is DSA_E_INPUT naming place and
 * key, found and expected. */
DSA_CHECKED enum dsa_status dsa_json_int(const json_t *object, const char *place, const char *key, int64_t low,
                                         int64_t high, int64_t fallback, int64_t *out, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_json_real(const json_t *object, const char *place, const char *key, double fallback,
                                          double *out, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_json_bool(const json_t *object, const char *place, const char *key, bool fallback,
                                          bool *out, struct dsa_error *err);
/* *out is borrowed from object; fallback may be NULL. */
DSA_CHECKED enum dsa_status dsa_json_text(const json_t *object, const char *place, const char *key,
                                          const char *fallback, const char **out, struct dsa_error *err);
/* "string", "number", … for messages. */
const char *dsa_json_type(const json_t *value);

#endif
