#include "model_private.h"

#include <string.h>

#include "dsa/file.h"
#include "dsa/hash.h"

enum { SAMPLE_BYTES = 4096 };

/* An absent file is part of the identity too. */
static enum dsa_status add_file(struct dsa_hash *hash, struct dsa_arena *arena, const char *dir, const char *name,
                                struct dsa_error *err)
{
	char *path = NULL;
	struct dsa_mapping map;
	dsa_hash_add_text(hash, name);
	enum dsa_status status = dsa_file_join(arena, dir, name, &path, err);
	if (status)
		return status;
	if (!dsa_file_exists(path)) {
		dsa_hash_add_u64(hash, UINT64_MAX);
		return DSA_OK;
	}
	status = dsa_mapping_open(&map, path, err);
	if (status)
		return status;
	dsa_hash_add_u64(hash, map.bytes);
	dsa_hash_add(hash, map.data, map.bytes);
	dsa_mapping_close(&map);
	return DSA_OK;
}

/* First, middle and last block; everything where these would meet. */
static void add_tensor(struct dsa_hash *hash, const struct dsa_stored *tensor, bool full)
{
	dsa_hash_add_text(hash, tensor->name);
	dsa_hash_add_u64(hash, tensor->bytes);
	if (full || tensor->bytes <= 3 * SAMPLE_BYTES) {
		dsa_hash_add(hash, tensor->data, (size_t)tensor->bytes);
		return;
	}
	dsa_hash_add(hash, tensor->data, SAMPLE_BYTES);
	dsa_hash_add(hash, tensor->data + (tensor->bytes - SAMPLE_BYTES) / 2, SAMPLE_BYTES);
	dsa_hash_add(hash, tensor->data + tensor->bytes - SAMPLE_BYTES, SAMPLE_BYTES);
}

enum dsa_status fingerprint_checkpoint(const struct dsa_checkpoint *cp, const char *model_dir, bool full, char out[65],
                                       struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_hash hash;
	uint8_t digest[DSA_HASH_BYTES];
	dsa_arena_init(&arena);
	dsa_hash_begin(&hash);
	dsa_hash_add_text(&hash, full ? "dsacal model, every byte" : "dsacal model, sampled blocks");
	enum dsa_status status = add_file(&hash, &arena, model_dir, "config.json", err);
	if (!status)
		status = add_file(&hash, &arena, model_dir, "tokenizer.json", err);
	if (status)
		goto cleanup;
	for (int s = 0; s < dsa_checkpoint_shards(cp); s++) {
		const char *path = dsa_checkpoint_shard_path(cp, s), *slash = strrchr(path, '/');
		const uint8_t *header;
		uint64_t bytes;
		dsa_checkpoint_shard_header(cp, s, &header, &bytes);
		dsa_hash_add_text(&hash, slash ? slash + 1 : path);
		dsa_hash_add_u64(&hash, bytes);
		dsa_hash_add(&hash, header, (size_t)bytes);
	}
	/* Read-ahead would fetch many times as much around each block. */
	dsa_checkpoint_advise(cp, !full);
	for (int i = 0; i < dsa_checkpoint_count(cp); i++)
		add_tensor(&hash, dsa_checkpoint_at(cp, i), full);
	dsa_checkpoint_advise(cp, false);
	dsa_hash_end(&hash, digest);
	dsa_hash_hex(digest, out);
cleanup:
	dsa_arena_release(&arena);
	return status;
}

enum dsa_status dsa_model_fingerprint(const char *model_dir, bool full, char out[65], struct dsa_error *err)
{
	struct dsa_checkpoint *cp;
	enum dsa_status status = dsa_checkpoint_open(&cp, model_dir, err);
	if (status)
		return status;
	status = fingerprint_checkpoint(cp, model_dir, full, out, err);
	dsa_checkpoint_close(cp);
	return status;
}
