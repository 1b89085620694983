#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

tern_status tern_fail(tern_error *err, tern_status status, uint64_t place, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        err->place = place;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

const char *tern_status_text(tern_status status) {
    switch (status) {
    case TERN_OK: return "ok";
    case TERN_E_ARGUMENT: return "invalid argument";
    case TERN_E_SIZE: return "size overflow or short buffer";
    case TERN_E_DATA: return "invalid data";
    case TERN_E_MEMORY: return "out of memory";
    case TERN_E_UNSUPPORTED: return "not supported here";
    case TERN_E_FILE: return "file error";
    }
    return "unknown status";
}
