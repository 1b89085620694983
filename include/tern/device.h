/* GPUs, and products of ternary matrices on them.
 *
 * The code for GPUs lies in a library of its own, libtern_cuda.so, that is looked for beside libtern.so when one of
 * these functions is first called. Without it, without a driver or without a GPU every function here says why, and
 * the rest of Tern runs on the CPU as ever.
 *
 * Products are those of tern/matrix.h and obey the same rules (docs/numerics.md): with int8 activations the GPU gives
 * the CPU's results to the bit. Pointers named x, y, bias, ... are memory of the device. Work is put on the device's
 * stream and runs in order; only the calls that say so wait for it. One tern_device is used by one thread at a
 * time. */
#ifndef TERN_DEVICE_H
#define TERN_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "tern/matrix.h"
#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what is there --------------------------------------------------------------------------------------------- */

typedef struct tern_device_info {
    char name[64];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t memory_total, memory_free, l2_bytes; /* bytes */
    size_t shared_bytes;                        /* shared memory that one block may have */
    int driver_version,
        runtime_version; /* CUDA's, 13000 for 13.0: what the driver serves, what Tern was built with */
} tern_device_info;

/* The number of GPUs, at least 1; else TERN_E_UNSUPPORTED and the reason that there is none. */
TERN_API tern_status tern_device_count(int *count, tern_error *err);

TERN_API tern_status tern_device_describe(tern_device_info *info, int device, tern_error *err);

#define TERN_DEVICE_CPU (-1)

/* What the environment variable TERN_DEVICE asks for: "cpu", "cuda" (the first GPU), "cuda:N"; unset or "auto": the
 * first GPU where there is one, else TERN_DEVICE_CPU. An unknown value is TERN_E_ARGUMENT with the valid ones listed,
 * a GPU that is not there TERN_E_UNSUPPORTED with the reason. That is also what everything gets, the CPU included,
 * where TERN_KERNEL names a kernel of a GPU and there is none. */
TERN_API tern_status tern_device_select(int *device, tern_error *err);
/* The same of a name; NULL: what TERN_DEVICE says. */
TERN_API tern_status tern_device_find(int *device, const char *name, tern_error *err);

/* ---- a device in use ------------------------------------------------------------------------------------------- */

typedef struct tern_device_options {
    int device;          /* 0 .. count - 1 */
    size_t shared_limit; /* bytes of shared memory that a block may take at most; 0: what the device allows */
    int serial; /* nonzero: no kernel starts before the one before it on the stream has ended. Else, where the
                            device can (9.0 and newer), a product begins to read its weights while the kernel before it
                            ends; it waits for that one before it touches anything else. */
} tern_device_options;

typedef struct tern_device tern_device;

/* Refuses a device that Tern has no kernels for: compute capability 7.5 is the least. */
TERN_API tern_status tern_device_open(tern_device **out, const tern_device_options *options, tern_error *err);
/* Waits for its work. What was allocated or made on it must have been freed. NULL and a pointer to NULL are
 * accepted. */
TERN_API void tern_device_close(tern_device **device);

/* The cudaStream_t that all work of this device is put on: for CUDA graphs, events and other libraries. */
TERN_API void *tern_device_stream(tern_device *device);
TERN_API tern_status tern_device_synchronize(tern_device *device, tern_error *err);

/* Device memory, 256-byte aligned. Out of memory: what was asked for and what is free. */
TERN_API tern_status tern_device_alloc(void **out, tern_device *device, size_t bytes, tern_error *err);
TERN_API void tern_device_free(tern_device *device, void *memory);
/* Copies, behind the work that is on the stream; both return when the bytes are there. */
TERN_API tern_status tern_device_upload(tern_device *device, void *to, const void *from, size_t bytes,
                                        tern_error *err);
TERN_API tern_status tern_device_download(tern_device *device, void *to, const void *from, size_t bytes,
                                          tern_error *err);

/* ---- products -------------------------------------------------------------------------------------------------- */

typedef struct tern_device_matrix tern_device_matrix;

/* Checks everything as tern_matrix_create does, repacks the trits at the same density and sends them. desc->tier is
 * ignored; a transposed matrix is TERN_E_UNSUPPORTED. */
TERN_API tern_status tern_device_matrix_create(tern_device_matrix **out, tern_device *device,
                                               const tern_matrix_desc *desc, tern_error *err);
TERN_API tern_status tern_device_matrix_clone(tern_device_matrix **out, const tern_device_matrix *matrix,
                                              tern_error *err);
TERN_API void tern_device_matrix_free(tern_device_matrix **matrix);
/* Bytes of packed trits and scales on the device. */
TERN_API size_t tern_device_matrix_bytes(const tern_device_matrix *matrix);

/* Kernels for products, slowest first. Every one gives the same int8 products; docs/kernels.md says how they work. */
typedef enum tern_device_kernel {
    TERN_DEVICE_KERNEL_AUTO = 0,   /* TERN_KERNEL if it names one of these, else as tern_device_tune found, else by a
                                      rule that goes by shape and device */
    TERN_DEVICE_KERNEL_PLAIN = 1,  /* one thread an output: the specification; everything, everywhere */
    TERN_DEVICE_KERNEL_TILED = 2,  /* int8, scales per group too, everywhere */
    TERN_DEVICE_KERNEL_DECODE = 3, /* few rows of activations, at the speed of memory; 8.0 and newer */
    TERN_DEVICE_KERNEL_MMA = 4,    /* many rows, tensor cores, groups of 32, 64, ... columns too; 8.0 and newer */
    TERN_DEVICE_KERNEL_WGMMA = 5,  /* many rows of int8, Hopper's tensor cores; 9.0 only */
    TERN_DEVICE_KERNEL_FEW = 6,    /* 2 to 64 rows of int8; 9.0 only */
    TERN_DEVICE_KERNEL_COUNT
} tern_device_kernel;

/* "auto", "cuda-plain", "cuda-decode", ...; NULL for a value that is none. */
TERN_API const char *tern_device_kernel_name(tern_device_kernel kernel);

typedef enum tern_device_activation {
    TERN_DEVICE_IDENTITY = 0,
    TERN_DEVICE_RELU = 1,
    TERN_DEVICE_RELU2 = 2, /* max(v, 0)^2 */
    TERN_DEVICE_GELU = 3,  /* the tanh form */
    TERN_DEVICE_SILU = 4
} tern_device_activation;

/* y = activation(product + bias) + residual, where product is that of tern_matmul_i8 or tern_matmul_float. The sum
 * with the residual is fp32 and is rounded once to y's type. Nothing may overlap y but residual, which may be y. */
typedef struct tern_device_product {
    const void *x; /* [m][cols], row-major and dense */
    tern_dtype x_type;
    const float *inv_scale; /* [m] for TERN_I8, else ignored */
    size_t m;
    void *y;              /* [m][rows] */
    tern_dtype y_type;    /* TERN_F32, TERN_BF16 or TERN_F16 */
    const float *bias;    /* [rows] or NULL */
    const void *residual; /* [m][rows] of y_type, or NULL */
    tern_device_activation activation;
    tern_device_kernel kernel; /* TERN_DEVICE_KERNEL_AUTO unless you pin one; one that cannot run this is refused */
    int variant;               /* 0: choose; 1 ..: one of the kernel's launch shapes, for tuning */
} tern_device_product;

/* Rows of x that are not 16-byte aligned are first copied, to memory that the device keeps for that: see
 * tern_device_reserve. m = 0 does nothing. */
TERN_API tern_status tern_device_matmul(const tern_device_matrix *w, const tern_device_product *product,
                                        tern_error *err);

/* Launch shapes of a kernel: valid variants are 1 .. this. */
TERN_API int tern_device_variants(tern_device_kernel kernel);

/* The kernel and variant that tern_device_matmul would run this product with, and fails as it would. product->m must
 * be at least 1. */
TERN_API tern_status tern_device_choose(tern_device_kernel *kernel, int *variant, const tern_device_matrix *w,
                                        const tern_device_product *product, tern_error *err);

/* Makes the device's own scratch at least `bytes`, so that no product up to that size allocates: needed before a
 * product whose x is unaligned, or whose cols are no multiple of 16, is captured into a CUDA graph. m rows take
 * m * (cols * size of a value, rounded up to 16). */
TERN_API tern_status tern_device_reserve(tern_device *device, size_t bytes, tern_error *err);

/* ---- tuning: which kernel is fastest on this device ------------------------------------------------------------ */

typedef struct tern_device_choice {
    tern_device_kernel kernel;
    int variant;
    double seconds; /* of one product */
} tern_device_choice;

typedef struct tern_device_tuned {
    size_t m, m_most;           /* measured; and it is for products of more than m_most / 2 and up to m_most rows */
    tern_device_choice by_rule; /* what they got without it */
    tern_device_choice chosen;  /* the same, unless another was at least 2 % faster */
    int tried;                  /* kernels and variants that can run it */
    int cold; /* zero: the weights came from the L2 cache, as there was no room for enough copies of them */
} tern_device_tuned;

/* Measures every kernel and variant that can multiply w by m rows of x_type: replays of CUDA graphs that take copies
 * of w in turn, more than the L2 cache holds where half of the free memory and 512 copies allow; medians. Takes up to
 * some seconds, which other work on the GPU must not disturb, and waits for the result.
 *
 * From then on tern_device_matmul on this device goes by it for every product of that shape, packing and x_type, and
 * so do devices of the same kind that are opened later, in any process: the result is kept in a file (see below). A
 * kernel named in the product or by TERN_KERNEL goes before it. A device opened with `serial` or a `shared_limit` is
 * of its own kind, without a file. Graphs on a GPU that are opened later, for training or to run a model, go by it
 * too, in products of int8, which are the same to the bit whatever the kernel; not in small deployed ones that bring
 * their rows to int8 themselves, on 9.0. What TERN_KERNEL names goes before it there as well; a graph with a product
 * that it cannot run is refused. */
TERN_API tern_status tern_device_tune(tern_device_tuned *tuned, const tern_device_matrix *w, tern_dtype x_type,
                                      size_t m, tern_error *err);

/* The file lies in the folder TERN_CACHE, else in tern of XDG_CACHE_HOME, else in .cache/tern of HOME, and may be
 * deleted at any time. TERN_CACHE=off: none is read or written. A file that is damaged, of another device or of
 * another version of Tern is ignored; one that cannot be written leaves the result to this tern_device alone. */
typedef struct tern_device_tuning_info {
    char path[1024]; /* empty: there is none */
    size_t choices;  /* that this device knows */
    char note[240];  /* why there is no file, or what was wrong with it when it was last read or written; or empty */
} tern_device_tuning_info;

TERN_API tern_status tern_device_tuning_describe(tern_device_tuning_info *info, const tern_device *device,
                                                 tern_error *err);

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Activations to int8 per row, and with `norm` nonzero after RMSNorm, in one pass: tern_quantize_activations and
 * tern_quantize_activations_rmsnorm, to the bit. gain may be NULL; gain and epsilon are ignored without norm. */
typedef struct tern_device_quantizer {
    int8_t *q;        /* [rows][cols] */
    float *inv_scale; /* [rows] */
    const void *x;    /* [rows][cols] of x_type: TERN_F32, TERN_BF16 or TERN_F16 */
    tern_dtype x_type;
    size_t rows, cols;
    int norm;
    const float *gain; /* [cols] */
    float epsilon;
} tern_device_quantizer;

TERN_API tern_status tern_device_quantize(tern_device *device, const tern_device_quantizer *quantizer,
                                          tern_error *err);

/* Measures int8 operations/s (a multiply and an add are two) of the tensor cores on values that stay in registers.
 * TERN_E_UNSUPPORTED before compute capability 8.0. */
TERN_API tern_status tern_device_measure_int8(double *per_second, tern_device *device, tern_error *err);

/* Measures bytes/s read from a buffer of 2 GiB, or a quarter of what is free. */
TERN_API tern_status tern_device_measure_read(double *per_second, tern_device *device, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
