#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/fake_tokenizer.h"
#include "data/scratch.h"
#include "dsa/spool.h"

/* Documents of these lengths, all different, a quarter of them held out. */
static struct dsa_spool *written(struct scratch *scratch, const int *tokens, int count, int batch_tokens, int batches)
{
	static const struct dsa_tokenizer tokenizer;
	struct dsa_error err;
	struct dsa_spool *spool;
	char path[300];
	const char *corpus = scratch_path(scratch, "documents.jsonl");
	FILE *file = fopen(corpus, "w");
	assert_non_null(file);
	for (int i = 0; i < count; i++) {
		fputs("{\"input_ids\":[", file);
		for (int t = 0; t < tokens[i]; t++)
			fprintf(file, "%s%d", t ? "," : "", (i + t) % 97);
		fputs("]}\n", file);
	}
	assert_int_equal(fclose(file), 0);
	snprintf(path, sizeof path, "%s/tokens", scratch->root);
	const struct dsa_corpus_source source = {.path = corpus, .weight = 1};
	const struct dsa_spool_options options = {.sources = &source,
	                                          .count = 1,
	                                          .context = 24,
	                                          .topk = 8,
	                                          .holdout = 0.25,
	                                          .batch_tokens = batch_tokens,
	                                          .batches = batches};
	if (dsa_spool_write(path, &options, &tokenizer, FAKE_VOCAB, NULL, &err))
		fail_msg("%s", err.text);
	if (dsa_spool_open(&spool, path, &err))
		fail_msg("%s", err.text);
	return spool;
}

static void assert_batches(void **state, int batch_tokens, int wanted, int calibration, int heldout)
{
	static const int tokens[] = {12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12};
	struct dsa_spool *spool = written(*state, tokens, 16, batch_tokens, wanted);
	int found[DSA_SPLITS] = {0};
	for (int b = 0; b < dsa_spool_batches(spool); b++)
		found[dsa_spool_batch(spool, b)->split]++;
	assert_int_equal(found[DSA_CALIBRATION], calibration);
	assert_int_equal(found[DSA_HELDOUT], heldout);
	dsa_spool_close(spool);
}

/* 12 documents of 12 tokens to calibrate on, 4 held out. */
static void batches_are_made_smaller_until_there_are_as_many_as_wanted(void **state)
{
	assert_batches(state, 1000, 0, 1, 1);
	assert_batches(state, 1000, 1, 1, 1);
	assert_batches(state, 1000, 4, 4, 2);
	assert_batches(state, 1000, 6, 6, 2);
	assert_batches(state, 1000, 100, 12, 4); /* none is smaller than a document */
	assert_batches(state, 24, 2, 6, 2);      /* none larger than asked for */
}

static void none_is_smaller_than_the_longest_document(void **state)
{
	static const int tokens[] = {24, 10, 10, 10, 10, 10, 10, 10};
	struct dsa_spool *spool = written(*state, tokens, 8, 1000, 100);
	for (int b = 0; b < dsa_spool_batches(spool); b++)
		assert_true(dsa_spool_batch(spool, b)->tokens <= 24);
	assert_true(dsa_spool_batches(spool) < 8);
	dsa_spool_close(spool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(batches_are_made_smaller_until_there_are_as_many_as_wanted, scratch_open,
	                                    scratch_close),
	    cmocka_unit_test_setup_teardown(none_is_smaller_than_the_longest_document, scratch_open, scratch_close),
	};
	return cmocka_run_group_tests_name("batches of a spool", tests, NULL, NULL);
}
