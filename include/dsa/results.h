/* results.h: everything a run found, as plain data: what calibrate fills, results.json stores and reports show.
 *
 * Names follow results.json (design.md). All memory belongs to one arena; strings are borrowed from it. */
#ifndef DSA_RESULTS_H
#define DSA_RESULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/metrics.h"
#include "dsa/overlap.h"
#include "dsa/refine.h"
#include "dsa/search.h"

struct dsa_result_corpus {
	const char *name;
	double weight;
	char digest[65];
	int documents, documents_calibration, documents_heldout, unscored, cut;
	int64_t tokens, scored, scored_calibration, scored_heldout;
	struct dsa_quality calibration, heldout; /* of the emitted pattern; heldout.documents 0 = none */
	double noise_floor;                      /* mean KL on its share of that sample */
};

struct dsa_result_baseline {
	const char *name;    /* "uniform-1/2", or the pattern given */
	const char *pattern; /* (L) */
	struct dsa_quality calibration, heldout;
};

struct dsa_best {
	int shared;
	const char *pattern;
	double kl, heldout_kl;
};

struct dsa_result_work {
	int64_t token_layers, refine_token_layers, head_tokens, token_layers_naive;
	double seconds;
};

/* Comes last in files: the only part, with work.seconds, that may differ between two runs of the same inputs. */
struct dsa_provenance {
	const char *version, *commit, *device, *date; /* date: ISO 8601 UTC of the journal's creation */
	int threads;
	uint64_t host_memory; /* bytes the state pool could take */
	int64_t executed;     /* token-layers really run, repeats of evicted states included */
	uint64_t peak_memory; /* bytes, high-water resident size of this process */
};

/* What bench measured of this model's layers on one document of `context` tokens, as F and as S: seconds per token and
 * layer; NaN where the model has no such layers. */
struct dsa_layer_costs {
	int64_t context;
	double dense_full, dense_shared, moe_full, moe_shared;
};
enum { DSA_LAYER_COSTS = 16 };

struct dsa_results {
	int layers, topk;
	const char *pattern, *reference; /* emitted; what it was measured against (all F, or native) */
	const char *search;              /* "exact", "racing", "naive" */
	double delta, epsilon;           /* racing's; NaN for other searches */
	enum dsa_objective objective;
	struct dsa_budget budget;
	bool default_budget; /* none was given */
	/* Model. */
	const char *model_name, *architecture, *fingerprint;
	const char *tokenizer; /* SHA-256 of tokenizer.json in hexadecimal; NULL: there is none, or it is not known */
	/* Documents. */
	int context;
	enum dsa_index_precision index_precision; /* of everything measured; files say its name */
	int64_t max_tokens;                       /* of each corpus; 0: no limit */
	uint64_t seed;
	double holdout; /* NaN: not known */
	struct dsa_result_corpus *corpora;
	int corpus_count;
	struct dsa_quality quality, heldout; /* of the emitted pattern; heldout.documents 0 = none */
	struct dsa_quality base;             /* of the reference: KL 0, its NLL */
	/* Mean KL on a sample of the calibration documents, its error, how many they were (0: it is not known). */
	double noise_floor, noise_floor_se;
	int noise_documents;
	struct dsa_trace trace;
	struct dsa_refinement refinement; /* the trace's greedy chain is apart from it */
	double refine_work;               /* what it could cost, as a share of the search; NaN: there was none */
	struct dsa_best *best;
	int best_count;
	struct dsa_result_baseline *baselines;
	int baseline_count;
	struct dsa_overlap overlap;
	struct dsa_result_work work;
	struct dsa_provenance provenance;
	struct dsa_layer_costs costs[DSA_LAYER_COSTS]; /* ascending by context; filled by dsa_gain_add_costs() */
	int cost_count;
	const char *costs_device; /* what they were measured on; NULL without */
	/* Model dimensions that the gain table's layer costs follow from (gain.h); 0 = unknown, then there is no table.
	 * experts_per_token: chosen and shared ones together; dense_layers: how many have no experts. */
	int hidden, heads, index_heads, index_dim, latent, rope, q_rank;
	int nope, value, dense_inner, expert_inner, experts, experts_per_token, dense_layers;
};

#endif
