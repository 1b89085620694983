/* What a caller may ask for as a number of threads. */
#ifndef TERN_API_THREAD_LIMIT_H
#define TERN_API_THREAD_LIMIT_H

#include "base/error.h"

enum { TERN_MAX_THREADS = 1024 };

static inline tern_status tern_check_threads(int threads, tern_error *err) {
    TERN_CHECK_ARGUMENT(threads >= 0 && threads <= TERN_MAX_THREADS, err, "threads = %d: must be 0 (choose) to %d",
                        threads, TERN_MAX_THREADS);
    return TERN_OK;
}

#endif
