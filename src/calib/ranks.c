/* Whether this program knows MPI, and whether a launcher started it as one of several processes. */
#include "dsa/ranks.h"

#include <stdlib.h>

/* MPI is left alone where there is nobody to talk to: a program run by hand needs no launcher's services. */
static bool was_launched(void)
{
	static const char *const signs[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
	for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
		if (getenv(signs[i]))
			return true;
	return false;
}

enum dsa_status dsa_ranks_connect(struct dsa_ranks **out, struct dsa_error *err)
{
	*out = NULL;
	if (!was_launched())
		return DSA_OK;
#ifdef DSA_MPI
	return dsa_ranks_connect_mpi(out, err);
#else
	const char *size = getenv("OMPI_COMM_WORLD_SIZE");
	if (!size || strtol(size, NULL, 10) < 2)
		return DSA_OK;
	return dsa_fail(err, DSA_E_USAGE,
	                "started as one of %ld processes, but this program was built without MPI; build it with "
	                "make MPI=1, or start one",
	                strtol(size, NULL, 10));
#endif
}
