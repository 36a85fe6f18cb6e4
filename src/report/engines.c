#include "dsa/engines.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "dsa/pattern.h"

/* What an engine would make of a pattern that is refused; NULL where nothing was seen in its source. */
struct consequences {
	const char *letter, *shorter, *longer, *first, *stage;
};

static const struct {
	const char *name, *title, *where, *note;
	struct consequences would;
} engines[DSA_ENGINES] = {
    [DSA_ENGINE_VLLM] = {"vllm",
                         "vLLM",
                         "command line",
                         "each pipeline rank has a selection of its own: for pipeline parallelism export with --pp N",
                         {.letter = "runs every letter but an upper-case S as F",
                          .shorter = "would run the layers behind its end as F",
                          .longer = "would ignore the letters behind the last layer",
                          .first = "would read a buffer that nobody wrote",
                          .stage = "gives each rank a buffer of its own, which nobody has written there"}},
    [DSA_ENGINE_SGLANG] = {"sglang",
                           "SGLang",
                           "command line",
                           "no flag enables it, the pattern does; for pipeline parallelism export with --pp N",
                           {.shorter = "crashes on it in older versions",
                            .stage = "crashes on such a stage in older versions"}},
    [DSA_ENGINE_TRTLLM] = {"trtllm",
                           "TensorRT-LLM",
                           "config.json",
                           "the string is what counts; indexer_types is ignored",
                           {.letter = "would take lower case, other engines do not",
                            .first = "would force that layer to F and run another pattern than was measured"}},
    [DSA_ENGINE_TRANSFORMERS] = {"transformers",
                                 "transformers",
                                 "config.json",
                                 "indexer_types wins over index_topk_pattern",
                                 {.letter = "raises KeyError on it",
                                  .shorter = "does not check the length",
                                  .longer = "does not check the length"}},
    [DSA_ENGINE_LMDEPLOY] = {"lmdeploy",
                             "LMDeploy",
                             "config.json",
                             "the list is all that is read",
                             {.first = "raises on a buffer that nobody wrote",
                              .stage = "raises on a buffer that nobody wrote"}},
    [DSA_ENGINE_LLAMACPP] = {"llamacpp", "llama.cpp", "GGUF metadata", "1 is full, 0 is shared", {0}},
};

const char *dsa_engine_name(enum dsa_engine engine)
{
	return engines[engine].name;
}

const char *dsa_engine_title(enum dsa_engine engine)
{
	return engines[engine].title;
}

enum dsa_status dsa_engine_parse(const char *name, enum dsa_engine *out, struct dsa_error *err)
{
	for (int i = 0; i < DSA_ENGINES; i++) {
		if (!strcmp(name, engines[i].name)) {
			*out = (enum dsa_engine)i;
			return DSA_OK;
		}
	}
	return dsa_fail(err, DSA_E_USAGE,
	                "--engine %.60s: expected vllm, sglang, trtllm, transformers, lmdeploy or llamacpp", name);
}

int dsa_engine_stage_start(enum dsa_engine engine, int layers, int stages, int stage)
{
	assert(stages >= 1 && stages <= layers && stage >= 0 && stage < stages);
	int each = layers / stages, extra = layers % stages, start = 0;
	for (int i = 0; i < stage; i++) {
		bool longer;
		if (engine == DSA_ENGINE_VLLM) /* all but the last, from the back */
			longer = i < stages - 1 && i >= stages - 1 - extra;
		else if (engine == DSA_ENGINE_SGLANG) /* the last ones */
			longer = i >= stages - extra;
		else
			longer = i < extra;
		start += each + longer;
	}
	return start;
}

static void warn(struct dsa_export *out, const char *fmt, ...) DSA_PRINTF(2, 3);

static void warn(struct dsa_export *out, const char *fmt, ...)
{
	char text[DSA_ERROR_CHARS];
	va_list args;
	assert(out->warnings < DSA_EXPORT_WARNINGS);
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	/* dsa_fail() flattens control characters; its code says nothing here. */
	(void)!dsa_fail(&out->warning[out->warnings++], DSA_E_USAGE, "%s", text);
}

/* What is known of engine × architecture. */
static void judge_support(struct dsa_export *out, enum dsa_engine engine, const char *architecture)
{
	bool v32 = architecture && !strcmp(architecture, "deepseek_v32");
	bool glm = architecture && !strcmp(architecture, "glm_moe_dsa");
	const char *title = engines[engine].title;
	if (!architecture)
		return;
	if (!v32 && !glm)
		warn(out, "%s: nothing is known of sharing for the architecture %.60s", title, architecture);
	else if (engine == DSA_ENGINE_TRANSFORMERS && v32)
		warn(out, "%s: its deepseek_v32 runs every indexer and ignores the S layers", title);
	else if (engine == DSA_ENGINE_LMDEPLOY && v32)
		warn(out, "%s: sharing is known for glm_moe_dsa only, not for deepseek_v32", title);
	else if (engine == DSA_ENGINE_LLAMACPP && v32)
		warn(out, "%s: the key belongs to glm-dsa; for deepseek_v32 it is not read", title);
}

/* What the checkpoint says itself stands against the export. */
static void judge_native(struct dsa_export *out, const struct dsa_export_request *request)
{
	const char *native = request->reference;
	bool reads_list = request->engine == DSA_ENGINE_TRANSFORMERS || request->engine == DSA_ENGINE_LMDEPLOY;
	if (!native || !dsa_pattern_shared(native))
		return;
	if (reads_list && !request->replaces)
		warn(out,
		     "%s: the checkpoint shares layers by itself; an indexer_types in its config.json must be replaced "
		     "by "
		     "this list or it wins without a word (--config-json FILE replaces it)",
		     engines[request->engine].title);
	for (int l = 0; native[l] && request->pattern[l]; l++) {
		if (native[l] == 'S' && request->pattern[l] == 'F') {
			warn(out, "layer %d is F, but the checkpoint shares there and may hold no indexer for it", l);
			break;
		}
	}
}

/* Puts what the engine would do behind what is wrong. */
static enum dsa_status refuse(enum dsa_engine engine, const char *would, struct dsa_error *err)
{
	if (!would || !err)
		return DSA_E_USAGE;
	return dsa_fail(err, DSA_E_USAGE, "%.600s; %s %s", err->text, engines[engine].title, would);
}

static enum dsa_status check_pattern(const struct dsa_export_request *request, struct dsa_error *err)
{
	const char *pattern = request->pattern;
	const struct consequences *would = &engines[request->engine].would;
	size_t length = strlen(pattern), layers = (size_t)request->layers;
	if (request->mtp_layers && length == layers + (size_t)request->mtp_layers)
		return dsa_fail(
		    err, DSA_E_USAGE,
		    "the pattern: %zu letters for %zu decoder layers: the %d of multi-token prediction are not "
		    "counted, they always run their indexer; leave their letters away",
		    length, layers, request->mtp_layers);
	if (!dsa_pattern_check(pattern, request->layers, "the pattern", err))
		return DSA_OK;
	if (strspn(pattern, "FS") != length)
		return refuse(request->engine, would->letter, err);
	if (length != layers)
		return refuse(request->engine, length < layers ? would->shorter : would->longer, err);
	return refuse(request->engine, would->first, err);
}

static enum dsa_status check_stages(const struct dsa_export_request *request, struct dsa_error *err)
{
	const enum dsa_engine engine = request->engine;
	const int layers = request->layers, stages = request->stages;
	if (stages < 1 || stages > layers)
		return dsa_fail(err, DSA_E_USAGE, "--pp %d: expected 1 to %d, the number of layers", stages, layers);
	for (int stage = 1; stage < stages; stage++) {
		int start = dsa_engine_stage_start(engine, layers, stages, stage);
		if (request->pattern[start] == 'F')
			continue;
		(void)!dsa_fail(err, DSA_E_USAGE,
		                "--pp %d: %s starts pipeline stage %d at layer %d, which is S and would read a "
		                "selection that its rank never made; calibrate with --pp %d or --force-full %d",
		                stages, engines[engine].title, stage, start, stages, start);
		return refuse(engine, engines[engine].would.stage, err);
	}
	return DSA_OK;
}

void dsa_engine_types(struct dsa_text *text, const char *pattern)
{
	dsa_text_add(text, "[");
	for (const char *c = pattern; *c; c++) {
		dsa_text_add(text, c == pattern ? "" : ", ");
		dsa_text_add(text, *c == 'F' ? "\"full\"" : "\"shared\"");
	}
	dsa_text_add(text, "]");
}

enum dsa_status dsa_engine_export(struct dsa_export *out, const struct dsa_export_request *request,
                                  struct dsa_error *err)
{
	const enum dsa_engine engine = request->engine;
	const char *pattern = request->pattern, *architecture = request->architecture;
	assert(engine < DSA_ENGINES);
	*out = (struct dsa_export){.where = engines[engine].where, .note = engines[engine].note};
	if (engine == DSA_ENGINE_VLLM && architecture && !strncmp(architecture, "deepseek_v4", 11))
		return dsa_fail(err, DSA_E_USAGE,
		                "vLLM reads one letter per C4 layer (compress_ratio 4) for %.60s, not one per decoder "
		                "layer; this pattern would land on other layers, and dsacal measures no such model",
		                architecture);
	enum dsa_status status = check_pattern(request, err);
	if (!status)
		status = check_stages(request, err);
	if (status)
		return status;
	judge_support(out, engine, architecture);
	judge_native(out, request);
	switch (engine) {
	case DSA_ENGINE_VLLM:
		dsa_text_printf(&out->text,
		                "--hf-overrides '{\"use_index_cache\": true, \"index_topk_pattern\": \"%s\"}'",
		                pattern);
		break;
	case DSA_ENGINE_SGLANG:
		dsa_text_printf(&out->text, "--json-model-override-args '{\"index_topk_pattern\": \"%s\"}'", pattern);
		break;
	case DSA_ENGINE_TRTLLM:
		dsa_text_printf(&out->text, "{\"index_topk_pattern\": \"%s\"}", pattern);
		break;
	case DSA_ENGINE_TRANSFORMERS:
		/* Both spellings; a native indexer_types list has to be replaced, or it wins. */
		dsa_text_printf(&out->text, "{\"index_topk_pattern\": \"%s\", \"indexer_types\": ", pattern);
		dsa_engine_types(&out->text, pattern);
		dsa_text_add(&out->text, "}");
		break;
	case DSA_ENGINE_LMDEPLOY:
		dsa_text_add(&out->text, "{\"indexer_types\": ");
		dsa_engine_types(&out->text, pattern);
		dsa_text_add(&out->text, "}");
		break;
	case DSA_ENGINE_LLAMACPP:
		dsa_text_add(&out->text, "{\"glm-dsa.attention.indexer.types\": [");
		for (const char *c = pattern; *c; c++)
			dsa_text_printf(&out->text, "%s%d", c == pattern ? "" : ", ", *c == 'F');
		dsa_text_add(&out->text, "]}");
		break;
	case DSA_ENGINES:
		break;
	}
	return dsa_text_check(&out->text, "the engine's arguments", err);
}

void dsa_export_release(struct dsa_export *out)
{
	if (out)
		dsa_text_release(&out->text);
}
