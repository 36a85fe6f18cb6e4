/* Reads the images of layers from a checkpoint's files. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dsa/clock.h"
#include "residency_private.h"

/* One thread that waits for each read in turn leaves a fast drive idle between them. */
enum { THREADS = 4, CHUNK = 8 << 20 };

struct file {
	const char *path;
	int fd; /* -1: not opened yet */
	bool direct;
	/* As it was when it was opened. */
	struct timespec changed;
	off_t bytes;
};

struct image_reader {
	pthread_mutex_t mutex;
	pthread_cond_t work, idle;
	pthread_t threads[THREADS];
	int thread_count;
	bool closing;

	struct file *files; /* (file_count) */
	int file_count;

	const struct image *image; /* being read; NULL: nothing is */
	char *memory;
	int run;       /* the next chunk: of this run */
	uint64_t done; /* … from this byte on */
	int reading;   /* chunks that threads are at */
	enum dsa_status status;
	struct dsa_error err;
	double begin, end;
};

struct chunk {
	int file;
	uint64_t offset, bytes, needed;
	char *to;
};

static bool all_dealt(const struct image_reader *r)
{
	return !r->image || r->run == r->image->run_count;
}

static struct chunk deal(struct image_reader *r)
{
	const struct image_run *run = &r->image->runs[r->run];
	const uint64_t left = run->bytes - r->done, bytes = left < CHUNK ? left : CHUNK;
	const struct chunk chunk = {.file = run->shard,
	                            .offset = run->offset + r->done,
	                            .bytes = (bytes + IMAGE_PAGE - 1) / IMAGE_PAGE * IMAGE_PAGE,
	                            .needed = bytes,
	                            .to = r->memory + run->at + r->done};
	r->done += bytes;
	if (r->done == run->bytes) {
		r->run++;
		r->done = 0;
	}
	return chunk;
}

static enum dsa_status ends_early(const struct file *file, struct dsa_error *err)
{
	struct stat found;
	if (fstat(file->fd, &found))
		return dsa_fail(err, DSA_E_IO, "%s: reading weights: %s", file->path, strerror(errno));
	return dsa_fail(err, DSA_E_IO,
	                "%s: the file ends at byte %lld, where it was longer when the run began; was it replaced?",
	                file->path, (long long)found.st_size);
}

/* Weights of two checkpoints in one run would make figures of neither. */
static enum dsa_status check_unchanged(const struct file *file, struct dsa_error *err)
{
	struct stat found;
	if (fstat(file->fd, &found))
		return dsa_fail(err, DSA_E_IO, "%s: reading weights: %s", file->path, strerror(errno));
	if (found.st_size < file->bytes)
		return ends_early(file, err);
	if (found.st_mtim.tv_sec == file->changed.tv_sec && found.st_mtim.tv_nsec == file->changed.tv_nsec)
		return DSA_OK;
	return dsa_fail(err, DSA_E_IO,
	                "%s: the file was written to since the run began; its figures would be of no checkpoint: put "
	                "the old one back and go on with --resume, or begin anew",
	                file->path);
}

/* Buffered: the page cache gives the pages back at once, they are read again only after all other layers. */
static enum dsa_status read_chunk(const struct file *file, const struct chunk *chunk, struct dsa_error *err)
{
	uint64_t got = 0;
	while (got < chunk->needed) {
		const ssize_t n = pread(file->fd, chunk->to + got, chunk->bytes - got, (off_t)(chunk->offset + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return dsa_fail(err, DSA_E_IO, "%s: reading weights: %s", file->path, strerror(errno));
		const uint64_t before = got;
		got += (uint64_t)n;
		if (got < chunk->needed)
			got -= got % IMAGE_PAGE; /* direct reads begin at whole pages */
		if (got == before)
			return ends_early(file, err);
	}
	if (!file->direct)
		(void)posix_fadvise(file->fd, (off_t)chunk->offset, (off_t)chunk->bytes, POSIX_FADV_DONTNEED);
	return check_unchanged(file, err);
}

static void *work(void *context)
{
	struct image_reader *r = context;
	pthread_mutex_lock(&r->mutex);
	while (!r->closing) {
		if (all_dealt(r)) {
			pthread_cond_wait(&r->work, &r->mutex);
			continue;
		}
		struct dsa_error err = {0};
		const struct chunk chunk = deal(r);
		r->reading++;
		pthread_mutex_unlock(&r->mutex);
		const enum dsa_status status = read_chunk(&r->files[chunk.file], &chunk, &err);
		pthread_mutex_lock(&r->mutex);
		r->reading--;
		if (status && !r->status) {
			r->status = status;
			r->err = err;
		}
		if (status)
			r->run = r->image->run_count; /* what is left would come to nothing */
		if (all_dealt(r) && !r->reading) {
			r->end = dsa_clock_seconds();
			pthread_cond_signal(&r->idle);
		}
	}
	pthread_mutex_unlock(&r->mutex);
	return NULL;
}

/* Page-sized reads show whether the file system takes direct ones: tmpfs opens, and then refuses. */
static enum dsa_status open_file(struct file *file, struct dsa_error *err)
{
	void *page = aligned_alloc(IMAGE_PAGE, IMAGE_PAGE);
	if (!page)
		return dsa_fail(err, DSA_E_MEMORY, "no memory to read %s", file->path);
	file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	file->direct = file->fd >= 0 && pread(file->fd, page, IMAGE_PAGE, 0) > 0;
	free(page);
	if (!file->direct) {
		if (file->fd >= 0)
			close(file->fd);
		file->fd = open(file->path, O_RDONLY | O_CLOEXEC);
	}
	struct stat found;
	if (file->fd < 0 || fstat(file->fd, &found))
		return dsa_fail(err, DSA_E_IO, "%s: %s", file->path, strerror(errno));
	file->changed = found.st_mtim;
	file->bytes = found.st_size;
	return DSA_OK;
}

static enum dsa_status start_threads(struct image_reader *r, struct dsa_error *err)
{
	for (; r->thread_count < THREADS; r->thread_count++) {
		const int code = pthread_create(&r->threads[r->thread_count], NULL, work, r);
		if (code)
			return dsa_fail(err, DSA_E_MEMORY, "no thread to read weights: %s", strerror(code));
	}
	return DSA_OK;
}

enum dsa_status image_reader_open(struct image_reader **out, const struct dsa_checkpoint *cp, struct dsa_error *err)
{
	struct image_reader *r = *out = dsa_alloc(1, sizeof *r, "the reader of weights", err);
	if (!r)
		return DSA_E_MEMORY;
	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->work, NULL);
	pthread_cond_init(&r->idle, NULL);
	const int count = dsa_checkpoint_shards(cp);
	enum dsa_status status = DSA_E_MEMORY;
	r->files = dsa_alloc((size_t)count, sizeof *r->files, "the reader of weights", err);
	if (!r->files)
		goto cleanup;
	for (status = DSA_OK; r->file_count < count && !status; r->file_count++) {
		r->files[r->file_count] = (struct file){.path = dsa_checkpoint_shard_path(cp, r->file_count), .fd = -1};
		status = open_file(&r->files[r->file_count], err);
	}
	if (!status)
		status = start_threads(r, err);
cleanup:
	if (status) {
		image_reader_close(r);
		*out = NULL;
	}
	return status;
}

void image_reader_start(struct image_reader *r, const struct image *image, void *memory)
{
	pthread_mutex_lock(&r->mutex);
	assert(!r->image);
	r->image = image;
	r->memory = memory;
	r->run = 0;
	r->done = 0;
	r->status = DSA_OK;
	r->begin = dsa_clock_seconds();
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->mutex);
}

bool image_reader_done(struct image_reader *r)
{
	pthread_mutex_lock(&r->mutex);
	const bool done = all_dealt(r) && !r->reading;
	pthread_mutex_unlock(&r->mutex);
	return done;
}

enum dsa_status image_reader_finish(struct image_reader *r, double *seconds, struct dsa_error *err)
{
	pthread_mutex_lock(&r->mutex);
	assert(r->image);
	while (!(all_dealt(r) && !r->reading))
		pthread_cond_wait(&r->idle, &r->mutex);
	const enum dsa_status status = r->status;
	if (status && err)
		*err = r->err;
	if (!status)
		image_move(r->image, r->memory);
	r->image = NULL;
	*seconds = r->end - r->begin;
	pthread_mutex_unlock(&r->mutex);
	return status;
}

void image_reader_close(struct image_reader *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->mutex);
	r->closing = true;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->mutex);
	for (int i = 0; i < r->thread_count; i++)
		pthread_join(r->threads[i], NULL);
	for (int i = 0; i < r->file_count; i++)
		if (r->files[i].fd >= 0)
			close(r->files[i].fd);
	free(r->files);
	pthread_cond_destroy(&r->idle);
	pthread_cond_destroy(&r->work);
	pthread_mutex_destroy(&r->mutex);
	free(r);
}
