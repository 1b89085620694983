/* y = x W^T with float activations, by adding and subtracting. Activations are brought to fp32 first.
 *
 *   plain   one scale per tensor, or per output, applied to the sums; a scale per input (transposed) to the inputs
 *   lanes   exponents per group, either way round: every activation is scaled for each row of a panel, then summed
 *
 * Rows of activations are taken in blocks, so that their prepared forms stay in the cache. */
#include <string.h>

#include "base/half.h"
#include "cpu/product.h"
#include "cpu/threads.h"

enum {
    OUTPUTS_AT_ONCE = 512,    /* outputs that one prepared row meets before the next row */
    PREPARED_BYTES = 1 << 20, /* prepared rows kept at once */
    ROW_BLOCK = 64,
    LANE_COLUMNS = 128 /* columns scaled at once in the way `lanes`; a multiple of TERN_QUAD */
};

typedef struct thread_lane {
    float *x;       /* one row as fp32 [inputs] */
    float *sums;    /* [OUTPUTS_AT_ONCE] */
    uint8_t *codes; /* lanes: one panel */
    float *v;       /* lanes: [LANE_COLUMNS][panel_rows] */
} thread_lane;

typedef struct layout {
    int lanes_way;
    size_t row_block, prepared_bytes;
    uint8_t *prepared; /* plain: [row_block][prepared_bytes]; lanes: fp32 [row_block][inputs] */
    size_t lane_bytes;
    uint8_t *lanes;
} layout;

static thread_lane lay_out_lane(const layout *l, const tern_matrix *w, tern_bump *bump) {
    const size_t panel_rows = w->density->layout.panel_rows;
    thread_lane lane = {0};
    lane.x = tern_bump_take(bump, w->inputs, sizeof(float));
    lane.sums = tern_bump_take(bump, OUTPUTS_AT_ONCE, sizeof(float));
    if (l->lanes_way) {
        lane.codes = tern_bump_take(bump, tern_round_up(w->inputs, TERN_K_ALIGN), panel_rows);
        lane.v = tern_bump_take(bump, LANE_COLUMNS * panel_rows, sizeof(float));
    }
    return lane;
}

static layout lay_out(const tern_matrix *w, size_t m, int threads, tern_bump *bump) {
    layout l = {.lanes_way = w->scale_kind == TERN_SCALE_GROUP_EXP};
    l.prepared_bytes = l.lanes_way ? tern_round_up(w->inputs * sizeof(float), TERN_ALIGNMENT)
                                   : w->density->prepare_f32_bytes.fn(w->inputs);
    size_t fit = tern_max_size(PREPARED_BYTES / l.prepared_bytes, (size_t)threads);
    l.row_block = tern_min_size(m, tern_min_size(fit, ROW_BLOCK));
    l.prepared = tern_bump_take(bump, l.row_block, l.prepared_bytes);
    tern_bump one_lane = {0};
    lay_out_lane(&l, w, &one_lane);
    if (one_lane.overflow) bump->overflow = 1;
    l.lane_bytes = one_lane.used;
    l.lanes = tern_bump_take(bump, (size_t)threads, l.lane_bytes);
    return l;
}

size_t tern_product_float_scratch(const tern_matrix *w, size_t m, int threads) {
    tern_bump bump = {0};
    lay_out(w, m, threads, &bump);
    return bump.overflow ? 0 : bump.used;
}

/* Row i as fp32, with the input scales applied. */
static void take_row(float *to, const tern_product_float *p, size_t i) {
    const size_t k = p->w->inputs;
    const float *f32 = (const float *)p->x + i * k;
    const uint16_t *half = (const uint16_t *)p->x + i * k;
    switch (p->dtype) {
    case TERN_BF16:
        for (size_t j = 0; j < k; j++) to[j] = tern_bf16_to_f32(half[j]);
        break;
    case TERN_F16:
        for (size_t j = 0; j < k; j++) to[j] = tern_f16_to_f32(half[j]);
        break;
    default: memcpy(to, f32, k * sizeof *to);
    }
    const float *scale = p->w->input_scale.data;
    if (scale)
        for (size_t j = 0; j < k; j++) to[j] *= scale[j];
}

static void put(float *y, const float *sums, const float *scale, const float *bias, size_t n) {
    for (size_t j = 0; j < n; j++) {
        float value = sums[j] * scale[j];
        y[j] = bias ? value + bias[j] : value;
    }
}

/* ---- plain ----------------------------------------------------------------------------------------------------- */

static void run_plain(const tern_product_float *p, const layout *l, const thread_lane *lane, size_t i0, size_t rows) {
    const tern_matrix *w = p->w;
    const size_t panel_rows = w->density->layout.panel_rows, at_once = OUTPUTS_AT_ONCE / panel_rows;
    tern_range mine = tern_my_part(w->panels, 1);
    for (size_t panel = mine.begin; panel < mine.end; panel += at_once) {
        const size_t panels = tern_min_size(at_once, mine.end - panel), n0 = panel * panel_rows;
        const size_t n = tern_min_size(panels * panel_rows, w->outputs - n0);
        for (size_t i = 0; i < rows; i++) {
            w->density->sums_f32.fn(lane->sums, (const uint8_t *)w->trits.data + panel * w->panel_bytes,
                                    w->panel_bytes, panels, w->inputs, l->prepared + i * l->prepared_bytes);
            put(p->y + (i0 + i) * w->outputs + n0, lane->sums, (const float *)w->scale.data + n0,
                p->bias ? p->bias + n0 : NULL, n);
        }
    }
}

/* ---- lanes ----------------------------------------------------------------------------------------------------- */

/* v[k][row] = x[k] * 2^e for the columns k0 .. k0 + columns of one panel. */
static void scale_lanes(float *v, const float *x, const tern_matrix *w, size_t panel, size_t k0, size_t columns) {
    const size_t panel_rows = w->density->layout.panel_rows;
    const int8_t *exponents = w->exponents.data;
    for (size_t k = k0; k < k0 + columns; k++, v += panel_rows) {
        if (w->transposed) {
            const int8_t *e = exponents + k * w->groups;
            for (size_t j = 0; j < panel_rows; j++) {
                size_t output = tern_min_size(panel * panel_rows + j, w->outputs - 1);
                v[j] = x[k] * tern_f32_exp2(e[output / w->group]);
            }
        } else {
            const int8_t *e = exponents + (panel * w->groups + k / w->group) * panel_rows;
            for (size_t j = 0; j < panel_rows; j++) v[j] = x[k] * tern_f32_exp2(e[j]);
        }
    }
}

static void run_lanes(const tern_product_float *p, const layout *l, const thread_lane *lane, size_t i0, size_t rows) {
    const tern_matrix *w = p->w;
    const size_t panel_rows = w->density->layout.panel_rows;
    tern_range mine = tern_my_part(w->panels, 1);
    for (size_t panel = mine.begin; panel < mine.end; panel++) {
        const size_t n0 = panel * panel_rows, n = tern_min_size(panel_rows, w->outputs - n0);
        w->density->unpack.fn(lane->codes, (const uint8_t *)w->trits.data + panel * w->panel_bytes,
                              tern_ceil_div(w->inputs, w->density->layout.k_block));
        for (size_t i = 0; i < rows; i++) {
            const float *x = (const float *)(l->prepared + i * l->prepared_bytes);
            float total[TERN_MAX_PANEL_ROWS] = {0}, acc[TERN_MAX_PANEL_ROWS];
            for (size_t k0 = 0; k0 < w->inputs; k0 += LANE_COLUMNS) {
                const size_t columns = tern_min_size(LANE_COLUMNS, w->inputs - k0);
                scale_lanes(lane->v, x, w, panel, k0, columns);
                w->kernels->lanes_f32.fn(acc, lane->codes + k0 * panel_rows, lane->v, columns);
                for (size_t j = 0; j < n; j++) total[j] += acc[j];
            }
            put(p->y + (i0 + i) * w->outputs + n0, total, (const float *)w->scale.data + n0,
                p->bias ? p->bias + n0 : NULL, n);
        }
    }
}

void tern_product_float_run(const tern_product_float *product, int threads, void *scratch) {
    tern_bump bump = {.base = scratch};
    const layout l = lay_out(product->w, product->m, threads, &bump);
    const tern_matrix *w = product->w;
#pragma omp parallel num_threads(threads)
    {
        tern_bump own = {.base = l.lanes + (size_t)omp_get_thread_num() * l.lane_bytes};
        const thread_lane lane = lay_out_lane(&l, w, &own);
        for (size_t i0 = 0; i0 < product->m; i0 += l.row_block) {
            const size_t rows = tern_min_size(l.row_block, product->m - i0);
            tern_range mine = tern_my_part(rows, 1);
            for (size_t i = mine.begin; i < mine.end; i++) {
                uint8_t *prepared = l.prepared + i * l.prepared_bytes;
                take_row(l.lanes_way ? (float *)prepared : lane.x, product, i0 + i);
                if (!l.lanes_way) w->density->prepare_f32.fn(prepared, lane.x, w->inputs);
            }
#pragma omp barrier
            if (l.lanes_way)
                run_lanes(product, &l, &lane, i0, rows);
            else
                run_plain(product, &l, &lane, i0, rows);
#pragma omp barrier
        }
    }
}
