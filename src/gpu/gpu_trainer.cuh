/* Training on the device: data, loss, optimiser, whole steps. The manual of the functions is gpu_table.h, the
 * specification train/trainer.c and train/optimizer.c.
 *
 * A step is one run of launches that the host does not wait for. What differs from step to step comes as one block of
 * memory; what the device finds out - the loss, the gradient's norm, whether both are finite - stays there, in the
 * verdict, and every kernel that changes a parameter reads it: after a step with a NaN or Inf nothing has changed. */
#ifndef TERN_GPU_GPU_TRAINER_CUH
#define TERN_GPU_GPU_TRAINER_CUH

#include "gpu/gpu_plan.cuh"
#include "gpu/gpu_weights.cuh"

/* The loss of nn/loss.h: factors of its components, and of the gradients (over the number of rows and of parts). */
struct gpu_loss_terms {
    float ce, entropy, z, smoothing, factor;
    float none; /* 8-byte alignment of what follows in the block */
};

/* A step as kernels see it: places in one block of memory, of the same order on the host and on the device. */
struct gpu_step_block {
    gpu_loss_terms *loss;
    gpu_now *now;        /* [parts + 1]: of each part, and of the refresh behind them */
    uint64_t *epoch;     /* [parts] */
    int64_t *sample;     /* [parts][batch] */
    tern_gpu_rule *rule; /* [params of the graph] */
    size_t bytes;
};

/* What the device decides about a step. */
struct gpu_verdict {
    tern_gpu_result result;
    float factor;             /* of gradients: takes the loss scale away and clips their norm */
    float correct1, correct2; /* AdamW's, for means that began at 0 */
    int32_t good;             /* loss and norm are finite */
};

/* What a parameter on the device is to the optimiser. */
enum { GPU_KIND_STATISTIC = 3 }; /* beside TERN_GPU_SGD ...: `first` has the values from before the step */
struct gpu_row {
    float *w, *g, *first, *second;
    uint32_t param;
    int32_t kind;
};

/* A piece of a row (of a matrix, for Muon); a block each. */
enum { GPU_CHUNK = 4096 };
struct gpu_chunk {
    uint32_t row, length;
    size_t begin;
};

/* One Newton-Schulz after another for all matrices of one shape. */
struct gpu_muon_group {
    size_t rows, columns, count;
    size_t first_chunk, chunks;
    size_t node;                 /* for messages */
    void *newton[2], *square[2]; /* [count][a * b], [count][a * a] of the products' type */
    float *square2;              /* [count][a * a] */
};

struct gpu_image_set {
    const uint8_t *image; /* [count][height][width][channels] */
    const int32_t *label;
    const float *table; /* [channels][256]: what a byte becomes, as tern_augmenter's */
    uint64_t seed;
    int32_t height, width, channels;
    int32_t pad, reflect, flip, colors;
    float mean[4], std[4];
    float brightness, contrast, saturation;
    uint64_t cutout;
};

/* A step captured as a CUDA graph. The first step of a kind runs launch by launch, because cuBLASLt chooses
 * algorithms then; the second is captured. */
struct gpu_step_kind {
    size_t parts, batch, first_trained;
    bool mixed, mixed_next, count_trits;
};
struct gpu_captured {
    gpu_step_kind kind;
    cudaGraphExec_t graph;
    bool refused; /* could not be captured: runs launch by launch */
};

/* Blocks of steps on their way to the device: the host runs at most so many steps ahead. */
enum { GPU_STEPS_AHEAD = 4, GPU_NORM_PARTS = 512 };
struct gpu_upload {
    void *memory; /* pinned */
    cudaEvent_t done;
    bool used;
};

struct gpu_branches; /* gpu_branches.cuh */

struct gpu_trainer {
    gpu_branches *branches;
    gpu_weights_list weights;

    /* data; one of the two is set */
    gpu_image_set images;
    const int32_t *token;
    int32_t *label; /* [batch_max][rows of the output] */

    /* loss */
    double *row_loss;  /* [batch_max][rows of the output] */
    double *part_loss; /* [parts_room] */

    /* optimiser */
    bool has_optimizer;
    tern_gpu_optimizer_desc how; /* without `method` */
    double *norm_part;           /* [GPU_NORM_PARTS] */
    gpu_verdict *verdict;
    const gpu_row *row;
    const gpu_chunk *chunk, *statistic_chunk, *matrix_chunk;
    size_t chunks, statistic_chunks, matrix_chunks; /* chunk[]: of sgd, adamw and, at its end, statistics */
    const gpu_row *matrix;
    const uint32_t *matrix_first; /* [matrices + 1]: its first chunk */
    double *chunk_squares;        /* [matrix_chunks][2]: of the update, of the weights */
    gpu_muon_group *group;
    size_t groups;

    /* steps */
    gpu_step_block block; /* on the device */
    void *block_memory;
    size_t block_room, parts_room;
    gpu_upload upload[GPU_STEPS_AHEAD];
    size_t uploads;
    gpu_captured *captured;
    size_t captures, capture_room;
};

/* ---- gpu_trainer.cu */

/* plan->trainer, made now if there is none. */
tern_status gpu_trainer_of(gpu_trainer **out, tern_gpu_plan *plan, tern_error *err);
/* Captured steps have old addresses in them. */
void gpu_trainer_forget_captured(gpu_trainer *trainer);
/* Device memory with a copy of `from`, kept by the plan. */
tern_status gpu_keep_copy(tern_gpu_plan *plan, void **to, const void *from, size_t bytes, const char *op,
                          tern_error *err);

void gpu_trainer_free(tern_gpu_plan *plan);
tern_status gpu_trainer_set_counts(tern_gpu_plan *plan, const tern_gpu_result *counts, tern_error *err);
tern_status gpu_trainer_step(tern_gpu_plan *plan, const tern_gpu_step *step, tern_error *err);
tern_status gpu_trainer_result(tern_gpu_plan *plan, tern_gpu_result *out, tern_error *err);
tern_status gpu_trainer_recalibrate(tern_gpu_plan *plan, const tern_gpu_step *step, int number, tern_error *err);

/* ---- gpu_images.cu */

tern_status gpu_trainer_images(tern_gpu_plan *plan, const tern_gpu_images *images, tern_error *err);
tern_status gpu_trainer_tokens(tern_gpu_plan *plan, const int32_t *token, size_t count, tern_error *err);
/* A part's samples to plan->input, its labels, and what kernels read of the pass. */
tern_status gpu_gather(tern_gpu_plan *plan, size_t part, tern_error *err);

/* ---- gpu_loss.cu */

tern_status gpu_loss_prepare(tern_gpu_plan *plan, tern_error *err);
/* The part's mean loss, and the gradient of the output. */
tern_status gpu_loss(tern_gpu_plan *plan, size_t part, tern_error *err);

/* ---- gpu_optimizer.cu */

tern_status gpu_trainer_set_optimizer(tern_gpu_plan *plan, const tern_gpu_optimizer_desc *desc, tern_error *err);
tern_status gpu_trainer_send_state(tern_gpu_plan *plan, size_t param, const float *first, const float *second,
                                   tern_error *err);
tern_status gpu_trainer_fetch_state(tern_gpu_plan *plan, size_t param, float *first, float *second, tern_error *err);
/* Before the passes: gradients are zero, statistics are saved. */
tern_status gpu_optimizer_begin(tern_gpu_plan *plan, tern_error *err);
/* Behind them: the verdict, and the parameters. */
tern_status gpu_optimizer_step(tern_gpu_plan *plan, size_t parts, tern_error *err);

/* ---- gpu_muon.cu */

/* From the graph's parameters with `method` Muon, whose state has its place. */
tern_status gpu_muon_prepare(tern_gpu_plan *plan, const int32_t *method, tern_error *err);
tern_status gpu_muon_step(tern_gpu_plan *plan, tern_error *err);

#endif
