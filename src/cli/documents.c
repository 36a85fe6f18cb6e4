#include "documents.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dsa/file.h"
#include "dsa/racing.h"
#include "dsa/ranks.h"
#include "dsa/tokenizer.h"

double dsa_documents_holdout(const struct dsa_cli_options *options)
{
	return options->command == DSA_CMD_CALIBRATE || options->command == DSA_CMD_VERIFY ? options->holdout : 0;
}

/* Whoever looks at figures between batches needs many. */
static bool looks_between_batches(const struct dsa_cli_options *options)
{
	return (options->command == DSA_CMD_CALIBRATE && !strcmp(options->search, "racing")) || options->quick > 0;
}

static enum dsa_status write_spool(struct dsa_session *session, const char *path, struct dsa_error *err)
{
	const struct dsa_cli_options *options = session->options;
	struct dsa_corpus_source sources[DSA_CLI_LIST];
	struct dsa_tokenizer *tokenizer = NULL;
	char *tokenizer_path;
	enum dsa_status status = DSA_OK;
	for (int i = 0; i < options->corpus.count && !status; i++)
		status = dsa_cli_corpus(options->corpus.value[i], &sources[i], &session->arena, err);
	if (!status)
		status = dsa_file_join(&session->arena, options->model, "tokenizer.json", &tokenizer_path, err);
	if (status)
		return status;
	/* Documents of token ids need no tokenizer; one that is missing is only missed by text. */
	status = dsa_tokenizer_open(&tokenizer, tokenizer_path, err);
	if (status && status != DSA_E_MISSING)
		return status;
	int context = options->context ? (int)options->context : session->config.max_positions;
	int64_t batch_tokens = options->batch_tokens ? options->batch_tokens : session->backend->pass_tokens;
	struct dsa_spool_options spool = {
	    .sources = sources,
	    .count = options->corpus.count,
	    .context = context,
	    .max_tokens = options->max_tokens,
	    .topk = session->config.topk,
	    .holdout = dsa_documents_holdout(options),
	    .batch_tokens = (int)batch_tokens,
	    .batches = looks_between_batches(options) && !options->batch_tokens ? DSA_RACE_BATCHES : 0,
	    .seed = (uint64_t)options->seed,
	    .stop = dsa_terminal_stop_flag()};
	status = dsa_spool_write(path, &spool, tokenizer, session->config.vocab, &session->terminal->log, err);
	dsa_tokenizer_close(tokenizer);
	return status;
}

static bool reads_stdin(const struct dsa_cli_options *options)
{
	for (int i = 0; i < options->corpus.count; i++) {
		const char *equals = strchr(options->corpus.value[i], '=');
		const char *path = equals ? equals + 1 : options->corpus.value[i];
		if (!strcmp(path, "-") || !strncmp(path, "-:weight=", 9))
			return true;
	}
	return false;
}

/* Without a journal nothing was measured on the spool, and other settings may have made it. */
static bool has_journal(struct dsa_session *session)
{
	char *path;
	struct stat file;
	return !dsa_session_path(session, "journal", &path, NULL) && !stat(path, &file) && file.st_size > 0;
}

static enum dsa_status spool_path(struct dsa_session *session, char **path, struct dsa_error *err)
{
	char *directory;
	if (session->run)
		return dsa_session_path(session, "tokens", path, err);
	const char *base = getenv("TMPDIR");
	enum dsa_status status =
	    dsa_file_join(&session->arena, base && *base ? base : "/tmp", "dsacal-XXXXXX", &directory, err);
	if (status)
		return status;
	if (!mkdtemp(directory))
		return dsa_fail(err, DSA_E_IO, "%s: cannot make a temporary directory; set TMPDIR", directory);
	session->temporary = directory;
	return dsa_file_join(&session->arena, directory, "tokens", path, err);
}

enum dsa_status dsa_documents_open(struct dsa_session *session, struct dsa_error *err)
{
	char *path;
	const struct dsa_cli_options *options = session->options;
	if (options->ranks && options->ranks->rank > 0) {
		enum dsa_status there = dsa_file_join(&session->arena, options->out, "tokens", &path, err);
		return there ? there : dsa_spool_open(&session->spool, path, err);
	}
	enum dsa_status status = spool_path(session, &path, err);
	if (status)
		return status;
	session->kept_documents = session->run && dsa_file_exists(path) && has_journal(session);
	if (!session->kept_documents)
		status = write_spool(session, path, err);
	return status ? status : dsa_spool_open(&session->spool, path, err);
}

enum dsa_status dsa_documents_check(struct dsa_session *session, struct dsa_error *err)
{
	char *path;
	struct dsa_spool *again = NULL;
	uint8_t before[DSA_HASH_BYTES], now[DSA_HASH_BYTES];
	if (!session->kept_documents || reads_stdin(session->options))
		return DSA_OK;
	enum dsa_status status = dsa_session_path(session, "tokens.check", &path, err);
	if (!status)
		status = write_spool(session, path, err);
	if (!status)
		status = dsa_spool_open(&again, path, err);
	if (!status) {
		dsa_spool_digest(session->spool, before);
		dsa_spool_digest(again, now);
		if (memcmp(before, now, sizeof now))
			status = dsa_fail(err, DSA_E_USAGE,
			                  "%s was made with other documents, names or weights of corpora (--corpus): "
			                  "use another --out or the old ones",
			                  session->run);
	}
	dsa_spool_close(again);
	unlink(path);
	return status;
}
