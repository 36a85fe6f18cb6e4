#include "config_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/yaml.h"
#include "option_table.h"

enum { KEY_MOST = 32 }; /* longer than every option's name */

/* Insertions, deletions and changes of single characters that turn a into b; both shorter than KEY_MOST. */
static int edits(const char *a, const char *b)
{
	int row[KEY_MOST + 1], across = (int)strlen(b);
	for (int j = 0; j <= across; j++)
		row[j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int diagonal = row[0];
		row[0] = i;
		for (int j = 1; j <= across; j++) {
			int change = diagonal + (a[i - 1] != b[j - 1]);
			int best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			diagonal = row[j];
			row[j] = change < best ? change : best;
		}
	}
	return row[across];
}

/* What a file may set: what shapes the run, and where and with what it runs. */
static bool is_key(const struct dsa_option_row *row, enum dsa_command command)
{
	static const char *const also[] = {"out",        "device",    "threads", "host-memory",
	                                   "gpu-memory", "residency", "spill",   "spill-zstd"};
	bool known = row->configured;
	for (size_t i = 0; i < sizeof also / sizeof *also; i++)
		known = known || !strcmp(row->name, also[i]);
	return known && row->commands & DSA_OPTION_OF(command);
}

static const struct dsa_option_row *find_key(const char *key, enum dsa_command command)
{
	for (int i = 0; i < dsa_option_rows; i++)
		if (is_key(&dsa_option_table[i], command) && !strcmp(dsa_option_table[i].name, key))
			return &dsa_option_table[i];
	return NULL;
}

static enum dsa_status unknown_key(const struct dsa_yaml *node, const char *place, enum dsa_command command,
                                   struct dsa_error *err)
{
	const char *name = dsa_cli_commands[command].name, *nearest = NULL;
	int least = KEY_MOST;
	for (int i = 0; i < dsa_option_rows && strlen(node->key) < KEY_MOST; i++) {
		if (!is_key(&dsa_option_table[i], command))
			continue;
		int distance = edits(node->key, dsa_option_table[i].name);
		if (distance < least) {
			least = distance;
			nearest = dsa_option_table[i].name;
		}
	}
	if (nearest)
		return dsa_fail(err, DSA_E_USAGE, "%s: line %d: unknown key '%s' for %s; the nearest is '%s'", place,
		                node->line, node->key, name, nearest);
	return dsa_fail(err, DSA_E_USAGE, "%s: line %d: unknown key '%.40s' for %s; see 'dsacal help %s'", place,
	                node->line, node->key, name, name);
}

/* key: the option, or "corpus: weight". */
static enum dsa_status wrong(const struct dsa_yaml *node, const char *place, const char *key, const char *expected,
                             struct dsa_error *err)
{
	static const char *const kinds[] = {
	    [DSA_YAML_SCALAR] = "", [DSA_YAML_LIST] = "a list", [DSA_YAML_MAP] = "a map"};
	if (node->kind != DSA_YAML_SCALAR)
		return dsa_fail(err, DSA_E_USAGE, "%s: line %d: %s: found %s, expected %s", place, node->line, key,
		                kinds[node->kind], expected);
	return dsa_fail(err, DSA_E_USAGE, "%s: line %d: %s: found %s'%.60s', expected %s", place, node->line, key,
	                node->quoted ? "the string " : "", node->text, expected);
}

static bool is_number(const struct dsa_yaml *node)
{
	double value;
	/* strtod takes hexadecimal, inf and nan as well; YAML's numbers of this program do not. */
	return node->kind == DSA_YAML_SCALAR && !node->quoted &&
	       strspn(node->text, "+-.0123456789eE") == strlen(node->text) && dsa_option_real(node->text, &value);
}

static bool is_empty(const struct dsa_yaml *node)
{
	return dsa_yaml_is_null(node) || (node->kind == DSA_YAML_SCALAR && !*node->text);
}

/* {path, name, weight} → [NAME=]PATH[:weight=W], which is how config.yaml writes it. */
static enum dsa_status corpus_of_map(const struct dsa_yaml *map, const char *place, struct dsa_arena *arena,
                                     const char **out, struct dsa_error *err)
{
	const struct dsa_yaml *path = NULL, *name = NULL, *weight = NULL;
	for (const struct dsa_yaml *child = map->first; child; child = child->next) {
		const struct dsa_yaml **to = !strcmp(child->key, "path")     ? &path
		                             : !strcmp(child->key, "name")   ? &name
		                             : !strcmp(child->key, "weight") ? &weight
		                                                             : NULL;
		if (!to)
			return dsa_fail(err, DSA_E_USAGE,
			                "%s: line %d: unknown key '%.40s' of a corpus; it has path, name and weight",
			                place, child->line, child->key);
		*to = child;
	}
	if (is_empty(path) || path->kind != DSA_YAML_SCALAR)
		return path ? wrong(path, place, "corpus: path", "the path of documents", err)
		            : dsa_fail(err, DSA_E_USAGE, "%s: line %d: corpus: found no path, expected one", place,
		                       map->line);
	if (name && (is_empty(name) || name->kind != DSA_YAML_SCALAR))
		return wrong(name, place, "corpus: name", "a name", err);
	if (weight && !is_number(weight))
		return wrong(weight, place, "corpus: weight", "a number above 0", err);
	size_t room = strlen(path->text) + (name ? strlen(name->text) : 0) + (weight ? strlen(weight->text) : 0) + 16;
	char *text = dsa_arena_alloc(arena, room, 1, "a corpus", err);
	if (!text)
		return DSA_E_MEMORY;
	snprintf(text, room, "%s%s%s%s%s", name ? name->text : "", name ? "=" : "", path->text,
	         weight ? ":weight=" : "", weight ? weight->text : "");
	struct dsa_corpus_source source;
	enum dsa_status status = dsa_cli_corpus(text, &source, arena, err);
	if (status == DSA_E_USAGE)
		dsa_error_prefix(err, "%s: line %d", place, map->line);
	if (status)
		return status;
	/* Its string must mean the same again. */
	bool same =
	    !strcmp(source.path, path->text) && !source.name == !name && (!name || !strcmp(source.name, name->text));
	if (!same)
		return dsa_fail(err, DSA_E_USAGE,
		                "%s: line %d: corpus: found a name or path with '=' or ':weight=' in it, expected "
		                "one that [NAME=]PATH[:weight=W] can say; start the path with './' or rename it",
		                place, map->line);
	*out = text;
	return DSA_OK;
}

static enum dsa_status read_list(struct dsa_cli_options *options, const struct dsa_option_row *row,
                                 const struct dsa_yaml *node, const char *place, struct dsa_arena *arena,
                                 struct dsa_error *err)
{
	bool corpora = row->offset == offsetof(struct dsa_cli_options, corpus);
	if (node->kind != DSA_YAML_LIST)
		return wrong(node, place, row->name, "a list", err);
	for (const struct dsa_yaml *child = node->first; child; child = child->next) {
		const char *value = child->text;
		enum dsa_status status = DSA_OK;
		if (child->kind == DSA_YAML_MAP && corpora)
			status = corpus_of_map(child, place, arena, &value, err);
		else if (child->kind != DSA_YAML_SCALAR || is_empty(child))
			status = wrong(child, place, row->name,
			               corpora ? "a path, or a map of path, name and weight" : row->argument, err);
		if (status)
			return status;
		status = dsa_option_store(options, row, value, err);
		if (status) {
			dsa_error_prefix(err, "%s: line %d", place, child->line);
			return status;
		}
	}
	return DSA_OK;
}

/* What the command line takes as text has a type here. NULL: node has it. */
static const char *expected_type(const struct dsa_option_row *row, const struct dsa_yaml *node)
{
	bool scalar = node->kind == DSA_YAML_SCALAR;
	int64_t count;
	uint64_t size;
	double real;
	switch (row->kind) {
	case COUNT:
		return scalar && !node->quoted && dsa_option_count(node->text, &count) ? NULL
		                                                                       : "an integer of 0 or more";
	case REAL:
		return is_number(node) ? NULL : "a number";
	case SIZE:
		return scalar && dsa_option_size(node->text, &size) ? NULL : "a size, such as 4GiB";
	case PERCENT:
		return scalar && dsa_option_share(node->text, &real) ? NULL : "a share, such as 20% or 0.2";
	case FLAG:
	case SWITCH:
		return scalar && !node->quoted && (!strcmp(node->text, "true") || !strcmp(node->text, "false"))
		           ? NULL
		           : "true or false";
	case CHOICE:
		return scalar ? NULL : row->argument;
	case TEXT:
	case LIST:
		break;
	}
	return scalar ? NULL : "a string";
}

static enum dsa_status read_option(struct dsa_cli_options *options, const struct dsa_option_row *row,
                                   const struct dsa_yaml *node, const char *place, struct dsa_arena *arena,
                                   struct dsa_error *err)
{
	if (dsa_yaml_is_null(node))
		return DSA_OK;
	if (row->kind == LIST)
		return read_list(options, row, node, place, arena, err);
	const char *expected = expected_type(row, node);
	if (expected)
		return wrong(node, place, row->name, expected, err);
	if (row->kind == FLAG && !strcmp(node->text, "false"))
		return DSA_OK; /* every flag's default, which a switch need not have */
	if (dsa_option_store(options, row, node->text, NULL))
		return wrong(node, place, row->name, row->argument, err);
	return DSA_OK;
}

static enum dsa_status check_command(const struct dsa_yaml *node, const char *place, enum dsa_command command,
                                     struct dsa_error *err)
{
	if (node->kind != DSA_YAML_SCALAR || strcmp(node->text, dsa_cli_commands[command].name) != 0)
		return wrong(node, place, "command", dsa_cli_commands[command].name, err);
	return DSA_OK;
}

enum dsa_status dsa_config_file_read(struct dsa_cli_options *options, const char *path, struct dsa_arena *arena,
                                     struct dsa_error *err)
{
	const struct dsa_yaml *root;
	enum dsa_status status = dsa_yaml_load(&root, path, arena, err);
	if (status) {
		dsa_error_prefix(err, "--config");
		return status;
	}
	if (root->kind != DSA_YAML_MAP)
		return dsa_fail(err, DSA_E_USAGE, "%s: line %d: found %s, expected lines of 'option: value'", path,
		                root->line, root->kind == DSA_YAML_LIST ? "a list" : "a scalar");
	for (const struct dsa_yaml *node = root->first; node && !status; node = node->next) {
		const struct dsa_option_row *row = find_key(node->key, options->command);
		if (!strcmp(node->key, "command"))
			status = check_command(node, path, options->command, err);
		else if (row)
			status = read_option(options, row, node, path, arena, err);
		else
			status = unknown_key(node, path, options->command, err);
	}
	return status;
}

/* A YAML double-quoted scalar; bytes that YAML forbids bare are escaped. */
static void quoted(FILE *out, const char *text)
{
	putc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\x%02x", c);
		else
			putc(c, out);
	}
	putc('"', out);
}

static void write_value(FILE *out, const struct dsa_cli_options *options, const struct dsa_option_row *row)
{
	const void *from = (const char *)options + row->offset;
	const struct dsa_cli_list *list = from;
	switch (row->kind) {
	case TEXT:
	case CHOICE:
		if (*(const char *const *)from)
			quoted(out, *(const char *const *)from);
		else
			fputs("null", out);
		break;
	case LIST:
		putc('[', out);
		for (int i = 0; i < list->count; i++) {
			fputs(i ? ", " : "", out);
			quoted(out, list->value[i]);
		}
		putc(']', out);
		break;
	case COUNT:
		fprintf(out, "%lld", (long long)*(const int64_t *)from);
		break;
	case SIZE:
		fprintf(out, "%llu", (unsigned long long)*(const uint64_t *)from);
		break;
	case REAL:
	case PERCENT:
		if (isnan(*(const double *)from))
			fputs("null", out);
		else
			fprintf(out, "%.17g", *(const double *)from);
		break;
	case FLAG:
	case SWITCH:
		fputs(*(const bool *)from ? "true" : "false", out);
		break;
	}
}

enum dsa_status dsa_cli_config_yaml(const struct dsa_cli_options *options, struct dsa_arena *arena, const char **out,
                                    struct dsa_error *err)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *stream = open_memstream(&text, &bytes);
	if (!stream)
		return dsa_fail(err, DSA_E_MEMORY, "no memory for config.yaml");
	fprintf(stream, "# the options of this run, resolved\ncommand: %s\n", dsa_cli_commands[options->command].name);
	for (int i = 0; i < dsa_option_rows; i++) {
		if (!dsa_option_table[i].configured ||
		    !(dsa_option_table[i].commands & DSA_OPTION_OF(options->command)))
			continue;
		fprintf(stream, "%s: ", dsa_option_table[i].name);
		write_value(stream, options, &dsa_option_table[i]);
		putc('\n', stream);
	}
	if (fclose(stream)) {
		free(text);
		return dsa_fail(err, DSA_E_MEMORY, "no memory for config.yaml");
	}
	*out = dsa_arena_text(arena, text, bytes, err);
	free(text);
	return *out ? DSA_OK : DSA_E_MEMORY;
}

static char *value_text(const struct dsa_cli_options *options, const struct dsa_option_row *row,
                        struct dsa_arena *arena, struct dsa_error *err)
{
	char *text = NULL, *copy;
	size_t bytes = 0;
	FILE *stream = open_memstream(&text, &bytes);
	if (stream)
		write_value(stream, options, row);
	if (!stream || fclose(stream)) {
		free(text);
		dsa_fail(err, DSA_E_MEMORY, "no memory for the options");
		return NULL;
	}
	copy = dsa_arena_text(arena, text, bytes, err);
	free(text);
	return copy;
}

enum dsa_status dsa_cli_config_fields(const struct dsa_cli_options *options, struct dsa_arena *arena,
                                      struct dsa_journal_field **fields, int *count, struct dsa_error *err)
{
	struct dsa_journal_field *list =
	    dsa_arena_alloc(arena, (size_t)dsa_option_rows, sizeof *list, "the options", err);
	if (!list)
		return DSA_E_MEMORY;
	*count = 0;
	for (int i = 0; i < dsa_option_rows; i++) {
		const struct dsa_option_row *row = &dsa_option_table[i];
		bool place = row->offset == offsetof(struct dsa_cli_options, model) ||
		             row->offset == offsetof(struct dsa_cli_options, corpus);
		if (!row->configured || place || !(row->commands & DSA_OPTION_OF(options->command)))
			continue;
		char *value = value_text(options, row, arena, err);
		if (!value)
			return DSA_E_MEMORY;
		list[(*count)++] = (struct dsa_journal_field){.name = row->name, .value = value};
	}
	*fields = list;
	return DSA_OK;
}
