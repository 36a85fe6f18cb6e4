/* spool.h: the token spool, a run's own copy of its documents, and the batches cut from it.
 *
 * Corpora are read once (stdin can be read only once) into RUN/tokens: per document its ids, its target mask, corpus,
 * content hash. After that the spool is mapped read-only and is all that anybody needs of the corpora. The spool also
 * fixes, once and for good, what every later figure depends on: the held-out split and the batches. So no result
 * depends on how work is scheduled.
 *
 * Held-out: per corpus, documents ordered by SHA-256 of their ids as little-endian int32 (ties by position in the
 * corpus); the first round(P·n) (half away from zero) are held out, at least one on each side; under 5 documents none,
 * with a warning. Only documents with at least one scored token take part in that; the others are counted. Batches: per
 * corpus and split, documents in the same hash order (a random order that no file order can bias), packed until adding
 * one more would pass batch_tokens; a longer document is a batch of its own. */
#ifndef DSA_SPOOL_H
#define DSA_SPOOL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/corpus.h"
#include "dsa/log.h"
#include "dsa/status.h"

enum dsa_split { DSA_CALIBRATION = 0, DSA_HELDOUT = 1, DSA_SPLITS = 2 };

struct dsa_corpus_source {
	const char *name; /* unique; NULL: the file name without its extensions, "stdin" for "-" */
	const char *path;
	double weight; /* > 0, default 1 */
};

struct dsa_spool_options {
	const struct dsa_corpus_source *sources;
	int count;
	int context;        /* longer documents are cut to this many tokens; the cut is counted */
	int64_t max_tokens; /* per corpus, stop reading after the document that reaches it; 0 = no limit */
	int topk;           /* K: position t is scored iff t ≥ K, t + 1 < T and target[t + 1] */
	double holdout;     /* share, 0 … 0.9; 0 = no held-out documents */
	int batch_tokens;
	int batches; /* smaller batches, so that there are about this many to calibrate on; 0: as they come */
	uint64_t
	    seed; /* ≠ 0: batches take documents by SHA-256(seed as 8 little-endian bytes ‖ hash); the split stays */
	const volatile sig_atomic_t *stop; /* set by a signal handler: DSA_E_INTERRUPTED; may be NULL */
};

struct dsa_spool_document {
	const int32_t *ids;    /* (tokens) */
	const uint8_t *target; /* (tokens) */
	int tokens;            /* T after cutting */
	int scored;            /* number of scored positions; 0: the document takes part in nothing */
	int corpus;
	enum dsa_split split;
	uint8_t hash[32];
};

struct dsa_spool_corpus {
	const char *name;
	double weight;
	uint8_t digest[32];                 /* dsa_corpus_digest(): of what was read, a part if max_tokens ended it */
	int documents, unscored, cut;       /* documents holds all; unscored and cut are counted within */
	int duplicates;                     /* scored documents whose ids equal an earlier one's in this corpus; kept */
	int64_t tokens, cut_tokens, scored; /* tokens kept; tokens cut away; scored positions */
	int documents_in[DSA_SPLITS];       /* documents with a scored token, per split */
	int64_t scored_in[DSA_SPLITS];
};

struct dsa_batch {
	int corpus;
	enum dsa_split split;
	int first, count; /* documents order[first] … order[first + count - 1] */
	int64_t tokens;   /* ΣT */
	int64_t scored;
};

struct dsa_spool; /* owns the mapping and the tables below */

/* Reads the corpora and writes path (atomically: aside, synced, renamed; after an error there is no file). tokenizer as
 * in dsa_corpus_open. Memory holds one document and a row per document. DSA_E_INPUT when a corpus has no scored token,
 * with the counts, K and advice; DSA_E_USAGE for options out of range, two corpora of one name, stdin twice. Cut,
 * unscored and repeated documents and a missing held-out side are logged as warnings. */
DSA_CHECKED enum dsa_status dsa_spool_write(const char *path, const struct dsa_spool_options *options,
                                            const struct dsa_tokenizer *tokenizer, int32_t vocab,
                                            const struct dsa_log *log, struct dsa_error *err);
/* What a corpus without a name is called: the file's, without .zst and its last extension; "stdin" for "-". */
DSA_CHECKED char *dsa_spool_default_name(const char *path, struct dsa_arena *arena, struct dsa_error *err);
/* Maps path and checks all of it; a truncated or altered file is DSA_E_INPUT with the advice to start anew. */
DSA_CHECKED enum dsa_status dsa_spool_open(struct dsa_spool **out, const char *path, struct dsa_error *err);
void dsa_spool_close(struct dsa_spool *spool);

int dsa_spool_corpora(const struct dsa_spool *spool);
const struct dsa_spool_corpus *dsa_spool_corpus(const struct dsa_spool *spool, int corpus);
int dsa_spool_documents(const struct dsa_spool *spool);
const struct dsa_spool_document *dsa_spool_document(const struct dsa_spool *spool, int document);
int dsa_spool_batches(const struct dsa_spool *spool);
const struct dsa_batch *dsa_spool_batch(const struct dsa_spool *spool, int batch);
/* The document index at place i of the batch order (struct dsa_batch.first counts in it). */
int dsa_spool_order(const struct dsa_spool *spool, int i);
/* Every id is below it. */
int32_t dsa_spool_vocab(const struct dsa_spool *spool);
/* SHA-256 over everything above: the identity of the corpora and of the settings that shaped them. */
void dsa_spool_digest(const struct dsa_spool *spool, uint8_t out[32]);
/* Position t of the document is scored. */
bool dsa_spool_is_scored(const struct dsa_spool_document *document, int topk, int t);

#endif
