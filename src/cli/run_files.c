#include "run_files.h"

#include <string.h>

#include "dsa/csv.h"
#include "dsa/file.h"
#include "dsa/html.h"
#include "dsa/pattern.h"
#include "dsa/pattern_yaml.h"
#include "dsa/results_json.h"

enum dsa_status dsa_write_text(struct dsa_text *text, const char *directory, const char *name, struct dsa_arena *arena,
                               struct dsa_error *err)
{
	char *path;
	enum dsa_status status = dsa_text_check(text, name, err);
	if (!status)
		status = dsa_file_join(arena, directory, name, &path, err);
	if (!status)
		status = dsa_file_replace(path, text->data, text->bytes, err);
	dsa_text_release(text);
	return status;
}

enum dsa_status dsa_report_files_write(const char *run, const struct dsa_results *results, struct dsa_arena *arena,
                                       struct dsa_error *err)
{
	struct dsa_text text = {0};
	for (int t = 0; t < DSA_CSV_TABLES; t++) {
		dsa_csv_tables[t].write(&text, results);
		enum dsa_status status = dsa_write_text(&text, run, dsa_csv_tables[t].file, arena, err);
		if (status)
			return status;
	}
	/* Last: where the page is, its tables are. */
	dsa_html_write(&text, results);
	return dsa_write_text(&text, run, "report.html", arena, err);
}

enum dsa_status dsa_run_files_write(const char *run, const struct dsa_results *results, struct dsa_arena *arena,
                                    struct dsa_error *err)
{
	struct dsa_text text = {0};
	dsa_results_json_write(&text, results);
	enum dsa_status status = dsa_write_text(&text, run, "results.json", arena, err);
	if (status)
		return status;
	dsa_pattern_yaml_write(&text, results);
	status = dsa_write_text(&text, run, "pattern.yaml", arena, err);
	if (status)
		return status;
	return dsa_report_files_write(run, results, arena, err);
}

/* F/S letters and nothing else: a file of such a name would have to be written "./FFS". */
static bool is_letters(const char *value)
{
	return *value && value[strspn(value, "FSfs")] == 0;
}

enum dsa_status dsa_cli_pattern(const char *value, const char *what, int layers, const struct dsa_log *log,
                                struct dsa_arena *arena, const char **pattern, struct dsa_error *err)
{
	struct dsa_results file = {0};
	if (!*value)
		return dsa_fail(err, DSA_E_USAGE, "%s is empty, expected F/S letters or a pattern.yaml", what);
	if (is_letters(value)) {
		*pattern = value;
	} else {
		enum dsa_status status = dsa_pattern_yaml_load(&file, value, log, arena, err);
		if (status == DSA_E_MISSING)
			return dsa_fail(err, DSA_E_USAGE, "%s: '%s' is neither a string of F and S nor a file", what,
			                value);
		if (status)
			return status;
		*pattern = file.pattern;
	}
	return dsa_pattern_check(*pattern, layers, what, err);
}
