/* bit_linear, bit_conv2d, ternary_linear, ternary_conv2d, trit_linear, trit_conv2d, packed_linear, packed_conv2d:
 * nn/op_ternary.c's formulas, and of trit_ ones nn/trit_backward.c's.
 *
 * Products of trits run on the kernels of src/cuda, those of float operands on cuBLASLt. A convolution is a product
 * of patches, made for a chunk of images at a time; a window of one pixel needs none. Nothing here takes memory after
 * prepare, so that all of it can be captured. */
#include <string.h>

#include "gpu/gpu_conv_int8.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_quantize.cuh"
#include "gpu/gpu_turned_weights.cuh"
#include "gpu/gpu_weights.cuh"

#include "cuda/device_memory.cuh"

extern const gpu_op gpu_op_bit_linear, gpu_op_bit_conv2d, gpu_op_ternary_linear, gpu_op_ternary_conv2d;
extern const gpu_op gpu_op_trit_linear, gpu_op_trit_conv2d, gpu_op_trit_embedding;

struct ternary_state {
    gpu_weights w;
    bool int8;
    bool plain_gradient; /* dy takes no scales: the activations have theirs, and so have the weights */
    bool windows;        /* patches are made; else rows of the input are those of the product */
    bool direct;         /* gradients are made without patches: gpu_conv_wgmma.cuh */
    int8_t *trits;       /* [rows][columns of weights], where outputs are too: gpu_conv_int8.cuh */
    int8_t *q;           /* [batch][elements of the input], kept for the backward pass; else in scratch */
    float *inv_scale;    /* 1/s, one for each of the batch's `scales` */
    size_t packed_images, float_images; /* of a chunk, in products of trits and of floats */
    gpu_turned_weights turned;          /* where gradients of the input are int8 products */
    /* Where sums are kept: [batch_max][elements of the output], a scale of 1, and the q behind them. */
    float *sums, *one;
    int8_t *seen;
};

static ternary_state *state_of(const tern_gpu_plan *plan, size_t i) { return (ternary_state *)plan->node[i].state; }

const gpu_weights *gpu_node_weights(const tern_gpu_plan *plan, size_t i) {
    const gpu_op *op = plan->node[i].op;
    const bool trained = op == &gpu_op_bit_linear || op == &gpu_op_bit_conv2d || op == &gpu_op_ternary_linear ||
                         op == &gpu_op_ternary_conv2d || op == &gpu_op_trit_linear || op == &gpu_op_trit_conv2d ||
                         op == &gpu_op_trit_embedding;
    return trained ? (const gpu_weights *)plan->node[i].state : NULL; /* of each of them the first member */
}

/* ---- sizes */

struct ternary_sizes {
    size_t x, y;                   /* elements of input and output */
    size_t rows, n, k;             /* output rows; outputs and their weights, of one group */
    size_t groups, columns;        /* columns: outputs of all groups */
    size_t scales, scale_elements; /* activation scales: rows, or images; input elements that share one */
    size_t rows_per_scale;         /* output rows that share one */
    size_t places;                 /* output rows of a sample */
};

static ternary_sizes sizes_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_weights *w = &state_of(plan, i)->w;
    const bool conv = node->at.groups != 0;
    ternary_sizes s = {};
    s.places = node->rows;
    s.rows = batch * node->rows;
    s.columns = node->channels;
    s.groups = w->groups;
    s.n = w->rows / w->groups;
    s.k = w->cols;
    s.x = batch * tern_node_input(plan->graph, node, 0)->elements;
    s.y = s.rows * s.columns;
    s.scales = conv ? batch : s.rows;
    s.scale_elements = s.x / s.scales;
    s.rows_per_scale = conv ? node->rows : 1;
    return s;
}

/* ---- scratch, a piece behind the other */

static size_t room_for(size_t bytes) { return gpu_round_up(bytes, 256); }

static char *take(char **room, size_t bytes) {
    char *taken = *room;
    *room += room_for(bytes);
    return taken;
}

static tern_dtype activations(const tern_gpu_plan *plan, const ternary_state *state) {
    return state->int8 ? TERN_I8 : plan->type;
}

/* Rows of x as the fast kernels want them: whole chunks, 16 bytes of int8. */
static size_t padded(size_t k) { return gpu_round_up(k, TERN_TILE_CHUNK); }
static_assert(TERN_TILE_CHUNK % 16 == 0, "rows of patches begin at 16 bytes");

/* Rows that one product takes: what all kernels of src/cuda do, a multiple of 16. */
static const size_t MOST_ROWS = TERN_FAST_MAX_ROWS / 16 * 16;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t packed_scratch(const tern_gpu_plan *plan, const ternary_state *state, const ternary_sizes &s) {
    const size_t value = gpu_bytes(activations(plan, state));
    const size_t rows = state->windows ? state->packed_images * s.places : s.rows;
    size_t bytes = room_for(state->q ? 0 : s.x) + gpu_quantize_scratch(s.scales, s.scale_elements) +
                   2 * room_for(s.rows * sizeof(float)); /* scales of rows, and of bare sums */
    if (state->windows)
        bytes += room_for(rows * padded(s.k) * value);
    else if (s.k % TERN_TILE_CHUNK)
        bytes += room_for(least(rows, MOST_ROWS) * padded(s.k) * value);
    if (s.groups > 1) bytes += room_for(rows * s.n * gpu_bytes(plan->type));
    return bytes;
}

/* Forward: x, patches. Backward: dy, x, patches or their gradient. */
static size_t float_scratch(const tern_gpu_plan *plan, size_t i, const ternary_state *state, const ternary_sizes &s) {
    const size_t operand = gpu_bytes(plan->products), value = gpu_bytes(plan->type);
    const bool plain = state->plain_gradient && operand == value; /* dy is an operand as it is */
    const size_t widest = operand > value ? operand : value;
    size_t bytes = room_for(plain ? 0 : s.y * operand) + room_for(s.x * operand) +
                   gpu_quantize_scratch(s.scales, s.scale_elements);
    const gpu_conv conv = state->direct ? gpu_conv_of(plan, i, plan->batch_max) : gpu_conv();
    if (state->direct) bytes += gpu_conv_weight_scratch(plan, &conv);
    if (state->windows)
        bytes += room_for(state->float_images * s.places * gpu_patches_row(s.k, operand) * widest) +
                 room_for(s.n * gpu_patches_row(s.k, operand) * sizeof(float));
    const size_t sums = gpu_column_sums_scratch(plan, s.columns);
    return bytes > sums ? bytes : sums;
}

/* dy as int8 and its scales, patches' gradients. */
static size_t int8_gradient_scratch(const tern_gpu_plan *plan, const ternary_state *state, const ternary_sizes &s) {
    const size_t rows = state->windows ? state->float_images * s.places : 0;
    return room_for(s.rows * padded(s.n)) + room_for(s.rows * sizeof(float)) +
           room_for(rows * s.k * gpu_bytes(plan->type));
}

/* Of whole-number weights: what lives beside that, the weights as operand, then their gradient. */
static size_t trit_room(const tern_gpu_plan *plan, const ternary_state *state) {
    const size_t n = state->w.rows * state->w.cols * sizeof(float);
    return room_for(n) + gpu_trits_scratch(&state->w, plan);
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

static tern_status keep_activations(tern_gpu_plan *plan, size_t i, ternary_state *state, tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    const ternary_sizes s = sizes_of(plan, i, plan->batch_max);
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

static void choose_chunks(const tern_gpu_plan *plan, size_t i, ternary_state *state) {
    const tern_node *node = gpu_graph_node(plan, i);
    const tern_attrs &at = node->at;
    state->windows = at.groups && (at.kernel > 1 || at.stride > 1 || at.padding || at.groups > 1);
    if (!state->windows) return;
    const gpu_patches p = gpu_patches_of(plan->graph, node, 0);
    const size_t value = gpu_bytes(activations(plan, state)), k = state->w.cols;
    const size_t whole =
        gpu_bytes(plan->products) > gpu_bytes(plan->type) ? gpu_bytes(plan->products) : gpu_bytes(plan->type);
    const size_t one_product = node->rows < MOST_ROWS ? MOST_ROWS / node->rows : 1;
    state->packed_images = least(gpu_patches_images(&p, padded(k), value, plan->batch_max), one_product);
    state->float_images = gpu_patches_images(&p, k, whole, plan->batch_max);
}

static bool has_int8_gradient(const tern_gpu_plan *plan, size_t i, const ternary_state *state) {
    return plan->training && plan->int8_gradients && gpu_graph_node(plan, i)->op->name[0] == 'b' &&
           state->w.groups == 1 && plan->node[i].wants_grad[0];
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    GPU_CHECK(check(plan, i, err));
    GPU_CHECK(gpu_state(plan, i, sizeof(ternary_state), err));
    ternary_state *state = state_of(plan, i);
    state->int8 = node->op->name[0] == 'b' || (node->op->name[0] == 'p' && node->at.acts == TERN_I8) ||
                  (!strncmp(node->op->name, "trit_", 5) && !node->at.floats);
    /* Products of int8 activations are packed ones, and the weights' operand is for gradients alone. */
    state->plain_gradient = node->op->name[0] == 'b';
    state->w.scaled = state->plain_gradient && node->at.granularity == TERN_PER_ROW;
    GPU_CHECK(gpu_weights_prepare(&state->w, plan, i, err));
    GPU_CHECK(keep_activations(plan, i, state, err));
    choose_chunks(plan, i, state);
    state->direct = state->windows && gpu_conv_fits(plan, i);
    if (state->direct && state->int8 && state->w.operand) {
        void *memory;
        GPU_CHECK(gpu_keep(plan, &memory, state->w.rows * state->w.cols, node->name, err));
        state->trits = (int8_t *)memory;
    }
    const ternary_sizes s = sizes_of(plan, i, plan->batch_max);
    gpu_want_scratch(plan, packed_scratch(plan, state, s));
    if (plan->training)
        gpu_want_scratch(plan,
                         float_scratch(plan, i, state, s) + (state->w.trits.exponent ? trit_room(plan, state) : 0));
    if (!has_int8_gradient(plan, i, state)) return TERN_OK;
    gpu_want_scratch(plan, int8_gradient_scratch(plan, state, s));
    return gpu_turned_prepare(&state->turned, plan, i, &state->w, err);
}

static tern_status refresh(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    GPU_CHECK(gpu_weights_refresh(&state_of(plan, i)->w, plan, i, err));
    if (!state->trits || plan->mixed) return TERN_OK;
    return gpu_conv_int8_trits(plan, i, state->trits, state->w.operand, state->w.rows * state->w.cols, err);
}

static bool is_ternary(const tern_gpu_plan *plan, size_t i) {
    return plan->node[i].op && plan->node[i].op->prepare == prepare;
}

tern_status gpu_ternary_turn(tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (!is_ternary(plan, i) || !state_of(plan, i)->turned.tiles) return TERN_OK;
    return gpu_turned_refresh(&state_of(plan, i)->turned, plan, i, &state_of(plan, i)->w, err);
}

/* ---- forward */

static const float *bias_of(const tern_gpu_plan *plan, size_t i) {
    const tern_node *node = gpu_graph_node(plan, i);
    return node->at.bias ? gpu_node_param(plan, i, node->params - 1)->value : NULL;
}

/* A product of trits: y[m][n] from rows of x. */
struct packed_rows {
    tern_cuda_weights w;
    tern_dtype type; /* of x */
    size_t ldx;
    const float *inv_scale, *bias;
    void *room; /* for rows of x in whole chunks, where ldx is not of such */
    char *y;    /* of all rows */
    bool bare;  /* y is the sum: all scales are 1 */
    bool add;   /* y += */
};

static tern_cuda_weights matrix_of(const ternary_state *state, size_t group, bool bare) {
    tern_cuda_weights w = gpu_weights_matrix(&state->w, group);
    if (!bare) return w;
    w.scale = state->one;
    w.scale_per_row = 0;
    w.exponents = NULL;
    return w;
}

/* Floats go by the rule alone: their sums are those of the kernel. */
static void choose_kernel(tern_device_product *d, const tern_gpu_plan *plan, const tern_cuda_weights *w) {
    const tern_cuda_context *c = plan->context;
    const tern_cuda_limits limits = {c->major, c->minor, c->multiprocessors, c->shared_bytes};
    const tern_cuda_measured *measured = &plan->measured;
    if (d->x_type == TERN_I8 && measured->choose &&
        measured->choose(&d->kernel, &d->variant, measured->table, &limits, w, d))
        return;
    tern_cuda_choose(&d->kernel, &d->variant, &limits, w, d);
}

static tern_status multiply_some(tern_gpu_plan *plan, size_t i, const packed_rows &p, void *y, const void *x,
                                 const float *inv_scale, size_t m, tern_error *err) {
    const size_t k = (size_t)p.w.cols;
    tern_device_product d = {};
    d.x = x;
    d.x_type = p.type;
    d.inv_scale = inv_scale;
    d.m = m;
    d.y = y;
    d.y_type = plan->type;
    d.bias = p.bias;
    d.residual = p.add ? y : NULL;
    choose_kernel(&d, plan, &p.w);
    if (p.ldx % TERN_TILE_CHUNK == 0 || d.kernel == TERN_DEVICE_KERNEL_PLAIN)
        return tern_cuda_multiply(plan->context, &p.w, &d, p.ldx, err);
    GPU_CHECK(gpu_pad_rows(plan, i, gpu_bytes(p.type), p.room, padded(k), x, m, k, err));
    d.x = p.room;
    return tern_cuda_multiply(plan->context, &p.w, &d, padded(k), err);
}

static tern_status multiply(tern_gpu_plan *plan, size_t i, const packed_rows &p, void *y, const void *x, size_t m,
                            tern_error *err) {
    const size_t x_row = p.ldx * gpu_bytes(p.type), y_row = (size_t)p.w.rows * gpu_bytes(plan->type);
    for (size_t first = 0; first < m; first += MOST_ROWS)
        GPU_CHECK(multiply_some(plan, i, p, (char *)y + first * y_row, (const char *)x + first * x_row,
                                p.inv_scale ? p.inv_scale + first : NULL, least(MOST_ROWS, m - first), err));
    return TERN_OK;
}

/* The part of a convolution with images first ... + images. */
static tern_status packed_chunk(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, packed_rows p, const void *x,
                                size_t first, size_t images, char *room, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    const tern_node *node = gpu_graph_node(plan, i);
    const size_t value = gpu_bytes(p.type), result = gpu_bytes(plan->type), rows = images * s.places;
    char *y = p.y + first * s.places * s.columns * result;
    const float *bias = p.bias;
    char *patches = take(&room, rows * padded(s.k) * value);
    char *outputs = take(&room, s.groups > 1 ? rows * s.n * result : 0);
    p.ldx = padded(s.k);
    if (p.inv_scale) p.inv_scale += first * s.places;
    for (size_t g = 0; g < s.groups; g++) {
        const gpu_patches window = gpu_patches_of(plan->graph, node, g);
        GPU_CHECK(gpu_patches_take(plan, i, &window, value, patches, p.ldx, x, first * s.places, rows, err));
        p.w = matrix_of(state, g, p.bare);
        p.bias = bias ? bias + g * s.n : NULL;
        GPU_CHECK(multiply(plan, i, p, s.groups > 1 ? outputs : y, patches, rows, err));
        if (s.groups > 1)
            CUDA_TRY(cudaMemcpy2DAsync(y + g * s.n * result, s.columns * result, outputs, s.n * result, s.n * result,
                                       rows, cudaMemcpyDeviceToDevice, plan->stream),
                     node->name, err);
    }
    return TERN_OK;
}

/* inv_scale: of rows; NULL of float activations. bare: the sums, to where they are kept. */
static tern_status packed_product(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const void *x,
                                  const float *inv_scale, char *room, bool bare, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    packed_rows p = {
        matrix_of(state, 0, bare), activations(plan, state), s.k, inv_scale, NULL, NULL, NULL, bare, false};
    p.bias = bare ? NULL : bias_of(plan, i);
    p.y = (char *)(bare ? state->sums : plan->node[i].value);
    if (bare) {
        float *ones = (float *)take(&room, s.rows * sizeof(float));
        GPU_CHECK(gpu_repeat(plan, i, ones, state->one, s.rows, s.rows, err));
        p.inv_scale = ones;
    }
    if (!state->windows) {
        p.room = room;
        return multiply(plan, i, p, p.y, x, s.rows, err);
    }
    for (size_t first = 0; first < plan->batch; first += state->packed_images)
        GPU_CHECK(packed_chunk(plan, i, s, p, x, first, least(state->packed_images, plan->batch - first), room, err));
    return TERN_OK;
}

/* What a float product multiplies: values of products' type, or of int8 activations q, times inv_scale unless
 * NULL. */
struct float_rows {
    const void *x; /* NULL: patches are made of q */
    const float *inv_scale;
    size_t ld; /* of patches, or of x where it has no windows */
};

/* Takes room unless x is such values already or its patches are made of q; `whole`: they are not. */
static tern_status make_activations(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, bool scaled, bool whole,
                                    float_rows *f, char **room, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    *f = {NULL, scaled ? state->inv_scale : NULL,
          state->windows ? gpu_patches_row(s.k, gpu_bytes(plan->products)) : s.k};
    if (!state->int8) return gpu_value_operand(plan, i, &f->x, room, plan->products, gpu_in(plan, i, 0), 1, s.x, err);
    if (state->windows && !whole) return TERN_OK;
    void *to = take(room, s.x * gpu_bytes(plan->products));
    f->x = to;
    if (!scaled) return gpu_from_int8(plan, i, plan->products, to, state->q, s.x, err);
    return gpu_from_int8_rows(plan, i, plan->products, to, state->q, state->inv_scale, s.scales, s.scale_elements,
                              err);
}

static tern_status make_patches(tern_gpu_plan *plan, size_t i, const float_rows &f, size_t group, char *patches,
                                size_t first, size_t rows, tern_error *err) {
    const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), group);
    if (f.x)
        return gpu_patches_take(plan, i, &window, gpu_bytes(plan->products), patches, f.ld, f.x, first, rows, err);
    return gpu_patches_widen(plan, i, &window, plan->products, patches, f.ld, state_of(plan, i)->q, f.inv_scale,
                             first, rows, err);
}

/* Calls f(group, patches, first row, rows) for every chunk and group of a convolution, or once where it has no
 * windows. */
template <class F>
static tern_status for_patches(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const float_rows &x,
                               char *patches, F f, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    if (!state->windows) return f((size_t)0, x.x, (size_t)0, s.rows);
    for (size_t first = 0; first < plan->batch; first += state->float_images) {
        const size_t begin = first * s.places, rows = least(state->float_images, plan->batch - first) * s.places;
        for (size_t g = 0; g < s.groups; g++) {
            GPU_CHECK(make_patches(plan, i, x, g, patches, begin, rows, err));
            GPU_CHECK(f(g, (const void *)patches, begin, rows));
        }
    }
    return TERN_OK;
}

/* A group's of the weights as operand. */
static const void *operand_of(const tern_gpu_plan *plan, const void *w, const ternary_sizes &s, size_t g) {
    return (const char *)w + g * s.n * s.k * gpu_bytes(plan->products);
}

/* y by a float product: weights mixed with their latents, or float activations in training. */
static tern_status float_product(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    char *room = (char *)plan->scratch;
    float_rows x;
    GPU_CHECK(make_activations(plan, i, s, false, false, &x, &room, err));
    const auto multiply_chunk = [&](size_t g, const void *patches, size_t begin, size_t rows) {
        gpu_gemm m = {};
        m.operands = plan->products;
        m.result = plan->type;
        m.b_turned = 1;
        m.m = rows;
        m.n = s.n;
        m.k = s.k;
        m.lda = x.ld;
        m.ldc = s.columns;
        char *y = (char *)plan->node[i].value + (begin * s.columns + g * s.n) * gpu_bytes(plan->type);
        return gpu_multiply(plan, i, &m, y, patches, operand_of(plan, state->w.operand, s, g), err);
    };
    GPU_CHECK(for_patches(plan, i, s, x, room, multiply_chunk, err));
    gpu_epilogue e = {};
    e.rows = s.rows;
    e.columns = s.columns;
    if (!plan->mixed) { /* the operand is the bare trits */
        e.column_scale = state->w.scale;
        e.one_column_scale = state->w.slices == 1;
    }
    e.row_scale = state->int8 ? state->inv_scale : NULL;
    e.rows_per_scale = s.rows_per_scale;
    e.bias = bias_of(plan, i);
    return gpu_finish(plan, i, &e, plan->node[i].value, err);
}

/* Float activations go the way of the CPU's wherever their type lets them: fp32 ones of a pass that is no training
 * are not rounded to bf16. */
static bool takes_float_product(const tern_gpu_plan *plan, const ternary_state *state) {
    if (!plan->training || state->w.trits.exponent) return false;
    return plan->mixed || (!state->int8 && (plan->train_mode || plan->type == plan->products));
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    ternary_state *state = state_of(plan, i);
    const ternary_sizes s = sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    const void *x = gpu_in(plan, i, 0);
    const float *inv_scale = state->inv_scale;
    const bool floats = takes_float_product(plan, state);
    if (state->int8) {
        int8_t *q = state->q ? state->q : (int8_t *)take(&room, s.x);
        void *largest = take(&room, gpu_quantize_scratch(s.scales, s.scale_elements));
        float *of_rows =
            s.rows_per_scale == 1 || floats || state->trits ? NULL : (float *)take(&room, s.rows * sizeof(float));
        if (!given_int8(plan, i))
            GPU_CHECK(gpu_quantize(plan, i, q, state->inv_scale, of_rows, s.rows_per_scale, x, s.scales,
                                   s.scale_elements, largest, err));
        if (of_rows) inv_scale = of_rows;
        x = q;
    }
    if (floats) return float_product(plan, i, s, err);
    if (state->trits) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        const gpu_conv_scales scales = {state->w.scale, state->w.slices == 1, state->inv_scale, bias_of(plan, i)};
        return gpu_conv_int8_forward(plan, i, &conv, plan->node[i].value, (const int8_t *)x, state->trits, &scales,
                                     err);
    }
    if (state->sums) {
        CUDA_TRY(cudaMemcpyAsync(state->seen, x, s.x, cudaMemcpyDeviceToDevice, plan->stream),
                 gpu_graph_node(plan, i)->name, err);
        GPU_CHECK(packed_product(plan, i, s, x, inv_scale, room, true, err));
    }
    return packed_product(plan, i, s, x, inv_scale, room, false, err);
}

/* ---- sums, in fp32: every integer up to 2^24 is one */

static ternary_state *int8_state(const tern_gpu_plan *plan, size_t i) {
    return is_ternary(plan, i) && state_of(plan, i)->int8 ? state_of(plan, i) : NULL;
}

tern_status gpu_ternary_keep_sums(tern_gpu_plan *plan, size_t i, tern_error *err) {
    enum { LARGEST_ACTIVATION = 128, EXACT = 1 << 24 };
    ternary_state *state = int8_state(plan, i);
    const char *name = gpu_graph_node(plan, i)->name;
    const float one = 1;
    void *memory;
    if (!state || state->sums) return TERN_OK;
    if (state->w.cols > EXACT / LARGEST_ACTIVATION)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: sums of %zu products are not exact in fp32",
                         name, state->w.cols);
    GPU_CHECK(gpu_keep(plan, &memory, sizeof one, name, err));
    state->one = (float *)memory;
    GPU_CHECK(tern_cuda_upload(plan->context, state->one, &one, sizeof one, err));
    GPU_CHECK(gpu_keep(plan, &memory, sizes_of(plan, i, plan->batch_max).x, name, err));
    state->seen = (int8_t *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, gpu_elements_max(plan, i) * sizeof(float), name, err));
    state->sums = (float *)memory;
    return TERN_OK;
}

tern_status gpu_ternary_read_sums(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t i, tern_error *err) {
    const ternary_state *state = int8_state(plan, i);
    const size_t n = gpu_elements(plan, i);
    TERN_CHECK_ARGUMENT(state && state->sums, err, "%s: no sums are kept", gpu_graph_node(plan, i)->name);
    GPU_CHECK(tern_cuda_download(plan->context, sums, state->sums, n * sizeof(float), err));
    for (size_t j = 0; j < n; j++) {
        float v; /* each becomes its integer where it lies */
        memcpy(&v, &sums[j], sizeof v);
        sums[j] = (int32_t)v;
    }
    return tern_cuda_download(plan->context, q, state->seen, sizes_of(plan, i, plan->batch).x, err);
}

/* ---- backward */

/* dy with the scales of its columns as operand; the gradient itself where it is one already. */
static tern_status make_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const float *column_scale,
                                 const void **to, char **room, tern_error *err) {
    *to = plan->node[i].grad;
    if (!column_scale && plan->type == plan->products) return TERN_OK;
    const gpu_operand o = {
        plan->products, s.rows, s.columns, NULL, 1, column_scale, state_of(plan, i)->w.slices == 1};
    void *made = take(room, s.y * gpu_bytes(plan->products));
    *to = made;
    return gpu_make_operand(plan, i, &o, made, plan->node[i].grad, err);
}

/* The columns of a group in rows begin ... of dy as operand. */
static const void *columns_of(const tern_gpu_plan *plan, const void *dy, const ternary_sizes &s, size_t g,
                              size_t begin) {
    return (const char *)dy + (begin * s.columns + g * s.n) * gpu_bytes(plan->products);
}

/* dw += */
static tern_status weight_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, float *dw, char *room,
                                   tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    if (!dw) return TERN_OK;
    const void *dy;
    float_rows x;
    GPU_CHECK(make_gradient(plan, i, s, NULL, &dy, &room, err));
    GPU_CHECK(make_activations(plan, i, s, true, state->direct, &x, &room, err));
    if (state->direct) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        return gpu_conv_weight_gradient(plan, i, &conv, dw, dy, x.x, room, err);
    }
    char *sums = take(&room, state->windows ? s.n * x.ld * sizeof(float) : 0);
    const auto multiply_chunk = [&](size_t g, const void *patches, size_t begin, size_t rows) {
        return gpu_weight_product(plan, i, dw + g * s.n * s.k, columns_of(plan, dy, s, g, begin), s.columns, patches,
                                  x.ld, s.n, s.k, rows, sums, err);
    };
    return for_patches(plan, i, s, x, room, multiply_chunk, err);
}

/* dy as int8 rows. */
struct int8_gradient {
    const int8_t *q;
    const float *inv_scale;
};

static tern_status make_int8_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, int8_gradient *dy,
                                      char **room, tern_error *err) {
    int8_t *q = (int8_t *)take(room, s.rows * padded(s.n));
    float *inv_scale = (float *)take(room, s.rows * sizeof(float));
    *dy = {q, inv_scale};
    return gpu_quantize_gradient(plan, i, q, inv_scale, padded(s.n), plan->node[i].grad,
                                 state_of(plan, i)->turned.column_scale, s.rows, s.n, err);
}

/* dx (+)= of all rows, or the gradient of patches of some. */
static tern_status int8_input_product(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const int8_gradient &dy,
                                      size_t begin, size_t rows, void *to, int add, tern_error *err) {
    packed_rows p = {};
    p.w = state_of(plan, i)->turned.matrix;
    p.type = TERN_I8;
    p.ldx = padded(s.n);
    p.inv_scale = dy.inv_scale + begin;
    p.add = add != 0;
    return multiply(plan, i, p, to, dy.q + begin * p.ldx, rows, err);
}

static tern_status int8_input_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, char *room,
                                       tern_error *err) {
    const ternary_state *state = state_of(plan, i);
    void *dx = gpu_in_grad(plan, i, 0);
    const int add = plan->node[i].add_to[0];
    int8_gradient dy;
    if (!dx) return TERN_OK;
    GPU_CHECK(make_int8_gradient(plan, i, s, &dy, &room, err));
    if (!state->windows) return int8_input_product(plan, i, s, dy, 0, s.rows, dx, add, err);
    const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), 0);
    for (size_t first = 0; first < plan->batch; first += state->float_images) {
        const size_t images = least(state->float_images, plan->batch - first);
        GPU_CHECK(int8_input_product(plan, i, s, dy, first * s.places, images * s.places, room, 0, err));
        GPU_CHECK(gpu_patches_give(plan, i, &window, dx, room, first, images, add, err));
    }
    return TERN_OK;
}

/* What weights lack as operands, where it is one number. */
static const float *factor_of(const tern_gpu_plan *plan, const ternary_state *state) {
    return state->plain_gradient && !state->w.scaled && !plan->mixed ? state->w.scale : NULL;
}

/* dx of a group, or the gradient of its patches. */
static tern_status input_product(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const void *dy, const void *w,
                                 size_t g, size_t begin, size_t rows, void *to, int add, tern_error *err) {
    gpu_gemm m = {};
    m.operands = plan->products;
    m.result = plan->type;
    m.add = add;
    m.factor = factor_of(plan, state_of(plan, i));
    m.m = rows;
    m.n = s.k;
    m.k = s.n;
    m.lda = s.columns;
    return gpu_multiply(plan, i, &m, to, columns_of(plan, dy, s, g, begin), operand_of(plan, w, s, g), err);
}

/* w: the weights as operand; column_scale: what they lack, or NULL. */
static tern_status input_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, const void *w,
                                  const float *column_scale, char *room, tern_error *err) {
    const ternary_state *state = state_of(plan, i);
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
        const size_t images = least(state->float_images, plan->batch - first);
        for (size_t g = 0; g < s.groups; g++) {
            const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), g);
            GPU_CHECK(input_product(plan, i, s, dy, w, g, first * s.places, images * s.places, room, 0, err));
            GPU_CHECK(gpu_patches_give(plan, i, &window, dx, room, first, images, add, err));
        }
    }
    return TERN_OK;
}

static tern_status bias_gradient(tern_gpu_plan *plan, size_t i, const ternary_sizes &s, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    float *db = node->at.bias ? gpu_node_param(plan, i, node->params - 1)->grad : NULL;
    if (!db) return TERN_OK;
    return gpu_column_sums(plan, i, db, plan->node[i].grad, s.rows, s.columns, plan->scratch, err);
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_weights *w = &state_of(plan, i)->w;
    const ternary_sizes s = sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    GPU_CHECK(weight_gradient(plan, i, s, gpu_node_param(plan, i, 0)->grad, room, err));
    if (state_of(plan, i)->turned.tiles && !plan->mixed)
        GPU_CHECK(int8_input_gradient(plan, i, s, room, err));
    else
        GPU_CHECK(input_gradient(plan, i, s, w->operand,
                                 plan->mixed || state_of(plan, i)->plain_gradient ? NULL : w->scale, room, err));
    return bias_gradient(plan, i, s, err);
}

/* Of whole-number weights: dx by the trits of the forward pass, then the gradient, which steps the integers and is
 * gone. Activations stay as they are until the node's turn, so that both are made from what the forward pass had. */
static tern_status trit_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const gpu_weights *w = &state_of(plan, i)->w;
    const ternary_sizes s = sizes_of(plan, i, plan->batch);
    const size_t bytes = w->rows * w->cols * sizeof(float);
    char *room = (char *)plan->scratch, *own = take(&room, bytes);
    if (gpu_in_grad(plan, i, 0)) {
        GPU_CHECK(gpu_trits_operand(w, plan, i, own, err));
        GPU_CHECK(input_gradient(plan, i, s, own, NULL, room, err));
    }
    CUDA_TRY(cudaMemsetAsync(own, 0, bytes, plan->stream), gpu_graph_node(plan, i)->name, err);
    GPU_CHECK(weight_gradient(plan, i, s, (float *)own, room, err));
    GPU_CHECK(gpu_trits_update(w, plan, i, (float *)own, room, err));
    return bias_gradient(plan, i, s, err);
}

#define TERNARY_OP(name, back) extern const gpu_op gpu_op_##name = {#name, prepare, refresh, forward, back}
TERNARY_OP(bit_linear, backward);
TERNARY_OP(bit_conv2d, backward);
TERNARY_OP(ternary_linear, backward);
TERNARY_OP(ternary_conv2d, backward);
TERNARY_OP(trit_linear, trit_backward);
TERNARY_OP(trit_conv2d, trit_backward);
TERNARY_OP(packed_linear, NULL);
TERNARY_OP(packed_conv2d, NULL);
