/* Which device a name means. */
#ifndef TERN_CUDA_SELECT_DEVICE_H
#define TERN_CUDA_SELECT_DEVICE_H

#include "tern/device.h"

/* "auto", "cpu", "cuda", "cuda:N" as tern_device_select has it; name NULL: what TERN_DEVICE says, "auto" where it
 * says nothing. Checks what is pinned, too. */
tern_status tern_cuda_select(int *device, const char *name, tern_error *err);

/* Where TERN_KERNEL names a kernel of a GPU, a machine must have one: else TERN_E_UNSUPPORTED with the reason. The CPU
 * would compute without that kernel, and not say so. */
tern_status tern_cuda_check_pinned(tern_error *err);

/* True where the choice is left to Tern: name, or without one TERN_DEVICE, is "auto" or nothing. */
int tern_cuda_is_auto(const char *name);

/* Refuses a device that Tern has no kernels for. */
tern_status tern_cuda_check_device(const tern_device_info *info, int device, tern_error *err);

#endif
