/* libFuzzer entry for corpora: the same bytes as text, jsonl, their .zst forms and a forged spool.
 *
 *   make CONFIG=asan CC=clang build/asan-clang/libdsacal.a
 *   clang -std=c11 -D_GNU_SOURCE -fopenmp -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/fuzz_corpus.c \
 *       build/asan-clang/libdsacal.a -lzstd -ljansson -lnettle -o build/fuzz_corpus
 *   build/fuzz_corpus -max_len=4096 -max_total_time=60
 *
 * Nothing is asserted beyond what the sanitizers see and that errors are one line. */
#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dsa/hash.h"
#include "dsa/spool.h"

enum { FORMS = 5, VOCAB = 300 };

static const char *const names[FORMS] = {"text", "text.zst", "lines.jsonl", "lines.jsonl.zst", "tokens"};
static char links[FORMS][96]; /* names of the kind that tells the form, all linked to the one file in memory */
static char root[] = "/tmp/dsacal-fuzz-XXXXXX";
static int memory = -1;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One token a byte: BPE has its own fuzzer. */
enum dsa_status dsa_tokenizer_encode(const struct dsa_tokenizer *tokenizer, const char *text, size_t bytes,
                                     bool with_special, struct dsa_ids *ids, struct dsa_error *err)
{
	(void)tokenizer, (void)with_special;
	for (size_t i = 0; i < bytes; i++) {
		enum dsa_status status = dsa_ids_append(ids, (uint8_t)text[i], err);
		if (status)
			return status;
	}
	return DSA_OK;
}

static void tidy(void)
{
	for (int i = 0; i < FORMS; i++)
		unlink(links[i]);
	rmdir(root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	char target[64];
	memory = memfd_create("corpus", 0);
	if (memory < 0 || !mkdtemp(root))
		exit(1);
	snprintf(target, sizeof target, "/proc/self/fd/%d", memory);
	for (int i = 0; i < FORMS; i++) {
		snprintf(links[i], sizeof links[i], "%s/%s", root, names[i]);
		if (symlink(target, links[i]))
			exit(1);
	}
	atexit(tidy);
	return 0;
}

static void set_content(const uint8_t *data, size_t size)
{
	if (ftruncate(memory, 0) || pwrite(memory, data, size, 0) != (ssize_t)size)
		exit(1);
}

static void read_corpus(const char *path)
{
	struct dsa_corpus *corpus;
	struct dsa_document document;
	struct dsa_error err = {{0}};
	int stand_in;
	enum dsa_status status =
	    dsa_corpus_open(&corpus, path, (const struct dsa_tokenizer *)(const void *)&stand_in, VOCAB, &err);
	while (!status) {
		status = dsa_corpus_next(corpus, &document, &err);
		if (status)
			dsa_corpus_close(corpus);
		for (size_t i = 0; !status && i < document.count; i++)
			assert(document.ids[i] >= 0 && document.ids[i] < VOCAB && document.target[i] <= 1);
	}
	assert(status == DSA_E_MISSING || (err.text[0] && !strchr(err.text, '\n')));
}

static void open_spool(const char *path)
{
	struct dsa_spool *spool;
	struct dsa_error err;
	if (dsa_spool_open(&spool, path, &err))
		return;
	for (int i = 0; i < dsa_spool_batches(spool); i++) {
		const struct dsa_batch *batch = dsa_spool_batch(spool, i);
		for (int j = 0; j < batch->count; j++)
			assert(dsa_spool_document(spool, dsa_spool_order(spool, batch->first + j))->scored > 0);
	}
	dsa_spool_close(spool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	set_content(data, size);
	for (int i = 0; i < 4; i++)
		read_corpus(links[i]);
	/* The checksum is made right, so that what lies behind it is reached. */
	size_t whole = size / 8 * 8;
	if (whole < 64 + 32)
		return 0;
	uint8_t *spool = malloc(whole);
	if (!spool)
		return 0;
	memcpy(spool, data, whole);
	memcpy(spool, "DSASPOOL\1\0\0\0", 12);
	dsa_hash_bytes(spool, whole - 32, spool + whole - 32);
	set_content(spool, whole);
	free(spool);
	open_spool(links[4]);
	return 0;
}
