/* Multi-head latent attention over the selected positions, absorbed form.
 *
 * Logits and probabilities of a row lie position by position, HEADS heads of each in one vector: products read the
 * selected keys where they are, one number for all heads, and the softmax of HEADS heads is one. A logit sums
 * dimensions in ascending order, an output sums positions in ascending order, a softmax the LANES partial sums of
 * lanes.h. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "lanes.h"

enum {
	HEADS = 8,                  /* one vector of heads, and */
	POSITIONS = 8,              /* positions, whose logits are in registers together */
	HEAD_GROUP = REGISTERS / 4, /* heads, and */
	VECTORS = 2,                /* vectors of value columns, whose sums are in registers together */
	TILE = VECTORS * WIDE
};

typedef float heads_vector __attribute__((vector_size(HEADS * 4)));
typedef int32_t heads_mask __attribute__((vector_size(HEADS * 4)));

struct attention_scratch {
	const float **keys; /* (room) the selected positions' rows */
	float *values;      /* (room, width) their first c columns in whole tiles, if keys have fewer */
	float *queries;     /* (c + r, HEADS) of the heads at hand */
	float *logits;      /* (room, HEADS), then probabilities */
	int64_t width, room;
};

static size_t carve_scratch(struct attention_scratch *s, struct cpu_carve carve, int width, int topk)
{
	s->width = (width + TILE - 1) / TILE * TILE;
	s->room = lanes_round(topk);
	s->keys = cpu_carve(&carve, s->room, sizeof *s->keys);
	s->values = cpu_carve(&carve, s->room * s->width, sizeof *s->values);
	s->queries = cpu_carve(&carve, (int64_t)width * HEADS, sizeof *s->queries);
	s->logits = cpu_carve(&carve, s->room * HEADS, sizeof *s->logits);
	return carve.used;
}

size_t cpu_attention_bytes(int width, int topk, int threads)
{
	struct attention_scratch s;
	return carve_scratch(&s, (struct cpu_carve){0}, width, topk) * (size_t)threads;
}

static void find_keys(const struct attention_scratch *s, struct dsa_tensor keys, const int32_t *selection, int count)
{
	for (int i = 0; i < count; i++) {
		assert(selection[i] >= 0 && selection[i] < keys.rows);
		s->keys[i] = cpu_row(keys, selection[i]);
	}
	/* Any key, as its products are not used. */
	for (int i = count; i < lanes_round(count); i++)
		s->keys[i] = s->keys[0];
}

/* Heads [0, heads) of q; the others are zeros. */
static void transpose_queries(const struct attention_scratch *s, const float *q, int heads, int width)
{
	if (heads < HEADS)
		memset(s->queries, 0, (size_t)width * HEADS * sizeof *s->queries);
	for (int a = 0; a < heads; a++)
		for (int j = 0; j < width; j++)
			s->queries[j * HEADS + a] = q[(int64_t)a * width + j];
}

static void find_logits(const struct attention_scratch *s, int count, int width)
{
	const heads_vector *queries = (const heads_vector *)s->queries;
	heads_vector *logits = (heads_vector *)s->logits;
	for (int i = 0; i < count; i += POSITIONS) {
		heads_vector sum[POSITIONS] = {{0}};
		const float *key[POSITIONS];
		for (int n = 0; n < POSITIONS; n++)
			key[n] = s->keys[i + n];
		for (int j = 0; j < width; j++)
			for (int n = 0; n < POSITIONS; n++)
				sum[n] += key[n][j] * queries[j];
		for (int n = 0; n < POSITIONS; n++)
			logits[i + n] = sum[n];
	}
}

/* In place, over the positions of every head. */
static void softmax(const struct attention_scratch *s, int count, float scale)
{
	heads_vector *x = (heads_vector *)s->logits;
	heads_vector top = x[0], sum[LANES] = {{0}};
	for (int i = 1; i < count; i++) {
		const heads_mask more = x[i] > top;
		top = (heads_vector)((more & (heads_mask)x[i]) | (~more & (heads_mask)top));
	}
	/* Scaled after the maximum is taken away: for a positive scale that is the same up to rounding. */
	for (int i = 0; i < count; i++)
		x[i] = (x[i] - top) * scale;
	for (int i = 0; i < (count * HEADS + WIDE - 1) / WIDE * WIDE; i += WIDE)
		wide_store(s->logits + i, wide_exp(wide_load(s->logits + i)));
	for (int i = 0; i < count; i++)
		sum[i % LANES] += x[i];
	for (int lanes = LANES / 2; lanes; lanes /= 2)
		for (int l = 0; l < lanes; l++)
			sum[l] += sum[l + lanes];
	const heads_vector inverse = 1.0f / sum[0];
	for (int i = 0; i < count; i++)
		x[i] *= inverse;
}

/* For each of `heads` (a constant) heads from `first` on: out[a] (min(valid, TILE) columns) = Σ_i p[i][a] · values[i].
 */
LANES_INLINE void sum_values(const struct attention_scratch *s, float *out, int64_t out_stride, int valid, int column,
                             int first, int count, const int heads)
{
	wide sum[HEAD_GROUP][VECTORS];
	for (int a = 0; a < heads; a++)
		for (int k = 0; k < VECTORS; k++)
			sum[a][k] = wide_splat(0);
	for (int i = 0; i < count; i++) {
		wide value[VECTORS];
		for (int k = 0; k < VECTORS; k++)
			value[k] = wide_load(s->keys[i] + column + k * WIDE);
		for (int a = 0; a < heads; a++)
			for (int k = 0; k < VECTORS; k++)
				sum[a][k] += wide_splat(s->logits[i * HEADS + first + a]) * value[k];
	}
	for (int a = 0; a < heads; a++)
		for (int k = 0; k < VECTORS && k * WIDE < valid; k++)
			wide_store_part(out + a * out_stride + k * WIDE, sum[a][k], valid - k * WIDE);
}

/* out (heads, latent) = pᵀ · values */
static void mix_values(const struct attention_scratch *s, float *out, int count, int heads, int latent)
{
	int a = 0;
	for (; a + HEAD_GROUP <= heads; a += HEAD_GROUP)
		for (int j = 0; j < latent; j += TILE)
			sum_values(s, out + (int64_t)a * latent + j, latent, latent - j, j, a, count, HEAD_GROUP);
	for (; a < heads; a++)
		for (int j = 0; j < latent; j += TILE)
			sum_values(s, out + (int64_t)a * latent + j, latent, latent - j, j, a, count, 1);
}

/* Rows that can be read in whole tiles of their first `latent` columns. */
static void copy_values(const struct attention_scratch *s, int count, int latent)
{
	for (int i = 0; i < count; i++) {
		float *to = s->values + i * s->width;
		memcpy(to, s->keys[i], (size_t)latent * sizeof *to);
		memset(to + latent, 0, (size_t)(s->width - latent) * sizeof *to);
		s->keys[i] = to;
	}
}

static void attend(const struct attention_scratch *s, float *out, const float *q, struct dsa_tensor keys,
                   const int32_t *selection, int count, int heads, int latent, float scale)
{
	const int width = keys.cols;
	for (int a = 0; a < heads; a += HEADS) {
		const int some = heads - a < HEADS ? heads - a : HEADS;
		if (a == 0 || latent % TILE)
			find_keys(s, keys, selection, count);
		transpose_queries(s, q + (int64_t)a * width, some, width);
		find_logits(s, count, width);
		softmax(s, count, scale);
		if (latent % TILE)
			copy_values(s, count, latent);
		mix_values(s, out + (int64_t)a * latent, count, some, latent);
	}
}

enum dsa_status cpu_attention(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor q,
                              struct dsa_tensor keys, const int32_t *selection, int topk, int heads, int latent, int r,
                              float scale, const struct dsa_rows *rows, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	int width = latent + r;
	assert(out.dtype == DSA_F32 && q.dtype == DSA_F32 && keys.dtype == DSA_F32 && scale > 0);
	assert(out.rows == rows->count && q.rows == rows->count && keys.cols == width);
	assert(out.cols == heads * latent && q.cols == heads * width);
	struct cpu_carve carve = cpu_scratch(cpu, cpu_attention_bytes(width, topk, cpu->threads));
	size_t own = cpu_attention_bytes(width, topk, 1);
#pragma omp parallel for num_threads(cpu->threads) schedule(dynamic, 16)
	for (int64_t i = 0; i < rows->count; i++) {
		struct attention_scratch s;
		carve_scratch(&s, (struct cpu_carve){.base = carve.base + own * (size_t)omp_get_thread_num()}, width,
		              topk);
		int count = (int)cpu_min(topk, (int64_t)rows->pos[i] + 1);
		struct dsa_tensor own_keys = keys; /* of the document, as far as the row */
		own_keys.data = cpu_row(keys, rows->key0[i]);
		own_keys.rows = (int64_t)rows->pos[i] + 1;
		assert(rows->pos[i] >= 0 && rows->key0[i] + own_keys.rows <= keys.rows);
		attend(&s, cpu_row(out, i), cpu_row(q, i), own_keys, selection + i * topk, count, heads, latent, scale);
	}
	return DSA_OK;
}
