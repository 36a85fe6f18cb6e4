/* spill_limit.h: how much disk states may take. */
#ifndef DSA_CLI_SPILL_LIMIT_H
#define DSA_CLI_SPILL_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

/* Bytes of disk in the run directory (--out, or where it will be made) for states that host_memory bytes of memory do
 * not hold. 0: none. on_gpu: the model runs on one, which makes most states again sooner than a disk reads them, so
 * there nothing is spilled unasked. */
uint64_t dsa_spill_limit(const struct dsa_cli_options *options, bool on_gpu, size_t host_memory);

#endif
