/* session.h: what every measuring command opens, in order: configuration, documents, device, model, journal, evaluator.
 *
 * A session owns all of it and closes it in reverse. On a rank that serves another it has no run directory and no
 * journal, and its documents are those that rank 0 wrote. */
#ifndef DSA_CLI_SESSION_H
#define DSA_CLI_SESSION_H

#include "dsa/arena.h"
#include "dsa/evaluator.h"
#include "dsa/hash.h"
#include "dsa/journal.h"
#include "dsa/model.h"
#include "dsa/plan.h"
#include "dsa/results.h"
#include "dsa/spool.h"
#include "options.h"
#include "terminal.h"

struct dsa_session {
	const struct dsa_cli_options *options;
	struct dsa_terminal *terminal;
	struct dsa_arena arena;
	struct dsa_model_config config;
	struct dsa_spool *spool;
	struct dsa_backend *backend;
	struct dsa_model *model;
	struct dsa_journal *journal;      /* NULL: nothing is kept (evaluate) */
	struct dsa_evaluator *runs_model; /* the model's */
	struct dsa_evaluator *ranked;     /* in front of it, where several ranks measure */
	struct dsa_evaluator *evaluator;  /* what to ask: the journal's in front of the others */
	char *run;                        /* run directory, NULL for commands without one */
	char *temporary;                  /* of commands without one: where the spool lies until close */
	/* Known once the model is to be loaded. */
	size_t host_memory;    /* bytes that keys, references and states may take */
	uint64_t spill;        /* bytes of disk for states */
	int wave;              /* candidates that advance together */
	int patterns;          /* most of them that one question has */
	size_t overlap_memory; /* bytes of the device that selections may take while overlap is measured */
	struct dsa_residency residency;
	struct dsa_plan_device device;
	size_t
	    stash_room; /* bytes of the device that are left for keys, references and states; 0: they are on the host */
	uint64_t passing; /* bytes of the host that layers take on their way to the device, while the model is opened */
	char fingerprint[DSA_HASH_HEX];
	char tokenizer[DSA_HASH_HEX]; /* SHA-256 of tokenizer.json; empty: there is none */
	bool resumed;
	bool kept_documents; /* the spool is an earlier process's */
};

/* Everything up to the evaluator. options->out: run directory with the rules of --out and --resume; --dry-run leaves it
 * alone and has neither run nor journal. */
DSA_CHECKED enum dsa_status dsa_session_open(struct dsa_session *session, const struct dsa_cli_options *options,
                                             struct dsa_terminal *terminal, struct dsa_error *err);
/* The same; admit looks at the model (config, fingerprint, tokenizer) before anything is read with it. Its error is
 * the result. */
typedef enum dsa_status dsa_session_admit(const struct dsa_session *session, void *context, struct dsa_error *err);
DSA_CHECKED enum dsa_status dsa_session_open_if(struct dsa_session *session, const struct dsa_cli_options *options,
                                                struct dsa_terminal *terminal, dsa_session_admit *admit, void *context,
                                                struct dsa_error *err);
/* The evaluator does it when it is first asked. DSA_E_MEMORY with both figures when the weights do not fit. */
DSA_CHECKED enum dsa_status dsa_session_load_model(struct dsa_session *session, struct dsa_error *err);
const char *dsa_session_device_kind(const struct dsa_session *session); /* "cpu", "cuda" */
bool dsa_session_on_gpu(const struct dsa_session *session);             /* else the device's memory is the host's */
void dsa_session_documents_digest(const struct dsa_session *session, char out[DSA_HASH_HEX]);
/* Bytes that kept states may take: --host-memory, or half of what is free now, a share of it where ranks share the
 * machine. */
size_t dsa_session_pool_limit(const struct dsa_session *session);
int dsa_session_longest(const struct dsa_session *session); /* tokens of the longest document */
/* *fixed (layers): those that no question of the command flips; NULL: not known. Memory of the session. */
DSA_CHECKED enum dsa_status dsa_session_fixed(struct dsa_session *session, const bool **fixed, struct dsa_error *err);
/* session_memory.c: residency, wave, device, host_memory. DSA_E_MEMORY says what does not fit and what to lower; the
 * device is planned then as if everything fitted, and nothing has a place. */
DSA_CHECKED enum dsa_status dsa_session_plan_memory(struct dsa_session *session, struct dsa_error *err);
/* What the directory of a failed command keeps: all that was measured and can go on. A start that was refused before
 * anything was measured (damaged weights, too little memory) leaves only the log, and --out serves again; so does one
 * whose budget is under the noise floor, which --resume would refuse again while its journal refused the cure. What
 * earlier processes measured is never touched. */
void dsa_session_forget_start(struct dsa_session *session, enum dsa_status status);
void dsa_session_close(struct dsa_session *session);
/* layers, index_topk and what else a layer's cost follows from. */
void dsa_results_dimensions(struct dsa_results *results, const struct dsa_model_config *config);
/* Names, corpora, model dimensions and provenance of results; strings from results' arena or the session's. */
DSA_CHECKED enum dsa_status dsa_session_describe(struct dsa_session *session, struct dsa_results *results,
                                                 struct dsa_error *err);
/* run + "/" + name in the session's arena. */
DSA_CHECKED enum dsa_status dsa_session_path(struct dsa_session *session, const char *name, char **out,
                                             struct dsa_error *err);

#endif
