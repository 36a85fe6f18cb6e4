/* options.h: the command line as one table: parsing, help, man page and the resolved config.yaml all read it.
 *
 * A struct dsa_cli_options is plain data with every option's value; strings are borrowed from argv or from the arena.
 */
#ifndef DSA_CLI_OPTIONS_H
#define DSA_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/arena.h"
#include "dsa/model_config.h"
#include "dsa/residency.h"
#include "dsa/search.h"
#include "dsa/spool.h"
#include "dsa/status.h"

enum dsa_command {
	DSA_CMD_CALIBRATE,
	DSA_CMD_EVALUATE,
	DSA_CMD_OVERLAP,
	DSA_CMD_VERIFY,
	DSA_CMD_SOLVE,
	DSA_CMD_REPORT,
	DSA_CMD_EXPORT,
	DSA_CMD_DIFF,
	DSA_CMD_INSPECT,
	DSA_CMD_TOKENIZE,
	DSA_CMD_BENCH,
	DSA_CMD_COMPLETION,
	DSA_CMD_HELP,
	DSA_COMMANDS
};

enum { DSA_CLI_LIST = 64 }; /* most values of an option that may be given more than once */

struct dsa_cli_list {
	const char *value[DSA_CLI_LIST];
	int count;
};

#define DSA_SPILL_DERIVED UINT64_MAX /* more than any size that can be given */

struct dsa_ranks;

struct dsa_cli_options {
	enum dsa_command command;
	struct dsa_ranks *ranks; /* that measure together, from main(); NULL: this process alone */
	const char *config;
	/* Measuring. */
	const char *model, *out, *device;
	const char *indexer_precision; /* verify: NULL, as recorded */
	const char *residency;         /* dsa_place_name() */
	struct dsa_cli_list corpus, baseline, bench;
	int64_t context, max_tokens, seed, threads, batch_tokens; /* 0: derived; verify's seed -1: as recorded */
	uint64_t host_memory, gpu_memory;                         /* bytes; 0: derived */
	uint64_t spill;                                           /* bytes; DSA_SPILL_DERIVED */
	bool spill_zstd;
	double holdout; /* share; NaN: as recorded (verify) */
	/* Budgets; NaN: not given. */
	double budget_kl, budget_nll, budget_kl_p99, min_top1;
	const char *max_shared; /* "N" or "P%" */
	const char *scope, *objective, *search;
	double delta, epsilon; /* racing's: a chance; a share of the budget */
	bool refine;
	double refine_work; /* a multiple of the search's work */
	bool full_trace, resume;
	const char *force_full, *pp_starts;
	int64_t pp;
	/* Others. */
	const char *pattern, *engine, *config_json, *svg, *shape;
	bool strict, dry_run, plan;
	/* verify's. */
	const char *junit, *from;
	int64_t quick; /* documents; 0: all at once */
	double tolerance;
	bool allow_model_change, accept;
	bool json, quiet, verbose, no_progress;
	const char *const *operands; /* words that are no options */
	int operand_count;
};

struct dsa_cli_command {
	const char *name, *operands, *summary, *text;
	const char *example; /* one command line per line */
};
extern const struct dsa_cli_command dsa_cli_commands[DSA_COMMANDS];

/* argv[0] is the command's name. What --config names is read first, into the arena. DSA_E_USAGE with what to do. *help:
 * --help was given. */
DSA_CHECKED enum dsa_status dsa_cli_parse(struct dsa_cli_options *options, enum dsa_command command, int argc,
                                          char **argv, bool *help, struct dsa_arena *arena, struct dsa_error *err);
/* [NAME=]PATH[:weight=W] → source; memory from the arena. */
DSA_CHECKED enum dsa_status dsa_cli_corpus(const char *value, struct dsa_corpus_source *source, struct dsa_arena *arena,
                                           struct dsa_error *err);
/* Budget for a model of `layers`; budget->… NaN and -1 where nothing was given. *given: any of them was. */
DSA_CHECKED enum dsa_status dsa_cli_budget(const struct dsa_cli_options *options, int layers, struct dsa_budget *budget,
                                           bool *given, struct dsa_error *err);
/* Sets config's index_precision to what --indexer-precision means for this model. */
DSA_CHECKED enum dsa_status dsa_cli_precision(const struct dsa_cli_options *options, struct dsa_model_config *config,
                                              struct dsa_error *err);
/* Layers that must stay F from --force-full, --pp-starts, --pp; locked (layers). */
/* The fastest place that layers may lie in. */
enum dsa_place dsa_cli_residency(const struct dsa_cli_options *options);
DSA_CHECKED enum dsa_status dsa_cli_locked(const struct dsa_cli_options *options, int layers, bool *locked,
                                           struct dsa_error *err);

#endif
