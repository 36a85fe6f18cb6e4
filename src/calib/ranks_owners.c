/* Which rank answers for which batch. */
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"
#include "dsa/racing.h"
#include "dsa/ranks_evaluator.h"
#include "dsa/spool.h"

/* Batches (count) in the order of a race, of every `ranks` of them one to each; load (ranks): tokens so far. */
static void deal_out(const struct dsa_evaluator_shape *shape, int ranks, const int *order, int count, int64_t *load,
                     int *owner, bool *taken)
{
	for (int first = 0; first < count; first += ranks) {
		const int end = first + ranks < count ? first + ranks : count;
		memset(taken, 0, (size_t)ranks * sizeof *taken);
		for (int i = first; i < end; i++)
			owner[order[i]] = -1;
		for (int i = first; i < end; i++) {
			int heaviest = -1, idlest = -1;
			for (int j = first; j < end; j++)
				if (owner[order[j]] < 0 &&
				    (heaviest < 0 || shape->batch[order[j]].tokens > shape->batch[heaviest].tokens))
					heaviest = order[j];
			for (int r = 0; r < ranks; r++)
				if (!taken[r] && (idlest < 0 || load[r] < load[idlest]))
					idlest = r;
			owner[heaviest] = idlest;
			taken[idlest] = true;
			load[idlest] += shape->batch[heaviest].tokens;
		}
	}
}

enum dsa_status dsa_ranks_owners(const struct dsa_evaluator_shape *shape, int ranks, int *owner, struct dsa_error *err)
{
	int count = 0;
	enum dsa_status status = DSA_E_MEMORY;
	int *order = dsa_alloc((size_t)shape->batches, sizeof *order, "the batches' owners", err);
	int64_t *load = order ? dsa_alloc((size_t)ranks, sizeof *load, "the batches' owners", err) : NULL;
	bool *taken = load ? dsa_alloc((size_t)ranks, sizeof *taken, "the batches' owners", err) : NULL;
	if (!taken)
		goto cleanup;
	status = dsa_race_order(shape, order, &count, err);
	if (status)
		goto cleanup;
	deal_out(shape, ranks, order, count, load, owner, taken);
	count = 0;
	for (int b = 0; b < shape->batches; b++)
		if (shape->batch[b].split != DSA_CALIBRATION)
			order[count++] = b;
	memset(load, 0, (size_t)ranks * sizeof *load);
	deal_out(shape, ranks, order, count, load, owner, taken);
cleanup:
	free(order);
	free(load);
	free(taken);
	return status;
}
