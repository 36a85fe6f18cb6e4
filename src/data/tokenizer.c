#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

#include "dsa/json.h"

enum { FILE_LIMIT = 256 << 20, JIT_STACK_START = 32 << 10, JIT_STACK_LIMIT = 16 << 20 };

/* ---- The pool of scratch memory ---- */

static void scratch_close(struct dsa_token_scratch *scratch)
{
	pcre2_match_data_free(scratch->match);
	pcre2_match_context_free(scratch->match_context);
	pcre2_jit_stack_free(scratch->jit_stack);
	dsa_bpe_scratch_release(&scratch->bpe);
	dsa_nfc_release(&scratch->nfc);
	dsa_text_release(&scratch->subject);
	dsa_text_release(&scratch->spaced);
	dsa_text_release(&scratch->spaced_subject);
	free(scratch);
}

static struct dsa_token_scratch *scratch_take(const struct dsa_tokenizer *tokenizer, struct dsa_error *err)
{
	struct dsa_token_pool *pool = tokenizer->pool;
	pthread_mutex_lock(&pool->lock);
	struct dsa_token_scratch *scratch = pool->idle;
	if (scratch)
		pool->idle = scratch->next;
	pthread_mutex_unlock(&pool->lock);
	if (scratch)
		return scratch;
	scratch = dsa_alloc(1, sizeof *scratch, "tokenizing", err);
	if (!scratch)
		return NULL;
	/* Patterns capture nothing: one pair of offsets. */
	scratch->match = pcre2_match_data_create(1, NULL);
	scratch->match_context = pcre2_match_context_create(NULL);
	scratch->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_LIMIT, NULL);
	if (!scratch->match || !scratch->match_context) {
		scratch_close(scratch);
		(void)dsa_fail(err, DSA_E_MEMORY, "no memory for tokenizing");
		return NULL;
	}
	/* Without a stack (PCRE2 built without JIT) the interpreter needs none. */
	if (scratch->jit_stack)
		pcre2_jit_stack_assign(scratch->match_context, NULL, scratch->jit_stack);
	return scratch;
}

static void scratch_give_back(const struct dsa_tokenizer *tokenizer, struct dsa_token_scratch *scratch)
{
	struct dsa_token_pool *pool = tokenizer->pool;
	pthread_mutex_lock(&pool->lock);
	scratch->next = pool->idle;
	pool->idle = scratch;
	pthread_mutex_unlock(&pool->lock);
}

/* ---- Open and close ---- */

static enum dsa_status open_root(struct dsa_tokenizer **out, const json_t *root, const char *place,
                                 struct dsa_error *err)
{
	struct dsa_tokenizer *tokenizer = dsa_alloc(1, sizeof *tokenizer, "a tokenizer", err);
	if (!tokenizer)
		return DSA_E_MEMORY;
	dsa_arena_init(&tokenizer->arena);
	struct dsa_token_pool *pool = dsa_arena_alloc(&tokenizer->arena, 1, sizeof *pool, "a tokenizer", err);
	enum dsa_status status = pool ? DSA_OK : DSA_E_MEMORY;
	if (pool && pthread_mutex_init(&pool->lock, NULL))
		status = dsa_fail(err, DSA_E_MEMORY, "%s: the system has no more locks", place);
	else
		tokenizer->pool = pool;
	if (!status)
		status = dsa_tokenizer_read(tokenizer, root, place, err);
	if (status)
		dsa_tokenizer_close(tokenizer);
	else
		*out = tokenizer;
	return status;
}

enum dsa_status dsa_tokenizer_parse(struct dsa_tokenizer **out, const char *text, size_t bytes, const char *place,
                                    struct dsa_error *err)
{
	json_t *root;
	*out = NULL;
	if (bytes > FILE_LIMIT)
		return dsa_fail(err, DSA_E_INPUT, "%s: %zu bytes, more than the %d that a tokenizer may have", place,
		                bytes, FILE_LIMIT);
	enum dsa_status status = dsa_json_parse(text, bytes, place, &root, err);
	if (!status)
		status = open_root(out, root, place, err);
	json_decref(root);
	return status;
}

enum dsa_status dsa_tokenizer_open(struct dsa_tokenizer **out, const char *path, struct dsa_error *err)
{
	json_t *root;
	*out = NULL;
	enum dsa_status status = dsa_json_load(path, FILE_LIMIT, &root, err);
	if (!status)
		status = open_root(out, root, path, err);
	json_decref(root);
	return status;
}

void dsa_tokenizer_close(struct dsa_tokenizer *tokenizer)
{
	if (!tokenizer)
		return;
	while (tokenizer->pool && tokenizer->pool->idle) {
		struct dsa_token_scratch *scratch = tokenizer->pool->idle;
		tokenizer->pool->idle = scratch->next;
		scratch_close(scratch);
	}
	if (tokenizer->pool)
		pthread_mutex_destroy(&tokenizer->pool->lock);
	dsa_pretokenizer_release(&tokenizer->pre);
	dsa_arena_release(&tokenizer->arena);
	free(tokenizer);
}

int32_t dsa_tokenizer_size(const struct dsa_tokenizer *tokenizer)
{
	int32_t size = tokenizer->bpe.size;
	size = tokenizer->added.size > size ? tokenizer->added.size : size;
	return tokenizer->template_size > size ? tokenizer->template_size : size;
}

/* ---- Encode ---- */

struct encoding {
	const struct dsa_tokenizer *tokenizer;
	struct dsa_token_scratch *scratch;
	struct dsa_ids *ids;
	const char *normalized, *subject; /* the piece in hand and its stand-ins */
};

/* Text between normalized added tokens. */
static enum dsa_status encode_words(void *context, const char *text, size_t bytes, struct dsa_error *err)
{
	const struct encoding *e = context;
	return dsa_pretokenizer_run(e->tokenizer, e->scratch, text, e->subject + (text - e->normalized), bytes, e->ids,
	                            err);
}

/* *subject: text with stand-ins, in scratch unless they are equal. */
static enum dsa_status mask(struct dsa_token_scratch *scratch, const char *text, size_t bytes, const char **subject,
                            struct dsa_error *err)
{
	bool copied = false;
	*subject = text;
	for (size_t at = 0; at < bytes;) {
		if (!((unsigned char)text[at] & 0x80)) {
			at++;
			continue;
		}
		uint32_t code;
		size_t length = dsa_utf8_decode(text + at, &code);
		uint32_t other = dsa_unicode_stand_in(code);
		if (other != code) {
			if (!copied) {
				dsa_text_reset(&scratch->subject);
				dsa_text_bytes(&scratch->subject, text, bytes);
				enum dsa_status status = dsa_text_check(&scratch->subject, "a document", err);
				if (status)
					return status;
				copied = true;
				*subject = scratch->subject.data;
			}
			unsigned char *to = (unsigned char *)scratch->subject.data + at;
			for (size_t i = length - 1; i; i--, other >>= 6)
				to[i] = (unsigned char)(0x80 | (other & 0x3f));
			to[0] = (unsigned char)((0xff00u >> length & 0xff) | other);
		}
		at += length;
	}
	return DSA_OK;
}

/* Text between added tokens that are looked for before the normalizer. */
static enum dsa_status encode_raw(void *context, const char *text, size_t bytes, struct dsa_error *err)
{
	struct encoding *e = context;
	enum dsa_status status = DSA_OK;
	e->normalized = text;
	if (e->tokenizer->nfc)
		status = dsa_nfc_apply(&e->scratch->nfc, text, bytes, &e->normalized, &bytes, err);
	if (!status)
		status = mask(e->scratch, e->normalized, bytes, &e->subject, err);
	if (!status)
		status =
		    dsa_added_cut(&e->tokenizer->added.normalized, e->normalized, bytes, encode_words, e, e->ids, err);
	return status;
}

static enum dsa_status append(struct dsa_ids *ids, const int32_t *more, size_t count, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	for (size_t i = 0; !status && i < count; i++)
		status = dsa_ids_append(ids, more[i], err);
	return status;
}

enum dsa_status dsa_tokenizer_encode(const struct dsa_tokenizer *tokenizer, const char *text, size_t bytes,
                                     bool with_special, struct dsa_ids *ids, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	size_t count = ids->count, valid = dsa_utf8_valid(text, bytes);
	if (valid < bytes)
		return dsa_fail(err, DSA_E_INPUT, "the text is not UTF-8 at byte %zu (0x%02x); convert it first", valid,
		                (unsigned char)text[valid]);
	struct dsa_token_scratch *scratch = scratch_take(tokenizer, err);
	if (!scratch)
		return DSA_E_MEMORY;
	struct encoding encoding = {.tokenizer = tokenizer, .scratch = scratch, .ids = ids};
	if (with_special)
		status = append(ids, tokenizer->before, tokenizer->before_count, err);
	if (!status)
		status = dsa_added_cut(&tokenizer->added.raw, text, bytes, encode_raw, &encoding, ids, err);
	if (!status && with_special)
		status = append(ids, tokenizer->after, tokenizer->after_count, err);
	if (status)
		ids->count = count;
	scratch_give_back(tokenizer, scratch);
	return status;
}
