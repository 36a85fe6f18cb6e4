/* journal_record.h: the bytes of RUN/journal: its header and its records, to and from memory; no file is touched here.
 *
 * Everything is little-endian; doubles keep all their bits. Varints are LEB128.
 * - header: "DSAJRNL\n", format u32, bytes of the header u32, metric version u32, created i64, number of fields u32;
 *   per field its name and its value, each a length u32 and text; check.
 * - record: kind u32, length u32, payload, check.
 * - check: the first 8 bytes of the SHA-256 of everything before it in the header or record.
 * - payload: batch u32, seed u64, executed i64, layers u32, pattern (layers), documents varint; then per document
 * - in a pattern record: number varint, mask of position buckets in use varint; per bucket tokens and top1 varint, kl,
 *   kl2, nll, nll_base, dnll2 and kl_max f64; number of bins varint; per bin one byte, its high half how far
 *   position·2048 + bin is from the place behind the bin before, its low half count - 1; a half of 15 is followed by a
 *   varint to add;
 * - in an overlap record (no layers, no pattern above): number, layers, mask varint; per bucket the queries and the
 *   upper triangle, row by row, varint; with the bit behind the mask's buckets, then each layer's count of positions
 *   that are selected without the indexer's precision too, varint.
 * Readers trust nothing: a well-checksummed record may still be hostile. */
#ifndef DSA_JOURNAL_RECORD_H
#define DSA_JOURNAL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/journal.h"
#include "dsa/metrics.h"
#include "dsa/overlap.h"
#include "dsa/status.h"

enum {
	DSA_JOURNAL_FORMAT = 1,
	DSA_RECORD_PATTERN = 0x4e544150, /* "PATN" */
	DSA_RECORD_OVERLAP = 0x504c564f, /* "OVLP" */
	DSA_RECORD_FRAME = 16,           /* bytes of a record around its payload */
	DSA_RECORD_MOST = 1 << 30,       /* most bytes of a payload */
	DSA_HEADER_MOST = 1 << 20,
};

/* Bytes being written. Zeroed = empty; release frees. A writer that finds no memory sets failed and goes on. */
struct dsa_record_buffer {
	uint8_t *data;
	size_t used, room;
	bool failed;
};
/* Room for at least `room` bytes in all; what is there is kept. */
DSA_CHECKED enum dsa_status dsa_record_buffer_reserve(struct dsa_record_buffer *buffer, size_t room,
                                                      struct dsa_error *err);
void dsa_record_buffer_release(struct dsa_record_buffer *buffer);

/* Which question a record answers. */
struct dsa_record_key {
	uint32_t kind;
	int batch;
	uint64_t seed;       /* 0 for overlap */
	const char *pattern; /* (layers) not NUL-terminated when it comes from a record; "" for overlap */
	size_t layers;
	int64_t executed; /* no part of the identity */
};
bool dsa_record_key_equal(const struct dsa_record_key *a, const struct dsa_record_key *b);
uint64_t dsa_record_key_hash(const struct dsa_record_key *key);

/* A whole record in place of what the buffer held. DSA_E_MEMORY; DSA_E_USAGE when a batch is too large for a record. */
DSA_CHECKED enum dsa_status dsa_record_write_pattern(struct dsa_record_buffer *out, const struct dsa_record_key *key,
                                                     const struct dsa_doc_stats *stats, int count,
                                                     struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_record_write_overlap(struct dsa_record_buffer *out, const struct dsa_record_key *key,
                                                     const struct dsa_doc_overlap *overlap, int count,
                                                     struct dsa_error *err);

/* Bytes of the record that begins at head (8 bytes: kind and length); 0 when no record can begin so. */
size_t dsa_record_bytes(const uint8_t head[8]);
/* True if record[0 .. bytes) is one whole record with a right check. */
bool dsa_record_intact(const uint8_t *record, size_t bytes);
/* The readers take an intact record. key borrows from it; the rest comes from the arena. documents: how many the batch
 * has; a record of another number is refused. DSA_E_INPUT saying what is wrong, without a place (the caller knows it).
 */
DSA_CHECKED enum dsa_status dsa_record_read_key(const uint8_t *record, size_t bytes, struct dsa_record_key *key,
                                                struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_record_read_pattern(const uint8_t *record, size_t bytes, struct dsa_arena *arena,
                                                    int documents, struct dsa_doc_stats **stats, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_record_read_overlap(const uint8_t *record, size_t bytes, struct dsa_arena *arena,
                                                    int documents, struct dsa_doc_overlap **overlap,
                                                    struct dsa_error *err);

struct dsa_journal_header {
	int64_t created; /* Unix time in seconds */
	struct dsa_journal_field *fields;
	int count;
	size_t bytes; /* of the header in the file */
};
DSA_CHECKED enum dsa_status dsa_journal_header_write(struct dsa_record_buffer *out, int64_t created,
                                                     const struct dsa_journal_field *fields, int count,
                                                     struct dsa_error *err);
/* data[0 .. bytes) is the beginning of the file, whole or cut at DSA_HEADER_MOST. path names it in messages. */
DSA_CHECKED enum dsa_status dsa_journal_header_read(struct dsa_journal_header *header, const uint8_t *data,
                                                    size_t bytes, const char *path, struct dsa_arena *arena,
                                                    struct dsa_error *err);

#endif
