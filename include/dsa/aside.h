/* aside.h: a large file written piece by piece, which appears under its name only when it is whole.
 *
 * Bytes go to PATH.tmp-PID. dsa_aside_commit() syncs that, renames it over PATH and syncs the directory; without it
 * dsa_aside_close() removes what was written, so that a full disk leaves nothing behind. What fits in memory is
 * better served by dsa_file_replace(). */
#ifndef DSA_ASIDE_H
#define DSA_ASIDE_H

#include <stddef.h>
#include <stdint.h>

#include "dsa/status.h"

struct dsa_aside;

DSA_CHECKED enum dsa_status dsa_aside_open(struct dsa_aside **out, const char *path, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_aside_write(struct dsa_aside *aside, const void *data, size_t bytes,
                                            struct dsa_error *err);
/* Bytes written so far: the offset of the next one. */
uint64_t dsa_aside_bytes(const struct dsa_aside *aside);
DSA_CHECKED enum dsa_status dsa_aside_commit(struct dsa_aside *aside, struct dsa_error *err);
void dsa_aside_close(struct dsa_aside *aside);

#endif
