/* dry_run_plan.h: what --dry-run found out, between working it out (dry_run.c) and saying it (dry_run_plan.c). */
#ifndef DSA_CLI_DRY_RUN_PLAN_H
#define DSA_CLI_DRY_RUN_PLAN_H

#include "dsa/expectation.h"
#include "dsa/journal_record.h"
#include "dsa/plan.h"
#include "dsa/text.h"
#include "session.h"

/* What one batch says. */
struct probe {
	bool done;
	int batch;
	int64_t executed;                   /* of the last question */
	double record_bytes, overlap_bytes; /* journal, per document */
	double seconds;                     /* the probe itself, without loading */
	double first_visits;                /* seconds that layers took to be seen for the first time; once in a run */
	struct dsa_plan_rates rates;
	struct dsa_record_buffer buffer;
};

struct dry_run {
	struct dsa_session *session;
	const struct dsa_evaluator_shape *shape;
	bool *locked; /* (L) */
	struct dsa_plan plan;
	struct dsa_plan_memory memory;
	size_t weights, workspace, streams, limit;
	uint64_t spill; /* bytes of disk that states take at most */
	/* Memory of the host, at most: what this process has before the model is loaded, what layers take and where the
	 * device is the host all that it takes, and what of keys, references and states is kept there. */
	size_t program, on_host, kept;
	/* Of a device with memory of its own, at most: all; what is kept there. */
	size_t device, kept_on_device;
	size_t passing;   /* host memory that layers take while the model is opened, before anything is kept */
	int batches_kept; /* that keep keys and reference */
	int base_states, candidate_states; /* layers in front of which states are kept at first */
	uint64_t spool_bytes;
	double load_seconds;
	double start_seconds; /* up to the first question, loading included */
	bool expects;         /* the two below are there: calibrate, with savings */
	struct dsa_course course;
	struct dsa_expectation expectation;
	struct probe probe;
};

/* probe.c: fills dry->probe; the model is loaded. */
DSA_CHECKED enum dsa_status dsa_dry_run_probe(struct dry_run *dry, struct dsa_error *err);
/* The plan as JSON (formats.md) or as text for people. */
void dsa_dry_run_json(struct dsa_text *text, const struct dry_run *dry);
void dsa_dry_run_text(struct dsa_text *text, const struct dry_run *dry);

#endif
