#include "ranks_errands.h"

#include <stdlib.h>

enum dsa_status errand_open(struct errand **out, struct dsa_error *err)
{
	*out = dsa_alloc(1, sizeof **out, "a question", err);
	if (!*out)
		return DSA_E_MEMORY;
	dsa_arena_init(&(*out)->arena);
	return DSA_OK;
}

void errand_close(struct errand *errand)
{
	dsa_arena_release(&errand->arena);
	free(errand);
}

void errands_close(struct errand *first)
{
	while (first) {
		struct errand *next = first->next;
		errand_close(first);
		first = next;
	}
}

enum dsa_status errands_announce(const struct errand *first, const int *owner, int rank,
                                 struct dsa_evaluator *evaluator, struct dsa_error *err)
{
	size_t most = 0;
	int count = 0;
	if (!evaluator->announce)
		return DSA_OK;
	for (const struct errand *errand = first; errand; errand = errand->next)
		most++;
	struct dsa_coming *coming = dsa_alloc(most, sizeof *coming, "what is coming", err);
	if (!coming)
		return DSA_E_MEMORY;
	for (const struct errand *errand = first; errand; errand = errand->next)
		if (!owner || owner[errand->what.ask.batch] == rank)
			coming[count++] = errand->what;
	enum dsa_status status = evaluator->announce(evaluator, coming, count, NULL, err);
	free(coming);
	return status;
}
