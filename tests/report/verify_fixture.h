/* verify_fixture.h: a verification of fixture.h's run, with a check of every outcome: what its outputs are written
 * from.
 *
 * legal has other documents; rag, as recorded, got worse on calibration documents and better held out. */
#ifndef DSA_TEST_REPORT_VERIFY_FIXTURE_H
#define DSA_TEST_REPORT_VERIFY_FIXTURE_H

#include "dsa/verify_text.h"
#include "report/fixture.h"

struct verify_fixture {
	struct dsa_results recorded, now;
	struct dsa_verification verification;
	struct dsa_verification_options options;
	struct dsa_verify_report report;
};

static inline void verify_fixture_fill(struct verify_fixture *v, const char *file, const char *const names[3],
                                       struct dsa_arena *arena)
{
	struct dsa_error err;
	fixture_fill(&v->recorded, 12, names, arena);
	v->now = v->recorded;
	v->now.fingerprint = "3fa9c0de00000000000000000000000000000000000000000000000000000002";
	v->now.corpora = fixture_alloc(arena, 2, sizeof *v->now.corpora);
	memcpy(v->now.corpora, v->recorded.corpora, 2 * sizeof *v->now.corpora);
	memset(v->now.corpora[0].digest, 'c', 64);
	v->now.quality.kl = 0.0625;
	v->now.corpora[1].calibration.kl = 0.125;
	v->now.corpora[1].heldout.kl = 0.0078125;
	v->options = (struct dsa_verification_options){.recorded = &v->recorded,
	                                               .judge = {.budget = v->recorded.budget, .tolerance = 3}};
	v->verification = (struct dsa_verification){.documents = 32, .all = 32, .confidence = (double)NAN};
	enum dsa_status status =
	    dsa_judgement_make(&v->verification.judgement, &v->recorded, &v->now, &v->options.judge, arena, &err);
	assert(!status);
	(void)status;
	v->report = (struct dsa_verify_report){.file = file,
	                                       .recorded = &v->recorded,
	                                       .now = &v->now,
	                                       .verification = &v->verification,
	                                       .options = &v->options};
}

/* The same, with everything as recorded. */
static inline void verify_fixture_holds(struct verify_fixture *v, const char *file, const char *const names[3],
                                        struct dsa_arena *arena)
{
	struct dsa_error err;
	verify_fixture_fill(v, file, names, arena);
	v->now = v->recorded;
	enum dsa_status status =
	    dsa_judgement_make(&v->verification.judgement, &v->recorded, &v->now, &v->options.judge, arena, &err);
	assert(!status && !v->verification.judgement.worse);
	(void)status;
}

#endif
