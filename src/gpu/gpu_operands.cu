/* What cuBLASLt multiplies: values and weights in the operands' type, times their scales. */
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"

/* N values of one row at a time, as columns are a multiple of N. */
template <class To, class From, int N> __global__ static void make_operand(To *to, const From *from, gpu_operand o) {
    GPU_FOR(i, o.rows * o.columns / N) {
        const size_t row = i * N / o.columns, column = i * N - row * o.columns;
        const float by_row = o.row_scale ? o.row_scale[row / o.rows_per_scale] : 1;
        const gpu_few<From, N> v = ((const gpu_few<From, N> *)from)[i];
        gpu_few<To, N> out;
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float f = to_float(v.v[j]) * by_row;
            const size_t c = o.one_column_scale ? 0 : column + (size_t)j;
            out.v[j] = from_float<To>(o.column_scale ? f * o.column_scale[c] : f);
        }
        ((gpu_few<To, N> *)to)[i] = out;
    }
}

template <class To, class From>
static void launch_operand(tern_gpu_plan *plan, const gpu_operand *o, To *to, const From *from) {
    constexpr int N = gpu_pack<From>::N;
    const size_t n = o->rows * o->columns;
    if (o->columns % N || (uintptr_t)to % 16 || (uintptr_t)from % 16)
        make_operand<To, From, 1><<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>(to, from, *o);
    else
        make_operand<To, From, N><<<gpu_blocks(plan, n, N), GPU_THREADS, 0, plan->stream>>>(to, from, *o);
}

tern_status gpu_make_operand(tern_gpu_plan *plan, size_t node, const gpu_operand *o, void *to, const void *from,
                             tern_error *err) {
    if (plan->type == o->type)
        GPU_BY_TYPE(plan->type, launch_operand(plan, o, (T *)to, (const T *)from));
    else /* values are fp32 */
        GPU_BY_TYPE(o->type, launch_operand(plan, o, (T *)to, (const float *)from));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

template <class To> __global__ static void convert(To *to, const float *from, size_t n) {
    GPU_FOR(i, n) to[i] = from_float<To>(from[i]);
}

tern_status gpu_convert(tern_gpu_plan *plan, size_t node, tern_dtype type, void *to, const float *from, size_t n,
                        tern_error *err) {
    GPU_BY_TYPE(type, convert<<<gpu_blocks(plan, n, 4), GPU_THREADS, 0, plan->stream>>>((T *)to, from, n));
    GPU_LAUNCHED(plan, node, err);
    return TERN_OK;
}

static size_t room_for(tern_dtype type, size_t elements) { return gpu_round_up(elements * gpu_bytes(type), 256); }

size_t gpu_value_room(const tern_gpu_plan *plan, size_t elements) {
    return plan->products == plan->type ? 0 : room_for(plan->products, elements);
}

size_t gpu_weight_room(const tern_gpu_plan *plan, size_t elements) {
    return plan->products == TERN_F32 ? 0 : room_for(plan->products, elements);
}

static void *take_room(char **room, tern_dtype type, size_t elements) {
    void *taken = *room;
    *room += room_for(type, elements);
    return taken;
}

tern_status gpu_value_operand(tern_gpu_plan *plan, size_t node, const void **to, char **room, tern_dtype type,
                              const void *from, size_t rows, size_t columns, tern_error *err) {
    *to = from;
    if (plan->type == type) return TERN_OK;
    const gpu_operand o = {type, rows, columns, NULL, 1, NULL, 0};
    void *made = take_room(room, type, rows * columns);
    *to = made;
    return gpu_make_operand(plan, node, &o, made, from, err);
}

tern_status gpu_weight_operand(tern_gpu_plan *plan, size_t node, const void **to, char **room, tern_dtype type,
                               size_t n, tern_error *err) {
    const float *w = gpu_node_param(plan, node, 0)->value;
    *to = w;
    if (type == TERN_F32) return TERN_OK;
    *to = plan->node[node].operand;
    if (*to) return TERN_OK;
    void *made = take_room(room, type, n);
    *to = made;
    return gpu_convert(plan, node, type, made, w, n, err);
}

tern_status gpu_weight_prepare(tern_gpu_plan *plan, size_t node, size_t n, tern_error *err) {
    plan->wants_lt = true;
    if (gpu_operands(plan) == TERN_F32) return TERN_OK;
    return gpu_keep(plan, &plan->node[node].operand, n * gpu_bytes(plan->products), gpu_graph_node(plan, node)->name,
                    err);
}

tern_status gpu_weight_refresh(tern_gpu_plan *plan, size_t node, tern_error *err) {
    if (!plan->node[node].operand) return TERN_OK;
    const tern_node *n = gpu_graph_node(plan, node);
    return gpu_convert(plan, node, plan->products, plan->node[node].operand, gpu_node_param(plan, node, 0)->value,
                       plan->graph->param[n->param[0]].count, err);
}
