/* Ranks without MPI: threads that pass each other messages, each with a toy in place of a model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>

#include "calib/journal_toy.h"
#include "dsa/announce.h"
#include "dsa/ranks_evaluator.h"
#include "dsa/spool.h"

enum { MOST_RANKS = 4 };

/* The journal's toy has no use for corpora; who deals batches out has. */
static const struct dsa_evaluator_shape one_corpus = {.layers = LAYERS,
                                                      .topk = 4,
                                                      .corpora = 1,
                                                      .documents = DOCUMENTS,
                                                      .batches = BATCHES,
                                                      .batch = batches,
                                                      .reference = "FFFFFF"};

struct letter {
	struct letter *next;
	int from, kind;
	size_t count;
	char bytes[];
};

/* The post office of all ranks. */
static struct post {
	pthread_mutex_t lock;
	struct letter *first[MOST_RANKS];
	int questions[MOST_RANKS]; /* sent by rank 0 to each */
	bool garble;               /* answers lose a bit on their way */
	bool held;                 /* nothing reaches the others */
} post = {.lock = PTHREAD_MUTEX_INITIALIZER};

static enum dsa_status post_send(struct dsa_ranks *ranks, int to, int kind, const void *bytes, size_t count,
                                 struct dsa_error *error)
{
	struct letter *letter = calloc(1, sizeof *letter + count);
	if (!letter)
		return dsa_fail(error, DSA_E_MEMORY, "no memory for a letter");
	letter->from = ranks->rank;
	letter->kind = kind;
	letter->count = count;
	if (count)
		memcpy(letter->bytes, bytes, count);
	pthread_mutex_lock(&post.lock);
	if (post.garble && ranks->rank > 0 && count > sizeof(int32_t) + DSA_RECORD_FRAME && count < DSA_ERROR_CHARS)
		letter->bytes[count / 2] ^= 4;
	post.questions[to] += ranks->rank == 0 && count > 0;
	struct letter **end = &post.first[to];
	while (*end)
		end = &(*end)->next;
	*end = letter;
	pthread_mutex_unlock(&post.lock);
	return DSA_OK;
}

static enum dsa_status post_poll(struct dsa_ranks *ranks, int kind, bool *any, int *from, int *found,
                                 struct dsa_record_buffer *message, struct dsa_error *error)
{
	pthread_mutex_lock(&post.lock);
	struct letter *none = NULL, **at = post.held && ranks->rank > 0 ? &none : &post.first[ranks->rank];
	while (*at && kind != DSA_RANK_ANY && (*at)->kind != kind)
		at = &(*at)->next;
	struct letter *letter = *at;
	if (letter)
		*at = letter->next;
	pthread_mutex_unlock(&post.lock);
	*any = letter != NULL;
	if (!letter)
		return DSA_OK;
	enum dsa_status status = dsa_record_buffer_reserve(message, letter->count + 1, error);
	if (!status) {
		memcpy(message->data, letter->bytes, letter->count);
		message->used = letter->count;
		*from = letter->from;
		*found = letter->kind;
	}
	free(letter);
	return status;
}

static const struct dsa_ranks_ops post_ops = {.send = post_send, .poll = post_poll};

static struct crew {
	struct dsa_ranks ranks[MOST_RANKS];
	struct toy toys[MOST_RANKS];
	pthread_t threads[MOST_RANKS];
	enum dsa_status served[MOST_RANKS];
	int count;
	int told[MOST_RANKS]; /* most questions that its evaluator was told of at once */
	struct dsa_ranks_start start, seen[MOST_RANKS];
	char lines[1024]; /* that rank 0 logged */
} crew;

static enum dsa_status note_coming(struct dsa_evaluator *self, const struct dsa_coming *coming, int count,
                                   const struct dsa_early *early, struct dsa_error *error)
{
	(void)coming, (void)error;
	assert_null(early);
	for (int r = 0; r < crew.count; r++)
		if (self == &crew.toys[r].base && crew.told[r] < count)
			crew.told[r] = count;
	return DSA_OK;
}

static void *serve(void *context)
{
	struct dsa_ranks *ranks = context;
	const int rank = ranks->rank;
	struct dsa_error error = {""};
	bool stopped;
	enum dsa_status status = dsa_ranks_await_start(ranks, &crew.seen[rank], &stopped, &error);
	if (!status && !stopped)
		status = dsa_ranks_serve(ranks, &crew.toys[rank].base, NULL, &error);
	if (status)
		dsa_ranks_report(ranks, status, &error);
	crew.served[rank] = status;
	return NULL;
}

static void note_line(void *context, enum dsa_log_level level, const char *text)
{
	(void)context;
	(void)level;
	const size_t used = strlen(crew.lines);
	snprintf(crew.lines + used, sizeof crew.lines - used, "%s\n", text);
}

static struct dsa_evaluator *open_crew(int count)
{
	static const struct dsa_log log = {.line = note_line};
	struct dsa_evaluator *evaluator;
	memset(&crew, 0, sizeof crew);
	memset(post.questions, 0, sizeof post.questions);
	post.garble = post.held = false;
	crew.count = count;
	strcpy(crew.start.device, "toy");
	for (int r = 0; r < count; r++) {
		crew.toys[r] = toy_make();
		crew.toys[r].base.announce = note_coming;
		crew.ranks[r] =
		    (struct dsa_ranks){.ops = &post_ops, .rank = r, .count = count, .locals = count, .host = "here"};
		snprintf(crew.ranks[r].device, sizeof crew.ranks[r].device, "toy:%d", r);
		if (r)
			assert_int_equal(pthread_create(&crew.threads[r], NULL, serve, &crew.ranks[r]), 0);
	}
	assert_int_equal(dsa_ranks_evaluator_open(&evaluator, &crew.ranks[0], &crew.toys[0].base, &one_corpus,
	                                          &crew.start, NULL, &log, &err),
	                 DSA_OK);
	return evaluator;
}

static void close_crew(struct dsa_evaluator *evaluator)
{
	struct dsa_record_buffer rest = {0};
	bool any = true;
	int from, kind;
	dsa_ranks_stop(&crew.ranks[0]);
	for (int r = 1; r < crew.count; r++)
		pthread_join(crew.threads[r], NULL);
	evaluator->close(evaluator);
	for (int r = 0; r < crew.count; r++, any = true)
		while (any)
			assert_int_equal(post_poll(&crew.ranks[r], DSA_RANK_ANY, &any, &from, &kind, &rest, &err),
			                 DSA_OK);
	dsa_record_buffer_release(&rest);
}

static void any_number_of_ranks_answers_with_the_same_bits(void **state)
{
	(void)state;
	for (int count = 2; count <= MOST_RANKS; count++) {
		struct dsa_evaluator *evaluator = open_crew(count);
		struct catcher catcher;
		for (int b = 0; b < BATCHES; b++) {
			/* The catcher compares all bits with what the toy says itself. */
			assert_int_equal(ask_for(evaluator, b, three, 3, 0, &catcher, &err), DSA_OK);
			assert_int_equal(ask_for(evaluator, b, three, 1, 7, &catcher, &err), DSA_OK);
		}
		int asks = 0;
		for (int r = 0; r < count; r++)
			asks += crew.toys[r].asks;
		close_crew(evaluator);
		assert_int_equal(asks, 2 * BATCHES);
		for (int r = 1; r < count; r++) {
			assert_int_equal(crew.served[r], DSA_OK);
			assert_string_equal(crew.seen[r].device, "toy");
		}
	}
}

static void every_batch_has_one_owner_and_the_ranks_share_evenly(void **state)
{
	(void)state;
	enum { MANY = 23, RANKS = 4 };
	static const int first[] = {0};
	struct dsa_evaluator_batch many[MANY];
	const struct dsa_evaluator_shape large = {.corpora = 2, .batches = MANY, .batch = many};
	int owner[MANY], has[DSA_SPLITS][RANKS] = {{0}};
	int64_t tokens[RANKS] = {0};
	for (int b = 0; b < MANY; b++)
		many[b] = (struct dsa_evaluator_batch){.corpus = b % 2,
		                                       .split = b < 18 ? DSA_CALIBRATION : DSA_HELDOUT,
		                                       .documents = first,
		                                       .count = 1,
		                                       .tokens = b % 2 ? 100 : 10};
	assert_int_equal(dsa_ranks_owners(&large, RANKS, owner, &err), DSA_OK);
	for (int b = 0; b < MANY; b++) {
		assert_in_range(owner[b], 0, RANKS - 1);
		has[many[b].split][owner[b]]++;
		tokens[owner[b]] += many[b].split == DSA_CALIBRATION ? many[b].tokens : 0;
	}
	for (int r = 0; r < RANKS; r++) {
		assert_in_range(has[DSA_CALIBRATION][r], 4, 5);
		assert_in_range(has[DSA_HELDOUT][r], 1, 2);
		/* 990 tokens; dealt in turn, two ranks would have 450 each and two 45. */
		assert_in_range(tokens[r], 190, 320);
	}
}

/* The rank that answers for the batch. */
static int owner_of(int batch, int count)
{
	int owner[BATCHES];
	assert_int_equal(dsa_ranks_owners(&one_corpus, count, owner, &err), DSA_OK);
	return owner[batch];
}

static void hold(bool held)
{
	pthread_mutex_lock(&post.lock);
	post.held = held;
	pthread_mutex_unlock(&post.lock);
}

static void what_is_announced_is_begun_at_once_and_asked_of_nobody_twice(void **state)
{
	(void)state;
	enum { ALL = 3 };
	struct dsa_evaluator *ranked = open_crew(ALL), *evaluator;
	struct dsa_journal *journal = open_it();
	struct catcher catcher;
	int order[ALL];
	const struct dsa_ask question = {.base = "FFFFFF", .patterns = three, .count = 3};
	for (int b = 0; b < ALL; b++)
		order[owner_of(b, ALL)] = b; /* rank 0's first */
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, ranked, &shape, &err), DSA_OK);
	assert_int_equal(evaluator->ahead, ALL);
	hold(true);
	assert_int_equal(dsa_announce(evaluator, &question, order, ALL, false, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, order[0], three, 3, 0, &catcher, &err), DSA_OK);
	/* As a race does, what is left once more. */
	assert_int_equal(dsa_announce(evaluator, &question, order + 1, ALL - 1, false, &err), DSA_OK);
	assert_int_equal(ask_for(evaluator, order[0], three, 1, 5, &catcher, &err), DSA_OK);
	for (int r = 1; r < ALL; r++)
		assert_int_equal(post.questions[r], 2); /* the start, and its batch */
	hold(false);
	for (int again = 0; again < 2; again++)
		for (int i = 0; i < ALL; i++)
			assert_int_equal(ask_for(evaluator, order[i], three, 3, 0, &catcher, &err), DSA_OK);
	assert_int_equal(dsa_journal_records(journal), 3 * ALL + 1);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
	close_crew(ranked);
	for (int r = 0; r < ALL; r++)
		assert_int_equal(crew.toys[r].patterns, r ? 3 : 4);
}

/* A rank's evaluator knows what the rank has in hand beside the question that it is asked. */
static void evaluators_are_told_what_their_rank_will_ask(void **state)
{
	(void)state;
	struct dsa_evaluator *ranked = open_crew(2), *evaluator;
	struct dsa_journal *journal = open_it();
	struct catcher catcher;
	int order[BATCHES], of[2] = {0};
	const struct dsa_ask question = {.base = "FFFFFF", .patterns = three, .count = 3};
	for (int b = 0; b < BATCHES; b++) {
		order[b] = b;
		of[owner_of(b, 2)]++;
	}
	assert_true(of[0] > 1 || of[1] > 1);
	assert_int_equal(dsa_journal_evaluator(&evaluator, journal, ranked, &shape, &err), DSA_OK);
	hold(true);
	assert_int_equal(dsa_announce(evaluator, &question, order, BATCHES, false, &err), DSA_OK);
	for (int b = 0; b < BATCHES; b++)
		if (owner_of(b, 2) == 0)
			assert_int_equal(ask_for(evaluator, b, three, 3, 0, &catcher, &err), DSA_OK);
	assert_int_equal(crew.told[0], of[0] - 1);
	hold(false);
	for (int b = 0; b < BATCHES; b++)
		assert_int_equal(ask_for(evaluator, b, three, 3, 0, &catcher, &err), DSA_OK);
	assert_int_equal(crew.told[1], of[1] - 1);
	evaluator->close(evaluator);
	dsa_journal_close(journal);
	close_crew(ranked);
}

/* An overlap that was announced in front of a pattern, and one that was not. */
static void overlaps_are_answered_too(void **state)
{
	(void)state;
	for (int announced = 0; announced < 2; announced++) {
		struct dsa_evaluator *ranked = open_crew(2), *evaluator;
		struct dsa_journal *journal = open_it();
		struct catcher catcher;
		const int order[] = {0, 1, 2};
		const struct dsa_ask question = {.base = "FFFFFF", .patterns = three, .count = 1};
		assert_int_equal(dsa_journal_evaluator(&evaluator, journal, ranked, &shape, &err), DSA_OK);
		if (announced)
			assert_int_equal(dsa_announce(evaluator, &question, order, BATCHES, true, &err), DSA_OK);
		for (int b = 0; b < BATCHES; b++) {
			assert_int_equal(ask_overlap(evaluator, b, &catcher, &err), DSA_OK);
			assert_int_equal(catcher.overlaps, 1);
			assert_int_equal(ask_for(evaluator, b, three, 1, 0, &catcher, &err), DSA_OK);
		}
		assert_int_equal(dsa_journal_records(journal), 2 * BATCHES);
		evaluator->close(evaluator);
		dsa_journal_close(journal);
		close_crew(ranked);
		assert_int_equal(crew.toys[0].overlaps + crew.toys[1].overlaps, BATCHES);
		assert_int_equal(crew.toys[0].patterns + crew.toys[1].patterns, BATCHES);
		unlink(path);
	}
}

static void it_is_noted_what_each_rank_measures_on(void **state)
{
	(void)state;
	close_crew(open_crew(MOST_RANKS));
	for (int r = 0; r < MOST_RANKS; r++) {
		char expected[64];
		snprintf(expected, sizeof expected, "rank %d on here: toy:%d\n", r, r);
		assert_non_null(strstr(crew.lines, expected));
	}
}

static int batch_of_another(int count)
{
	int batch = 0;
	while (owner_of(batch, count) == 0)
		batch++;
	return batch;
}

static void a_rank_that_fails_ends_the_question_in_its_words(void **state)
{
	(void)state;
	struct dsa_evaluator *evaluator = open_crew(2);
	struct catcher catcher;
	crew.toys[1].stop_after = 1;
	assert_int_equal(ask_for(evaluator, batch_of_another(2), three, 3, 0, &catcher, &err), DSA_E_INTERRUPTED);
	assert_ptr_equal(strstr(err.text, "rank 1 on here: "), err.text);
	close_crew(evaluator);
	assert_int_equal(crew.served[1], DSA_E_INTERRUPTED);
}

static void a_garbled_answer_is_refused(void **state)
{
	(void)state;
	struct dsa_evaluator *evaluator = open_crew(2);
	struct catcher catcher;
	post.garble = true;
	assert_int_equal(ask_for(evaluator, batch_of_another(2), three, 1, 0, &catcher, &err), DSA_E_INPUT);
	assert_non_null(strstr(err.text, "rank 1"));
	close_crew(evaluator);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(any_number_of_ranks_answers_with_the_same_bits),
	    cmocka_unit_test(every_batch_has_one_owner_and_the_ranks_share_evenly),
	    cmocka_unit_test_setup_teardown(evaluators_are_told_what_their_rank_will_ask, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(what_is_announced_is_begun_at_once_and_asked_of_nobody_twice, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(overlaps_are_answered_too, set_up, tear_down),
	    cmocka_unit_test(it_is_noted_what_each_rank_measures_on),
	    cmocka_unit_test(a_rank_that_fails_ends_the_question_in_its_words),
	    cmocka_unit_test(a_garbled_answer_is_refused),
	};
	return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
