#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>

#include "dsa/announce.h"
#include "dsa/spill.h"
#include "model_course.h"

static void open_all(struct opened *o, struct fixture *f, size_t pool, bool naive, int threads, int batch_tokens,
                     const volatile sig_atomic_t *stop)
{
	struct opened_options options = options_of(f, batch_tokens, threads);
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = pool, .naive = naive, .stop = stop};
	opened_open(o, &options);
}

static void ask(struct opened *o, struct seen *seen, const char *base, const char *const *patterns, int count,
                uint64_t seed)
{
	const struct dsa_sink sink = {.pattern = take, .context = seen};
	opened_ask(o, &sink, base, patterns, count, seed);
}

static struct seen *run_options(struct fixture *f, const struct opened_options *options)
{
	struct opened o = {0};
	struct seen *seen = calloc(STEPS, sizeof *seen);
	assert_int_equal(f->config.layers, 4);
	opened_open(&o, options);
	for (int s = 0; s < STEPS; s++)
		ask(&o, &seen[s], bases[s], steps[s], step_counts[s], 0);
	opened_close(&o);
	return seen;
}

static struct seen *run_waves(struct fixture *f, size_t pool, int wave, int threads, int batch_tokens, bool naive)
{
	struct opened_options options = options_of(f, batch_tokens, threads);
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = pool, .wave = wave, .naive = naive};
	return run_options(f, &options);
}

static struct seen *run_course(struct fixture *f, size_t pool, bool naive, int threads, int batch_tokens)
{
	return run_waves(f, pool, 0, threads, batch_tokens, naive);
}

static void savings_change_no_bit(void **state)
{
	struct seen *naive = run_course(*state, 0, true, 1, 4096);
	struct seen *saving = run_course(*state, LARGE_POOL, false, 1, 4096);
	assert_same_figures(naive, saving);
	int64_t cost_naive = 0, cost_saving = 0;
	for (int s = 0; s < STEPS; s++) {
		cost_naive += naive[s].executed;
		cost_saving += saving[s].executed;
	}
	assert_true(cost_saving * 2 < cost_naive);
	/* The figures mean something: a flip moves the output, the reference does not. */
	assert_true(saving[0].at[1][0][0].kl > 0);
	assert_true(saving[0].at[0][0][0].kl == 0);
	assert_int_equal(saving[0].at[0][0][0].tokens, saving[0].at[0][0][0].top1);
	free(naive);
	free(saving);
}

static void pool_of_any_size_changes_no_bit(void **state)
{
	struct seen *expected = run_course(*state, LARGE_POOL, false, 1, 4096);
	int64_t before = 0, large = executed_in(expected);
	for (size_t pool = 0; pool < 600000; pool = pool ? pool * 2 : 1000) {
		struct seen *seen = run_course(*state, pool, false, 1, 4096);
		assert_same_figures(expected, seen);
		if (pool == 0)
			before = executed_in(seen);
		free(seen);
	}
	assert_true(large < before);
	free(expected);
}

/* What the evaluator says when it is closed. */
static void find_written(void *context, enum dsa_log_level level, const char *text)
{
	double *written = context;
	const char *at = strstr(text, "on disk, ");
	assert_int_not_equal(level, DSA_LOG_WARN);
	if (at)
		*written = strtod(at + strlen("on disk, "), NULL);
}

/* Memory for keys, references, a few states and the buffer; the disk for every other state. */
static void states_on_disk_change_no_bit_and_save_what_memory_would(void **state)
{
	struct fixture *f = *state;
	static const int batch_tokens[] = {4096, 70}, memory[] = {90000, 75000};
	static const size_t image[] = {33000, 9500}; /* about, of the largest state */
	struct seen *naive = run_course(f, 0, true, 1, 4096);
	for (int i = 0; i < 2; i++) {
		struct seen *large = run_course(f, LARGE_POOL, false, 1, batch_tokens[i]);
		struct seen *small = run_course(f, (size_t)memory[i], false, 1, batch_tokens[i]);
		assert_true(executed_in(small) > executed_in(large));
		for (int kind = 0; kind < 4; kind++) {
			double written = 0;
			const struct dsa_log log = {.line = find_written, .context = &written};
			struct opened_options options = options_of(f, batch_tokens[i], 1);
			options.evaluator = (struct dsa_model_evaluator_options){.host_memory = (size_t)memory[i],
			                                                         .spill_directory = f->directory,
			                                                         .spill = 1 << 24,
			                                                         .wave = kind & 1 ? 1 : 0,
			                                                         .spill_zstd = kind & 2,
			                                                         .log = &log};
			/* What compresses wants memory of its own. */
			if (kind & 2)
				options.evaluator.host_memory += dsa_spill_memory(true, image[i]);
			struct seen *seen = run_options(f, &options);
			assert_same_figures(naive, seen);
			assert_int_equal(executed_in(seen), executed_in(large));
			assert_true(written > 0);
			free(seen);
		}
		free(large);
		free(small);
	}
	free(naive);
}

static void candidates_that_advance_together_change_no_bit(void **state)
{
	static const int threads[] = {1, 2, 4}, batch_tokens[] = {4096, 70, 1};
	struct seen *expected = run_course(*state, 0, true, 1, 4096);
	struct seen *saving = run_waves(*state, LARGE_POOL, 1, 1, 4096, false);
	for (int i = 0; i < 3; i++)
		for (int wave = 1; wave <= 4; wave++) {
			/* From nothing kept at all over some states to every state. */
			for (size_t pool = 0; pool < 2 * LARGE_POOL; pool = pool ? 16 * pool : 4000) {
				struct seen *seen = run_waves(*state, pool, wave, threads[i], batch_tokens[i], false);
				assert_same_figures(expected, seen);
				free(seen);
			}
			/* With all states kept, together saves nothing and costs nothing. */
			struct seen *seen = run_waves(*state, LARGE_POOL, wave, threads[i], batch_tokens[i], false);
			assert_same_figures(expected, seen);
			assert_int_equal(executed_in(seen), executed_in(saving));
			free(seen);
		}
	free(expected);
	free(saving);
}

/* Where nothing is kept, those of a wave still run what they share once. */
static void candidates_fork_where_they_part(void **state)
{
	struct seen *alone = run_waves(*state, 0, 1, 1, 4096, false);
	struct seen *pairs = run_waves(*state, 0, 2, 1, 4096, false);
	struct seen *together = run_waves(*state, 0, 16, 1, 4096, false);
	int64_t tokens = 0;
	for (int d = 0; d < DOCUMENTS; d++)
		tokens += CONTEXT - 3 * d;
	/* The reference for each ask; FSFF FFSF FFFS · FSSF FFSS · FSSS, four layers each when alone. */
	assert_int_equal(executed_in(alone), tokens * 4 * (3 + 3 + 2 + 1));
	/* FFSF behind F, FFFS alone; FFSS behind F. The reference itself takes no place. */
	assert_int_equal(executed_in(pairs), tokens * (4 * 3 + (4 + 3 + 4) + (4 + 3) + 4));
	/* FFFS behind FF. */
	assert_int_equal(executed_in(together), tokens * (4 * 3 + (4 + 3 + 2) + (4 + 3) + 4));
	free(alone);
	free(pairs);
	free(together);
}

/* An ask need not be in any order, nor without doubles. */
static void any_patterns_may_be_asked_together(void **state)
{
	static const char *const patterns[] = {"FFFS", "FSSS", "FSFF", "FSSS", "FFFF", "FFSS", "FSFS", "FFFS"};
	enum { PATTERNS = sizeof patterns / sizeof *patterns };
	struct seen *seen[3];
	static const int waves[] = {1, 3, 16};
	for (int i = 0; i < 3; i++) {
		struct fixture *f = *state;
		struct opened o = {0};
		struct opened_options options = options_of(f, 70, 1);
		options.evaluator = (struct dsa_model_evaluator_options){.host_memory = LARGE_POOL, .wave = waves[i]};
		seen[i] = calloc(1, sizeof **seen);
		opened_open(&o, &options);
		ask(&o, seen[i], "FFSF", patterns, PATTERNS, 0);
		opened_close(&o);
		assert_int_equal(seen[i]->patterns, PATTERNS * DOCUMENTS);
		assert_memory_equal(seen[i]->at, seen[0]->at, sizeof seen[i]->at);
		assert_memory_equal(seen[i]->at[1], seen[i]->at[3], sizeof seen[i]->at[1]);
		assert_memory_equal(seen[i]->at[0], seen[i]->at[7], sizeof seen[i]->at[0]);
		assert_true(seen[i]->executed <= seen[0]->executed);
	}
	assert_true(seen[2]->executed < seen[0]->executed);
	for (int i = 0; i < 3; i++)
		free(seen[i]);
}

static void threads_and_batches_change_no_bit(void **state)
{
	struct seen *expected = run_course(*state, LARGE_POOL, false, 1, 4096);
	static const int threads[] = {2, 4, 1, 2}, batch_tokens[] = {4096, 4096, 1, 70};
	for (int i = 0; i < 4; i++) {
		struct seen *seen = run_course(*state, LARGE_POOL, false, threads[i], batch_tokens[i]);
		assert_same_figures(expected, seen);
		free(seen);
	}
	free(expected);
}

static void disturbed_embeddings_move_the_output_a_little(void **state)
{
	struct opened o = {0};
	struct seen *seen = calloc(3, sizeof *seen);
	static const char *const reference[] = {"FFFF"}, *const flipped[] = {"FFSF"};
	open_all(&o, *state, LARGE_POOL, false, 1, 4096, NULL);
	ask(&o, &seen[0], "FFFF", reference, 1, 1);
	ask(&o, &seen[1], "FFFF", reference, 1, 1);
	ask(&o, &seen[2], "FFFF", flipped, 1, 0);
	assert_memory_equal(seen[0].at, seen[1].at, sizeof seen[0].at);
	double floor = seen[0].at[0][0][0].kl, flip = seen[2].at[0][0][0].kl;
	assert_true(floor > 0);
	assert_true(floor < flip);
	opened_close(&o);
	free(seen);
}

static void a_layer_overlaps_itself_wholly(void **state)
{
	struct fixture *f = *state;
	struct opened o = {0};
	struct dsa_error err = {""};
	struct seen *seen = calloc(1, sizeof *seen);
	const struct dsa_sink sink = {.overlap = take_overlap, .context = seen};
	open_all(&o, f, LARGE_POOL, false, 2, 4096, NULL);
	for (int b = 0; b < o.evaluator->shape->batches; b++)
		assert_int_equal(o.evaluator->overlap(o.evaluator, b, &sink, &err), DSA_OK);
	int64_t scored = 0;
	for (int b = 0; b < o.evaluator->shape->batches; b++)
		scored += o.evaluator->shape->batch[b].scored;
	assert_int_equal(seen->queries, scored);
	assert_int_equal(seen->diagonal, scored * f->config.topk);
	assert_true(seen->first_pair > 0 && seen->first_pair < seen->diagonal);
	assert_int_equal(seen->plain[0], 0); /* no precision, nothing to compare */
	opened_close(&o);
	free(seen);
}

/* Where the selections of all rows do not fit, the reference runs for each window of rows, over what these depend on:
 * one row, or rows of several documents. */
static void overlap_is_the_same_in_windows(void **state)
{
	struct fixture *f = *state;
	struct seen *seen = calloc(5, sizeof *seen);
	assert_non_null(seen);
	const size_t row = (size_t)f->config.layers * (size_t)f->config.topk * sizeof(int32_t);
	const size_t limits[] = {0, 1, 5 * row, 7 * row, 61 * row};
	const int batch_tokens[] = {70, 70, 70, 1000, 1000};
	for (int i = 0; i < 5; i++) {
		struct opened o = {0};
		struct opened_options options = options_of(f, batch_tokens[i], 1);
		options.precision = DSA_INDEX_BF16;
		options.evaluator =
		    (struct dsa_model_evaluator_options){.host_memory = LARGE_POOL, .overlap_memory = limits[i]};
		struct dsa_error err = {""};
		const struct dsa_sink sink = {.overlap = take_overlap, .context = &seen[i]};
		opened_open(&o, &options);
		for (int b = 0; b < o.evaluator->shape->batches; b++)
			assert_int_equal(o.evaluator->overlap(o.evaluator, b, &sink, &err), DSA_OK);
		opened_close(&o);
		assert_int_equal(seen[i].queries, seen[0].queries);
		assert_int_equal(seen[i].diagonal, seen[0].diagonal);
		assert_int_equal(seen[i].first_pair, seen[0].first_pair);
		assert_memory_equal(seen[i].plain, seen[0].plain, sizeof seen[0].plain);
	}
	/* Rounded to bf16, each layer's indexer still selects nearly what it selects in float32, but not everywhere. */
	int64_t all = 0;
	for (int l = 0; l < 4; l++) {
		assert_true(seen[0].plain[l] > seen[0].diagonal * 9 / 10);
		all += seen[0].plain[l];
	}
	assert_true(all < 4 * seen[0].diagonal);
	assert_true(seen[0].first_pair > 0 && seen[0].first_pair < seen[0].diagonal);
	free(seen);
}

/* On held-out documents only winners are asked, each alone: layer 2, then 1, then 3. */
static struct seen *ask_winners(struct fixture *f, size_t pool, bool naive)
{
	static const char *const chain[] = {"FFFF", "FFFF", "FFSF", "FSSF", "FSSS"};
	enum { CHAIN = sizeof chain / sizeof *chain - 1 };
	struct opened o = {0};
	struct seen *seen = calloc(CHAIN, sizeof *seen);
	struct opened_options options = options_of(f, 70, 1);
	options.holdout = 0.4;
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = pool, .naive = naive};
	opened_open(&o, &options);
	for (int s = 0; s < CHAIN; s++)
		for (int b = 0; b < o.evaluator->shape->batches; b++) {
			struct dsa_error err;
			const struct dsa_sink sink = {.pattern = take, .context = &seen[s]};
			const struct dsa_ask question = {
			    .base = chain[s], .patterns = &chain[s + 1], .count = 1, .batch = b};
			const struct dsa_evaluator_batch *batch = &o.evaluator->shape->batch[b];
			if (batch->split != DSA_HELDOUT)
				continue;
			assert_int_equal(o.evaluator->evaluate(o.evaluator, &question, &sink, &err), DSA_OK);
			seen[s].queries += s ? batch->suffix : batch->tokens;
		}
	opened_close(&o);
	return seen;
}

static void heldout_winners_start_at_their_flip(void **state)
{
	static const int layers_run[] = {4, 2, 3, 1};
	struct seen *naive = ask_winners(*state, 0, true), *saving = ask_winners(*state, LARGE_POOL, false);
	for (int s = 0; s < 4; s++) {
		assert_memory_equal(naive[s].at, saving[s].at, sizeof naive[s].at);
		assert_true(saving[s].patterns > 0);
		assert_int_equal(saving[s].executed, layers_run[s] * saving[s].queries);
	}
	free(naive);
	free(saving);
}

static void a_stop_is_obeyed_before_a_layer(void **state)
{
	volatile sig_atomic_t stop = 1;
	struct opened o = {0};
	struct dsa_error err = {""};
	struct seen *seen = calloc(1, sizeof *seen);
	static const char *const patterns[] = {"FSFF", "FFSF"};
	const struct dsa_sink sink = {.pattern = take, .context = seen};
	const struct dsa_ask question = {.base = "FFFF", .patterns = patterns, .count = 2};
	open_all(&o, *state, LARGE_POOL, false, 1, 4096, &stop);
	assert_int_equal(o.evaluator->evaluate(o.evaluator, &question, &sink, &err), DSA_E_INTERRUPTED);
	assert_int_equal(seen->patterns, 0);
	stop = 0;
	assert_int_equal(o.evaluator->evaluate(o.evaluator, &question, &sink, &err), DSA_OK);
	assert_true(seen->patterns > 0);
	opened_close(&o);
	free(seen);
}

/* Sets the stop flag in the middle of a layer: with the attention of that number, counted from 1. */
static struct {
	enum dsa_status (*attention)(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
	                             struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent,
	                             int r, float scale, const struct dsa_rows *rows, struct dsa_error *err);
	volatile sig_atomic_t stop;
	int calls, stop_at;
} watch;

static enum dsa_status watched_attention(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
                                         struct dsa_tensor keys, const int32_t *selection, int topk, int heads,
                                         int latent, int r, float scale, const struct dsa_rows *rows,
                                         struct dsa_error *err)
{
	if (++watch.calls == watch.stop_at)
		watch.stop = 1;
	return watch.attention(be, out, q, keys, selection, topk, heads, latent, r, scale, rows, err);
}

struct interrupted {
	size_t pool;
	int wave, batch_tokens;
	enum dsa_place place; /* if not on the device, batches of a step share visits */
};

/* The question about a batch, put again if the stop ends it. */
static void ask_until_answered(struct opened *o, const struct dsa_ask *question, struct seen *seen, int *ended)
{
	struct dsa_error err = {""};
	const struct dsa_sink sink = {.pattern = take, .context = seen};
	const int before = seen->patterns;
	enum dsa_status status = o->evaluator->evaluate(o->evaluator, question, &sink, &err);
	if (status) {
		assert_int_equal(status, DSA_E_INTERRUPTED);
		assert_int_equal(watch.stop, 1);
		assert_int_equal(seen->patterns, before);
		++*ended;
		watch.stop = 0;
		status = o->evaluator->evaluate(o->evaluator, question, &sink, &err);
	}
	assert_int_equal(status, DSA_OK);
	watch.stop = 0;
}

/* The course, every ask that the stop ends put again. Adds what was ended to *ended. */
static struct seen *run_interrupted(struct fixture *f, const struct interrupted *kind, int stop_at, int *ended)
{
	struct opened o = {0};
	struct seen *seen = calloc(STEPS, sizeof *seen);
	struct opened_options options = options_of(f, kind->batch_tokens, 1);
	options.place = kind->place;
	options.evaluator =
	    (struct dsa_model_evaluator_options){.host_memory = kind->pool, .wave = kind->wave, .stop = &watch.stop};
	opened_open(&o, &options);
	struct dsa_ops ops = *o.backend->ops;
	watch.attention = ops.attention;
	watch.calls = 0;
	watch.stop_at = stop_at;
	ops.attention = watched_attention;
	o.backend->ops = &ops;
	for (int s = 0; s < STEPS; s++) {
		struct dsa_error err = {""};
		struct dsa_ask question = {.base = bases[s], .patterns = steps[s], .count = step_counts[s]};
		assert_int_equal(dsa_announce_split(o.evaluator, &question, DSA_CALIBRATION, false, &err), DSA_OK);
		for (; question.batch < o.evaluator->shape->batches; question.batch++)
			ask_until_answered(&o, &question, &seen[s], ended);
	}
	opened_close(&o);
	return seen;
}

/* Wherever the stop comes: in the reference, in a wave between two of its patterns, where states are being kept. */
static void a_stop_inside_a_wave_leaves_nothing_half_kept(void **state)
{
	static const struct interrupted kinds[] = {{0, 4, 4096, DSA_PLACE_DEVICE},
	                                           {64000, 2, 4096, DSA_PLACE_DEVICE},
	                                           {LARGE_POOL, 4, 4096, DSA_PLACE_DEVICE},
	                                           {LARGE_POOL, 16, 1, DSA_PLACE_STORED}};
	struct seen *expected = run_course(*state, 0, true, 1, 4096);
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		const size_t pool = kinds[k].pool;
		int ended = 0, cheaper = 0;
		struct seen *whole = run_interrupted(*state, &kinds[k], 0, &ended);
		const int calls = watch.calls;
		assert_int_equal(ended, 0);
		assert_same_figures(expected, whole);
		for (int at = 1; at <= calls; at++) {
			struct seen *seen = run_interrupted(*state, &kinds[k], at, &ended);
			assert_same_figures(expected, seen);
			/* What was kept before the stop serves the ask that is put again. */
			cheaper += executed_in(seen) < executed_in(whole);
			assert_true(pool != LARGE_POOL || executed_in(seen) <= executed_in(whole));
			free(seen);
		}
		/* All but where the last layer of an ask's last wave was on its way. */
		assert_in_range(ended, calls / 2, calls - 1);
		assert_true(pool != LARGE_POOL || cheaper > 0);
		free(whole);
	}
	free(expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(savings_change_no_bit),
	    cmocka_unit_test(pool_of_any_size_changes_no_bit),
	    cmocka_unit_test(states_on_disk_change_no_bit_and_save_what_memory_would),
	    cmocka_unit_test(candidates_that_advance_together_change_no_bit),
	    cmocka_unit_test(candidates_fork_where_they_part),
	    cmocka_unit_test(any_patterns_may_be_asked_together),
	    cmocka_unit_test(threads_and_batches_change_no_bit),
	    cmocka_unit_test(disturbed_embeddings_move_the_output_a_little),
	    cmocka_unit_test(a_layer_overlaps_itself_wholly),
	    cmocka_unit_test(overlap_is_the_same_in_windows),
	    cmocka_unit_test(heldout_winners_start_at_their_flip),
	    cmocka_unit_test(a_stop_is_obeyed_before_a_layer),
	    cmocka_unit_test(a_stop_inside_a_wave_leaves_nothing_half_kept),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
