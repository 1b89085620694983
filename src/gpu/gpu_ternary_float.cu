/* Float products of a ternary node: weights as an operand of cuBLASLt, activations or their patches as the other. */
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_quantize.cuh"
#include "gpu/gpu_ternary_products.cuh"

tern_status gpu_float_activations(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, bool scaled, bool whole,
                                  gpu_float_rows *f, char **room, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    *f = {NULL, scaled ? state->inv_scale : NULL,
          state->windows ? gpu_patches_row(s.k, gpu_bytes(plan->products)) : s.k};
    if (!state->int8) return gpu_value_operand(plan, i, &f->x, room, plan->products, gpu_in(plan, i, 0), 1, s.x, err);
    if (state->windows && !whole) return TERN_OK;
    void *to = gpu_take(room, s.x * gpu_bytes(plan->products));
    f->x = to;
    if (!scaled) return gpu_from_int8(plan, i, plan->products, to, state->q, s.x, err);
    return gpu_from_int8_rows(plan, i, plan->products, to, state->q, state->inv_scale, s.scales, s.scale_elements,
                              err);
}

tern_status gpu_float_patches(tern_gpu_plan *plan, size_t i, const gpu_float_rows &f, size_t group, char *patches,
                              size_t first, size_t rows, tern_error *err) {
    const gpu_patches window = gpu_patches_of(plan->graph, gpu_graph_node(plan, i), group);
    if (f.x)
        return gpu_patches_take(plan, i, &window, gpu_bytes(plan->products), patches, f.ld, f.x, first, rows, err);
    return gpu_patches_widen(plan, i, &window, plan->products, patches, f.ld, gpu_ternary_of(plan, i)->q, f.inv_scale,
                             first, rows, err);
}

tern_status gpu_float_product(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    char *room = (char *)plan->scratch;
    gpu_float_rows x;
    GPU_CHECK(gpu_float_activations(plan, i, s, false, false, &x, &room, err));
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
        return gpu_multiply(plan, i, &m, y, patches, gpu_ternary_operand(plan, state->w.operand, s, g), err);
    };
    GPU_CHECK(gpu_for_patches(plan, i, s, x, room, multiply_chunk, err));
    gpu_epilogue e = {};
    e.rows = s.rows;
    e.columns = s.columns;
    if (!plan->mixed) { /* the operand is the bare trits */
        e.column_scale = state->w.scale;
        e.one_column_scale = state->w.slices == 1;
    }
    e.row_scale = state->int8 ? state->inv_scale : NULL;
    e.rows_per_scale = s.rows_per_scale;
    e.bias = gpu_ternary_bias(plan, i);
    return gpu_finish(plan, i, &e, plan->node[i].value, err);
}
