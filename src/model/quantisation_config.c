#include "config_reader.h"

#include <stdio.h>
#include <string.h>

/* Far above any published block and far below what could overflow. */
enum { MAX_BLOCK = 1 << 16 };

static void read_block(struct config_reader *reader, struct dsa_model_config *config)
{
	const json_t *size = config_value(reader, "weight_block_size");
	int *const blocks[] = {&config->block_rows, &config->block_cols};
	if (!json_is_array(size) || json_array_size(size) != 2) {
		config_refuse(reader, "weight_block_size is %s, expected two sizes such as [128, 128]",
		              !size                 ? "missing"
		              : json_is_array(size) ? "a list of another length"
		                                    : dsa_json_type(size));
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		const json_t *value = json_array_get(size, i);
		json_int_t n = json_integer_value(value);
		if (!json_is_integer(value) || n < 1 || n > MAX_BLOCK) {
			config_refuse(reader, "weight_block_size[%zu] is no size from 1 to %d", i, MAX_BLOCK);
			return;
		}
		*blocks[i] = (int)n;
	}
}

/* What is not named here changes no number: which tensors are FP8 the files say themselves (modules_to_not_convert). */
void config_read_quantisation(struct config_reader *reader, struct dsa_model_config *config)
{
	char place[DSA_ERROR_CHARS];
	const json_t *object = config_value(reader, "quantization_config");
	if (!object || reader->status)
		return;
	if (!json_is_object(object)) {
		config_refuse(reader, "quantization_config is %s, expected an object", dsa_json_type(object));
		return;
	}
	snprintf(place, sizeof place, "%.900s: quantization_config", reader->place);
	struct config_reader inner = *reader;
	inner.object = object;
	inner.place = place;
	if (!config_value(&inner, "quant_method"))
		config_refuse(&inner, "quant_method is missing, only \"fp8\" is implemented");
	config_only_text(&inner, "quant_method", "fp8");
	config_only_text(&inner, "fmt", "e4m3");
	config_only_text(&inner, "activation_scheme", "dynamic");
	config_only_text(&inner, "scale_fmt", "ue8m0");
	if (!inner.status)
		read_block(&inner, config);
	config->scale_ue8m0 = config_value(&inner, "scale_fmt") != NULL;
	reader->status = inner.status;
}
