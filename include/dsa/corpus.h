/* corpus.h: documents in every form of design.md, one at a time.
 *
 * A corpus is a file, a directory (walk.h: sorted, names that begin with '.' are passed over) or "-" (stdin), each file
 * plain text (one document) or, if its name ends in .jsonl, one JSON object a line: `text`, or `prompt` + `completion`
 * (only the completion is scored), or `input_ids` (+ `loss_mask` of 0/1 or booleans), one of the three in each line,
 * null being as good as absent and other keys ignored. Blank lines are passed over. Any file may be .zst. Stdin and
 * pipes are .zst if they begin with its magic number, and jsonl if their first byte that is not white space is '{'.
 * It is streamed: memory holds one document (one jsonl line or text file of at most DSA_CORPUS_LINE bytes), whatever
 * the corpus weighs. A document is handed out as token ids and a target mask. */
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
 * vocab: ids must be < vocab, else DSA_E_INPUT naming document and position. DSA_E_MISSING when path does not exist. */
DSA_CHECKED enum dsa_status dsa_corpus_open(struct dsa_corpus **out, const char *path,
                                            const struct dsa_tokenizer *tokenizer, int32_t vocab,
                                            struct dsa_error *err);
/* The next document, or DSA_E_MISSING at the end (err untouched). Empty documents are handed out with count 0. A
 * directory without a file is DSA_E_INPUT. After an error the corpus can only be closed. */
DSA_CHECKED enum dsa_status dsa_corpus_next(struct dsa_corpus *corpus, struct dsa_document *document,
                                            struct dsa_error *err);
/* Identity of what was read so far, bytes as stored on disk. Of a file read to its end it is the file's SHA-256, as
 * sha256sum prints it. Of a directory: the SHA-256 of the lines "HEX  RELATIVE-NAME" that sha256sum prints for its
 * files in the order of the walk. */
void dsa_corpus_digest(const struct dsa_corpus *corpus, uint8_t out[32]);
void dsa_corpus_close(struct dsa_corpus *corpus);

#endif
