#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "dsa/provenance.h"
#include "dsa/ranks_evaluator.h"
#include "help.h"
#include "lost_pages.h"

static int by_name(const char *name)
{
	for (int c = 0; c < DSA_COMMANDS; c++)
		if (!strcmp(name, dsa_cli_commands[c].name))
			return c;
	return -1;
}

static int wrong_command(const char *name)
{
	fprintf(stderr, "dsacal: unknown command '%.64s'; 'dsacal help' lists them\n", name);
	return dsa_status_exit(DSA_E_USAGE);
}

static int help(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--man"))
		return dsa_cli_man();
	int about = argc > 1 ? by_name(argv[1]) : DSA_CMD_HELP;
	if (about < 0)
		return wrong_command(argv[1]);
	dsa_cli_help((enum dsa_command)about);
	return 0;
}

static int run(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	switch (options->command) {
	case DSA_CMD_CALIBRATE:
		return dsa_cmd_calibrate(options, terminal);
	case DSA_CMD_EVALUATE:
		return dsa_cmd_evaluate(options, terminal);
	case DSA_CMD_OVERLAP:
		return dsa_cmd_overlap(options, terminal);
	case DSA_CMD_VERIFY:
		return dsa_cmd_verify(options, terminal);
	case DSA_CMD_SOLVE:
		return dsa_cmd_solve(options, terminal);
	case DSA_CMD_REPORT:
		return dsa_cmd_report(options, terminal);
	case DSA_CMD_EXPORT:
		return dsa_cmd_export(options, terminal);
	case DSA_CMD_DIFF:
		return dsa_cmd_diff(options, terminal);
	case DSA_CMD_INSPECT:
		return dsa_cmd_inspect(options, terminal);
	case DSA_CMD_TOKENIZE:
		return dsa_cmd_tokenize(options, terminal);
	case DSA_CMD_BENCH:
		return dsa_cmd_bench(options, terminal);
	case DSA_CMD_COMPLETION:
		return dsa_cmd_completion(options, terminal);
	case DSA_CMD_HELP:
	case DSA_COMMANDS:
		break;
	}
	return 0;
}

/* The command by all processes that a launcher started together: the first one runs it, or says what is wrong with the
 * command line (parsed, wrong), the others serve it. */
static int run_together(struct dsa_cli_options *options, struct dsa_terminal *terminal, enum dsa_status parsed,
                        const struct dsa_error *wrong)
{
	struct dsa_error err = {""};
	struct dsa_ranks *ranks;
	const bool measures = !parsed && !options->dry_run &&
	                      (options->command == DSA_CMD_CALIBRATE || options->command == DSA_CMD_OVERLAP);
	enum dsa_status status = dsa_ranks_connect(&ranks, &err);
	if (status)
		return dsa_terminal_fail(terminal, status, &err);
	if (!ranks)
		return parsed ? dsa_terminal_fail(terminal, parsed, wrong) : run(options, terminal);
	int code = 0;
	if (measures)
		options->ranks = ranks;
	if (ranks->rank == 0) {
		if (!measures && !parsed)
			dsa_log_line(&terminal->log, DSA_LOG_WARN,
			             "%s runs as one process: the other %d have nothing to do",
			             dsa_cli_commands[options->command].name, ranks->count - 1);
		code = parsed ? dsa_terminal_fail(terminal, parsed, wrong) : run(options, terminal);
		dsa_ranks_stop(ranks);
	} else if (measures) {
		dsa_serve(options, terminal);
	}
	ranks->ops->close(ranks, code);
	return code;
}

/* A full disk shows when buffered results reach it: too late for the command, in time for the exit status. */
static int flush_results(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "dsacal: cannot write the results to stdout: is the disk full or the pipe closed?\n");
	/* Also where a bound is broken: a gate whose figures got lost has not been judged. */
	return status > 1 ? status : dsa_status_exit(DSA_E_IO);
}

/* Threads that wait for work must sleep: libgomp's default is to spin, and on a machine that others use too, spinning
 * threads take the cores that the working ones need. libgomp reads its
 * settings before main(), so the program starts itself once more with them; the user's own setting wins. */
static void let_waiting_threads_sleep(char **argv)
{
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("OMP_WAIT_POLICY", "passive", 1))
		return;
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	if (length <= 0)
		return; /* without /proc it is only slower */
	self[length] = 0;
	execv(self, argv);
}

/* Kept states are large, of many sizes, and come and go: from a heap that grows into their gaps the process would take
 * up to a tenth more than --host-memory. glibc begins with mappings of their own for what is that large, and would give
 * them up at the first that is freed. */
static void give_large_blocks_back(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, 128 << 10); /* refused, it only costs memory */
}

int main(int argc, char **argv)
{
	let_waiting_threads_sleep(argv);
	give_large_blocks_back();
	struct dsa_cli_options options;
	struct dsa_terminal terminal;
	struct dsa_arena arena; /* of what a configuration file says */
	struct dsa_error err = {""};
	bool wants_help;
	if (argc < 2) {
		dsa_cli_help(DSA_CMD_HELP);
		return dsa_status_exit(DSA_E_USAGE);
	}
	if (!strcmp(argv[1], "--version")) {
		printf("dsacal %s (%s)\n", dsa_version(), dsa_commit());
		return flush_results(0);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return flush_results(help(argc - 1, argv + 1));
	int command = by_name(argv[1]);
	if (command < 0)
		return wrong_command(argv[1]);
	dsa_arena_init(&arena);
	enum dsa_status status =
	    dsa_cli_parse(&options, (enum dsa_command)command, argc - 1, argv + 1, &wants_help, &arena, &err);
	dsa_terminal_init(&terminal, &options);
	if (!status && options.out && (command == DSA_CMD_CALIBRATE || command == DSA_CMD_OVERLAP)) {
		terminal.words = argv;
		terminal.word_count = argc;
	}
	int code = 0;
	if (!status && wants_help) {
		dsa_cli_help(options.command);
	} else {
		dsa_terminal_catch_signals();
		dsa_cli_watch_lost_pages();
		code = run_together(&options, &terminal, status, &err);
		dsa_terminal_close(&terminal);
	}
	dsa_arena_release(&arena);
	return flush_results(code);
}
