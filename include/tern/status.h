/* Status codes and error details.
 *
 * Every function that can fail returns a tern_status and takes, last, a pointer to a tern_error that the caller
 * owns. The pointer may be NULL. On failure the record says which argument or which place in the data was wrong and
 * what to do about it; on success it is left alone. Tern never prints, exits or aborts. */
#ifndef TERN_STATUS_H
#define TERN_STATUS_H

#include <stdint.h>

#if defined(__GNUC__)
#define TERN_API __attribute__((visibility("default")))
#else
#define TERN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tern_status {
    TERN_OK = 0,
    TERN_E_ARGUMENT = 1,    /* a NULL, misaligned, out-of-range or contradictory argument */
    TERN_E_SIZE = 2,        /* a size that overflows, or a buffer that is shorter than the data it must hold */
    TERN_E_DATA = 3,        /* the bytes are not valid: a reserved code, a scale that is NaN, Inf or negative */
    TERN_E_MEMORY = 4,      /* an allocation failed; the message says how much was asked for */
    TERN_E_UNSUPPORTED = 5, /* valid, but this build or this machine cannot serve it exactly */
    TERN_E_FILE = 6         /* a file that cannot be opened, read or written; the message names it and the reason */
} tern_status;

/* Where the place of an error is not a position in data. */
#define TERN_NO_PLACE UINT64_MAX

typedef struct tern_error {
    tern_status status;
    uint64_t place;    /* byte offset or element index, as the message says; TERN_NO_PLACE if there is none */
    char message[240]; /* zero-terminated UTF-8, one line */
} tern_error;

/* A constant string such as "invalid data"; never NULL. */
TERN_API const char *tern_status_text(tern_status status);

#ifdef __cplusplus
}
#endif
#endif
