/* How a layer's stored bytes lie in memory. */
#include <stdlib.h>
#include <string.h>

#include "residency_private.h"

/* Reading on over a gap costs less than another read. */
enum { GAP = 65536, ALIGNMENT = 256 };

/* What one pointer of a piece asks of the file. */
struct range {
	int shard;
	uint64_t offset, bytes;
	size_t element;
	uint64_t *at; /* where to say where it lies */
};

static int by_place(const void *a, const void *b)
{
	const struct range *x = a, *y = b;
	if (x->shard != y->shard)
		return x->shard < y->shard ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

static int list_ranges(struct range *ranges, const struct image *image, const struct dsa_checkpoint *cp)
{
	int count = 0;
	for (int i = 0; i < image->piece_count; i++) {
		const struct weight_piece *piece = &image->pieces[i];
		ranges[count++] = (struct range){
		    .shard = piece->stored->shard,
		    .offset = dsa_checkpoint_offset(cp, piece->stored->shard, piece->numbers),
		    .bytes = piece->bytes,
		    .element = dsa_dtype_bytes(piece->stored->dtype),
		    .at = &image->places[i].numbers,
		};
		if (piece->scales)
			ranges[count++] = (struct range){
			    .shard = piece->scale_shard,
			    .offset = dsa_checkpoint_offset(cp, piece->scale_shard, piece->scales),
			    .bytes = piece->scale_bytes,
			    .element = sizeof(float),
			    .at = &image->places[i].scales,
			};
	}
	return count;
}

/* Ranges in the order of the files → runs, and where in the image each range lies. */
static void join_ranges(struct image *image, const struct range *ranges, int count)
{
	struct image_run *run = NULL;
	for (int i = 0; i < count; i++) {
		const struct range *range = &ranges[i];
		if (!run || run->shard != range->shard || range->offset > run->offset + run->bytes + GAP) {
			image->bytes += run ? round_up(run->bytes, IMAGE_PAGE) : 0;
			run = &image->runs[image->run_count++];
			*run = (struct image_run){.shard = range->shard,
			                          .offset = range->offset / IMAGE_PAGE * IMAGE_PAGE,
			                          .at = image->bytes};
		}
		const uint64_t end = range->offset + range->bytes - run->offset;
		run->bytes = end > run->bytes ? end : run->bytes;
		*range->at = run->at + range->offset - run->offset;
	}
	image->bytes += run ? round_up(run->bytes, IMAGE_PAGE) : 0;
}

static void align_ranges(struct image *image, const struct range *ranges, int count)
{
	for (int i = 0; i < count; i++) {
		const struct range *range = &ranges[i];
		if (*range->at % range->element == 0)
			continue;
		image->moves[image->move_count++] = (struct image_move){*range->at, image->bytes, range->bytes};
		*range->at = image->bytes;
		image->bytes += round_up(range->bytes, ALIGNMENT);
	}
	image->bytes = round_up(image->bytes, IMAGE_PAGE);
}

enum dsa_status image_lay_out(struct image *image, const struct dsa_checkpoint *cp, struct weight_piece *pieces,
                              int piece_count, struct dsa_arena *arena, struct dsa_error *err)
{
	const size_t most = 2 * (size_t)piece_count;
	*image = (struct image){.pieces = pieces, .piece_count = piece_count};
	struct range *ranges = dsa_alloc(most, sizeof *ranges, "the layout of a layer", err);
	image->runs = dsa_arena_alloc(arena, most, sizeof *image->runs, "the layout of a layer", err);
	image->moves = dsa_arena_alloc(arena, most, sizeof *image->moves, "the layout of a layer", err);
	image->places =
	    dsa_arena_alloc(arena, (size_t)piece_count, sizeof *image->places, "the layout of a layer", err);
	if (!ranges || !image->runs || !image->moves || !image->places) {
		free(ranges);
		return DSA_E_MEMORY;
	}
	const int count = list_ranges(ranges, image, cp);
	qsort(ranges, (size_t)count, sizeof *ranges, by_place);
	join_ranges(image, ranges, count);
	align_ranges(image, ranges, count);
	free(ranges);
	return DSA_OK;
}

void image_move(const struct image *image, void *memory)
{
	for (int i = 0; i < image->move_count; i++) {
		const struct image_move *move = &image->moves[i];
		memcpy((char *)memory + move->to, (const char *)memory + move->from, move->bytes);
	}
}
