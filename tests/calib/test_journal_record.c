#include "calib/journal_toy.h"

static void keys_are_equal_only_in_every_part(void **state)
{
	(void)state;
	const struct dsa_record_key key = {
	    .kind = DSA_RECORD_PATTERN, .batch = 3, .seed = 9, .pattern = "FSF", .layers = 3};
	struct dsa_record_key other[5] = {key, key, key, key, key};
	other[0].kind = DSA_RECORD_OVERLAP;
	other[1].batch = 4;
	other[2].seed = 10;
	other[3].pattern = "FFF";
	other[4].layers = 2;
	for (int i = 0; i < 5; i++) {
		assert_false(dsa_record_key_equal(&key, &other[i]));
		assert_true(dsa_record_key_hash(&key) != dsa_record_key_hash(&other[i]));
	}
	other[0] = key;
	other[0].executed = 5;
	assert_true(dsa_record_key_equal(&key, &other[0]));
}

static void the_largest_bins_and_gaps_survive(void **state)
{
	(void)state;
	struct dsa_bin bins[] = {
	    {0, 0, 1},
	    {0, 15, 15},
	    {0, 16, 16},
	    {0, 31, 17},
	    {0, 48, 1},
	    {23, 2046, UINT32_MAX - 1},
	    {23, 2047, UINT32_MAX},
	};
	enum { BINS = sizeof bins / sizeof *bins };
	struct dsa_doc_stats stats = {.document = INT32_MAX, .bins = bins, .bin_count = BINS}, *back;
	struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN, .pattern = "F", .layers = 1};
	struct dsa_record_buffer record = {0};
	struct dsa_arena arena;
	dsa_arena_init(&arena);
	assert_int_equal(dsa_record_write_pattern(&record, &key, &stats, 1, &err), DSA_OK);
	assert_int_equal(dsa_record_read_pattern(record.data, record.used, &arena, 1, &back, &err), DSA_OK);
	assert_int_equal(back->bin_count, BINS);
	for (int i = 0; i < BINS; i++) {
		assert_int_equal(back->bins[i].position, bins[i].position);
		assert_int_equal(back->bins[i].bin, bins[i].bin);
		assert_int_equal(back->bins[i].count, bins[i].count);
	}
	dsa_arena_release(&arena);
	dsa_record_buffer_release(&record);
}

static void hostile_records_with_a_right_check_never_break_the_reader(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	uint64_t random = 1;
	int refused = 0, accepted = 0;
	for (int round = 0; round < 40000; round++) {
		size_t at = record_at(data, round % RECORDS), length = dsa_record_bytes(data + at);
		uint8_t record[4096];
		struct dsa_record_key key;
		struct dsa_arena arena;
		struct dsa_doc_stats *stats;
		struct dsa_doc_overlap *overlap;
		assert_true(length <= sizeof record);
		memcpy(record, data + at, length);
		for (int k = 0; k < 1 + round % 3; k++) {
			random = mix(random);
			record[8 + random % (length - 16)] = (uint8_t)(random >> 48 & 1 ? 0xff : random >> 32);
		}
		put_right_check(record, length);
		assert_true(dsa_record_intact(record, length));
		dsa_arena_init(&arena);
		enum dsa_status status = dsa_record_read_key(record, length, &key, &err);
		if (!status)
			status = key.kind == DSA_RECORD_PATTERN
			             ? dsa_record_read_pattern(record, length, &arena, 2, &stats, &err)
			             : dsa_record_read_overlap(record, length, &arena, 1, &overlap, &err);
		assert_true(status == DSA_OK || status == DSA_E_INPUT);
		assert_true(arena.bytes < 1 << 20);
		refused += status != DSA_OK;
		accepted += status == DSA_OK;
		dsa_arena_release(&arena);
	}
	/* A changed double is a good record: both outcomes happen. */
	assert_true(refused > 1000 && accepted > 1000);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(keys_are_equal_only_in_every_part),
	    cmocka_unit_test(the_largest_bins_and_gaps_survive),
	    JOURNAL_TEST(hostile_records_with_a_right_check_never_break_the_reader),
	};
	return cmocka_run_group_tests_name("journal_record", tests, NULL, NULL);
}
