/* TERN_KERNEL names a tier of the CPU or a kernel of the GPU; what names the one leaves the other to choose
 * freely. */
#ifndef TERN_API_KERNEL_NAMES_H
#define TERN_API_KERNEL_NAMES_H

#include "tern/device.h"

/* The kernel that TERN_KERNEL pins, or TERN_DEVICE_KERNEL_AUTO; a name of neither is TERN_E_ARGUMENT. */
tern_status tern_pinned_device_kernel(tern_device_kernel *kernel, tern_error *err);

#endif
