#include "dsa/hash.h"

#include <string.h>

void dsa_hash_begin(struct dsa_hash *hash)
{
	sha256_init(&hash->context);
}

void dsa_hash_add(struct dsa_hash *hash, const void *data, size_t bytes)
{
	if (bytes)
		sha256_update(&hash->context, bytes, data);
}

void dsa_hash_add_u64(struct dsa_hash *hash, uint64_t value)
{
	uint8_t bytes[8];
	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	dsa_hash_add(hash, bytes, sizeof bytes);
}

void dsa_hash_add_text(struct dsa_hash *hash, const char *text)
{
	size_t length = text ? strlen(text) : 0;
	dsa_hash_add_u64(hash, text ? length : UINT64_MAX);
	dsa_hash_add(hash, text, length);
}

void dsa_hash_end(struct dsa_hash *hash, uint8_t out[DSA_HASH_BYTES])
{
	sha256_digest(&hash->context, DSA_HASH_BYTES, out);
}

void dsa_hash_hex(const uint8_t digest[DSA_HASH_BYTES], char out[DSA_HASH_HEX])
{
	static const char digits[] = "0123456789abcdef";
	for (int i = 0; i < DSA_HASH_BYTES; i++) {
		out[2 * i] = digits[digest[i] >> 4];
		out[2 * i + 1] = digits[digest[i] & 15];
	}
	out[DSA_HASH_HEX - 1] = 0;
}

void dsa_hash_bytes(const void *data, size_t bytes, uint8_t out[DSA_HASH_BYTES])
{
	struct dsa_hash hash;
	dsa_hash_begin(&hash);
	dsa_hash_add(&hash, data, bytes);
	dsa_hash_end(&hash, out);
}
