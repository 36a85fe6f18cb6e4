#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/hash.h"
#include "spool_format.h"

struct entry {
	uint8_t key[DSA_HASH_BYTES];
	int document;
};

static int by_key(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = memcmp(x->key, y->key, sizeof x->key);
	return order ? order : (x->document > y->document) - (x->document < y->document);
}

static void sort(struct entry *entries, int count)
{
	if (count)
		qsort(entries, (size_t)count, sizeof *entries, by_key);
}

/* How many of n documents are held out. */
static int held_out(int n, double share)
{
	if (share <= 0 || n < DSA_SPOOL_HELDOUT_LEAST)
		return 0;
	long wanted = lround(share * n);
	if (wanted < 1)
		return 1;
	return wanted > n - 1 ? n - 1 : (int)wanted;
}

static void count_documents(const struct dsa_spool_document *documents, int count, struct dsa_spool_corpus *corpora)
{
	for (int i = 0; i < count; i++) {
		struct dsa_spool_corpus *corpus = &corpora[documents[i].corpus];
		corpus->documents++;
		corpus->tokens += documents[i].tokens;
		corpus->scored += documents[i].scored;
		corpus->unscored += !documents[i].scored;
	}
}

/* Documents of the corpus with a scored token, by content hash; sets their splits. Returns their number. */
static int split_corpus(struct dsa_spool_document *documents, int first, int end, struct dsa_spool_corpus *corpus,
                        double holdout, struct entry *entries)
{
	int n = 0;
	for (int i = first; i < end; i++) {
		documents[i].split = DSA_CALIBRATION;
		if (!documents[i].scored)
			continue;
		memcpy(entries[n].key, documents[i].hash, DSA_HASH_BYTES);
		entries[n++].document = i;
	}
	sort(entries, n);
	int out = held_out(n, holdout);
	for (int i = 0; i < n; i++) {
		struct dsa_spool_document *document = &documents[entries[i].document];
		document->split = i < out ? DSA_HELDOUT : DSA_CALIBRATION;
		corpus->documents_in[document->split]++;
		corpus->scored_in[document->split] += document->scored;
		corpus->duplicates += i && !memcmp(entries[i].key, entries[i - 1].key, DSA_HASH_BYTES);
	}
	return n;
}

/* Another random order for another seed; the split is made before and does not depend on it. */
static void reseed(struct entry *entries, int n, uint64_t seed)
{
	for (int i = 0; i < n; i++) {
		struct dsa_hash hash;
		dsa_hash_begin(&hash);
		dsa_hash_add_u64(&hash, seed);
		dsa_hash_add(&hash, entries[i].key, DSA_HASH_BYTES);
		dsa_hash_end(&hash, entries[i].key);
	}
	sort(entries, n);
}

static void pack(struct dsa_spool_plan *plan, const struct dsa_spool_document *documents, int corpus,
                 enum dsa_split split, const struct entry *entries, int n, int64_t batch_tokens)
{
	struct dsa_batch *batch = NULL;
	for (int i = 0; i < n; i++) {
		const struct dsa_spool_document *document = &documents[entries[i].document];
		if (document->split != split)
			continue;
		if (!batch || batch->tokens + document->tokens > batch_tokens) {
			batch = &plan->batches[plan->batch_count++];
			*batch = (struct dsa_batch){.corpus = corpus, .split = split, .first = plan->ordered};
		}
		plan->order[plan->ordered++] = entries[i].document;
		batch->count++;
		batch->tokens += document->tokens;
		batch->scored += document->scored;
	}
}

enum dsa_status dsa_spool_plan(struct dsa_spool_plan *plan, struct dsa_spool_document *documents, int count,
                               struct dsa_spool_corpus *corpora, int corpora_count,
                               const struct dsa_spool_settings *settings, struct dsa_arena *arena,
                               struct dsa_error *err)
{
	*plan = (struct dsa_spool_plan){0};
	struct entry *entries = dsa_alloc((size_t)count, sizeof *entries, "the order of the documents", err);
	plan->order = dsa_arena_alloc(arena, (size_t)count, sizeof *plan->order, "the order of the documents", err);
	plan->batches = dsa_arena_alloc(arena, (size_t)count, sizeof *plan->batches, "the batches", err);
	if (!entries || !plan->order || !plan->batches) {
		free(entries);
		return DSA_E_MEMORY;
	}
	count_documents(documents, count, corpora);
	for (int corpus = 0, first = 0; corpus < corpora_count; corpus++) {
		int end = first;
		while (end < count && documents[end].corpus == corpus)
			end++;
		int n = split_corpus(documents, first, end, &corpora[corpus], settings->holdout, entries);
		if (settings->seed)
			reseed(entries, n, settings->seed);
		for (int split = 0; split < DSA_SPLITS; split++)
			pack(plan, documents, corpus, (enum dsa_split)split, entries, n, settings->batch_tokens);
		first = end;
	}
	free(entries);
	return DSA_OK;
}
