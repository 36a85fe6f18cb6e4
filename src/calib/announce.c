#include "dsa/announce.h"

#include <stdlib.h>

#include "dsa/arena.h"
#include "dsa/spool.h"

static enum dsa_status tell(struct dsa_evaluator *evaluator, struct dsa_coming *coming, int count,
                            struct dsa_error *err)
{
	enum dsa_status status = count ? evaluator->announce(evaluator, coming, count, NULL, err) : DSA_OK;
	free(coming);
	return status;
}

enum dsa_status dsa_announce(struct dsa_evaluator *evaluator, const struct dsa_ask *question, const int *batches,
                             int count, bool overlap, struct dsa_error *err)
{
	if (!evaluator->announce)
		return DSA_OK;
	struct dsa_coming *coming = dsa_alloc((size_t)count, sizeof *coming, "what is coming", err);
	if (!coming)
		return DSA_E_MEMORY;
	for (int i = 0; i < count; i++) {
		coming[i] = (struct dsa_coming){*question, overlap};
		coming[i].ask.batch = batches[i];
	}
	return tell(evaluator, coming, count, err);
}

enum dsa_status dsa_announce_split(struct dsa_evaluator *evaluator, const struct dsa_ask *question, int split,
                                   bool overlap, struct dsa_error *err)
{
	const struct dsa_evaluator_shape *shape = evaluator->shape;
	int count = 0;
	if (!evaluator->announce)
		return DSA_OK;
	struct dsa_coming *coming = dsa_alloc((size_t)shape->batches, sizeof *coming, "what is coming", err);
	if (!coming)
		return DSA_E_MEMORY;
	for (int b = 0; b < shape->batches; b++) {
		if (split != DSA_SPLITS && shape->batch[b].split != split)
			continue;
		coming[count] = (struct dsa_coming){*question, overlap && shape->batch[b].split == DSA_CALIBRATION};
		coming[count++].ask.batch = b;
	}
	return tell(evaluator, coming, count, err);
}
