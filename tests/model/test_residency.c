#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dsa/residency.h"
#include "residency_fixture.h"

static const char *const placings[] = {"S", "H", "K", "SHK", "KH", "HSK", "SSSK", "HKKKK"};
enum { PLACINGS = sizeof placings / sizeof *placings };

/* Every kind of stored number, scales, packed experts, several shards. */
static const char *const kinds[] = {"glm-all-full",     "glm-fp8-blocks", "glm-fp8-ue8m0",  "glm-pattern-string",
                                    "glm-types-spared", "v32-fp8",        "v32-groups-yarn"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void sizes_are_those_of_the_tensors(void **state)
{
	(void)state;
	for (int k = 0; k < KINDS; k++)
		for (int form = 0; form < 2; form++) {
			struct beside b;
			struct dsa_checkpoint *cp;
			char prefix[64];
			uint64_t device = 0;
			copy_golden(kinds[k]);
			if (form)
				misalign();
			beside_open(&b);
			MUST(dsa_checkpoint_open(&cp, dir, &golden_error));
			for (int l = 0; l < b.layers; l++) {
				uint64_t stored = 0;
				int tensors = 0;
				snprintf(prefix, sizeof prefix, "model.layers.%d.", l);
				for (int i = 0; i < dsa_checkpoint_count(cp); i++) {
					const struct dsa_stored *t = dsa_checkpoint_at(cp, i);
					if (strncmp(t->name, prefix, strlen(prefix)) != 0)
						continue;
					stored += t->bytes;
					tensors++;
				}
				device += b.sizes.layer[l].device;
				assert_int_equal(b.sizes.layer[l].image % 4096, 0);
				assert_true(b.sizes.layer[l].image >= stored);
				/* At worst every tensor is read alone, and then moved. */
				assert_true(b.sizes.layer[l].image <=
				            (form ? 3 : 2) * stored + (uint64_t)tensors * (65536 + 2 * 4096));
			}
			assert_int_equal(b.sizes.layers, b.layers);
			assert_int_equal(b.sizes.outside + device, b.resident.model->weight_bytes);
			dsa_checkpoint_close(cp);
			beside_close(&b);
		}
}

static void rewritten_checkpoint_is_misaligned_throughout(void **state)
{
	(void)state;
	struct dsa_checkpoint *cp;
	int odd = 0, gaps = 0;
	copy_golden("glm-all-full");
	misalign();
	MUST(dsa_checkpoint_open(&cp, dir, &golden_error));
	assert_int_equal(dsa_checkpoint_shards(cp), 2);
	const int count = dsa_checkpoint_count(cp);
	for (int i = 0; i < count; i++) {
		const struct dsa_stored *t = dsa_checkpoint_at(cp, i);
		odd += dsa_checkpoint_offset(cp, t->shard, t->data) % 4 != 0;
		gaps += t->dtype == DSA_U8 && t->bytes > 65536;
	}
	dsa_checkpoint_close(cp);
	assert_true(odd > count * 6 / 10);
	assert_true(gaps > 3);
}

/* Logits and residual stream of every position. */
static void run_pass(struct golden *g, float **logits, float **residual)
{
	const struct dsa_model_config *c = &g->model->config;
	const struct dsa_pass_document document = {g->ids, g->tokens};
	const size_t bytes = (size_t)g->tokens * (size_t)c->hidden * sizeof **residual;
	int64_t rows;
	struct dsa_forward *f = golden_forward(g, g->tokens, 1);
	golden_begin(f, &document, 1, true, NULL, &rows);
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, c->native, 0, c->layers, false);
	*residual = malloc(bytes);
	assert_non_null(*residual);
	MUST(g->be->ops->download(g->be, *residual, dsa_forward_residual(f).data, bytes, &golden_error));
	*logits = golden_all_logits(g, f, rows);
	dsa_forward_close(f);
}

static void compare_passes(struct beside *b, const char *name)
{
	const struct dsa_model_config *c = &b->resident.model->config;
	const size_t tokens = (size_t)b->resident.tokens;
	float *logits, *residual;
	run_pass(&b->resident, &logits, &residual);
	for (int p = 0; p < PLACINGS; p++) {
		beside_stream(b, placings[p]);
		for (int pass = 0; pass < 3; pass++) {
			float *own_logits, *own_residual;
			run_pass(&b->streamed, &own_logits, &own_residual);
			if (memcmp(own_residual, residual, tokens * (size_t)c->hidden * sizeof *residual) != 0 ||
			    memcmp(own_logits, logits, tokens * (size_t)c->vocab * sizeof *logits) != 0)
				fail_msg("%s: pass %d as %s has other bits", name, pass, placings[p]);
			free(own_logits);
			free(own_residual);
		}
		beside_stop(b);
	}
	free(logits);
	free(residual);
}

static void passes_have_the_bits_of_a_resident_model_wherever_layers_lie(void **state)
{
	(void)state;
	for (int k = 0; k < KINDS; k++)
		for (int form = 0; form < 2; form++) {
			struct beside b;
			copy_golden(kinds[k]);
			if (form)
				misalign();
			beside_open(&b);
			compare_passes(&b, kinds[k]);
			beside_close(&b);
		}
}

/* A search starts candidates at their flip, over and over. */
static void passes_may_begin_at_any_layer(void **state)
{
	(void)state;
	struct beside b;
	copy_golden("glm-freq-offset"); /* 8 layers */
	misalign();
	beside_open(&b);
	for (int p = 0; p < PLACINGS; p++) {
		beside_stream(&b, placings[p]);
		for (int l = 0; l < b.layers; l++)
			assert_layer(&b, l, placings[p]);
		for (int from = b.layers - 1; from >= 0; from--)
			for (int again = 0; again < 2; again++)
				for (int l = from; l < b.layers; l++)
					assert_layer(&b, l, placings[p]);
		beside_stop(&b);
	}
	beside_close(&b);
}

static void layers_in_any_order_and_repeated_hold_what_is_stored(void **state)
{
	(void)state;
	for (int k = 0; k < KINDS; k++) {
		struct beside b;
		copy_golden(kinds[k]);
		if (k % 2)
			misalign();
		beside_open(&b);
		for (int p = 0; p < 2 * PLACINGS; p++) {
			char letters[16] = "";
			for (int l = 0; l < b.layers; l++)
				letters[l] =
				    p < PLACINGS ? placings[p][(size_t)l % strlen(placings[p])] : "SHK"[below(3)];
			beside_stream(&b, letters);
			for (int n = 0, l = 0; n < 60; n++) {
				/* Mostly on, now and then again or anywhere; sometimes the reader gets on meanwhile. */
				const int what = below(8);
				l = what < 4 ? (l + 1) % b.layers : what < 6 ? l : below(b.layers);
				if (below(8) == 0)
					usleep(300);
				assert_layer(&b, l, letters);
			}
			beside_stop(&b);
		}
		beside_close(&b);
	}
}

static void each_pass_brings_a_layer_over_the_bus_once_and_ahead(void **state)
{
	(void)state;
	enum { PASSES = 6 };
	struct beside b;
	copy_golden("glm-freq-offset");
	beside_open(&b);
	static const struct {
		const char *letters;
		int crossing;
	} cases[] = {{"H", 8}, {"SH", 4}, {"HHHHHHHS", 7}, {"SSHSSHSH", 3}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		beside_stream(&b, cases[i].letters);
		watch.fetches = 0;
		for (int pass = 0; pass < PASSES; pass++)
			for (int l = 0; l < b.layers; l++)
				assert_layer(&b, l, cases[i].letters);
		/* The first pass goes through the host; one more may be on its way. */
		const int least = (PASSES - 1) * cases[i].crossing;
		if (watch.fetches < least || watch.fetches > least + 1)
			fail_msg("%s: %d fetches, expected %d", cases[i].letters, watch.fetches, least);
		beside_stop(&b);
	}
	/* A pass that begins in the middle is followed by another, so what is guessed is where it began. */
	beside_stream(&b, "H");
	for (int l = 0; l < b.layers; l++)
		assert_layer(&b, l, "H");
	watch.fetches = 0;
	for (int pass = 0; pass < PASSES; pass++)
		for (int l = 3; l < b.layers; l++)
			assert_layer(&b, l, "H");
	assert_in_range(watch.fetches, PASSES * 5, PASSES * 5 + 2); /* a wrong guess before the first, one at the end */
	beside_stop(&b);
	/* Two that cross, or one, stay where they landed. */
	for (int i = 0; i < 2; i++) {
		const char *letters = i ? "SSSSSSKS" : "SSSH";
		beside_stream(&b, letters);
		watch.fetches = 0;
		for (int pass = 0; pass < PASSES; pass++)
			for (int l = 0; l < b.layers; l++)
				assert_layer(&b, l, letters);
		assert_int_equal(watch.fetches, i ? 1 : 2);
		beside_stop(&b);
	}
	beside_close(&b);
}

/* The bus serves one after another: a layer's keys of the prefix must not queue behind the whole next layer. */
static void what_a_layer_uploads_goes_before_the_next_layer(void **state)
{
	(void)state;
	struct beside b;
	copy_golden("glm-freq-offset");
	beside_open(&b);
	beside_stream(&b, "H");
	struct golden *g = &b.streamed;
	const struct dsa_model_config *c = &g->model->config;
	const struct dsa_pass_document document = {g->ids, g->tokens};
	struct dsa_forward *f = golden_forward(g, g->tokens, 1);
	struct dsa_prefix *prefix;
	int64_t rows;
	MUST(dsa_prefix_open(&prefix, g->model, &document, 1, &golden_error));
	for (int pass = 0; pass < 3; pass++) {
		golden_begin(f, &document, 1, pass == 0, prefix, &rows);
		MUST(dsa_forward_embed(f, 0, &golden_error));
		watch.uploads = watch.held_up = 0;
		golden_layers(f, c->native, 0, c->layers, false);
		assert_true(rows > 0);
		if (pass) {
			assert_true(watch.uploads >= b.layers);
			assert_int_equal(watch.held_up, 0);
		}
	}
	dsa_prefix_close(prefix);
	dsa_forward_close(f);
	beside_stop(&b);
	beside_close(&b);
}

/* Where the disk is what is waited for, it must not rest while a layer crosses the bus. */
static void the_disk_reads_on_while_a_layer_crosses(void **state)
{
	(void)state;
	struct beside b;
	copy_golden("glm-freq-offset");
	beside_open(&b);
	beside_stream(&b, "K");
	for (int l = 0; l < b.layers; l++)
		assert_layer(&b, l, "K");
	watch.slow = true;
	for (int l = 0; l < b.layers; l++)
		assert_layer(&b, l, "K");
	/* /proc/self/io is read in between: less than a page a time. */
	const long long own = 4096 * (long long)b.layers;
	if (watch.meanwhile < own)
		fail_msg("%lld bytes read while layers crossed, expected more than %lld", watch.meanwhile, own);
	beside_stop(&b);
	beside_close(&b);
}

struct lines {
	char last[512];
};

static void take_line(void *context, enum dsa_log_level level, const char *text)
{
	struct lines *lines = context;
	if (level == DSA_LOG_DEBUG)
		snprintf(lines->last, sizeof lines->last, "%s", text);
}

static void what_came_in_ahead_and_what_did_not_is_said_at_the_end(void **state)
{
	(void)state;
	struct beside b;
	struct lines lines = {""};
	const struct dsa_log log = {.line = take_line, .context = &lines};
	char expected[64];
	copy_golden("glm-all-full");
	beside_open(&b);
	b.resident.be->log = &log;
	beside_stream(&b, "H");
	for (int pass = 0; pass < 3; pass++)
		for (int l = 0; l < b.layers; l++)
			assert_layer(&b, l, "H");
	beside_stop(&b);
	snprintf(expected, sizeof expected, "weights: %d visits brought", 3 * b.layers);
	assert_non_null(strstr(lines.last, expected));
	assert_non_null(strstr(lines.last, "; 0 of them kept the device waiting"));
	/* Nobody guesses these. */
	beside_stream(&b, "H");
	for (int pass = 0; pass < 2; pass++)
		for (int l = b.layers - 1; l >= 0; l--)
			assert_layer(&b, l, "H");
	beside_stop(&b);
	if (strstr(lines.last, "; 0 of them kept the device waiting"))
		fail_msg("%s", lines.last);
	/* Nothing crosses, nothing is said. */
	lines.last[0] = 0;
	beside_stream(&b, "S");
	for (int l = 0; l < b.layers; l++)
		assert_layer(&b, l, "S");
	beside_stop(&b);
	assert_string_equal(lines.last, "");
	beside_close(&b);
}

static void files_and_threads_are_given_back(void **state)
{
	(void)state;
	struct beside b;
	copy_golden("glm-fp8-ue8m0"); /* two shards */
	beside_open(&b);
	const int files = count_own("fd"), threads = count_own("task");
	for (int p = 0; p < PLACINGS; p++)
		for (int stop = 0; stop <= b.layers; stop++) {
			beside_stream(&b, placings[p]);
			assert_int_equal(count_own("fd"), files + 2);
			assert_true(count_own("task") > threads);
			for (int l = 0; l < stop; l++)
				assert_layer(&b, l, placings[p]);
			beside_stop(&b); /* with whatever is on its way */
			assert_int_equal(count_own("fd"), files);
			assert_int_equal(count_own("task"), threads);
		}
	beside_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(sizes_are_those_of_the_tensors, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(rewritten_checkpoint_is_misaligned_throughout, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(passes_have_the_bits_of_a_resident_model_wherever_layers_lie, set_up,
	                                    tear_down),
	    cmocka_unit_test_setup_teardown(passes_may_begin_at_any_layer, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(layers_in_any_order_and_repeated_hold_what_is_stored, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(each_pass_brings_a_layer_over_the_bus_once_and_ahead, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(what_a_layer_uploads_goes_before_the_next_layer, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(the_disk_reads_on_while_a_layer_crosses, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(what_came_in_ahead_and_what_did_not_is_said_at_the_end, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(files_and_threads_are_given_back, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
