#include "dsa/junit.h"

#include <string.h>

static void add_head(struct dsa_text *text, int tests, int failures, int errors, int skipped)
{
	dsa_text_printf(text,
	                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"dsacal verify\" tests=\"%d\" "
	                "failures=\"%d\" errors=\"%d\" skipped=\"%d\">\n",
	                tests, failures, errors, skipped);
}

static void add_suite(struct dsa_text *text, const char *name, const int counts[3])
{
	dsa_text_add(text, "  <testsuite name=\"");
	dsa_text_markup(text, name);
	dsa_text_printf(text, "\" tests=\"%d\" failures=\"%d\" errors=\"0\" skipped=\"%d\">\n", counts[0], counts[1],
	                counts[2]);
}

static void add_properties(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct {
		const char *name, *value;
	} properties[] = {{"pattern file", report->file},
	                  {"pattern", report->now->pattern},
	                  {"model", report->now->model_name},
	                  {"fingerprint", report->now->fingerprint},
	                  {"recorded fingerprint", report->recorded->fingerprint},
	                  {"device", report->now->provenance.device}};
	dsa_text_add(text, "    <properties>\n");
	for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
		dsa_text_printf(text, "      <property name=\"%s\" value=\"", properties[i].name);
		dsa_text_markup(text, properties[i].value);
		dsa_text_add(text, "\"/>\n");
	}
	dsa_text_add(text, "    </properties>\n");
}

static void add_described(struct dsa_text *text, const struct dsa_check *check)
{
	struct dsa_text line = {0};
	dsa_verify_text_check(&line, check);
	text->failed |= line.failed;
	dsa_text_markup(text, line.data);
	dsa_text_release(&line);
}

static void add_check(struct dsa_text *text, const char *suite, const struct dsa_check *check)
{
	const char *split = check->figure == DSA_FIGURE_SHARED ? "pattern"
	                    : check->split == DSA_HELDOUT      ? "held out"
	                                                       : "calibration";
	dsa_text_add(text, "    <testcase classname=\"dsacal.verify.");
	dsa_text_markup(text, suite);
	dsa_text_printf(text, "\" name=\"%s: %s %s\">\n", split, dsa_figure_words(check->figure),
	                check->bound ? "within its bound" : "as recorded");
	if (check->outcome == DSA_OUTCOME_WORSE) {
		dsa_text_printf(text, "      <failure type=\"%s\" message=\"", check->bound ? "bound" : "recorded");
		add_described(text, check);
		dsa_text_add(text, "\"/>\n");
	} else if (check->outcome == DSA_OUTCOME_UNJUDGED) {
		dsa_text_add(text, "      <skipped message=\"");
		dsa_text_markup(text, check->reason);
		dsa_text_add(text, "\"/>\n");
	} else {
		dsa_text_add(text, "      <system-out>");
		add_described(text, check);
		dsa_text_add(text, "</system-out>\n");
	}
	dsa_text_add(text, "    </testcase>\n");
}

/* corpus: DSA_ALL_CORPORA or one. Nothing for a corpus that no check is about. */
static void add_checks(struct dsa_text *text, const struct dsa_verify_report *report, int corpus)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	const char *name = corpus == DSA_ALL_CORPORA ? "all corpora" : report->now->corpora[corpus].name;
	int counts[3] = {0};
	for (int i = 0; i < judgement->count; i++) {
		const struct dsa_check *check = &judgement->checks[i];
		counts[0] += check->corpus == corpus;
		counts[1] += check->corpus == corpus && check->outcome == DSA_OUTCOME_WORSE;
		counts[2] += check->corpus == corpus && check->outcome == DSA_OUTCOME_UNJUDGED;
	}
	if (!counts[0])
		return;
	add_suite(text, name, counts);
	add_properties(text, report);
	for (int i = 0; i < judgement->count; i++)
		if (judgement->checks[i].corpus == corpus)
			add_check(text, name, &judgement->checks[i]);
	dsa_text_add(text, "  </testsuite>\n");
}

void dsa_junit_write(struct dsa_text *text, const struct dsa_verify_report *report)
{
	const struct dsa_judgement *judgement = &report->verification->judgement;
	add_head(text, judgement->count, judgement->worse, 0, judgement->count - judgement->judged);
	for (int c = DSA_ALL_CORPORA; c < report->now->corpus_count; c++)
		add_checks(text, report, c);
	dsa_text_add(text, "</testsuites>\n");
}

void dsa_junit_write_error(struct dsa_text *text, const char *file, const char *type, const char *message)
{
	add_head(text, 1, 0, 1, 0);
	dsa_text_add(text, "  <testsuite name=\"measure\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\">\n"
	                   "    <testcase classname=\"dsacal.verify\" name=\"measure ");
	dsa_text_markup(text, file ? file : "the pattern");
	dsa_text_add(text, "\">\n      <error type=\"");
	dsa_text_markup(text, type);
	dsa_text_add(text, "\" message=\"");
	dsa_text_markup(text, message);
	dsa_text_add(text, "\"/>\n    </testcase>\n  </testsuite>\n</testsuites>\n");
}
