/* Rows of the indexer in the precision that it is asked for. */
#include "cpu.h"

#include <math.h>
#include <string.h>

#include "fp8.h"

static float rounded_to_bf16(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	if (!isnan(x))
		bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* The power of two at or above a positive number; what is not finite stays. */
static float power_above(float x)
{
	uint32_t bits;
	if (!isfinite(x))
		return x;
	memcpy(&bits, &x, sizeof bits);
	bits = (bits + 0x7fffff) & 0xff800000u;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* x · H · d^-1/2, H(i, j) = -1 to the number of bits that i and j share: sums of two in log2 d rounds. */
static void rotate(float *x, int dim)
{
	float norm = 1.0f / sqrtf((float)dim);
	for (int half = 1; half < dim; half *= 2)
		for (int i = 0; i < dim; i += 2 * half)
			for (int j = i; j < i + half; j++) {
				float a = x[j], b = x[j + half];
				x[j] = a + b;
				x[j + half] = a - b;
			}
	for (int i = 0; i < dim; i++)
		x[i] *= norm;
}

float cpu_index_row(float *out, const float *x, int dim, enum dsa_index_precision precision)
{
	const float least = 1e-4f; /* of amax: rows of zeros have a scale too */
	memcpy(out, x, (size_t)dim * sizeof *out);
	if (precision == DSA_INDEX_ACT)
		return 1;
	if (precision == DSA_INDEX_BF16) {
		for (int i = 0; i < dim; i++)
			out[i] = rounded_to_bf16(out[i]);
		return 1;
	}
	rotate(out, dim);
	/* A NaN that is passed over here is still one when it is rounded. */
	float most = least;
	for (int i = 0; i < dim; i++)
		most = fabsf(out[i]) > most ? fabsf(out[i]) : most;
	float scale = most / FP8_MOST;
	if (precision == DSA_INDEX_FP8_UE8M0)
		scale = power_above(scale);
	for (int i = 0; i < dim; i++)
		out[i] = fp8_round(out[i] / scale);
	return scale;
}
