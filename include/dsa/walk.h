/* walk.h: the files under a directory, one at a time, in an order that depends on their names only.
 *
 * Names of a directory are sorted by bytes and taken in turn, a directory where its name stands. Names that begin with
 * '.' are passed over. Links are followed; a link back to a directory that the walk is in, and anything that is neither
 * file nor directory, is refused. Memory holds the listings of the directories on the way down. */
#ifndef DSA_WALK_H
#define DSA_WALK_H

#include "dsa/status.h"

enum { DSA_WALK_DEPTH = 64 };

struct dsa_walk;

DSA_CHECKED enum dsa_status dsa_walk_open(struct dsa_walk **out, const char *path, struct dsa_error *err);
void dsa_walk_close(struct dsa_walk *walk);
/* The next file: its path to open it by and its path relative to the walk's root, both borrowed until the next call.
 * DSA_E_MISSING at the end (err untouched). */
DSA_CHECKED enum dsa_status dsa_walk_next(struct dsa_walk *walk, const char **path, const char **relative,
                                          struct dsa_error *err);

#endif
