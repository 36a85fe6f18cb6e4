/* spill_limit.h: how much disk states may take. */
#ifndef DSA_CLI_SPILL_LIMIT_H
#define DSA_CLI_SPILL_LIMIT_H

#include <stddef.h>
#include <stdint.h>

#include "options.h"

/* Bytes of disk in the run directory (--out, or where it will be made) for states that host_memory bytes of memory do
 * not hold. 0: none. */
uint64_t dsa_spill_limit(const struct dsa_cli_options *options, size_t host_memory);

#endif
