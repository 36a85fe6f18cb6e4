#include "dsa/pattern_diff.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dsa/json_writer.h"
#include "dsa/judgement.h"
#include "dsa/pattern.h"
#include "dsa/verify_text.h"

enum { FIGURES = 4, SIDES = 2, COLUMN = 26 };

static bool differ(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") != 0;
}

static int fewest_layers(const struct dsa_pattern_diff *diff)
{
	int a = diff->side[0]->layers, b = diff->side[1]->layers;
	return a < b ? a : b;
}

static const struct dsa_result_corpus *find(const struct dsa_results *side, const char *name)
{
	for (int c = 0; c < side->corpus_count; c++)
		if (!strcmp(side->corpora[c].name, name))
			return &side->corpora[c];
	return NULL;
}

/* The left side's corpora, then those that only the right one has; NULL behind the last. */
static const char *corpus_name(const struct dsa_pattern_diff *diff, int at)
{
	if (at < diff->side[0]->corpus_count)
		return diff->side[0]->corpora[at].name;
	at -= diff->side[0]->corpus_count;
	for (int c = 0; c < diff->side[1]->corpus_count; c++)
		if (!find(diff->side[0], diff->side[1]->corpora[c].name) && at-- == 0)
			return diff->side[1]->corpora[c].name;
	return NULL;
}

/* Of a corpus, or of all of them (name NULL); NULL: that side has none. */
static const struct dsa_quality *quality_of(const struct dsa_results *side, const char *name, int split)
{
	const struct dsa_result_corpus *corpus = name ? find(side, name) : NULL;
	const struct dsa_quality *quality = split ? &side->heldout : &side->quality;
	if (corpus)
		quality = split ? &corpus->heldout : &corpus->calibration;
	return (name && !corpus) || !quality->documents ? NULL : quality;
}

static void add_layers(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	int changed = 0;
	for (int l = 0; l < fewest_layers(diff); l++) {
		const char from = diff->side[0]->pattern[l], to = diff->side[1]->pattern[l];
		if (from == to)
			continue;
		dsa_text_printf(text, changed++ ? ", %d %c>%c" : "layers        %d %c>%c", l, from, to);
	}
	dsa_text_add(text, changed ? "\n" : "layers        the same\n");
	if (diff->side[0]->layers != diff->side[1]->layers)
		dsa_text_printf(text, "              %d layers > %d layers\n", diff->side[0]->layers,
		                diff->side[1]->layers);
	dsa_text_printf(text, "kept          %d of %d > %d of %d\n",
	                diff->side[0]->layers - dsa_pattern_shared(diff->side[0]->pattern), diff->side[0]->layers,
	                diff->side[1]->layers - dsa_pattern_shared(diff->side[1]->pattern), diff->side[1]->layers);
}

static void add_model(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	const struct dsa_results *a = diff->side[0], *b = diff->side[1];
	if (!differ(a->fingerprint, b->fingerprint) && a->topk == b->topk)
		return;
	dsa_text_add(text, "model         ");
	dsa_verify_text_name(text, a->model_name ? a->model_name : "not said");
	dsa_text_printf(text, " %.12s, K %d > ", a->fingerprint ? a->fingerprint : "?", a->topk);
	dsa_verify_text_name(text, b->model_name ? b->model_name : "not said");
	dsa_text_printf(text, " %.12s, K %d\n", b->fingerprint ? b->fingerprint : "?", b->topk);
}

static const char *precision_of(const struct dsa_pattern_diff *diff, int s)
{
	return dsa_index_precision_name(diff->side[s]->index_precision);
}

static void add_precision(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	if (differ(precision_of(diff, 0), precision_of(diff, 1)))
		dsa_text_printf(text, "indexer       %s > %s\n", precision_of(diff, 0), precision_of(diff, 1));
}

static void add_documents(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	const char *name;
	for (int i = 0; (name = corpus_name(diff, i)); i++) {
		const struct dsa_result_corpus *a = find(diff->side[0], name), *b = find(diff->side[1], name);
		if (a && b && !strcmp(a->digest, b->digest) && a->scored == b->scored)
			continue;
		dsa_text_add(text, "documents     ");
		dsa_verify_text_name(text, name);
		dsa_text_add(text, !a ? ": only right\n" : !b ? ": only left\n" : ": other documents\n");
	}
}

/* A figure with its error, padded to a column. */
static void add_cell(struct dsa_text *text, const struct dsa_quality *quality, enum dsa_figure figure)
{
	const size_t from = text->bytes;
	if (!quality) {
		dsa_text_add(text, "-");
	} else if (figure == DSA_FIGURE_TOP1) {
		dsa_text_printf(text, "%.3f%%", 100 * quality->top1);
	} else {
		dsa_text_figure(text, dsa_figure_of(quality, figure));
		if (!isnan(dsa_figure_se(quality, figure))) {
			dsa_text_add(text, " +- ");
			dsa_text_error(text, dsa_figure_se(quality, figure));
		}
	}
	for (size_t used = text->bytes - from; used < COLUMN; used++)
		dsa_text_add(text, " ");
}

static void add_figures(struct dsa_text *text, const struct dsa_pattern_diff *diff, const char *name)
{
	for (int split = 0; split < DSA_SPLITS; split++) {
		const struct dsa_quality *a = quality_of(diff->side[0], name, split);
		const struct dsa_quality *b = quality_of(diff->side[1], name, split);
		if (!a && !b)
			continue;
		dsa_verify_text_name(text, name ? name : "all corpora");
		dsa_text_printf(text, ", %s\n", split ? "held out" : "calibration");
		for (int f = 0; f < FIGURES; f++) {
			dsa_text_printf(text, "  %-18s", dsa_figure_words((enum dsa_figure)f));
			add_cell(text, a, (enum dsa_figure)f);
			add_cell(text, b, (enum dsa_figure)f);
			while (text->bytes && text->data[text->bytes - 1] == ' ')
				text->bytes--;
			dsa_text_add(text, "\n");
		}
	}
}

void dsa_pattern_diff_write(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	const char *name;
	for (int s = 0; s < SIDES; s++) {
		dsa_text_printf(text, "%-13s %s  ", s ? "right" : "left", diff->side[s]->pattern);
		dsa_verify_text_name(text, diff->file[s]);
		dsa_text_add(text, "\n");
	}
	add_layers(text, diff);
	add_model(text, diff);
	add_precision(text, diff);
	add_documents(text, diff);
	add_figures(text, diff, NULL);
	for (int i = 0; (name = corpus_name(diff, i)); i++)
		add_figures(text, diff, name);
}

static void put_quality(struct dsa_json_writer *writer, const char *key, const struct dsa_quality *quality)
{
	if (!quality) {
		dsa_json_put_null(writer, key);
		return;
	}
	dsa_json_object(writer, key);
	for (int f = 0; f < FIGURES; f++) {
		char name[32];
		dsa_json_put_real(writer, dsa_figure_name((enum dsa_figure)f),
		                  dsa_figure_of(quality, (enum dsa_figure)f));
		if (f == DSA_FIGURE_TOP1 || f == DSA_FIGURE_KL_P99)
			continue;
		snprintf(name, sizeof name, "%s_se", dsa_figure_name((enum dsa_figure)f));
		dsa_json_put_real(writer, name, dsa_figure_se(quality, (enum dsa_figure)f));
	}
	dsa_json_put_int(writer, "documents", quality->documents);
	dsa_json_put_int(writer, "scored_tokens", quality->tokens);
	dsa_json_end(writer);
}

static void put_sides(struct dsa_json_writer *writer, const struct dsa_pattern_diff *diff, const char *name)
{
	static const char *const splits[] = {"calibration", "heldout"};
	dsa_json_object(writer, NULL);
	dsa_json_put_text(writer, "corpus", name);
	for (int split = 0; split < DSA_SPLITS; split++) {
		dsa_json_object(writer, splits[split]);
		put_quality(writer, "a", quality_of(diff->side[0], name, split));
		put_quality(writer, "b", quality_of(diff->side[1], name, split));
		dsa_json_end(writer);
	}
	if (name) {
		const struct dsa_result_corpus *a = find(diff->side[0], name), *b = find(diff->side[1], name);
		dsa_json_put_text(writer, "sha256_a", a ? a->digest : NULL);
		dsa_json_put_text(writer, "sha256_b", b ? b->digest : NULL);
	}
	dsa_json_end(writer);
}

static void put_side(struct dsa_json_writer *writer, const char *key, const struct dsa_pattern_diff *diff, int s)
{
	const struct dsa_results *side = diff->side[s];
	dsa_json_object(writer, key);
	dsa_json_put_text(writer, "file", diff->file[s]);
	dsa_json_put_text(writer, "pattern", side->pattern);
	dsa_json_put_int(writer, "layers", side->layers);
	dsa_json_put_int(writer, "shared", dsa_pattern_shared(side->pattern));
	dsa_json_put_int(writer, "index_topk", side->topk);
	dsa_json_put_text(writer, "model", side->model_name);
	dsa_json_put_text(writer, "fingerprint", side->fingerprint);
	dsa_json_put_text(writer, "indexer_precision", precision_of(diff, s));
	dsa_json_put_real(writer, "noise_floor", side->noise_floor);
	dsa_json_end(writer);
}

void dsa_pattern_diff_json_write(struct dsa_text *text, const struct dsa_pattern_diff *diff)
{
	struct dsa_json_writer writer;
	const char *name;
	dsa_json_writer_init(&writer, text, 2);
	dsa_json_object(&writer, NULL);
	dsa_json_put_int(&writer, "schema", DSA_DIFF_SCHEMA);
	put_side(&writer, "a", diff, 0);
	put_side(&writer, "b", diff, 1);
	dsa_json_array(&writer, "layers");
	for (int l = 0; l < fewest_layers(diff); l++) {
		const char from[] = {diff->side[0]->pattern[l], 0}, to[] = {diff->side[1]->pattern[l], 0};
		if (*from == *to)
			continue;
		dsa_json_object(&writer, NULL);
		dsa_json_put_int(&writer, "layer", l);
		dsa_json_put_text(&writer, "from", from);
		dsa_json_put_text(&writer, "to", to);
		dsa_json_end(&writer);
	}
	dsa_json_end(&writer);
	dsa_json_array(&writer, "figures");
	put_sides(&writer, diff, NULL);
	for (int i = 0; (name = corpus_name(diff, i)); i++)
		put_sides(&writer, diff, name);
	dsa_json_end(&writer);
	dsa_json_end(&writer);
}
