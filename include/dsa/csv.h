/* csv.h: the tables behind the figures, for spreadsheets and scripts (RFC 4180, CRLF line ends).
 *
 * Names are quoted where they must be; one that a spreadsheet would run as a formula (it starts with = + - @, a tab or
 * a return) gets an apostrophe in front. Undefined figures are empty. Every table stands beside report.html under the
 * name given here; docs/formats.md has the columns. */
#ifndef DSA_CSV_H
#define DSA_CSV_H

#include "dsa/results.h"
#include "dsa/text.h"

/* trace.csv: step,layer,committed,objective,kl,kl_se,nll,documents,bound: one row per candidate of each step. */
void dsa_trace_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* overlap.csv: corpus,from,to,queries,i,j,overlap,se,documents,low,high: i ≤ j; all positions first (`to` empty), then
 * each position bucket [from, to); low and high bound the 95% interval. */
void dsa_overlap_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* pattern.csv: name,layer,letter,source: the emitted pattern, the reference and the baselines, a row per layer. */
void dsa_pattern_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* curve.csv: a row per point of the quality curve: the greedy steps, refined patterns, baselines, the emitted one. */
void dsa_curve_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* sensitivity.csv: layer,letter,kl,kl_se,nll,documents,bound: each layer shared alone. */
void dsa_sensitivity_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* corpora.csv: a row per corpus and split: its documents and the emitted pattern's quality on them. */
void dsa_corpora_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* positions.csv: a row per corpus, split and position bucket; corpus empty: all together. */
void dsa_positions_csv_write(struct dsa_text *text, const struct dsa_results *results);
/* gain.csv: context,indexer_share,prefill,decode; no rows where a model dimension is unknown. */
void dsa_gain_csv_write(struct dsa_text *text, const struct dsa_results *results);

struct dsa_csv_table {
	const char *file;
	void (*write)(struct dsa_text *text, const struct dsa_results *results);
};

enum { DSA_CSV_TABLES = 8 };
/* All of the above. */
extern const struct dsa_csv_table dsa_csv_tables[DSA_CSV_TABLES];

/* One field: quoted and made safe as above. */
void dsa_csv_field(struct dsa_text *text, const char *string);
/* A comma, and the figure where it is one. */
void dsa_csv_real(struct dsa_text *text, double value);

#endif
