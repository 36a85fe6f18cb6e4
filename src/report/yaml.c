#include "dsa/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "dsa/file.h"

struct builder {
	yaml_parser_t parser;
	struct dsa_arena *arena;
	struct dsa_error *err;
	const char *place;
	struct dsa_yaml *open[DSA_YAML_DEPTH]; /* containers being filled, outermost first */
	const char *key[DSA_YAML_DEPTH];       /* of the map at this depth: read, its value not yet */
	int depth, nodes;
	struct dsa_yaml *root;
};

static int line_of(const yaml_event_t *event)
{
	return (int)event->start_mark.line + 1;
}

static enum dsa_status refuse(const struct builder *builder, int line, const char *what)
{
	return dsa_fail(builder->err, DSA_E_INPUT, "%s: line %d: %s", builder->place, line, what);
}

/* Puts a new node where it belongs; NULL with *status set where it cannot be. */
static struct dsa_yaml *place_node(struct builder *builder, const yaml_event_t *event, enum dsa_yaml_kind kind,
                                   enum dsa_status *status)
{
	struct dsa_yaml *parent = builder->depth ? builder->open[builder->depth - 1] : NULL;
	const char *key = NULL;
	if (++builder->nodes > DSA_YAML_NODES) {
		*status = dsa_fail(builder->err, DSA_E_INPUT, "%s: line %d: more than %d values", builder->place,
		                   line_of(event), DSA_YAML_NODES);
		return NULL;
	}
	if (parent && parent->kind == DSA_YAML_MAP) {
		key = builder->key[builder->depth - 1];
		if (!key) {
			*status = refuse(builder, line_of(event), "a key must be a plain word");
			return NULL;
		}
		builder->key[builder->depth - 1] = NULL;
	}
	struct dsa_yaml *node = dsa_arena_alloc(builder->arena, 1, sizeof *node, "YAML", builder->err);
	*status = node ? DSA_OK : DSA_E_MEMORY;
	if (!node)
		return NULL;
	node->kind = kind;
	node->line = line_of(event);
	node->key = key;
	if (!parent)
		builder->root = node;
	else if (!parent->first)
		parent->first = parent->last = node;
	else
		parent->last = parent->last->next = node;
	if (parent)
		parent->count++;
	return node;
}

static enum dsa_status open_container(struct builder *builder, const yaml_event_t *event, enum dsa_yaml_kind kind)
{
	enum dsa_status status;
	if (builder->depth == DSA_YAML_DEPTH)
		return dsa_fail(builder->err, DSA_E_INPUT, "%s: line %d: nested deeper than %d", builder->place,
		                line_of(event), DSA_YAML_DEPTH);
	struct dsa_yaml *node = place_node(builder, event, kind, &status);
	if (!node)
		return status;
	builder->key[builder->depth] = NULL;
	builder->open[builder->depth++] = node;
	return DSA_OK;
}

static enum dsa_status add_scalar(struct builder *builder, const yaml_event_t *event)
{
	struct dsa_yaml *parent = builder->depth ? builder->open[builder->depth - 1] : NULL;
	size_t length = event->data.scalar.length;
	if (memchr(event->data.scalar.value, 0, length))
		return refuse(builder, line_of(event), "a NUL character");
	char *text = dsa_arena_text(builder->arena, (const char *)event->data.scalar.value, length, builder->err);
	if (!text)
		return DSA_E_MEMORY;
	if (parent && parent->kind == DSA_YAML_MAP && !builder->key[builder->depth - 1]) {
		builder->key[builder->depth - 1] = text;
		return DSA_OK;
	}
	enum dsa_status status;
	struct dsa_yaml *node = place_node(builder, event, DSA_YAML_SCALAR, &status);
	if (!node)
		return status;
	node->text = text;
	node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	return DSA_OK;
}

/* A key and where it stands, to find repeated ones by sorting. */
struct seen {
	const char *key;
	int line;
};

static int by_key_and_line(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int order = strcmp(x->key, y->key);
	return order ? order : (x->line > y->line) - (x->line < y->line);
}

static enum dsa_status close_container(struct builder *builder)
{
	const struct dsa_yaml *map = builder->open[--builder->depth];
	if (map->kind != DSA_YAML_MAP || map->count < 2)
		return DSA_OK;
	struct seen *sorted = dsa_alloc((size_t)map->count, sizeof *sorted, "YAML keys", builder->err);
	if (!sorted)
		return DSA_E_MEMORY;
	enum dsa_status status = DSA_OK;
	int count = 0;
	for (const struct dsa_yaml *child = map->first; child; child = child->next)
		sorted[count++] = (struct seen){child->key, child->line};
	qsort(sorted, (size_t)count, sizeof *sorted, by_key_and_line);
	for (int i = 1; i < count && !status; i++)
		if (!strcmp(sorted[i - 1].key, sorted[i].key))
			status =
			    dsa_fail(builder->err, DSA_E_INPUT, "%s: line %d: the key %.80s stands at line %d already",
			             builder->place, sorted[i].line, sorted[i].key, sorted[i - 1].line);
	free(sorted);
	return status;
}

static enum dsa_status take(struct builder *builder, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return refuse(builder, line_of(event), "an alias (*name); write the value out");
	case YAML_SCALAR_EVENT:
		if (event->data.scalar.anchor)
			return refuse(builder, line_of(event), "an anchor (&name); write the value out");
		if (event->data.scalar.tag)
			return refuse(builder, line_of(event), "a tag (!name)");
		return add_scalar(builder, event);
	case YAML_SEQUENCE_START_EVENT:
		if (event->data.sequence_start.anchor)
			return refuse(builder, line_of(event), "an anchor (&name); write the value out");
		if (event->data.sequence_start.tag)
			return refuse(builder, line_of(event), "a tag (!name)");
		return open_container(builder, event, DSA_YAML_LIST);
	case YAML_MAPPING_START_EVENT:
		if (event->data.mapping_start.anchor)
			return refuse(builder, line_of(event), "an anchor (&name); write the value out");
		if (event->data.mapping_start.tag)
			return refuse(builder, line_of(event), "a tag (!name)");
		return open_container(builder, event, DSA_YAML_MAP);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return close_container(builder);
	case YAML_DOCUMENT_START_EVENT:
		if (builder->root)
			return refuse(builder, line_of(event), "a second document");
		break;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		break;
	}
	return DSA_OK;
}

enum dsa_status dsa_yaml_parse(const struct dsa_yaml **root, const char *text, size_t bytes, const char *place,
                               struct dsa_arena *arena, struct dsa_error *err)
{
	struct builder builder = {.arena = arena, .err = err, .place = place};
	enum dsa_status status = DSA_OK;
	*root = NULL;
	if (bytes > DSA_YAML_BYTES)
		return dsa_fail(err, DSA_E_INPUT, "%s: %zu bytes, more than the %d that such a file may have", place,
		                bytes, DSA_YAML_BYTES);
	if (!yaml_parser_initialize(&builder.parser))
		return dsa_fail(err, DSA_E_MEMORY, "%s: no memory to parse YAML", place);
	yaml_parser_set_encoding(&builder.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&builder.parser, (const unsigned char *)text, bytes);
	for (bool more = true; more && !status;) {
		yaml_event_t event;
		if (!yaml_parser_parse(&builder.parser, &event)) {
			const yaml_parser_t *parser = &builder.parser;
			if (parser->error == YAML_MEMORY_ERROR)
				status = dsa_fail(err, DSA_E_MEMORY, "%s: no memory to parse YAML", place);
			else
				status = dsa_fail(err, DSA_E_INPUT, "%s: line %zu: not valid YAML: %s", place,
				                  parser->problem_mark.line + 1,
				                  parser->problem ? parser->problem : "broken");
			break;
		}
		more = event.type != YAML_STREAM_END_EVENT;
		status = take(&builder, &event);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&builder.parser);
	if (!status && !builder.root)
		status = dsa_fail(err, DSA_E_INPUT, "%s: the file is empty", place);
	if (!status)
		*root = builder.root;
	return status;
}

enum dsa_status dsa_yaml_load(const struct dsa_yaml **root, const char *path, struct dsa_arena *arena,
                              struct dsa_error *err)
{
	char *text;
	size_t bytes;
	*root = NULL;
	enum dsa_status status = dsa_file_read(path, DSA_YAML_BYTES, arena, &text, &bytes, err);
	return status ? status : dsa_yaml_parse(root, text, bytes, path, arena, err);
}

const struct dsa_yaml *dsa_yaml_find(const struct dsa_yaml *map, const char *key)
{
	if (!map || map->kind != DSA_YAML_MAP)
		return NULL;
	for (const struct dsa_yaml *child = map->first; child; child = child->next)
		if (!strcmp(child->key, key))
			return child;
	return NULL;
}

bool dsa_yaml_is_null(const struct dsa_yaml *node)
{
	if (!node)
		return true;
	if (node->kind != DSA_YAML_SCALAR || node->quoted)
		return false;
	return !*node->text || !strcmp(node->text, "~") || !strcmp(node->text, "null");
}

static enum dsa_status wrong(const struct dsa_yaml *node, const char *place, const char *key, const char *expected,
                             struct dsa_error *err)
{
	if (node->kind != DSA_YAML_SCALAR)
		return dsa_fail(err, DSA_E_INPUT, "%s: line %d: %s is a %s, expected %s", place, node->line, key,
		                node->kind == DSA_YAML_LIST ? "list" : "map", expected);
	return dsa_fail(err, DSA_E_INPUT, "%s: line %d: %s is %.60s, expected %s", place, node->line, key, node->text,
	                expected);
}

enum dsa_status dsa_yaml_int(const struct dsa_yaml *map, const char *place, const char *key, int64_t low, int64_t high,
                             int64_t fallback, int64_t *out, struct dsa_error *err)
{
	const struct dsa_yaml *node = dsa_yaml_find(map, key);
	*out = fallback;
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	if (node->kind != DSA_YAML_SCALAR || node->quoted || !strchr("+-0123456789", *node->text))
		return wrong(node, place, key, "an integer", err);
	char *end;
	errno = 0;
	long long value = strtoll(node->text, &end, 10);
	if (*end || errno)
		return wrong(node, place, key, "an integer", err);
	if (value < low || value > high)
		return dsa_fail(err, DSA_E_INPUT, "%s: line %d: %s is %lld, expected %lld to %lld", place, node->line,
		                key, value, (long long)low, (long long)high);
	*out = value;
	return DSA_OK;
}

enum dsa_status dsa_yaml_real(const struct dsa_yaml *map, const char *place, const char *key, double fallback,
                              double *out, struct dsa_error *err)
{
	const struct dsa_yaml *node = dsa_yaml_find(map, key);
	*out = fallback;
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	/* strtod takes hexadecimal, inf and nan as well; YAML's numbers of this program do not. */
	if (node->kind != DSA_YAML_SCALAR || node->quoted || !*node->text ||
	    strspn(node->text, "+-.0123456789eE") != strlen(node->text))
		return wrong(node, place, key, "a number", err);
	char *end;
	double value = strtod(node->text, &end);
	if (*end || !isfinite(value))
		return wrong(node, place, key, "a finite number", err);
	*out = value;
	return DSA_OK;
}

enum dsa_status dsa_yaml_bool(const struct dsa_yaml *map, const char *place, const char *key, bool fallback, bool *out,
                              struct dsa_error *err)
{
	const struct dsa_yaml *node = dsa_yaml_find(map, key);
	*out = fallback;
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	if (node->kind != DSA_YAML_SCALAR || node->quoted ||
	    (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0))
		return wrong(node, place, key, "true or false", err);
	*out = node->text[0] == 't';
	return DSA_OK;
}

enum dsa_status dsa_yaml_text(const struct dsa_yaml *map, const char *place, const char *key, const char *fallback,
                              const char **out, struct dsa_error *err)
{
	const struct dsa_yaml *node = dsa_yaml_find(map, key);
	*out = fallback;
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	if (node->kind != DSA_YAML_SCALAR)
		return wrong(node, place, key, "a string", err);
	*out = node->text;
	return DSA_OK;
}

enum dsa_status dsa_yaml_child(const struct dsa_yaml *map, const char *place, const char *key, enum dsa_yaml_kind kind,
                               const struct dsa_yaml **out, struct dsa_error *err)
{
	const struct dsa_yaml *node = dsa_yaml_find(map, key);
	*out = NULL;
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	if (node->kind != kind)
		return wrong(node, place, key, kind == DSA_YAML_LIST ? "a list" : "a map", err);
	*out = node;
	return DSA_OK;
}
