/* Devices and matrices as libtern.so knows them: handles around the table of libtern_cuda.so. */
#ifndef TERN_CUDA_DEVICE_MATRIX_H
#define TERN_CUDA_DEVICE_MATRIX_H

#include "cuda/backend.h"
#include "cuda/launch_shapes.h"
#include "cuda/tuning_file.h"

struct tern_device {
    const tern_cuda_backend *backend;
    tern_cuda_context *context;
    tern_cuda_limits limits;
    int number;
    tern_device_kernel pinned; /* by TERN_KERNEL, or TERN_DEVICE_KERNEL_AUTO */
    tern_tuning tuning;
};

struct tern_device_matrix {
    tern_device *device;
    tern_cuda_weights weights;
    size_t tile_bytes, scale_bytes;
};

/* Everything in *desc has been checked. */
tern_status tern_cuda_matrix_create(tern_device_matrix **out, tern_device *device, const tern_matrix_desc *desc,
                                    tern_error *err);
tern_status tern_cuda_matrix_clone(tern_device_matrix **out, const tern_device_matrix *matrix, tern_error *err);
void tern_cuda_matrix_free(tern_device_matrix *matrix);

#endif
