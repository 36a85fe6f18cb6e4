/* tokenizer_private.h: the parts a tokenizer is made of, shared by the files that implement include/dsa/tokenizer.h.
 *
 * Text flows one way: added tokens found in the raw text → NFC → added tokens found in the normalized text → the
 * pre-tokenizer's stages → byte-pair merging of each word. Every part is immutable after parsing; what changes while
 * encoding is a struct dsa_token_scratch, used by one thread at a time. Offsets are bytes; all text is valid UTF-8
 * (checked once, at the entrance), so nothing below checks again. */
#ifndef DSA_TOKENIZER_PRIVATE_H
#define DSA_TOKENIZER_PRIVATE_H

#include <jansson.h>
#include <pthread.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "dsa/arena.h"
#include "dsa/text.h"
#include "dsa/tokenizer.h"

/* Empty again, memory kept. */
static inline void dsa_text_reset(struct dsa_text *text)
{
	text->bytes = 0;
	text->failed = false;
}

/* ---- Unicode as the reference sees it (unicode.c) ---- */

/* Decodes the character at text, which is valid; returns its length. */
static inline size_t dsa_utf8_decode(const char *text, uint32_t *code)
{
	const unsigned char *t = (const unsigned char *)text;
	if (t[0] < 0x80) {
		*code = t[0];
		return 1;
	}
	if (t[0] < 0xe0) {
		*code = (t[0] & 0x1fu) << 6 | (t[1] & 0x3fu);
		return 2;
	}
	if (t[0] < 0xf0) {
		*code = (t[0] & 0x0fu) << 12 | (t[1] & 0x3fu) << 6 | (t[2] & 0x3fu);
		return 3;
	}
	*code = (t[0] & 0x07u) << 18 | (t[1] & 0x3fu) << 12 | (t[2] & 0x3fu) << 6 | (t[3] & 0x3fu);
	return 4;
}
/* The bytes of text before the first one that is not UTF-8; `bytes` if all is well. */
size_t dsa_utf8_valid(const char *text, size_t bytes);
/* White_Space, which is \s of both engines inside the reference. */
bool dsa_unicode_is_space(uint32_t code);
/* \w of the reference's single_word test: Alphabetic, M, Nd, Pc and the joiners. */
bool dsa_unicode_is_word(uint32_t code);
/* A character of the same UTF-8 length whose general category is, in every Unicode version that a library here may
 * have, the one that `code` has in the reference's; usually code itself. */
uint32_t dsa_unicode_stand_in(uint32_t code);
/* Whether low..high holds a character exactly if it holds its stand-in. */
bool dsa_unicode_range_is_stable(uint32_t low, uint32_t high);
/* Unassigned for the reference's normalizer though it decomposes, composes or reorders in later versions. */
bool dsa_unicode_is_inert(uint32_t code);

/* ---- NFC (nfc.c) ---- */

struct dsa_nfc_scratch {
	struct dsa_text out;
	int32_t *codes, *sorted; /* (room,) the segment being composed; room for its reordering */
	size_t room;
};
/* *result is text itself when that is NFC already, else scratch->out. */
DSA_CHECKED enum dsa_status dsa_nfc_apply(struct dsa_nfc_scratch *scratch, const char *text, size_t bytes,
                                          const char **result, size_t *result_bytes, struct dsa_error *err);
void dsa_nfc_release(struct dsa_nfc_scratch *scratch);

/* ---- Regular expressions (regex.c) ---- */

enum dsa_regex_kind {
	DSA_REGEX,          /* matched against stand-ins */
	DSA_REGEX_UNMASKED, /* matched against the text itself: may name characters that have stand-ins */
	DSA_REGEX_LITERAL,  /* plain text, matched against stand-ins */
};
/* Compiles a regular expression of the reference's dialect (Oniguruma) for PCRE2. What the two engines read differently
 * is rewritten, or refused by name. place names the pattern in errors. */
DSA_CHECKED enum dsa_status dsa_regex_compile(pcre2_code **out, const char *source, size_t bytes,
                                              enum dsa_regex_kind kind, const char *place, struct dsa_error *err);

/* ---- Byte-pair merging (bpe_model.c reads, bpe.c merges) ---- */

struct dsa_merge {
	int32_t left, right; /* ids */
	int32_t rank;        /* the lowest is merged first */
	int32_t merged;      /* id */
};
struct dsa_word {
	const char *bytes; /* the raw bytes that the vocabulary's letters stand for */
	size_t length;
	int32_t id;
};
struct dsa_bpe {
	const json_t *vocab;      /* borrowed, while parsing only */
	int32_t byte_id[256];     /* -1: the vocabulary has no such letter, and the reference drops it */
	int32_t size;             /* largest id + 1 */
	int32_t count;            /* entries of the vocabulary */
	uint32_t *first;          /* (size + 1,) merges whose left is id: [first[id], first[id + 1]) */
	struct dsa_merge *merges; /* by left, then right */
	struct dsa_word *words;   /* by bytes; NULL without ignore_merges */
	size_t word_count;
};
enum { DSA_CACHED_BYTES = 24, DSA_CACHED_IDS = 9, DSA_CACHE_ENTRIES = 1 << 15 };
struct dsa_word_cache_entry { /* one cache line */
	uint64_t key[3];      /* the word's bytes, padded with zeros */
	uint8_t length, count;
	int32_t ids[DSA_CACHED_IDS];
};
struct dsa_bpe_scratch {
	struct dsa_word_cache_entry *cache; /* (DSA_CACHE_ENTRIES,) direct-mapped by a hash of the key */
	int32_t *ids;                       /* (room,) the symbols of a long word, linked by previous and next */
	int32_t *previous, *next;
	uint64_t *heap; /* (3 × room,) rank << 32 | position */
	size_t room;
};
DSA_CHECKED enum dsa_status dsa_bpe_parse(struct dsa_bpe *bpe, const json_t *model, const char *place,
                                          struct dsa_arena *arena, struct dsa_error *err);
/* -1 if the vocabulary has no such entry. While parsing only. */
int32_t dsa_bpe_id(const struct dsa_bpe *bpe, const char *entry);
DSA_CHECKED enum dsa_status dsa_bpe_encode(const struct dsa_bpe *bpe, struct dsa_bpe_scratch *scratch, const char *word,
                                           size_t bytes, struct dsa_ids *ids, struct dsa_error *err);
void dsa_bpe_scratch_release(struct dsa_bpe_scratch *scratch);

/* ---- Added tokens (added_tokens.c) ---- */

struct dsa_added_token {
	const char *content; /* as it is searched for: normalized if the token is */
	size_t bytes;
	int32_t id;
	bool single_word, lstrip, rstrip, normalized;
};
struct dsa_added_set {
	struct dsa_added_token *tokens; /* by content */
	size_t count;
	size_t first[257]; /* tokens that begin with byte b: [first[b], first[b + 1]) */
};
struct dsa_added {
	struct dsa_added_set raw, normalized; /* looked for before and after the normalizer */
	int32_t size;                         /* largest id + 1 */
};
DSA_CHECKED enum dsa_status dsa_added_parse(struct dsa_added *added, const json_t *list, const char *place,
                                            const struct dsa_bpe *bpe, bool nfc, struct dsa_arena *arena,
                                            struct dsa_error *err);
/* Cuts text at the set's tokens: appends their ids and calls between() for each stretch of text around them. */
typedef enum dsa_status (*dsa_between_fn)(void *context, const char *text, size_t bytes, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_added_cut(const struct dsa_added_set *set, const char *text, size_t bytes,
                                          dsa_between_fn between, void *context, struct dsa_ids *ids,
                                          struct dsa_error *err);

/* ---- Pre-tokenizers (pretokenizer.c) ---- */

enum dsa_split_behaviour {
	DSA_SPLIT_ISOLATED,
	DSA_SPLIT_REMOVED,
	DSA_SPLIT_MERGED_WITH_PREVIOUS,
	DSA_SPLIT_MERGED_WITH_NEXT,
	DSA_SPLIT_CONTIGUOUS,
};
struct dsa_stage {
	pcre2_code *pattern; /* NULL: put a space in front of a text that has none */
	enum dsa_split_behaviour behaviour;
	bool invert;
	bool unmasked; /* match the text itself, not its stand-ins */
};
enum { DSA_STAGES_MAX = 32 };
struct dsa_pretokenizer {
	struct dsa_stage stages[DSA_STAGES_MAX];
	int count;
	bool byte_level; /* a ByteLevel was seen; it must be the last */
};
DSA_CHECKED enum dsa_status dsa_pretokenizer_parse(struct dsa_pretokenizer *pre, const json_t *value, const char *place,
                                                   struct dsa_error *err);
void dsa_pretokenizer_release(struct dsa_pretokenizer *pre);

struct dsa_token_scratch;
struct dsa_tokenizer;
/* Cuts text[0..bytes) into words and appends their ids. subject: text with every character replaced by its stand-in,
 * so as long as text. */
DSA_CHECKED enum dsa_status dsa_pretokenizer_run(const struct dsa_tokenizer *tokenizer,
                                                 struct dsa_token_scratch *scratch, const char *text,
                                                 const char *subject, size_t bytes, struct dsa_ids *ids,
                                                 struct dsa_error *err);

/* ---- The whole (tokenizer.c encodes, tokenizer_json.c reads) ---- */

struct dsa_token_scratch {
	struct dsa_token_scratch *next; /* in the pool */
	pcre2_match_data *match;
	pcre2_match_context *match_context;
	pcre2_jit_stack *jit_stack;
	struct dsa_bpe_scratch bpe;
	struct dsa_nfc_scratch nfc;
	struct dsa_text subject;                /* stand-ins */
	struct dsa_text spaced, spaced_subject; /* a text with a space put in front */
};
struct dsa_token_pool {
	pthread_mutex_t lock;
	struct dsa_token_scratch *idle;
};
struct dsa_tokenizer {
	struct dsa_arena arena;
	bool nfc;
	struct dsa_added added;
	struct dsa_pretokenizer pre;
	struct dsa_bpe bpe;
	int32_t *before, *after; /* the template's ids on both sides of the text */
	size_t before_count, after_count;
	int32_t template_size; /* largest id in the template + 1 */
	struct dsa_token_pool *pool;
};
DSA_CHECKED enum dsa_status dsa_tokenizer_read(struct dsa_tokenizer *tokenizer, const json_t *root, const char *place,
                                               struct dsa_error *err);

#endif
