/* The experts of a mixture: rows grouped by expert, products per expert, combined per row in the order of its ids.
 *
 * A pair is (row, n-th expert of the row). A tile of rows has its pairs sorted by expert and cut into pieces, which
 * threads take; how they are cut changes no bits, since products do not depend on how many rows share them. */
#include "cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

enum { PIECE_ROWS = 512, TILE_BYTES = 32 << 20, LEAST_TILE_ROWS = 64 };

struct piece {
	int expert, count;
	int32_t first; /* in the sorted pairs */
};

struct experts_scratch {
	int64_t tile;    /* rows */
	int64_t width;   /* D in whole vectors */
	float *outputs;  /* (tile · chosen, width) expert(x), in the order of `sorted` */
	int32_t *sorted; /* (tile · chosen) pairs by expert, then by row */
	int32_t *places; /* (tile · chosen) where in `sorted` a pair is */
	int32_t *starts; /* (E + 1) */
	struct piece *pieces;
	/* Per thread, for one piece: */
	float *x;       /* (PIECE_ROWS, D) */
	float *gate_up; /* (PIECE_ROWS, 2 m) */
	int64_t x_floats, gate_up_floats;
};

static size_t carve_scratch(struct experts_scratch *s, struct cpu_carve carve, int64_t rows, int hidden, int inner,
                            int experts, int chosen, int threads)
{
	s->width = lanes_round(hidden);
	int64_t fits = TILE_BYTES / ((int64_t)sizeof(float) * s->width * (chosen > 0 ? chosen : 1));
	s->tile = cpu_min(rows, fits > LEAST_TILE_ROWS ? fits : LEAST_TILE_ROWS);
	int64_t pairs = s->tile * chosen;
	s->outputs = cpu_carve(&carve, pairs * s->width, sizeof *s->outputs);
	s->sorted = cpu_carve(&carve, pairs, sizeof *s->sorted);
	s->places = cpu_carve(&carve, pairs, sizeof *s->places);
	s->starts = cpu_carve(&carve, experts + 1, sizeof *s->starts);
	s->pieces = cpu_carve(&carve, experts + pairs / PIECE_ROWS, sizeof *s->pieces);
	s->x_floats = lanes_round((int64_t)PIECE_ROWS * hidden);
	s->gate_up_floats = lanes_round((int64_t)PIECE_ROWS * 2 * inner);
	s->x = cpu_carve(&carve, s->x_floats * threads, sizeof *s->x);
	s->gate_up = cpu_carve(&carve, s->gate_up_floats * threads, sizeof *s->gate_up);
	return carve.used;
}

size_t cpu_experts_bytes(int64_t rows, int hidden, int inner, int experts, int chosen, int threads)
{
	struct experts_scratch s;
	return carve_scratch(&s, (struct cpu_carve){0}, rows, hidden, inner, experts, chosen, threads);
}

static int by_size(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	return x->count != y->count ? y->count - x->count : x->first - y->first;
}

/* Sorts the pairs of `rows` rows by expert; returns the number of pieces. */
static int sort_pairs(const struct experts_scratch *s, const int32_t *ids, int64_t pairs, int experts)
{
	int32_t *starts = s->starts;
	memset(starts, 0, (size_t)(experts + 1) * sizeof *starts);
	for (int64_t p = 0; p < pairs; p++) {
		assert(ids[p] >= 0 && ids[p] < experts);
		starts[ids[p] + 1]++;
	}
	for (int e = 0; e < experts; e++)
		starts[e + 1] += starts[e];
	for (int64_t p = 0; p < pairs; p++) {
		s->places[p] = starts[ids[p]]++;
		s->sorted[s->places[p]] = (int32_t)p;
	}
	/* starts[e] is now where expert e ends. */
	int count = 0;
	for (int e = 0; e < experts; e++)
		for (int32_t at = e ? starts[e - 1] : 0; at < starts[e]; at += PIECE_ROWS)
			s->pieces[count++] =
			    (struct piece){.expert = e, .count = (int)cpu_min(PIECE_ROWS, starts[e] - at), .first = at};
	/* The largest first: threads that take the small ones at the end are done nearly together. */
	qsort(s->pieces, (size_t)count, sizeof *s->pieces, by_size);
	return count;
}

static void run_piece(const struct experts_scratch *s, const struct piece *piece, struct dsa_tensor x, int chosen,
                      const struct dsa_experts *experts, int thread)
{
	int hidden = x.cols, inner = experts->inner;
	float *in = s->x + thread * s->x_floats, *gate_up = s->gate_up + thread * s->gate_up_floats;
	const int32_t *pairs = s->sorted + piece->first;
	struct dsa_tensor up = dsa_tensor_rows(experts->gate_up, (int64_t)piece->expert * 2 * inner, 2 * inner);
	struct dsa_tensor down = dsa_tensor_rows(experts->down, (int64_t)piece->expert * hidden, hidden);
	for (int i = 0; i < piece->count; i++)
		memcpy(in + (int64_t)i * hidden, cpu_row(x, pairs[i] / chosen), (size_t)hidden * sizeof *in);
	cpu_product(gate_up, 2 * inner, in, hidden, up.data, 1, up.stride, piece->count, 2 * inner, hidden, false);
	for (int i = 0; i < piece->count; i++) {
		float *row = gate_up + (int64_t)i * 2 * inner;
		cpu_silu_row(row, row, row + inner, inner);
	}
	cpu_product(s->outputs + piece->first * s->width, s->width, gate_up, 2 * inner, down.data, 1, down.stride,
	            piece->count, hidden, inner, false);
}

static void combine_row(const struct experts_scratch *s, float *out, int hidden, int64_t row, const float *weights,
                        int chosen)
{
	for (int j = 0; j < hidden; j += WIDE) {
		wide sum = {0};
		for (int n = 0; n < chosen; n++)
			sum +=
			    wide_splat(weights[n]) * wide_load(s->outputs + s->places[row * chosen + n] * s->width + j);
		wide_store_part(out + j, wide_load_part(out + j, hidden - j) + sum, hidden - j);
	}
}

enum dsa_status cpu_experts(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *ids,
                            const float *weights, int chosen, const struct dsa_experts *experts, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	int hidden = x.cols, inner = experts->inner, threads = cpu->threads;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && out.rows == x.rows && out.cols == hidden && chosen > 0);
	assert(experts->gate_up.cols == hidden && experts->gate_up.rows == (int64_t)experts->count * 2 * inner);
	assert(experts->down.cols == inner && experts->down.rows == (int64_t)experts->count * hidden);
	struct experts_scratch s;
	size_t bytes = cpu_experts_bytes(x.rows, hidden, inner, experts->count, chosen, threads);
	carve_scratch(&s, cpu_scratch(cpu, bytes), x.rows, hidden, inner, experts->count, chosen, threads);
	for (int64_t first = 0; first < x.rows; first += s.tile) {
		int64_t count = cpu_min(s.tile, x.rows - first);
		struct dsa_tensor tile = dsa_tensor_rows(x, first, count);
		int pieces = sort_pairs(&s, ids + first * chosen, count * chosen, experts->count);
#pragma omp parallel num_threads(threads)
		{
#pragma omp for schedule(dynamic, 1)
			for (int p = 0; p < pieces; p++)
				run_piece(&s, &s.pieces[p], tile, chosen, experts, omp_get_thread_num());
#pragma omp for schedule(static)
			for (int64_t i = 0; i < count; i++)
				combine_row(&s, cpu_row(out, first + i), hidden, i, weights + (first + i) * chosen,
				            chosen);
		}
	}
	return DSA_OK;
}
