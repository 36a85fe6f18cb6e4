#include "dsa/noise.h"

#include "dsa/announce.h"
#include "dsa/search.h"

/* How many of the corpus' calibration documents. */
static int wanted(const struct dsa_evaluator_shape *shape, int corpus)
{
	int all = 0;
	for (int b = 0; b < shape->batches; b++)
		if (shape->batch[b].corpus == corpus && shape->batch[b].split == DSA_CALIBRATION)
			all += shape->batch[b].count;
	const int part = (all + DSA_NOISE_PART - 1) / DSA_NOISE_PART;
	return part > DSA_NOISE_DOCUMENTS ? part : DSA_NOISE_DOCUMENTS;
}

int dsa_noise_takes(const struct dsa_evaluator_shape *shape, int batch)
{
	const struct dsa_evaluator_batch *taken = &shape->batch[batch];
	int left = wanted(shape, taken->corpus);
	if (taken->split != DSA_CALIBRATION)
		return 0;
	for (int b = 0; b < batch; b++)
		if (shape->batch[b].corpus == taken->corpus && shape->batch[b].split == DSA_CALIBRATION)
			left -= shape->batch[b].count;
	return left < 0 ? 0 : left < taken->count ? left : taken->count;
}

struct taker {
	struct dsa_measure *measure;
	int documents; /* the first so many of the batch */
};

static enum dsa_status take_documents(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                      int64_t executed, struct dsa_error *err)
{
	const struct taker *taker = context;
	(void)index, (void)count, (void)executed;
	for (int d = 0; d < taker->documents; d++) {
		enum dsa_status status = dsa_measure_add(taker->measure, &stats[d], err);
		if (status)
			return status;
	}
	return DSA_OK;
}

static enum dsa_status measure_batches(struct dsa_measure *measure, struct dsa_evaluator *evaluator,
                                       const struct dsa_ask *question, const int *batches, int count,
                                       void (*tell)(void *context), void *context, struct dsa_error *err)
{
	enum dsa_status status = dsa_announce(evaluator, question, batches, count, false, err);
	for (int i = 0; i < count && !status; i++) {
		struct dsa_ask ask = *question;
		struct taker taker = {measure, dsa_noise_takes(evaluator->shape, batches[i])};
		const struct dsa_sink sink = {.pattern = take_documents, .context = &taker};
		ask.batch = batches[i];
		status = evaluator->evaluate(evaluator, &ask, &sink, err);
		if (!status && tell)
			tell(context);
	}
	return status;
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
		status = measure_batches(&measure, evaluator, &question, batches, count, tell, context, err);
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
