#include "gpu_fixture.h"

#include "../src/backend/fp8.h"

/* Operators on rows: norms, rotation, moves, embeddings, weights on their way in. */

static const int widths[] = {1, 6, 9, 14, 18, 20, 32, 40, 45, 64, 80, 100, 128, 256, 333, 512, 1536, 2048, 6144, 7168};
enum { WIDTHS = sizeof widths / sizeof *widths };

static int rows_for(const struct gpu *g, int width)
{
	return g->small ? 5 : width > 1000 ? 131 : 517;
}

static void norms_equal_the_cpu(struct gpu *g)
{
	for (int n = 0; n < WIDTHS; n++)
		for (int form = 0; form < 4; form++) { /* input F32 or act; with room between rows or not */
			int D = widths[n], R = rows_for(g, D), pad = form & 2 ? 3 + n % 6 : 0;
			enum gpu_kind kind = form & 1 ? GPU_ACT : GPU_F32;
			struct both x = gpu_tensor(g, R, D, n % 3 ? 1 : 30, kind, pad),
				    out = gpu_poison(g, R, D, GPU_ACT, pad);
			struct both w = gpu_tensor(g, 1, D, 2, GPU_F32, 0), b = gpu_tensor(g, 1, D, 1, GPU_F32, 0);
			BOTH(g, rmsnorm, out.at[s], x.at[s], w.at[s], 1e-5f);
			assert_same(g, out, gpu_float, "rmsnorm %d wide, form %d", D, form);
			out = gpu_poison(g, R, D, GPU_ACT, pad);
			BOTH(g, layernorm, out.at[s], x.at[s], w.at[s], b.at[s], 1e-6f);
			assert_same(g, out, gpu_float, "layernorm %d wide, form %d", D, form);
			gpu_end_case(g);
		}
}

static void norms_in_place_equal_the_cpu(struct gpu *g)
{
	for (int n = 0; n < WIDTHS; n++) {
		int D = widths[n], R = rows_for(g, D), rest = 1 + n % 5;
		struct both x = gpu_tensor(g, R, D + rest, 1, GPU_ACT, 0), part = gpu_columns(x, 0, D);
		struct both w = gpu_tensor(g, 1, D, 2, GPU_F32, 0), b = gpu_tensor(g, 1, D, 1, GPU_F32, 0);
		BOTH(g, rmsnorm, part.at[s], part.at[s], w.at[s], 1e-6f);
		assert_same(g, x, gpu_float, "rmsnorm of the first %d of %d columns in place", D, D + rest);
		x = gpu_tensor(g, R, D, 1, GPU_ACT, 0);
		BOTH(g, layernorm, x.at[s], x.at[s], w.at[s], b.at[s], 1e-6f);
		assert_same(g, x, gpu_float, "layernorm of %d columns in place", D);
		gpu_end_case(g);
	}
}

static void norms_of_zeros_and_tiny_numbers_are_finite(struct gpu *g)
{
	for (int n = 0; n < 2; n++) {
		struct both x = gpu_tensor(g, 33, 256, n ? 1e-18f : 0, GPU_F32, 0);
		struct both out = gpu_poison(g, 33, 256, GPU_ACT, 0), w = gpu_tensor(g, 1, 256, 1, GPU_F32, 0);
		struct both b = gpu_tensor(g, 1, 256, 1, GPU_F32, 0);
		BOTH(g, rmsnorm, out.at[s], x.at[s], w.at[s], 1e-5f);
		assert_same(g, out, gpu_float, "rmsnorm of nearly nothing");
		BOTH(g, layernorm, out.at[s], x.at[s], w.at[s], b.at[s], 1e-5f);
		assert_same(g, out, gpu_float, "layernorm of nearly nothing");
	}
}

static void rotation_equals_the_cpu(struct gpu *g)
{
	static const int shapes[][4] = {/* heads, step, offset, r */ {5, 16, 10, 6},
	                                {1, 20, 14, 6},
	                                {3, 14, 0, 6},
	                                {7, 22, 10, 12},
	                                {1, 26, 14, 12},
	                                {8, 48, 32, 16},
	                                {1, 80, 64, 16},
	                                {4, 32, 0, 16},
	                                {64, 256, 192, 64},
	                                {1, 576, 512, 64},
	                                {32, 128, 0, 64},
	                                {128, 192, 128, 64}};
	static const int lengths[] = {1, 200, 37, 64, 300};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int style = 0; style < 2; style++) {
			int heads = shapes[i][0], step = shapes[i][1], offset = shapes[i][2], r = shapes[i][3];
			struct both_rows rows = gpu_documents(g, lengths, g->small ? 1 + (int)i % 3 : 5, 0);
			int cols = (heads - 1) * step + offset + r + (int)i % 3;
			struct both x = gpu_tensor(g, rows.at[CPU].count, cols, 2, GPU_ACT, (int)i % 2 * 5);
			float *angles = gpu_host(g, (size_t)(300 * r) * sizeof *angles);
			for (int t = 0; t < 300; t++)
				for (int j = 0; j < r / 2; j++) {
					double angle = t * pow(10000, -2.0 * j / r);
					angles[t * (r / 2) + j] = (float)cos(angle);
					angles[(300 + t) * (r / 2) + j] = (float)sin(angle);
				}
			struct both tables = gpu_put(g, angles, 600, r / 2, GPU_F32, 0);
			BOTH(g, rope, x.at[s], &rows.at[s], heads, step, offset, r,
			     style ? DSA_ROPE_HALVES : DSA_ROPE_INTERLEAVED, (const float *)tables.at[s].data,
			     (const float *)tables.at[s].data + 300 * (r / 2));
			assert_same(g, x, gpu_float, "rope of %d heads of %d at %d + a·%d, style %d", heads, r, offset,
			            step, style);
			gpu_end_case(g);
		}
}

static void gated_activation_equals_the_cpu(struct gpu *g)
{
	static const int inner[] = {1, 6, 7, 9, 36, 96, 192, 257, 768, 2048, 12288};
	for (size_t n = 0; n < sizeof inner / sizeof *inner; n++) {
		int m = inner[n], R = rows_for(g, m), pad = (int)n % 2 * 3;
		struct both x = gpu_tensor(g, R, 2 * m, n % 3 ? 3 : 60, GPU_ACT, pad),
			    out = gpu_poison(g, R, m, GPU_ACT, pad);
		BOTH(g, silu_mul, out.at[s], x.at[s]);
		assert_same(g, out, gpu_float, "silu_mul %d wide", m);
		gpu_end_case(g);
	}
}

static void moves_change_no_bit(struct gpu *g)
{
	static const int lengths[] = {3, 129, 64, 1, 250};
	for (int n = 0; n < WIDTHS; n++) {
		int D = widths[n], documents = g->small ? 2 : 5;
		struct both_rows rows = gpu_documents(g, lengths, documents, n % 2 ? 2 : 0);
		int64_t R = rows.at[CPU].count;
		int32_t *index = gpu_host(g, (size_t)R * sizeof *index);
		for (int64_t i = 0; i < R; i++)
			index[i] = gpu_below(g, (int)R);
		struct both_ints at = gpu_ints(g, index, R);
		for (int kind = GPU_ACT; kind <= GPU_F32; kind += GPU_F32 - GPU_ACT) {
			struct both x = gpu_tensor(g, R, D, 1, (enum gpu_kind)kind, n % 4),
				    out = gpu_poison(g, R, D, (enum gpu_kind)kind, n % 3);
			BOTH(g, gather, out.at[s], x.at[s], at.at[s]);
			assert_same_bits(g, out, "gather");
		}
		struct both x = gpu_tensor(g, R, D, 1, GPU_ACT, n % 4);
		struct both keys = gpu_tensor(g, rows.keys, D, 1, GPU_ACT, 0);
		BOTH(g, store_keys, keys.at[s], x.at[s], &rows.at[s]);
		assert_same_bits(g, keys, "store_keys");
		gpu_end_case(g);
	}
}

static void heads_are_copied_without_changing_a_bit(struct gpu *g)
{
	static const int shapes[][6] = {/* heads, cols, out step and offset, x step and offset */
	                                {5, 6, 20, 14, 16, 10},  {3, 10, 24, 14, 20, 10},      {7, 12, 26, 14, 22, 10},
	                                {8, 16, 80, 64, 48, 32}, {64, 64, 576, 512, 256, 192}, {1, 1, 1, 0, 1, 0}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		const int *n = shapes[i];
		int R = rows_for(g, n[0] * n[2]) / 2 + 1;
		struct both x = gpu_tensor(g, R, n[0] * n[4], 1, GPU_ACT, 0),
			    out = gpu_tensor(g, R, n[0] * n[2], 1, GPU_ACT, 2);
		BOTH(g, copy_heads, out.at[s], n[2], n[3], x.at[s], n[4], n[5], n[0], n[1]);
		assert_same_bits(g, out, "copy_heads");
		gpu_end_case(g);
	}
}

static void embeddings_and_their_disturbance_equal_the_cpu_bit_for_bit(struct gpu *g)
{
	static const int lengths[] = {300, 1, 50};
	static const uint64_t seeds[] = {0, 1, 0x123456789abcdef0u};
	for (int n = 0; n < WIDTHS; n++)
		for (size_t k = 0; k < sizeof seeds / sizeof *seeds; k++) {
			int D = widths[n], V = 101 + n;
			struct both_rows rows = gpu_documents(g, lengths, g->small ? 2 : 3, g->small ? 290 : 0);
			int64_t R = rows.at[CPU].count;
			int32_t *ids = gpu_host(g, (size_t)(R + 1) * sizeof *ids);
			float *values = gpu_values(g, V, D, n % 2 ? 1 : 1e-3f, GPU_WEIGHT);
			for (int64_t i = 0; i < R; i++)
				ids[i] = gpu_below(g, V);
			for (int j = 0; j < D; j++) /* zeros, and numbers without an exponent */
				values[j] = j % 2 ? 0 : gpu_bf16(ldexpf(gpu_uniform(g), -126));
			struct both table = gpu_put(g, values, V, D, GPU_WEIGHT, 0),
				    out = gpu_poison(g, R, D, GPU_F32, n % 2);
			struct both_ints at = gpu_ints(g, ids, R);
			if (R)
				BOTH(g, embed, out.at[s], table.at[s], at.at[s], &rows.at[s], seeds[k]);
			assert_same_bits(g, out, "embed");
			gpu_end_case(g);
		}
}

static const void *stored_as(struct gpu *g, const float *values, int64_t count, enum dsa_dtype dtype)
{
	size_t size = dsa_dtype_bytes(dtype);
	char *image = (char *)gpu_host(g, (size_t)count * size + 1) + 1; /* as unaligned as in a file */
	for (int64_t i = 0; i < count; i++) {
		uint16_t half = gpu_bf16_bits(values[i]);
		_Float16 ieee = (_Float16)values[i];
		memcpy(image + (size_t)i * size,
		       dtype == DSA_F32    ? (const void *)&values[i]
		       : dtype == DSA_BF16 ? (const void *)&half
		                           : (const void *)&ieee,
		       size);
	}
	return image;
}

/* What lies on the device as it is stored, against what is loaded from the host. */
static void assert_converted(struct gpu *g, struct dsa_tensor loaded, const void *image, enum dsa_dtype stored,
                             const struct dsa_block_scales *scales, int64_t scale_count)
{
	struct dsa_backend *be = g->be[GPU];
	const size_t bytes = (size_t)(loaded.rows * loaded.cols) * dsa_dtype_bytes(stored);
	const size_t scale_bytes = (size_t)scale_count * sizeof(float);
	const size_t size = (size_t)(loaded.rows * loaded.cols) * dsa_dtype_bytes(loaded.dtype);
	void *from = gpu_device(g, be, bytes), *device_scales = gpu_device(g, be, scale_bytes);
	struct dsa_tensor to = loaded;
	to.data = gpu_device(g, be, size);
	OK(g, be->ops->upload(be, from, image, bytes, &g->err));
	if (scales)
		OK(g, be->ops->upload(be, device_scales, scales->data, scale_bytes, &g->err));
	const struct dsa_block_scales there = {device_scales, scales ? scales->block_rows : 0,
	                                       scales ? scales->block_cols : 0};
	OK(g, be->ops->convert(be, to, from, stored, scales ? &there : NULL, &g->err));
	gpu_wait(g);
	if (memcmp(gpu_download(g, be, to.data, size), gpu_download(g, be, loaded.data, size), size) != 0)
		fail_msg("convert: %lld x %d of %s has other bits than when it is loaded", (long long)to.rows, to.cols,
		         dsa_dtype_name(stored));
}

static void weights_are_converted_as_the_cpu_does(struct gpu *g)
{
	static const enum dsa_dtype stored[] = {DSA_F32, DSA_BF16, DSA_F16};
	/* The last is more than one piece of any landing buffer. */
	static const int shapes[][2] = {{1, 1}, {3, 7}, {40, 45}, {257, 333}, {2000, 6144}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (g->small ? 1 : 0); i++)
		for (int k = 0; k < 3; k++)
			for (int kind = GPU_WEIGHT; kind <= GPU_F32; kind++) {
				int rows = shapes[i][0], cols = shapes[i][1];
				float *values = gpu_values(g, rows, cols, 1, GPU_F32),
				      *want = gpu_host(g, (size_t)rows * (size_t)cols * sizeof *want);
				const void *image = stored_as(g, values, (int64_t)rows * cols, stored[k]);
				for (int64_t j = 0; j < (int64_t)rows * cols; j++) {
					float x = stored[k] == DSA_BF16  ? gpu_bf16(values[j])
					          : stored[k] == DSA_F16 ? (float)(_Float16)values[j]
					                                 : values[j];
					bool round = kind == GPU_WEIGHT && g->be[GPU]->weight == DSA_BF16;
					want[j] = round ? gpu_bf16(x) : x;
				}
				struct both to = gpu_put(g, want, rows, cols, (enum gpu_kind)kind, 0);
				to.at[GPU] = gpu_poison(g, rows, cols, (enum gpu_kind)kind, 0).at[GPU];
				OK(g, g->be[GPU]->ops->load_weight(g->be[GPU], to.at[GPU], image, stored[k], &g->err));
				gpu_wait(g);
				assert_same_bits(g, to, "load_weight");
				assert_converted(g, to.at[GPU], image, stored[k], NULL, 0);
				gpu_end_case(g);
			}
}

/* Random codes but NaN, scales that are no powers of two, blocks that no edge of the weight meets. */
static void fp8_weights_are_the_products_rounded_once(struct gpu *g)
{
	/* The last three take several pieces of any landing buffer, the very last most of it for scales. */
	static const int shapes[][4] = {{1, 1, 128, 128},       {3, 7, 2, 2},          {40, 45, 16, 24},
	                                {257, 333, 128, 128},   {200, 136, 128, 128},  {130, 7000, 1, 1},
	                                {3000, 7168, 128, 128}, {4500, 5000, 37, 300}, {2600, 2600, 1, 1}};
	for (size_t n = 0; n < sizeof shapes / sizeof *shapes - (g->small ? 3 : 0); n++)
		for (int kind = GPU_WEIGHT; kind <= GPU_F32; kind++) {
			const int rows = shapes[n][0], cols = shapes[n][1], down = shapes[n][2], across = shapes[n][3];
			int scale_cols = (cols + across - 1) / across;
			int64_t count = (int64_t)rows * cols,
				scale_count = (int64_t)((rows + down - 1) / down) * scale_cols;
			uint8_t *codes = gpu_host(g, (size_t)count);
			float *scales = gpu_values(g, 1, (int)scale_count, 1, GPU_F32),
			      *want = gpu_host(g, (size_t)count * sizeof *want);
			char *unaligned = gpu_host(g, (size_t)scale_count * sizeof *scales + 1);
			for (int64_t i = 0; i < scale_count; i++)
				scales[i] = fabsf(scales[i]) * (float)ldexp(1, gpu_below(g, 20) - 15);
			memcpy(unaligned + 1, scales, (size_t)scale_count * sizeof *scales);
			for (int64_t i = 0; i < count; i++) {
				codes[i] = (uint8_t)gpu_below(g, 256);
				codes[i] = (codes[i] & 0x7f) == 0x7f ? 0x80 : codes[i];
				float x =
				    fp8_value(codes[i]) * scales[i / cols / down * scale_cols + i % cols / across];
				want[i] = kind == GPU_WEIGHT && g->be[GPU]->weight == DSA_BF16 ? gpu_bf16(x) : x;
			}
			struct both to = gpu_put(g, want, rows, cols, (enum gpu_kind)kind, 0);
			to.at[GPU] = gpu_poison(g, rows, cols, (enum gpu_kind)kind, 0).at[GPU];
			const struct dsa_block_scales s = {unaligned + 1, down, across};
			OK(g, g->be[GPU]->ops->load_fp8(g->be[GPU], to.at[GPU], codes, &s, &g->err));
			gpu_wait(g);
			assert_same_bits(g, to, "load_fp8");
			assert_converted(g, to.at[GPU], codes, DSA_F8_E4M3, &s, scale_count);
			gpu_end_case(g);
		}
}

static void scaled_weights_have_the_bits_of_the_cpu(struct gpu *g)
{
	static const float factors[] = {0.5f, 0.17677669f, 0.125f, -3, 0};
	for (int n = 0; n < WIDTHS; n++) {
		struct both t = gpu_tensor(g, rows_for(g, widths[n]), widths[n], 2, GPU_F32, 0);
		BOTH(g, scale, t.at[s], factors[n % 5]);
		assert_same_bits(g, t, "scale");
		gpu_end_case(g);
	}
}

static void fill(struct gpu *g, uint8_t *memory, size_t bytes)
{
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		const uint64_t x = gpu_random(g) & 0xbfbfbfbfbfbfbfbfu; /* finite in every type */
		memcpy(memory + i, &x, sizeof x);
	}
}

/* A fetch goes behind what is queued before it and beside what is queued after it: what is converted first is what lay
 * there, what is fetched is what was pinned, to the byte. */
static void fetched_bytes_arrive_behind_queued_work(struct gpu *g)
{
	static const size_t sizes[] = {8, 1000, 4096, 123456, (size_t)96 << 20};
	struct dsa_backend *be = g->be[GPU];
	for (size_t n = 0; n < sizeof sizes / sizeof *sizes - (g->small ? 1 : 0); n++)
		for (int again = 0; again < 3; again++) {
			const size_t bytes = sizes[n];
			const int count = (int)(bytes / 2);
			double seconds = -1;
			uint8_t *first = gpu_host(g, bytes), *pinned = be->ops->pinned_alloc(be, bytes);
			assert_non_null(pinned);
			assert_int_equal((uintptr_t)pinned % 4096, 0);
			void *landing = gpu_device(g, be, bytes);
			const struct dsa_tensor to = dsa_tensor_make(gpu_device(g, be, bytes * 2), DSA_F32, 1, count),
						other =
						    dsa_tensor_make(gpu_device(g, be, bytes * 2), DSA_F32, 1, count);
			fill(g, first, bytes);
			fill(g, pinned, bytes);
			OK(g, be->ops->upload(be, landing, first, bytes, &g->err));
			OK(g, be->ops->load_weight(be, other, first, DSA_BF16, &g->err));
			OK(g, be->ops->convert(be, to, landing, DSA_BF16, NULL, &g->err));
			OK(g, be->ops->fetch(be, landing, pinned, bytes, &g->err));
			for (int i = 0; i < 4; i++)
				OK(g, be->ops->scale(be, other, i % 2 ? 0.5f : 2, &g->err));
			OK(g, be->ops->fetched(be, &seconds, &g->err));
			assert_true(seconds >= 0 && seconds < 10);
			assert_true(!memcmp(gpu_download(g, be, landing, bytes), pinned, bytes));
			gpu_wait(g);
			const void *want = gpu_download(g, be, other.data, bytes * 2),
				   *got = gpu_download(g, be, to.data, bytes * 2);
			if (memcmp(got, want, bytes * 2) != 0)
				fail_msg("%zu bytes: fetched over what was still to be converted", bytes);
			if (n == 4 && again == 2)
				printf("# fetch of %zu MB: %.1f GB/s\n", bytes >> 20, (double)bytes / seconds / 1e9);
			be->ops->pinned_free(be, pinned);
			gpu_end_case(g);
		}
}

static void fp8_numbers_that_are_not_finite_are_named(struct gpu *g)
{
	struct dsa_backend *be = g->be[GPU];
	for (int form = 0; form < 3; form++) {
		uint8_t *codes = gpu_host(g, 70 * 45);
		float scales[5 * 3];
		memset(codes, 0x30, 70 * 45);
		for (int i = 0; i < 5 * 3; i++)
			scales[i] = 1;
		codes[61 * 45 + 13] = form == 0 ? 0xff : 0x7e;
		codes[66 * 45 + 2] = 0x7f;
		if (form == 1)
			scales[3 * 3] = 3e38f; /* times 448 */
		if (form == 2)
			scales[4 * 3 + 2] = NAN;
		const struct dsa_block_scales s = {scales, 16, 20};
		struct both to = gpu_poison(g, 70, 45, GPU_WEIGHT, 0);
		assert_int_equal(be->ops->load_fp8(be, to.at[GPU], codes, &s, &g->err), DSA_E_NUMERIC);
		const char *words = form < 2 ? "row 61, column 13" : "block row 4, block column 2";
		if (!strstr(g->err.text, words))
			fail_msg("the message names another place: %s", g->err.text);
		gpu_wait(g);
		gpu_end_case(g);
	}
}

static void a_weight_that_is_not_finite_is_named(struct gpu *g)
{
	static const enum dsa_dtype stored[] = {DSA_F32, DSA_BF16, DSA_F16};
	for (int k = 0; k < 3; k++)
		for (int bad = 0; bad < 2; bad++) {
			struct dsa_backend *be = g->be[GPU];
			float *values = gpu_values(g, 70, 45, 1, GPU_F32);
			values[61 * 45 + 13] = bad ? NAN : -INFINITY;
			values[66 * 45 + 2] = NAN;
			struct both to = gpu_poison(g, 70, 45, GPU_WEIGHT, 0);
			enum dsa_status status = be->ops->load_weight(
			    be, to.at[GPU], stored_as(g, values, 70 * 45, stored[k]), stored[k], &g->err);
			assert_int_equal(status, DSA_E_NUMERIC);
			if (!strstr(g->err.text, "row 61") || !strstr(g->err.text, "column 13"))
				fail_msg("the message names another place: %s", g->err.text);
			gpu_wait(g);
			gpu_end_case(g);
		}
}

const struct check_test rows_tests[] = {
    CHECK_TEST(norms_equal_the_cpu),
    CHECK_TEST(norms_in_place_equal_the_cpu),
    CHECK_TEST(norms_of_zeros_and_tiny_numbers_are_finite),
    CHECK_TEST(rotation_equals_the_cpu),
    CHECK_TEST(gated_activation_equals_the_cpu),
    CHECK_TEST(moves_change_no_bit),
    CHECK_TEST(heads_are_copied_without_changing_a_bit),
    CHECK_TEST(embeddings_and_their_disturbance_equal_the_cpu_bit_for_bit),
    CHECK_TEST(weights_are_converted_as_the_cpu_does),
    CHECK_TEST(fp8_weights_are_the_products_rounded_once),
    CHECK_TEST(scaled_weights_have_the_bits_of_the_cpu),
    CHECK_TEST(fetched_bytes_arrive_behind_queued_work),
    CHECK_TEST(fp8_numbers_that_are_not_finite_are_named),
    CHECK_TEST(a_weight_that_is_not_finite_is_named),
    {NULL, NULL},
};
