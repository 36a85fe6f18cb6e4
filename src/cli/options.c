#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/journal.h"

enum kind { TEXT, LIST, COUNT, SIZE, REAL, PERCENT, FLAG, CHOICE };

#define ON(command) (1u << (command))
#define MEASURING (ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EVALUATE) | ON(DSA_CMD_OVERLAP))
#define BUDGETED (ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EVALUATE) | ON(DSA_CMD_SOLVE))
#define EVERY (ON(DSA_COMMANDS) - 1)
#define AT(field) offsetof(struct dsa_cli_options, field)

struct option_row {
	const char *name;
	enum kind kind;
	size_t offset;
	const char *argument; /* CHOICE: "a|b|c" */
	const char *help;
	unsigned commands;
	bool configured; /* shapes the run: written into config.yaml */
};

static const struct option_row table[] = {
    {"model", TEXT, AT(model), "DIR", "checkpoint directory (config.json, safetensors, tokenizer.json)",
     MEASURING | ON(DSA_CMD_TOKENIZE), true},
    {"corpus", LIST, AT(corpus), "[NAME=]PATH[:weight=W]", "documents to measure on; may be given more than once",
     MEASURING, true},
    {"out", TEXT, AT(out), "RUN", "run directory (solve: file for the pattern)",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_OVERLAP) | ON(DSA_CMD_SOLVE), false},
    {"resume", FLAG, AT(resume), NULL, "go on with RUN where it stopped; starts it if there is nothing yet",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_OVERLAP), false},
    {"pattern", TEXT, AT(pattern), "STRING|FILE", "the pattern to measure: F/S letters or a pattern.yaml",
     ON(DSA_CMD_EVALUATE), true},
    {"budget-kl", REAL, AT(budget_kl), "X", "most mean KL from the reference, nats per scored token", BUDGETED, true},
    {"budget-nll", REAL, AT(budget_nll), "X", "most rise of the mean NLL, nats per scored token", BUDGETED, true},
    {"budget-kl-p99", REAL, AT(budget_kl_p99), "X", "most 99th percentile of the KL", BUDGETED, true},
    {"min-top1", REAL, AT(min_top1), "X", "least share of tokens with the same arg max, 0 to 1", BUDGETED, true},
    {"max-shared", TEXT, AT(max_shared), "N|P%", "most S layers, native ones included", BUDGETED, true},
    {"budget-scope", CHOICE, AT(scope), "mean|worst", "bounds hold for the weighted mean or for every corpus", BUDGETED,
     true},
    {"objective", CHOICE, AT(objective), "kl|nll", "what a step minimises", ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_SOLVE),
     true},
    {"search", CHOICE, AT(search), "exact|naive", "naive: the same search without any saving, for comparison",
     ON(DSA_CMD_CALIBRATE), true},
    {"full-trace", FLAG, AT(full_trace), NULL, "go on past the budget to the last layer",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_SOLVE), true},
    {"holdout", PERCENT, AT(holdout), "P%", "share of documents the search never sees", ON(DSA_CMD_CALIBRATE), true},
    {"baseline", LIST, AT(baseline), "PATTERN|FILE", "measure this pattern beside; may be given more than once",
     ON(DSA_CMD_CALIBRATE), true},
    {"force-full", TEXT, AT(force_full), "LIST", "layers that must stay F: 3,7,10-12", ON(DSA_CMD_CALIBRATE), true},
    {"pp-starts", TEXT, AT(pp_starts), "LIST", "first layers of pipeline stages: must stay F", ON(DSA_CMD_CALIBRATE),
     true},
    {"pp", COUNT, AT(pp), "N", "N even pipeline stages: their first layers must stay F",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EXPORT), true},
    {"context", COUNT, AT(context), "N", "cut documents to N tokens (default: the model's maximum)", MEASURING, true},
    {"max-tokens", COUNT, AT(max_tokens), "N", "read at most about N tokens of each corpus", MEASURING, true},
    {"batch-tokens", COUNT, AT(batch_tokens), "N", "tokens of documents that run together (default 4096)", MEASURING,
     true},
    {"seed", COUNT, AT(seed), "N", "of the noise floor and the order of documents", MEASURING, true},
    {"indexer-precision", CHOICE, AT(indexer_precision), "f32", "arithmetic of the indexer", MEASURING, true},
    {"device", TEXT, AT(device), "auto|cpu", "where to run", MEASURING, false},
    {"threads", COUNT, AT(threads), "N", "CPU threads (default: all); changes no figure", MEASURING, false},
    {"host-memory", SIZE, AT(host_memory), "SIZE",
     "memory for kept states, e.g. 4GiB (default: half of what is free); changes no figure", MEASURING, false},
    {"engine", CHOICE, AT(engine), "vllm|sglang|transformers|trtllm|lmdeploy|llamacpp",
     "the serving engine to write for", ON(DSA_CMD_EXPORT), false},
    {"strict", FLAG, AT(strict), NULL, "a warning is an error", ON(DSA_CMD_EXPORT), false},
    {"svg", TEXT, AT(svg), "DIR", "also write each figure as a file into DIR", ON(DSA_CMD_REPORT), false},
    {"json", FLAG, AT(json), NULL, "results on stdout as JSON", EVERY, false},
    {"quiet", FLAG, AT(quiet), NULL, "no progress, no notes; warnings and errors only", EVERY, false},
    {"verbose", FLAG, AT(verbose), NULL, "say more", EVERY, false},
    {"no-progress", FLAG, AT(no_progress), NULL, "no progress bar and no timed lines", EVERY, false},
};
enum { ROWS = sizeof table / sizeof *table, HELP_VALUE = 1000 };

const struct dsa_cli_command dsa_cli_commands[DSA_COMMANDS] = {
    [DSA_CMD_CALIBRATE] = {"calibrate", "", "find the pattern of F and S layers for a model and documents",
                           "Streams the documents through the model, flips layers from F to S greedily until a "
                           "budget is hit, and leaves\npattern.yaml, results.json, trace.csv, overlap.csv and "
                           "report.html in RUN. Killed at any moment, --resume goes on.",
                           "dsacal calibrate --model ./glm --corpus legal=contracts.jsonl.zst --budget-kl 0.01 "
                           "--out runs/legal"},
    [DSA_CMD_EVALUATE] = {"evaluate", "", "measure one pattern against the checkpoint's own",
                          "With bounds given, exit 0 means that they hold and 1 that they do not.",
                          "dsacal evaluate --model ./glm --corpus legal.jsonl --pattern FFSS… --budget-kl 0.01"},
    [DSA_CMD_OVERLAP] = {"overlap", "", "how alike the layers' selections are; no search",
                         "Writes overlap.csv and overlap.json into RUN.",
                         "dsacal overlap --model ./glm --corpus legal.jsonl --out runs/overlap"},
    [DSA_CMD_SOLVE] = {"solve", "RUN", "another budget from a finished run: no model, no GPU",
                       "Replays the run's journal under other bounds. Goes as far as the trace does; calibrate "
                       "with --full-trace to go anywhere.",
                       "dsacal solve runs/legal --budget-kl 0.005 --out pattern-strict.yaml"},
    [DSA_CMD_REPORT] = {"report", "RUN", "write report.html again from a run directory: no model, no GPU", "",
                        "dsacal report runs/legal --svg figures"},
    [DSA_CMD_EXPORT] = {"export", "PATTERN.yaml", "the arguments a serving engine takes",
                        "Prints what to pass to the engine; warns where it will not honour the pattern.",
                        "dsacal export runs/legal/pattern.yaml --engine vllm"},
    [DSA_CMD_INSPECT] = {"inspect", "MODEL_DIR", "architecture, sizes, native pattern", "", "dsacal inspect ./glm"},
    [DSA_CMD_TOKENIZE] = {"tokenize", "FILE…", "token ids, one line per document",
                          "For checking against the reference tokenizer.",
                          "dsacal tokenize --model ./glm contract.txt"},
    [DSA_CMD_HELP] = {"help", "[COMMAND]", "this list, or a command's options", "", "dsacal help calibrate"},
};

static void *field(struct dsa_cli_options *options, const struct option_row *row)
{
	return (char *)options + row->offset;
}

static bool parse_count(const char *text, int64_t *out)
{
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < 0)
		return false;
	*out = value;
	return true;
}

static bool parse_real(const char *text, double *out)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end || !isfinite(value))
		return false;
	*out = value;
	return true;
}

/* 512M, 4GiB, 4GB, 1.5g: powers of 1024 whichever way they are written. */
static bool parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "kmgt";
	char *end;
	double value = strtod(text, &end);
	if (end == text || !(value >= 0) || !isfinite(value))
		return false;
	if (*end) {
		const char *unit = strchr(units, *end | 0x20);
		if (!unit)
			return false;
		for (const char *u = units; u <= unit; u++)
			value *= 1024;
		end++;
		if (strcmp(end, "") && strcasecmp(end, "b") && strcasecmp(end, "ib"))
			return false;
	}
	if (value >= 9e18)
		return false;
	*out = (uint64_t)value;
	return true;
}

/* "25%" and "0.25" are the same share. */
static bool parse_share(const char *text, double *out)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || !isfinite(value))
		return false;
	if (!strcmp(end, "%"))
		value /= 100;
	else if (*end)
		return false;
	*out = value;
	return value >= 0 && value <= 1;
}

static bool one_of(const char *choices, const char *value)
{
	size_t length = strlen(value);
	for (const char *c = choices; c; c = strchr(c, '|')) {
		c += *c == '|';
		if (!strncmp(c, value, length) && (c[length] == '|' || !c[length]))
			return length > 0;
	}
	return false;
}

static enum dsa_status store(struct dsa_cli_options *options, const struct option_row *row, const char *value,
                             struct dsa_error *err)
{
	void *to = field(options, row);
	bool good = true;
	switch (row->kind) {
	case TEXT:
		*(const char **)to = value;
		break;
	case CHOICE:
		good = one_of(row->argument, value);
		*(const char **)to = value;
		break;
	case LIST: {
		struct dsa_cli_list *list = to;
		if (list->count == DSA_CLI_LIST)
			return dsa_fail(err, DSA_E_USAGE, "--%s: more than %d of them", row->name, DSA_CLI_LIST);
		list->value[list->count++] = value;
		break;
	}
	case COUNT:
		good = parse_count(value, to);
		break;
	case REAL:
		good = parse_real(value, to);
		break;
	case SIZE:
		good = parse_size(value, to);
		break;
	case PERCENT:
		good = parse_share(value, to);
		break;
	case FLAG:
		*(bool *)to = true;
		break;
	}
	if (!good)
		return dsa_fail(err, DSA_E_USAGE, "--%s: found '%s', expected %s", row->name, value, row->argument);
	return DSA_OK;
}

static void set_defaults(struct dsa_cli_options *options, enum dsa_command command)
{
	*options = (struct dsa_cli_options){.command = command,
	                                    .device = "auto",
	                                    .indexer_precision = "f32",
	                                    .batch_tokens = 4096,
	                                    .seed = 1,
	                                    .holdout = 0.2,
	                                    .budget_kl = NAN,
	                                    .budget_nll = NAN,
	                                    .budget_kl_p99 = NAN,
	                                    .min_top1 = NAN,
	                                    /* NULL: as in the run */
	                                    .scope = command == DSA_CMD_SOLVE ? NULL : "mean",
	                                    .objective = command == DSA_CMD_SOLVE ? NULL : "kl",
	                                    .search = "exact"};
}

/* getopt's table of the options that this command knows. */
static void getopt_table(enum dsa_command command, struct option *out)
{
	int used = 0;
	for (int i = 0; i < ROWS; i++) {
		if (!(table[i].commands & ON(command)))
			continue;
		out[used++] = (struct option){.name = table[i].name,
		                              .has_arg = table[i].kind == FLAG ? no_argument : required_argument,
		                              .val = HELP_VALUE + 1 + i};
	}
	out[used++] = (struct option){.name = "help", .has_arg = no_argument, .val = HELP_VALUE};
	out[used] = (struct option){0};
}

/* What getopt refused: '?' an unknown or ambiguous option, ':' a missing value. */
static enum dsa_status refuse(enum dsa_command command, int code, const char *word, struct dsa_error *err)
{
	const char *name = dsa_cli_commands[command].name;
	if (code == ':')
		return dsa_fail(err, DSA_E_USAGE, "%s needs a value; see 'dsacal help %s'", word, name);
	for (int i = 0; i < ROWS; i++)
		if (!strncmp(word, "--", 2) && !strcmp(word + 2, table[i].name))
			return dsa_fail(err, DSA_E_USAGE, "%s is no option of '%s'; see 'dsacal help %s'", word, name,
			                name);
	return dsa_fail(err, DSA_E_USAGE, "unknown option %s; see 'dsacal help %s'", word, name);
}

enum dsa_status dsa_cli_parse(struct dsa_cli_options *options, enum dsa_command command, int argc, char **argv,
                              bool *help, struct dsa_error *err)
{
	struct option known[ROWS + 2];
	set_defaults(options, command);
	getopt_table(command, known);
	*help = false;
	optind = 0; /* glibc: start anew, also when called twice */
	for (;;) {
		int before = optind ? optind : 1;
		int code = getopt_long(argc, argv, ":h", known, NULL);
		if (code == -1)
			break;
		if (code == 'h' || code == HELP_VALUE) {
			*help = true;
			return DSA_OK;
		}
		if (code == '?' || code == ':') {
			const char *word = optind > before ? argv[optind - 1] : argv[before < argc ? before : argc - 1];
			return refuse(command, code, word, err);
		}
		enum dsa_status status = store(options, &table[code - HELP_VALUE - 1], optarg, err);
		if (status)
			return status;
	}
	options->operands = (const char *const *)argv + optind;
	options->operand_count = argc - optind;
	return DSA_OK;
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

static void write_value(FILE *out, const struct dsa_cli_options *options, const struct option_row *row)
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
	for (int i = 0; i < ROWS; i++) {
		if (!table[i].configured || !(table[i].commands & ON(options->command)))
			continue;
		fprintf(stream, "%s: ", table[i].name);
		write_value(stream, options, &table[i]);
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

static char *value_text(const struct dsa_cli_options *options, const struct option_row *row, struct dsa_arena *arena,
                        struct dsa_error *err)
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
	struct dsa_journal_field *list = dsa_arena_alloc(arena, ROWS, sizeof *list, "the options", err);
	if (!list)
		return DSA_E_MEMORY;
	*count = 0;
	for (int i = 0; i < ROWS; i++) {
		const struct option_row *row = &table[i];
		bool place = row->offset == AT(model) || row->offset == AT(corpus);
		if (!row->configured || place || !(row->commands & ON(options->command)))
			continue;
		char *value = value_text(options, row, arena, err);
		if (!value)
			return DSA_E_MEMORY;
		list[(*count)++] = (struct dsa_journal_field){.name = row->name, .value = value};
	}
	*fields = list;
	return DSA_OK;
}

static void help_options(enum dsa_command command)
{
	for (int i = 0; i < ROWS; i++) {
		if (!(table[i].commands & ON(command)))
			continue;
		char left[96];
		snprintf(left, sizeof left, "--%s%s%s", table[i].name, table[i].argument ? " " : "",
		         table[i].argument ? table[i].argument : "");
		if (strlen(left) > 30)
			printf("  %s\n  %-30s  %s\n", left, "", table[i].help);
		else
			printf("  %-30s  %s\n", left, table[i].help);
	}
}

void dsa_cli_help(enum dsa_command command)
{
	const struct dsa_cli_command *about = &dsa_cli_commands[command];
	if (command != DSA_CMD_HELP) {
		printf("dsacal %s [OPTIONS]%s%s: %s\n", about->name, *about->operands ? " " : "", about->operands,
		       about->summary);
		if (*about->text)
			printf("\n%s\n", about->text);
		printf("\nOptions:\n");
		help_options(command);
		printf("\nExample:\n  %s\n", about->example);
		return;
	}
	printf("dsacal: which layers of a DeepSeek-Sparse-Attention model may share their top-k selection\n\n");
	for (int c = 0; c < DSA_COMMANDS; c++)
		printf("  %-10s %-13s %s\n", dsa_cli_commands[c].name, dsa_cli_commands[c].operands,
		       dsa_cli_commands[c].summary);
	printf("\nExit status: 0 done or holds, 1 a quality bound is broken, 2 wrong usage, 3 could not measure,\n"
	       "75 interrupted and resumable. Results on stdout, everything else on stderr.\n");
}

enum dsa_status dsa_cli_corpus(const char *value, struct dsa_corpus_source *source, struct dsa_arena *arena,
                               struct dsa_error *err)
{
	const char *path = value, *end = value + strlen(value);
	*source = (struct dsa_corpus_source){.weight = 1};
	const char *equals = strchr(value, '=');
	const char *slash = strchr(value, '/');
	const char *weight = strstr(value, ":weight=");
	/* A name comes before the first slash; "./a=b.txt" is a path. */
	if (equals && (!slash || equals < slash) && (!weight || equals < weight)) {
		source->name = dsa_arena_text(arena, value, (size_t)(equals - value), err);
		if (!source->name)
			return DSA_E_MEMORY;
		if (!*source->name)
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: the name before '=' is empty", value);
		path = equals + 1;
	}
	if (weight) {
		end = weight;
		if (!parse_real(weight + strlen(":weight="), &source->weight) || !(source->weight > 0))
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: the weight must be a number above 0", value);
	}
	if (end <= path)
		return dsa_fail(err, DSA_E_USAGE, "--corpus %s: no path", value);
	source->path = dsa_arena_text(arena, path, (size_t)(end - path), err);
	if (!source->path)
		return DSA_E_MEMORY;
	return DSA_OK; /* without a name the spool derives one from the path */
}

static enum dsa_status max_shared(const char *text, int layers, int *out, struct dsa_error *err)
{
	int64_t count;
	double share;
	*out = -1;
	if (!text)
		return DSA_OK;
	if (strchr(text, '%')) {
		if (!parse_share(text, &share))
			return dsa_fail(err, DSA_E_USAGE, "--max-shared: found '%s', expected 0%% to 100%%", text);
		*out = (int)floor(share * layers + 1e-9);
		return DSA_OK;
	}
	if (!parse_count(text, &count) || count > layers)
		return dsa_fail(err, DSA_E_USAGE, "--max-shared: found '%s', expected 0 to %d, or P%%", text, layers);
	*out = (int)count;
	return DSA_OK;
}

enum dsa_status dsa_cli_budget(const struct dsa_cli_options *options, int layers, struct dsa_budget *budget,
                               bool *given, struct dsa_error *err)
{
	*budget = (struct dsa_budget){.kl = options->budget_kl,
	                              .nll = options->budget_nll,
	                              .kl_p99 = options->budget_kl_p99,
	                              .top1 = options->min_top1,
	                              .max_shared = -1,
	                              .scope = options->scope && !strcmp(options->scope, "worst") ? DSA_SCOPE_WORST
	                                                                                          : DSA_SCOPE_MEAN};
	const struct {
		const char *name;
		double value;
	} bounds[] = {{"budget-kl", options->budget_kl},
	              {"budget-nll", options->budget_nll},
	              {"budget-kl-p99", options->budget_kl_p99}};
	for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
		if (bounds[i].value < 0)
			return dsa_fail(err, DSA_E_USAGE, "--%s is %g, expected 0 or more", bounds[i].name,
			                bounds[i].value);
	if (options->min_top1 < 0 || options->min_top1 > 1)
		return dsa_fail(err, DSA_E_USAGE, "--min-top1 is %g, expected 0 to 1", options->min_top1);
	enum dsa_status status = max_shared(options->max_shared, layers, &budget->max_shared, err);
	if (status)
		return status;
	*given = !isnan(budget->kl) || !isnan(budget->nll) || !isnan(budget->kl_p99) || !isnan(budget->top1) ||
	         budget->max_shared >= 0;
	return DSA_OK;
}

/* Marks the layers of "3,7,10-12". */
static enum dsa_status mark_list(const char *name, const char *list, int layers, bool *locked, struct dsa_error *err)
{
	const char *at = list;
	while (at && *at) {
		char *end;
		long first = strtol(at, &end, 10), last = first;
		if (end != at && *end == '-') {
			const char *second = end + 1;
			last = strtol(second, &end, 10);
			if (end == second)
				end = (char *)(uintptr_t)at;
		}
		if (end == at || first < 0 || last < first || last >= layers || (*end && (*end != ',' || !end[1])))
			return dsa_fail(err, DSA_E_USAGE, "--%s: found '%s', expected layers 0 to %d such as 3,7,10-12",
			                name, list, layers - 1);
		for (long l = first; l <= last; l++)
			locked[l] = true;
		at = *end ? end + 1 : end;
	}
	return DSA_OK;
}

enum dsa_status dsa_cli_locked(const struct dsa_cli_options *options, int layers, bool *locked, struct dsa_error *err)
{
	memset(locked, 0, (size_t)layers * sizeof *locked);
	locked[0] = true;
	enum dsa_status status = mark_list("force-full", options->force_full, layers, locked, err);
	if (!status)
		status = mark_list("pp-starts", options->pp_starts, layers, locked, err);
	if (status)
		return status;
	if (options->pp > layers)
		return dsa_fail(err, DSA_E_USAGE, "--pp %lld: the model has %d layers", (long long)options->pp, layers);
	/* A remainder makes the first stages one layer longer; where an engine cuts otherwise, --pp-starts says it. */
	for (int64_t s = 0, first = 0; s < options->pp; s++) {
		locked[first] = true;
		first += layers / options->pp + (s < layers % options->pp);
	}
	return DSA_OK;
}
