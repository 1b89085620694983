/* TERN_KERNEL names a tier of the CPU or a kernel of the GPU; what names the one leaves the other to choose
 * freely. */
#ifndef TERN_CUDA_PINNED_KERNEL_H
#define TERN_CUDA_PINNED_KERNEL_H

#include "tern/device.h"

/* What it pins, or TERN_TIER_AUTO and TERN_DEVICE_KERNEL_AUTO; a name of neither is TERN_E_ARGUMENT. Whether this
 * machine, device or product can have them is for the caller to find out. */
tern_status tern_pinned_tier(tern_tier *tier, tern_error *err);
tern_status tern_pinned_device_kernel(tern_device_kernel *kernel, tern_error *err);

#endif
