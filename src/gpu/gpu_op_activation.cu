/* relu, relu2, gelu, silu: nn/op_activation.c's formulas. */
#include "gpu/gpu_activations.cuh"
#include "gpu/gpu_kernels.cuh"

template <class F> struct value_of {
    __device__ float operator()(float x, float) const { return F::value(x); }
};
template <class F> struct gradient_of {
    __device__ float operator()(float x, float dy) const { return dy * F::slope(x); }
};

template <class F> static tern_status forward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    return gpu_map(plan, i, plan->node[i].value, gpu_in(plan, i, 0), NULL, gpu_elements(plan, i), 0, value_of<F>(),
                   err);
}

template <class F> static tern_status backward(tern_gpu_plan *plan, size_t i, tern_error *err) {
    void *dx = gpu_in_grad(plan, i, 0);
    if (!dx) return TERN_OK;
    return gpu_map(plan, i, dx, gpu_in(plan, i, 0), plan->node[i].grad, gpu_elements(plan, i),
                   plan->node[i].add_to[0], gradient_of<F>(), err);
}

#define ACTIVATION(f) extern const gpu_op gpu_op_##f = {#f, NULL, NULL, forward<gpu_##f>, backward<gpu_##f>}
ACTIVATION(relu);
ACTIVATION(relu2);
ACTIVATION(gelu);
ACTIVATION(silu);
