/* documents.h: a session's spool: written from the corpora, or kept by the run that is resumed. */
#ifndef DSA_CLI_DOCUMENTS_H
#define DSA_CLI_DOCUMENTS_H

#include "session.h"

/* The share of documents that the command holds out. */
double dsa_documents_holdout(const struct dsa_cli_options *options);
/* session->spool from RUN/tokens, written first unless a journal speaks of it; without a run directory from a temporary
 * one that the session removes. */
DSA_CHECKED enum dsa_status dsa_documents_open(struct dsa_session *session, struct dsa_error *err);
/* A resumed run keeps its documents; the corpora named now must be the same ones: DSA_E_USAGE. Called behind the
 * journal, which names the setting that differs. Standard input is not read twice. */
DSA_CHECKED enum dsa_status dsa_documents_check(struct dsa_session *session, struct dsa_error *err);

#endif
