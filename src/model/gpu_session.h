/* A graph opened on a GPU: the device, the plan there, and the way to run it from the host. */
#ifndef TERN_MODEL_GPU_SESSION_H
#define TERN_MODEL_GPU_SESSION_H

#include "cuda/tuning_file.h"
#include "gpu/gpu_table.h"
#include "model/configuration.h"
#include "model/evaluate.h"
#include "tern/model.h"

typedef struct tern_gpu_session {
    const tern_cuda_backend *backend;
    const tern_gpu_table *table;
    tern_cuda_context *context;
    tern_gpu_plan *plan;
    tern_device_info info;
    tern_device_kernel pinned; /* by TERN_KERNEL */
    tern_tuning tuning;        /* what was measured on this kind of device */
    const tern_graph *graph;
    size_t batch;
    int device, training;
    float *output; /* [batch][elements] of the last node, host memory */
} tern_gpu_session;

typedef struct tern_gpu_session_desc {
    const tern_graph *graph; /* placed; outlives the session */
    int device;
    size_t batch;
    int training;
    tern_products values; /* and operands; auto: bf16 where the device has matrix instructions for it, else fp32 */
    int int8_gradients;   /* of inputs of ternary products */
    uint64_t seed;
} tern_gpu_session_desc;

/* Parameters are not sent yet: table->send. */
tern_status tern_gpu_session_open(tern_gpu_session **out, const tern_gpu_session_desc *desc, tern_error *err);
void tern_gpu_session_close(tern_gpu_session **session);

/* The device and its memory. */
void tern_gpu_session_describe(tern_model_info *info, const tern_gpu_session *session);
/* As tern_model_time. */
tern_status tern_gpu_session_time(double *pass, tern_gpu_session *session, const void *x, size_t n, double seconds,
                                  int cold, tern_error *err);

/* The session must outlive it. */
tern_runner tern_gpu_session_runner(tern_gpu_session *session);

#endif
