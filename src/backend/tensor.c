#include "dsa/backend.h"

#include <assert.h>
#include <string.h>

static const struct {
	const char *name;
	size_t bytes;
} dtypes[DSA_DTYPES] = {
    [DSA_F32] = {"F32", 4}, [DSA_BF16] = {"BF16", 2}, [DSA_F16] = {"F16", 2}, [DSA_F8_E4M3] = {"F8_E4M3", 1},
    [DSA_I32] = {"I32", 4}, [DSA_I64] = {"I64", 8},   [DSA_F64] = {"F64", 8}, [DSA_U8] = {"U8", 1},
};

size_t dsa_dtype_bytes(enum dsa_dtype dtype)
{
	assert((unsigned)dtype < DSA_DTYPES);
	return dtypes[dtype].bytes;
}

const char *dsa_dtype_name(enum dsa_dtype dtype)
{
	assert((unsigned)dtype < DSA_DTYPES);
	return dtypes[dtype].name;
}

const char *dsa_index_precision_name(enum dsa_index_precision precision)
{
	static const char *const names[] = {
	    [DSA_INDEX_ACT] = "f32",
	    [DSA_INDEX_BF16] = "bf16",
	    [DSA_INDEX_FP8] = "fp8",
	    [DSA_INDEX_FP8_UE8M0] = "fp8",
	};
	assert((unsigned)precision < sizeof names / sizeof *names);
	return names[precision];
}

bool dsa_index_precision_find(const char *name, enum dsa_index_precision *out)
{
	for (int p = DSA_INDEX_ACT; p <= DSA_INDEX_FP8; p++)
		if (!strcmp(name, dsa_index_precision_name((enum dsa_index_precision)p))) {
			*out = (enum dsa_index_precision)p;
			return true;
		}
	return false;
}

struct dsa_tensor dsa_tensor_make(void *data, enum dsa_dtype dtype, int64_t rows, int cols)
{
	assert(rows >= 0 && cols >= 0);
	return (struct dsa_tensor){.data = data, .dtype = dtype, .rows = rows, .cols = cols, .stride = cols};
}

static void *element(struct dsa_tensor t, int64_t index)
{
	return t.data ? (char *)t.data + (size_t)index * dsa_dtype_bytes(t.dtype) : NULL;
}

struct dsa_tensor dsa_tensor_columns(struct dsa_tensor t, int first, int cols)
{
	assert(first >= 0 && cols >= 0 && cols <= t.cols - first);
	t.data = element(t, first);
	t.cols = cols;
	return t;
}

struct dsa_tensor dsa_tensor_rows(struct dsa_tensor t, int64_t first, int64_t rows)
{
	assert(first >= 0 && rows >= 0 && rows <= t.rows - first);
	t.data = element(t, first * t.stride);
	t.rows = rows;
	return t;
}
