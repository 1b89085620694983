/* Models: trained graphs in checkpoints, and deployed ones with packed weights. Both open, describe themselves, are
 * evaluated and run by the same calls. */
#ifndef TERN_MODEL_H
#define TERN_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "tern/data.h"
#include "tern/graph.h"
#include "tern/matrix.h"
#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_model tern_model;

/* Reads a checkpoint, or maps a deployed model. Everything in the file is checked first: format, sizes, every byte
 * against the checksum. threads 0: every processor. batch: the most samples of one call; 0 means 1. */
typedef struct tern_model_options {
    size_t batch;
    int threads;
    const char *device; /* NULL or "cpu": the CPU; "cuda", "cuda:N": a GPU; "auto": a GPU where there is one. On a GPU
                           tern_model_run, tern_model_evaluate and tern_model_time run there, and what
                           tern_model_parity runs of a deployed model; everything else on the CPU */
    tern_dtype values;  /* on a GPU: TERN_F32, or TERN_BF16 to keep values and multiply floats in half the bytes */
    int training; /* nonzero, on a GPU: with the memory of a training step, to measure it. Not for packed models */
} tern_model_options;

TERN_API tern_status tern_model_open(tern_model **out, const char *path, const tern_model_options *options,
                                     tern_error *err);
TERN_API void tern_model_close(tern_model **model);

/* A model of the caller's own graph, which it takes over also on failure, with initial weights drawn from `seed`. */
TERN_API tern_status tern_model_create(tern_model **out, tern_graph *graph, uint64_t seed,
                                       const tern_model_options *options, tern_error *err);

/* The same network in fp32, from a checkpoint: its ternary layers as float ones with the weights that they stand for.
 * To measure what its full-precision twin costs. */
TERN_API tern_status tern_model_float_twin(tern_model **out, const tern_model *checkpoint,
                                           const tern_model_options *options, tern_error *err);

typedef struct tern_model_info {
    int packed; /* deployed, not a checkpoint */
    const char *preset;
    tern_data_kind data;
    tern_shape input;
    size_t classes, vocabulary; /* one of them is 0 */
    size_t nodes, parameters;   /* weights of ternary layers are parameters too */
    size_t ternary_parameters;
    size_t float_bytes;  /* what all parameters take as fp32 */
    size_t packed_bytes; /* what they take here: packed trits, scales, fp32 for the rest */
    size_t ternary_float_bytes, ternary_packed_bytes; /* the same of the ternary layers' weights alone */
    size_t trained_weights, state_bytes; /* of a checkpoint: see tern_state_info; of a deployed model 0 */
    size_t activation_bytes;             /* of the plan that runs it on the CPU, with its scratch */
    int device;                          /* the number of the GPU that runs it, or TERN_DEVICE_CPU */
    size_t device_bytes;           /* GPU memory that it keeps: weights, values, scratch and the next; 0 on the CPU */
    size_t device_workspace_bytes; /* of which cuBLASLt's own, where there are products of floats */
} tern_model_info;

TERN_API tern_status tern_model_describe(tern_model_info *info, const tern_model *model, tern_error *err);

/* Its graph, the model's own: for tern_graph_node. */
TERN_API const tern_graph *tern_model_graph(const tern_model *model);

/* Node i's ternary weights; TERN_E_ARGUMENT where it has none. */
typedef struct tern_layer_info {
    const char *name, *op;
    size_t rows, cols, groups; /* of the whole weight */
    tern_packing packing;      /* packed models */
    tern_scale_kind scale_kind;
    size_t scale_count;
    float least_scale, largest_scale;
    size_t minus, zero, plus;
    size_t bytes; /* packed trits and scales */
    double bits_per_weight;
} tern_layer_info;

/* What a checkpoint holds to train node i on: its weights, what their rule or optimiser keeps, running statistics.
 * All 0 where nothing is trained, and in a deployed model. */
typedef struct tern_state_info {
    size_t weights, bytes; /* weights that learn: of a whole-number layer one a trit, whatever its rule keeps */
    double bits_per_weight;
} tern_state_info;

TERN_API tern_status tern_model_state(tern_state_info *info, const tern_model *model, size_t node, tern_error *err);

TERN_API int tern_model_layer_is_ternary(const tern_model *model, size_t node);
TERN_API tern_status tern_model_layer(tern_layer_info *info, const tern_model *model, size_t node, tern_error *err);

TERN_API const char *tern_model_class_name(const tern_model *model, size_t label); /* NULL past the end */

/* outputs[n][...] of n samples, n at most the batch. x: images [n][H][W][C] as pixels 0..255 are normalised by the
 * model: see tern_model_normalise; or int32 tokens [n][T]. */
TERN_API tern_status tern_model_run(float *outputs, tern_model *model, const void *x, size_t n, tern_error *err);
/* Seconds of one forward pass of n samples on the GPU that the model was opened on, input and output in its memory:
 * the median of replays of CUDA graphs over about `seconds`. x as in tern_model_run. cold: nonzero for weights that
 * no cache holds (twice the L2 cache is read between two passes, and its time taken off). A model opened for training
 * is timed as training runs forward, which moves running statistics on. TERN_E_UNSUPPORTED on the CPU: time
 * tern_model_run there. */
TERN_API tern_status tern_model_time(double *pass, tern_model *model, const void *x, size_t n, double seconds,
                                     int cold, tern_error *err);
TERN_API size_t tern_model_outputs(const tern_model *model); /* floats a sample */
TERN_API tern_status tern_model_normalise(float *x, const tern_model *model, const uint8_t *pixels, size_t n,
                                          tern_error *err);

typedef struct tern_accuracy {
    double loss, accuracy; /* mean in nats; share */
    size_t samples;        /* images or tokens */
} tern_accuracy;

/* On a data set of the model's shape. confusion: [classes][classes] true by predicted, added to, or NULL.
 * max_samples 0: all. As the preset's evaluation does it (views: averages over mirrored and shifted images). */
TERN_API tern_status tern_model_evaluate(tern_accuracy *out, tern_model *model, const tern_dataset *dataset,
                                         size_t max_samples, uint64_t *confusion, tern_error *err);

/* ---- export: a trained graph to a deployed one ----------------------------------------------------------------- */

typedef struct tern_export_options {
    tern_packing packing;    /* TERN_PACK_T2 or TERN_PACK_T5 */
    const char *const *skip; /* names of ternary layers to leave in fp32, as q(w); NULL for none */
    size_t skip_count;
    int (*keep)(void *context, const char *layer); /* the same as a predicate: nonzero leaves it; NULL for none */
    void *context;
    int fold_batch_norm; /* fold batch norm into the scales and bias of the packed product in front of it: fewer
                            operations, but its outputs then round differently (about 1e-6 relative), so later integers
                            may differ by one. 0: it becomes an affine op with the same bits as in the trained graph */
} tern_export_options;

/* Writes the deployed form of a checkpoint, atomically. Nothing of training remains in it: dropout is gone, running
 * statistics are scales and shifts, optimiser state stays behind. A layer named in `skip` that is not there is
 * TERN_E_ARGUMENT. */
TERN_API tern_status tern_model_export(const tern_model *checkpoint, const char *path,
                                       const tern_export_options *options, tern_error *err);

/* Gives the layers of whole-number weights of a checkpoint other scale groups: `group` columns that share a scale (6
 * or a multiple of 4), or with 0 one a row or a tensor. Trits stay, and no weight changes where groups are split.
 * Where they are merged the new scale is the power of two nearest to the mean of the kept weights' old ones.
 * TERN_E_UNSUPPORTED, with the layer and the reason, where scales are no powers of two (latent weights, the rule
 * seed-corr) or thresholds of groups would have to merge. After a failure layers before the one that is named may
 * have their new groups already. */
TERN_API tern_status tern_model_regroup(tern_model *checkpoint, tern_granularity granularity, size_t group,
                                        tern_error *err);

/* As tern_model_export, of one layer: the ternary weights of node `node`, trained or deployed, as a matrix of its own
 * to multiply by (tern/matrix.h; the caller's to free). A bit_linear layer computes tern_matmul_quantized(y, matrix,
 * x, bias, ...), a convolution the same of its patches. One matrix: a convolution in groups is TERN_E_UNSUPPORTED. */
TERN_API tern_status tern_model_layer_matrix(tern_matrix **out, const tern_model *model, size_t node,
                                             tern_packing packing, tern_error *err);

/* ---- import: models that others trained ------------------------------------------------------------------------ */

/* Writes the deployed form of a foreign model; the kind is told by its tensors:
 *   bitnetcnn   safetensors of qinhy/BitNetCNN's small MNIST network: int8 trits, a scale a channel, batch norm
 * TERN_E_UNSUPPORTED when it is none of these. */
TERN_API tern_status tern_model_import(const char *source, const char *path, tern_packing packing, tern_error *err);

/* ---- parity: trained is deployed ------------------------------------------------------------------------------- */

typedef struct tern_parity_result {
    size_t samples;
    size_t layers;     /* products whose integer sums were compared */
    uint64_t integers; /* sums compared */
    uint64_t int_mismatches;
    uint64_t int_far;    /* mismatches by more than one step */
    uint64_t int_wrong;  /* on a GPU: sums that are not those of plain C for the activations that the GPU had */
    double max_abs_diff; /* largest difference of two logits */
    size_t answers;      /* argmaxes: images, or tokens */
    size_t argmax_mismatches;
    const char *first_layer; /* first product with a mismatch, owned by the trained model; NULL when none */
    int on_gpu;              /* the deployed model ran there */
    int ok; /* no integer and no answer differs; on a GPU: int_wrong is 0, and at most one answer in 1000 differs */
} tern_parity_result;

/* Runs both on the first max_samples of the data set (0: all) and compares the int32 sums of every int8 product, the
 * logits and the argmax. The trained side quantizes its fp32 weights anew and multiplies with plain C, apart from the
 * kernels that the deployed side uses: those of the CPU, or, of a model opened on a GPU in fp32, those of the GPU.
 * There sums of floats in front of a product are taken in another order, so that an activation at the edge between
 * two integers may become the other one and change the sums that it is part of: docs/numerics.md. */
TERN_API tern_status tern_model_parity(tern_parity_result *out, tern_model *trained, tern_model *deployed,
                                       const tern_dataset *dataset, size_t max_samples, tern_error *err);

/* ---- text ------------------------------------------------------------------------------------------------------ */

typedef struct tern_generate_options {
    size_t tokens;      /* how many to make; 0 means 200 */
    double temperature; /* 0: always the likeliest; about 0.8 reads well */
    size_t top_k;       /* only the k likeliest; 0: all */
    double top_p;       /* only the likeliest that make up this share; 0 or 1: all */
    uint64_t seed;
} tern_generate_options;

/* Goes on from `prompt` (UTF-8; "" starts with a line break where the vocabulary has one). `emit` gets each piece of
 * text as it is made, and stops by returning nonzero. */
TERN_API tern_status tern_model_generate(tern_model *model, const char *prompt, const tern_generate_options *options,
                                         int (*emit)(void *context, const char *text, size_t bytes), void *context,
                                         tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
