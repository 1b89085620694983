#include "model_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tern_status open_test_data(tern_dataset **out, const tern_model *model, const char *path, tern_error *err) {
    tern_model_info info;
    tern_status status = tern_model_describe(&info, model, err);
    if (status) return status;
    tern_dataset_desc d = {.kind = info.data, .split = TERN_SPLIT_TEST, .path = path};
    return tern_dataset_open(out, &d, err);
}

tern_status find_device(int *device, const char *option, tern_error *err) {
    const char *name = getenv("TERN_DEVICE"), *kernel = getenv("TERN_KERNEL");
    const int is_open = !name || !*name || !strcmp(name, "auto"), names_gpu = kernel && !strncmp(kernel, "cuda-", 5);
    *device = TERN_DEVICE_CPU;
    if (!option && is_open && !names_gpu) return TERN_OK;
    return tern_device_find(device, option, err);
}

const char *device_name(int device) {
    static char name[24];
    snprintf(name, sizeof name, "cuda:%d", device);
    return device == TERN_DEVICE_CPU ? NULL : name;
}

void print_json_line(json_t *json) {
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(json);
}

const char *bytes_text(size_t bytes) {
    static char text[8][24];
    static unsigned turn;
    char *out = text[turn++ % 8];
    if (bytes < 10000)
        snprintf(out, sizeof text[0], "%zu B", bytes);
    else if (bytes < 10000000)
        snprintf(out, sizeof text[0], "%.1f kB", (double)bytes / 1e3);
    else
        snprintf(out, sizeof text[0], "%.1f MB", (double)bytes / 1e6);
    return out;
}
