#include "gpu/gpu_weights.cuh"

#include <stdlib.h>

#include "gpu/gpu_trainer.cuh"
#include "gpu/gpu_weights_scales.cuh"
#include "gpu/gpu_weights_tiles.cuh"

#include "cuda/device_memory.cuh"

extern "C" {
#include "cuda/device_matrix.h"
}
#include "tern/pack.h"

static tern_status keep_zeros(tern_gpu_plan *plan, void **memory, size_t bytes, const char *name, tern_error *err) {
    GPU_CHECK(gpu_keep(plan, memory, bytes, name, err));
    CUDA_TRY(cudaMemsetAsync(*memory, 0, bytes, plan->stream), name, err);
    return TERN_OK;
}

static tern_status keep_tiles(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const size_t rows = w->rows / w->groups;
    void *memory;
    w->first.rows = (int32_t)rows;
    w->first.cols = (int32_t)w->cols;
    w->first.row_tiles = (int32_t)tern_ceil_div(rows, TERN_TILE_ROWS);
    w->first.k_tiles = (int32_t)tern_ceil_div(w->cols, tern_tile_cols(0));
    w->tile_bytes = (size_t)w->first.row_tiles * (size_t)w->first.k_tiles * TERN_TILE_BYTES;
    GPU_CHECK(keep_zeros(plan, &memory, w->groups * w->tile_bytes, gpu_graph_node(plan, i)->name, err));
    w->first.tiles = w->tiles = (uint8_t *)memory;
    return TERN_OK;
}

static tern_status keep_latent(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    void *memory;
    w->rule = node->at.rule;
    w->slices = node->at.granularity == TERN_PER_ROW ? w->rows : 1;
    w->length = w->rows * w->cols / w->slices;
    if (w->length > UINT32_MAX || w->slices * gpu_slice_parts(w) > INT32_MAX)
        return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE, "%s: %zu x %zu weights are too many for a GPU", node->name,
                         w->rows, w->cols);
    GPU_CHECK(keep_tiles(w, plan, i, err));
    w->first.scale_per_row = w->slices > 1;
    GPU_CHECK(gpu_keep(plan, &memory, w->slices * sizeof(float), node->name, err));
    w->first.scale = w->scale = (float *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, w->slices * sizeof(float), node->name, err));
    w->threshold = (float *)memory;
    GPU_CHECK(keep_zeros(plan, &memory, w->slices * sizeof(unsigned), node->name, err));
    w->arrived = (unsigned *)memory;
    if (w->rule == TERN_RULE_ABSMEDIAN) {
        GPU_CHECK(keep_zeros(plan, &memory, w->slices * sizeof(gpu_median), node->name, err));
        w->median = (gpu_median *)memory;
        GPU_CHECK(keep_zeros(plan, &memory, 2 * GPU_MEDIAN_DIGITS * sizeof(uint32_t), node->name, err));
        w->histogram = (uint32_t *)memory;
    }
    GPU_CHECK(gpu_keep(plan, &memory, 2 * gpu_slice_sums_bytes(w), node->name, err));
    w->sums = (double *)memory;
    return TERN_OK;
}

static tern_status keep_training(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const char *name = gpu_graph_node(plan, i)->name;
    void *memory;
    if (!gpu_trits_are_in(plan, i)) /* those are made when the backward pass wants them */
        GPU_CHECK(gpu_keep(plan, &w->operand, w->rows * w->cols * gpu_bytes(plan->products), name, err));
    GPU_CHECK(gpu_keep(plan, &memory, w->groups * w->tile_bytes, name, err));
    CUDA_TRY(cudaMemsetAsync(memory, GPU_NEVER_COUNTED, w->groups * w->tile_bytes, plan->stream), name, err);
    w->counted = (uint8_t *)memory;
    GPU_CHECK(keep_zeros(plan, &memory, sizeof *w->counts, name, err));
    w->counts = (tern_gpu_trits *)memory;
    return TERN_OK;
}

static tern_matrix_desc describe_packed(const tern_packed *p, size_t group) {
    const size_t bytes = p->byte_count / p->matrices;
    tern_matrix_desc d = {};
    d.rows = p->rows;
    d.cols = p->cols;
    d.packing = p->packing;
    d.packed = p->bytes + group * bytes;
    d.packed_bytes = bytes;
    d.scale_kind = p->scale_kind;
    if (p->scales) d.scales = p->scales + (p->scale_kind == TERN_SCALE_ROW ? group * p->scale_count : 0);
    if (p->exponents) d.exponents = p->exponents + group * p->scale_count;
    d.scale_count = p->scale_count;
    d.group = p->group;
    return d;
}

/* One copy of a group's part of tiles or scales into what all groups share. */
static tern_status gather(tern_gpu_plan *plan, void **all, size_t groups, size_t group, const void *part,
                          size_t bytes, const char *name, tern_error *err) {
    if (!part) return TERN_OK;
    if (group == 0) GPU_CHECK(gpu_keep(plan, all, groups * bytes, name, err));
    return tern_cuda_copy(plan->context, (char *)*all + group * bytes, part, bytes, err);
}

/* cuda/device_matrix.c makes each group's matrix; their contents move to memory that is the plan's. */
static tern_status send_packed(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    tern_device device = {};
    device.backend = tern_cuda_backend_table(TERN_CUDA_BACKEND_VERSION);
    device.context = plan->context;
    void *tiles = NULL, *scale = NULL, *exponents = NULL;
    for (size_t g = 0; g < w->groups; g++) {
        const tern_matrix_desc d = describe_packed(&node->packed, g);
        tern_device_matrix *m = NULL;
        GPU_CHECK(tern_validate(d.packing, d.packed, d.packed_bytes, d.rows, d.cols, err));
        GPU_CHECK(tern_cuda_matrix_create(&m, &device, &d, err));
        w->first = m->weights;
        w->tile_bytes = m->tile_bytes;
        tern_status status = gather(plan, &tiles, w->groups, g, m->weights.tiles, m->tile_bytes, node->name, err);
        if (!status) status = gather(plan, &scale, w->groups, g, m->weights.scale, m->scale_bytes, node->name, err);
        if (!status)
            status = gather(plan, &exponents, w->groups, g, m->weights.exponents, m->scale_bytes, node->name, err);
        tern_cuda_matrix_free(m);
        GPU_CHECK(status);
    }
    w->first.tiles = (const uint8_t *)tiles;
    w->first.scale = (const float *)scale;
    w->first.exponents = (const int8_t *)exponents;
    return TERN_OK;
}

/* What 32 bits hold: the numbers of rows, and sums of int8 activations (kern/kernels.h's TERN_MAX_COLS). */
static tern_status check_size(const gpu_weights *w, const char *name, tern_error *err) {
    if (w->rows <= INT32_MAX - TERN_TILE_ROWS && w->cols <= GPU_WEIGHTS_MOST_COLUMNS) return TERN_OK;
    return tern_fail(err, TERN_E_SIZE, TERN_NO_PLACE,
                     "%s: %zu x %zu weights are too many for a GPU: %d columns are possible", name, w->rows, w->cols,
                     GPU_WEIGHTS_MOST_COLUMNS);
}

tern_status gpu_weights_prepare(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const size_t groups = node->at.groups ? node->at.groups : 1, c = tern_node_input(plan->graph, node, 0)->channels;
    w->rows = node->at.outputs;
    w->cols = node->at.groups  ? node->at.kernel * node->at.kernel * (c / groups)
              : node->at.width ? node->at.width
                               : c;
    w->groups = groups;
    GPU_CHECK(check_size(w, node->name, err));
    if (node->packed.bytes) return send_packed(w, plan, i, err);
    if (gpu_trits_are_in(plan, i)) {
        GPU_CHECK(keep_tiles(w, plan, i, err));
        GPU_CHECK(gpu_trits_prepare(w, plan, i, err));
    } else {
        GPU_CHECK(keep_latent(w, plan, i, err));
    }
    return plan->training ? keep_training(w, plan, i, err) : TERN_OK;
}

tern_status gpu_weights_refresh(gpu_weights *w, tern_gpu_plan *plan, size_t i, tern_error *err) {
    if (w->trits.exponent) return gpu_trits_refresh(w, plan, i, err);
    if (!w->tiles) return TERN_OK;
    if (!plan->trainer || !gpu_weights_are_listed(w)) { /* else gpu_weights_list_refresh came first */
        GPU_CHECK(gpu_weights_scale(w, plan, i, err));
        GPU_CHECK(gpu_weights_tile(w, plan, i, err));
    }
    return w->counts && plan->count_trits ? gpu_weights_count(w, plan, i, err) : TERN_OK;
}

tern_cuda_weights gpu_weights_matrix(const gpu_weights *w, size_t group) {
    tern_cuda_weights m = w->first;
    const size_t rows = (size_t)m.rows;
    m.tiles += group * w->tile_bytes;
    if (m.scale_per_row) m.scale += group * rows;
    if (m.exponents) m.exponents += group * rows * (size_t)m.groups;
    return m;
}
