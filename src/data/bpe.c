#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

/* Byte-pair merging: a word starts as the ids of its bytes; of all neighbouring pairs that the merge list knows, the
 * one of lowest rank, leftmost among equals, becomes one symbol, until none is left.
 *
 * Short words, nearly all, are scanned again after each merge. Long ones (a megabyte of spaces is one word) use a heap
 * of (rank, position), n log n steps; an entry whose pair has changed since is recognised by its rank and dropped. The
 * result for a word depends on nothing else, so short words are remembered. */

enum { SHORT_WORD = 64, NO_RANK = INT32_MAX };

static const struct dsa_merge *find_merge(const struct dsa_bpe *bpe, int32_t left, int32_t right)
{
	size_t low = bpe->first[left], high = bpe->first[left + 1], end = high;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (bpe->merges[middle].right < right)
			low = middle + 1;
		else
			high = middle;
	}
	return low < end && bpe->merges[low].right == right ? bpe->merges + low : NULL;
}

static int32_t rank_of(const struct dsa_bpe *bpe, int32_t left, int32_t right, int32_t *merged)
{
	const struct dsa_merge *merge = find_merge(bpe, left, right);
	*merged = merge ? merge->merged : -1;
	return merge ? merge->rank : NO_RANK;
}

/* Merges ids[0..count) in place, count <= SHORT_WORD; returns how many are left. */
static size_t merge_short(const struct dsa_bpe *bpe, int32_t *ids, size_t count)
{
	int32_t ranks[SHORT_WORD], merged[SHORT_WORD]; /* of the pair (i, i + 1) */
	for (size_t i = 0; i + 1 < count; i++)
		ranks[i] = rank_of(bpe, ids[i], ids[i + 1], merged + i);
	for (;;) {
		size_t best = 0;
		int32_t lowest = NO_RANK;
		for (size_t i = 0; i + 1 < count; i++)
			if (ranks[i] < lowest) {
				lowest = ranks[i];
				best = i;
			}
		if (lowest == NO_RANK)
			return count;
		ids[best] = merged[best];
		count--;
		size_t behind = count - best - 1;
		memmove(ids + best + 1, ids + best + 2, behind * sizeof *ids);
		if (behind) {
			memmove(ranks + best, ranks + best + 1, behind * sizeof *ranks);
			memmove(merged + best, merged + best + 1, behind * sizeof *merged);
			ranks[best] = rank_of(bpe, ids[best], ids[best + 1], merged + best);
		}
		if (best)
			ranks[best - 1] = rank_of(bpe, ids[best - 1], ids[best], merged + best - 1);
	}
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t value)
{
	size_t i = (*count)++;
	for (; i && heap[(i - 1) / 2] > value; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
	uint64_t top = heap[0], value = heap[--*count];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < *count; i = child) {
		if (child + 1 < *count && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= value)
			break;
		heap[i] = heap[child];
	}
	heap[i] = value;
	return top;
}

static enum dsa_status reserve(struct dsa_bpe_scratch *scratch, size_t count, struct dsa_error *err)
{
	if (count <= scratch->room)
		return DSA_OK;
	free(scratch->ids);
	free(scratch->previous);
	free(scratch->next);
	free(scratch->heap);
	*scratch = (struct dsa_bpe_scratch){.cache = scratch->cache};
	scratch->ids = dsa_alloc(count, sizeof *scratch->ids, "a long word", err);
	scratch->previous = dsa_alloc(count, sizeof *scratch->previous, "a long word", err);
	scratch->next = dsa_alloc(count, sizeof *scratch->next, "a long word", err);
	scratch->heap = dsa_alloc(3 * count, sizeof *scratch->heap, "a long word", err);
	if (!scratch->ids || !scratch->previous || !scratch->next || !scratch->heap)
		return DSA_E_MEMORY;
	scratch->room = count;
	return DSA_OK;
}

/* As merge_short, on scratch->ids; the symbols left are compacted to its front. */
static size_t merge_long(const struct dsa_bpe *bpe, struct dsa_bpe_scratch *scratch, size_t count)
{
	int32_t *ids = scratch->ids, *previous = scratch->previous, *next = scratch->next;
	uint64_t *heap = scratch->heap;
	size_t heaped = 0, left = 0;
	int32_t end = (int32_t)count;
	for (int32_t i = 0; i < end; i++) {
		previous[i] = i - 1;
		next[i] = i + 1;
		const struct dsa_merge *merge = i + 1 < end ? find_merge(bpe, ids[i], ids[i + 1]) : NULL;
		if (merge)
			heap_push(heap, &heaped, (uint64_t)merge->rank << 32 | (uint32_t)i);
	}
	while (heaped) {
		uint64_t top = heap_pop(heap, &heaped);
		int32_t at = (int32_t)(top & UINT32_MAX), gone;
		/* A symbol that was merged into its left neighbour has id -1. */
		if (ids[at] < 0 || (gone = next[at]) == end)
			continue;
		const struct dsa_merge *merge = find_merge(bpe, ids[at], ids[gone]);
		if (!merge || (uint64_t)merge->rank != top >> 32)
			continue;
		ids[at] = merge->merged;
		ids[gone] = -1;
		next[at] = next[gone];
		if (next[at] < end) {
			previous[next[at]] = at;
			merge = find_merge(bpe, ids[at], ids[next[at]]);
			if (merge)
				heap_push(heap, &heaped, (uint64_t)merge->rank << 32 | (uint32_t)at);
		}
		if (previous[at] >= 0) {
			merge = find_merge(bpe, ids[previous[at]], ids[at]);
			if (merge)
				heap_push(heap, &heaped, (uint64_t)merge->rank << 32 | (uint32_t)previous[at]);
		}
	}
	for (int32_t i = 0; i < end; i = next[i])
		ids[left++] = ids[i];
	return left;
}

static const struct dsa_word *find_word(const struct dsa_bpe *bpe, const char *word, size_t bytes)
{
	size_t low = 0, high = bpe->word_count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct dsa_word *at = bpe->words + middle;
		int order = memcmp(at->bytes, word, at->length < bytes ? at->length : bytes);
		if (!order)
			order = (at->length > bytes) - (at->length < bytes);
		if (!order)
			return at;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static enum dsa_status append(struct dsa_ids *ids, const int32_t *more, size_t count, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	for (size_t i = 0; !status && i < count; i++) {
		if (ids->count < ids->room)
			ids->ids[ids->count++] = more[i];
		else
			status = dsa_ids_append(ids, more[i], err);
	}
	return status;
}

/* Without looking into or filling the cache. */
static enum dsa_status encode_word(const struct dsa_bpe *bpe, struct dsa_bpe_scratch *scratch, const char *word,
                                   size_t bytes, struct dsa_ids *ids, struct dsa_error *err)
{
	int32_t few[SHORT_WORD], *symbols = few;
	size_t count = 0;
	const struct dsa_word *whole = bpe->words ? find_word(bpe, word, bytes) : NULL;
	if (whole)
		return append(ids, &whole->id, 1, err);
	if (bytes > SHORT_WORD) {
		if (bytes > INT32_MAX - 1)
			return dsa_fail(err, DSA_E_INPUT, "a word of %zu bytes is too long", bytes);
		enum dsa_status status = reserve(scratch, bytes, err);
		if (status)
			return status;
		symbols = scratch->ids;
	}
	for (size_t i = 0; i < bytes; i++) {
		symbols[count] = bpe->byte_id[(unsigned char)word[i]];
		count += symbols[count] >= 0;
	}
	count = bytes > SHORT_WORD ? merge_long(bpe, scratch, count) : merge_short(bpe, symbols, count);
	return append(ids, symbols, count, err);
}

enum dsa_status dsa_bpe_encode(const struct dsa_bpe *bpe, struct dsa_bpe_scratch *scratch, const char *word,
                               size_t bytes, struct dsa_ids *ids, struct dsa_error *err)
{
	if (bytes > DSA_CACHED_BYTES)
		return encode_word(bpe, scratch, word, bytes, ids, err);
	if (!scratch->cache) {
		scratch->cache = dsa_alloc(DSA_CACHE_ENTRIES, sizeof *scratch->cache, "the word cache", err);
		if (!scratch->cache)
			return DSA_E_MEMORY;
	}
	uint64_t key[3] = {0};
	memcpy(key, word, bytes);
	uint64_t hash = (key[0] ^ bytes) * UINT64_C(0x9e3779b97f4a7c15);
	hash = (hash ^ hash >> 32 ^ key[1]) * UINT64_C(0xc2b2ae3d27d4eb4f);
	hash = (hash ^ hash >> 32 ^ key[2]) * UINT64_C(0x9e3779b97f4a7c15);
	struct dsa_word_cache_entry *entry = scratch->cache + (hash >> 32) % DSA_CACHE_ENTRIES;
	/* An empty entry has length 0; no word is empty. */
	if (entry->length == bytes && !memcmp(entry->key, key, sizeof key))
		return append(ids, entry->ids, entry->count, err);
	size_t before = ids->count;
	enum dsa_status status = encode_word(bpe, scratch, word, bytes, ids, err);
	size_t count = ids->count - before;
	if (!status && count <= DSA_CACHED_IDS) {
		memcpy(entry->key, key, sizeof key);
		entry->length = (uint8_t)bytes;
		entry->count = (uint8_t)count;
		if (count)
			memcpy(entry->ids, ids->ids + before, count * sizeof *entry->ids);
	}
	return status;
}

void dsa_bpe_scratch_release(struct dsa_bpe_scratch *scratch)
{
	free(scratch->cache);
	free(scratch->ids);
	free(scratch->previous);
	free(scratch->next);
	free(scratch->heap);
	*scratch = (struct dsa_bpe_scratch){0};
}
