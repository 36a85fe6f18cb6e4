/* verify_json.h: `verify --json`: the verdict, every check, and the figures beside the recorded ones.
 *
 * Names are a contract as those of results.json. Undefined is null. `provenance` comes last. */
#ifndef DSA_VERIFY_JSON_H
#define DSA_VERIFY_JSON_H

#include "dsa/verify_text.h"

enum { DSA_VERIFY_SCHEMA = 1 };

void dsa_verify_json_write(struct dsa_text *text, const struct dsa_verify_report *report);

#endif
