/* Matrix products with operands in bf16 and sums in float32, for AVX-512 with BF16: vdpbf16ps adds the products of two
 * pairs to each of 16 sums. Operands come and go as float32 and are rounded where they are packed. */
#include "phalanx/compute.h"
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
#define PX_PAIRS
#include "kernel_product.h"
#include "kernel_peak.h"

const px_products px_products_bf16 = {"AVX512-BF16", TILE_ROWS, STEP, product, pack_b, pack_b16, peak, HALVE};
#endif
