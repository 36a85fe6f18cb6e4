/* The bench's run: pass, layers, operators, ceilings, in this order. */
#include "dsa/bench.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "bench_private.h"
#include "dsa/arena.h"
#include "dsa/clock.h"
#include "model_private.h"

#define TRY(call)                                                                                                      \
	do {                                                                                                           \
		enum dsa_status try_status = (call);                                                                   \
		if (try_status)                                                                                        \
			return try_status;                                                                             \
	} while (0)

enum { SAMPLES = 5, LAYER_SAMPLES = 3, MOST_REPEATS = 1000 };
static const double sample_seconds = 0.02; /* at least, so that waits weigh nothing */

static uint64_t padded(uint64_t bytes)
{
	return (bytes + BENCH_ALIGNMENT - 1) / BENCH_ALIGNMENT * BENCH_ALIGNMENT;
}

static int64_t tile_rows(const struct dsa_backend *be, int context)
{
	return context < be->tile ? context : be->tile;
}

uint64_t bench_extra_bytes(const struct dsa_model_config *config, const struct dsa_backend *be, int context)
{
	uint64_t rows = (uint64_t)tile_rows(be, context);
	return 2 * padded(rows * (uint64_t)config->hidden * dsa_dtype_bytes(be->act)) +
	       2 * padded(rows * sizeof(int32_t));
}

/* A device with half-width activations is an accelerator, which small ceilings would not fill. */
static bool is_large(const struct dsa_backend *be)
{
	return be->act == DSA_BF16;
}

static int product_size(const struct dsa_backend *be)
{
	return is_large(be) ? 8192 : 1024;
}

static size_t copy_size(const struct dsa_backend *be)
{
	return (size_t)(is_large(be) ? 512 : 64) << 20;
}

uint64_t bench_ceiling_bytes(const struct dsa_backend *be)
{
	uint64_t n = (uint64_t)product_size(be), matrices = 3 * n * n * dsa_dtype_bytes(be->weight);
	uint64_t ends = 2 * copy_size(be);
	return matrices > ends ? matrices : ends;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, int count)
{
	qsort(values, (size_t)count, sizeof *values, by_size);
	return values[count / 2];
}

/* Something to time: queues one call. */
struct timed {
	enum dsa_status (*call)(const struct timed *timed, struct dsa_error *err);
	struct bench_run *run;
	enum dsa_bench_operator op;
	int64_t first, count;
	struct dsa_tensor out, x, w; /* of the ceilings */
};

/* `repeats` calls back to back, and the wait. */
static enum dsa_status take_sample(const struct timed *timed, int repeats, double *seconds, struct dsa_error *err)
{
	struct bench_run *run = timed->run;
	if (run->stop && *run->stop)
		return dsa_fail(err, DSA_E_INTERRUPTED, "interrupted");
	double start = dsa_clock_seconds();
	for (int i = 0; i < repeats; i++)
		TRY(timed->call(timed, err));
	TRY(run->be->ops->wait(run->be, err));
	*seconds = (dsa_clock_seconds() - start) / repeats;
	return DSA_OK;
}

static enum dsa_status time_call(const struct timed *timed, double *seconds, struct dsa_error *err)
{
	double once, samples[SAMPLES];
	TRY(take_sample(timed, 1, &once, err)); /* the first may load and plan */
	TRY(take_sample(timed, 1, &once, err));
	double wanted = ceil(sample_seconds / fmax(once, 1e-9));
	/* One call with its wait seems slower than it is, hence twice as many. */
	int repeats = (int)fmin(wanted > 1 ? 2 * wanted : 1, MOST_REPEATS);
	for (int i = 0; i < SAMPLES; i++)
		TRY(take_sample(timed, repeats, &samples[i], err));
	*seconds = median(samples, SAMPLES);
	return DSA_OK;
}

static enum dsa_status call_operator(const struct timed *timed, struct dsa_error *err)
{
	return bench_call(timed->run, timed->op, timed->first, timed->count, err);
}

static bool has_part(const struct bench_run *run, enum dsa_bench_operator op)
{
	switch (dsa_bench_operator_part(op)) {
	case DSA_BENCH_DENSE:
		return run->dense;
	case DSA_BENCH_MOE:
		return run->moe;
	default:
		return op != DSA_BENCH_OVERLAP || run->model->config.layers >= BENCH_OVERLAP_LAYERS;
	}
}

static enum dsa_status time_operators(struct bench_run *run, struct dsa_error *err)
{
	struct dsa_bench *bench = run->bench;
	for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
		struct dsa_bench_figure *figure = &bench->figures[op];
		struct timed timed = {.call = call_operator, .run = run, .op = (enum dsa_bench_operator)op};
		if (!has_part(run, timed.op))
			continue;
		timed.count = bench->rows;
		timed.first = bench->context - bench->rows;
		if (op == DSA_BENCH_SELECT_MIDDLE)
			timed.first /= 2;
		enum dsa_status status = time_call(&timed, &figure->seconds, err);
		if (status) {
			dsa_error_prefix(err, "%s", dsa_bench_operator_name(timed.op));
			return status;
		}
		figure->measured = true;
		figure->rows = timed.count;
		figure->first = timed.first;
		figure->work = dsa_bench_operator_work(&run->model->config, timed.op, timed.count, timed.first,
		                                       run->be->act, run->be->weight);
	}
	return DSA_OK;
}

static enum dsa_status time_layer(struct bench_run *run, int layer, bool full, struct dsa_error *err)
{
	struct dsa_bench *bench = run->bench;
	const struct dsa_model_config *config = &run->model->config;
	double samples[LAYER_SAMPLES];
	for (int i = -1; i < LAYER_SAMPLES; i++) {
		if (run->stop && *run->stop)
			return dsa_fail(err, DSA_E_INTERRUPTED, "interrupted");
		double start = dsa_clock_seconds();
		TRY(dsa_forward_layer(run->forward, layer, full ? 'F' : 'S', false, err)); /* waits */
		if (i >= 0)
			samples[i] = dsa_clock_seconds() - start;
	}
	assert(bench->layer_count < DSA_BENCH_LAYERS);
	bench->layers[bench->layer_count++] = (struct dsa_bench_layer){
	    .layer = layer,
	    .moe = config->moe[layer],
	    .full = full,
	    .seconds = median(samples, LAYER_SAMPLES) / bench->context,
	    .floor = is_large(run->be) ? dsa_bench_floor(config, bench->context, full, config->moe[layer]) : NAN};
	return DSA_OK;
}

/* Sums of what was measured, per token. */
static void add_operators(struct dsa_bench *bench)
{
	for (int l = 0; l < bench->layer_count; l++) {
		struct dsa_bench_layer *layer = &bench->layers[l];
		for (int op = 0; op < DSA_BENCH_OPERATORS; op++) {
			const struct dsa_bench_figure *figure = &bench->figures[op];
			enum dsa_bench_part part = dsa_bench_operator_part((enum dsa_bench_operator)op);
			bool has = part == DSA_BENCH_EVERY || (part == DSA_BENCH_INDEXER && layer->full) ||
			           part == (layer->moe ? DSA_BENCH_MOE : DSA_BENCH_DENSE);
			if (has && figure->measured && op != DSA_BENCH_SELECT_LAST)
				layer->operators += figure->seconds / (double)figure->rows;
		}
	}
}

/* A layer with an indexer, one dense and one with experts. Layer 0 has an indexer in every model. */
static enum dsa_status choose_layers(struct bench_run *run, struct dsa_error *err)
{
	const struct dsa_model_config *config = &run->model->config;
	for (int l = 0; l < config->layers; l++) {
		const struct dsa_layer *layer;
		TRY(dsa_model_acquire(run->model, l, &layer, err));
		if (!run->any && layer->index_q.data) {
			run->any = layer;
			run->any_index = l;
		}
		const struct dsa_layer **kind = config->moe[l] ? &run->moe : &run->dense;
		bool better = !*kind || (!(*kind)->index_q.data && layer->index_q.data);
		if (better)
			*(config->moe[l] ? &run->moe_index : &run->dense_index) = l;
		if (better)
			*kind = layer;
		else
			dsa_model_release(run->model, l);
	}
	return run->any ? DSA_OK : dsa_fail(err, DSA_E_INPUT, "no layer of the model has an indexer");
}

static enum dsa_status time_layers(struct bench_run *run, struct dsa_error *err)
{
	/* A selection must be in force before any layer runs as S. */
	TRY(dsa_forward_layer(run->forward, run->any_index, 'F', false, err));
	const struct dsa_layer *const kinds[] = {run->dense, run->moe};
	const int index[] = {run->dense_index, run->moe_index};
	for (int k = 0; k < 2; k++) {
		if (!kinds[k])
			continue;
		if (kinds[k]->index_q.data)
			TRY(time_layer(run, index[k], true, err));
		TRY(time_layer(run, index[k], false, err));
	}
	return DSA_OK;
}

/* Final hidden states of the last rows, and of those in the middle for a candidate. */
static enum dsa_status fill_extra(struct bench_run *run, struct dsa_error *err)
{
	const struct dsa_model_config *config = &run->model->config;
	struct dsa_backend *be = run->be;
	const struct dsa_ops *ops = be->ops;
	int64_t rows = run->bench->rows, last = run->bench->context - rows;
	size_t bytes = (size_t)rows * sizeof(int32_t);
	TRY(ops->alloc(be, bench_extra_bytes(config, be, run->bench->context), "the rows of a bench", &run->memory,
	               err));
	char *at = run->memory;
	uint64_t hidden = padded((uint64_t)rows * (uint64_t)config->hidden * dsa_dtype_bytes(be->act));
	run->base = dsa_tensor_make(at, be->act, rows, config->hidden);
	run->candidate = dsa_tensor_make(at + hidden, be->act, rows, config->hidden);
	run->target = (int32_t *)(void *)(at + 2 * hidden);
	run->order = (int32_t *)(void *)(at + 2 * hidden + padded(bytes));
	run->figures = dsa_alloc((size_t)rows, sizeof *run->figures, "figures of rows", err);
	int32_t *index = dsa_alloc((size_t)rows, sizeof *index, "rows of a bench", err);
	enum dsa_status status = run->figures && index ? DSA_OK : DSA_E_MEMORY;
	if (!status)
		status = ops->upload(be, run->target, run->ids + last, bytes, err);
	for (int half = 0; half < 2 && !status; half++) {
		for (int64_t i = 0; i < rows; i++)
			index[i] = (int32_t)((half ? last / 2 : last) + i);
		status = dsa_forward_hidden(run->forward, index, rows, half ? run->candidate : run->base, err);
	}
	/* Scattered rows for gather: a stride that meets all of them. */
	for (int64_t i = 0; i < rows && !status; i++)
		index[i] = (int32_t)(i * 7919 % run->bench->context);
	if (!status)
		status = ops->upload(be, run->order, index, bytes, err);
	if (!status)
		status = ops->wait(be, err);
	free(index);
	return status;
}

static enum dsa_status call_product(const struct timed *timed, struct dsa_error *err)
{
	struct dsa_backend *be = timed->run->be;
	return be->ops->linear(be, timed->out, timed->x, timed->w, (struct dsa_tensor){0}, false, err);
}

static enum dsa_status call_copy(const struct timed *timed, struct dsa_error *err)
{
	struct dsa_backend *be = timed->run->be;
	size_t bytes = copy_size(be);
	return be->ops->copy(be, (char *)timed->x.data + bytes, timed->x.data, bytes, err);
}

static enum dsa_status time_ceilings(struct bench_run *run, void *memory, const struct random_numbers *numbers,
                                     struct dsa_error *err)
{
	struct dsa_bench *bench = run->bench;
	struct dsa_backend *be = run->be;
	int n = bench->product = product_size(be);
	size_t matrix = (size_t)n * (size_t)n * dsa_dtype_bytes(be->weight), bytes = copy_size(be);
	double seconds;
	/* All of it random, as some devices move zeros faster. */
	int64_t rows = (int64_t)(bench_ceiling_bytes(be) / dsa_dtype_bytes(be->weight) / (uint64_t)n);
	TRY(random_fill(numbers, be, dsa_tensor_make(memory, be->weight, rows, n), 0, 1, err));
	struct timed timed = {.call = call_product,
	                      .run = run,
	                      .x = dsa_tensor_make(memory, be->act, n, n),
	                      .w = dsa_tensor_make((char *)memory + matrix, be->weight, n, n),
	                      .out = dsa_tensor_make((char *)memory + 2 * matrix, be->act, n, n)};
	TRY(time_call(&timed, &seconds, err));
	bench->flops = 2.0 * n * n * n / seconds;
	timed.call = call_copy;
	TRY(time_call(&timed, &seconds, err));
	bench->bytes = 2.0 * (double)bytes / seconds;
	return DSA_OK;
}

static enum dsa_status measure_ceilings(struct bench_run *run, struct dsa_error *err)
{
	struct dsa_backend *be = run->be;
	struct random_numbers numbers;
	void *memory;
	TRY(random_numbers_open(&numbers, 2, err));
	enum dsa_status status = be->ops->alloc(be, bench_ceiling_bytes(be), "the ceilings' matrices", &memory, err);
	if (!status) {
		status = time_ceilings(run, memory, &numbers, err);
		be->ops->free(be, memory);
	}
	random_numbers_close(&numbers);
	return status;
}

static enum dsa_status begin_pass(struct bench_run *run, struct dsa_error *err)
{
	int context = run->bench->context;
	uint64_t state = 1;
	int64_t rows;
	run->ids = dsa_alloc((size_t)context, sizeof *run->ids, "token ids", err);
	if (!run->ids)
		return DSA_E_MEMORY;
	for (int i = 0; i < context; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		run->ids[i] = (int32_t)((state >> 33) % (uint64_t)run->model->config.vocab);
	}
	const struct dsa_pass_document document = {.ids = run->ids, .tokens = context};
	TRY(dsa_forward_open(&run->forward, run->model, context, context, 1, 1, err));
	TRY(dsa_forward_begin(run->forward, &document, 1, true, NULL, &rows, err));
	return dsa_forward_embed(run->forward, 0, err);
}

static enum dsa_status run_all(struct bench_run *run, const struct dsa_log *log, struct dsa_error *err)
{
	TRY(choose_layers(run, err));
	TRY(begin_pass(run, err));
	dsa_log_line(log, DSA_LOG_INFO, "layers over a document of %d tokens", run->bench->context);
	TRY(time_layers(run, err));
	TRY(fill_extra(run, err));
	/* Ceilings last and first would differ as the device warms up; between the two they see it warm. */
	dsa_log_line(log, DSA_LOG_INFO, "ceilings");
	TRY(measure_ceilings(run, err));
	dsa_log_line(log, DSA_LOG_INFO, "operators on %lld rows", (long long)run->bench->rows);
	TRY(time_operators(run, err));
	add_operators(run->bench);
	return DSA_OK;
}

enum dsa_status dsa_bench_run(struct dsa_bench *bench, struct dsa_model *model, int context,
                              const volatile sig_atomic_t *stop, const struct dsa_log *log, struct dsa_error *err)
{
	struct dsa_backend *be = model->backend;
	assert(context > 0 && context <= model->context);
	*bench = (struct dsa_bench){.context = context, .rows = tile_rows(be, context)};
	struct bench_run run = {.bench = bench, .model = model, .be = be, .stop = stop};
	enum dsa_status status = run_all(&run, log, err);
	if (run.memory)
		be->ops->free(be, run.memory);
	dsa_forward_close(run.forward);
	free(run.figures);
	free(run.ids);
	return status;
}
