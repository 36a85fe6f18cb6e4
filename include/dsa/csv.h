/* csv.h: the tables behind the figures, for spreadsheets and scripts (RFC 4180, CRLF line ends).
 *
 * Names are quoted where they must be; one that a spreadsheet would run as a formula (it starts with = + - @, a tab or
 * a return) gets an apostrophe in front. Undefined figures are empty. */
#ifndef DSA_CSV_H
#define DSA_CSV_H

#include "dsa/results.h"
#include "dsa/text.h"

/* trace.csv: step,layer,committed,objective,kl,kl_se,nll,documents: one row per candidate of each step. */
void dsa_trace_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* overlap.csv: corpus,from,to,queries,i,j,overlap,se: i ≤ j; all positions first (with the standard error over
 * documents; `to` empty), then each position bucket [from, to). */
void dsa_overlap_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* One field: quoted and made safe as above. */
void dsa_csv_field(struct dsa_text *text, const char *string);

#endif
