/* Gradients of a ternary node, by nn/op_ternary.c's formulas, and of whole-number weights by nn/trit_backward.c's: of
 * its input by a float product or one of int8 (gpu_turned_weights.cuh), of its weights and bias. */
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_quantize.cuh"
#include "gpu/gpu_ternary_products.cuh"

/* ---- scratch */

/* Forward: x, patches. Backward: dy, x, patches or their gradient. */
static size_t float_scratch(const tern_gpu_plan *plan, size_t i, const gpu_ternary *state,
                            const gpu_ternary_sizes &s) {
    const size_t operand = gpu_bytes(plan->products), value = gpu_bytes(plan->type);
    const bool plain = state->plain_gradient && operand == value; /* dy is an operand as it is */
    const size_t widest = operand > value ? operand : value;
    size_t bytes = gpu_room(plain ? 0 : s.y * operand) + gpu_room(s.x * operand) +
                   gpu_quantize_scratch(s.scales, s.scale_elements);
    const gpu_conv conv = state->direct ? gpu_conv_of(plan, i, plan->batch_max) : gpu_conv();
    if (state->direct) bytes += gpu_conv_weight_scratch(plan, &conv);
    if (state->windows)
        bytes += gpu_room(state->float_images * s.places * gpu_patches_row(s.k, operand) * widest) +
                 gpu_room(s.n * gpu_patches_row(s.k, operand) * sizeof(float));
    const size_t sums = gpu_column_sums_scratch(plan, s.columns);
    return tern_max_size(bytes, sums);
}

/* dy as int8 and its scales, patches' gradients. */
static size_t int8_gradient_scratch(const tern_gpu_plan *plan, const gpu_ternary *state, const gpu_ternary_sizes &s) {
    const size_t rows = state->windows ? state->float_images * s.places : 0;
    return gpu_room(s.rows * gpu_padded_row(s.n)) + gpu_room(s.rows * sizeof(float)) +
           gpu_room(rows * s.k * gpu_bytes(plan->type));
}

/* Of whole-number weights: what lives beside that, the weights as operand, then their gradient. */
static size_t trit_room(const tern_gpu_plan *plan, const gpu_ternary *state) {
    const size_t n = state->w.rows * state->w.cols * sizeof(float);
    return gpu_room(n) + gpu_trits_scratch(&state->w, plan);
}

size_t gpu_ternary_training_scratch(const tern_gpu_plan *plan, size_t i, const gpu_ternary *state,
                                    const gpu_ternary_sizes &s) {
    const size_t floats = float_scratch(plan, i, state, s) + (state->w.trits.exponent ? trit_room(plan, state) : 0);
    const size_t int8 = state->turned.tiles ? int8_gradient_scratch(plan, state, s) : 0;
    return tern_max_size(floats, int8);
}

/* ---- of the weights */

/* dy with the scales of its columns as operand; the gradient itself where it is one already. */
static tern_status make_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, const float *column_scale,
                                 const void **to, char **room, tern_error *err) {
    *to = plan->node[i].grad;
    if (!column_scale && plan->type == plan->products) return TERN_OK;
    const gpu_operand o = {
        plan->products, s.rows, s.columns, NULL, 1, column_scale, gpu_ternary_of(plan, i)->w.slices == 1};
    void *made = gpu_take(room, s.y * gpu_bytes(plan->products));
    *to = made;
    return gpu_make_operand(plan, i, &o, made, plan->node[i].grad, err);
}

/* The columns of a group in rows begin ... of dy as operand. */
static const void *columns_of(const tern_gpu_plan *plan, const void *dy, const gpu_ternary_sizes &s, size_t g,
                              size_t begin) {
    return (const char *)dy + (begin * s.columns + g * s.n) * gpu_bytes(plan->products);
}

/* dw += */
static tern_status weight_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, float *dw, char *room,
                                   tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    if (!dw) return TERN_OK;
    const void *dy;
    gpu_float_rows x;
    GPU_CHECK(make_gradient(plan, i, s, NULL, &dy, &room, err));
    GPU_CHECK(gpu_float_activations(plan, i, s, true, state->direct, &x, &room, err));
    if (state->direct) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        return gpu_conv_weight_gradient(plan, i, &conv, dw, dy, x.x, room, err);
    }
    char *sums = gpu_take(&room, state->windows ? s.n * x.ld * sizeof(float) : 0);
    const auto multiply_chunk = [&](size_t g, const void *patches, size_t begin, size_t rows) {
        return gpu_weight_product(plan, i, dw + g * s.n * s.k, columns_of(plan, dy, s, g, begin), s.columns, patches,
                                  x.ld, s.n, s.k, rows, sums, err);
    };
    return gpu_for_patches(plan, i, s, x, room, multiply_chunk, err);
}

/* ---- of the input, by int8 */

/* dy as int8 rows. */
struct int8_gradient {
    const int8_t *q;
    const float *inv_scale;
};

static tern_status make_int8_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, int8_gradient *dy,
                                      char **room, tern_error *err) {
    int8_t *q = (int8_t *)gpu_take(room, s.rows * gpu_padded_row(s.n));
    float *inv_scale = (float *)gpu_take(room, s.rows * sizeof(float));
    *dy = {q, inv_scale};
    return gpu_quantize_gradient(plan, i, q, inv_scale, gpu_padded_row(s.n), plan->node[i].grad,
                                 gpu_ternary_of(plan, i)->turned.column_scale, s.rows, s.n, err);
}

/* dx (+)= of all rows, or the gradient of patches of some. */
static tern_status int8_input_product(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s,
                                      const int8_gradient &dy, size_t begin, size_t rows, void *to, int add,
                                      tern_error *err) {
    gpu_packed_rows p = {};
    p.w = gpu_ternary_of(plan, i)->turned.matrix;
    p.type = TERN_I8;
    p.ldx = gpu_padded_row(s.n);
    p.inv_scale = dy.inv_scale + begin;
    p.add = add != 0;
    return gpu_packed_multiply(plan, i, p, to, dy.q + begin * p.ldx, rows, err);
}

static tern_status int8_input_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, char *room,
                                       tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    void *dx = gpu_in_grad(plan, i, 0);
    const int add = plan->node[i].add_to[0];
    int8_gradient dy;
    if (!dx) return TERN_OK;
    GPU_CHECK(make_int8_gradient(plan, i, s, &dy, &room, err));
    if (!state->windows) return int8_input_product(plan, i, s, dy, 0, s.rows, dx, add, err);
    const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), 0);
    for (size_t first = 0; first < plan->batch; first += state->float_images) {
        const size_t images = tern_min_size(state->float_images, plan->batch - first);
        GPU_CHECK(int8_input_product(plan, i, s, dy, first * s.places, images * s.places, room, 0, err));
        GPU_CHECK(gpu_patches_give(plan, i, &window, dx, room, first, images, add, err));
    }
    return TERN_OK;
}

/* ---- of the input, by floats */

/* What weights lack as operands, where it is one number. */
static const float *factor_of(const tern_gpu_plan *plan, const gpu_ternary *state) {
    return state->plain_gradient && !state->w.scaled && !plan->mixed ? state->w.scale : NULL;
}

/* dx of a group, or the gradient of its patches. */
static tern_status input_product(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, const void *dy,
                                 const void *w, size_t g, size_t begin, size_t rows, void *to, int add,
                                 tern_error *err) {
    gpu_gemm m = {};
    m.operands = plan->products;
    m.result = plan->type;
    m.add = add;
    m.factor = factor_of(plan, gpu_ternary_of(plan, i));
    m.m = rows;
    m.n = s.k;
    m.k = s.n;
    m.lda = s.columns;
    return gpu_multiply(plan, i, &m, to, columns_of(plan, dy, s, g, begin), gpu_ternary_operand(plan, w, s, g), err);
}

/* w: the weights as operand; column_scale: what they lack, or NULL. */
static tern_status input_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, const void *w,
                                  const float *column_scale, char *room, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    void *dx = gpu_in_grad(plan, i, 0);
    const int add = plan->node[i].add_to[0];
    if (!dx) return TERN_OK;
    const void *dy;
    GPU_CHECK(make_gradient(plan, i, s, column_scale, &dy, &room, err));
    if (state->direct) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        return gpu_conv_input_gradient(plan, i, &conv, dx, add, dy, w, factor_of(plan, state), err);
    }
    if (!state->windows) return input_product(plan, i, s, dy, w, 0, 0, s.rows, dx, add, err);
    for (size_t first = 0; first < plan->batch; first += state->float_images) {
        const size_t images = tern_min_size(state->float_images, plan->batch - first);
        for (size_t g = 0; g < s.groups; g++) {
            const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), g);
            GPU_CHECK(input_product(plan, i, s, dy, w, g, first * s.places, images * s.places, room, 0, err));
            GPU_CHECK(gpu_patches_give(plan, i, &window, dx, room, first, images, add, err));
        }
    }
    return TERN_OK;
}

/* ---- all of them */

static tern_status bias_gradient(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    float *db = node->at.bias ? gpu_node_param(plan, i, node->params - 1)->grad : NULL;
    if (!db) return TERN_OK;
    return gpu_column_sums(plan, i, db, plan->node[i].grad, s.rows, s.columns, plan->scratch, err);
}

tern_status gpu_ternary_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_weights *w = &gpu_ternary_of(plan, i)->w;
    const gpu_ternary_sizes s = gpu_ternary_sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    GPU_CHECK(weight_gradient(plan, i, s, gpu_node_param(plan, i, 0)->grad, room, err));
    if (gpu_ternary_of(plan, i)->turned.tiles && !plan->mixed)
        GPU_CHECK(int8_input_gradient(plan, i, s, room, err));
    else
        GPU_CHECK(input_gradient(plan, i, s, w->operand,
                                 plan->mixed || gpu_ternary_of(plan, i)->plain_gradient ? NULL : w->scale, room,
                                 err));
    return bias_gradient(plan, i, s, err);
}

/* Of whole-number weights: dx by the trits of the forward pass, then the gradient, which steps the integers and is
 * gone. Activations stay as they are until the node's turn, so that both are made from what the forward pass had. */
tern_status gpu_trit_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_weights *w = &gpu_ternary_of(plan, i)->w;
    const gpu_ternary_sizes s = gpu_ternary_sizes_of(plan, i, plan->batch);
    const size_t bytes = w->rows * w->cols * sizeof(float);
    char *room = (char *)plan->scratch, *own = gpu_take(&room, bytes);
    if (gpu_in_grad(plan, i, 0)) {
        GPU_CHECK(gpu_trits_operand(w, plan, i, own, err));
        GPU_CHECK(input_gradient(plan, i, s, own, NULL, room, err));
    }
    CUDA_TRY(cudaMemsetAsync(own, 0, bytes, plan->stream), gpu_graph_node(plan, i)->name, err);
    GPU_CHECK(weight_gradient(plan, i, s, (float *)own, room, err));
    GPU_CHECK(gpu_trits_update(w, plan, i, (float *)own, room, err));
    return bias_gradient(plan, i, s, err);
}
