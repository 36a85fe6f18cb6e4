/* race_coverage: how well racing keeps its promise on the recorded per-document figures of a real run.
 *
 *   make build/release/tests/calib/race_coverage
 *   build/dsacal calibrate … --search exact --full-trace --out RUN
 *   build/release/tests/calib/race_coverage RUN [orders] [documents per batch]
 *
 * Every step of RUN is raced again from its base pattern, over many random orders of the same documents: what is
 * counted is how often the flip is not within epsilon of the best by all documents, how often a candidate left that was
 * better than the flip at all, and what share of the candidate-documents was asked. No model is needed: the journal
 * knows every figure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/file.h"
#include "dsa/journal.h"
#include "dsa/model_evaluator.h"
#include "dsa/results_json.h"
#include "dsa/search.h"

/* In [0, 1), by splitmix64 of both. */
static double uniform(uint64_t seed, uint64_t at)
{
	uint64_t x = (seed << 32 | at) * 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

struct known {
	const char *pattern;
	struct dsa_doc_stats *documents; /* (documents); tokens 0: not of this split */
	struct known *next;
};

struct recorded {
	struct dsa_evaluator evaluator; /* first: what the search gets */
	struct dsa_evaluator *journal;
	struct dsa_evaluator_shape file, cut; /* as in the journal; documents shuffled and cut again */
	struct dsa_evaluator_batch *batches;
	int *order;
	struct known *known;
	struct dsa_arena arena;
};

static void must(enum dsa_status status, const struct dsa_error *err)
{
	if (!status)
		return;
	fprintf(stderr, "race_coverage: %s\n", err->text);
	exit(3);
}

static enum dsa_status remember(void *context, int index, const struct dsa_doc_stats *stats, int count,
                                int64_t executed, struct dsa_error *err)
{
	struct known *known = context;
	(void)index, (void)executed, (void)err;
	for (int i = 0; i < count; i++) {
		struct dsa_doc_stats *kept = &known->documents[stats[i].document];
		*kept = stats[i];
		kept->bins = NULL; /* a race needs the sums alone */
		kept->bin_count = 0;
	}
	return DSA_OK;
}

static const struct known *look_up(struct recorded *r, const char *pattern, struct dsa_error *err)
{
	for (struct known *k = r->known; k; k = k->next)
		if (!strcmp(k->pattern, pattern))
			return k;
	struct known *k = dsa_arena_alloc(&r->arena, 1, sizeof *k, "figures", err);
	if (!k || !(k->pattern = dsa_arena_text(&r->arena, pattern, strlen(pattern), err)) ||
	    !(k->documents =
	          dsa_arena_alloc(&r->arena, (size_t)r->file.documents, sizeof *k->documents, "figures", err)))
		return NULL;
	for (int b = 0; b < r->file.batches; b++) {
		const struct dsa_ask ask = {.base = pattern, .patterns = &k->pattern, .count = 1, .batch = b};
		const struct dsa_sink sink = {.pattern = remember, .context = k};
		if (r->file.batch[b].split == DSA_CALIBRATION && r->journal->evaluate(r->journal, &ask, &sink, err))
			return NULL;
	}
	k->next = r->known;
	return r->known = k;
}

static enum dsa_status answer(struct dsa_evaluator *self, const struct dsa_ask *ask, const struct dsa_sink *sink,
                              struct dsa_error *err)
{
	struct recorded *r = (struct recorded *)self;
	const struct dsa_evaluator_batch *batch = &r->cut.batch[ask->batch];
	struct dsa_doc_stats *stats = dsa_alloc((size_t)batch->count, sizeof *stats, "figures", err);
	enum dsa_status status = stats ? DSA_OK : DSA_E_MEMORY;
	for (int i = 0; i < ask->count && !status; i++) {
		const struct known *known = look_up(r, ask->patterns[i], err);
		for (int d = 0; known && d < batch->count; d++)
			stats[d] = known->documents[batch->documents[d]];
		status = known ? sink->pattern(sink->context, i, stats, batch->count, 0, err) : DSA_E_MISSING;
	}
	free(stats);
	return status;
}

/* Calibration documents of each corpus in another order, `each` a batch; known: of any pattern, for their tokens. */
static void shuffle(struct recorded *r, const struct known *known, uint64_t seed, int each)
{
	int n = 0;
	r->cut.batches = 0;
	for (int c = 0; c < r->file.corpora; c++) {
		const int first = n;
		for (int b = 0; b < r->file.batches; b++)
			for (int d = 0; d < r->file.batch[b].count; d++)
				if (r->file.batch[b].corpus == c && r->file.batch[b].split == DSA_CALIBRATION)
					r->order[n++] = r->file.batch[b].documents[d];
		for (int i = n - 1; i > first; i--) {
			const int j = first + (int)(uniform(seed, (uint64_t)i) * (i - first + 1));
			const int swap = r->order[i];
			r->order[i] = r->order[j];
			r->order[j] = swap;
		}
		for (int i = first; i < n; i += each) {
			struct dsa_evaluator_batch *batch = &r->batches[r->cut.batches++];
			*batch = (struct dsa_evaluator_batch){.corpus = c,
			                                      .split = DSA_CALIBRATION,
			                                      .documents = r->order + i,
			                                      .count = n - i < each ? n - i : each};
			for (int d = 0; d < batch->count; d++)
				batch->scored += dsa_doc_stats_total(&known->documents[batch->documents[d]]).tokens;
		}
	}
}

static void open_recorded(struct recorded *r, const char *run, struct dsa_results *results, struct dsa_error *err)
{
	struct dsa_spool *spool;
	struct dsa_journal *journal;
	char *path;
	dsa_arena_init(&r->arena);
	must(dsa_file_join(&r->arena, run, "results.json", &path, err), err);
	must(dsa_results_json_load(results, path, &r->arena, err), err);
	must(dsa_file_join(&r->arena, run, "tokens", &path, err), err);
	must(dsa_spool_open(&spool, path, err), err);
	must(dsa_file_join(&r->arena, run, "journal", &path, err), err);
	must(dsa_journal_open(&journal, path, NULL, 0, NULL, err), err);
	must(
	    dsa_evaluator_shape_of(&r->file, spool, results->layers, results->topk, results->reference, &r->arena, err),
	    err);
	must(dsa_journal_evaluator(&r->journal, journal, NULL, &r->file, err), err);
	r->cut = r->file;
	r->cut.intervals = false;
	r->evaluator = (struct dsa_evaluator){.shape = &r->cut, .evaluate = answer};
	const size_t documents = (size_t)r->file.documents;
	r->batches = dsa_arena_alloc(&r->arena, documents, sizeof *r->batches, "batches", err);
	r->order = dsa_arena_alloc(&r->arena, documents, sizeof *r->order, "documents", err);
	must(r->batches && r->order ? DSA_OK : DSA_E_MEMORY, err);
	r->cut.batch = r->batches;
}

struct tally {
	int races, outside, dropped_better;
	double asked, all, regret;
};

/* One step from `base`, judged by the run's own exact figures of its candidates. */
static void race(struct recorded *r, struct tally *tally, const char *base, const struct dsa_step *exact, double delta,
                 double epsilon)
{
	struct dsa_search_options once = {
	    .budget = {.kl = NAN, .nll = NAN, .kl_p99 = NAN, .top1 = NAN, .max_shared = 1},
	    .savings = true,
	    .racing = true,
	    .delta = delta,
	    .epsilon = epsilon};
	struct dsa_arena scratch;
	struct dsa_trace trace;
	struct dsa_work work;
	struct dsa_error err = {""};
	bool complete;
	double best = HUGE_VAL;
	for (const char *c = base; *c; c++)
		once.budget.max_shared += *c == 'S';
	r->cut.reference = base;
	dsa_arena_init(&scratch);
	must(dsa_work_init(&work, &r->cut, &scratch, &err), &err);
	must(dsa_search_greedy(&trace, &r->evaluator, &once, &work, NULL, &scratch, &complete, &err), &err);
	double *of = dsa_arena_alloc(&scratch, (size_t)r->cut.layers, sizeof *of, "figures", &err);
	must(of ? DSA_OK : DSA_E_MEMORY, &err);
	if (!complete || trace.count != 1)
		must(DSA_E_INPUT, &err);
	for (int c = 0; c < exact->candidate_count; c++) {
		of[exact->candidates[c].layer] = exact->candidates[c].kl;
		best = fmin(best, exact->candidates[c].kl);
	}
	const struct dsa_step *step = &trace.steps[0];
	for (int c = 0; c < step->candidate_count; c++) {
		tally->asked += step->candidates[c].documents;
		tally->all += step->calibration.documents;
		tally->dropped_better += of[step->candidates[c].layer] < of[step->flip];
	}
	tally->races++;
	tally->outside += of[step->flip] > best + epsilon;
	tally->regret = fmax(tally->regret, of[step->flip] - best);
	dsa_arena_release(&scratch);
}

int main(int argc, char **argv)
{
	struct recorded r = {.known = NULL};
	struct dsa_results results = {0};
	struct dsa_error err = {""};
	const int orders = argc > 2 ? atoi(argv[2]) : 100, each = argc > 3 ? atoi(argv[3]) : 8;
	if (argc < 2 || orders < 1 || each < 1) {
		fprintf(stderr, "usage: race_coverage RUN [orders] [documents per batch]\n");
		return 2;
	}
	open_recorded(&r, argv[1], &results, &err);
	const struct known *reference = look_up(&r, results.reference, &err);
	must(reference ? DSA_OK : DSA_E_MISSING, &err);
	if (strcmp(results.search, "exact") != 0) {
		fprintf(stderr, "race_coverage: %s was a %s search, expected exact: it knows every figure\n", argv[1],
		        results.search);
		return 2;
	}
	const int n = results.trace.count ? results.trace.steps[0].candidate_count : 0;
	const double delta = 0.01, epsilon = 0.02 * results.budget.kl;
	struct tally all = {0};
	printf("step  candidates  best KL   not within epsilon  left though better  largest regret  asked\n");
	for (int s = 0; s < results.trace.count; s++) {
		const struct dsa_step *step = &results.trace.steps[s];
		const int m = step->candidate_count;
		struct tally one = {0};
		if (m < 2)
			continue;
		for (int o = 0; o < orders; o++) {
			shuffle(&r, reference, (uint64_t)o + 1, each);
			race(&r, &one, s ? results.trace.steps[s - 1].pattern : results.reference, step,
			     delta * (m * (m - 1)) / (n * (n - 1)), epsilon);
		}
		printf("%4d %11d %9.3g %12d of %d %19d %15.2g %6.3f\n", s + 1, m, step->calibration.kl, one.outside,
		       one.races, one.dropped_better, one.regret, one.asked / one.all);
		all.races += one.races;
		all.outside += one.outside;
		all.dropped_better += one.dropped_better;
		all.regret = fmax(all.regret, one.regret);
		all.asked += one.asked;
		all.all += one.all;
	}
	printf("all %22s %12d of %d %19d %15.2g %6.3f   (%d documents, %d a batch, epsilon %.3g, delta %g a run)\n", "",
	       all.outside, all.races, all.dropped_better, all.regret, all.all > 0 ? all.asked / all.all : 0,
	       results.trace.count ? results.trace.steps[0].calibration.documents : 0, each, epsilon, delta);
	dsa_arena_release(&r.arena);
	return 0;
}
