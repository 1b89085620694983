/* include/tern/machine.h */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "kern/peaks.h"
#include "tern/machine.h"

int tern_processors(void) { return omp_get_num_procs(); }

const char *tern_huge_pages(void) {
    static const char *const modes[] = {"always", "madvise", "never"};
    char line[64] = "", wanted[16];
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (f) {
        if (!fgets(line, sizeof line, f)) *line = 0;
        fclose(f);
    }
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        snprintf(wanted, sizeof wanted, "[%s]", modes[i]);
        if (strstr(line, wanted)) return modes[i];
    }
    return "unknown";
}

const char *tern_peak_name(tern_peak peak) {
    static const char *const names[TERN_PEAK_COUNT] = {"read", "avx2-i8", "vnni-i8", "amx-i8", "f32", "neon-i8"};
    return (unsigned)peak < TERN_PEAK_COUNT ? names[peak] : NULL;
}

enum { TIMINGS = 7 };
static const size_t read_bytes = (size_t)1 << 30;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

/* One timing: every thread does its part; the slowest counts. */
static double time_compute(tern_peak_fn fn, size_t rounds, int threads) {
    double work = 0, start = 0, seconds = 0;
#pragma omp parallel num_threads(threads) reduction(+ : work)
    {
        volatile int sink = 0;
#pragma omp barrier
#pragma omp master
        start = tern_clock();
        work = fn(rounds, &sink);
#pragma omp barrier
#pragma omp master
        seconds = tern_clock() - start;
    }
    return work / seconds;
}

static double measure_compute(tern_peak_fn fn, int threads) {
    double values[TIMINGS];
    size_t rounds = 1 << 12;
    for (double seconds = 0; seconds < 0.03; rounds *= 2) { /* the first calls also wake the threads */
        double start = tern_clock();
        time_compute(fn, rounds, threads);
        seconds = tern_clock() - start;
        if (rounds < 1 << 18) seconds = 0;
    }
    for (int i = 0; i < TIMINGS; i++) values[i] = time_compute(fn, rounds, threads);
    return median(values, TIMINGS);
}

static double time_read(tern_read_fn fn, const uint8_t *buffer, int threads) {
    const size_t part = read_bytes / (size_t)threads / 4096 * 4096;
    double start = 0, seconds = 0;
    uint64_t all = 0;
#pragma omp parallel num_threads(threads) reduction(+ : all)
    {
#pragma omp barrier
#pragma omp master
        start = tern_clock();
        all = fn(buffer + (size_t)omp_get_thread_num() * part, part);
#pragma omp barrier
#pragma omp master
        seconds = tern_clock() - start;
    }
    volatile uint64_t sink = all;
    (void)sink;
    return (double)part * threads / seconds;
}

static tern_status measure_read(double *per_second, tern_read_fn fn, int threads, tern_error *err) {
    tern_block buffer;
    if (!tern_block_alloc(&buffer, read_bytes))
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "out of memory: %zu bytes to read from", read_bytes);
    memset(buffer.data, 1, read_bytes); /* untouched pages would all be the one zero page */
    double values[TIMINGS];
    for (int i = 0; i < TIMINGS; i++) values[i] = time_read(fn, buffer.data, threads);
    *per_second = median(values, TIMINGS);
    tern_block_free(&buffer);
    return TERN_OK;
}

tern_status tern_measure_peak(double *per_second, tern_peak peak, int threads, tern_error *err) {
    TERN_CHECK_ARGUMENT(per_second, err, "per_second is NULL");
    TERN_CHECK_ARGUMENT(tern_peak_name(peak), err, "peak = %d is none", (int)peak);
    TERN_CHECK_ARGUMENT(threads >= 1 && threads <= 1024, err, "threads = %d: must be 1 to 1024", threads);
    tern_peak_kernels kernels;
    tern_peak_kernels_fill(&kernels);
    if (peak == TERN_PEAK_READ) return measure_read(per_second, kernels.read, threads, err);
    if (!kernels.compute[peak]) {
        *per_second = 0;
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "this machine has no %s instructions",
                         tern_peak_name(peak));
    }
    *per_second = measure_compute(kernels.compute[peak], threads);
    return TERN_OK;
}
