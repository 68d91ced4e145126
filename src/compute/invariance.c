/* Is the matrix product in use row-invariant here? Asked of the machine once, not believed. */
#include <string.h>
#include "kernels.h"

enum { MOST_ROWS = 200, WIDEST = 160 };

/* Every row of the product of M rows must have the bits that it has alone, on one thread. */
static bool rows_keep_their_bits(px_dtype precision, int threads, int M, int out, int in, px_real *buffer) {
    px_real *x = buffer, *w = x + (size_t)MOST_ROWS * 1024, *y = w + (size_t)WIDEST * 1024;
    px_real *alone = y + (size_t)MOST_ROWS * WIDEST;
    px_compute ctx;
    if (px_compute_init(&ctx, threads, px_linear_scratch(M, out, in, threads)) != PX_OK) return false;
    ctx.precision = precision;
    px_weight weight = {.raw = w, .out = out, .in = in};
    bool same = true;
    px_linear_forward(&ctx, y, out, x, in, &weight, NULL, M);
    ctx.threads = 1;
    for (int m = 0; m < M && same; m++) {
        px_linear_forward(&ctx, alone, out, x + (size_t)m * (size_t)in, in, &weight, NULL, 1);
        same = memcmp(alone, y + (size_t)m * (size_t)out, (size_t)out * sizeof *y) == 0;
    }
    px_compute_free(&ctx);
    return same;
}

static bool measure(void) {
    static const int shapes[][2] = {{1, 64}, {48, 65}, {160, 768}, {97, 1000}}, rows[] = {1, 3, 17, 64, MOST_ROWS};
    size_t elements = (size_t)(MOST_ROWS + WIDEST) * 1024 + (size_t)(MOST_ROWS + 1) * WIDEST;
    px_real *buffer = px_alloc_array(elements, sizeof *buffer, "test of row invariance");
    if (!buffer) return false;
    uint32_t state = 1;
    for (size_t i = 0; i < (size_t)(MOST_ROWS + WIDEST) * 1024; i++) {
        state = state * 1664525u + 1013904223u;
        buffer[i] = (px_real)((double)(state >> 8) / (1 << 24) - 0.5);
    }
    bool same = true;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes && same; s++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows && same; r++)
            for (int threads = 1; threads <= 2 && same; threads++) {
                same = rows_keep_their_bits(PX_F32, threads, rows[r], shapes[s][0], shapes[s][1], buffer);
                if (!px_compute_no_bf16())
                    same = same && rows_keep_their_bits(PX_BF16, threads, rows[r], shapes[s][0], shapes[s][1], buffer);
            }
    px_free(buffer);
    return same;
}

bool px_compute_row_invariant(void) {
    static int known; /* 0: not measured, 1: yes, 2: no */
    if (!known) known = measure() ? 1 : 2;
    return known == 1;
}
