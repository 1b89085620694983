/* Tiers by name, and the choice from outside. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/tiers.h"
#include "kern/kernels.h"
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

tern_status tern_tier_select(tern_tier *tier, tern_error *err) {
    TERN_CHECK_ARGUMENT(tier, err, "tier is NULL");
    const char *wanted = getenv("TERN_KERNEL");
    if (!wanted || !*wanted || !strcmp(wanted, names[TERN_TIER_AUTO])) {
        *tier = best_tier();
        return TERN_OK;
    }
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++) {
        if (strcmp(wanted, names[t])) continue;
        if (!tern_tier_available((tern_tier)t))
            return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                             "TERN_KERNEL=%s: this machine cannot run that tier; its best is %s", wanted,
                             names[best_tier()]);
        *tier = (tern_tier)t;
        return TERN_OK;
    }
    return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE,
                     "TERN_KERNEL=%s is unknown; valid: auto, scalar, avx2, avx512, amx, neon, neondot", wanted);
}

const char *tern_version(void) { return TERN_VERSION; }
