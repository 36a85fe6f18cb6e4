#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/aside.h"
#include "dsa/hash.h"
#include "spool_format.h"

struct writer {
	const struct dsa_spool_options *options;
	const struct dsa_tokenizer *tokenizer;
	int32_t vocab;
	const struct dsa_log *log;
	struct dsa_arena arena; /* names, plan */
	struct dsa_aside *file;
	struct dsa_hash hash; /* of everything written */
	struct dsa_spool_corpus *corpora;
	struct dsa_spool_document_row *rows; /* (count), room for `room` */
	int count, room;
};

static enum dsa_status put(struct writer *writer, const void *data, size_t bytes, struct dsa_error *err)
{
	dsa_hash_add(&writer->hash, data, bytes);
	return dsa_aside_write(writer->file, data, bytes, err);
}

static enum dsa_status pad(struct writer *writer, struct dsa_error *err)
{
	static const uint8_t zeros[8];
	return put(writer, zeros, (size_t)(-dsa_aside_bytes(writer->file) & 7), err);
}

static enum dsa_status check_options(const struct dsa_spool_options *options, int32_t vocab, struct dsa_error *err)
{
	if (options->count < 1)
		return dsa_fail(err, DSA_E_USAGE, "no corpus: give at least one --corpus PATH");
	if (options->topk < 1 || vocab < 1)
		return dsa_fail(err, DSA_E_USAGE, "K = %d and a vocabulary of %d: both must be at least 1",
		                options->topk, (int)vocab);
	if (options->context < 2)
		return dsa_fail(err, DSA_E_USAGE, "--context %d: expected at least 2", options->context);
	if (options->batch_tokens < 1)
		return dsa_fail(err, DSA_E_USAGE, "batches of %d tokens: expected at least 1", options->batch_tokens);
	if (options->batches < 0)
		return dsa_fail(err, DSA_E_USAGE, "%d batches: expected 0 (no matter) or more", options->batches);
	if (options->max_tokens < 0)
		return dsa_fail(err, DSA_E_USAGE, "--max-tokens %lld: expected 0 (no limit) or more",
		                (long long)options->max_tokens);
	if (!(options->holdout >= 0 && options->holdout <= 0.9))
		return dsa_fail(err, DSA_E_USAGE, "--holdout %g%%: expected 0%% to 90%%", 100 * options->holdout);
	int from_stdin = 0;
	for (int i = 0; i < options->count; i++) {
		double weight = options->sources[i].weight;
		if (!(weight > 0 && weight <= 1e100))
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: weight %g, expected a number above 0",
			                options->sources[i].path, weight);
		from_stdin += !strcmp(options->sources[i].path, "-");
	}
	if (from_stdin > 1)
		return dsa_fail(err, DSA_E_USAGE, "--corpus - is given %d times; standard input can be read only once",
		                from_stdin);
	return DSA_OK;
}

/* "dir/legal.jsonl.zst" → "legal". */
char *dsa_spool_default_name(const char *path, struct dsa_arena *arena, struct dsa_error *err)
{
	if (!strcmp(path, "-"))
		return dsa_arena_text(arena, "stdin", 5, err);
	size_t end = strlen(path);
	while (end > 1 && path[end - 1] == '/')
		end--;
	size_t start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	if (end - start > 4 && !memcmp(path + end - 4, ".zst", 4))
		end -= 4;
	for (size_t dot = end; dot > start + 1; dot--)
		if (path[dot - 1] == '.') {
			end = dot - 1;
			break;
		}
	return dsa_arena_text(arena, path + start, end - start, err);
}

static enum dsa_status name_corpora(struct writer *writer, struct dsa_error *err)
{
	const struct dsa_spool_options *options = writer->options;
	for (int i = 0; i < options->count; i++) {
		const struct dsa_corpus_source *source = &options->sources[i];
		char *name = source->name ? dsa_arena_text(&writer->arena, source->name, strlen(source->name), err)
		                          : dsa_spool_default_name(source->path, &writer->arena, err);
		if (!name)
			return DSA_E_MEMORY;
		if (!*name)
			return dsa_fail(err, DSA_E_USAGE, "--corpus %s: its name is empty; give it one: NAME=PATH",
			                source->path);
		for (int j = 0; j < i; j++)
			if (!strcmp(writer->corpora[j].name, name))
				return dsa_fail(err, DSA_E_USAGE,
				                "two corpora are called %s (%s and %s); name them: NAME=PATH", name,
				                options->sources[j].path, source->path);
		writer->corpora[i].name = name;
		writer->corpora[i].weight = source->weight;
	}
	return DSA_OK;
}

static struct dsa_spool_document_row *add_row(struct writer *writer, struct dsa_error *err)
{
	if (writer->count == writer->room) {
		int room = writer->room ? 2 * writer->room : 1024;
		struct dsa_spool_document_row *grown =
		    writer->room > INT_MAX / 4 ? NULL : realloc(writer->rows, (size_t)room * sizeof *grown);
		if (!grown) {
			dsa_fail(err, DSA_E_MEMORY, "no memory for the table of more than %d documents", writer->count);
			return NULL;
		}
		writer->rows = grown;
		writer->room = room;
	}
	struct dsa_spool_document_row *row = &writer->rows[writer->count++];
	*row = (struct dsa_spool_document_row){0};
	return row;
}

static enum dsa_status put_document(struct writer *writer, int corpus, const struct dsa_document *document,
                                    struct dsa_error *err)
{
	struct dsa_spool_corpus *sums = &writer->corpora[corpus];
	size_t context = (size_t)writer->options->context;
	size_t tokens = document->count < context ? document->count : context;
	struct dsa_spool_document_row *row = add_row(writer, err);
	if (!row)
		return DSA_E_MEMORY;
	row->offset = dsa_aside_bytes(writer->file);
	row->tokens = (int32_t)tokens;
	row->corpus = corpus;
	dsa_hash_bytes(document->ids, tokens * sizeof *document->ids, row->hash);
	struct dsa_spool_document cut = {.ids = document->ids, .target = document->target, .tokens = (int)tokens};
	for (int t = 0; t < cut.tokens; t++)
		row->scored += dsa_spool_is_scored(&cut, writer->options->topk, t);
	sums->cut += document->count > tokens;
	sums->cut_tokens += (int64_t)(document->count - tokens);
	sums->tokens += (int64_t)tokens;
	sums->scored += row->scored;
	enum dsa_status status = put(writer, document->ids, tokens * sizeof *document->ids, err);
	if (!status)
		status = put(writer, document->target, tokens, err);
	return status ? status : pad(writer, err);
}

static enum dsa_status refuse_unscored(const struct writer *writer, int corpus, int documents, size_t longest,
                                       struct dsa_error *err)
{
	const char *name = writer->corpora[corpus].name, *path = writer->options->sources[corpus].path;
	int topk = writer->options->topk, context = writer->options->context;
	if (!documents)
		return dsa_fail(err, DSA_E_INPUT, "corpus %s (%s): no documents in it", name, path);
	const char *advice = "no completion or loss_mask marks a target that late";
	if (longest <= (size_t)topk + 1)
		advice = "use longer documents";
	else if (context <= topk + 1)
		advice = "raise --context";
	return dsa_fail(err, DSA_E_INPUT,
	                "corpus %s (%s): none of its %d documents has a scored token: the model selects K = %d, so a "
	                "document counts from %d tokens on; the longest has %zu, --context is %d: %s",
	                name, path, documents, topk, topk + 2, longest, context, advice);
}

static enum dsa_status put_corpus(struct writer *writer, int index, struct dsa_error *err)
{
	struct dsa_corpus *corpus;
	struct dsa_spool_corpus *sums = &writer->corpora[index];
	int first = writer->count;
	size_t longest = 0;
	enum dsa_status status =
	    dsa_corpus_open(&corpus, writer->options->sources[index].path, writer->tokenizer, writer->vocab, err);
	if (status)
		return status;
	int64_t limit = writer->options->max_tokens;
	while (!status && (!limit || sums->tokens < limit)) {
		struct dsa_document document;
		if (writer->options->stop && *writer->options->stop)
			status = dsa_fail(err, DSA_E_INTERRUPTED, "interrupted while the documents were read");
		else
			status = dsa_corpus_next(corpus, &document, err);
		if (status)
			break;
		if (document.count > longest)
			longest = document.count;
		status = put_document(writer, index, &document, err);
	}
	if (status == DSA_E_MISSING)
		status = DSA_OK;
	dsa_corpus_digest(corpus, sums->digest);
	dsa_corpus_close(corpus);
	if (!status && !sums->scored)
		return refuse_unscored(writer, index, writer->count - first, longest, err);
	return status;
}

static void report(const struct writer *writer)
{
	for (int i = 0; i < writer->options->count; i++) {
		const struct dsa_spool_corpus *c = &writer->corpora[i];
		dsa_log_line(
		    writer->log, DSA_LOG_INFO,
		    "corpus %s: %d documents, %lld tokens, %lld scored; %d documents to calibrate on, %d held out",
		    c->name, c->documents, (long long)c->tokens, (long long)c->scored, c->documents_in[DSA_CALIBRATION],
		    c->documents_in[DSA_HELDOUT]);
		if (c->cut)
			dsa_log_line(writer->log, DSA_LOG_WARN,
			             "corpus %s: %d documents cut to --context %d, %lld tokens cut away", c->name,
			             c->cut, writer->options->context, (long long)c->cut_tokens);
		if (c->unscored)
			dsa_log_line(writer->log, DSA_LOG_WARN,
			             "corpus %s: %d of %d documents have no scored token (K = %d) and take part in "
			             "nothing",
			             c->name, c->unscored, c->documents, writer->options->topk);
		if (c->duplicates)
			dsa_log_line(writer->log, DSA_LOG_WARN,
			             "corpus %s: %d documents repeat another one; they are kept, and may stand on both "
			             "sides of the held-out split",
			             c->name, c->duplicates);
		if (writer->options->holdout > 0 && !c->documents_in[DSA_HELDOUT])
			dsa_log_line(
			    writer->log, DSA_LOG_WARN,
			    "corpus %s: nothing held out, as only %d documents have a scored token; %d are needed",
			    c->name, c->documents - c->unscored, DSA_SPOOL_HELDOUT_LEAST);
	}
}

/* Checks the documents' split and counts them as the reader will, for the log. */
static enum dsa_status plan(struct writer *writer, const struct dsa_spool_settings *settings, struct dsa_error *err)
{
	struct dsa_spool_plan unused;
	struct dsa_spool_document *documents =
	    dsa_arena_alloc(&writer->arena, (size_t)writer->count, sizeof *documents, "the table of documents", err);
	if (!documents)
		return DSA_E_MEMORY;
	for (int i = 0; i < writer->count; i++) {
		documents[i] = (struct dsa_spool_document){.tokens = writer->rows[i].tokens,
		                                           .scored = writer->rows[i].scored,
		                                           .corpus = writer->rows[i].corpus};
		memcpy(documents[i].hash, writer->rows[i].hash, sizeof documents[i].hash);
	}
	for (int i = 0; i < writer->options->count; i++)
		writer->corpora[i].tokens = writer->corpora[i].scored = 0;
	return dsa_spool_plan(&unused, documents, writer->count, writer->corpora, writer->options->count, settings,
	                      &writer->arena, err);
}

static enum dsa_status put_tables(struct writer *writer, struct dsa_spool_foot *foot, struct dsa_error *err)
{
	enum dsa_status status = DSA_OK;
	int corpora = writer->options->count;
	foot->corpora = (uint64_t)corpora;
	foot->documents = (uint64_t)writer->count;
	foot->names_offset = dsa_aside_bytes(writer->file);
	for (int i = 0; i < corpora && !status; i++)
		status = put(writer, writer->corpora[i].name, strlen(writer->corpora[i].name), err);
	if (!status)
		status = pad(writer, err);
	foot->corpora_offset = dsa_aside_bytes(writer->file);
	for (int i = 0; i < corpora && !status; i++) {
		const struct dsa_spool_corpus *c = &writer->corpora[i];
		struct dsa_spool_corpus_row row = {.weight = c->weight,
		                                   .cut_documents = c->cut,
		                                   .cut_tokens = c->cut_tokens,
		                                   .name_bytes = (int64_t)strlen(c->name)};
		memcpy(row.digest, c->digest, sizeof row.digest);
		status = put(writer, &row, sizeof row, err);
	}
	foot->documents_offset = dsa_aside_bytes(writer->file);
	if (!status)
		status = put(writer, writer->rows, (size_t)writer->count * sizeof *writer->rows, err);
	if (!status)
		status = put(writer, foot, offsetof(struct dsa_spool_foot, sha256), err);
	dsa_hash_end(&writer->hash, foot->sha256);
	return status ? status : dsa_aside_write(writer->file, foot->sha256, sizeof foot->sha256, err);
}

/* Tokens of a batch: what was asked for, or less where that makes too few batches. */
static int64_t batch_tokens(const struct writer *writer)
{
	const struct dsa_spool_options *options = writer->options;
	int64_t tokens = 0, longest = 1;
	for (int i = 0; i < writer->count; i++) {
		const struct dsa_spool_document_row *row = &writer->rows[i];
		if (!row->scored)
			continue;
		tokens += row->tokens;
		longest = row->tokens > longest ? row->tokens : longest;
	}
	if (!options->batches)
		return options->batch_tokens;
	int64_t share = (int64_t)((1 - options->holdout) * (double)tokens / options->batches);
	share = share > longest ? share : longest;
	return share < options->batch_tokens ? share : options->batch_tokens;
}

enum dsa_status dsa_spool_write(const char *path, const struct dsa_spool_options *options,
                                const struct dsa_tokenizer *tokenizer, int32_t vocab, const struct dsa_log *log,
                                struct dsa_error *err)
{
	struct writer writer = {.options = options, .tokenizer = tokenizer, .vocab = vocab, .log = log};
	struct dsa_spool_head head = {.version = DSA_SPOOL_VERSION};
	memcpy(head.magic, DSA_SPOOL_MAGIC, sizeof head.magic);
	dsa_arena_init(&writer.arena);
	dsa_hash_begin(&writer.hash);
	enum dsa_status status = check_options(options, vocab, err);
	if (status)
		goto cleanup;
	writer.corpora =
	    dsa_arena_alloc(&writer.arena, (size_t)options->count, sizeof *writer.corpora, "the table of corpora", err);
	status = writer.corpora ? name_corpora(&writer, err) : DSA_E_MEMORY;
	if (status)
		goto cleanup;
	status = dsa_aside_open(&writer.file, path, err);
	if (status)
		goto cleanup;
	status = put(&writer, &head, sizeof head, err);
	for (int i = 0; i < options->count && !status; i++)
		status = put_corpus(&writer, i, err);
	if (status)
		goto cleanup;
	struct dsa_spool_foot foot = {.settings = {.context = options->context,
	                                           .max_tokens = options->max_tokens,
	                                           .topk = options->topk,
	                                           .batch_tokens = batch_tokens(&writer),
	                                           .vocab = vocab,
	                                           .holdout = options->holdout,
	                                           .seed = options->seed}};
	status = plan(&writer, &foot.settings, err);
	if (!status)
		status = put_tables(&writer, &foot, err);
	if (!status)
		status = dsa_aside_commit(writer.file, err);
	if (!status)
		report(&writer);
cleanup:
	dsa_aside_close(writer.file);
	free(writer.rows);
	dsa_arena_release(&writer.arena);
	return status;
}
