/* Memory of the CPU backend, weights on their way in, rows moved from place to place. */
#include "cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dsa/arena.h"
#include "dsa/clock.h"
#include "stored.h"

enum { ALIGNMENT = 256 };

static size_t pages(int name)
{
	long count = sysconf(name), size = sysconf(_SC_PAGESIZE);
	return count > 0 && size > 0 ? (size_t)count * (size_t)size : 0;
}

enum dsa_status cpu_alloc(struct dsa_backend *be, size_t bytes, const char *what, void **out, struct dsa_error *err)
{
	(void)be;
	*out = NULL;
	/* Linux promises more than there is, so a request beyond the machine's memory is refused here. */
	if (bytes <= pages(_SC_PHYS_PAGES))
		*out = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
	if (!*out)
		return dsa_fail(
		    err, DSA_E_MEMORY,
		    "no memory for %s: %zu bytes asked for, %zu free; use a shorter --context or a smaller model", what,
		    bytes, pages(_SC_AVPHYS_PAGES));
	return DSA_OK;
}

enum dsa_status cpu_memory(struct dsa_backend *be, size_t *free_bytes, size_t *total, struct dsa_error *err)
{
	(void)be, (void)err;
	*free_bytes = dsa_memory_available();
	*total = pages(_SC_PHYS_PAGES);
	return DSA_OK;
}

void cpu_free(struct dsa_backend *be, void *memory)
{
	(void)be;
	free(memory);
}

void *cpu_stash_alloc(struct dsa_backend *be, size_t bytes)
{
	(void)be;
	return malloc(bytes ? bytes : 1);
}

void cpu_stash_free(struct dsa_backend *be, void *memory)
{
	(void)be;
	free(memory);
}

static enum dsa_status copy(void *to, const void *from, size_t bytes)
{
	if (bytes)
		memmove(to, from, bytes);
	return DSA_OK;
}

enum dsa_status cpu_upload(struct dsa_backend *be, void *device, const void *host, size_t bytes, struct dsa_error *err)
{
	(void)be, (void)err;
	return copy(device, host, bytes);
}

enum dsa_status cpu_download(struct dsa_backend *be, void *host, const void *device, size_t bytes,
                             struct dsa_error *err)
{
	(void)be, (void)err;
	return copy(host, device, bytes);
}

enum dsa_status cpu_copy(struct dsa_backend *be, void *to, const void *from, size_t bytes, struct dsa_error *err)
{
	(void)be, (void)err;
	return copy(to, from, bytes);
}

static enum dsa_status not_finite(float x, int64_t row, int col, struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_NUMERIC, "row %lld, column %d: %s, expected a finite number", (long long)row, col,
	                isnan(x) ? "NaN" : "infinity");
}

enum dsa_status cpu_load_weight(struct dsa_backend *be, struct dsa_tensor to, const void *host, enum dsa_dtype stored,
                                struct dsa_error *err)
{
	(void)be;
	assert(to.dtype == DSA_F32 && to.stride == to.cols);
	assert(stored == DSA_F32 || stored == DSA_BF16 || stored == DSA_F16);
	size_t size = dsa_dtype_bytes(stored);
	const uint8_t *at = host;
	for (int64_t i = 0; i < to.rows; i++) {
		float *row = cpu_row(to, i);
		for (int j = 0; j < to.cols; j++, at += size) {
			row[j] = stored_value(at, stored);
			if (!isfinite(row[j]))
				return not_finite(row[j], i, j, err);
		}
	}
	return DSA_OK;
}

enum dsa_status cpu_load_fp8(struct dsa_backend *be, struct dsa_tensor to, const void *host,
                             const struct dsa_block_scales *scales, struct dsa_error *err)
{
	float values[256];
	const uint8_t *at = host;
	(void)be;
	assert(to.dtype == DSA_F32 && to.stride == to.cols);
	enum dsa_status status = fp8_check_scales(scales, to.rows, to.cols, err);
	for (int code = 0; code < 256; code++)
		values[code] = fp8_value((uint8_t)code);
	for (int64_t i = 0; i < to.rows && !status; i++) {
		float *row = cpu_row(to, i), scale = 0;
		for (int j = 0; j < to.cols && !status; j++, at++) {
			if (j % scales->block_cols == 0)
				scale = fp8_scale_at(scales, to.cols, i, j);
			row[j] = values[*at] * scale;
			if (!isfinite(row[j]))
				status = not_finite(row[j], i, j, err);
		}
	}
	return status;
}

void *cpu_pinned_alloc(struct dsa_backend *be, size_t bytes)
{
	const size_t page = 4096;
	(void)be;
	return aligned_alloc(page, (bytes / page + 1) * page);
}

void cpu_pinned_free(struct dsa_backend *be, void *memory)
{
	(void)be;
	free(memory);
}

enum dsa_status cpu_fetch(struct dsa_backend *be, void *device, const void *pinned, size_t bytes, struct dsa_error *err)
{
	const double begin = dsa_clock_seconds();
	(void)err;
	enum dsa_status status = copy(device, pinned, bytes);
	cpu_of(be)->fetch_seconds = dsa_clock_seconds() - begin;
	return status;
}

enum dsa_status cpu_fetched(struct dsa_backend *be, double *seconds, struct dsa_error *err)
{
	(void)err;
	*seconds = cpu_of(be)->fetch_seconds;
	return DSA_OK;
}

enum dsa_status cpu_convert(struct dsa_backend *be, struct dsa_tensor to, const void *from, enum dsa_dtype stored,
                            const struct dsa_block_scales *scales, struct dsa_error *err)
{
	return scales ? cpu_load_fp8(be, to, from, scales, err) : cpu_load_weight(be, to, from, stored, err);
}

enum dsa_status cpu_scale(struct dsa_backend *be, struct dsa_tensor t, float factor, struct dsa_error *err)
{
	(void)be, (void)err;
	assert(t.dtype == DSA_F32 && t.stride == t.cols);
	for (int64_t i = 0; i < t.rows; i++)
		for (int j = 0; j < t.cols; j++)
			cpu_row(t, i)[j] *= factor;
	return DSA_OK;
}

enum dsa_status cpu_copy_heads(struct dsa_backend *be, struct dsa_tensor out, int out_step, int out_offset,
                               struct dsa_tensor x, int x_step, int x_offset, int heads, int cols,
                               struct dsa_error *err)
{
	(void)err;
	assert(out.dtype == DSA_F32 && x.dtype == DSA_F32 && out.rows == x.rows && heads > 0);
	assert((int64_t)(heads - 1) * out_step + out_offset + cols <= out.cols);
	assert((int64_t)(heads - 1) * x_step + x_offset + cols <= x.cols);
#pragma omp parallel for num_threads(cpu_of(be)->threads) schedule(static)
	for (int64_t i = 0; i < x.rows; i++) {
		for (int a = 0; a < heads; a++)
			memcpy(cpu_row(out, i) + out_offset + (int64_t)a * out_step,
			       cpu_row(x, i) + x_offset + (int64_t)a * x_step, (size_t)cols * sizeof(float));
	}
	return DSA_OK;
}

enum dsa_status cpu_store_keys(struct dsa_backend *be, struct dsa_tensor keys, struct dsa_tensor x,
                               const struct dsa_rows *rows, struct dsa_error *err)
{
	(void)be, (void)err;
	assert(keys.dtype == DSA_F32 && x.dtype == DSA_F32 && keys.cols == x.cols && x.rows == rows->count);
	for (int64_t i = 0; i < rows->count; i++) {
		int64_t key = (int64_t)rows->key0[i] + rows->pos[i];
		assert(key >= 0 && key < keys.rows);
		memcpy(cpu_row(keys, key), cpu_row(x, i), (size_t)x.cols * sizeof(float));
	}
	return DSA_OK;
}

enum dsa_status cpu_gather(struct dsa_backend *be, struct dsa_tensor out, struct dsa_tensor x, const int32_t *index,
                           struct dsa_error *err)
{
	(void)be, (void)err;
	assert(out.dtype == x.dtype && out.cols == x.cols);
	size_t size = dsa_dtype_bytes(x.dtype);
	for (int64_t i = 0; i < out.rows; i++) {
		assert(index[i] >= 0 && index[i] < x.rows);
		memcpy((char *)out.data + (size_t)(i * out.stride) * size,
		       (const char *)x.data + (size_t)(index[i] * x.stride) * size, (size_t)x.cols * size);
	}
	return DSA_OK;
}
