/* Is the matrix product in use row-invariant here? Asked of the machine once, not believed. */
#include <string.h>
#include "kernels.h"

enum { MOST_ROWS = 200, WIDEST = 160 };

/* Every row of the product of M rows must have the bits that it has alone, on one thread. */
static px_status compare_rows(px_dtype precision, int threads, int M, int out, int in, px_real *buffer, bool *same)
{
    px_real *x = buffer, *w = x + (size_t)MOST_ROWS * 1024, *y = w + (size_t)WIDEST * 1024;
    px_real *alone = y + (size_t)MOST_ROWS * WIDEST;
    px_compute ctx;
    PX_TRY(px_compute_init(&ctx, threads, px_linear_scratch(M, out, in, threads)));
    ctx.precision = precision;
    px_weight weight = {.raw = w, .out = out, .in = in};
    px_linear_forward(&ctx, y, out, x, in, &weight, NULL, M);
    ctx.threads = 1;
    for (int m = 0; m < M && *same; m++) {
        px_linear_forward(&ctx, alone, out, x + (size_t)m * (size_t)in, in, &weight, NULL, 1);
        *same = memcmp(alone, y + (size_t)m * (size_t)out, (size_t)out * sizeof *y) == 0;
    }
    px_compute_free(&ctx);
    return PX_OK;
}

static px_status measure(bool *same)
{
    static const int shapes[][2] = {{1, 64}, {48, 65}, {160, 768}, {97, 1000}}, rows[] = {1, 3, 17, 64, MOST_ROWS};
    size_t elements = (size_t)(MOST_ROWS + WIDEST) * 1024 + (size_t)(MOST_ROWS + 1) * WIDEST;
    px_real *buffer = px_alloc_array(elements, sizeof *buffer, "test of row invariance");
    if (!buffer) return px_error_code();
    uint32_t state = 1;
    for (size_t i = 0; i < (size_t)(MOST_ROWS + WIDEST) * 1024; i++) {
        state = state * 1664525u + 1013904223u;
        buffer[i] = (px_real)((double)(state >> 8) / (1 << 24) - 0.5);
    }
    px_status status = PX_OK;
    int precisions = px_compute_no_bf16() ? 1 : 2;
    *same = true;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (int p = 0; p < precisions; p++)
                for (int threads = 1; threads <= 2 && status == PX_OK && *same; threads++)
                    status = compare_rows(p ? PX_BF16 : PX_F32, threads, rows[r], shapes[s][0], shapes[s][1], buffer, same);
    px_free(buffer);
    return status;
}

static int known; /* 0: not measured, 1: yes, 2: no */

px_status px_compute_measure(void)
{
    bool same = false;
    if (!known) {
        PX_TRY(measure(&same));
        known = same ? 1 : 2;
    }
    return PX_OK;
}

bool px_compute_row_invariant(void) { return px_compute_measure() == PX_OK && known == 1; }
