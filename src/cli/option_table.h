/* option_table.h: the rows of the option table, for those who read it: the parser, help, configuration files.
 *
 * One row says everything about an option: its name on the command line and in a configuration file, its type, where
 * its value lies in struct dsa_cli_options, which commands know it. */
#ifndef DSA_CLI_OPTION_TABLE_H
#define DSA_CLI_OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

enum dsa_option_kind { TEXT, LIST, COUNT, SIZE, REAL, PERCENT, FLAG, SWITCH, CHOICE };

#define DSA_OPTION_OF(command) (1u << (command))

struct dsa_option_row {
	const char *name;
	enum dsa_option_kind kind;
	size_t offset;
	const char *argument; /* CHOICE: "a|b|c"; SWITCH: the name that turns it off */
	const char *help;
	unsigned commands;
	bool configured; /* shapes the run: written into config.yaml */
};
extern const struct dsa_option_row dsa_option_table[]; /* (dsa_option_rows) */
extern const int dsa_option_rows;

/* A value as the command line writes it → the row's field; appended to a list; a switch: NULL or "true" on, "false"
 * off. value must live as long as options. DSA_E_USAGE with what was expected. */
DSA_CHECKED enum dsa_status dsa_option_store(struct dsa_cli_options *options, const struct dsa_option_row *row,
                                             const char *value, struct dsa_error *err);

/* False: text is no such value. */
bool dsa_option_count(const char *text, int64_t *out);
bool dsa_option_real(const char *text, double *out);
bool dsa_option_size(const char *text, uint64_t *out); /* 512M, 4GiB */
bool dsa_option_share(const char *text, double *out);  /* 25% or 0.25 */

#endif
