#include "cuda/pinned_kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cuda/launch_shapes.h"

static const char *tier_name(int i) { return tern_tier_name((tern_tier)i); }
static const char *kernel_name(int i) { return tern_cuda_kernel_name((tern_device_kernel)i); }

/* The number of a name, or -1. */
static int find(const char *wanted, const char *(*name)(int), int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(wanted, name(i))) return i;
    return -1;
}

static void append(char *text, size_t bytes, const char *(*name)(int), int count) {
    for (int i = 1; i < count; i++) {
        const size_t n = strlen(text);
        snprintf(text + n, bytes - n, ", %s", name(i));
    }
}

static tern_status unknown(const char *wanted, tern_error *err) {
    char valid[160] = "auto";
    append(valid, sizeof valid, tier_name, TERN_TIER_COUNT);
    append(valid, sizeof valid, kernel_name, TERN_DEVICE_KERNEL_COUNT);
    return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "TERN_KERNEL=%.60s is unknown; valid: %s", wanted, valid);
}

/* TERN_KERNEL as a tier and a kernel; what it does not name is 0, auto. */
static tern_status read_environment(int *tier, int *kernel, tern_error *err) {
    const char *wanted = getenv("TERN_KERNEL");
    *tier = *kernel = 0;
    if (!wanted || !*wanted) return TERN_OK;
    const int t = find(wanted, tier_name, TERN_TIER_COUNT), k = find(wanted, kernel_name, TERN_DEVICE_KERNEL_COUNT);
    if (t < 0 && k < 0) return unknown(wanted, err);
    if (t > 0) *tier = t;
    if (k > 0) *kernel = k;
    return TERN_OK;
}

tern_status tern_pinned_tier(tern_tier *tier, tern_error *err) {
    int t, k;
    TERN_TRY(read_environment(&t, &k, err));
    *tier = (tern_tier)t;
    return TERN_OK;
}

tern_status tern_pinned_device_kernel(tern_device_kernel *kernel, tern_error *err) {
    int t, k;
    TERN_TRY(read_environment(&t, &k, err));
    *kernel = (tern_device_kernel)k;
    return TERN_OK;
}
