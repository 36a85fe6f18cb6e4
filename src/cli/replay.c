#include "replay.h"

#include "dsa/file.h"
#include "dsa/model_evaluator.h"
#include "dsa/results_json.h"

enum dsa_status dsa_replay_open(struct dsa_replay *replay, const char *run, const struct dsa_log *log,
                                struct dsa_error *err)
{
	char *results, *tokens, *journal;
	*replay = (struct dsa_replay){0};
	dsa_arena_init(&replay->arena);
	enum dsa_status status = dsa_file_join(&replay->arena, run, "results.json", &results, err);
	if (!status)
		status = dsa_file_join(&replay->arena, run, "tokens", &tokens, err);
	if (!status)
		status = dsa_file_join(&replay->arena, run, "journal", &journal, err);
	if (!status)
		status = dsa_results_json_load(&replay->before, results, &replay->arena, err);
	if (status == DSA_E_MISSING)
		status = dsa_fail(err, DSA_E_INPUT,
		                  "%s holds no results.json: it is no run directory, or the run has not finished "
		                  "(calibrate --resume goes on with it)",
		                  run);
	if (!status)
		status = dsa_spool_open(&replay->spool, tokens, err);
	if (!status)
		status = dsa_journal_open(&replay->journal, journal, NULL, 0, log, err);
	if (!status)
		status = dsa_evaluator_shape_of(&replay->shape, replay->spool, replay->before.layers,
		                                replay->before.topk, replay->before.reference, &replay->arena, err);
	if (!status)
		status = dsa_journal_evaluator(&replay->evaluator, replay->journal, NULL, &replay->shape, err);
	return status;
}

void dsa_replay_close(struct dsa_replay *replay)
{
	if (replay->evaluator)
		replay->evaluator->close(replay->evaluator);
	dsa_journal_close(replay->journal);
	dsa_spool_close(replay->spool);
	dsa_arena_release(&replay->arena);
	*replay = (struct dsa_replay){0};
}
