/* conv2d  y = patches W^T + b    dW = dy^T patches,  dpatches = dy W, gathered into dx,  db = column sums of dy
 *
 * Patches are made for as many images at a time as keep scratch small. A convolution whose patches are the image
 * itself multiplies it where it lies; one filter a channel goes another way (gpu_depthwise.cuh), and so do the
 * outputs of small patches (gpu_small_patches.cuh, gpu_small_images.cuh) and what Hopper does without any
 * (gpu_conv_wgmma.cuh). Operands are of plan->products in training passes and fp32 in others, as on the CPU. */
#include "gpu/gpu_conv_wgmma.cuh"
#include "gpu/gpu_depthwise.cuh"
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_small_images.cuh"
#include "gpu/gpu_small_patches.cuh"

struct conv_sizes {
    size_t x, w, y, places, c, co, groups;
    size_t n, k;   /* of a group: outputs, and elements of a patch */
    gpu_patches p; /* of group 0 */
    bool in_place; /* patches are the image */
};

static conv_sizes sizes_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    conv_sizes s = {};
    s.p = gpu_patches_of(plan->graph, node, 0);
    s.c = s.p.c;
    s.co = node->channels;
    s.groups = node->at.groups;
    s.n = s.co / s.groups;
    s.k = s.p.kernel * s.p.kernel * s.p.channels;
    s.places = s.p.oh * s.p.ow;
    s.x = batch * s.p.h * s.p.w * s.c;
    s.w = s.co * s.k;
    s.y = batch * s.places * s.co;
    s.in_place = s.p.kernel == 1 && s.p.stride == 1 && !s.p.padding && s.groups == 1;
    return s;
}

/* Elements between rows of patches: those of an image in place, else whole packs of 16 bytes. */
static size_t row_of(const conv_sizes *s, tern_dtype type) {
    return s->in_place ? s->k : gpu_patches_row(s->k, gpu_bytes(type));
}

static size_t patch_room(const conv_sizes *s, tern_dtype type, size_t batch) {
    if (s->in_place) return 0;
    return gpu_patches_images(&s->p, s->k, gpu_bytes(type), batch) * s->places * row_of(s, type) * gpu_bytes(type);
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const conv_sizes s = sizes_of(plan, i, plan->batch_max);
    gpu_want_scratch(plan, gpu_column_sums_scratch(plan, s.co));
    if (gpu_depthwise_fits(plan, i)) {
        gpu_want_scratch(plan, gpu_depthwise_scratch(plan, i));
        return TERN_OK;
    }
    const size_t of_products = patch_room(&s, plan->products, plan->batch_max);
    const size_t of_values = patch_room(&s, plan->type, plan->batch_max);
    gpu_want_scratch(plan, gpu_value_room(plan, s.x) + gpu_weight_room(plan, s.w) + gpu_value_room(plan, s.y) +
                               gpu_round_up(s.n * row_of(&s, plan->products) * sizeof(float), 256) +
                               (of_products > of_values ? of_products : of_values));
    const gpu_conv conv = gpu_conv_of(plan, i, plan->batch_max);
    if (plan->training && gpu_conv_fits(plan, i))
        gpu_want_scratch(plan, gpu_weight_room(plan, s.w) + gpu_conv_weight_scratch(plan, &conv));
    if (plan->training && gpu_small_filters_fit(plan, i)) gpu_want_scratch(plan, gpu_small_filters_scratch(plan, i));
    return gpu_weight_prepare(plan, i, s.w, err);
}

/* Some images and a group. */
struct chunk {
    gpu_patches p;
    size_t image, images, rows;
    size_t w; /* where the group's weights begin, in elements */
    size_t y; /* where the group's outputs of the first place are */
};

/* f(chunk) for all of them, with patches of `type`. */
template <class F>
static tern_status for_chunks(const tern_gpu_plan *plan, size_t i, const conv_sizes *s, tern_dtype type, F f) {
    const size_t most = s->in_place ? plan->batch : gpu_patches_images(&s->p, s->k, gpu_bytes(type), plan->batch);
    for (size_t image = 0; image < plan->batch; image += most)
        for (size_t group = 0; group < s->groups; group++) {
            chunk now = {gpu_patches_of(plan->graph, gpu_graph_node(plan, i), group)};
            now.image = image;
            now.images = plan->batch - image < most ? plan->batch - image : most;
            now.rows = now.images * s->places;
            now.w = group * s->n * s->k;
            now.y = image * s->places * s->co + group * s->n;
            GPU_CHECK(f(now));
        }
    return TERN_OK;
}

static const void *at(const void *array, size_t element, tern_dtype type) {
    return (const char *)array + element * gpu_bytes(type);
}

/* The chunk's patches of x, in `room` if they have to be made. */
static tern_status patches_of(tern_gpu_plan *plan, size_t i, const conv_sizes *s, const chunk *now, tern_dtype type,
                              const void **patches, void *room, const void *x, tern_error *err) {
    *patches = s->in_place ? x : room;
    if (s->in_place) return TERN_OK;
    return gpu_patches_take(plan, i, &now->p, gpu_bytes(type), room, row_of(s, type), x, now->image * s->places,
                            now->rows, err);
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const conv_sizes s = sizes_of(plan, i, plan->batch);
    const tern_dtype type = gpu_operands(plan);
    const float *bias = gpu_graph_node(plan, i)->at.bias ? gpu_node_param(plan, i, 1)->value : NULL;
    char *room = (char *)plan->scratch, *y = (char *)plan->node[i].value;
    const void *x, *w;
    if (gpu_depthwise_fits(plan, i))
        return gpu_depthwise_forward(plan, i, type, y, gpu_in(plan, i, 0), gpu_node_param(plan, i, 0)->value, bias,
                                     room, err);
    if (gpu_small_images_fit(plan, i)) return gpu_small_images_forward(plan, i, bias, err);
    if (gpu_small_patches_fit(plan, i)) return gpu_small_patches_forward(plan, i, type, bias, err);
    GPU_CHECK(gpu_value_operand(plan, i, &x, &room, type, gpu_in(plan, i, 0), s.x / s.c, s.c, err));
    GPU_CHECK(gpu_weight_operand(plan, i, &w, &room, type, s.w, err));
    if (gpu_conv_fits(plan, i)) {
        const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
        GPU_CHECK(gpu_conv_forward(plan, i, &conv, y, x, w, err));
        return bias ? gpu_add_bias(plan, i, y, bias, s.y / s.co, s.co, err) : TERN_OK;
    }
    GPU_CHECK(for_chunks(plan, i, &s, type, [&](const chunk &now) {
        const void *patches;
        gpu_gemm g = {};
        g.operands = type;
        g.result = plan->type;
        g.b_turned = 1;
        g.m = now.rows;
        g.n = s.n;
        g.k = s.k;
        g.lda = row_of(&s, type);
        g.ldc = s.co;
        GPU_CHECK(patches_of(plan, i, &s, &now, type, &patches, room, x, err));
        return gpu_multiply(plan, i, &g, y + now.y * gpu_bytes(plan->type), patches, at(w, now.w, type), err);
    }));
    return bias ? gpu_add_bias(plan, i, y, bias, s.y / s.co, s.co, err) : TERN_OK;
}

static tern_status weight_gradient(tern_gpu_plan *plan, size_t i, const conv_sizes *s, float *dw, const void *dy,
                                   char *room, tern_error *err) {
    const tern_dtype type = plan->products;
    const size_t ld = row_of(s, type);
    const void *x;
    GPU_CHECK(gpu_value_operand(plan, i, &x, &room, type, gpu_in(plan, i, 0), s->x / s->c, s->c, err));
    char *sums = room;
    if (ld != s->k) room += gpu_round_up(s->n * ld * sizeof(float), 256);
    return for_chunks(plan, i, s, type, [&](const chunk &now) {
        const void *patches;
        GPU_CHECK(patches_of(plan, i, s, &now, type, &patches, room, x, err));
        return gpu_weight_product(plan, i, dw + now.w, at(dy, now.y, type), s->co, patches, ld, s->n, s->k, now.rows,
                                  sums, err);
    });
}

static tern_status input_gradient(tern_gpu_plan *plan, size_t i, const conv_sizes *s, void *dx, const void *dy,
                                  char *room, tern_error *err) {
    const tern_dtype type = plan->products;
    const int add = plan->node[i].add_to[0];
    const void *w;
    GPU_CHECK(gpu_weight_operand(plan, i, &w, &room, type, s->w, err));
    return for_chunks(plan, i, s, plan->type, [&](const chunk &now) {
        gpu_gemm g = {};
        g.operands = type;
        g.result = plan->type;
        g.add = s->in_place && add;
        g.m = now.rows;
        g.n = s->k;
        g.k = s->n;
        g.lda = s->co;
        GPU_CHECK(gpu_multiply(plan, i, &g, s->in_place ? dx : room, at(dy, now.y, type), at(w, now.w, type), err));
        return s->in_place ? TERN_OK : gpu_patches_give(plan, i, &now.p, dx, room, now.image, now.images, add, err);
    });
}

/* Values are operands as they are. */
static tern_status direct_backward(tern_gpu_plan *plan, size_t i, const conv_sizes *s, float *dw, void *dx,
                                   tern_error *err) {
    const gpu_conv conv = gpu_conv_of(plan, i, plan->batch);
    const void *dy = plan->node[i].grad, *w;
    char *room = (char *)plan->scratch;
    if (dw) GPU_CHECK(gpu_conv_weight_gradient(plan, i, &conv, dw, dy, gpu_in(plan, i, 0), room, err));
    if (!dx) return TERN_OK;
    GPU_CHECK(gpu_weight_operand(plan, i, &w, &room, plan->products, s->w, err));
    return gpu_conv_input_gradient(plan, i, &conv, dx, plan->node[i].add_to[0], dy, w, NULL, err);
}

static tern_status depthwise_backward(tern_gpu_plan *plan, size_t i, float *dw, void *dx, tern_error *err) {
    const void *dy = plan->node[i].grad;
    if (dw)
        GPU_CHECK(
            gpu_depthwise_weight_gradient(plan, i, plan->products, dw, dy, gpu_in(plan, i, 0), plan->scratch, err));
    if (dx)
        GPU_CHECK(gpu_depthwise_input_gradient(plan, i, plan->products, dx, dy, gpu_node_param(plan, i, 0)->value,
                                               plan->node[i].add_to[0], plan->scratch, err));
    return TERN_OK;
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const conv_sizes s = sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    void *dx = gpu_in_grad(plan, i, 0);
    float *dw = gpu_node_param(plan, i, 0)->grad;
    const void *dy;
    if (gpu_depthwise_fits(plan, i)) {
        GPU_CHECK(depthwise_backward(plan, i, dw, dx, err));
    } else if (gpu_conv_fits(plan, i)) {
        GPU_CHECK(direct_backward(plan, i, &s, dw, dx, err));
    } else {
        GPU_CHECK(gpu_value_operand(plan, i, &dy, &room, plan->products, plan->node[i].grad, s.y / s.co, s.co, err));
        if (dw && gpu_small_filters_fit(plan, i))
            GPU_CHECK(gpu_small_filters_gradient(plan, i, dw, room, err));
        else if (dw)
            GPU_CHECK(weight_gradient(plan, i, &s, dw, dy, room, err));
        if (dx) GPU_CHECK(input_gradient(plan, i, &s, dx, dy, room, err));
    }
    if (!gpu_graph_node(plan, i)->at.bias) return TERN_OK;
    return gpu_column_sums(plan, i, gpu_node_param(plan, i, 1)->grad, plan->node[i].grad, s.y / s.co, s.co,
                           plan->scratch, err);
}

extern const gpu_op gpu_op_conv2d = {"conv2d", prepare, gpu_weight_refresh, forward, backward};
