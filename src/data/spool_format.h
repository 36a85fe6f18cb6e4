/* spool_format.h: the bytes of RUN/tokens, shared by its writer and its reader.
 *
 *   head                                         64 bytes
 *   per document: ids (T × i32), target (T × u8), zeros up to a multiple of 8
 *   names: the corpora's names, one after another without NUL, zeros up to a multiple of 8
 *   corpora (struct dsa_spool_corpus_row)
 *   documents (struct dsa_spool_document_row)
 *   foot, whose last 32 bytes are the SHA-256 of all before them
 *
 * All little-endian. Everything variable is found from the foot, so that the file can be written in one pass. Split,
 * order and batches are not stored: they follow from the rows and the settings by dsa_spool_plan(), whose rule belongs
 * to the version. */
#ifndef DSA_SPOOL_FORMAT_H
#define DSA_SPOOL_FORMAT_H

#include <assert.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/spool.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the spool is mapped as it lies on disk, little-endian");

enum { DSA_SPOOL_VERSION = 1, DSA_SPOOL_HELDOUT_LEAST = 5 /* documents a corpus needs to hold any out */ };

#define DSA_SPOOL_MAGIC "DSASPOOL" /* 8 bytes, no NUL */

struct dsa_spool_head {
	char magic[8];
	uint32_t version;
	uint8_t zero[52];
};

struct dsa_spool_corpus_row {
	double weight;
	int64_t cut_documents, cut_tokens;
	int64_t name_bytes;
	uint8_t digest[32];
};

struct dsa_spool_document_row {
	uint64_t offset; /* of the ids; the target mask follows them */
	int32_t tokens, scored, corpus;
	int32_t zero;
	uint8_t hash[32];
};

struct dsa_spool_settings {
	int64_t context, max_tokens, topk, batch_tokens, vocab;
	double holdout;
	uint64_t seed;
};

struct dsa_spool_foot {
	struct dsa_spool_settings settings;
	uint64_t corpora, documents;                             /* counts */
	uint64_t names_offset, corpora_offset, documents_offset; /* of the sections */
	uint8_t sha256[32];
};

_Static_assert(sizeof(struct dsa_spool_head) == 64, "no padding");
_Static_assert(sizeof(struct dsa_spool_corpus_row) == 64, "no padding");
_Static_assert(sizeof(struct dsa_spool_document_row) == 56, "no padding");
_Static_assert(sizeof(struct dsa_spool_foot) == 56 + 40 + 32, "no padding");

/* What follows from the documents and the settings. Arrays live in the caller's arena. */
struct dsa_spool_plan {
	int *order; /* (ordered) documents with a scored token: by corpus, split, hash */
	int ordered;
	struct dsa_batch *batches; /* (batch_count) */
	int batch_count;
};

/* Fills in each document's split and each corpus' counts but for cut, cut_tokens, name, weight and digest. */
DSA_CHECKED enum dsa_status dsa_spool_plan(struct dsa_spool_plan *plan, struct dsa_spool_document *documents, int count,
                                           struct dsa_spool_corpus *corpora, int corpora_count,
                                           const struct dsa_spool_settings *settings, struct dsa_arena *arena,
                                           struct dsa_error *err);

#endif
