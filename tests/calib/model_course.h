/* model_course.h: a tiny model, a few documents and a greedy-like course of questions about them. */
#ifndef DSA_TESTS_MODEL_COURSE_H
#define DSA_TESTS_MODEL_COURSE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opened_evaluator.h"

/* A tiny random checkpoint with real selections to lose, and a few documents of random ids. */
static const char model_dir[] = "tests/golden/tiny/glm-all-full";
enum { DOCUMENTS = 7, CONTEXT = 40, MOST_PATTERNS = 16, LARGE_POOL = 1 << 28 };

struct fixture {
	char directory[32], corpus[64], tokens[64];
	struct dsa_arena arena;
	struct dsa_model_config config;
};

/* What a sink saw, by pattern and document. */
struct seen {
	struct dsa_sums at[MOST_PATTERNS][DOCUMENTS][DSA_POSITION_BUCKETS];
	int bins[MOST_PATTERNS][DOCUMENTS];
	int patterns;
	int64_t executed;
	int64_t queries, diagonal, first_pair; /* of the overlap */
	int64_t plain[4];                      /* … of each layer */
	int topk;
};

static inline int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct dsa_error err;
	strcpy(f->directory, "/tmp/dsacal-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->corpus, sizeof f->corpus, "%s/ids.jsonl", f->directory);
	snprintf(f->tokens, sizeof f->tokens, "%s/tokens", f->directory);
	dsa_arena_init(&f->arena);
	assert_int_equal(dsa_model_config_load(&f->config, model_dir, &f->arena, &err), DSA_OK);
	FILE *file = fopen(f->corpus, "w");
	assert_non_null(file);
	uint32_t random = 12345;
	for (int d = 0; d < DOCUMENTS; d++) {
		fputs("{\"input_ids\": [", file);
		for (int t = 0; t < CONTEXT - 3 * d; t++) {
			random = random * 1664525u + 1013904223u;
			fprintf(file, "%s%u", t ? ", " : "", (random >> 8) % (uint32_t)f->config.vocab);
		}
		fputs("]}\n", file);
	}
	fclose(file);
	*state = f;
	return 0;
}

static inline int tear_down(void **state)
{
	struct fixture *f = *state;
	unlink(f->corpus);
	unlink(f->tokens);
	rmdir(f->directory);
	dsa_arena_release(&f->arena);
	free(f);
	return 0;
}

/* The fixture's model and corpus; what a test is about is set on top. */
static inline struct opened_options options_of(const struct fixture *f, int batch_tokens, int threads)
{
	return (struct opened_options){.model_dir = model_dir,
	                               .corpus = f->corpus,
	                               .tokens = f->tokens,
	                               .context = CONTEXT,
	                               .topk = f->config.topk,
	                               .vocab = f->config.vocab,
	                               .batch_tokens = batch_tokens,
	                               .threads = threads};
}

static inline enum dsa_status take(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                   int64_t executed, struct dsa_error *err)
{
	struct seen *seen = context;
	(void)err;
	for (int i = 0; i < count; i++) {
		memcpy(seen->at[index][stats[i].document], stats[i].at, sizeof stats[i].at);
		seen->bins[index][stats[i].document] = stats[i].bin_count;
	}
	seen->patterns += count;
	seen->executed += executed;
	return DSA_OK;
}

static inline enum dsa_status take_overlap(void *context, const struct dsa_doc_overlap *overlap, int count,
                                           struct dsa_error *err)
{
	struct seen *seen = context;
	(void)err;
	for (int i = 0; i < count; i++)
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			if (!overlap[i].counts[p])
				continue;
			seen->queries += overlap[i].queries[p];
			seen->diagonal += overlap[i].counts[p][0];
			seen->first_pair += overlap[i].counts[p][1];
			for (int l = 0; l < 4 && overlap[i].plain[p]; l++)
				seen->plain[l] += overlap[i].plain[p][l];
		}
	return DSA_OK;
}

/* A greedy-like course: all single flips of the reference, then of a base with layer 2 flipped, then layer 1 too. */
static const char *const steps[][MOST_PATTERNS] = {{"FFFF", "FSFF", "FFSF", "FFFS"}, {"FSSF", "FFSS"}, {"FSSS"}};
static const char *const bases[] = {"FFFF", "FFSF", "FSSF"};
static const int step_counts[] = {4, 2, 1};
enum { STEPS = 3 };

/* The figures of a course, step by step: a struct seen for each. */
static inline void assert_same_figures(const struct seen *a, const struct seen *b)
{
	for (int s = 0; s < STEPS; s++) {
		assert_int_equal(a[s].patterns, b[s].patterns);
		assert_memory_equal(a[s].at, b[s].at, sizeof a[s].at);
		assert_memory_equal(a[s].bins, b[s].bins, sizeof a[s].bins);
	}
}

static inline int64_t executed_in(const struct seen *seen)
{
	int64_t sum = 0;
	for (int s = 0; s < STEPS; s++)
		sum += seen[s].executed;
	return sum;
}

#endif
