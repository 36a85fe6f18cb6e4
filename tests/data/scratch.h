/* scratch.h: a temporary directory with files in it, for tests of what is read from disk. */
#ifndef DSA_TESTS_SCRATCH_H
#define DSA_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

struct scratch {
	char root[32];
	char path[256]; /* of scratch_path() */
};

static inline int scratch_open(void **state)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);
	*state = scratch;
	if (!scratch)
		return -1;
	strcpy(scratch->root, "/tmp/dsacal-test-XXXXXX");
	return mkdtemp(scratch->root) ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int scratch_close(void **state)
{
	struct scratch *scratch = *state;
	int rc = nftw(scratch->root, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
	free(scratch);
	return rc;
}

/* Valid until the next call. */
static inline const char *scratch_path(struct scratch *scratch, const char *name)
{
	snprintf(scratch->path, sizeof scratch->path, "%s/%s", scratch->root, name);
	return scratch->path;
}

static inline const char *scratch_write(struct scratch *scratch, const char *name, const void *data, size_t bytes)
{
	const char *path = scratch_path(scratch, name);
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, bytes, file), bytes);
	assert_int_equal(fclose(file), 0);
	return path;
}

static inline const char *scratch_text(struct scratch *scratch, const char *name, const char *text)
{
	return scratch_write(scratch, name, text, strlen(text));
}

/* One zstd frame; free() it. */
static inline void *scratch_compress(const void *data, size_t bytes, size_t *compressed)
{
	size_t room = ZSTD_compressBound(bytes);
	void *frame = malloc(room);
	assert_non_null(frame);
	ZSTD_CCtx *context = ZSTD_createCCtx();
	assert_non_null(context);
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	*compressed = ZSTD_compress2(context, frame, room, data, bytes);
	assert_false(ZSTD_isError(*compressed));
	ZSTD_freeCCtx(context);
	return frame;
}

static inline const char *scratch_zst(struct scratch *scratch, const char *name, const char *text)
{
	size_t bytes;
	void *frame = scratch_compress(text, strlen(text), &bytes);
	const char *path = scratch_write(scratch, name, frame, bytes);
	free(frame);
	return path;
}

/* Number of entries in the directory. */
static inline int scratch_entries(struct scratch *scratch)
{
	char command[128];
	int count = -1;
	snprintf(command, sizeof command, "ls -A %s | wc -l", scratch->root);
	FILE *pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%d", &count), 1);
	pclose(pipe);
	return count;
}

#endif
