#include "dsa/pattern.h"

#include <assert.h>
#include <string.h>

enum dsa_status dsa_pattern_check(const char *pattern, int layers, const char *what, struct dsa_error *err)
{
	for (size_t l = 0; pattern[l]; l++)
		if (pattern[l] != 'F' && pattern[l] != 'S')
			return dsa_fail(err, DSA_E_USAGE,
			                "%s: layer %zu of the pattern is '%c', expected F (full) or S (shared)", what,
			                l, pattern[l]);
	size_t length = strlen(pattern);
	if (length != (size_t)layers)
		return dsa_fail(err, DSA_E_USAGE, "%s: the pattern has %zu layers, the model has %d", what, length,
		                layers);
	if (pattern[0] == 'S')
		return dsa_fail(err, DSA_E_USAGE,
		                "%s: layer 0 of the pattern is S, but no layer before it has a selection to share; "
		                "the first layer must be F",
		                what);
	return DSA_OK;
}

int dsa_pattern_shared(const char *pattern)
{
	int shared = 0;
	for (; *pattern; pattern++)
		shared += *pattern == 'S';
	return shared;
}

int dsa_pattern_source(const char *pattern, int layer)
{
	while (pattern[layer] == 'S') {
		assert(layer > 0);
		layer--;
	}
	return layer;
}

void dsa_pattern_uniform(char *out, int layers, int period, const char *native, const bool *force_full)
{
	assert(period > 0);
	for (int l = 0; l < layers; l++) {
		bool full = l % period == 0 || (force_full && force_full[l]);
		/* A native S layer carries no indexer: nothing can make it full. */
		out[l] = full && native[l] != 'S' ? 'F' : 'S';
	}
	out[layers] = 0;
}

int dsa_pattern_common(const char *a, const char *b)
{
	int common = 0;
	while (a[common] && a[common] == b[common])
		common++;
	return common;
}

bool dsa_pattern_respects(const char *pattern, const char *native)
{
	for (; *pattern && *native; pattern++, native++)
		if (*native == 'S' && *pattern != 'S')
			return false;
	return true;
}
