/* results_reader.h: what the halves of the results.json reader share: fields by name, errors that name the place.
 *
 * Each function takes *out = "absent" (0, NULL, as it says) for a member that is missing or null, and DSA_E_INPUT for
 * one of another type or out of range. */
#ifndef DSA_RESULTS_READER_H
#define DSA_RESULTS_READER_H

#include "dsa/arena.h"
#include "dsa/json.h"
#include "dsa/results.h"

enum { READER_PLACE = 320 /* bytes of "file: field" */ };

struct results_reader {
	struct dsa_results *results;
	struct dsa_arena *arena;
	struct dsa_error *err;
	const char *place;
};

enum dsa_status reader_wrong_type(const struct results_reader *reader, const char *place, const char *key,
                                  const json_t *found, const char *expected);
/* "place: key". */
void reader_below(char out[READER_PLACE], const char *place, const char *key);
enum dsa_status reader_object(const struct results_reader *reader, const json_t *parent, const char *place,
                              const char *key, const json_t **out);
enum dsa_status reader_array(const struct results_reader *reader, const json_t *parent, const char *place,
                             const char *key, size_t most, const json_t **out);
enum dsa_status reader_int(const struct results_reader *reader, const json_t *object, const char *place,
                           const char *key, int low, int high, int fallback, int *out);
enum dsa_status reader_count(const struct results_reader *reader, const json_t *object, const char *place,
                             const char *key, int64_t *out);
enum dsa_status reader_uint(const struct results_reader *reader, const json_t *object, const char *place,
                            const char *key, uint64_t *out);
enum dsa_status reader_copy(const struct results_reader *reader, const char *text, const char **out);
enum dsa_status reader_text(const struct results_reader *reader, const json_t *object, const char *place,
                            const char *key, const char **out);
enum dsa_status reader_pattern(const struct results_reader *reader, const json_t *object, const char *place,
                               const char *key, const char **out);

/* Into results->overlap, for the corpora read before. */
enum dsa_status results_read_overlap(const struct results_reader *reader, const json_t *root);

#endif
