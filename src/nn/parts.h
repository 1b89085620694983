/* Cutting work into parts that depend on its size alone, so that the number of threads never changes a result. */
#ifndef TERN_NN_PARTS_H
#define TERN_NN_PARTS_H

#include <stddef.h>

#include "base/checked.h"

enum { TERN_PART = 16384 }; /* elements of a loop over elements: some microseconds, 64 KiB */

/* Threads for so many parts: no more than parts, so that one part starts no team. */
static inline int tern_team(int threads, size_t count, size_t length) {
    size_t parts = tern_ceil_div(count, length);
    return parts < (size_t)threads ? (int)tern_max_size(1, parts) : threads;
}

/* TERN_FOR_PARTS(threads, count, length, begin, end) statement: for every part begin .. end of 0 .. count, in
 * parallel. */
#define TERN_PRAGMA(x) _Pragma(#x)
#define TERN_FOR_PARTS(threads_, count_, length_, begin, end)                                        \
    TERN_PRAGMA(omp parallel for schedule(static) num_threads(tern_team(threads_, count_, length_))) \
    for (size_t begin = 0; begin < (count_); begin += (length_))                                     \
        for (size_t end = tern_min_size(begin + (length_), (count_)), once_ = 1; once_; once_ = 0)

/* The same over rows of `width` elements, some TERN_PART elements a part. */
static inline size_t tern_rows_a_part(size_t width) { return tern_max_size(1, TERN_PART / tern_max_size(1, width)); }

#endif
