/* help.h: what the program says about itself on stdout, all of it from the tables of commands and options. */
#ifndef DSA_CLI_HELP_H
#define DSA_CLI_HELP_H

#include "options.h"

/* The help of a command, or of the program (DSA_CMD_HELP). */
void dsa_cli_help(enum dsa_command command);
/* The manual page, in roff's man macros; docs/dsacal.1 is this. Returns the exit status. */
int dsa_cli_man(void);

#endif
