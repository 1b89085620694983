/* relu, relu2, gelu and silu: nn/op_activation.c's formulas, on their own or behind what makes their input. */
#ifndef TERN_GPU_GPU_ACTIVATIONS_CUH
#define TERN_GPU_GPU_ACTIVATIONS_CUH

#include <string.h>

#include "gpu/gpu_plan.cuh"

struct gpu_identity {
    __device__ static float value(float x) { return x; }
    __device__ static float slope(float) { return 1; }
};
/* Two units off in the last place; 0 where the exponential is beyond 2^126. */
__device__ inline float gpu_sigmoid(float x) { return __fdividef(1.0f, 1 + __expf(-x)); }

struct gpu_relu {
    __device__ static float value(float x) { return x > 0 ? x : 0; }
    __device__ static float slope(float x) { return x > 0 ? 1.0f : 0.0f; }
};
struct gpu_relu2 {
    __device__ static float value(float x) { return gpu_relu::value(x) * gpu_relu::value(x); }
    __device__ static float slope(float x) { return 2 * gpu_relu::value(x); }
};
struct gpu_gelu {
    static constexpr float A = 1.5957691216f, B = 0.0713548162726f;
    __device__ static float value(float x) { return x * gpu_sigmoid(x * (A + B * (x * x))); }
    __device__ static float slope(float x) {
        const float s = gpu_sigmoid(x * (A + B * (x * x)));
        return s + x * s * (1 - s) * (A + 3 * B * (x * x));
    }
};
struct gpu_silu {
    __device__ static float value(float x) { return x * gpu_sigmoid(x); }
    __device__ static float slope(float x) {
        const float s = gpu_sigmoid(x);
        return s + x * s * (1 - s);
    }
};

/* Runs the statement with F = the activation of that name, gpu_identity where it is NULL. */
#define GPU_BY_ACTIVATION(name, ...)             \
    do {                                         \
        const char *const by_name_ = (name);     \
        if (!by_name_) {                         \
            using F = gpu_identity;              \
            __VA_ARGS__;                         \
        } else if (!strcmp(by_name_, "relu")) {  \
            using F = gpu_relu;                  \
            __VA_ARGS__;                         \
        } else if (!strcmp(by_name_, "relu2")) { \
            using F = gpu_relu2;                 \
            __VA_ARGS__;                         \
        } else if (!strcmp(by_name_, "gelu")) {  \
            using F = gpu_gelu;                  \
            __VA_ARGS__;                         \
        } else {                                 \
            using F = gpu_silu;                  \
            __VA_ARGS__;                         \
        }                                        \
    } while (0)

#endif
