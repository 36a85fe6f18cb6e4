/* Token embeddings, and the disturbance of one bf16 ulp that measures the noise floor. */
#include "cpu.h"

#include <string.h>

static uint64_t mixed(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* 2^(e - 7), e the exponent of x rounded to bf16: the distance of neighbouring bf16 numbers there. */
static float bf16_ulp(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	bits += 0x7fffu + (bits >> 16 & 1u); /* to nearest, ties to even, in the upper half */
	uint32_t exponent = bits >> 23 & 255u;
	float power;
	bits = (exponent ? exponent : 1u) << 23;
	memcpy(&power, &bits, sizeof power);
	return power * 0x1p-7f;
}

enum dsa_status cpu_embed(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor table, const int32_t *ids,
                          const struct dsa_rows *rows, uint64_t seed, struct dsa_error *err)
{
	(void)be, (void)err;
	assert(out.dtype == DSA_F32 && table.dtype == DSA_F32 && out.cols == table.cols && out.rows == rows->count);
	for (int64_t i = 0; i < out.rows; i++) {
		assert(ids[i] >= 0 && ids[i] < table.rows);
		float *row = cpu_row(out, i);
		memcpy(row, cpu_row(table, ids[i]), (size_t)out.cols * sizeof *row);
		if (!seed)
			continue;
		uint64_t hash = mixed(seed ^ mixed((uint64_t)rows->pos[i] << 32 | (uint32_t)ids[i]));
		for (int j = 0; j < out.cols; j++) {
			float ulp = bf16_ulp(row[j]);
			row[j] += mixed(hash + (uint64_t)j) & 1u ? -ulp : ulp;
		}
	}
	return DSA_OK;
}
