/* hash.h: SHA-256 of bytes, streams and files; the identity of models, corpora and documents.
 *
 * One hash serves every purpose, so that a figure in a report can be checked with sha256sum. */
#ifndef DSA_HASH_H
#define DSA_HASH_H

#include <nettle/sha2.h>
#include <stddef.h>
#include <stdint.h>

enum { DSA_HASH_BYTES = 32, DSA_HASH_HEX = 65 /* with the NUL */ };

struct dsa_hash {
	struct sha256_ctx context;
};

void dsa_hash_begin(struct dsa_hash *hash);
void dsa_hash_add(struct dsa_hash *hash, const void *data, size_t bytes);
void dsa_hash_add_u64(struct dsa_hash *hash, uint64_t value); /* little-endian */
/* Length first, so that ("ab","c") and ("a","bc") differ. NULL is hashed like an absent string. */
void dsa_hash_add_text(struct dsa_hash *hash, const char *text);
void dsa_hash_end(struct dsa_hash *hash, uint8_t out[DSA_HASH_BYTES]);
void dsa_hash_hex(const uint8_t digest[DSA_HASH_BYTES], char out[DSA_HASH_HEX]);
void dsa_hash_bytes(const void *data, size_t bytes, uint8_t out[DSA_HASH_BYTES]);

#endif
