/* fake_tokenizer.h: a tokenizer whose ids are known by heart: with special tokens 1 first, then 3 + byte for each byte.
 * It stands in for the real one in programs that include it, so that corpora are tested apart from BPE. */
#ifndef DSA_TESTS_FAKE_TOKENIZER_H
#define DSA_TESTS_FAKE_TOKENIZER_H

#include "dsa/tokenizer.h"

enum { FAKE_VOCAB = 259 };

struct dsa_tokenizer {
	int unused;
};

enum dsa_status dsa_tokenizer_encode(const struct dsa_tokenizer *tokenizer, const char *text, size_t bytes,
                                     bool with_special, struct dsa_ids *ids, struct dsa_error *err)
{
	(void)tokenizer;
	enum dsa_status status = with_special ? dsa_ids_append(ids, 1, err) : DSA_OK;
	for (size_t i = 0; i < bytes && !status; i++) {
		if ((uint8_t)text[i] == 0xff)
			return dsa_fail(err, DSA_E_INPUT, "invalid UTF-8 at byte %zu", i);
		status = dsa_ids_append(ids, 3 + (uint8_t)text[i], err);
	}
	return status;
}

#endif
