/* The weights of a ternary node on the device: packed trits and scales for the products of src/cuda, the very kernels
 * that run a deployed model, and in training what the float products multiply by.
 *
 * Latent weights become trits by one comparison: t = (w > h) - (w < -h), with h = m/2 for absmean and absmedian,
 * which is the sign of round(w/m) (docs/numerics.md), and for TWN its delta rounded down, which no float lies above
 * and the delta not. Sums of |w| are in double, over parts that the shape alone decides, but not in the CPU's order:
 * a scale can differ from the CPU's in its last bit. */
#ifndef TERN_GPU_GPU_WEIGHTS_CUH
#define TERN_GPU_GPU_WEIGHTS_CUH

#include "gpu/gpu_plan.cuh"
#include "gpu/gpu_trits.cuh"

enum { GPU_WEIGHTS_MOST_COLUMNS = 1 << 22 }; /* 2 * 128 times that is below 2^31 */

struct gpu_weights {
    size_t rows, cols;       /* of W, all groups of a convolution together */
    size_t groups;           /* matrices of rows / groups rows each */
    tern_cuda_weights first; /* the first group's */
    size_t tile_bytes;       /* of one group */
    void *operand;           /* [rows][cols] in plan->products, in training: the trits, or the mixed weights */
    bool scaled;             /* set before prepare: the operand is trits times their scales, not bare ones */
    tern_gpu_trits *counts;  /* as plan->count_trits asked for last, on the device; in training */

    /* Of latent and whole-number weights. */
    uint8_t *tiles, *counted; /* of all groups; the tiles of the last count */
    float *scale;             /* [slices], or [trits.scales]; NULL where groups have exponents */
    gpu_trits trits;          /* of whole-number weights */

    /* Of latent weights. */
    int rule;
    size_t slices, length;     /* runs of weights that share a scale */
    float *threshold;          /* [slices] */
    double *sums;              /* of parts, and how many weights they keep */
    unsigned *arrived;         /* [slices] blocks of a slice that have finished; 0 between launches */
    struct gpu_median *median; /* [slices] */
    uint32_t *histogram;
};

/* Of a latent weight: -1, 0 or 1. */
__device__ inline int gpu_trit_of(float w, float threshold) { return (w > threshold) - (w < -threshold); }

/* For latent weights, parameter 0 of the node, whole-number or packed ones. */
tern_status gpu_weights_prepare(gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);
/* Scales, trits and operand anew from the latent weights, or the integers; nothing for packed ones. */
tern_status gpu_weights_refresh(gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);
enum { GPU_NEVER_COUNTED = 0xaa }; /* every byte of `counted` at first: fields that are no trit */
/* Trits, and those that have changed since they were counted last. */
tern_status gpu_weights_count(const gpu_weights *w, tern_gpu_plan *plan, size_t node, tern_error *err);
/* All latent weights of a plan for training that take their mean: scales and trits in two launches, in front of the
 * nodes' own refresh, which does the rest. */
struct gpu_weights_list {
    const struct gpu_weights_job *job; /* device memory */
    unsigned jobs, parts, blocks;
    size_t node; /* for messages */
};
/* Whether it is one of them; w may be NULL. */
bool gpu_weights_are_listed(const gpu_weights *w);
tern_status gpu_weights_list_make(gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err);
tern_status gpu_weights_list_refresh(const gpu_weights_list *list, tern_gpu_plan *plan, tern_error *err);
/* The matrix of a group, for products. */
tern_cuda_weights gpu_weights_matrix(const gpu_weights *w, size_t group);

/* Weights of a node that are trained, NULL where it has none. */
const gpu_weights *gpu_node_weights(const tern_gpu_plan *plan, size_t node);

#endif
