/* config_json.h: a pattern written into a checkpoint's config.json, with every other byte left as it was.
 *
 * The text is edited in place of being parsed and printed: the values of indexer_types and, where it counts, of
 * index_topk_pattern are replaced where they stand, or put behind the last member. What comes out is parsed again and
 * compared with what went in before anything is written. The original stays beside the file as NAME.orig; a second
 * export starts from that. */
#ifndef DSA_CONFIG_JSON_H
#define DSA_CONFIG_JSON_H

#include <stdbool.h>

#include "dsa/text.h"

enum { DSA_CONFIG_BYTES = 16 << 20 };

/* What to write. */
struct dsa_config_edit {
	const char *pattern;      /* (layers) F and S */
	const char *architecture; /* model_type that is expected; NULL = any */
	bool letters;             /* the engine reads index_topk_pattern from the file */
};

/* What the file said of itself, for whoever judges the pattern. */
struct dsa_config_facts {
	int layers, mtp_layers; /* num_hidden_layers, num_nextn_predict_layers */
	bool wrote_letters;     /* index_topk_pattern was written too */
};

/* num_hidden_layers, num_nextn_predict_layers and model_type of text[0..bytes), which must be an object with the two
 * that are required. place: how errors call it. */
DSA_CHECKED enum dsa_status dsa_config_json_facts(struct dsa_config_facts *facts, const char *text, size_t bytes,
                                                  const char *place, const char *architecture, struct dsa_error *err);

/* text[0..bytes), a NUL behind it, with the pattern in it, appended to out. indexer_types is always written;
 * index_topk_pattern if the edit says so or the file has one that is not null, since two spellings that differ would
 * leave the choice to the reader. DSA_E_INPUT: no JSON object. */
DSA_CHECKED enum dsa_status dsa_config_json_edit(struct dsa_text *out, const char *text, size_t bytes,
                                                 const char *place, const struct dsa_config_edit *edit,
                                                 struct dsa_config_facts *facts, struct dsa_error *err);

/* Edits the file at path, keeping what was there as PATH.orig. If that exists already, path must be what an earlier
 * export made of it (or equal to it), and the new text is made from it; DSA_E_USAGE otherwise. */
DSA_CHECKED enum dsa_status dsa_config_json_write(const char *path, const struct dsa_config_edit *edit,
                                                  struct dsa_config_facts *facts, struct dsa_error *err);

#endif
