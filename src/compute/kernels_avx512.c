/* The kernels for AVX-512 (F, VL, BW, DQ). */
#ifdef PX_KERNELS_X86
#define PX_ISA_NAME "avx512"
#define PX_ISA_TABLE px_kernels_avx512
#include "kernel_table.h"
#endif
