#include "dsa/spill.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "dsa/arena.h"

enum {
	PAGE = 4096,
	BLOCK_MOST = 1 << 20,
	BLOCKS_EACH = 8,   /* of the smallest image at least: what its last block wastes is an eighth */
	BLOCKS_AHEAD = 16, /* asked for before they are read */
	/* Contexts of level 1, both ways, as the library (1.5) counts them: 0.7 MiB for 64 KiB, 1.5 for 256 KiB, 2.3
	 * for 1 MiB and more. */
	ZSTD_LEAST = 320 << 10,
	ZSTD_TIMES = 7,
	ZSTD_MOST = 5 << 19,
};
static const uint32_t NONE = UINT32_MAX;

struct dsa_spill {
	char *directory;
	int fd; /* -1: not made yet */
	bool zstd;
	size_t block;
	uint32_t limit, high, used; /* blocks that may be, that ever were, that are taken */
	uint32_t free;              /* first of the chain of free ones below `high` */
	uint32_t *next;             /* (room) the block behind each in its chain */
	size_t room;
	uint64_t dirty, dirty_end; /* the part of the file that the last image written lies in */
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
	char *packed; /* (block) of a frame */
	struct dsa_spill_usage usage;
};

static size_t block_size(size_t image)
{
	size_t block = (image / BLOCKS_EACH + PAGE - 1) / PAGE * PAGE;
	return block < PAGE ? PAGE : block > BLOCK_MOST ? BLOCK_MOST : block;
}

size_t dsa_spill_memory(bool zstd, size_t image)
{
	const size_t own = image < ZSTD_MOST / ZSTD_TIMES ? ZSTD_LEAST + ZSTD_TIMES * image : ZSTD_MOST;
	return zstd ? block_size(image) + (own < ZSTD_MOST ? own : ZSTD_MOST) : 0;
}

enum dsa_status dsa_spill_open(struct dsa_spill **out, const struct dsa_spill_options *options, struct dsa_error *err)
{
	*out = NULL;
	struct dsa_spill *spill = dsa_alloc(1, sizeof *spill, "the spill file", err);
	if (!spill)
		return DSA_E_MEMORY;
	spill->fd = -1;
	spill->free = NONE;
	spill->zstd = options->zstd;
	spill->block = block_size(options->image);
	const uint64_t blocks = options->limit / spill->block;
	spill->limit = blocks < NONE ? (uint32_t)blocks : NONE - 1;
	const size_t length = strlen(options->directory) + 1;
	spill->directory = dsa_alloc(length, 1, "the spill file", err);
	if (!spill->directory) {
		dsa_spill_close(spill);
		return DSA_E_MEMORY;
	}
	memcpy(spill->directory, options->directory, length);
	*out = spill;
	return DSA_OK;
}

void dsa_spill_close(struct dsa_spill *spill)
{
	if (!spill)
		return;
	if (spill->fd >= 0)
		close(spill->fd); /* nothing of it is wanted any more */
	ZSTD_freeCCtx(spill->compress);
	ZSTD_freeDCtx(spill->decompress);
	free(spill->packed);
	free(spill->next);
	free(spill->directory);
	free(spill);
}

static uint64_t blocks_of(const struct dsa_spill *spill, size_t bytes)
{
	return ((uint64_t)bytes + spill->block - 1) / spill->block;
}

uint64_t dsa_spill_size(const struct dsa_spill *spill, size_t bytes)
{
	return blocks_of(spill, spill->zstd ? ZSTD_compressBound(bytes) : bytes) * spill->block;
}

bool dsa_spill_fits(const struct dsa_spill *spill, size_t bytes)
{
	return dsa_spill_size(spill, bytes) <= (uint64_t)(spill->limit - spill->used) * spill->block;
}

uint64_t dsa_spill_room(const struct dsa_spill *spill, size_t bytes)
{
	const struct dsa_spill_usage *usage = &spill->usage;
	const double file = (double)spill->limit * (double)spill->block;
	if (usage->taken)
		return (uint64_t)(file * ((double)usage->spilled / (double)usage->taken));
	return bytes ? spill->limit / blocks_of(spill, bytes) * bytes : 0;
}

static enum dsa_status io_error(const struct dsa_spill *spill, const char *verb, struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_IO, "%s: cannot %s spilled states: %s", spill->directory, verb, strerror(errno));
}

/* Where a file system has no files without a name, one that loses it at once. A run that is killed in between leaves it
 * as one written aside, which --resume takes away. */
static enum dsa_status make_file(struct dsa_spill *spill, struct dsa_error *err)
{
	spill->fd = open(spill->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (spill->fd < 0) {
		char path[PATH_MAX];
		int length = snprintf(path, sizeof path, "%s/states.tmp-%ld", spill->directory, (long)getpid());
		if (length < 0 || (size_t)length >= sizeof path)
			return dsa_fail(err, DSA_E_IO, "%s: the path is too long", spill->directory);
		spill->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (spill->fd < 0)
			return io_error(spill, "make a file for", err);
		if (unlink(path)) {
			enum dsa_status status = io_error(spill, "hide the file of", err);
			close(spill->fd);
			spill->fd = -1;
			return status;
		}
	}
	/* Images lie scattered: reading on behind a block would read what nobody asked for. Advice only. */
	(void)!posix_fadvise(spill->fd, 0, 0, POSIX_FADV_RANDOM);
	return DSA_OK;
}

/* Starts writing the image just put into the page cache, and drops what the one before it left there, which by now has
 * mostly reached the disk. Neither can fail in a way that matters: an image that did not arrive has another checksum.
 */
static void flush(struct dsa_spill *spill, uint64_t from, uint64_t end)
{
	const uint64_t before = spill->dirty, before_end = spill->dirty_end;
	(void)!sync_file_range(spill->fd, (off_t)from, (off_t)(end - from), SYNC_FILE_RANGE_WRITE);
	if (before_end > before) {
		(void)!sync_file_range(spill->fd, (off_t)before, (off_t)(before_end - before),
		                       SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
		                           SYNC_FILE_RANGE_WAIT_AFTER);
		(void)!posix_fadvise(spill->fd, (off_t)before, (off_t)(before_end - before), POSIX_FADV_DONTNEED);
	}
	spill->dirty = from;
	spill->dirty_end = end;
}

static enum dsa_status put(struct dsa_spill *spill, uint32_t block, const char *data, size_t bytes,
                           struct dsa_error *err)
{
	off_t at = (off_t)block * (off_t)spill->block;
	while (bytes) {
		ssize_t done = pwrite(spill->fd, data, bytes, at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return io_error(spill, "write", err);
		data += done;
		at += done;
		bytes -= (size_t)done;
		spill->usage.written += (uint64_t)done;
	}
	return DSA_OK;
}

static enum dsa_status get(struct dsa_spill *spill, uint32_t block, char *data, size_t bytes, struct dsa_error *err)
{
	off_t at = (off_t)block * (off_t)spill->block;
	while (bytes) {
		ssize_t done = pread(spill->fd, data, bytes, at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return io_error(spill, "read", err);
		if (!done)
			return dsa_fail(err, DSA_E_IO, "%s: the file of spilled states ends too early",
			                spill->directory);
		data += done;
		at += done;
		bytes -= (size_t)done;
		spill->usage.read += (uint64_t)done;
	}
	return DSA_OK;
}

/* Hangs one more block behind `last` (NONE: the first of a chain). NONE: no room, or no memory for the table. */
static uint32_t take(struct dsa_spill *spill, uint32_t last)
{
	uint32_t block = spill->free;
	if (spill->used == spill->limit)
		return NONE;
	if (block != NONE) {
		spill->free = spill->next[block];
	} else {
		if (spill->high == spill->room) {
			const size_t wider = spill->room ? 2 * spill->room : 1024;
			uint32_t *grown = realloc(spill->next, wider * sizeof *grown);
			if (!grown)
				return NONE;
			spill->next = grown;
			spill->room = wider;
		}
		block = spill->high++;
	}
	spill->used++;
	spill->next[block] = NONE;
	if (last != NONE)
		spill->next[last] = block;
	return block;
}

void dsa_spill_drop(struct dsa_spill *spill, const struct dsa_spilled *spilled)
{
	for (uint32_t block = spilled->first, i = 0; i < spilled->blocks; i++) {
		const uint32_t next = spill->next[block];
		spill->next[block] = spill->free;
		spill->free = block;
		block = next;
	}
	spill->used -= spilled->blocks;
	spill->usage.bytes = (uint64_t)spill->used * spill->block;
}

/* A chain while it is written. */
struct writing {
	struct dsa_spilled *out;
	uint32_t last;
	uint64_t from, end; /* the part of the file it lies in */
};

static enum dsa_status append(struct dsa_spill *spill, struct writing *w, const char *data, size_t bytes,
                              struct dsa_error *err)
{
	const uint32_t block = take(spill, w->last);
	if (block == NONE)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no room for spilled states", spill->directory);
	const uint64_t at = (uint64_t)block * spill->block;
	if (!w->out->blocks++)
		w->out->first = block;
	w->last = block;
	w->from = at < w->from ? at : w->from;
	w->end = at + spill->block > w->end ? at + spill->block : w->end;
	w->out->stored += bytes;
	return put(spill, block, data, bytes, err);
}

static enum dsa_status zstd_error(const struct dsa_spill *spill, const char *verb, size_t code, struct dsa_error *err)
{
	return dsa_fail(err, DSA_E_IO, "%s: cannot %s spilled states: %s", spill->directory, verb,
	                ZSTD_getErrorName(code));
}

static enum dsa_status open_zstd(struct dsa_spill *spill, struct dsa_error *err)
{
	if (spill->packed)
		return DSA_OK;
	spill->compress = ZSTD_createCCtx();
	spill->decompress = ZSTD_createDCtx();
	spill->packed = spill->compress && spill->decompress ? malloc(spill->block) : NULL;
	if (!spill->packed)
		return dsa_fail(err, DSA_E_MEMORY, "no memory to compress spilled states");
	const size_t code = ZSTD_CCtx_setParameter(spill->compress, ZSTD_c_compressionLevel, 1);
	return ZSTD_isError(code) ? zstd_error(spill, "compress", code, err) : DSA_OK;
}

static enum dsa_status write_frame(struct dsa_spill *spill, struct writing *w, const void *image, size_t bytes,
                                   struct dsa_error *err)
{
	ZSTD_inBuffer in = {.src = image, .size = bytes};
	enum dsa_status status = open_zstd(spill, err);
	size_t left = 1;
	if (!status)
		(void)ZSTD_CCtx_reset(spill->compress, ZSTD_reset_session_only); /* cannot fail */
	while (!status && left) {
		ZSTD_outBuffer out = {.dst = spill->packed, .size = spill->block};
		do
			left = ZSTD_compressStream2(spill->compress, &out, &in, ZSTD_e_end);
		while (!ZSTD_isError(left) && left && out.pos < out.size);
		if (ZSTD_isError(left))
			return zstd_error(spill, "compress", left, err);
		if (out.pos)
			status = append(spill, w, spill->packed, out.pos, err);
	}
	return status;
}

enum dsa_status dsa_spill_write(struct dsa_spill *spill, const void *image, size_t bytes, struct dsa_spilled *out,
                                struct dsa_error *err)
{
	struct writing w = {.out = out, .last = NONE, .from = UINT64_MAX};
	*out = (struct dsa_spilled){.first = NONE, .bytes = bytes};
	enum dsa_status status = spill->fd < 0 ? make_file(spill, err) : DSA_OK;
	if (!status && spill->zstd)
		status = write_frame(spill, &w, image, bytes, err);
	for (size_t done = 0; done < bytes && !status && !spill->zstd; done += spill->block) {
		const size_t left = bytes - done;
		status = append(spill, &w, (const char *)image + done, left < spill->block ? left : spill->block, err);
	}
	if (status) {
		dsa_spill_drop(spill, out);
		return status;
	}
	if (w.end)
		flush(spill, w.from, w.end);
	dsa_hash_bytes(image, bytes, out->digest);
	struct dsa_spill_usage *usage = &spill->usage;
	usage->writes++;
	usage->spilled += bytes;
	usage->taken += (uint64_t)out->blocks * spill->block;
	usage->bytes = (uint64_t)spill->used * spill->block;
	usage->most = usage->bytes > usage->most ? usage->bytes : usage->most;
	return DSA_OK;
}

/* One stored piece of the image to *at, which goes on behind it. */
static enum dsa_status unpack(struct dsa_spill *spill, uint32_t block, size_t stored, ZSTD_outBuffer *to,
                              struct dsa_error *err)
{
	if (!spill->zstd) {
		enum dsa_status status = get(spill, block, (char *)to->dst + to->pos, stored, err);
		to->pos += stored;
		return status;
	}
	enum dsa_status status = get(spill, block, spill->packed, stored, err);
	ZSTD_inBuffer in = {.src = spill->packed, .size = stored};
	while (!status && in.pos < in.size) {
		const size_t before = in.pos, room = to->pos;
		const size_t code = ZSTD_decompressStream(spill->decompress, to, &in);
		if (ZSTD_isError(code))
			status = zstd_error(spill, "decompress", code, err);
		else if (in.pos == before && to->pos == room)
			status = dsa_fail(err, DSA_E_IO, "%s: a spilled state is longer than it was", spill->directory);
	}
	return status;
}

enum dsa_status dsa_spill_read(struct dsa_spill *spill, const struct dsa_spilled *spilled, void *image,
                               struct dsa_error *err)
{
	ZSTD_outBuffer to = {.dst = image, .size = spilled->bytes};
	uint32_t ahead = spilled->first, asked = 0;
	size_t left = spilled->stored;
	uint8_t digest[DSA_HASH_BYTES];
	enum dsa_status status = DSA_OK;
	if (spill->zstd)
		(void)ZSTD_DCtx_reset(spill->decompress, ZSTD_reset_session_only);
	for (uint32_t block = spilled->first, i = 0; i < spilled->blocks && !status; i++) {
		const off_t at = (off_t)block * (off_t)spill->block;
		const size_t stored = left < spill->block ? left : spill->block;
		for (; asked < spilled->blocks && asked < i + BLOCKS_AHEAD; asked++, ahead = spill->next[ahead])
			(void)!posix_fadvise(spill->fd, (off_t)ahead * (off_t)spill->block, (off_t)spill->block,
			                     POSIX_FADV_WILLNEED);
		status = unpack(spill, block, stored, &to, err);
		(void)!posix_fadvise(spill->fd, at, (off_t)spill->block, POSIX_FADV_DONTNEED);
		left -= stored;
		block = spill->next[block];
	}
	if (status)
		return status;
	spill->usage.reads++;
	dsa_hash_bytes(image, to.pos, digest);
	if (to.pos != spilled->bytes || memcmp(digest, spilled->digest, sizeof digest) != 0)
		return dsa_fail(err, DSA_E_IO, "%s: a spilled state is not what was written", spill->directory);
	return DSA_OK;
}

void dsa_spill_empty(struct dsa_spill *spill)
{
	assert(!spill->used);
	spill->high = 0;
	spill->free = NONE;
	spill->dirty = spill->dirty_end = 0;
	/* It only gives back what a full disk lacks: where it cannot, that stays as it is. */
	if (spill->fd >= 0 && ftruncate(spill->fd, 0))
		return;
}

const struct dsa_spill_usage *dsa_spill_usage(const struct dsa_spill *spill)
{
	return &spill->usage;
}
