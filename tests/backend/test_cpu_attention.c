#include "backend/cpu_fixture.h"

struct problem {
	struct dsa_rows rows;
	struct dsa_tensor q, keys;
	int32_t *selection;
	int topk, heads, latent, rope;
	float scale;
};

/* Random ascending selections of min(K, t + 1) positions. */
static struct problem problem_make(struct fixture *f, const int *lengths, int documents, int from, const int *shape)
{
	int64_t keys;
	struct problem p = {.heads = shape[0], .latent = shape[1], .rope = shape[2], .topk = shape[3], .scale = 0.3f};
	p.rows = fixture_rows(f, lengths, documents, from, &keys);
	p.q = fixture_tensor(f, p.rows.count, p.heads * (p.latent + p.rope), 1);
	p.keys = fixture_tensor(f, keys, p.latent + p.rope, 1);
	p.selection = fixture_keep(f, (size_t)p.rows.count * (size_t)p.topk * sizeof *p.selection);
	for (int64_t i = 0; i < p.rows.count; i++) {
		int32_t *row = p.selection + i * p.topk;
		int left = p.rows.pos[i] + 1, wanted = left < p.topk ? left : p.topk, n = 0;
		for (int s = 0; n < wanted; s++, left--)
			if (fixture_below(f, left) < wanted - n)
				row[n++] = s;
		while (n < p.topk)
			row[n++] = -1;
	}
	return p;
}

static void run_attention(struct fixture *f, void *context, int64_t first, int64_t count, void *out)
{
	const struct problem *p = context;
	struct dsa_rows rows = fixture_some_rows(&p->rows, first, count);
	fixture_ok(f,
	           f->be->ops->attention(f->be, dsa_tensor_make(out, DSA_F32, count, p->heads * p->latent),
	                                 dsa_tensor_rows(p->q, first, count), p->keys, p->selection + first * p->topk,
	                                 p->topk, p->heads, p->latent, p->rope, p->scale, &rows, NULL));
}

/* within: as a multiple of 1 + the largest Σ |q·key|, whose rounding the softmax passes on. */
static void check_head(const struct problem *p, int64_t row, int head, const float *out, double within)
{
	const float *q = fixture_row(p->q, row) + head * (p->latent + p->rope);
	const int32_t *selection = p->selection + row * p->topk;
	double logit[512], max = -INFINITY, sum = 0, largest = 0;
	int count = 0;
	for (; count < p->topk && selection[count] >= 0; count++) {
		const float *key = fixture_row(p->keys, p->rows.key0[row] + selection[count]);
		double magnitude = 0;
		logit[count] = 0;
		for (int j = 0; j < p->latent + p->rope; j++) {
			double term = (double)q[j] * (double)key[j] * (double)p->scale;
			logit[count] += term;
			magnitude += fabs(term);
		}
		largest = fmax(largest, magnitude);
		max = fmax(max, logit[count]);
	}
	for (int n = 0; n < count; n++)
		sum += logit[n] = exp(logit[n] - max);
	for (int j = 0; j < p->latent; j++) {
		double value = 0;
		for (int n = 0; n < count; n++)
			value += logit[n] / sum * (double)fixture_at(p->keys, p->rows.key0[row] + selection[n], j);
		fixture_close_to((double)out[j], value, 1 + largest, within);
	}
}

static void check(struct fixture *f, struct problem *p, double within)
{
	struct dsa_tensor out = fixture_poison(f, p->rows.count, p->heads * p->latent);
	run_attention(f, p, 0, p->rows.count, out.data);
	for (int64_t i = 0; i < p->rows.count; i++)
		for (int a = 0; a < p->heads; a++)
			check_head(p, i, a, fixture_row(out, i) + a * p->latent, within);
}

static const int shapes[][4] = {/* H, c, r, K */ {1, 1, 2, 1},
                                {5, 14, 6, 7},
                                {8, 64, 16, 64},
                                {9, 33, 16, 65},
                                {16, 512, 64, 100},
                                {3, 16, 16, 16},
                                {8, 48, 2, 300}};

static void attention_equals_double_precision(void **state)
{
	(void)state;
	const int lengths[] = {1, 130, 8, 40};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct fixture f = fixture_open(1 + (int)i % 3);
		struct problem p = problem_make(&f, lengths, 4, i % 2 ? 6 : 0, shapes[i]);
		check(&f, &p, 2e-7);
		fixture_close(&f);
	}
}

static void large_logits_do_not_overflow(void **state)
{
	(void)state;
	const int lengths[] = {90};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, lengths, 1, 0, shapes[2]);
	p.scale = 1000; /* logits of some thousands: float keeps them to 1e-3, so nearly one-hot rows */
	for (int64_t i = 0; i < p.q.rows * p.q.cols; i++)
		((float *)p.q.data)[i] = rintf(((float *)p.q.data)[i] * 4); /* exact products */
	for (int64_t i = 0; i < p.keys.rows * p.keys.cols; i++)
		((float *)p.keys.data)[i] = rintf(((float *)p.keys.data)[i] * 4);
	check(&f, &p, 1e-7);
	fixture_close(&f);
}

static void keys_that_are_not_selected_do_not_matter(void **state)
{
	(void)state;
	const int lengths[] = {100};
	struct fixture f = fixture_open(2);
	struct problem p = problem_make(&f, lengths, 1, 99, shapes[1]);
	float before[5 * 14], after[5 * 14];
	run_attention(&f, &p, 0, 1, before);
	for (int s = 0, n = 0; s < 100; s++) {
		if (n < 7 && p.selection[n] == s)
			n++;
		else
			for (int j = 0; j < 20; j++)
				fixture_row(p.keys, s)[j] = NAN;
	}
	run_attention(&f, &p, 0, 1, after);
	assert_memory_equal(before, after, sizeof before);
	fixture_close(&f);
}

static void an_output_does_not_depend_on_other_rows(void **state)
{
	(void)state;
	const int lengths[] = {500, 3, 421, 100};
	for (int i = 1; i <= 2; i++) {
		struct fixture f = fixture_open(1);
		struct problem p = problem_make(&f, lengths, 4, 0, shapes[i]);
		fixture_rows_are_independent(run_attention, &p, 1024,
		                             (size_t)(shapes[i][0] * shapes[i][1]) * sizeof(float), 5);
		fixture_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(attention_equals_double_precision),
	    cmocka_unit_test(large_logits_do_not_overflow),
	    cmocka_unit_test(keys_that_are_not_selected_do_not_matter),
	    cmocka_unit_test(an_output_does_not_depend_on_other_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
