/* Filling tern_error. */
#ifndef TERN_BASE_ERROR_H
#define TERN_BASE_ERROR_H

#include <stdint.h>

#include "tern/status.h"

/* Fills *err (if not NULL) and returns `status`, so that a check reads
 *     if (!w) return tern_fail(err, TERN_E_ARGUMENT, TERN_NO_PLACE, "w is NULL"); */
__attribute__((format(printf, 4, 5))) tern_status tern_fail(tern_error *err, tern_status status, uint64_t place,
                                                            const char *format, ...);

/* Forwards a failure. */
#define TERN_TRY(expression)                           \
    do {                                               \
        tern_status tern_try_status_ = (expression);   \
        if (tern_try_status_) return tern_try_status_; \
    } while (0)

#define TERN_CHECK_ARGUMENT(condition, err, ...)                                                \
    do {                                                                                        \
        if (!(condition)) return tern_fail((err), TERN_E_ARGUMENT, TERN_NO_PLACE, __VA_ARGS__); \
    } while (0)

#endif
