#include "dsa/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum dsa_status io_error(const char *path, const char *verb, struct dsa_error *err)
{
	int cause = errno;
	const char *advice = cause == ENOSPC || cause == EDQUOT ? "; free some disk space and run again" : "";
	return dsa_fail(err, cause == ENOENT ? DSA_E_MISSING : DSA_E_IO, "%s: cannot %s: %s%s", path, verb,
	                strerror(cause), advice);
}

static enum dsa_status open_regular(const char *path, int *fd, size_t *bytes, struct dsa_error *err)
{
	struct stat st;
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return io_error(path, "open", err);
	if (fstat(*fd, &st)) {
		enum dsa_status status = io_error(path, "read", err);
		close(*fd);
		return status;
	}
	if (!S_ISREG(st.st_mode)) {
		close(*fd);
		return dsa_fail(err, DSA_E_INPUT, "%s: not a regular file", path);
	}
	*bytes = (size_t)st.st_size;
	return DSA_OK;
}

enum dsa_status dsa_mapping_open(struct dsa_mapping *map, const char *path, struct dsa_error *err)
{
	int fd;
	*map = (struct dsa_mapping){0};
	size_t bytes;
	enum dsa_status status = open_regular(path, &fd, &bytes, err);
	if (status)
		return status;
	if (bytes) {
		void *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
		if (data == MAP_FAILED) {
			status = io_error(path, "map", err);
		} else {
			map->data = data;
			map->bytes = bytes;
		}
	}
	close(fd);
	return status;
}

/* Advice only: where it is not taken, reading is as right and slower. */
void dsa_mapping_advise(const struct dsa_mapping *map, bool scattered)
{
	if (map->data)
		(void)!madvise((void *)(uintptr_t)map->data, map->bytes, scattered ? MADV_RANDOM : MADV_NORMAL);
}

void dsa_mapping_close(struct dsa_mapping *map)
{
	if (map && map->data)
		munmap((void *)(uintptr_t)map->data, map->bytes);
	if (map)
		*map = (struct dsa_mapping){0};
}

enum dsa_status dsa_file_read(const char *path, size_t limit, struct dsa_arena *arena, char **text, size_t *bytes,
                              struct dsa_error *err)
{
	int fd;
	size_t size, done = 0;
	enum dsa_status status = open_regular(path, &fd, &size, err);
	if (status)
		return status;
	if (size > limit) {
		status = dsa_fail(err, DSA_E_INPUT, "%s: %zu bytes, more than the %zu that such a file may have", path,
		                  size, limit);
		goto cleanup;
	}
	char *buffer = dsa_arena_alloc(arena, size + 1, 1, path, err);
	if (!buffer) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	while (done < size) {
		ssize_t got = read(fd, buffer + done, size - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			status = io_error(path, "read", err);
			goto cleanup;
		}
		if (got == 0)
			break; /* the file shrank under us; what is there is what was read */
		done += (size_t)got;
	}
	*text = buffer;
	*bytes = done;
cleanup:
	close(fd);
	return status;
}

enum dsa_status dsa_file_write_all(int fd, const void *data, size_t bytes, const char *path, struct dsa_error *err)
{
	const char *next = data;
	while (bytes) {
		ssize_t put = write(fd, next, bytes);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return io_error(path, "write", err);
		next += put;
		bytes -= (size_t)put;
	}
	return DSA_OK;
}

enum dsa_status dsa_file_sync_directory(const char *path, struct dsa_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return io_error(path, "open", err);
	enum dsa_status status = DSA_OK;
	/* Some file systems cannot sync a directory and say EINVAL; the rename is then as durable as they make it. */
	if (fsync(fd) && errno != EINVAL)
		status = io_error(path, "sync", err);
	close(fd);
	return status;
}

static enum dsa_status sync_parent(const char *path, struct dsa_error *err)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;
	if (length >= sizeof parent)
		return dsa_fail(err, DSA_E_IO, "%s: the path is too long", path);
	if (!slash)
		strcpy(parent, ".");
	else if (!length)
		strcpy(parent, "/");
	else {
		memcpy(parent, path, length);
		parent[length] = 0;
	}
	return dsa_file_sync_directory(parent, err);
}

enum dsa_status dsa_file_replace(const char *path, const void *data, size_t bytes, struct dsa_error *err)
{
	char aside[PATH_MAX];
	struct stat before;
	bool replaces = stat(path, &before) == 0;
	int length = snprintf(aside, sizeof aside, "%s.tmp-%ld", path, (long)getpid());
	if (length < 0 || (size_t)length >= sizeof aside)
		return dsa_fail(err, DSA_E_IO, "%s: the path is too long", path);
	int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return io_error(aside, "create", err);
	enum dsa_status status = dsa_file_write_all(fd, data, bytes, path, err);
	if (!status && replaces && fchmod(fd, before.st_mode & 0777))
		status = io_error(path, "keep the permissions", err);
	if (!status && fsync(fd))
		status = io_error(path, "sync", err);
	if (close(fd) && !status)
		status = io_error(path, "close", err);
	if (!status && rename(aside, path))
		status = io_error(path, "rename into place", err);
	if (status) {
		unlink(aside);
		return status == DSA_E_MISSING ? DSA_E_IO : status;
	}
	return sync_parent(path, err);
}

bool dsa_file_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

bool dsa_file_is_directory(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

enum dsa_status dsa_file_make_directory(const char *path, struct dsa_error *err)
{
	if (mkdir(path, 0777) == 0 || (errno == EEXIST && dsa_file_is_directory(path)))
		return DSA_OK;
	enum dsa_status status = io_error(path, "make the directory", err);
	return status == DSA_E_MISSING ? DSA_E_IO : status;
}

enum dsa_status dsa_file_join(struct dsa_arena *arena, const char *dir, const char *name, char **out,
                              struct dsa_error *err)
{
	size_t dir_length = strlen(dir), name_length = strlen(name);
	bool slash = dir_length && dir[dir_length - 1] != '/';
	char *path = dsa_arena_alloc(arena, dir_length + slash + name_length + 1, 1, "a path", err);
	if (!path)
		return DSA_E_MEMORY;
	memcpy(path, dir, dir_length);
	if (slash)
		path[dir_length] = '/';
	memcpy(path + dir_length + slash, name, name_length);
	*out = path;
	return DSA_OK;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

enum dsa_status dsa_file_list(const char *path, struct dsa_arena *arena, char ***names, size_t *count,
                              struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	char **list = NULL;
	size_t used = 0, room = 0;
	DIR *dir = opendir(path);
	if (!dir)
		return io_error(path, "open", err);
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry) {
			if (errno)
				status = io_error(path, "read", err);
			break;
		}
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (used == room) {
			size_t wider = room ? 2 * room : 64;
			char **grown = dsa_arena_alloc(arena, wider, sizeof *grown, "a directory listing", err);
			if (!grown) {
				status = DSA_E_MEMORY;
				break;
			}
			if (used)
				memcpy(grown, list, used * sizeof *grown);
			list = grown;
			room = wider;
		}
		list[used] = dsa_arena_text(arena, entry->d_name, strlen(entry->d_name), err);
		if (!list[used]) {
			status = DSA_E_MEMORY;
			break;
		}
		used++;
	}
	closedir(dir);
	if (status)
		return status;
	if (used)
		qsort(list, used, sizeof *list, by_bytes);
	*names = list;
	*count = used;
	return DSA_OK;
}
