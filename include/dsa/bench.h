/* bench.h: how fast a device runs the operators and the layers of a model, beside what the device could do.
 *
 * Every operator of a layer is called alone, on the rows of the last tile of one document: positions context - tile …
 * context - 1, where the indexer has most keys to score. Select is called on the rows in the middle of the document
 * too, which is the causal average. Calls are queued back to back and timed by the clock between two waits, so figures
 * are those of a busy device. The inputs are what a forward pass left in its workspace: never zeros. Layers are timed
 * over the whole document through dsa_forward_layer().
 *
 * Work is the least that the shapes ask for: each input read once, each output written once, products not counted twice
 * whatever a kernel repeats. An operator is measured against the ceiling, a large product or a copy, that bounds it
 * harder; both ceilings are measured in the same run. Rows of no document and no quality figures are involved. */
#ifndef DSA_BENCH_H
#define DSA_BENCH_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "dsa/model.h"
#include "dsa/status.h"

enum dsa_bench_part {
	DSA_BENCH_EVERY,   /* layers of all kinds */
	DSA_BENCH_INDEXER, /* F layers */
	DSA_BENCH_DENSE,
	DSA_BENCH_MOE,
	DSA_BENCH_OUTSIDE, /* of layers: embeddings, comparison, overlap */
	DSA_BENCH_PARTS
};

/* In the order in which a layer calls them. */
enum dsa_bench_operator {
	DSA_BENCH_INPUT_NORM,
	DSA_BENCH_KV_A,
	DSA_BENCH_KV_A_NORM,
	DSA_BENCH_KEY_ROPE,
	DSA_BENCH_STORE_KEYS,
	DSA_BENCH_Q_A,
	DSA_BENCH_Q_A_NORM,
	DSA_BENCH_Q_B,
	DSA_BENCH_Q_ROPE,
	DSA_BENCH_ABSORB,
	DSA_BENCH_COPY_HEADS,
	DSA_BENCH_ATTENTION,
	DSA_BENCH_VALUES,
	DSA_BENCH_O,
	DSA_BENCH_POST_NORM,
	DSA_BENCH_INDEX_K,
	DSA_BENCH_INDEX_K_NORM,
	DSA_BENCH_INDEX_K_ROPE,
	DSA_BENCH_STORE_INDEX_KEYS,
	DSA_BENCH_INDEX_Q,
	DSA_BENCH_INDEX_Q_ROPE,
	DSA_BENCH_INDEX_WEIGHTS,
	DSA_BENCH_SELECT_LAST,
	DSA_BENCH_SELECT_MIDDLE,
	DSA_BENCH_GATE_UP,
	DSA_BENCH_SILU_MUL,
	DSA_BENCH_DOWN,
	DSA_BENCH_ROUTER,
	DSA_BENCH_ROUTE,
	DSA_BENCH_EXPERTS,
	DSA_BENCH_SHARED_GATE_UP,
	DSA_BENCH_SHARED_SILU_MUL,
	DSA_BENCH_SHARED_DOWN,
	DSA_BENCH_EMBED,
	DSA_BENCH_GATHER,
	DSA_BENCH_COMPARE,
	DSA_BENCH_OVERLAP,
	DSA_BENCH_OPERATORS
};

const char *dsa_bench_part_name(enum dsa_bench_part part);
const char *dsa_bench_operator_name(enum dsa_bench_operator op);
enum dsa_bench_part dsa_bench_operator_part(enum dsa_bench_operator op);

struct dsa_bench_work {
	double flops; /* a multiplication and an addition are two */
	double bytes; /* read and written */
};
/* Of one call on rows [first, first + rows) of a document of `context` tokens, activations and weights of these types.
 * Pure. */
struct dsa_bench_work dsa_bench_operator_work(const struct dsa_model_config *config, enum dsa_bench_operator op,
                                              int64_t rows, int64_t first, enum dsa_dtype act, enum dsa_dtype weight);

/* Seconds that a token of a layer takes at least on one H100 in practice, averaged over a document of `context` tokens:
 * products at 750 TFLOP/s, attention at 640, the indexer's scores at 650, these scores (F32) written and read once at
 * 3.0 TB/s. full: an F layer. Pure. */
double dsa_bench_floor(const struct dsa_model_config *config, int context, bool full, bool moe);

/* The same as measured on one H100 (docs/kernels.md): its bench's rates of products, attention, select and experts,
 * these by how many of a tile's rows an expert has, and a twentieth for the small operators. Within 5% of the bench's
 * layers at 64K tokens. Pure. */
double dsa_bench_measured(const struct dsa_model_config *config, int context, bool full, bool moe);
/* … seconds of a product of one scored token with the vocabulary. */
double dsa_bench_measured_head(const struct dsa_model_config *config);

/* Floating-point operations per token of the same. Pure. */
double dsa_bench_flops(const struct dsa_model_config *config, int context, bool full, bool moe);

/* The layer shapes of a published model ("glm5", "dsv32") in two layers, one dense and one with experts; embeddings and
 * head share their memory. Memory from arena. */
DSA_CHECKED enum dsa_status dsa_bench_shape(struct dsa_model_config *config, const char *name, struct dsa_arena *arena,
                                            struct dsa_error *err);
/* Device memory that a bench takes, ceilings included. Pure. */
uint64_t dsa_bench_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int context);
/* Halves the experts, then the vocabulary, until `limit` bytes suffice; neither changes the work of a token but for the
 * router and the head. False: the least does not fit, config is then the least. Pure. */
bool dsa_bench_fit(struct dsa_model_config *config, const struct dsa_backend *be, int context, uint64_t limit);
/* The longest context, at most `context`, with which `limit` bytes suffice; 0: none. Pure. */
int dsa_bench_most_context(const struct dsa_model_config *config, const struct dsa_backend *be, int context,
                           uint64_t limit);

struct dsa_bench_figure {
	bool measured; /* the model has such an operator */
	int64_t rows, first;
	struct dsa_bench_work work;
	double seconds; /* of a call, median */
};

/* A layer as F or S over a whole document; seconds per token. */
struct dsa_bench_layer {
	int layer;
	bool moe, full;
	double seconds;   /* median */
	double operators; /* the sum of its operators, select as in the middle of the document */
	double floor;     /* NaN on devices for which none is known */
};

enum { DSA_BENCH_LAYERS = 4 };

struct dsa_bench {
	int context;
	int64_t rows; /* of the operators' calls */
	int product;  /* the ceiling's product is this wide in all three dimensions */
	double flops; /* per second: ceiling of products */
	double bytes; /* per second, read and written: ceiling of copies */
	struct dsa_bench_figure figures[DSA_BENCH_OPERATORS];
	struct dsa_bench_layer layers[DSA_BENCH_LAYERS];
	int layer_count;
};

/* The figure's share of the ceiling that bounds it harder; *by_flops: which. */
double dsa_bench_share(const struct dsa_bench *bench, const struct dsa_bench_figure *figure, bool *by_flops);

/* Measures everything with one document of `context` random ids. *stop (NULL: never) ends it between two samples with
 * DSA_E_INTERRUPTED. */
DSA_CHECKED enum dsa_status dsa_bench_run(struct dsa_bench *bench, struct dsa_model *model, int context,
                                          const volatile sig_atomic_t *stop, const struct dsa_log *log,
                                          struct dsa_error *err);

#endif
