/* Devices, their memory and streams. */
#include <new>
#include <stdio.h>
#include <string.h>

#include "cuda/common.cuh"
#include "cuda/device_memory.cuh"

tern_status tern_cuda_failed(tern_error *err, cudaError_t code, const char *op) {
    cudaGetLastError(); /* an error that a launch left behind must not be found by the next one */
    const tern_status status = code == cudaErrorMemoryAllocation ? TERN_E_MEMORY : TERN_E_UNSUPPORTED;
    return tern_fail(err, status, TERN_NO_PLACE, "%s: CUDA says %s (%s)", op, cudaGetErrorString(code),
                     cudaGetErrorName(code));
}

/* ---- what is there --------------------------------------------------------------------------------------------- */

static tern_status too_old(int driver, int runtime, tern_error *err) {
    return tern_fail(
        err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
        "the NVIDIA driver serves CUDA %d.%d, but this Tern was built with CUDA %d.%d: update the driver",
        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

tern_status tern_cuda_count(int *count, tern_error *err) {
    int driver = 0, runtime = 0;
    const cudaError_t code = cudaGetDeviceCount(count);
    if (code != cudaSuccess) cudaGetLastError();
    CUDA_TRY(cudaDriverGetVersion(&driver), "devices", err);
    CUDA_TRY(cudaRuntimeGetVersion(&runtime), "devices", err);
    if (!driver)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "no GPU: there is no NVIDIA driver on this machine");
    if (code == cudaErrorInsufficientDriver) return too_old(driver, runtime, err);
    if (code == cudaErrorNoDevice || (code == cudaSuccess && !*count))
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE,
                         "no GPU: there is an NVIDIA driver, but no device that this process may use");
    CUDA_TRY(code, "devices", err);
    return TERN_OK;
}

static tern_status check_device(int device, tern_error *err) {
    int count = 0;
    tern_status status = tern_cuda_count(&count, err);
    if (status) return status;
    if (device < 0 || device >= count)
        return tern_fail(err, TERN_E_UNSUPPORTED, TERN_NO_PLACE, "there is no GPU %d: this machine has %d, from 0 on",
                         device, count);
    return TERN_OK;
}

tern_status tern_cuda_describe(tern_device_info *info, int device, tern_error *err) {
    static const char op[] = "describing a GPU";
    cudaDeviceProp properties;
    tern_status status = check_device(device, err);
    if (status) return status;
    CUDA_TRY(cudaGetDeviceProperties(&properties, device), op, err);
    memset(info, 0, sizeof *info);
    memcpy(info->name, properties.name, sizeof info->name - 1);
    info->major = properties.major;
    info->minor = properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    info->l2_bytes = (size_t)properties.l2CacheSize;
    info->shared_bytes = properties.sharedMemPerBlockOptin;
    CUDA_TRY(cudaSetDevice(device), op, err);
    CUDA_TRY(cudaMemGetInfo(&info->memory_free, &info->memory_total), op, err);
    CUDA_TRY(cudaDriverGetVersion(&info->driver_version), op, err);
    CUDA_TRY(cudaRuntimeGetVersion(&info->runtime_version), op, err);
    return TERN_OK;
}

/* ---- a device in use ------------------------------------------------------------------------------------------- */

tern_status tern_cuda_open(tern_cuda_context **out, int device, int serial, tern_error *err) {
    static const char op[] = "opening a GPU";
    tern_device_info info;
    tern_status status = tern_cuda_describe(&info, device, err);
    if (status) return status;
    tern_cuda_context *c = new (std::nothrow) tern_cuda_context();
    if (!c) return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE, "out of memory: %zu bytes", sizeof *c);
    c->device = device;
    c->serial = serial != 0;
    c->major = info.major;
    c->minor = info.minor;
    c->multiprocessors = info.multiprocessors;
    c->shared_bytes = info.shared_bytes;
    const cudaError_t code = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (code != cudaSuccess) {
        delete c;
        return tern_cuda_failed(err, code, op);
    }
    *out = c;
    return TERN_OK;
}

void tern_cuda_close(tern_cuda_context *context) {
    cudaSetDevice(context->device);
    cudaStreamSynchronize(context->stream);
    cudaFree(context->scratch);
    cudaStreamDestroy(context->stream);
    delete context;
}

void *tern_cuda_stream(tern_cuda_context *context) { return context->stream; }

tern_status tern_cuda_synchronize(tern_cuda_context *context, tern_error *err) {
    CUDA_TRY(cudaSetDevice(context->device), "synchronize", err);
    CUDA_TRY(cudaStreamSynchronize(context->stream), "synchronize", err);
    return TERN_OK;
}

tern_status tern_cuda_alloc(void **out, tern_cuda_context *context, size_t bytes, const char *op, tern_error *err) {
    CUDA_TRY(cudaSetDevice(context->device), op, err);
    const cudaError_t code = cudaMalloc(out, bytes ? bytes : 1);
    if (code != cudaErrorMemoryAllocation) {
        CUDA_TRY(code, op, err);
        return TERN_OK;
    }
    size_t free = 0, total = 0;
    cudaGetLastError();
    cudaMemGetInfo(&free, &total);
    return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE,
                     "%s: out of device memory: %zu bytes asked for, %zu of %zu are free on GPU %d", op, bytes, free,
                     total, context->device);
}

void tern_cuda_free(tern_cuda_context *context, void *memory) {
    cudaSetDevice(context->device);
    cudaFree(memory);
}

static tern_status copy(tern_cuda_context *context, void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                        const char *op, tern_error *err) {
    CUDA_TRY(cudaSetDevice(context->device), op, err);
    CUDA_TRY(cudaMemcpyAsync(to, from, bytes, kind, context->stream), op, err);
    CUDA_TRY(cudaStreamSynchronize(context->stream), op, err);
    return TERN_OK;
}

tern_status tern_cuda_upload(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err) {
    return copy(context, to, from, bytes, cudaMemcpyHostToDevice, "upload", err);
}

tern_status tern_cuda_download(tern_cuda_context *context, void *to, const void *from, size_t bytes,
                               tern_error *err) {
    return copy(context, to, from, bytes, cudaMemcpyDeviceToHost, "download", err);
}

tern_status tern_cuda_copy(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err) {
    return copy(context, to, from, bytes, cudaMemcpyDeviceToDevice, "copy", err);
}

tern_status tern_cuda_reserve(tern_cuda_context *context, size_t bytes, tern_error *err) {
    static const char op[] = "scratch";
    if (bytes <= context->scratch_bytes) return TERN_OK;
    cudaStreamCaptureStatus capturing;
    CUDA_TRY(cudaStreamIsCapturing(context->stream, &capturing), op, err);
    if (capturing != cudaStreamCaptureStatusNone)
        return tern_fail(
            err, TERN_E_ARGUMENT, TERN_NO_PLACE,
            "scratch cannot grow to %zu bytes while a graph is captured: call tern_device_reserve before", bytes);
    CUDA_TRY(cudaStreamSynchronize(context->stream), op, err);
    tern_cuda_free(context, context->scratch);
    context->scratch = NULL;
    context->scratch_bytes = 0;
    tern_status status = tern_cuda_alloc(&context->scratch, context, bytes, op, err);
    if (!status) context->scratch_bytes = bytes;
    return status;
}
