/* file.h: files as this program uses them: mapped whole for reading, written aside and renamed, appended and synced.
 *
 * A result file is either the old one or the new one, never a part of one: dsa_file_replace() writes PATH.tmp-PID,
 * syncs it, renames it over PATH and syncs the directory. */
#ifndef DSA_FILE_H
#define DSA_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/status.h"

/* A read-only mapping of a whole file. data is NULL for an empty file. */
struct dsa_mapping {
	const uint8_t *data;
	size_t bytes;
};

/* DSA_E_MISSING when there is no such file (err filled), DSA_E_IO otherwise. Refuses what is not a regular file. */
DSA_CHECKED enum dsa_status dsa_mapping_open(struct dsa_mapping *map, const char *path, struct dsa_error *err);
void dsa_mapping_close(struct dsa_mapping *map);
/* scattered: what is read next lies anywhere, so nothing around it is worth reading ahead. False: as at first. */
void dsa_mapping_advise(const struct dsa_mapping *map, bool scattered);

/* Reads at most `limit` bytes of a regular file into the arena, NUL behind them; more is DSA_E_INPUT. */
DSA_CHECKED enum dsa_status dsa_file_read(const char *path, size_t limit, struct dsa_arena *arena, char **text,
                                          size_t *bytes, struct dsa_error *err);
/* Atomic replacement of path by data[0..bytes); a file that was there passes on its permissions. */
DSA_CHECKED enum dsa_status dsa_file_replace(const char *path, const void *data, size_t bytes, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_file_sync_directory(const char *path, struct dsa_error *err);
/* Writes all bytes to fd, retrying short writes; err names `path`. */
DSA_CHECKED enum dsa_status dsa_file_write_all(int fd, const void *data, size_t bytes, const char *path,
                                               struct dsa_error *err);
bool dsa_file_exists(const char *path);
bool dsa_file_is_directory(const char *path);
/* mkdir; an existing directory is fine. Parents must exist. */
DSA_CHECKED enum dsa_status dsa_file_make_directory(const char *path, struct dsa_error *err);
/* dir + "/" + name in the arena. */
DSA_CHECKED enum dsa_status dsa_file_join(struct dsa_arena *arena, const char *dir, const char *name, char **out,
                                          struct dsa_error *err);
/* Names in a directory, sorted by bytes, without "." and "..". */
DSA_CHECKED enum dsa_status dsa_file_list(const char *path, struct dsa_arena *arena, char ***names, size_t *count,
                                          struct dsa_error *err);

#endif
