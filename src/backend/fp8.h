/* fp8.h: F8_E4M3 numbers and their block scales on the host: 1 sign bit, 4 of exponent (bias 7), 3 of significand.
 *
 * No infinities; codes 0x7f and 0xff are NaN, 0x7e is the largest, 448. Below 2^-6 numbers are multiples of 2^-9. */
#ifndef DSA_BACKEND_FP8_H
#define DSA_BACKEND_FP8_H

#include <stdint.h>

#include "dsa/backend.h"

#define FP8_MOST 448.0f

float fp8_value(uint8_t code);
/* The F8_E4M3 number nearest to x, ties to even, ±448 for what is beyond; NaN stays NaN. */
float fp8_round(float x);

/* Scales of a (rows, cols) weight are finite and not negative, or DSA_E_NUMERIC naming the first block that is not. */
DSA_CHECKED enum dsa_status fp8_check_scales(const struct dsa_block_scales *scales, int64_t rows, int cols,
                                             struct dsa_error *err);
/* Of the block that (row, col) lies in. */
float fp8_scale_at(const struct dsa_block_scales *scales, int cols, int64_t row, int col);

#endif
