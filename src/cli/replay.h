/* replay.h: a finished run opened again without its model: results for names, spool for documents, journal for figures.
 *
 * A zeroed struct is a closed one. Its evaluator knows the journal alone: what that does not hold is DSA_E_MISSING. */
#ifndef DSA_CLI_REPLAY_H
#define DSA_CLI_REPLAY_H

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/journal.h"
#include "dsa/results.h"
#include "dsa/spool.h"

struct dsa_replay {
	struct dsa_arena arena;
	struct dsa_results before;
	struct dsa_spool *spool;
	struct dsa_journal *journal;
	struct dsa_evaluator *evaluator;
	struct dsa_evaluator_shape shape;
};

/* run: its directory. After an error it must be closed all the same. */
DSA_CHECKED enum dsa_status dsa_replay_open(struct dsa_replay *replay, const char *run, const struct dsa_log *log,
                                            struct dsa_error *err);
void dsa_replay_close(struct dsa_replay *replay);

#endif
