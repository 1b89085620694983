/* The init chain. Each function improves a table that holds the next slower tier, and touches only the slots that it
 * improves; src/kern/table.c calls them slowest first. */
#ifndef TERN_KERN_TIERS_INIT_H
#define TERN_KERN_TIERS_INIT_H

#include "kern/kernels.h"

void tern_kernels_init_scalar(tern_kernels *table);
void tern_kernels_init_avx2(tern_kernels *table);
void tern_kernels_init_avx512(tern_kernels *table);
void tern_kernels_init_amx(tern_kernels *table);
void tern_kernels_init_neon(tern_kernels *table);
void tern_kernels_init_neondot(tern_kernels *table);

#endif
