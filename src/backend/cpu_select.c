/* The lightning indexer: scores of all earlier positions, the exact top K of them.
 *
 * Keys are transposed once per call, so that one vector holds the same dimension of LANES neighbouring keys and a score
 * is a plain sum over dimensions, then over heads, in ascending order, whatever tile it is computed in. */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "lanes.h"

enum {
	KEY_GROUP = 2 * WIDE / 8,               /* vectors of keys and */
	HEAD_GROUP = REGISTERS / 2 / KEY_GROUP, /* heads whose sums are in registers together */
	TILE_KEYS = KEY_GROUP * WIDE            /* keys scored at a time, whole vectors of either kind */
};

/* Distance of dimensions in the transposed keys: an odd number of vectors, lest all dimensions of a key fall into one
 * cache set; a tile may be read beyond the last key. */
static int64_t transposed_stride(int64_t keys)
{
	return ((keys + TILE_KEYS) / LANES + 1) / 2 * 2 * LANES + LANES;
}

/* Scores of a row, read and written in whole tiles. */
static int64_t score_room(int64_t context)
{
	return (context + TILE_KEYS - 1) / TILE_KEYS * TILE_KEYS;
}

struct select_scratch {
	float *transposed; /* (d, stride) */
	int64_t stride;
	int32_t *scores; /* (threads, room), floats at first, then integers of the same order */
	int64_t room;
	/* Unless q and k are taken as they are: */
	float *keys, *key_scales; /* (N, d), (N) */
	float *queries, *weights; /* (threads, h · d), (threads, h): of the row at hand */
};

static size_t carve_scratch(struct select_scratch *s, struct cpu_carve carve, int64_t keys, int heads, int dim,
                            int64_t context, enum dsa_index_precision precision, int threads)
{
	s->stride = transposed_stride(keys);
	s->room = score_room(context);
	s->transposed = cpu_carve(&carve, s->stride * dim, sizeof *s->transposed);
	s->scores = cpu_carve(&carve, s->room * threads, sizeof *s->scores);
	if (precision != DSA_INDEX_ACT) {
		s->keys = cpu_carve(&carve, keys * dim, sizeof *s->keys);
		s->key_scales = cpu_carve(&carve, keys, sizeof *s->key_scales);
		s->queries = cpu_carve(&carve, (int64_t)threads * heads * dim, sizeof *s->queries);
		s->weights = cpu_carve(&carve, (int64_t)threads * heads, sizeof *s->weights);
	}
	return carve.used;
}

size_t cpu_select_bytes(int64_t keys, int heads, int dim, int64_t context, enum dsa_index_precision precision,
                        int threads)
{
	struct select_scratch s;
	return carve_scratch(&s, (struct cpu_carve){0}, keys, heads, dim, context, precision, threads);
}

/* The keys that a row can see, in the precision asked for, and their scales: others need not be there yet. */
static struct dsa_tensor take_keys(const struct select_scratch *s, struct dsa_tensor k, const struct dsa_rows *rows,
                                   enum dsa_index_precision precision, int threads)
{
	int64_t seen = 0;
	for (int64_t i = 0; i < rows->count; i++) {
		int64_t end = (int64_t)rows->key0[i] + rows->pos[i] + 1;
		seen = end > seen ? end : seen;
	}
	struct dsa_tensor taken = dsa_tensor_make(s->keys, DSA_F32, seen, k.cols);
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t i = 0; i < seen; i++)
		s->key_scales[i] = cpu_index_row(cpu_row(taken, i), cpu_row(k, i), k.cols, precision);
	return taken;
}

/* A row's queries likewise, their scales taken into the weights. */
static void take_queries(float *queries, float *weights, const float *q, const float *weight, int heads, int dim,
                         enum dsa_index_precision precision)
{
	for (int a = 0; a < heads; a++) {
		int64_t at = (int64_t)a * dim;
		weights[a] = weight[a] * cpu_index_row(queries + at, q + at, dim, precision);
	}
}

static void transpose_keys(const struct select_scratch *s, struct dsa_tensor k, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t block = 0; block < s->stride; block += LANES) {
		float *to = s->transposed + block;
		const int count = (int)cpu_min(LANES, k.rows - block);
		for (int i = 0; i < count; i++)
			for (int j = 0; j < k.cols; j++)
				to[j * s->stride + i] = cpu_row(k, block + i)[j];
		for (int i = count > 0 ? count : 0; i < LANES; i++)
			for (int j = 0; j < k.cols; j++)
				to[j * s->stride + i] = 0;
	}
}

/* score += weight · relu(q·k · scale) for `heads` (a constant) heads, one after another. */
LANES_INLINE void score_heads(wide score[KEY_GROUP], const float *keys, int64_t stride, const float *q,
                              const float *weight, const int heads, int dim, float scale)
{
	wide sum[HEAD_GROUP][KEY_GROUP];
	for (int a = 0; a < heads; a++)
		for (int i = 0; i < KEY_GROUP; i++)
			sum[a][i] = wide_splat(0);
	for (int j = 0; j < dim; j++) {
		wide key[KEY_GROUP];
		for (int i = 0; i < KEY_GROUP; i++)
			key[i] = wide_load(keys + j * stride + i * WIDE);
		for (int a = 0; a < heads; a++)
			for (int i = 0; i < KEY_GROUP; i++)
				sum[a][i] += wide_splat(q[a * dim + j]) * key[i];
	}
	for (int a = 0; a < heads; a++)
		for (int i = 0; i < KEY_GROUP; i++) {
			wide x = sum[a][i] * wide_splat(scale);
			/* Written so that NaN passes. */
			x = (wide)((wide_int)x & ~(x < wide_splat(0)));
			score[i] += wide_splat(weight[a]) * x;
		}
}

/* Scores of positions 0 … count - 1 and some beyond, which mean nothing. */
static void score_row(float *scores, int64_t count, const float *keys, int64_t stride, const float *q,
                      const float *weight, int heads, int dim)
{
	float scale = 1.0f / sqrtf((float)dim);
	for (int64_t s = 0; s < count; s += TILE_KEYS) {
		wide score[KEY_GROUP] = {{0}};
		int a = 0;
		for (; a + HEAD_GROUP <= heads; a += HEAD_GROUP)
			score_heads(score, keys + s, stride, q + a * dim, weight + a, HEAD_GROUP, dim, scale);
		for (; a < heads; a++)
			score_heads(score, keys + s, stride, q + a * dim, weight + a, 1, dim, scale);
		for (int i = 0; i < KEY_GROUP; i++)
			wide_store(scores + s + i * WIDE, score[i]);
	}
}

/* Floats to integers of the same order and back. */
LANES_INLINE wide_int order_of(wide_int bits)
{
	return bits ^ ((bits >> 31) & 0x7fffffff);
}

static float value_of(int32_t key)
{
	float value;
	key ^= (key >> 31) & 0x7fffffff;
	memcpy(&value, &key, sizeof value);
	return value;
}

static int32_t key_of(float value)
{
	int32_t key;
	memcpy(&key, &value, sizeof key);
	return key ^ ((key >> 31) & 0x7fffffff);
}

/* Scores to their integers, in place (a score is a sum that starts at +0, so none is -0); lanes behind count become the
 * least integer. Returns false if a score is NaN. Sets the range of the scores. */
static bool order_scores(int32_t *keys, int64_t count, int32_t *least, int32_t *most)
{
	wide_int bad = {0}, low = wide_splat_int(INT32_MAX), high = wide_splat_int(INT32_MIN);
	for (int64_t s = count; s % LANES; s++)
		keys[s] = keys[0];
	for (int64_t s = 0; s < lanes_round(count); s += WIDE) {
		wide x = wide_load((const float *)(keys + s));
		wide_int i = order_of((wide_int)x);
		bad |= x != x; /* NaN; NOLINT(misc-redundant-expression) */
		low = wide_select_int(i < low, i, low);
		high = wide_select_int(i > high, i, high);
		wide_store_int(keys + s, i);
	}
	for (int64_t s = count; s % LANES; s++)
		keys[s] = INT32_MIN;
	*least = low[0], *most = high[0];
	int32_t any_bad = bad[0];
	for (int l = 1; l < WIDE; l++) {
		*least = low[l] < *least ? low[l] : *least;
		*most = high[l] > *most ? high[l] : *most;
		any_bad |= bad[l];
	}
	return !any_bad;
}

static int64_t count_from(const int32_t *keys, int64_t count, int32_t bound)
{
	struct lanes_int reached = {0};
	for (int64_t s = 0; s < count; s += LANES)
		for (int p = 0; p < PARTS; p++)
			reached.part[p] -= wide_load_int(keys + s + p * WIDE) >= bound;
	return lanes_sum_int(reached);
}

/* A bound to try between low and high, both exclusive of what is known: where the topk-th would lie if the scores in
 * between were spread evenly, `reached` of them at low and `above` at high. Scores are, nearly; that takes a quarter
 * of the passes that halving the integers takes, which comes in where it does not help. */
static int32_t guess_bound(int64_t low, int64_t high, int64_t reached, int64_t above, int topk)
{
	const float from = value_of((int32_t)low), to = value_of((int32_t)(high - 1));
	const float share = ((float)(reached - topk) + 0.5f) / (float)(reached - above);
	const float value = from + (to - from) * share;
	const int64_t key = isfinite(value) ? key_of(value) : low + (high - low) / 2;
	return (int32_t)(key <= low ? low + 1 : key >= high ? high - 1 : key);
}

/* Positions of the topk largest of keys[0 … count), count > topk, ascending; among equals the lower position. The
 * bound is narrowed down over the integers: every fourth pass halves them, so there are at most four times the log2 of
 * their range, fewer when a bound that exactly topk keys reach is met earlier. */
static void select_row(int32_t *selection, int topk, const int32_t *keys, int64_t count, int32_t least, int32_t most)
{
	int64_t low = least, high = (int64_t)most + 1; /* count_from(low) ≥ topk > count_from(high) */
	int64_t above = 0, reached = count;            /* count_from(high), count_from(low) */
	for (int pass = 0; high - low > 1 && reached > topk; pass++) {
		int64_t middle = pass % 4 == 3 ? low + (high - low) / 2 : guess_bound(low, high, reached, above, topk);
		int64_t n = count_from(keys, count, (int32_t)middle);
		if (n >= topk)
			low = middle, reached = n;
		else
			high = middle, above = n;
	}
	int32_t bound = (int32_t)low;
	int n = 0;
	if (reached == topk) {
		for (int64_t s = 0; n < topk; s++) {
			selection[n] = (int32_t)s;
			n += keys[s] >= bound;
		}
		return;
	}
	int64_t equals = topk - above; /* of those equal to the bound, from the left */
	for (int64_t s = 0; n < topk; s++)
		if (keys[s] > bound || (keys[s] == bound && equals-- > 0))
			selection[n++] = (int32_t)s;
}

enum dsa_status cpu_select(struct dsa_backend *be, int32_t *selection, int topk, struct dsa_tensor q,
                           struct dsa_tensor k, struct dsa_tensor weight, int heads, int dim,
                           enum dsa_index_precision precision, const struct dsa_rows *rows, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	int64_t context = (int64_t)rows->max_pos + 1;
	assert(q.dtype == DSA_F32 && k.dtype == DSA_F32 && weight.dtype == DSA_F32);
	assert(q.rows == rows->count && weight.rows == rows->count && topk > 0);
	assert(q.cols == heads * dim && k.cols == dim && weight.cols == heads);
	struct select_scratch s;
	size_t bytes = cpu_select_bytes(k.rows, heads, dim, context, precision, cpu->threads);
	carve_scratch(&s, cpu_scratch(cpu, bytes), k.rows, heads, dim, context, precision, cpu->threads);
	bool as_is = precision == DSA_INDEX_ACT;
	int64_t bad_row = INT64_MAX;
	transpose_keys(&s, as_is ? k : take_keys(&s, k, rows, precision, cpu->threads), cpu->threads);
#pragma omp parallel for num_threads(cpu->threads) schedule(dynamic, 16) reduction(min : bad_row)
	for (int64_t i = 0; i < rows->count; i++) {
		int32_t *chosen = selection + i * topk;
		int64_t count = (int64_t)rows->pos[i] + 1;
		assert(rows->pos[i] >= 0 && rows->pos[i] <= rows->max_pos && rows->key0[i] + count <= k.rows);
		int64_t thread = omp_get_thread_num();
		int32_t *scores = s.scores + thread * s.room, least, most;
		const float *query = cpu_row(q, i), *weights = cpu_row(weight, i);
		if (!as_is) {
			float *taken = s.queries + thread * heads * dim, *scaled = s.weights + thread * heads;
			take_queries(taken, scaled, query, weights, heads, dim, precision);
			query = taken, weights = scaled;
		}
		score_row((float *)scores, count, s.transposed + rows->key0[i], s.stride, query, weights, heads, dim);
		for (int64_t n = 0; n < count && !as_is; n++)
			((float *)scores)[n] *= s.key_scales[rows->key0[i] + n];
		if (!order_scores(scores, count, &least, &most))
			bad_row = cpu_min(bad_row, i);
		if (count > topk) {
			select_row(chosen, topk, scores, count, least, most);
			continue;
		}
		for (int32_t n = 0; n < topk; n++)
			chosen[n] = n < count ? n : -1;
	}
	if (bad_row != INT64_MAX)
		cpu_fault_record(cpu, DSA_E_NUMERIC,
		                 "indexer: a score of query row %lld (position %d) is NaN, expected numbers",
		                 (long long)bad_row, rows->pos[bad_row]);
	return DSA_OK;
}
