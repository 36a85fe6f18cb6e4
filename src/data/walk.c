#include "dsa/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dsa/arena.h"
#include "dsa/file.h"

struct level {
	struct dsa_arena arena; /* the listing and the path */
	const char *path;
	char **names;
	size_t count, next;
	dev_t device;
	ino_t inode;
};

struct dsa_walk {
	struct level levels[DSA_WALK_DEPTH];
	int depth;              /* levels in use */
	size_t root;            /* bytes of the root's path with its '/' */
	struct dsa_arena found; /* the path handed out last */
};

static enum dsa_status enter(struct dsa_walk *walk, const char *path, const struct stat *st, struct dsa_error *err)
{
	for (int i = 0; i < walk->depth; i++)
		if (walk->levels[i].device == st->st_dev && walk->levels[i].inode == st->st_ino)
			return dsa_fail(err, DSA_E_INPUT, "%s: a link back to %s, which holds it; remove the link",
			                path, walk->levels[i].path);
	if (walk->depth == DSA_WALK_DEPTH)
		return dsa_fail(err, DSA_E_INPUT, "%s: directories nested deeper than %d", path, DSA_WALK_DEPTH);
	struct level *level = &walk->levels[walk->depth++];
	*level = (struct level){.device = st->st_dev, .inode = st->st_ino};
	dsa_arena_init(&level->arena);
	level->path = dsa_arena_text(&level->arena, path, strlen(path), err);
	if (!level->path)
		return DSA_E_MEMORY;
	return dsa_file_list(path, &level->arena, &level->names, &level->count, err);
}

static void leave(struct dsa_walk *walk)
{
	dsa_arena_release(&walk->levels[--walk->depth].arena);
}

enum dsa_status dsa_walk_open(struct dsa_walk **out, const char *path, struct dsa_error *err)
{
	struct stat st;
	*out = NULL;
	if (stat(path, &st))
		return dsa_fail(err, errno == ENOENT ? DSA_E_MISSING : DSA_E_IO, "%s: cannot open: %s", path,
		                strerror(errno));
	struct dsa_walk *walk = dsa_alloc(1, sizeof *walk, "a directory walk", err);
	if (!walk)
		return DSA_E_MEMORY;
	dsa_arena_init(&walk->found);
	size_t length = strlen(path);
	walk->root = length + (length && path[length - 1] != '/');
	enum dsa_status status = enter(walk, path, &st, err);
	if (status)
		dsa_walk_close(walk);
	else
		*out = walk;
	return status;
}

void dsa_walk_close(struct dsa_walk *walk)
{
	if (!walk)
		return;
	while (walk->depth)
		leave(walk);
	dsa_arena_release(&walk->found);
	free(walk);
}

enum dsa_status dsa_walk_next(struct dsa_walk *walk, const char **path, const char **relative, struct dsa_error *err)
{
	while (walk->depth) {
		struct level *level = &walk->levels[walk->depth - 1];
		if (level->next == level->count) {
			leave(walk);
			continue;
		}
		const char *name = level->names[level->next++];
		if (name[0] == '.')
			continue;
		struct stat st;
		char *full;
		dsa_arena_release(&walk->found);
		enum dsa_status status = dsa_file_join(&walk->found, level->path, name, &full, err);
		if (status)
			return status;
		if (stat(full, &st))
			return dsa_fail(err, DSA_E_IO, "%s: cannot open: %s", full, strerror(errno));
		if (S_ISREG(st.st_mode)) {
			*path = full;
			*relative = full + walk->root;
			return DSA_OK;
		}
		if (!S_ISDIR(st.st_mode))
			return dsa_fail(err, DSA_E_INPUT, "%s: neither a file nor a directory; move it away", full);
		status = enter(walk, full, &st, err);
		if (status)
			return status == DSA_E_MISSING ? DSA_E_IO : status;
	}
	return DSA_E_MISSING;
}
