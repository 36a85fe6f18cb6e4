/* junit.h: a verification as JUnit XML, which CI systems show check by check.
 *
 * One testsuite for all corpora and, where there are several, one per corpus; one testcase per check. A check that got
 * worse is a <failure>, one that could not be compared <skipped>; what could not be measured at all is one testcase
 * with an <error>. The bytes follow from the verification: no time, no host. Names may hold anything (text.h). */
#ifndef DSA_JUNIT_H
#define DSA_JUNIT_H

#include "dsa/verify_text.h"

void dsa_junit_write(struct dsa_text *text, const struct dsa_verify_report *report);
/* file: of the pattern, NULL if none was named. message: the error's one line. type: its kind, as "refused". */
void dsa_junit_write_error(struct dsa_text *text, const char *file, const char *type, const char *message);

#endif
