/* Overlap of selections between layers. */
#include "cpu.h"

#include <omp.h>
#include <string.h>

static int64_t mark_room(int64_t context)
{
	return (context + 63) / 64 * 64;
}

size_t cpu_overlap_bytes(int64_t context, int threads)
{
	return (size_t)mark_room(context) * (size_t)threads;
}

/* Length of the selection: it ends at -1. */
static int selected(const int32_t *selection, int topk)
{
	int n = topk;
	while (n && selection[n - 1] < 0)
		n--;
	return n;
}

static int64_t count_marked(const uint8_t *marks, const int32_t *selection, int count)
{
	int64_t sum = 0;
	for (int i = 0; i < count; i++)
		sum += marks[selection[i]];
	return sum;
}

enum dsa_status cpu_overlap(struct dsa_backend *be, int64_t *counts, const int32_t *const *selections, int layers,
                            int topk, int64_t rows, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	/* One thread owns a layer i: it marks the positions of S_i, counts the marks under every S_j and takes them
	 * away again. */
	int64_t room = mark_room(cpu->max_context);
	char *scratch = cpu_scratch(cpu, cpu_overlap_bytes(cpu->max_context, cpu->threads)).base;
#pragma omp parallel for num_threads(cpu->threads) schedule(dynamic, 1)
	for (int i = 0; i < layers; i++) {
		uint8_t *marks = (uint8_t *)scratch + room * omp_get_thread_num();
		memset(marks, 0, (size_t)room);
		for (int64_t row = 0; row < rows; row++) {
			const int32_t *own = selections[i] + row * topk;
			int count = selected(own, topk);
			if (!count)
				continue;
			assert(own[count - 1] < room);
			for (int n = 0; n < count; n++)
				marks[own[n]] = 1;
			for (int j = i; j < layers; j++) {
				const int32_t *other = selections[j] + row * topk;
				int m = selected(other, topk);
				assert(!m || other[m - 1] < room);
				counts[(int64_t)i * layers + j] += count_marked(marks, other, m);
			}
			for (int n = 0; n < count; n++)
				marks[own[n]] = 0;
		}
	}
	return DSA_OK;
}
