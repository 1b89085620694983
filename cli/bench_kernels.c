/* tern bench kernels: every product beside the limit of this machine that bounds it, measured in the same run. */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_options.h"
#include "bench_tools.h"
#include "cli.h"

static const char help[] =
    "usage: tern bench kernels [OPTIONS]\n\n"
    "Measures this machine's peaks (memory read, int8 and fp32 arithmetic), then ternary products, and prints for "
    "each\n"
    "the share of the peak that bounds it. GB/s counts packed weights. Quantization of the activations is timed "
    "too.\n\n"
    "  --shape NxK,...     outputs x inputs      (2560x2560,13824x2560,2560x6912,8192x8192,6912x2560)\n"
    "  --m LIST            rows of activations   (1,2,4,8,16,32,128,512)\n"
    "  --threads LIST                            (1 and every processor)\n"
    "  --packing LIST      t2, t5                (t2,t5)\n"
    "  --acts LIST         i8, f32, bf16, f16    (i8)\n"
    "  --tier LIST         auto, scalar, avx2, avx512, amx, neon, neondot   (auto)\n"
    "  --cold MB           distinct matrices used in turn, so that no cache holds them (640)\n"
    "  --hot               one matrix, from the cache if it fits\n"
    "  --seconds S         at least, for each row (0.3)\n"
    "  --json              one object a line\n\n"
    "Example:\n  tern bench kernels --shape 6912x2560 --m 1,32,512 --threads 2\n";

enum { MIN_CALLS = 15, MAX_CALLS = 20000 };

/* Distinct copies of one matrix, used in turn. */
typedef struct matrices {
    tern_matrix **all;
    size_t count, next;
    tern_matrix_info info;
    size_t packed_bytes; /* of one, in the exchange format */
} matrices;

/* The peaks of this machine with some number of threads; 0 where there is none. */
typedef struct peaks {
    double per_second[TERN_PEAK_COUNT];
} peaks;

typedef struct bench_row {
    shape shape;
    tern_packing packing;
    tern_dtype acts;
    tern_tier tier;
    int threads;
    size_t m;
    double seconds;
    /* derived */
    double gbps, gops, peak, share;
    const char *bound;
} bench_row;

/* ---- matrices -------------------------------------------------------------------------------------------------- */

static void free_matrices(matrices *m) {
    for (size_t i = 0; i < m->count; i++) tern_matrix_free(&m->all[i]);
    free(m->all);
    *m = (matrices){0};
}

static tern_status make_one(tern_matrix **out, size_t *packed_bytes, const bench_row *row, tern_error *err) {
    const size_t n = row->shape.n, k = row->shape.k;
    const float scale = 0.02f;
    uint8_t *packed = NULL;
    tern_status status = random_packed(&packed, packed_bytes, row->packing, n, k, err);
    if (!status)
        status = tern_matrix_create(out,
                                    &(tern_matrix_desc){.rows = n,
                                                        .cols = k,
                                                        .packing = row->packing,
                                                        .packed = packed,
                                                        .packed_bytes = *packed_bytes,
                                                        .scales = &scale,
                                                        .scale_count = 1,
                                                        .tier = row->tier},
                                    err);
    free(packed);
    return status;
}

static tern_status make_matrices(matrices *m, const bench_options *o, const bench_row *row, tern_error *err) {
    *m = (matrices){0};
    tern_matrix *first = NULL;
    progress("packing %zux%zu %s ...", row->shape.n, row->shape.k, tern_packing_name(row->packing));
    tern_status status = make_one(&first, &m->packed_bytes, row, err);
    if (status) return status;
    size_t wanted = o->cold_bytes / m->packed_bytes + 1;
    m->all = calloc(wanted, sizeof *m->all);
    if (!m->all) {
        tern_matrix_free(&first);
        *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a list of matrices"};
        return TERN_E_MEMORY;
    }
    m->all[m->count++] = first;
    while (!status && m->count < wanted) {
        status = tern_matrix_clone(&m->all[m->count], first, err);
        m->count += !status;
    }
    if (!status) status = tern_matrix_describe(&m->info, first, err);
    if (status) free_matrices(m);
    return status;
}

/* ---- buffers --------------------------------------------------------------------------------------------------- */

typedef struct buffers {
    void *x, *scratch;
    float *y;
    tern_exec exec;
} buffers;

static void free_buffers(buffers *b) {
    free(b->x);
    free(b->y);
    free(b->scratch);
}

static tern_status make_buffers(buffers *b, const matrices *w, const bench_row *row, tern_error *err) {
    const size_t values = row->m * row->shape.k;
    size_t bytes = 0;
    *b = (buffers){0};
    tern_status status = tern_matmul_scratch(&bytes, w->all[0], row->m, row->acts, row->threads, err);
    if (status) return status;
    b->x = alloc_huge(values * sizeof(float));
    b->y = alloc_huge(row->m * row->shape.n * sizeof(float));
    b->scratch = alloc_huge(bytes);
    if (!b->x || !b->y || !b->scratch) {
        free_buffers(b);
        *err = (tern_error){TERN_E_MEMORY, TERN_NO_PLACE, "no memory for activations"};
        return TERN_E_MEMORY;
    }
    b->exec = (tern_exec){.threads = row->threads, .scratch = b->scratch, .scratch_bytes = bytes};
    for (size_t i = 0; i < values; i++)
        if (row->acts == TERN_BF16 || row->acts == TERN_F16)
            ((uint16_t *)b->x)[i] = (uint16_t)(0x3000 + noise() % 0xfff);
        else
            ((float *)b->x)[i] = (float)(int32_t)noise() * 0x1p-31f;
    return TERN_OK;
}

static tern_status call(const buffers *b, const tern_matrix *w, const bench_row *row, tern_error *err) {
    if (row->acts == TERN_I8) return tern_matmul_quantized(b->y, w, b->x, NULL, row->m, &b->exec, err);
    return tern_matmul_float(b->y, w, b->x, row->acts, NULL, row->m, &b->exec, err);
}

/* ---- timing ---------------------------------------------------------------------------------------------------- */

/* Median of single calls, each on the next matrix. */
static tern_status time_row(bench_row *row, matrices *w, const bench_options *o, tern_error *err) {
    buffers b;
    tern_status status = make_buffers(&b, w, row, err);
    if (status) return status;
    double *times = malloc(MAX_CALLS * sizeof *times), start = 0;
    size_t calls = 0;
    if (!times) status = TERN_E_MEMORY;
    for (int warm = 0; warm < 3 && !status; warm++) status = call(&b, w->all[w->next++ % w->count], row, err);
    for (start = now(); !status && calls < MAX_CALLS && (calls < MIN_CALLS || now() - start < o->seconds); calls++) {
        const tern_matrix *next = w->all[w->next++ % w->count];
        double before = now();
        status = call(&b, next, row, err);
        times[calls] = now() - before;
    }
    if (!status) {
        row->seconds = median(times, calls);
    }
    free(times);
    free_buffers(&b);
    return status;
}

/* ---- limits ---------------------------------------------------------------------------------------------------- */

static void measure_peaks(peaks *p, int threads) {
    for (int i = 0; i < TERN_PEAK_COUNT; i++) {
        progress("measuring the %s peak with %d thread%s ...", tern_peak_name((tern_peak)i), threads,
                 threads > 1 ? "s" : "");
        tern_measure_peak(&p->per_second[i], (tern_peak)i, threads, NULL); /* 0 where there is none */
    }
}

static tern_peak compute_peak(const bench_row *row) {
    return row->acts == TERN_I8 ? int8_peak(row->tier, row->m) : TERN_PEAK_F32;
}

static double operations(const bench_row *row) {
    return 2.0 * (double)row->shape.n * (double)row->shape.k * (double)row->m;
}

/* The limit that takes longer for this row's bytes or operations. */
static tern_peak bounding_peak(const bench_row *row, const matrices *w, const peaks *p) {
    const double read = p->per_second[TERN_PEAK_READ], compute = p->per_second[compute_peak(row)];
    const double read_floor = read > 0 ? (double)w->packed_bytes / read : 0;
    return read_floor * compute >= operations(row) ? TERN_PEAK_READ : compute_peak(row);
}

/* peak: what the bounding limit gave just before and after the row. */
static void derive(bench_row *row, const matrices *w, tern_peak bound, double peak) {
    const double work = bound == TERN_PEAK_READ ? (double)w->packed_bytes : operations(row);
    row->gbps = (double)w->packed_bytes / row->seconds * 1e-9;
    row->gops = operations(row) / row->seconds * 1e-9;
    row->bound = bound == TERN_PEAK_READ ? "memory" : "compute";
    row->peak = peak * 1e-9;
    row->share = peak > 0 ? work / peak / row->seconds : 0;
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static const char *acts_name(tern_dtype acts) {
    static const char *const names[] = {"f32", "bf16", "f16", "i8"};
    return names[acts];
}

static void print_json_row(json_t *row) {
    json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    fflush(stdout);
    json_decref(row);
}

static void print_peaks(const peaks *p, int threads, int json) {
    for (int i = 0; i < TERN_PEAK_COUNT; i++) {
        if (!(p->per_second[i] > 0)) continue;
        const char *name = tern_peak_name((tern_peak)i), *unit = i == TERN_PEAK_READ ? "GB/s" : "GOP/s";
        if (json)
            print_json_row(json_pack("{s:s, s:s, s:s, s:i, s:f, s:s}", "op", "peak", "name", name, "device", "cpu",
                                     "threads", threads, "peak", p->per_second[i] * 1e-9, "unit", unit));
        else
            printf("peak %-8s %d thread%s %10.1f %s\n", name, threads, threads > 1 ? "s" : " ",
                   p->per_second[i] * 1e-9, unit);
    }
}

static void print_header(void) {
    printf("%-4s %-4s %-7s %3s %5s %6s %6s %6s %11s %8s %9s %-8s %6s\n", "pack", "acts", "tier", "thr", "m", "n", "k",
           "cache", "us", "GB/s", "GOP/s", "bound", "share");
}

static void print_row(const bench_row *r, const matrices *w, const bench_options *o) {
    const char *cache = o->cold_bytes ? "cold" : "hot";
    if (o->json) {
        print_json_row(json_pack(
            "{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:s, s:b, s:f, s:f, s:f, s:s, s:f, s:f}", "op", "matmul",
            "weights", tern_packing_name(r->packing), "acts", acts_name(r->acts), "tier", tern_tier_name(r->tier),
            "device", "cpu", "threads", r->threads, "m", (json_int_t)r->m, "n", (json_int_t)r->shape.n, "k",
            (json_int_t)r->shape.k, "cache", cache, "huge_pages", w->info.huge_pages, "seconds", r->seconds, "gbps",
            r->gbps, "gops", r->gops, "bound", r->bound, "peak", r->peak, "share", r->share));
        return;
    }
    progress("%s", "");
    printf("%-4s %-4s %-7s %3d %5zu %6zu %6zu %6s %11.1f %8.2f %9.1f %-8s %5.1f%%\n", tern_packing_name(r->packing),
           acts_name(r->acts), tern_tier_name(r->tier), r->threads, r->m, r->shape.n, r->shape.k, cache,
           r->seconds * 1e6, r->gbps, r->gops, r->bound, 100 * r->share);
    fflush(stdout);
}

/* ---- the runs -------------------------------------------------------------------------------------------------- */

/* A shared machine drifts: the limit that bounds a row is measured again before and after it. */
static tern_status run_row(bench_row *row, matrices *w, const peaks *p, const bench_options *o, tern_error *err) {
    const tern_peak bound = bounding_peak(row, w, p);
    double before = 0, after = 0;
    tern_measure_peak(&before, bound, row->threads, NULL);
    tern_status status = time_row(row, w, o, err);
    tern_measure_peak(&after, bound, row->threads, NULL);
    derive(row, w, bound, (before + after) / 2);
    return status;
}

/* All rows of one matrix: threads, activations, row counts. */
static tern_status run_matrix(matrices *w, bench_row row, const peaks *p, const bench_options *o, tern_error *err) {
    tern_status status = TERN_OK;
    row.tier = w->info.tier;
    for (size_t t = 0; t < o->n_threads; t++)
        for (size_t a = 0; a < o->n_acts; a++)
            for (size_t i = 0; i < o->n_m && !status; i++) {
                row.threads = o->threads[t];
                row.acts = o->acts[a];
                row.m = o->m[i];
                progress("timing m = %zu with %d threads ...", row.m, row.threads);
                status = run_row(&row, w, &p[t], o, err);
                if (!status) print_row(&row, w, o);
            }
    return status;
}

static tern_status run_shape(shape s, const bench_options *o, tern_error *err) {
    peaks p[MAX_LIST];
    tern_status status = TERN_OK;
    for (size_t t = 0; t < o->n_threads; t++) {
        measure_peaks(&p[t], o->threads[t]);
        progress("%s", "");
        print_peaks(&p[t], o->threads[t], o->json);
    }
    if (!o->json) print_header();
    for (size_t tier = 0; tier < o->n_tiers; tier++)
        for (size_t i = 0; i < o->n_packings && !status; i++) {
            bench_row row = {.shape = s, .packing = o->packings[i], .tier = o->tiers[tier]};
            matrices w;
            status = make_matrices(&w, o, &row, err);
            if (status) break;
            status = run_matrix(&w, row, p, o, err);
            free_matrices(&w);
        }
    return status;
}

int bench_kernels(int argc, char **argv) {
    bench_options o;
    int stop, code = parse_bench_options(&o, &stop, argc, argv, help, 1);
    if (stop) return code;
    tern_error err = {0};
    for (size_t i = 0; i < o.n_shapes; i++) {
        if (i && !o.json) putchar('\n');
        if (run_shape(o.shapes[i], &o, &err)) {
            progress("%s", "");
            return failed(&err);
        }
    }
    progress("%s", "");
    return EXIT_DONE;
}
