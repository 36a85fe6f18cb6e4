/* summary.h: what a command says on stdout when it is done: a few lines for people, or JSON. */
#ifndef DSA_CLI_SUMMARY_H
#define DSA_CLI_SUMMARY_H

#include <stdbool.h>

#include "dsa/results.h"
#include "dsa/text.h"

/* run: where the files are, NULL if there are none. */
DSA_CHECKED enum dsa_status dsa_print_results(const struct dsa_results *results, const char *run, bool json,
                                              struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_print_evaluation(const struct dsa_results *results, enum dsa_bound broken, bool json,
                                                 struct dsa_error *err);
/* Checks text, prints it on stdout, releases it. what: for the message. */
DSA_CHECKED enum dsa_status dsa_print_text(struct dsa_text *text, const char *what, struct dsa_error *err);

#endif
