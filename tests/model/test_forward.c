#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "golden.h"

/* Logits of a whole pass over these documents, (ΣT, V). */
static float *whole_logits(const struct golden *g, const struct dsa_pass_document *documents, int count,
                           const char *pattern, bool unused)
{
	int64_t rows = 0;
	for (int d = 0; d < count; d++)
		rows += documents[d].tokens;
	struct dsa_forward *f = golden_forward(g, rows, count);
	golden_begin(f, documents, count, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, pattern, 0, g->model->config.layers, unused);
	float *logits = golden_all_logits(g, f, rows);
	dsa_forward_close(f);
	return logits;
}

static void assert_same_bits(const float *a, const float *b, size_t count, const char *what)
{
	if (memcmp(a, b, count * sizeof *a)) {
		size_t i = 0;
		while (!memcmp(&a[i], &b[i], sizeof *a))
			i++;
		fail_msg("%s: element %zu differs: %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
	}
}

/* Selections of positions ≥ K, as sets; a swapped pair must have scores closer than 1e-6. */
static void compare_selection(const struct golden *g, const struct dsa_forward *f, int layer, int source)
{
	const struct dsa_model_config *c = &g->model->config;
	char name[64];
	int T = g->tokens, K = c->topk;
	snprintf(name, sizeof name, "selection.%d", layer);
	const int32_t *want = golden_data(g, name, T, K);
	snprintf(name, sizeof name, "scores.%d", source);
	const float *scores = golden_data(g, name, T, T);
	int32_t *got = golden_selection(g, f, T), extra[GOLDEN_TOPK], lacking[GOLDEN_TOPK];
	assert_true(K <= GOLDEN_TOPK);
	for (int t = 0; t < T; t++) {
		const int32_t *a = got + t * K;
		int held = 0;
		float lowest = INFINITY, highest = -INFINITY; /* wrongly in, wrongly out */
		while (held < K && a[held] >= 0) {
			assert_true(a[held] <= t && (held == 0 || a[held] > a[held - 1]));
			held++;
		}
		assert_int_equal(held, t + 1 < K ? t + 1 : K);
		for (int i = golden_set_difference(a, want + t * K, held, extra, lacking); i-- > 0;) {
			lowest = fminf(lowest, scores[t * T + extra[i]]);
			highest = fmaxf(highest, scores[t * T + lacking[i]]);
		}
		if (highest - lowest > 1e-6f)
			fail_msg("%s: layer %d position %d selects another set", g->dir, layer, t);
	}
	free(got);
}

static void compare_native(struct golden *g)
{
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document document = {g->ids, g->tokens};
	struct dsa_forward *f = golden_forward(g, g->tokens, 1);
	char name[64];
	int64_t rows;
	int source = 0, T = g->tokens;
	float *hidden = malloc((size_t)T * (size_t)c->hidden * sizeof *hidden);
	assert_non_null(hidden);
	golden_begin(f, &document, 1, true, NULL, &rows);
	assert_int_equal(rows, T);
	assert_null(dsa_forward_selection(f));
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++) {
		golden_layers(f, c->native, l, l + 1, false);
		source = c->native[l] == 'F' ? l : source;
		compare_selection(g, f, l, source);
		snprintf(name, sizeof name, "hidden.%d", l);
		MUST(g->be->ops->download(g->be, hidden, dsa_forward_residual(f).data,
		                          (size_t)T * (size_t)c->hidden * sizeof *hidden, &golden_error));
		double off = golden_distance(hidden, golden_data(g, name, T, c->hidden), T, c->hidden);
		if (!(off <= 1e-5))
			fail_msg("%s: after layer %d the residual stream is off by %.2e", g->dir, l, off);
	}
	float *logits = golden_all_logits(g, f, rows);
	double off = golden_distance(logits, golden_data(g, "logits", T, c->vocab), T, c->vocab);
	if (!(off <= 1e-5))
		fail_msg("%s: logits are off by %.2e", g->dir, off);
	free(logits);
	free(hidden);
	dsa_forward_close(f);
}

static void native_pattern_of_every_golden_is_reproduced(void **state)
{
	(void)state;
	golden_each_case(compare_native);
}

static int other_patterns;

static void compare_others(struct golden *g)
{
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document document = {g->ids, g->tokens};
	for (int i = 0; i < dsa_checkpoint_count(g->expected); i++) {
		const char *name = dsa_checkpoint_at(g->expected, i)->name; /* pattern.FSFS.logits */
		if (strncmp(name, "pattern.", 8))
			continue;
		float *logits = whole_logits(g, &document, 1, name + 8, false);
		double off = golden_distance(logits, golden_data(g, name, g->tokens, c->vocab), g->tokens, c->vocab);
		if (!(off <= 1e-5))
			fail_msg("%s: %s is off by %.2e", g->dir, name, off);
		free(logits);
		other_patterns++;
	}
}

static void other_patterns_of_every_golden_are_reproduced(void **state)
{
	(void)state;
	other_patterns = 0;
	golden_each_case(compare_others);
	assert_true(other_patterns >= 5);
}

/* Documents of very different lengths: long, below K, exactly K, K + 1, one token, long. */
enum { MIX = 6 };
static void mix_documents(const struct golden *g, struct dsa_pass_document documents[MIX])
{
	int K = g->model->config.topk;
	const int lengths[MIX] = {g->tokens - 5, K - 2, K, K + 1, 1, g->tokens};
	for (int d = 0; d < MIX; d++)
		documents[d] = (struct dsa_pass_document){g->ids + (d < 5 ? d : 0), lengths[d]};
}

/* Runs every layer that has an indexer as F but every third one. */
static void other_pattern(const struct golden *g, char *pattern)
{
	const struct dsa_model_config *c = &g->model->config;
	for (int l = 0; l < c->layers; l++) {
		const struct dsa_layer *layer;
		MUST(dsa_model_acquire(g->model, l, &layer, &golden_error));
		pattern[l] = layer->index_q.data && l % 3 != 1 ? 'F' : 'S';
		dsa_model_release(g->model, l);
	}
	pattern[c->layers] = 0;
}

static void compare_scored_part(struct golden *g)
{
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document documents[MIX];
	struct dsa_prefix *prefix;
	char pattern[64];
	int64_t rows, part_rows;
	size_t row = (size_t)c->vocab;
	mix_documents(g, documents);
	other_pattern(g, pattern);
	float *want = whole_logits(g, documents, MIX, pattern, false);
	/* The prefix is made under the native pattern and serves any. */
	struct dsa_forward *f = golden_forward(g, 6 * g->tokens, MIX);
	MUST(dsa_prefix_open(&prefix, g->model, documents, MIX, &golden_error));
	golden_begin(f, documents, MIX, true, prefix, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, c->native, 0, c->layers, false);
	golden_begin(f, documents, MIX, false, prefix, &part_rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, pattern, 0, c->layers, false);
	float *got = golden_all_logits(g, f, part_rows);
	int64_t whole_row = 0, part_row = 0;
	for (int d = 0; d < MIX; d++) {
		for (int t = 0; t < documents[d].tokens; t++, whole_row++) {
			if (t < c->topk) {
				assert_int_equal(dsa_forward_row(f, d, t), -1);
				continue;
			}
			assert_int_equal(dsa_forward_row(f, d, t), part_row);
			assert_same_bits(got + (size_t)part_row * row, want + (size_t)whole_row * row, row, g->dir);
			part_row++;
		}
		assert_int_equal(dsa_forward_row(f, d, documents[d].tokens), -1);
	}
	assert_int_equal(part_row, part_rows);
	assert_int_equal(part_rows, 2 * g->tokens - 5 - 2 * c->topk + 1);
	free(got);
	free(want);
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
}

static void scored_part_with_prefix_equals_the_whole_pass(void **state)
{
	(void)state;
	golden_each_case(compare_scored_part);
}

/* A state saved after each layer, from the whole and from the scored-part pass, leads to the same end. */
static void compare_restored(struct golden *g)
{
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document documents[MIX];
	struct dsa_prefix *prefix;
	char pattern[64];
	int64_t rows, part_rows;
	mix_documents(g, documents);
	other_pattern(g, pattern);
	size_t bytes = dsa_state_bytes(c, documents, MIX);
	char *image = malloc(bytes * (size_t)(c->layers + 1)), *again = malloc(bytes);
	assert_true(image && again);
	struct dsa_forward *f = golden_forward(g, 6 * g->tokens, MIX);
	MUST(dsa_prefix_open(&prefix, g->model, documents, MIX, &golden_error));
	golden_begin(f, documents, MIX, true, prefix, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	for (int l = 0; l < c->layers; l++) {
		MUST(dsa_forward_save(f, image + bytes * (size_t)l, &golden_error));
		golden_layers(f, pattern, l, l + 1, false);
	}
	MUST(dsa_forward_save(f, image + bytes * (size_t)c->layers, &golden_error));
	for (int from = 0; from < c->layers; from++) {
		golden_begin(f, documents, MIX, false, prefix, &part_rows);
		assert_int_equal((size_t)part_rows * ((size_t)c->hidden + (size_t)c->topk) * 4, bytes);
		MUST(dsa_forward_restore(f, image + bytes * (size_t)from, &golden_error));
		assert_true((dsa_forward_selection(f) != NULL) == (from > 0));
		for (int l = from; l < c->layers; l++) {
			golden_layers(f, pattern, l, l + 1, false);
			MUST(dsa_forward_save(f, again, &golden_error));
			assert_memory_equal(again, image + bytes * (size_t)(l + 1), bytes);
		}
	}
	free(image);
	free(again);
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
}

/* Two patterns in streams of their own, taken through a layer in turn, and a third that takes over the second's. */
static void compare_streams(struct golden *g)
{
	enum { NATIVE, OTHER, FORK, STREAMS };
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document documents[MIX];
	struct dsa_prefix *prefix;
	char other[64];
	const char *const patterns[STREAMS] = {c->native, other, other};
	int64_t rows;
	mix_documents(g, documents);
	other_pattern(g, other);
	const size_t bytes = dsa_state_bytes(c, documents, MIX);
	char *alone = malloc(STREAMS * bytes), *together = malloc(bytes);
	assert_true(alone && together);
	struct dsa_forward *f;
	MUST(dsa_forward_open(&f, g->model, 6 * g->tokens, 6 * g->tokens, MIX, STREAMS, &golden_error));
	MUST(dsa_prefix_open(&prefix, g->model, documents, MIX, &golden_error));
	golden_begin(f, documents, MIX, true, prefix, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, c->native, 0, c->layers, false);
	for (int i = 0; i < STREAMS; i++) {
		golden_begin(f, documents, MIX, false, prefix, &rows);
		MUST(dsa_forward_embed(f, 0, &golden_error));
		golden_layers(f, patterns[i], 0, c->layers, false);
		MUST(dsa_forward_save(f, alone + bytes * (size_t)i, &golden_error));
	}
	golden_begin(f, documents, MIX, false, prefix, &rows);
	for (int i = 0; i < FORK; i++) {
		dsa_forward_use(f, i);
		assert_null(dsa_forward_selection(f));
		MUST(dsa_forward_embed(f, 0, &golden_error));
	}
	const int last = c->layers - 1;
	for (int l = 0; l < c->layers; l++) {
		dsa_forward_use(f, FORK);
		assert_null(dsa_forward_selection(f));
		if (l == last)
			MUST(dsa_forward_fork(f, OTHER, &golden_error));
		for (int i = 0; i < (l == last ? STREAMS : FORK); i++) {
			dsa_forward_use(f, i);
			golden_layers(f, patterns[i], l, l + 1, false);
		}
	}
	for (int i = 0; i < STREAMS; i++) {
		dsa_forward_use(f, i);
		MUST(dsa_forward_save(f, together, &golden_error));
		assert_memory_equal(together, alone + bytes * (size_t)i, bytes);
	}
	free(alone);
	free(together);
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
}

/* A whole pass and two over scored parts, of other documents each, taken through a layer in turn; the last has two
 * streams, one of which leaves the other in the middle. */
static void compare_passes(struct golden *g)
{
	enum { WHOLE, PART, SINGLE, PASSES, FORK = PASSES, STREAMS };
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document documents[MIX];
	mix_documents(g, documents);
	const struct dsa_pass_document *const of[STREAMS] = {documents, documents, documents + 1, documents + 1};
	const int counts[STREAMS] = {MIX, MIX, 1, 1};
	char other[64], *alone[STREAMS];
	int64_t rows;
	other_pattern(g, other);
	const char *const patterns[STREAMS] = {other, c->native, c->native, c->native};
	const size_t most = dsa_state_bytes(c, documents, MIX);
	char *together = malloc(most);
	struct dsa_prefix *prefix[PASSES];
	struct dsa_forward *f;
	MUST(dsa_forward_open(&f, g->model, 6 * g->tokens, 6 * g->tokens, MIX, STREAMS, &golden_error));
	for (int i = 0; i < STREAMS; i++) {
		alone[i] = malloc(most);
		assert_true(alone[i] && together);
		if (i < PASSES)
			MUST(dsa_prefix_open(&prefix[i], g->model, of[i], counts[i], &golden_error));
		golden_begin(f, of[i], counts[i], true, i < PASSES ? prefix[i] : NULL, &rows);
		MUST(dsa_forward_embed(f, 0, &golden_error));
		golden_layers(f, patterns[i], 0, c->layers, false);
		MUST(dsa_forward_save(f, alone[i], &golden_error));
	}
	for (int p = 0; p < PASSES; p++) {
		MUST(dsa_forward_turn(f, p, &golden_error));
		golden_begin(f, of[p], counts[p], p == WHOLE, p == WHOLE ? NULL : prefix[p], &rows);
		dsa_forward_use(f, p);
		MUST(dsa_forward_embed(f, 0, &golden_error));
	}
	for (int l = 0; l < c->layers; l++) {
		for (int p = 0; p < PASSES; p++) {
			MUST(dsa_forward_turn(f, p, &golden_error));
			if (p == SINGLE && l == c->layers / 2) {
				dsa_forward_use(f, FORK);
				MUST(dsa_forward_fork(f, SINGLE, &golden_error));
			}
			dsa_forward_use(f, p);
			golden_layers(f, patterns[p], l, l + 1, false);
		}
		if (l >= c->layers / 2) {
			dsa_forward_use(f, FORK);
			golden_layers(f, patterns[FORK], l, l + 1, false);
		}
	}
	for (int i = 0; i < STREAMS; i++) {
		MUST(dsa_forward_turn(f, i < PASSES ? i : SINGLE, &golden_error));
		dsa_forward_use(f, i);
		MUST(dsa_forward_save(f, together, &golden_error));
		assert_memory_equal(together, alone[i], dsa_state_bytes(c, of[i], counts[i]));
		free(alone[i]);
	}
	/* A stream that holds no state of the pass at hand has no selection. */
	MUST(dsa_forward_turn(f, PART, &golden_error));
	assert_null(dsa_forward_selection(f));
	free(together);
	for (int p = 0; p < PASSES; p++)
		dsa_prefix_close(prefix[p]);
	dsa_forward_close(f);
}

static void passes_in_progress_together_have_the_bits_of_each_alone(void **state)
{
	(void)state;
	golden_each_case(compare_passes);
}

static void streams_of_a_pass_have_the_bits_of_passes_of_their_own(void **state)
{
	(void)state;
	golden_each_case(compare_streams);
}

static void restored_state_continues_bit_for_bit(void **state)
{
	(void)state;
	golden_each_case(compare_restored);
}

/* Enough documents that the rows are more than one tile of the forward pass. */
static void compare_batch(struct golden *g)
{
	enum { COUNT = 66 };
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document documents[COUNT];
	for (int d = 0; d < COUNT; d++)
		documents[d] = (struct dsa_pass_document){g->ids + d % 5, g->tokens - d % 5};
	documents[1].tokens = 3;
	float *batch = whole_logits(g, documents, COUNT, c->native, false);
	int64_t row = 0;
	for (int d = 0; d < COUNT; d++) {
		if (d < 3 || d > 50) {
			float *alone = whole_logits(g, &documents[d], 1, c->native, false);
			assert_same_bits(batch + row * c->vocab, alone, (size_t)documents[d].tokens * (size_t)c->vocab,
			                 g->dir);
			free(alone);
		}
		row += documents[d].tokens;
	}
	assert_true(row > 2048);
	free(batch);
}

static void document_alone_equals_itself_in_a_batch(void **state)
{
	static const char *const cases[] = {"v32-groups-yarn", "v32-ties-dense", "glm-pattern-letters"};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct golden g;
		char dir[512];
		snprintf(dir, sizeof dir, "tests/golden/tiny/%s", cases[i]);
		golden_open(&g, dir, 2);
		compare_batch(&g);
		golden_close(&g);
	}
}

static void compare_threads(struct golden *g)
{
	struct golden one;
	struct dsa_pass_document documents[MIX];
	size_t count = 0;
	mix_documents(g, documents);
	for (int d = 0; d < MIX; d++)
		count += (size_t)documents[d].tokens * (size_t)g->model->config.vocab;
	golden_open(&one, g->dir, 1);
	float *a = whole_logits(g, documents, MIX, g->model->config.native, false);
	float *b = whole_logits(&one, documents, MIX, g->model->config.native, false);
	assert_same_bits(a, b, count, g->dir);
	free(a);
	free(b);
	golden_close(&one);
}

static void number_of_threads_changes_no_bit(void **state)
{
	(void)state;
	golden_each_case(compare_threads);
}

static void compare_unused(struct golden *g)
{
	const struct dsa_model_config *c = &g->model->config;
	struct dsa_pass_document document = {g->ids, g->tokens};
	char pattern[64];
	other_pattern(g, pattern);
	float *a = whole_logits(g, &document, 1, pattern, false), *b = whole_logits(g, &document, 1, pattern, true);
	assert_same_bits(a, b, (size_t)g->tokens * (size_t)c->vocab, g->dir);
	free(a);
	free(b);
}

static void indexer_whose_selection_is_dropped_changes_no_bit(void **state)
{
	(void)state;
	golden_each_case(compare_unused);
}

static void documents_of_at_most_k_tokens_have_no_scored_rows(void **state)
{
	(void)state;
	struct golden g;
	struct dsa_prefix *prefix;
	int64_t rows;
	golden_open(&g, "tests/golden/tiny/glm-all-full", 2);
	const struct dsa_model_config *c = &g.model->config;
	struct dsa_pass_document documents[2] = {{g.ids, c->topk}, {g.ids, 2}};
	struct dsa_forward *f = golden_forward(&g, 100, 2);
	MUST(dsa_prefix_open(&prefix, g.model, documents, 2, &golden_error));
	golden_begin(f, documents, 2, true, prefix, &rows);
	assert_int_equal(rows, c->topk + 2);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, "FSFS", 0, c->layers, false);
	MUST(dsa_forward_save(f, NULL, &golden_error));
	golden_begin(f, documents, 2, false, prefix, &rows);
	assert_int_equal(rows, 0);
	assert_int_equal(dsa_state_bytes(c, documents, 2), 0);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, "FSFS", 0, 2, false);
	MUST(dsa_forward_save(f, NULL, &golden_error));
	MUST(dsa_forward_restore(f, NULL, &golden_error));
	golden_layers(f, "FSFS", 2, c->layers, false);
	free(golden_all_logits(&g, f, 0));
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
	golden_close(&g);
}

static void disturbed_embeddings_move_the_logits_a_little(void **state)
{
	(void)state;
	struct golden g;
	int64_t rows;
	golden_open(&g, "tests/golden/tiny/glm-all-full", 2);
	const struct dsa_model_config *c = &g.model->config;
	struct dsa_pass_document document = {g.ids, g.tokens};
	struct dsa_forward *f = golden_forward(&g, g.tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 7, &golden_error));
	golden_layers(f, c->native, 0, c->layers, false);
	float *logits = golden_all_logits(&g, f, rows);
	double off = golden_distance(logits, golden_data(&g, "logits", g.tokens, c->vocab), c->topk, c->vocab);
	assert_true(off > 1e-4 && off < 0.5);
	free(logits);
	dsa_forward_close(f);
	golden_close(&g);
}

static void assert_error(enum dsa_status found, enum dsa_status expected, const char *word)
{
	assert_int_equal(found, expected);
	if (!strstr(golden_error.text, word))
		fail_msg("the message lacks \"%s\": %s", word, golden_error.text);
}

static void patterns_that_cannot_run_are_refused(void **state)
{
	(void)state;
	struct golden g;
	int64_t rows;
	golden_open(&g, "tests/golden/tiny/glm-types-spared", 2);
	struct dsa_pass_document document = {g.ids, g.tokens};
	struct dsa_forward *f = golden_forward(&g, g.tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	assert_error(dsa_forward_layer(f, 0, 'S', false, &golden_error), DSA_E_USAGE,
	             "layer 0 cannot share a selection");
	assert_error(dsa_forward_layer(f, 2, 'F', false, &golden_error), DSA_E_USAGE,
	             "layer 2 cannot run its own indexer");
	dsa_forward_close(f);
	golden_close(&g);
}

static void documents_that_do_not_fit_are_refused(void **state)
{
	(void)state;
	struct golden g;
	int64_t rows;
	golden_open(&g, "tests/golden/tiny/glm-all-full", 2);
	int32_t ids[300] = {0};
	struct dsa_pass_document document = {ids, 257}, pair[2] = {{ids, 60}, {ids, 41}};
	struct dsa_forward *f = golden_forward(&g, 100, 2);
	assert_error(dsa_forward_begin(f, &document, 1, true, NULL, &rows, &golden_error), DSA_E_USAGE,
	             "257 tokens, expected 1 to the context of 256");
	assert_error(dsa_forward_begin(f, pair, 2, true, NULL, &rows, &golden_error), DSA_E_USAGE, "100 rows");
	document.tokens = 20;
	ids[11] = 101;
	assert_error(dsa_forward_begin(f, &document, 1, true, NULL, &rows, &golden_error), DSA_E_INPUT,
	             "token id 101 at position 11");
	ids[11] = -1;
	assert_error(dsa_forward_begin(f, &document, 1, true, NULL, &rows, &golden_error), DSA_E_INPUT, "token id -1");
	dsa_forward_close(f);
	golden_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(native_pattern_of_every_golden_is_reproduced),
	    cmocka_unit_test(other_patterns_of_every_golden_are_reproduced),
	    cmocka_unit_test(scored_part_with_prefix_equals_the_whole_pass),
	    cmocka_unit_test(streams_of_a_pass_have_the_bits_of_passes_of_their_own),
	    cmocka_unit_test(passes_in_progress_together_have_the_bits_of_each_alone),
	    cmocka_unit_test(restored_state_continues_bit_for_bit),
	    cmocka_unit_test(document_alone_equals_itself_in_a_batch),
	    cmocka_unit_test(number_of_threads_changes_no_bit),
	    cmocka_unit_test(indexer_whose_selection_is_dropped_changes_no_bit),
	    cmocka_unit_test(documents_of_at_most_k_tokens_have_no_scored_rows),
	    cmocka_unit_test(disturbed_embeddings_move_the_logits_a_little),
	    cmocka_unit_test(patterns_that_cannot_run_are_refused),
	    cmocka_unit_test(documents_that_do_not_fit_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
