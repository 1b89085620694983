/* Tiers and kernels by name, and the choice from outside. */
#include <stdlib.h>
#include <string.h>

#include "api/kernel_names.h"
#include "base/error.h"
#include "base/tiers.h"
#include "kern/kernels.h"
#include "tern/device.h"
#include "tern/tern.h"

static const char *const names[TERN_TIER_COUNT] = {"auto", "scalar", "avx2", "avx512", "amx", "neon", "neondot"};

const char *tern_tier_name(tern_tier tier) { return (unsigned)tier < TERN_TIER_COUNT ? names[tier] : NULL; }

int tern_tier_available(tern_tier tier) { return tern_kernels_of(tier) != NULL; }

static tern_tier best_tier(void) {
    tern_tier best = TERN_TIER_SCALAR;
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++)
        if (tern_tier_available((tern_tier)t)) best = (tern_tier)t;
    return best;
}

static const char *const kernel_names[TERN_DEVICE_KERNEL_COUNT] = {
    "auto", "cuda-plain", "cuda-tiled", "cuda-decode", "cuda-mma", "cuda-wgmma", "cuda-few"};

const char *tern_device_kernel_name(tern_device_kernel kernel) {
    return (unsigned)kernel < TERN_DEVICE_KERNEL_COUNT ? kernel_names[kernel] : NULL;
}

/* Index in names, or -1. */
static int find(const char *wanted, const char *const *from, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(wanted, from[i])) return i;
    return -1;
}

/* TERN_KERNEL as a tier and a kernel; what it does not name is 0, auto. */
static tern_status read_environment(const char **wanted, int *tier, int *kernel, tern_error *err) {
    *wanted = getenv("TERN_KERNEL");
    *tier = *wanted && **wanted ? find(*wanted, names, TERN_TIER_COUNT) : 0;
    *kernel = *wanted && **wanted ? find(*wanted, kernel_names, TERN_DEVICE_KERNEL_COUNT) : 0;
    TERN_CHECK_ARGUMENT(*tier >= 0 || *kernel >= 0, err,
                        "TERN_KERNEL=%.60s is unknown; valid: auto, scalar, avx2, avx512, amx, neon, neondot, "
                        "cuda-plain, cuda-tiled, cuda-decode, cuda-mma, cuda-wgmma, cuda-few",
                        *wanted);
    if (*tier < 0) *tier = 0;
    if (*kernel < 0) *kernel = 0;
    return TERN_OK;
}

tern_status tern_tier_select(tern_tier *tier, tern_error *err) {
    TERN_CHECK_ARGUMENT(tier, err, "tier is NULL");
    const char *wanted;
    int t, kernel;
    TERN_TRY(read_environment(&wanted, &t, &kernel, err));
    if (t && !tern_tier_available((tern_tier)t))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "TERN_KERNEL=%s: this machine cannot run that tier; its best is %s", wanted,
                         names[best_tier()]);
    *tier = t ? (tern_tier)t : best_tier();
    return TERN_OK;
}

tern_status tern_pinned_device_kernel(tern_device_kernel *kernel, tern_error *err) {
    const char *wanted;
    int tier, k;
    TERN_TRY(read_environment(&wanted, &tier, &k, err));
    *kernel = (tern_device_kernel)k;
    return TERN_OK;
}

const char *tern_version(void) { return TERN_VERSION; }
