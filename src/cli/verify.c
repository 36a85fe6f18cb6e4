#include <assert.h>
#include <math.h>
#include <string.h>

#include "commands.h"
#include "dsa/file.h"
#include "dsa/pattern_yaml.h"
#include "dsa/verification.h"
#include "replay.h"
#include "session.h"
#include "verify_output.h"

enum { GATE_FAILED = 1 };

struct verify {
	const struct dsa_cli_options *options;
	struct dsa_terminal *terminal;
	struct dsa_arena arena;
	struct dsa_results recorded, now;
	struct dsa_cli_options measuring; /* options with what the file says in place of what was not given */
	struct dsa_session session;
	struct dsa_replay replay;
	bool session_open;
	struct dsa_verification_options how;
	struct dsa_verification verification;
};

static enum dsa_status check_options(const struct dsa_cli_options *options, struct dsa_error *err)
{
	if (options->operand_count != 1)
		return dsa_fail(err, DSA_E_USAGE, "verify needs one PATTERN.yaml, found %d", options->operand_count);
	if (options->from && (options->model || options->corpus.count || options->quick))
		return dsa_fail(err, DSA_E_USAGE,
		                "--from judges what a run has measured: it goes without --model, --corpus and --quick");
	if (!options->from && (!options->model || !options->corpus.count))
		return dsa_fail(err, DSA_E_USAGE,
		                "verify needs --model DIR and --corpus PATH (a pattern file has names and digests, no "
		                "paths), or --from RUN");
	if (options->accept && options->quick)
		return dsa_fail(err, DSA_E_USAGE, "--accept records figures of all documents: leave out --quick");
	if (!(options->tolerance >= 0))
		return dsa_fail(err, DSA_E_USAGE, "--tolerance is %g, expected 0 or more", options->tolerance);
	if (options->quick > INT32_MAX / 2)
		return dsa_fail(err, DSA_E_USAGE, "--quick is %lld, expected a number of documents",
		                (long long)options->quick);
	return DSA_OK;
}

static const struct dsa_result_corpus *find_corpus(const struct dsa_results *recorded, const char *name)
{
	for (int c = 0; c < recorded->corpus_count; c++)
		if (!strcmp(recorded->corpora[c].name, name))
			return &recorded->corpora[c];
	return NULL;
}

/* A corpus weighs what it did, unless the command line says otherwise. */
static enum dsa_status keep_weights(struct verify *verify, struct dsa_error *err)
{
	struct dsa_cli_list *list = &verify->measuring.corpus;
	for (int i = 0; i < list->count; i++) {
		struct dsa_corpus_source source;
		enum dsa_status status = dsa_cli_corpus(list->value[i], &source, &verify->arena, err);
		if (status)
			return status;
		const char *name = source.name ? source.name : dsa_spool_default_name(source.path, &verify->arena, err);
		if (!name)
			return DSA_E_MEMORY;
		const struct dsa_result_corpus *then = find_corpus(&verify->recorded, name);
		if (!then || strstr(list->value[i], ":weight=") || then->weight == 1)
			continue;
		struct dsa_text text = {0};
		dsa_text_printf(&text, "%s:weight=", list->value[i]);
		dsa_text_real(&text, then->weight);
		status = dsa_text_check(&text, "a corpus", err);
		if (!status)
			list->value[i] = dsa_arena_text(&verify->arena, text.data, text.bytes, err);
		dsa_text_release(&text);
		if (status || !list->value[i])
			return status ? status : DSA_E_MEMORY;
	}
	return DSA_OK;
}

/* Documents are cut and split as they were, unless the command line says otherwise. */
static enum dsa_status take_settings(struct verify *verify, struct dsa_error *err)
{
	const struct dsa_results *recorded = &verify->recorded;
	struct dsa_cli_options *to = &verify->measuring;
	*to = *verify->options;
	to->operand_count = 0;
	to->context = to->context ? to->context : recorded->context;
	if (!to->indexer_precision)
		to->indexer_precision = dsa_index_precision_name(recorded->index_precision);
	to->max_tokens = to->max_tokens ? to->max_tokens : recorded->max_tokens;
	if (to->seed < 0)
		to->seed = recorded->seed && recorded->seed <= INT64_MAX ? (int64_t)recorded->seed : 1;
	if (isnan(to->holdout))
		to->holdout = isnan(recorded->holdout) ? 0.2 : recorded->holdout;
	return keep_weights(verify, err);
}

static enum dsa_status take_budget(struct verify *verify, struct dsa_error *err)
{
	const struct dsa_budget *recorded = &verify->recorded.budget;
	struct dsa_budget *budget = &verify->how.judge.budget;
	bool given;
	enum dsa_status status = dsa_cli_budget(verify->options, verify->recorded.layers, budget, &given, err);
	if (status)
		return status;
	budget->kl = isnan(budget->kl) ? recorded->kl : budget->kl;
	budget->nll = isnan(budget->nll) ? recorded->nll : budget->nll;
	budget->top1 = isnan(budget->top1) ? recorded->top1 : budget->top1;
	budget->kl_p99 = isnan(budget->kl_p99) ? recorded->kl_p99 : budget->kl_p99;
	budget->max_shared = budget->max_shared < 0 ? recorded->max_shared : budget->max_shared;
	budget->scope = verify->options->scope ? budget->scope : recorded->scope;
	return DSA_OK;
}

/* What is known of a model before a document is read. */
static enum dsa_status admit(const struct dsa_session *session, void *context, struct dsa_error *err)
{
	const struct verify *verify = context;
	enum dsa_index_precision precision = DSA_INDEX_ACT;
	if (!dsa_index_precision_find(verify->measuring.indexer_precision, &precision))
		assert(false); /* one of the option's choices, or from a file that was read */
	const struct dsa_results model = {.layers = session->config.layers,
	                                  .topk = session->config.topk,
	                                  .architecture = session->config.model_type,
	                                  .index_precision = precision,
	                                  .reference = session->config.native,
	                                  .fingerprint = session->fingerprint,
	                                  .tokenizer = *session->tokenizer ? session->tokenizer : NULL};
	return dsa_judgement_admit(&verify->recorded, &model, verify->options->allow_model_change,
	                           &verify->terminal->log, err);
}

static enum dsa_status open_session(struct verify *verify, struct dsa_error *err)
{
	enum dsa_status status = take_settings(verify, err);
	if (!status)
		status =
		    dsa_session_open_if(&verify->session, &verify->measuring, verify->terminal, admit, verify, err);
	if (status)
		return status;
	verify->session_open = true;
	return dsa_session_describe(&verify->session, &verify->now, err);
}

static enum dsa_status open_run(struct verify *verify, struct dsa_error *err)
{
	const struct dsa_cli_options *options = verify->options;
	enum dsa_status status = dsa_replay_open(&verify->replay, options->from, &verify->terminal->log, err);
	if (status)
		return status;
	verify->now = verify->replay.before;
	return dsa_judgement_admit(&verify->recorded, &verify->now, options->allow_model_change, &verify->terminal->log,
	                           err);
}

static enum dsa_status measure(struct verify *verify, struct dsa_error *err)
{
	const bool from = verify->options->from != NULL;
	struct dsa_evaluator *evaluator = from ? verify->replay.evaluator : verify->session.evaluator;
	verify->now.pattern = verify->recorded.pattern;
	verify->how.recorded = &verify->recorded;
	verify->how.judge.tolerance = verify->options->tolerance;
	verify->how.quick = (int)verify->options->quick;
	verify->how.renew = verify->options->accept;
	verify->how.progress = &verify->terminal->progress;
	verify->how.log = &verify->terminal->log;
	enum dsa_status status = take_budget(verify, err);
	if (!status)
		status = dsa_verification_run(&verify->verification, &verify->now, evaluator, &verify->how,
		                              &verify->arena, err);
	if (status == DSA_E_MISSING && from)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: this run has not measured the pattern on all of its documents; verify it with "
		                "--model and --corpus",
		                verify->options->from);
	return status;
}

/* To the letter: what rounding excuses once must not become the recorded figure. */
static bool breaks_a_bound(const struct dsa_judgement *judgement)
{
	for (int i = 0; i < judgement->count; i++) {
		const struct dsa_check *check = &judgement->checks[i];
		if (check->bound && dsa_figure_worse(check->figure, check->found, check->against))
			return true;
	}
	return false;
}

/* The file anew with the new figures: the same pattern and bounds. Steps of the search stay where they still speak of
 * this model and these documents. */
static enum dsa_status accept(struct verify *verify, struct dsa_error *err)
{
	const struct dsa_results *recorded = &verify->recorded;
	const char *path = verify->options->operands[0];
	struct dsa_results file = verify->now;
	struct dsa_text text = {0};
	const bool same_model = recorded->fingerprint && !strcmp(recorded->fingerprint, file.fingerprint);
	file.budget = recorded->budget;
	file.refinement = (struct dsa_refinement){0};
	file.trace = same_model && verify->verification.judgement.all == DSA_DOCUMENTS_SAME
	                 ? recorded->trace
	                 : (struct dsa_trace){.emitted = -1};
	for (int s = 0; s < file.trace.count; s++) /* the file says a step's KL alone */
		file.trace.steps[s].heldout.documents = !isnan(file.trace.steps[s].heldout.kl);
	dsa_pattern_yaml_write(&text, &file);
	enum dsa_status status = dsa_text_check(&text, path, err);
	if (!status)
		status = dsa_file_replace(path, text.data, text.bytes, err);
	dsa_text_release(&text);
	return status;
}

static enum dsa_status answer(struct verify *verify, int *code, struct dsa_error *err)
{
	const struct dsa_judgement *judgement = &verify->verification.judgement;
	struct dsa_verify_report report = {.file = verify->options->operands[0],
	                                   .recorded = &verify->recorded,
	                                   .now = &verify->now,
	                                   .verification = &verify->verification,
	                                   .options = &verify->how};
	enum dsa_status status = DSA_OK;
	if (verify->options->accept && breaks_a_bound(judgement)) {
		dsa_log_line(&verify->terminal->log, DSA_LOG_WARN,
		             "not accepted: a bound is broken, and a baseline must keep its own bounds");
	} else if (verify->options->accept) {
		status = accept(verify, err);
		report.accepted = !status;
	}
	*code = judgement->worse && !report.accepted ? GATE_FAILED : 0;
	return status ? status : dsa_verify_output(&report, verify->options, verify->terminal, err);
}

int dsa_cmd_verify(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct verify verify = {.options = options, .terminal = terminal};
	int code = 0;
	dsa_arena_init(&verify.arena);
	enum dsa_status status = check_options(options, &err);
	if (!status)
		status =
		    dsa_pattern_yaml_load(&verify.recorded, options->operands[0], &terminal->log, &verify.arena, &err);
	if (!status)
		status = options->from ? open_run(&verify, &err) : open_session(&verify, &err);
	if (!status)
		status = measure(&verify, &err);
	if (!status)
		status = answer(&verify, &code, &err);
	if (status) {
		dsa_verify_output_error(status, &err, options, terminal);
		code = dsa_terminal_fail(terminal, status, &err);
	}
	if (verify.session_open)
		dsa_session_close(&verify.session);
	dsa_replay_close(&verify.replay);
	dsa_arena_release(&verify.arena);
	return code;
}
