/* Ternary matrices and their products.
 *
 * A tern_matrix is made once from packed trits and scales; making it checks everything and repacks the trits, at the
 * same density, into the layout that the chosen kernel reads fastest. Afterwards only tern_matrix_set_trits changes
 * it: any number of threads may use it at once while none does that. Products compute y = x W^T (+ bias): x is m rows
 * of `cols` activations, y is m rows of `rows` outputs, both row-major and dense. No argument of a product may
 * overlap another.
 *
 * Numbers (docs/numerics.md): integer sums are equal to the bit on every tier, and so is the float epilogue
 *     y = float(sum) * (scale * inv_scale[m]) + bias             scales per tensor or row
 *     y = (sum over groups, ascending, of float(group sum) * 2^e) * inv_scale[m] + bias      exponents per group
 * each operation rounded once to fp32. Float activations sum in fp32 in an order of the kernel's own. */
#ifndef TERN_MATRIX_H
#define TERN_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "tern/pack.h"
#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A tier is a family of machines that share one set of kernels. */
typedef enum tern_tier {
    TERN_TIER_AUTO = 0,    /* the best that this machine and TERN_KERNEL allow */
    TERN_TIER_SCALAR = 1,  /* plain C: the specification */
    TERN_TIER_AVX2 = 2,    /* AVX2, FMA, F16C (Haswell, Zen) */
    TERN_TIER_AVX512 = 3,  /* AVX-512 F, BW, DQ, VL, VBMI, VNNI (Ice Lake, Zen 4) */
    TERN_TIER_AMX = 4,     /* the above and AMX-INT8 (Sapphire Rapids) */
    TERN_TIER_NEON = 5,    /* ARMv8-A */
    TERN_TIER_NEONDOT = 6, /* ARMv8.2-A with the dot product */
    TERN_TIER_COUNT
} tern_tier;

/* "auto", "scalar", "avx2", "avx512", "amx", "neon", "neondot"; NULL for a value that is none. */
TERN_API const char *tern_tier_name(tern_tier tier);

/* True when this build has the tier and this machine, with its operating system, can run it. Ignores TERN_KERNEL. */
TERN_API int tern_tier_available(tern_tier tier);

/* The tier that TERN_TIER_AUTO means here: the environment variable TERN_KERNEL if it is set, else the best. An
 * unknown name is TERN_E_ARGUMENT with the valid ones listed, one that cannot run here TERN_E_UNSUPPORTED: a tier that
 * the machine lacks, or a kernel of a GPU (tern/device.h) where there is no GPU. */
TERN_API tern_status tern_tier_select(tern_tier *tier, tern_error *err);

typedef enum tern_scale_kind {
    TERN_SCALE_TENSOR = 0,   /* 1 float */
    TERN_SCALE_ROW = 1,      /* rows floats */
    TERN_SCALE_GROUP_EXP = 2 /* rows * tern_groups_per_row() int8 exponents, row-major */
} tern_scale_kind;

typedef struct tern_matrix_desc {
    size_t rows, cols;     /* outputs, inputs */
    tern_packing packing;  /* of `packed`; it also chooses the density of the kernel's layout: t2 or t5 */
    const uint8_t *packed; /* only read while the matrix is made */
    size_t packed_bytes;   /* at least tern_packed_bytes(); what follows is ignored */
    tern_scale_kind scale_kind;
    const float *scales;     /* for TENSOR and ROW: finite, not negative */
    const int8_t *exponents; /* for GROUP_EXP */
    size_t scale_count;      /* values in whichever array is used */
    size_t group;            /* for GROUP_EXP; tern_group_is_valid() */
    int transposed;          /* nonzero: hold W^T, so that products take `rows` inputs and give `cols` outputs
                                  (the input gradient W^T dy); see tern_matmul */
    tern_tier tier;          /* TERN_TIER_AUTO unless you pin one */
} tern_matrix_desc;

typedef struct tern_matrix tern_matrix;

TERN_API tern_status tern_matrix_create(tern_matrix **out, const tern_matrix_desc *desc, tern_error *err);

/* New contents for a matrix of the same shape, in place and without allocating: what a training step does after
 * tern_quantize_weights. trits: rows x cols as in the description, row-major, also for a matrix that is held
 * transposed, which so takes the same array. scales or exponents: by the matrix's kind, as many as it was made with;
 * the other is ignored. Packs with `threads` threads (0: every processor this process may use), with the same result
 * for any number. On failure the matrix stays as it was. No product of this matrix may run meanwhile. */
TERN_API tern_status tern_matrix_set_trits(tern_matrix *matrix, const int8_t *trits, const float *scales,
                                           const int8_t *exponents, int threads, tern_error *err);

/* A copy in memory of its own, for one matrix per NUMA node or for a benchmark that must miss the cache. */
TERN_API tern_status tern_matrix_clone(tern_matrix **out, const tern_matrix *matrix, tern_error *err);

/* Frees and nulls; NULL and a pointer to NULL are accepted. */
TERN_API void tern_matrix_free(tern_matrix **matrix);

typedef struct tern_matrix_info {
    size_t inputs, outputs; /* as the products see them: exchanged when transposed */
    tern_packing packing;
    tern_scale_kind scale_kind;
    size_t group;
    int transposed;
    tern_tier tier;
    const char *layout; /* name of the kernel layout */
    size_t trit_bytes;  /* bytes of packed trits in the kernel layout, padding included */
    size_t scale_bytes;
    int huge_pages; /* nonzero when huge pages were asked for and granted by madvise */
} tern_matrix_info;

TERN_API tern_status tern_matrix_describe(tern_matrix_info *info, const tern_matrix *matrix, tern_error *err);

/* How to run a product. Zero bytes, or NULL in its place, mean: choose for me. */
typedef struct tern_exec {
    int threads;          /* 0: every processor this process may use */
    void *scratch;        /* NULL: allocated for the call; else 64-byte aligned */
    size_t scratch_bytes; /* at least tern_matmul_scratch() */
} tern_exec;

typedef enum tern_dtype { TERN_F32 = 0, TERN_BF16 = 1, TERN_F16 = 2, TERN_I8 = 3 } tern_dtype;

/* Scratch that a product of m rows takes, so that a steady state allocates nothing. `acts` is the type of the
 * activations that the product itself sees (TERN_I8 for tern_matmul_i8, _sums and _quantized). */
TERN_API tern_status tern_matmul_scratch(size_t *bytes, const tern_matrix *w, size_t m, tern_dtype acts, int threads,
                                         tern_error *err);

/* The exact integer sums: sums[m][outputs] = sum over k of x[m][k] * trit. At most 2^22 inputs. */
TERN_API tern_status tern_matmul_sums(int32_t *sums, const tern_matrix *w, const int8_t *x, size_t m,
                                      const tern_exec *exec, tern_error *err);

/* int8 activations with inv_scale[m] (1/s of the quantizer). bias: outputs floats, or NULL. A transposed matrix takes
 * this product only with one scale per tensor: other scales lie along the summed dimension. */
TERN_API tern_status tern_matmul_i8(float *y, const tern_matrix *w, const int8_t *x, const float *inv_scale,
                                    const float *bias, size_t m, const tern_exec *exec, tern_error *err);

/* Float activations, quantized per row inside (tern_quantize_activations), then as tern_matmul_i8. */
TERN_API tern_status tern_matmul_quantized(float *y, const tern_matrix *w, const float *x, const float *bias,
                                           size_t m, const tern_exec *exec, tern_error *err);

/* Float activations of type F32, BF16 or F16 by adding and subtracting; y, sums, scales and bias are fp32.
 * y = (sum over k of trit * x[k]) * scale + bias, with group exponents y = sum over k of trit * (x[k] * 2^e) + bias.
 * For a transposed matrix x is the output gradient dy and y = W^T dy is the input gradient: with one scale per tensor
 * as above, with scales per row or group y[k] = sum over n of trit[n][k] * (dy[n] * scale of (n, k)) + bias. */
TERN_API tern_status tern_matmul_float(float *y, const tern_matrix *w, const void *x, tern_dtype dtype,
                                       const float *bias, size_t m, const tern_exec *exec, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
