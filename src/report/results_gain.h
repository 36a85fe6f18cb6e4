/* results_gain.h: the gain object of results.json, both ways: measured costs are kept, rows follow from them. */
#ifndef DSA_RESULTS_GAIN_H
#define DSA_RESULTS_GAIN_H

#include "dsa/json_writer.h"
#include "results_reader.h"

/* null when a model dimension is unknown. */
void results_put_gain(struct dsa_json_writer *writer, const struct dsa_results *results);
enum dsa_status results_read_gain(const struct results_reader *reader, const json_t *root);

#endif
