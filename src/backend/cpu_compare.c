/* Exact comparison of candidates with the base over the whole vocabulary.
 *
 * With d = ln p - ln q of a token, KL = Σ p (e^-d - 1 + d): every term is ≥ 0, nothing cancels, and an error in either
 * normaliser enters only squared, because Σ p (1 - e^-d) = 0. So logits and exponentials are float, the sums double.
 *
 * A thread takes a few rows: their base logits and exponentials once, then one candidate after another. Three tiles of
 * (rows, V) are all that is kept of the logits. */
#include "cpu.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "lanes.h"

enum { MOST_ROWS = 256, LEAST_ROWS = 16, THREAD_BYTES = 16 << 20 };

struct compare_scratch {
	int64_t rows;            /* of a tile */
	int64_t width;           /* V in whole vectors; the lanes behind V hold the least float */
	float *base;             /* (rows, width) logits */
	float *base_exp;         /* (rows, width) e^(logit - max) */
	float *logits;           /* (rows, width) a candidate's */
	float *exp;              /* (width) e^(logit - max) of one of its rows */
	struct row_stats *stats; /* (rows) of the base */
};

struct row_stats {
	float max;
	int32_t arg_max; /* lowest */
	bool finite;
	double sum; /* Σ e^(logit - max) */
	double lse; /* ln Σ e^logit */
};

static size_t carve_scratch(struct compare_scratch *s, struct cpu_carve carve, int vocab)
{
	s->width = lanes_round(vocab);
	int64_t fits = THREAD_BYTES / (3 * (int64_t)sizeof(float) * s->width);
	s->rows = fits < LEAST_ROWS ? LEAST_ROWS : cpu_min(fits, MOST_ROWS);
	s->base = cpu_carve(&carve, s->rows * s->width, sizeof *s->base);
	s->base_exp = cpu_carve(&carve, s->rows * s->width, sizeof *s->base_exp);
	s->logits = cpu_carve(&carve, s->rows * s->width, sizeof *s->logits);
	s->exp = cpu_carve(&carve, s->width, sizeof *s->exp);
	s->stats = cpu_carve(&carve, s->rows, sizeof *s->stats);
	return carve.used;
}

size_t cpu_compare_bytes(int vocab, int threads)
{
	struct compare_scratch s;
	return carve_scratch(&s, (struct cpu_carve){0}, vocab) * (size_t)threads;
}

/* Maximum, its lowest place, and whether all are finite. */
static struct row_stats scan_row(const float *logits, int64_t width)
{
	struct lanes most = lanes_splat(-INFINITY);
	struct lanes_int place = {0}, bad = {0};
	for (int64_t v = 0; v < width; v += LANES)
		for (int p = 0; p < PARTS; p++) {
			wide x = wide_load(logits + v + p * WIDE);
			wide_int better = x > most.part[p];
			most.part[p] = wide_select(better, x, most.part[p]);
			place.part[p] = wide_select_int(better, wide_splat_int((int32_t)v), place.part[p]);
			bad.part[p] |= ((wide_int)x & 0x7f800000) == 0x7f800000;
		}
	struct row_stats stats = {.max = -INFINITY, .finite = lanes_sum_int(bad) == 0};
	for (int l = 0; l < LANES; l++) {
		float x = most.part[l / WIDE][l % WIDE];
		int32_t at = place.part[l / WIDE][l % WIDE] + l;
		if (l == 0 || x > stats.max || (x == stats.max && at < stats.arg_max))
			stats.max = x, stats.arg_max = at;
	}
	return stats;
}

/* exp = e^(logits - max), with its sum. */
static struct row_stats exponentiate(float *exp, const float *logits, int64_t width)
{
	struct row_stats stats = scan_row(logits, width);
	wide max = wide_splat(stats.max);
	struct lanes_double sum = {0};
	for (int64_t v = 0; v < width; v += LANES) {
		for (int p = 0; p < PARTS; p++)
			wide_store(exp + v + p * WIDE, wide_exp(wide_load(logits + v + p * WIDE) - max));
		lanes_add_double(&sum, exp + v);
	}
	stats.sum = lanes_sum_double(sum);
	stats.lse = (double)stats.max + log(stats.sum);
	return stats;
}

/* e^-d - 1 + d for |d| < 1, by its series to d^11 (remainder 2e-9). */
LANES_INLINE wide near_divergence(wide d)
{
	wide p = wide_splat(-1.0f / 39916800);
	p = p * d + wide_splat(1.0f / 3628800);
	p = p * d + wide_splat(-1.0f / 362880);
	p = p * d + wide_splat(1.0f / 40320);
	p = p * d + wide_splat(-1.0f / 5040);
	p = p * d + wide_splat(1.0f / 720);
	p = p * d + wide_splat(-1.0f / 120);
	p = p * d + wide_splat(1.0f / 24);
	p = p * d + wide_splat(-1.0f / 6);
	p = p * d + wide_splat(0.5f);
	return p * d * d;
}

/* Σ p (e^-d - 1 + d). For |d| ≥ 1 the term is q - p + p d as it stands: the sum of its parts is at most a few times it.
 */
static double divergence(const float *base, const float *base_exp, const struct row_stats *b, const float *logits,
                         const float *exp, const struct row_stats *c, int64_t width)
{
	wide shift = wide_splat((float)(b->lse - c->lse));
	wide p_scale = wide_splat((float)(1 / b->sum)), q_scale = wide_splat((float)(1 / c->sum));
	wide one = wide_splat(1.0f);
	struct lanes_double sum = {0};
	for (int64_t v = 0; v < width; v += LANES) {
		float terms[LANES];
		for (int i = 0; i < LANES; i += WIDE) {
			const int64_t at = v + i;
			wide d = (wide_load(base + at) - wide_load(logits + at)) - shift;
			wide p = wide_load(base_exp + at) * p_scale, q = wide_load(exp + at) * q_scale;
			wide_int near = (d < one) & (d > -one);
			wide far = (q - p) + p * d;
			wide_store(terms + i, wide_select(near, p * near_divergence(d), far));
		}
		lanes_add_double(&sum, terms);
	}
	return lanes_sum_double(sum);
}

/* tile (rows of x, width) = x · headᵀ */
static void head_tile(float *tile, int64_t width, struct dsa_tensor x, struct dsa_tensor head)
{
	int vocab = (int)head.rows;
	cpu_product(tile, width, x.data, x.stride, head.data, 1, head.stride, x.rows, vocab, x.cols, false);
	for (int64_t i = 0; i < x.rows; i++)
		for (int64_t v = vocab; v < width; v++)
			tile[i * width + v] = -FLT_MAX;
}

static struct dsa_row_figures compare_row(const struct compare_scratch *s, int64_t i, int32_t target)
{
	const float *base = s->base + i * s->width, *logits = s->logits + i * s->width;
	const struct row_stats *b = &s->stats[i];
	struct row_stats c = exponentiate(s->exp, logits, s->width);
	if (!b->finite || !c.finite)
		return (struct dsa_row_figures){.finite = 0};
	return (struct dsa_row_figures){
	    .kl = divergence(base, s->base_exp + i * s->width, b, logits, s->exp, &c, s->width),
	    .nll_base = b->lse - (double)base[target],
	    .nll = c.lse - (double)logits[target],
	    .top1 = b->arg_max == c.arg_max,
	    .finite = 1,
	};
}

enum dsa_status cpu_compare(struct dsa_backend *be, struct dsa_row_figures *figures, struct dsa_tensor base,
                            const struct dsa_tensor *candidates, int count, struct dsa_tensor head,
                            const int32_t *target, struct dsa_error *err)
{
	(void)err;
	struct dsa_cpu *cpu = cpu_of(be);
	int vocab = (int)head.rows, threads = cpu->threads;
	int64_t rows = base.rows;
	assert(base.dtype == DSA_F32 && head.dtype == DSA_F32 && base.cols == head.cols);
	for (int c = 0; c < count; c++)
		assert(candidates[c].dtype == DSA_F32 && candidates[c].rows == rows && candidates[c].cols == base.cols);
	struct cpu_carve carve = cpu_scratch(cpu, cpu_compare_bytes(vocab, threads));
	size_t own = cpu_compare_bytes(vocab, 1);
	struct compare_scratch any;
	carve_scratch(&any, carve, vocab);
	int64_t tile = cpu_min(any.rows, (rows + threads - 1) / threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
	for (int64_t first = 0; first < rows; first += tile) {
		struct compare_scratch s;
		carve_scratch(&s, (struct cpu_carve){.base = carve.base + own * (size_t)omp_get_thread_num()}, vocab);
		int64_t n = cpu_min(tile, rows - first);
		head_tile(s.base, s.width, dsa_tensor_rows(base, first, n), head);
		for (int64_t i = 0; i < n; i++)
			s.stats[i] = exponentiate(s.base_exp + i * s.width, s.base + i * s.width, s.width);
		for (int c = 0; c < count; c++) {
			head_tile(s.logits, s.width, dsa_tensor_rows(candidates[c], first, n), head);
			for (int64_t i = 0; i < n; i++) {
				assert(target[first + i] >= 0 && target[first + i] < vocab);
				figures[c * rows + first + i] = compare_row(&s, i, target[first + i]);
			}
		}
	}
	return DSA_OK;
}
