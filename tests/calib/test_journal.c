#include "calib/journal_toy.h"

static char logged[DSA_ERROR_CHARS];
static int lines;

static void keep_line(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	(void)level;
	snprintf(logged, sizeof logged, "%s", text);
	lines++;
}

static void a_journal_cut_anywhere_loses_only_its_last_record(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t header = header_bytes(data);
	assert_int_equal(record_at(data, RECORDS), bytes);
	int whole = 0;
	for (size_t cut = header; cut <= bytes; cut++) {
		struct toy toy = toy_make();
		struct stat st;
		write_file(data, cut);
		while (whole < RECORDS && record_at(data, whole + 1) <= cut)
			whole++;
		struct dsa_journal *journal = open_it();
		assert_int_equal(dsa_journal_records(journal), whole);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, record_at(data, whole));
		ask_everything(journal, &toy);
		assert_int_equal(toy.patterns + toy.overlaps, RECORDS - whole);
		assert_int_equal(dsa_journal_records(journal), RECORDS);
		dsa_journal_close(journal);
	}
	free(data);
}

static void a_header_cut_anywhere_is_refused(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	for (size_t cut = 1; cut < header_bytes(data); cut++) {
		struct dsa_journal *journal;
		write_file(data, cut);
		assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_INPUT);
		assert_null(journal);
	}
	free(data);
}

static void an_empty_file_becomes_a_new_journal(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	write_file((const uint8_t *)"", 0);
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_E_INPUT);
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), 0);
	assert_true(dsa_journal_created(journal) > 1600000000);
	int64_t created = dsa_journal_created(journal);
	dsa_journal_close(journal);
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_OK);
	assert_int_equal(dsa_journal_created(journal), created);
	dsa_journal_close(journal);
}

static void a_missing_file_is_missing_for_a_reader(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, NULL, &err), DSA_E_MISSING);
	assert_false(dsa_file_exists(path));
}

static void every_flipped_byte_but_in_the_last_record_is_refused(void **state)
{
	(void)state;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	int in_record = 0;
	for (size_t at = 0; at < record_at(data, RECORDS - 1); at++) {
		struct dsa_journal *journal;
		char place[64];
		size_t header = header_bytes(data);
		size_t start = record_at(data, in_record), end = record_at(data, in_record + 1);
		if (at >= header && at == end) {
			in_record++;
			start = end;
		}
		data[at] ^= at % 3 ? 0x80 : 0x01;
		write_file(data, bytes);
		data[at] ^= at % 3 ? 0x80 : 0x01;
		enum dsa_status status = dsa_journal_open(&journal, path, fields, 2, NULL, &err);
		if (at < header) {
			assert_true(status == DSA_E_INPUT || status == DSA_E_USAGE);
			continue;
		}
		assert_int_equal(status, DSA_E_INPUT);
		snprintf(place, sizeof place, "record at byte %zu is damaged", start);
		if (!strstr(err.text, place))
			fail_msg("byte %zu: %s", at, err.text);
	}
	free(data);
}

static void a_damaged_last_record_is_cut_off_with_a_line_in_the_log(void **state)
{
	(void)state;
	static const struct dsa_log log = {.line = keep_line};
	size_t bytes;
	struct dsa_journal *journal;
	struct stat st;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	size_t last = record_at(data, RECORDS - 1);
	data[bytes - 20] ^= 4;
	write_file(data, bytes);
	lines = 0;
	/* A reader leaves the file alone. */
	assert_int_equal(dsa_journal_open(&journal, path, NULL, 0, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_int_equal(lines, 1);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	assert_int_equal(lines, 2);
	assert_non_null(strstr(logged, "half-written"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, last);
	/* Zeros, as some file systems leave them behind a crash. */
	memset(data + last, 0, bytes - last);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, &log, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), RECORDS - 1);
	dsa_journal_close(journal);
	free(data);
}

static void a_full_disk_leaves_the_earlier_records(void **state)
{
	(void)state;
	struct toy toy = toy_make();
	struct dsa_evaluator *evaluator;
	struct catcher catcher;
	struct rlimit old, small;
	struct stat st;
	size_t bytes;
	make_full_journal();
	uint8_t *data = read_file(&bytes);
	struct dsa_journal *journal = open_it();
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, &toy.base, &shape, &err), DSA_OK);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = bytes + 100; /* the next record is longer: its first 100 bytes get written */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	enum dsa_status status = ask_for(evaluator, 1, three, 3, 0, &catcher, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(status, DSA_E_IO);
	assert_int_equal(catcher.seen, 0); /* nothing is handed on that is not on disk */
	assert_non_null(strstr(err.text, path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, bytes);
	/* With room again the same journal goes on. */
	assert_int_equal(ask_for(evaluator, 1, three, 3, 0, &catcher, &err), DSA_OK);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
	journal = open_it();
	assert_int_equal(dsa_journal_records(journal), RECORDS + 3);
	dsa_journal_close(journal);
	free(data);
}

static void two_runs_cannot_share_a_journal(void **state)
{
	(void)state;
	struct dsa_journal *first = open_it(), *second;
	assert_int_equal(dsa_journal_open(&second, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_null(second);
	assert_non_null(strstr(err.text, "another dsacal is at work"));
	/* Readers may look on. */
	assert_int_equal(dsa_journal_open(&second, path, NULL, 0, NULL, &err), DSA_OK);
	dsa_journal_close(second);
	dsa_journal_close(first);
	dsa_journal_close(open_it());
}

static void another_setting_is_refused_with_both_values(void **state)
{
	(void)state;
	static const struct dsa_journal_field other[] = {{"model", "3fa9"}, {"context", "2048"}};
	static const struct dsa_journal_field more[] = {{"model", "3fa9"}, {"context", "1024"}, {"seed", "1"}};
	char expected[256];
	struct dsa_journal *journal;
	dsa_journal_close(open_it());
	assert_int_equal(dsa_journal_open(&journal, path, other, 2, NULL, &err), DSA_E_USAGE);
	snprintf(expected, sizeof expected,
	         "%s: \"context\" was 1024 in this run, is 2048 now; use another --out or the old setting", path);
	assert_string_equal(err.text, expected);
	assert_int_equal(dsa_journal_open(&journal, path, more, 3, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"seed\" was not recorded"));
	assert_int_equal(dsa_journal_open(&journal, path, fields, 1, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"context\" was 1024 in this run, is unknown now"));
}

static void another_format_or_metric_version_is_refused_by_name(void **state)
{
	(void)state;
	struct dsa_journal *journal;
	size_t bytes;
	dsa_journal_close(open_it());
	uint8_t *data = read_file(&bytes);
	data[16] = DSA_METRIC_VERSION + 4;
	put_right_check(data, bytes);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"metric version\" was 5 in this run, is 1 now"));
	data[8] = 9;
	put_right_check(data, bytes);
	write_file(data, bytes);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_USAGE);
	assert_non_null(strstr(err.text, "\"journal format\" was 9 in this run, is 1 now"));
	free(data);
}

static void a_file_that_is_no_journal_is_refused_and_left_alone(void **state)
{
	(void)state;
	static const char text[] = "step,flip,kl\n1,3,0.001\n";
	struct dsa_journal *journal;
	size_t bytes;
	write_file((const uint8_t *)text, sizeof text - 1);
	assert_int_equal(dsa_journal_open(&journal, path, fields, 2, NULL, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "not a journal"));
	uint8_t *data = read_file(&bytes);
	assert_int_equal(bytes, sizeof text - 1);
	assert_memory_equal(data, text, bytes);
	free(data);
}

static void hundreds_of_records_are_found_again(void **state)
{
	(void)state;
	enum { MANY = 800 }; /* the index grows twice */
	struct dsa_journal *journal = open_it();
	struct dsa_record_buffer record = {0};
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < MANY; i++) {
			struct dsa_doc_stats stats = {.document = i};
			stats.at[0].tokens = 1;
			stats.at[0].kl = i * 0.1;
			struct dsa_record_key key = {.kind = DSA_RECORD_PATTERN,
			                             .batch = i % 7,
			                             .seed = (uint64_t)i,
			                             .pattern = "FSFFFF",
			                             .layers = 6,
			                             .executed = 3},
					      found;
			if (pass == 0) {
				assert_int_equal(dsa_record_write_pattern(&record, &key, &stats, 1, &err), DSA_OK);
				if (dsa_journal_append(journal, &record, &err))
					fail_msg("%s", err.text);
				continue;
			}
			struct dsa_arena arena;
			struct dsa_doc_stats *back;
			dsa_arena_init(&arena);
			assert_int_equal(dsa_journal_find(journal, &key, &record, &err), DSA_OK);
			assert_int_equal(dsa_record_read_key(record.data, record.used, &found, &err), DSA_OK);
			assert_true(dsa_record_key_equal(&key, &found));
			assert_int_equal(dsa_record_read_pattern(record.data, record.used, &arena, 1, &back, &err),
			                 DSA_OK);
			assert_int_equal(back->document, i);
			assert_true(back->at[0].kl == i * 0.1);
			dsa_arena_release(&arena);
			key.seed += MANY;
			assert_int_equal(dsa_journal_find(journal, &key, &record, &err), DSA_E_MISSING);
		}
		dsa_journal_close(journal);
		journal = open_it();
		assert_int_equal(dsa_journal_records(journal), MANY);
		assert_int_equal(dsa_journal_executed(journal), 3 * MANY);
	}
	dsa_record_buffer_release(&record);
	dsa_journal_close(journal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    JOURNAL_TEST(a_journal_cut_anywhere_loses_only_its_last_record),
	    JOURNAL_TEST(a_header_cut_anywhere_is_refused),
	    JOURNAL_TEST(an_empty_file_becomes_a_new_journal),
	    JOURNAL_TEST(a_missing_file_is_missing_for_a_reader),
	    JOURNAL_TEST(every_flipped_byte_but_in_the_last_record_is_refused),
	    JOURNAL_TEST(a_damaged_last_record_is_cut_off_with_a_line_in_the_log),
	    JOURNAL_TEST(a_full_disk_leaves_the_earlier_records),
	    JOURNAL_TEST(two_runs_cannot_share_a_journal),
	    JOURNAL_TEST(another_setting_is_refused_with_both_values),
	    JOURNAL_TEST(another_format_or_metric_version_is_refused_by_name),
	    JOURNAL_TEST(a_file_that_is_no_journal_is_refused_and_left_alone),
	    JOURNAL_TEST(hundreds_of_records_are_found_again),
	};
	return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
