/* Products of trits in a graph: the kernels of src/cuda, as the plan's device, its table of measured kernels and the
 * rule have it. */
#include "gpu/gpu_patches.cuh"
#include "gpu/gpu_quantize.cuh"
#include "gpu/gpu_ternary_products.cuh"

#include "cuda/wgmma_floats.cuh"
#include "gpu/gpu_norm_of_rows.cuh"

size_t gpu_packed_scratch(const tern_gpu_plan *plan, const gpu_ternary *state, const gpu_ternary_sizes &s) {
    const size_t value = gpu_bytes(gpu_ternary_acts(plan, state));
    const size_t rows = state->windows ? state->packed_images * s.places : s.rows;
    size_t bytes = gpu_room(state->q ? 0 : s.x) + gpu_quantize_scratch(s.scales, s.scale_elements) +
                   2 * gpu_room(s.rows * sizeof(float)); /* scales of rows, and of bare sums */
    if (state->trits) return bytes;
    if (state->windows)
        bytes += gpu_room(rows * gpu_padded_row(s.k) * value);
    else if (s.k % TERN_TILE_CHUNK)
        bytes += gpu_room(tern_min_size(rows, GPU_PRODUCT_ROWS) * gpu_padded_row(s.k) * value);
    if (s.groups > 1) bytes += gpu_room(rows * s.n * gpu_bytes(plan->type));
    return bytes;
}

static tern_cuda_weights matrix_of(const gpu_ternary *state, size_t group, bool bare) {
    tern_cuda_weights w = gpu_weights_matrix(&state->w, group);
    if (!bare) return w;
    w.scale = state->one;
    w.scale_per_row = 0;
    w.exponents = NULL;
    return w;
}

/* Floats do not go by what was measured: their sums are those of the kernel. */
static tern_status choose_kernel(tern_device_product *d, const tern_gpu_plan *plan, size_t i,
                                 const tern_cuda_weights *w, tern_error *err) {
    const tern_cuda_context *c = plan->context;
    const tern_cuda_limits limits = {c->major, c->minor, c->multiprocessors, c->shared_bytes};
    const tern_cuda_measured *measured = d->x_type == TERN_I8 ? &plan->measured : NULL;
    char why[160] = "";
    if (tern_cuda_pick(d, plan->pinned, measured, &limits, w, why, sizeof why)) return TERN_OK;
    return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "%s: TERN_KERNEL=%s cannot run its product: %s",
                     gpu_graph_node(plan, i)->name, tern_cuda_kernel_name(plan->pinned), why);
}

tern_status gpu_packed_check(tern_gpu_plan *plan, size_t i, const tern_cuda_weights &w, tern_dtype type, size_t rows,
                             tern_error *err) {
    tern_device_product d = {};
    d.x_type = type;
    d.y_type = plan->type;
    d.m = tern_min_size(rows, GPU_PRODUCT_ROWS);
    return choose_kernel(&d, plan, i, &w, err);
}

static tern_status multiply_some(tern_gpu_plan *plan, size_t i, const gpu_packed_rows &p, void *y, const void *x,
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
    GPU_CHECK(choose_kernel(&d, plan, i, &p.w, err));
    if (p.ldx % TERN_TILE_CHUNK == 0 || d.kernel == TERN_DEVICE_KERNEL_PLAIN)
        return tern_cuda_multiply(plan->context, &p.w, &d, p.ldx, err);
    GPU_CHECK(gpu_pad_rows(plan, i, gpu_bytes(p.type), p.room, gpu_padded_row(k), x, m, k, err));
    d.x = p.room;
    return tern_cuda_multiply(plan->context, &p.w, &d, gpu_padded_row(k), err);
}

tern_status gpu_packed_multiply(tern_gpu_plan *plan, size_t i, const gpu_packed_rows &p, void *y, const void *x,
                                size_t m, tern_error *err) {
    const size_t x_row = p.ldx * gpu_bytes(p.type), y_row = (size_t)p.w.rows * gpu_bytes(plan->type);
    for (size_t first = 0; first < m; first += GPU_PRODUCT_ROWS)
        GPU_CHECK(multiply_some(plan, i, p, (char *)y + first * y_row, (const char *)x + first * x_row,
                                p.inv_scale ? p.inv_scale + first : NULL, tern_min_size(GPU_PRODUCT_ROWS, m - first),
                                err));
    return TERN_OK;
}

/* The part of a convolution with images first ... + images. */
static tern_status packed_chunk(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, gpu_packed_rows p,
                                const void *x, size_t first, size_t images, char *room, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    const tern_node *node = gpu_graph_node(plan, i);
    const size_t value = gpu_bytes(p.type), result = gpu_bytes(plan->type), rows = images * s.places;
    char *y = p.y + first * s.places * s.columns * result;
    const float *bias = p.bias;
    char *patches = gpu_take(&room, rows * gpu_padded_row(s.k) * value);
    char *outputs = gpu_take(&room, s.groups > 1 ? rows * s.n * result : 0);
    p.ldx = gpu_padded_row(s.k);
    if (p.inv_scale) p.inv_scale += first * s.places;
    for (size_t g = 0; g < s.groups; g++) {
        const gpu_patches window = gpu_patches_of(plan->graph, node, g);
        GPU_CHECK(gpu_patches_take(plan, i, &window, value, patches, p.ldx, x, first * s.places, rows, err));
        p.w = matrix_of(state, g, p.bare);
        p.bias = bias ? bias + g * s.n : NULL;
        GPU_CHECK(gpu_packed_multiply(plan, i, p, s.groups > 1 ? outputs : y, patches, rows, err));
        if (s.groups > 1)
            CUDA_TRY(cudaMemcpy2DAsync(y + g * s.n * result, s.columns * result, outputs, s.n * result, s.n * result,
                                       rows, cudaMemcpyDeviceToDevice, plan->stream),
                     node->name, err);
    }
    return TERN_OK;
}

tern_status gpu_packed_product(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, const void *x,
                               const float *inv_scale, char *room, bool bare, tern_error *err) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    gpu_packed_rows p = {
        matrix_of(state, 0, bare), gpu_ternary_acts(plan, state), s.k, inv_scale, NULL, NULL, NULL, bare, false};
    p.bias = bare ? NULL : gpu_ternary_bias(plan, i);
    p.y = (char *)(bare ? state->sums : plan->node[i].value);
    if (bare) {
        float *ones = (float *)gpu_take(&room, s.rows * sizeof(float));
        GPU_CHECK(gpu_repeat(plan, i, ones, state->one, s.rows, s.rows, err));
        p.inv_scale = ones;
    }
    if (!state->windows) {
        p.room = room;
        return gpu_packed_multiply(plan, i, p, p.y, x, s.rows, err);
    }
    for (size_t first = 0; first < plan->batch; first += state->packed_images)
        GPU_CHECK(packed_chunk(plan, i, s, p, x, first, tern_min_size(state->packed_images, plan->batch - first),
                               room, err));
    return TERN_OK;
}

/* ---- of floats that are quantized on the way */

/* The norm in front, where it gives int8: then its input is what the product reads. */
static size_t norm_in_front(const tern_gpu_plan *plan, size_t i) {
    const size_t in = (size_t)gpu_graph_node(plan, i)->input[0];
    return plan->node[in].gives_int8 ? in : 0;
}

static tern_device_product product_of_floats(const tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s) {
    tern_device_product d = {};
    const size_t in_front = norm_in_front(plan, i);
    d.x = in_front ? gpu_in(plan, in_front, 0) : gpu_in(plan, i, 0);
    d.x_type = d.y_type = plan->type;
    d.m = s.rows;
    d.y = plan->node[i].value;
    d.bias = gpu_ternary_bias(plan, i);
    return d;
}

/* Sums and pinned kernels are of int8 that lies in memory, and so are gradients. */
bool gpu_quantizes_within(const tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s) {
    const gpu_ternary *state = gpu_ternary_of(plan, i);
    if (!state->int8 || plan->training || state->sums || state->windows || s.rows_per_scale > 1 ||
        plan->pinned != TERN_DEVICE_KERNEL_AUTO)
        return false;
    tern_row_norm norm = {};
    const size_t in_front = norm_in_front(plan, i);
    if (in_front && !gpu_norm_of_rows(plan, in_front, &norm)) return false;
    const tern_device_product d = product_of_floats(plan, i, s);
    return tern_cuda_floats_fit(plan->context, &state->w.first, &d, &norm);
}

bool gpu_reader_normalises(const tern_gpu_plan *plan, size_t reader) {
    return gpu_quantizes_within(plan, reader, gpu_ternary_sizes_of(plan, reader, plan->batch));
}

tern_status gpu_packed_of_floats(tern_gpu_plan *plan, size_t i, const gpu_ternary_sizes &s, tern_error *err) {
    tern_row_norm norm = {};
    const size_t in_front = norm_in_front(plan, i);
    if (in_front) gpu_norm_of_rows(plan, in_front, &norm);
    const tern_device_product d = product_of_floats(plan, i, s);
    return tern_cuda_multiply_floats(plan->context, &gpu_ternary_of(plan, i)->w.first, &d, &norm, err);
}
