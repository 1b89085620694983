/* bit_linear, bit_conv2d, ternary_linear, ternary_conv2d, trit_linear, trit_conv2d, packed_linear, packed_conv2d:
 * nn/op_ternary.c's formulas, and of trit_ ones nn/trit_backward.c's.
 *
 * Products of trits run on the kernels of src/cuda, those of float operands on cuBLASLt. A convolution is a product
 * of patches, made for a chunk of images at a time; a window of one pixel needs none. Nothing here takes memory after
 * prepare, so that all of it can be captured. */
#include <string.h>

#include "gpu/gpu_conv_int8.cuh"
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_quantize.cuh"
#include "gpu/gpu_ternary_products.cuh"
#include "gpu/gpu_unpack_trits.cuh"

extern const gpu_op gpu_op_bit_linear, gpu_op_bit_conv2d, gpu_op_ternary_linear, gpu_op_ternary_conv2d;
extern const gpu_op gpu_op_trit_linear, gpu_op_trit_conv2d, gpu_op_trit_embedding;

const gpu_weights *gpu_node_weights(const tern_gpu_plan *plan, size_t i) {
    const gpu_op *op = plan->node[i].op;
    const bool trained = op == &gpu_op_bit_linear || op == &gpu_op_bit_conv2d || op == &gpu_op_ternary_linear ||
                         op == &gpu_op_ternary_conv2d || op == &gpu_op_trit_linear || op == &gpu_op_trit_conv2d ||
                         op == &gpu_op_trit_embedding;
    return trained ? (const gpu_weights *)plan->node[i].state : NULL; /* of each of them the first member */
}

/* ---- preparation */

static tern_status check(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    if (node->op->name[0] != 'p') return TERN_OK;
    if (!node->packed.bytes)
        return tern_fail(err, TERN_E_DATA, TERN_NO_PLACE, "%s: its packed weights are missing", node->name);
    if (plan->training)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: packed weights cannot be trained", node->name);
    return TERN_OK;
}

int gpu_takes_int8_rows(const tern_node *node) {
    return !strcmp(node->op->name, "bit_linear") ||
           (!strcmp(node->op->name, "packed_linear") && node->at.acts == TERN_I8);
}

/* The norm in front makes the int8 activations. */
static bool given_int8(const tern_gpu_plan *plan, size_t i) {
    return plan->node[gpu_graph_node(plan, i)->input[0]].gives_int8 != 0;
}

static tern_status keep_activations(tern_gpu_plan *plan, size_t i, gpu_ternary *state, tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    const gpu_ternary_sizes s = gpu_ternary_sizes_of(plan, i, plan->batch_max);
    void *memory;
    if (!state->int8) return TERN_OK;
    if (s.scale_elements > INT32_MAX / 2 || s.scales > INT32_MAX)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu activations are too many for a GPU", name, s.x);
    GPU_CHECK(gpu_keep(plan, &memory, s.scales * sizeof(float), name, err));
    plan->node[i].inv_scale = state->inv_scale = (float *)memory;
    if (!plan->training && !given_int8(plan, i)) return TERN_OK;
    GPU_CHECK(gpu_keep(plan, &memory, s.x, name, err));
    plan->node[i].q = state->q = (int8_t *)memory;
    return TERN_OK;
}

static void choose_chunks(const tern_gpu_plan *plan, size_t i, gpu_ternary *state) {
    const tern_node *node = gpu_graph_node(plan, i);
    const tern_attrs &at = node->at;
    state->windows = at.groups && (at.kernel > 1 || at.stride > 1 || at.padding || at.groups > 1);
    if (!state->windows) return;
    const gpu_patches p = gpu_patches_of(plan->graph, node, 0);
    const size_t value = gpu_bytes(gpu_ternary_acts(plan, state)), k = state->w.cols;
    const size_t whole =
        gpu_bytes(plan->products) > gpu_bytes(plan->type) ? gpu_bytes(plan->products) : gpu_bytes(plan->type);
    const size_t one_product = node->rows < GPU_PRODUCT_ROWS ? GPU_PRODUCT_ROWS / node->rows : 1;
    state->packed_images =
        tern_min_size(gpu_patches_images(&p, gpu_padded_row(k), value, plan->batch_max), one_product);
    state->float_images = gpu_patches_images(&p, k, whole, plan->batch_max);
}

static bool has_int8_gradient(const tern_gpu_plan *plan, size_t i, const gpu_ternary *state) {
    return plan->training && plan->int8_gradients && gpu_graph_node(plan, i)->op->name[0] == 'b' &&
           state->w.groups == 1 && plan->node[i].wants_grad[0];
}

/* The products that a kernel would be pinned for, forward and backward. */
static tern_status check_products(tern_gpu_plan *plan, size_t i, const gpu_ternary *state, const gpu_ternary_sizes &s,
                                  tern_error *err) {
    const size_t forward_rows = state->windows ? state->packed_images * s.places : s.rows;
    const size_t backward_rows = state->windows ? state->float_images * s.places : s.rows;
    GPU_CHECK(gpu_packed_check(plan, i, gpu_weights_matrix(&state->w, 0), gpu_ternary_acts(plan, state), forward_rows,
                               err));
    if (!state->turned.tiles) return TERN_OK;
    return gpu_packed_check(plan, i, state->turned.matrix, TERN_I8, backward_rows, err);
}

/* A convolution without patches is no product of the kernels that can be pinned. Its trits come from the operand in
 * training, else from packed weights without exponents. */
static tern_status keep_trits(tern_gpu_plan *plan, size_t i, gpu_ternary *state, tern_error *err) {
    const bool packed = gpu_graph_node(plan, i)->packed.bytes && !state->w.first.exponents;
    void *memory;
    if (!state->direct || !state->int8 || !(state->w.operand || packed) || plan->pinned != TERN_DEVICE_KERNEL_AUTO)
        return TERN_OK;
    GPU_CHECK(gpu_keep(plan, &memory, state->w.rows * state->w.cols, gpu_graph_node(plan, i)->name, err));
    state->trits = (int8_t *)memory;
    return TERN_OK;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(check(plan, i, err));
    GPU_CHECK(gpu_state(plan, i, sizeof(gpu_ternary), err));
    gpu_ternary *state = gpu_ternary_of(plan, i);
    state->int8 = node->op->name[0] == 'b' || (node->op->name[0] == 'p' && node->at.acts == TERN_I8) ||
                  (!strncmp(node->op->name, "trit_", 5) && !node->at.floats);
    /* Products of int8 activations are packed ones, and the weights' operand is for gradients alone. */
    state->plain_gradient = node->op->name[0] == 'b';
    state->w.scaled = state->plain_gradient && node->at.granularity == TERN_PER_ROW;
    GPU_CHECK(gpu_weights_prepare(&state->w, plan, i, err));
    GPU_CHECK(keep_activations(plan, i, state, err));
    choose_chunks(plan, i, state);
    state->direct = state->windows && gpu_conv_fits(plan, i);
    GPU_CHECK(keep_trits(plan, i, state, err));
    const gpu_ternary_sizes s = gpu_ternary_sizes_of(plan, i, plan->batch_max);
    gpu_want_scratch(plan, gpu_packed_scratch(plan, state, s));
    if (has_int8_gradient(plan, i, state)) GPU_CHECK(gpu_turned_prepare(&state->turned, plan, i, &state->w, err));
    if (plan->training) gpu_want_scratch(plan, gpu_ternary_training_scratch(plan, i, state, s));
    return check_products(plan, i, state, s, err);
}

static tern_status refresh(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    GPU_CHECK(gpu_weights_refresh(&gpu_ternary_of(plan, i)->w, plan, i, err));
    if (!state->trits || plan->mixed) return TERN_OK;
    if (!state->w.operand) return gpu_unpack_trits(plan, i, state->trits, state->w.first, err);
    return gpu_conv_int8_trits(plan, i, state->trits, state->w.operand, state->w.rows * state->w.cols, err);
}

gpu_ternary *gpu_ternary_find(const tern_gpu_plan *plan, size_t i) {
    return plan->node[i].op && plan->node[i].op->prepare == prepare ? gpu_ternary_of(plan, i) : NULL;
}

tern_status gpu_ternary_turn(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_find(plan, i);
    if (!state || !state->turned.tiles) return TERN_OK;
    return gpu_turned_refresh(&state->turned, plan, i, &state->w, err);
}

/* ---- forward */

/* Float activations go the way of the CPU's wherever their type lets them: fp32 ones of a pass that is no training
 * are not rounded to bf16. */
static bool takes_float_product(const tern_gpu_plan *plan, const gpu_ternary *state) {
    if (!plan->training || state->w.trits.exponent) return false;
    return plan->mixed || (!state->int8 && (plan->train_mode || plan->type == plan->products));
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    gpu_ternary *state = gpu_ternary_of(plan, i);
    const gpu_ternary_sizes s = gpu_ternary_sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    const void *x = gpu_in(plan, i, 0);
    const float *inv_scale = state->inv_scale;
    const bool floats = takes_float_product(plan, state);
    if (gpu_quantizes_within(plan, i, s)) return gpu_packed_of_floats(plan, i, s, err);
    if (state->int8) {
        int8_t *q = state->q ? state->q : (int8_t *)gpu_take(&room, s.x);
        void *largest = gpu_take(&room, gpu_quantize_scratch(s.scales, s.scale_elements));
        float *of_rows =
            s.rows_per_scale == 1 || floats || state->trits ? NULL : (float *)gpu_take(&room, s.rows * sizeof(float));
        if (!given_int8(plan, i))
            GPU_CHECK(gpu_quantize(plan, i, q, state->inv_scale, of_rows, s.rows_per_scale, x, s.scales,
                                   s.scale_elements, largest, err));
        if (of_rows) inv_scale = of_rows;
        x = q;
    }
    if (floats) return gpu_float_product(plan, i, s, err);
    if (state->trits) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        const gpu_conv_scales scales = {state->w.first.scale, !state->w.first.scale_per_row, state->inv_scale,
                                        gpu_ternary_bias(plan, i)};
        return gpu_conv_int8_forward(plan, i, &conv, plan->node[i].value, (const int8_t *)x, state->trits, &scales,
                                     err);
    }
    if (state->sums) {
        CUDA_TRY(cudaMemcpyAsync(state->seen, x, s.x, cudaMemcpyDeviceToDevice, plan->stream),
                 gpu_graph_node(plan, i)->name, err);
        GPU_CHECK(gpu_packed_product(plan, i, s, x, inv_scale, room, true, err));
    }
    return gpu_packed_product(plan, i, s, x, inv_scale, room, false, err);
}

#define TERNARY_OP(name, back) extern const gpu_op gpu_op_##name = {#name, prepare, refresh, forward, back}
TERNARY_OP(bit_linear, gpu_ternary_backward);
TERNARY_OP(bit_conv2d, gpu_ternary_backward);
TERNARY_OP(ternary_linear, gpu_ternary_backward);
TERNARY_OP(ternary_conv2d, gpu_ternary_backward);
TERNARY_OP(trit_linear, gpu_trit_backward);
TERNARY_OP(trit_conv2d, gpu_trit_backward);
TERNARY_OP(packed_linear, NULL);
TERNARY_OP(packed_conv2d, NULL);
