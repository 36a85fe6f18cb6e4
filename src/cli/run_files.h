/* run_files.h: the result files of a run directory, written aside and renamed, and patterns read from words or files.
 */
#ifndef DSA_CLI_RUN_FILES_H
#define DSA_CLI_RUN_FILES_H

#include "dsa/results.h"
#include "dsa/text.h"

/* The tables of csv.h, then report.html. */
DSA_CHECKED enum dsa_status dsa_report_files_write(const char *run, const struct dsa_results *results,
                                                   struct dsa_arena *arena, struct dsa_error *err);
/* results.json, pattern.yaml, and the report's files. */
DSA_CHECKED enum dsa_status dsa_run_files_write(const char *run, const struct dsa_results *results,
                                                struct dsa_arena *arena, struct dsa_error *err);
/* Checks and writes one built file into a directory, and releases text. */
DSA_CHECKED enum dsa_status dsa_write_text(struct dsa_text *text, const char *directory, const char *name,
                                           struct dsa_arena *arena, struct dsa_error *err);
/* value: F/S letters, or the path of a pattern.yaml. what: the option, for messages. Pattern in the arena. */
DSA_CHECKED enum dsa_status dsa_cli_pattern(const char *value, const char *what, int layers, const struct dsa_log *log,
                                            struct dsa_arena *arena, const char **pattern, struct dsa_error *err);

#endif
