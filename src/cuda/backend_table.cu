/* The table of backend.h, and the way from a product to a launcher. */
#include "cuda/common.cuh"
#include "cuda/device_memory.cuh"
#include "cuda/peaks.cuh"

static size_t bytes_of(tern_dtype type) { return type == TERN_F32 ? 4 : type == TERN_I8 ? 1 : 2; }

/* The fast kernels read 16 columns at a time: rows of x that do not start on 16 bytes, or do not end with a chunk,
 * are copied to scratch and padded with zeros. */
static tern_status align_rows(product *p, tern_cuda_context *context, size_t value, tern_error *err) {
    static const char op[] = "aligning activations";
    const size_t cols = (size_t)p->w.cols, rows = (size_t)p->out.m;
    if ((uintptr_t)p->x % 16 == 0 && cols % TERN_TILE_CHUNK == 0) return TERN_OK;
    const size_t ld = (cols + TERN_TILE_CHUNK - 1) / TERN_TILE_CHUNK * TERN_TILE_CHUNK;
    tern_status status = tern_cuda_reserve(context, rows * ld * value, err);
    if (status) return status;
    CUDA_TRY(cudaMemsetAsync(context->scratch, 0, rows * ld * value, context->stream), op, err);
    CUDA_TRY(cudaMemcpy2DAsync(context->scratch, ld * value, p->x, cols * value, cols * value, rows,
                               cudaMemcpyDeviceToDevice, context->stream),
             op, err);
    p->x = context->scratch;
    p->ldx = (int)ld;
    return TERN_OK;
}

static const launcher launchers[TERN_DEVICE_KERNEL_COUNT] = {
    NULL, tern_cuda_plain, tern_cuda_tiled, tern_cuda_decode, tern_cuda_mma, tern_cuda_wgmma, tern_cuda_few};

tern_status tern_cuda_multiply(tern_cuda_context *context, const tern_cuda_weights *w,
                               const tern_device_product *product_, size_t ldx, tern_error *err) {
    const tern_device_product &d = *product_;
    product p = {
        *w,
        {w->scale, w->scale_per_row, d.inv_scale, d.bias, d.residual, d.y, d.y_type, d.activation, w->rows, (int)d.m},
        d.x,
        ldx ? (int)ldx : w->cols};
    CUDA_TRY(cudaSetDevice(context->device), "matmul", err);
    if (!ldx && d.kernel != TERN_DEVICE_KERNEL_PLAIN) {
        tern_status status = align_rows(&p, context, bytes_of(d.x_type), err);
        if (status) return status;
    }
    return launchers[d.kernel](context, p, d.x_type, d.variant, err);
}

static tern_status multiply(tern_cuda_context *context, const tern_cuda_weights *w,
                            const tern_device_product *product, tern_error *err) {
    return tern_cuda_multiply(context, w, product, 0, err);
}

static tern_status quantize(tern_cuda_context *context, const tern_device_quantizer *quantizer, tern_error *err) {
    CUDA_TRY(cudaSetDevice(context->device), "quantize", err);
    return tern_cuda_quantize(context, quantizer, err);
}

#ifdef TERN_NETWORKS
extern const tern_gpu_table tern_gpu_functions; /* gpu/gpu_table.cu, which knows graphs */
static const tern_gpu_table *const graphs = &tern_gpu_functions;
#else
static const tern_gpu_table *const graphs = NULL;
#endif

static const tern_cuda_backend table = {TERN_CUDA_BACKEND_VERSION,
                                        tern_cuda_count,
                                        tern_cuda_describe,
                                        tern_cuda_open,
                                        tern_cuda_close,
                                        tern_cuda_stream,
                                        tern_cuda_synchronize,
                                        tern_cuda_reserve,
                                        tern_cuda_alloc,
                                        tern_cuda_free,
                                        tern_cuda_upload,
                                        tern_cuda_download,
                                        tern_cuda_copy,
                                        multiply,
                                        tern_cuda_time_products,
                                        quantize,
                                        tern_cuda_measure_int8,
                                        tern_cuda_measure_read,
                                        graphs};

extern "C" __attribute__((visibility("default"))) const tern_cuda_backend *tern_cuda_backend_table(uint32_t version) {
    return version == TERN_CUDA_BACKEND_VERSION ? &table : NULL;
}
