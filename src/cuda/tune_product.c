#include "cuda/tune_product.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "base/random.h"
#include "cuda/tuning_table.h"

enum {
    MAX_COPIES = 512,
    COLD_TIMES_L2 = 3, /* copies take so many times the L2 cache */
    REPLAYS = 9,
    FINALS = 3, /* times that the rule's choice and the fastest are measured again, in turn */
    MANY_CALLS = 20,
    FEW_CALLS = 4,
};

static const double hopeless = 4;        /* times the rule's choice: after one call there is no need for more */
static const double graph_start = 20e-6; /* what one replay may take beside its products */
static const double long_call = 200e-6;  /* a graph of few is long enough */
static const double margin = 0.98;       /* of the rule's time: what must be beaten */

/* ---- what is multiplied ---------------------------------------------------------------------------------------- */

typedef struct tuning_setup {
    tern_device *device;
    const tern_device_matrix *w;
    tern_device_matrix *copies[MAX_COPIES]; /* besides w itself */
    tern_cuda_weights weights[MAX_COPIES];  /* of w, then of the copies */
    size_t count;                           /* of weights */
    void *x, *inv_scale, *y;
    tern_device_product product;
} tuning_setup;

static void free_setup(tuning_setup *s) {
    const tern_cuda_backend *backend = s->device->backend;
    for (size_t i = 1; i < s->count; i++) tern_cuda_matrix_free(s->copies[i]);
    backend->free(s->device->context, s->x);
    backend->free(s->device->context, s->inv_scale);
    backend->free(s->device->context, s->y);
    free(s);
}

static size_t bytes_of(tern_dtype type) { return type == TERN_F32 ? 4 : type == TERN_I8 ? 1 : 2; }

/* A period that is prime repeats nowhere along a row of usual length. */
enum { PERIOD = 4093 };

static void draw(void *values, tern_dtype type, size_t count) {
    uint32_t bits[PERIOD];
    for (size_t i = 0; i < PERIOD; i++) {
        const float v = tern_random_signed(1, i);
        if (type == TERN_F32)
            memcpy(&bits[i], &v, sizeof v);
        else
            bits[i] = type == TERN_I8     ? (uint32_t)(int32_t)(127 * v) & 0xff
                      : type == TERN_BF16 ? tern_f32_to_bf16(v)
                                          : tern_f32_to_f16(v);
    }
    for (size_t i = 0; i < count; i++)
        if (type == TERN_F32)
            ((uint32_t *)values)[i] = bits[i % PERIOD];
        else if (type == TERN_I8)
            ((uint8_t *)values)[i] = (uint8_t)bits[i % PERIOD];
        else
            ((uint16_t *)values)[i] = (uint16_t)bits[i % PERIOD];
}

static tern_status send_values(void **out, tern_device *device, tern_dtype type, size_t count, tern_error *err) {
    static const char op[] = "activations to tune with";
    const size_t bytes = count * bytes_of(type);
    TERN_TRY(device->backend->alloc(out, device->context, bytes, op, err));
    void *values = malloc(bytes);
    if (!values) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "%s: out of memory: %zu bytes", op, bytes);
    draw(values, type, count);
    const tern_status status = device->backend->upload(device->context, *out, values, bytes, err);
    free(values);
    return status;
}

/* As many as it takes to pass the L2 cache, while half of the memory that is free lasts. */
static tern_status make_copies(tuning_setup *s, size_t l2_bytes, tern_error *err) {
    tern_device_info info;
    tern_error full;
    TERN_TRY(s->device->backend->describe(&info, s->device->number, err));
    const size_t bytes = s->w->tile_bytes + s->w->scale_bytes;
    size_t wanted = tern_ceil_div(COLD_TIMES_L2 * l2_bytes, bytes) + 1;
    wanted = tern_min_size(tern_max_size(wanted, 2), MAX_COPIES);
    wanted = tern_min_size(wanted, 1 + info.memory_free / 2 / bytes);
    s->weights[0] = s->w->weights;
    for (s->count = 1; s->count < wanted; s->count++) {
        const tern_status status = tern_cuda_matrix_clone(&s->copies[s->count], s->w, &full);
        if (status == TERN_E_MEMORY) break; /* others took it: fewer do */
        if (status) return tern_fail(err, status, full.place, "%s", full.message);
        s->weights[s->count] = s->copies[s->count]->weights;
    }
    return TERN_OK;
}

static tern_status make_setup(tuning_setup *s, tern_dtype x_type, size_t m, size_t *l2_bytes, tern_error *err) {
    tern_device *d = s->device;
    tern_device_info info;
    const size_t rows = (size_t)s->w->weights.rows, cols = (size_t)s->w->weights.cols;
    TERN_TRY(d->backend->describe(&info, d->number, err));
    *l2_bytes = info.l2_bytes;
    TERN_TRY(send_values(&s->x, d, x_type, m * cols, err));
    TERN_TRY(send_values(&s->inv_scale, d, TERN_F32, m, err));
    TERN_TRY(d->backend->alloc(&s->y, d->context, m * rows * sizeof(float), "outputs to tune with", err));
    s->product = (tern_device_product){
        .x = s->x, .x_type = x_type, .inv_scale = s->inv_scale, .m = m, .y = s->y, .y_type = TERN_F32};
    return make_copies(s, info.l2_bytes, err);
}

/* ---- measuring ------------------------------------------------------------------------------------------------- */

static tern_status time_calls(tern_device_choice *c, tuning_setup *s, int calls, int replays, tern_error *err) {
    tern_device *d = s->device;
    s->product.kernel = c->kernel;
    s->product.variant = c->variant;
    return d->backend->time_products(&c->seconds, d->context, s->weights, s->count, &s->product, calls, replays, err);
}

/* One call first, which says how many a graph should have, and whether it is worth one: `most` seconds. */
static tern_status time_choice(tern_device_choice *c, tuning_setup *s, double most, tern_error *err) {
    TERN_TRY(time_calls(c, s, 1, 1, err));
    if (c->seconds > most + graph_start) return TERN_OK;
    const int least = c->seconds > long_call ? FEW_CALLS : MANY_CALLS;
    return time_calls(c, s, (int)tern_max_size(s->count, (size_t)least), REPLAYS, err);
}

static int same(const tern_device_choice *a, const tern_device_choice *b) {
    return a->kernel == b->kernel && a->variant == b->variant;
}

/* tuned->chosen becomes the fastest of all. */
static tern_status try_all(tern_device_tuned *tuned, tuning_setup *s, tern_error *err) {
    char why[160];
    TERN_TRY(time_choice(&tuned->by_rule, s, INFINITY, err));
    tuned->chosen = tuned->by_rule;
    for (int k = TERN_DEVICE_KERNEL_PLAIN; k < TERN_DEVICE_KERNEL_COUNT; k++)
        for (int v = 1; v <= tern_cuda_variants((tern_device_kernel)k); v++) {
            tern_device_choice c = {.kernel = (tern_device_kernel)k, .variant = v};
            if (!tern_cuda_fits(c.kernel, v, &s->device->limits, &s->w->weights, &s->product, why, sizeof why))
                continue;
            tuned->tried++;
            if (same(&c, &tuned->by_rule)) continue;
            TERN_TRY(time_choice(&c, s, hopeless * tuned->by_rule.seconds, err));
            if (c.seconds < tuned->chosen.seconds) tuned->chosen = c;
        }
    return TERN_OK;
}

/* The fastest of many is fast by luck too, and a GPU's clock drifts: both are measured again in turn, each with the
 * best of its medians. The rule's choice stays unless it is clearly beaten. */
static tern_status play_final(tern_device_tuned *tuned, tuning_setup *s, tern_error *err) {
    tern_device_choice *const both[] = {&tuned->by_rule, &tuned->chosen};
    double best[2] = {INFINITY, INFINITY};
    if (same(both[0], both[1])) return TERN_OK;
    for (int i = 0; i < 2 * FINALS; i++) {
        TERN_TRY(time_choice(both[i % 2], s, INFINITY, err));
        best[i % 2] = fmin(best[i % 2], both[i % 2]->seconds);
    }
    for (int i = 0; i < 2; i++) both[i]->seconds = best[i];
    if (best[1] > margin * best[0]) tuned->chosen = tuned->by_rule;
    return TERN_OK;
}

tern_status tern_tune_product(tern_device_tuned *tuned, const tern_device_matrix *w, tern_dtype x_type, size_t m,
                              tern_error *err) {
    tuning_setup *s = calloc(1, sizeof *s);
    if (!s) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory to tune: %zu bytes", sizeof *s);
    size_t l2_bytes = 0;
    s->device = w->device;
    s->w = w;
    *tuned = (tern_device_tuned){.m = m, .m_most = tern_tuning_bucket(m)};
    tern_status status = make_setup(s, x_type, m, &l2_bytes, err);
    if (!status) {
        tuned->cold = s->count * w->tile_bytes > l2_bytes + w->tile_bytes;
        tern_cuda_choose(&tuned->by_rule.kernel, &tuned->by_rule.variant, &w->device->limits, &w->weights,
                         &s->product);
        status = try_all(tuned, s, err);
    }
    if (!status) status = play_final(tuned, s, err);
    free_setup(s);
    return status;
}
