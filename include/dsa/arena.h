/* arena.h: host memory by lifetime.
 *
 * An arena owns everything allocated from it and frees it at once in dsa_arena_release(). Blocks are never moved, so
 * pointers stay valid until then. Not thread-safe: one arena, one owner. Zeroed memory, aligned to 64 bytes (one
 * cache line, one AVX-512 register). */
#ifndef DSA_ARENA_H
#define DSA_ARENA_H

#include <stddef.h>

#include "dsa/status.h"

struct dsa_arena_block;

struct dsa_arena {
	struct dsa_arena_block *head;
	size_t bytes; /* handed out so far, for memory reports */
};

void dsa_arena_init(struct dsa_arena *arena);
void dsa_arena_release(struct dsa_arena *arena);

/* count × size zeroed bytes, or NULL with err naming `what` (the status is then DSA_E_MEMORY) when the product
 * overflows or the system has none. */
DSA_CHECKED void *dsa_arena_alloc(struct dsa_arena *arena, size_t count, size_t size, const char *what,
                                  struct dsa_error *err);
/* A copy of text[0..length) with a NUL behind it; NULL as above. */
DSA_CHECKED char *dsa_arena_text(struct dsa_arena *arena, const char *text, size_t length, struct dsa_error *err);

/* Outside arenas: zeroed, 64-byte aligned, NULL as above; free() it. */
DSA_CHECKED void *dsa_alloc(size_t count, size_t size, const char *what, struct dsa_error *err);

/* Bytes that the kernel can give without swapping: free pages alone leave out what caches would hand back. 4 GiB where
 * it does not say. */
size_t dsa_memory_available(void);

#endif
