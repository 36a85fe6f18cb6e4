#include "fp8.h"

#include <math.h>
#include <string.h>

float fp8_value(uint8_t code)
{
	int exponent = code >> 3 & 15, fraction = code & 7;
	if ((code & 0x7f) == 0x7f)
		return NAN;
	float x = exponent ? ldexpf((float)(8 + fraction), exponent - 10) : (float)fraction * 0x1p-9f;
	return code & 0x80 ? -x : x;
}

float fp8_round(float x)
{
	/* Adding and taking away leaves the multiples of 2^-9 nearest to x: below 2^-6 there are no others. */
	const float to_multiples = 0x1.8p14f;
	uint32_t bits;
	if (x > FP8_MOST || x < -FP8_MOST)
		return x > 0 ? FP8_MOST : -FP8_MOST;
	if (fabsf(x) < 0x1p-6f)
		return copysignf((x + to_multiples) - to_multiples, x);
	memcpy(&bits, &x, sizeof bits);
	if (!isnan(x))
		bits = (bits + 0x7ffff + (bits >> 20 & 1)) & 0xfff00000u;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static int64_t blocks(int64_t size, int block)
{
	return (size + block - 1) / block;
}

static float scale_of(const struct dsa_block_scales *scales, int64_t index)
{
	float x;
	memcpy(&x, (const char *)scales->data + (size_t)index * sizeof x, sizeof x);
	return x;
}

enum dsa_status fp8_check_scales(const struct dsa_block_scales *scales, int64_t rows, int cols, struct dsa_error *err)
{
	int64_t across = blocks(cols, scales->block_cols);
	for (int64_t i = 0; i < blocks(rows, scales->block_rows) * across; i++) {
		float x = scale_of(scales, i);
		if (!(isfinite(x) && x >= 0))
			return dsa_fail(err, DSA_E_NUMERIC,
			                "the scale of block row %lld, block column %lld is %g, expected a finite "
			                "number of at least 0",
			                (long long)(i / across), (long long)(i % across), (double)x);
	}
	return DSA_OK;
}

float fp8_scale_at(const struct dsa_block_scales *scales, int cols, int64_t row, int col)
{
	return scale_of(scales, row / scales->block_rows * blocks(cols, scales->block_cols) + col / scales->block_cols);
}
