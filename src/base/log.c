#include "dsa/log.h"

#include <stdio.h>

void dsa_log_line(const struct dsa_log *log, enum dsa_log_level level, const char *fmt, ...)
{
	if (!log || !log->line)
		return;
	char text[DSA_ERROR_CHARS];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	log->line(log->context, level, text);
}
