/* The inside of a graph on a GPU: what operations see. Each op is a file op_*.cu with its kernels and the functions
 * of gpu_op; formulas are those of the CPU's file of the same op in nn/, which is the specification.
 *
 * Sums are taken in an order that shapes and the number of multiprocessors decide, and nothing is added atomically in
 * floating point: the same seed gives the same bits on the same kind of GPU. What differs from step to step is read
 * by kernels from `now`, in device memory, so that a step can be captured once as a CUDA graph and replayed. */
#ifndef TERN_GPU_GPU_PLAN_CUH
#define TERN_GPU_GPU_PLAN_CUH

#include "cuda/common.cuh"

extern "C" {
#include "base/checked.h"
#include "gpu/gpu_table.h"
#include "nn/op.h"
}

struct gpu_op;

/* What kernels read of the pass that they are part of. */
struct gpu_now {
    uint64_t step;    /* of random numbers, as plan->step */
    float statistics; /* share of the batch in batch norm's running statistics; < 0: the op's own momentum */
    float lambda;
    int32_t rate; /* of the rules of whole-number weights, as plan->rules.rate of all nodes; 0: nothing changes */
};

/* What those rules found in a step, as nn/plan.h's tern_plan_rules; device memory. */
struct gpu_rules {
    double squares;   /* of all gradients that streamed past, summed */
    uint64_t trouble; /* the node whose gradient was not finite: from there on nothing changed. Else 0 */
};

struct gpu_node {
    const gpu_op *op;
    void *value, *grad; /* [batch][elements] of plan->type; grad NULL where none is wanted. Tokens: int32 */
    void *state;        /* host memory that the op allocated with gpu_state */
    void *operand;      /* the node's float weights in plan->products, where they are kept: gpu_gemm.cuh */
    int from[2]; /* whose values are read: the inputs, or what an input reads that is computed within this node */
    int add_to[2], wants_grad[2];
    int gives_int8; /* a norm that fills its reader's q and has no value */
    int8_t *q;      /* [batch][elements of the input] of a product of int8 activations, and 1/s of their rows */
    float *inv_scale;
    int within; /* its only reader computes it: there is no value, no gradient and nothing to do */
};

/* A parameter on the device: NULL where it has no floats, no gradient or no integers. */
struct gpu_param {
    float *value, *grad, *first, *second;
    void *integers; /* as the graph's: of FIXED stores the value is a view of them */
};

struct gpu_lt; /* dense products: gpu_gemm.cuh */
struct gpu_trainer;

enum { GPU_MOST_STAGED = 4 << 20 }; /* floats */

struct tern_gpu_plan {
    tern_cuda_context *context;
    cudaStream_t stream;
    const tern_graph *graph;
    size_t batch_max, batch;
    tern_dtype type, products;
    bool training, train_mode;
    bool int8_gradients; /* of inputs of ternary products: gpu_turned_weights.cuh */
    float lambda;        /* of the last refresh */
    bool mixed;          /* weights of this pass are mixed with their latents: lambda < 1 */
    bool count_trits;
    size_t first_trained; /* of this pass: no gradients in front of this node */
    uint64_t seed;
    tern_device_kernel pinned;   /* of products of trits; or AUTO */
    tern_cuda_measured measured; /* goes before the rule in products of int8 */
    gpu_now *now;                /* device memory */
    gpu_rules *rules;

    gpu_node *node;
    gpu_param *param;
    float *values, *grads; /* of all parameters with floats, 64-byte aligned each, in one block each */
    size_t floats;         /* in that block */
    char *integers;        /* of all parameters with integers, 256-byte aligned each, in one block */
    float *staging;        /* [staged]: floats on their way to the host and back, in pieces */
    size_t staged;
    void *input;

    void *arena, *scratch;
    size_t arena_bytes, scratch_bytes;
    void **kept; /* all device memory, freed with the plan */
    size_t kepts, kept_room, kept_bytes;
    bool wants_lt; /* an op has dense products */
    gpu_lt *lt;
    gpu_trainer *trainer;
};

struct gpu_op {
    const char *name;
    /* Takes what it keeps; says how much scratch it wants. May be NULL. */
    tern_status (*prepare)(tern_gpu_plan *plan, size_t node, tern_error *err);
    /* After the parameters have changed. May be NULL. */
    tern_status (*refresh)(tern_gpu_plan *plan, size_t node, tern_error *err);
    tern_status (*forward)(tern_gpu_plan *plan, size_t node, tern_error *err);
    /* Adds to the gradients of parameters, sets (or adds to) those of the inputs. NULL: no gradient passes. */
    tern_status (*backward)(tern_gpu_plan *plan, size_t node, tern_error *err);
};

/* NULL when the GPU has no such op. */
const gpu_op *gpu_op_find(const char *name);

/* Parts of plan.cu that the trainer runs. */
tern_status gpu_refresh(tern_gpu_plan *plan, tern_error *err);
tern_status gpu_run_forward(tern_gpu_plan *plan, tern_error *err);
tern_status gpu_run_backward(tern_gpu_plan *plan, tern_error *err);
/* Before the first backward pass of a step: no squares, no trouble. */
tern_status gpu_begin_rules(tern_gpu_plan *plan, tern_error *err);

/* Of gpu_table.h: gpu_timing.cu. */
tern_status gpu_time_forward(tern_gpu_plan *plan, double *seconds, const tern_gpu_timing *timing, tern_error *err);
/* turn (gpu_op_ternary.cu): the weights for int8 gradients anew, behind all refreshes; nothing where a node has none.
 * keep (gpu_ternary_sums.cu): nothing where a node has no int8 product. */
tern_status gpu_ternary_turn(tern_gpu_plan *plan, size_t node, tern_error *err);
tern_status gpu_ternary_keep_sums(tern_gpu_plan *plan, size_t node, tern_error *err);
tern_status gpu_ternary_read_sums(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t node, tern_error *err);

/* Device memory that lives as long as the plan; its contents are undefined. */
tern_status gpu_keep(tern_gpu_plan *plan, void **memory, size_t bytes, const char *op, tern_error *err);
/* Zeroed host memory for plan->node[i].state, freed with the plan. */
tern_status gpu_state(tern_gpu_plan *plan, size_t node, size_t bytes, tern_error *err);
/* In prepare: scratch of at least so many bytes, in every pass, 256-byte aligned. One op has it at a time. */
static inline void gpu_want_scratch(tern_gpu_plan *plan, size_t bytes) {
    if (bytes > plan->scratch_bytes) plan->scratch_bytes = bytes;
}

static inline const tern_node *gpu_graph_node(const tern_gpu_plan *plan, size_t i) { return &plan->graph->node[i]; }
static inline void *gpu_in(const tern_gpu_plan *plan, size_t i, int k) {
    return plan->node[plan->node[i].from[k]].value;
}
/* The gradient of input k, NULL where none is wanted. */
static inline void *gpu_in_grad(const tern_gpu_plan *plan, size_t i, int k) {
    const size_t in = (size_t)plan->node[i].from[k];
    return plan->node[i].wants_grad[k] && in >= plan->first_trained ? plan->node[in].grad : NULL;
}
static inline gpu_param *gpu_node_param(const tern_gpu_plan *plan, size_t i, int k) {
    return &plan->param[plan->graph->node[i].param[k]];
}
/* Integers of the node's parameter whose name ends with ".suffix"; NULL where it has none. */
void *gpu_node_integers(const tern_gpu_plan *plan, size_t node, const char *suffix);
/* Elements of the node's value, of this pass or of the largest. */
static inline size_t gpu_elements(const tern_gpu_plan *plan, size_t i) {
    return plan->batch * plan->graph->node[i].elements;
}
static inline size_t gpu_elements_max(const tern_gpu_plan *plan, size_t i) {
    return plan->batch_max * plan->graph->node[i].elements;
}
static inline size_t gpu_bytes(tern_dtype type) { return type == TERN_F32 ? 4 : type == TERN_I8 ? 1 : 2; }
/* Operands of dense products in this pass: of 16-bit values always their type, of fp32 ones fp32 but in training. */
static inline tern_dtype gpu_operands(const tern_gpu_plan *plan) {
    return plan->train_mode || plan->type != TERN_F32 ? plan->products : TERN_F32;
}
static inline size_t gpu_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Behind a launch: was it accepted? */
#define GPU_LAUNCHED(plan, node, err) CUDA_TRY(cudaGetLastError(), gpu_graph_node(plan, node)->name, err)

#define GPU_CHECK(call)                                  \
    do {                                                 \
        const tern_status gpu_check_status_ = (call);    \
        if (gpu_check_status_) return gpu_check_status_; \
    } while (0)

/* Runs the statement with T = float, __nv_bfloat16 or __half, the type of the plan's values. */
#define GPU_BY_TYPE(type, ...)              \
    do {                                    \
        const tern_dtype by_type_ = (type); \
        if (by_type_ == TERN_F32) {         \
            using T = float;                \
            __VA_ARGS__;                    \
        } else if (by_type_ == TERN_BF16) { \
            using T = __nv_bfloat16;        \
            __VA_ARGS__;                    \
        } else {                            \
            using T = __half;               \
            __VA_ARGS__;                    \
        }                                   \
    } while (0)

#endif
