/* libtern_cuda.so, opened at run time. */
#ifndef TERN_CUDA_LOAD_BACKEND_H
#define TERN_CUDA_LOAD_BACKEND_H

#include "cuda/backend.h"

/* The table of the library at `path`; TERN_E_UNSUPPORTED with the reason where there is none. The library stays
 * open. */
tern_status tern_cuda_load_from(const tern_cuda_backend **table, const char *path, tern_error *err);

/* That of libtern_cuda.so beside the library or program that this function is in, else where the system looks for
 * libraries. Tried once; later calls give the same answer. */
tern_status tern_cuda_load(const tern_cuda_backend **table, tern_error *err);

#endif
