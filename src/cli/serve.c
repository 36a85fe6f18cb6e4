/* What a rank does that is not the first: opens the same model, waits for rank 0's documents, answers. */
#include <string.h>

#include "commands.h"
#include "dsa/ranks_evaluator.h"
#include "session.h"

struct service {
	struct dsa_ranks_start start;
	bool stopped; /* the run ended before it began */
};

/* Behind model and device: what was opened is what rank 0 has opened. */
static enum dsa_status admit(const struct dsa_session *session, void *context, struct dsa_error *err)
{
	struct service *service = context;
	enum dsa_status status =
	    dsa_ranks_await_start(session->options->ranks, &service->start, &service->stopped, err);
	if (status)
		return status;
	if (service->stopped)
		return dsa_fail(err, DSA_E_INTERRUPTED, "the run has ended");
	if (strcmp(service->start.fingerprint, session->fingerprint) != 0)
		return dsa_fail(err, DSA_E_INPUT,
		                "%s: fingerprint %.12s, but rank 0 reads %.12s; give all machines the same checkpoint",
		                session->options->model, session->fingerprint, service->start.fingerprint);
	if (strcmp(service->start.device, dsa_session_device_kind(session)) != 0)
		return dsa_fail(err, DSA_E_DEVICE,
		                "the device is %s, but rank 0 has one of kind %s; name one kind with --device",
		                session->backend->name, service->start.device);
	return DSA_OK;
}

static enum dsa_status check_documents(const struct dsa_session *session, const struct service *service,
                                       struct dsa_error *err)
{
	char documents[DSA_HASH_HEX];
	dsa_session_documents_digest(session, documents);
	if (!strcmp(documents, service->start.documents))
		return DSA_OK;
	return dsa_fail(err, DSA_E_INPUT,
	                "%s/tokens is not the file that rank 0 wrote; --out has to lie on a file system that all "
	                "machines share",
	                session->options->out);
}

void dsa_serve(const struct dsa_cli_options *options, struct dsa_terminal *terminal)
{
	struct dsa_error err = {""};
	struct dsa_session session;
	struct service service = {.stopped = false};
	dsa_terminal_mute(terminal);
	enum dsa_status status = dsa_session_open_if(&session, options, terminal, admit, &service, &err);
	const bool open = !status;
	if (open)
		status = check_documents(&session, &service, &err);
	if (!status)
		status = dsa_ranks_serve(options->ranks, session.evaluator, dsa_terminal_stop_flag(), &err);
	if (status && !service.stopped)
		dsa_ranks_report(options->ranks, status, &err);
	if (open)
		dsa_session_close(&session);
}
