/* spill_file.h: a directory for spilled states, and the file without a name that this process has there. */
#ifndef DSA_TESTS_SPILL_FILE_H
#define DSA_TESTS_SPILL_FILE_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char spill_path[32];

static inline const char *spill_directory(void)
{
	return spill_path;
}

static inline int spill_set_up(void **state)
{
	(void)state;
	strcpy(spill_path, "/tmp/dsacal-XXXXXX");
	return mkdtemp(spill_path) ? 0 : -1;
}

static inline int spill_tear_down(void **state)
{
	(void)state;
	return rmdir(spill_path);
}

/* -1: there is none. */
static inline int spill_descriptor(void)
{
	for (int fd = 3; fd < 256; fd++) {
		char link[64], path[PATH_MAX];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(link, path, sizeof path - 1);
		if (length > 0 && !strncmp(path, spill_path, strlen(spill_path)))
			return fd;
	}
	return -1;
}

/* Turns one bit of the file; a second time it is as before. */
static inline void spill_damage(off_t where, int bit)
{
	char byte;
	const int fd = spill_descriptor();
	assert_int_equal(pread(fd, &byte, 1, where), 1);
	byte ^= (char)(1 << bit);
	assert_int_equal(pwrite(fd, &byte, 1, where), 1);
}

#endif
