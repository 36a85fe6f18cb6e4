/* residency_private.h: inside the residency of layers: images of their stored bytes, the reader that fills them. */
#ifndef DSA_MODEL_RESIDENCY_PRIVATE_H
#define DSA_MODEL_RESIDENCY_PRIVATE_H

#include "dsa/residency.h"
#include "model_private.h"

/* A stretch of a shard that is read at once. offset and at are multiples of IMAGE_PAGE, and room for whole pages is
 * there; the file may end inside the last of them. */
struct image_run {
	int shard;
	uint64_t offset, bytes; /* in the file; bytes that are needed */
	uint64_t at;            /* in the image */
};
struct image_move {
	uint64_t from, to, bytes;
};
struct image_place {
	uint64_t numbers, scales; /* in the image, aligned to their elements */
};

/* One layer's stored bytes as they lie in memory: the file's own stretches, so that they are read without copying, and
 * behind them copies of what the file does not align. */
struct image {
	struct image_run *runs;
	struct image_move *moves;
	struct weight_piece *pieces;
	struct image_place *places; /* (piece_count) */
	int run_count, move_count, piece_count;
	uint64_t bytes;
};
enum { IMAGE_PAGE = 4096 };

/* image.c. Lists in the arena. */
DSA_CHECKED enum dsa_status image_lay_out(struct image *image, const struct dsa_checkpoint *checkpoint,
                                          struct weight_piece *pieces, int piece_count, struct dsa_arena *arena,
                                          struct dsa_error *err);
/* Once the runs are in memory. */
void image_move(const struct image *image, void *memory);

/* reader.c: reads images by several threads, past the page cache where the file system lets it. One at a time. */
struct image_reader;
DSA_CHECKED enum dsa_status image_reader_open(struct image_reader **out, const struct dsa_checkpoint *checkpoint,
                                              struct dsa_error *err);
/* memory: page-aligned, image->bytes; left alone until it is done. */
void image_reader_start(struct image_reader *reader, const struct image *image, void *memory);
bool image_reader_done(struct image_reader *reader);
/* Waits. DSA_E_IO names the file. *seconds: from start to end. */
DSA_CHECKED enum dsa_status image_reader_finish(struct image_reader *reader, double *seconds, struct dsa_error *err);
void image_reader_close(struct image_reader *reader);

/* residency.c. Takes over the checkpoint. */
DSA_CHECKED enum dsa_status residency_open(struct residency **out, struct dsa_model *model,
                                           struct dsa_checkpoint *checkpoint, const struct dsa_residency *plan,
                                           struct dsa_error *err);
void residency_close(struct residency *residency);
/* The layer's tensors hold its weights for what is queued until another layer is acquired. */
DSA_CHECKED enum dsa_status residency_acquire(struct residency *residency, int layer, struct dsa_error *err);

#endif
