/* What goes wrong with layers that are not resident: named, freed, and over with once the cause is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "dsa/residency.h"
#include "residency_fixture.h"

/* Where it succeeds the layer is what it should be. */
static enum dsa_status acquire(struct beside *b, int layer)
{
	const struct dsa_layer *got;
	golden_error.text[0] = 0;
	const enum dsa_status status = dsa_model_acquire(b->streamed.model, layer, &got, &golden_error);
	if (!status)
		compare_layer(b, layer, got, "what can fail");
	return status;
}

static void assert_error(enum dsa_status status, enum dsa_status expected, const char *words)
{
	if (status != expected || !strstr(golden_error.text, words))
		fail_msg("status %d, expected %d and \"%s\": %s", (int)status, (int)expected, words, golden_error.text);
}

/* Damaged only once the resident model is open. */
static void a_number_that_is_not_finite_is_named_when_its_layer_comes_first(void **state)
{
	(void)state;
	static const struct {
		const char *golden, *tensor;
		int64_t index;
		uint32_t bits;
		const char *words;
	} bad[] = {
	    {"glm-all-full", "model.layers.2.self_attn.o_proj.weight", 45 * 3 + 7, 0x7fc00000,
	     "tensor model.layers.2.self_attn.o_proj.weight: row 3, column 7: NaN"},
	    {"v32-groups-yarn", "model.layers.2.mlp.experts.11.up_proj.weight", 5, 0x7f80,
	     "tensor model.layers.2.mlp.experts.11.up_proj.weight: row 0, column 5: infinity"},
	    {"glm-fp8-blocks", "model.layers.2.self_attn.o_proj.weight", 45 * 3 + 7, 0x7f,
	     "tensor model.layers.2.self_attn.o_proj.weight: row 3, column 7: NaN"},
	    {"glm-fp8-ue8m0", "model.layers.2.mlp.experts.gate_up_proj", (2 * 140 + 139) * 144 + 5, 0xff,
	     "tensor model.layers.2.mlp.experts.gate_up_proj: expert 2: row 139, column 5: NaN"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		for (int form = 0; form < 2; form++) {
			struct beside b;
			copy_golden(bad[i].golden);
			if (form)
				misalign();
			beside_open(&b);
			const char *path = patch(bad[i].tensor, bad[i].index, bad[i].bits);
			for (int letter = 0; letter < 2; letter++) {
				const char *letters = letter ? "K" : "H";
				beside_stream(&b, letters);
				for (int again = 0; again < 2; again++) {
					assert_layer(&b, 0, letters);
					assert_layer(&b, 1, letters);
					assert_error(acquire(&b, 2), DSA_E_NUMERIC, bad[i].words);
					assert_non_null(strstr(golden_error.text, path));
					assert_error(acquire(&b, 2), DSA_E_NUMERIC, bad[i].words);
				}
				assert_layer(&b, 1, letters);
				beside_stop(&b);
			}
			/* What is to stay on the device has been looked at before the model is open. */
			assert_error(beside_try(&b, "SSSSS"), DSA_E_NUMERIC, bad[i].words);
			assert_null(b.streamed.model);
			assert_int_equal(watch.blocks, 0);
			beside_close(&b);
		}
}

/* The file's bytes, which a test restores. */
static uint8_t kept[1 << 20];

static struct timespec kept_times[2]; /* of access, of change */

static size_t keep_file(const char *path)
{
	struct stat found;
	FILE *file = fopen(path, "rb");
	assert_int_equal(stat(path, &found), 0);
	kept_times[0] = found.st_atim;
	kept_times[1] = found.st_mtim;
	assert_non_null(file);
	const size_t bytes = fread(kept, 1, sizeof kept, file);
	assert_int_equal(fclose(file), 0);
	assert_true(bytes < sizeof kept);
	return bytes;
}

static void restore_file(const char *path, size_t bytes)
{
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	assert_int_equal(fwrite(kept, 1, bytes, file), bytes);
	assert_int_equal(fclose(file), 0);
	/* As a copy that keeps them puts it back. */
	assert_int_equal(utimensat(AT_FDCWD, path, kept_times, 0), 0);
}

/* A model beside itself whose one file, whole bytes long, is kept. */
static size_t open_copy(struct beside *b, char *path, size_t room)
{
	copy_golden("glm-all-full");
	beside_open(b);
	snprintf(path, room, "%s/model.safetensors", dir);
	return keep_file(path);
}

/* The same bytes written again may be others as well as not. */
static void a_file_that_is_written_to_is_said(void **state)
{
	(void)state;
	struct beside b;
	char path[128], words[256];
	const size_t whole = open_copy(&b, path, sizeof path);
	beside_stream(&b, "K");
	for (int l = 0; l < b.layers; l++)
		assert_layer(&b, l, "K");
	restore_file(path, whole);
	for (int l = 0; l < 2 * b.layers; l++)
		assert_layer(&b, l % b.layers, "K");
	kept_times[1].tv_nsec ^= 1;
	restore_file(path, whole);
	snprintf(words, sizeof words, "%s: the file was written to since the run began", path);
	int failed = 0;
	for (int l = 0; l < 2 * b.layers; l++) {
		const enum dsa_status status = acquire(&b, l % b.layers);
		if (status)
			assert_error(status, DSA_E_IO, words);
		failed += status != DSA_OK;
	}
	assert_true(failed >= b.layers);
	beside_stop(&b);
	beside_close(&b);
}

static void a_file_that_became_shorter_is_said_and_serves_again_once_it_is_whole(void **state)
{
	(void)state;
	struct beside b;
	char path[128], words[256];
	const size_t whole = open_copy(&b, path, sizeof path);
	/* Behind whole pages, inside one, and nothing at all. */
	const size_t sizes[] = {whole / 2 / 4096 * 4096, whole / 3 + 1, 4095, 1, 0};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		for (int seen = 0; seen < 2; seen++) {
			int failed = 0;
			beside_stream(&b, "K");
			for (int l = 0; l < b.layers && seen; l++)
				assert_layer(&b, l, "K");
			assert_int_equal(truncate(path, (off_t)sizes[i]), 0);
			snprintf(words, sizeof words, "%s: the file ends at byte %zu, where it was longer", path,
			         sizes[i]);
			for (int n = 0; n < 6 * b.layers; n++) { /* each twice: what is half there is not there */
				const enum dsa_status status = acquire(&b, n / 2 % b.layers);
				if (status)
					assert_error(status, DSA_E_IO, words);
				failed += status != DSA_OK;
			}
			assert_true(failed >= 2 * b.layers);
			restore_file(path, whole);
			/* One more may fail by what was read ahead of it. */
			(void)!acquire(&b, 0);
			for (int l = 0; l < 3 * b.layers; l++)
				assert_layer(&b, l % b.layers, "K");
			beside_stop(&b);
		}
	/* In host memory everything has been read. */
	beside_stream(&b, "HS");
	assert_int_equal(truncate(path, 100), 0);
	for (int l = 0; l < 3 * b.layers; l++)
		assert_layer(&b, l % b.layers, "HS");
	beside_stop(&b);
	beside_close(&b);
}

static void a_shard_may_be_unlinked_once_the_model_is_open_but_not_before(void **state)
{
	(void)state;
	struct beside b;
	char path[128];
	copy_golden("glm-fp8-ue8m0");
	beside_open(&b);
	snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", dir);
	beside_stream(&b, "K");
	const size_t bytes = keep_file(path);
	assert_int_equal(unlink(path), 0);
	for (int l = 0; l < 3 * b.layers; l++)
		assert_layer(&b, l % b.layers, "K");
	beside_stop(&b);
	FILE *file = fopen(path, "wb");
	assert_true(file && fwrite(kept, 1, bytes, file) == bytes && !fclose(file));
	/* Between the headers and the layers. */
	const int files = count_own("fd"), threads = count_own("task");
	watch.removed = path;
	assert_error(beside_try(&b, "K"), DSA_E_IO, "model-00002-of-00002.safetensors: No such file");
	assert_null(b.streamed.model);
	assert_int_equal(watch.blocks, 0);
	assert_int_equal(count_own("fd"), files);
	assert_int_equal(count_own("task"), threads);
	beside_close(&b);
}

static void memory_that_runs_out_anywhere_is_said_and_all_is_given_back(void **state)
{
	(void)state;
	static const char *const placings[] = {"S", "H", "K", "SHK"};
	struct beside b;
	copy_golden("glm-all-full");
	beside_open(&b);
	const int files = count_own("fd"), threads = count_own("task");
	for (size_t p = 0; p < sizeof placings / sizeof *placings; p++) {
		int granted = 0, pinned = 0;
		for (;; granted++) {
			watch.allowed = granted;
			const enum dsa_status status = beside_try(&b, placings[p]);
			if (!status)
				break;
			assert_error(status, DSA_E_MEMORY, "no ");
			pinned += strstr(golden_error.text, "no host memory for weights on their way") &&
			          strstr(golden_error.text, "lower --host-memory");
			assert_null(b.streamed.model);
			assert_int_equal(watch.blocks, 0);
			assert_int_equal(count_own("fd"), files);
			assert_int_equal(count_own("task"), threads);
		}
		watch.allowed = -1;
		for (int l = 0; l < b.layers; l++)
			assert_layer(&b, l, placings[p]);
		beside_stop(&b);
		/* Outside, rotary tables, block; then landings, staging, images, and what images pass through. */
		static const int requests[] = {3 + 4 + 1, 3 + 2 + 4, 3 + 2 + 2, 3 + 2 + 2 + 2 + 1},
				 of_host[] = {1, 4, 2, 3};
		assert_int_equal(granted, requests[p]);
		assert_int_equal(pinned, of_host[p]);
	}
	beside_close(&b);
}

static void a_fetch_that_fails_is_said_and_the_next_one_serves(void **state)
{
	(void)state;
	struct beside b;
	copy_golden("glm-all-full");
	beside_open(&b);
	for (int letter = 0; letter < 2; letter++) {
		const char *letters = letter ? "K" : "H";
		beside_stream(&b, letters);
		for (int l = 0; l < b.layers; l++)
			assert_layer(&b, l, letters);
		for (int n = 0, failed = 0; failed < 20; n++) {
			const int layer = n % 3 ? n % b.layers : below(b.layers);
			watch.failing = 1;
			const enum dsa_status status = acquire(&b, layer);
			watch.failing = 0;
			if (status)
				assert_error(status, DSA_E_DEVICE, "the bus is down");
			failed += status != DSA_OK;
			assert_layer(&b, layer, letters);
			assert_layer(&b, (layer + 1) % b.layers, letters);
		}
		beside_stop(&b);
	}
	beside_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_number_that_is_not_finite_is_named_when_its_layer_comes_first, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(a_file_that_is_written_to_is_said, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_file_that_became_shorter_is_said_and_serves_again_once_it_is_whole,
	                                    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_shard_may_be_unlinked_once_the_model_is_open_but_not_before, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(memory_that_runs_out_anywhere_is_said_and_all_is_given_back, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(a_fetch_that_fails_is_said_and_the_next_one_serves, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
