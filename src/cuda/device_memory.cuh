/* Devices, their memory and streams: the first half of the table of backend.h, and its manual. */
#ifndef TERN_CUDA_DEVICE_MEMORY_CUH
#define TERN_CUDA_DEVICE_MEMORY_CUH

#include "cuda/common.cuh"

tern_status tern_cuda_count(int *count, tern_error *err);
tern_status tern_cuda_describe(tern_device_info *info, int device, tern_error *err);
tern_status tern_cuda_open(tern_cuda_context **out, int device, int serial, tern_error *err);
void tern_cuda_close(tern_cuda_context *context);
void *tern_cuda_stream(tern_cuda_context *context);
tern_status tern_cuda_synchronize(tern_cuda_context *context, tern_error *err);
tern_status tern_cuda_alloc(void **out, tern_cuda_context *context, size_t bytes, const char *op, tern_error *err);
void tern_cuda_free(tern_cuda_context *context, void *memory);
tern_status tern_cuda_upload(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);
tern_status tern_cuda_download(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);
tern_status tern_cuda_copy(tern_cuda_context *context, void *to, const void *from, size_t bytes, tern_error *err);

#endif
