/* streaming.h: what a calibration would cost if the weights were streamed through the device layer by layer.
 *
 * An estimate on paper; what a run does is planned by residency.h, in which a visit works on one batch: as many
 * documents as `visit` says are a batch by --batch-tokens. Pure functions of the configuration, the checkpoint's sizes
 * and a machine's rates. Layers would come from pinned host memory as far as they fit there, the rest from disk,
 * double-buffered, so the slowest of arithmetic, transfer and disk decides; a machine's GPUs share what one read of the
 * disk brings, each has its own link to the host. Documents are dealt out over the GPUs.
 *
 * The search is exact greedy to the last layer that can be flipped, its order the one that costs most (deepest first).
 * A wave of neighbouring candidates starts at its first flip and goes to the last layer over positions >= K; each
 * candidate leaves the base's path at its own flip. Refinement, noise floor, baselines and held-out documents are not
 * counted. */
#ifndef DSA_STREAMING_H
#define DSA_STREAMING_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/footprint.h"
#include "dsa/model_config.h"

struct dsa_streaming_machine {
	int gpus;
	double gpu_memory, host_memory; /* bytes, of one GPU and of the host */
	double link_rate, disk_rate;    /* bytes per second: host to one GPU, disk to host */
};

enum dsa_streaming_place { DSA_STREAMING_DEVICE, DSA_STREAMING_HOST, DSA_STREAMING_DISK };
enum dsa_streaming_bound { DSA_STREAMING_COMPUTE, DSA_STREAMING_LINK, DSA_STREAMING_READS };

struct dsa_streaming_cost {
	double flops;
	double link_bytes; /* to all GPUs: weights, and the states that waves start from */
	double disk_bytes;
	double compute_seconds, link_seconds, disk_seconds;
	double seconds; /* Σ over passes of the slowest of the three */
	enum dsa_streaming_bound bound;
};

struct dsa_streaming_plan {
	bool fits; /* two layers, what is outside them and one candidate's document; else nothing below holds */
	enum dsa_streaming_place place;
	double pinned;  /* share of the layers' bytes that stay in host memory; 1 unless place is DSA_STREAMING_DISK */
	int documents;  /* of the corpus, each of `context` tokens */
	int candidates; /* layers that can be flipped: F in the native pattern, not layer 0 */
	int wave;       /* candidates that advance together */
	int visit;      /* documents of each candidate that a layer works on while it is on the device */
	struct dsa_streaming_cost base, first, whole; /* the reference; step 1; the reference and all steps */
};

/* tokens: of the calibration documents, each `context` long (more than K). */
void dsa_streaming_plan(struct dsa_streaming_plan *plan, const struct dsa_model_config *config,
                        const struct dsa_footprint *footprint, const struct dsa_streaming_machine *machine,
                        int64_t tokens, int context);

#endif
