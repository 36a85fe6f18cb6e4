/* terminal.h: everything the program says besides results: log lines, progress, errors, all on stderr and in log.txt.
 *
 * A bar with the time left on a terminal, plain timed lines elsewhere. NO_COLOR and --quiet are respected. */
#ifndef DSA_CLI_TERMINAL_H
#define DSA_CLI_TERMINAL_H

#include <stdbool.h>
#include <signal.h>
#include <stdio.h>

#include "dsa/log.h"
#include "dsa/search.h"
#include "options.h"

struct dsa_terminal {
	struct dsa_log log;
	struct dsa_search_progress progress;
	FILE *file; /* RUN/log.txt, or NULL */
	bool bar, colour, quiet, verbose, silent_progress, drawn;
	double started, last_line;
	char *const *words; /* of the command line, for an interrupted run to go on with; NULL: cannot go on */
	int word_count;
	int layers;
	int step, step_batches_done; /* of the step in hand */
	double step_started;
};

void dsa_terminal_init(struct dsa_terminal *terminal, const struct dsa_cli_options *options);
/* Log lines also go to the end of path from now on. */
DSA_CHECKED enum dsa_status dsa_terminal_log_to(struct dsa_terminal *terminal, const char *path, struct dsa_error *err);
/* Removes a drawn bar, so that what is printed next starts on a line of its own. */
void dsa_terminal_clear(struct dsa_terminal *terminal);
/* Says nothing from now on: rank 0 speaks for all. */
void dsa_terminal_mute(struct dsa_terminal *terminal);
void dsa_terminal_close(struct dsa_terminal *terminal);
/* "dsacal: …" in one line; removes a bar first; after an interruption also the command that goes on. Returns the exit
 * status of code. */
int dsa_terminal_fail(struct dsa_terminal *terminal, enum dsa_status code, const struct dsa_error *err);
/* Seconds since init. */
double dsa_terminal_seconds(const struct dsa_terminal *terminal);

/* SIGINT and SIGTERM set the flag; a second one ends the program at once. */
void dsa_terminal_catch_signals(void);
const volatile sig_atomic_t *dsa_terminal_stop_flag(void);

#endif
