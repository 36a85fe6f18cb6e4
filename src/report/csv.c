#include "dsa/csv.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void dsa_csv_field(struct dsa_text *text, const char *string)
{
	struct dsa_text clean = {0};
	dsa_text_utf8(&clean, string ? string : "");
	const char *from = clean.bytes ? clean.data : "";
	bool formula = *from && strchr("=+-@\t\r", *from);
	bool quoted = strpbrk(from, ",\"\r\n") || *from == ' ' || (*from && from[strlen(from) - 1] == ' ');
	if (quoted)
		dsa_text_add(text, "\"");
	if (formula)
		dsa_text_add(text, "'");
	for (; *from; from++) {
		if (*from == '"')
			dsa_text_add(text, "\"");
		dsa_text_bytes(text, from, 1);
	}
	if (quoted)
		dsa_text_add(text, "\"");
	text->failed |= clean.failed;
	dsa_text_release(&clean);
}

void dsa_csv_real(struct dsa_text *text, double value)
{
	dsa_text_add(text, ",");
	if (isfinite(value))
		dsa_text_real(text, value);
}

void dsa_trace_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	dsa_text_add(text, "step,layer,committed,objective,kl,kl_se,nll,documents,bound\r\n");
	for (int s = 0; s < results->trace.count; s++) {
		const struct dsa_step *step = &results->trace.steps[s];
		for (int i = 0; i < step->candidate_count; i++) {
			const struct dsa_candidate *candidate = &step->candidates[i];
			dsa_text_printf(text, "%d,%d,%d", step->step, candidate->layer, candidate->layer == step->flip);
			dsa_csv_real(text, candidate->objective);
			dsa_csv_real(text, candidate->kl);
			dsa_csv_real(text, candidate->kl_se);
			dsa_csv_real(text, candidate->nll);
			dsa_text_printf(text, ",%d", candidate->documents);
			dsa_csv_real(text, candidate->bound);
			dsa_text_add(text, "\r\n");
		}
	}
}

static void overlap_rows(struct dsa_text *text, const struct dsa_results *results, int corpus, int position,
                         int64_t queries)
{
	const struct dsa_overlap *overlap = &results->overlap;
	for (int i = 0; i < overlap->layers; i++) {
		for (int j = i; j < overlap->layers; j++) {
			struct dsa_interval interval = dsa_overlap_interval(overlap, corpus, position, i, j);
			dsa_csv_field(text, results->corpora[corpus].name);
			if (position < 0)
				dsa_text_printf(text, ",%d,,", overlap->topk);
			else
				dsa_text_printf(text, ",%" PRId64 ",%" PRId64 ",", (int64_t)overlap->topk << position,
				                (int64_t)overlap->topk << (position + 1));
			dsa_text_printf(text, "%" PRId64 ",%d,%d", queries, i, j);
			dsa_csv_real(text, dsa_overlap_at(overlap, corpus, position, i, j));
			dsa_csv_real(text, dsa_overlap_se(overlap, corpus, position, i, j));
			dsa_text_printf(text, ",%d", dsa_overlap_documents(overlap, corpus, position));
			dsa_csv_real(text, interval.low);
			dsa_csv_real(text, interval.high);
			dsa_text_add(text, "\r\n");
		}
	}
}

void dsa_overlap_csv_write(struct dsa_text *text, const struct dsa_results *results)
{
	const struct dsa_overlap *overlap = &results->overlap;
	dsa_text_add(text, "corpus,from,to,queries,i,j,overlap,se,documents,low,high\r\n");
	for (int c = 0; c < overlap->corpora; c++) {
		overlap_rows(text, results, c, -1, dsa_overlap_queries(overlap, c, -1));
		for (int p = 0; p < DSA_POSITION_BUCKETS; p++)
			if (dsa_overlap_queries(overlap, c, p))
				overlap_rows(text, results, c, p, dsa_overlap_queries(overlap, c, p));
	}
}
