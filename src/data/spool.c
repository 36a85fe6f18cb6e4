#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/file.h"
#include "dsa/hash.h"
#include "spool_format.h"

struct dsa_spool {
	struct dsa_mapping map;
	struct dsa_arena arena;
	struct dsa_spool_foot foot;
	struct dsa_spool_corpus *corpora;
	struct dsa_spool_document *documents;
	struct dsa_spool_plan plan;
};

static enum dsa_status damaged(const char *path, const char *what, struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_INPUT, "%s: truncated or altered (%s); start the run anew", path, what);
}

/* `count` rows of `size` bytes fit between offset and end. */
static bool fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t end)
{
	return offset % 8 == 0 && offset <= end && count <= (end - offset) / size;
}

static enum dsa_status check_frame(struct dsa_spool *spool, const char *path, struct dsa_error *err)
{
	const struct dsa_mapping *map = &spool->map;
	struct dsa_spool_head head;
	struct dsa_spool_foot *foot = &spool->foot;
	uint8_t sha256[DSA_HASH_BYTES];
	if (map->bytes < sizeof head + sizeof *foot || map->bytes % 8)
		return damaged(path, "too short or of an odd size", err);
	memcpy(&head, map->data, sizeof head);
	if (memcmp(head.magic, DSA_SPOOL_MAGIC, sizeof head.magic) != 0)
		return damaged(path, "not a token spool", err);
	if (head.version != DSA_SPOOL_VERSION)
		return dsa_fail(
		    err, DSA_E_INPUT,
		    "%s: written in format %u by another version of dsacal, expected %d; start the run anew", path,
		    (unsigned)head.version, DSA_SPOOL_VERSION);
	memcpy(foot, map->data + map->bytes - sizeof *foot, sizeof *foot);
	dsa_hash_bytes(map->data, map->bytes - sizeof sha256, sha256);
	if (memcmp(sha256, foot->sha256, sizeof sha256) != 0)
		return damaged(path, "the checksum differs", err);
	uint64_t end = map->bytes - sizeof *foot;
	if (foot->corpora < 1 || foot->corpora > INT_MAX || foot->documents > INT_MAX ||
	    foot->names_offset > foot->corpora_offset ||
	    !fits(foot->corpora_offset, foot->corpora, sizeof(struct dsa_spool_corpus_row), end) ||
	    !fits(foot->documents_offset, foot->documents, sizeof(struct dsa_spool_document_row), end))
		return damaged(path, "its tables do not fit", err);
	const struct dsa_spool_settings *s = &foot->settings;
	if (s->context < 2 || s->context > INT_MAX || s->topk < 1 || s->topk > INT_MAX || s->batch_tokens < 1 ||
	    s->batch_tokens > INT_MAX || s->vocab < 1 || s->vocab > INT32_MAX || !(s->holdout >= 0) || s->holdout > 0.9)
		return damaged(path, "its settings are out of range", err);
	return DSA_OK;
}

static enum dsa_status load_corpora(struct dsa_spool *spool, const char *path, struct dsa_error *err)
{
	const struct dsa_spool_foot *foot = &spool->foot;
	uint64_t at = foot->names_offset;
	spool->corpora =
	    dsa_arena_alloc(&spool->arena, foot->corpora, sizeof *spool->corpora, "the table of corpora", err);
	if (!spool->corpora)
		return DSA_E_MEMORY;
	for (uint64_t i = 0; i < foot->corpora; i++) {
		struct dsa_spool_corpus *corpus = &spool->corpora[i];
		struct dsa_spool_corpus_row row;
		memcpy(&row, spool->map.data + foot->corpora_offset + i * sizeof row, sizeof row);
		if (row.name_bytes < 1 || (uint64_t)row.name_bytes > foot->corpora_offset - at ||
		    row.cut_documents < 0 || row.cut_documents > INT_MAX || row.cut_tokens < 0 || !(row.weight > 0) ||
		    !isfinite(row.weight))
			return damaged(path, "its table of corpora is wrong", err);
		corpus->name =
		    dsa_arena_text(&spool->arena, (const char *)spool->map.data + at, (size_t)row.name_bytes, err);
		if (!corpus->name)
			return DSA_E_MEMORY;
		at += (uint64_t)row.name_bytes;
		corpus->weight = row.weight;
		corpus->cut = (int)row.cut_documents;
		corpus->cut_tokens = row.cut_tokens;
		memcpy(corpus->digest, row.digest, sizeof corpus->digest);
	}
	return DSA_OK;
}

/* Ids, mask and count are what the model's memory safety rests on, so they are looked at one by one. */
static bool is_sound(const struct dsa_spool_document *document, const struct dsa_spool_settings *settings)
{
	int scored = 0;
	int32_t wrong = 0;
	for (int t = 0; t < document->tokens; t++)
		wrong |= (document->ids[t] < 0) | (document->ids[t] >= settings->vocab) | (document->target[t] > 1);
	for (int t = 0; t < document->tokens; t++)
		scored += dsa_spool_is_scored(document, (int)settings->topk, t);
	return !wrong && scored == document->scored;
}

static enum dsa_status load_documents(struct dsa_spool *spool, const char *path, struct dsa_error *err)
{
	const struct dsa_spool_foot *foot = &spool->foot;
	uint64_t next = sizeof(struct dsa_spool_head);
	int corpus = 0;
	spool->documents =
	    dsa_arena_alloc(&spool->arena, foot->documents, sizeof *spool->documents, "the table of documents", err);
	if (!spool->documents)
		return DSA_E_MEMORY;
	for (uint64_t i = 0; i < foot->documents; i++) {
		struct dsa_spool_document *document = &spool->documents[i];
		struct dsa_spool_document_row row;
		memcpy(&row, spool->map.data + foot->documents_offset + i * sizeof row, sizeof row);
		if (row.offset != next || row.tokens < 0 || row.tokens > foot->settings.context ||
		    row.corpus < corpus || (uint64_t)row.corpus >= foot->corpora ||
		    !fits(row.offset, (uint64_t)row.tokens, 5, foot->names_offset))
			return damaged(path, "its table of documents is wrong", err);
		corpus = row.corpus;
		*document = (struct dsa_spool_document){
		    .ids = (const int32_t *)(const void *)(spool->map.data + row.offset),
		    .target = spool->map.data + row.offset + 4 * (size_t)row.tokens,
		    .tokens = row.tokens,
		    .scored = row.scored,
		    .corpus = row.corpus,
		};
		memcpy(document->hash, row.hash, sizeof document->hash);
		if (!is_sound(document, &foot->settings))
			return damaged(path, "a document is wrong", err);
		next = (row.offset + 5 * (uint64_t)row.tokens + 7) / 8 * 8;
	}
	return DSA_OK;
}

enum dsa_status dsa_spool_open(struct dsa_spool **out, const char *path, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_spool *spool = dsa_alloc(1, sizeof *spool, "the token spool", err);
	if (!spool)
		return DSA_E_MEMORY;
	dsa_arena_init(&spool->arena);
	enum dsa_status status = dsa_mapping_open(&spool->map, path, err);
	if (!status)
		status = check_frame(spool, path, err);
	if (!status)
		status = load_corpora(spool, path, err);
	if (!status)
		status = load_documents(spool, path, err);
	if (!status)
		status = dsa_spool_plan(&spool->plan, spool->documents, (int)spool->foot.documents, spool->corpora,
		                        (int)spool->foot.corpora, &spool->foot.settings, &spool->arena, err);
	if (status)
		dsa_spool_close(spool);
	else
		*out = spool;
	return status;
}

void dsa_spool_close(struct dsa_spool *spool)
{
	if (!spool)
		return;
	dsa_mapping_close(&spool->map);
	dsa_arena_release(&spool->arena);
	free(spool);
}

int dsa_spool_corpora(const struct dsa_spool *spool)
{
	return (int)spool->foot.corpora;
}

const struct dsa_spool_corpus *dsa_spool_corpus(const struct dsa_spool *spool, int corpus)
{
	assert(corpus >= 0 && corpus < dsa_spool_corpora(spool));
	return &spool->corpora[corpus];
}

int dsa_spool_documents(const struct dsa_spool *spool)
{
	return (int)spool->foot.documents;
}

const struct dsa_spool_document *dsa_spool_document(const struct dsa_spool *spool, int document)
{
	assert(document >= 0 && document < dsa_spool_documents(spool));
	return &spool->documents[document];
}

int dsa_spool_batches(const struct dsa_spool *spool)
{
	return spool->plan.batch_count;
}

const struct dsa_batch *dsa_spool_batch(const struct dsa_spool *spool, int batch)
{
	assert(batch >= 0 && batch < dsa_spool_batches(spool));
	return &spool->plan.batches[batch];
}

int dsa_spool_order(const struct dsa_spool *spool, int i)
{
	assert(i >= 0 && i < spool->plan.ordered);
	return spool->plan.order[i];
}

int32_t dsa_spool_vocab(const struct dsa_spool *spool)
{
	return (int32_t)spool->foot.settings.vocab;
}

void dsa_spool_digest(const struct dsa_spool *spool, uint8_t out[32])
{
	memcpy(out, spool->foot.sha256, DSA_HASH_BYTES);
}

bool dsa_spool_is_scored(const struct dsa_spool_document *document, int topk, int t)
{
	return t >= topk && t < document->tokens - 1 && document->target[t + 1];
}
