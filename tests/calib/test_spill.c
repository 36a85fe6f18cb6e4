#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dsa/spill.h"
#include "spill_file.h"

enum { KIB = 1024, LARGE = 300 * KIB, SMALL = 20 * KIB };

static struct dsa_spill *open_spill(uint64_t limit, size_t image, bool zstd)
{
	struct dsa_spill *spill;
	struct dsa_error err;
	const struct dsa_spill_options options = {
	    .directory = spill_directory(), .limit = limit, .image = image, .zstd = zstd};
	assert_int_equal(dsa_spill_open(&spill, &options, &err), DSA_OK);
	return spill;
}

/* Bytes that no compressor makes fewer of, or many equal ones. */
static char *made(size_t bytes, uint32_t seed, bool dull)
{
	char *image = malloc(bytes);
	assert_non_null(image);
	for (size_t i = 0; i < bytes; i++) {
		seed = seed * 1664525u + 1013904223u;
		image[i] = dull ? (char)(i / 1000 + seed % 2) : (char)(seed >> 24);
	}
	return image;
}

static struct dsa_spilled written(struct dsa_spill *spill, size_t bytes, uint32_t seed, bool dull)
{
	struct dsa_error err = {""};
	struct dsa_spilled at;
	char *image = made(bytes, seed, dull);
	assert_true(dsa_spill_fits(spill, bytes));
	if (dsa_spill_write(spill, image, bytes, &at, &err))
		fail_msg("%s", err.text);
	free(image);
	return at;
}

static void assert_comes_back(struct dsa_spill *spill, const struct dsa_spilled *at, uint32_t seed, bool dull)
{
	struct dsa_error err = {""};
	char *expected = made(at->bytes, seed, dull), *found = malloc(at->bytes);
	assert_non_null(found);
	if (dsa_spill_read(spill, at, found, &err))
		fail_msg("%s", err.text);
	assert_memory_equal(found, expected, at->bytes);
	free(expected);
	free(found);
}

static void images_come_back_bit_equal(void **unused)
{
	(void)unused;
	static const size_t sizes[] = {1, 7, 4095, 4096, 4097, LARGE, SMALL, 3 * 1024 * KIB + 5};
	enum { SIZES = sizeof sizes / sizeof *sizes };
	for (int kind = 0; kind < 4; kind++) {
		const bool zstd = kind & 1, dull = kind & 2;
		struct dsa_spill *spill = open_spill(64u << 20, SMALL, zstd);
		struct dsa_spilled at[SIZES];
		for (int i = 0; i < SIZES; i++)
			at[i] = written(spill, sizes[i], (uint32_t)i, dull);
		for (int i = SIZES - 1; i >= 0; i--)
			assert_comes_back(spill, &at[i], (uint32_t)i, dull);
		const struct dsa_spill_usage *usage = dsa_spill_usage(spill);
		assert_int_equal(usage->reads, SIZES);
		assert_int_equal(usage->read, usage->written);
		if (zstd && dull)
			assert_true(usage->written * 10 < usage->spilled);
		if (!zstd)
			assert_int_equal(usage->written, usage->spilled);
		dsa_spill_close(spill);
	}
}

/* Blocks of 4 KiB: 75 for a large image, 5 for a small one. */
static void blocks_are_used_again_and_the_limit_is_held(void **unused)
{
	(void)unused;
	struct dsa_spill *spill = open_spill(155 * 4096 + 4095, SMALL, false);
	struct dsa_spilled first = written(spill, LARGE, 1, false), second = written(spill, LARGE, 2, false);
	assert_true(dsa_spill_fits(spill, SMALL));
	assert_false(dsa_spill_fits(spill, SMALL + 1));
	assert_int_equal(dsa_spill_room(spill, LARGE), 155 * 4096);
	struct dsa_spilled third = written(spill, SMALL, 3, false);
	assert_false(dsa_spill_fits(spill, 1));
	assert_int_equal(dsa_spill_usage(spill)->bytes, 155 * 4096);
	/* What one large image leaves takes fifteen small ones, wherever its blocks lie. */
	dsa_spill_drop(spill, &first);
	struct dsa_spilled small[15];
	for (uint32_t i = 0; i < 15; i++)
		small[i] = written(spill, SMALL, 10 + i, false);
	assert_false(dsa_spill_fits(spill, 1));
	for (uint32_t i = 0; i < 15; i += 2)
		dsa_spill_drop(spill, &small[i]);
	struct dsa_spilled scattered = written(spill, 8 * SMALL - 1, 4, false);
	assert_comes_back(spill, &scattered, 4, false);
	assert_comes_back(spill, &second, 2, false);
	assert_comes_back(spill, &third, 3, false);
	for (uint32_t i = 1; i < 15; i += 2)
		assert_comes_back(spill, &small[i], 10 + i, false);
	struct stat file;
	assert_int_equal(fstat(spill_descriptor(), &file), 0);
	assert_true(file.st_size <= 155 * 4096);
	assert_int_equal(dsa_spill_usage(spill)->most, 155 * 4096);
	dsa_spill_close(spill);
}

static void nothing_of_it_is_seen_in_the_directory(void **unused)
{
	(void)unused;
	struct dsa_spill *spill = open_spill(1 << 20, SMALL, false);
	assert_int_equal(spill_descriptor(), -1); /* not before it is needed */
	struct dsa_spilled at = written(spill, LARGE, 1, false);
	assert_true(spill_descriptor() >= 0);
	assert_int_equal(rmdir(spill_directory()), 0); /* it is empty */
	assert_comes_back(spill, &at, 1, false);
	dsa_spill_close(spill);
	assert_int_equal(mkdir(spill_directory(), 0700), 0);
}

static void a_write_that_fails_takes_nothing(void **unused)
{
	(void)unused;
	const struct rlimit small = {10 * 4096, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
	for (int zstd = 0; zstd < 2; zstd++) {
		struct dsa_spill *spill = open_spill(1 << 20, SMALL, zstd);
		struct dsa_spilled at = written(spill, SMALL, 1, false), other;
		struct dsa_error err = {""};
		const uint64_t before = dsa_spill_usage(spill)->bytes;
		char *image = made(LARGE, 2, false);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		assert_int_equal(dsa_spill_write(spill, image, LARGE, &other, &err), DSA_E_IO);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
		assert_non_null(strstr(err.text, spill_directory()));
		assert_non_null(strstr(err.text, "File too large"));
		assert_int_equal(dsa_spill_usage(spill)->bytes, before);
		assert_comes_back(spill, &at, 1, false);
		struct dsa_spilled again = written(spill, LARGE, 2, false);
		assert_comes_back(spill, &again, 2, false);
		free(image);
		dsa_spill_close(spill);
	}
}

static void a_directory_that_is_not_there_is_an_error(void **unused)
{
	(void)unused;
	struct dsa_spill *spill;
	struct dsa_spilled at;
	struct dsa_error err = {""};
	const struct dsa_spill_options options = {.directory = "/nonexistent/run", .limit = 1 << 20, .image = 100};
	assert_int_equal(dsa_spill_open(&spill, &options, &err), DSA_OK);
	assert_int_equal(dsa_spill_write(spill, "x", 1, &at, &err), DSA_E_IO);
	assert_non_null(strstr(err.text, "/nonexistent/run"));
	assert_int_equal(dsa_spill_usage(spill)->bytes, 0);
	dsa_spill_close(spill);
}

/* Each single bit, and the end missing. */
static void damage_is_noticed(void **unused)
{
	(void)unused;
	for (int zstd = 0; zstd < 2; zstd++) {
		struct dsa_spill *spill = open_spill(1 << 20, SMALL, zstd);
		struct dsa_spilled at = written(spill, LARGE, 5, false);
		struct dsa_error err = {""};
		char *found = malloc(LARGE);
		assert_non_null(found);
		for (off_t where = 3; where < (off_t)at.stored; where += 33333)
			for (int bit = 0; bit < 8; bit++) {
				spill_damage(where, bit);
				assert_int_equal(dsa_spill_read(spill, &at, found, &err), DSA_E_IO);
				assert_non_null(strstr(err.text, "spilled state"));
				spill_damage(where, bit);
			}
		assert_comes_back(spill, &at, 5, false);
		assert_int_equal(ftruncate(spill_descriptor(), LARGE / 2), 0);
		assert_int_equal(dsa_spill_read(spill, &at, found, &err), DSA_E_IO);
		assert_non_null(strstr(err.text, "ends too early"));
		free(found);
		dsa_spill_close(spill);
	}
}

/* The heaps of sanitizers and of valgrind are not in mallinfo2(). */
static bool heap_is_counted(void)
{
	const struct mallinfo2 before = mallinfo2();
	char *volatile block = malloc(LARGE);
	const struct mallinfo2 after = mallinfo2();
	free(block);
	return after.uordblks + after.hblkhd != before.uordblks + before.hblkhd;
}

static void compressing_takes_the_memory_that_is_reserved_for_it(void **unused)
{
	(void)unused;
	if (!heap_is_counted())
		return;
	const size_t images[] = {SMALL, 70 * KIB, LARGE, 2048 * KIB, 9000 * KIB};
	struct dsa_error err = {""};
	for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
		struct dsa_spill *spill = open_spill(64 << 20, images[i], true);
		const struct mallinfo2 before = mallinfo2();
		struct dsa_spilled at = written(spill, images[i], 3, false);
		char *image = malloc(images[i]);
		assert_non_null(image);
		assert_int_equal(dsa_spill_read(spill, &at, image, &err), DSA_OK);
		free(image);
		const struct mallinfo2 after = mallinfo2();
		const size_t taken = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
		const size_t reserved = dsa_spill_memory(true, images[i]);
		if (taken > reserved || taken < reserved / 2)
			fail_msg("images of %zu bytes: %zu taken, %zu reserved", images[i], taken, reserved);
		assert_int_equal(dsa_spill_memory(false, images[i]), 0);
		dsa_spill_drop(spill, &at);
		dsa_spill_close(spill);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(compressing_takes_the_memory_that_is_reserved_for_it),
	    cmocka_unit_test(images_come_back_bit_equal),
	    cmocka_unit_test(blocks_are_used_again_and_the_limit_is_held),
	    cmocka_unit_test(nothing_of_it_is_seen_in_the_directory),
	    cmocka_unit_test(a_write_that_fails_takes_nothing),
	    cmocka_unit_test(a_directory_that_is_not_there_is_an_error),
	    cmocka_unit_test(damage_is_noticed),
	};
	signal(SIGXFSZ, SIG_IGN); /* as the program does */
	return cmocka_run_group_tests(tests, spill_set_up, spill_tear_down);
}
