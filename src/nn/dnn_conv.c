#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "nn/dense.h"
#include "nn/dnn.h"
#include "nn/dnn_context.h"
#include "nn/parts.h"

typedef enum conv_pass { FORWARD = 0, BACKWARD_DATA = 1, BACKWARD_WEIGHTS = 2, PASSES = 3 } conv_pass;

/* One pass over `images` images, and the reorder between our weights and the layout that it chose. */
typedef struct conv_part {
    size_t images;
    tern_primitive run, reorder;
    tern_block weights; /* in its layout; BACKWARD_WEIGHTS: one a lane, then one to read the reordered sum from */
    size_t weight_bytes;
} conv_part;

/* A batch is cut into parts: whole ones of one size and a rest; a training batch and the last batch of an evaluation
 * make four sizes. When more come, the oldest makes room. */
enum { CONV_PARTS = 6, DATA_PARTS = 16, WEIGHT_LANES = 8 };

struct tern_conv {
    tern_dnn *dnn;
    tern_conv_desc d;
    conv_part part[PASSES][CONV_PARTS];
    int next[PASSES];
    tern_block rooms; /* of gather_weights: lanes of sums, then a room for patches a thread */
};

tern_status tern_conv_create(tern_conv **out, tern_dnn *dnn, const tern_conv_desc *desc, tern_error *err) {
    *out = calloc(1, sizeof **out);
    if (!*out) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a convolution");
    (*out)->dnn = dnn;
    (*out)->d = *desc;
    return TERN_OK;
}

static void free_part(conv_part *p) {
    if (p->run.primitive) dnnl_primitive_destroy(p->run.primitive);
    if (p->reorder.primitive) dnnl_primitive_destroy(p->reorder.primitive);
    tern_block_free(&p->weights);
    *p = (conv_part){0};
}

void tern_conv_free(tern_conv **conv) {
    if (!*conv) return;
    for (int pass = 0; pass < PASSES; pass++)
        for (int i = 0; i < CONV_PARTS; i++) free_part(&(*conv)->part[pass][i]);
    tern_block_free(&(*conv)->rooms);
    free(*conv);
    *conv = NULL;
}

/* Weights as memory: "ours" is [co][kernel][kernel][ci / groups]; otherwise the primitive chooses. */
static int describe_weights(tern_conv *conv, dnnl_memory_desc_t *md, dnnl_data_type_t type, int ours) {
    const tern_conv_desc *d = &conv->d;
    dnnl_dim_t g = (dnnl_dim_t)d->groups, o = (dnnl_dim_t)d->co / g, i = (dnnl_dim_t)d->ci / g,
               k = (dnnl_dim_t)d->kernel;
    dnnl_dims_t plain = {o, i, k, k}, grouped = {g, o, i, k, k};
    dnnl_format_tag_t tag = !ours ? dnnl_format_tag_any : g > 1 ? dnnl_gohwi : dnnl_ohwi;
    return tern_dnn_ok(conv->dnn, g > 1 ? dnnl_memory_desc_init_by_tag(md, 5, grouped, type, tag)
                                        : dnnl_memory_desc_init_by_tag(md, 4, plain, type, tag));
}

typedef struct conv_memory {
    dnnl_memory_desc_t x, w, y;
} conv_memory;

/* dx, dw and y are fp32, whatever the operands are. */
static int describe(tern_conv *conv, conv_memory *m, conv_pass pass, size_t images) {
    const tern_conv_desc *d = &conv->d;
    dnnl_data_type_t type = d->dtype == TERN_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t x = {(dnnl_dim_t)images, (dnnl_dim_t)d->ci, (dnnl_dim_t)d->h, (dnnl_dim_t)d->w};
    dnnl_dims_t y = {(dnnl_dim_t)images, (dnnl_dim_t)d->co, (dnnl_dim_t)d->oh, (dnnl_dim_t)d->ow};
    return tern_dnn_ok(conv->dnn, dnnl_memory_desc_init_by_tag(&m->x, 4, x, pass == BACKWARD_DATA ? dnnl_f32 : type,
                                                               dnnl_nhwc)) &&
           tern_dnn_ok(conv->dnn,
                       dnnl_memory_desc_init_by_tag(&m->y, 4, y, pass == FORWARD ? dnnl_f32 : type, dnnl_nhwc)) &&
           describe_weights(conv, &m->w, pass == BACKWARD_WEIGHTS ? dnnl_f32 : type, 0);
}

static dnnl_primitive_desc_t describe_pass(tern_conv *conv, const conv_memory *m, conv_pass pass, size_t images) {
    const tern_conv_desc *d = &conv->d;
    dnnl_dim_t s = (dnnl_dim_t)d->stride, before = (dnnl_dim_t)d->padding;
    /* What the window reaches behind the image; less than `padding` where the stride does not divide. */
    dnnl_dim_t after_h = ((dnnl_dim_t)d->oh - 1) * s + (dnnl_dim_t)d->kernel - (dnnl_dim_t)d->h - before;
    dnnl_dim_t after_w = ((dnnl_dim_t)d->ow - 1) * s + (dnnl_dim_t)d->kernel - (dnnl_dim_t)d->w - before;
    dnnl_dims_t strides = {s, s}, left = {before, before}, right = {after_h, after_w};
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t pd = NULL, hint = NULL;
    tern_dnn *dnn = conv->dnn;
    dnnl_primitive_attr_t attr = tern_dnn_attr(dnn, 0);
    const dnnl_alg_kind_t direct = dnnl_convolution_direct;
    if (pass == FORWARD) {
        if (tern_dnn_ok(dnn, dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, direct, &m->x, &m->w,
                                                                NULL, &m->y, strides, left, right)))
            tern_dnn_ok(dnn, dnnl_primitive_desc_create(&pd, &desc, attr, dnn->engine, NULL));
    } else {
        /* The backward passes want to know the forward one. */
        conv_memory f;
        int ok = describe(conv, &f, FORWARD, images) &&
                 tern_dnn_ok(dnn, dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, direct, &f.x, &f.w,
                                                                     NULL, &f.y, strides, left, right)) &&
                 tern_dnn_ok(dnn, dnnl_primitive_desc_create(&hint, &desc, attr, dnn->engine, NULL));
        if (ok)
            ok = tern_dnn_ok(dnn, pass == BACKWARD_DATA
                                      ? dnnl_convolution_backward_data_desc_init(&desc, direct, &m->x, &m->w, &m->y,
                                                                                 strides, left, right)
                                      : dnnl_convolution_backward_weights_desc_init(&desc, direct, &m->x, &m->w, NULL,
                                                                                    &m->y, strides, left, right));
        if (ok) tern_dnn_ok(dnn, dnnl_primitive_desc_create(&pd, &desc, attr, dnn->engine, hint));
        if (hint) dnnl_primitive_desc_destroy(hint);
    }
    if (attr) dnnl_primitive_attr_destroy(attr);
    return pd;
}

static void make_reorder(tern_conv *conv, conv_part *p, conv_pass pass, const dnnl_memory_desc_t *theirs) {
    tern_dnn *dnn = conv->dnn;
    dnnl_memory_desc_t ours;
    dnnl_primitive_desc_t pd = NULL;
    if (!describe_weights(conv, &ours, theirs->data_type, 1)) return;
    p->reorder.args = 2;
    p->reorder.arg[0] = DNNL_ARG_FROM;
    p->reorder.arg[1] = DNNL_ARG_TO;
    p->reorder.md[0] = pass == BACKWARD_WEIGHTS ? *theirs : ours;
    p->reorder.md[1] = pass == BACKWARD_WEIGHTS ? ours : *theirs;
    dnnl_primitive_attr_t attr = tern_dnn_attr(dnn, 0);
    if (tern_dnn_ok(dnn, dnnl_reorder_primitive_desc_create(&pd, &p->reorder.md[0], dnn->engine, &p->reorder.md[1],
                                                            dnn->engine, attr)))
        tern_dnn_finish(dnn, &p->reorder, pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
}

static void make_part(tern_conv *conv, conv_part *p, conv_pass pass, size_t images) {
    static const int args[PASSES][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                        {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
                                        {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST}};
    conv_memory m;
    if (!describe(conv, &m, pass, images)) return;
    dnnl_primitive_desc_t pd = describe_pass(conv, &m, pass, images);
    if (!pd) return;
    m.w = *dnnl_primitive_desc_query_md(
        pd, pass == BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    p->run.args = 3;
    memcpy(p->run.arg, args[pass], sizeof p->run.arg);
    p->run.md[0] = m.x;
    p->run.md[1] = m.w;
    p->run.md[2] = m.y;
    tern_dnn_finish(conv->dnn, &p->run, pd);
    make_reorder(conv, p, pass, &m.w);
    p->weight_bytes = tern_round_up(dnnl_memory_desc_get_size(&m.w), 64);
    size_t ours = tern_round_up(conv->d.co * conv->d.kernel * conv->d.kernel * conv->d.ci / conv->d.groups * 4, 64);
    if (!tern_block_alloc(&p->weights,
                          pass == BACKWARD_WEIGHTS ? WEIGHT_LANES * p->weight_bytes + ours : p->weight_bytes))
        tern_dnn_ok(conv->dnn, dnnl_out_of_memory);
    p->images = images;
}

/* NULL when it could not be made. keep: a part that must not make room, or NULL. Not thread-safe. */
static conv_part *find_part(tern_conv *conv, conv_pass pass, size_t images, const conv_part *keep) {
    if (conv->dnn->failed) return NULL; /* the scratch of what was made before may be gone */
    for (int i = 0; i < CONV_PARTS; i++)
        if (conv->part[pass][i].images == images) return &conv->part[pass][i];
    conv_part *p = &conv->part[pass][conv->next[pass]++ % CONV_PARTS];
    if (p == keep) p = &conv->part[pass][conv->next[pass]++ % CONV_PARTS];
    free_part(p);
    int threads = tern_dnn_one_thread();
    make_part(conv, p, pass, images);
    tern_dnn_restore_threads(threads);
    return p->images && !conv->dnn->failed ? p : NULL;
}

static size_t operand_bytes(const tern_conv *conv) { return conv->d.dtype == TERN_BF16 ? 2 : 4; }
static size_t x_elements(const tern_conv *conv) { return conv->d.h * conv->d.w * conv->d.ci; }
static size_t y_elements(const tern_conv *conv) { return conv->d.oh * conv->d.ow * conv->d.co; }

/* FORWARD and BACKWARD_DATA: the same walk with source and target exchanged. */
static void run_data(tern_conv *conv, conv_pass pass, size_t batch, float *to, const void *from, const void *w) {
    if (!batch) return;
    tern_dnn *dnn = conv->dnn;
    size_t images = tern_ceil_div(batch, DATA_PARTS), parts = tern_ceil_div(batch, images);
    size_t last = batch - (parts - 1) * images;
    conv_part *whole = find_part(conv, pass, images, NULL);
    conv_part *rest = whole ? find_part(conv, pass, last, whole) : NULL;
    if (!rest) return;
    tern_dnn_run(dnn, &whole->reorder, (const void *[]){w, whole->weights.data, NULL}, 0);
    if (rest != whole) tern_dnn_run(dnn, &rest->reorder, (const void *[]){w, rest->weights.data, NULL}, 0);

    size_t x_stride = x_elements(conv) * (pass == FORWARD ? operand_bytes(conv) : 4);
    size_t y_stride = y_elements(conv) * (pass == FORWARD ? 4 : operand_bytes(conv));
#pragma omp parallel for schedule(static) num_threads(tern_team(dnn->threads, parts, 1))
    for (size_t i = 0; i < parts; i++) {
        const conv_part *p = i + 1 < parts ? whole : rest;
        const char *x = pass == FORWARD ? (const char *)from : (const char *)to;
        const char *y = pass == FORWARD ? (const char *)to : (const char *)from;
        const void *data[3] = {x + i * images * x_stride, p->weights.data, y + i * images * y_stride};
        tern_dnn_run(dnn, &p->run, data, omp_get_thread_num());
    }
}

void tern_conv_forward(tern_conv *conv, size_t batch, float *y, const void *x, const void *w) {
    run_data(conv, FORWARD, batch, y, x, w);
}

void tern_conv_backward_data(tern_conv *conv, size_t batch, float *dx, const void *dy, const void *w) {
    run_data(conv, BACKWARD_DATA, batch, dx, dy, w);
}

/* The sums of lanes 1 .. lanes - 1 into those of lane 0, in order. */
static void add_lanes(const tern_dnn *dnn, float *sums, size_t lanes, size_t stride, size_t floats) {
    TERN_FOR_PARTS(dnn->threads, floats, 4096, begin, end)
    for (size_t lane = 1; lane < lanes; lane++) {
        const float *from = sums + lane * stride;
        for (size_t i = begin; i < end; i++) sums[i] += from[i];
    }
}

static size_t weights_of(const tern_conv *conv) {
    return conv->d.co * conv->d.kernel * conv->d.kernel * (conv->d.ci / conv->d.groups);
}

/* On small images oneDNN's kernel for weight gradients leaves most of a matrix unit's tile empty (7 x 7: 0.4 TFLOP/s
 * of bf16 on one core, 3 x 3: 0.2). Patches gathered into cache and one matrix product for each few of them reach
 * twice that and more. */
static int gathers_weights(const tern_conv *conv) {
    return conv->d.dtype == TERN_BF16 && conv->d.groups == 1 && conv->d.ow <= 8;
}

enum { GATHERED_ROWS = 256 };

static void gather_weights(tern_conv *conv, size_t batch, float *dw, const void *x, const void *dy) {
    tern_dnn *dnn = conv->dnn;
    const tern_conv_desc *d = &conv->d;
    size_t k = d->kernel * d->kernel * d->ci, floats = tern_round_up(d->co * k, 16), rows = batch * d->oh * d->ow;
    size_t room = GATHERED_ROWS * k * 2, lane_rows = tern_ceil_div(rows, WEIGHT_LANES);
    size_t lanes = tern_ceil_div(rows, lane_rows),
           bytes = lanes * floats * sizeof(float) + (size_t)dnn->threads * room;
    if (conv->rooms.bytes < bytes) {
        tern_block_free(&conv->rooms);
        if (!tern_block_alloc(&conv->rooms, bytes)) {
            tern_dnn_ok(dnn, dnnl_out_of_memory);
            return;
        }
    }
    float *sums = conv->rooms.data;
    char *patches = (char *)(sums + lanes * floats);
    const tern_patches p = {.bytes = 2,
                            .h = d->h,
                            .w = d->w,
                            .c = d->ci,
                            .oh = d->oh,
                            .ow = d->ow,
                            .kernel = d->kernel,
                            .stride = d->stride,
                            .padding = d->padding,
                            .channels = d->ci};
    /* Whole turns, and the last ones of a lane and of the last lane. */
    size_t last_lane = rows - (lanes - 1) * lane_rows;
    const size_t lengths[3] = {GATHERED_ROWS, lane_rows % GATHERED_ROWS, last_lane % GATHERED_ROWS};
    const tern_primitive *product[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3; i++) {
        const tern_gemm g = {.dtype = TERN_BF16,
                             .transpose_a = 1,
                             .accumulate = 1,
                             .m = d->co,
                             .n = k,
                             .k = lengths[i],
                             .lda = d->co,
                             .ldb = k,
                             .ldc = k};
        if (lengths[i] && !(product[i] = tern_dnn_find_gemm(dnn, &g))) return;
    }
#pragma omp parallel for schedule(static) num_threads(tern_team(dnn->threads, lanes, 1))
    for (size_t lane = 0; lane < lanes; lane++) {
        size_t end = tern_min_size((lane + 1) * lane_rows, rows), n;
        char *mine = patches + (size_t)omp_get_thread_num() * room;
        memset(sums + lane * floats, 0, floats * sizeof *sums);
        for (size_t row = lane * lane_rows; row < end; row += n) {
            n = tern_min_size(GATHERED_ROWS, end - row);
            const tern_primitive *run = n == GATHERED_ROWS ? product[0] : product[lane + 1 < lanes ? 1 : 2];
            tern_patches_take(&p, mine, x, row, n);
            const void *data[3] = {(const char *)dy + row * d->co * 2, mine, sums + lane * floats};
            tern_dnn_run(dnn, run, data, omp_get_thread_num());
        }
    }
    add_lanes(dnn, sums, lanes, floats, floats);
    tern_add_into(dnn->threads, dw, sums, weights_of(conv));
}

void tern_conv_backward_weights(tern_conv *conv, size_t batch, float *dw, const void *x, const void *dy) {
    if (!batch) return;
    if (gathers_weights(conv)) {
        gather_weights(conv, batch, dw, x, dy);
        return;
    }
    tern_dnn *dnn = conv->dnn;
    /* Each lane sums over its own images; the lanes' sums are then added in order. The rest needs a layout of its own
     * only as long as both parts chose the same: they do, since the layout follows from the channels. */
    size_t images = tern_ceil_div(batch, WEIGHT_LANES), parts = tern_ceil_div(batch, images);
    size_t last = batch - (parts - 1) * images;
    conv_part *whole = find_part(conv, BACKWARD_WEIGHTS, images, NULL);
    conv_part *rest = whole ? find_part(conv, BACKWARD_WEIGHTS, last, whole) : NULL;
    if (!rest) return;
    if (!dnnl_memory_desc_equal(&whole->run.md[1], &rest->run.md[1])) {
        tern_dnn_ok(dnn, dnnl_unimplemented);
        return;
    }
    size_t x_stride = x_elements(conv) * operand_bytes(conv), y_stride = y_elements(conv) * operand_bytes(conv);
    char *lanes = whole->weights.data;
#pragma omp parallel for schedule(static) num_threads(tern_team(dnn->threads, parts, 1))
    for (size_t i = 0; i < parts; i++) {
        const void *data[3] = {(const char *)x + i * images * x_stride, lanes + i * whole->weight_bytes,
                               (const char *)dy + i * images * y_stride};
        tern_dnn_run(dnn, i + 1 < parts ? &whole->run : &rest->run, data, omp_get_thread_num());
    }

    size_t floats = whole->weight_bytes / sizeof(float);
    float *sum = whole->weights.data;
    add_lanes(dnn, sum, parts, floats, floats);
    float *ours = (float *)(lanes + WEIGHT_LANES * whole->weight_bytes);
    tern_dnn_run(dnn, &whole->reorder, (const void *[]){sum, ours, NULL}, 0);
    tern_add_into(dnn->threads, dw, ours, weights_of(conv));
}
