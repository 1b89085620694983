/* relu, relu2, gelu, silu: nn/op_activation.c's formulas. */
#include "gpu/gpu_kernels.cuh"

__device__ static float sigmoid(float x) { return 1 / (1 + __expf(-x)); }

struct relu {
    __device__ static float value(float x) { return x > 0 ? x : 0; }
    __device__ static float slope(float x) { return x > 0 ? 1.0f : 0.0f; }
};
struct relu2 {
    __device__ static float value(float x) { return relu::value(x) * relu::value(x); }
    __device__ static float slope(float x) { return 2 * relu::value(x); }
};
struct gelu {
    static constexpr float A = 1.5957691216f, B = 0.0713548162726f;
    __device__ static float value(float x) { return x * sigmoid(x * (A + B * (x * x))); }
    __device__ static float slope(float x) {
        const float s = sigmoid(x * (A + B * (x * x)));
        return s + x * s * (1 - s) * (A + 3 * B * (x * x));
    }
};
struct silu {
    __device__ static float value(float x) { return x * sigmoid(x); }
    __device__ static float slope(float x) {
        const float s = sigmoid(x);
        return s + x * s * (1 - s);
    }
};

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

#define ACTIVATION(f) extern const gpu_op gpu_op_##f = {#f, NULL, NULL, forward<f>, backward<f>}
ACTIVATION(relu);
ACTIVATION(relu2);
ACTIVATION(gelu);
ACTIVATION(silu);
