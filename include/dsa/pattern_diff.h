/* pattern_diff.h: two pattern files beside one another: which layers changed, and the figures of both. */
#ifndef DSA_PATTERN_DIFF_H
#define DSA_PATTERN_DIFF_H

#include "dsa/results.h"
#include "dsa/text.h"

enum { DSA_DIFF_SCHEMA = 1 };

struct dsa_pattern_diff {
	const char *file[2];
	const struct dsa_results *side[2]; /* as pattern_yaml.h reads them */
};

/* For people: layers, then a table of figures per corpus and split. */
void dsa_pattern_diff_write(struct dsa_text *text, const struct dsa_pattern_diff *diff);
void dsa_pattern_diff_json_write(struct dsa_text *text, const struct dsa_pattern_diff *diff);

#endif
