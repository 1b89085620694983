#include "cuda/select_device.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cuda/launch_shapes.h"
#include "cuda/load_backend.h"
#include "cuda/pinned_kernel.h"

enum { MAX_DEVICE = 1023, LEAST_MAJOR = 7, LEAST_MINOR = 5 };

/* The N of "cuda:N"; -1 where the text is not that. */
static int number_of(const char *text) {
    char *end;
    if (!strcmp(text, "cuda")) return 0;
    if (strncmp(text, "cuda:", 5) || text[5] < '0' || text[5] > '9') return -1;
    const long number = strtol(text + 5, &end, 10);
    return *end || number > MAX_DEVICE ? -1 : (int)number;
}

static const char *wanted(const char *name) {
    if (!name) name = getenv("TERN_DEVICE");
    return name && *name ? name : "auto";
}

int tern_cuda_is_auto(const char *name) { return !strcmp(wanted(name), "auto"); }

static tern_status count_devices(int *count, tern_error *err) {
    const tern_cuda_backend *backend;
    TERN_TRY(tern_cuda_load(&backend, err));
    return backend->count(count, err);
}

tern_status tern_cuda_check_pinned(tern_error *err) {
    tern_device_kernel kernel;
    tern_error why;
    int count;
    TERN_TRY(tern_pinned_device_kernel(&kernel, err));
    if (kernel == TERN_DEVICE_KERNEL_AUTO || !count_devices(&count, &why)) return TERN_OK;
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "TERN_KERNEL=%s is a kernel of a GPU: %.150s; unset it to run on the CPU",
                     tern_cuda_kernel_name(kernel), why.message);
}

tern_status tern_cuda_select(int *device, const char *name, tern_error *err) {
    const char *where = name ? "device " : "TERN_DEVICE=", *text = wanted(name);
    const int number = number_of(text);
    int count = 0;
    *device = TERN_DEVICE_CPU;
    TERN_TRY(tern_cuda_check_pinned(err));
    if (!strcmp(text, "cpu")) return TERN_OK;
    if (!strcmp(text, "auto")) {
        if (!count_devices(&count, NULL)) *device = 0;
        return TERN_OK;
    }
    TERN_CHECK_ARGUMENT(number >= 0, err, "%s%.60s is unknown; valid: auto, cpu, cuda, cuda:N", where, text);
    TERN_TRY(count_devices(&count, err));
    if (number >= count)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "%s%.60s: there is no GPU %d: this machine has %d, from 0 on", where, text, number, count);
    *device = number;
    return TERN_OK;
}

tern_status tern_cuda_check_device(const tern_device_info *info, int device, tern_error *err) {
    if (info->major * 10 + info->minor >= LEAST_MAJOR * 10 + LEAST_MINOR) return TERN_OK;
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                     "GPU %d (%s) has compute capability %d.%d; Tern's kernels take %d.%d or newer", device,
                     info->name, info->major, info->minor, LEAST_MAJOR, LEAST_MINOR);
}
