#include "gpu_fixture.h"

/* Splitmix: element i of a tensor is a function of the state and i, so threads can fill it. */
static uint64_t mixed(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

uint64_t gpu_random(struct gpu *g)
{
	return mixed(g->random++);
}

int gpu_below(struct gpu *g, int bound)
{
	return (int)(gpu_random(g) % (uint64_t)bound);
}

static float unit(uint64_t bits)
{
	return (float)((double)(bits >> 11) * 0x1p-52 - 1);
}

float gpu_uniform(struct gpu *g)
{
	return unit(gpu_random(g));
}

uint16_t gpu_bf16_bits(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static float from_bf16(uint16_t half)
{
	uint32_t bits = (uint32_t)half << 16;
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

float gpu_bf16(float x)
{
	return from_bf16(gpu_bf16_bits(x));
}

static void keep(struct gpu *g, void *memory, struct dsa_backend *owner)
{
	assert_true(g->count < GPU_KEPT);
	g->owner[g->count] = owner;
	g->kept[g->count++] = memory;
}

void *gpu_host(struct gpu *g, size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);
	assert_non_null(memory);
	keep(g, memory, NULL);
	return memory;
}

void *gpu_device(struct gpu *g, struct dsa_backend *be, size_t bytes)
{
	void *memory;
	OK(g, be->ops->alloc(be, bytes ? bytes : 1, "a test", &memory, &g->err));
	keep(g, memory, be);
	return memory;
}

void gpu_end_case(struct gpu *g)
{
	while (g->count) {
		void *memory = g->kept[--g->count];
		struct dsa_backend *owner = g->owner[g->count];
		if (owner)
			owner->ops->free(owner, memory);
		else
			free(memory);
	}
}

/* What a case does not say is one: a real model has something of everything. */
static void at_least_one(int *const *sizes, int count)
{
	for (int i = 0; i < count; i++)
		*sizes[i] = *sizes[i] ? *sizes[i] : 1;
}

void gpu_reserve(struct gpu *g, struct dsa_backend_limits limits)
{
	struct dsa_backend_limits *l = &limits;
	int *const sizes[] = {&l->layers,      &l->hidden,    &l->heads,      &l->latent, &l->rope,
	                      &l->topk,        &l->vocab,     &l->experts,    &l->chosen, &l->expert_inner,
	                      &l->index_heads, &l->index_dim, &l->max_context};
	at_least_one(sizes, sizeof sizes / sizeof *sizes);
	limits.keys = limits.keys > limits.rows ? limits.keys : limits.rows;
	OK(g, dsa_backend_reserve(g->be[CPU], &limits, &g->err));
	OK(g, dsa_backend_reserve(g->be[GPU], &limits, &g->err));
}

static enum dsa_dtype type_of(const struct dsa_backend *be, enum gpu_kind kind)
{
	return kind == GPU_F32 ? DSA_F32 : kind == GPU_ACT ? be->act : be->weight;
}

float *gpu_values(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind)
{
	int64_t count = rows * cols;
	float *values = gpu_host(g, (size_t)count * sizeof *values);
	bool round = type_of(g->be[GPU], kind) == DSA_BF16;
	uint64_t seed = gpu_random(g);
#pragma omp parallel for schedule(static)
	for (int64_t i = 0; i < count; i++) {
		float x = scale * unit(mixed(seed + (uint64_t)i));
		values[i] = round ? gpu_bf16(x) : x;
	}
	return values;
}

/* values NULL: NaN everywhere. */
static struct dsa_tensor place(struct gpu *g, struct dsa_backend *be, const float *values, int64_t rows, int cols,
                               enum dsa_dtype dtype, int pad)
{
	int64_t stride = (int64_t)cols + pad;
	size_t bytes = (size_t)(rows * stride) * dsa_dtype_bytes(dtype);
	char *image = malloc(bytes ? bytes : 1);
	assert_non_null(image);
	if (!values || pad)
		memset(image, 0xff, bytes);
#pragma omp parallel for schedule(static)
	for (int64_t i = 0; i < rows; i++) {
		if (!values)
			continue;
		if (dtype == DSA_F32) {
			memcpy((float *)(void *)image + i * stride, values + i * cols, (size_t)cols * sizeof *values);
			continue;
		}
		uint16_t *row = (uint16_t *)(void *)image + i * stride;
		for (int j = 0; j < cols; j++)
			row[j] = gpu_bf16_bits(values[i * cols + j]);
	}
	struct dsa_tensor t = dsa_tensor_make(gpu_device(g, be, bytes), dtype, rows, cols);
	t.stride = stride;
	OK(g, be->ops->upload(be, t.data, image, bytes, &g->err));
	OK(g, be->ops->wait(be, &g->err));
	free(image);
	return t;
}

struct both gpu_put(struct gpu *g, const float *values, int64_t rows, int cols, enum gpu_kind kind, int pad)
{
	return (struct both){.at[CPU] = place(g, g->be[CPU], values, rows, cols, DSA_F32, pad),
	                     .at[GPU] = place(g, g->be[GPU], values, rows, cols, type_of(g->be[GPU], kind), pad)};
}

struct both gpu_tensor(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind, int pad)
{
	return gpu_put(g, gpu_values(g, rows, cols, scale, kind), rows, cols, kind, pad);
}

struct dsa_tensor gpu_alone(struct gpu *g, int64_t rows, int cols, float scale, enum gpu_kind kind)
{
	return place(g, g->be[GPU], gpu_values(g, rows, cols, scale, kind), rows, cols, type_of(g->be[GPU], kind), 0);
}

struct both gpu_poison(struct gpu *g, int64_t rows, int cols, enum gpu_kind kind, int pad)
{
	return gpu_put(g, NULL, rows, cols, kind, pad);
}

struct both gpu_none(void)
{
	return (struct both){0};
}

struct both gpu_columns(struct both t, int first, int cols)
{
	return (struct both){{dsa_tensor_columns(t.at[CPU], first, cols), dsa_tensor_columns(t.at[GPU], first, cols)}};
}

struct both gpu_rows_of(struct both t, int64_t first, int64_t rows)
{
	return (struct both){{dsa_tensor_rows(t.at[CPU], first, rows), dsa_tensor_rows(t.at[GPU], first, rows)}};
}

static int32_t *put_ints(struct gpu *g, struct dsa_backend *be, const int32_t *values, int64_t count)
{
	size_t bytes = (size_t)count * sizeof *values;
	int32_t *device = gpu_device(g, be, bytes);
	OK(g, be->ops->upload(be, device, values, bytes, &g->err));
	OK(g, be->ops->wait(be, &g->err));
	return device;
}

struct both_ints gpu_ints(struct gpu *g, const int32_t *values, int64_t count)
{
	return (struct both_ints){values,
	                          {put_ints(g, g->be[CPU], values, count), put_ints(g, g->be[GPU], values, count)}};
}

static struct both_rows make_rows(struct gpu *g, const int *lengths, int documents, int from, int each)
{
	int64_t room = 0;
	for (int d = 0; d < documents; d++)
		room += lengths[d];
	int32_t *pos = gpu_host(g, (size_t)room * sizeof *pos), *key0 = gpu_host(g, (size_t)room * sizeof *key0);
	struct both_rows rows = {.keys = 0};
	struct dsa_rows at = {0};
	for (int d = 0; d < documents; d++) {
		int first = each && lengths[d] > each ? lengths[d] - each : from;
		for (int t = first; t < lengths[d]; t++) {
			pos[at.count] = t;
			key0[at.count++] = (int32_t)rows.keys;
			at.max_pos = t > at.max_pos ? t : at.max_pos;
		}
		rows.keys += lengths[d];
	}
	struct both_ints p = gpu_ints(g, pos, at.count), k = gpu_ints(g, key0, at.count);
	for (int s = 0; s < 2; s++) {
		rows.at[s] = at;
		rows.at[s].pos = p.at[s];
		rows.at[s].key0 = k.at[s];
	}
	return rows;
}

struct both_rows gpu_documents(struct gpu *g, const int *lengths, int documents, int from)
{
	return make_rows(g, lengths, documents, from, 0);
}

struct both_rows gpu_last_rows(struct gpu *g, const int *lengths, int documents, int each)
{
	return make_rows(g, lengths, documents, 0, each);
}

struct dsa_rows gpu_some_rows(struct dsa_rows rows, int64_t first, int64_t count)
{
	return (struct dsa_rows){
	    .count = count, .pos = rows.pos + first, .key0 = rows.key0 + first, .max_pos = rows.max_pos};
}

void gpu_wait(struct gpu *g)
{
	OK(g, g->be[CPU]->ops->wait(g->be[CPU], &g->err));
	OK(g, g->be[GPU]->ops->wait(g->be[GPU], &g->err));
}

void *gpu_download(struct gpu *g, struct dsa_backend *be, const void *memory, size_t bytes)
{
	void *host = gpu_host(g, bytes);
	OK(g, be->ops->download(be, host, memory, bytes, &g->err));
	return host;
}

float *gpu_fetch(struct gpu *g, struct dsa_backend *be, struct dsa_tensor t)
{
	size_t size = dsa_dtype_bytes(t.dtype), count = t.rows ? (size_t)((t.rows - 1) * t.stride + t.cols) : 0;
	const char *image = gpu_download(g, be, t.data, count * size);
	float *values = gpu_host(g, (size_t)(t.rows * t.cols) * sizeof *values);
	for (int64_t i = 0; i < t.rows; i++) {
		const char *row = image + (size_t)(i * t.stride) * size;
		for (int j = 0; j < t.cols; j++) {
			uint16_t half;
			if (t.dtype == DSA_F32) {
				memcpy(&values[i * t.cols + j], row + (size_t)j * size, size);
				continue;
			}
			memcpy(&half, row + (size_t)j * size, size);
			values[i * t.cols + j] = from_bf16(half);
		}
	}
	return values;
}

static void describe(char text[256], const char *fmt, va_list args)
{
	vsnprintf(text, 256, fmt, args);
}

/* The room behind each row's columns still holds what gpu_put filled it with. */
static void room_is_untouched(struct gpu *g, struct dsa_backend *be, struct dsa_tensor t, const char *what)
{
	size_t size = dsa_dtype_bytes(t.dtype);
	int pad = (int)(t.stride - t.cols);
	if (!pad || t.rows < 2)
		return;
	const unsigned char *image = gpu_download(g, be, t.data, (size_t)((t.rows - 1) * t.stride) * size);
	for (int64_t i = 0; i + 1 < t.rows; i++)
		for (size_t b = 0; b < (size_t)pad * size; b++)
			if (image[(size_t)(i * t.stride + t.cols) * size + b] != 0xff)
				fail_msg("%s: writes behind the columns of row %lld", what, (long long)i);
}

static double half_ulp(const struct dsa_tensor t, double x)
{
	return t.dtype == DSA_BF16 ? 0x1p-8 * fabs(x) : 0;
}

void assert_same(struct gpu *g, struct both t, struct gpu_limit limit, const char *fmt, ...)
{
	char what[256];
	va_list args;
	va_start(args, fmt);
	describe(what, fmt, args);
	va_end(args);
	assert_true(t.at[CPU].rows == t.at[GPU].rows && t.at[CPU].cols == t.at[GPU].cols);
	const float *want = gpu_fetch(g, g->be[CPU], t.at[CPU]), *got = gpu_fetch(g, g->be[GPU], t.at[GPU]);
	int cols = t.at[CPU].cols;
	double error = 0, norm = 0;
	for (int64_t i = 0; i < t.at[CPU].rows; i++) {
		double largest = 0;
		for (int j = 0; j < cols; j++)
			largest = fmax(largest, fabs((double)want[i * cols + j]));
		for (int j = 0; j < cols; j++) {
			double a = (double)got[i * cols + j], b = (double)want[i * cols + j];
			double allowed = limit.most * largest + half_ulp(t.at[GPU], b) * (1 + limit.most) + 1e-30;
			if (!(fabs(a - b) <= allowed))
				fail_msg("%s: row %lld column %d is %.9g, expected %.9g within %.2g", what,
				         (long long)i, j, a, b, allowed);
			error += (a - b) * (a - b), norm += b * b;
		}
	}
	double relative = norm > 0 ? sqrt(error / norm) : sqrt(error);
	/* Rounding to bf16 alone moves random numbers by 0.0017 of their norm, a few of them by up to half an ulp. */
	double rounding = cols < 16 ? 4e-3 : 2.2e-3;
	if (!(relative <= limit.norm + (t.at[GPU].dtype == DSA_BF16 ? rounding : 0)))
		fail_msg("%s: off by %.3g of the norm", what, relative);
	room_is_untouched(g, g->be[GPU], t.at[GPU], what);
}

void assert_same_bits(struct gpu *g, struct both t, const char *what)
{
	const float *want = gpu_fetch(g, g->be[CPU], t.at[CPU]), *got = gpu_fetch(g, g->be[GPU], t.at[GPU]);
	int cols = t.at[CPU].cols;
	for (int64_t i = 0; i < t.at[CPU].rows * cols; i++)
		if (memcmp(&want[i], &got[i], sizeof *got) != 0)
			fail_msg("%s: row %lld column %lld is %.9g, expected %.9g", what, (long long)(i / cols),
			         (long long)(i % cols), (double)got[i], (double)want[i]);
	room_is_untouched(g, g->be[GPU], t.at[GPU], what);
}
