#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clones.h"
#include "base/error.h"
#include "nn/dense.h"
#include "nn/orthogonal.h"
#include "nn/parts.h"

static size_t matrix_rows(const tern_param *p) { return p->dim[0]; }
static size_t matrix_columns(const tern_param *p) { return p->count / p->dim[0]; }

/* u, and the room to make it orthogonal. */
static size_t newton_floats(const tern_param *p) {
    return tern_round_up(p->count, 16) + tern_orthogonal_floats(matrix_rows(p), matrix_columns(p), TERN_F32);
}

/* Whole numbers are stepped by rules of their own. */
static int is_float(const tern_plan *plan, size_t p) {
    return plan->param_grad[p] && !plan->graph->param[p].integers;
}

tern_status tern_optimizer_create(tern_optimizer **out, tern_plan *plan, const tern_method *methods,
                                  tern_error *err) {
    *out = NULL;
    const tern_graph *graph = plan->graph;
    tern_optimizer *o = calloc(1, sizeof *o);
    size_t floats = 0, newton = 0;
    for (size_t p = 0; p < graph->params; p++) {
        if (!is_float(plan, p)) continue;
        floats += tern_round_up(graph->param[p].count, 16) * (methods[p] == TERN_ADAMW ? 2 : 1);
        if (methods[p] == TERN_MUON) newton = tern_max_size(newton, newton_floats(&graph->param[p]));
    }
    int ok = o != NULL;
    if (ok) {
        o->plan = plan;
        o->first = calloc(graph->params + 1, sizeof *o->first);
        o->second = calloc(graph->params + 1, sizeof *o->second);
        ok = o->first && o->second && tern_block_alloc(&o->state, floats * sizeof(float)) &&
             tern_block_alloc(&o->scratch, newton * sizeof(float));
    }
    if (!ok) {
        tern_optimizer_free(&o);
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the optimiser (%zu MiB)",
                         (floats + newton) * sizeof(float) >> 20);
    }
    float *next = o->state.data;
    for (size_t p = 0; p < graph->params; p++) {
        if (!is_float(plan, p)) continue;
        o->first[p] = next;
        next += tern_round_up(graph->param[p].count, 16);
        if (methods[p] != TERN_ADAMW) continue;
        o->second[p] = next;
        next += tern_round_up(graph->param[p].count, 16);
    }
    o->momentum = 0.9f;
    o->beta1 = 0.9f;
    o->beta2 = 0.95f;
    o->newton_steps = 5;
    *out = o;
    return TERN_OK;
}

void tern_optimizer_free(tern_optimizer **optimizer) {
    tern_optimizer *o = optimizer ? *optimizer : NULL;
    if (!o) return;
    tern_block_free(&o->state);
    tern_block_free(&o->scratch);
    free(o->first);
    free(o->second);
    free(o);
    *optimizer = NULL;
}

static double norm_of(int threads, const float *x, size_t count) {
    return sqrt(tern_sum_of_squares(threads, x, count));
}

double tern_gradient_norm(const tern_plan *plan) {
    return sqrt(tern_sum_of_squares(plan->threads, plan->grads.data, plan->gradients) + plan->rules.squares);
}

TERN_CLONES static void sgd(float *restrict w, float *restrict b, const float *restrict g, size_t n, float lr,
                            float decay, float mu, float factor) {
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * factor + decay * w[i];
        b[i] = mu * b[i] + d;
        w[i] -= lr * (d + mu * b[i]);
    }
}

typedef struct adam {
    float lr, decay, beta1, beta2, correct1, correct2, factor;
} adam;

TERN_CLONES static void adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                              size_t n, const adam *a) {
    float lr = a->lr, decay = a->decay, beta1 = a->beta1, beta2 = a->beta2, c1 = a->correct1, c2 = a->correct2;
    float factor = a->factor;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * factor;
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * (d * d);
        float step = m[i] * c1 / (sqrtf(v[i] * c2) + 1e-8f);
        w[i] -= lr * (step + decay * w[i]);
    }
}

/* x = x * a + y * b. */
TERN_CLONES static void blend(float *restrict x, const float *restrict y, size_t n, float a, float b) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] * a + y[i] * b;
}

TERN_CLONES static void momentum_update(float *restrict u, float *restrict b, const float *restrict g, size_t n,
                                        float mu, float factor) {
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * factor;
        b[i] = mu * b[i] + d;
        u[i] = d + mu * b[i];
    }
}

static void muon(tern_optimizer *o, size_t p, const tern_param_rule *rule, float factor) {
    const tern_param *param = &o->plan->graph->param[p];
    size_t rows = matrix_rows(param), columns = matrix_columns(param), n = param->count;
    int threads = o->plan->threads;
    float *w = param->value, *x = o->scratch.data;
    const float *g = o->plan->param_grad[p];
    TERN_FOR_PARTS(threads, n, TERN_PART, begin, end)
    momentum_update(x + begin, o->first[p] + begin, g + begin, end - begin, o->momentum, factor);
    tern_newton newton = {o->plan->dnn, threads, o->newton_steps, TERN_F32};
    tern_orthogonalise(&newton, x, x + tern_round_up(n, 16), rows, columns);
    float keep, length;
    if (o->normalise) {
        keep = (float)(sqrt((double)rows) / (norm_of(threads, w, n) + 1e-12));
        length = rule->lr;
    } else {
        keep = 1 - rule->lr * rule->decay;
        length = rule->lr * 0.2f * sqrtf((float)tern_max_size(rows, columns));
    }
    TERN_FOR_PARTS(threads, n, TERN_PART, begin, end) blend(w + begin, x + begin, end - begin, keep, -length);
}

void tern_optimizer_step(tern_optimizer *o, size_t p, const tern_param_rule *rule, float factor, uint64_t t) {
    const tern_param *param = &o->plan->graph->param[p];
    const float *g = o->plan->param_grad[p];
    float *w = param->value;
    int threads = o->plan->threads;
    if (!is_float(o->plan, p) || rule->frozen) return;
    if (rule->method == TERN_MUON) {
        muon(o, p, rule, factor);
    } else if (rule->method == TERN_ADAMW) {
        adam a = {.lr = rule->lr,
                  .decay = rule->decay,
                  .beta1 = o->beta1,
                  .beta2 = o->beta2,
                  .correct1 = (float)(1 / (1 - pow((double)o->beta1, (double)t))),
                  .correct2 = (float)(1 / (1 - pow((double)o->beta2, (double)t))),
                  .factor = factor};
        TERN_FOR_PARTS(threads, param->count, TERN_PART, begin, end)
        adamw(w + begin, o->first[p] + begin, o->second[p] + begin, g + begin, end - begin, &a);
    } else {
        TERN_FOR_PARTS(threads, param->count, TERN_PART, begin, end)
        sgd(w + begin, o->first[p] + begin, g + begin, end - begin, rule->lr, rule->decay, o->momentum, factor);
    }
}
