#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "base/random.h"
#include "model/networks.h"
#include "nn/dense.h"
#include "nn/loss.h"
#include "nn/op.h"
#include "quant/trit_rules.h"
#include "train/schedule.h"
#include "train/start_values.h"

/* ---- making one */

static tern_status open_data(tern_trainer *t, tern_error *err) {
    tern_dataset_desc d = {.kind = (tern_data_kind)t->config.data, .path = t->config.path[0] ? t->config.path : NULL};
    TERN_TRY(tern_dataset_open(&t->train, &d, err));
    d.split = TERN_SPLIT_TEST;
    TERN_TRY(tern_dataset_open(&t->test, &d, err));
    return tern_model_input_from(&t->input, t->train, err);
}

static tern_status open_loader(tern_trainer *t, int device, tern_error *err) {
    const tern_config *c = &t->config;
    tern_loader_desc d = {.dataset = t->train,
                          .batch = (size_t)c->batch,
                          .window = c->model == TERN_MODEL_GPT ? (size_t)c->context : 0,
                          .seed = (uint64_t)c->seed,
                          .shuffle = c->model != TERN_MODEL_GPT,
                          .drop_last = 1,
                          .numbers = device >= 0};
    if (c->model != TERN_MODEL_GPT) {
        d.augment = (tern_augment){.crop_pad = (size_t)c->crop,
                                   .crop_padding = (tern_padding)c->crop_fill,
                                   .flip = (tern_flip)c->flip,
                                   .brightness = (float)c->brightness,
                                   .contrast = (float)c->contrast,
                                   .saturation = (float)c->saturation,
                                   .cutout = (size_t)c->cutout};
        memcpy(d.augment.mean, t->input.mean, sizeof d.augment.mean);
        memcpy(d.augment.std, t->input.std, sizeof d.augment.std);
    }
    TERN_TRY(tern_loader_open(&t->loader, &d, err));
    t->steps_per_epoch = tern_loader_steps(t->loader) / (uint64_t)c->accumulate;
    if (!t->steps_per_epoch) t->steps_per_epoch = 1;
    t->steps = c->steps ? (uint64_t)c->steps : (uint64_t)llround(c->epochs * (double)t->steps_per_epoch);
    TERN_CHECK_ARGUMENT(t->steps, err, "steps and epochs are both 0: there is nothing to train");
    return TERN_OK;
}

static tern_status build_graph(tern_trainer *t, tern_error *err) {
    tern_dataset_info info;
    TERN_TRY(tern_dataset_describe(&info, t->train, err));
    tern_data_shape shape = {info.height, info.width, info.channels, info.classes, info.vocabulary};
    TERN_TRY(tern_network_build(&t->graph, &t->config, &shape, err));
    TERN_TRY(tern_graph_place(t->graph, err));
    tern_graph_initialise(t->graph, (uint64_t)t->config.seed, (int)t->config.threads);
    return tern_start_values(t->graph, &t->config, t->train, &t->input, err);
}

static tern_status make_plan(tern_trainer *t, int device, tern_error *err) {
    const int products = t->config.products;
    int bf16 = products == TERN_PRODUCTS_BF16 || (products == TERN_PRODUCTS_AUTO && tern_dnn_bf16_is_fast());
    tern_plan_desc d = {.batch_max = device >= 0 ? 1 : (size_t)t->config.batch,
                        .training = 1,
                        .threads = (int)t->config.threads,
                        .products = bf16 ? TERN_BF16 : TERN_F32};
    TERN_TRY(tern_plan_create(&t->plan, t->graph, &d, err));
    t->plan->seed = (uint64_t)t->config.seed;
    return TERN_OK;
}

/* Embeddings and the head are not hidden weights: the optimiser of matrices is not for them. */
static int is_outer(const tern_graph *graph, const tern_param *p) {
    const tern_node *node = &graph->node[p->node];
    return !strcmp(node->op->name, "embedding") || !strcmp(node->name, "head");
}

static int is_hidden_matrix(const tern_graph *graph, const tern_param *p) {
    return (p->role == TERN_ROLE_WEIGHT || p->role == TERN_ROLE_LATENT) && !is_outer(graph, p);
}

static tern_status make_optimizer(tern_trainer *t, tern_error *err) {
    t->method = calloc(t->graph->params + 1, sizeof *t->method);
    t->rules = calloc(t->graph->params + 1, sizeof *t->rules);
    if (!t->method || !t->rules) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for the optimiser");
    for (size_t p = 0; p < t->graph->params; p++)
        t->method[p] = (tern_method)(is_hidden_matrix(t->graph, &t->graph->param[p]) ? t->config.optimizer
                                                                                     : t->config.side_optimizer);
    TERN_TRY(tern_optimizer_create(&t->optimizer, t->plan, t->method, err));
    t->optimizer->momentum = (float)t->config.momentum;
    t->optimizer->beta2 = (float)t->config.beta2;
    t->optimizer->normalise = t->config.model == TERN_MODEL_FAST;
    t->optimizer->newton_steps = t->config.model == TERN_MODEL_FAST ? 3 : 5;
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->graph->param[p].role == TERN_ROLE_STATISTIC) t->statistic_count += t->graph->param[p].count;
    t->statistics = calloc(t->statistic_count + 1, sizeof *t->statistics);
    return t->statistics ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for statistics");
}

static double share_done(const tern_trainer *t) { return ((double)t->step + 0.5) / (double)t->steps; }

/* That of the weights at this step. */
static float lambda_of(const tern_trainer *t) {
    if (t->config.weights != TERN_WEIGHTS_TERNARY || t->step >= t->steps) return 1;
    return (float)tern_schedule_lambda(&t->config, share_done(t));
}

tern_status tern_trainer_refresh(tern_trainer *t, tern_error *err) {
    t->plan->lambda = lambda_of(t);
    TERN_TRY(tern_plan_refresh(t->plan, err));
    return t->gpu ? tern_gpu_run_send(t->gpu, t, t->plan->lambda, err) : TERN_OK;
}

static tern_loss_weights loss_weights(const tern_config *c) {
    return (tern_loss_weights){(int)c->loss_ce, (int)c->loss_entropy, (int)c->loss_z, (int)c->loss_shift};
}

/* What only a GPU can do. */
static tern_status check_device(const tern_config *c, int device, tern_error *err) {
    if (device >= 0) return TERN_OK;
    if (c->products == TERN_PRODUCTS_F16)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "products=f16 takes a GPU: a CPU multiplies in f32 or bf16, and scales no loss");
    if (c->input_gradients)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "input_gradients=int8 takes a GPU: on a CPU gradients pass through products of floats");
    return TERN_OK;
}

tern_status tern_trainer_create(tern_trainer **out, const tern_config *config, int device, tern_error *err) {
    *out = NULL;
    tern_trainer *t = calloc(1, sizeof *t);
    if (!t) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for a training run");
    t->config = *config;
    const tern_loss_weights weights = loss_weights(config);
    tern_status status = tern_loss_weights_check(&weights, err);
    if (!status) status = check_device(config, device, err);
    if (!status) status = open_data(t, err);
    if (!status) status = open_loader(t, device, err);
    if (!status) status = build_graph(t, err);
    if (!status) status = make_plan(t, device, err);
    if (!status) status = make_optimizer(t, err);
    if (!status && device >= 0) status = tern_gpu_run_create(&t->gpu, t, device, err);
    if (!status) status = tern_trainer_refresh(t, err);
    if (status)
        tern_trainer_free(&t);
    else
        *out = t;
    return status;
}

void tern_trainer_free(tern_trainer **trainer) {
    tern_trainer *t = trainer ? *trainer : NULL;
    if (!t) return;
    tern_gpu_run_free(&t->gpu);
    tern_loader_close(&t->loader);
    tern_optimizer_free(&t->optimizer);
    tern_plan_free(&t->plan);
    tern_graph_free(&t->graph);
    tern_model_input_free(&t->input);
    tern_dataset_close(&t->train);
    tern_dataset_close(&t->test);
    free(t->method);
    free(t->rules);
    free(t->statistics);
    free(t);
    *trainer = NULL;
}

/* ---- a step */

/* Copies all running statistics out of the graph (into it). */
static void copy_statistics(tern_trainer *t, int back) {
    float *at = t->statistics;
    for (size_t p = 0; p < t->graph->params; p++) {
        tern_param *param = &t->graph->param[p];
        if (param->role != TERN_ROLE_STATISTIC) continue;
        memcpy(back ? param->value : at, back ? at : param->value, param->count * sizeof *at);
        at += param->count;
    }
}

static int all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!tern_f32_is_finite(x[i])) return 0;
    return 1;
}

/* Names the first layer whose value is not finite (values may share memory: only the last layers are certain), else
 * the first parameter whose gradient is not. */
static void find_trouble(tern_trainer *t) {
    const tern_graph *g = t->graph;
    if (t->plan->rules.trouble) {
        snprintf(t->trouble, sizeof t->trouble, "the gradient of layer %.60s is not finite",
                 g->node[t->plan->rules.trouble].name);
        return;
    }
    for (size_t p = 0; p < g->params; p++)
        if (t->plan->param_grad[p] && !all_finite(g->param[p].value, g->param[p].count)) {
            snprintf(t->trouble, sizeof t->trouble, "parameter %.80s is not finite", g->param[p].name);
            return;
        }
    for (size_t i = 1; i < g->nodes; i++)
        if (!all_finite(t->plan->node[i].value, t->plan->batch * g->node[i].elements)) {
            snprintf(t->trouble, sizeof t->trouble, "the output of layer %.60s is not finite", g->node[i].name);
            return;
        }
    for (size_t p = 0; p < g->params; p++)
        if (t->plan->param_grad[p] && !all_finite(t->plan->param_grad[p], g->param[p].count)) {
            snprintf(t->trouble, sizeof t->trouble, "the gradient of %.80s is not finite", g->param[p].name);
            return;
        }
    snprintf(t->trouble, sizeof t->trouble, "the loss is not finite");
}

/* Rates of the rules, in Q12 counts a batch: a step of several batches is as long as one of one. */
static void set_rule_rates(tern_trainer *t) {
    double rate = t->config.lr * tern_schedule_rate(&t->config, share_done(t)) / (double)t->config.accumulate;
    int32_t counts = (int32_t)lrint(fmin(rate * TERN_RATE_ONE, TERN_RATE_MAX));
    for (size_t i = 1; i < t->graph->nodes; i++) t->plan->rules.rate[i] = counts;
}

/* Forward and backward of all the batches of a step. Gradients are those of the mean over all of them. */
static tern_status gather_gradients(tern_trainer *t, tern_error *err) {
    tern_plan *plan = t->plan;
    const tern_node *out = &t->graph->node[t->graph->nodes - 1];
    const tern_loss_weights weights = loss_weights(&t->config);
    uint64_t parts = (uint64_t)t->config.accumulate;
    double sum = 0;
    tern_plan_zero_grad(plan);
    set_rule_rates(t);
    plan->train_mode = 1;
    plan->recalibrating = 0;
    for (uint64_t part = 0; part < parts; part++) {
        tern_batch batch;
        TERN_TRY(tern_loader_next(t->loader, &batch, err));
        plan->step = t->step * parts + part;
        const float *y = tern_plan_forward(plan, batch.x ? (const void *)batch.x : batch.tokens, batch.n);
        tern_loss l =
            tern_weighted_loss(plan->threads, tern_plan_output_grad(plan), y, batch.labels, batch.n * out->rows,
                               out->channels, (float)t->config.smoothing, &weights, 1.0f / (float)parts);
        sum += l.sum / (double)tern_max_size(1, l.rows);
        if (!isfinite(sum)) break;
        tern_plan_backward(plan);
        TERN_TRY(tern_dnn_check(plan->dnn, err));
        if (plan->rules.trouble) break;
    }
    t->loss = sum / (double)parts;
    t->gradient_norm = tern_gradient_norm(plan);
    return TERN_OK;
}

/* The rate and decay of one parameter at this step. */
static tern_param_rule rule_of(const tern_trainer *t, size_t p) {
    const tern_config *c = &t->config;
    const tern_param *param = &t->graph->param[p];
    double at = share_done(t), rate = tern_schedule_rate(c, at), decay = tern_schedule_decay(c, at);
    double side = c->lr_side > 0 ? c->lr_side : c->lr, head = c->lr_head > 0 ? c->lr_head : side;
    tern_param_rule rule = {.method = t->method[p]};
    if (is_hidden_matrix(t->graph, param)) {
        rule.lr = (float)(c->lr * rate);
        rule.decay = (float)(c->weight_decay * decay);
    } else if (param->role == TERN_ROLE_GAIN || param->role == TERN_ROLE_BIAS) {
        rule.lr = (float)(side * rate);
        if (c->model == TERN_MODEL_FAST) rule.decay = (float)(c->decay_side * decay);
        rule.frozen = !strcmp(t->graph->node[param->node].name, "whiten") && at > c->whiten_share;
    } else {
        rule.lr = (float)(head * rate);
        rule.decay = (float)(c->decay_side * decay);
    }
    return rule;
}

/* Fixed-point parameters: a step of so many units of value, lr, along the gradient over its root mean square. */
static void step_fixed(tern_trainer *t, size_t p, float lr) {
    tern_param *param = &t->graph->param[p];
    const float *g = t->plan->param_grad[p];
    int e = tern_gradient_exponent(tern_sum_of_squares(t->plan->threads, g, param->count) / (double)param->count);
    if (e == TERN_NO_GRADIENT_EXP) return;
    tern_trit_step step = {
        .key = tern_stream((uint64_t)t->config.seed, ((uint64_t)2 << 32) + p),
        .step = t->step,
        .rate = (int32_t)lrint(fmin((double)lr * ldexp(TERN_RATE_ONE, -param->exponent), TERN_FIXED_RATE_MAX)),
        .gradient_exp = e};
    tern_fixed_step(param->integers, g, 0, param->count, &step);
    tern_param_view(param);
}

static void round_statistics(tern_trainer *t) {
    for (size_t p = 0; p < t->graph->params; p++)
        if (t->graph->param[p].store == TERN_STORE_FIXED32) tern_param_round(&t->graph->param[p]);
}

static void apply_gradients(tern_trainer *t) {
    double clip = t->config.clip;
    float factor = clip > 0 && t->gradient_norm > clip ? (float)(clip / t->gradient_norm) : 1;
    t->applied++;
    for (size_t p = 0; p < t->graph->params; p++) {
        const tern_param_rule *rule = &t->rules[p];
        int fixed = t->graph->param[p].store == TERN_STORE_FIXED16 && t->plan->param_grad[p];
        if (fixed && !rule->frozen)
            step_fixed(t, p, rule->lr);
        else
            tern_optimizer_step(t->optimizer, p, rule, factor, t->applied);
    }
    round_statistics(t);
}

/* How the steps went that a GPU has taken since it was last asked. */
static tern_status ask_gpu(tern_trainer *t, tern_error *err) {
    tern_gpu_result r;
    TERN_TRY(tern_gpu_run_result(t->gpu, &r, err));
    const uint64_t skipped = r.skipped - t->skipped;
    t->loss = r.loss;
    t->gradient_norm = r.gradient_norm;
    t->applied = r.applied;
    t->skipped = r.skipped;
    t->skipped_in_row = r.skipped_in_row;
    t->scaling = r.scaling;
    if (skipped)
        snprintf(t->trouble, sizeof t->trouble, "a loss or gradient was not finite in %llu of the last steps",
                 (unsigned long long)skipped);
    return TERN_OK;
}

static tern_status step_on_cpu(tern_trainer *t, tern_error *err) {
    copy_statistics(t, 0);
    TERN_TRY(gather_gradients(t, err));
    if (isfinite(t->loss) && isfinite(t->gradient_norm)) {
        apply_gradients(t);
        t->skipped_in_row = 0;
        TERN_TRY(tern_dnn_check(t->plan->dnn, err));
    } else {
        find_trouble(t);
        copy_statistics(t, 1);
        t->skipped++;
        t->skipped_in_row++;
    }
    t->step++;
    return tern_trainer_refresh(t,
                                err); /* of a skipped step too: rules have stepped in the layers behind the trouble */
}

static tern_status step_on_gpu(tern_trainer *t, int ask, tern_error *err) {
    t->step++;
    const float next = lambda_of(t);
    t->step--;
    set_rule_rates(t);
    TERN_TRY(tern_gpu_run_step(t->gpu, t, t->rules, next, err));
    t->step++;
    return ask ? ask_gpu(t, err) : TERN_OK;
}

/* The first node with a parameter that this step changes: what lies in front of it needs no gradients. */
static size_t first_trained(const tern_trainer *t) {
    size_t first = t->graph->nodes - 1;
    for (size_t p = 0; p < t->graph->params; p++)
        if (tern_param_is_trained(&t->graph->param[p]) && !t->rules[p].frozen)
            first = tern_min_size(first, (size_t)t->graph->param[p].node);
    return first;
}

tern_status tern_trainer_step(tern_trainer *t, int ask, tern_error *err) {
    t->lr = t->config.lr * tern_schedule_rate(&t->config, share_done(t));
    t->trouble[0] = 0;
    for (size_t p = 0; p < t->graph->params; p++) t->rules[p] = rule_of(t, p);
    t->plan->first_trained = first_trained(t);
    TERN_TRY(t->gpu ? step_on_gpu(t, ask, err) : step_on_cpu(t, err));
    if (t->trouble[0] && t->skipped_in_row > (uint64_t)t->config.max_skips)
        return tern_fail(
            err, TERN_E_DATA, t->step,
            "step %llu: %s, and so it was in the %llu steps before; a lower lr or a longer warmup may help",
            (unsigned long long)t->step, t->trouble, (unsigned long long)t->skipped_in_row - 1);
    return TERN_OK;
}

tern_status tern_trainer_wait(tern_trainer *t, tern_error *err) {
    tern_gpu_result r;
    return t->gpu ? tern_gpu_run_result(t->gpu, &r, err) : TERN_OK;
}

tern_status tern_trainer_fetch(tern_trainer *t, tern_error *err) {
    if (!t->gpu) return TERN_OK;
    TERN_TRY(ask_gpu(t, err));
    return tern_gpu_run_fetch(t->gpu, t, err);
}

/* ---- beside the steps */

tern_runner tern_trainer_runner(tern_trainer *t) {
    return t->gpu ? tern_gpu_run_runner(t->gpu) : tern_plan_runner(t->plan);
}

tern_status tern_trainer_evaluate(tern_trainer *t, tern_evaluation *out, int last, uint64_t *confusion,
                                  tern_error *err) {
    /* On the way one view of an image, and a part of a long text, will do. */
    size_t text_part = t->config.model == TERN_MODEL_GPT ? 240 : 0;
    tern_evaluation_desc d = {.dataset = t->test,
                              .input = &t->input,
                              .views = last ? (tern_views)t->config.views : TERN_VIEWS_ONE,
                              .max_samples = last ? 0 : text_part,
                              .confusion = confusion};
    const tern_runner runner = tern_trainer_runner(t);
    return tern_evaluate(out, &runner, &d, err);
}

/* Statistics that recalibration has made anew, as the integers that they are kept in. */
static tern_status round_on_gpu(tern_trainer *t, tern_error *err) {
    TERN_TRY(tern_gpu_run_fetch(t->gpu, t, err));
    round_statistics(t);
    return tern_gpu_run_send(t->gpu, t, t->plan->lambda, err);
}

tern_status tern_trainer_recalibrate(tern_trainer *t, tern_error *err) {
    tern_plan *plan = t->plan;
    for (int i = 1; t->gpu && i <= (int)t->config.recalibrate; i++)
        TERN_TRY(tern_gpu_run_recalibrate(t->gpu, t, i, err));
    if (t->gpu) return t->config.weights == TERN_WEIGHTS_TRIT ? round_on_gpu(t, err) : TERN_OK;
    for (int i = 1; i <= (int)t->config.recalibrate; i++) {
        tern_batch batch;
        TERN_TRY(tern_loader_next(t->loader, &batch, err));
        plan->train_mode = 1;
        plan->recalibrating = i;
        plan->step = t->steps * (uint64_t)t->config.accumulate + (uint64_t)i;
        tern_plan_forward(plan, batch.x ? (const void *)batch.x : batch.tokens, batch.n);
        TERN_TRY(tern_dnn_check(plan->dnn, err));
    }
    plan->recalibrating = 0;
    round_statistics(t);
    return TERN_OK;
}
