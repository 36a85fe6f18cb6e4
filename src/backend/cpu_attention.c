/* Multi-head latent attention over the selected positions, absorbed form.
 *
 * A row's selected keys are gathered once, for the sums of values, and transposed, for the logits; both products then
 * run over vectors with a group of heads in registers. A logit sums dimensions in ascending order, an output sums
 * positions in ascending order. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "lanes.h"

enum {
	KEY_GROUP = 2,              /* vectors of keys or value columns and */
	HEAD_GROUP = REGISTERS / 4, /* heads whose sums are in registers together */
	TILE = KEY_GROUP * WIDE     /* whole vectors of either kind */
};

struct attention_scratch {
	float *keys;       /* (room, width): selected keys, their first c columns */
	float *transposed; /* (width, room) */
	float *logits;     /* (H, room), then probabilities */
	int64_t width;     /* c + r, and room K, in whole tiles */
	int64_t room;
};

static size_t carve_scratch(struct attention_scratch *s, struct cpu_carve carve, int heads, int width, int topk)
{
	s->width = (width + TILE - 1) / TILE * TILE;
	s->room = (topk + TILE - 1) / TILE * TILE;
	s->keys = cpu_carve(&carve, s->room * s->width, sizeof *s->keys);
	s->transposed = cpu_carve(&carve, s->room * s->width, sizeof *s->transposed);
	s->logits = cpu_carve(&carve, s->room * heads, sizeof *s->logits);
	return carve.used;
}

size_t cpu_attention_bytes(int heads, int width, int topk, int threads)
{
	struct attention_scratch s;
	return carve_scratch(&s, (struct cpu_carve){0}, heads, width, topk) * (size_t)threads;
}

static void gather_keys(const struct attention_scratch *s, struct dsa_tensor keys, const int32_t *selection, int count,
                        int latent)
{
	for (int i = 0; i < count; i += LANES) {
		const float *from[LANES];
		for (int l = 0; l < LANES; l++) {
			/* Behind the last key: any key, as its products are not used. */
			int32_t at = selection[i + l < count ? i + l : i];
			assert(at >= 0 && at < keys.rows);
			from[l] = cpu_row(keys, at);
		}
		for (int j = 0; j < keys.cols; j += LANES) {
			lanes row[LANES];
			for (int l = 0; l < LANES; l++)
				row[l] = lanes_load_part(from[l] + j, keys.cols - j);
			for (int l = 0; l < LANES && j < latent; l++)
				lanes_store(s->keys + (i + l) * s->width + j, row[l]);
			lanes_transpose(row);
			for (int l = 0; l < LANES; l++)
				lanes_store(s->transposed + (j + l) * s->room + i, row[l]);
		}
	}
}

/* For each of `heads` (a constant) heads: out[a] (TILE columns) = Σ_i x[a][i] · rows[i] (TILE columns). */
LANES_INLINE void sum_rows(float *out, int64_t out_stride, int valid, const float *x, int64_t x_stride,
                           const float *rows, int64_t stride, int64_t count, const int heads)
{
	wide sum[HEAD_GROUP][KEY_GROUP];
	for (int a = 0; a < heads; a++)
		for (int k = 0; k < KEY_GROUP; k++)
			sum[a][k] = wide_splat(0);
	for (int64_t i = 0; i < count; i++) {
		wide row[KEY_GROUP];
		for (int k = 0; k < KEY_GROUP; k++)
			row[k] = wide_load(rows + i * stride + k * WIDE);
		for (int a = 0; a < heads; a++)
			for (int k = 0; k < KEY_GROUP; k++)
				sum[a][k] += wide_splat(x[a * x_stride + i]) * row[k];
	}
	for (int a = 0; a < heads; a++)
		for (int k = 0; k < KEY_GROUP && k * WIDE < valid; k++)
			wide_store_part(out + a * out_stride + k * WIDE, sum[a][k], valid - k * WIDE);
}

/* out (heads, cols) = x (heads, count) · rows (count, cols); rows readable in whole tiles. */
static void product(float *out, int64_t out_stride, int64_t cols, const float *x, int64_t x_stride, const float *rows,
                    int64_t stride, int64_t count, int heads)
{
	int a = 0;
	for (; a + HEAD_GROUP <= heads; a += HEAD_GROUP)
		for (int64_t j = 0; j < cols; j += TILE)
			sum_rows(out + a * out_stride + j, out_stride, (int)cpu_min(cols - j, TILE), x + a * x_stride,
			         x_stride, rows + j, stride, count, HEAD_GROUP);
	for (; a < heads; a++)
		for (int64_t j = 0; j < cols; j += TILE)
			sum_rows(out + a * out_stride + j, out_stride, (int)cpu_min(cols - j, TILE), x + a * x_stride,
			         x_stride, rows + j, stride, count, 1);
}

/* In place; logits readable in whole vectors. */
static void softmax(float *logits, int count, float scale)
{
	lanes max = lanes_splat(-INFINITY), sum = {0};
	for (int i = count; i % LANES; i++)
		logits[i] = -INFINITY;
	for (int i = 0; i < count; i += LANES) {
		lanes x = lanes_load(logits + i);
		max = lanes_select(x > max, x, max);
	}
	/* Scaled after the maximum is taken away: for a positive scale that is the same up to rounding. */
	lanes top = lanes_splat(lanes_max(max));
	for (int i = 0; i < count; i += LANES) {
		lanes e = lanes_exp((lanes_load(logits + i) - top) * lanes_splat(scale));
		sum += e;
		lanes_store(logits + i, e);
	}
	lanes inverse = lanes_splat(1.0f / lanes_sum(sum));
	for (int i = 0; i < count; i += LANES)
		lanes_store(logits + i, lanes_load(logits + i) * inverse);
}

static void attend(const struct attention_scratch *s, float *out, const float *q, struct dsa_tensor keys,
                   const int32_t *selection, int count, int heads, int latent, float scale)
{
	gather_keys(s, keys, selection, count, latent);
	product(s->logits, s->room, lanes_round(count), q, keys.cols, s->transposed, s->room, keys.cols, heads);
	for (int a = 0; a < heads; a++)
		softmax(s->logits + a * s->room, count, scale);
	product(out, latent, latent, s->logits, s->room, s->keys, s->width, count, heads);
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
	struct cpu_carve carve = cpu_scratch(cpu, cpu_attention_bytes(heads, width, topk, cpu->threads));
	size_t own = cpu_attention_bytes(heads, width, topk, 1);
#pragma omp parallel for num_threads(cpu->threads) schedule(dynamic, 16)
	for (int64_t i = 0; i < rows->count; i++) {
		struct attention_scratch s;
		carve_scratch(&s, (struct cpu_carve){.base = carve.base + own * (size_t)omp_get_thread_num()}, heads,
		              width, topk);
		int count = (int)cpu_min(topk, (int64_t)rows->pos[i] + 1);
		struct dsa_tensor own_keys = keys; /* of the document, as far as the row */
		own_keys.data = cpu_row(keys, rows->key0[i]);
		own_keys.rows = (int64_t)rows->pos[i] + 1;
		assert(rows->pos[i] >= 0 && rows->key0[i] + own_keys.rows <= keys.rows);
		attend(&s, cpu_row(out, i), cpu_row(q, i), own_keys, selection + i * topk, count, heads, latent, scale);
	}
	return DSA_OK;
}
