/* The tiers that this machine has, and the choice among them from outside. */
#include "base/error.h"
#include "cuda/launch_shapes.h"
#include "cuda/pinned_kernel.h"
#include "cuda/select_device.h"
#include "kern/kernels.h"
#include "tern/device.h"
#include "tern/tern.h"

int tern_tier_available(tern_tier tier) { return tern_kernels_of(tier) != NULL; }

static tern_tier best_tier(void) {
    tern_tier best = TERN_TIER_SCALAR;
    for (int t = TERN_TIER_SCALAR; t < TERN_TIER_COUNT; t++)
        if (tern_tier_available((tern_tier)t)) best = (tern_tier)t;
    return best;
}

const char *tern_device_kernel_name(tern_device_kernel kernel) { return tern_cuda_kernel_name(kernel); }

tern_status tern_tier_select(tern_tier *tier, tern_error *err) {
    TERN_CHECK_ARGUMENT(tier, err, "tier is NULL");
    tern_tier pinned;
    TERN_TRY(tern_pinned_tier(&pinned, err));
    if (!pinned) TERN_TRY(tern_cuda_check_pinned(err));
    if (pinned && !tern_tier_available(pinned))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "TERN_KERNEL=%s: this machine cannot run that tier; its best is %s", tern_tier_name(pinned),
                         tern_tier_name(best_tier()));
    *tier = pinned ? pinned : best_tier();
    return TERN_OK;
}

const char *tern_version(void) { return TERN_VERSION; }
