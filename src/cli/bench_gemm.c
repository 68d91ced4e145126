/* Products of the sizes of transformers: with the weight as it is, and packed beforehand as decoding keeps it. */
#include "bench.h"

#include <math.h>
#include <stdio.h>

typedef struct operands {
    px_real *x, *w, *y;
    char *packed;          /* [copies] of a packed weight */
    size_t packed_bytes;
    int copies;
} operands;

/* Weights of a few rows' product stand in memory while decoding, the other layers being in between: so many copies of one
 * take turns that none is found in a cache. */
static int copies_for(int M, size_t bytes)
{
    enum { FEW_ROWS = 64 };
    size_t far = (size_t)192 << 20;
    return M > FEW_ROWS ? 1 : bytes > far ? 1 : (int)(far / bytes);
}

static px_status prepare(operands *o, px_compute *ctx, int M, int out, int in)
{
    o->x = px_alloc_array((size_t)M * (size_t)in, sizeof *o->x, "a matrix");
    o->w = px_alloc_array((size_t)out * (size_t)in, sizeof *o->w, "a matrix");
    o->y = px_alloc_array((size_t)M * (size_t)out, sizeof *o->y, "a matrix");
    o->packed_bytes = (px_weight_packed(ctx->precision, out, in) + 63) / 64 * 64;
    o->copies = o->packed_bytes > 0 ? copies_for(M, o->packed_bytes) : 0; /* 0: a library packs by itself */
    o->packed = px_alloc_array((size_t)o->copies * o->packed_bytes + 64, 1, "packed weights");
    if (o->x == NULL || o->w == NULL || o->y == NULL || o->packed == NULL) {
        return px_error_code();
    }
    px_bench_fill(o->x, (size_t)M * (size_t)in);
    px_bench_fill(o->w, (size_t)out * (size_t)in);
    px_weight weight = {.raw = o->w, .out = out, .in = in};
    for (int i = 0; i < o->copies; i++) {
        px_weight_pack(ctx, o->packed + (size_t)i * o->packed_bytes, &weight, false);
    }
    return PX_OK;
}

/* Best of several, of a tenth of a second at least; packed: the weight at hand is another copy each time. */
static double best_seconds(const px_bench *b, px_compute *ctx, const operands *o, int M, int out, int in, bool packed)
{
    px_weight weight = {.raw = o->w, .out = out, .in = in};
    int rounds = packed && o->copies > 1 ? o->copies : 1;
    double best = INFINITY, began = px_now();
    for (int64_t trial = 0; (trial < b->trials || px_now() - began < 0.1) && px_stop_level() == 0; trial++) {
        double start = px_now();
        for (int i = 0; i < rounds; i++) {
            weight.packed = packed ? o->packed + (size_t)i * o->packed_bytes : NULL;
            px_linear_forward(ctx, o->y, out, o->x, in, &weight, NULL, M);
        }
        best = fmin(best, (px_now() - start) / rounds);
    }
    return best;
}

static px_status one_product(px_bench *b, px_dtype precision, int M, int out, int in)
{
    px_compute ctx = {.threads = 0};
    operands o = {.x = NULL};
    PX_TRY(px_compute_init(&ctx, (int)b->threads, px_linear_scratch(M, out, in, (int)b->threads)));
    ctx.precision = precision;
    px_status status = prepare(&o, &ctx, M, out, in);
    char shape[64];
    px_bench_row row = {.what = "gemm", .shape = shape, .precision = precision, .flops = 2.0 * M * out * in};
    if (status == PX_OK) {
        snprintf(shape, sizeof shape, "%dx%dx%d", M, out, in);
        row.library = px_bench_library(b, precision, M, out, in);
        row.seconds = best_seconds(b, &ctx, &o, M, out, in, false);
        status = px_bench_print(b, &row);
    }
    if (status == PX_OK && o.copies > 0) {
        snprintf(shape, sizeof shape, "%dx%dx%d packed", M, out, in);
        row.seconds = best_seconds(b, &ctx, &o, M, out, in, true);
        if (o.copies > 1) {
            row.bytes = (double)o.packed_bytes;
            row.bytes_roof = px_bench_memory(b, false);
        }
        status = px_bench_print(b, &row);
    }
    px_free(o.x);
    px_free(o.w);
    px_free(o.y);
    px_free(o.packed);
    px_compute_free(&ctx);
    return status;
}

px_status px_bench_gemm(px_bench *b)
{
    static const int sizes[][3] = {{1024, 3072, 768}, {4096, 1536, 384}, {1024, 50257, 768}, {64, 768, 288},
                                   {32, 768, 768}, {8, 3072, 768}, {1, 3072, 768}};
    bool wanted[] = {b->both || b->dtype == PX_F32, b->both ? px_compute_no_bf16() == NULL : b->dtype == PX_BF16};
    for (int i = 0; i < PX_COUNT(sizes); i++) {
        for (int p = 0; p < PX_COUNT(wanted); p++) {
            PX_TRY(wanted[p] ? one_product(b, p ? PX_BF16 : PX_F32, sizes[i][0], sizes[i][1], sizes[i][2]) : PX_OK);
        }
    }
    return PX_OK;
}
