/* pattern.h: F/S strings and what they mean.
 *
 * A pattern is exactly L upper-case characters, F (runs its indexer) or S (reuses the selection of the nearest F
 * layer before it), the first always F. Kept as a NUL-terminated string. */
#ifndef DSA_PATTERN_H
#define DSA_PATTERN_H

#include <stdbool.h>

#include "dsa/status.h"

/* DSA_E_USAGE with the position of the first fault: length, character, first layer. what: "--pattern", a file name. */
DSA_CHECKED enum dsa_status dsa_pattern_check(const char *pattern, int layers, const char *what, struct dsa_error *err);
int dsa_pattern_shared(const char *pattern); /* number of S */
/* The F layer whose selection layer l attends to; l itself for F. */
int dsa_pattern_source(const char *pattern, int layer);
/* FSFS… (period 2), FSSS… (period 4): layer l is F iff l mod period == 0. out: layers + 1 bytes. Layers that are 'S' in
 * native stay S; F where force_full says so (may be NULL). */
void dsa_pattern_uniform(char *out, int layers, int period, const char *native, const bool *force_full);
/* Length of the common prefix. */
int dsa_pattern_common(const char *a, const char *b);
/* True if every S of native is S in pattern: a layer without an indexer of its own cannot become F. */
bool dsa_pattern_respects(const char *pattern, const char *native);

#endif
