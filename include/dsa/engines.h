/* engines.h: a pattern in the words of the engines that serve it, and what each of them does with it.
 *
 * Rules were read from the engines' sources (2026): vLLM and SGLang index one string by absolute decoder layer and
 * check nothing; TensorRT-LLM forces layer 0 to F; transformers prefers indexer_types and raises KeyError on other
 * letters; lmdeploy and llama.cpp read the list only. What is safe for all: exactly one upper-case letter per decoder
 * layer, F first, F at the first layer of every pipeline stage. Anything else is refused here, with what the engine
 * would have made of it. index_topk_freq is never emitted: its offset differs from engine to engine. */
#ifndef DSA_ENGINES_H
#define DSA_ENGINES_H

#include <stdbool.h>

#include "dsa/text.h"

enum dsa_engine {
	DSA_ENGINE_VLLM,
	DSA_ENGINE_SGLANG,
	DSA_ENGINE_TRTLLM,
	DSA_ENGINE_TRANSFORMERS,
	DSA_ENGINE_LMDEPLOY,
	DSA_ENGINE_LLAMACPP,
	DSA_ENGINES
};

enum { DSA_EXPORT_WARNINGS = 4 };

struct dsa_export_request {
	enum dsa_engine engine;
	const char *architecture; /* model_type ("deepseek_v32"); NULL = unknown, then nothing is said about it */
	const char *pattern;
	const char *reference; /* the checkpoint's own pattern; NULL = unknown */
	int layers;            /* num_hidden_layers: layers of multi-token prediction are not counted */
	int mtp_layers;        /* num_nextn_predict_layers; 0 = none or unknown */
	int stages;            /* of pipeline parallelism; 1 without */
	bool replaces;         /* the text takes the place of what the checkpoint's config.json says */
};

/* Start with {0}; release the text. */
struct dsa_export {
	struct dsa_text
	    text;          /* what to paste: command-line arguments, or JSON for config.json, or a GGUF key; one line */
	const char *where; /* "command line", "config.json", "GGUF metadata" */
	const char *note;  /* what to know about this engine */
	struct dsa_error warning[DSA_EXPORT_WARNINGS];
	int warnings; /* under --strict, any is a refusal */
};

const char *dsa_engine_name(enum dsa_engine engine);  /* "vllm": what --engine takes */
const char *dsa_engine_title(enum dsa_engine engine); /* "vLLM" */
DSA_CHECKED enum dsa_status dsa_engine_parse(const char *name, enum dsa_engine *out, struct dsa_error *err);

/* First layer of pipeline stage `stage` of `stages` as the engine splits `layers` (the remainder goes to the middle in
 * vLLM, to the last stages in SGLang, to the first ones elsewhere). 1 ≤ stages ≤ layers. */
int dsa_engine_stage_start(enum dsa_engine engine, int layers, int stages, int stage);

/* DSA_E_USAGE when the pattern is not safe: wrong length or letters, S first, a stage that starts on S; or when the
 * engine counts the architecture's layers in another way. Warnings: the engine does not share for the architecture; the
 * checkpoint's own list would win; an F layer may have no indexer. */
DSA_CHECKED enum dsa_status dsa_engine_export(struct dsa_export *out, const struct dsa_export_request *request,
                                              struct dsa_error *err);
void dsa_export_release(struct dsa_export *out);
/* The value of indexer_types: ["full", "shared", …]. */
void dsa_engine_types(struct dsa_text *text, const char *pattern);

#endif
