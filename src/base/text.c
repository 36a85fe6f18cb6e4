#include "dsa/text.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 4096, REPLACEMENT = 0xfffd, ELLIPSIS = 0x2026 };

void dsa_text_release(struct dsa_text *text)
{
	if (!text)
		return;
	free(text->data);
	*text = (struct dsa_text){0};
}

enum dsa_status dsa_text_check(const struct dsa_text *text, const char *what, struct dsa_error *err)
{
	if (text->failed)
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to build it past %zu bytes", what, text->bytes);
	return DSA_OK;
}

/* Room for `more` bytes and the NUL. */
static bool reserve(struct dsa_text *text, size_t more)
{
	if (text->failed)
		return false;
	if (more < text->room - text->bytes)
		return true;
	size_t room = text->room ? text->room : FIRST_ROOM;
	while (room - text->bytes <= more) {
		if (room > SIZE_MAX / 2) {
			text->failed = true;
			return false;
		}
		room *= 2;
	}
	char *grown = realloc(text->data, room);
	if (!grown) {
		text->failed = true;
		return false;
	}
	text->data = grown;
	text->room = room;
	return true;
}

void dsa_text_bytes(struct dsa_text *text, const void *data, size_t bytes)
{
	if (!reserve(text, bytes))
		return;
	if (bytes)
		memcpy(text->data + text->bytes, data, bytes);
	text->bytes += bytes;
	text->data[text->bytes] = 0;
}

void dsa_text_add(struct dsa_text *text, const char *string)
{
	dsa_text_bytes(text, string, strlen(string));
}

void dsa_text_printf(struct dsa_text *text, const char *fmt, ...)
{
	char small[512];
	va_list args, again;
	va_start(args, fmt);
	va_copy(again, args);
	int length = vsnprintf(small, sizeof small, fmt, args);
	va_end(args);
	assert(length >= 0);
	if ((size_t)length < sizeof small) {
		dsa_text_bytes(text, small, (size_t)length);
	} else if (reserve(text, (size_t)length)) {
		vsnprintf(text->data + text->bytes, (size_t)length + 1, fmt, again);
		text->bytes += (size_t)length;
	}
	va_end(again);
}

void dsa_text_real(struct dsa_text *text, double value)
{
	char digits[40];
	if (!isfinite(value)) {
		dsa_text_add(text, "null");
		return;
	}
	if (value == 0)
		value = 0; /* drops the sign */
	for (int precision = 15; precision <= 17; precision++) {
		snprintf(digits, sizeof digits, "%.*g", precision, value);
		if (strtod(digits, NULL) == value)
			break;
	}
	dsa_text_add(text, value == 0 ? "0" : digits);
}

/* Rounding first decides the decimals: 0.09996 to three digits is 0.100, not 0.1000. */
static void figure(struct dsa_text *text, double value, int significant)
{
	char rounded[32], digits[64];
	double size = fabs(value);
	if (!isfinite(value) || size == 0) {
		dsa_text_add(text, size == 0 ? "0" : "–");
		return;
	}
	snprintf(rounded, sizeof rounded, "%.*e", significant - 1, size);
	char *exponent = strchr(rounded, 'e');
	int power = atoi(exponent + 1), decimals = significant - 1 - power;
	if (size >= 1e-4 && size < 1e6) {
		snprintf(digits, sizeof digits, "%.*f", decimals > 0 ? decimals : 0, size);
	} else {
		*exponent = 0;
		snprintf(digits, sizeof digits, "%se%d", rounded, power);
	}
	if (value < 0)
		dsa_text_add(text, "−");
	dsa_text_add(text, digits);
}

void dsa_text_figure(struct dsa_text *text, double value)
{
	figure(text, value, 3);
}

void dsa_text_error(struct dsa_text *text, double value)
{
	figure(text, value, 2);
}

uint32_t dsa_utf8_next(const char **at)
{
	const unsigned char *s = (const unsigned char *)*at;
	assert(*s);
	int more = s[0] < 0x80 ? 0 : s[0] >= 0xc2 && s[0] < 0xe0 ? 1 : (s[0] & 0xf0) == 0xe0 ? 2 : -1;
	if (s[0] >= 0xf0 && s[0] < 0xf5)
		more = 3;
	*at += 1;
	if (more < 0)
		return REPLACEMENT;
	uint32_t point = more == 0 ? s[0] : s[0] & (0x3fu >> more);
	for (int i = 1; i <= more; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the NUL stops here too */
			return REPLACEMENT;
		point = point << 6 | (s[i] & 0x3fu);
	}
	bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
	if (overlong || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
		return REPLACEMENT;
	*at += more;
	return point;
}

static void add_point(struct dsa_text *text, uint32_t point)
{
	char bytes[4];
	size_t count;
	if (point < 0x80) {
		bytes[0] = (char)point;
		count = 1;
	} else if (point < 0x800) {
		bytes[0] = (char)(0xc0 | point >> 6);
		bytes[1] = (char)(0x80 | (point & 0x3f));
		count = 2;
	} else if (point < 0x10000) {
		bytes[0] = (char)(0xe0 | point >> 12);
		bytes[1] = (char)(0x80 | (point >> 6 & 0x3f));
		bytes[2] = (char)(0x80 | (point & 0x3f));
		count = 3;
	} else {
		bytes[0] = (char)(0xf0 | point >> 18);
		bytes[1] = (char)(0x80 | (point >> 12 & 0x3f));
		bytes[2] = (char)(0x80 | (point >> 6 & 0x3f));
		bytes[3] = (char)(0x80 | (point & 0x3f));
		count = 4;
	}
	dsa_text_bytes(text, bytes, count);
}

void dsa_text_utf8(struct dsa_text *text, const char *string)
{
	while (*string)
		add_point(text, dsa_utf8_next(&string));
}

void dsa_text_json(struct dsa_text *text, const char *string)
{
	if (!string) {
		dsa_text_add(text, "null");
		return;
	}
	dsa_text_add(text, "\"");
	while (*string) {
		uint32_t point = dsa_utf8_next(&string);
		if (point == '"' || point == '\\')
			dsa_text_printf(text, "\\%c", (char)point);
		else if (point == '\n')
			dsa_text_add(text, "\\n");
		else if (point == '\t')
			dsa_text_add(text, "\\t");
		/* Line separators end a line for JavaScript and some loggers. */
		else if (point < 0x20 || point == 0x7f || point == 0x2028 || point == 0x2029)
			dsa_text_printf(text, "\\u%04x", (unsigned)point);
		else
			add_point(text, point);
	}
	dsa_text_add(text, "\"");
}

static void markup_point(struct dsa_text *text, uint32_t point)
{
	if (point == '&')
		dsa_text_add(text, "&amp;");
	else if (point == '<')
		dsa_text_add(text, "&lt;");
	else if (point == '>')
		dsa_text_add(text, "&gt;");
	else if (point == '"')
		dsa_text_add(text, "&quot;");
	else if (point == '\'')
		dsa_text_add(text, "&#39;");
	else if (point == '\t' || point == '\n')
		dsa_text_printf(text, "&#%u;", (unsigned)point);
	else if (point < 0x20)
		add_point(text, 0x2400 + point);
	else if (point == 0x7f)
		add_point(text, 0x2421);
	/* C1 controls and non-characters are errors in HTML or XML or both. */
	else if (point < 0xa0 && point >= 0x80)
		add_point(text, REPLACEMENT);
	else if ((point & 0xfffe) == 0xfffe || (point >= 0xfdd0 && point <= 0xfdef))
		add_point(text, REPLACEMENT);
	else
		add_point(text, point);
}

void dsa_text_markup(struct dsa_text *text, const char *string)
{
	while (string && *string)
		markup_point(text, dsa_utf8_next(&string));
}

void dsa_text_markup_cut(struct dsa_text *text, const char *string, int most)
{
	for (int i = 0; string && *string; i++) {
		if (i == most) {
			add_point(text, ELLIPSIS);
			return;
		}
		markup_point(text, dsa_utf8_next(&string));
	}
}
