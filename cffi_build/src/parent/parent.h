#ifndef OCIRUNTIME_PARENT_H
#define OCIRUNTIME_PARENT_H
#include "shim_guard.h"

#include <stdint.h>

/* The init executable, embedded by build_shim.py (init_blob.c). */
extern const unsigned char init_blob[];
extern const unsigned int init_blob_size;

/* ret of a system call through libc as a value or -errno. */
#define KERNEL(call)                                                                                                   \
    ({                                                                                                                 \
        long kernel_ret = (call);                                                                                      \
        kernel_ret < 0 ? -errno : (int)kernel_ret;                                                                     \
    })
#endif
