#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "dsa/states.h"

enum { LAYERS = 6, IMAGE = 100 };

static struct dsa_states *open_pool(size_t limit, int batches)
{
	size_t image[4] = {IMAGE, IMAGE, IMAGE, IMAGE};
	struct dsa_states *states;
	struct dsa_error err;
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, batches, image, NULL, limit, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	return states;
}

static void longest_kept_prefix_is_found(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	int layer;
	assert_null(dsa_states_find(states, 0, "FFFFFF", &layer));
	assert_int_equal(layer, 0);
	void *two = dsa_states_keep(states, 0, "FFFFFF", 2, false),
	     *four = dsa_states_keep(states, 0, "FFFFFF", 4, false);
	assert_non_null(two);
	assert_non_null(four);
	assert_ptr_equal(dsa_states_find(states, 0, "FFFFSF", &layer), four);
	assert_int_equal(layer, 4);
	assert_ptr_equal(dsa_states_find(states, 0, "FFFSFF", &layer), two);
	assert_int_equal(layer, 2);
	assert_null(dsa_states_find(states, 0, "FSFFFF", &layer));
	assert_null(dsa_states_keep(states, 0, "FFFFFF", 4, false)); /* is there already */
	dsa_states_close(states);
}

static void only_what_a_candidate_can_start_from_is_kept(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	struct dsa_error err;
	int layer;
	assert_non_null(dsa_states_keep(states, 0, "FSFFFF", 3, false)); /* one letter changed */
	assert_non_null(dsa_states_keep(states, 0, "FFFSFF", 5, false));
	assert_null(dsa_states_keep(states, 0, "FSSFFF", 3, false)); /* two */
	assert_null(dsa_states_keep(states, 0, "FFFFFF", 0, false));
	assert_null(dsa_states_keep(states, 0, "FFFFFF", LAYERS, false));
	/* Layer 3 is committed: FFFSF is now the base's own path, FSF one letter away. */
	assert_int_equal(dsa_states_rebase(states, "FFFSFF", NULL, 0, &err), DSA_OK);
	assert_non_null(dsa_states_find(states, 0, "FFFSFS", &layer));
	assert_int_equal(layer, 5);
	assert_non_null(dsa_states_find(states, 0, "FSFSFF", &layer));
	assert_int_equal(layer, 3);
	/* Layer 4 instead: FFFSF would be two letters away. */
	assert_int_equal(dsa_states_rebase(states, "FFFFSF", NULL, 0, &err), DSA_OK);
	assert_null(dsa_states_find(states, 0, "FFFSSF", &layer));
	assert_non_null(dsa_states_find(states, 0, "FSFFSF", &layer));
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
					void *image = dsa_states_keep(states, batch, pattern, layer, false);
					if (image)
						memset(image, 7, IMAGE);
					assert_true(dsa_states_bytes(states) <= limit);
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
		int base, candidate;
		dsa_states_plan(states, &base, &candidate);
		assert_int_equal(base, expected[i].base);
		assert_int_equal(candidate, expected[i].candidate);
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
	int base, candidate;
	assert_int_equal(dsa_states_rebase(states, "FFFFFS", likely, 3, &err), DSA_OK);
	dsa_states_plan(states, &base, &candidate);
	assert_int_equal(base, 4); /* layer 5 is no candidate any more */
	assert_int_equal(candidate, 2);
	assert_non_null(dsa_states_keep(states, 0, "FFSFFS", 4, false));
	assert_non_null(dsa_states_keep(states, 0, "FSFFFS", 2, false));
	assert_null(dsa_states_keep(states, 0, "FSFFFS", 3, false));
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
			assert_non_null(dsa_states_keep(states, 0, candidates[c], m, false));
	for (int m = 1; m < LAYERS; m++)
		assert_non_null(dsa_states_keep(states, 0, "FFFFFF", m, false));
	assert_true(dsa_states_bytes(states) <= 15 * IMAGE);
	assert_non_null(dsa_states_find(states, 0, "FFFFFF", &layer));
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
	assert_non_null(dsa_states_keep(states, 0, "FFFFSF", 5, false));
	assert_null(dsa_states_keep(states, 0, "FFSFFF", 5, false));
	dsa_states_expect(states, 2);
	assert_non_null(dsa_states_keep(states, 0, "FFSFFF", 5, false));
	assert_null(dsa_states_keep(states, 0, "FFFSFF", 5, false));
	assert_int_equal(dsa_states_rebase(states, "FFSFFF", NULL, 0, &err), DSA_OK);
	assert_non_null(dsa_states_find(states, 0, "FFSFFS", &layer));
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
		assert_non_null(dsa_states_keep(states, 0, "FFFFFF", m, false));
	assert_null(dsa_states_keep(states, 0, "FFSFFF", 3, false));
	for (int m = 3; m < LAYERS; m++)
		assert_non_null(dsa_states_keep(states, 0, "FFSFFF", m, true));
	assert_int_equal(dsa_states_bytes(states), 5 * IMAGE);
	assert_int_equal(dsa_states_rebase(states, "FFSFFF", NULL, 0, &err), DSA_OK);
	for (int m = 1; m < LAYERS; m++) {
		char pattern[LAYERS + 1] = "FFSFFF";
		pattern[m] = m == 2 ? 'S' : pattern[m] == 'F' ? 'S' : 'F';
		assert_non_null(dsa_states_find(states, 0, pattern, &layer));
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
	int base, candidate;
	/* Ten states of the base on both batches; ten of candidates on one. */
	assert_int_equal(dsa_states_open(&states, NULL, LAYERS, 2, image, heldout, 20 * IMAGE, &err), DSA_OK);
	assert_int_equal(dsa_states_rebase(states, "FFFFFF", NULL, 0, &err), DSA_OK);
	dsa_states_plan(states, &base, &candidate);
	assert_int_equal(base, 5);
	assert_int_equal(candidate, 5);
	assert_non_null(dsa_states_keep(states, 0, "FSFFFF", 3, false));
	assert_null(dsa_states_keep(states, 1, "FSFFFF", 3, false));
	assert_non_null(dsa_states_keep(states, 1, "FSFFFF", 3, true));
	assert_non_null(dsa_states_keep(states, 1, "FFFFFF", 3, false));
	dsa_states_close(states);
}

static void forgotten_state_is_not_found(void **unused)
{
	(void)unused;
	struct dsa_states *states = open_pool(1 << 20, 1);
	int layer;
	void *image = dsa_states_keep(states, 0, "FFFFFF", 3, false);
	assert_non_null(image);
	dsa_states_forget(states, 0, image);
	assert_null(dsa_states_find(states, 0, "FFFFFF", &layer));
	assert_int_equal(dsa_states_bytes(states), 0);
	dsa_states_close(states);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(longest_kept_prefix_is_found),
	    cmocka_unit_test(only_what_a_candidate_can_start_from_is_kept),
	    cmocka_unit_test(pool_never_holds_more_than_its_limit),
	    cmocka_unit_test(plan_thins_the_base_before_it_gives_candidates_anything),
	    cmocka_unit_test(likely_layers_are_kept_first),
	    cmocka_unit_test(base_path_takes_room_from_candidates),
	    cmocka_unit_test(expected_winner_keeps_its_path_behind_the_flip),
	    cmocka_unit_test(winner_asked_alone_takes_the_room_of_the_base_behind_its_flip),
	    cmocka_unit_test(heldout_batches_keep_winners_and_the_base_only),
	    cmocka_unit_test(forgotten_state_is_not_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
