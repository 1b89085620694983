/* Parameters in fixed point: their step, and integers from floats. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_squares.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_trits.cuh"

/* What tern_param_view makes of an integer. */
template <class V> __device__ static float viewed(V v, int exponent) { return (float)v * gpu_power(exponent); }

struct fixed {
    int16_t *c;
    float *value;
    const float *g;
    const double *part;
    size_t count, parts;
    int exponent;
    uint64_t key;
    const tern_gpu_rule *rule;
    const uint64_t *step;
    uint64_t batches; /* of a step */
    const int32_t *good;
};

__global__ static void step_fixed(fixed u) {
    if ((u.good && !*u.good) || u.rule->frozen) return;
    const int e = gpu_rule_exponent(gpu_tile_sum(u.part, u.parts, 0) / (double)u.count);
    if (e == TERN_NO_GRADIENT_EXP) return;
    const double one = (double)TERN_RATE_ONE * (double)gpu_power(-u.exponent);
    const int32_t rate = __double2int_rn(fmin((double)u.rule->lr * one, (double)TERN_FIXED_RATE_MAX));
    const float f = gpu_rule_factor(rate, e, 12);
    const uint64_t number = *u.step / u.batches;
    GPU_FOR(i, (u.count + 7) / 8) {
        const tern_random4 r = tern_philox(u.key, i, number);
        for (int j = 0; j < 8; j++) {
            const size_t at = i * 8 + (size_t)j;
            if (at >= u.count) break;
            u.c[at] = (int16_t)gpu_rule_fixed(u.c[at], u.g[at], f, gpu_rule_bits(&r, j));
            u.value[at] = viewed(u.c[at], u.exponent);
        }
    }
}

size_t gpu_fixed_scratch(const tern_graph *graph) {
    size_t most = 0;
    for (size_t p = 0; p < graph->params; p++)
        if (graph->param[p].store == TERN_STORE_FIXED16) most = tern_max_size(most, graph->param[p].count);
    return gpu_round_up(tern_ceil_div(most, GPU_SUM_PART) * sizeof(double), 256);
}

tern_status gpu_fixed_step(tern_gpu_plan *plan, size_t p, const tern_gpu_rule *rule, const uint64_t *step,
                           uint64_t parts, const int32_t *good, tern_error *err) {
    const tern_param *param = &plan->graph->param[p];
    const gpu_param *own = &plan->param[p];
    const gpu_square_tiles squares = gpu_square_tiles_of(own->grad, param->count, param->count);
    double *part = (double *)plan->scratch;
    const fixed u = {(int16_t *)own->integers,
                     own->value,
                     own->grad,
                     part,
                     param->count,
                     squares.parts,
                     param->exponent,
                     tern_stream(plan->seed, ((uint64_t)2 << 32) + p),
                     rule,
                     step,
                     parts,
                     good};
    GPU_CHECK(gpu_sum_squares(plan, param->name, part, squares, err));
    step_fixed<<<gpu_blocks(plan, tern_ceil_div(param->count, 8)), GPU_THREADS, 0, plan->stream>>>(u);
    CUDA_TRY(cudaGetLastError(), param->name, err);
    return TERN_OK;
}

__global__ static void round_fixed(void *integers, float *value, size_t n, int exponent, bool narrow,
                                   const int32_t *good) {
    const float scale = gpu_power(-exponent);
    if (good && !*good) return;
    GPU_FOR(i, n) {
        const float v = value[i];
        if (narrow) {
            int16_t *to = (int16_t *)integers + i;
            *to = (int16_t)__float2int_rn(fminf(fmaxf(v * scale, -(float)INT16_MAX), (float)INT16_MAX));
            value[i] = viewed(*to, exponent);
        } else {
            int32_t *to = (int32_t *)integers + i;
            *to = __double2int_rn(fmin(fmax((double)v * (double)scale, -(double)INT32_MAX), (double)INT32_MAX));
            value[i] = viewed(*to, exponent);
        }
    }
}

tern_status gpu_fixed_round(tern_gpu_plan *plan, size_t p, const int32_t *good, tern_error *err) {
    const tern_param *param = &plan->graph->param[p];
    round_fixed<<<gpu_blocks(plan, param->count), GPU_THREADS, 0, plan->stream>>>(
        plan->param[p].integers, plan->param[p].value, param->count, param->exponent,
        param->store == TERN_STORE_FIXED16, good);
    CUDA_TRY(cudaGetLastError(), param->name, err);
    return TERN_OK;
}
