/* What the results say of a session: model, corpora, provenance. */
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "documents.h"
#include "dsa/provenance.h"
#include "session.h"

static const char *base_name(const char *path, struct dsa_arena *arena, struct dsa_error *err)
{
	size_t end = strlen(path);
	while (end > 1 && path[end - 1] == '/')
		end--;
	size_t start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	return dsa_arena_text(arena, path + start, end - start, err);
}

static enum dsa_status describe_corpora(struct dsa_session *session, struct dsa_results *results, struct dsa_error *err)
{
	int count = dsa_spool_corpora(session->spool);
	if (!results->corpora)
		results->corpora =
		    dsa_arena_alloc(&session->arena, (size_t)count, sizeof *results->corpora, "corpora", err);
	if (!results->corpora)
		return DSA_E_MEMORY;
	results->corpus_count = count;
	for (int c = 0; c < count; c++) {
		const struct dsa_spool_corpus *from = dsa_spool_corpus(session->spool, c);
		struct dsa_result_corpus *to = &results->corpora[c];
		to->name = from->name;
		to->weight = from->weight;
		dsa_hash_hex(from->digest, to->digest);
		to->documents = from->documents;
		to->documents_calibration = from->documents_in[DSA_CALIBRATION];
		to->documents_heldout = from->documents_in[DSA_HELDOUT];
		to->unscored = from->unscored;
		to->cut = from->cut;
		to->tokens = from->tokens;
		to->scored = from->scored;
		to->scored_calibration = from->scored_in[DSA_CALIBRATION];
		to->scored_heldout = from->scored_in[DSA_HELDOUT];
	}
	return DSA_OK;
}

static enum dsa_status describe_provenance(struct dsa_session *session, struct dsa_results *results,
                                           struct dsa_error *err)
{
	struct rusage usage;
	char *date = dsa_arena_alloc(&session->arena, DSA_DATE_CHARS, 1, "a date", err);
	if (!date)
		return DSA_E_MEMORY;
	dsa_date_format(session->journal ? dsa_journal_created(session->journal) : (int64_t)time(NULL), date);
	results->provenance = (struct dsa_provenance){
	    .version = dsa_version(),
	    .commit = dsa_commit(),
	    .device = session->backend->name,
	    .date = date,
	    .threads = (int)session->options->threads,
	    .host_memory = session->host_memory,
	    .executed = session->journal ? dsa_journal_executed(session->journal) : 0,
	};
	if (!getrusage(RUSAGE_SELF, &usage))
		results->provenance.peak_memory = (uint64_t)usage.ru_maxrss * 1024;
	results->work.seconds = dsa_terminal_seconds(session->terminal);
	return DSA_OK;
}

void dsa_results_dimensions(struct dsa_results *results, const struct dsa_model_config *config)
{
	results->layers = config->layers;
	results->topk = config->topk;
	results->hidden = config->hidden;
	results->heads = config->heads;
	results->index_heads = config->index_heads;
	results->index_dim = config->index_dim;
	results->latent = config->latent;
	results->rope = config->rope;
	results->q_rank = config->q_rank;
	results->nope = config->nope;
	results->value = config->value;
	results->dense_inner = config->dense_inner;
	results->expert_inner = config->expert_inner;
	results->experts = config->router.experts;
	results->experts_per_token = config->router.chosen + config->shared_experts;
	results->dense_layers = 0;
	for (int l = 0; l < config->layers; l++)
		results->dense_layers += !config->moe[l];
}

enum dsa_status dsa_session_describe(struct dsa_session *session, struct dsa_results *results, struct dsa_error *err)
{
	const struct dsa_model_config *config = &session->config;
	const struct dsa_cli_options *options = session->options;
	dsa_results_dimensions(results, config);
	results->reference = config->native;
	results->search = options->search;
	results->model_name = base_name(options->model, &session->arena, err);
	if (!results->model_name)
		return DSA_E_MEMORY;
	results->architecture = config->model_type;
	results->fingerprint = session->fingerprint;
	results->tokenizer = *session->tokenizer ? session->tokenizer : NULL;
	results->context = options->context ? (int)options->context : config->max_positions;
	results->index_precision = config->index_precision;
	results->seed = (uint64_t)options->seed;
	results->max_tokens = options->max_tokens;
	results->holdout = dsa_documents_holdout(options);
	enum dsa_status status = describe_corpora(session, results, err);
	return status ? status : describe_provenance(session, results, err);
}
