#include "dsa/status.h"

#include <stdio.h>
#include <string.h>

/* A message is one line whatever the file names in it hold; bytes ≥ 0x80 stay, they may be UTF-8. */
static void flatten(char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c < 0x20 || c == 0x7f)
			*text = '?';
	}
}

enum dsa_status dsa_fail(struct dsa_error *err, enum dsa_status code, const char *fmt, ...)
{
	if (!err)
		return code;
	va_list args;
	va_start(args, fmt);
	/* Formatted aside: an argument may point into err itself. */
	char text[DSA_ERROR_CHARS];
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	flatten(text);
	memcpy(err->text, text, sizeof text);
	return code;
}

void dsa_error_prefix(struct dsa_error *err, const char *fmt, ...)
{
	if (!err)
		return;
	char prefix[DSA_ERROR_CHARS], rest[DSA_ERROR_CHARS];
	va_list args;
	va_start(args, fmt);
	vsnprintf(prefix, sizeof prefix, fmt, args);
	va_end(args);
	flatten(prefix);
	memcpy(rest, err->text, sizeof rest);
	size_t used = strlen(prefix);
	if (used > sizeof err->text / 2)
		used = sizeof err->text / 2;
	memcpy(err->text, prefix, used);
	snprintf(err->text + used, sizeof err->text - used, ": %.*s", (int)(sizeof err->text - used - 3), rest);
}

int dsa_status_exit(enum dsa_status code)
{
	switch (code) {
	case DSA_OK:
		return 0;
	case DSA_E_USAGE:
		return 2;
	case DSA_E_INTERRUPTED:
		return 75;
	case DSA_E_INPUT:
	case DSA_E_MEMORY:
	case DSA_E_IO:
	case DSA_E_DEVICE:
	case DSA_E_NUMERIC:
	case DSA_E_MISSING:
		break;
	}
	return 3;
}
