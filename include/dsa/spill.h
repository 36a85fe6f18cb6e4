/* spill.h: images that do not fit into memory, in a file of this process alone.
 *
 * The file has no name, so nothing is left of it however the process ends, and it is not made before the first write.
 * It is cut into blocks of one size; an image is a chain of them, so that images of any sizes take each other's place
 * without a gap. What was written or read is not left in the page cache: an image is gone from it once the next one is
 * handled. Every image has a digest, so damage is an error and never other figures. What dsa_spill_write() returned
 * belongs to the caller until dsa_spill_drop(). One thread at a time. */
#ifndef DSA_SPILL_H
#define DSA_SPILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/hash.h"
#include "dsa/status.h"

struct dsa_spill;

struct dsa_spill_options {
	const char *directory; /* where the file is made */
	uint64_t limit;        /* bytes that it may have */
	size_t image;          /* bytes of the smallest image: blocks are made to fit it */
	bool zstd;             /* each image a zstd frame, level 1 */
};

/* An image in the file. */
struct dsa_spilled {
	uint32_t first, blocks;
	size_t bytes, stored;           /* the image's, and what it takes in its blocks */
	uint8_t digest[DSA_HASH_BYTES]; /* of the image */
};

struct dsa_spill_usage {
	uint64_t bytes, most;    /* in the file now, and at most: whole blocks */
	uint64_t written, read;  /* bytes to and from the file */
	uint64_t writes, reads;  /* images */
	uint64_t spilled, taken; /* bytes of the images written, before compression, and of the blocks they took */
};

/* DSA_E_MEMORY. */
DSA_CHECKED enum dsa_status dsa_spill_open(struct dsa_spill **out, const struct dsa_spill_options *options,
                                           struct dsa_error *err);
void dsa_spill_close(struct dsa_spill *spill);
/* Bytes of the file that such an image takes at most. */
uint64_t dsa_spill_size(const struct dsa_spill *spill, size_t bytes);
/* Is there room for an image of that many bytes, however badly it is compressed? */
bool dsa_spill_fits(const struct dsa_spill *spill, size_t bytes);
/* How many bytes of images of about `bytes` each would fit if there were none, by what those so far came to. */
uint64_t dsa_spill_room(const struct dsa_spill *spill, size_t bytes);
/* There must be room (dsa_spill_fits). DSA_E_IO when the file cannot be made or written (a full disk), DSA_E_MEMORY;
 * nothing is taken then. */
DSA_CHECKED enum dsa_status dsa_spill_write(struct dsa_spill *spill, const void *image, size_t bytes,
                                            struct dsa_spilled *out, struct dsa_error *err);
/* The image again. DSA_E_IO when it cannot be read or is not what was written; it still has to be dropped. */
DSA_CHECKED enum dsa_status dsa_spill_read(struct dsa_spill *spill, const struct dsa_spilled *spilled, void *image,
                                           struct dsa_error *err);
void dsa_spill_drop(struct dsa_spill *spill, const struct dsa_spilled *spilled);
/* Gives the file's space back, once every image is dropped. */
void dsa_spill_empty(struct dsa_spill *spill);
const struct dsa_spill_usage *dsa_spill_usage(const struct dsa_spill *spill);
/* Bytes of memory that it takes for itself with images of so many bytes, but for 4 for each block of the file; pure. */
size_t dsa_spill_memory(bool zstd, size_t image);

#endif
