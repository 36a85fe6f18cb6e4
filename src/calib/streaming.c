#include "dsa/streaming.h"

#include <assert.h>
#include <math.h>

#include "dsa/bench.h"
#include "dsa/expectation.h"
#include "dsa/forward.h"
#include "dsa/plan.h"
#include "dsa/spool.h"

/* Of the CUDA backend: rows of a tile, and the operators' scratch, 1.5 GiB at the published widths. */
enum { TILE = 8192 };
static const size_t scratch = (size_t)3 << 29;

struct pricing {
	const struct dsa_model_config *config;
	const struct dsa_sizes *sizes;
	const struct dsa_streaming_machine *machine;
	const struct dsa_streaming_rates *rates;
	const struct dsa_streaming_plan *plan;
	int context, together;
	double share;                     /* of the documents, the most that one GPU has */
	double batches;                   /* of these */
	double state;                     /* bytes of a document's */
	double on_host;                   /* share of the kept states that lie there */
	double base_locked, flips_locked; /* bytes of one GPU's: keys, references and the base's states; candidates' */
};

/* Bytes per second of host memory that is taken and page-locked while the device waits: a search that took 30 GB for
 * candidates' states did so at 4.9 GB/s where the system gave out the memory for the first time, at 17 where it had
 * before (scripts/check_plan.py, H100 80GB HBM3, commit a9168c6). Between them: */
static const double lock_rate = 9e9;

void dsa_streaming_measured(struct dsa_streaming_rates *rates, const struct dsa_model_config *config, int context)
{
	*rates = (struct dsa_streaming_rates){.dense_full = dsa_bench_measured(config, context, true, false),
	                                      .dense_shared = dsa_bench_measured(config, context, false, false),
	                                      .moe_full = dsa_bench_measured(config, context, true, true),
	                                      .moe_shared = dsa_bench_measured(config, context, false, true),
	                                      .head = dsa_bench_measured_head(config)};
}

static double layer_seconds(const struct pricing *p, int layer, bool full)
{
	const struct dsa_streaming_rates *r = p->rates;
	if (p->config->moe[layer])
		return full ? r->moe_full : r->moe_shared;
	return full ? r->dense_full : r->dense_shared;
}

static double layer_flops(const struct pricing *p, int layer, bool full)
{
	return dsa_bench_flops(p->config, p->context, full, p->config->moe[layer]);
}

static bool is_candidate(const struct dsa_model_config *c, int layer)
{
	return layer > 0 && c->native[layer] == 'F';
}

/* The mean over the layers that questions run, each as often as it is run: behind `depth` candidates once for each
 * (first step), or for each pair of them (all steps). An indexer scores more keys of positions ≥ K than of the mean
 * one. */
static double mean_of(const struct pricing *p, double (*per_token)(const struct pricing *, int, bool), bool full,
                      bool pairs)
{
	const struct dsa_model_config *c = p->config;
	const double more = 1 + (double)c->topk / p->context;
	double sum = 0, weights = 0, depth = 0;
	for (int l = 1; l < c->layers; l++) {
		depth += is_candidate(c, l);
		const double weight = pairs ? depth * depth : depth, shared = per_token(p, l, false);
		const bool scores = full && c->native[l] == 'F';
		sum += weight * (shared + (scores ? more * (per_token(p, l, true) - shared) : 0));
		weights += weight;
	}
	return weights > 0 ? sum / weights : 0;
}

/* Bytes that cross the bus, or leave the disk, for one visit of the layers from `first` on. */
static double moved_from(const struct pricing *p, int first, enum dsa_place fastest)
{
	double bytes = 0;
	for (int l = first; l < p->config->layers; l++)
		bytes += p->plan->residency.place[l] >= fastest ? (double)p->sizes->layer[l].image : 0;
	return bytes;
}

/* Bytes of a step with the first `count` candidates a_0 < a_1 < … left: a wave goes from its first flip to the end, or
 * from the kept state before it; where fewer are kept, they lie farther from the flip. Batches whose candidates fit
 * into a wave together share it. */
static double bytes_of_step(const struct pricing *p, const int *a, int count, enum dsa_place fastest)
{
	const int wave = p->plan->wave, together = count < wave ? wave / count : 1;
	double bytes = 0;
	for (int begin = 0; begin < count; begin += wave)
		bytes += moved_from(p, (int)(a[begin] * p->plan->base_kept), fastest);
	return bytes * ceil(p->batches / together);
}

static void finish(const struct pricing *p, struct dsa_streaming_cost *cost)
{
	const struct dsa_streaming_machine *m = p->machine;
	cost->link_seconds = cost->link_bytes / m->gpus / m->link_rate;
	cost->disk_seconds = cost->disk_bytes / m->disk_rate;
	cost->lock_seconds = cost->locked_bytes / m->gpus / lock_rate;
	const double slowest = fmax(cost->compute_seconds, fmax(cost->link_seconds, cost->disk_seconds));
	cost->seconds = slowest + cost->lock_seconds;
	cost->bound = slowest == cost->compute_seconds ? DSA_STREAMING_COMPUTE
	              : slowest == cost->link_seconds  ? DSA_STREAMING_LINK
	                                               : DSA_STREAMING_READS;
}

static void price_base(const struct pricing *p, struct dsa_streaming_cost *cost)
{
	const struct dsa_model_config *c = p->config;
	const double documents = p->plan->documents, scored = p->context - c->topk, products = 2;
	double seconds = 0, flops = 0;
	for (int l = 0; l < c->layers; l++) {
		seconds += layer_seconds(p, l, c->native[l] == 'F');
		flops += layer_flops(p, l, c->native[l] == 'F');
	}
	*cost = (struct dsa_streaming_cost){
	    .token_layers = documents * p->context * c->layers,
	    .flops = documents * (p->context * flops + products * scored * 2.0 * c->vocab * c->hidden),
	    .compute_seconds = p->share * (p->context * seconds + products * scored * p->rates->head),
	    .link_bytes = p->machine->gpus * p->batches * (double)p->plan->residency.link,
	    .disk_bytes = p->machine->gpus * p->batches * (double)p->plan->residency.disk,
	    .locked_bytes = p->machine->gpus * p->base_locked};
	finish(p, cost);
}

static void price_steps(const struct pricing *p, struct dsa_streaming_cost *cost, const int *a, int steps)
{
	const struct dsa_model_config *c = p->config;
	const struct dsa_streaming_plan *plan = p->plan;
	const int n = plan->candidates, suffix = p->context - c->topk;
	/* One document stands for all. */
	const int document = 0;
	const struct dsa_evaluator_batch batch = {.split = DSA_CALIBRATION,
	                                          .documents = &document,
	                                          .count = 1,
	                                          .tokens = p->context,
	                                          .scored = suffix,
	                                          .suffix = suffix};
	const struct dsa_evaluator_shape shape = {.layers = c->layers,
	                                          .topk = c->topk,
	                                          .corpora = 1,
	                                          .documents = 1,
	                                          .batches = 1,
	                                          .batch = &batch,
	                                          .reference = c->native};
	const struct dsa_course course = {.steps = steps,
	                                  .raced = 1,
	                                  .base_kept = plan->base_kept,
	                                  .flips_kept = plan->flips_kept,
	                                  .wave = plan->wave};
	struct dsa_expectation e;
	dsa_expect_calibrate(&e, &shape, NULL, &course);
	const bool pairs = steps > 1;
	const double own = e.suffix - e.suffix_shared, shared = e.suffix_shared;
	double products = 0, link = 0, disk = 0;
	for (int left = n; left > n - steps; left--) {
		const int references = (left + p->together - 1) / p->together; /* one for those that wait together */
		products += left + references;
		link += bytes_of_step(p, a, left, DSA_PLACE_HOST);
		disk += bytes_of_step(p, a, left, DSA_PLACE_DISK);
	}
	const double states = e.suffix / suffix * p->state * plan->flips_kept * p->on_host;
	const double flops =
	    own * mean_of(p, layer_flops, true, pairs) + shared * mean_of(p, layer_flops, false, pairs);
	const double seconds =
	    own * mean_of(p, layer_seconds, true, pairs) + shared * mean_of(p, layer_seconds, false, pairs);
	*cost = (struct dsa_streaming_cost){
	    .token_layers = plan->documents * e.suffix,
	    .flops = plan->documents * (flops + products * suffix * 2.0 * c->vocab * c->hidden),
	    .compute_seconds = p->share * (seconds + products * suffix * p->rates->head),
	    .link_bytes = p->machine->gpus * (link + p->share * states),
	    .disk_bytes = p->machine->gpus * disk,
	    .locked_bytes = p->machine->gpus * p->flips_locked}; /* later steps take what earlier ones gave back */
	finish(p, cost);
}

static void add(const struct pricing *p, struct dsa_streaming_cost *to, const struct dsa_streaming_cost *cost)
{
	to->token_layers += cost->token_layers;
	to->flops += cost->flops;
	to->link_bytes += cost->link_bytes;
	to->disk_bytes += cost->disk_bytes;
	to->locked_bytes += cost->locked_bytes;
	to->compute_seconds += cost->compute_seconds;
	finish(p, to);
}

static size_t scratch_bytes(const struct dsa_backend *be, const struct dsa_backend_limits *limits)
{
	(void)be;
	(void)limits;
	return scratch;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* *device: what a run takes of a GPU. */
static bool plan_places(struct dsa_streaming_plan *plan, const struct dsa_model_config *c,
                        const struct dsa_sizes *sizes, enum dsa_place best, const struct dsa_streaming_machine *m,
                        int context, int batches, uint64_t *device)
{
	const struct dsa_ops ops = {.scratch_bytes = scratch_bytes};
	const struct dsa_backend gpu = {.ops = &ops, .act = DSA_BF16, .weight = DSA_BF16, .tile = TILE};
	const struct dsa_plan_demand demand = {.overlap = dsa_plan_overlap_limit(m->gpu_memory),
	                                       .context = context,
	                                       .tokens = (int64_t)plan->visit * context,
	                                       .scored = (int64_t)plan->visit * (context - c->topk),
	                                       .wave = 1,
	                                       .patterns = plan->candidates};
	struct dsa_plan_device passes;
	struct dsa_residency *residency = &plan->residency;
	dsa_plan_device(&passes, c, &gpu, &demand);
	const struct dsa_plan_room room = {.device = less(m->gpu_memory, passes.total),
	                                   .host = m->host_memory,
	                                   .stream = passes.streams,
	                                   .patterns = plan->candidates > 1 ? plan->candidates : 1,
	                                   .batches = batches};
	if (passes.total > m->gpu_memory || !dsa_plan_layers(residency, &plan->wave, sizes, best, &room))
		return false;
	*device = passes.total + residency->device + passes.streams * (uint64_t)(plan->wave - 1);
	return true;
}

/* What --host-memory leaves goes to what every pattern needs, then to the base's path, then to candidates; the first of
 * it lies on the device as far as that has room. */
static void plan_states(struct dsa_streaming_plan *plan, struct pricing *p, uint64_t device)
{
	const struct dsa_model_config *c = p->config;
	const struct dsa_pass_document document = {.tokens = p->context};
	const double fixed = (double)dsa_prefix_bytes(c, DSA_BF16, &document, 1) +
	                     (double)(p->context - c->topk) * c->hidden * (double)dsa_dtype_bytes(DSA_BF16);
	const double n = plan->candidates, base = p->share * p->state * n, flips = base * (n - 1) / 2;
	const double room = (double)less(p->machine->gpu_memory, device);
	double pool = (double)less(p->machine->host_memory, plan->residency.host) - p->share * fixed;
	pool = fmax(pool, 0);
	plan->base_kept = base > pool ? pool / base : 1;
	const double rest = fmax(pool - base * plan->base_kept, 0);
	plan->flips_kept = flips > rest ? rest / flips : 1;
	const double of_flips = flips * plan->flips_kept, kept = p->share * fixed + base * plan->base_kept + of_flips;
	const double locked = fmax(kept - room, 0);
	p->on_host = locked > 0 ? locked / kept : 0;
	p->flips_locked = fmin(of_flips, locked);
	p->base_locked = locked - p->flips_locked;
}

void dsa_streaming_plan(struct dsa_streaming_plan *plan, const struct dsa_model_config *c,
                        const struct dsa_sizes *sizes, enum dsa_place best, const struct dsa_streaming_machine *m,
                        const struct dsa_streaming_rates *rates, int64_t tokens, int context, int64_t batch_tokens)
{
	int a[DSA_MAX_LAYERS];
	uint64_t device;
	assert(context > c->topk && tokens >= context && m->gpus > 0);
	const int64_t documents = tokens / context;
	const int64_t batch = batch_tokens > context ? batch_tokens / context : 1;
	*plan = (struct dsa_streaming_plan){.documents = documents < 1000000000 ? (int)documents : 1000000000};
	plan->visit = batch < plan->documents ? (int)batch : plan->documents;
	for (int l = 0; l < c->layers; l++)
		if (is_candidate(c, l))
			a[plan->candidates++] = l;
	const int share = (plan->documents + m->gpus - 1) / m->gpus, batches = (share + plan->visit - 1) / plan->visit;
	plan->fits = plan_places(plan, c, sizes, best, m, context, batches, &device);
	if (!plan->fits)
		return;
	const struct dsa_residency *residency = &plan->residency;
	for (int place = 0; place < DSA_PLACES; place++)
		plan->slowest = residency->layers[place] ? (enum dsa_place)place : plan->slowest;
	plan->pinned = residency->link ? 1 - (double)residency->disk / (double)residency->link : 1;
	const struct dsa_pass_document document = {.tokens = context};
	const size_t hidden = (size_t)plan->visit * (size_t)(context - c->topk) * (size_t)c->hidden;
	struct pricing p = {.config = c,
	                    .sizes = sizes,
	                    .machine = m,
	                    .rates = rates,
	                    .plan = plan,
	                    .context = context,
	                    .together = dsa_plan_together(hidden * dsa_dtype_bytes(DSA_BF16), plan->candidates),
	                    .share = share,
	                    .batches = batches,
	                    .state = (double)dsa_state_bytes(c, &document, 1)};
	plan_states(plan, &p, device);
	price_base(&p, &plan->base);
	if (plan->candidates)
		price_steps(&p, &plan->first, a, 1);
	plan->whole = plan->base;
	struct dsa_streaming_cost steps = {0};
	if (plan->candidates)
		price_steps(&p, &steps, a, plan->candidates);
	add(&p, &plan->whole, &steps);
}
