/* tern bench tune: the fastest kernel of a GPU for each product, beside the one that the rule takes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench.h"
#include "bench_tools.h"
#include "cli.h"

static const char help[] =
    "usage: tern bench tune [--shape NxK ...] [--rows M ...] [--packing t2|t5|both] [--acts TYPE] [--device cuda:N]\n"
    "                       [--json]\n\n"
    "Measures every kernel and launch shape of the GPU that can run a product, on weights that its caches do not\n"
    "hold, and keeps the fastest in a file of the user's cache folder: TERN_CACHE, else $XDG_CACHE_HOME/tern, else\n"
    "~/.cache/tern; TERN_CACHE=off keeps nothing. Programs that open this kind of GPU from then on go by it, for up\n"
    "to M rows and more than half as many; TERN_KERNEL still pins a kernel. Nothing else should run on the GPU.\n\n"
    "  --shape NxK      outputs x inputs; may be repeated (2560x2560, 3840x2560, 2560x6912, 13824x2560, 8192x8192,\n"
    "                   5120x27648, 55296x5120, 28672x8192)\n"
    "  --rows M         rows of activations; may be repeated (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048)\n"
    "  --packing P      t2, t5 or both (both)\n"
    "  --acts TYPE      i8, f16, bf16, f32 (i8)\n"
    "  --device D       cuda or cuda:N (TERN_DEVICE, else the first GPU)\n"
    "  --json           one object a line\n\n"
    "Example:\n  tern bench tune --shape 6912x2560 --rows 1 --rows 32\n";

enum { DEFAULT_SHAPES = 8, DEFAULT_ROWS = 10 };

typedef struct tune_shape {
    size_t n, k; /* outputs, inputs */
} tune_shape;

typedef struct tune_options {
    tune_shape shapes[MAX_VALUES];
    size_t rows[MAX_VALUES], shape_count, row_count;
    int packed[TERN_PACK_COUNT]; /* nonzero: this packing */
    tern_dtype acts;
    int json;
} tune_options;

static const char *const type_names[] = {"f32", "bf16", "f16", "i8"}; /* by tern_dtype */

/* ---- output ---------------------------------------------------------------------------------------------------- */

static void print_json(json_t *row) {
    json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(row);
}

static void print_header(const char *device) {
    printf("%s\n%-4s %-4s %6s %6s %5s  %-14s %9s  %-14s %9s %7s\n", device, "pack", "acts", "n", "k", "m", "by rule",
           "us", "chosen", "us", "gain");
}

/* How much less time the choice takes than the rule's. */
static double gain_of(const tern_device_tuned *t) { return 1 - t->chosen.seconds / t->by_rule.seconds; }

static void print_row(const tern_device_tuned *t, tune_shape s, tern_packing packing, tern_dtype acts,
                      const char *device, int json) {
    const tern_device_choice *rule = &t->by_rule, *best = &t->chosen;
    if (json) {
        print_json(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:i, s:f, s:s, s:i, s:f, s:f, s:i, s:b}",
                             "op", "tune", "weights", tern_packing_name(packing), "acts", type_names[acts], "device",
                             device, "m", (json_int_t)t->m, "m_most", (json_int_t)t->m_most, "n", (json_int_t)s.n,
                             "k", (json_int_t)s.k, "rule_tier", tern_device_kernel_name(rule->kernel), "rule_variant",
                             rule->variant, "rule_seconds", rule->seconds, "tier",
                             tern_device_kernel_name(best->kernel), "variant", best->variant, "seconds",
                             best->seconds, "gain", gain_of(t), "tried", t->tried, "cold", t->cold));
    } else {
        progress("%s", "");
        printf("%-4s %-4s %6zu %6zu %5zu  %-11s %2d %9.2f  %-11s %2d %9.2f %6.1f%%%s\n", tern_packing_name(packing),
               type_names[acts], s.n, s.k, t->m, tern_device_kernel_name(rule->kernel), rule->variant,
               rule->seconds * 1e6, tern_device_kernel_name(best->kernel), best->variant, best->seconds * 1e6,
               100 * gain_of(t), t->cold ? "" : "  weights from the cache");
    }
    fflush(stdout);
}

static tern_status print_file(const tern_device *device, int json, tern_error *err) {
    tern_device_tuning_info info;
    const tern_status status = tern_device_tuning_describe(&info, device, err);
    if (status) return status;
    if (json)
        print_json(json_pack("{s:s, s:s, s:I, s:s}", "op", "tuning", "path", info.path, "choices",
                             (json_int_t)info.choices, "note", info.note));
    else if (!info.note[0])
        printf("kept in %s: %zu choices\n", info.path, info.choices);
    else
        printf("not kept: %s\n", info.note);
    return TERN_OK;
}

/* ---- the runs -------------------------------------------------------------------------------------------------- */

static tern_status make_matrix(tern_device_matrix **out, tern_device *device, tune_shape s, tern_packing packing,
                               tern_error *err) {
    const float scale = 0.02f;
    uint8_t *packed = NULL;
    tern_matrix_desc desc = {.rows = s.n, .cols = s.k, .packing = packing, .scales = &scale, .scale_count = 1};
    progress("packing %zux%zu %s ...", s.n, s.k, tern_packing_name(packing));
    tern_status status = random_packed(&packed, &desc.packed_bytes, packing, s.n, s.k, err);
    desc.packed = packed;
    if (!status) status = tern_device_matrix_create(out, device, &desc, err);
    free(packed);
    return status;
}

static tern_status tune_matrix(tern_device *device, tune_shape s, tern_packing packing, const tune_options *o,
                               const char *name, tern_error *err) {
    tern_device_matrix *w = NULL;
    tern_status status = make_matrix(&w, device, s, packing, err);
    for (size_t i = 0; i < o->row_count && !status; i++) {
        tern_device_tuned tuned;
        progress("%zux%zu %s, m = %zu ...", s.n, s.k, tern_packing_name(packing), o->rows[i]);
        status = tern_device_tune(&tuned, w, o->acts, o->rows[i], err);
        if (!status) print_row(&tuned, s, packing, o->acts, name, o->json);
    }
    tern_device_matrix_free(&w);
    return status;
}

static tern_status tune_all(tern_device *device, const tune_options *o, const char *name, tern_error *err) {
    tern_status status = TERN_OK;
    if (!o->json) print_header(name);
    for (size_t i = 0; i < o->shape_count; i++)
        for (int p = 0; p < TERN_PACK_COUNT && !status; p++)
            if (o->packed[p]) status = tune_matrix(device, o->shapes[i], (tern_packing)p, o, name, err);
    progress("%s", "");
    return status ? status : print_file(device, o->json, err);
}

/* A table that was there and could not be used is worth a line before it is written anew. */
static void print_note(const tern_device *device, int json) {
    tern_device_tuning_info info;
    if (json || tern_device_tuning_describe(&info, device, NULL)) return;
    if (info.path[0] && info.note[0]) complain("%s", info.note);
}

/* The GPU that is asked for; a machine without one says why. */
static tern_status open_device(tern_device **device, tern_device_info *info, tern_error *err) {
    tern_device_options options = {0};
    int count;
    tern_status status = tern_device_select(&options.device, err);
    if (!status && options.device == TERN_DEVICE_CPU && !(status = tern_device_count(&count, err))) {
        status = TERN_E_ARGUMENT;
        *err = (tern_error){status, TERN_NO_PLACE, "TERN_DEVICE=cpu: tern bench tune is about GPUs"};
    }
    if (!status) status = tern_device_describe(info, options.device, err);
    if (!status) status = tern_device_open(device, &options, err);
    return status;
}

/* ---- options --------------------------------------------------------------------------------------------------- */

/* A positive number at the start of text; *end is behind it. */
static size_t leading_number(const char *text, char **end, size_t most) {
    const unsigned long long value = strtoull(text, end, 10);
    return *text < '0' || *text > '9' || value > most ? 0 : (size_t)value;
}

static int parse_shapes(tune_options *o, const char *const *texts, size_t count) {
    if (count) o->shape_count = count;
    for (size_t i = 0; i < count; i++) {
        char *x, *end = "x";
        tune_shape *s = &o->shapes[i];
        s->n = leading_number(texts[i], &x, 1 << 22);
        s->k = s->n && *x == 'x' ? leading_number(x + 1, &end, 1 << 22) : 0;
        if (s->k && !*end) continue;
        complain("--shape takes NxK, not '%s'", texts[i]);
        return 0;
    }
    return 1;
}

static int parse_rows(tune_options *o, const char *const *texts, size_t count) {
    if (count) o->row_count = count;
    for (size_t i = 0; i < count; i++) {
        char *end;
        o->rows[i] = leading_number(texts[i], &end, 1 << 20);
        if (o->rows[i] && !*end) continue;
        complain("--rows takes a positive number, not '%s'", texts[i]);
        return 0;
    }
    return 1;
}

static int parse_packing(tune_options *o, const char *text) {
    const int both = !strcmp(text, "both");
    o->packed[TERN_PACK_T2] = both || !strcmp(text, "t2");
    o->packed[TERN_PACK_T5] = both || !strcmp(text, "t5");
    if (o->packed[TERN_PACK_T2] || o->packed[TERN_PACK_T5]) return 1;
    complain("--packing takes t2, t5 or both, not '%s'", text);
    return 0;
}

static int parse_acts(tune_options *o, const char *text) {
    for (int t = TERN_F32; t <= TERN_I8; t++)
        if (!strcmp(text, type_names[t])) {
            o->acts = (tern_dtype)t;
            return 1;
        }
    complain("--acts takes i8, f16, bf16 or f32, not '%s'", text);
    return 0;
}

/* An exit code, or -1 to go on. */
static int parse_options(tune_options *o, int argc, char **argv) {
    const char *shapes[MAX_VALUES], *rows[MAX_VALUES], *packing = "both", *acts = "i8", *device = NULL;
    size_t shape_count = 0, row_count = 0;
    const option options[] = {{.name = "--shape", .values = shapes, .value_count = &shape_count},
                              {.name = "--rows", .values = rows, .value_count = &row_count},
                              {.name = "--packing", .value = &packing},
                              {.name = "--acts", .value = &acts},
                              {.name = "--device", .value = &device},
                              {.name = "--json", .flag = &o->json}};
    args a = {.options = options, .option_count = sizeof options / sizeof *options, .command = "tern bench tune"};
    if (asks_for_help(argc, argv)) {
        fputs(help, stdout);
        return EXIT_DONE;
    }
    const int code = parse_args(&a, argc, argv);
    if (code || !parse_shapes(o, shapes, shape_count) || !parse_rows(o, rows, row_count) ||
        !parse_packing(o, packing) || !parse_acts(o, acts))
        return EXIT_USAGE;
    if (device && !strcmp(device, "cpu")) {
        complain("--device cpu: tern bench tune is about GPUs");
        return EXIT_USAGE;
    }
    if (device) setenv("TERN_DEVICE", device, 1);
    return -1;
}

int bench_tune(int argc, char **argv) {
    tune_options o = {.shapes = {{2560, 2560},
                                 {3840, 2560},
                                 {2560, 6912},
                                 {13824, 2560},
                                 {8192, 8192},
                                 {5120, 27648},
                                 {55296, 5120},
                                 {28672, 8192}},
                      .rows = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048},
                      .shape_count = DEFAULT_SHAPES,
                      .row_count = DEFAULT_ROWS};
    const int code = parse_options(&o, argc, argv);
    if (code >= 0) return code;
    tern_device *device = NULL;
    tern_device_info info;
    tern_error err = {0};
    if (open_device(&device, &info, &err)) return failed(&err);
    print_note(device, o.json);
    const tern_status status = tune_all(device, &o, info.name, &err);
    tern_device_close(&device);
    return status ? failed(&err) : EXIT_DONE;
}
