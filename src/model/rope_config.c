#include "config_reader.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Formulas: HF transformers, modeling_rope_utils (_compute_default_rope_parameters, _compute_yarn_parameters), in its
 * own order and in float32 where it uses float32, so that the tables agree with it to the last bit or nearly so. */

static const double pi = 3.14159265358979323846;

static double yarn_mscale(double factor, double mscale)
{
	return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* The dimension (of r) whose wave makes `rotations` turns within the original context. */
static double correction_dim(int r, double rotations, double original, double theta)
{
	return r * log(original / (rotations * 2 * pi)) / (2 * log(theta));
}

static float wave(const struct dsa_model_config *config, double theta, int i)
{
	return (float)pow(theta, (float)(2 * i) / (float)config->rope);
}

static void read_yarn(struct config_reader *rope, struct dsa_model_config *config, double theta, double original)
{
	int r = config->rope;
	double factor = config_real(rope, "factor", 0);
	double fast = config_real(rope, "beta_fast", 0), slow = config_real(rope, "beta_slow", 0);
	double mscale = config_real(rope, "mscale", 0), mscale_all = config_real(rope, "mscale_all_dim", 0);
	double attention_factor = config_real(rope, "attention_factor", 0);
	bool truncate = config_bool(rope, "truncate", true);
	fast = fast == 0 ? 32 : fast;
	slow = slow == 0 ? 1 : slow;
	if (rope->status)
		return;
	if (!config_value(rope, "factor"))
		config_refuse(rope, "factor is missing, yarn needs it");
	else if (!(factor >= 1 && factor <= 1e6))
		config_refuse(rope, "factor is %g, expected 1 to 1e6", factor);
	else if (!(original >= 1 && original <= 1e9))
		config_refuse(rope, "original_max_position_embeddings is %g, expected 1 to 1e9", original);
	else if (!(slow > 0 && fast > 0 && slow <= 1e9 && fast <= 1e9))
		config_refuse(rope, "beta_fast %g and beta_slow %g, expected positive numbers", fast, slow);
	else if (fabs(mscale) > 1e3 || fabs(mscale_all) > 1e3)
		config_refuse(rope, "mscale %g and mscale_all_dim %g, expected at most 1000", mscale, mscale_all);
	else if (config_value(rope, "attention_factor") && !(attention_factor > 0 && attention_factor <= 1e3))
		config_refuse(rope, "attention_factor is %g, expected more than 0 and at most 1000", attention_factor);
	if (rope->status)
		return;

	double low = correction_dim(r, fast, original, theta), high = correction_dim(r, slow, original, theta);
	if (truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = low < 0 ? 0 : low;
	high = high > r - 1 ? r - 1 : high;
	if (low == high)
		high += 0.001;
	for (int i = 0; i < r / 2; i++) {
		float ramp = ((float)i - (float)low) / (float)(high - low);
		ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
		float keep = 1 - ramp, pos = wave(config, theta, i);
		config->inv_freq[i] = (float)(1 / ((float)factor * pos)) * (1 - keep) + 1 / pos * keep;
	}
	/* The quotient only if both are given and not zero; one alone changes nothing here. */
	if (config_value(rope, "attention_factor"))
		config->rope_scale = attention_factor;
	else if (mscale != 0 && mscale_all != 0)
		config->rope_scale = yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all);
	else
		config->rope_scale = yarn_mscale(factor, 1);
	if (mscale_all != 0) {
		double m = yarn_mscale(factor, mscale_all);
		config->attention_scale *= m * m;
	}
	if (!(isfinite(config->rope_scale) && config->rope_scale > 0) || !(config->attention_scale > 0))
		config_refuse(rope, "mscale %g and mscale_all_dim %g give a scale that is not positive", mscale,
		              mscale_all);
}

void config_read_rope(struct config_reader *reader, struct dsa_model_config *config)
{
	if (reader->status)
		return;
	int r = config->rope;
	config->inv_freq =
	    dsa_arena_alloc(reader->arena, (size_t)r / 2, sizeof *config->inv_freq, "rotary tables", reader->err);
	if (!config->inv_freq) {
		reader->status = DSA_E_MEMORY;
		return;
	}
	/* The old spelling wins where both are given, as in transformers. */
	const char *key = "rope_scaling";
	const json_t *value = config_value(reader, key);
	if (!value || json_object_size(value) == 0) {
		if (value && !json_is_object(value))
			config_refuse(reader, "%s is %s, expected an object", key, dsa_json_type(value));
		key = "rope_parameters";
		value = config_value(reader, key);
	}
	if (value && !json_is_object(value))
		config_refuse(reader, "%s is %s, expected an object", key, dsa_json_type(value));
	char place[DSA_ERROR_CHARS];
	snprintf(place, sizeof place, "%.900s: %s", reader->place, key);
	struct config_reader rope = *reader;
	rope.object = value;
	rope.place = place;

	const char *type = "default", *name;
	const json_t *member;
	json_object_foreach((json_t *)(uintptr_t)value, name, member)
	{
		if (json_is_object(member))
			config_refuse(&rope, "%.64s is an object; rotary parameters per layer type are not implemented",
			              name);
	}
	double theta = config_real(&rope, "rope_theta", config_real(reader, "rope_theta", 10000));
	double partial = config_real(&rope, "partial_rotary_factor", config_real(reader, "partial_rotary_factor", 1));
	if (!rope.status)
		rope.status = dsa_json_text(value, place, "type", "default", &type, rope.err);
	if (!rope.status)
		rope.status = dsa_json_text(value, place, "rope_type", type, &type, rope.err);
	if (reader->status)
		rope.status = reader->status;
	if (!(theta > 1 && theta <= 1e15))
		config_refuse(&rope, "rope_theta is %g, expected more than 1 and at most 1e15", theta);
	if (partial != 1)
		config_refuse(&rope, "partial_rotary_factor is %g, only 1 is implemented", partial);
	config->attention_scale = 1 / sqrt((double)config->nope + r);
	config->rope_scale = 1;
	if (rope.status)
		goto done;
	if (!strcmp(type, "default")) {
		for (int i = 0; i < r / 2; i++)
			config->inv_freq[i] = 1 / wave(config, theta, i);
	} else if (!strcmp(type, "yarn")) {
		/* Beside the object it beats the object's own, as in transformers. */
		double beside = config_real(reader, "original_max_position_embeddings", 0);
		rope.status = reader->status;
		double inside = config_real(&rope, "original_max_position_embeddings", config->max_positions);
		read_yarn(&rope, config, theta, beside != 0 ? beside : inside);
	} else {
		config_refuse(&rope, "rope_type \"%.64s\" is not implemented, only \"default\" and \"yarn\" are", type);
	}
done:
	reader->status = rope.status;
}

void dsa_rope_tables(const struct dsa_model_config *config, int context, float *cosine, float *sine)
{
	int half = config->rope / 2;
	float scale = (float)config->rope_scale;
	for (int t = 0; t < context; t++) {
		for (int i = 0; i < half; i++) {
			float angle = (float)config->inv_freq[i] * (float)t;
			cosine[(int64_t)t * half + i] = (float)cos((double)angle) * scale;
			sine[(int64_t)t * half + i] = (float)sin((double)angle) * scale;
		}
	}
}
