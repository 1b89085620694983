#include "bench_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_tools.h"
#include "cli.h"
#include "model_tools.h"

enum { MAX_ROUNDS = 4000, MIN_ROUNDS = 11 };

const variants on_cpu = {
    3, {{"fp32", FLOAT, TERN_F32, 0}, {"training layer", TRAINING, TERN_F32, 0}, {"packed", PACKED, TERN_F32, 0}}};
const variants on_gpu = {5,
                         {{"fp32", FLOAT, TERN_F32, 0},
                          {"bf16", FLOAT, TERN_BF16, 0},
                          {"training layer", TRAINING, TERN_BF16, 1},
                          {"packed", PACKED, TERN_F32, 0},
                          {"packed, bf16", PACKED, TERN_BF16, 0}}};

/* ---- the machine */

static int packing_of(tern_packing *packing, const char *name) {
    *packing = strcmp(name, "t5") ? TERN_PACK_T2 : TERN_PACK_T5;
    if (!strcmp(name, "t2") || !strcmp(name, "t5")) return 1;
    complain("--pack takes t2 or t5, not '%s'", name);
    return 0;
}

static int is_gpu(const bench_setup *s) { return s->limits.device != TERN_DEVICE_CPU; }

int set_up_bench(bench_setup *s, const bench_asked *o) {
    tern_error err;
    *s = (bench_setup){.seconds = o->seconds, .cold = o->cold, .json = o->json};
    if (!packing_of(&s->packing, o->pack)) return EXIT_USAGE;
    tern_status status = find_device(&s->limits.device, o->device, &err);
    if (!status) status = tern_tier_select(&s->tier, &err);
    if (!status && is_gpu(s)) status = tern_device_describe(&s->gpu, s->limits.device, &err);
    if (status) return failed(&err);
    if (o->cold && !is_gpu(s)) {
        complain("--cold is for GPUs; tern bench kernels has cold weights on the CPU");
        return EXIT_USAGE;
    }
    s->variants = is_gpu(s) ? &on_gpu : &on_cpu;
    s->limits.threads = o->threads ? (int)o->threads : tern_processors();
    return EXIT_DONE;
}

tern_model_options variant_options(const bench_setup *s, size_t v, size_t m) {
    const variant *of = &s->variants->at[v];
    return (tern_model_options){.batch = m,
                                .threads = s->limits.threads,
                                .device = device_name(s->limits.device),
                                .values = of->values,
                                .training = of->training};
}

tern_status pack_model(tern_model **out, const tern_model *from, const tern_model_options *o, tern_packing packing,
                       tern_error *err) {
    char path[] = "/tmp/tern-bench-XXXXXX";
    int file = mkstemp(path);
    if (file < 0) {
        snprintf(err->message, sizeof err->message, "%s cannot be made", path);
        return err->status = TERN_E_FILE;
    }
    close(file);
    const tern_export_options e = {.packing = packing};
    tern_status status = tern_model_export(from, path, &e, err);
    if (!status) status = tern_model_open(out, path, o, err);
    unlink(path);
    return status;
}

/* ---- measuring */

static void measure_sizes(bench_case *c, size_t v, const variant *of, const tern_model_info *info) {
    const size_t floats = of->values == TERN_BF16 && of->source == FLOAT ? info->float_bytes / 2 : info->float_bytes;
    /* The training layer keeps fp32 latents and packs beside them. */
    c->weight_bytes[v] = of->source == PACKED     ? info->packed_bytes
                         : of->source == TRAINING ? floats + info->ternary_packed_bytes
                                                  : floats;
    c->read_bytes[v] = c->weight_bytes[v] - (of->source == TRAINING ? info->ternary_float_bytes : 0);
    c->peak_bytes[v] = info->device_bytes ? info->device_bytes : c->weight_bytes[v] + info->activation_bytes;
    c->workspace_bytes[v] = info->device_workspace_bytes;
}

static tern_status measure_variants(bench_case *c, const bench_setup *s, tern_error *err) {
    for (size_t v = 0; v < s->variants->count; v++) {
        const variant *of = &s->variants->at[v];
        const arithmetic by = {is_gpu(s), of->values, s->tier};
        tern_model_info info;
        tern_status status = tern_model_describe(&info, c->model[v], err);
        if (!status) status = count_workload(&c->work[v], c->model[v], c->m, &by, err);
        if (status) return status;
        measure_sizes(c, v, of, &info);
    }
    return TERN_OK;
}

/* One pass on the CPU, the median of many on a GPU. */
static tern_status time_once(double *seconds, const bench_case *c, size_t v, const bench_setup *s, float *y,
                             const void *x, tern_error *err) {
    if (is_gpu(s))
        return tern_model_time(seconds, c->model[v], x, c->m, s->seconds / MIN_ROUNDS / MAX_VARIANTS, s->cold, err);
    const double begin = now();
    const tern_status status = tern_model_run(y, c->model[v], x, c->m, err);
    *seconds = now() - begin;
    return status;
}

static tern_status time_case(bench_case *c, const bench_setup *s, tern_error *err) {
    static double times[MAX_VARIANTS][MAX_ROUNDS];
    void *x = NULL;
    float *y = malloc(tern_model_outputs(c->model[0]) * c->m * sizeof *y);
    tern_status status = y ? make_input(&x, c->model[0], c->m, err) : TERN_E_MEMORY;
    if (!y) *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the output of a benchmark"};
    if (!status) status = measure_variants(c, s, err);
    size_t rounds = 0;
    double start = now();
    for (; !status && rounds < MAX_ROUNDS && (rounds < MIN_ROUNDS || now() - start < s->seconds); rounds++)
        for (size_t v = 0; !status && v < s->variants->count; v++)
            status = time_once(&times[v][rounds], c, v, s, y, x, err);
    for (size_t v = 0; !status && v < s->variants->count; v++) c->seconds[v] = median(times[v], rounds);
    free(y);
    free(x);
    return status;
}

/* ---- printing */

void print_bench_header(const bench_setup *s) {
    if (s->json) return;
    if (is_gpu(s))
        printf("%s, %s, driver for CUDA %d.%d%s\n", device_name(s->limits.device), s->gpu.name,
               s->gpu.driver_version / 1000, s->gpu.driver_version % 1000 / 10, s->cold ? ", cold weights" : "");
    printf("%-28s %-15s %12s %7s %12s %12s %9s %9s\n", "layer or model", "variant", "weights", "ratio", "peak memory",
           "latency", "faster", "of limit");
}

static const char *weights_name(const bench_setup *s, const variant *of) {
    if (of->source == FLOAT) return of->values == TERN_BF16 ? "bf16" : "f32";
    return tern_packing_name(of->source == PACKED ? s->packing : TERN_PACK_T2);
}

static const char *tier_name(const bench_setup *s, const variant *of) {
    if (is_gpu(s)) return of->source == FLOAT ? "cublaslt" : "cuda";
    return of->source == FLOAT ? "onednn" : tern_tier_name(s->tier);
}

static json_t *row_json(const bench_case *c, size_t v, const bench_setup *s) {
    const variant *of = &s->variants->at[v];
    json_t *row = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:f}",
        "op", c->op, "name", c->name, "variant", of->name, "weights", weights_name(s, of), "acts",
        c->work[v].int8           ? "i8"
        : of->values == TERN_BF16 ? "bf16"
                                  : "f32",
        "tier", tier_name(s, of), "device", is_gpu(s) ? device_name(s->limits.device) : "cpu", "threads",
        s->limits.threads, "m", (json_int_t)c->m, "n", (json_int_t)c->n, "k", (json_int_t)c->k, "bytes_weights",
        (json_int_t)c->weight_bytes[v], "bytes_peak", (json_int_t)c->peak_bytes[v], "seconds", c->seconds[v], "gbps",
        (double)c->read_bytes[v] / c->seconds[v] * 1e-9, "gops", c->work[v].all / c->seconds[v] * 1e-9, "bound",
        c->limit[v].bound, "peak", c->limit[v].peak * 1e-9, "share", c->limit[v].seconds / c->seconds[v], "smaller",
        (double)c->weight_bytes[0] / (double)c->weight_bytes[v], "faster", c->seconds[0] / c->seconds[v]);
    if (row && is_gpu(s)) {
        json_object_set_new(row, "values", json_string(of->values == TERN_BF16 ? "bf16" : "f32"));
        json_object_set_new(row, "bytes_workspace", json_integer((json_int_t)c->workspace_bytes[v]));
        json_object_set_new(row, "cold", json_boolean(s->cold));
        json_object_set_new(row, "gpu", json_string(s->gpu.name));
        json_object_set_new(row, "driver", json_integer(s->gpu.driver_version));
        json_object_set_new(row, "runtime", json_integer(s->gpu.runtime_version));
    }
    return row;
}

static void print_case(const bench_case *c, const bench_setup *s) {
    for (size_t v = 0; v < s->variants->count; v++)
        if (s->json)
            print_json_line(row_json(c, v, s));
        else
            printf("%-28s %-15s %12s %6.1fx %12s %9.1f us %8.2fx %7.1f %%\n", c->name, s->variants->at[v].name,
                   bytes_text(c->weight_bytes[v]), (double)c->weight_bytes[0] / (double)c->weight_bytes[v],
                   bytes_text(c->peak_bytes[v]), 1e6 * c->seconds[v], c->seconds[0] / c->seconds[v],
                   100 * c->limit[v].seconds / c->seconds[v]);
    fflush(stdout);
}

tern_status run_bench_case(bench_case *c, tern_status made, bench_setup *s, tern_error *err) {
    tern_status status = made ? made : time_case(c, s, err);
    s->limits.per_second[TERN_PEAK_READ] = 0; /* neighbours move it: measured anew for each case */
    for (size_t v = 0; !status && v < s->variants->count; v++)
        c->limit[v] = find_limit(&s->limits, &c->work[v], c->read_bytes[v], c->seconds[v]);
    if (!status) print_case(c, s);
    for (size_t v = 0; v < MAX_VARIANTS; v++) tern_model_close(&c->model[v]);
    return status;
}
