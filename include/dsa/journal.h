/* journal.h: RUN/journal, the append-only memory of a run: one checksummed record per batch and pattern, synced
 * question by question (a batch's patterns together).
 *
 * A run killed at any moment is worth everything up to its last record: resume reads the records back and asks the
 * model only for what is missing. A half-written record at the end is cut off; damage anywhere else is refused.
 * The header names everything that figures depend on (struct dsa_journal_field); a journal made under other
 * settings is refused, naming the field that differs.
 *
 * dsa_journal_evaluator() stands in front of another evaluator (or of none: solve) and answers from the
 * records; what it had to ask for it appends before it is handed on, and syncs before the question is answered. */
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
 * file (DSA_E_USAGE naming the first that differs, both values). While it is open it is locked: a second opener gets
 * DSA_E_USAGE. fields NULL: read-only, whatever they are, without a lock; a half-written record at the end is then
 * ignored, and a missing file is DSA_E_MISSING. DSA_E_INPUT naming the offset of a damaged record that others follow.
 * The caller must ignore SIGXFSZ, so that a file size limit comes back as an error. */
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
const char *dsa_journal_path(const struct dsa_journal *journal);

struct dsa_record_key;    /* journal_record.h */
struct dsa_record_buffer; /* journal_record.h */
/* Reads the first record of that question into record. DSA_E_MISSING if there is none (err untouched). */
DSA_CHECKED enum dsa_status dsa_journal_find(struct dsa_journal *journal, const struct dsa_record_key *key,
                                             struct dsa_record_buffer *record, struct dsa_error *err);
/* Is there a record of that question, by its hash alone? For plans only: a false yes is as likely as two equal hashes.
 */
bool dsa_journal_knows(const struct dsa_journal *journal, const struct dsa_record_key *key);
/* Writes a whole record behind the others: a killed process does not lose it. On DSA_E_IO (full disk) the file is as it
 * was. */
DSA_CHECKED enum dsa_status dsa_journal_append(struct dsa_journal *journal, const struct dsa_record_buffer *record,
                                               struct dsa_error *err);
/* What was appended is on the disk: a machine that loses its power does not lose it. */
DSA_CHECKED enum dsa_status dsa_journal_sync(struct dsa_journal *journal, struct dsa_error *err);

/* The stacked evaluator. inner may be NULL: unknown questions are then DSA_E_MISSING, naming pattern and batch. Owns
 * neither. Duplicates are allowed in a file and the first counts. Within one ask the known patterns come first. */
DSA_CHECKED enum dsa_status dsa_journal_evaluator(struct dsa_evaluator **out, struct dsa_journal *journal,
                                                  struct dsa_evaluator *inner, const struct dsa_evaluator_shape *shape,
                                                  struct dsa_error *err);

#endif
