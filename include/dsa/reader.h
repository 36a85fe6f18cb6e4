/* reader.h: the bytes of one file, plain or .zst, as a stream of lines or whole.
 *
 * Memory holds a chunk of the file, a decoder window of at most 128 MiB (what `zstd --long` writes; a frame that asks
 * for more is refused before anything is allocated for it) and the longest line so far. Bytes are hashed as they lie
 * on disk, before decompression, so that the digest of a file read to its end is what sha256sum prints. */
#ifndef DSA_READER_H
#define DSA_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/hash.h"
#include "dsa/status.h"

struct dsa_reader;

/* path "-" is stdin. A regular file is decompressed if its name ends in .zst; stdin and pipes have no telling name and
 * are decompressed if they begin with zstd's magic number. DSA_E_MISSING when there is no such file. */
DSA_CHECKED enum dsa_status dsa_reader_open(struct dsa_reader **out, const char *path, struct dsa_error *err);
void dsa_reader_close(struct dsa_reader *reader);

/* How messages call the file: its path, or "standard input". */
const char *dsa_reader_place(const struct dsa_reader *reader);
/* Stdin or a pipe: the name says nothing about the content. */
bool dsa_reader_is_nameless(const struct dsa_reader *reader);
/* *out = the first byte that is not white space within the next 128 KiB, not consumed, or -1 if there is none. */
DSA_CHECKED enum dsa_status dsa_reader_peek(struct dsa_reader *reader, int *out, struct dsa_error *err);

/* The next line without its newline, borrowed until the next call; the last one may lack the newline. DSA_E_MISSING at
 * the end (err untouched). More than `limit` bytes is DSA_E_INPUT naming the line. */
DSA_CHECKED enum dsa_status dsa_reader_line(struct dsa_reader *reader, size_t limit, const char **line, size_t *bytes,
                                            struct dsa_error *err);
/* Number of the line handed out last, from 1. */
int64_t dsa_reader_line_number(const struct dsa_reader *reader);
/* All that is left, borrowed until the next call; more than `limit` bytes is DSA_E_INPUT. */
DSA_CHECKED enum dsa_status dsa_reader_rest(struct dsa_reader *reader, size_t limit, const char **text, size_t *bytes,
                                            struct dsa_error *err);
/* SHA-256 of the stored bytes taken from the file so far (in whole chunks of 128 KiB, so independent of pipe sizes). */
void dsa_reader_digest(const struct dsa_reader *reader, uint8_t out[DSA_HASH_BYTES]);

#endif
