#include "tokenizer_private.h"

#include <stdio.h>
#include <string.h>

#include "dsa/json.h"

/* A pre-tokenizer is a list of stages. Each cuts every piece that the one before left, so pieces go through the stages
 * depth first and only the piece in hand is ever stored. */

/* What ByteLevel cuts with if use_regex is set: the words of GPT-2. */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* Digits asks the Rust library, whose Unicode is newer than Oniguruma's: numbers since Unicode 15, by name. */
static const char number_pattern[] =
    "[\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11de0}-\\x{11de9}\\x{11f50}-\\x{11f59}"
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{16ff4}-\\x{16ff6}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}"
    "\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}]";

/* ---- Reading ---- */

static enum dsa_status read_flag(const json_t *object, const char *place, const char *key, bool *out,
                                 struct dsa_error *err)
{
	if (!json_object_get(object, key))
		return dsa_fail(err, DSA_E_INPUT, "%s: %s is missing, expected true or false", place, key);
	return dsa_json_bool(object, place, key, false, out, err);
}

static enum dsa_status add_stage(struct dsa_pretokenizer *pre, struct dsa_stage stage, const char *pattern,
                                 enum dsa_regex_kind kind, const char *place, struct dsa_error *err)
{
	if (pre->count == DSA_STAGES_MAX)
		return dsa_fail(err, DSA_E_INPUT, "%s: more than %d pre-tokenizers", place, DSA_STAGES_MAX);
	if (pattern) {
		enum dsa_status status = dsa_regex_compile(&stage.pattern, pattern, strlen(pattern), kind, place, err);
		if (status)
			return status;
	}
	pre->stages[pre->count++] = stage;
	return DSA_OK;
}

static enum dsa_status read_split(struct dsa_pretokenizer *pre, const json_t *value, const char *place,
                                  struct dsa_error *err)
{
	static const char *const behaviours[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
	                                         "Contiguous"};
	struct dsa_stage stage = {0};
	const char *behaviour, *text = NULL, *regex = NULL;
	const json_t *pattern = json_object_get(value, "pattern");
	enum dsa_status status = dsa_json_text(value, place, "behavior", "nothing", &behaviour, err);
	if (status)
		return status;
	while ((size_t)stage.behaviour < sizeof behaviours / sizeof *behaviours &&
	       strcmp(behaviours[stage.behaviour], behaviour) != 0)
		stage.behaviour++;
	if ((size_t)stage.behaviour == sizeof behaviours / sizeof *behaviours)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: behavior is %s, expected Isolated, Removed, MergedWithPrevious, MergedWithNext or "
		                "Contiguous",
		                place, behaviour);
	status = read_flag(value, place, "invert", &stage.invert, err);
	if (!status)
		status = dsa_json_text(pattern, place, "String", NULL, &text, err);
	if (!status)
		status = dsa_json_text(pattern, place, "Regex", NULL, &regex, err);
	if (!status && !text == !regex)
		status = dsa_fail(err, DSA_E_INPUT, "%s: pattern is %s without exactly one of String and Regex", place,
		                  dsa_json_type(pattern));
	return status ? status
	              : add_stage(pre, stage, text ? text : regex, text ? DSA_REGEX_LITERAL : DSA_REGEX, place, err);
}

static enum dsa_status read_byte_level(struct dsa_pretokenizer *pre, const json_t *value, const char *place,
                                       struct dsa_error *err)
{
	bool prefix = false, use_regex = true;
	enum dsa_status status = read_flag(value, place, "add_prefix_space", &prefix, err);
	if (!status)
		status = dsa_json_bool(value, place, "use_regex", true, &use_regex, err);
	if (!status && prefix)
		status = add_stage(pre, (struct dsa_stage){0}, NULL, DSA_REGEX, place, err);
	if (!status && use_regex)
		status = add_stage(pre, (struct dsa_stage){.behaviour = DSA_SPLIT_ISOLATED}, gpt2_pattern, DSA_REGEX,
		                   place, err);
	pre->byte_level = true;
	return status;
}

static enum dsa_status read_digits(struct dsa_pretokenizer *pre, const json_t *value, const char *place,
                                   struct dsa_error *err)
{
	bool individual = false;
	enum dsa_status status = read_flag(value, place, "individual_digits", &individual, err);
	struct dsa_stage stage = {.unmasked = true};
	if (status)
		return status;
	stage.behaviour = individual ? DSA_SPLIT_ISOLATED : DSA_SPLIT_CONTIGUOUS;
	return add_stage(pre, stage, number_pattern, DSA_REGEX_UNMASKED, place, err);
}

enum dsa_status dsa_pretokenizer_parse(struct dsa_pretokenizer *pre, const json_t *value, const char *place,
                                       struct dsa_error *err)
{
	const char *type;
	if (!json_is_object(value))
		return dsa_fail(err, DSA_E_INPUT, "%s is %s, expected an object with a ByteLevel", place,
		                dsa_json_type(value));
	enum dsa_status status = dsa_json_text(value, place, "type", "nothing", &type, err);
	if (status)
		return status;
	if (!strcmp(type, "Sequence")) {
		const json_t *list = json_object_get(value, "pretokenizers");
		if (!json_is_array(list))
			return dsa_fail(err, DSA_E_INPUT, "%s: pretokenizers is %s, expected an array", place,
			                dsa_json_type(list));
		for (size_t i = 0; !status && i < json_array_size(list); i++) {
			char where[256];
			snprintf(where, sizeof where, "%.200s[%zu]", place, i);
			status = dsa_pretokenizer_parse(pre, json_array_get(list, i), where, err);
		}
		return status;
	}
	if (pre->byte_level)
		return dsa_fail(err, DSA_E_INPUT, "%s: %s comes after ByteLevel, which must be the last", place, type);
	if (!strcmp(type, "Split"))
		return read_split(pre, value, place, err);
	if (!strcmp(type, "ByteLevel"))
		return read_byte_level(pre, value, place, err);
	if (!strcmp(type, "Digits"))
		return read_digits(pre, value, place, err);
	return dsa_fail(err, DSA_E_INPUT, "%s: type is %s; supported are Sequence, Split, Digits and ByteLevel", place,
	                type);
}

void dsa_pretokenizer_release(struct dsa_pretokenizer *pre)
{
	for (int i = 0; i < pre->count; i++)
		pcre2_code_free(pre->stages[i].pattern);
	pre->count = 0;
}

/* ---- Cutting ---- */

struct run {
	const struct dsa_tokenizer *tokenizer;
	struct dsa_token_scratch *scratch;
	struct dsa_ids *ids;
	struct dsa_error *err;
};

struct piece {
	const char *text, *subject;
	size_t bytes;
};

static enum dsa_status run_stage(struct run *run, int index, struct piece piece);

/* Turns the alternation of matches and what lies between into pieces, as the behaviour says. */
struct cutter {
	struct run *run;
	int index; /* of the stage */
	struct piece whole;
	size_t start, end; /* the piece that may still grow */
	bool pending, previous_match;
};

static enum dsa_status pass_on(struct cutter *cutter, size_t start, size_t end)
{
	struct piece piece = {cutter->whole.text + start, cutter->whole.subject + start, end - start};
	return piece.bytes ? run_stage(cutter->run, cutter->index + 1, piece) : DSA_OK;
}

static enum dsa_status flush(struct cutter *cutter)
{
	bool pending = cutter->pending;
	cutter->pending = false;
	return pending ? pass_on(cutter, cutter->start, cutter->end) : DSA_OK;
}

static enum dsa_status cut(struct cutter *cutter, size_t start, size_t end, bool match)
{
	const struct dsa_stage *stage = cutter->run->tokenizer->pre.stages + cutter->index;
	enum dsa_status status;
	bool grow = false;
	match ^= stage->invert;
	switch (stage->behaviour) {
	case DSA_SPLIT_ISOLATED:
		return pass_on(cutter, start, end);
	case DSA_SPLIT_REMOVED:
		return match ? DSA_OK : pass_on(cutter, start, end);
	case DSA_SPLIT_MERGED_WITH_PREVIOUS:
		grow = match && !cutter->previous_match;
		break;
	case DSA_SPLIT_MERGED_WITH_NEXT:
		grow = !match && cutter->previous_match;
		break;
	case DSA_SPLIT_CONTIGUOUS:
		grow = match == cutter->previous_match;
		break;
	}
	cutter->previous_match = match;
	if (grow && cutter->pending) {
		cutter->end = end;
		return DSA_OK;
	}
	status = flush(cutter);
	cutter->start = start;
	cutter->end = end;
	cutter->pending = true;
	return status;
}

static enum dsa_status match_error(int code, size_t bytes, struct dsa_error *err)
{
	PCRE2_UCHAR text[256] = {0};
	pcre2_get_error_message(code, text, sizeof text);
	return dsa_fail(err, DSA_E_INPUT, "the tokenizer's pattern gives up on a text of %zu bytes: %s", bytes,
	                (char *)text);
}

static enum dsa_status split(struct run *run, int index, struct piece piece)
{
	const struct dsa_stage *stage = run->tokenizer->pre.stages + index;
	struct dsa_token_scratch *scratch = run->scratch;
	struct cutter cutter = {.run = run, .index = index, .whole = piece};
	PCRE2_SPTR subject = (PCRE2_SPTR)(stage->unmasked ? piece.text : piece.subject);
	const PCRE2_SIZE *found = pcre2_get_ovector_pointer(scratch->match);
	size_t done = 0, at = 0, last_end = 0;
	bool matched = false;
	while (at <= piece.bytes) {
		int code = pcre2_match(stage->pattern, subject, piece.bytes, at, PCRE2_NO_UTF_CHECK, scratch->match,
		                       scratch->match_context);
		if (code == PCRE2_ERROR_NOMATCH)
			break;
		if (code < 0)
			return match_error(code, piece.bytes, run->err);
		size_t start = found[0], end = found[1];
		if (start == end && matched && last_end == end) {
			/* An empty match right behind the last one does not count: look from the next character. */
			uint32_t unused;
			at += at < piece.bytes ? dsa_utf8_decode(piece.text + at, &unused) : 1;
			continue;
		}
		enum dsa_status status = start > done ? cut(&cutter, done, start, false) : DSA_OK;
		if (!status)
			status = cut(&cutter, start, end, true);
		if (status)
			return status;
		matched = true;
		done = at = last_end = end;
	}
	if (done < piece.bytes) {
		enum dsa_status status = cut(&cutter, done, piece.bytes, false);
		if (status)
			return status;
	}
	return flush(&cutter);
}

static enum dsa_status put_space(struct run *run, int index, struct piece piece)
{
	struct dsa_token_scratch *scratch = run->scratch;
	struct dsa_text *text = &scratch->spaced, *subject = &scratch->spaced_subject;
	if (piece.text[0] == ' ')
		return run_stage(run, index + 1, piece);
	dsa_text_reset(text);
	dsa_text_reset(subject);
	dsa_text_add(text, " ");
	dsa_text_bytes(text, piece.text, piece.bytes);
	dsa_text_add(subject, " ");
	dsa_text_bytes(subject, piece.subject, piece.bytes);
	enum dsa_status status = dsa_text_check(text, "a document", run->err);
	if (!status)
		status = dsa_text_check(subject, "a document", run->err);
	if (status)
		return status;
	return run_stage(run, index + 1, (struct piece){text->data, subject->data, text->bytes});
}

static enum dsa_status run_stage(struct run *run, int index, struct piece piece)
{
	const struct dsa_pretokenizer *pre = &run->tokenizer->pre;
	if (index == pre->count)
		return dsa_bpe_encode(&run->tokenizer->bpe, &run->scratch->bpe, piece.text, piece.bytes, run->ids,
		                      run->err);
	return pre->stages[index].pattern ? split(run, index, piece) : put_space(run, index, piece);
}

enum dsa_status dsa_pretokenizer_run(const struct dsa_tokenizer *tokenizer, struct dsa_token_scratch *scratch,
                                     const char *text, const char *subject, size_t bytes, struct dsa_ids *ids,
                                     struct dsa_error *err)
{
	struct run run = {tokenizer, scratch, ids, err};
	return bytes ? run_stage(&run, 0, (struct piece){text, subject, bytes}) : DSA_OK;
}
