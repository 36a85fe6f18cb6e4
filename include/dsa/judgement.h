/* judgement.h: whether a saved pattern still holds: figures measured again, against its bounds and its recorded
 * figures.
 *
 * Pure: two struct dsa_results in (what pattern.yaml says, what was measured now), a list of checks out. Three kinds of
 * answer are kept apart: holds, got worse, cannot be compared. Only worse counts against a pattern; what moved for the
 * better is said and passes.
 *
 * Rounding moves a figure by r: the noise floor for KL and NLL (nats); sqrt(floor / 2) for top-1, the total variation
 * that goes with it (Pinsker). A recorded figure with standard error s is missed where the new one is worse by more
 * than sqrt(X²s² + r²); over other documents than the recorded ones by more than sqrt(X²(s² + s'²) + r²), s' the new
 * figure's own error, since both are samples then. A bound that the recorded figure kept on the same documents is
 * broken past r alone, or past 1% of what it allows if that is less (p99: past one bin of its histogram); any other
 * bound is exact. */
#ifndef DSA_JUDGEMENT_H
#define DSA_JUDGEMENT_H

#include <stdbool.h>

#include "dsa/log.h"
#include "dsa/results.h"

enum dsa_figure { DSA_FIGURE_KL, DSA_FIGURE_NLL, DSA_FIGURE_TOP1, DSA_FIGURE_KL_P99, DSA_FIGURE_SHARED };
enum dsa_outcome {
	DSA_OUTCOME_HOLDS,
	DSA_OUTCOME_BETTER,   /* by more than the tolerance: the recorded figure is out of date, nothing is broken */
	DSA_OUTCOME_WORSE,    /* a bound broken, or a recorded figure missed */
	DSA_OUTCOME_UNJUDGED, /* reason says why */
};
enum dsa_documents_state {
	DSA_DOCUMENTS_SAME,    /* the recorded ones, cut and split as then */
	DSA_DOCUMENTS_CHANGED, /* a recorded corpus with other documents, tokens, split or weight */
	DSA_DOCUMENTS_NEW,     /* a corpus that the file does not know: bounds only */
};

/* Other documents than the recorded ones are compared from this many on, on either side. */
enum { DSA_JUDGEMENT_DOCUMENTS = 16 };

struct dsa_check {
	enum dsa_figure figure;
	bool bound; /* against a bound; else against the recorded figure */
	int corpus; /* of now, or DSA_ALL_CORPORA */
	int split;  /* enum dsa_split; of DSA_FIGURE_SHARED without meaning */
	double found, found_se;
	double against;    /* the bound, or the recorded figure */
	double against_se; /* of the recorded figure; NaN of a bound */
	double allowed;    /* how much worse than `against` is no fault, 0 or more */
	enum dsa_outcome outcome;
	const char *reason; /* UNJUDGED only */
};

struct dsa_judgement_options {
	struct dsa_budget budget; /* that counts; of the file, or of the command line */
	double tolerance;         /* X above; 0: rounding alone is no fault */
};

struct dsa_judgement {
	struct dsa_check *checks; /* (count) all corpora first, then corpus by corpus where there are several;
	                           * calibration before held out, bounds before recorded figures */
	int count;
	int worse, better, judged;
	enum dsa_documents_state *documents; /* (corpora of now) */
	int *recorded_as;                    /* (corpora of now) its index in the file, -1: not there */
	enum dsa_documents_state all;        /* the furthest of them */
};

/* The figure's name as JSON and messages have it ("kl", "nll_delta", "top1", "kl_p99", "shared"), and in words. */
const char *dsa_figure_name(enum dsa_figure figure);
const char *dsa_figure_words(enum dsa_figure figure);
/* More is worse of every figure but top-1. */
bool dsa_figure_worse(enum dsa_figure figure, double found, double limit);
/* The figure and its standard error; NaN where there is none. */
double dsa_figure_of(const struct dsa_quality *quality, enum dsa_figure figure);
double dsa_figure_se(const struct dsa_quality *quality, enum dsa_figure figure);
/* Option that sets such a bound. */
const char *dsa_figure_bound_name(enum dsa_figure figure);
const char *dsa_outcome_name(enum dsa_outcome outcome);
const char *dsa_documents_name(enum dsa_documents_state state);

/* Whether the figures of now can be held against the file's at all. DSA_E_INPUT with both values: another number of
 * layers, K, architecture or own pattern of the checkpoint, always; another fingerprint or tokenizer, unless
 * allow_change, which then logs a warning. What the file does not say is not compared; no fingerprint is logged, and so
 * is another precision of the indexers, which may be what is to be judged. */
DSA_CHECKED enum dsa_status dsa_judgement_admit(const struct dsa_results *recorded, const struct dsa_results *now,
                                                bool allow_change, const struct dsa_log *log, struct dsa_error *err);
/* now: pattern, corpora as read and their figures. A corpus is the file's of the same SHA-256 and name, else of the
 * same name, else of the same SHA-256. DSA_E_USAGE naming a recorded corpus that was not given. DSA_E_INPUT when there
 * is nothing to judge: no bound and no figure. Memory from arena; keeps pointers to neither. */
DSA_CHECKED enum dsa_status dsa_judgement_make(struct dsa_judgement *judgement, const struct dsa_results *recorded,
                                               const struct dsa_results *now,
                                               const struct dsa_judgement_options *options, struct dsa_arena *arena,
                                               struct dsa_error *err);
/* The corpora alone, as dsa_judgement_make() matches them: before anything is measured. */
DSA_CHECKED enum dsa_status dsa_judgement_match(struct dsa_judgement *judgement, const struct dsa_results *recorded,
                                                const struct dsa_results *now, struct dsa_arena *arena,
                                                struct dsa_error *err);

#endif
