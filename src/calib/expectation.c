#include "dsa/expectation.h"

#include <assert.h>
#include <math.h>

#include "dsa/noise.h"
#include "dsa/racing.h"
#include "dsa/spool.h"

static const double budget_depth = 2.0 / 3, refine_repeats = 1.7, certain_share = 0.25;

/* Sums over the candidate layers a_0 < a_1 < … of L layers, and over steps. */
struct sums {
	int layers, candidates;
	double first;       /* Σ (L - a_i): each from its own flip */
	double pairs;       /* Σ (L - a_i) i: each pair from the later flip of both */
	double evaluations; /* Σ over steps of their candidates */
	double alone;       /* Σ over steps and waves of the layers in front of the wave's last flip */
	double passes;      /* Σ over steps of passes over the head */
	double shared;      /* mean share of the candidate layers that are S in a question */
};

static void sum_layers(struct sums *s, const struct dsa_evaluator_shape *shape, const bool *locked, int steps, int wave)
{
	int n = 0;
	*s = (struct sums){.layers = shape->layers};
	for (int l = 1; l < shape->layers; l++)
		if (dsa_plan_is_candidate(shape, locked, l)) {
			s->first += shape->layers - l;
			s->pairs += (double)(shape->layers - l) * n++;
		}
	s->candidates = n;
	assert(steps <= n && wave > 0);
	for (int step = 0; step < steps; step++) {
		const int left = n - step, waves = (left + wave - 1) / wave;
		s->evaluations += left;
		const int products = (left + DSA_TOGETHER - 1) / DSA_TOGETHER; /* with the reference: one for so many */
		s->passes += left + products;
		s->shared += (double)left * (step + 1) / n;
		/* Flips of what is left lie evenly; the last of wave w of W at w/W of the way through the layers. */
		s->alone += (double)shape->layers * (waves + 1) / 2 * left / (left + 1.0);
	}
	if (s->evaluations > 0)
		s->shared /= s->evaluations;
}

/* Layers that the questions of the search run on each row of the positions ≥ K, all states kept. */
static double least_layers(const struct sums *s, int steps)
{
	const double n = s->candidates, k = steps;
	if (steps < 1)
		return 0;
	/* A pair costs what lies behind both once, as soon as one of them is flipped and another step follows. */
	const double met = n > 1 ? 1 - (n - k + 1) * (n - k) / (n * (n - 1)) : 0;
	return s->first + met * s->pairs;
}

enum { NOISE = DSA_SPLITS }; /* beside the splits: the documents of the noise floor */

struct total {
	double tokens, scored, suffix;
};

static struct total total_of(const struct dsa_evaluator_shape *shape, int split)
{
	struct total total = {0};
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *batch = &shape->batch[b];
		if (split == NOISE ? !dsa_noise_takes(shape, b) : batch->split != split)
			continue;
		total.tokens += (double)batch->tokens;
		total.scored += (double)batch->scored;
		total.suffix += (double)batch->suffix;
	}
	return total;
}

/* Rounds at every count of the trace, one each, in the order of dsa_refine, until the allowance is spent. */
static void expect_refinement(struct dsa_expectation *out, const struct sums *s, const struct total *calibration,
                              const struct dsa_course *course)
{
	const double n = s->candidates, together = DSA_TOGETHER;
	double exchanges = 0;
	for (int m = 1; m <= course->steps; m++)
		exchanges += m * (n - m);
	if (!(exchanges > 0))
		return;
	/* An exchange runs what lies behind the later of its two layers, if another shares it up to there. */
	const double each = s->pairs / (n * (n - 1) / 2) * calibration->suffix;
	const double most = course->refine_work * out->token_layers, all = exchanges * each * course->raced;
	out->refine_token_layers = fmin(most, all);
	out->refine_head = out->refine_token_layers / each * (1 + 1 / together) * calibration->scored;
	out->refine_suffix = out->refine_token_layers * refine_repeats;
	out->refine_shared = out->refine_suffix * course->steps / n;
}

void dsa_expect_calibrate(struct dsa_expectation *out, const struct dsa_evaluator_shape *shape, const bool *locked,
                          const struct dsa_course *course)
{
	const struct total calibration = total_of(shape, DSA_CALIBRATION), heldout = total_of(shape, DSA_HELDOUT);
	const struct total noise = total_of(shape, NOISE);
	const double layers = shape->layers, k = course->steps;
	struct sums s;
	sum_layers(&s, shape, locked, course->steps, course->wave);
	*out = (struct dsa_expectation){0};
	/* Who wins a step is asked on all documents. */
	const double asked = s.evaluations > 0 ? course->raced + (1 - course->raced) * k / s.evaluations : 0;
	out->evaluations = asked * s.evaluations;
	const double least = least_layers(&s, course->steps);
	out->token_layers = calibration.tokens * layers + calibration.suffix * least * asked;

	/* Without states of candidates each starts at its own flip; without the base's, a wave runs its path too. */
	const double from_flip = s.candidates ? s.first * s.evaluations / s.candidates : 0;
	const double search =
	    least + (from_flip - least) * (1 - course->flips_kept) + s.alone * (1 - course->base_kept);
	const double flips = s.candidates ? s.first * k / s.candidates : 0;
	const double winners = heldout.suffix * (flips + (k * layers - flips) * (1 - course->base_kept));
	const double baselines = course->baselines * layers * (calibration.suffix + heldout.suffix);
	const double of_search = calibration.suffix * search * asked;
	out->suffix = of_search + winners + baselines;
	/* Uniform patterns keep a half and a quarter. */
	out->suffix_shared = (of_search + winners) * s.shared + baselines * 0.625;
	/* The reference, and the noise floor, whose embeddings differ everywhere. */
	out->whole = layers * (calibration.tokens + noise.tokens + heldout.tokens);
	out->head = 2 * noise.scored + calibration.scored * (2 + 2 * course->baselines + s.passes * asked) +
	            heldout.scored * (2 + 2 * course->baselines + 2 * k);
	if (course->refine_work > 0)
		expect_refinement(out, &s, &calibration, course);
}

int dsa_expect_steps(int candidates, bool full, int deepest, bool bounded)
{
	int steps = candidates;
	if (full)
		return steps;
	if (deepest >= 0 && deepest < steps)
		steps = deepest;
	const int broken = (int)lround(budget_depth * candidates) + 1;
	return bounded && broken < steps ? broken : steps;
}

double dsa_expect_raced(int documents, enum dsa_objective objective)
{
	const double most = objective == DSA_OBJECTIVE_KL && documents >= DSA_RACE_DOCUMENTS / 2 ? certain_share : 1;
	return fmin(most, sqrt((double)DSA_RACE_DOCUMENTS / documents));
}

static double suffix_seconds(double all, double shared, const struct dsa_plan_rates *rates)
{
	return (all - shared) * rates->full + shared * rates->shared;
}

double dsa_expect_seconds(const struct dsa_expectation *e, const struct dsa_plan_rates *rates, bool refined)
{
	double seconds =
	    e->whole * rates->whole + e->head * rates->head + suffix_seconds(e->suffix, e->suffix_shared, rates);
	if (refined)
		seconds += e->refine_head * rates->head + suffix_seconds(e->refine_suffix, e->refine_shared, rates);
	return seconds;
}
