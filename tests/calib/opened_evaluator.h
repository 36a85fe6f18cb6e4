/* opened_evaluator.h: a model's evaluator on a corpus of token ids, with all that it stands on. */
#ifndef DSA_TESTS_OPENED_EVALUATOR_H
#define DSA_TESTS_OPENED_EVALUATOR_H

#include <string.h>

#include "dsa/model_evaluator.h"

struct opened {
	struct dsa_backend *backend;
	struct dsa_model *model;
	struct dsa_spool *spool;
	struct dsa_evaluator *evaluator;
};

struct opened_options {
	const char *model_dir, *corpus, *tokens; /* tokens: where the spool goes */
	int context, topk, vocab, batch_tokens, threads;
	double holdout;
	enum dsa_index_precision precision;
	enum dsa_place place; /* of every layer */
	const struct dsa_log *log;
	struct dsa_model_evaluator_options evaluator;
};

/* All layers in one place. */
static inline enum dsa_status opened_model(struct opened *o, const struct opened_options *options,
                                           struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_model_config config;
	struct dsa_residency residency;
	struct dsa_sizes *sizes;
	dsa_arena_init(&arena);
	enum dsa_status status = dsa_model_config_load(&config, options->model_dir, &arena, err);
	if (!status && !(sizes = dsa_arena_alloc(&arena, 1, sizeof *sizes, "sizes", err)))
		status = DSA_E_MEMORY;
	if (!status)
		status = dsa_model_sizes(sizes, &config, options->model_dir, o->backend->weight, err);
	if (!status) {
		assert_true(dsa_residency_plan(&residency, sizes, options->place, 1 << 30, 1 << 30));
		assert_int_equal(residency.layers[options->place], config.layers);
		status =
		    dsa_model_open(&o->model, o->backend, options->model_dir, options->context, &residency, NULL, err);
	}
	dsa_arena_release(&arena);
	return status;
}

static inline void opened_open(struct opened *o, const struct opened_options *options)
{
	struct dsa_error err = {""};
	const struct dsa_corpus_source source = {.name = "ids", .path = options->corpus, .weight = 1};
	const struct dsa_spool_options spool = {.sources = &source,
	                                        .count = 1,
	                                        .context = options->context,
	                                        .topk = options->topk,
	                                        .holdout = options->holdout,
	                                        .batch_tokens = options->batch_tokens};
	const struct dsa_backend_options device = {.device = "cpu", .threads = options->threads, .log = options->log};
	enum dsa_status status = dsa_spool_write(options->tokens, &spool, NULL, options->vocab, NULL, &err);
	if (!status)
		status = dsa_spool_open(&o->spool, options->tokens, &err);
	if (!status)
		status = dsa_backend_open(&o->backend, &device, &err);
	if (!status)
		status = opened_model(o, options, &err);
	if (!status) {
		o->model->config.index_precision = options->precision;
		status = dsa_model_evaluator_open(&o->evaluator, o->model, o->spool, o->model->config.native,
		                                  &options->evaluator, &err);
	}
	if (status)
		fail_msg("%s", err.text);
}

static inline void opened_close(struct opened *o)
{
	o->evaluator->close(o->evaluator);
	dsa_model_close(o->model);
	dsa_backend_close(o->backend);
	dsa_spool_close(o->spool);
}

/* Asks for the patterns on every batch. */
static inline void opened_ask(struct opened *o, const struct dsa_sink *sink, const char *base,
                              const char *const *patterns, int count, uint64_t seed)
{
	struct dsa_error err = {""};
	for (int b = 0; b < o->evaluator->shape->batches; b++) {
		const struct dsa_ask question = {
		    .base = base, .patterns = patterns, .count = count, .batch = b, .seed = seed};
		if (o->evaluator->evaluate(o->evaluator, &question, sink, &err))
			fail_msg("%s", err.text);
	}
}

#endif
