#include "spill_limit.h"

#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/statfs.h>

/* How much of the memory's size the disk takes unasked: a small run must not fill one, and beyond this few of the
 * states that candidates start from are still missing. */
enum { TIMES_MEMORY = 4 };

/* The file system of the path, or of the nearest folder above it that there is. */
static bool file_system(const char *path, struct statfs *out)
{
	char at[PATH_MAX];
	const size_t length = strlen(path);
	if (length >= sizeof at)
		return false;
	memcpy(at, path, length + 1);
	while (*at) {
		if (!statfs(at, out))
			return true;
		char *slash = strrchr(at, '/');
		if (!slash)
			break;
		slash[slash == at && at[1]] = 0; /* "/a" goes up to "/", and that to nothing */
	}
	return !statfs(".", out);
}

/* A file system in memory takes what the states have too little of. */
static bool is_in_memory(const struct statfs *fs)
{
	return fs->f_type == TMPFS_MAGIC || fs->f_type == RAMFS_MAGIC;
}

uint64_t dsa_spill_limit(const struct dsa_cli_options *options, bool on_gpu, size_t host_memory)
{
	struct statfs fs;
	if (options->command != DSA_CMD_CALIBRATE || !strcmp(options->search, "naive"))
		return 0;
	if (options->spill != DSA_SPILL_DERIVED)
		return options->spill;
	if (on_gpu || !file_system(options->out ? options->out : ".", &fs) || is_in_memory(&fs))
		return 0;
	const uint64_t half = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize / 2;
	const uint64_t enough = host_memory < UINT64_MAX / TIMES_MEMORY ? (uint64_t)host_memory * TIMES_MEMORY : half;
	return half < enough ? half : enough;
}
