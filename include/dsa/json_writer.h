/* json_writer.h: JSON text, key by key, into a dsa_text.
 *
 * The writer places commas, newlines and indentation and nothing else, so a file's names and their order are read off
 * the code that calls it. Containers nested deeper than `lines` levels stay on one line: a matrix row, a candidate.
 * Keys are NULL inside arrays. Numbers that are not finite become null. */
#ifndef DSA_JSON_WRITER_H
#define DSA_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/text.h"

enum { DSA_JSON_WRITER_DEPTH = 16 };

struct dsa_json_writer {
	struct dsa_text *text;
	int lines; /* containers opened at a depth below this put each member on its own line */
	int depth;
	bool filled[DSA_JSON_WRITER_DEPTH];    /* the open container has a member */
	char closing[DSA_JSON_WRITER_DEPTH];   /* '}' or ']' */
	bool broken_up[DSA_JSON_WRITER_DEPTH]; /* its members have their own lines */
};

void dsa_json_writer_init(struct dsa_json_writer *writer, struct dsa_text *text, int lines);
void dsa_json_object(struct dsa_json_writer *writer, const char *key);
void dsa_json_array(struct dsa_json_writer *writer, const char *key);
/* Ends the innermost container; the outermost ends with a newline. */
void dsa_json_end(struct dsa_json_writer *writer);
void dsa_json_put_text(struct dsa_json_writer *writer, const char *key, const char *value); /* NULL: null */
void dsa_json_put_int(struct dsa_json_writer *writer, const char *key, int64_t value);
/* Past INT64_MAX as a string of digits, which JSON readers keep. */
void dsa_json_put_uint(struct dsa_json_writer *writer, const char *key, uint64_t value);
void dsa_json_put_real(struct dsa_json_writer *writer, const char *key, double value);
void dsa_json_put_bool(struct dsa_json_writer *writer, const char *key, bool value);
void dsa_json_put_null(struct dsa_json_writer *writer, const char *key);

#endif
