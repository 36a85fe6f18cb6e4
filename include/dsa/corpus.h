/* corpus.h: documents in every form of design.md, one at a time.
 *
 * A corpus is a file, a directory walked in sorted order, or "-" (stdin): plain text (one document per file), .jsonl
 * with `text`, or `prompt` + `completion` (only the completion is scored), or `input_ids` (+ `loss_mask`), each also
 * .zst. It is streamed: memory holds one document (one jsonl line of at most DSA_CORPUS_LINE bytes), whatever the
 * corpus weighs. A document is handed out as token ids and a target mask. */
#ifndef DSA_CORPUS_H
#define DSA_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "dsa/status.h"
#include "dsa/tokenizer.h"

enum { DSA_CORPUS_LINE = 256 << 20 };

struct dsa_corpus;

struct dsa_document {
	const int32_t *ids;    /* (count) borrowed until the next call */
	const uint8_t *target; /* (count) 1 where the token counts as a target; position t is scored iff t ≥ K and
	                        * target[t + 1] */
	size_t count;
	const char *place; /* "legal.jsonl line 7": for messages */
};

/* tokenizer may be NULL when every document has input_ids; a text document is then refused with that explanation.
 * vocab: ids must be < vocab, else DSA_E_INPUT. */
DSA_CHECKED enum dsa_status dsa_corpus_open(struct dsa_corpus **out, const char *path,
                                            const struct dsa_tokenizer *tokenizer, int32_t vocab,
                                            struct dsa_error *err);
/* The next document, or DSA_E_MISSING at the end (err untouched). Empty documents are handed out with count 0. */
DSA_CHECKED enum dsa_status dsa_corpus_next(struct dsa_corpus *corpus, struct dsa_document *document,
                                            struct dsa_error *err);
/* SHA-256 of everything read so far (file names' base parts and bytes as stored on disk); valid after the end. */
void dsa_corpus_digest(const struct dsa_corpus *corpus, uint8_t out[32]);
void dsa_corpus_close(struct dsa_corpus *corpus);

#endif
