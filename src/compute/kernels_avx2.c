/* The kernels for AVX2 with FMA. */
#ifdef PX_KERNELS_X86
#define PX_ISA_NAME "avx2"
#define PX_ISA_TABLE px_kernels_avx2
#include "kernel_table.h"
#endif
