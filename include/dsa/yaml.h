/* yaml.h: YAML files as a plain tree, with the guards that hostile files need.
 *
 * libyaml 0.2.5 does the parsing; this bounds what it is given. Refused with the line: more than DSA_YAML_BYTES,
 * nesting past DSA_YAML_DEPTH, more than DSA_YAML_NODES values, anchors, aliases, tags, keys that are not scalars,
 * duplicate keys, a second document, an empty file. Everything lives in the caller's arena. Scalars keep their text:
 * the reader says what type it expects, so `pattern: "FFS"` and `context: 1024` need no schema. */
#ifndef DSA_YAML_H
#define DSA_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/status.h"

enum { DSA_YAML_BYTES = 4 << 20, DSA_YAML_DEPTH = 24, DSA_YAML_NODES = 200000 };

enum dsa_yaml_kind { DSA_YAML_SCALAR, DSA_YAML_LIST, DSA_YAML_MAP };

struct dsa_yaml {
	enum dsa_yaml_kind kind;
	int line;         /* counted from 1 */
	const char *key;  /* under which it stands in its map; NULL in a list and at the root */
	const char *text; /* scalars: NUL-terminated UTF-8 without NULs inside */
	bool quoted;      /* scalars: 'so' or "so" or a block: a string whatever it looks like */
	int count;        /* lists and maps: children */
	struct dsa_yaml *first, *last, *next;
};

/* place: how errors call it. *root stays valid as long as the arena. */
DSA_CHECKED enum dsa_status dsa_yaml_parse(const struct dsa_yaml **root, const char *text, size_t bytes,
                                           const char *place, struct dsa_arena *arena, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_yaml_load(const struct dsa_yaml **root, const char *path, struct dsa_arena *arena,
                                          struct dsa_error *err);

/* The value of key; NULL when map is NULL, not a map, or has no such key. */
const struct dsa_yaml *dsa_yaml_find(const struct dsa_yaml *map, const char *key);
/* True for an absent node and for a plain null, ~ or empty scalar. */
bool dsa_yaml_is_null(const struct dsa_yaml *node);

/* Each: absent or null gives *out = fallback and DSA_OK; another type or out of range is DSA_E_INPUT with place, line,
 * key, found and expected. */
DSA_CHECKED enum dsa_status dsa_yaml_int(const struct dsa_yaml *map, const char *place, const char *key, int64_t low,
                                         int64_t high, int64_t fallback, int64_t *out, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_yaml_real(const struct dsa_yaml *map, const char *place, const char *key,
                                          double fallback, double *out, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_yaml_bool(const struct dsa_yaml *map, const char *place, const char *key, bool fallback,
                                          bool *out, struct dsa_error *err);
/* *out lives in the tree's arena; fallback may be NULL. Any scalar is text. */
DSA_CHECKED enum dsa_status dsa_yaml_text(const struct dsa_yaml *map, const char *place, const char *key,
                                          const char *fallback, const char **out, struct dsa_error *err);
/* A list or map under key, NULL when absent or null. */
DSA_CHECKED enum dsa_status dsa_yaml_child(const struct dsa_yaml *map, const char *place, const char *key,
                                           enum dsa_yaml_kind kind, const struct dsa_yaml **out, struct dsa_error *err);

#endif
