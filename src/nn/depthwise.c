#include "nn/depthwise.h"

#include "base/checked.h"
#include "base/clones.h"
#include "base/error.h"
#include "nn/op_weights.h"
#include "nn/parts.h"
#include "tern/pack.h"

/* An int16 holds |sum| <= 128 * LARGEST^2. */
enum { LARGEST = 15, CHUNK = 64 };

/* ---- weights */

/* trits: [channels][kernel * kernel] from channel `first` on; scales: 1 or as many as channels. */
static void lay_out(tern_depthwise *dw, size_t first, size_t channels, const int8_t *trits, const float *scales,
                    int scale_each) {
    size_t area = dw->d.kernel * dw->d.kernel, all = dw->d.ci;
    for (size_t c = 0; c < channels; c++) {
        dw->scales[first + c] = scales[scale_each ? c : 0];
        for (size_t p = 0; p < area; p++)
            if (dw->int8)
                ((int16_t *)dw->weights)[p * all + first + c] = trits[c * area + p];
            else
                ((float *)dw->weights)[p * all + first + c] = (float)trits[c * area + p];
    }
}

/* Each channel is a packed matrix of one row. */
static tern_status unpack(tern_depthwise *dw, const tern_packed *p, tern_error *err) {
    int8_t trits[LARGEST * LARGEST];
    size_t bytes = p->byte_count / p->matrices;
    int each = p->scale_kind == TERN_SCALE_ROW;
    for (size_t c = 0; c < p->matrices; c++) {
        TERN_TRY(tern_unpack(trits, p->packing, p->bytes + c * bytes, bytes, p->rows, p->cols, err));
        lay_out(dw, c, 1, trits, p->scales + (each ? c : 0), each);
    }
    return TERN_OK;
}

/* One filter a channel, small enough, of trits that are at hand, with a scale per tensor or channel. */
static int serves(const tern_plan *plan, size_t i, const tern_ternary_weights *w) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    int at_hand = node->packed.bytes ? node->packed.scale_kind != TERN_SCALE_GROUP_EXP : w->trits != NULL;
    return plan->tier != TERN_TIER_SCALAR && at_hand && node->at.groups == w->rows &&
           node->at.groups == tern_node_input(plan->graph, node, 0)->channels && node->at.kernel <= LARGEST;
}

tern_status tern_depthwise_prepare(tern_depthwise *out, tern_plan *plan, size_t i, const tern_ternary_weights *w,
                                   int int8, tern_error *err) {
    const tern_node *node = tern_plan_graph_node(plan, i);
    if (!serves(plan, i, w)) return TERN_OK;
    tern_depthwise dw = {.d = tern_node_conv(plan->graph, node, TERN_F32), .int8 = int8};
    void *memory;
    TERN_TRY(tern_plan_keep(plan, &dw.weights, w->rows * w->cols * (int8 ? sizeof(int16_t) : sizeof(float)), err));
    TERN_TRY(tern_plan_keep(plan, &memory, w->rows * sizeof(float), err));
    dw.scales = memory;
    *out = dw;
    return node->packed.bytes ? unpack(out, &node->packed, err) : TERN_OK;
}

void tern_depthwise_refresh(tern_depthwise *out, const tern_ternary_weights *w) {
    if (out->weights && w->trits) lay_out(out, 0, w->rows, w->trits, w->scales, w->granularity == TERN_PER_ROW);
}

/* ---- products */

/* The part of a window that lies in the image, along one of its sides: first .. end. */
typedef struct reach {
    size_t first, end;
} reach;

static inline reach reach_of(const tern_conv_desc *d, size_t place, size_t length) {
    size_t begin = place * d->stride, first = begin < d->padding ? d->padding - begin : 0;
    return (reach){first, tern_min_size(d->kernel, length + d->padding - begin)};
}

/* SUM_WINDOW: acc[0 .. n) = the sums of channels c .. c + n at the place (oy, ox). With n a constant the accumulators
 * stay in registers. */
#define SUM_WINDOW(name, acc_type, x_type, weight_type)                                                         \
    static inline __attribute__((always_inline)) void name(acc_type *restrict acc, const tern_conv_desc *d,     \
                                                           const x_type *image, const weight_type *weights,     \
                                                           size_t oy, size_t ox, size_t c, size_t n) {          \
        reach rows = reach_of(d, oy, d->h), columns = reach_of(d, ox, d->w);                                    \
        for (size_t j = 0; j < n; j++) acc[j] = 0;                                                              \
        for (size_t ky = rows.first; ky < rows.end; ky++)                                                       \
            for (size_t kx = columns.first; kx < columns.end; kx++) {                                           \
                size_t y = oy * d->stride + ky - d->padding, place = ox * d->stride + kx - d->padding;          \
                const x_type *restrict x = image + (y * d->w + place) * d->ci + c;                              \
                const weight_type *restrict t = weights + (ky * d->kernel + kx) * d->ci + c;                    \
                for (size_t j = 0; j < n; j++) acc[j] = (acc_type)(acc[j] + (acc_type)((acc_type)x[j] * t[j])); \
            }                                                                                                   \
    }
SUM_WINDOW(sum_window_i8, int16_t, int8_t, int16_t)
SUM_WINDOW(sum_window_f32, float, float, float)

/* y = float(sum) * (scale * inv) + bias, in this order. */
static inline __attribute__((always_inline)) void put_i8(float *restrict y, const int16_t *restrict acc, size_t n,
                                                         const float *restrict scale, float inv,
                                                         const float *restrict bias) {
    if (bias)
        for (size_t j = 0; j < n; j++) y[j] = (float)acc[j] * (scale[j] * inv) + bias[j];
    else
        for (size_t j = 0; j < n; j++) y[j] = (float)acc[j] * (scale[j] * inv);
}

static inline __attribute__((always_inline)) void put_f32(float *restrict y, const float *restrict acc, size_t n,
                                                          const float *restrict scale, const float *restrict bias) {
    if (bias)
        for (size_t j = 0; j < n; j++) y[j] = acc[j] * scale[j] + bias[j];
    else
        for (size_t j = 0; j < n; j++) y[j] = acc[j] * scale[j];
}

/* One row of outputs of an image. bias: NULL for none. */
TERN_CLONES static void row_i8(float *restrict y, const tern_depthwise *dw, const int8_t *image, size_t oy, float inv,
                               const float *bias) {
    const tern_conv_desc *d = &dw->d;
    int16_t acc[CHUNK];
    for (size_t c = 0; c < d->ci; c += CHUNK)
        for (size_t ox = 0; ox < d->ow; ox++) {
            size_t n = tern_min_size(CHUNK, d->ci - c);
            if (n == CHUNK)
                sum_window_i8(acc, d, image, dw->weights, oy, ox, c, CHUNK);
            else
                sum_window_i8(acc, d, image, dw->weights, oy, ox, c, n);
            put_i8(y + ox * d->ci + c, acc, n, dw->scales + c, inv, bias ? bias + c : NULL);
        }
}

TERN_CLONES static void row_f32(float *restrict y, const tern_depthwise *dw, const float *image, size_t oy,
                                const float *bias) {
    const tern_conv_desc *d = &dw->d;
    float acc[CHUNK];
    for (size_t c = 0; c < d->ci; c += CHUNK)
        for (size_t ox = 0; ox < d->ow; ox++) {
            size_t n = tern_min_size(CHUNK, d->ci - c);
            if (n == CHUNK)
                sum_window_f32(acc, d, image, dw->weights, oy, ox, c, CHUNK);
            else
                sum_window_f32(acc, d, image, dw->weights, oy, ox, c, n);
            put_f32(y + ox * d->ci + c, acc, n, dw->scales + c, bias ? bias + c : NULL);
        }
}

void tern_depthwise_run(const tern_depthwise *dw, int threads, float *y, const void *x, const float *inv_scale,
                        const float *bias, size_t batch) {
    const tern_conv_desc *d = &dw->d;
    size_t image = d->h * d->w * d->ci, row = d->ow * d->ci;
    TERN_FOR_PARTS(threads, batch * d->oh, tern_rows_a_part(row), begin, end)
    for (size_t r = begin; r < end; r++) {
        size_t b = r / d->oh;
        if (dw->int8)
            row_i8(y + r * row, dw, (const int8_t *)x + b * image, r % d->oh, inv_scale[b], bias);
        else
            row_f32(y + r * row, dw, (const float *)x + b * image, r % d->oh, bias);
    }
}

void tern_depthwise_sums(const tern_depthwise *dw, int threads, int32_t *sums, const int8_t *q, size_t batch) {
    const tern_conv_desc *d = &dw->d;
    size_t image = d->h * d->w * d->ci, row = d->ow * d->ci;
    TERN_FOR_PARTS(threads, batch * d->oh, tern_rows_a_part(row), begin, end)
    for (size_t i = begin * row; i < end * row; i++) {
        size_t c = i % d->ci, ox = i / d->ci % d->ow, oy = i / row % d->oh;
        int16_t sum;
        sum_window_i8(&sum, d, q + i / row / d->oh * image, dw->weights, oy, ox, c, 1);
        sums[i] = sum;
    }
}
