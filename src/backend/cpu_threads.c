/* libgomp ends the process when it cannot start a thread. It starts them at the first parallel region and keeps them,
 * so they are tried here in a way that can fail, and then started before weights and states take the memory. */
#include "cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dsa/arena.h"

static void *pass(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* Can `threads` of them, the calling one included, exist at once? */
static enum dsa_status try_threads(int threads, struct dsa_error *err)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t *ids = dsa_alloc((size_t)threads, sizeof *ids, "the list of threads", err);
	int started = 0, cause = 0;
	if (!ids)
		return DSA_E_MEMORY;
	pthread_mutex_lock(&gate);
	while (started < threads - 1 && !cause) {
		cause = pthread_create(&ids[started], NULL, pass, &gate);
		started += !cause;
	}
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	free(ids);
	return cause ? dsa_fail(err, DSA_E_MEMORY, "cannot start %d threads, only %d: %s; lower --threads", threads,
	                        started + 1, strerror(cause))
	             : DSA_OK;
}

enum dsa_status cpu_start_threads(int threads, struct dsa_error *err)
{
	enum dsa_status status = try_threads(threads, err);
	if (status)
		return status;
	int started = 0;
#pragma omp parallel num_threads(threads) reduction(+ : started)
	started++;
	assert(started >= 1); /* fewer than asked for under OMP_THREAD_LIMIT, which every loop bears */
	return DSA_OK;
}
