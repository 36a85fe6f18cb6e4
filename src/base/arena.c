#include "dsa/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, BLOCK_BYTES = 1 << 20 };

struct dsa_arena_block {
	struct dsa_arena_block *next;
	size_t used, size; /* of the bytes behind the header, which is padded to ALIGNMENT */
};

static const size_t header_bytes = ALIGNMENT;
_Static_assert(sizeof(struct dsa_arena_block) <= ALIGNMENT, "the header must leave the data aligned");

static size_t rounded(size_t bytes)
{
	return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void *too_much(size_t count, size_t size, const char *what, struct dsa_error *err)
{
	dsa_fail(err, DSA_E_MEMORY,
	         "no memory for %s: %zu x %zu bytes; use fewer or shorter documents, or a smaller --host-memory", what,
	         count, size);
	return NULL;
}

void *dsa_alloc(size_t count, size_t size, const char *what, struct dsa_error *err)
{
	void *memory = NULL;
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
		return too_much(count, size, what, err);
	bytes = rounded(bytes ? bytes : 1);
	memory = aligned_alloc(ALIGNMENT, bytes);
	if (!memory)
		return too_much(count, size, what, err);
	memset(memory, 0, bytes);
	return memory;
}

void dsa_arena_init(struct dsa_arena *arena)
{
	*arena = (struct dsa_arena){0};
}

void dsa_arena_release(struct dsa_arena *arena)
{
	while (arena->head) {
		struct dsa_arena_block *next = arena->head->next;
		free(arena->head);
		arena->head = next;
	}
	arena->bytes = 0;
}

void *dsa_arena_alloc(struct dsa_arena *arena, size_t count, size_t size, const char *what, struct dsa_error *err)
{
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4)
		return too_much(count, size, what, err);
	bytes = rounded(bytes ? bytes : 1);
	struct dsa_arena_block *block = arena->head;
	if (!block || block->size - block->used < bytes) {
		size_t room = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES;
		block = aligned_alloc(ALIGNMENT, header_bytes + room);
		if (!block)
			return too_much(count, size, what, err);
		*block = (struct dsa_arena_block){.size = room};
		/* A large block goes behind the head, so that the head's remaining room is not lost. */
		if (arena->head && room == bytes) {
			block->next = arena->head->next;
			arena->head->next = block;
		} else {
			block->next = arena->head;
			arena->head = block;
		}
	}
	void *memory = (char *)block + header_bytes + block->used;
	block->used += bytes;
	arena->bytes += bytes;
	memset(memory, 0, bytes);
	return memory;
}

char *dsa_arena_text(struct dsa_arena *arena, const char *text, size_t length, struct dsa_error *err)
{
	char *copy = dsa_arena_alloc(arena, length + 1, 1, "text", err);
	if (copy && length)
		memcpy(copy, text, length);
	return copy;
}

size_t dsa_memory_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char text[256];
	unsigned long long kib = 0;
	while (file && fgets(text, sizeof text, file))
		if (sscanf(text, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib ? (size_t)kib * 1024 : (size_t)4 << 30;
}
