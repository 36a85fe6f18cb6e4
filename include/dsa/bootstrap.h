/* bootstrap.h: 95% intervals of a pattern's figures by the percentile bootstrap over documents.
 *
 * Documents are the independent unit: every resample draws, in each corpus, as many documents as it has, with
 * replacement, and takes the same weighted mean over corpora as the figure itself. The draws are seeded by a constant
 * and depend on the numbers of documents alone: patterns measured on the same documents see the same resamples, and the
 * same figures give the same bits. */
#ifndef DSA_BOOTSTRAP_H
#define DSA_BOOTSTRAP_H

#include "dsa/metrics.h"

enum { DSA_RESAMPLES = 1000 };

/* Fills the intervals of quality, whose corpus (or DSA_ALL_CORPORA) it is: from the 2.5th to the 97.5th percentile of
 * the resamples. NaN where a corpus has fewer than two documents, as of the standard error. */
void dsa_bootstrap_intervals(const struct dsa_measure *measure, int corpus, struct dsa_quality *quality);

#endif
