/* The integer sums of a ternary node's product, kept for who compares them with the CPU's. In fp32: every integer up
 * to 2^24 is one. */
#include <string.h>

#include "gpu/gpu_ternary.cuh"

#include "cuda/device_memory.cuh"

static gpu_ternary *int8_state(const tern_gpu_plan *plan, size_t i) {
    gpu_ternary *state = gpu_ternary_find(plan, i);
    return state && state->int8 ? state : NULL;
}

tern_status gpu_ternary_keep_sums(tern_gpu_plan *plan, size_t i, tern_error *err) {
    enum { LARGEST_ACTIVATION = 128, EXACT = 1 << 24 };
    gpu_ternary *state = int8_state(plan, i);
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
    GPU_CHECK(gpu_keep(plan, &memory, gpu_ternary_sizes_of(plan, i, plan->batch_max).x, name, err));
    state->seen = (int8_t *)memory;
    GPU_CHECK(gpu_keep(plan, &memory, gpu_elements_max(plan, i) * sizeof(float), name, err));
    state->sums = (float *)memory;
    return TERN_OK;
}

tern_status gpu_ternary_read_sums(tern_gpu_plan *plan, int32_t *sums, int8_t *q, size_t i, tern_error *err) {
    const gpu_ternary *state = int8_state(plan, i);
    const size_t n = gpu_elements(plan, i);
    TERN_CHECK_ARGUMENT(state && state->sums, err, "%s: no sums are kept", gpu_graph_node(plan, i)->name);
    GPU_CHECK(tern_cuda_download(plan->context, sums, state->sums, n * sizeof(float), err));
    for (size_t j = 0; j < n; j++) {
        float v; /* each becomes its integer where it lies */
        memcpy(&v, &sums[j], sizeof v);
        sums[j] = (int32_t)v;
    }
    return tern_cuda_download(plan->context, q, state->seen, gpu_ternary_sizes_of(plan, i, plan->batch).x, err);
}
