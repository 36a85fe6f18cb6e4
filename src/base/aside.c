#include "dsa/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dsa/arena.h"
#include "dsa/file.h"

enum { BUFFER = 256 << 10 };

struct dsa_aside {
	struct dsa_arena arena;    /* the three names */
	char *path, *name, *place; /* the file, the file aside, the directory */
	int fd;
	size_t used;
	uint64_t bytes;
	uint8_t buffer[BUFFER];
};

static enum dsa_status failed(const char *path, const char *verb, struct dsa_error *err)
{
	int cause = errno;
	const char *advice = cause == ENOSPC || cause == EDQUOT ? "; free some disk space and run again" : "";
	return dsa_fail(err, DSA_E_IO, "%s: cannot %s: %s%s", path, verb, strerror(cause), advice);
}

enum dsa_status dsa_aside_open(struct dsa_aside **out, const char *path, struct dsa_error *err)
{
	enum dsa_status status = DSA_E_MEMORY;
	*out = NULL;
	struct dsa_aside *aside = dsa_alloc(1, sizeof *aside, "a file buffer", err);
	if (!aside)
		return DSA_E_MEMORY;
	dsa_arena_init(&aside->arena);
	aside->fd = -1;
	const char *slash = strrchr(path, '/');
	size_t directory = slash ? (size_t)(slash - path) + 1 : 0;
	size_t room = strlen(path) + 32;
	aside->path = dsa_arena_text(&aside->arena, path, strlen(path), err);
	aside->place = directory ? dsa_arena_text(&aside->arena, path, directory, err)
	                         : dsa_arena_text(&aside->arena, ".", 1, err);
	char *name = dsa_arena_alloc(&aside->arena, room, 1, "a path", err);
	if (!aside->path || !aside->place || !name)
		goto cleanup;
	snprintf(name, room, "%s.tmp-%ld", path, (long)getpid());
	aside->fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (aside->fd < 0) {
		status = failed(name, "create", err);
		goto cleanup;
	}
	aside->name = name; /* from here on there is a file to remove */
	status = DSA_OK;
cleanup:
	if (status)
		dsa_aside_close(aside);
	else
		*out = aside;
	return status;
}

static enum dsa_status flush(struct dsa_aside *aside, struct dsa_error *err)
{
	size_t used = aside->used;
	aside->used = 0;
	return dsa_file_write_all(aside->fd, aside->buffer, used, aside->path, err);
}

enum dsa_status dsa_aside_write(struct dsa_aside *aside, const void *data, size_t bytes, struct dsa_error *err)
{
	const uint8_t *next = data;
	while (bytes) {
		size_t piece = BUFFER - aside->used < bytes ? BUFFER - aside->used : bytes;
		memcpy(aside->buffer + aside->used, next, piece);
		aside->used += piece;
		aside->bytes += piece;
		next += piece;
		bytes -= piece;
		if (aside->used == BUFFER) {
			enum dsa_status status = flush(aside, err);
			if (status)
				return status;
		}
	}
	return DSA_OK;
}

uint64_t dsa_aside_bytes(const struct dsa_aside *aside)
{
	return aside->bytes;
}

enum dsa_status dsa_aside_commit(struct dsa_aside *aside, struct dsa_error *err)
{
	enum dsa_status status = flush(aside, err);
	if (status)
		return status;
	if (fsync(aside->fd))
		return failed(aside->path, "sync", err);
	int fd = aside->fd;
	aside->fd = -1;
	if (close(fd))
		return failed(aside->path, "close", err);
	if (rename(aside->name, aside->path))
		return failed(aside->path, "rename into place", err);
	aside->name = NULL;
	return dsa_file_sync_directory(aside->place, err);
}

void dsa_aside_close(struct dsa_aside *aside)
{
	if (!aside)
		return;
	if (aside->fd >= 0)
		close(aside->fd);
	if (aside->name)
		unlink(aside->name);
	dsa_arena_release(&aside->arena);
	free(aside);
}
