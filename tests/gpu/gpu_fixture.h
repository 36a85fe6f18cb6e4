/* gpu_fixture.h: the CPU backend and the GPU's side by side, random tensors that both are given, outputs compared.
 *
 * Inputs of the GPU's activation and weight types are rounded to bf16 first and given to the CPU as the same numbers in
 * float32, so what is compared is arithmetic alone. Outputs start as NaN in every bit. A tensor may have room between
 * its rows; what lies there is NaN, and stays so or the test fails. Everything is freed when a case ends. */
#ifndef DSA_TESTS_GPU_FIXTURE_H
#define DSA_TESTS_GPU_FIXTURE_H

#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/backend.h"

enum { CPU, GPU, GPU_KEPT = 512 };

struct gpu {
	struct dsa_backend *be[2]; /* by CPU, GPU */
	bool small;                /* small cases only: for sanitizers */
	uint64_t random;           /* state */
	void *kept[GPU_KEPT];
	struct dsa_backend *owner[GPU_KEPT]; /* NULL: host memory */
	int count;
	struct dsa_error err;
};

/* One thing, on both. */
struct both {
	struct dsa_tensor at[2];
};
struct both_ints {
	const int32_t *host, *at[2];
};
struct both_rows {
	struct dsa_rows at[2];
	int64_t keys; /* Σ T of its documents */
};

enum gpu_kind { GPU_ACT, GPU_WEIGHT, GPU_F32 };

/* What may differ: ‖gpu - cpu‖ / ‖cpu‖ over everything, and each element's difference over the row's largest. An output
 * in bf16 may be off by its rounding besides. */
struct gpu_limit {
	double norm, most;
};

/* Float32 operators, products (tensor cores sum in float32; inner results may be bf16), the same with a float32 result
 * of bf16 factors. */
static const struct gpu_limit gpu_float = {1e-5, 2e-5}, gpu_product = {1e-2, 4e-2}, gpu_sum = {1e-4, 1e-3};

#define OK(g, call)                                                                                                    \
	do {                                                                                                           \
		(g)->err.text[0] = 0;                                                                                  \
		if ((call) != DSA_OK)                                                                                  \
			fail_msg("%s: %s", #call, (g)->err.text);                                                      \
	} while (0)

/* An operator on both sides; its arguments name theirs by `s`. */
#define BOTH(g, operator, ...)                                                                                         \
	do {                                                                                                           \
		for (int s = CPU; s <= GPU; s++)                                                                       \
			OK(g, (g)->be[s]->ops->operator((g)->be[s], __VA_ARGS__, &(g)->err));                          \
		gpu_wait(g);                                                                                           \
	} while (0)

uint64_t gpu_random(struct gpu *g);
int gpu_below(struct gpu *g, int bound);
float gpu_uniform(struct gpu *g); /* ±1 */
float gpu_bf16(float x);          /* rounded to nearest, ties to even */
uint16_t gpu_bf16_bits(float x);

void *gpu_host(struct gpu *g, size_t bytes); /* until the case ends */
void *gpu_device(struct gpu *g, struct dsa_backend *be, size_t bytes);
void gpu_end_case(struct gpu *g);
void gpu_reserve(struct gpu *g, struct dsa_backend_limits limits);

/* Uniform in ±scale; rounded to bf16 if the kind is bf16 on the GPU. (rows, cols) floats on the host. */
float *gpu_values(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind);
/* Onto both sides, `pad` elements between rows. */
struct both gpu_put(struct gpu *g, const float *values, int64_t rows, int cols, enum gpu_kind kind, int pad);
struct both gpu_tensor(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind, int pad);
/* On the GPU alone. */
struct dsa_tensor gpu_alone(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind);
struct both gpu_poison(struct gpu *g, int64_t rows, int cols, enum gpu_kind kind, int pad);
struct both gpu_none(void);
struct both gpu_columns(struct both t, int first, int cols);
struct both gpu_rows_of(struct both t, int64_t first, int64_t rows);
struct both_ints gpu_ints(struct gpu *g, const int32_t *values, int64_t count);
/* Query rows: positions ≥ from of documents of these lengths. */
struct both_rows gpu_documents(struct gpu *g, const int *lengths, int documents, int from);
/* The last `each` positions of every document. */
struct both_rows gpu_last_rows(struct gpu *g, const int *lengths, int documents, int each);
struct dsa_rows gpu_some_rows(struct dsa_rows rows, int64_t first, int64_t count);

/* Waits on both sides. */
void gpu_wait(struct gpu *g);
/* (rows, cols) floats; the room between rows must be untouched. */
float *gpu_fetch(struct gpu *g, struct dsa_backend *be, struct dsa_tensor t);
void *gpu_download(struct gpu *g, struct dsa_backend *be, const void *memory, size_t bytes);
void assert_same(struct gpu *g, struct both t, struct gpu_limit limit, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void assert_same_bits(struct gpu *g, struct both t, const char *what);

#endif
