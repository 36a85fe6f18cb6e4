#include "verify_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dsa/file.h"
#include "dsa/github.h"
#include "dsa/junit.h"
#include "dsa/verify_json.h"
#include "summary.h"

/* Both are set by GitHub's runner; an empty one is as good as none. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

static enum dsa_status write_file(struct dsa_text *text, const char *path, struct dsa_error *err)
{
	enum dsa_status status = dsa_text_check(text, path, err);
	if (!status)
		status = dsa_file_replace(path, text->data, text->bytes, err);
	dsa_text_release(text);
	return status;
}

/* Appends: other steps may have written before. A summary that cannot be written changes no verdict. */
static void append_summary(struct dsa_text *text, const struct dsa_log *log)
{
	const char *path = variable("GITHUB_STEP_SUMMARY");
	struct dsa_error err = {""};
	int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	enum dsa_status status = file < 0 ? dsa_fail(&err, DSA_E_IO, "%s: cannot open: %s", path, strerror(errno))
	                                  : dsa_text_check(text, "the step summary", &err);
	if (!status)
		status = dsa_file_write_all(file, text->data, text->bytes, path, &err);
	if (file >= 0)
		close(file);
	if (status)
		dsa_log_line(log, DSA_LOG_WARN, "no step summary: %s", err.text);
	dsa_text_release(text);
}

/* On stderr, which the runner reads for commands as it does stdout, so that --json stays alone there. */
static void annotate(struct dsa_text *text, struct dsa_terminal *terminal)
{
	dsa_terminal_clear(terminal);
	if (text->data && !text->failed)
		fwrite(text->data, 1, text->bytes, stderr);
	dsa_text_release(text);
}

enum dsa_status dsa_verify_output(const struct dsa_verify_report *report, const struct dsa_cli_options *options,
                                  struct dsa_terminal *terminal, struct dsa_error *err)
{
	struct dsa_text text = {0};
	enum dsa_status status = DSA_OK;
	if (options->junit) {
		dsa_junit_write(&text, report);
		status = write_file(&text, options->junit, err);
	}
	if (!status && variable("GITHUB_STEP_SUMMARY")) {
		dsa_github_summary(&text, report);
		append_summary(&text, &terminal->log);
	}
	if (status)
		return status;
	if (variable("GITHUB_ACTIONS")) {
		dsa_github_annotation(&text, report);
		annotate(&text, terminal);
	}
	dsa_terminal_clear(terminal);
	if (options->json)
		dsa_verify_json_write(&text, report);
	else
		dsa_verify_text_write(&text, report);
	return dsa_print_text(&text, "the verification", err);
}

void dsa_verify_output_error(enum dsa_status code, const struct dsa_error *err, const struct dsa_cli_options *options,
                             struct dsa_terminal *terminal)
{
	const char *file = options->operand_count == 1 ? options->operands[0] : NULL;
	const char *type = code == DSA_E_USAGE         ? "usage"
	                   : code == DSA_E_INTERRUPTED ? "interrupted"
	                                               : "could not measure";
	struct dsa_text text = {0};
	struct dsa_error second = {""};
	if (options->junit) {
		dsa_junit_write_error(&text, file, type, err->text);
		if (write_file(&text, options->junit, &second))
			dsa_log_line(&terminal->log, DSA_LOG_WARN, "no JUnit file: %s", second.text);
	}
	if (variable("GITHUB_STEP_SUMMARY")) {
		dsa_github_summary_error(&text, file, err->text);
		append_summary(&text, &terminal->log);
	}
	if (variable("GITHUB_ACTIONS")) {
		dsa_github_annotation_error(&text, file, err->text);
		annotate(&text, terminal);
	}
}
