/* config_reader.h: config.json's fields, read one after another with the first failure kept.
 *
 * Private to src/model. A reader whose status is not DSA_OK answers every further question with the fallback, so that a
 * list of fields needs no check per line; the caller looks at status once at the end. */
#ifndef DSA_CONFIG_READER_H
#define DSA_CONFIG_READER_H

#include "dsa/json.h"
#include "dsa/model_config.h"

struct config_reader {
	const json_t *object;
	const char *place; /* for messages: "DIR/config.json", "DIR/config.json: rope_scaling" */
	struct dsa_arena *arena;
	struct dsa_error *err;
	enum dsa_status status;
};

/* Absent and null give the fallback; low … high inclusive. */
int config_int(struct config_reader *reader, const char *key, int low, int high, int fallback);
double config_real(struct config_reader *reader, const char *key, double fallback);
bool config_bool(struct config_reader *reader, const char *key, bool fallback);
/* Refuses, naming key and value, every text but `only`. */
void config_only_text(struct config_reader *reader, const char *key, const char *only);
void config_only_bool(struct config_reader *reader, const char *key, bool only);
/* The value, NULL where it is absent or null. */
const json_t *config_value(const struct config_reader *reader, const char *key);
/* Sets the status unless one is set already. */
void config_refuse(struct config_reader *reader, const char *fmt, ...) DSA_PRINTF(2, 3);

/* rope_config.c: fills inv_freq, rope_scale and attention_scale; config's rope, nope and max_positions are read. */
void config_read_rope(struct config_reader *reader, struct dsa_model_config *config);
/* quantisation_config.c: fills block_rows, block_cols and scale_ue8m0. */
void config_read_quantisation(struct config_reader *reader, struct dsa_model_config *config);
/* pattern_config.c: fills native and native_is_explicit. */
void config_read_pattern(struct config_reader *reader, struct dsa_model_config *config);

/* rope_config.c: cos and sin (context, r/2), row = position, times rope_scale. Angles are products of float32 numbers,
 * as transformers computes them: at position 100,000 that rounds by up to 4e-3, which the reference shows too. */
void dsa_rope_tables(const struct dsa_model_config *config, int context, float *cosine, float *sine);

#endif
