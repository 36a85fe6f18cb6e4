#include "commands.h"
#include "dsa/file.h"
#include "dsa/html.h"
#include "dsa/results_json.h"
#include "dsa/svg.h"
#include "run_files.h"

static enum dsa_status write_figures(const struct dsa_results *results, const char *directory, struct dsa_arena *arena,
                                     struct dsa_error *err)
{
	static const struct {
		const char *name;
		void (*draw)(struct dsa_text *text, const struct dsa_results *results, bool standalone);
	} figures[] = {
	    {"pattern.svg", dsa_svg_pattern}, {"curve.svg", dsa_svg_curve}, {"sensitivity.svg", dsa_svg_sensitivity}};
	struct dsa_text text = {0};
	enum dsa_status status = dsa_file_make_directory(directory, err);
	for (size_t f = 0; f < sizeof figures / sizeof *figures && !status; f++) {
		figures[f].draw(&text, results, true);
		status = dsa_write_text(&text, directory, figures[f].name, arena, err);
	}
	/* Numbered, not named: a corpus may be called anything. */
	for (int c = 0; c < results->corpus_count && !status; c++) {
		char name[32];
		snprintf(name, sizeof name, "overlap-%d.svg", c + 1);
		dsa_svg_overlap(&text, results, c, true, true);
		status = dsa_write_text(&text, directory, name, arena, err);
	}
	return status;
}

static enum dsa_status write_report(const char *run, const char *figures, struct dsa_error *err)
{
	struct dsa_arena arena;
	struct dsa_results results = {0};
	struct dsa_text html = {0};
	char *path;
	dsa_arena_init(&arena);
	enum dsa_status status = dsa_file_join(&arena, run, "results.json", &path, err);
	if (!status)
		status = dsa_results_json_load(&results, path, &arena, err);
	if (status == DSA_E_MISSING)
		status = dsa_fail(err, DSA_E_INPUT,
		                  "%s holds no results.json: it is no run directory, or the run has not finished "
		                  "(calibrate --resume goes on with it)",
		                  run);
	if (!status) {
		dsa_html_write(&html, &results);
		status = dsa_write_text(&html, run, "report.html", &arena, err);
	}
	if (!status && figures)
		status = write_figures(&results, figures, &arena, err);
	dsa_arena_release(&arena);
	return status;
}

int dsa_cmd_report(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	enum dsa_status status;
	if (options->operand_count != 1)
		status = dsa_fail(&err, DSA_E_USAGE, "report needs one RUN, found %d", options->operand_count);
	else
		status = write_report(options->operands[0], options->svg, &err);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
