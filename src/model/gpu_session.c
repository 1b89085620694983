#include "model/gpu_session.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "cuda/load_backend.h"
#include "cuda/pinned_kernel.h"
#include "cuda/select_device.h"

enum { BF16_MAJOR = 8 }; /* compute capability from which tensor cores take bf16 */

static tern_status open_device(tern_gpu_session *s, int device, tern_error *err) {
    TERN_TRY(tern_pinned_device_kernel(&s->pinned, err));
    TERN_TRY(tern_cuda_load(&s->backend, err));
    s->table = s->backend->graphs;
    if (!s->table)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "libtern_cuda.so was built without networks");
    TERN_TRY(s->backend->describe(&s->info, device, err));
    TERN_TRY(tern_cuda_check_device(&s->info, device, err));
    TERN_TRY(tern_tuning_open(&s->tuning, &s->info, 1, err));
    return s->backend->open(&s->context, device, 0, err);
}

static tern_dtype values_of(const tern_gpu_session *s, tern_products wanted) {
    switch (wanted) {
    case TERN_PRODUCTS_F32: return TERN_F32;
    case TERN_PRODUCTS_BF16: return TERN_BF16;
    case TERN_PRODUCTS_F16: return TERN_F16;
    default: return s->info.major >= BF16_MAJOR ? TERN_BF16 : TERN_F32;
    }
}

static tern_status make_plan(tern_gpu_session *s, const tern_gpu_session_desc *desc, tern_error *err) {
    const tern_dtype values = values_of(s, desc->values);
    tern_layout layout;
    TERN_TRY(tern_layout_make(&layout, desc->graph, desc->batch, values == TERN_F32 ? 4 : 2,
                              TERN_LAYOUT_FUSED | (desc->training ? TERN_LAYOUT_TRAINING : 0), err));
    const tern_gpu_plan_desc d = {.graph = desc->graph,
                                  .layout = &layout,
                                  .batch_max = desc->batch,
                                  .training = desc->training,
                                  .values = values,
                                  .products = values,
                                  .int8_gradients = desc->int8_gradients,
                                  .seed = desc->seed,
                                  .pinned = s->pinned,
                                  .measured = {tern_tuning_choose_by, &s->tuning.table}};
    tern_status status = s->table->create(&s->plan, s->context, &d, err);
    tern_layout_free(&layout);
    return status;
}

tern_status tern_gpu_session_open(tern_gpu_session **out, const tern_gpu_session_desc *desc, tern_error *err) {
    *out = NULL;
    TERN_TRY(tern_graph_fits(desc->graph, desc->batch, err));
    tern_gpu_session *s = calloc(1, sizeof *s);
    const size_t outputs = desc->batch * desc->graph->node[desc->graph->nodes - 1].elements;
    if (s) s->output = calloc(outputs, sizeof *s->output);
    tern_status status =
        s && s->output ? TERN_OK : tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "no memory for %zu outputs", outputs);
    if (s) s->graph = desc->graph, s->batch = desc->batch, s->device = desc->device, s->training = desc->training;
    if (!status) status = open_device(s, desc->device, err);
    if (!status) status = make_plan(s, desc, err);
    if (status)
        tern_gpu_session_close(&s);
    else
        *out = s;
    return status;
}

void tern_gpu_session_close(tern_gpu_session **session) {
    tern_gpu_session *s = session ? *session : NULL;
    if (!s) return;
    if (s->plan) s->table->release(s->plan);
    if (s->context) s->backend->close(s->context);
    tern_tuning_free(&s->tuning.table);
    free(s->output);
    free(s);
    *session = NULL;
}

static tern_status run_forward(void *context, const float **y, const void *x, size_t n, tern_error *err) {
    tern_gpu_session *s = context;
    const tern_gpu_pass pass = {.batch = n};
    *y = s->output;
    return s->table->forward(s->plan, s->output, x, &pass, err);
}

tern_runner tern_gpu_session_runner(tern_gpu_session *session) {
    return (tern_runner){session->graph, session->batch, 1, run_forward, session};
}

void tern_gpu_session_describe(tern_model_info *info, const tern_gpu_session *session) {
    tern_gpu_memory memory;
    session->table->memory(&memory, session->plan);
    info->device = session->device;
    info->device_bytes = memory.bytes;
    info->device_workspace_bytes = memory.workspace;
}

tern_status tern_gpu_session_time(double *pass, tern_gpu_session *session, const void *x, size_t n, double seconds,
                                  int cold, tern_error *err) {
    enum { MOST_PASSES = 50, LEAST_REPLAYS = 5, MOST_REPLAYS = 100 };
    const double a_graph = 1e-3; /* seconds: long beside what starting it takes */
    tern_gpu_timing t = {.pass = {.batch = n, .train_mode = session->training},
                         .passes = 4,
                         .replays = 3,
                         .evict = cold ? 2 * session->info.l2_bytes : 0};
    TERN_TRY(session->table->forward(session->plan, NULL, x, &t.pass, err));
    TERN_TRY(session->table->time_forward(session->plan, pass, &t, err));
    const double least = *pass > 1e-6 ? *pass : 1e-6;
    t.passes = (int)fmin(MOST_PASSES, 1 + a_graph / least);
    t.replays = (int)fmin(MOST_REPLAYS, LEAST_REPLAYS + seconds / (t.passes * least));
    return session->table->time_forward(session->plan, pass, &t, err);
}
