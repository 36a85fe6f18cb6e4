/* status.h: how a function says that it failed.
 *
 * Every function that can fail returns enum dsa_status and fills one struct dsa_error where the cause is known.
 * The text is one line: where, what was found, what was expected, and what the user can do. Nobody above rewrites
 * it; a caller may only put its own place in front with dsa_error_prefix(). Programming mistakes are assert().
 * Nothing below src/cli prints or exits. */
#ifndef DSA_STATUS_H
#define DSA_STATUS_H

#include <stdarg.h>

enum dsa_status {
	DSA_OK = 0,
	DSA_E_USAGE,       /* the request is wrong: a flag, a budget, a pattern (exit 2) */
	DSA_E_INPUT,       /* a file is damaged, hostile or of an unknown kind (exit 3) */
	DSA_E_MEMORY,      /* host or device memory ran out (exit 3) */
	DSA_E_IO,          /* the system refused to read or write (exit 3) */
	DSA_E_DEVICE,      /* the accelerator failed or is missing (exit 3) */
	DSA_E_NUMERIC,     /* NaN or infinity where a finite number must be (exit 3) */
	DSA_E_INTERRUPTED, /* a signal was caught; the run can be resumed (exit 75) */
	DSA_E_MISSING,     /* the asked-for thing does not exist; used where absence is an answer, not a fault */
};

enum { DSA_ERROR_CHARS = 1024 };

struct dsa_error {
	char text[DSA_ERROR_CHARS]; /* NUL-terminated, one line, UTF-8 as far as the inputs were */
};

#define DSA_CHECKED __attribute__((warn_unused_result))
#define DSA_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Fills err (which may be NULL) and returns code. Control characters in the result become '?', so that a hostile
 * file name cannot break the one line. */
enum dsa_status dsa_fail(struct dsa_error *err, enum dsa_status code, const char *fmt, ...) DSA_PRINTF(3, 4);

/* Puts "prefix: " in front of the text already in err. */
void dsa_error_prefix(struct dsa_error *err, const char *fmt, ...) DSA_PRINTF(2, 3);

/* The exit status of the program for a result of code (design.md, exit status). */
int dsa_status_exit(enum dsa_status code);

#endif
