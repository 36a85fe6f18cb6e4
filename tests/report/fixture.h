/* fixture.h: a whole struct dsa_results made of arithmetic, the same on every machine: what the tests of every output
 * start from. The figures are plausible, not measured. */
#ifndef DSA_TEST_REPORT_FIXTURE_H
#define DSA_TEST_REPORT_FIXTURE_H

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/file.h"
#include "dsa/pattern.h"
#include "dsa/results.h"
#include "dsa/text.h"

static inline uint64_t fixture_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* In 0 … 1, exact in a double. */
static inline double fixture_unit(uint64_t *state)
{
	return (double)(fixture_random(state) & 0xffff) / 65536.0;
}

static inline void *fixture_alloc(struct dsa_arena *arena, size_t count, size_t size)
{
	void *memory = dsa_arena_alloc(arena, count, size, "a fixture", NULL);
	assert(memory);
	return memory;
}

static inline struct dsa_quality fixture_quality(double kl, int documents, int topk, uint64_t *state)
{
	struct dsa_quality quality = {
	    .documents = documents,
	    .tokens = (int64_t)documents * 3 * topk,
	    .kl = kl,
	    .kl_se = documents > 1 ? kl * (0.05 + 0.1 * fixture_unit(state)) : (double)NAN,
	    .kl_p50 = kl * 0.25,
	    .kl_p90 = kl * 2.5,
	    .kl_p99 = kl * 9 * (1 + fixture_unit(state)),
	    .kl_max = kl * 64,
	    .nll = 2.125 + kl * 0.3,
	    .nll_base = 2.125,
	    .nll_delta = kl * 0.3,
	    .nll_delta_se = kl * 0.04,
	    .ppl_ratio = 1 + kl * 0.3,
	    .top1 = 1 - kl * 0.7 / (1 + kl),
	    .positions = 2,
	    .kl_ci = {kl * 0.875, kl * 1.1875},
	    .nll_delta_ci = {kl * 0.25, kl * 0.375},
	    .top1_ci = {1 - kl / (1 + kl), 1 - kl * 0.5 / (1 + kl)},
	};
	if (documents < 2)
		quality.kl_ci = quality.nll_delta_ci = quality.top1_ci =
		    (struct dsa_interval){(double)NAN, (double)NAN};
	for (int i = 0; i < quality.positions; i++)
		quality.by_position[i] = (struct dsa_quality_at){
		    .from = topk << i,
		    .to = topk << (i + 1),
		    .tokens = quality.tokens * (i + 1) / 3,
		    .kl = kl * (0.75 + 0.25 * i),
		    .kl_p99 = kl * (8 + i),
		    .nll_delta = kl * 0.25,
		    .top1 = quality.top1,
		};
	return quality;
}

/* What sharing layer l alone costs: three layers matter much more than the rest. */
static inline double fixture_cost(int layer, int layers)
{
	if (layer == layers / 2 + 1)
		return 0.25;
	if (layer % 5 == 3)
		return 0.03125;
	return 0.0005 * (1 + layer % 7);
}

static inline void fixture_trace(struct dsa_results *results, int steps, struct dsa_arena *arena, uint64_t *state)
{
	struct dsa_trace *trace = &results->trace;
	int layers = results->layers;
	char *pattern = fixture_alloc(arena, (size_t)layers + 1, 1);
	double kl = 0;
	memset(pattern, 'F', (size_t)layers);
	trace->steps = fixture_alloc(arena, (size_t)steps, sizeof *trace->steps);
	trace->count = steps;
	for (int s = 0; s < steps; s++) {
		struct dsa_step *step = &trace->steps[s];
		step->step = s + 1;
		step->candidates = fixture_alloc(arena, (size_t)layers, sizeof *step->candidates);
		double best = INFINITY;
		for (int l = 1; l < layers; l++) {
			if (pattern[l] == 'S')
				continue;
			double cost = kl + fixture_cost(l, layers) * (1 + 0.25 * s) + 1e-5 * fixture_unit(state);
			step->candidates[step->candidate_count++] = (struct dsa_candidate){
			    .layer = l,
			    .objective = cost,
			    .kl = cost,
			    .kl_se = cost / 16,
			    .nll = 2.125 + cost * 0.3,
			    .documents = 24,
			    .bound = (double)NAN,
			};
			if (cost < best) {
				best = cost;
				step->flip = l;
			}
		}
		kl = best;
		pattern[step->flip] = 'S';
		step->pattern = dsa_arena_text(arena, pattern, (size_t)layers, NULL);
		step->calibration = fixture_quality(kl, 24, results->topk, state);
		step->heldout = fixture_quality(kl * (0.9 + 0.25 * fixture_unit(state)), 8, results->topk, state);
		if (kl > results->budget.kl)
			step->broken = DSA_BOUND_KL;
		else if (step->heldout.kl > results->budget.kl)
			step->broken = DSA_BOUND_HELDOUT;
		else
			trace->emitted = s;
	}
	trace->stopped_by = trace->steps[trace->emitted + 1].broken;
	trace->base_calibration = fixture_quality(0, 24, results->topk, state);
	trace->base_heldout = fixture_quality(0, 8, results->topk, state);
}

static inline void fixture_overlap(struct dsa_results *results, struct dsa_arena *arena, uint64_t *state)
{
	struct dsa_overlap *overlap = &results->overlap;
	size_t layers = (size_t)results->layers;
	enum dsa_status status =
	    dsa_overlap_init(overlap, results->corpus_count, results->layers, results->topk, arena, NULL);
	assert(!status);
	(void)status;
	for (int c = 0; c < results->corpus_count; c++) {
		struct dsa_doc_overlap document = {.layers = results->layers};
		for (int p = 0; p < 2; p++)
			document.counts[p] = fixture_alloc(arena, layers * layers, sizeof(int64_t));
		for (int d = 0; d < 3; d++) {
			for (int p = 0; p < 2; p++) {
				document.queries[p] = 1000 + 7 * d + p;
				int64_t most = document.queries[p] * results->topk;
				for (size_t i = 0; i < layers; i++)
					for (size_t j = i; j < layers; j++)
						document.counts[p][i * layers + j] =
						    i == j ? most
							   : (int64_t)((double)most / (1.5 + 0.35 * (double)(j - i)) *
						                       (0.85 + 0.15 * fixture_unit(state)));
			}
			dsa_overlap_add(overlap, c, &document);
		}
	}
}

/* One exchange at the deepest count: the last S layer for the first F layer behind layer 0. */
static inline void fixture_refine(struct dsa_results *results, struct dsa_arena *arena)
{
	const struct dsa_step *last = &results->trace.steps[results->trace.count - 1];
	const char *greedy = last->pattern;
	char *pattern = fixture_alloc(arena, strlen(greedy) + 1, 1);
	struct dsa_refined *refined = fixture_alloc(arena, 1, sizeof *refined);
	strcpy(pattern, greedy);
	*strrchr(pattern, 'S') = 'F';
	pattern[1 + strcspn(pattern + 1, "F")] = 'S';
	*refined = (struct dsa_refined){.shared = dsa_pattern_shared(greedy),
	                                .pattern = pattern,
	                                .calibration = last->calibration,
	                                .heldout = last->heldout,
	                                .difference = -last->calibration.kl / 4,
	                                .difference_se = last->calibration.kl / 16,
	                                .broken = DSA_BOUND_KL};
	refined->calibration.kl *= 0.75;
	refined->heldout.kl *= 0.75;
	results->refinement = (struct dsa_refinement){.best = refined, .count = 1};
	results->refine_work = 1;
	results->work.refine_token_layers = results->work.token_layers / 2;
	struct dsa_best *best = &results->best[results->best_count - 1];
	best->pattern = pattern;
	best->kl = refined->calibration.kl;
	best->heldout_kl = refined->heldout.kl;
}

/* names: of the model, then of two corpora. */
static inline void fixture_fill(struct dsa_results *results, int layers, const char *const names[3],
                                struct dsa_arena *arena)
{
	uint64_t state = 20260101;
	const int topk = layers > 40 ? 2048 : 64;
	*results = (struct dsa_results){
	    .layers = layers,
	    .topk = topk,
	    .search = "exact",
	    .delta = (double)NAN,
	    .epsilon = (double)NAN,
	    .budget = {.kl = 0.02, .nll = (double)NAN, .kl_p99 = (double)NAN, .top1 = (double)NAN, .max_shared = -1},
	    .model_name = names[0],
	    .architecture = "glm_moe_dsa",
	    .fingerprint = "3fa9c0de00000000000000000000000000000000000000000000000000000001",
	    .tokenizer = "70ce0000000000000000000000000000000000000000000000000000000000ff",
	    .max_tokens = 100000,
	    .context = topk * 16,
	    .index_precision = DSA_INDEX_FP8,
	    .seed = 1,
	    .holdout = 0.25,
	    .corpus_count = 2,
	    .noise_floor = 0.000125,
	    .noise_floor_se = 0.00003125,
	    .noise_documents = 16,
	    .work = {.token_layers = 123456789,
	             .head_tokens = 4567890,
	             .token_layers_naive = 345678901,
	             .seconds = 83.25},
	    .provenance = {.version = "0.1",
	                   .commit = "0123456789ab",
	                   .device = "cpu",
	                   .date = "2026-11-24T06:54:36Z",
	                   .threads = 2,
	                   .host_memory = 1u << 30,
	                   .executed = 130000000,
	                   .peak_memory = 700u << 20},
	    .hidden = 6144,
	    .heads = 64,
	    .index_heads = 32,
	    .index_dim = 128,
	    .latent = 512,
	    .rope = 64,
	    .q_rank = 2048,
	    .nope = 192,
	    .value = 256,
	    .dense_inner = 12288,
	    .expert_inner = 2048,
	    .experts = 256,
	    .experts_per_token = 9,
	    .dense_layers = 3,
	};
	char *reference = fixture_alloc(arena, (size_t)layers + 1, 1);
	memset(reference, 'F', (size_t)layers);
	results->reference = reference;
	results->corpora = fixture_alloc(arena, 2, sizeof *results->corpora);
	fixture_trace(results, layers * 2 / 3, arena, &state);
	const struct dsa_step *emitted = &results->trace.steps[results->trace.emitted];
	results->pattern = emitted->pattern;
	results->quality = emitted->calibration;
	results->heldout = emitted->heldout;
	results->base = results->trace.base_calibration;
	for (int c = 0; c < 2; c++) {
		struct dsa_result_corpus *corpus = &results->corpora[c];
		*corpus = (struct dsa_result_corpus){
		    .name = names[1 + c],
		    .weight = 1 + c,
		    .documents = 17,
		    .documents_calibration = 12,
		    .documents_heldout = 4,
		    .unscored = 1,
		    .cut = c,
		    .tokens = 17 * 10 * topk,
		    .scored = 16 * 3 * topk,
		    .scored_calibration = 12 * 3 * topk,
		    .scored_heldout = 4 * 3 * topk,
		    .calibration = fixture_quality(results->quality.kl * (0.5 + c), 12, topk, &state),
		    .heldout = fixture_quality(results->heldout.kl * (0.5 + c), 4, topk, &state),
		    .noise_floor = 0.0001 * (1 + c),
		};
		memset(corpus->digest, c ? 'b' : 'a', 64);
	}
	results->baselines = fixture_alloc(arena, 2, sizeof *results->baselines);
	results->baseline_count = 2;
	for (int b = 0; b < 2; b++) {
		char *pattern = fixture_alloc(arena, (size_t)layers + 1, 1);
		dsa_pattern_uniform(pattern, layers, b ? 4 : 2, reference, NULL);
		results->baselines[b] = (struct dsa_result_baseline){
		    .name = b ? "uniform-1/4" : "uniform-1/2",
		    .pattern = pattern,
		    .calibration = fixture_quality(0.32 + 0.41 * b, 24, topk, &state),
		    .heldout = fixture_quality(0.34 + 0.45 * b, 8, topk, &state),
		};
	}
	results->best = fixture_alloc(arena, (size_t)results->trace.count, sizeof *results->best);
	results->best_count = results->trace.count;
	for (int i = 0; i < results->trace.count; i++)
		results->best[i] = (struct dsa_best){.shared = i + 1,
		                                     .pattern = results->trace.steps[i].pattern,
		                                     .kl = results->trace.steps[i].calibration.kl,
		                                     .heldout_kl = results->trace.steps[i].heldout.kl};
	fixture_overlap(results, arena, &state);
	fixture_refine(results, arena);
}

static const char *const fixture_names[3] = {"glm-demo", "legal", "rag"};

/* Quotes, brackets, a newline, a control character, right-to-left override, bytes that are not UTF-8, formulas. */
static const char fixture_hostile[] = "=cmd|' /C calc'!A1 \"><script>alert(1)</script>&amp;\n\t\x01 \xe2\x80\xae"
				      "abc \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xff\xc3 -- ]]> {{x}} %s \\ '";

/* Compares text with tests/report/golden/<name>. DSA_UPDATE_GOLDEN=1 rewrites the file instead: look at the difference
 * before committing it. */
static inline bool fixture_matches_golden(const struct dsa_text *text, const char *name)
{
	char path[256];
	struct dsa_mapping map;
	snprintf(path, sizeof path, "tests/report/golden/%s", name);
	if (getenv("DSA_UPDATE_GOLDEN"))
		return !dsa_file_replace(path, text->data, text->bytes, NULL);
	if (dsa_mapping_open(&map, path, NULL))
		return false;
	bool same = map.bytes == text->bytes && !memcmp(map.data, text->data, text->bytes);
	dsa_mapping_close(&map);
	return same;
}

#endif
