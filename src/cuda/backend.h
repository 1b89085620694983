/* The table between libtern.so and libtern_cuda.so: the one thing that both are compiled against.
 *
 * libtern.so (the .c files of this folder) checks arguments, packs matrices and chooses kernels; it knows no CUDA.
 * libtern_cuda.so (the .cu files) allocates, copies and launches. Arguments that arrive here have been checked. */
#ifndef TERN_CUDA_BACKEND_H
#define TERN_CUDA_BACKEND_H

#include "tern/device.h"

/* Raised with every change below: a library of another version is refused. */
enum { TERN_CUDA_BACKEND_VERSION = 8 };

/* The one exported function of libtern_cuda.so. */
#define TERN_CUDA_BACKEND_SYMBOL "tern_cuda_backend_table"

/* Graphs on a GPU: gpu/gpu_table.h. */
struct tern_gpu_table;

/* A device in use: its number, stream, scratch. Defined in device_memory.cu. */
typedef struct tern_cuda_context tern_cuda_context;

/* A ternary matrix on the device, in the layout of tiles.h. */
typedef struct tern_cuda_weights {
    const uint8_t *tiles;    /* [row_tiles][k_tiles][TERN_TILE_BYTES] */
    const float *scale;      /* [1] or [rows]; unused with exponents */
    const int8_t *exponents; /* [rows][groups], or NULL */
    int32_t rows, cols, row_tiles, k_tiles;
    int32_t t5;            /* nonzero: 1.6 bits a weight */
    int32_t scale_per_row; /* 0: one */
    int32_t group, groups; /* with exponents */
} tern_cuda_weights;

typedef struct tern_cuda_backend {
    uint32_t version;
    tern_status (*count)(int *count, tern_error *err);
    tern_status (*describe)(tern_device_info *info, int device, tern_error *err);

    tern_status (*open)(tern_cuda_context **out, int device, int serial, tern_error *err);
    void (*close)(tern_cuda_context *context);
    void *(*stream)(tern_cuda_context *context);
    tern_status (*synchronize)(tern_cuda_context *context, tern_error *err);
    tern_status (*reserve)(tern_cuda_context *context, size_t bytes, tern_error *err);

    /* `op` is for messages. */
    tern_status (*alloc)(void **out, tern_cuda_context *context, size_t bytes, const char *op, tern_error *err);
    void (*free)(tern_cuda_context *context, void *memory);
    tern_status (*upload)(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);
    tern_status (*download)(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);
    tern_status (*copy)(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);

    /* product->kernel is a real one that fits, product->variant one of its launch shapes. */
    tern_status (*multiply)(tern_cuda_context *context, const tern_cuda_weights *w,
                            const tern_device_product *product, tern_error *err);
    /* Seconds of one such product: the median of `replays` replays of a CUDA graph of `calls` of them, which take the
     * `count` weights in turn. */
    tern_status (*time_products)(double *seconds, tern_cuda_context *context, const tern_cuda_weights *weights,
                                 size_t count, const tern_device_product *product, int calls, int replays,
                                 tern_error *err);
    tern_status (*quantize)(tern_cuda_context *context, const tern_device_quantizer *quantizer, tern_error *err);
    tern_status (*measure_int8)(double *per_second, tern_cuda_context *context, tern_error *err);
    tern_status (*measure_read)(double *per_second, tern_cuda_context *context, tern_error *err);
    const struct tern_gpu_table *graphs; /* NULL in a build without networks */
} tern_cuda_backend;

/* NULL when `version` is not the library's own. */
typedef const tern_cuda_backend *(*tern_cuda_backend_fn)(uint32_t version);

#endif
