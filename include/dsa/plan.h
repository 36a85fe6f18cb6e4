/* plan.h: what a command is going to cost, worked out before anything is measured: token-layers, memory, seconds.
 *
 * Pure functions of the evaluator's shape, the model's dimensions and, for seconds, rates that somebody measured on one
 * batch. The search planned is exact greedy to the last layer: what a budget stops early costs less. Sums that leave
 * int64 stay at INT64_MAX. */
#ifndef DSA_PLAN_H
#define DSA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/evaluator.h"
#include "dsa/forward.h"
#include "dsa/residency.h"
#include "dsa/states.h"
#include "dsa/status.h"

/* Candidates whose final hidden states wait together for one pass over the vocabulary: the reference's logits are
 * computed once for all of them. More gain nothing once the reference's share is small. */
enum { DSA_TOGETHER = 16 };

struct dsa_plan {
	/* The search on calibration batches. */
	int candidates;      /* layers that can be flipped: F in the reference, not locked, not layer 0 */
	int64_t evaluations; /* patterns of a full trace: n(n + 1) / 2 */
	int64_t naive;       /* token-layers of the published search: all layers of all tokens for each, and the base */
	int64_t token_layers; /* what dsa_work_count() will say: the least, when no kept state is ever evicted */
	int64_t most;         /* at most when no state is kept at all, only the keys below K */
	/* The whole command, with all that judges: overlap, noise floor, baselines, held-out documents. */
	int64_t whole;                     /* token-layers of passes over all tokens */
	int64_t suffix_least, suffix_most; /* … of passes over positions ≥ K: with every state kept, with none */
	int64_t head;                      /* scored tokens × products with the vocabulary */
	int64_t records;                   /* documents × patterns in the journal */
	int64_t overlaps;                  /* documents whose overlap is in it */
	double shared; /* share of the candidate layers that are S in the mean question of positions ≥ K */
};

/* calibrate; locked (L) may be NULL. baselines: how many, uniform ones included. wave: candidates that advance
 * together. savings false: --search naive.
 *
 * token_layers = Σ over calibration batches of T·L + suffix · Σ_i (L - a_i)(1 + i), a_0 < a_1 < … the candidate layers.
 * It is exact for every order of flips: a layer's first question costs L - l; after that it is asked once behind each
 * flip b that comes before its own, and starts at max(l, b) (its own last trajectory up to b, or the base's up to l),
 * so each pair of candidates costs L - max(l, b) once, whichever is flipped first.
 *
 * most: a wave runs all L layers for one of its candidates, whose path the others leave at their flips. The order of
 * flips that costs most takes the deepest first; W waves of a step's candidates a_0 < a_1 < … cost Σ (L - a_i) + Σ of
 * the last a of each wave. */
void dsa_plan_calibrate(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape, const bool *locked,
                        int baselines, int wave, bool savings);
/* May the search flip this layer? */
bool dsa_plan_is_candidate(const struct dsa_evaluator_shape *shape, const bool *locked, int layer);
/* evaluate: one pattern on every batch. */
void dsa_plan_evaluate(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape);
/* overlap: the reference on every batch. */
void dsa_plan_overlap(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape);

/* The batch to measure rates on: of those that are at least half as large as the largest, the one whose documents are
 * nearest to the average length; calibration batches only, unless there are none. Ties to the lower number. */
int dsa_plan_probe_batch(const struct dsa_evaluator_shape *shape);

struct dsa_plan_rates {
	double whole;        /* seconds per token-layer of a pass over all tokens */
	double full, shared; /* … over positions ≥ K, of F layers and of S layers */
	double head;         /* seconds per scored token and product */
};
double dsa_plan_seconds(const struct dsa_plan *plan, const struct dsa_plan_rates *rates, bool most);

struct dsa_plan_memory {
	size_t kept;  /* keys below K and reference hidden states of the batches that may keep them */
	size_t pool;  /* what is left of the limit for states, with the buffer of those on disk */
	size_t state; /* one layer's state of every batch */
};
/* How limit is granted: what every pattern needs first, batch by batch, the rest to states. disk: where states may go,
 * which needs a buffer of the largest; NULL: nowhere.
 * mine (batches): only those are planned for; NULL: all. tokens (documents): T of each. allowed, image (batches):
 * whether a batch keeps keys and reference, and the bytes of one of its states, 0 for none. scratch holds documents of
 * the largest batch. */
void dsa_plan_memory(struct dsa_plan_memory *plan, const struct dsa_evaluator_shape *shape, const bool *mine,
                     const int *tokens, const struct dsa_model_config *config, enum dsa_dtype act, size_t limit,
                     const struct dsa_states_disk *disk, struct dsa_pass_document *scratch, bool *allowed,
                     size_t *image);

/* What a run asks of the device. */
struct dsa_plan_demand {
	uint64_t weights;       /* bytes, by the residency of the model (residency.h) */
	size_t overlap;         /* most bytes of selections, while overlap is measured */
	int context;            /* tokens of the longest document */
	int64_t tokens, scored; /* of the largest pass */
	int wave;               /* candidates that advance together */
	int patterns;           /* most patterns of a question; 0: any number */
};
/* Memory of the device that a run takes, all of it at its start. */
struct dsa_plan_device {
	size_t weights, rotary;
	size_t workspace; /* activations of a pass */
	size_t streams;   /* states of the candidates that advance together */
	size_t scratch;   /* the operators' */
	size_t hidden;    /* final hidden states of the reference and the candidates that wait together, targets */
	size_t overlap;   /* selections of every layer, while overlap is measured */
	size_t total;
};
void dsa_plan_device(struct dsa_plan_device *plan, const struct dsa_model_config *config, const struct dsa_backend *be,
                     const struct dsa_plan_demand *demand); /* pure */
/* The most tokens of a pass, all scored, of one candidate at a time, with which the total stays within `limit`; at most
 * demand->tokens; 0: none. */
int64_t dsa_plan_most_tokens(const struct dsa_model_config *config, const struct dsa_backend *be,
                             const struct dsa_plan_demand *demand, size_t limit);
/* demand->overlap where the device has this much to give: an eighth of it, at most DSA_OVERLAP_BYTES. */
size_t dsa_plan_overlap_limit(size_t room);
/* Candidates that advance together through the layers, each in a stream of `stream` bytes: one, and as many more as fit
 * into a quarter of `room`, at most DSA_TOGETHER. room: what a run with one leaves free of the device's memory; where
 * that is the host's, no more of it than may be kept. */
int dsa_plan_wave(size_t stream, size_t room);
/* What layers and the candidates that advance together share. */
struct dsa_plan_room {
	uint64_t device; /* bytes that passes of one candidate leave of the device's memory */
	uint64_t host;   /* --host-memory */
	bool shared;     /* the device's memory is the host's */
	size_t stream;   /* bytes of another candidate */
	int patterns;    /* most of a question, 1 or more */
	int batches;     /* of the corpora: questions about several share the visits where layers come in */
};
/* Where the layers lie, no faster than `best`, and how many candidates advance together; false as
 * dsa_residency_plan. Pure. */
bool dsa_plan_layers(struct dsa_residency *out, int *wave, const struct dsa_sizes *sizes, enum dsa_place best,
                     const struct dsa_plan_room *room);
/* What layers may take of --host-memory: states are worth memory too. */
uint64_t dsa_plan_layers_host(uint64_t host_memory);
/* Candidates that wait together, each with `hidden` bytes of final hidden states: within 256 MiB, at least one, no more
 * than a question has `patterns` (0: any number). */
int dsa_plan_together(size_t hidden, int patterns);
/* Most patterns that one question of a search over so many candidate layers has: all of them, and while it refines, all
 * exchanges of one S layer for one F layer and the pattern itself. */
int dsa_plan_patterns(int candidates, bool refines);
/* Scored rows whose selections of all layers are on the device together, at most `scored`: what is more goes through
 * the reference again. Within `limit` bytes, at least one. */
int64_t dsa_plan_overlap_rows(int layers, int topk, int64_t scored, size_t limit);
#define DSA_OVERLAP_BYTES ((size_t)8 << 30)

#endif
