#ifndef OCIRUNTIME_SHIM_GUARD_H
#define OCIRUNTIME_SHIM_GUARD_H
#include <stddef.h>
#include <stdint.h>
#include "shim.h"
#endif
