#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "dsa/states.h"
#include "spill_file.h"

enum { LAYERS = 6, IMAGE = 100 };

static struct dsa_states *open_pool(size_t limit, int batches)
{
	size_t image[4] = {IMAGE, IMAGE, IMAGE, IMAGE};
	struct dsa_states *states;
	struct dsa_error err;
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, batches, image, NULL, limit, NULL, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	return states;
}

static void *keep(struct dsa_states *states, int batch, const char *pattern, int layer, bool winner)
{
	void *image = dsa_states_keep(states, batch, pattern, layer, winner);
	if (image)
		dsa_states_kept(states);
	return image;
}

static void longest_kept_prefix_is_found(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	int layer;
	assert_null(dsa_states_find(states, 0, "FFFFFF", 0, &layer));
	assert_int_equal(layer, 0);
	void *two = keep(states, 0, "FFFFFF", 2, false), *four = keep(states, 0, "FFFFFF", 4, false);
	assert_non_null(two);
	assert_non_null(four);
	assert_ptr_equal(dsa_states_find(states, 0, "FFFFSF", 0, &layer), four);
	assert_int_equal(layer, 4);
	assert_ptr_equal(dsa_states_find(states, 0, "FFFSFF", 0, &layer), two);
	assert_int_equal(layer, 2);
	assert_null(dsa_states_find(states, 0, "FSFFFF", 0, &layer));
	assert_ptr_equal(dsa_states_find(states, 0, "FFFSFF", 2, &layer), two);
	assert_null(dsa_states_find(states, 0, "FFFSFF", 3, &layer)); /* none that long */
	assert_int_equal(layer, 0);
	assert_null(keep(states, 0, "FFFFFF", 4, false)); /* is there already */
	dsa_states_close(states);
}

static void only_what_a_candidate_can_start_from_is_kept(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	struct dsa_error err;
	int layer;
	assert_non_null(keep(states, 0, "FSFFFF", 3, false)); /* one letter changed */
	assert_non_null(keep(states, 0, "FFFSFF", 5, false));
	assert_null(keep(states, 0, "FSSFFF", 3, false)); /* two */
	assert_null(keep(states, 0, "FFFFFF", 0, false));
	assert_null(keep(states, 0, "FFFFFF", LAYERS, false));
	/* Layer 3 is committed: FFFSF is now the base's own path, FSF one letter away. */
	assert_int_equal(dsa_states_rebase(states, "FFFSFF", NULL, 0, &err), DSA_OK);
	assert_non_null(dsa_states_find(states, 0, "FFFSFS", 0, &layer));
	assert_int_equal(layer, 5);
	assert_non_null(dsa_states_find(states, 0, "FSFSFF", 0, &layer));
	assert_int_equal(layer, 3);
	/* Layer 4 instead: FFFSF would be two letters away. */
	assert_int_equal(dsa_states_rebase(states, "FFFFSF", NULL, 0, &err), DSA_OK);
	assert_null(dsa_states_find(states, 0, "FFFSSF", 0, &layer));
	assert_non_null(dsa_states_find(states, 0, "FSFFSF", 0, &layer));
	dsa_states_close(states);
}

static void nothing_is_kept_in_front_of_layers_that_nobody_flips(void **unused)
{
	(void)unused;
	static const bool fixed[LAYERS] = {true, false, true, true, false, true};
	size_t image[] = {IMAGE};
	struct dsa_states *states;
	struct dsa_error err;
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 1, image, NULL, 100 * IMAGE, NULL, &err), DSA_OK);
	dsa_states_fix(states, fixed);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 2);
	for (int layer = 1; layer < LAYERS; layer++) {
		assert_true((keep(states, 0, "FFFFFF", layer, false) != NULL) == !fixed[layer]);
		/* Behind a flip of layer 1 the other one starts. */
		if (layer > 1)
			assert_true((keep(states, 0, "FSFFFF", layer, false) != NULL) == !fixed[layer]);
	}
	assert_int_equal(dsa_states_usage(states).memory, 3 * IMAGE);
	dsa_states_close(states);
}

static void pool_never_holds_more_than_its_limit(void **unused)
{
	(void)unused;
	for (size_t limit = 0; limit <= 40 * IMAGE; limit += IMAGE / 2) {
		struct dsa_states *states = open_pool(limit, 2);
		for (int flip = LAYERS - 1; flip > 0; flip--) {
			char pattern[LAYERS + 1] = "FFFFFF";
			pattern[flip] = 'S';
			for (int layer = 1; layer < LAYERS; layer++)
				for (int batch = 0; batch < 2; batch++) {
					void *image = keep(states, batch, pattern, layer, false);
					if (image)
						memset(image, 7, IMAGE);
					assert_true(dsa_states_usage(states).memory <= limit);
				}
		}
		dsa_states_close(states);
	}
}

static void plan_thins_the_base_before_it_gives_candidates_anything(void **unused)
{
	(void)unused;
	static const struct {
		size_t limit;
		int base, candidate;
	} expected[] = {{0, 0, 0},         /* nothing fits */
	                {IMAGE, 1, 0},     /* layer 5 of 1 … 5 */
	                {2 * IMAGE, 2, 0}, /* 5, 2 */
	                {5 * IMAGE, 5, 0}, /* 1 … 5 */
	                {9 * IMAGE, 5, 2}, /* and 5 for candidates 1 … 4; 1, before which there is none, for nothing */
	                {15 * IMAGE, 5, 5}, /* and 0 + 1 + 2 + 3 + 4 of candidates */
	                {1000 * IMAGE, 5, 5}};
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		struct dsa_states *states = open_pool(expected[i].limit, 1);
		const struct dsa_states_plan plan = dsa_states_plan(states);
		assert_int_equal(plan.base, expected[i].base);
		assert_int_equal(plan.candidate, expected[i].candidate);
		dsa_states_close(states);
	}
}

static void likely_layers_are_kept_first(void **unused)
{
	(void)unused;
	/* 5 for the base, 3 for candidates 1 … 3 in front of layer 4, 1 more: candidate 1 in front of 2. */
	struct dsa_states *states = open_pool(9 * IMAGE, 1);
	static const int likely[] = {4, 2, 3};
	struct dsa_error err;
	assert_int_equal(dsa_states_rebase(states, "FFFFFS", likely, 3, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 4); /* layer 5 is no candidate any more */
	assert_int_equal(dsa_states_plan(states).candidate, 2);
	assert_non_null(keep(states, 0, "FFSFFS", 4, false));
	assert_non_null(keep(states, 0, "FSFFFS", 2, false));
	assert_null(keep(states, 0, "FSFFFS", 3, false));
	dsa_states_close(states);
}

static void base_path_takes_room_from_candidates(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(15 * IMAGE, 1);
	int layer;
	static const char *const candidates[] = {"FSFFFF", "FFSFFF", "FFFSFF", "FFFFSF"};
	for (int c = 0; c < 4; c++)
		for (int m = c + 2; m < LAYERS; m++)
			assert_non_null(keep(states, 0, candidates[c], m, false));
	for (int m = 1; m < LAYERS; m++)
		assert_non_null(keep(states, 0, "FFFFFF", m, false));
	assert_true(dsa_states_usage(states).memory <= 15 * IMAGE);
	assert_non_null(dsa_states_find(states, 0, "FFFFFF", 0, &layer));
	assert_int_equal(layer, LAYERS - 1);
	dsa_states_close(states);
}

/* Room for the base's five states, those of candidates 1 … 3 in front of layer 4, and one more behind it. */
static void expected_winner_keeps_its_path_behind_the_flip(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(9 * IMAGE, 1);
	static const int likely[] = {4, 2, 3};
	struct dsa_error err;
	int layer;
	assert_int_equal(dsa_states_rebase(states, "FSFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", likely, 3, &err), DSA_OK);
	assert_non_null(keep(states, 0, "FFFFSF", 5, false));
	assert_null(keep(states, 0, "FFSFFF", 5, false));
	dsa_states_expect(states, 2);
	assert_non_null(keep(states, 0, "FFSFFF", 5, false));
	assert_null(keep(states, 0, "FFFSFF", 5, false));
	assert_int_equal(dsa_states_rebase(states, "FFSFFF", NULL, 0, &err), DSA_OK);
	assert_non_null(dsa_states_find(states, 0, "FFSFFS", 0, &layer));
	assert_int_equal(layer, 5);
	dsa_states_close(states);
}

static void winner_asked_alone_takes_the_room_of_the_base_behind_its_flip(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(5 * IMAGE, 1);
	struct dsa_error err;
	int layer;
	for (int m = 1; m < LAYERS; m++)
		assert_non_null(keep(states, 0, "FFFFFF", m, false));
	assert_null(keep(states, 0, "FFSFFF", 3, false));
	for (int m = 3; m < LAYERS; m++)
		assert_non_null(keep(states, 0, "FFSFFF", m, true));
	assert_int_equal(dsa_states_usage(states).memory, 5 * IMAGE);
	assert_int_equal(dsa_states_rebase(states, "FFSFFF", NULL, 0, &err), DSA_OK);
	for (int m = 1; m < LAYERS; m++) {
		char pattern[LAYERS + 1] = "FFSFFF";
		pattern[m] = m == 2 ? 'S' : pattern[m] == 'F' ? 'S' : 'F';
		assert_non_null(dsa_states_find(states, 0, pattern, 0, &layer));
		assert_int_equal(layer, m == 2 ? LAYERS - 1 : m);
	}
	dsa_states_close(states);
}

static void heldout_batches_keep_winners_and_the_base_only(void **unused)
{
	(void)unused;
	static const size_t image[] = {IMAGE, IMAGE};
	static const bool heldout[] = {false, true};
	struct dsa_states *states;
	struct dsa_error err;
	/* Ten states of the base on both batches; ten of candidates on one. */
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 2, image, heldout, 20 * IMAGE, NULL, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 5);
	assert_int_equal(dsa_states_plan(states).candidate, 5);
	assert_non_null(keep(states, 0, "FSFFFF", 3, false));
	assert_null(keep(states, 1, "FSFFFF", 3, false));
	assert_non_null(keep(states, 1, "FSFFFF", 3, true));
	assert_non_null(keep(states, 1, "FFFFFF", 3, false));
	dsa_states_close(states);
}

static void forgotten_state_is_not_found(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	int layer;
	assert_non_null(dsa_states_keep(states, 0, "FFFFFF", 3, false));
	dsa_states_forget(states);
	assert_null(dsa_states_find(states, 0, "FFFFFF", 0, &layer));
	assert_int_equal(dsa_states_usage(states).memory, 0);
	dsa_states_close(states);
}

/* Warnings of a pool, and the last of them. */
static struct {
	int count;
	char text[512];
} warned;

static void warn(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	warned.count += level == DSA_LOG_WARN;
	snprintf(warned.text, sizeof warned.text, "%s", text);
}

enum { PAGE = 4096, BIG = 3 * PAGE - 100 };

/* Images of three blocks on disk, and batch 1's of two. */
static struct dsa_states *open_disk_pool(size_t limit, uint64_t disk_limit)
{
	static const size_t image[2] = {BIG, BIG - PAGE};
	static const struct dsa_log log = {.line = warn};
	const struct dsa_states_disk disk = {.directory = spill_directory(), .limit = disk_limit, .log = &log};
	struct dsa_states *states;
	struct dsa_error err;
	warned.count = 0;
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 2, image, NULL, limit, &disk, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	return states;
}

static size_t bytes_of(int batch)
{
	return batch ? BIG - PAGE : BIG;
}

/* What the state of these letters holds: no two are alike. */
static char content(int batch, const char *pattern, int layer, size_t i)
{
	size_t mix = i * 31 + (size_t)(batch * 7 + layer * 13);
	for (int l = 0; l < layer; l++)
		mix = mix * 3 + (pattern[l] == 'S');
	return (char)(mix ^ mix >> 8);
}

static bool keep_filled(struct dsa_states *states, int batch, const char *pattern, int layer)
{
	char *image = dsa_states_keep(states, batch, pattern, layer, false);
	if (!image)
		return false;
	for (size_t i = 0; i < bytes_of(batch); i++)
		image[i] = content(batch, pattern, layer, i);
	dsa_states_kept(states);
	return true;
}

/* The letters found of pattern, whose state must hold what was put there. */
static int find_filled(struct dsa_states *states, int batch, const char *pattern)
{
	int layer;
	const char *image = dsa_states_find(states, batch, pattern, 0, &layer);
	for (size_t i = 0; image && i < bytes_of(batch); i++)
		assert_int_equal(image[i], content(batch, pattern, layer, i));
	return layer;
}

static const char *const flips[] = {"FFFFFF", "FSFFFF", "FFSFFF", "FFFSFF", "FFFFSF"};
enum { FLIPS = sizeof flips / sizeof *flips };

/* The base's states, then those of each flip behind it. */
static int keep_all(struct dsa_states *states, int batches)
{
	int kept = 0;
	for (int f = 0; f < FLIPS; f++)
		for (int m = f + 1; m < LAYERS; m++)
			for (int b = 0; b < batches; b++)
				kept += keep_filled(states, b, flips[f], m);
	return kept;
}

static void what_memory_cannot_hold_comes_back_from_disk(void **unused)
{
	(void)unused;
	/* Two states and the buffer. */
	struct dsa_states *states = open_disk_pool(3 * BIG, 1 << 20);
	assert_int_equal(dsa_states_plan(states).base, LAYERS - 1);
	assert_int_equal(dsa_states_plan(states).candidate, LAYERS - 1);
	assert_int_equal(keep_all(states, 2), 30);
	for (int round = 0; round < 2; round++)
		for (int f = FLIPS - 1; f >= 0; f--)
			for (int b = 0; b < 2; b++) {
				assert_int_equal(find_filled(states, b, flips[f]), LAYERS - 1);
				char other[LAYERS + 1];
				for (int m = f + 1; m < LAYERS - 1; m++) {
					strcpy(other, flips[f]);
					other[m] = 'X'; /* nothing behind m */
					assert_int_equal(find_filled(states, b, other), m);
				}
			}
	const struct dsa_states_usage usage = dsa_states_usage(states);
	/* One of each batch in memory, the others in whole blocks. */
	assert_int_equal(usage.memory, 3 * BIG - PAGE);
	assert_int_equal(usage.disk, (14 * 3 + 14 * 2) * PAGE);
	assert_true(usage.disk <= dsa_states_plan(states).disk);
	assert_true(usage.reads > 0 && usage.read > 0);
	assert_int_equal(usage.written, 14 * BIG + 14 * (BIG - PAGE));
	assert_int_equal(warned.count, 0);
	dsa_states_close(states);
}

static void both_limits_are_held_and_what_is_planned_fits(void **unused)
{
	(void)unused;
	for (size_t limit = 0; limit <= 12 * BIG; limit += BIG / 2)
		for (uint64_t disk = 0; disk <= 80 * PAGE; disk = disk ? 5 * disk + PAGE : PAGE) {
			struct dsa_states *states = open_disk_pool(limit, disk);
			const struct dsa_states_plan plan = dsa_states_plan(states);
			for (int f = FLIPS - 1; f >= 0; f--)
				for (int m = f + 1; m < LAYERS; m++)
					for (int b = 0; b < 2; b++) {
						keep_filled(states, b, flips[f], m);
						const struct dsa_states_usage usage = dsa_states_usage(states);
						assert_true(usage.memory <= limit);
						assert_true(usage.disk <= disk);
						assert_true(usage.disk <= plan.disk);
					}
			int base = 0;
			for (int m = 1; m < LAYERS; m++) {
				char other[LAYERS + 1] = "FFFFFF";
				other[m] = 'X';
				base += find_filled(states, 0, other) == m && find_filled(states, 1, other) == m;
			}
			assert_true(base >= plan.base);
			struct stat file = {0};
			assert_true(spill_descriptor() < 0 || !fstat(spill_descriptor(), &file));
			assert_true((uint64_t)file.st_size <= disk);
			assert_int_equal(warned.count, 0);
			dsa_states_close(states);
		}
}

static void disk_makes_the_plan_larger(void **unused)
{
	(void)unused;
	struct dsa_error err;
	static const size_t image[] = {PAGE};
	const struct dsa_states_disk none = {.limit = 0}, ten = {.limit = 10 * PAGE};
	struct dsa_states *states;
	/* Five of the base; with the disk's ten the buffer and what two sides may leave free are two less. */
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 1, image, NULL, 5 * PAGE, &none, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 5);
	assert_int_equal(dsa_states_plan(states).candidate, 0);
	assert_int_equal(dsa_states_plan(states).disk, 0);
	dsa_states_close(states);
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 1, image, NULL, 5 * PAGE, &ten, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 5);
	assert_int_equal(dsa_states_plan(states).candidate, 3); /* 5, 3 and 1 mean 4 + 2 + 0 states */
	assert_int_equal(dsa_states_plan(states).disk, 10 * PAGE);
	/* It only plans: no file, nothing is kept beyond memory. */
	for (int m = 1; m < LAYERS; m++)
		(void)keep(states, 0, "FFFFFF", m, false);
	assert_int_equal(dsa_states_usage(states).memory, 4 * PAGE);
	assert_int_equal(dsa_states_usage(states).most_disk, 0);
	dsa_states_close(states);
	/* No room for the buffer: no disk. */
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 1, image, NULL, PAGE - 1, &ten, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 0);
	dsa_states_close(states);
}

static void room_on_disk_is_used_again(void **unused)
{
	(void)unused;
	struct dsa_states *states =
	    open_disk_pool(BIG, 90 * PAGE); /* memory for the buffer alone, disk for thirty of batch 0 */
	struct dsa_error err;
	static const char *const bases[] = {"FFFFFF", "FSSFFF"};
	for (int round = 0; round < 6; round++) {
		if (round)
			assert_int_equal(dsa_states_rebase(states, bases[round % 2], NULL, 0, &err), DSA_OK);
		if (round % 2)
			continue;
		keep_all(states, 1);
		for (int m = 1; m < LAYERS; m++)
			assert_int_equal(find_filled(states, 0, "FFFFFF"), LAYERS - 1);
	}
	/* Never more than the fifteen that are worth keeping. */
	assert_int_equal(dsa_states_usage(states).most_disk, 45 * PAGE);
	assert_true(dsa_states_usage(states).written > 20 * BIG);
	dsa_states_close(states);
}

static void full_disk_ends_spilling_with_one_warning(void **unused)
{
	(void)unused;
	const struct rlimit small = {7 * PAGE, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
	struct dsa_states *states = open_disk_pool(2 * BIG, 1 << 20);
	struct dsa_error err;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	/* One in memory and two on disk; the third does not reach it. */
	for (int m = 1; m < LAYERS; m++)
		assert_int_equal(keep_filled(states, 0, "FFFFFF", m), m <= 4);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
	assert_int_equal(warned.count, 1);
	assert_non_null(strstr(warned.text, "File too large"));
	assert_non_null(strstr(warned.text, spill_directory()));
	/* What was there has given its place to the journal. Nothing more is written; the next plan is one for memory
	 * alone. */
	assert_int_equal(find_filled(states, 0, "FFFFFF"), 1);
	assert_int_equal(dsa_states_usage(states).disk, 0);
	assert_false(keep_filled(states, 0, "FFFFFF", 5));
	assert_int_equal(dsa_states_rebase(states, "FFFFFS", NULL, 0, &err), DSA_OK);
	assert_int_equal(dsa_states_plan(states).base, 0);
	assert_int_equal(dsa_states_plan(states).disk, 0);
	assert_int_equal(warned.count, 1);
	dsa_states_close(states);
}

static void damaged_state_is_not_found(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_disk_pool(2 * BIG, 1 << 20);
	for (int m = 1; m < LAYERS; m++)
		assert_true(keep_filled(states, 0, "FFFFFF", m)); /* 1 in memory, the file holds 2, 3, 4, 5 */
	spill_damage(9 * PAGE + BIG - 1, 7);
	spill_damage(3 * PAGE, 0);
	assert_int_equal(find_filled(states, 0, "FFFFFF"), 4);
	assert_int_equal(warned.count, 1);
	assert_non_null(strstr(warned.text, "is not what was written"));
	assert_int_equal(find_filled(states, 0, "FFFXFF"), 2);
	assert_int_equal(find_filled(states, 0, "FFFFFF"), 4);
	assert_int_equal(ftruncate(spill_descriptor(), 0), 0);
	assert_int_equal(find_filled(states, 0, "FFFFFF"), 1);
	assert_int_equal(warned.count, 1); /* no more than one line of it */
	assert_int_equal(dsa_states_usage(states).disk, 0);
	dsa_states_close(states);
}

static void forgotten_state_leaves_nothing_on_disk(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_disk_pool(BIG, 1 << 20);
	int layer;
	assert_non_null(dsa_states_keep(states, 0, "FFFFFF", 2, false));
	dsa_states_forget(states);
	assert_null(dsa_states_find(states, 0, "FFFFFF", 0, &layer));
	assert_int_equal(dsa_states_usage(states).written, 0);
	assert_true(keep_filled(states, 0, "FFFFFF", 2));
	assert_int_equal(find_filled(states, 0, "FFFFFF"), 2);
	assert_non_null(dsa_states_keep(states, 0, "FFFFFF", 3, false));
	dsa_states_close(states); /* while one is being filled */
}

/* A search as an evaluator does it: every candidate of a step on batch 0, its winner on the held-out batch 1 too. */
static size_t most_of_search(int steps)
{
	static const bool heldout[] = {false, true};
	const size_t image[] = {IMAGE, IMAGE};
	char base[LAYERS + 1] = "FFFFFF", pattern[LAYERS + 1];
	struct dsa_states *states;
	struct dsa_error err;
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 2, image, heldout, 1 << 20, NULL, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, base, NULL, 0, &err), DSA_OK);
	const struct dsa_states_plan plan = dsa_states_plan(states);
	for (int b = 0; b < 2; b++)
		for (int m = 1; m < LAYERS; m++)
			keep(states, b, base, m, false);
	for (int step = 0; step < steps; step++) {
		for (int l = 1; l < LAYERS; l++) {
			strcpy(pattern, base);
			pattern[l] = 'S';
			for (int m = l + 1; m < LAYERS && base[l] == 'F'; m++)
				keep(states, 0, pattern, m, false);
		}
		base[1 + step] = 'S';
		for (int m = 2 + step; m < LAYERS; m++)
			keep(states, 1, base, m, true);
		assert_int_equal(dsa_states_rebase(states, base, NULL, 0, &err), DSA_OK);
	}
	const size_t most = dsa_states_usage(states).most_memory;
	assert_true(most <= plan.memory);
	assert_int_equal(dsa_states_plan(states).memory, plan.memory);
	dsa_states_close(states);
	return most;
}

static void a_search_takes_what_was_planned_and_no_more(void **unused)
{
	(void)unused;
	/* Five layers to be flipped: five states of the base and ten of candidates; held out, five and the winner's
	 * four.
	 */
	assert_int_equal(most_of_search(1), (15 + 9) * IMAGE);
	assert_int_equal(most_of_search(LAYERS - 1), (15 + 9) * IMAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(longest_kept_prefix_is_found),
	    cmocka_unit_test(only_what_a_candidate_can_start_from_is_kept),
	    cmocka_unit_test(nothing_is_kept_in_front_of_layers_that_nobody_flips),
	    cmocka_unit_test(pool_never_holds_more_than_its_limit),
	    cmocka_unit_test(plan_thins_the_base_before_it_gives_candidates_anything),
	    cmocka_unit_test(likely_layers_are_kept_first),
	    cmocka_unit_test(base_path_takes_room_from_candidates),
	    cmocka_unit_test(expected_winner_keeps_its_path_behind_the_flip),
	    cmocka_unit_test(winner_asked_alone_takes_the_room_of_the_base_behind_its_flip),
	    cmocka_unit_test(a_search_takes_what_was_planned_and_no_more),
	    cmocka_unit_test(heldout_batches_keep_winners_and_the_base_only),
	    cmocka_unit_test(forgotten_state_is_not_found),
	    cmocka_unit_test(what_memory_cannot_hold_comes_back_from_disk),
	    cmocka_unit_test(both_limits_are_held_and_what_is_planned_fits),
	    cmocka_unit_test(disk_makes_the_plan_larger),
	    cmocka_unit_test(room_on_disk_is_used_again),
	    cmocka_unit_test(full_disk_ends_spilling_with_one_warning),
	    cmocka_unit_test(damaged_state_is_not_found),
	    cmocka_unit_test(forgotten_state_leaves_nothing_on_disk),
	};
	signal(SIGXFSZ, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, spill_set_up, spill_tear_down);
}
