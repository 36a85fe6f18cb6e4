#include <string.h>

#include "commands.h"
#include "dsa/corpus.h"
#include "dsa/file.h"

static enum dsa_status print_documents(const char *path, const struct dsa_tokenizer *tokenizer, struct dsa_error *err)
{
	struct dsa_corpus *corpus;
	struct dsa_document document;
	enum dsa_status status = dsa_corpus_open(&corpus, path, tokenizer, dsa_tokenizer_size(tokenizer), err);
	if (status)
		return status;
	while (!(status = dsa_corpus_next(corpus, &document, err))) {
		for (size_t i = 0; i < document.count; i++)
			printf(i ? " %d" : "%d", document.ids[i]);
		putchar('\n');
	}
	dsa_corpus_close(corpus);
	return status == DSA_E_MISSING ? DSA_OK : status;
}

int dsa_cmd_tokenize(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_arena arena;
	struct dsa_tokenizer *tokenizer = NULL;
	char *path;
	enum dsa_status status = DSA_OK;
	dsa_arena_init(&arena);
	if (!options->model || !options->operand_count) {
		status = dsa_fail(&err, DSA_E_USAGE, "tokenize needs --model DIR and at least one FILE");
		goto cleanup;
	}
	status = dsa_file_join(&arena, options->model, "tokenizer.json", &path, &err);
	if (!status)
		status = dsa_tokenizer_open(&tokenizer, path, &err);
	for (int i = 0; i < options->operand_count && !status; i++)
		status = print_documents(options->operands[i], tokenizer, &err);
cleanup:
	dsa_tokenizer_close(tokenizer);
	dsa_arena_release(&arena);
	return status ? dsa_terminal_fail(terminal, status, &err) : 0;
}
