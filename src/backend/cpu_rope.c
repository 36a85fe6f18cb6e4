/* Rotary positions. */
#include "cpu.h"

static void rotate(float *x, int pairs, int next, int partner, const float *cos, const float *sin)
{
	for (int i = 0; i < pairs; i++) {
		float a = x[i * next], b = x[i * next + partner];
		x[i * next] = a * cos[i] - b * sin[i];
		x[i * next + partner] = b * cos[i] + a * sin[i];
	}
}

enum dsa_status cpu_rope(struct dsa_backend *be, struct dsa_tensor x, const struct dsa_rows *rows, int heads, int step,
                         int offset, int r, enum dsa_rope_style style, const float *cos, const float *sin,
                         struct dsa_error *err)
{
	(void)err;
	assert(x.dtype == DSA_F32 && x.rows == rows->count && r % 2 == 0);
	assert(heads > 0 && (int64_t)(heads - 1) * step + offset + r <= x.cols);
	int pairs = r / 2;
#pragma omp parallel for num_threads(cpu_of(be)->threads) schedule(static)
	for (int64_t i = 0; i < rows->count; i++) {
		const float *c = cos + (int64_t)rows->pos[i] * pairs, *s = sin + (int64_t)rows->pos[i] * pairs;
		for (int a = 0; a < heads; a++) {
			float *part = cpu_row(x, i) + offset + (int64_t)a * step;
			if (style == DSA_ROPE_INTERLEAVED)
				rotate(part, pairs, 2, 1, c, s);
			else
				rotate(part, pairs, 1, pairs, c, s);
		}
	}
	return DSA_OK;
}
