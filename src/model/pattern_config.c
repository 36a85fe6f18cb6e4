#include "config_reader.h"

#include <string.h>

/* Engines write letters, transformers writes words; both appear in lists. */
static char layer_letter(const char *word)
{
	if (!strcmp(word, "full") || !strcmp(word, "F"))
		return 'F';
	if (!strcmp(word, "shared") || !strcmp(word, "S"))
		return 'S';
	return 0;
}

static void read_letters(struct config_reader *reader, const char *key, const json_t *text, int layers, char *native)
{
	const char *letters = json_string_value(text);
	size_t length = json_string_length(text);
	if (length != (size_t)layers) {
		config_refuse(reader, "%s has %zu letters, expected one for each of the %d layers", key, length,
		              layers);
		return;
	}
	for (int l = 0; l < layers; l++) {
		if (letters[l] != 'F' && letters[l] != 'S') {
			config_refuse(reader, "%s holds '%c' at layer %d, expected F or S", key, letters[l], l);
			return;
		}
		native[l] = letters[l];
	}
}

static void read_list(struct config_reader *reader, const char *key, const json_t *list, int layers, char *native)
{
	size_t length = json_array_size(list);
	if (length != (size_t)layers) {
		config_refuse(reader, "%s has %zu entries, expected one for each of the %d layers", key, length,
		              layers);
		return;
	}
	for (int l = 0; l < layers; l++) {
		const char *word = json_string_value(json_array_get(list, (size_t)l));
		native[l] = word ? layer_letter(word) : 0;
		if (!native[l]) {
			config_refuse(reader, "%s[%d] is %s%.32s, expected \"full\", \"shared\", \"F\" or \"S\"", key,
			              l, word ? "" : dsa_json_type(json_array_get(list, (size_t)l)), word ? word : "");
			return;
		}
	}
}

void config_read_pattern(struct config_reader *reader, struct dsa_model_config *config)
{
	int layers = config->layers;
	if (reader->status)
		return;
	config->native = dsa_arena_alloc(reader->arena, (size_t)layers + 1, 1, "the native pattern", reader->err);
	if (!config->native) {
		reader->status = DSA_E_MEMORY;
		return;
	}
	const char *key = "indexer_types";
	const json_t *value = config_value(reader, key);
	if (!value) {
		key = "index_topk_pattern";
		value = config_value(reader, key);
	}
	if (json_is_string(value)) {
		read_letters(reader, key, value, layers, config->native);
	} else if (json_is_array(value)) {
		read_list(reader, key, value, layers, config->native);
	} else if (value) {
		config_refuse(reader, "%s is %s, expected a list or a string with one entry per layer", key,
		              dsa_json_type(value));
	} else {
		key = "index_topk_freq";
		int freq = config_int(reader, key, 0, DSA_MAX_LAYERS, 1);
		int offset = config_int(reader, "index_skip_topk_offset", -DSA_MAX_LAYERS, DSA_MAX_LAYERS, 2);
		if (freq < 1)
			freq = 1;
		for (int l = 0; l < layers; l++) {
			int since = l - offset + 1 > 0 ? l - offset + 1 : 0;
			config->native[l] = since % freq == 0 ? 'F' : 'S';
		}
		config->native_is_explicit = freq > 1;
	}
	if (value)
		config->native_is_explicit = true;
	if (!reader->status && config->native[0] == 'S')
		config_refuse(reader, "%s makes layer 0 shared, but no layer comes before it to share from", key);
}
