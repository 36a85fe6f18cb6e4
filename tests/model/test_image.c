/* A layer's image and the reader that fills it, on files made up here: large pieces, many threads, gaps, odd places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "residency_fixture.h"

#include "../src/model/residency_private.h"

enum { PIECES = 40, SHARDS = 3, PAGE = 4096 };

/* What a made-up checkpoint holds, by file offset: byte = function of shard and place. */
static uint8_t byte_at(int shard, uint64_t offset)
{
	const uint64_t mixed = (offset + 1) * 0x9e3779b97f4a7c15u + (uint64_t)shard * 0xbf58476d1ce4e5b9u;
	return (uint8_t)(mixed >> 56);
}

struct made {
	struct dsa_checkpoint *cp;
	struct dsa_stored stored[PIECES];
	struct weight_piece pieces[PIECES];
	uint64_t sizes[SHARDS];
};

/* Three shards of one U8 tensor each, so that pieces may lie anywhere in them. */
static void make_shards(struct made *m, const uint64_t sizes[SHARDS])
{
	char index[512] = "{\"weight_map\":{";
	for (int s = 0; s < SHARDS; s++) {
		char name[32], header[128];
		const int length = snprintf(header, sizeof header,
		                            "{\"t%d\":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[0,%llu]}}",
		                            s, (unsigned long long)sizes[s], (unsigned long long)sizes[s]);
		const uint64_t header_bytes = (uint64_t)length;
		snprintf(name, sizeof name, "s%d.safetensors", s);
		append(index, sizeof index, "%s\"t%d\":\"%s\"", s ? "," : "", s, name);
		uint8_t *data = malloc(8 + header_bytes + sizes[s]);
		assert_non_null(data);
		memcpy(data, &header_bytes, 8);
		memcpy(data + 8, header, header_bytes);
		m->sizes[s] = 8 + header_bytes + sizes[s];
		for (uint64_t i = 8 + header_bytes; i < m->sizes[s]; i++)
			data[i] = byte_at(s, i);
		FILE *file = fopen(in_dir(name), "wb");
		assert_non_null(file);
		assert_int_equal(fwrite(data, m->sizes[s], 1, file), 1);
		assert_int_equal(fclose(file), 0);
		free(data);
	}
	append(index, sizeof index, "}}");
	FILE *file = fopen(in_dir("model.safetensors.index.json"), "wb");
	assert_true(file && fputs(index, file) >= 0 && !fclose(file));
	MUST(dsa_checkpoint_open(&m->cp, dir, &golden_error));
}

static const struct dsa_stored *tensor_of(const struct made *m, int shard)
{
	char name[8];
	snprintf(name, sizeof name, "t%d", shard);
	return dsa_checkpoint_find(m->cp, name);
}

/* Piece i: `bytes` of a dtype from `offset` on of a shard's tensor; scales too where it is FP8. */
static void place_piece(struct made *m, int i, int shard, enum dsa_dtype dtype, uint64_t offset, uint64_t bytes,
                        int scale_shard, uint64_t scale_offset, uint64_t scale_bytes)
{
	m->stored[i] = (struct dsa_stored){.dtype = dtype, .shard = shard};
	assert_true(offset + bytes <= tensor_of(m, shard)->bytes);
	m->pieces[i] = (struct weight_piece){
	    .stored = &m->stored[i], .numbers = tensor_of(m, shard)->data + offset, .bytes = bytes, .matrix = -1};
	if (dtype != DSA_F8_E4M3)
		return;
	assert_true(scale_offset + scale_bytes <= tensor_of(m, scale_shard)->bytes);
	m->pieces[i].scales = tensor_of(m, scale_shard)->data + scale_offset;
	m->pieces[i].scale_shard = scale_shard;
	m->pieces[i].scale_bytes = scale_bytes;
}

static void random_pieces(struct made *m, int count, uint64_t most)
{
	static const enum dsa_dtype dtypes[] = {DSA_F32, DSA_BF16, DSA_F16, DSA_F8_E4M3};
	uint64_t next[SHARDS] = {0};
	for (int i = 0; i < count; i++) {
		const int shard = below(SHARDS), beside = below(SHARDS);
		const enum dsa_dtype dtype = dtypes[below(4)];
		const uint64_t bytes = (1 + (uint64_t)below((int)most)) * dsa_dtype_bytes(dtype);
		const uint64_t scale_bytes = 4 * (1 + (uint64_t)below(500));
		/* One in three lies behind a gap, up to twice what is read over. */
		next[shard] += (uint64_t)(below(3) ? below(9) : below(131072));
		const uint64_t offset = next[shard];
		next[shard] += bytes;
		const uint64_t scale_offset = next[beside] + (uint64_t)below(3);
		if (dtype == DSA_F8_E4M3)
			next[beside] = scale_offset + scale_bytes;
		place_piece(m, i, shard, dtype, offset, bytes, beside, scale_offset, scale_bytes);
	}
}

static void assert_bytes(const struct made *m, const uint8_t *memory, uint64_t at, int shard, const uint8_t *from,
                         uint64_t bytes)
{
	const uint64_t offset = dsa_checkpoint_offset(m->cp, shard, from);
	for (uint64_t i = 0; i < bytes; i++)
		if (memory[at + i] != byte_at(shard, offset + i))
			fail_msg("byte %llu of shard %d is another one at %llu of the image",
			         (unsigned long long)(offset + i), shard, (unsigned long long)(at + i));
}

/* Runs and copies lie apart, whole pages of them inside; every element where its type may lie. */
static void check_layout(const struct image *image)
{
	uint64_t end = 0;
	assert_int_equal(image->bytes % PAGE, 0);
	for (int r = 0; r < image->run_count; r++) {
		const struct image_run *run = &image->runs[r];
		assert_true(run->offset % PAGE == 0 && run->at % PAGE == 0 && run->bytes > 0);
		assert_true(run->at >= end);
		end = run->at + (run->bytes + PAGE - 1) / PAGE * PAGE;
	}
	for (int i = 0; i < image->move_count; i++) {
		assert_true(image->moves[i].to >= end);
		end = image->moves[i].to + image->moves[i].bytes;
	}
	assert_true(end <= image->bytes);
	for (int i = 0; i < image->piece_count; i++) {
		assert_int_equal(image->places[i].numbers % dsa_dtype_bytes(image->pieces[i].stored->dtype), 0);
		if (image->pieces[i].scales)
			assert_int_equal(image->places[i].scales % 4, 0);
	}
}

static void read_image(const struct made *m, struct image_reader *reader, const struct image *image)
{
	double seconds = -1;
	/* Exactly its size: the sanitizer sees what is written behind it. */
	uint8_t *memory = aligned_alloc(PAGE, image->bytes);
	assert_non_null(memory);
	memset(memory, 0, image->bytes);
	image_reader_start(reader, image, memory);
	MUST(image_reader_finish(reader, &seconds, &golden_error));
	assert_true(seconds > 0 && seconds < 100);
	for (int i = 0; i < image->piece_count; i++) {
		const struct weight_piece *p = &image->pieces[i];
		assert_bytes(m, memory, image->places[i].numbers, p->stored->shard, p->numbers, p->bytes);
		if (p->scales)
			assert_bytes(m, memory, image->places[i].scales, p->scale_shard, p->scales, p->scale_bytes);
	}
	free(memory);
}

static void any_layer_is_read_to_the_byte(void **state)
{
	(void)state;
	static struct made m;
	static const uint64_t sizes[] = {6000000, 6000001, 6000007};
	struct image_reader *reader;
	int moved = 0, runs = 0;
	make_shards(&m, sizes);
	MUST(image_reader_open(&reader, m.cp, &golden_error));
	for (int round = 0; round < 100; round++) {
		struct image image;
		struct dsa_arena arena;
		const int count = 1 + below(PIECES);
		dsa_arena_init(&arena);
		random_pieces(&m, count, round % 4 ? 3000 : 20000);
		MUST(image_lay_out(&image, m.cp, m.pieces, count, &arena, &golden_error));
		check_layout(&image);
		read_image(&m, reader, &image);
		moved += image.move_count;
		runs += image.run_count;
		dsa_arena_release(&arena);
	}
	image_reader_close(reader);
	dsa_checkpoint_close(m.cp);
	assert_true(moved > 200 && runs > 400);
}

/* The largest piece is read in several parts by several threads, and the last byte of each file is needed. */
static void a_piece_of_many_reads_arrives_whole(void **state)
{
	(void)state;
	static struct made m;
	static const uint64_t sizes[] = {(40 << 20) + 3, (8 << 20) + 5, 1001};
	struct image_reader *reader;
	struct image image;
	struct dsa_arena arena;
	make_shards(&m, sizes);
	dsa_arena_init(&arena);
	place_piece(&m, 0, 0, DSA_BF16, 1, sizes[0] - 1, 0, 0, 0);
	place_piece(&m, 1, 1, DSA_F8_E4M3, 0, sizes[1], 2, 1, 1000);
	MUST(image_lay_out(&image, m.cp, m.pieces, 2, &arena, &golden_error));
	check_layout(&image);
	assert_int_equal(image.run_count, 3);
	MUST(image_reader_open(&reader, m.cp, &golden_error));
	for (int again = 0; again < 2; again++)
		read_image(&m, reader, &image);
	image_reader_close(reader);
	dsa_checkpoint_close(m.cp);
	dsa_arena_release(&arena);
}

/* What ends early, and then another image: the error does not stay. */
static void a_read_that_failed_leaves_the_reader_good(void **state)
{
	(void)state;
	static struct made m;
	static const uint64_t sizes[] = {30 << 20, 30 << 20, 100};
	struct image_reader *reader;
	struct image cut, whole;
	struct dsa_arena arena;
	double seconds;
	char words[128];
	make_shards(&m, sizes);
	dsa_arena_init(&arena);
	MUST(image_reader_open(&reader, m.cp, &golden_error));
	place_piece(&m, 0, 0, DSA_F8_E4M3, 0, sizes[0], 2, 0, 100);
	place_piece(&m, 1, 1, DSA_F32, 4, sizes[1] - 4, 0, 0, 0);
	MUST(image_lay_out(&cut, m.cp, m.pieces, 1, &arena, &golden_error));
	MUST(image_lay_out(&whole, m.cp, m.pieces + 1, 1, &arena, &golden_error));
	void *memory = aligned_alloc(PAGE, cut.bytes);
	assert_non_null(memory);
	static const int ends[] = {20 << 20, (9 << 20) + 4095, 77, 0};
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		assert_int_equal(truncate(in_dir("s0.safetensors"), ends[i]), 0);
		image_reader_start(reader, &cut, memory);
		assert_int_equal(image_reader_finish(reader, &seconds, &golden_error), DSA_E_IO);
		snprintf(words, sizeof words, "s0.safetensors: the file ends at byte %d,", ends[i]);
		if (!strstr(golden_error.text, words))
			fail_msg("the message lacks \"%s\": %s", words, golden_error.text);
		assert_true(image_reader_done(reader));
		read_image(&m, reader, &whole);
	}
	image_reader_close(reader);
	free(memory);
	dsa_checkpoint_close(m.cp);
	dsa_arena_release(&arena);
}

/* A file system that takes no direct reads: /dev/shm, where there is one. */
static int set_up_in_memory(void **state)
{
	(void)state;
	random_state = 88172645463325252u;
	strcpy(dir, "/dev/shm/dsacal-test-XXXXXX");
	if (!mkdtemp(dir))
		return set_up(state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(any_layer_is_read_to_the_byte, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(any_layer_is_read_to_the_byte, set_up_in_memory, tear_down),
	    cmocka_unit_test_setup_teardown(a_piece_of_many_reads_arrives_whole, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_piece_of_many_reads_arrives_whole, set_up_in_memory, tear_down),
	    cmocka_unit_test_setup_teardown(a_read_that_failed_leaves_the_reader_good, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_read_that_failed_leaves_the_reader_good, set_up_in_memory, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
