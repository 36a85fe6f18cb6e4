/* tokenizer.h: a Hugging Face tokenizer.json (byte-level BPE) turned into token ids.
 *
 * Supported: model BPE with byte-level alphabet (vocab, merges as strings or pairs, ignore_merges); normalizers none,
 * NFC, Sequence of them; pre-tokenizers Split (Regex or String, all behaviours the published models use), Sequence,
 * ByteLevel, Digits; post-processors TemplateProcessing, ByteLevel, Sequence; added and special tokens with their
 * flags. Anything else that changes ids is refused by name. The oracle is the `tokenizers` library, version 0.23, down
 * to the Unicode versions inside it.
 * A tokenizer gives the same ids whatever it encoded before and may be shared by threads: scratch memory (a word cache
 * among it) comes from a pool with a lock, one piece per thread that encodes at the same time. */
#ifndef DSA_TOKENIZER_H
#define DSA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/status.h"

struct dsa_tokenizer;

/* A growing list of token ids; init to {0}. */
struct dsa_ids {
	int32_t *ids;
	size_t count, room;
};
void dsa_ids_release(struct dsa_ids *ids);
DSA_CHECKED enum dsa_status dsa_ids_append(struct dsa_ids *ids, int32_t id, struct dsa_error *err);

/* path: tokenizer.json. DSA_E_MISSING when there is none. */
DSA_CHECKED enum dsa_status dsa_tokenizer_open(struct dsa_tokenizer **out, const char *path, struct dsa_error *err);
/* Parses text[0..bytes) instead of a file; place names it in errors. For tests and fuzzing. */
DSA_CHECKED enum dsa_status dsa_tokenizer_parse(struct dsa_tokenizer **out, const char *text, size_t bytes,
                                                const char *place, struct dsa_error *err);
void dsa_tokenizer_close(struct dsa_tokenizer *tokenizer);

/* Appends the ids of text[0..bytes) (UTF-8; invalid UTF-8 is DSA_E_INPUT naming the byte offset). with_special: run the
 * post-processor's template (BOS and the like), as encode(text) does; without, as encode(text, add_special_tokens=
 * False). Added tokens in the text are matched either way. After an error the ids are as before. */
DSA_CHECKED enum dsa_status dsa_tokenizer_encode(const struct dsa_tokenizer *tokenizer, const char *text, size_t bytes,
                                                 bool with_special, struct dsa_ids *ids, struct dsa_error *err);
/* Largest id + 1, among the vocabulary, the added tokens and the template. */
int32_t dsa_tokenizer_size(const struct dsa_tokenizer *tokenizer);

#endif
