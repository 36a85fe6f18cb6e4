/* log.h: what modules have to say while they work, without printing.
 *
 * A struct dsa_log is handed down; src/cli decides whether a line goes to the terminal, to log.txt or nowhere.
 * NULL is a valid log and drops everything. */
#ifndef DSA_LOG_H
#define DSA_LOG_H

#include "dsa/status.h"

enum dsa_log_level { DSA_LOG_DEBUG, DSA_LOG_INFO, DSA_LOG_WARN };

struct dsa_log {
	void (*line)(void *context, enum dsa_log_level level, const char *text); /* text: one line, no newline */
	void *context;
};

void dsa_log_line(const struct dsa_log *log, enum dsa_log_level level, const char *fmt, ...) DSA_PRINTF(3, 4);

#endif
