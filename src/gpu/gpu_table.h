/* A graph on a GPU, as the rest of Tern sees it: the second half of the table between libtern.so and libtern_cuda.so
 * (cuda/backend.h). The same graph, parameters and layout as the CPU's plan (nn/plan.h); values and gradients lie in
 * the device's memory, in fp32, bf16 or fp16.
 *
 * Calls put work on the context's stream and return; those that give numbers to the host wait for them. */
#ifndef TERN_GPU_GPU_TABLE_H
#define TERN_GPU_GPU_TABLE_H

#include "cuda/launch_shapes.h"
#include "nn/layout.h"
#include "nn/nodes.h"

typedef struct tern_gpu_plan tern_gpu_plan;

typedef struct tern_gpu_plan_desc {
    const tern_graph *graph;   /* placed; outlives the plan */
    const tern_layout *layout; /* for batch_max and elements of `values`; copied */
    size_t batch_max;
    int training;
    tern_dtype values;   /* TERN_F32, TERN_BF16 or TERN_F16: of values and their gradients */
    tern_dtype products; /* operands of dense products in training, sums are fp32: of 16-bit values their type */
    int int8_gradients;  /* ternary products of int8 activations pass gradients on as int8 rows (op_ternary) */
    uint64_t seed;
    tern_device_kernel
        pinned; /* of products of trits: create fails where one of the graph's cannot be its. Or AUTO */
    tern_cuda_measured measured; /* of this device; outlives the plan */
} tern_gpu_plan_desc;

/* What differs from pass to pass. */
typedef struct tern_gpu_pass {
    size_t batch;
    uint64_t step;     /* of random numbers */
    int train_mode;    /* dropout drops, batch norm takes the batch's statistics */
    int recalibrating; /* 0, or the number of this pass of recalibration */
    int32_t rate;      /* of whole-number weights in the backward pass (quant/trit_rules.h); 0: nothing changes */
} tern_gpu_pass;

/* As train/optimizer.h numbers them. */
enum { TERN_GPU_SGD = 0, TERN_GPU_ADAMW = 1, TERN_GPU_MUON = 2 };

/* One step of a parameter. */
typedef struct tern_gpu_rule {
    int32_t method; /* the one that set_optimizer was told */
    int32_t frozen;
    float lr, decay;
} tern_gpu_rule;

typedef struct tern_gpu_optimizer_desc {
    const int32_t *method; /* per parameter; read in set_optimizer only */
    float momentum, beta1, beta2;
    int newton_steps, normalise;
    double clip; /* of the gradient's norm; 0: none */
} tern_gpu_optimizer_desc;

/* A data set that stays on the device. Images are gathered and augmented there as io/augment.h does, to the bit. */
typedef struct tern_gpu_images {
    const uint8_t *images; /* [count][height][width][channels] */
    const int32_t *labels; /* [count] */
    size_t count, height, width, channels;
    uint64_t seed;
    float mean[4], std[4];
    size_t crop_pad;
    int crop_reflect; /* else zeros */
    int flip;         /* tern_flip */
    float brightness, contrast, saturation;
    size_t cutout;
} tern_gpu_images;

/* One training step of `parts` batches: which images (or where texts begin), how every parameter steps. */
typedef struct tern_gpu_step {
    uint64_t step;         /* of this optimiser step, from 0; random numbers are of step * parts + part */
    const uint64_t *epoch; /* [parts] of the augmentation */
    const int64_t *sample; /* [parts][batch]: numbers of images, or offsets into the tokens */
    size_t parts, batch;
    const tern_gpu_rule *rule; /* per parameter; recalibrate reads none */
    size_t first_trained;      /* node; no gradient passes beyond it (nn/plan.h) */
    float lambda;              /* behind the step weights are w + lambda (q(w) - w) */
    float smoothing;
    int32_t loss_ce, loss_entropy, loss_z, loss_shift;
    int count_trits;   /* the refresh behind the step counts them */
    int32_t rule_rate; /* of whole-number weights, in each part (quant/trit_rules.h) */
} tern_gpu_step;

/* Of values of fp16: what the loss is multiplied by in the backward pass (gpu_loss_scale.cuh). */
typedef struct tern_gpu_loss_scale {
    double scale;         /* a power of two; 0: of other values, which need none */
    uint64_t overflowed;  /* steps that it was too large for: they changed nothing */
    uint64_t good_in_row; /* steps behind the last that changed it */
} tern_gpu_loss_scale;

/* The device's own count of steps: those with a NaN or Inf in loss or gradient change nothing and are skipped
 * there. */
typedef struct tern_gpu_result {
    double loss, gradient_norm; /* of the last step */
    uint64_t applied, skipped, skipped_in_row;
    tern_gpu_loss_scale scaling; /* its overflows are not among `skipped` */
} tern_gpu_result;

/* Trits of a node's weights when they were last counted, and how many had changed since the count before; of
 * whole-number weights each change counts. */
typedef struct tern_gpu_trits {
    uint64_t minus, zero, plus, flips;
} tern_gpu_trits;

/* Device memory that a plan keeps. */
typedef struct tern_gpu_memory {
    size_t bytes;     /* all of it */
    size_t workspace; /* of which cuBLASLt's own */
} tern_gpu_memory;

/* How a forward pass is timed: the median of `replays` replays of a CUDA graph of `passes` passes over the input of
 * the last forward. evict: bytes that are read between two passes, so that no cache holds weights; their time is not
 * counted. */
typedef struct tern_gpu_timing {
    tern_gpu_pass pass;
    int passes, replays;
    size_t evict;
} tern_gpu_timing;

typedef struct tern_gpu_table {
    tern_status (*create)(tern_gpu_plan **out, tern_cuda_context *context, const tern_gpu_plan_desc *desc,
                          tern_error *err);
    void (*release)(tern_gpu_plan *plan);
    /* Of memory that the plan has on the device, data sets included; the driver's own and cuBLASLt's are not. */
    size_t (*bytes)(const tern_gpu_plan *plan);

    /* All parameters, from the graph to the device (and what layers make of them), or back. */
    tern_status (*send)(tern_gpu_plan *plan, float lambda, tern_error *err);
    tern_status (*fetch)(tern_gpu_plan *plan, tern_error *err);

    /* x: host memory, [batch][elements] fp32 or int32 tokens. y: host memory for the output, or NULL. */
    tern_status (*forward)(tern_gpu_plan *plan, float *y, const void *x, const tern_gpu_pass *pass, tern_error *err);
    /* dy: host memory, the gradient of the output. Gradients of parameters are set to 0 and made. */
    tern_status (*backward)(tern_gpu_plan *plan, const float *dy, tern_error *err);
    /* For tests: a node's value or gradient (which != 0) of the last pass, as fp32; a parameter's gradient. */
    tern_status (*read_node)(tern_gpu_plan *plan, float *out, size_t node, int which, tern_error *err);
    tern_status (*read_gradient)(tern_gpu_plan *plan, float *out, size_t param, tern_error *err);
    /* Fails with TERN_E_ARGUMENT where the node has no ternary weights that are trained. */
    tern_status (*read_trits)(tern_gpu_plan *plan, tern_gpu_trits *out, size_t node, tern_error *err);

    void (*memory)(tern_gpu_memory *out, const tern_gpu_plan *plan);
    /* Seconds of one pass; the input must have been sent by forward. In train mode running statistics move on. */
    tern_status (*time_forward)(tern_gpu_plan *plan, double *seconds, const tern_gpu_timing *timing, tern_error *err);
    /* Passes from now on keep the int32 sums of every int8 product, by the kernels that make its values, and the int8
     * activations that they are of. For plans of fp32 values that are not for training; a layer whose sums are not
     * exact in fp32 is TERN_E_UNSUPPORTED. */
    tern_status (*keep_sums)(tern_gpu_plan *plan, tern_error *err);
    /* sums[batch][elements], q[batch][elements of the input], of the last pass. */
    tern_status (*read_sums)(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t node, tern_error *err);

    /* ---- training; in this order, once */
    tern_status (*set_optimizer)(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *desc, tern_error *err);
    tern_status (*set_images)(tern_gpu_plan *plan, const tern_gpu_images *images, tern_error *err);
    /* bytes or 16-bit tokens of a text: token[count], windows of the graph's length and the token behind each. */
    tern_status (*set_tokens)(tern_gpu_plan *plan, const int32_t *token, size_t count, tern_error *err);
    /* The optimiser's state, [count] floats of parameter p, from the host or back; NULL where there is none. */
    tern_status (*send_state)(tern_gpu_plan *plan, size_t param, const float *first, const float *second,
                              tern_error *err);
    tern_status (*fetch_state)(tern_gpu_plan *plan, size_t param, float *first, float *second, tern_error *err);
    /* A scale of 0: the one that runs begin with. */
    tern_status (*set_counts)(tern_gpu_plan *plan, const tern_gpu_result *counts, tern_error *err);

    tern_status (*step)(tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err);
    tern_status (*result)(tern_gpu_plan *plan, tern_gpu_result *out, tern_error *err);
    /* One pass of batch norm's recalibration, `number` = 1, 2, ... */
    tern_status (*recalibrate)(tern_gpu_plan *plan, const tern_gpu_step *step, int number, tern_error *err);

    /* For tests: one step, number `step`, of a parameter in fixed point with the gradient of the last pass. */
    tern_status (*step_fixed)(tern_gpu_plan *plan, size_t param, float lr, uint64_t step, tern_error *err);
} tern_gpu_table;

extern const tern_gpu_table tern_gpu_functions;

#endif
