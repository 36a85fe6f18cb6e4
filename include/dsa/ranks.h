/* ranks.h: the processes of a run and what they send each other: bytes, in order, without waiting.
 *
 * Rank 0 leads and alone reads corpora, writes files and speaks; the others serve (ranks_evaluator.h). A process that
 * no launcher started, and every process of a program built without MPI, is the only rank. MPI is named in
 * src/calib/ranks_mpi.c alone. Only the thread that connected may call anything here. */
#ifndef DSA_RANKS_H
#define DSA_RANKS_H

#include <stdbool.h>
#include <stddef.h>

#include "dsa/journal_record.h"
#include "dsa/status.h"

/* Seconds without a sign of life after which a rank counts as lost, and how much later the run ends whatever rank 0 is
 * doing: together less than half a minute. */
enum { DSA_RANK_SILENCE = 15, DSA_RANK_GRACE = 8 };
enum { DSA_RANK_ANY = -1 };

struct dsa_ranks;

struct dsa_ranks_ops {
	/* Copies the bytes and returns at once. Messages of one rank to another arrive in the order they were sent in.
	 */
	enum dsa_status (*send)(struct dsa_ranks *ranks, int to, int kind, const void *bytes, size_t count,
	                        struct dsa_error *err);
	/* Takes the next message of that kind (DSA_RANK_ANY: of any), if one has come, in place of what the buffer
	 * held. DSA_E_DEVICE naming a rank that is lost. */
	enum dsa_status (*poll)(struct dsa_ranks *ranks, int kind, bool *any, int *from, int *found,
	                        struct dsa_record_buffer *message, struct dsa_error *err);
	/* All ranks together. After an error that says that a rank is lost it ends them all, with that exit status. */
	void (*close)(struct dsa_ranks *ranks, int status);
};

struct dsa_ranks {
	const struct dsa_ranks_ops *ops;
	int rank, count;
	int local, locals; /* the same among the ranks of this machine */
	char host[64];
	char device[128]; /* what it measures on, in words, once that is open */
};

/* NULL where this process is the only one. */
DSA_CHECKED enum dsa_status dsa_ranks_connect(struct dsa_ranks **out, struct dsa_error *err);
/* src/calib/ranks_mpi.c, in programs built with MPI. */
DSA_CHECKED enum dsa_status dsa_ranks_connect_mpi(struct dsa_ranks **out, struct dsa_error *err);

#endif
