/* Two ranks: the second sends a long message and then computes for two without a call to MPI; the first looks for
 * messages all the time. No look may wait for the other's arithmetic, and the message has to be here before that ends.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dsa/clock.h"
#include "dsa/ranks.h"

enum { GO = 40, LONG, SHORT };
enum { LONG_BYTES = 4 << 20, SECONDS = 2 };
/* A shared machine may keep a process waiting for a while. */
static const double longest_look = 0.5 * SECONDS, latest_arrival = 0.75 * SECONDS;

static void must(enum dsa_status status, const struct dsa_error *err)
{
	if (!status)
		return;
	fprintf(stderr, "messages: %s\n", err->text);
	exit(1);
}

/* The next message; *longest: seconds of the longest look. */
static int await(struct dsa_ranks *ranks, struct dsa_record_buffer *message, double *longest)
{
	struct dsa_error err = {""};
	bool any = false;
	int from, kind = 0;
	while (!any) {
		const double begun = dsa_clock_seconds();
		must(ranks->ops->poll(ranks, DSA_RANK_ANY, &any, &from, &kind, message, &err), &err);
		const double seconds = dsa_clock_seconds() - begun;
		*longest = seconds > *longest ? seconds : *longest;
	}
	return kind;
}

static void compute(struct dsa_ranks *ranks, const char *bytes)
{
	struct dsa_record_buffer message = {0};
	struct dsa_error err = {""};
	double longest = 0;
	await(ranks, &message, &longest);
	must(ranks->ops->send(ranks, 0, LONG, bytes, LONG_BYTES, &err), &err);
	const double begun = dsa_clock_seconds();
	while (dsa_clock_seconds() - begun < SECONDS)
		;
	must(ranks->ops->send(ranks, 0, SHORT, NULL, 0, &err), &err);
	dsa_record_buffer_release(&message);
}

/* Whether all was in time and whole. */
static bool look(struct dsa_ranks *ranks, const char *bytes)
{
	struct dsa_record_buffer message = {0};
	struct dsa_error err = {""};
	double longest = 0;
	bool whole = true;
	must(ranks->ops->send(ranks, 1, GO, NULL, 0, &err), &err);
	const double begun = dsa_clock_seconds();
	const int first = await(ranks, &message, &longest);
	const double arrival = dsa_clock_seconds() - begun;
	for (size_t i = 0; i < LONG_BYTES && whole; i++)
		whole = message.used == LONG_BYTES && (char)message.data[i] == bytes[i];
	const int second = await(ranks, &message, &longest);
	dsa_record_buffer_release(&message);
	printf("%d bytes %.3f s after they were asked for, of %d s of arithmetic; longest look %.3f s\n", LONG_BYTES,
	       arrival, SECONDS, longest);
	return first == LONG && second == SHORT && whole && arrival < latest_arrival && longest < longest_look;
}

int main(void)
{
	struct dsa_ranks *ranks;
	struct dsa_error err = {""};
	char *bytes = malloc(LONG_BYTES);
	bool good = bytes != NULL;
	must(dsa_ranks_connect(&ranks, &err), &err);
	if (!ranks || ranks->count != 2 || !good) {
		fprintf(stderr, "messages: needs two ranks\n");
		return 2;
	}
	for (size_t i = 0; i < LONG_BYTES; i++)
		bytes[i] = (char)(i * 2654435761u >> 13);
	if (ranks->rank)
		compute(ranks, bytes);
	else
		good = look(ranks, bytes);
	ranks->ops->close(ranks, 0);
	free(bytes);
	return good ? 0 : 1;
}
