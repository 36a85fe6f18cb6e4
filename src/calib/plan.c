#include "dsa/plan.h"

#include <assert.h>
#include <math.h>

#include "dsa/noise.h"
#include "dsa/spool.h"

static int64_t times(int64_t a, int64_t b)
{
	int64_t product;
	return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t plus(int64_t a, int64_t b)
{
	int64_t sum;
	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

enum { NOISE = DSA_SPLITS }; /* beside the splits: the documents of the noise floor */

/* Sums over the batches of a split. */
struct total {
	int64_t tokens, scored, suffix, documents, batches;
};

static struct total total_of(const struct dsa_evaluator_shape *shape, int split)
{
	struct total total = {0};
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		if (split == NOISE ? !dsa_noise_takes(shape, b) : batch->split != split)
			continue;
		total.tokens = plus(total.tokens, batch->tokens);
		total.scored = plus(total.scored, batch->scored);
		total.suffix = plus(total.suffix, batch->suffix);
		total.documents += batch->count;
		total.batches++;
	}
	return total;
}

bool dsa_plan_is_candidate(const struct dsa_evaluator_shape *shape, const bool *locked, int layer)
{
	return layer > 0 && shape->reference[layer] == 'F' && !(locked && locked[layer]);
}

/* A pattern that differs from the reference, asked alone on a whole split, behind a kept state in front of `from`. */
static void add_single(struct dsa_plan *plan, const struct total *total, int layers, int from, bool savings)
{
	plan->records = plus(plan->records, total->documents);
	plan->head = plus(plan->head, times(2, total->scored));
	if (savings) {
		plan->suffix_least = plus(plan->suffix_least, times(total->suffix, layers - from));
		plan->suffix_most = plus(plan->suffix_most, times(total->suffix, layers));
	} else {
		/* The reference is run again beside each. */
		plan->whole = plus(plan->whole, times(2, times(total->tokens, layers)));
	}
}

/* The reference itself, whose hidden states are then kept. */
static void add_reference(struct dsa_plan *plan, const struct total *total, int layers)
{
	plan->whole = plus(plan->whole, times(total->tokens, layers));
	plan->head = plus(plan->head, times(2, total->scored));
	plan->records = plus(plan->records, total->documents);
}

void dsa_plan_calibrate(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape, const bool *locked,
                        int baselines, int wave, bool savings)
{
	const struct total calibration = total_of(shape, DSA_CALIBRATION), heldout = total_of(shape, DSA_HELDOUT);
	const int layers = shape->layers;
	int64_t n = 0, units = 0, products = 0, last = 0;
	assert(baselines >= 0 && layers > 0 && wave > 0);
	*plan = (struct dsa_plan){0};
	/* Of a step on the first n candidates, and of all steps that take the deepest first. */
	int64_t step = 0, unkept = 0;
	for (int l = 1; l < layers; l++) {
		if (!dsa_plan_is_candidate(shape, locked, l))
			continue;
		units += (layers - l) * (1 + n++);
		/* One more candidate: the last wave ends with it, and if that was full, another one does. */
		const bool opens = (n - 1) % wave == 0;
		step += layers - l + l - (opens ? 0 : last);
		last = l;
		unkept += step;
	}
	for (int64_t left = n; left > 0; left--)
		products += left + (savings ? (left + DSA_TOGETHER - 1) / DSA_TOGETHER : left);
	plan->candidates = (int)n;
	plan->evaluations = n * (n + 1) / 2;
	const int64_t once = times(calibration.tokens, layers);
	plan->naive = times(once, plan->evaluations + 1);
	plan->token_layers = savings ? plus(once, times(calibration.suffix, units)) : plan->naive;
	plan->most = savings ? plus(once, times(calibration.suffix, unkept)) : plan->naive;
	plan->shared = n ? (double)(n + 2) / (double)(3 * n) : 0;

	add_reference(plan, &calibration, layers);
	add_reference(plan, &heldout, layers);
	if (savings) {
		plan->suffix_least = times(calibration.suffix, units);
		plan->suffix_most = times(calibration.suffix, unkept);
	} else {
		plan->whole = plus(plan->whole, times(2 * plan->evaluations, once));
	}
	plan->head = plus(plan->head, times(products, calibration.scored));
	plan->records = plus(plan->records, times(plan->evaluations, calibration.documents));
	/* The noise floor runs whole: its embeddings differ everywhere. */
	const struct total noise = total_of(shape, NOISE);
	plan->whole = plus(plan->whole, times(noise.tokens, layers));
	plan->head = plus(plan->head, times(2, noise.scored));
	plan->records = plus(plan->records, noise.documents);
	for (int i = 0; i < baselines; i++) {
		add_single(plan, &calibration, layers, 0, savings);
		add_single(plan, &heldout, layers, 0, savings);
	}
	/* On held-out documents a winner starts at its flip, behind what the winner before it left. */
	for (int l = 1; l < layers; l++)
		if (dsa_plan_is_candidate(shape, locked, l))
			add_single(plan, &heldout, layers, l, savings);
	plan->overlaps = calibration.documents;
}

void dsa_plan_evaluate(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape)
{
	*plan = (struct dsa_plan){0};
	for (int split = 0; split < DSA_SPLITS; split++) {
		const struct total total = total_of(shape, split);
		add_reference(plan, &total, shape->layers);
		add_single(plan, &total, shape->layers, 0, true);
	}
	plan->records = 0; /* nothing is kept */
	plan->shared = 0.5;
}

void dsa_plan_overlap(struct dsa_plan *plan, const struct dsa_evaluator_shape *shape)
{
	*plan = (struct dsa_plan){0};
	for (int split = 0; split < DSA_SPLITS; split++) {
		const struct total total = total_of(shape, split);
		plan->whole = plus(plan->whole, times(total.tokens, shape->layers));
		plan->overlaps += total.documents;
	}
}

int dsa_plan_probe_batch(const struct dsa_evaluator_shape *shape)
{
	int64_t tokens = 0, documents = 0, largest = 0;
	bool calibration = total_of(shape, DSA_CALIBRATION).batches > 0;
	int best = 0;
	double least = INFINITY;
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		if (calibration && batch->split != DSA_CALIBRATION)
			continue;
		tokens = plus(tokens, batch->tokens);
		documents += batch->count;
		largest = batch->tokens > largest ? batch->tokens : largest;
	}
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		if ((calibration && batch->split != DSA_CALIBRATION) || batch->tokens < largest - largest / 2)
			continue;
		double away = fabs((double)batch->tokens / batch->count - (double)tokens / (double)documents);
		if (away < least) {
			least = away;
			best = b;
		}
	}
	return best;
}

double dsa_plan_seconds(const struct dsa_plan *plan, const struct dsa_plan_rates *rates, bool most)
{
	double suffix = (double)(most ? plan->suffix_most : plan->suffix_least);
	return (double)plan->whole * rates->whole +
	       suffix * (rates->full + (rates->shared - rates->full) * plan->shared) + (double)plan->head * rates->head;
}

static void documents_of(const struct dsa_evaluator_batch *batch, const int *tokens, struct dsa_pass_document *out)
{
	for (int d = 0; d < batch->count; d++)
		out[d] = (struct dsa_pass_document){.tokens = tokens[batch->documents[d]]};
}

void dsa_plan_memory(struct dsa_plan_memory *plan, const struct dsa_evaluator_shape *shape, const bool *mine,
                     const int *tokens, const struct dsa_model_config *config, enum dsa_dtype act, size_t limit,
                     const struct dsa_states_disk *disk, struct dsa_pass_document *scratch, bool *allowed,
                     size_t *image)
{
	*plan = (struct dsa_plan_memory){.pool = limit};
	/* Where states go to disk, batches beyond the first leave them the buffer that this takes. */
	size_t buffer = 0;
	for (int b = 0; b < shape->batches; b++) {
		documents_of(&shape->batch[b], tokens, scratch);
		image[b] = !mine || mine[b] ? dsa_state_bytes(config, scratch, shape->batch[b].count) : 0;
		buffer = image[b] > buffer ? image[b] : buffer;
	}
	buffer = disk ? dsa_states_buffer(buffer, disk->zstd) : 0;
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		const size_t state = image[b], reserved = plan->kept ? buffer : 0;
		documents_of(batch, tokens, scratch);
		size_t hidden = (size_t)batch->scored * (size_t)config->hidden * dsa_dtype_bytes(act);
		size_t fixed = hidden + dsa_prefix_bytes(config, act, scratch, batch->count);
		image[b] = 0;
		allowed[b] = reserved <= plan->pool && fixed <= plan->pool - reserved && (!mine || mine[b]);
		if (!allowed[b])
			continue;
		plan->kept += fixed;
		plan->pool -= fixed;
		image[b] = state;
		plan->state += image[b];
	}
}

int dsa_plan_wave(size_t stream, size_t room)
{
	size_t more = room / 4 / (stream ? stream : 1);
	return more < DSA_TOGETHER - 1 ? 1 + (int)more : DSA_TOGETHER;
}

uint64_t dsa_plan_layers_host(uint64_t host_memory)
{
	return host_memory / 4 * 3;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static bool place_layers(struct dsa_residency *out, const struct dsa_sizes *sizes, enum dsa_place best,
                         const struct dsa_plan_room *room, uint64_t device)
{
	const uint64_t host = dsa_plan_layers_host(room->host);
	return room->shared ? dsa_residency_plan_shared(out, sizes, best, device, host)
	                    : dsa_residency_plan(out, sizes, best, device, host);
}

bool dsa_plan_layers(struct dsa_residency *out, int *wave, const struct dsa_sizes *sizes, enum dsa_place best,
                     const struct dsa_plan_room *room)
{
	*wave = 1;
	if (!place_layers(out, sizes, best, room, room->device))
		return false;
	uint64_t left = less(room->device, out->device + (room->shared ? out->host : 0));
	if (room->shared)
		left = room->host < left ? room->host : left;
	else if (out->link) /* a candidate more is a visit of every layer less: worth half of what streaming leaves */
		left = 2 * less(room->device, out->least_device);
	*wave = dsa_plan_wave(room->stream, left);
	const int64_t most = out->link ? (int64_t)room->patterns * room->batches : room->patterns;
	*wave = *wave < most ? *wave : (int)most;
	/* A batch shares visits with all its patterns or not at all. */
	*wave -= *wave > room->patterns ? *wave % room->patterns : 0;
	const uint64_t streams = (uint64_t)room->stream * (uint64_t)(*wave - 1);
	return !out->link || place_layers(out, sizes, best, room, less(room->device, streams));
}

int dsa_plan_together(size_t hidden, int patterns)
{
	const size_t fit = ((size_t)256 << 20) / (hidden ? hidden : 1);
	const int together = fit < 1 ? 1 : fit < DSA_TOGETHER ? (int)fit : DSA_TOGETHER;
	return patterns > 0 && patterns < together ? patterns : together;
}

int dsa_plan_patterns(int candidates, bool refines)
{
	const int exchanges = refines ? candidates / 2 * (candidates - candidates / 2) + 1 : 1;
	return exchanges > candidates ? exchanges : candidates;
}

int64_t dsa_plan_overlap_rows(int layers, int topk, int64_t scored, size_t limit)
{
	int64_t fit = (int64_t)(limit / ((size_t)layers * (size_t)topk * sizeof(int32_t)));
	return fit < 1 ? 1 : fit < scored ? fit : scored;
}

size_t dsa_plan_overlap_limit(size_t room)
{
	return room / 8 < DSA_OVERLAP_BYTES ? room / 8 : DSA_OVERLAP_BYTES;
}

void dsa_plan_device(struct dsa_plan_device *plan, const struct dsa_model_config *config, const struct dsa_backend *be,
                     const struct dsa_plan_demand *demand)
{
	const int64_t tokens = demand->tokens, scored = demand->scored;
	struct dsa_backend_limits limits = dsa_forward_limits(config, demand->context, tokens, tokens);
	size_t each = (size_t)scored * (size_t)config->hidden * dsa_dtype_bytes(be->act);
	size_t layers = (size_t)config->layers;
	*plan = (struct dsa_plan_device){
	    .weights = (size_t)demand->weights,
	    .rotary = (size_t)demand->context * (size_t)config->rope * sizeof(float),
	    .workspace = dsa_forward_bytes(config, be, tokens, tokens, 0),
	    .streams = dsa_forward_stream_bytes(config, tokens) * (size_t)demand->wave,
	    .scratch = be->ops->scratch_bytes(be, &limits),
	    .hidden = each * (size_t)(1 + dsa_plan_together(each, demand->patterns)) + (size_t)scored * sizeof(int32_t),
	    .overlap = layers * (size_t)config->topk * sizeof(int32_t) *
	               (size_t)dsa_plan_overlap_rows(config->layers, config->topk, scored, demand->overlap),
	};
	/* What the indexers would have selected without their precision lies beside what they select. */
	if (config->index_precision != DSA_INDEX_ACT)
		plan->overlap += (size_t)(tokens + scored) * (size_t)config->topk * sizeof(int32_t);
	plan->total = plan->weights + plan->rotary + plan->workspace + plan->streams + plan->scratch + plan->hidden +
	              plan->overlap;
}

int64_t dsa_plan_most_tokens(const struct dsa_model_config *config, const struct dsa_backend *be,
                             const struct dsa_plan_demand *demand, size_t limit)
{
	int64_t fits = 0, fails = demand->tokens + 1;
	while (fails - fits > 1) {
		struct dsa_plan_device plan;
		const int64_t middle = fits + (fails - fits) / 2;
		struct dsa_plan_demand tried = *demand;
		tried.tokens = tried.scored = middle;
		tried.context = middle < demand->context ? (int)middle : demand->context;
		tried.wave = 1;
		dsa_plan_device(&plan, config, be, &tried);
		if (plan.total <= limit)
			fits = middle;
		else
			fails = middle;
	}
	return fits;
}
