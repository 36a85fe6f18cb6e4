/* arena_fixture.h: an arena for each test of a program, and room for a message: cmocka_unit_test_setup_teardown(test,
 * set_up, tear_down). */
#ifndef DSA_TESTS_ARENA_FIXTURE_H
#define DSA_TESTS_ARENA_FIXTURE_H

#include "dsa/arena.h"
#include "dsa/status.h"

static struct dsa_arena arena;

static int set_up(void **state)
{
	(void)state;
	dsa_arena_init(&arena);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	dsa_arena_release(&arena);
	return 0;
}

#endif
