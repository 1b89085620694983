/* batch_norm, affine: nn/op_batch_norm.c's formulas. What a pass keeps per channel lies on the device, so that the
 * host never waits for statistics. In the place of an activation, with the batch norm in front of it within
 * (nn/layout.h), the activation costs no pass of its own: its input is computed again where the backward pass wants
 * it. */
#include "gpu/gpu_batch_norm.cuh"

/* What follows the batch norm in node i, or NULL. */
static const char *activation_of(const tern_gpu_plan *plan, size_t i) {
    return gpu_norm_of(plan, i) == i ? NULL : gpu_graph_node(plan, i)->op->name;
}

static tern_status prepare(tern_gpu_plan *plan, size_t i, tern_error *err) {
    return gpu_norm_prepare(plan, i, sizeof(gpu_channel_state), err);
}

static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_batch_norm n = gpu_batch_norm_of(plan, i);
    GPU_CHECK(gpu_norm_statistics(plan, i, n, err));
    GPU_BY_ACTIVATION(activation_of(plan, i),
                      return gpu_columns_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), NULL,
                                             plan->batch * node->rows, node->channels, 0,
                                             gpu_affine_rows<F>{n.s.scale, n.s.shift}, err));
}

static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const gpu_batch_norm n = gpu_batch_norm_of(plan, i);
    const size_t rows = plan->batch * node->rows;
    const void *x = gpu_in(plan, i, 0);
    void *dx = gpu_in_grad(plan, i, 0);
    GPU_BY_ACTIVATION(activation_of(plan, i), {
        const gpu_norm_products<F> p = {n.s.mean, n.s.r, n.s.scale, n.s.shift};
        const gpu_gradient_rows<F> map = {n.s.scale, n.s.shift, n.s.a, n.s.b};
        GPU_CHECK(gpu_norm_sum_gradients(plan, i, x, rows, p, gpu_norm_gradients(plan, i, n), err));
        if (!dx) return TERN_OK;
        return gpu_columns_map(plan, i, dx, plan->node[i].grad, x, rows, node->channels, plan->node[i].add_to[0], map,
                               err);
    });
}

extern const gpu_op gpu_op_batch_norm = {"batch_norm", prepare, NULL, forward, backward};

/* ---- affine: batch norm with mean 0, r 1 and constant statistics */

static tern_status affine_prepare(tern_gpu_plan *plan, size_t i, tern_error *) {
    gpu_want_scratch(plan, gpu_pair_sums_scratch(plan->type, gpu_graph_node(plan, i)->channels));
    return TERN_OK;
}

/* In a deployed plan an activation may have it within, as it has a batch norm in training. */
static tern_status affine_forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const bool is_own = !strcmp(node->op->name, "affine");
    const size_t affine = is_own ? i : (size_t)node->input[0];
    const float *scale = gpu_node_param(plan, affine, 0)->value, *shift = gpu_node_param(plan, affine, 1)->value;
    GPU_BY_ACTIVATION(is_own ? NULL : node->op->name,
                      return gpu_columns_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), NULL,
                                             plan->batch * node->rows, node->channels, 0,
                                             gpu_affine_rows<F>{scale, shift}, err));
}

struct add_gradients {
    float *dshift, *dscale;
    __device__ void operator()(size_t c, double sum, double along) const {
        if (dshift) dshift[c] += (float)sum;
        if (dscale) dscale[c] += (float)along;
    }
};

static tern_status affine_backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    const tern_node *node = gpu_graph_node(plan, i);
    const add_gradients finish = {gpu_node_param(plan, i, 1)->grad, gpu_node_param(plan, i, 0)->grad};
    void *dx = gpu_in_grad(plan, i, 0);
    GPU_CHECK(gpu_norm_sum_gradients(plan, i, gpu_in(plan, i, 0), plan->batch * node->rows,
                                     gpu_norm_products<gpu_identity>{}, finish, err));
    if (!dx) return TERN_OK;
    return gpu_columns_map(plan, i, dx, plan->node[i].grad, NULL, plan->batch * node->rows, node->channels,
                           plan->node[i].add_to[0],
                           gpu_gradient_rows<gpu_identity>{gpu_node_param(plan, i, 0)->value, NULL, NULL, NULL}, err);
}

extern const gpu_op gpu_op_affine = {"affine", affine_prepare, NULL, affine_forward, affine_backward};
