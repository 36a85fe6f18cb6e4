#include "dsa/streaming.h"

#include <assert.h>
#include <math.h>

#include "dsa/bench.h"
#include "dsa/forward.h"
#include "dsa/plan.h"

/* Of the device's memory, for activations, keys, the operators' scratch and final hidden states. */
static const double reserved = 0.25;
/* The head's products, at the rate that dsa_bench_floor() has for products. */
static const double product_rate = 750e12;
enum { BF16_BYTES = 2 };

struct pricing {
	const struct dsa_model_config *config;
	const struct dsa_footprint *footprint;
	const struct dsa_streaming_machine *machine;
	const struct dsa_streaming_plan *plan;
	double context, scored; /* positions of a document: all; those >= K */
	double stream;          /* bytes of a candidate's state of a document */
};

static double stored_bytes(const struct pricing *p, int layer)
{
	const struct dsa_footprint_part *part =
	    &p->footprint->part[p->config->moe[layer] ? DSA_FOOTPRINT_MOE : DSA_FOOTPRINT_DENSE];
	return (double)part->stored / part->layers;
}

/* Over the positions of one document: all, or those >= K, which is what all take less what the first K would alone. */
static double over_document(double (*per_token)(const struct dsa_model_config *, int, bool, bool),
                            const struct pricing *p, int layer, bool suffix)
{
	const struct dsa_model_config *c = p->config;
	const bool full = c->native[layer] == 'F', moe = c->moe[layer];
	const double all = p->context * per_token(c, (int)p->context, full, moe);
	return suffix ? all - c->topk * per_token(c, c->topk, full, moe) : all;
}

/* One pass over the layers from `start` on: `paths` (L) says how many streams a layer carries. heads: products with the
 * vocabulary per scored position. */
static void add_pass(const struct pricing *p, struct dsa_streaming_cost *cost, int start, const int *paths, int visit,
                     double heads, bool suffix)
{
	const struct dsa_streaming_machine *m = p->machine;
	const struct dsa_streaming_plan *plan = p->plan;
	const int L = p->config->layers;
	const double share = ceil((double)plan->documents / m->gpus), groups = ceil(share / visit);
	double flops = 0, seconds = 0, weights = 0;
	for (int l = start; l < L; l++) {
		flops += paths[l] * over_document(dsa_bench_flops, p, l, suffix);
		seconds += paths[l] * over_document(dsa_bench_floor, p, l, suffix);
		weights += stored_bytes(p, l);
	}
	const double head = heads * p->scored * 2 * (double)p->config->vocab * p->config->hidden;
	flops += head;
	seconds += head / product_rate;
	const double moved = plan->place == DSA_STREAMING_DEVICE ? 0 : weights * groups;
	const double states = start > 0 ? share * p->stream : 0;
	struct dsa_streaming_cost pass = {.flops = plan->documents * flops,
	                                  .link_bytes = m->gpus * moved + plan->documents * (start > 0 ? p->stream : 0),
	                                  .disk_bytes = moved * (1 - plan->pinned),
	                                  .compute_seconds = share * seconds,
	                                  .link_seconds = (moved + states) / m->link_rate};
	pass.disk_seconds = pass.disk_bytes / m->disk_rate;
	cost->flops += pass.flops;
	cost->link_bytes += pass.link_bytes;
	cost->disk_bytes += pass.disk_bytes;
	cost->compute_seconds += pass.compute_seconds;
	cost->link_seconds += pass.link_seconds;
	cost->disk_seconds += pass.disk_seconds;
	cost->seconds += fmax(pass.compute_seconds, fmax(pass.link_seconds, pass.disk_seconds));
	cost->bound = cost->compute_seconds >= cost->link_seconds && cost->compute_seconds >= cost->disk_seconds
	                  ? DSA_STREAMING_COMPUTE
	              : cost->link_seconds >= cost->disk_seconds ? DSA_STREAMING_LINK
	                                                         : DSA_STREAMING_READS;
}

/* A step with the first `count` of the candidate layers a left. */
static void add_step(const struct pricing *p, struct dsa_streaming_cost *cost, const int *a, int count)
{
	int paths[DSA_MAX_LAYERS];
	for (int begin = 0; begin < count; begin += p->plan->wave) {
		const int end = begin + p->plan->wave < count ? begin + p->plan->wave : count;
		for (int l = a[begin]; l < p->config->layers; l++) {
			paths[l] = l < a[end - 1]; /* the base's path, up to the last that leaves it */
			for (int i = begin; i < end; i++)
				paths[l] += l >= a[i];
		}
		add_pass(p, cost, a[begin], paths, p->plan->visit, 1 + end - begin, true);
	}
}

/* Streams of a document that the device holds beside two layers and what is outside the layers. */
static int streams_that_fit(const struct dsa_footprint *footprint, const struct dsa_streaming_machine *m, double stream,
                            bool whole)
{
	double fixed = (double)footprint->device;
	if (!whole) {
		const double dense = (double)footprint->part[DSA_FOOTPRINT_DENSE].largest,
			     moe = (double)footprint->part[DSA_FOOTPRINT_MOE].largest;
		fixed = (double)footprint->part[DSA_FOOTPRINT_OUTSIDE].device + 2 * fmax(dense, moe);
	}
	const double fit = floor(((1 - reserved) * m->gpu_memory - fixed) / stream);
	return fit < 1 ? 0 : fit > 1e6 ? 1000000 : (int)fit;
}

void dsa_streaming_plan(struct dsa_streaming_plan *plan, const struct dsa_model_config *c,
                        const struct dsa_footprint *footprint, const struct dsa_streaming_machine *m, int64_t tokens,
                        int context)
{
	int a[DSA_MAX_LAYERS], once[DSA_MAX_LAYERS];
	assert(context > c->topk && tokens >= context && m->gpus > 0);
	const double stream =
	    (double)dsa_forward_stream_bytes(c, context) + (double)(context - c->topk) * c->hidden * BF16_BYTES;
	const double layers =
	    (double)footprint->part[DSA_FOOTPRINT_DENSE].stored + (double)footprint->part[DSA_FOOTPRINT_MOE].stored;
	const int64_t documents = tokens / context;
	*plan =
	    (struct dsa_streaming_plan){.documents = documents < 1000000000 ? (int)documents : 1000000000, .pinned = 1};
	for (int l = 0; l < c->layers; l++) {
		once[l] = 1;
		if (l && c->native[l] == 'F')
			a[plan->candidates++] = l;
	}
	int streams = streams_that_fit(footprint, m, stream, true);
	if (!streams) {
		streams = streams_that_fit(footprint, m, stream, false);
		plan->place = layers <= m->host_memory ? DSA_STREAMING_HOST : DSA_STREAMING_DISK;
		plan->pinned = fmin(1, m->host_memory / layers);
	}
	plan->fits = streams > 0;
	if (!plan->fits)
		return;
	const int share = (int)ceil((double)plan->documents / m->gpus);
	plan->wave = streams < DSA_TOGETHER ? streams : DSA_TOGETHER;
	plan->wave = plan->wave < plan->candidates ? plan->wave : plan->candidates ? plan->candidates : 1;
	plan->visit = streams / plan->wave < share ? streams / plan->wave : share;
	const struct pricing pricing = {.config = c,
	                                .footprint = footprint,
	                                .machine = m,
	                                .plan = plan,
	                                .scored = context - c->topk,
	                                .context = context,
	                                .stream = stream};
	add_pass(&pricing, &plan->base, 0, once, streams < share ? streams : share, 1, false);
	add_step(&pricing, &plan->first, a, plan->candidates);
	plan->whole = plan->base;
	for (int count = plan->candidates; count > 0; count--)
		add_step(&pricing, &plan->whole, a, count);
}
