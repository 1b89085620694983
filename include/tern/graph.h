/* Graphs: a network described once, as a list of nodes in the order of execution.
 *
 * A graph is built by calls that name an operation, its inputs and its attributes; each checks its shapes at once.
 * The first failure is remembered and every later call does nothing, so that a builder reads like the mathematics and
 * asks once, at the end (tern_graph_check). The same graph trains, is exported and runs.
 *
 * Shapes are those of one sample; the batch is a dimension in front that only running a graph knows. Images are
 * [height][width][channels], sequences [tokens][channels], vectors [channels]. All values are fp32 but token numbers,
 * which are int32.
 *
 * Operations (x is the first input, C its last dimension; every attribute left zero takes its default):
 *
 *   linear          y = x W^T + b, W [outputs][C]                     outputs, bias, frozen, init_gain
 *   conv2d          W [outputs][kernel][kernel][C / groups]           outputs, kernel, stride, padding, groups, bias
 *   bit_linear      int8 activations, ternary weights (BitNet b1.58)  outputs, bias, center, granularity
 *   bit_conv2d      the same for images                               and as conv2d
 *   ternary_linear  float activations, ternary weights                outputs, bias, rule, granularity
 *   ternary_conv2d  the same for images                               and as conv2d
 *   trit_linear, trit_conv2d        integers only: the weights are trits behind counters, which a rule trains; int8
 *                   activations, or float ones with floats            and update, group, granularity, slow_exponents
 *                   (quant/trit_groups.h)                             group_rates, group_thresholds, zeros
 *   trit_embedding  a table of trits, each row's steps normalised     outputs, width, update, group, granularity,
 *                   by its own gradients                              group_thresholds, zeros
 *   embedding       rows of a table [outputs = rows][width]           outputs, width
 *   rmsnorm         x / rms(x) * gain over C                          epsilon, plain (no gain)
 *   layernorm       (x - mean) / deviation * gain + bias over C       epsilon
 *   batch_norm      per channel over batch and places                 epsilon, momentum, plain (gain fixed at 1)
 *   affine          x * scale + shift per channel; what batch_norm becomes in a deployed model
 *   relu, relu2, gelu (tanh form), silu                               elementwise; relu2 is relu(x)^2
 *   max_pool, avg_pool                                                kernel, stride, padding (max_pool); kernel 0: all
 *   add, mul        two inputs of one shape
 *   dropout         rate
 *   scale           x * factor
 *   flatten         to one dimension
 *   reshape         the same elements under another shape               dim; one of the sizes may be TERN_REST
 *   attention       causal, from rows of (heads + 2 kv_heads) * head_width: queries, keys, values, after rotary
 *                   embedding in the split-halves form when rope_base > 0       heads, kv_heads, rope_base
 *   packed_linear, packed_conv2d    deployed form of bit_ and ternary_ (acts says which)
 *
 * Every operation with parameters takes `integers` (they are kept as fixed point; a float-free network is one where
 * all are) and `same_as` (the parameters are those of an earlier node). trit_rmsnorm is rmsnorm with integers.
 *
 * docs/training.md and docs/float-free.md have the mathematics, and the rule of each op's gradient. */
#ifndef TERN_GRAPH_H
#define TERN_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "tern/matrix.h"
#include "tern/quant.h"
#include "tern/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_graph tern_graph;

/* A value of a graph: the number of the node that makes it. Negative: none, because something failed before. */
typedef int tern_value;

enum { TERN_MAX_RANK = 3, TERN_NAME_BYTES = 64 };

typedef struct tern_shape {
    int rank; /* 1 .. TERN_MAX_RANK */
    size_t dim[TERN_MAX_RANK];
} tern_shape;

/* The size, in a reshape, that takes what the others leave. */
#define TERN_REST SIZE_MAX

/* How latent weights become trits: absmean with the mean or the median, or the TWN threshold (tern/quant.h). */
typedef enum tern_weight_rule {
    TERN_RULE_DEFAULT = 0, /* bit_ ops: absmean; ternary_ ops: TWN */
    TERN_RULE_ABSMEAN = 1,
    TERN_RULE_ABSMEDIAN = 2,
    TERN_RULE_TWN = 3
} tern_weight_rule;

/* How the integers behind the trits of a trit_ operation learn (docs/float-free.md). */
typedef enum tern_update {
    TERN_UPDATE_DEFAULT = 0, /* r2 */
    TERN_UPDATE_R1 = 1,
    TERN_UPDATE_R2 = 2,
    TERN_UPDATE_VOTE = 3,
    TERN_UPDATE_SEED_CORR = 4,
    TERN_UPDATE_ORTHO = 5 /* r2 with its momentum made orthogonal before each step, as Muon does */
} tern_update;

typedef struct tern_attrs {
    size_t outputs;     /* output features or channels; rows of an embedding */
    size_t width;       /* of an embedding */
    size_t kernel;      /* side of the square window; default 1, of a pool: the whole image */
    size_t stride;      /* default 1, of a pool: the kernel */
    size_t padding;     /* rows and columns of zeros on each side; default 0 */
    size_t groups;      /* default 1; equal to the channels: depthwise */
    size_t heads;       /* attention */
    size_t kv_heads;    /* default: heads */
    int bias;           /* nonzero: with a bias */
    int plain;          /* rmsnorm: no gain. batch_norm: gain fixed at 1 */
    int frozen;         /* nonzero: the weight (not the bias) is not trained */
    int rule;           /* tern_weight_rule */
    int granularity;    /* tern_granularity */
    int acts;           /* packed_ ops: TERN_I8 for those that were bit_, TERN_F32 for those that were ternary_ */
    int update;         /* trit_ ops: tern_update */
    size_t group;       /* trit_ and packed_ ops: columns that share an exponent; 0: as granularity says */
    int floats;         /* trit_ ops: float activations in place of int8 ones */
    int slow_exponents; /* trit_ ops: exponents are trained too, a step in a thousand */
    int group_rates;    /* trit_ ops with r1 or r2: rates of scale groups, in powers of two, follow their gradients */
    int group_thresholds; /* ... : thresholds of scale groups follow `zeros` */
    int zeros;            /* ... : wanted share of zeros in per cent; default 45 */
    int integers;         /* parameters are kept as fixed point */
    size_t same_as;  /* number of an earlier node of the same operation, whose parameters these are; 0: its own */
    float epsilon;   /* default 1e-5 */
    float momentum;  /* batch_norm: share of the new batch in the running statistics; default 0.1 */
    float rope_base; /* e.g. 10000; 0: no rotary embedding */
    float rate;      /* dropout, 0 <= rate < 1 */
    float factor;    /* scale */
    float init_gain; /* initial weights are normal with deviation init_gain / sqrt(fan-in); default 1; -1: zeros */
    size_t dim[TERN_MAX_RANK]; /* reshape: up to the first 0 */
} tern_attrs;

TERN_API tern_status tern_graph_create(tern_graph **out, tern_error *err);
TERN_API void tern_graph_free(tern_graph **graph);

/* The one input. tokens nonzero: int32 token numbers below `vocabulary`, shape [tokens]. */
TERN_API tern_value tern_graph_input(tern_graph *graph, tern_shape shape);
TERN_API tern_value tern_graph_input_tokens(tern_graph *graph, size_t tokens, size_t vocabulary);

/* A node of one or two inputs. name: unique, letters, digits, '_', '-' and '.'. attrs: NULL for all defaults. The
 * last node added is the graph's output. */
TERN_API tern_value tern_graph_add(tern_graph *graph, const char *op, const char *name, tern_value x,
                                   const tern_attrs *attrs);
TERN_API tern_value tern_graph_add2(tern_graph *graph, const char *op, const char *name, tern_value a, tern_value b);

/* The first failure while building, or TERN_OK when the graph is whole: an input and at least one node. */
TERN_API tern_status tern_graph_check(const tern_graph *graph, tern_error *err);

TERN_API size_t tern_graph_nodes(const tern_graph *graph);

typedef struct tern_node_info {
    const char *op, *name; /* owned by the graph */
    int inputs, input[2];
    tern_attrs attrs; /* defaults filled in */
    tern_shape shape; /* of its value */
    size_t parameters;
} tern_node_info;

TERN_API tern_status tern_graph_node(tern_node_info *info, const tern_graph *graph, size_t node, tern_error *err);

#ifdef __cplusplus
}
#endif
#endif
