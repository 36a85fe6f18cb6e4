/* journal_bytes.h: the small change of journal_record.c and journal_header.c: numbers to and from bytes. */
#ifndef DSA_JOURNAL_BYTES_H
#define DSA_JOURNAL_BYTES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dsa/hash.h"
#include "dsa/journal_record.h"

enum { CHECK_BYTES = 8 };

static inline void put_bytes(struct dsa_record_buffer *out, const void *data, size_t bytes)
{
	if (out->failed || (out->room - out->used < bytes && dsa_record_buffer_reserve(out, out->used + bytes, NULL))) {
		out->failed = true;
		return;
	}
	if (bytes)
		memcpy(out->data + out->used, data, bytes);
	out->used += bytes;
}

static inline void store_le(uint8_t *to, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t load_le(const uint8_t *from, int bytes)
{
	uint64_t value = 0;
	for (int i = 0; i < bytes; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

static inline void put_le(struct dsa_record_buffer *out, uint64_t value, int bytes)
{
	uint8_t le[8];
	store_le(le, value, bytes);
	put_bytes(out, le, (size_t)bytes);
}

static inline void put_f64(struct dsa_record_buffer *out, double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	put_le(out, bits, 8);
}

static inline void put_varint(struct dsa_record_buffer *out, uint64_t value)
{
	uint8_t bytes[10];
	size_t used = 0;
	for (; value >= 0x80; value >>= 7)
		bytes[used++] = (uint8_t)(value | 0x80);
	bytes[used++] = (uint8_t)value;
	put_bytes(out, bytes, used);
}

static inline void put_check(struct dsa_record_buffer *out)
{
	uint8_t digest[DSA_HASH_BYTES];
	if (out->failed)
		return;
	dsa_hash_bytes(out->data, out->used, digest);
	put_bytes(out, digest, CHECK_BYTES);
}

/* True if the last CHECK_BYTES of data are the check of those before. */
static inline bool check_holds(const uint8_t *data, size_t bytes)
{
	uint8_t digest[DSA_HASH_BYTES];
	assert(bytes >= CHECK_BYTES);
	dsa_hash_bytes(data, bytes - CHECK_BYTES, digest);
	return !memcmp(digest, data + bytes - CHECK_BYTES, CHECK_BYTES);
}

/* Bytes being read; past the end every number is 0 and bad is set. */
struct byte_reader {
	const uint8_t *at, *end;
	bool bad;
};

static inline size_t bytes_left(const struct byte_reader *in)
{
	return (size_t)(in->end - in->at);
}

static inline const uint8_t *take_bytes(struct byte_reader *in, size_t bytes)
{
	if (in->bad || bytes_left(in) < bytes) {
		in->bad = true;
		return NULL;
	}
	const uint8_t *from = in->at;
	in->at += bytes;
	return from;
}

static inline uint64_t take_le(struct byte_reader *in, int bytes)
{
	const uint8_t *from = take_bytes(in, (size_t)bytes);
	return from ? load_le(from, bytes) : 0;
}

static inline double take_f64(struct byte_reader *in)
{
	uint64_t bits = take_le(in, 8);
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

/* A varint of at most `most`; more is bad. */
static inline uint64_t take_varint(struct byte_reader *in, uint64_t most)
{
	uint64_t value = 0;
	for (int shift = 0; shift < 64; shift += 7) {
		const uint8_t *byte = take_bytes(in, 1);
		if (!byte)
			return 0;
		uint64_t part = *byte & 0x7f;
		if (part << shift >> shift != part)
			break;
		value |= part << shift;
		if (!(*byte & 0x80)) {
			if (value > most)
				break;
			return value;
		}
	}
	in->bad = true;
	return 0;
}

#endif
