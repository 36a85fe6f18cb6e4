/* toy_search.h: searches on toy evaluators, and the six layers whose costs add up.
 *
 * cmocka comes before it, as in every test program. */
#ifndef DSA_TESTS_TOY_SEARCH_H
#define DSA_TESTS_TOY_SEARCH_H

#include "calib/toy_evaluator.h"
#include "dsa/search.h"

/* What a search leaves behind. */
struct outcome {
	struct dsa_arena arena;
	struct dsa_trace trace;
	struct dsa_work work;
	struct dsa_error err;
	bool complete;
};

static inline struct dsa_search_options unbounded(void)
{
	return (struct dsa_search_options){.budget = {.kl = (double)NAN,
	                                              .nll = (double)NAN,
	                                              .kl_p99 = (double)NAN,
	                                              .top1 = (double)NAN,
	                                              .max_shared = -1},
	                                   .savings = true};
}

static inline enum dsa_status try_search(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	dsa_arena_init(&out->arena);
	out->err.text[0] = 0;
	assert_int_equal(dsa_work_init(&out->work, &toy->shape, &out->arena, &out->err), DSA_OK);
	return dsa_search_greedy(&out->trace, &toy->evaluator, options, &out->work, NULL, &out->arena, &out->complete,
	                         &out->err);
}

static inline void search(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	assert_int_equal(try_search(out, toy, options), DSA_OK);
}

static inline void release(struct outcome *out)
{
	dsa_arena_release(&out->arena);
}

static inline const char *emitted(const struct outcome *out, const struct toy *toy)
{
	return out->trace.emitted < 0 ? toy->shape.reference : out->trace.steps[out->trace.emitted].pattern;
}

/* Costs add up: layer l costs user[l]; held-out and calibration documents alike. */
static inline double additive(const struct toy *toy, int document, const char *pattern)
{
	const double *costs = toy->user;
	double sum = 0;
	(void)document;
	for (int l = 0; pattern[l]; l++)
		sum += pattern[l] == 'S' ? costs[l] : 0;
	return sum;
}

static const double six_costs[] = {9, 0.4, 0.1, 0.5, 0.2, 0.3};

/* Searches the six layers of six_costs under `options`; the caller releases. */
static inline void search_six(struct outcome *out, struct toy *toy, const struct dsa_search_options *options)
{
	toy->user = six_costs;
	toy_fill(toy, 1, 6);
	search(out, toy, options);
}

#endif
