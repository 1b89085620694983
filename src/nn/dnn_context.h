/* What dnn.c and dnn_conv.c share: the engine, streams and scratchpads of a oneDNN context. */
#ifndef TERN_NN_DNN_CONTEXT_H
#define TERN_NN_DNN_CONTEXT_H

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "base/memory.h"
#include "nn/dnn.h"

/* A primitive ready to run: its inputs and outputs in the order of `arg`. */
typedef struct tern_primitive {
    dnnl_primitive_t primitive;
    int args, arg[3];
    dnnl_memory_desc_t md[3];
    dnnl_memory_desc_t scratch_md;
} tern_primitive;

struct tern_dnn {
    dnnl_engine_t engine;
    int threads;
    dnnl_stream_t *stream; /* one a thread */
    tern_block *scratch;   /* one a thread; primitives borrow them */
    struct gemm_slot *gemms;
    dnnl_status_t failed;
};

/* oneDNN cuts a primitive's work when it is made, by the threads that OpenMP would give it, and some primitives leave
 * parts out when they then run with fewer: so both happen with one. Returns what tern_dnn_restore_threads takes. */
static inline int tern_dnn_one_thread(void) {
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}
static inline void tern_dnn_restore_threads(int threads) { omp_set_num_threads(threads); }

/* Remembers a failure; true when `status` is none. */
int tern_dnn_ok(tern_dnn *dnn, dnnl_status_t status);

/* Attributes that every primitive is made with. accumulate: add to the output. NULL after a failure. */
dnnl_primitive_attr_t tern_dnn_attr(tern_dnn *dnn, int accumulate);

/* Fills the rest of *p from a primitive descriptor, which it frees. md and arg are set before. */
void tern_dnn_finish(tern_dnn *dnn, tern_primitive *p, dnnl_primitive_desc_t pd);

/* The primitive of a whole matrix product (its pointers do not matter): a, b, c in this order. NULL when it could not
 * be made. Not thread-safe. */
const tern_primitive *tern_dnn_find_gemm(tern_dnn *dnn, const tern_gemm *gemm);

/* Runs it in the calling thread, which is number `thread` of the team. */
void tern_dnn_run(tern_dnn *dnn, const tern_primitive *p, const void *const data[3], int thread);

#endif
