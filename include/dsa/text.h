/* text.h: a growing byte buffer in which result files are built before they are written at once.
 *
 * Start with {0}; release with dsa_text_release(). Appending never fails visibly: when memory runs out the buffer is
 * marked and drops what follows, and dsa_text_check() says so once at the end. The bytes are always NUL-terminated once
 * anything was appended. The escaping functions turn any bytes into valid UTF-8 of their format: what is not UTF-8
 * becomes U+FFFD, so a hostile name can neither break a file nor leave it. */
#ifndef DSA_TEXT_H
#define DSA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dsa/status.h"

struct dsa_text {
	char *data; /* (bytes) and a NUL; NULL while nothing was appended */
	size_t bytes, room;
	bool failed; /* memory ran out: the content is not complete */
};

void dsa_text_release(struct dsa_text *text);
/* DSA_E_MEMORY when anything could not be appended; what: "results.json". */
DSA_CHECKED enum dsa_status dsa_text_check(const struct dsa_text *text, const char *what, struct dsa_error *err);

void dsa_text_bytes(struct dsa_text *text, const void *data, size_t bytes);
void dsa_text_add(struct dsa_text *text, const char *string);
void dsa_text_printf(struct dsa_text *text, const char *fmt, ...) DSA_PRINTF(2, 3);

/* The shortest decimal of at most 17 significant digits that reads back as the same double; "null" for NaN and
 * infinities, "0" for -0 (JSON readers lose its sign). */
void dsa_text_real(struct dsa_text *text, double value);
/* For people: three significant digits, plain from 1e-4 up to 1e6, else 1.23e-7; a dash for NaN. */
void dsa_text_figure(struct dsa_text *text, double value);
/* The same with two digits, which is what a standard error deserves. */
void dsa_text_error(struct dsa_text *text, double value);
/* Valid UTF-8, otherwise unchanged. */
void dsa_text_utf8(struct dsa_text *text, const char *string);
/* A JSON string, quotes included; NULL is null. */
void dsa_text_json(struct dsa_text *text, const char *string);
/* Text or a quoted attribute of HTML5 and XML alike; control characters become the pictures of U+2400. NULL is "". */
void dsa_text_markup(struct dsa_text *text, const char *string);
/* The same, cut with an ellipsis after `most` code points. */
void dsa_text_markup_cut(struct dsa_text *text, const char *string, int most);

/* The code point at *at, which advances past it; U+FFFD for a byte that starts no well-formed sequence. *at must not
 * be at its NUL. */
uint32_t dsa_utf8_next(const char **at);

#endif
