/* markup.h: a strict well-formedness check, the part of XML that the report writes: tags closed in order, attributes
 * quoted and not repeated, no bare & or <, known entities, no control characters, valid UTF-8. */
#ifndef DSA_TEST_MARKUP_H
#define DSA_TEST_MARKUP_H

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/text.h"

enum { MARKUP_DEPTH = 64, MARKUP_NAME = 32 };

struct markup {
	const char *at;
	char open[MARKUP_DEPTH][MARKUP_NAME];
	int depth;
	int elements;
	const char *fault; /* where it broke, NULL if it did not */
};

static inline bool markup_name(struct markup *m, char out[MARKUP_NAME])
{
	int length = 0;
	while (isalnum((unsigned char)*m->at) || (*m->at && strchr("-_:", *m->at))) {
		if (length == MARKUP_NAME - 1)
			return false;
		out[length++] = *m->at++;
	}
	out[length] = 0;
	return length > 0;
}

static inline bool markup_entity(struct markup *m)
{
	static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#9;", "&#10;"};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (!strncmp(m->at, known[i], strlen(known[i]))) {
			m->at += strlen(known[i]);
			return true;
		}
	}
	return false;
}

static inline bool markup_character(struct markup *m)
{
	const char *from = m->at;
	uint32_t point = dsa_utf8_next(&m->at);
	if (point == 0xfffd && strncmp(from, "\xef\xbf\xbd", 3))
		return false;
	if (point == '\n')
		return true;
	return point >= 0x20 && point != 0x7f && !(point >= 0x80 && point < 0xa0) && (point & 0xfffe) != 0xfffe;
}

static inline bool markup_tag(struct markup *m)
{
	char name[MARKUP_NAME], attributes[16][MARKUP_NAME];
	int count = 0;
	m->at++;
	if (*m->at == '/') {
		m->at++;
		if (!markup_name(m, name) || *m->at++ != '>' || !m->depth)
			return false;
		return !strcmp(name, m->open[--m->depth]);
	}
	if (!markup_name(m, name))
		return false;
	m->elements++;
	while (*m->at == ' ') {
		m->at++;
		if (count == 16 || !markup_name(m, attributes[count]))
			return false;
		for (int i = 0; i < count; i++)
			if (!strcmp(attributes[i], attributes[count]))
				return false;
		count++;
		if (*m->at++ != '=' || *m->at++ != '"')
			return false;
		while (*m->at && *m->at != '"') {
			if (*m->at == '<')
				return false;
			if (*m->at == '&' ? !markup_entity(m) : !markup_character(m))
				return false;
		}
		if (*m->at++ != '"')
			return false;
	}
	if (m->at[0] == '/' && m->at[1] == '>') {
		m->at += 2;
		return true;
	}
	if (*m->at++ != '>' || m->depth == MARKUP_DEPTH)
		return false;
	memcpy(m->open[m->depth++], name, sizeof name);
	return true;
}

/* Character data as it stands, which the page's script is. */
static inline bool markup_cdata(struct markup *m)
{
	const char *end = strstr(m->at, "]]>");
	if (!end || !m->depth || strcmp(m->open[m->depth - 1], "script") != 0)
		return false;
	m->at = end + 3;
	return true;
}

/* Returns the number of elements, or -1 with the fault's place printed. */
static inline int markup_check(const char *text)
{
	struct markup m = {.at = text};
	if (!strncmp(m.at, "<!DOCTYPE html>\n", 16))
		m.at += 16;
	while (*m.at) {
		const char *from = m.at;
		bool fine = !strncmp(m.at, "<![CDATA[", 9) ? markup_cdata(&m)
		            : *m.at == '<'                 ? markup_tag(&m)
		            : *m.at == '&'                 ? markup_entity(&m)
		            : *m.at == '>'                 ? false
		                                           : markup_character(&m) && (m.depth || *from == '\n');
		if (!fine) {
			printf("markup breaks at: %.80s\n", from);
			return -1;
		}
	}
	if (m.depth)
		printf("markup never closes <%s>\n", m.open[m.depth - 1]);
	return m.depth ? -1 : m.elements;
}

#endif
