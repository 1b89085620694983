/* What a step of a rule does: one thread decides, in the order of the CPU's tiles. */
#include "gpu/gpu_kernels.cuh"
#include "gpu/gpu_squares.cuh"
#include "gpu/gpu_trit_rules.h"
#include "gpu/gpu_trits.cuh"
#include "gpu/gpu_weights.cuh"

struct judgement {
    const double *part;
    size_t tiles, parts;
    double weights;
    uint64_t node;
    int8_t *gradient_exponent;
    int32_t *steps;     /* may be NULL */
    int orthogonal_exp; /* of ortho's second step */
    const gpu_now *now;
    gpu_rules *rules;
    gpu_rule_step *step; /* [2] */
    int32_t *go;         /* [tiles] */
};

__global__ static void judge(judgement j) {
    const int32_t rate = j.now->rate;
    int e = *j.gradient_exponent;
    bool updates = rate != 0;
    if (updates && e == TERN_NO_GRADIENT_EXP) { /* the first step has no measure of its gradients yet */
        double all = 0;
        for (size_t t = 0; t < j.tiles; t++) all += gpu_tile_sum(j.part, j.parts, t);
        e = isfinite(all) ? gpu_rule_exponent(all / j.weights) : TERN_NO_GRADIENT_EXP;
        *j.gradient_exponent = (int8_t)e;
    }
    updates &= e != TERN_NO_GRADIENT_EXP;
    uint64_t trouble = j.rules->trouble;
    double squares = 0;
    for (size_t t = 0; t < j.tiles; t++) {
        const double sum = gpu_tile_sum(j.part, j.parts, t);
        if (!isfinite(sum) && !trouble) trouble = j.node;
        j.go[t] = updates && !trouble;
        squares += sum;
    }
    const bool whole = updates && !trouble;
    if (whole) {
        const int next = gpu_rule_exponent(squares / j.weights);
        if (next != TERN_NO_GRADIENT_EXP) *j.gradient_exponent = (int8_t)next;
        if (j.steps) *j.steps += *j.steps < INT32_MAX;
    }
    j.rules->squares += squares;
    j.rules->trouble = trouble;
    j.step[0] = {j.now->step, rate, e, whole};
    j.step[1] = {j.now->step, rate, j.orthogonal_exp, whole};
}

size_t gpu_trits_parts_bytes(const gpu_weights *w) {
    const gpu_square_tiles t = gpu_square_tiles_of(NULL, w->rows * w->cols, w->trits.tile_rows * w->cols);
    return gpu_round_up(gpu_tiles_in(t) * t.parts * sizeof(double), 256);
}

tern_status gpu_trits_settle(const gpu_weights *w, tern_gpu_plan *plan, size_t i, const float *g, double *part,
                             int32_t *go, tern_error *err) {
    const gpu_trits &t = w->trits;
    const gpu_square_tiles squares = gpu_square_tiles_of(g, w->rows * w->cols, t.tile_rows * w->cols);
    judgement j = {};
    j.part = part;
    j.tiles = gpu_tiles_in(squares);
    j.parts = squares.parts;
    j.weights = (double)(w->rows * w->cols);
    j.node = i;
    j.gradient_exponent = t.gradient_exponent;
    j.steps = t.steps;
    j.orthogonal_exp = gpu_rule_exponent(1 / (double)tern_max_size(w->rows, w->cols));
    j.now = plan->now;
    j.rules = plan->rules;
    j.step = t.step;
    j.go = go;
    GPU_CHECK(gpu_sum_squares(plan, gpu_graph_node(plan, i)->name, part, squares, err));
    judge<<<1, 1, 0, plan->stream>>>(j);
    GPU_LAUNCHED(plan, i, err);
    return TERN_OK;
}
