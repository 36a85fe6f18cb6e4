/* Ranks over MPI. Signs of life are exchanged by a thread of their own, on a communicator of their own, so that a rank
 * that is computing is not taken for a lost one. Many an MPI moves a message of more than a few KiB only while both
 * sides call it: the same thread calls it while its rank computes, and nobody waits inside a receive. */
#include "dsa/ranks.h"

#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dsa/arena.h"
#include "dsa/clock.h"

/* A message on its way; MPI reads the bytes until the request is complete. */
struct sending {
	struct sending *next;
	MPI_Request request;
	char bytes[];
};

struct mpi_ranks {
	struct dsa_ranks base; /* first, so that the one is the other */
	MPI_Comm life;
	struct sending *sending;
	/* The message that is being received, or has been and nobody asked for its kind; one at a time. */
	struct dsa_record_buffer arriving;
	MPI_Request arrival;
	int arriving_from, arriving_kind;
	bool receiving, arrived;
	pthread_t thread;
	bool watched;       /* the thread runs */
	atomic_bool ending; /* asks it to end */
	atomic_int lost;    /* rank that is, 0: none */
	double *heard;      /* (count) seconds; the thread's */
};

static enum dsa_status check(int code, const char *doing, struct dsa_error *err)
{
	char text[MPI_MAX_ERROR_STRING] = "";
	int length;
	if (code == MPI_SUCCESS)
		return DSA_OK;
	MPI_Error_string(code, text, &length);
	return dsa_fail(err, DSA_E_DEVICE, "MPI, %s: %s", doing, text);
}

/* Frees what has arrived. */
static enum dsa_status reap(struct mpi_ranks *self, struct dsa_error *err)
{
	struct sending **at = &self->sending;
	while (*at) {
		struct sending *sending = *at;
		int done;
		enum dsa_status status = check(MPI_Test(&sending->request, &done, MPI_STATUS_IGNORE), "sending", err);
		if (status)
			return status;
		if (done) {
			*at = sending->next;
			free(sending);
		} else {
			at = &sending->next;
		}
	}
	return DSA_OK;
}

static enum dsa_status send_bytes(struct dsa_ranks *ranks, int to, int kind, const void *bytes, size_t count,
                                  struct dsa_error *err)
{
	struct mpi_ranks *self = (struct mpi_ranks *)ranks;
	enum dsa_status status = reap(self, err);
	if (status)
		return status;
	struct sending *sending = dsa_alloc(1, sizeof *sending + count, "a message", err);
	if (!sending)
		return DSA_E_MEMORY;
	if (count)
		memcpy(sending->bytes, bytes, count);
	status = check(MPI_Isend(sending->bytes, (int)count, MPI_BYTE, to, kind, MPI_COMM_WORLD, &sending->request),
	               "sending", err);
	if (status) {
		free(sending);
		return status;
	}
	sending->next = self->sending;
	self->sending = sending;
	return DSA_OK;
}

/* Begins to receive the next message of that kind, if none is being received. */
static enum dsa_status start_receiving(struct mpi_ranks *self, int kind, struct dsa_error *err)
{
	MPI_Status what;
	int there, count;
	if (self->receiving)
		return DSA_OK;
	enum dsa_status status =
	    check(MPI_Iprobe(MPI_ANY_SOURCE, kind == DSA_RANK_ANY ? MPI_ANY_TAG : kind, MPI_COMM_WORLD, &there, &what),
	          "looking for messages", err);
	if (status || !there)
		return status;
	status = check(MPI_Get_count(&what, MPI_BYTE, &count), "looking at a message", err);
	if (!status)
		status = dsa_record_buffer_reserve(&self->arriving, (size_t)count + 1, err);
	if (!status)
		status = check(MPI_Irecv(self->arriving.data, count, MPI_BYTE, what.MPI_SOURCE, what.MPI_TAG,
		                         MPI_COMM_WORLD, &self->arrival),
		               "receiving", err);
	if (status)
		return status;
	self->arriving.used = (size_t)count;
	self->arriving_from = what.MPI_SOURCE;
	self->arriving_kind = what.MPI_TAG;
	self->receiving = true;
	self->arrived = false;
	return DSA_OK;
}

static enum dsa_status go_on_receiving(struct mpi_ranks *self, struct dsa_error *err)
{
	int done = 0;
	if (!self->receiving || self->arrived)
		return DSA_OK;
	enum dsa_status status = check(MPI_Test(&self->arrival, &done, MPI_STATUS_IGNORE), "receiving", err);
	self->arrived = !status && done;
	return status;
}

/* A message of one kind is looked for beside another that is on its way: it is short and here at once (MESSAGE_STOP).
 */
static enum dsa_status overtake(int kind, bool *any, int *from, struct dsa_record_buffer *message,
                                struct dsa_error *err)
{
	MPI_Status what;
	int there, count;
	enum dsa_status status =
	    check(MPI_Iprobe(MPI_ANY_SOURCE, kind, MPI_COMM_WORLD, &there, &what), "looking for messages", err);
	if (status || !there)
		return status;
	status = check(MPI_Get_count(&what, MPI_BYTE, &count), "looking at a message", err);
	if (!status)
		status = dsa_record_buffer_reserve(message, (size_t)count + 1, err);
	if (!status)
		status = check(MPI_Recv(message->data, count, MPI_BYTE, what.MPI_SOURCE, what.MPI_TAG, MPI_COMM_WORLD,
		                        MPI_STATUS_IGNORE),
		               "receiving", err);
	if (status)
		return status;
	message->used = (size_t)count;
	*any = true;
	*from = what.MPI_SOURCE;
	return DSA_OK;
}

static enum dsa_status poll_bytes(struct dsa_ranks *ranks, int kind, bool *any, int *from, int *found,
                                  struct dsa_record_buffer *message, struct dsa_error *err)
{
	struct mpi_ranks *self = (struct mpi_ranks *)ranks;
	const int lost = atomic_load(&self->lost);
	*any = false;
	*found = kind;
	if (lost)
		return dsa_fail(
		    err, DSA_E_DEVICE,
		    "rank %d has given no sign of life for %d seconds; look at its machine, then go on with "
		    "--resume",
		    lost, DSA_RANK_SILENCE);
	enum dsa_status status = reap(self, err);
	if (!status)
		status = start_receiving(self, kind, err);
	if (!status)
		status = go_on_receiving(self, err);
	if (status || !self->receiving)
		return status;
	if (kind != DSA_RANK_ANY && kind != self->arriving_kind)
		return overtake(kind, any, from, message, err);
	if (!self->arrived)
		return DSA_OK;
	const struct dsa_record_buffer spent = *message;
	*message = self->arriving;
	self->arriving = spent;
	self->receiving = false;
	*any = true;
	*from = self->arriving_from;
	*found = self->arriving_kind;
	return DSA_OK;
}

/* At the end: takes what nobody will read, so that its sender can end too. */
static void drain(struct mpi_ranks *self)
{
	struct dsa_error err;
	if (start_receiving(self, DSA_RANK_ANY, &err) || go_on_receiving(self, &err))
		return;
	if (self->arrived)
		self->receiving = self->arrived = false;
}

static void listen_for_life(struct mpi_ranks *self)
{
	const double now = dsa_clock_seconds();
	MPI_Status what;
	int there = 0;
	char sign;
	while (!MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, self->life, &there, &what) && there) {
		if (MPI_Recv(&sign, 1, MPI_BYTE, what.MPI_SOURCE, what.MPI_TAG, self->life, MPI_STATUS_IGNORE))
			return;
		self->heard[what.MPI_SOURCE] = now;
	}
	for (int r = 1; r < self->base.count; r++) {
		if (now - self->heard[r] > DSA_RANK_SILENCE && !atomic_load(&self->lost))
			atomic_store(&self->lost, r);
		/* Rank 0 is in the middle of something and cannot say why. Its journal is whole at any moment. */
		if (now - self->heard[r] > DSA_RANK_SILENCE + DSA_RANK_GRACE)
			MPI_Abort(MPI_COMM_WORLD, dsa_status_exit(DSA_E_DEVICE));
	}
}

enum { TICK_NANOSECONDS = 5000000, SIGN_TICKS = 400 };

/* Every look, at rank 0 and elsewhere, moves messages of this process on. */
static void *watch(void *context)
{
	struct mpi_ranks *self = context;
	const struct timespec pause = {.tv_nsec = TICK_NANOSECONDS};
	for (int tick = 0; !atomic_load(&self->ending); tick++) {
		char sign = 0;
		int there;
		if (self->base.rank == 0)
			listen_for_life(self);
		else if (tick % SIGN_TICKS == 0 ? MPI_Send(&sign, 1, MPI_BYTE, 0, 0, self->life)
		                                : MPI_Iprobe(0, 0, self->life, &there, MPI_STATUS_IGNORE))
			break;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void close_ranks(struct dsa_ranks *ranks, int status)
{
	struct mpi_ranks *self = (struct mpi_ranks *)ranks;
	struct dsa_error err;
	if (atomic_load(&self->lost))
		MPI_Abort(MPI_COMM_WORLD, status);
	/* Whoever has not answered a last message yet still gives signs of life. */
	while (self->sending && !reap(self, &err)) {
		drain(self);
		const struct timespec pause = {.tv_nsec = 1000000};
		nanosleep(&pause, NULL);
		if (atomic_load(&self->lost))
			MPI_Abort(MPI_COMM_WORLD, status);
	}
	MPI_Request all;
	int done = MPI_Ibarrier(MPI_COMM_WORLD, &all);
	while (!done && !MPI_Test(&all, &done, MPI_STATUS_IGNORE) && !done) {
		drain(self);
		const struct timespec pause = {.tv_nsec = 1000000};
		nanosleep(&pause, NULL);
		if (atomic_load(&self->lost))
			MPI_Abort(MPI_COMM_WORLD, status);
	}
	atomic_store(&self->ending, true);
	if (self->watched)
		pthread_join(self->thread, NULL);
	/* Signs that nobody listened to any more. */
	int there = 0;
	char sign;
	MPI_Status what;
	MPI_Barrier(MPI_COMM_WORLD);
	while (!MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, self->life, &there, &what) && there)
		MPI_Recv(&sign, 1, MPI_BYTE, what.MPI_SOURCE, what.MPI_TAG, self->life, MPI_STATUS_IGNORE);
	MPI_Comm_free(&self->life);
	MPI_Finalize();
	dsa_record_buffer_release(&self->arriving);
	free(self->heard);
	free(self);
}

static enum dsa_status find_place(struct mpi_ranks *self, struct dsa_error *err)
{
	struct dsa_ranks *base = &self->base;
	MPI_Comm machine;
	enum dsa_status status = check(MPI_Comm_rank(MPI_COMM_WORLD, &base->rank), "asking for the rank", err);
	if (!status)
		status = check(MPI_Comm_size(MPI_COMM_WORLD, &base->count), "counting ranks", err);
	if (!status)
		status = check(
		    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, base->rank, MPI_INFO_NULL, &machine),
		    "finding the ranks of this machine", err);
	if (status)
		return status;
	MPI_Comm_rank(machine, &base->local);
	MPI_Comm_size(machine, &base->locals);
	MPI_Comm_free(&machine);
	gethostname(base->host, sizeof base->host - 1);
	return check(MPI_Comm_dup(MPI_COMM_WORLD, &self->life), "duplicating the communicator", err);
}

enum dsa_status dsa_ranks_connect_mpi(struct dsa_ranks **out, struct dsa_error *err)
{
	static const struct dsa_ranks_ops ops = {.send = send_bytes, .poll = poll_bytes, .close = close_ranks};
	int provided;
	*out = NULL;
	struct mpi_ranks *self = dsa_alloc(1, sizeof *self, "the ranks", err);
	if (!self)
		return DSA_E_MEMORY;
	self->base.ops = &ops;
	enum dsa_status status = check(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided), "starting", err);
	if (status)
		goto cleanup;
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	status = find_place(self, err);
	if (status)
		goto cleanup;
	if (self->base.count == 1) {
		MPI_Comm_free(&self->life);
		MPI_Finalize();
		goto cleanup;
	}
	self->heard = dsa_alloc((size_t)self->base.count, sizeof *self->heard, "the ranks", err);
	if (!self->heard) {
		status = DSA_E_MEMORY;
		goto cleanup;
	}
	for (int r = 0; r < self->base.count; r++)
		self->heard[r] = dsa_clock_seconds();
	if (provided < MPI_THREAD_MULTIPLE)
		status = dsa_fail(err, DSA_E_DEVICE,
		                  "this MPI gives no threads (MPI_THREAD_MULTIPLE), which signs of life need; use one "
		                  "built with them");
	else if (pthread_create(&self->thread, NULL, watch, self))
		status = dsa_fail(err, DSA_E_MEMORY, "cannot start a thread for the ranks' signs of life");
	self->watched = !status;
	if (!status) {
		*out = &self->base;
		return DSA_OK;
	}
cleanup:
	free(self->heard);
	free(self);
	return status;
}
