/* tern devices: the GPUs of this machine, or the reason that none is used. */
#include <jansson.h>
#include <stdio.h>

#include "args.h"
#include "cli.h"

static const char help[] =
    "usage: tern devices [--json]\n\n"
    "Lists the GPUs that Tern can use: name, compute capability, memory and CUDA versions; or says\n"
    "why there is none, in which case everything runs on the CPU. TERN_DEVICE pins the choice:\n"
    "auto, cpu, cuda (the first GPU) or cuda:N. TERN_KERNEL=cuda-plain, for one, pins the kernel of ternary\n"
    "products there; an unknown name lists them, and what the kernel cannot run is refused.\n\n"
    "Example:\n  TERN_DEVICE=cuda:0 tern devices\n";

static void print_json(json_t *row) {
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

static void print_none(const tern_error *why, int json) {
    if (json)
        print_json(json_pack("{s:s, s:s, s:b}", "device", "cpu", "reason", why->message, "used", 1));
    else
        printf("cpu      used\n%s\n", why->message);
}

static void print_device(int number, const tern_device_info *d, int used, int json) {
    char name[16];
    snprintf(name, sizeof name, "cuda:%d", number);
    if (json) {
        print_json(json_pack("{s:s, s:s, s:[i,i], s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:b}", "device", name, "name",
                             d->name, "capability", d->major, d->minor, "multiprocessors", d->multiprocessors,
                             "memory_total", (json_int_t)d->memory_total, "memory_free", (json_int_t)d->memory_free,
                             "l2", (json_int_t)d->l2_bytes, "shared", (json_int_t)d->shared_bytes, "driver",
                             d->driver_version, "runtime", d->runtime_version, "used", used));
        return;
    }
    printf("%-8s %s%s, compute capability %d.%d, %d multiprocessors, %.1f of %.1f GB free\n", name,
           used ? "used: " : "", d->name, d->major, d->minor, d->multiprocessors, (double)d->memory_free * 1e-9,
           (double)d->memory_total * 1e-9);
    printf("         driver for CUDA %d.%d, Tern built with %d.%d\n", d->driver_version / 1000,
           d->driver_version % 1000 / 10, d->runtime_version / 1000, d->runtime_version % 1000 / 10);
}

static int list_devices(int count, int used, int json) {
    tern_error err;
    for (int i = 0; i < count; i++) {
        tern_device_info info;
        if (tern_device_describe(&info, i, &err)) return failed(&err);
        print_device(i, &info, i == used, json);
    }
    if (used == TERN_DEVICE_CPU && !json) puts("cpu      used");
    return EXIT_DONE;
}

int command_devices(int argc, char **argv) {
    int json = argc > 1, code = parse_json_only(argc, argv, help);
    if (code >= 0) return code;
    tern_error err;
    int used, count;
    if (tern_device_select(&used, &err)) return failed(&err);
    if (tern_device_count(&count, &err)) {
        print_none(&err, json);
        return EXIT_DONE;
    }
    return list_devices(count, used, json);
}
