/* What the .cu files share: checked calls, and types as template arguments. */
#ifndef TERN_CUDA_COMMON_CUH
#define TERN_CUDA_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/launch_shapes.h"
#include "cuda/tiles.h"
}

/* Fills err with what CUDA said; `op` names the operation. */
tern_status tern_cuda_failed(tern_error *err, cudaError_t code, const char *op);

#define CUDA_TRY(call, op, err)                                                                  \
    do {                                                                                         \
        const cudaError_t cuda_try_code_ = (call);                                               \
        if (cuda_try_code_ != cudaSuccess) return tern_cuda_failed((err), cuda_try_code_, (op)); \
    } while (0)

struct tern_cuda_context {
    int device;
    int major, minor, multiprocessors;
    size_t shared_bytes; /* that a block may have, after opting in */
    cudaStream_t stream;
    bool serial; /* no kernel starts before the one before it has ended */
    void *scratch;
    size_t scratch_bytes;
};

static inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

enum { TERN_DEFAULT_SHARED_BYTES = 48 << 10 /* that a block may have without asking */ };

/* Lets a kernel have all the shared memory that a block may, but the own_bytes that it declares itself. Always as much,
 * because the limit is the kernel's, and another thread may be about to launch it with more than this one does. */
template <class... Params>
cudaError_t tern_cuda_allow_shared(const tern_cuda_context *context, void (*kernel)(Params...), size_t own_bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)(context->shared_bytes - own_bytes));
}

/* Launches a kernel that may start while the one before it on the stream still runs (9.0 and newer): up to
 * wait_for_last_kernel() it must touch only what no kernel writes: the weights of a model. Where kernels write those
 * too, as in training, the context is serial. Only weights are read by __ldg, then: it says that nobody writes the
 * values while the kernel runs, and so they are read before the wait. shared: bytes of a block's shared memory; past
 * 48 KB of a kernel that declares none itself. cluster: blocks along z that form one. */
template <class... Params, class... Arguments>
cudaError_t tern_cuda_launch(tern_cuda_context *context, void (*kernel)(Params...), dim3 grid, int threads,
                             int shared, int cluster, const Arguments &...arguments) {
    cudaLaunchAttribute attributes[2];
    unsigned count = 0;
    if (shared > TERN_DEFAULT_SHARED_BYTES)
        if (const cudaError_t code = tern_cuda_allow_shared(context, kernel, 0)) return code;
    if (context->major >= 9 && !context->serial) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = attributes[count].val.clusterDim.y = 1;
        attributes[count++].val.clusterDim.z = (unsigned)cluster;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)shared;
    config.stream = context->stream;
    config.attrs = attributes;
    config.numAttrs = count;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
/* The next kernel may be brought in as soon as every block has come here. */
__device__ inline void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;"); }
/* Everything that earlier kernels wrote is there, and they have ended. */
__device__ inline void wait_for_last_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
__device__ inline void let_next_kernel_start() {}
__device__ inline void wait_for_last_kernel() {}
#endif

/* Everything after the sum, for every kernel. */
struct epilogue {
    const float *scale; /* [1] or [rows] */
    int scale_per_row;
    const float *inv_scale; /* [m], or NULL for ones */
    const float *bias;
    const void *residual;
    void *y;
    tern_dtype y_type;
    tern_device_activation activation;
    int rows, m;
};

/* A product as kernels see it: rows of x are ldx values apart and, but for the plain kernel, 16-byte aligned. */
struct product {
    tern_cuda_weights w;
    epilogue out;
    const void *x;
    int ldx;
};

/* A launcher: checks nothing, launches on the stream. */
typedef tern_status (*launcher)(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                tern_error *err);
tern_status tern_cuda_plain(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                            tern_error *err);
tern_status tern_cuda_tiled(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                            tern_error *err);
tern_status tern_cuda_decode(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                             tern_error *err);
/* The variants of decode that have `splits`: int8, and one row of halves. */
tern_status tern_cuda_decode_ring(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                                  tern_error *err);
tern_status tern_cuda_few(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                          tern_error *err);
tern_status tern_cuda_mma(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                          tern_error *err);
tern_status tern_cuda_wgmma(tern_cuda_context *context, const product &p, tern_dtype x_type, int variant,
                            tern_error *err);

/* The product as backend.h has it; `ldx` values from one row of x to the next, all 16-byte aligned and padded with
 * zeros to whole chunks, or 0: dense rows, which the context's scratch aligns where that takes it. */
tern_status tern_cuda_multiply(tern_cuda_context *context, const tern_cuda_weights *w,
                               const tern_device_product *product, size_t ldx, tern_error *err);
tern_status tern_cuda_time_products(double *seconds, tern_cuda_context *context, const tern_cuda_weights *weights,
                                    size_t count, const tern_device_product *product, int calls, int replays,
                                    tern_error *err);
tern_status tern_cuda_quantize(tern_cuda_context *context, const tern_device_quantizer *quantizer, tern_error *err);
tern_status tern_cuda_reserve(tern_cuda_context *context, size_t bytes, tern_error *err);

extern "C" const tern_cuda_backend *tern_cuda_backend_table(uint32_t version);

#endif
