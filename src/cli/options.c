#include "options.h"

#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "config_file.h"
#include "option_table.h"

#define ON(command) DSA_OPTION_OF(command)
#define PLANNED (ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EVALUATE) | ON(DSA_CMD_OVERLAP))
#define MEASURING (PLANNED | ON(DSA_CMD_VERIFY))
#define BUDGETED (ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EVALUATE) | ON(DSA_CMD_VERIFY) | ON(DSA_CMD_SOLVE))
#define EVERY (ON(DSA_COMMANDS) - 1)
#define AT(field) offsetof(struct dsa_cli_options, field)

const struct dsa_option_row dsa_option_table[] = {
    {"config", TEXT, AT(config), "FILE", "options from a YAML file; those given here win", MEASURING, false},
    {"model", TEXT, AT(model), "DIR", "checkpoint directory (config.json, safetensors, tokenizer.json)",
     MEASURING | ON(DSA_CMD_TOKENIZE) | ON(DSA_CMD_BENCH), true},
    {"shape", CHOICE, AT(shape), "glm5|dsv32", "random weights of these layer shapes in place of a checkpoint",
     ON(DSA_CMD_BENCH), false},
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
    {"search", CHOICE, AT(search), "exact|racing|naive",
     "racing (default): drop a candidate once it cannot be the best; exact: every candidate on every document; naive: "
     "exact without any saving, for comparison",
     ON(DSA_CMD_CALIBRATE), true},
    {"delta", REAL, AT(delta), "X", "racing: chance that a flip is not within epsilon of the best (default 0.01)",
     ON(DSA_CMD_CALIBRATE), true},
    {"epsilon", PERCENT, AT(epsilon), "P%", "racing: share of the budget that a flip may miss the best by (default 2%)",
     ON(DSA_CMD_CALIBRATE), true},
    {"refine", SWITCH, AT(refine), "no-refine",
     "after the search, look for better patterns by exchanging layers (default: on)", ON(DSA_CMD_CALIBRATE), true},
    {"refine-work", REAL, AT(refine_work), "X", "most it may cost, as a multiple of the search's work (default 1)",
     ON(DSA_CMD_CALIBRATE), true},
    {"full-trace", FLAG, AT(full_trace), NULL, "go on past the budget to the last layer",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_SOLVE), true},
    {"holdout", PERCENT, AT(holdout), "P%", "share of documents the search never sees (verify: as recorded)",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_VERIFY), true},
    {"baseline", LIST, AT(baseline), "PATTERN|FILE",
     "measure this pattern beside (report: show it beside); may be given more than once",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_REPORT), true},
    {"force-full", TEXT, AT(force_full), "LIST", "layers that must stay F: 3,7,10-12", ON(DSA_CMD_CALIBRATE), true},
    {"pp-starts", TEXT, AT(pp_starts), "LIST", "first layers of pipeline stages: must stay F", ON(DSA_CMD_CALIBRATE),
     true},
    {"pp", COUNT, AT(pp), "N", "N even pipeline stages: their first layers must stay F",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_EXPORT), true},
    {"context", COUNT, AT(context), "N",
     "cut documents to N tokens (default: the model's maximum; bench: 65536, on the CPU 512; inspect: 32768)",
     MEASURING | ON(DSA_CMD_BENCH) | ON(DSA_CMD_INSPECT), true},
    {"max-tokens", COUNT, AT(max_tokens), "N",
     "read at most about N tokens of each corpus (inspect: documents to plan for, default 1048576)",
     MEASURING | ON(DSA_CMD_INSPECT), true},
    {"batch-tokens", COUNT, AT(batch_tokens), "N",
     "tokens of documents that run together (default 4096, on a GPU 32768, less for a race of few documents); races "
     "look "
     "after each batch",
     MEASURING | ON(DSA_CMD_INSPECT), true},
    {"seed", COUNT, AT(seed), "N", "of the noise floor and the order of documents", MEASURING, true},
    {"indexer-precision", CHOICE, AT(indexer_precision), "f32|bf16|fp8",
     "of the indexer's queries and keys; fp8: rotated and quantised as serving does; f32 on a GPU is bf16 "
     "(default f32; verify: as recorded)",
     MEASURING | ON(DSA_CMD_BENCH), true},
    {"device", TEXT, AT(device), "auto|cpu|cuda[:i]", "where to run (default auto: a GPU if there is one)",
     MEASURING | ON(DSA_CMD_BENCH), false},
    {"threads", COUNT, AT(threads), "N", "CPU threads (default: all); changes no figure", MEASURING | ON(DSA_CMD_BENCH),
     false},
    {"host-memory", SIZE, AT(host_memory), "SIZE",
     "memory for kept states, e.g. 4GiB (default: half of what is free; of each rank; inspect: 512GiB, and 64GiB on "
     "each of 8 GPUs); changes no figure",
     MEASURING | ON(DSA_CMD_INSPECT), false},
    {"spill", SIZE, AT(spill), "SIZE",
     "disk in RUN for states beyond --host-memory; 0: none, they are run again (default: on the CPU 4 times "
     "--host-memory, at most half of what is free; none on a GPU or where RUN is in memory); changes no figure",
     ON(DSA_CMD_CALIBRATE), false},
    {"spill-zstd", FLAG, AT(spill_zstd), NULL, "compress them: less disk, more time", ON(DSA_CMD_CALIBRATE), false},
    {"gpu-memory", SIZE, AT(gpu_memory), "SIZE",
     "most memory of the GPU to take (default: all that is free; inspect: 78GiB)",
     MEASURING | ON(DSA_CMD_BENCH) | ON(DSA_CMD_INSPECT), false},
    {"residency", CHOICE, AT(residency), "device|stored|host|disk",
     "the fastest place that layers may lie in: on the device for products (default) or as stored, in host memory, on "
     "disk; what does not fit goes on to the next; changes no figure",
     MEASURING | ON(DSA_CMD_INSPECT), false},
    {"from", TEXT, AT(from), "RUN", "judge what this run's journal holds: no model, no documents, no GPU",
     ON(DSA_CMD_VERIFY), false},
    {"quick", COUNT, AT(quick), "N",
     "look after N documents of each corpus and split, then after twice as many; end when they decide",
     ON(DSA_CMD_VERIFY), false},
    {"tolerance", REAL, AT(tolerance), "X",
     "a recorded figure may be missed by X of its standard errors, beside the noise floor (default 3)",
     ON(DSA_CMD_VERIFY), false},
    {"allow-model-change", FLAG, AT(allow_model_change), NULL,
     "measure although weights, configuration or tokenizer are not the recorded ones", ON(DSA_CMD_VERIFY), false},
    {"accept", FLAG, AT(accept), NULL, "write the new figures into PATTERN.yaml, unless a bound is broken",
     ON(DSA_CMD_VERIFY), false},
    {"junit", TEXT, AT(junit), "FILE", "also write the checks as JUnit XML", ON(DSA_CMD_VERIFY), false},
    {"engine", CHOICE, AT(engine), "vllm|sglang|transformers|trtllm|lmdeploy|llamacpp",
     "the serving engine to write for", ON(DSA_CMD_EXPORT), false},
    {"config-json", TEXT, AT(config_json), "FILE",
     "also write the pattern into this config.json of the checkpoint; the original stays as FILE.orig",
     ON(DSA_CMD_EXPORT), false},
    {"strict", FLAG, AT(strict), NULL, "a warning is an error", ON(DSA_CMD_EXPORT), false},
    {"bench", LIST, AT(bench), "FILE",
     "take the expected gain (inspect --plan: layers' times) from what bench --json measured; one file per context",
     ON(DSA_CMD_CALIBRATE) | ON(DSA_CMD_REPORT) | ON(DSA_CMD_INSPECT), false},
    {"svg", TEXT, AT(svg), "DIR", "also write each figure as a file into DIR", ON(DSA_CMD_REPORT), false},
    {"dry-run", FLAG, AT(dry_run), NULL, "print the plan and an estimate of the time; leave RUN alone", PLANNED, false},
    {"plan", FLAG, AT(plan), NULL,
     "also work out, without a GPU, what a calibration would cost on one H100 and on eight", ON(DSA_CMD_INSPECT),
     false},
    {"json", FLAG, AT(json), NULL, "results on stdout as JSON", EVERY, false},
    {"quiet", FLAG, AT(quiet), NULL, "no progress, no notes; warnings and errors only", EVERY, false},
    {"verbose", FLAG, AT(verbose), NULL, "say more", EVERY, false},
    {"no-progress", FLAG, AT(no_progress), NULL, "no progress bar and no timed lines", EVERY, false},
};
enum { ROWS = sizeof dsa_option_table / sizeof *dsa_option_table, HELP_VALUE = 1000 };
const int dsa_option_rows = ROWS;

const struct dsa_cli_command dsa_cli_commands[DSA_COMMANDS] = {
    [DSA_CMD_CALIBRATE] = {"calibrate", "", "find the pattern of F and S layers for a model and documents",
                           "Streams the documents through the model, flips layers from F to S greedily until a "
                           "budget is hit, and leaves\npattern.yaml, results.json, report.html and its "
                           "tables as CSV in RUN. Killed at any moment, --resume goes on.",
                           "dsacal calibrate --model ./glm --corpus legal=contracts.jsonl.zst --budget-kl 0.01 "
                           "--out runs/legal\n"
                           "dsacal calibrate --model ./glm --corpus a=a.jsonl --corpus b=b.jsonl:weight=2 --pp 4 --out "
                           "runs/ab --dry-run\n"
                           "dsacal calibrate --config runs/legal/config.yaml --out runs/legal --resume"},
    [DSA_CMD_EVALUATE] =
	{"evaluate", "", "measure one pattern against the checkpoint's own",
         "With bounds given, exit 0 means that they hold and 1 that they do not.",
         "dsacal evaluate --model ./glm --corpus legal.jsonl --pattern FFSS… --budget-kl 0.01\n"
         "dsacal evaluate --model ./glm --corpus legal.jsonl --pattern runs/legal/pattern.yaml --json"},
    [DSA_CMD_VERIFY] =
	{"verify", "PATTERN.yaml", "does a saved pattern still hold? for CI",
         "Measures the pattern again and compares with the bounds and figures in the file. Exit 0: it "
         "holds; 1: it got worse;\n3: it could not be measured, or the model is another. Context, split, "
         "indexers' precision\nand bounds are the file's unless given here.",
         "dsacal verify pattern.yaml --model ./glm --corpus legal=contracts.jsonl.zst --junit "
         "verify.xml"},
    [DSA_CMD_OVERLAP] = {"overlap", "", "how alike the layers' selections are; no search",
                         "Writes overlap.csv and overlap.json into RUN.",
                         "dsacal overlap --model ./glm --corpus legal.jsonl --out runs/overlap"},
    [DSA_CMD_SOLVE] = {"solve", "RUN", "another budget from a finished run: no model, no GPU",
                       "Replays the run's journal under other bounds. Goes as far as the trace does; calibrate "
                       "with --full-trace to go anywhere.",
                       "dsacal solve runs/legal --budget-kl 0.005 --out pattern-strict.yaml\n"
                       "dsacal solve runs/legal --max-shared 50% --json"},
    [DSA_CMD_REPORT] = {"report", "RUN",
                        "write report.html and its tables again from a run directory: no model, no GPU",
                        "With --svg also each figure as a file. With --bench the expected gain becomes what `dsacal "
                        "bench --json` measured,\nin results.json and pattern.yaml too.",
                        "dsacal report runs/legal --svg figures\n"
                        "dsacal report runs/legal --bench h100-32k.json --bench h100-128k.json"},
    [DSA_CMD_EXPORT] = {"export", "PATTERN.yaml", "the arguments a serving engine takes",
                        "Prints what to pass to the engine; refuses what it would misread, warns where it will not "
                        "honour the pattern.",
                        "dsacal export runs/legal/pattern.yaml --engine vllm --pp 2\n"
                        "dsacal export runs/legal/pattern.yaml --engine transformers --config-json ./glm/config.json"},
    [DSA_CMD_DIFF] = {"diff", "A.yaml B.yaml", "two pattern files: layers that changed, figures side by side",
                      "Exit 0 whenever both can be read.", "dsacal diff main/pattern.yaml pattern.yaml"},
    [DSA_CMD_INSPECT] = {"inspect", "MODEL_DIR", "architecture, sizes, native pattern, what fits on a GPU",
                         "Reads config.json, the headers of the weights, and a few blocks of each for the fingerprint.",
                         "dsacal inspect ./glm\ndsacal inspect ./glm --gpu-memory 139GiB --json\ndsacal inspect ./glm "
                         "--plan --context 65536"},
    [DSA_CMD_TOKENIZE] = {"tokenize", "FILE…", "token ids, one line per document",
                          "For checking against the reference tokenizer.",
                          "dsacal tokenize --model ./glm contract.txt\n"
                          "dsacal tokenize --model ./glm corpus.jsonl.zst > ids.txt"},
    [DSA_CMD_BENCH] = {"bench", "", "how fast this device runs the operators and layers",
                       "Times every operator and each kind of layer, on a checkpoint or on random weights, beside a "
                       "large product and a copy\nmeasured in the same run.",
                       "dsacal bench --shape glm5 --context 65536\n"
                       "dsacal bench --model ./glm --context 32768 --json > h100-32k.json"},
    [DSA_CMD_COMPLETION] = {"completion", "bash|zsh", "completions for a shell, to be sourced or installed",
                            "Made from the same table as the help: commands, options, and the values of those that "
                            "have a choice.",
                            "source <(dsacal completion bash)\n"
                            "dsacal completion zsh > ~/.zfunc/_dsacal"},
    [DSA_CMD_HELP] = {"help", "[COMMAND]", "this list, or a command's options",
                      "--man instead of a command prints the manual page.",
                      "dsacal help calibrate\ndsacal help --man | man -l -"},
};

static void *field(struct dsa_cli_options *options, const struct dsa_option_row *row)
{
	return (char *)options + row->offset;
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

/* What a value should have been, in words. */
static const char *expected_value(const struct dsa_option_row *row)
{
	switch (row->kind) {
	case COUNT:
		return "a whole number, 0 or more";
	case SIZE:
		return "a size such as 512MiB or 4GiB";
	case REAL:
		return "a number such as 0.01";
	case PERCENT:
		return "a share such as 20% or 0.2";
	case TEXT:
	case CHOICE:
	case LIST:
	case FLAG:
	case SWITCH:
		break;
	}
	return row->argument;
}

enum dsa_status dsa_option_store(struct dsa_cli_options *options, const struct dsa_option_row *row, const char *value,
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
		good = dsa_option_count(value, to);
		break;
	case REAL:
		good = dsa_option_real(value, to);
		break;
	case SIZE:
		good = dsa_option_size(value, to);
		break;
	case PERCENT:
		good = dsa_option_share(value, to);
		break;
	case FLAG:
		*(bool *)to = true;
		break;
	case SWITCH:
		*(bool *)to = !value || strcmp(value, "false") != 0;
		break;
	}
	if (!good)
		return dsa_fail(err, DSA_E_USAGE, "--%s: found '%s', expected %s", row->name, value,
		                expected_value(row));
	return DSA_OK;
}

static void set_defaults(struct dsa_cli_options *options, enum dsa_command command)
{
	*options =
	    (struct dsa_cli_options){.command = command,
	                             .device = "auto",
	                             /* verify's NULL, -1, NAN: as recorded */
	                             .residency = "device",
	                             .indexer_precision = command == DSA_CMD_VERIFY ? NULL : "f32",
	                             .seed = command == DSA_CMD_VERIFY ? -1 : 1,
	                             .holdout = command == DSA_CMD_VERIFY ? (double)NAN : 0.2,
	                             .tolerance = 3,
	                             .delta = 0.01,
	                             .epsilon = 0.02,
	                             .refine = true,
	                             .refine_work = 1,
	                             .spill = DSA_SPILL_DERIVED,
	                             .budget_kl = NAN,
	                             .budget_nll = NAN,
	                             .budget_kl_p99 = NAN,
	                             .min_top1 = NAN,
	                             /* NULL: as in the run or in the file */
	                             .scope = command == DSA_CMD_SOLVE || command == DSA_CMD_VERIFY ? NULL : "mean",
	                             .objective = command == DSA_CMD_SOLVE ? NULL : "kl",
	                             .search = command == DSA_CMD_CALIBRATE ? "racing" : "exact"};
}

/* getopt's table of the options that this command knows. */
static void getopt_table(enum dsa_command command, struct option *out)
{
	int used = 0;
	for (int i = 0; i < ROWS; i++) {
		if (!(dsa_option_table[i].commands & ON(command)))
			continue;
		const enum dsa_option_kind kind = dsa_option_table[i].kind;
		out[used++] =
		    (struct option){.name = dsa_option_table[i].name,
		                    .has_arg = kind == FLAG || kind == SWITCH ? no_argument : required_argument,
		                    .val = HELP_VALUE + 1 + i};
		if (kind == SWITCH)
			out[used++] =
			    (struct option){.name = dsa_option_table[i].argument, .val = HELP_VALUE + 1 + ROWS + i};
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
		if (!strncmp(word, "--", 2) &&
		    (!strcmp(word + 2, dsa_option_table[i].name) ||
		     (dsa_option_table[i].kind == SWITCH && !strcmp(word + 2, dsa_option_table[i].argument))))
			return dsa_fail(err, DSA_E_USAGE, "%s is no option of '%s'; see 'dsacal help %s'", word, name,
			                name);
	return dsa_fail(err, DSA_E_USAGE, "unknown option %s; see 'dsacal help %s'", word, name);
}

static enum dsa_status parse_words(struct dsa_cli_options *options, int argc, char **argv, bool *help,
                                   struct dsa_error *err)
{
	struct option known[2 * ROWS + 2];
	getopt_table(options->command, known);
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
			return refuse(options->command, code, word, err);
		}
		const int row = code - HELP_VALUE - 1;
		enum dsa_status status =
		    dsa_option_store(options, &dsa_option_table[row % ROWS], row < ROWS ? optarg : "false", err);
		if (status)
			return status;
	}
	options->operands = (const char *const *)argv + optind;
	options->operand_count = argc - optind;
	return DSA_OK;
}

/* A list on the command line takes the place of the file's. */
static void clear_lists(struct dsa_cli_options *options, const struct dsa_cli_options *words)
{
	for (int i = 0; i < ROWS; i++) {
		const struct dsa_option_row *row = &dsa_option_table[i];
		const struct dsa_cli_list *given = (const void *)((const char *)words + row->offset);
		if (row->kind == LIST && given->count)
			((struct dsa_cli_list *)field(options, row))->count = 0;
	}
}

enum dsa_status dsa_cli_parse(struct dsa_cli_options *options, enum dsa_command command, int argc, char **argv,
                              bool *help, struct dsa_arena *arena, struct dsa_error *err)
{
	set_defaults(options, command);
	*help = false;
	enum dsa_status status = parse_words(options, argc, argv, help, err);
	if (status || *help || !options->config)
		return status;
	const struct dsa_cli_options words = *options;
	set_defaults(options, command);
	status = dsa_config_file_read(options, words.config, arena, err);
	if (status)
		return status;
	clear_lists(options, &words);
	return parse_words(options, argc, argv, help, err);
}
