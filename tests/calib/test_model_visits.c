/* Questions of several batches that share the visits of layers which have to be brought for them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dsa/announce.h"
#include "model_course.h"

enum { EACH = 1 /* batch_tokens that make every document a batch */ };

/* What the weights' residency says when it is closed. */
static void find_visits(void *context, enum dsa_log_level level, const char *text)
{
	long long *visits = context;
	const char *at = strstr(text, "weights: ");
	(void)level;
	if (at)
		*visits = strtoll(at + strlen("weights: "), NULL, 10);
}

struct course {
	enum dsa_place place;
	size_t pool;
	int wave, steps;
	bool announced;
};

/* The first steps of the course on every batch. *visits: that brought a layer. */
static struct seen *run(struct fixture *f, const struct course *course, long long *visits)
{
	const struct dsa_log log = {.line = find_visits, .context = visits};
	struct opened o = {0};
	struct seen *seen = calloc(STEPS, sizeof *seen);
	struct opened_options options = options_of(f, EACH, 1);
	options.place = course->place;
	options.log = &log;
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = course->pool, .wave = course->wave};
	*visits = 0;
	assert_non_null(seen);
	opened_open(&o, &options);
	assert_int_equal(o.evaluator->shape->batches, DOCUMENTS);
	for (int s = 0; s < course->steps; s++) {
		struct dsa_error err = {""};
		const struct dsa_sink sink = {.pattern = take, .context = &seen[s]};
		const struct dsa_ask question = {.base = bases[s], .patterns = steps[s], .count = step_counts[s]};
		if (course->announced && dsa_announce_split(o.evaluator, &question, DSA_CALIBRATION, false, &err))
			fail_msg("%s", err.text);
		opened_ask(&o, &sink, bases[s], steps[s], step_counts[s], 0);
	}
	opened_close(&o);
	return seen;
}

static void announced_batches_share_visits_and_change_no_bit(void **state)
{
	static const enum dsa_place places[] = {DSA_PLACE_STORED, DSA_PLACE_HOST, DSA_PLACE_DISK};
	long long none, alone, shared;
	struct course course = {.place = DSA_PLACE_DEVICE, .pool = LARGE_POOL, .wave = 16, .steps = STEPS};
	struct seen *expected = run(*state, &course, &none);
	assert_int_equal(none, 0);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		course.place = places[i];
		course.announced = false;
		struct seen *one = run(*state, &course, &alone);
		course.announced = true;
		struct seen *all = run(*state, &course, &shared);
		assert_same_figures(expected, one);
		assert_same_figures(expected, all);
		assert_int_equal(executed_in(one), executed_in(expected));
		assert_int_equal(executed_in(all), executed_in(expected));
		if (places[i] != DSA_PLACE_STORED) {
			assert_int_equal(alone, 63);
			assert_int_equal(shared, 16);
		}
		free(one);
		free(all);
	}
	free(expected);
}

/* Of the first step's three flips five batches fit into sixteen streams. Each wave: the reference of its batches, all
 * four layers, then the flips, behind the first layer. */
static void visits_are_those_of_full_waves(void **state)
{
	static const struct {
		int wave, waves;
	} kinds[] = {{16, 2}, {9, 3}, {6, 4}, {5, 7}, {3, 7}};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		const struct course course = {
		    .place = DSA_PLACE_HOST, .pool = LARGE_POOL, .wave = kinds[i].wave, .steps = 1, .announced = true};
		long long visits;
		free(run(*state, &course, &visits));
		assert_int_equal(visits, kinds[i].waves * (4 + 3));
	}
}

static void any_pool_and_any_wave_change_no_bit(void **state)
{
	long long visits;
	struct course course = {.place = DSA_PLACE_DEVICE, .pool = LARGE_POOL, .wave = 1, .steps = STEPS};
	struct seen *expected = run(*state, &course, &visits);
	course.place = DSA_PLACE_STORED;
	course.announced = true;
	for (course.wave = 1; course.wave <= 16; course.wave++)
		for (course.pool = 0; course.pool < 2 * LARGE_POOL;
		     course.pool = course.pool ? 8 * course.pool : 5000) {
			struct seen *seen = run(*state, &course, &visits);
			assert_same_figures(expected, seen);
			free(seen);
		}
	free(expected);
}

struct early {
	struct seen *seen; /* of the first step */
	int batches[DOCUMENTS], count;
};

static enum dsa_status take_early(void *context, int batch, uint64_t seed, const char *pattern,
                                  const struct dsa_doc_stats *stats, int count, int64_t executed, struct dsa_error *err)
{
	struct early *early = context;
	int index = 0;
	assert_int_equal(seed, 0);
	while (strcmp(steps[0][index], pattern))
		index++;
	if (!early->count || early->batches[early->count - 1] != batch)
		early->batches[early->count++] = batch;
	return take(early->seen, index, stats, count, executed, err);
}

/* Who takes early answers has them as soon as the wave is through, and is not told again. */
static void early_answers_come_with_the_question_whose_wave_they_shared(void **state)
{
	struct opened o = {0};
	struct opened_options options = options_of(*state, EACH, 1);
	struct seen *seen = calloc(STEPS, sizeof *seen);
	struct early early = {.seen = seen};
	const struct dsa_early taker = {.pattern = take_early, .context = &early};
	struct dsa_coming coming[DOCUMENTS];
	struct dsa_error err = {""};
	long long none;
	const struct course plain = {.place = DSA_PLACE_DEVICE, .pool = LARGE_POOL, .wave = 16, .steps = 1};
	struct seen *expected = run(*state, &plain, &none);
	options.place = DSA_PLACE_HOST;
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = LARGE_POOL, .wave = 16};
	opened_open(&o, &options);
	for (int b = 0; b < DOCUMENTS; b++)
		coming[b] = (struct dsa_coming){
		    {.base = bases[0], .patterns = steps[0], .count = step_counts[0], .batch = b}, false};
	assert_int_equal(o.evaluator->announce(o.evaluator, coming, DOCUMENTS, &taker, &err), DSA_OK);
	const struct dsa_sink sink = {.pattern = take, .context = seen};
	assert_int_equal(o.evaluator->evaluate(o.evaluator, &coming[2].ask, &sink, &err), DSA_OK);
	/* In the order of the announcement, but for the one that was asked. */
	static const int first[] = {0, 1, 3, 4};
	assert_int_equal(early.count, 4);
	assert_memory_equal(early.batches, first, sizeof first);
	assert_int_equal(o.evaluator->evaluate(o.evaluator, &coming[6].ask, &sink, &err), DSA_OK);
	assert_int_equal(early.count, 5);
	assert_int_equal(early.batches[4], 5);
	assert_same_figures(expected, seen);
	opened_close(&o);
	free(expected);
	free(seen);
}

/* What was announced and is not asked after all costs work, never an answer; what is asked otherwise is not mixed up
 * with it. */
static void announcements_need_not_come_true(void **state)
{
	struct opened o = {0};
	struct opened_options options = options_of(*state, EACH, 1);
	struct seen *seen = calloc(STEPS, sizeof *seen), *noise = calloc(1, sizeof *noise),
		    *quiet = calloc(1, sizeof *quiet);
	struct dsa_error err = {""};
	long long none;
	const struct course plain = {.place = DSA_PLACE_DEVICE, .pool = LARGE_POOL, .wave = 16, .steps = STEPS};
	struct seen *expected = run(*state, &plain, &none);
	options.place = DSA_PLACE_HOST;
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = LARGE_POOL, .wave = 16};
	opened_open(&o, &options);
	const struct dsa_ask other = {.base = "FFFS", .patterns = steps[2], .count = 1};
	const struct dsa_ask disturbed = {
	    .base = bases[0], .patterns = &o.evaluator->shape->reference, .count = 1, .seed = 3};
	const struct dsa_sink sinks[] = {{.pattern = take, .context = noise},
	                                 {.pattern = take, .context = &seen[0]},
	                                 {.pattern = take, .context = &seen[1]},
	                                 {.pattern = take, .context = &seen[2]}};
	assert_int_equal(dsa_announce_split(o.evaluator, &other, DSA_CALIBRATION, false, &err), DSA_OK);
	opened_ask(&o, &sinks[1], bases[0], steps[0], step_counts[0], 0);
	assert_int_equal(dsa_announce_split(o.evaluator, &disturbed, DSA_CALIBRATION, false, &err), DSA_OK);
	assert_int_equal(o.evaluator->evaluate(o.evaluator, &disturbed, &sinks[0], &err), DSA_OK);
	assert_int_equal(noise->patterns, 1);
	/* Held from here on: the noise of all other batches. */
	opened_ask(&o, &sinks[2], bases[1], steps[1], step_counts[1], 0);
	opened_ask(&o, &sinks[3], bases[2], steps[2], step_counts[2], 0);
	assert_same_figures(expected, seen);
	opened_ask(&o, &sinks[0], bases[0], &o.evaluator->shape->reference, 1, 3);
	assert_int_equal(noise->patterns, 1 + DOCUMENTS);
	opened_close(&o);
	options.place = DSA_PLACE_DEVICE;
	opened_open(&o, &options);
	opened_ask(&o, &(struct dsa_sink){.pattern = take, .context = quiet}, bases[0], &o.evaluator->shape->reference,
	           1, 3);
	opened_close(&o);
	assert_memory_equal(noise->at, quiet->at, sizeof noise->at);
	assert_true(noise->at[0][0][0].kl > 0);
	free(expected);
	free(noise);
	free(quiet);
	free(seen);
}

/* Backend operations that fail now and then. */
static struct {
	void *(*stash_alloc)(struct dsa_backend *be, size_t bytes);
	enum dsa_status (*upload)(struct dsa_backend *be, void *device, const void *host, size_t bytes,
	                          struct dsa_error *err);
	int calls, every, at; /* no memory at every so-maniest call; no transfer at that one; 0: always */
} lame;

static void *lame_stash_alloc(struct dsa_backend *be, size_t bytes)
{
	return lame.every && ++lame.calls % lame.every == 0 ? NULL : lame.stash_alloc(be, bytes);
}

static enum dsa_status lame_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes,
                                   struct dsa_error *err)
{
	if (lame.at && ++lame.calls == lame.at)
		return dsa_fail(err, DSA_E_DEVICE, "lame");
	return lame.upload(be, device, host, bytes, err);
}

/* The first step, announced, until every batch is answered. *failures: questions that had to be put again. */
static struct seen *run_lame(struct fixture *f, int every, int at, int *failures)
{
	struct opened o = {0};
	struct opened_options options = options_of(f, EACH, 1);
	struct seen *seen = calloc(STEPS, sizeof *seen);
	struct dsa_ask question = {.base = bases[0], .patterns = steps[0], .count = step_counts[0]};
	const struct dsa_sink sink = {.pattern = take, .context = seen};
	struct dsa_error err = {""};
	options.place = DSA_PLACE_STORED;
	options.evaluator = (struct dsa_model_evaluator_options){.host_memory = LARGE_POOL, .wave = 16};
	opened_open(&o, &options);
	struct dsa_ops ops = *o.backend->ops;
	lame.stash_alloc = ops.stash_alloc;
	lame.upload = ops.upload;
	ops.stash_alloc = lame_stash_alloc;
	ops.upload = lame_upload;
	o.backend->ops = &ops;
	lame.calls = *failures = 0;
	lame.every = every;
	lame.at = at;
	assert_int_equal(dsa_announce_split(o.evaluator, &question, DSA_CALIBRATION, false, &err), DSA_OK);
	for (; question.batch < DOCUMENTS; question.batch++) {
		const int before = seen->patterns;
		enum dsa_status status = o.evaluator->evaluate(o.evaluator, &question, &sink, &err);
		if (status) {
			assert_int_equal(status, DSA_E_DEVICE);
			assert_int_equal(seen->patterns, before);
			++*failures;
			status = o.evaluator->evaluate(o.evaluator, &question, &sink, &err);
		}
		assert_int_equal(status, DSA_OK);
	}
	opened_close(&o);
	return seen;
}

static void lack_of_memory_and_lost_transfers_cost_work_only(void **state)
{
	int failures, failed = 0;
	struct seen *expected = run_lame(*state, 0, 0, &failures);
	assert_int_equal(failures, 0);
	for (int n = 1; n <= 40; n++) {
		struct seen *seen = run_lame(*state, n, 0, &failures);
		assert_int_equal(failures, 0);
		assert_same_figures(expected, seen);
		free(seen);
		seen = run_lame(*state, 0, n, &failures);
		assert_same_figures(expected, seen);
		failed += failures;
		free(seen);
	}
	assert_int_equal(failed, 40);
	free(expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(announced_batches_share_visits_and_change_no_bit),
	    cmocka_unit_test(visits_are_those_of_full_waves),
	    cmocka_unit_test(any_pool_and_any_wave_change_no_bit),
	    cmocka_unit_test(early_answers_come_with_the_question_whose_wave_they_shared),
	    cmocka_unit_test(announcements_need_not_come_true),
	    cmocka_unit_test(lack_of_memory_and_lost_transfers_cost_work_only),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
