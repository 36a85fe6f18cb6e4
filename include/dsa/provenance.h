/* provenance.h: which program made a file, and when.
 *
 * Version and commit are compiled into provenance.c alone (Makefile), so a commit remakes one object. */
#ifndef DSA_PROVENANCE_H
#define DSA_PROVENANCE_H

#include <stdint.h>

enum { DSA_DATE_CHARS = 32 };

const char *dsa_version(void); /* of CHANGELOG.md's first heading; "unknown" outside a release tree */
const char *dsa_commit(void);  /* git describe of the tree that was built */
/* "2026-11-24T06:54:36Z"; times before 1970 or past the year 9999 are clamped to them. */
void dsa_date_format(int64_t unix_seconds, char out[DSA_DATE_CHARS]);

#endif
