/* lanes.h: sixteen floats at a time, in fixed order.
 *
 * A sum over columns is kept as LANES partial sums that are added in one fixed tree at the end. That is fast (a lane is
 * a lane of a vector register, or of several) and its bits depend on nothing but the row itself. Compilers may not
 * reassociate a plain loop, so it would be slow. */
#ifndef DSA_BACKEND_LANES_H
#define DSA_BACKEND_LANES_H

#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic push
/* Everything here is inlined: no vector crosses a call, so the calling convention of vectors does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define LANES_INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

typedef float lanes __attribute__((vector_size(64)));
typedef int32_t lanes_int __attribute__((vector_size(64)));
typedef float lanes_memory __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t lanes_int_memory __attribute__((vector_size(64), aligned(4), may_alias));
typedef float lanes_half __attribute__((vector_size(32)));
typedef double lanes_double __attribute__((vector_size(64)));

/* What the inner loops of products sum in: a vector of the machine's own width, since sums that need several registers
 * each go through memory. An element's sum has the same order whatever the width. */
#ifdef __AVX512F__
enum { WIDE = 16, REGISTERS = 32 };
#else
enum { WIDE = 8, REGISTERS = 16 };
#endif
typedef float wide __attribute__((vector_size(WIDE * 4)));
typedef int32_t wide_int __attribute__((vector_size(WIDE * 4)));
typedef float wide_memory __attribute__((vector_size(WIDE * 4), aligned(4), may_alias));

/* n rounded up to whole vectors. */
static inline int64_t lanes_round(int64_t n)
{
	return (n + LANES - 1) / LANES * LANES;
}

LANES_INLINE lanes lanes_splat(float x)
{
	return (lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

LANES_INLINE wide wide_splat(float x)
{
	return x - (wide){0};
}

LANES_INLINE wide wide_load(const float *from)
{
	return *(const wide_memory *)from;
}

LANES_INLINE void wide_store(float *to, wide x)
{
	*(wide_memory *)to = x;
}

/* The first min(n, WIDE) of them. */
LANES_INLINE void wide_store_part(float *to, wide x, int n)
{
	float part[WIDE];
	if (n >= WIDE) {
		wide_store(to, x);
		return;
	}
	wide_store(part, x);
	memcpy(to, part, (size_t)n * sizeof *part);
}

LANES_INLINE lanes_int lanes_splat_int(int32_t x)
{
	return (lanes_int){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

LANES_INLINE lanes lanes_load(const float *from)
{
	return *(const lanes_memory *)from;
}

LANES_INLINE void lanes_store(float *to, lanes x)
{
	*(lanes_memory *)to = x;
}

LANES_INLINE lanes_int lanes_load_int(const int32_t *from)
{
	return *(const lanes_int_memory *)from;
}

LANES_INLINE void lanes_store_int(int32_t *to, lanes_int x)
{
	*(lanes_int_memory *)to = x;
}

/* The first min(n, LANES) floats, zeros behind them; n ≥ 1. */
LANES_INLINE lanes lanes_load_part(const float *from, int n)
{
	if (n >= LANES)
		return lanes_load(from);
	float part[LANES] = {0};
	memcpy(part, from, (size_t)n * sizeof *part);
	return lanes_load(part);
}

LANES_INLINE void lanes_store_part(float *to, lanes x, int n)
{
	if (n >= LANES) {
		lanes_store(to, x);
		return;
	}
	float part[LANES];
	lanes_store(part, x);
	memcpy(to, part, (size_t)n * sizeof *part);
}

/* mask ? a : b, lane by lane; a mask is what comparisons give: all bits or none. */
LANES_INLINE lanes lanes_select(lanes_int mask, lanes a, lanes b)
{
	return (lanes)((mask & (lanes_int)a) | (~mask & (lanes_int)b));
}

LANES_INLINE lanes_int lanes_select_int(lanes_int mask, lanes_int a, lanes_int b)
{
	return (mask & a) | (~mask & b);
}

/* Lane l with lane l + 8, then 4, 2, 1. */
LANES_INLINE float lanes_sum(lanes x)
{
	float part[LANES];
	lanes_store(part, x);
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] += part[l + width];
	return part[0];
}

LANES_INLINE int32_t lanes_sum_int(lanes_int x)
{
	int32_t part[LANES], sum = 0;
	lanes_store_int(part, x);
	for (int l = 0; l < LANES; l++)
		sum += part[l];
	return sum;
}

LANES_INLINE float lanes_max(lanes x)
{
	float part[LANES];
	lanes_store(part, x);
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] = part[l + width] > part[l] ? part[l + width] : part[l];
	return part[0];
}

LANES_INLINE lanes_double lanes_low(lanes x)
{
	lanes_half half = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
	return __builtin_convertvector(half, lanes_double);
}

LANES_INLINE lanes_double lanes_high(lanes x)
{
	lanes_half half = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
	return __builtin_convertvector(half, lanes_double);
}

LANES_INLINE double lanes_sum_double(lanes_double x)
{
	double part[LANES / 2];
	memcpy(part, &x, sizeof part);
	for (int width = LANES / 4; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] += part[l + width];
	return part[0];
}

/* e^x, within 2 ulp where the result is a normal float; 0 below that (x < -87.3), infinity from 88.4 on; NaN stays NaN.
 * x = n ln 2 + r with |r| ≤ ln 2 / 2, e^r by its Taylor series to r^7 (remainder 5e-9), 2^n by the exponent field. */
LANES_INLINE lanes lanes_exp(lanes x)
{
	const lanes lowest = lanes_splat(-87.33654f), highest = lanes_splat(89.0f);
	const lanes to_integer = lanes_splat(12582912.0f); /* 1.5 · 2^23: adding it rounds to an integer */
	lanes_int vanishes = x < lowest;
	x = lanes_select(vanishes, lowest, x);
	x = lanes_select(x > highest, highest, x);
	lanes shifted = x * lanes_splat(1.44269504f) + to_integer;
	lanes n = shifted - to_integer;
	lanes r = x - n * lanes_splat(0.693359375f); /* ln 2 in two parts, the first exact in 10 bits */
	r = r - n * lanes_splat(-2.12194440e-4f);
	lanes p = lanes_splat(1.0f / 5040);
	p = p * r + lanes_splat(1.0f / 720);
	p = p * r + lanes_splat(1.0f / 120);
	p = p * r + lanes_splat(1.0f / 24);
	p = p * r + lanes_splat(1.0f / 6);
	p = p * r + lanes_splat(0.5f);
	p = p * r + lanes_splat(1.0f);
	p = p * r + lanes_splat(1.0f);
	lanes_int exponent = (lanes_int)shifted - (lanes_int)to_integer + 127;
	lanes y = p * (lanes)(exponent << 23);
	return lanes_select(vanishes, lanes_splat(0.0f), y);
}

/* 16 rows of 16 floats, transposed: pairs of rows a distance apart exchange off-diagonal blocks of that size. */
#define LANES_EXCHANGE(distance, first, second)                                                                        \
	for (int i = 0; i < LANES; i++)                                                                                \
		if (!(i & (distance))) {                                                                               \
			lanes a = row[i], b = row[i + (distance)];                                                     \
			row[i] = __builtin_shufflevector(a, b, first);                                                 \
			row[i + (distance)] = __builtin_shufflevector(a, b, second);                                   \
		}

#define LANES_FIRST_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define LANES_SECOND_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LANES_FIRST_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define LANES_SECOND_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LANES_FIRST_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define LANES_SECOND_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LANES_FIRST_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define LANES_SECOND_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31

LANES_INLINE void lanes_transpose(lanes row[LANES])
{
#pragma GCC unroll 16
	LANES_EXCHANGE(8, LANES_FIRST_8, LANES_SECOND_8)
#pragma GCC unroll 16
	LANES_EXCHANGE(4, LANES_FIRST_4, LANES_SECOND_4)
#pragma GCC unroll 16
	LANES_EXCHANGE(2, LANES_FIRST_2, LANES_SECOND_2)
#pragma GCC unroll 16
	LANES_EXCHANGE(1, LANES_FIRST_1, LANES_SECOND_1)
}

#pragma GCC diagnostic pop

#endif
