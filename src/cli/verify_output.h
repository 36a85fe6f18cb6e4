/* verify_output.h: where a verification's answer goes: stdout, --junit, and GitHub's step summary and annotation. */
#ifndef DSA_CLI_VERIFY_OUTPUT_H
#define DSA_CLI_VERIFY_OUTPUT_H

#include "dsa/verify_text.h"
#include "options.h"
#include "terminal.h"

DSA_CHECKED enum dsa_status dsa_verify_output(const struct dsa_verify_report *report,
                                              const struct dsa_cli_options *options, struct dsa_terminal *terminal,
                                              struct dsa_error *err);
/* What could not be measured is told to the same places, but for stdout; err stays the caller's to print. */
void dsa_verify_output_error(enum dsa_status code, const struct dsa_error *err, const struct dsa_cli_options *options,
                             struct dsa_terminal *terminal);

#endif
