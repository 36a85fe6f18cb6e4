#include "dsa/journal_record.h"

#include <limits.h>
#include <stdlib.h>

#include "journal_bytes.h"

/* No count of a sane record comes near it, and sums of many stay inside int64. */
static const uint64_t count_most = (uint64_t)1 << 48;
enum {
	HEAD_BYTES = 8,
	KEY_BYTES = 24,
	NIBBLE = 15,
	LAYERS_MOST = 4096,
	MASK_MOST = (1 << DSA_POSITION_BUCKETS) - 1,
	MASK_PLAIN = 1 << DSA_POSITION_BUCKETS
};

enum dsa_status dsa_record_buffer_reserve(struct dsa_record_buffer *buffer, size_t room, struct dsa_error *err)
{
	if (room <= buffer->room)
		return DSA_OK;
	size_t wider = room > SIZE_MAX / 2 ? room : 2 * room;
	uint8_t *data = realloc(buffer->data, wider);
	if (!data)
		return dsa_fail(err, DSA_E_MEMORY, "no memory for a journal record of %zu bytes", room);
	buffer->data = data;
	buffer->room = wider;
	return DSA_OK;
}

void dsa_record_buffer_release(struct dsa_record_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct dsa_record_buffer){0};
}

bool dsa_record_key_equal(const struct dsa_record_key *a, const struct dsa_record_key *b)
{
	return a->kind == b->kind && a->batch == b->batch && a->seed == b->seed && a->layers == b->layers &&
	       !memcmp(a->pattern, b->pattern, a->layers);
}

uint64_t dsa_record_key_hash(const struct dsa_record_key *key)
{
	struct dsa_hash hash;
	uint8_t digest[DSA_HASH_BYTES];
	dsa_hash_begin(&hash);
	dsa_hash_add_u64(&hash, key->kind);
	dsa_hash_add_u64(&hash, (uint64_t)key->batch);
	dsa_hash_add_u64(&hash, key->seed);
	dsa_hash_add(&hash, key->pattern, key->layers);
	dsa_hash_end(&hash, digest);
	return load_le(digest, 8);
}

static void begin(struct dsa_record_buffer *out, const struct dsa_record_key *key, int count)
{
	assert(key->batch >= 0 && key->executed >= 0 && key->layers <= LAYERS_MOST && count >= 0);
	out->used = 0;
	out->failed = false;
	put_le(out, key->kind, 4);
	put_le(out, 0, 4); /* the length, known at the end */
	put_le(out, (uint64_t)key->batch, 4);
	put_le(out, key->seed, 8);
	put_le(out, (uint64_t)key->executed, 8);
	put_le(out, key->layers, 4);
	put_bytes(out, key->pattern, key->layers);
	put_varint(out, (uint64_t)count);
}

static enum dsa_status finish(struct dsa_record_buffer *out, struct dsa_error *err)
{
	if (!out->failed && out->used - HEAD_BYTES > DSA_RECORD_MOST)
		return dsa_fail(err, DSA_E_USAGE, "a journal record of %zu bytes, at most %d; use smaller batches",
		                out->used - HEAD_BYTES, DSA_RECORD_MOST);
	if (!out->failed)
		store_le(out->data + 4, out->used - HEAD_BYTES, 4);
	put_check(out);
	if (out->failed)
		return dsa_fail(err, DSA_E_MEMORY, "no memory for a journal record of %zu bytes", out->used);
	return DSA_OK;
}

static bool in_use(const struct dsa_sums *sums)
{
	return sums->tokens != 0; /* without tokens every sum is 0 */
}

static void put_sums(struct dsa_record_buffer *out, const struct dsa_sums *sums)
{
	put_varint(out, (uint64_t)sums->tokens);
	put_varint(out, (uint64_t)sums->top1);
	put_f64(out, sums->kl);
	put_f64(out, sums->kl2);
	put_f64(out, sums->nll);
	put_f64(out, sums->nll_base);
	put_f64(out, sums->dnll2);
	put_f64(out, sums->kl_max);
}

static uint32_t bin_place(const struct dsa_bin *bin)
{
	return (uint32_t)bin->position * DSA_KL_BINS + bin->bin;
}

/* Most bins are a step from the last one and hold few tokens: one byte for both, the rest behind it if need be. */
static void put_bin(struct dsa_record_buffer *out, uint32_t gap, uint32_t more)
{
	uint32_t high = gap < NIBBLE ? gap : NIBBLE, low = more < NIBBLE ? more : NIBBLE;
	put_le(out, high << 4 | low, 1);
	if (high == NIBBLE)
		put_varint(out, gap - NIBBLE);
	if (low == NIBBLE)
		put_varint(out, more - NIBBLE);
}

static void take_bin(struct byte_reader *in, uint64_t *gap, uint64_t *more)
{
	uint64_t both = take_le(in, 1);
	*gap = both >> 4;
	*more = both & NIBBLE;
	if (*gap == NIBBLE)
		*gap += take_varint(in, DSA_POSITION_BUCKETS * DSA_KL_BINS);
	if (*more == NIBBLE)
		*more += take_varint(in, UINT32_MAX);
}

enum dsa_status dsa_record_write_pattern(struct dsa_record_buffer *out, const struct dsa_record_key *key,
                                         const struct dsa_doc_stats *stats, int count, struct dsa_error *err)
{
	begin(out, key, count);
	for (int d = 0; d < count; d++) {
		const struct dsa_doc_stats *document = &stats[d];
		uint64_t mask = 0;
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			mask |= (uint64_t)in_use(&document->at[p]) << p;
		put_varint(out, (uint64_t)document->document);
		put_varint(out, mask);
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			if (mask >> p & 1)
				put_sums(out, &document->at[p]);
		put_varint(out, (uint64_t)document->bin_count);
		uint32_t next = 0;
		for (int i = 0; i < document->bin_count; i++) {
			uint32_t place = bin_place(&document->bins[i]);
			assert(place >= next && document->bins[i].count);
			put_bin(out, place - next, document->bins[i].count - 1);
			next = place + 1;
		}
	}
	return finish(out, err);
}

enum dsa_status dsa_record_write_overlap(struct dsa_record_buffer *out, const struct dsa_record_key *key,
                                         const struct dsa_doc_overlap *overlap, int count, struct dsa_error *err)
{
	begin(out, key, count);
	for (int d = 0; d < count; d++) {
		const struct dsa_doc_overlap *document = &overlap[d];
		size_t layers = (size_t)document->layers;
		uint64_t mask = 0;
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			mask |= (uint64_t)(document->queries[p] != 0) << p | (document->plain[p] ? MASK_PLAIN : 0u);
		put_varint(out, (uint64_t)document->document);
		put_varint(out, layers);
		put_varint(out, mask);
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++) {
			if (!(mask >> p & 1))
				continue;
			put_varint(out, (uint64_t)document->queries[p]);
			for (size_t i = 0; i < layers; i++)
				for (size_t j = i; j < layers; j++)
					put_varint(out, (uint64_t)document->counts[p][i * layers + j]);
			assert(!(mask & MASK_PLAIN) == !document->plain[p]);
			for (size_t i = 0; i < layers && mask & MASK_PLAIN; i++)
				put_varint(out, (uint64_t)document->plain[p][i]);
		}
	}
	return finish(out, err);
}

size_t dsa_record_bytes(const uint8_t head[8])
{
	uint64_t kind = load_le(head, 4), length = load_le(head + 4, 4);
	if ((kind != DSA_RECORD_PATTERN && kind != DSA_RECORD_OVERLAP) || length < KEY_BYTES + 1 ||
	    length > DSA_RECORD_MOST)
		return 0;
	return (size_t)length + DSA_RECORD_FRAME;
}

bool dsa_record_intact(const uint8_t *record, size_t bytes)
{
	return bytes >= DSA_RECORD_FRAME && dsa_record_bytes(record) == bytes && check_holds(record, bytes);
}

/* Takes the key and leaves the reader behind it. */
static enum dsa_status take_key(struct byte_reader *in, const uint8_t *record, size_t bytes, struct dsa_record_key *key,
                                struct dsa_error *err)
{
	assert(bytes >= DSA_RECORD_FRAME);
	*in = (struct byte_reader){.at = record + HEAD_BYTES, .end = record + bytes - CHECK_BYTES};
	uint64_t batch = take_le(in, 4), seed = take_le(in, 8), executed = take_le(in, 8), layers = take_le(in, 4);
	if (in->bad || batch > INT_MAX || executed > count_most || layers > LAYERS_MOST)
		return dsa_fail(err, DSA_E_INPUT, "its batch, work or pattern is out of range");
	const uint8_t *pattern = take_bytes(in, layers);
	if (!pattern)
		return dsa_fail(err, DSA_E_INPUT, "its pattern is cut off");
	for (size_t l = 0; l < layers; l++)
		if (pattern[l] != 'F' && pattern[l] != 'S')
			return dsa_fail(err, DSA_E_INPUT, "its pattern holds something other than F and S");
	*key = (struct dsa_record_key){
	    .kind = (uint32_t)load_le(record, 4),
	    .batch = (int)batch,
	    .seed = seed,
	    .pattern = (const char *)pattern,
	    .layers = layers,
	    .executed = (int64_t)executed,
	};
	return DSA_OK;
}

enum dsa_status dsa_record_read_key(const uint8_t *record, size_t bytes, struct dsa_record_key *key,
                                    struct dsa_error *err)
{
	struct byte_reader in;
	return take_key(&in, record, bytes, key, err);
}

static struct dsa_sums take_sums(struct byte_reader *in)
{
	/* Initialisers are evaluated in any order: these must be statements. */
	struct dsa_sums sums;
	sums.tokens = (int64_t)take_varint(in, INT_MAX);
	sums.top1 = (int64_t)take_varint(in, INT_MAX);
	sums.kl = take_f64(in);
	sums.kl2 = take_f64(in);
	sums.nll = take_f64(in);
	sums.nll_base = take_f64(in);
	sums.dnll2 = take_f64(in);
	sums.kl_max = take_f64(in);
	return sums;
}

static enum dsa_status take_bins(struct byte_reader *in, struct dsa_doc_stats *stats, struct dsa_arena *arena,
                                 struct dsa_error *err)
{
	const uint32_t places = DSA_POSITION_BUCKETS * DSA_KL_BINS;
	/* A bin takes a byte at least, so that a false count cannot ask for more memory than the file is long. */
	uint64_t most = bytes_left(in) < places ? bytes_left(in) : places;
	uint64_t bins = take_varint(in, most), next = 0;
	stats->bins = dsa_arena_alloc(arena, bins, sizeof *stats->bins, "a histogram", err);
	if (!stats->bins)
		return DSA_E_MEMORY;
	for (uint64_t i = 0; i < bins && !in->bad; i++) {
		uint64_t gap, more;
		take_bin(in, &gap, &more);
		uint64_t place = next + gap;
		if (place >= places || more >= UINT32_MAX)
			in->bad = true;
		else
			stats->bins[stats->bin_count++] = (struct dsa_bin){
			    .position = (uint8_t)(place / DSA_KL_BINS),
			    .bin = (uint16_t)(place % DSA_KL_BINS),
			    .count = (uint32_t)more + 1,
			};
		next = place + 1;
	}
	return DSA_OK;
}

static enum dsa_status at_end(const struct byte_reader *in, struct dsa_error *err)
{
	if (in->bad || in->at != in->end)
		return dsa_fail(err, DSA_E_INPUT, "its statistics do not follow the format");
	return DSA_OK;
}

static enum dsa_status take_documents(struct byte_reader *in, int expected, struct dsa_error *err)
{
	uint64_t found = take_varint(in, UINT32_MAX);
	if (in->bad || found != (uint64_t)expected)
		return dsa_fail(err, DSA_E_INPUT, "it holds %llu documents, its batch has %d",
		                (unsigned long long)found, expected);
	return DSA_OK;
}

enum dsa_status dsa_record_read_pattern(const uint8_t *record, size_t bytes, struct dsa_arena *arena, int documents,
                                        struct dsa_doc_stats **stats, struct dsa_error *err)
{
	struct byte_reader in;
	struct dsa_record_key key;
	enum dsa_status status = take_key(&in, record, bytes, &key, err);
	if (status)
		return status;
	assert(key.kind == DSA_RECORD_PATTERN);
	status = take_documents(&in, documents, err);
	if (status)
		return status;
	*stats = dsa_arena_alloc(arena, (size_t)documents, sizeof **stats, "the statistics of a batch", err);
	if (!*stats)
		return DSA_E_MEMORY;
	for (int d = 0; d < documents && !in.bad; d++) {
		struct dsa_doc_stats *document = &(*stats)[d];
		document->document = (int32_t)take_varint(&in, INT32_MAX);
		uint64_t mask = take_varint(&in, MASK_MOST);
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			if (mask >> p & 1)
				document->at[p] = take_sums(&in);
		status = take_bins(&in, document, arena, err);
		if (status)
			return status;
	}
	return at_end(&in, err);
}

static enum dsa_status take_triangle(struct byte_reader *in, int64_t **out, size_t layers, struct dsa_arena *arena,
                                     struct dsa_error *err)
{
	if (bytes_left(in) < layers * (layers + 1) / 2) {
		in->bad = true;
		return DSA_OK;
	}
	int64_t *counts = dsa_arena_alloc(arena, layers * layers, sizeof *counts, "overlap counts", err);
	if (!counts)
		return DSA_E_MEMORY;
	for (size_t i = 0; i < layers; i++)
		for (size_t j = i; j < layers; j++)
			counts[i * layers + j] = (int64_t)take_varint(in, count_most);
	*out = counts;
	return DSA_OK;
}

static enum dsa_status take_plain(struct byte_reader *in, int64_t **out, size_t layers, struct dsa_arena *arena,
                                  struct dsa_error *err)
{
	if (bytes_left(in) < layers) {
		in->bad = true;
		return DSA_OK;
	}
	*out = dsa_arena_alloc(arena, layers, sizeof **out, "overlap counts", err);
	if (!*out)
		return DSA_E_MEMORY;
	for (size_t i = 0; i < layers; i++)
		(*out)[i] = (int64_t)take_varint(in, count_most);
	return DSA_OK;
}

enum dsa_status dsa_record_read_overlap(const uint8_t *record, size_t bytes, struct dsa_arena *arena, int documents,
                                        struct dsa_doc_overlap **overlap, struct dsa_error *err)
{
	struct byte_reader in;
	struct dsa_record_key key;
	enum dsa_status status = take_key(&in, record, bytes, &key, err);
	if (status)
		return status;
	assert(key.kind == DSA_RECORD_OVERLAP);
	status = take_documents(&in, documents, err);
	if (status)
		return status;
	*overlap = dsa_arena_alloc(arena, (size_t)documents, sizeof **overlap, "the overlap of a batch", err);
	if (!*overlap)
		return DSA_E_MEMORY;
	for (int d = 0; d < documents && !in.bad; d++) {
		struct dsa_doc_overlap *document = &(*overlap)[d];
		document->document = (int32_t)take_varint(&in, INT32_MAX);
		document->layers = (int32_t)take_varint(&in, LAYERS_MOST);
		uint64_t mask = take_varint(&in, MASK_MOST | MASK_PLAIN);
		for (int p = 0; p < DSA_POSITION_BUCKETS && !in.bad; p++) {
			if (!(mask >> p & 1))
				continue;
			document->queries[p] = (int64_t)take_varint(&in, count_most);
			if (!document->queries[p])
				in.bad = true; /* the mask says that there are some */
			status = take_triangle(&in, &document->counts[p], (size_t)document->layers, arena, err);
			if (!status && mask & MASK_PLAIN && !in.bad)
				status = take_plain(&in, &document->plain[p], (size_t)document->layers, arena, err);
			if (status)
				return status;
		}
	}
	return at_end(&in, err);
}
