#include "gpu_fixture.h"

#include "dsa/arena.h"
#include "dsa/file.h"
#include "model/golden.h"

/* Whole passes on the GPU while layers lie elsewhere: the bits of resident ones, in the pass that looks at every number
 * and in those behind it, which convert what comes over the bus. */

enum { PASSES = 3, PLANS = DSA_PLACES, MIXED = 0 };

/* Stored, host, disk; MIXED: all of them in turn. */
static void make_plan(struct dsa_residency *plan, const struct dsa_sizes *sizes, int which)
{
	assert_true(
	    dsa_residency_plan(plan, sizes, which ? (enum dsa_place)which : DSA_PLACE_DISK, UINT64_MAX, UINT64_MAX));
	if (which != MIXED)
		return;
	memset(plan->layers, 0, sizeof plan->layers);
	for (int l = 0; l < sizes->layers; l++) {
		plan->place[l] = (enum dsa_place)(DSA_PLACE_STORED + l % 3);
		plan->layers[plan->place[l]]++;
	}
}

static float *logits_of(struct golden *side, const char *pattern)
{
	const struct dsa_pass_document document = {side->ids, side->tokens};
	int64_t rows;
	struct dsa_forward *f = golden_forward(side, side->tokens, 1);
	MUST(dsa_forward_begin(f, &document, 1, true, NULL, &rows, &golden_error));
	MUST(dsa_forward_embed(f, 0, &golden_error));
	golden_layers(f, pattern, 0, side->model->config.layers, false);
	float *logits = golden_all_logits(side, f, rows);
	dsa_forward_close(f);
	return logits;
}

/* side: backend, directory and document; its model is opened here. */
static void compare(struct golden *side, const char *pattern, int context)
{
	struct dsa_sizes sizes;
	MUST(dsa_model_open(&side->model, side->be, side->dir, context, NULL, NULL, &golden_error));
	MUST(dsa_model_sizes(&sizes, &side->model->config, side->dir, side->be->weight, &golden_error));
	const size_t bytes = (size_t)side->tokens * (size_t)side->model->config.vocab * sizeof(float);
	float *want = logits_of(side, pattern ? pattern : side->model->config.native);
	dsa_model_close(side->model);
	for (int which = 0; which < PLANS; which++) {
		struct dsa_residency plan;
		make_plan(&plan, &sizes, which);
		MUST(dsa_model_open(&side->model, side->be, side->dir, context, &plan, NULL, &golden_error));
		for (int pass = 0; pass < PASSES; pass++) {
			float *got = logits_of(side, pattern ? pattern : side->model->config.native);
			if (memcmp(got, want, bytes) != 0)
				fail_msg("%s: pass %d has other bits with its layers %s", side->dir, pass,
				         which ? dsa_place_name((enum dsa_place)which) : "mixed");
			free(got);
		}
		dsa_model_close(side->model);
	}
	free(want);
}

static void goldens_have_the_bits_of_resident_layers(struct gpu *g)
{
	static const char *const root = "tests/golden/tiny";
	struct dsa_arena arena;
	char **names, path[600];
	size_t count;
	int cases = 0;
	dsa_arena_init(&arena);
	MUST(dsa_file_list(root, &arena, &names, &count, &golden_error));
	for (size_t i = 0; i < count; i++) {
		struct golden side = {.be = g->be[GPU]};
		snprintf(side.dir, sizeof side.dir, "%s/%s", root, names[i]);
		if (!dsa_file_is_directory(side.dir))
			continue;
		snprintf(path, sizeof path, "%s/expected.safetensors", side.dir);
		MUST(dsa_checkpoint_open_file(&side.expected, path, &golden_error));
		side.tokens = (int)dsa_checkpoint_find(side.expected, "tokens")->shape[0];
		side.ids = golden_data(&side, "tokens", side.tokens, 1);
		compare(&side, NULL, 256);
		dsa_checkpoint_close(side.expected);
		cases++;
	}
	assert_true(cases >= 13);
	dsa_arena_release(&arena);
}

static void demo_model_has_the_bits_of_resident_layers(struct gpu *g)
{
	enum { TOKENS = 900, VOCAB = 1000 };
	struct golden side = {.be = g->be[GPU], .dir = "calib_data/demo", .tokens = g->small ? 100 : TOKENS};
	int32_t *ids = gpu_host(g, TOKENS * sizeof *ids);
	char all[DSA_MAX_LAYERS + 1];
	for (int t = 0; t < TOKENS; t++)
		ids[t] = gpu_below(g, VOCAB);
	side.ids = ids;
	memset(all, 'F', sizeof all);
	compare(&side, all, 1024);
}

const struct check_test residency_tests[] = {
    CHECK_TEST(goldens_have_the_bits_of_resident_layers),
    CHECK_TEST(demo_model_has_the_bits_of_resident_layers),
    {NULL, NULL},
};
