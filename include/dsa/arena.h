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

/* count × size zeroed bytes. DSA_E_MEMORY (naming `what`) when the product overflows or the system has none. */
DSA_CHECKED enum dsa_status dsa_arena_alloc(struct dsa_arena *arena, size_t count, size_t size, const char *what,
                                            void *out /* void ** */, struct dsa_error *err);
/* A copy of text[0..length) with a NUL behind it. */
DSA_CHECKED enum dsa_status dsa_arena_text(struct dsa_arena *arena, const char *text, size_t length, char **out,
                                           struct dsa_error *err);

/* Outside arenas: malloc with the same error text; free() it. 64-byte aligned, zeroed. */
DSA_CHECKED enum dsa_status dsa_alloc(size_t count, size_t size, const char *what, void *out /* void ** */,
                                      struct dsa_error *err);

#endif
