/* gpu_test --quick, for the sanitizers: of all products only those that show a kernel something new. What selects
 * machine code is a kernel's variant, the type of activations, the packing, and whether scales belong to groups. Each
 * of these meets each kind of everything else at least once: of sizes, types, what follows the sum, alignment. */
#ifndef TERN_TESTS_QUICK_PRODUCTS_H
#define TERN_TESTS_QUICK_PRODUCTS_H

#include "gpu_case.h"

enum { QUICK_VARIANTS = 16 };

/* What has been met, a bit for each kind; zeros at first. */
typedef struct quick_products {
    uint64_t met[TERN_DEVICE_KERNEL_COUNT][QUICK_VARIANTS + 1][TERN_I8 + 1][2][2];
} quick_products;

int quick_is_new(quick_products *q, const gpu_case *c, tern_device_kernel kernel, int variant);
void quick_meet(quick_products *q, const gpu_case *c, tern_device_kernel kernel, int variant);

#endif
