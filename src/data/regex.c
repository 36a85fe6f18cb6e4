#include "tokenizer_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A pattern is written for Oniguruma (Ruby's dialect) and run by PCRE2. Most of it means the same to both. What does
 * not is rewritten:
 *   \s \S       PCRE2 counts U+180E as a space, Unicode and Oniguruma do not: explicit classes
 *   \d \D       \p{Nd}, \P{Nd}
 *   \v          the vertical tab, not a class
 *   \uHHHH      \x{HHHH}
 *   ( )         groups capture nothing, nobody reads captures
 * or refused: what the published byte-level tokenizers do not use and the engines read differently (\w, anchors, \h,
 * class intersections, possessive intervals, options in the middle, back references, …), so that no pattern is
 * silently read in another way than the reference reads it. */

enum { DEPTH_MAX = 64 };

enum last_item { NOTHING, ATOM, QUANTIFIED };

struct translator {
	const char *source, *at, *end;
	const char *place;
	enum dsa_regex_kind kind;
	struct dsa_text out;
	bool caseless[DEPTH_MAX];
	int depth;
	enum last_item last;
	char previous; /* the letter just written inside (?i: */
	struct dsa_error *err;
};

static const char space_set[] = "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
				"\\x{205f}\\x{3000}";
static const char not_space_set[] = "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}"
				    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
				    "\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}";
static const char category_names[] = " L M N P S Z C Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So "
				     "Zs Zl Zp Cc Cf Cn Co ";

static enum dsa_status refuse(struct translator *t, const char *what)
{
	return dsa_fail(t->err, DSA_E_INPUT,
	                "%s: the pattern uses %s (at byte %zu), which is not supported: it could cut texts elsewhere "
	                "than the reference does",
	                t->place, what, (size_t)(t->at - t->source));
}

static void write_text(struct translator *t, const char *text)
{
	dsa_text_add(&t->out, text);
}

static void write_code(struct translator *t, uint32_t code)
{
	dsa_text_printf(&t->out, "\\x{%x}", code);
}

static bool letter(uint32_t code)
{
	return (code | 0x20) >= 'a' && (code | 0x20) <= 'z' && code < 0x80;
}

/* Characters that the pattern names must not be told apart from their stand-ins (unicode.c). */
static enum dsa_status check_range(struct translator *t, uint32_t low, uint32_t high)
{
	if (t->caseless[t->depth] && high >= 0x80)
		return refuse(t, "a character beyond ASCII inside (?i:");
	if (t->kind != DSA_REGEX_UNMASKED && high >= 0x80 && !dsa_unicode_range_is_stable(low, high))
		return refuse(t, "a range of characters that were unassigned before Unicode 16");
	return DSA_OK;
}

static bool hex_digits(struct translator *t, size_t count, uint32_t *code)
{
	*code = 0;
	for (size_t i = 0; i < count; i++) {
		if (t->at == t->end)
			return false;
		char c = *t->at;
		uint32_t digit;
		if (c >= '0' && c <= '9')
			digit = (uint32_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (uint32_t)((c | 0x20) - 'a' + 10);
		else
			return false;
		*code = *code << 4 | digit;
		t->at++;
	}
	return true;
}

static enum dsa_status code_escape(struct translator *t, char name, uint32_t *code)
{
	if (name == 'u') {
		if (!hex_digits(t, 4, code))
			return refuse(t, "\\u without four hexadecimal digits");
	} else if (t->at < t->end && *t->at == '{') {
		const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
		t->at++;
		if (!close || close - t->at < 1 || close - t->at > 6 || !hex_digits(t, (size_t)(close - t->at), code))
			return refuse(t, "\\x{ without one to six hexadecimal digits");
		t->at++;
	} else if (!hex_digits(t, 2, code) || *code >= 0x80) {
		return refuse(t, "\\x that is not two hexadecimal digits below 80");
	}
	if (*code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
		return refuse(t, "an escape that is no character");
	return DSA_OK;
}

static enum dsa_status property(struct translator *t, char name)
{
	const char *close = t->at < t->end && *t->at == '{' ? memchr(t->at, '}', (size_t)(t->end - t->at)) : NULL;
	if (!close)
		return refuse(t, "\\p without {…}");
	const char *first = t->at + 1;
	bool negated = name == 'P';
	if (first < close && *first == '^') {
		negated = !negated;
		first++;
	}
	char wanted[8] = {0};
	size_t length = (size_t)(close - first);
	if (length == 1 || length == 2) {
		wanted[0] = ' ';
		memcpy(wanted + 1, first, length);
		wanted[length + 1] = ' ';
	}
	if (!wanted[0] || !strstr(category_names, wanted))
		return refuse(t, "\\p of something else than a general category");
	if (t->caseless[t->depth])
		return refuse(t, "\\p inside (?i:");
	t->at = close + 1;
	dsa_text_printf(&t->out, "\\%c{%.*s}", negated ? 'P' : 'p', (int)length, first);
	return DSA_OK;
}

/* The escape behind a backslash. *is_set: a class was written; otherwise *code is a character still to be written. */
static enum dsa_status escape(struct translator *t, bool in_class, bool *is_set, uint32_t *code)
{
	if (++t->at >= t->end)
		return refuse(t, "a backslash at its end");
	char name = *t->at;
	*is_set = false;
	if ((unsigned char)name >= 0x80 || name == '_' || (name >= '1' && name <= '9') || name == '0') {
		char what[] = "\\?, a back reference, an octal or an escaped character beyond ASCII";
		what[1] = (unsigned char)name < 0x80 ? name : '?';
		return refuse(t, what);
	}
	t->at++;
	if (!letter((unsigned char)name)) {
		*code = (unsigned char)name;
		return DSA_OK;
	}
	static const char simple[][2] = {{'t', '\t'}, {'n', '\n'}, {'r', '\r'},  {'f', '\f'},
	                                 {'v', '\v'}, {'a', '\a'}, {'e', '\033'}};
	for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
		if (simple[i][0] == name) {
			*code = (unsigned char)simple[i][1];
			return DSA_OK;
		}
	*is_set = true;
	switch (name) {
	case 'x':
	case 'u':
		*is_set = false;
		return code_escape(t, name, code);
	case 'p':
	case 'P':
		return property(t, name);
	case 'd':
		write_text(t, "\\p{Nd}");
		return DSA_OK;
	case 'D':
		write_text(t, "\\P{Nd}");
		return DSA_OK;
	case 's':
	case 'S':
		if (in_class)
			write_text(t, name == 's' ? space_set : not_space_set);
		else
			dsa_text_printf(&t->out, "[%s%s]", name == 's' ? "" : "^", space_set);
		return DSA_OK;
	default: {
		char what[] = "\\?";
		what[1] = name;
		t->at -= 2;
		return refuse(t, what);
	}
	}
}

static enum dsa_status class_range(struct translator *t, uint32_t low)
{
	uint32_t high = low;
	enum dsa_status status = DSA_OK;
	bool is_set = false;
	if (t->end - t->at >= 2 && t->at[0] == '-' && t->at[1] != ']') {
		t->at++;
		if (*t->at == '\\')
			status = escape(t, true, &is_set, &high);
		else if (*t->at == '[' || *t->at == '-')
			return refuse(t, "a range that ends in [ or -");
		else
			t->at += dsa_utf8_decode(t->at, &high);
		if (!status && (is_set || high < low))
			return refuse(t, "a range that does not end in a later character");
	}
	if (!status)
		status = check_range(t, low, high);
	if (status)
		return status;
	write_code(t, low);
	if (high != low) {
		write_text(t, "-");
		write_code(t, high);
	}
	return DSA_OK;
}

static enum dsa_status bracket(struct translator *t)
{
	enum dsa_status status = DSA_OK;
	bool first = true;
	t->at++;
	bool negated = t->at < t->end && *t->at == '^';
	if (negated && t->caseless[t->depth])
		return refuse(t, "a negated class inside (?i:");
	t->at += negated;
	write_text(t, negated ? "[^" : "[");
	while (!status) {
		if (t->at == t->end)
			return refuse(t, "a class without end");
		uint32_t code = 0;
		bool is_set = false;
		char c = *t->at;
		if (c == ']') {
			if (first)
				return refuse(t, "an empty class");
			t->at++;
			t->last = ATOM;
			write_text(t, "]");
			return DSA_OK;
		}
		if (c == '[' || (c == '&' && t->end - t->at >= 2 && t->at[1] == '&'))
			return refuse(t, "a class inside a class");
		if (c == '-' && !first && !(t->end - t->at >= 2 && t->at[1] == ']'))
			return refuse(t, "a - that is neither first nor last in its class nor between two characters");
		if (c == '\\')
			status = escape(t, true, &is_set, &code);
		else
			t->at += dsa_utf8_decode(t->at, &code);
		if (!status && !is_set)
			status = class_range(t, code);
		first = false;
	}
	return status;
}

/* Ligatures and sharp s: to Oniguruma ﬆ is st without case, to PCRE2 it is not. */
static bool folds_together(char a, char b)
{
	static const char pairs[][2] = {{'s', 's'}, {'f', 'f'}, {'f', 'i'}, {'f', 'l'}, {'s', 't'}};
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		if (pairs[i][0] == (a | 0x20) && pairs[i][1] == (b | 0x20))
			return true;
	return false;
}

static enum dsa_status literal(struct translator *t, uint32_t code)
{
	enum dsa_status status = check_range(t, code, code);
	if (status)
		return status;
	if (t->caseless[t->depth]) {
		if (folds_together(t->previous, (char)code))
			return refuse(t, "ss, st, ff, fi or fl inside (?i:");
		t->previous = (char)code;
	}
	t->last = ATOM;
	write_code(t, code);
	return DSA_OK;
}

static enum dsa_status open_group(struct translator *t)
{
	static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
	size_t left = (size_t)(t->end - t->at);
	const char *kind = left < 2 || t->at[1] != '?' ? "(" : NULL;
	for (size_t i = 0; !kind && i < sizeof kinds / sizeof *kinds; i++)
		if (left >= strlen(kinds[i]) && !memcmp(t->at, kinds[i], strlen(kinds[i])))
			kind = kinds[i];
	if (!kind)
		return refuse(t, "a group other than (?: (?= (?! (?<= (?<! (?> and (?i:");
	if (t->depth + 1 == DEPTH_MAX)
		return refuse(t, "groups nested too deep");
	t->at += strlen(kind);
	t->caseless[t->depth + 1] = t->caseless[t->depth] || !strcmp(kind, "(?i:");
	t->depth++;
	t->last = NOTHING;
	write_text(t, strcmp(kind, "(") ? kind : "(?:");
	return DSA_OK;
}

static enum dsa_status interval(struct translator *t)
{
	const char *p = t->at + 1;
	unsigned low = 0, high = 0;
	bool comma = false, digits = false, bounded = false;
	for (; p < t->end && *p != '}'; p++) {
		if (*p == ',' && !comma && digits)
			comma = true;
		else if (*p >= '0' && *p <= '9' && high < 10000 && low < 10000) {
			unsigned *number = comma ? &high : &low;
			*number = *number * 10 + (unsigned)(*p - '0');
			digits = true;
			bounded = comma;
		} else
			return refuse(t, "a { that is not {n}, {n,} or {n,m}");
	}
	if (p == t->end || !digits)
		return refuse(t, "a { that is not {n}, {n,} or {n,m}");
	if (bounded && high < low)
		return refuse(t, "an interval whose end is below its start");
	p++;
	bool lazy = p < t->end && *p == '?';
	if ((p < t->end && *p == '+') || (lazy && !comma))
		return refuse(t, "an interval with + or ? behind it");
	dsa_text_bytes(&t->out, t->at, (size_t)(p - t->at) + lazy);
	t->at = p + lazy;
	t->last = QUANTIFIED;
	return DSA_OK;
}

static enum dsa_status quantifier(struct translator *t)
{
	if (t->last != ATOM)
		return refuse(t, "a quantifier with nothing to repeat, or on another quantifier");
	t->previous = 0;
	if (*t->at == '{')
		return interval(t);
	size_t length = t->at + 1 < t->end && (t->at[1] == '+' || t->at[1] == '?') ? 2 : 1;
	dsa_text_bytes(&t->out, t->at, length);
	t->at += length;
	t->last = QUANTIFIED;
	return DSA_OK;
}

static enum dsa_status translate(struct translator *t)
{
	enum dsa_status status = DSA_OK;
	while (!status && t->at < t->end) {
		uint32_t code = 0;
		bool is_set = false;
		switch (*t->at) {
		case '\\':
			status = escape(t, false, &is_set, &code);
			if (!status && !is_set)
				status = literal(t, code);
			t->last = ATOM;
			break;
		case '[':
			t->previous = 0;
			status = bracket(t);
			break;
		case '(':
			status = open_group(t);
			break;
		case ')':
			if (t->depth == 0)
				return refuse(t, "a ) without (");
			t->depth--;
			t->at++;
			t->last = ATOM;
			write_text(t, ")");
			break;
		case '|':
			t->at++;
			t->last = NOTHING;
			t->previous = 0;
			write_text(t, "|");
			break;
		case '.':
			t->at++;
			t->last = ATOM;
			t->previous = 0;
			write_text(t, ".");
			break;
		case '*':
		case '+':
		case '?':
		case '{':
			status = quantifier(t);
			break;
		case '^':
		case '$':
			return refuse(t, "an anchor");
		default:
			t->at += dsa_utf8_decode(t->at, &code);
			status = literal(t, code);
			break;
		}
	}
	if (!status && t->depth)
		return refuse(t, "a ( without )");
	return status;
}

enum dsa_status dsa_regex_compile(pcre2_code **out, const char *source, size_t bytes, enum dsa_regex_kind kind,
                                  const char *place, struct dsa_error *err)
{
	struct translator t = {
	    .source = source, .at = source, .end = source + bytes, .place = place, .kind = kind, .err = err};
	enum dsa_status status = DSA_OK;
	pcre2_compile_context *context = NULL;
	*out = NULL;
	if (!bytes)
		return dsa_fail(err, DSA_E_INPUT, "%s: the pattern is empty", place);
	if (kind == DSA_REGEX_LITERAL)
		while (!status && t.at < t.end) {
			uint32_t code;
			t.at += dsa_utf8_decode(t.at, &code);
			status = literal(&t, code);
		}
	else
		status = translate(&t);
	if (!status)
		status = dsa_text_check(&t.out, place, err);
	if (status)
		goto cleanup;
	context = pcre2_compile_context_create(NULL);
	if (!context) {
		status = dsa_fail(err, DSA_E_MEMORY, "%s: no memory to compile the pattern", place);
		goto cleanup;
	}
	/* The dot of the reference stops at \n only, whatever PCRE2 was built for. */
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	int code;
	PCRE2_SIZE offset;
	*out = pcre2_compile((PCRE2_SPTR)t.out.data, t.out.bytes, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code,
	                     &offset, context);
	if (!*out) {
		PCRE2_UCHAR text[256] = {0};
		pcre2_get_error_message(code, text, sizeof text);
		status = dsa_fail(err, DSA_E_INPUT, "%s: the pattern cannot be compiled: %s", place, (char *)text);
		goto cleanup;
	}
	/* Where the system forbids making code at run time, the interpreter gives the same matches, slower. */
	(void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
cleanup:
	pcre2_compile_context_free(context);
	dsa_text_release(&t.out);
	return status;
}
