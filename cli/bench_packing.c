/* tern bench packing: what a training step does with the weights of one layer. They are quantized, and the matrices
 * of the forward and of the transposed product get the trits. The limit is reading the weights twice, once for their
 * mean and once for their trits. */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "bench_options.h"
#include "bench_tools.h"
#include "cli.h"

static const char help[] =
    "usage: tern bench packing [OPTIONS]\n\n"
    "Times what a training step does with a layer's weights: quantize (absmean, one scale), pack, pack transposed.\n"
    "share: of a step that only reads the fp32 weights twice, at the speed measured here.\n\n"
    "  --shape NxK,...     outputs x inputs      (2560x2560,13824x2560,2560x6912,8192x8192,6912x2560)\n"
    "  --threads LIST                            (1 and every processor)\n"
    "  --packing LIST      t2, t5                (t2,t5)\n"
    "  --tier LIST         auto, scalar, avx2, avx512, amx, neon, neondot   (auto)\n"
    "  --seconds S         at least, for each row (0.3)\n"
    "  --json              one object a line\n\n"
    "Example:\n  tern bench packing --shape 2560x2560 --threads 1\n";

enum { QUANTIZE, PACK, PACK_TRANSPOSED, STEP, PARTS, MIN_STEPS = 9, MAX_STEPS = 2000 };

typedef struct layer {
    shape s;
    float *w, scale;
    int8_t *trits;
    tern_matrix *forward, *transposed;
} layer;

static void free_layer(layer *l) {
    tern_matrix_free(&l->forward);
    tern_matrix_free(&l->transposed);
    free(l->trits);
    free(l->w);
}

static tern_status make_matrices(layer *l, tern_packing packing, tern_error *err) {
    tern_matrix_desc desc = {
        .rows = l->s.n, .cols = l->s.k, .packing = packing, .scales = &l->scale, .scale_count = 1};
    tern_status status = tern_packed_bytes(&desc.packed_bytes, packing, desc.rows, desc.cols, err);
    uint8_t *packed = status ? NULL : malloc(desc.packed_bytes);
    if (!status && !packed) status = TERN_E_MEMORY;
    if (!status) status = tern_pack(packed, desc.packed_bytes, packing, l->trits, desc.rows, desc.cols, err);
    desc.packed = packed;
    if (!status) status = tern_matrix_create(&l->forward, &desc, err);
    desc.transposed = 1;
    if (!status) status = tern_matrix_create(&l->transposed, &desc, err);
    free(packed);
    return status;
}

static tern_status make_layer(layer *l, shape s, tern_packing packing, tern_error *err) {
    const size_t count = s.n * s.k;
    *l = (layer){.s = s, .scale = 1, .w = alloc_huge(count * sizeof(float)), .trits = alloc_huge(count)};
    *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the weights of a layer"};
    tern_status status = l->w && l->trits ? TERN_OK : TERN_E_MEMORY;
    for (size_t i = 0; !status && i < count; i++) {
        l->w[i] = (float)(int32_t)noise() * 0x1p-31f;
        l->trits[i] = 0;
    }
    if (!status) status = make_matrices(l, packing, err);
    if (status) free_layer(l);
    return status;
}

static tern_status step(layer *l, int threads, double part[PARTS], tern_error *err) {
    double at[4] = {now()};
    tern_status status =
        tern_quantize_weights(l->trits, &l->scale, l->w, l->s.n, l->s.k, TERN_MEAN, TERN_PER_TENSOR, threads, err);
    at[1] = now();
    if (!status) status = tern_matrix_set_trits(l->forward, l->trits, &l->scale, NULL, threads, err);
    at[2] = now();
    if (!status) status = tern_matrix_set_trits(l->transposed, l->trits, &l->scale, NULL, threads, err);
    at[3] = now();
    for (int i = 0; i < 3; i++) part[i] = at[i + 1] - at[i];
    part[STEP] = at[3] - at[0];
    return status;
}

/* Medians. */
static tern_status time_steps(double part[PARTS], layer *l, int threads, double seconds, tern_error *err) {
    static double times[PARTS][MAX_STEPS];
    size_t n = 0;
    tern_status status = step(l, threads, part, err);
    for (double start = now(); !status && n < MAX_STEPS && (n < MIN_STEPS || now() - start < seconds); n++) {
        status = step(l, threads, part, err);
        for (int i = 0; i < PARTS; i++) times[i][n] = part[i];
    }
    for (int i = 0; i < PARTS && !status; i++) part[i] = median(times[i], n);
    return status;
}

static void print_row(shape s, tern_packing packing, tern_tier tier, int threads, const double part[PARTS],
                      double share, int json) {
    if (json) {
        json_t *row =
            json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "op", "packing", "weights",
                      tern_packing_name(packing), "tier", tern_tier_name(tier), "device", "cpu", "threads", threads,
                      "n", (json_int_t)s.n, "k", (json_int_t)s.k, "quantize", part[QUANTIZE], "pack", part[PACK],
                      "pack_transposed", part[PACK_TRANSPOSED], "seconds", part[STEP], "share", share);
        json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(row);
    } else {
        printf("%-4s %-7s %3d %6zu %6zu %9.2f %9.2f %9.2f %9.2f %6.1f%%\n", tern_packing_name(packing),
               tern_tier_name(tier), threads, s.n, s.k, 1e3 * part[QUANTIZE], 1e3 * part[PACK],
               1e3 * part[PACK_TRANSPOSED], 1e3 * part[STEP], 100 * share);
    }
    fflush(stdout);
}

static tern_status run_layer(shape s, tern_packing packing, tern_tier tier, const bench_options *o, tern_error *err) {
    layer l;
    progress("%zux%zu %s ...", s.n, s.k, tern_packing_name(packing));
    tern_status status = make_layer(&l, s, packing, err);
    if (status) return status;
    for (size_t t = 0; t < o->n_threads && !status; t++) {
        double part[PARTS], read = 0;
        status = time_steps(part, &l, o->threads[t], o->seconds, err);
        tern_measure_peak(&read, TERN_PEAK_READ, o->threads[t], NULL);
        double limit = read > 0 ? 2.0 * (double)s.n * (double)s.k * sizeof(float) / read : 0;
        progress("%s", "");
        if (!status) print_row(s, packing, tier, o->threads[t], part, limit / part[STEP], o->json);
    }
    free_layer(&l);
    return status;
}

/* The quantizer goes by TERN_KERNEL, and so does a matrix that pins no tier. */
static tern_status run_tier(tern_tier tier, const bench_options *o, tern_error *err) {
    if (tier != TERN_TIER_AUTO) setenv("TERN_KERNEL", tern_tier_name(tier), 1);
    tern_status status = tern_tier_select(&tier, err);
    for (size_t s = 0; s < o->n_shapes; s++)
        for (size_t p = 0; p < o->n_packings && !status; p++)
            status = run_layer(o->shapes[s], o->packings[p], tier, o, err);
    return status;
}

int bench_packing(int argc, char **argv) {
    bench_options o;
    int stop, code = parse_bench_options(&o, &stop, argc, argv, help, 0);
    if (stop) return code;
    tern_error err = {0};
    if (!o.json)
        printf("%-4s %-7s %3s %6s %6s %9s %9s %9s %9s %7s\n", "pack", "tier", "thr", "n", "k", "quant ms", "pack ms",
               "packT ms", "step ms", "share");
    for (size_t t = 0; t < o.n_tiers; t++)
        if (run_tier(o.tiers[t], &o, &err)) {
            progress("%s", "");
            return failed(&err);
        }
    return EXIT_DONE;
}
