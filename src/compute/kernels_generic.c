/* The kernels for any processor. */
#define PX_ISA_NAME "generic"
#define PX_ISA_TABLE px_kernels_generic
#include "kernel_table.h"
