/* What tests of graphs on a GPU share: the device, a plan on it, and distances between results. */
#ifndef TERN_TESTS_ON_GPU_H
#define TERN_TESTS_ON_GPU_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/load_backend.h"
#include "cuda/pinned_kernel.h"
#include "gpu/gpu_table.h"

enum { SKIPPED = 77 };

static const tern_cuda_backend *backend;
static tern_cuda_context *context;
static size_t cases_wanted;

static inline void must(tern_status status, const tern_error *err, const char *what) {
    if (!status) return;
    printf("FAILED %s: %s\n", what, err->message);
    exit(1);
}

/* 0, or SKIPPED where there is no GPU. */
static inline int open_gpu(void) {
    tern_error err;
    tern_device_info info;
    if (tern_cuda_load(&backend, &err) || !backend->graphs || backend->describe(&info, 0, &err)) {
        printf("skipped: %s\n", backend && !backend->graphs ? "built without networks" : err.message);
        return SKIPPED;
    }
    must(backend->open(&context, 0, 0, &err), &err, "opening GPU 0");
    printf("%s, compute capability %d.%d\n", info.name, info.major, info.minor);
    return 0;
}

/* Case number `index`, by the test's argument: a part of its name, or I/N for the I-th of every N; NULL: all. */
static inline int is_wanted(const char *argument, const char *name, size_t index) {
    size_t part, parts;
    char rest;
    int wanted = !argument;
    if (!wanted && sscanf(argument, "%zu/%zu%c", &part, &parts, &rest) == 2 && part && part <= parts)
        wanted = index % parts == part - 1;
    else if (!wanted)
        wanted = strstr(name, argument) != NULL;
    cases_wanted += (size_t)wanted;
    return wanted;
}

/* What main returns: an argument that fits no case has tested nothing. */
static inline int conclude(const char *argument, int failures) {
    if (!cases_wanted) printf("FAILED: there is no case %s\n", argument);
    printf("%d failed\n", failures);
    return failures != 0 || !cases_wanted;
}

static inline const char *name_of(tern_dtype type) {
    return type == TERN_F32 ? "fp32" : type == TERN_BF16 ? "bf16" : "fp16";
}

/* Whatever `d` says, with a layout for it, and operands of the values' type. TERN_KERNEL pins what `d` leaves open. */
static inline tern_status create_as(tern_gpu_plan **plan, tern_gpu_plan_desc d, tern_error *err) {
    tern_layout layout;
    tern_status status = d.pinned ? TERN_OK : tern_pinned_device_kernel(&d.pinned, err);
    if (status) return status;
    status = tern_layout_make(&layout, d.graph, d.batch_max, d.values == TERN_F32 ? 4 : 2,
                              TERN_LAYOUT_FUSED | (d.training ? TERN_LAYOUT_TRAINING : 0), err);
    if (status) return status;
    d.layout = &layout;
    d.products = d.values;
    status = backend->graphs->create(plan, context, &d, err);
    tern_layout_free(&layout);
    return status;
}

static inline tern_status create_on_gpu(tern_gpu_plan **plan, const tern_graph *graph, size_t batch_max,
                                        tern_dtype type, int training, uint64_t seed, tern_error *err) {
    const tern_gpu_plan_desc d = {
        .graph = graph, .batch_max = batch_max, .training = training, .values = type, .seed = seed};
    return create_as(plan, d, err);
}

/* The difference's length over that of `want`. */
static inline double distance(const float *got, const float *want, size_t n) {
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        if (!isfinite((double)got[i])) return INFINITY;
        off += d * d;
        all += (double)want[i] * (double)want[i];
    }
    return all > 0 ? sqrt(off / all) : sqrt(off);
}

static inline float *room(size_t n) {
    float *x = malloc((n + 1) * sizeof *x);
    if (!x) exit(1);
    return x;
}

#endif
