/* cuBLASLt, found at run time: a program built with the CUDA backend starts where the library is not.
 *
 * The three init functions are what the header's inline wrappers call; they are exported under these names. */
#include "cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Version 13 is what was tried; sizes of structs are passed with every call. */
static const char *const names[] = {
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "/usr/local/cuda/lib64/libcublasLt.so.13",
    "/usr/local/cuda/lib64/libcublasLt.so.12",
    "libcublasLt.so",
};

static void *open_library(char *why, size_t size)
{
	why[0] = 0;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		void *handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
		if (handle)
			return handle;
		/* The first name is the one to complain about. */
		const char *text = dlerror();
		if (i == 0 && text)
			snprintf(why, size, "%s", text);
	}
	return NULL;
}

enum dsa_status cuda_library_open(struct cuda_library *library, struct dsa_error *err)
{
	char why[512];
	*library = (struct cuda_library){.handle = open_library(why, sizeof why)};
	if (!library->handle)
		return dsa_fail(err, DSA_E_DEVICE,
		                "%s: cuBLASLt, the matrix products of CUDA, is not installed; install the cuBLAS "
		                "runtime of CUDA 13 (libcublas-13-0) or put its folder into LD_LIBRARY_PATH, or use "
		                "--device cpu",
		                why[0] ? why : names[0]);
	const struct {
		const char *name;
		void *slot; /* a pointer to a function: same size, other type */
	} functions[] = {
	    {"cublasLtCreate", &library->create},
	    {"cublasLtDestroy", &library->destroy},
	    {"cublasLtGetVersion", &library->version},
	    {"cublasLtGetStatusString", &library->status_string},
	    {"cublasLtMatmulDescInit_internal", &library->desc_init},
	    {"cublasLtMatmulDescSetAttribute", &library->desc_set},
	    {"cublasLtMatrixLayoutInit_internal", &library->layout_init},
	    {"cublasLtMatrixLayoutSetAttribute", &library->layout_set},
	    {"cublasLtMatmulPreferenceInit_internal", &library->preference_init},
	    {"cublasLtMatmulPreferenceSetAttribute", &library->preference_set},
	    {"cublasLtMatmulAlgoGetHeuristic", &library->heuristic},
	    {"cublasLtMatmulAlgoConfigGetAttribute", &library->algo_get},
	    {"cublasLtMatmul", &library->matmul},
	};
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *symbol = dlsym(library->handle, functions[i].name);
		if (!symbol) {
			cuda_library_close(library);
			return dsa_fail(err, DSA_E_DEVICE,
			                "libcublasLt has no function %s: its version is not one this program knows; "
			                "install the cuBLAS runtime of CUDA 13 (libcublas-13-0), or use --device cpu",
			                functions[i].name);
		}
		memcpy(functions[i].slot, &symbol, sizeof symbol);
	}
	return DSA_OK;
}

void cuda_library_close(struct cuda_library *library)
{
	if (library->handle)
		dlclose(library->handle);
	*library = (struct cuda_library){0};
}
