#include "dsa/verify_text.h"

#include <math.h>
#include <string.h>

static bool harmless(uint32_t point)
{
	const bool control = point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029;
	/* Marks, embeddings, overrides and isolates of direction. */
	const bool direction = point == 0x61c || point == 0x200e || point == 0x200f ||
	                       (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
	return !control && !direction;
}

void dsa_verify_text_name(struct dsa_text *text, const char *name)
{
	while (name && *name) {
		const char *from = name;
		char whole[8] = "";
		const bool good = harmless(dsa_utf8_next(&name));
		memcpy(whole, from, (size_t)(name - from));
		dsa_text_utf8(text, good ? whole : "\xef\xbf\xbd");
	}
}

static const char *split_name(int split)
{
	return split == DSA_HELDOUT ? "held out" : "calibration";
}

void dsa_verify_text_place(struct dsa_text *text, const struct dsa_verify_report *report, const struct dsa_check *check)
{
	if (check->figure == DSA_FIGURE_SHARED) {
		dsa_text_add(text, "the pattern");
		return;
	}
	if (check->corpus == DSA_ALL_CORPORA)
		dsa_text_add(text, "all corpora");
	else
		dsa_verify_text_name(text, report->now->corpora[check->corpus].name);
	dsa_text_printf(text, ", %s", split_name(check->split));
}

static void add_figure(struct dsa_text *text, enum dsa_figure figure, double value)
{
	if (figure == DSA_FIGURE_TOP1 && !isnan(value))
		dsa_text_printf(text, "%.3f%%", 100 * value);
	else if (figure == DSA_FIGURE_SHARED)
		dsa_text_printf(text, "%.0f", value);
	else
		dsa_text_figure(text, value);
}

static void add_error(struct dsa_text *text, enum dsa_figure figure, double se)
{
	if (isnan(se))
		return;
	dsa_text_add(text, " +- ");
	add_figure(text, figure, se);
}

void dsa_verify_text_check(struct dsa_text *text, const struct dsa_check *check)
{
	const enum dsa_figure figure = check->figure;
	dsa_text_printf(text, "%s ", dsa_figure_words(figure));
	add_figure(text, figure, check->found);
	if (check->bound) {
		dsa_text_add(text, figure == DSA_FIGURE_TOP1 ? ", at least " : ", at most ");
		add_figure(text, figure, check->against);
		dsa_text_printf(text, " (%s)", dsa_figure_bound_name(figure));
	} else {
		dsa_text_add(text, ", recorded ");
		add_figure(text, figure, check->against);
		add_error(text, figure, check->against_se);
	}
	if (check->outcome == DSA_OUTCOME_UNJUDGED) {
		dsa_text_printf(text, "; %s", check->reason);
	} else if (!check->bound || check->allowed > 0) {
		dsa_text_add(text, check->bound ? ", rounding " : ", tolerance ");
		add_figure(text, figure, check->allowed);
	}
}

static void add_documents(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_verification *verification = report->verification;
	dsa_text_printf(text, "%d of %d documents", verification->documents, verification->all);
	if (verification->early)
		dsa_text_printf(text, ", decided early with %.0f%% confidence", 100 * verification->confidence);
}

/* The check that is furthest out, in tolerances; a broken bound before a missed figure. */
static const struct dsa_check *worst(const struct dsa_judgement *judgement)
{
	const struct dsa_check *found = NULL;
	for (int i = 0; i < judgement->count; i++) {
		const struct dsa_check *check = &judgement->checks[i];
		if (check->outcome == DSA_OUTCOME_WORSE && (!found || (check->bound && !found->bound)))
			found = check;
	}
	return found;
}

void dsa_verify_text_headline(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	const struct dsa_check *check = worst(judgement);
	if (!check) {
		dsa_text_printf(text, "the pattern holds: %d checks, ", judgement->judged);
		add_documents(text, report);
		return;
	}
	dsa_text_add(text, "the pattern got worse: ");
	dsa_verify_text_place(text, report, check);
	dsa_text_add(text, ": ");
	dsa_verify_text_check(text, check);
	if (judgement->worse > 1)
		dsa_text_printf(text, "; and %d more checks", judgement->worse - 1);
}

static bool moved(const struct dsa_judgement *judgement, int corpus, enum dsa_outcome outcome)
{
	for (int i = 0; i < judgement->count; i++)
		if (judgement->checks[i].corpus == corpus && judgement->checks[i].outcome == outcome)
			return true;
	return false;
}

static void add_moved(struct dsa_text *text, const struct dsa_verify_report *report, enum dsa_outcome outcome,
                      const char *label)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	int listed = 0;
	for (int c = 0; c < report->now->corpus_count; c++) {
		/* A single corpus is judged as all of them. */
		const int as = report->now->corpus_count == 1 && !moved(judgement, c, outcome) ? DSA_ALL_CORPORA : c;
		if (!moved(judgement, as, outcome))
			continue;
		if (listed++)
			dsa_text_add(text, ", ");
		else
			dsa_text_printf(text, "%-13s ", label);
		dsa_verify_text_name(text, report->now->corpora[c].name);
	}
	if (listed)
		dsa_text_add(text, "\n");
}

static void add_corpora(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	static const char *const words[] = {"as recorded", "other documents than recorded", "not in the pattern file"};
	for (int c = 0; c < report->now->corpus_count; c++) {
		dsa_text_printf(text, "%-13s ", c ? "" : "documents");
		dsa_verify_text_name(text, report->now->corpora[c].name);
		dsa_text_printf(text, ": %s\n", words[judgement->documents[c]]);
	}
	add_moved(text, report, DSA_OUTCOME_WORSE, "worse");
	add_moved(text, report, DSA_OUTCOME_BETTER, "better");
}

/* Said only where it is not what was recorded. */
static void add_model(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const char *recorded = report->recorded->fingerprint, *now = report->now->fingerprint;
	if (recorded && now && !strcmp(recorded, now))
		return;
	dsa_text_printf(text, "%-13s ", "model");
	dsa_verify_text_name(text, report->now->model_name);
	dsa_text_printf(text, ", %s\n", recorded ? "not the recorded one" : "and none is recorded");
}

void dsa_verify_text_write(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	dsa_text_printf(text, "%-13s %s\n", "pattern", report->now->pattern);
	add_model(text, report);
	add_corpora(text, report);
	dsa_text_printf(text, "%-13s ", "measured");
	add_documents(text, report);
	dsa_text_add(text, "\n");
	for (int i = 0; i < judgement->count; i++) {
		const struct dsa_check *check = &judgement->checks[i];
		dsa_text_printf(text, "%-13s ", dsa_outcome_name(check->outcome));
		dsa_verify_text_place(text, report, check);
		dsa_text_add(text, ": ");
		dsa_verify_text_check(text, check);
		dsa_text_add(text, "\n");
	}
	dsa_text_printf(text, "%-13s ", "verdict");
	dsa_verify_text_headline(text, report);
	dsa_text_add(text, "\n");
	if (report->accepted) {
		dsa_text_printf(text, "%-13s ", "accepted");
		dsa_verify_text_name(text, report->file);
		dsa_text_add(text, " has the new figures\n");
	} else if (judgement->better && !judgement->worse) {
		dsa_text_printf(text, "%-13s figures moved for the better: --accept records them\n", "note");
	}
}
