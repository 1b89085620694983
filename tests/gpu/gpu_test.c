/* Every kernel of the GPU against naive sums on the host: shapes around the edges of tiles, extremes, zeros, every
 * type, scale and epilogue, unaligned activations, poisoned outputs with a fence behind them; each product twice, to
 * the same bits. Plain C: prints one line a family and ends with the number of failures.
 *
 *   gpu_test [--quick] [FAMILY...]      --quick: for the sanitizers, fewer shapes, and of their products only those
 *                                       that show a kernel something new (quick_products.h), once each */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/random.h"
#include "gpu_case.h"
#include "quick_products.h"

enum { SKIPPED = 77, FENCE = 64 /* values behind y that nobody may touch */ };

typedef struct run {
    tern_device *device;
    int quick, products, refused, failures;
    quick_products met; /* of this family */
} run;

static void *must_alloc(run *r, size_t bytes) {
    void *memory = NULL;
    tern_error err;
    if (tern_device_alloc(&memory, r->device, bytes, &err)) {
        printf("%s\n", err.message);
        exit(1);
    }
    return memory;
}

static void *send(run *r, const void *from, size_t bytes) {
    void *to = must_alloc(r, bytes);
    tern_error err;
    if (tern_device_upload(r->device, to, from, bytes, &err)) {
        printf("%s\n", err.message);
        exit(1);
    }
    return to;
}

static void complain(run *r, const gpu_case *c, tern_device_kernel kernel, int variant, const char *what, size_t at,
                     double got, double want) {
    if (r->failures++ > 20) return;
    printf("FAILED %s variant %d %s: %zu x %zu, m = %zu, packing %s, scales %d, fill %d, x type %d, y type %d, "
           "activation %d, bias %d, residual %d, shifts %zu %zu: at row %zu, output %zu: %.9g, should be %.9g\n",
           tern_device_kernel_name(kernel), variant, what, c->rows, c->cols, c->m, tern_packing_name(c->packing),
           (int)c->scale_kind, (int)c->fill, (int)c->x_type, (int)c->y_type, (int)c->activation, c->with_bias,
           c->with_residual, c->x_shift, c->y_shift, at / c->rows, at % c->rows, got, want);
}

/* y against want: to the bit where the product is exact, else within the bound and a rounding to y's type. */
static void compare(run *r, const gpu_case *c, tern_device_kernel kernel, int variant, const uint8_t *y) {
    const double ulp = c->y_type == TERN_F32 ? 0x1p-24 : c->y_type == TERN_BF16 ? 0x1p-8 : 0x1p-11;
    for (size_t i = 0; i < c->m * c->rows; i++) {
        uint32_t rounded = 0;
        set_value(&rounded, c->y_type, 0, c->want[i]);
        const double got = value_of(y, c->y_type, i), want = value_of(&rounded, c->y_type, 0);
        const int exact = c->bound[i] == 0 && c->activation < TERN_DEVICE_GELU;
        const double most = exact ? 0 : c->bound[i] + ulp * fabs(want) * 2 + 1e-30;
        if (isnan(got) && isnan(want)) continue;
        if (exact ? memcmp(y + i * bytes_of(c->y_type), &rounded, bytes_of(c->y_type)) != 0 && got != want
                  : !(fabs(got - want) <= most || got == want)) {
            complain(r, c, kernel, variant, "differs", i, got, want);
            return;
        }
    }
    const size_t end = c->m * c->rows * bytes_of(c->y_type);
    for (size_t i = 0; i < FENCE; i++)
        if (y[end + i] != 0xee) {
            complain(r, c, kernel, variant, "writes past the end", 0, 0, 0);
            return;
        }
}

/* One product with one kernel and variant; not counted where the kernel refuses it. */
static void check_variant(run *r, const gpu_case *c, const tern_device_matrix *w, tern_device_product p) {
    if (r->quick && !quick_is_new(&r->met, c, p.kernel, p.variant)) return;
    const size_t bytes = c->m * c->rows * bytes_of(c->y_type) + FENCE;
    uint8_t *first = malloc(bytes), *second = malloc(bytes);
    memset(first, 0xee, bytes);
    tern_error err = {0};
    tern_status status = tern_device_upload(r->device, p.y, first, bytes, &err);
    if (!status) status = tern_device_matmul(w, &p, &err);
    if (status == TERN_E_UNSUPPORTED && strstr(err.message, "cannot run this product")) {
        r->refused++;
        free(first);
        free(second);
        return;
    }
    if (!status) status = tern_device_download(r->device, first, p.y, bytes, &err);
    if (!status && !r->quick) status = tern_device_matmul(w, &p, &err);
    if (!status) status = tern_device_download(r->device, second, p.y, bytes, &err);
    quick_meet(&r->met, c, p.kernel, p.variant);
    r->products++;
    if (status) {
        complain(r, c, p.kernel, p.variant, err.message, 0, 0, 0);
    } else {
        compare(r, c, p.kernel, p.variant, first);
        if (memcmp(first, second, bytes)) complain(r, c, p.kernel, p.variant, "is not the same twice", 0, 0, 0);
    }
    free(first);
    free(second);
}

static void check_case(run *r, gpu_case c) {
    make_case(&c);
    tern_device_matrix *w = NULL;
    tern_error err = {0};
    if (make_device_matrix(&w, r->device, &c, &err)) {
        complain(r, &c, TERN_DEVICE_KERNEL_AUTO, 0, err.message, 0, 0, 0);
        free_case(&c);
        return;
    }
    const size_t value = bytes_of(c.x_type), x_bytes = c.m * c.cols * value, shift = c.x_shift * value;
    const size_t y_bytes = c.m * c.rows * bytes_of(c.y_type) + FENCE, y_shift = c.y_shift * bytes_of(c.y_type);
    uint8_t *x = must_alloc(r, x_bytes + shift + 1), *y = must_alloc(r, y_bytes + y_shift);
    if (tern_device_upload(r->device, x + shift, c.x, x_bytes, &err)) complain(r, &c, 0, 0, err.message, 0, 0, 0);
    tern_device_product p = {.x = x + shift,
                             .x_type = c.x_type,
                             .inv_scale = send(r, c.inv_scale, c.m * sizeof(float)),
                             .m = c.m,
                             .y = y + y_shift,
                             .y_type = c.y_type,
                             .bias = c.with_bias ? send(r, c.bias, c.rows * sizeof(float)) : NULL,
                             .residual =
                                 c.with_residual ? send(r, c.residual, c.m * c.rows * bytes_of(c.y_type)) : NULL,
                             .activation = c.activation};
    check_variant(r, &c, w, p);
    for (int k = TERN_DEVICE_KERNEL_PLAIN; k < TERN_DEVICE_KERNEL_COUNT; k++)
        for (int v = 1; v <= tern_device_variants((tern_device_kernel)k); v++) {
            p.kernel = (tern_device_kernel)k;
            p.variant = v;
            check_variant(r, &c, w, p);
        }
    tern_device_free(r->device, x);
    tern_device_free(r->device, (void *)(uintptr_t)p.inv_scale);
    tern_device_free(r->device, y);
    tern_device_free(r->device, (void *)(uintptr_t)p.bias);
    tern_device_free(r->device, (void *)(uintptr_t)p.residual);
    tern_device_matrix_free(&w);
    free_case(&c);
}

/* ---- families -------------------------------------------------------------------------------------------------- */

static const size_t shapes[][2] = {{1, 1},     {3, 7},      {16, 128},  {17, 129},  {33, 160},  {50, 321},
                                   {128, 640}, {130, 1000}, {200, 515}, {300, 258}, {257, 2560}};
static const size_t ms[] = {1, 2, 4, 7, 8, 9, 32, 33, 130};

static int step_of(const run *r) { return r->quick ? 3 : 1; }

static void check_int8(run *r) {
    for (int s = 0; s < 11; s += step_of(r))
        for (int i = 0; i < 9; i += step_of(r))
            for (int packing = 0; packing <= TERN_PACK_T5; packing++)
                for (int f = 0; f <= FILL_EXTREME; f++)
                    if (f == FILL_RANDOM || (i + s) % 3 == 0)
                        check_case(r, (gpu_case){.rows = shapes[s][0],
                                                 .cols = shapes[s][1],
                                                 .m = ms[i],
                                                 .packing = (tern_packing)packing,
                                                 .scale_kind = (tern_scale_kind)((s + i) % 2),
                                                 .fill = (fill)f,
                                                 .x_type = TERN_I8,
                                                 .with_bias = i % 2});
}

/* Up to 64 rows of activations, eights of them whole and not; matrices that leave warps, or a block of a pair, without
 * tiles, and such as take every way through cuda-few. All that may follow a sum, in turn. */
static void check_few_rows(run *r) {
    static const size_t few[] = {1, 2, 4, 5, 8, 9, 16, 17, 24, 25, 32, 33, 48, 63, 64};
    static const size_t narrow[][2] = {{1, 1}, {5, 100}, {15, 129}, {17, 161}, {65, 1}, {70, 321}, {4250, 417}};
    int turn = 0;
    for (int s = 0; s < 7; s++)
        for (int i = 0; i < 15; i += step_of(r), turn++)
            for (int packing = 0; packing <= TERN_PACK_T5; packing++)
                check_case(r, (gpu_case){.rows = narrow[s][0],
                                         .cols = narrow[s][1],
                                         .m = few[i],
                                         .packing = (tern_packing)packing,
                                         .scale_kind = (tern_scale_kind)(turn % 2),
                                         .fill = turn % 4 ? FILL_RANDOM : (fill)(turn / 4 % 3),
                                         .x_type = TERN_I8,
                                         .y_type = (tern_dtype)(turn % 3),
                                         .activation = (tern_device_activation)(turn % 5),
                                         .with_bias = turn / 2 % 2,
                                         .with_residual = turn / 4 % 2,
                                         .x_shift = turn % 7 == 3,
                                         .y_shift = turn % 3 == 1});
    if (r->quick) return;
    for (size_t m = 8; m <= 64; m *= 2) /* sums in the place of activations, and apart */
        for (int packing = 0; packing <= TERN_PACK_T5; packing++)
            check_case(
                r,
                (gpu_case){.rows = 4224, .cols = 5120, .m = m, .packing = (tern_packing)packing, .x_type = TERN_I8});
}

/* Blocks of several rows of tiles, whose warps begin in the midst of them: outputs by the thousand. */
static void check_many_outputs(run *r) {
    static const size_t large[][2] = {{40000, 130}, {9001, 1400}};
    for (int s = 0; s < 2; s += step_of(r)) {
        for (int i = 0; i < 4; i++)
            check_case(r, (gpu_case){.rows = large[s][0],
                                     .cols = large[s][1],
                                     .m = 1,
                                     .packing = (tern_packing)(i / 2),
                                     .scale_kind = TERN_SCALE_ROW,
                                     .x_type = i % 2 ? TERN_BF16 : TERN_F16,
                                     .with_bias = 1});
        for (size_t m = 1; m <= (r->quick ? 32 : 64); m += m > 1 ? 24 : 7)
            for (int packing = 0; packing <= TERN_PACK_T5; packing++)
                check_case(r, (gpu_case){.rows = large[s][0],
                                         .cols = large[s][1],
                                         .m = m,
                                         .packing = (tern_packing)packing,
                                         .scale_kind = TERN_SCALE_ROW,
                                         .fill = m > 1 ? FILL_RANDOM : FILL_EXTREME,
                                         .x_type = TERN_I8,
                                         .with_bias = 1});
    }
}

static void check_many_rows(run *r) {
    for (int packing = 0; packing <= TERN_PACK_T5; packing++) {
        check_case(
            r, (gpu_case){.rows = 200, .cols = 515, .m = 1000, .packing = (tern_packing)packing, .x_type = TERN_I8});
        if (r->quick) continue;
        /* more tiles than there are multiprocessors */
        check_case(r, (gpu_case){.rows = 136,
                                 .cols = 300,
                                 .m = 24000,
                                 .packing = (tern_packing)packing,
                                 .scale_kind = TERN_SCALE_ROW,
                                 .x_type = TERN_I8,
                                 .y_type = packing ? TERN_F32 : TERN_BF16,
                                 .with_bias = 1});
        check_case(
            r, (gpu_case){.rows = 640, .cols = 2560, .m = 1000, .packing = (tern_packing)packing, .x_type = TERN_I8});
        check_case(
            r, (gpu_case){.rows = 1100, .cols = 4096, .m = 300, .packing = (tern_packing)packing, .x_type = TERN_I8});
    }
}

static void check_floats(run *r) {
    for (int s = 0; s < 11; s += step_of(r))
        for (int i = 0; i < 8; i += step_of(r) + s % 2)
            for (int type = TERN_F32; type <= TERN_F16; type++)
                for (int packing = 0; packing <= TERN_PACK_T5; packing++)
                    check_case(r, (gpu_case){.rows = shapes[s][0],
                                             .cols = shapes[s][1],
                                             .m = ms[i],
                                             .packing = (tern_packing)packing,
                                             .scale_kind = (tern_scale_kind)((s + i) % 2),
                                             .fill = (s + i) % 3 ? FILL_RANDOM : FILL_EXTREME,
                                             .x_type = (tern_dtype)type});
}

static void check_groups(run *r) {
    static const size_t groups[] = {4, 6, 8, 32};
    for (int g = 0; g < 4; g++)
        for (int s = 1; s < 8; s += step_of(r))
            for (int type = TERN_F32; type <= TERN_I8; type += TERN_I8)
                check_case(r, (gpu_case){.rows = shapes[s][0],
                                         .cols = shapes[s][1],
                                         .m = 3,
                                         .group = tern_group_is_valid(groups[g], shapes[s][1]) ? groups[g] : 4,
                                         .packing = (tern_packing)(s % 2),
                                         .scale_kind = TERN_SCALE_GROUP_EXP,
                                         .x_type = (tern_dtype)type,
                                         .with_bias = s % 2});
}

/* The kernel for groups: all sizes of them, exponents that overflow and that vanish. */
static void check_many_groups(run *r) {
    static const size_t groups[] = {4, 6, 8, 12, 16, 20, 32, 64, 96, 128, 160, 320, 1024};
    static const size_t rows[] = {1, 2, 4, 8, 9, 32, 70};
    for (int g = 0; g < 13; g += step_of(r))
        for (int s = 1; s < 11; s += 1 + (g + step_of(r)) % 4)
            for (int i = g % 2; i < 7; i += 2 * step_of(r))
                for (int packing = 0; packing <= TERN_PACK_T5; packing++)
                    if (tern_group_is_valid(groups[g], shapes[s][1]))
                        check_case(r, (gpu_case){.rows = shapes[s][0],
                                                 .cols = shapes[s][1],
                                                 .m = rows[i],
                                                 .group = groups[g],
                                                 .packing = (tern_packing)packing,
                                                 .scale_kind = TERN_SCALE_GROUP_EXP,
                                                 .fill = (s + i) % 3 ? FILL_RANDOM : FILL_EXTREME,
                                                 .x_type = TERN_I8,
                                                 .wide_exponents = (s + g) % 2,
                                                 .x_shift = i == 3,
                                                 .with_bias = i % 2});
    if (r->quick) return;
    for (int packing = 0; packing <= TERN_PACK_T5; packing++)
        for (size_t group = 4; group <= 256; group *= 4)
            check_case(r, (gpu_case){.rows = 200,
                                     .cols = 2600,
                                     .m = 1000,
                                     .group = group,
                                     .packing = (tern_packing)packing,
                                     .scale_kind = TERN_SCALE_GROUP_EXP,
                                     .x_type = TERN_I8});
}

/* Many rows of floats. */
static void check_many_floats(run *r) {
    for (int type = TERN_F32; type <= TERN_F16; type++)
        for (int packing = 0; packing <= TERN_PACK_T5; packing++)
            for (int i = 0; i < 4; i += step_of(r))
                check_case(r, (gpu_case){.rows = (size_t[]){200, 257, 130, 640}[i],
                                         .cols = (size_t[]){515, 2560, 1000, 1024}[i],
                                         .m = (size_t[]){1000, 70, 130, 300}[i],
                                         .packing = (tern_packing)packing,
                                         .scale_kind = (tern_scale_kind)(i % 2),
                                         .fill = i == 2 ? FILL_EXTREME : FILL_RANDOM,
                                         .x_type = (tern_dtype)type,
                                         .y_type = (tern_dtype)((type + i) % 3),
                                         .x_shift = i == 3,
                                         .with_bias = i % 2});
}

/* The same with scales of groups; m of 2 and 70, one block and several. */
static void check_float_groups(run *r) {
    static const size_t groups[] = {32, 64, 96, 160, 320};
    for (int type = TERN_F32; type <= TERN_F16; type++)
        for (int packing = 0; packing <= TERN_PACK_T5; packing++)
            for (int g = 0; g < 5; g += step_of(r))
                for (int i = 0; i < 4; i++)
                    check_case(r, (gpu_case){.rows = (size_t[]){37, 257, 130, 400}[i],
                                             .cols = (size_t[]){515, 2560, 1000, 1024}[i],
                                             .m = (size_t[]){2, 70, 33, 300}[i],
                                             .group = groups[g],
                                             .packing = (tern_packing)packing,
                                             .scale_kind = TERN_SCALE_GROUP_EXP,
                                             .fill = i == 2 ? FILL_EXTREME : FILL_RANDOM,
                                             .x_type = (tern_dtype)type,
                                             .y_type = (tern_dtype)((type + i) % 3),
                                             .x_shift = i == 3,
                                             .with_bias = i % 2});
}

static void check_epilogue(run *r, int y, int a, int flags) {
    for (int i = r->quick ? 2 : 0; i < 5; i++) /* few rows have a family with all of this */
        check_case(r, (gpu_case){.rows = 70,
                                 .cols = 300,
                                 .m = (size_t[]){1, 9, 40, 2, 70}[i],
                                 .packing = (tern_packing)((i + a) % 2),
                                 .x_type = (tern_dtype[]){TERN_I8, TERN_I8, TERN_I8, TERN_F16, TERN_BF16}[i],
                                 .y_type = (tern_dtype)y,
                                 .activation = (tern_device_activation)a,
                                 .with_bias = flags & 1,
                                 .with_residual = flags >> 1});
}

/* Of the sanitizers: each activation once, so that each packing meets every type, a bias and none, a residual and
 * none. */
static int is_quick_epilogue(int y, int a, int flags) {
    static const int flags_of[] = {0, 1, 3, 2, 1};
    return y == a / 2 && flags == flags_of[a];
}

static void check_epilogues(run *r) {
    for (int y = TERN_F32; y <= TERN_F16; y++)
        for (int a = TERN_DEVICE_IDENTITY; a <= TERN_DEVICE_SILU; a++)
            for (int flags = 0; flags < 4; flags++)
                if (!r->quick || is_quick_epilogue(y, a, flags)) check_epilogue(r, y, a, flags);
}

static void check_unaligned(run *r) {
    for (size_t shift = 1; shift < (r->quick ? 2 : 16); shift += 5)
        for (int type = TERN_F32; type <= TERN_I8; type++)
            for (int i = 0; i < 4; i++)
                check_case(r, (gpu_case){.rows = 64,
                                         .cols = 256,
                                         .m = (size_t[]){1, 8, 70, 33}[i],
                                         .packing = (tern_packing)(i % 2),
                                         .x_type = (tern_dtype)type,
                                         .y_type = (tern_dtype)(i % 3),
                                         .x_shift = shift,
                                         .y_shift = i > 1});
}

/* ---- quantizing ------------------------------------------------------------------------------------------------ */

static float draw_row(size_t row, size_t i) {
    switch (row % 5) {
    case 0: return tern_random_normal(11, i);
    case 1: return 0;
    case 2: return tern_random_normal(11, i) * 1e30f;
    case 3: return tern_random_normal(11, i) * 1e-30f;
    default: return i % 97 == 5 ? INFINITY : 1;
    }
}

static void check_quantizer(run *r, size_t rows, size_t cols, tern_dtype type, int norm) {
    float *x = malloc(rows * cols * sizeof *x), *gain = malloc(cols * sizeof *gain);
    float *inv = malloc(rows * sizeof *inv), *got_inv = malloc(rows * sizeof *inv);
    int8_t *q = malloc(rows * cols), *got = malloc(rows * cols);
    void *given = malloc(rows * cols * 4);
    for (size_t i = 0; i < rows * cols; i++) {
        set_value(given, type, i, draw_row(i / cols, i));
        x[i] = value_of(given, type, i);
    }
    for (size_t i = 0; i < cols; i++) gain[i] = 1 + 0.1f * tern_random_signed(12, i);
    tern_error err = {0};
    tern_status status = norm ? tern_quantize_activations_rmsnorm(q, inv, x, gain, 1e-5f, rows, cols, &err)
                              : tern_quantize_activations(q, inv, x, rows, cols, &err);
    tern_device_quantizer d = {.q = must_alloc(r, rows * cols),
                               .inv_scale = must_alloc(r, rows * sizeof *inv),
                               .x = send(r, given, rows * cols * bytes_of(type)),
                               .x_type = type,
                               .rows = rows,
                               .cols = cols,
                               .norm = norm,
                               .gain = send(r, gain, cols * sizeof *gain),
                               .epsilon = 1e-5f};
    if (!status) status = tern_device_quantize(r->device, &d, &err);
    if (!status) status = tern_device_download(r->device, got, d.q, rows * cols, &err);
    if (!status) status = tern_device_download(r->device, got_inv, d.inv_scale, rows * sizeof *inv, &err);
    r->products++;
    int same = !status && !memcmp(q, got, rows * cols);
    for (size_t i = 0; i < rows && same; i++)
        same = !memcmp(&inv[i], &got_inv[i], sizeof *inv) || (isnan(inv[i]) && isnan(got_inv[i]));
    if (!same) {
        printf("FAILED quantize: %zu x %zu, type %d, norm %d: %s\n", rows, cols, (int)type, norm,
               status ? err.message : "differs");
        r->failures++;
    }
    tern_device_free(r->device, d.q);
    tern_device_free(r->device, d.inv_scale);
    tern_device_free(r->device, (void *)(uintptr_t)d.x);
    tern_device_free(r->device, (void *)(uintptr_t)d.gain);
    free(x);
    free(gain);
    free(inv);
    free(got_inv);
    free(q);
    free(got);
    free(given);
}

static void check_quantizers(run *r) {
    static const size_t cols[] = {1, 5, 33, 256, 2050, 6912};
    for (int c = 0; c < 6; c++)
        for (int type = TERN_F32; type <= TERN_F16; type++)
            for (int norm = 0; norm < 2; norm++) check_quantizer(r, 11, cols[c], (tern_dtype)type, norm);
}

/* ---- one behind the other -------------------------------------------------------------------------------------- */

/* A product right behind the quantizer of its activations, before whose end it may begin, against the same with a wait
 * between. What it finds where it reads too early are other activations. */
static void check_behind(run *r, const gpu_case *c, const tern_device_matrix *w, tern_device_product p,
                         const tern_device_quantizer *q) {
    const size_t x_bytes = c->m * c->cols, y_bytes = c->m * c->rows * sizeof(float);
    float *settled = malloc(y_bytes), *got = malloc(y_bytes);
    tern_error err = {0};
    tern_status status = tern_device_quantize(r->device, q, &err);
    if (!status) status = tern_device_synchronize(r->device, &err);
    if (!status) status = tern_device_matmul(w, &p, &err);
    const int refused = status == TERN_E_UNSUPPORTED && strstr(err.message, "cannot run this product");
    if (!status) status = tern_device_download(r->device, settled, p.y, y_bytes, &err);
    if (!status) status = tern_device_upload(r->device, q->q, c->x, x_bytes, &err);
    if (!status) status = tern_device_quantize(r->device, q, &err);
    if (!status) status = tern_device_matmul(w, &p, &err);
    if (!status) status = tern_device_download(r->device, got, p.y, y_bytes, &err);
    r->refused += refused;
    r->products += !refused;
    if (!refused && (status || memcmp(settled, got, y_bytes)))
        complain(r, c, p.kernel, p.variant, status ? err.message : "reads what is not there yet", 0, 0, 0);
    free(settled);
    free(got);
}

/* The longest rows, so that the quantizer takes long. */
static void check_chains(run *r) {
    for (size_t m = 1; m <= 8; m += 7)
        for (int packing = 0; packing <= TERN_PACK_T5; packing++) {
            gpu_case c = {.rows = 40, .cols = 1 << 17, .m = m, .packing = (tern_packing)packing, .x_type = TERN_I8};
            make_case(&c);
            float *x = malloc(m * c.cols * sizeof *x);
            for (size_t i = 0; i < m * c.cols; i++) x[i] = tern_random_normal(13, i);
            tern_device_matrix *w = NULL;
            tern_error err = {0};
            if (make_device_matrix(&w, r->device, &c, &err)) complain(r, &c, 0, 0, err.message, 0, 0, 0);
            tern_device_quantizer q = {.q = must_alloc(r, m * c.cols),
                                       .inv_scale = must_alloc(r, m * sizeof(float)),
                                       .x = send(r, x, m * c.cols * sizeof *x),
                                       .x_type = TERN_F32,
                                       .rows = m,
                                       .cols = c.cols};
            tern_device_product p = {.x = q.q,
                                     .x_type = TERN_I8,
                                     .inv_scale = q.inv_scale,
                                     .m = m,
                                     .y = must_alloc(r, m * c.rows * sizeof(float))};
            for (int k = TERN_DEVICE_KERNEL_PLAIN; k < TERN_DEVICE_KERNEL_COUNT && w; k++)
                for (int v = 1; v <= tern_device_variants((tern_device_kernel)k); v++) {
                    p.kernel = (tern_device_kernel)k;
                    p.variant = v;
                    check_behind(r, &c, w, p, &q);
                }
            tern_device_free(r->device, q.q);
            tern_device_free(r->device, q.inv_scale);
            tern_device_free(r->device, (void *)(uintptr_t)q.x);
            tern_device_free(r->device, p.y);
            tern_device_matrix_free(&w);
            free_case(&c);
            free(x);
        }
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static void expect(run *r, int holds, const char *what, const char *message) {
    r->products++;
    if (holds) return;
    printf("FAILED %s: %s\n", what, message);
    r->failures++;
}

/* The artificial cap stands for a small device: kernels that need more are refused, and the choice avoids them. */
static void check_small_device(run *r) {
    tern_device *all = r->device;
    tern_error err = {0};
    expect(r, !tern_device_open(&r->device, &(tern_device_options){.shared_limit = 48 << 10}, &err), "open",
           err.message);
    check_case(r, (gpu_case){.rows = 300, .cols = 1000, .m = 200, .x_type = TERN_I8});
    check_case(r, (gpu_case){.rows = 300, .cols = 1000, .m = 32, .packing = TERN_PACK_T5, .x_type = TERN_I8});
    check_case(r, (gpu_case){.rows = 300, .cols = 1000, .m = 200, .packing = TERN_PACK_T5, .x_type = TERN_F16});
    for (size_t m = 1; m <= 40; m += 39)
        check_case(r, (gpu_case){.rows = 300,
                                 .cols = 1000,
                                 .m = m,
                                 .group = 8,
                                 .packing = TERN_PACK_T5,
                                 .scale_kind = TERN_SCALE_GROUP_EXP,
                                 .x_type = TERN_I8});
    tern_device_close(&r->device);
    r->device = all;
}

static void check_refusals(run *r) {
    tern_error err = {0};
    tern_device *none = NULL;
    void *memory = NULL;
    expect(r,
           tern_device_open(&none, &(tern_device_options){.device = 99}, &err) == TERN_E_UNSUPPORTED &&
               strstr(err.message, "no GPU 99"),
           "device 99", err.message);
    expect(r,
           tern_device_alloc(&memory, r->device, (size_t)1 << 44, &err) == TERN_E_MEMORY &&
               strstr(err.message, "17592186044416") && strstr(err.message, "free"),
           "16 TiB", err.message);
    printf("  says: %s\n", err.message);
}

/* ---- tuning ---------------------------------------------------------------------------------------------------- */

typedef struct tuned_case {
    gpu_case c;
    tern_device_matrix *w;
    tern_device_product p;
} tuned_case;

static void make_tuned_case(run *r, tuned_case *t) {
    tern_error err = {0};
    t->c = (gpu_case){.rows = 300, .cols = 1000, .m = 13, .x_type = TERN_I8};
    if (r->quick) /* one kernel takes it, and few copies pass the L2 cache: some hundred launches */
        t->c = (gpu_case){
            .rows = 8192, .cols = 2048, .m = 13, .group = 4, .scale_kind = TERN_SCALE_GROUP_EXP, .x_type = TERN_F32};
    make_case(&t->c);
    expect(r, !make_device_matrix(&t->w, r->device, &t->c, &err), "matrix to tune", err.message);
    t->p = (tern_device_product){.x = send(r, t->c.x, t->c.m * t->c.cols * bytes_of(t->c.x_type)),
                                 .x_type = t->c.x_type,
                                 .inv_scale = send(r, t->c.inv_scale, t->c.m * sizeof(float)),
                                 .m = t->c.m,
                                 .y = must_alloc(r, t->c.m * t->c.rows * sizeof(float) + FENCE)};
}

static void free_tuned_case(run *r, tuned_case *t) {
    tern_device_free(r->device, (void *)(uintptr_t)t->p.x);
    tern_device_free(r->device, (void *)(uintptr_t)t->p.inv_scale);
    tern_device_free(r->device, t->p.y);
    tern_device_matrix_free(&t->w);
    free_case(&t->c);
}

/* A device of its own, that reads the file anew; tune: measures. What is chosen must be `kernel` and `variant`, which
 * come back where they are AUTO, and the products stay what they are. */
static void check_tuned(run *r, int tune, tern_device_kernel *kernel, int *variant, char *path, size_t path_bytes) {
    tern_device *all = r->device;
    tern_error err = {0};
    tuned_case t;
    tern_device_tuned tuned = {.chosen = {.kernel = *kernel, .variant = *variant}};
    tern_device_tuning_info info = {.choices = 0};
    tern_device_kernel got = TERN_DEVICE_KERNEL_AUTO;
    int got_variant = 0;
    expect(r, !tern_device_open(&r->device, NULL, &err), "open to tune", err.message);
    make_tuned_case(r, &t);
    if (tune) {
        expect(r, !tern_device_tune(&tuned, t.w, t.c.x_type, t.p.m, &err), "tune", err.message);
        expect(r, tuned.m_most == 16 && tuned.tried > !r->quick && tuned.chosen.seconds > 0, "tuned",
               "is not filled in");
        expect(r, tuned.chosen.seconds <= tuned.by_rule.seconds, "tuned", "to something slower");
    }
    expect(r, !tern_device_tuning_describe(&info, r->device, &err), "describe tuning", err.message);
    expect(r, info.choices == 1 && !info.note[0] && info.path[0], "tuning file", info.note);
    for (t.p.m = 9; t.p.m <= 13; t.p.m += 4) {
        expect(r, !tern_device_choose(&got, &got_variant, t.w, &t.p, &err), "choose", err.message);
        expect(r, got == tuned.chosen.kernel && got_variant == tuned.chosen.variant, "tuning", "is not gone by");
    }
    t.p.m = t.c.m;
    check_variant(r, &t.c, t.w, t.p);
    snprintf(path, path_bytes, "%s", info.path);
    *kernel = tuned.chosen.kernel;
    *variant = tuned.chosen.variant;
    free_tuned_case(r, &t);
    tern_device_close(&r->device);
    r->device = all;
}

/* The file says that another kernel were the fastest. */
static void rewrite_file(run *r, const char *path, const char *was, const char *now) {
    char text[1024], *at;
    FILE *f = fopen(path, "r");
    const size_t size = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[size] = 0;
    at = strstr(text, was);
    expect(r, at != NULL, "the tuning file lacks", was);
    f = at ? fopen(path, "w") : NULL;
    if (!f) return;
    fprintf(f, "%.*s%s%s", (int)(at - text), text, now, at + strlen(was));
    fclose(f);
}

static void check_tuning(run *r) {
    char folder[] = "/tmp/tern-gpu-test-XXXXXX", path[1024] = "", was[64];
    tern_device_kernel kernel = TERN_DEVICE_KERNEL_AUTO;
    int variant = 0;
    if (getenv("TERN_KERNEL")) return; /* which goes before what is measured */
    expect(r, mkdtemp(folder) != NULL, "temporary folder", folder);
    setenv("TERN_CACHE", folder, 1);
    check_tuned(r, 1, &kernel, &variant, path, sizeof path);
    check_tuned(r, 0, &kernel, &variant, path, sizeof path);
    snprintf(was, sizeof was, " %s %d ", tern_device_kernel_name(kernel), variant);
    rewrite_file(r, path, was, " cuda-plain 1 ");
    kernel = TERN_DEVICE_KERNEL_PLAIN;
    variant = 1;
    check_tuned(r, 0, &kernel, &variant, path, sizeof path);
    remove(path);
    remove(folder);
    setenv("TERN_CACHE", "off", 1);
}

typedef struct family {
    const char *name;
    void (*check)(run *r);
} family;

static const family families[] = {{"int8", check_int8},
                                  {"few rows", check_few_rows},
                                  {"many outputs", check_many_outputs},
                                  {"many rows", check_many_rows},
                                  {"floats", check_floats},
                                  {"groups", check_groups},
                                  {"all groups", check_many_groups},
                                  {"many floats", check_many_floats},
                                  {"float groups", check_float_groups},
                                  {"epilogues", check_epilogues},
                                  {"unaligned", check_unaligned},
                                  {"quantize", check_quantizers},
                                  {"chains", check_chains},
                                  {"small device", check_small_device},
                                  {"refusals", check_refusals},
                                  {"tuning", check_tuning}};

static int is_family(const char *name) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, name)) return 1;
    return 0;
}

/* Families named after the options; all where none is. */
static int is_wanted(const char *name, int argc, char **argv, int first) {
    for (int i = first; i < argc; i++)
        if (!strcmp(argv[i], name)) return 1;
    return first >= argc;
}

int main(int argc, char **argv) {
    setenv("TERN_CACHE", "off", 1); /* what is chosen is a matter of this source alone */
    run r = {.quick = argc > 1 && !strcmp(argv[1], "--quick")};
    tern_error err = {0};
    tern_device_info info;
    if (tern_device_open(&r.device, NULL, &err) || tern_device_describe(&info, 0, &err)) {
        printf("skipped: %s\n", err.message);
        return SKIPPED;
    }
    printf("%s, compute capability %d.%d\n", info.name, info.major, info.minor);
    for (int a = 1 + r.quick; a < argc; a++)
        if (!is_family(argv[a])) {
            printf("unknown family: %s\n", argv[a]);
            return 1;
        }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const int products = r.products, refused = r.refused, failures = r.failures;
        if (!is_wanted(families[i].name, argc, argv, 1 + r.quick)) continue;
        r.met = (quick_products){0};
        families[i].check(&r);
        printf("%-12s %6d checked, %6d refused, %d failed\n", families[i].name, r.products - products,
               r.refused - refused, r.failures - failures);
        fflush(stdout);
    }
    tern_device_close(&r.device);
    return r.failures != 0;
}
