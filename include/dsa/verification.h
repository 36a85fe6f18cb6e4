/* verification.h: a saved pattern measured again and judged: on every document, or on as many as it takes to be sure.
 *
 * It knows an evaluator and what pattern.yaml says, as calibration.h does for the main job. In haste it looks after N
 * documents of each corpus and split, then 2N, 4N, …, whole batches each time, and ends at a look that decides. Its
 * confidence holds over all looks and checks together, by the bounds that races use (racing.h):
 * - worse: a bound is broken, or a recorded figure missed, by all documents, as far as the measured ones can tell;
 * - holds: every bound is kept by all documents, and no recorded figure is missed by the measured ones, where the
 *   recorded standard error is widened by sqrt(D / n) for n of D documents. Without a bound, and with one of the p99,
 *   nothing is ever certain before the last document. */
#ifndef DSA_VERIFICATION_H
#define DSA_VERIFICATION_H

#include "dsa/judgement.h"

struct dsa_verification_options {
	const struct dsa_results *recorded; /* what the pattern file says */
	struct dsa_judgement_options judge;
	int quick;  /* N above; 0: every document before the first look */
	bool renew; /* a new baseline is wanted: the noise floor and the file's baselines are measured too */
	const struct dsa_search_progress *progress; /* may be NULL */
	const struct dsa_log *log;
};

struct dsa_verification {
	struct dsa_judgement judgement;
	int documents, all; /* measured; how many there are, both splits together */
	bool early;         /* decided before the last document */
	double confidence;  /* of an early decision */
};

/* Fills quality, heldout and the corpora's figures of now (renew: also noise_floor and baselines), which already says
 * pattern, corpora as read, seed. DSA_E_INPUT for a pattern that the checkpoint cannot run; DSA_E_MISSING from an
 * evaluator that knows a journal alone. */
DSA_CHECKED enum dsa_status dsa_verification_run(struct dsa_verification *verification, struct dsa_results *now,
                                                 struct dsa_evaluator *evaluator,
                                                 const struct dsa_verification_options *options,
                                                 struct dsa_arena *arena, struct dsa_error *err);

#endif
