/* What a product could run at: OpenBLAS's in float32, oneDNN's in bf16. Both are opened by name when somebody asks. */
#include "openblas.h"
#include "roof.h"

enum { TRIALS = 12 };

double px_library_gemm(px_dtype precision, int threads, int M, int out, int in) {
    return precision == PX_BF16 ? px_onednn_bf16_rate(threads, M, out, in, TRIALS)
                                : px_openblas_rate(threads, M, out, in, TRIALS);
}
