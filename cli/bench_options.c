#include "bench_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum {
    OPT_SHAPE = 256,
    OPT_M,
    OPT_THREADS,
    OPT_PACKING,
    OPT_ACTS,
    OPT_TIER,
    OPT_COLD,
    OPT_HOT,
    OPT_SECONDS,
    OPT_JSON
};

enum { PRODUCT_OPTIONS = 4 }; /* the first of these make sense for products only */

static const struct option long_options[] = {
    {"m", required_argument, NULL, OPT_M},
    {"acts", required_argument, NULL, OPT_ACTS},
    {"cold", required_argument, NULL, OPT_COLD},
    {"hot", no_argument, NULL, OPT_HOT},
    {"shape", required_argument, NULL, OPT_SHAPE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"packing", required_argument, NULL, OPT_PACKING},
    {"tier", required_argument, NULL, OPT_TIER},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* A positive number no greater than `most`; 0 where the text is not one. */
static size_t number(const char *text, size_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    return *text < '0' || *text > '9' || *end || errno || value > most ? 0 : (size_t)value;
}

static int add_shape(bench_options *o, const char *item) {
    char n[24];
    const char *x = strchr(item, 'x');
    if (!x || (size_t)(x - item) >= sizeof n) return 0;
    memcpy(n, item, (size_t)(x - item));
    n[x - item] = 0;
    shape s = {number(n, 1 << 22), number(x + 1, 1 << 22)};
    o->shapes[o->n_shapes++] = s;
    return s.n && s.k;
}

static int add_m(bench_options *o, const char *item) { return (o->m[o->n_m++] = number(item, 1 << 20)) != 0; }

static int add_threads(bench_options *o, const char *item) {
    return (o->threads[o->n_threads++] = (int)number(item, 1024)) != 0;
}

/* Index of item in names, or -1. */
static int index_in(const char *item, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (names[i] && !strcmp(item, names[i])) return i;
    return -1;
}

static int add_packing(bench_options *o, const char *item) {
    static const char *const names[] = {"t2", "t5"};
    int i = index_in(item, names, 2);
    o->packings[o->n_packings++] = (tern_packing)i;
    return i >= 0;
}

static int add_acts(bench_options *o, const char *item) {
    static const char *const names[] = {"f32", "bf16", "f16", "i8"};
    int i = index_in(item, names, 4);
    o->acts[o->n_acts++] = (tern_dtype)i;
    return i >= 0;
}

static int add_tier(bench_options *o, const char *item) {
    for (int t = 0; t < TERN_TIER_COUNT; t++) {
        if (strcmp(item, tern_tier_name((tern_tier)t))) continue;
        if (t && !tern_tier_available((tern_tier)t)) complain("--tier %s: this machine cannot run it", item);
        o->tiers[o->n_tiers++] = (tern_tier)t;
        return !t || tern_tier_available((tern_tier)t);
    }
    return 0;
}

/* Replaces a list by the comma-separated items of `text`. */
static int parse_list(bench_options *o, const char *option, const char *text, size_t *count,
                      int (*add)(bench_options *, const char *)) {
    *count = 0;
    while (*text) {
        char item[48];
        size_t length = strcspn(text, ",");
        if (!length || length >= sizeof item || *count == MAX_LIST) break;
        memcpy(item, text, length);
        item[length] = 0;
        if (!add(o, item)) break;
        text += length + (text[length] == ',');
    }
    if (!*text && *count) return 1;
    complain("--%s: '%s' is not understood; tern bench %s --help lists the values", option, text, o->name);
    return 0;
}

static void set_defaults(bench_options *o) {
    static const shape shapes[] = {{2560, 2560}, {13824, 2560}, {2560, 6912}, {8192, 8192}, {6912, 2560}};
    static const size_t rows[] = {1, 2, 4, 8, 16, 32, 128, 512};
    *o = (bench_options){.n_shapes = 5,
                         .n_m = 8,
                         .n_threads = 1,
                         .n_packings = 2,
                         .n_acts = 1,
                         .n_tiers = 1,
                         .cold_bytes = (size_t)640 << 20,
                         .seconds = 0.3};
    memcpy(o->shapes, shapes, sizeof shapes);
    memcpy(o->m, rows, sizeof rows);
    o->threads[0] = 1;
    if (tern_processors() > 1) o->threads[o->n_threads++] = tern_processors();
    o->packings[0] = TERN_PACK_T2;
    o->packings[1] = TERN_PACK_T5;
    o->acts[0] = TERN_I8;
}

static int not_positive(const char *option) {
    complain("--%s: '%s' is not a positive number", option, optarg);
    return 0;
}

static int parse_one(bench_options *o, int option) {
    switch (option) {
    case OPT_SHAPE: return parse_list(o, "shape", optarg, &o->n_shapes, add_shape);
    case OPT_M: return parse_list(o, "m", optarg, &o->n_m, add_m);
    case OPT_THREADS: return parse_list(o, "threads", optarg, &o->n_threads, add_threads);
    case OPT_PACKING: return parse_list(o, "packing", optarg, &o->n_packings, add_packing);
    case OPT_ACTS: return parse_list(o, "acts", optarg, &o->n_acts, add_acts);
    case OPT_TIER: return parse_list(o, "tier", optarg, &o->n_tiers, add_tier);
    case OPT_COLD: return (o->cold_bytes = number(optarg, 1 << 20) << 20) != 0 || not_positive("cold");
    case OPT_HOT: o->cold_bytes = 0; return 1;
    case OPT_SECONDS: return (o->seconds = strtod(optarg, NULL)) > 0 || not_positive("seconds");
    case OPT_JSON: o->json = 1; return 1;
    default: return 0;
    }
}

int parse_bench_options(bench_options *o, int *stop, int argc, char **argv, const char *help, int products) {
    const struct option *options = products ? long_options : long_options + PRODUCT_OPTIONS;
    set_defaults(o);
    o->name = argv[0];
    *stop = 1;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (!parse_one(o, option)) {
            complain("see tern bench %s --help", o->name);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        complain("'%s' is not understood; see tern bench %s --help", argv[optind], o->name);
        return EXIT_USAGE;
    }
    tern_tier tier;
    tern_error err;
    if (tern_tier_select(&tier, &err)) return failed(&err); /* what TERN_KERNEL pins, before anything is measured */
    *stop = 0;
    return EXIT_DONE;
}
