/* commands.h: one function per subcommand; each returns the program's exit status. */
#ifndef DSA_CLI_COMMANDS_H
#define DSA_CLI_COMMANDS_H

#include "options.h"
#include "terminal.h"

int dsa_cmd_calibrate(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_evaluate(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_overlap(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_verify(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_solve(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_report(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_export(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_diff(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_inspect(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_tokenize(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_bench(const struct dsa_cli_options *options, struct dsa_terminal *terminal);
int dsa_cmd_completion(const struct dsa_cli_options *options, struct dsa_terminal *terminal);

/* A rank that is not the first: answers what rank 0 asks and prints nothing. Commands that do not measure over ranks
 * leave it nothing to do. */
void dsa_serve(const struct dsa_cli_options *options, struct dsa_terminal *terminal);

/* --dry-run of a measuring command: its plan on stdout. */
int dsa_dry_run(const struct dsa_cli_options *options, struct dsa_terminal *terminal);

#endif
