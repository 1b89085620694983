/* Optimisers: one row of state per parameter, one rule per group of parameters.
 *
 *   sgd     b = mu b + (g + decay w);  w -= lr (g + decay w + mu b)             Nesterov, as PyTorch writes it
 *   adamw   m, v: running means of g and g^2, both corrected for their start;  w -= lr (m / (sqrt(v) + 1e-8) + decay w)
 *           (Loshchilov and Hutter, arXiv:1711.05101)
 *   muon    b = mu b + g;  u = g + mu b;  w -= lr (c O + decay w), O = u made orthogonal by Newton-Schulz steps with
 *           the coefficients 3.4445, -4.7750, 2.0315 (Jordan et al. 2024), c = 0.2 sqrt(max(rows, columns)) so that its
 *           steps are as long as AdamW's (arXiv:2502.16982). With `normalise`, for weights that a batch norm follows:
 *           w = w sqrt(rows) / |w|, then w -= lr O, without decay (airbench).
 *
 * Sums are taken over fixed parts in order: the number of threads changes no bit. */
#ifndef TERN_TRAIN_OPTIMIZER_H
#define TERN_TRAIN_OPTIMIZER_H

#include "nn/nodes.h"
#include "nn/plan.h"

typedef enum tern_method { TERN_SGD = 0, TERN_ADAMW = 1, TERN_MUON = 2 } tern_method;

/* How one parameter is stepped. */
typedef struct tern_param_rule {
    tern_method method;
    float lr, decay; /* of this step */
    int frozen;      /* no step at all */
} tern_param_rule;

typedef struct tern_optimizer {
    tern_plan *plan;
    float momentum, beta1, beta2;
    int newton_steps; /* 5, or 3 for speed */
    int normalise;
    float **first, **second; /* per parameter [count]: b or m, and v; NULL where the method has none */
    tern_block state;
    tern_block scratch; /* Newton-Schulz */
} tern_optimizer;

/* methods: one per parameter of the plan's graph. */
tern_status tern_optimizer_create(tern_optimizer **out, tern_plan *plan, const tern_method *methods, tern_error *err);
void tern_optimizer_free(tern_optimizer **optimizer);

/* sqrt of the sum of squares of all gradients; NaN or Inf when one is. */
double tern_gradient_norm(const tern_plan *plan);

/* One step of parameter p with its gradient times `factor`; t = 1, 2, ... counts the steps taken. */
void tern_optimizer_step(tern_optimizer *optimizer, size_t p, const tern_param_rule *rule, float factor, uint64_t t);

#endif
