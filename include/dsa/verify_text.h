/* verify_text.h: what `verify` says in words: the whole answer for people, and its pieces that other outputs use.
 *
 * Names from files are made harmless for a terminal: one line, no control character, no text direction of their own. */
#ifndef DSA_VERIFY_TEXT_H
#define DSA_VERIFY_TEXT_H

#include "dsa/text.h"
#include "dsa/verification.h"

/* What the outputs of verify are written from. */
struct dsa_verify_report {
	const char *file; /* of the pattern */
	const struct dsa_results *recorded, *now;
	const struct dsa_verification *verification;
	const struct dsa_verification_options *options;
	bool accepted; /* the new figures were written into the file */
};

/* Valid UTF-8; control characters and those that steer text direction become U+FFFD. */
void dsa_verify_text_name(struct dsa_text *text, const char *name);
/* "all corpora, held out"; "rag, calibration". */
void dsa_verify_text_place(struct dsa_text *text, const struct dsa_verify_report *report,
                           const struct dsa_check *check);
/* "mean KL 0.0123, at most 0.01 (budget-kl)"; "mean KL 0.0123, recorded 0.0046 +- 0.0006, tolerance 0.0018". */
void dsa_verify_text_check(struct dsa_text *text, const struct dsa_check *check);
/* One line: the verdict, and what is worst. */
void dsa_verify_text_headline(struct dsa_text *text, const struct dsa_verify_report *report);
/* Everything, line by line. */
void dsa_verify_text_write(struct dsa_text *text, const struct dsa_verify_report *report);

#endif
