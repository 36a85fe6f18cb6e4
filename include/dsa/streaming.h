/* streaming.h: what a calibration would cost on a machine that is not there: where the layers would lie, what would
 * move, how long it would take.
 *
 * Pure functions of the configuration, the checkpoint's sizes, a machine and the rates of its layers. Memory is dealt
 * out as a run does it: passes of a batch (plan.h), layers in the fastest place that is left (residency.h), candidates
 * that advance together, states in what --host-memory leaves. A layer is visited once for each batch of the reference,
 * whose overlap is measured, and once for each wave of candidates, of one batch or of as many as fit into it; it comes
 * in under the arithmetic of others, so the slowest of arithmetic, transfer and disk decides. Each GPU is a rank of its
 * own, with its own link and its own copy of the layers, and documents are dealt out over them; the disk is the
 * machine's.
 *
 * The search is exact greedy to the last layer that can be flipped, every order of flips as likely (expectation.h), but
 * for its visits: those are of the order that costs most, deepest first. Opening the model, overlap, noise floor,
 * baselines, held-out documents and refinement are not counted. */
#ifndef DSA_STREAMING_H
#define DSA_STREAMING_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/model_config.h"
#include "dsa/residency.h"

struct dsa_streaming_machine {
	int gpus;
	uint64_t gpu_memory;  /* bytes of one that a run finds free */
	uint64_t host_memory; /* bytes that each rank may keep: its --host-memory */
	double link_rate;     /* bytes per second, host to one GPU */
	double disk_rate;     /* … disk to host, for all GPUs together */
};

/* Seconds per token and layer, the mean over a document of the context planned for, and per scored token and product
 * with the vocabulary. What the model has no layers of may be NaN. */
struct dsa_streaming_rates {
	double dense_full, dense_shared, moe_full, moe_shared, head;
};
/* As measured on one H100 (bench.h). */
void dsa_streaming_measured(struct dsa_streaming_rates *rates, const struct dsa_model_config *config, int context);

enum dsa_streaming_bound { DSA_STREAMING_COMPUTE, DSA_STREAMING_LINK, DSA_STREAMING_READS };

struct dsa_streaming_cost {
	double token_layers; /* of positions ≥ K but in the reference's pass */
	double flops;
	double link_bytes; /* to and from all GPUs: weights, and states that lie on the host */
	double disk_bytes;
	double locked_bytes; /* of the host, on all of them, taken and page-locked for states kept there */
	double compute_seconds, link_seconds, disk_seconds, lock_seconds;
	double seconds; /* the slowest of the first three, and the locking: the device waits for that */
	enum dsa_streaming_bound bound;
};

struct dsa_streaming_plan {
	bool fits; /* passes and streaming the layers; else nothing below holds */
	struct dsa_residency residency;
	enum dsa_place slowest;       /* that a layer lies in */
	double pinned;                /* share of the bytes that cross the bus which come from host memory */
	double base_kept, flips_kept; /* share of the layers in front of which states of base and candidates are kept */
	int documents;                /* of the corpus, each of `context` tokens */
	int candidates;               /* layers that can be flipped: F in the native pattern, not layer 0 */
	int wave;                     /* candidates that advance together */
	int visit;                    /* documents of a batch, which a layer works on while it is on the device */
	struct dsa_streaming_cost base, first, whole; /* the reference; step 1; the reference and all steps */
};

/* tokens: of the calibration documents, each `context` long (more than K). batch_tokens: of
 * documents that a pass takes. best: the fastest place allowed. */
void dsa_streaming_plan(struct dsa_streaming_plan *plan, const struct dsa_model_config *config,
                        const struct dsa_sizes *sizes, enum dsa_place best, const struct dsa_streaming_machine *machine,
                        const struct dsa_streaming_rates *rates, int64_t tokens, int context, int64_t batch_tokens);

#endif
