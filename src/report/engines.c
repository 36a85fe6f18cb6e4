#include "dsa/engines.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "dsa/pattern.h"

static const struct {
	const char *name, *title, *where;
} engines[DSA_ENGINES] = {
    [DSA_ENGINE_VLLM] = {"vllm", "vLLM", "command line"},
    [DSA_ENGINE_SGLANG] = {"sglang", "SGLang", "command line"},
    [DSA_ENGINE_TRTLLM] = {"trtllm", "TensorRT-LLM", "config.json"},
    [DSA_ENGINE_TRANSFORMERS] = {"transformers", "transformers", "config.json"},
    [DSA_ENGINE_LMDEPLOY] = {"lmdeploy", "LMDeploy", "config.json"},
    [DSA_ENGINE_LLAMACPP] = {"llamacpp", "llama.cpp", "GGUF metadata"},
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

static void add_types(struct dsa_text *text, const char *pattern)
{
	dsa_text_add(text, "\"indexer_types\": [");
	for (const char *c = pattern; *c; c++)
		dsa_text_printf(text, "%s\"%s\"", c == pattern ? "" : ", ", *c == 'F' ? "full" : "shared");
	dsa_text_add(text, "]");
}

enum dsa_status dsa_engine_export(struct dsa_export *out, enum dsa_engine engine, const char *architecture, int layers,
                                  const char *pattern, int stages, struct dsa_error *err)
{
	assert(engine < DSA_ENGINES);
	*out = (struct dsa_export){.where = engines[engine].where};
	enum dsa_status status = dsa_pattern_check(pattern, layers, "the pattern", err);
	if (status)
		return status;
	if (stages < 1 || stages > layers)
		return dsa_fail(err, DSA_E_USAGE, "--pp %d: expected 1 to %d, the number of layers", stages, layers);
	for (int stage = 1; stage < stages; stage++) {
		int start = dsa_engine_stage_start(engine, layers, stages, stage);
		if (pattern[start] == 'S')
			return dsa_fail(err, DSA_E_USAGE,
			                "--pp %d: %s starts pipeline stage %d at layer %d, which is S and would read a "
			                "selection that its rank never made; calibrate with --pp %d or --force-full %d",
			                stages, engines[engine].title, stage, start, stages, start);
	}
	judge_support(out, engine, architecture);
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
		dsa_text_printf(&out->text, "{\"index_topk_pattern\": \"%s\", ", pattern);
		add_types(&out->text, pattern);
		dsa_text_add(&out->text, "}");
		break;
	case DSA_ENGINE_LMDEPLOY:
		dsa_text_add(&out->text, "{");
		add_types(&out->text, pattern);
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
