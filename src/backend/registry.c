/* Which backends this program has. */
#include "dsa/backend.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool names_cuda(const char *device)
{
	if (strncmp(device, "cuda", 4) != 0)
		return false;
	if (!device[4])
		return true;
	const char *index = device + 5;
	return device[4] == ':' && *index && strspn(index, "0123456789") == strlen(index);
}

enum dsa_status dsa_backend_open(struct dsa_backend **out, const struct dsa_backend_options *options,
                                 struct dsa_error *err)
{
	const char *device = options->device ? options->device : "auto";
	*out = NULL;
	if (strcmp(device, "cpu") == 0)
		return dsa_cpu_open(out, options, err);
#ifdef DSA_CUDA
	if (strcmp(device, "auto") == 0) {
		if (!dsa_cuda_open(out, -1, options, err))
			return DSA_OK;
		dsa_log_line(options->log, DSA_LOG_DEBUG, "no GPU is used: %s", err ? err->text : "");
		return dsa_cpu_open(out, options, err);
	}
	if (names_cuda(device)) {
		long index = device[4] ? strtol(device + 5, NULL, 10) : -1;
		enum dsa_status status = dsa_cuda_open(out, index > INT_MAX ? INT_MAX : (int)index, options, err);
		if (status)
			dsa_error_prefix(err, "device %s", device);
		return status;
	}
#else
	if (strcmp(device, "auto") == 0)
		return dsa_cpu_open(out, options, err);
	if (names_cuda(device))
		return dsa_fail(err, DSA_E_DEVICE,
		                "device %s: this program was built without the GPU backend; use --device cpu, or build "
		                "it where nvcc is, with make CUDA=1",
		                device);
#endif
	return dsa_fail(err, DSA_E_USAGE, "device %s: expected auto, cpu, cuda or cuda:INDEX", device);
}

enum dsa_status dsa_backend_reserve(struct dsa_backend *be, const struct dsa_backend_limits *limits,
                                    struct dsa_error *err)
{
	return be->ops->reserve(be, limits, err);
}

void dsa_backend_close(struct dsa_backend *be)
{
	if (be)
		be->ops->close(be);
}
