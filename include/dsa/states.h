/* states.h: the pool of kept states, so that a pattern starts behind what was run before.
 *
 * A state (residual stream and selection in force, dsa_forward_save) in front of layer m depends on the documents and
 * on the first m letters of the pattern, on nothing else. So an entry is keyed by (batch, first m letters), and the
 * longest key that is a prefix of a pattern is where that pattern may start. That one rule covers candidates that start
 * at their own flip, a committed winner whose trajectory becomes the base, and a candidate that repeats its last
 * trajectory up to the committed flip.
 *
 * Worth keeping is what a candidate of this step or the next can start from: prefixes of the base with at most one
 * letter changed, in front of layers that can still be flipped. Of a held-out batch, on which only winners are asked,
 * that is the base's own path and the path of the flip that is about to be committed. The pool is bounded: the base's
 * path comes first, then that of the expected winner, then layers that are likely to be flipped next. What is not kept
 * is run again: same bits.
 *
 * The pool has memory first and, where it may, disk behind it (spill.h): what is kept once the memory is full goes to a
 * file through a buffer of one image, which counts as memory. What the disk refuses or does not give back as it was is
 * dropped with a warning: only costs follow from it too. */
#ifndef DSA_STATES_H
#define DSA_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/backend.h"
#include "dsa/log.h"
#include "dsa/status.h"

struct dsa_states;

/* Where states go that memory has no room for. */
struct dsa_states_disk {
	const char *directory; /* of the file; NULL: only planned with, nothing is ever kept there */
	uint64_t limit;        /* bytes of it */
	bool zstd;
	const struct dsa_log *log; /* warnings */
};

/* be: whose stash images in memory lie in; NULL: host memory. image_bytes (batches): bytes of one state of each batch,
 * 0 for a batch of which nothing is to be kept. heldout (batches): which are held out; NULL: none. limit: bytes of
 * memory that the pool may hold, its buffer for the disk included. disk: NULL for none; there is none either where the
 * limit has no room for the buffer. */
DSA_CHECKED enum dsa_status dsa_states_open(struct dsa_states **out, struct dsa_backend *be, int layers, int batches,
                                            const size_t *image_bytes, const bool *heldout, size_t limit,
                                            const struct dsa_states_disk *disk, struct dsa_error *err);
void dsa_states_close(struct dsa_states *states);
/* Layers (layers) that no question flips: nothing is kept in front of them. Before the first base; none without. */
void dsa_states_fix(struct dsa_states *states, const bool *fixed);
/* A new base pattern: entries that no candidate of it can start from are dropped. likely: the layers that may be
 * flipped next, most likely first, as far as known (count 0: nothing is known). Only costs follow from it, never bits.
 */
DSA_CHECKED enum dsa_status dsa_states_rebase(struct dsa_states *states, const char *base, const int *likely, int count,
                                              struct dsa_error *err);
/* The layer whose flip is likely to be the next one committed, or -1: its whole path is worth more than those of
 * others. May be called at any time; holds until the next rebase, which takes the likeliest. */
void dsa_states_expect(struct dsa_states *states, int flip);

/* What the last rebase planned. */
struct dsa_states_plan {
	int base, candidate; /* layers of the base's path, and of a candidate's, in front of which states are kept */
	size_t memory;       /* bytes of memory at most, whatever comes to be kept; the buffer for the disk included */
	uint64_t disk;       /* … of the file */
};
struct dsa_states_plan dsa_states_plan(const struct dsa_states *states);

/* The kept state of `batch` with the longest prefix of pattern, of at least `least` letters: *layer letters long, NULL
 * and 0 if none. Good until the next call of the pool. */
const void *dsa_states_find(struct dsa_states *states, int batch, const char *pattern, int least, int *layer);
/* Room for the state of pattern[0..layer) if it is worth keeping, not there yet and fits; else NULL. winner: nothing
 * else is asked on this batch before pattern becomes the base, so its path takes the place of the base's. The caller
 * fills it, and then says dsa_states_kept(), or dsa_states_forget() if it could not, before any other call. Lack of
 * host memory is no error: it is not kept. */
void *dsa_states_keep(struct dsa_states *states, int batch, const char *pattern, int layer, bool winner);
void dsa_states_kept(struct dsa_states *states);
void dsa_states_forget(struct dsa_states *states);

struct dsa_states_usage {
	size_t memory, most_memory;    /* bytes held now, and at most; the buffer for the disk included */
	uint64_t disk, most_disk;      /* … of the file */
	uint64_t written, read, reads; /* bytes to and from the file; states that were read */
};
struct dsa_states_usage dsa_states_usage(const struct dsa_states *states);
/* Bytes of the buffer for the disk, taken of the limit, where the largest state has `image` bytes; pure. */
size_t dsa_states_buffer(size_t image, bool zstd);

#endif
