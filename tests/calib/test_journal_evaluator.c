#include "calib/journal_toy.h"

static void nothing_known_is_asked_twice_and_bits_are_equal(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_journal *journal = open_it();
	ask_everything(journal, &toy);
	assert_int_equal(toy.patterns, PATTERN_RECORDS);
	assert_int_equal(toy.overlaps, 1);
	ask_everything(journal, &toy);
	assert_int_equal(toy.asks, 3);
	dsa_journal_close(journal);

	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS);
	assert_int_equal(dsa_journal_executed(journal), 2 * (100 + 101 + 102) + 100);
	ask_everything(journal, &toy);
	assert_int_equal(toy.asks, 3);
	assert_int_equal(toy.overlaps, 1);
	dsa_journal_close(journal);
}

static void only_unknown_patterns_are_passed_on_and_known_ones_come_first(void **state)
{
	(void)state;
	static const char *const mixed[] = {"FFFFSS", "FFSFFF", "FFFFSS", "FSSFFF", "FSFFFF"};
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	make_full_journal();
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 5, 0, &catcher, &err), DSA_OK);
	assert_int_equal(toy.asks, 1);
	assert_int_equal(toy.patterns, 2); /* the one asked twice is measured once */
	for (int i = 0; i < 5; i++)
		assert_int_equal(catcher.times[i], 1);
	assert_int_equal(dsa_journal_records(journal), RECORDS + 2);
	/* The same patterns on another batch, or with another seed, are other questions. */
	assert_int_equal(ask_for(evaluator, 1, mixed, 1, 0, &catcher, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 1, 5, &catcher, &err), DSA_OK);
	assert_int_equal(toy.patterns, 4);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

static void without_an_inner_evaluator_the_unknown_is_missing_by_name(void **state)
{
	(void)state;
	static const char *const mixed[] = {"FSFFFF", "FSSSSS"};
	struct dsa_evaluator *evaluator;
	struct dsa_journal *journal;
	struct catcher catcher;
	make_full_journal();
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_OK);
	assert_string_equal(dsa_journal_field(journal, "context"), "1024");
	assert_null(dsa_journal_field(journal, "colour"));
	ask_everything(journal, NULL);
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, NULL, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 2, mixed, 2, 0, &catcher, &err), DSA_E_MISSING);
	assert_int_equal(catcher.times[0], 1);
	assert_non_null(strstr(err.text, "FSSSSS"));
	assert_non_null(strstr(err.text, "batch 2"));
	assert_int_equal(ask_overlap(evaluator, 0, &catcher, &err), DSA_E_MISSING);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

static void what_was_answered_before_an_interruption_is_kept(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	toy.stop_after = 2;
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, 0, three, 3, 0, &catcher, &err), DSA_E_INTERRUPTED);
	assert_int_equal(catcher.seen, 2);
	evaluator->close(evaluator);
	dsa_journal_close(journal);

	toy.stop_after = -1;
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), 2);
	ask_everything(journal, &toy);
	assert_int_equal(toy.patterns, PATTERN_RECORDS);
	dsa_journal_close(journal);
}

static void of_two_records_of_one_question_the_first_counts(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t first = record_at(data, 0), length = record_at(data, 1) - first;
	uint8_t *longer = malloc(bytes + length);
	assert_non_null(longer);
	memcpy(longer, data, bytes);
	memcpy(longer + bytes, data + first, length);
	longer[bytes + 8 + 12] = 55; /* other work, other figures */
	longer[bytes + length - 20] ^= 1;
	put_right_check(longer + bytes, length);
	write_file(longer, bytes + length);
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS + 1);
	ask_everything(journal, NULL);
	dsa_journal_close(journal);
	free(longer);
	free(data);
}

static void records_of_other_documents_are_refused(void **state)
{
	(void)state;
	static const int swapped[] = {0, 4}, fewer[] = {4};
	struct dsa_evaluator_batch other[BATCHES];
	struct dsa_evaluator_shape moved = shape;
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	make_full_journal();
	struct dsa_journal *journal = open_it();
	memcpy(other, batches, sizeof other);
	moved.batch = other;
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, NULL, &moved, &err), DSA_OK);
	other[0].documents = swapped;
	assert_int_equal(ask_for(evaluator, 0, three, 1, 0, &catcher, &err), DSA_E_INPUT);
	other[0] = (struct dsa_evaluator_batch){.documents = fewer, .count = 1};
	assert_int_equal(ask_for(evaluator, 0, three, 1, 0, &catcher, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "it holds 2 documents, its batch has 1"));
	evaluator->close(evaluator);
	dsa_journal_close(journal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    JOURNAL_TEST(nothing_known_is_asked_twice_and_bits_are_equal),
	    JOURNAL_TEST(only_unknown_patterns_are_passed_on_and_known_ones_come_first),
	    JOURNAL_TEST(without_an_inner_evaluator_the_unknown_is_missing_by_name),
	    JOURNAL_TEST(what_was_answered_before_an_interruption_is_kept),
	    JOURNAL_TEST(of_two_records_of_one_question_the_first_counts),
	    JOURNAL_TEST(records_of_other_documents_are_refused),
	};
	return cmocka_run_group_tests_name("journal_evaluator", tests, NULL, NULL);
}
