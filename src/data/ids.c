#include <stdlib.h>

#include "dsa/tokenizer.h"

void dsa_ids_release(struct dsa_ids *ids)
{
	if (!ids)
		return;
	free(ids->ids);
	*ids = (struct dsa_ids){0};
}

enum dsa_status dsa_ids_append(struct dsa_ids *ids, int32_t id, struct dsa_error *err)
{
	if (ids->count == ids->room) {
		size_t room, bytes;
		if (__builtin_mul_overflow(ids->room ? ids->room : 512, 2, &room) ||
		    __builtin_mul_overflow(room, sizeof *ids->ids, &bytes))
			return dsa_fail(err, DSA_E_MEMORY, "a document of more than %zu tokens does not fit in memory",
			                ids->count);
		int32_t *grown = realloc(ids->ids, bytes);
		if (!grown)
			return dsa_fail(err, DSA_E_MEMORY,
			                "no memory for a document of more than %zu tokens; use shorter documents",
			                ids->count);
		ids->ids = grown;
		ids->room = room;
	}
	ids->ids[ids->count++] = id;
	return DSA_OK;
}
