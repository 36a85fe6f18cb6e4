#include "dsa/noise.h"

#include "dsa/announce.h"
#include "dsa/search.h"

bool dsa_noise_takes(const struct dsa_evaluator_shape *shape, int batch)
{
	const struct dsa_evaluator_batch *taken = &shape->batch[batch];
	int before = 0, all = 0;
	if (taken->split != DSA_CALIBRATION)
		return false;
	for (int b = 0; b < shape->batches; b++) {
		const struct dsa_evaluator_batch *other = &shape->batch[b];
		if (other->corpus != taken->corpus || other->split != DSA_CALIBRATION)
			continue;
		all += other->count;
		before += b < batch ? other->count : 0;
	}
	const int part = (all + DSA_NOISE_PART - 1) / DSA_NOISE_PART;
	return before < (part > DSA_NOISE_DOCUMENTS ? part : DSA_NOISE_DOCUMENTS);
}

enum dsa_status dsa_noise_measure(struct dsa_results *results, struct dsa_evaluator *evaluator, uint64_t seed,
                                  void (*tell)(void *context), void *context, struct dsa_arena *arena,
                                  struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	const struct dsa_ask question = {
	    .base = shape->reference, .patterns = &shape->reference, .count = 1, .seed = seed ? seed : 1};
	struct dsa_measure measure;
	struct dsa_quality quality;
	int count = 0;
	int *batches = dsa_arena_alloc(arena, (size_t)shape->batches, sizeof *batches, "the noise floor", err);
	if (!batches)
		return DSA_E_MEMORY;
	for (int b = 0; b < shape->batches; b++)
		if (dsa_noise_takes(shape, b))
			batches[count++] = b;
	enum dsa_status status = dsa_measure_start(&measure, shape, arena, err);
	if (!status)
		status = dsa_announce(evaluator, &question, batches, count, false, err);
	for (int i = 0; i < count && !status; i++) {
		status = dsa_measure_batch(&measure, NULL, evaluator, shape->reference, &shape->reference, 1,
		                           batches[i], question.seed, err);
		if (!status && tell)
			tell(context);
	}
	if (status)
		return status;
	dsa_measure_quality(&measure, DSA_ALL_CORPORA, shape->topk, &quality);
	results->noise_floor = quality.kl;
	results->noise_floor_se = quality.kl_se;
	results->noise_documents = quality.documents;
	for (int c = 0; c < shape->corpora; c++) {
		dsa_measure_quality(&measure, c, shape->topk, &quality);
		results->corpora[c].noise_floor = quality.kl;
	}
	return DSA_OK;
}
