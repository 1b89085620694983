/* linear  y = x W^T + b    dx = dy W,  dW = dy^T x,  db = column sums of dy
 *
 * Operands are of plan->products in training passes and fp32 in others, as on the CPU; values that are of that type
 * already are used where they lie. */
#include "gpu/gpu_gemm.cuh"
#include "gpu/gpu_kernels.cuh"

struct linear_sizes {
    size_t x, w, y, rows, n, k;
};

static linear_sizes sizes_of(const tern_gpu_plan *plan, size_t i, size_t batch) {
    const tern_node *node = gpu_graph_node(plan, i);
    linear_sizes s = {};
    s.rows = batch * node->rows;
    s.n = node->channels;
    s.k = tern_node_input(plan->graph, node, 0)->channels;
    s.x = s.rows * s.k;
    s.w = s.n * s.k;
    s.y = s.rows * s.n;
    return s;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const linear_sizes s = sizes_of(plan, i, plan->batch_max);
    gpu_want_scratch(plan, gpu_value_room(plan, s.x) + gpu_weight_room(plan, s.w) + gpu_value_room(plan, s.y) +
                               gpu_column_sums_scratch(plan, s.n));
    return gpu_weight_prepare(plan, i, s.w, err);
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const linear_sizes s = sizes_of(plan, i, plan->batch);
    const tern_dtype type = gpu_operands(plan);
    char *room = (char *)plan->scratch;
    const void *x, *w;
    GPU_CHECK(gpu_value_operand(plan, i, &x, &room, type, gpu_in(plan, i, 0), s.rows, s.k, err));
    GPU_CHECK(gpu_weight_operand(plan, i, &w, &room, type, s.w, err));
    gpu_gemm g = {};
    g.operands = type;
    g.result = plan->type;
    g.b_turned = 1;
    g.m = s.rows;
    g.n = s.n;
    g.k = s.k;
    GPU_CHECK(gpu_multiply(plan, i, &g, plan->node[i].value, x, w, err));
    if (!gpu_graph_node(plan, i)->at.bias) return TERN_OK;
    return gpu_add_bias(plan, i, plan->node[i].value, gpu_node_param(plan, i, 1)->value, s.rows, s.n, err);
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const linear_sizes s = sizes_of(plan, i, plan->batch);
    char *room = (char *)plan->scratch;
    void *dx = gpu_in_grad(plan, i, 0);
    float *dw = gpu_node_param(plan, i, 0)->grad;
    const void *x, *w, *dy;
    GPU_CHECK(gpu_value_operand(plan, i, &dy, &room, plan->products, plan->node[i].grad, s.rows, s.n, err));
    if (dw) {
        char *here = room;
        gpu_gemm g = {};
        g.operands = plan->products;
        g.result = TERN_F32;
        g.a_turned = 1;
        g.add = 1;
        g.m = s.n;
        g.n = s.k;
        g.k = s.rows;
        GPU_CHECK(gpu_value_operand(plan, i, &x, &here, plan->products, gpu_in(plan, i, 0), s.rows, s.k, err));
        GPU_CHECK(gpu_multiply(plan, i, &g, dw, dy, x, err));
    }
    if (dx) {
        char *here = room;
        gpu_gemm g = {};
        g.operands = plan->products;
        g.result = plan->type;
        g.add = plan->node[i].add_to[0];
        g.m = s.rows;
        g.n = s.k;
        g.k = s.n;
        GPU_CHECK(gpu_weight_operand(plan, i, &w, &here, plan->products, s.w, err));
        GPU_CHECK(gpu_multiply(plan, i, &g, dx, dy, w, err));
    }
    if (!gpu_graph_node(plan, i)->at.bias) return TERN_OK;
    return gpu_column_sums(plan, i, gpu_node_param(plan, i, 1)->grad, plan->node[i].grad, s.rows, s.n, room, err);
}

extern const gpu_op gpu_op_linear = {"linear", prepare, gpu_weight_refresh, forward, backward};
