/* journal.h: RUN/journal, the append-only memory of a run: one checksummed, synced record per batch and pattern.
 *
 * A run killed at any moment is worth everything up to its last record: resume reads the records back and asks the
 * model only for what is missing. A half-written record at the end is cut off; damage anywhere else is refused.
 * The header names everything that figures depend on (struct dsa_journal_field); a journal made under other
 * settings is refused, naming the field that differs.
 *
 * dsa_journal_evaluator() stands in front of another evaluator (or of none: solve, verify --from) and answers from the
 * records; what it had to ask for it appends and syncs before it is handed on. */
#ifndef DSA_JOURNAL_H
#define DSA_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "dsa/evaluator.h"
#include "dsa/log.h"
#include "dsa/status.h"

struct dsa_journal_field {
	const char *name, *value; /* "model fingerprint" = "3fa9…" */
};

struct dsa_journal;

/* Makes path if it does not exist or is empty, else reads it. fields: (count) in a fixed order; must equal those on
 * file (DSA_E_USAGE naming the first that differs, both values). fields NULL: read-only, whatever they are. */
DSA_CHECKED enum dsa_status dsa_journal_open(struct dsa_journal **out, const char *path,
                                             const struct dsa_journal_field *fields, int count,
                                             const struct dsa_log *log, struct dsa_error *err);
void dsa_journal_close(struct dsa_journal *journal);
/* Unix time in seconds of the journal's creation (kept in its header: the run's date). */
int64_t dsa_journal_created(const struct dsa_journal *journal);
/* Value of a header field, NULL if there is none. */
const char *dsa_journal_field(const struct dsa_journal *journal, const char *name);
int64_t dsa_journal_records(const struct dsa_journal *journal);
/* Σ executed token-layers over all records. */
int64_t dsa_journal_executed(const struct dsa_journal *journal);

/* The stacked evaluator. inner may be NULL: unknown questions are then DSA_E_MISSING, naming pattern and batch. Owns
 * neither. Duplicates are allowed in a file and the first counts. */
DSA_CHECKED enum dsa_status dsa_journal_evaluator(struct dsa_evaluator **out, struct dsa_journal *journal,
                                                  struct dsa_evaluator *inner, const struct dsa_evaluator_shape *shape,
                                                  struct dsa_error *err);

#endif
