#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* utf8proc decomposes and composes; reordering is done here because its own sorts a run of n marks in n² steps, and a
 * hostile document can hold a megabyte of them. */

enum { SHORT_RUN = 24, MAX_DECOMPOSITION = 16, CLASSES = 256 };

static unsigned combining_class(int32_t code)
{
	/* Narrow: a bit field in some versions of the library. */
	return (unsigned)utf8proc_get_property(code)->combining_class & 0xffu;
}

static enum dsa_status reserve(struct dsa_nfc_scratch *scratch, size_t count, struct dsa_error *err)
{
	if (count <= scratch->room)
		return DSA_OK;
	size_t wider = count < 512 ? 1024 : 2 * count;
	int32_t *codes = dsa_alloc(wider, sizeof *codes, "normalizing a text", err);
	int32_t *sorted = codes ? dsa_alloc(wider, sizeof *sorted, "normalizing a text", err) : NULL;
	if (!sorted) {
		free(codes);
		return DSA_E_MEMORY;
	}
	if (scratch->room)
		memcpy(codes, scratch->codes, scratch->room * sizeof *codes);
	free(scratch->codes);
	free(scratch->sorted);
	scratch->codes = codes;
	scratch->sorted = sorted;
	scratch->room = wider;
	return DSA_OK;
}

/* Stable sort by class of a run of marks. */
static void sort_run(int32_t *run, size_t count, int32_t *sorted)
{
	if (count <= SHORT_RUN) {
		for (size_t i = 1; i < count; i++) {
			int32_t code = run[i];
			unsigned rank = combining_class(code);
			size_t j = i;
			for (; j > 0 && combining_class(run[j - 1]) > rank; j--)
				run[j] = run[j - 1];
			run[j] = code;
		}
		return;
	}
	size_t start[CLASSES + 1] = {0};
	for (size_t i = 0; i < count; i++)
		start[combining_class(run[i]) + 1]++;
	for (size_t c = 0; c < CLASSES; c++)
		start[c + 1] += start[c];
	for (size_t i = 0; i < count; i++)
		sorted[start[combining_class(run[i])]++] = run[i];
	memcpy(run, sorted, count * sizeof *run);
}

static enum dsa_status flush(struct dsa_nfc_scratch *scratch, size_t *count, struct dsa_error *err)
{
	int32_t *codes = scratch->codes;
	for (size_t i = 0; i < *count;) {
		size_t end = i;
		while (end < *count && combining_class(codes[end]))
			end++;
		if (end - i > 1)
			sort_run(codes + i, end - i, scratch->sorted);
		i = end + 1;
	}
	utf8proc_ssize_t composed =
	    *count ? utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)*count, UTF8PROC_STABLE | UTF8PROC_COMPOSE) : 0;
	*count = 0;
	if (composed < 0)
		return dsa_fail(err, DSA_E_MEMORY, "cannot normalize a text: %s", utf8proc_errmsg(composed));
	for (utf8proc_ssize_t i = 0; i < composed; i++) {
		utf8proc_uint8_t bytes[4];
		utf8proc_ssize_t length = utf8proc_encode_char(codes[i], bytes);
		dsa_text_bytes(&scratch->out, bytes, (size_t)length);
	}
	return DSA_OK;
}

enum dsa_status dsa_nfc_apply(struct dsa_nfc_scratch *scratch, const char *text, size_t bytes, const char **result,
                              size_t *result_bytes, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	size_t at = 0, count = 0;
	*result = text;
	*result_bytes = bytes;
	/* Below U+0300, whose first byte is 0xcc, every text is in NFC. */
	while (at < bytes && (unsigned char)text[at] < 0xcc)
		at++;
	if (at == bytes)
		return DSA_OK;
	/* A mark composes with what stands before it: start again at the last ASCII character. */
	while (at > 0 && (unsigned char)text[at] >= 0x80)
		at--;
	dsa_text_reset(&scratch->out);
	dsa_text_bytes(&scratch->out, text, at);
	while (!status && at < bytes) {
		uint32_t code;
		size_t length = dsa_utf8_decode(text + at, &code);
		/* No ASCII character composes with what precedes it, and no inert one with anything. */
		if (count && (length == 1 || dsa_unicode_is_inert(code)))
			status = flush(scratch, &count, err);
		if (status)
			break;
		if (length == 1) {
			size_t end = at + 1;
			while (end < bytes && (unsigned char)text[end] < 0x80)
				end++;
			dsa_text_bytes(&scratch->out, text + at, end - 1 - at);
			at = end - 1;
			code = (unsigned char)text[at];
		} else if (dsa_unicode_is_inert(code)) {
			dsa_text_bytes(&scratch->out, text + at, length);
			at += length;
			continue;
		}
		if (!status)
			status = reserve(scratch, count + MAX_DECOMPOSITION, err);
		if (status)
			break;
		utf8proc_ssize_t parts =
		    utf8proc_decompose_char((utf8proc_int32_t)code, scratch->codes + count, MAX_DECOMPOSITION,
		                            UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
		if (parts < 0 || parts > MAX_DECOMPOSITION)
			return dsa_fail(err, DSA_E_INPUT, "cannot normalize U+%04X: %s", code, utf8proc_errmsg(parts));
		count += (size_t)parts;
		at += length;
	}
	if (!status)
		status = flush(scratch, &count, err);
	if (!status)
		status = dsa_text_check(&scratch->out, "a normalized text", err);
	*result = scratch->out.data;
	*result_bytes = scratch->out.bytes;
	return status;
}

void dsa_nfc_release(struct dsa_nfc_scratch *scratch)
{
	free(scratch->codes);
	free(scratch->sorted);
	dsa_text_release(&scratch->out);
	*scratch = (struct dsa_nfc_scratch){0};
}
