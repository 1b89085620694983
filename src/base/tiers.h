/* Which tiers this processor and operating system can run. */
#ifndef TERN_BASE_TIERS_H
#define TERN_BASE_TIERS_H

#include "tern/matrix.h"

/* Nonzero when the instructions are there and the operating system saves their registers. For AMX this asks the
 * kernel for permission to use tile data, once per process. */
int tern_machine_has(tern_tier tier);

#endif
