/* ranks_messages.h: what ranks say to each other, and one question in bytes. All ranks run the same program on the same
 * kind of machine, so numbers travel as they lie in memory. */
#ifndef DSA_RANKS_MESSAGES_H
#define DSA_RANKS_MESSAGES_H

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/ranks.h"

/* Tags of MPI: below 32768 everywhere. */
enum ranks_message {
	MESSAGE_START = 1, /* 0 to all: struct dsa_ranks_start */
	MESSAGE_READY,     /* to 0: text, the machine and what the rank measures on */
	MESSAGE_QUESTION,  /* 0 to a batch's owner: ranks_question_write */
	MESSAGE_ANSWER,    /* to 0: a record of the journal */
	MESSAGE_DONE,      /* to 0: the oldest question has all its answers */
	MESSAGE_FAILED,    /* to 0: int32 enum dsa_status and text; nothing follows */
	MESSAGE_STOP,      /* 0 to all: the run is over */
};

DSA_CHECKED enum dsa_status ranks_question_write(struct dsa_record_buffer *out, const struct dsa_coming *coming,
                                                 int layers, struct dsa_error *err);
/* Memory from arena. DSA_E_INPUT for what ranks_question_write does not write. */
DSA_CHECKED enum dsa_status ranks_question_read(struct dsa_coming *coming, const struct dsa_record_buffer *message,
                                                const struct dsa_evaluator_shape *shape, struct dsa_arena *arena,
                                                struct dsa_error *err);
/* Between two looks for messages: a waiting rank leaves its core to others. */
void ranks_pause(void);

#endif
