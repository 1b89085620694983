#include "cpu/quantize_weights.h"

#include <math.h>

#include "base/checked.h"
#include "cpu/threads.h"

static size_t block_length(size_t n, size_t block) {
    return tern_min_size(TERN_SUM_BLOCK, n - block * TERN_SUM_BLOCK);
}

/* Threads fill an array with the sums of blocks, one thread adds them up: the order is the same for any number. */
static double sum_slice(const tern_kernels *kernels, const float *w, size_t n, int threads) {
    enum { ROUND = 256 };
    const size_t blocks = tern_ceil_div(n, TERN_SUM_BLOCK);
    double sums[ROUND], total = 0;
    for (size_t first = 0; first < blocks; first += ROUND) {
        const size_t end = tern_min_size(first + ROUND, blocks);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t b = first; b < end; b++)
            sums[b - first] = kernels->sum_magnitudes.fn(w + b * TERN_SUM_BLOCK, block_length(n, b));
        for (size_t b = first; b < end; b++) total += sums[b - first];
    }
    return total;
}

/* The same without a team, for threads that each have a slice of their own. */
static double sum_own_slice(const tern_kernels *kernels, const float *w, size_t n) {
    double total = 0;
    for (size_t b = 0; b < tern_ceil_div(n, TERN_SUM_BLOCK); b++)
        total += kernels->sum_magnitudes.fn(w + b * TERN_SUM_BLOCK, block_length(n, b));
    return total;
}

static float scale_of(const tern_weights *t, const float *slice, double sum) {
    const size_t n = t->slices.length;
    if (t->center == TERN_MEDIAN) return tern_absmean_scale(tern_median_magnitude(slice, n));
    return tern_absmean_scale(n ? sum / (double)n : 0);
}

static void quantize_one_slice(const tern_kernels *kernels, const tern_weights *t, double sum, int threads) {
    const size_t n = t->slices.length;
    const float m = t->scales[0] = scale_of(t, t->w, sum);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t b = 0; b < tern_ceil_div(n, TERN_SUM_BLOCK); b++)
        kernels->ternarize.fn(t->trits + b * TERN_SUM_BLOCK, t->w + b * TERN_SUM_BLOCK, block_length(n, b), m);
}

static void quantize_slices(const tern_kernels *kernels, const tern_weights *t, int threads) {
    const size_t n = t->slices.length;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < t->slices.n; i++) {
        const float *slice = t->w + i * n;
        t->scales[i] = scale_of(t, slice, sum_own_slice(kernels, slice, n));
        kernels->ternarize.fn(t->trits + i * n, slice, n, t->scales[i]);
    }
}

/* The sum over everything is also the test of everything: it is finite where every weight is. Slices are summed a
 * second time, from the cache, on the way to their trits; that costs less than a second pass over memory. */
int tern_cpu_quantize_absmean(const tern_kernels *kernels, const tern_weights *t, int threads) {
    const double in_a_wake = 5e4; /* weights */
    const size_t count = t->slices.n * t->slices.length;
    threads = tern_worthwhile_threads((double)count / in_a_wake, tern_ceil_div(count, TERN_SUM_BLOCK), threads);
    const double sum = sum_slice(kernels, t->w, count, threads);
    if (!isfinite(sum)) return 0;
    if (t->slices.n == 1)
        quantize_one_slice(kernels, t, sum, threads);
    else
        quantize_slices(kernels, t, threads);
    return 1;
}
