/* github.h: a verification as GitHub Actions shows it: a step summary in Markdown, and one annotation.
 *
 * Text from files stands in the summary as character references, so it can neither format nor link nor mention; in the
 * annotation it is escaped as workflow commands are. */
#ifndef DSA_GITHUB_H
#define DSA_GITHUB_H

#include "dsa/verify_text.h"

/* A heading, the verdict, and a table of the checks; ends with an empty line, so that others may append. */
void dsa_github_summary(struct dsa_text *text, const struct dsa_verify_report *report);
void dsa_github_summary_error(struct dsa_text *text, const char *file, const char *message);
/* One line "::error …"; or "::warning …" when nothing is worse and something moved for the better; else nothing. */
void dsa_github_annotation(struct dsa_text *text, const struct dsa_verify_report *report);
void dsa_github_annotation_error(struct dsa_text *text, const char *file, const char *message);

#endif
