/* stored.h: one element of a weight as a checkpoint stores it, on the host, in float32; every stored number is exact
 * there.
 *
 * Stored weights lie unaligned in a mapped file. */
#ifndef DSA_BACKEND_STORED_H
#define DSA_BACKEND_STORED_H

#include <string.h>

#include "fp8.h"

static inline float stored_from_bits(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static inline float stored_from_f16(uint16_t half)
{
	uint32_t sign = (uint32_t)(half >> 15) << 31, exponent = (half >> 10) & 31u, fraction = half & 1023u;
	if (exponent == 31)
		return stored_from_bits(sign | 0x7f800000u | fraction << 13);
	if (exponent)
		return stored_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
	float tiny = (float)fraction * 0x1p-24f;
	return sign ? -tiny : tiny;
}

/* dtype F32, BF16, F16 or F8_E4M3. */
static inline float stored_value(const uint8_t *at, enum dsa_dtype dtype)
{
	uint16_t half;
	float x;
	switch (dtype) {
	case DSA_BF16:
		memcpy(&half, at, sizeof half);
		return stored_from_bits((uint32_t)half << 16);
	case DSA_F16:
		memcpy(&half, at, sizeof half);
		return stored_from_f16(half);
	case DSA_F8_E4M3:
		return fp8_value(*at);
	default:
		memcpy(&x, at, sizeof x);
		return x;
	}
}

#endif
