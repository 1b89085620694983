/* Static splits over the threads of an OpenMP team. */
#ifndef TERN_CPU_THREADS_H
#define TERN_CPU_THREADS_H

#include <omp.h>
#include <stddef.h>

/* Threads that a piece of work is worth, at most `parts` and at most `threads` (0: all processors). wakes: how many
 * times as long as waking a thread, a few microseconds, one thread would take for all of it. */
int tern_worthwhile_threads(double wakes, size_t parts, int threads);

typedef struct tern_range {
    size_t begin, end;
} tern_range;

/* The part of 0 .. count that thread `thread` of `threads` takes, cut at multiples of `step`. */
static inline tern_range tern_split(size_t count, size_t step, int thread, int threads) {
    size_t steps = (count + step - 1) / step, n = (size_t)threads, t = (size_t)thread;
    size_t begin = (steps / n * t + steps % n * t / n) * step,
           end = (steps / n * (t + 1) + steps % n * (t + 1) / n) * step;
    return (tern_range){begin < count ? begin : count, end < count ? end : count};
}

/* The part of the calling thread of the current team. */
static inline tern_range tern_my_part(size_t count, size_t step) {
    return tern_split(count, step, omp_get_thread_num(), omp_get_num_threads());
}

#endif
