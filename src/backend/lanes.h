/* lanes.h: sixteen partial sums, in fixed order.
 *
 * A sum over columns is kept as LANES partial sums that are added in one fixed tree at the end. That is fast (a lane is
 * a lane of a vector register, or of PARTS of them) and its bits depend on nothing but the row itself. Compilers may
 * not reassociate a plain loop, so it would be slow. Vectors are as wide as the machine's registers and no wider: what
 * needs several registers at once is kept in memory between any two operations. */
#ifndef DSA_BACKEND_LANES_H
#define DSA_BACKEND_LANES_H

#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic push
/* Everything here is inlined: no vector crosses a call, so the calling convention of vectors does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define LANES_INLINE static inline __attribute__((always_inline))

/* An element's sum has the same order whatever the width of a vector. */
#ifdef __AVX512F__
enum { WIDE = 16, REGISTERS = 32 };
#else
enum { WIDE = 8, REGISTERS = 16 };
#endif
enum { LANES = 16, PARTS = LANES / WIDE };

typedef float wide __attribute__((vector_size(WIDE * 4)));
typedef int32_t wide_int __attribute__((vector_size(WIDE * 4)));
typedef double wide_double __attribute__((vector_size(WIDE * 4)));
typedef float wide_half __attribute__((vector_size(WIDE * 2)));
typedef float wide_memory __attribute__((vector_size(WIDE * 4), aligned(4), may_alias));
typedef int32_t wide_int_memory __attribute__((vector_size(WIDE * 4), aligned(4), may_alias));
typedef float wide_half_memory __attribute__((vector_size(WIDE * 2), aligned(4), may_alias));

/* Column j of a row belongs to lane j mod LANES: to part[j mod LANES / WIDE]. */
struct lanes {
	wide part[PARTS];
};
struct lanes_int {
	wide_int part[PARTS];
};
struct lanes_double {
	wide_double part[2 * PARTS];
};

/* n rounded up to whole lanes. */
static inline int64_t lanes_round(int64_t n)
{
	return (n + LANES - 1) / LANES * LANES;
}

LANES_INLINE wide wide_splat(float x)
{
	return x - (wide){0};
}

LANES_INLINE wide_int wide_splat_int(int32_t x)
{
	return x - (wide_int){0};
}

LANES_INLINE wide wide_load(const float *from)
{
	return *(const wide_memory *)from;
}

LANES_INLINE void wide_store(float *to, wide x)
{
	*(wide_memory *)to = x;
}

LANES_INLINE wide_int wide_load_int(const int32_t *from)
{
	return *(const wide_int_memory *)from;
}

LANES_INLINE void wide_store_int(int32_t *to, wide_int x)
{
	*(wide_int_memory *)to = x;
}

/* WIDE / 2 floats as doubles. */
LANES_INLINE wide_double wide_load_double(const float *from)
{
	return __builtin_convertvector(*(const wide_half_memory *)from, wide_double);
}

/* The first min(n, WIDE) floats, zeros behind them; n may be 0 or less. */
LANES_INLINE wide wide_load_part(const float *from, int n)
{
	float part[WIDE] = {0};
	if (n >= WIDE)
		return wide_load(from);
	if (n > 0)
		memcpy(part, from, (size_t)n * sizeof *part);
	return wide_load(part);
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
	if (n > 0)
		memcpy(to, part, (size_t)n * sizeof *part);
}

/* mask ? a : b, lane by lane; a mask is what comparisons give: all bits or none. */
LANES_INLINE wide wide_select(wide_int mask, wide a, wide b)
{
	return (wide)((mask & (wide_int)a) | (~mask & (wide_int)b));
}

LANES_INLINE wide_int wide_select_int(wide_int mask, wide_int a, wide_int b)
{
	return (mask & a) | (~mask & b);
}

LANES_INLINE struct lanes lanes_splat(float x)
{
	struct lanes out;
	for (int p = 0; p < PARTS; p++)
		out.part[p] = wide_splat(x);
	return out;
}

/* Lane l with lane l + 8, then 4, 2, 1. */
LANES_INLINE float lanes_sum(struct lanes x)
{
	float part[LANES];
	memcpy(part, &x, sizeof part);
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] += part[l + width];
	return part[0];
}

LANES_INLINE int32_t lanes_sum_int(struct lanes_int x)
{
	int32_t part[LANES], sum = 0;
	memcpy(part, &x, sizeof part);
	for (int l = 0; l < LANES; l++)
		sum += part[l];
	return sum;
}

/* As lanes_sum. */
LANES_INLINE double lanes_sum_double(struct lanes_double x)
{
	double part[LANES];
	memcpy(part, &x, sizeof part);
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			part[l] += part[l + width];
	return part[0];
}

/* sum += the LANES floats at `from`. */
LANES_INLINE void lanes_add_double(struct lanes_double *sum, const float *from)
{
	for (int p = 0; p < 2 * PARTS; p++)
		sum->part[p] += wide_load_double(from + p * (WIDE / 2));
}

/* e^x, within 2 ulp where the result is a normal float; 0 below that (x < -87.3), infinity from 88.4 on; NaN stays NaN.
 * x = n ln 2 + r with |r| ≤ ln 2 / 2, e^r by its Taylor series to r^7 (remainder 5e-9), 2^n by the exponent field. */
LANES_INLINE wide wide_exp(wide x)
{
	const wide lowest = wide_splat(-87.33654f), highest = wide_splat(89.0f);
	const wide to_integer = wide_splat(12582912.0f); /* 1.5 · 2^23: adding it rounds to an integer */
	wide_int vanishes = x < lowest;
	x = wide_select(vanishes, lowest, x);
	x = wide_select(x > highest, highest, x);
	wide shifted = x * wide_splat(1.44269504f) + to_integer;
	wide n = shifted - to_integer;
	wide r = x - n * wide_splat(0.693359375f); /* ln 2 in two parts, the first exact in 10 bits */
	r = r - n * wide_splat(-2.12194440e-4f);
	wide p = wide_splat(1.0f / 5040);
	p = p * r + wide_splat(1.0f / 720);
	p = p * r + wide_splat(1.0f / 120);
	p = p * r + wide_splat(1.0f / 24);
	p = p * r + wide_splat(1.0f / 6);
	p = p * r + wide_splat(0.5f);
	p = p * r + wide_splat(1.0f);
	p = p * r + wide_splat(1.0f);
	wide_int exponent = (wide_int)shifted - (wide_int)to_integer + 127;
	wide y = p * (wide)(exponent << 23);
	return wide_select(vanishes, wide_splat(0.0f), y);
}

#pragma GCC diagnostic pop

#endif
