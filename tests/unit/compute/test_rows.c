/* Products and attention against plain loops in double, and the promise that a row's bits are its own: memcmp of rows
 * alone, in batches, and on other thread counts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "phalanx/compute.h"

static void random_fill(px_real *x, size_t count, uint32_t seed)
{
    px_rng rng = px_rng_make(seed, "test", PX_RNG_NOISE);
    for (size_t i = 0; i < count; i++) x[i] = (px_real)(px_rng_uniform(&rng, (uint32_t)i, 0, 0, 0) - .5);
}

static px_real *random_new(size_t count, uint32_t seed)
{
    px_real *x = px_alloc_array(count, sizeof *x, "test");
    assert_non_null(x);
    random_fill(x, count, seed);
    return x;
}

/* What a product multiplies: the element, or its nearest bf16 (ties to even). */
static double operand(px_dtype precision, px_real x)
{
    uint32_t bits;
    if (precision != PX_BF16) return (double)x;
    float value = (float)x;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Every error of c (stride ldc) against start + sum a(i,k) b(j,k) of the operands as they are multiplied is under
 * 2e-5 + 1e-6 depth: sums are float32 in either precision. */
static void check_product(px_dtype precision, const px_real *c, int ldc, const px_real *start, const px_real *a, int ai, int ak,
                          const px_real *b, int bj, int bk, const px_real *bias, int rows, int columns, int depth)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            double sum = (start ? (double)start[i * ldc + j] : 0) + (bias ? (double)bias[j] : 0);
            for (int k = 0; k < depth; k++) sum += operand(precision, a[i * ai + k * ak]) * operand(precision, b[j * bj + k * bk]);
            if (!(fabs((double)c[i * ldc + j] - sum) < 2e-5 + 1e-6 * depth))
                fail_msg("%dx%dx%d: (%d, %d) is %.8g, not %.8g", rows, columns, depth, i, j, (double)c[i * ldc + j], sum);
        }
}

/* Equal bits where products are our own; a BLAS promises none. */
static void same_product(px_dtype precision, const px_real *a, const px_real *b, size_t count)
{
    if (precision == PX_BF16 || strncmp(px_compute_blas(), "none", 4) == 0)
        assert_memory_equal(a, b, count * sizeof *a);
    else
        for (size_t i = 0; i < count; i++) assert_true(fabs((double)(a[i] - b[i])) < 2e-3);
}

static void linear_shape(px_dtype precision, int M, int out, int in, int threads)
{
    px_compute ctx;
    assert_int_equal(px_compute_init(&ctx, threads, px_linear_scratch(M, out, in, threads)), PX_OK);
    ctx.precision = precision;
    int ldx = in + 3, ldy = out + 5;
    size_t nx = (size_t)M * (size_t)ldx, ny = (size_t)M * (size_t)ldy, nw = (size_t)out * (size_t)in;
    px_real *x = random_new(nx, 1), *w = random_new(nw, 2), *bias = random_new((size_t)out, 3), *y = random_new(ny, 4);
    px_real *dx = random_new(nx, 5), *before = random_new(nx, 5), *dw = random_new(nw, 6), *dw_before = random_new(nw, 6);
    px_real *db = random_new((size_t)out, 7), *db_before = random_new((size_t)out, 7);
    px_weight weight = {.raw = w, .out = out, .in = in};
    px_linear_forward(&ctx, y, ldy, x, ldx, &weight, bias, M);
    check_product(precision, y, ldy, NULL, x, ldx, 1, w, in, 1, bias, M, out, in);
    px_real *packed = random_new(px_weight_packed(precision, out, in) / sizeof(px_real), 8), *again = random_new(ny, 4);
    px_weight_pack(&ctx, packed, &weight, false);
    px_weight ready = {.raw = w, .out = out, .in = in, .packed = packed};
    px_linear_forward(&ctx, again, ldy, x, ldx, &ready, bias, M);
    same_product(precision, y, again, ny);
    px_linear_backward_input(&ctx, dx, ldx, y, ldy, &weight, M, true);
    check_product(precision, dx, ldx, before, y, ldy, 1, w, 1, in, NULL, M, in, out);
    px_linear_backward_input(&ctx, dx, ldx, y, ldy, &weight, M, false);
    check_product(precision, dx, ldx, NULL, y, ldy, 1, w, 1, in, NULL, M, in, out);
    px_real *transposed = random_new(px_weight_packed(precision, in, out) / sizeof(px_real), 9), *dx_again = random_new(nx, 5);
    px_weight_pack(&ctx, transposed, &weight, true);
    px_weight ready_back = {.raw = w, .out = out, .in = in, .packed_transposed = transposed};
    for (size_t i = 0; i < nx; i++) dx_again[i] = i % (size_t)ldx < (size_t)in ? 7 : dx[i];
    px_linear_backward_input(&ctx, dx_again, ldx, y, ldy, &ready_back, M, false);
    same_product(precision, dx, dx_again, nx);
    px_linear_backward_weight(&ctx, dw, db, y, ldy, x, ldx, M, out, in, true);
    check_product(precision, dw, in, dw_before, y, 1, ldy, x, 1, ldx, NULL, out, in, M);
    px_linear_backward_weight(&ctx, dw, NULL, y, ldy, x, ldx, M, out, in, false);
    check_product(precision, dw, in, NULL, y, 1, ldy, x, 1, ldx, NULL, out, in, M);
    for (int j = 0; j < out; j++) {
        double sum = (double)db_before[j];
        for (int m = 0; m < M; m++) sum += (double)y[m * ldy + j];
        assert_true(fabs((double)db[j] - sum) < 1e-5 + 2e-6 * M);
    }
    px_real *all[] = {packed, again, transposed, dx_again, x, w, bias, y, dx, before, dw, dw_before, db, db_before};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) px_free(all[i]);
    px_compute_free(&ctx);
}

static bool own_products(void) { return strncmp(px_compute_blas(), "none", 4) == 0; } /* and no library's, which packs nothing */

/* Weights that bf16 holds exactly are packed as 16 bits and give the bits that they give whole. */
static void halved_shape(int M, int out, int in, int threads)
{
    px_compute ctx;
    assert_int_equal(px_compute_init(&ctx, threads, px_linear_scratch(M, out, in, threads)), PX_OK);
    size_t nx = (size_t)M * (size_t)in, ny = (size_t)M * (size_t)out, nw = (size_t)out * (size_t)in;
    px_real *x = random_new(nx, 1), *w = random_new(nw, 2), *bias = random_new((size_t)out, 3), *y = random_new(ny, 4);
    px_real *again = random_new(ny, 5), *packed = random_new(px_weight_packed(PX_F32, out, in) / sizeof(px_real), 6);
    assert_false(px_weights_halve(&ctx, w, nw));
    for (size_t i = 0; i < nw; i++) w[i] = (px_real)operand(PX_BF16, w[i]);
    px_weight weight = {.raw = w, .out = out, .in = in}, ready = weight;
    px_linear_forward(&ctx, y, out, x, in, &weight, bias, M);
    ready.halves = px_weights_halve(&ctx, w, nw);
    assert_true(ready.halves);
    px_weight_pack(&ctx, packed, &ready, false);
    memset(w, 0xff, nw * sizeof *w); /* is read no more */
    ready.packed = packed;
    px_linear_forward(&ctx, again, out, x, in, &ready, bias, M);
    assert_memory_equal(y, again, ny * sizeof *y);
    px_real *all[] = {x, w, bias, y, again, packed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) px_free(all[i]);
    px_compute_free(&ctx);
}

static void linear_layers(void **state)
{
    (void)state;
    static const int shapes[][3] = {{1, 1, 1},   {3, 5, 7},     {12, 32, 16},   {13, 33, 17},
                                    {64, 1, 96}, {40, 350, 40}, {11, 70, 801}, {25, 64, 1000}, {1030, 40, 20},
                                    {14, 1019, 1021}}; /* its strides are 4096 bytes */
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int threads = 1; threads <= 3; threads++) {
            linear_shape(PX_F32, shapes[s][0], shapes[s][1], shapes[s][2], threads);
            if (!px_compute_no_bf16()) linear_shape(PX_BF16, shapes[s][0], shapes[s][1], shapes[s][2], threads);
            if (own_products()) halved_shape(shapes[s][0], shapes[s][1], shapes[s][2], threads);
        }
}

static void linear_rows_keep_their_bits(void **state)
{
    (void)state;
    bool own = own_products(), keep = px_compute_row_invariant();
    print_message("    products: %s: a row %s the bits that it has alone\n", px_compute_blas(), keep ? "has" : "does not have");
    assert_true(keep || !own); /* a BLAS promises nothing */
}

enum { HEADS = 4, KV_HEADS = 2, T = 203, MAX_D = 80 };

/* Of a value that bf16 holds. */
static px_real upper_half(const px_real *value)
{
    uint16_t upper;
    memcpy(&upper, (const char *)value + 2, sizeof upper);
    return px_from_bf16(upper);
}

/* Row alone (as in decode), and the whole sequence on 1 and 2 threads; against plain loops in double. rounded: keys and
 * values are bf16, and a cache of half the memory gives the same bits. */
static void attention_case(int D, int window, bool rounded)
{
    int width = HEADS * D, ld = width + 2 * KV_HEADS * D, capacity = 208;
    px_compute ctx[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(px_compute_init(&ctx[i], i + 1, px_attention_scratch(T, T, HEADS, KV_HEADS, D, i + 1)), PX_OK);
    px_real *q = random_new((size_t)(T * ld), 1), *k = q + width, *v = k + KV_HEADS * D;
    px_real *out = random_new((size_t)(T * width), 4);
    const px_heads rows = {q, k, v, ld, HEADS};
    px_real *again = random_new((size_t)(T * width), 5), *lse = random_new(T * HEADS, 6), lse_again[T * HEADS];
    px_real *keys = random_new(px_kv_bytes(false, KV_HEADS, D, capacity) / sizeof(px_real), 7);
    px_real *values = random_new(px_kv_bytes(false, KV_HEADS, D, capacity) / sizeof(px_real), 8);
    px_span span = {.rows = T, .kv = {keys, values, KV_HEADS, D, capacity, rounded, false}};
    for (int t = 0; t < T; t++)
        for (int i = 0; i < width; i++) q[t * ld + i] *= 8; /* peaked weights */
    px_attention_forward(&ctx[1], out, width, lse, &rows, &(px_rotary){.dim = 0}, &span, 1, .25, window);
    for (int i = 0; rounded && i < T * ld; i++)
        if (i % ld >= width) assert_true((double)upper_half(q + i) == (double)q[i]);
    if (rounded) { /* again, from rows that are what they were */
        span.kv.halves = true;
        px_kv_store(&ctx[1], &span, 1, &rows, &(px_rotary){.dim = 0});
    }
    px_attention_forward(&ctx[0], again, width, lse_again, &rows, NULL, &span, 1, .25, window);
    assert_memory_equal(out, again, (size_t)(T * width) * sizeof *out);
    assert_memory_equal(lse, lse_again, sizeof lse_again);
    for (int t = 0; t < T; t++) {
        px_span one = {.row = t, .rows = 1, .position = t, .kv = span.kv};
        memset(again, 0, (size_t)(T * width) * sizeof *again);
        px_attention_forward(&ctx[0], again, width, NULL, &rows, NULL, &one, 1, .25, window);
        assert_memory_equal(again + t * width, out + t * width, (size_t)width * sizeof *out);
        int low = window > 0 && t >= window ? t - window + 1 : 0;
        for (int h = 0; h < HEADS; h++) {
            double weight[T], total = 0;
            int kv = h / (HEADS / KV_HEADS);
            for (int j = low; j <= t; j++) {
                double dot = 0;
                for (int d = 0; d < D; d++) dot += (double)q[t * ld + h * D + d] * (double)k[j * ld + kv * D + d];
                total += weight[j] = exp(dot * .25);
            }
            assert_true(fabs((double)lse[t * HEADS + h] - log(total)) < 1e-5);
            for (int d = 0; d < D; d++) {
                double want = 0;
                for (int j = low; j <= t; j++) want += weight[j] / total * (double)v[j * ld + kv * D + d];
                assert_true(fabs((double)out[t * width + h * D + d] - want) < 2e-6);
            }
        }
    }
    px_real *all[] = {q, out, again, lse, keys, values};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) px_free(all[i]);
    for (int i = 0; i < 2; i++) px_compute_free(&ctx[i]);
}

static void attention_rows_keep_their_bits(void **state)
{
    (void)state;
    static const int dims[] = {64, 16, 80, 8, 36}, windows[] = {0, 1, 3, 64, 70};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++)
            for (int rounded = 0; rounded < 2; rounded++)
                if (d == 0 || w % 2 == 0) attention_case(dims[d], windows[w], rounded);
}

/* Rows that come one at a time, of one sequence or of two side by side, leave the outputs, the rotated rows and the cache
 * of a sequence that comes whole: rotated and stored before, by who attends, and in a batch with a longer span. */
static void decoding_stores_what_prefill_does(int sequences, int kv_heads, bool halves)
{
    enum { D = 20, LENGTH = 37, CAPACITY = 48, ROTARY = 12 };
    int width = HEADS * D, ld = width + 2 * kv_heads * D, whole = LENGTH * ld, elements = (int)(px_kv_bytes(false, kv_heads, D, CAPACITY) / sizeof(px_real));
    px_real cosine[CAPACITY * ROTARY / 2], sine[CAPACITY * ROTARY / 2];
    const double frequency[ROTARY / 2] = {1, .5, .25, .1, .05, .01};
    px_rope_table(cosine, sine, frequency, CAPACITY, ROTARY, 1);
    const px_rotary rotary = {cosine, sine, ROTARY};
    px_compute ctx;
    assert_int_equal(px_compute_init(&ctx, 2, px_attention_scratch(LENGTH, LENGTH, HEADS, kv_heads, D, 2)), PX_OK);
    px_real *x = random_new((size_t)(3 * whole), 1), *out = random_new((size_t)(3 * LENGTH * width), 2);
    px_real *cache = random_new((size_t)(6 * elements), 3);
    for (int s = 1; s < 3; s++) {
        memcpy(x + s * whole, x, (size_t)whole * sizeof *x);
        memcpy(cache + 2 * s * elements, cache, (size_t)(2 * elements) * sizeof *cache);
    }
    const px_heads rows = {x, x + width, x + width + kv_heads * D, ld, HEADS};
    px_span spans[3];
    for (int s = 0; s < 3; s++) {
        px_real *k = cache + 2 * s * elements;
        const px_kv kv = {k, k + elements, kv_heads, D, CAPACITY, halves, halves};
        spans[s] = (px_span){.row = s * LENGTH, .rows = s ? 1 : LENGTH, .kv = kv};
    }
    px_attention_forward(&ctx, out, width, NULL, &rows, &rotary, spans, 1 + sequences, .25, 0);
    for (int t = 1; t < LENGTH; t++) {
        for (int s = 1; s <= sequences; s++) spans[s].row++, spans[s].position++;
        px_attention_forward(&ctx, out, width, NULL, &rows, &rotary, spans + 1, sequences, .25, 0);
    }
    for (int s = 1; s <= sequences; s++) {
        assert_memory_equal(x + s * whole, x, (size_t)whole * sizeof *x);
        assert_memory_equal(out + s * LENGTH * width, out, (size_t)(LENGTH * width) * sizeof *out);
        assert_memory_equal(cache + 2 * s * elements, cache, (size_t)(2 * elements) * sizeof *cache);
    }
    px_free(x);
    px_free(out);
    px_free(cache);
    px_compute_free(&ctx);
}

static void decoded_rows_are_stored_once(void **state)
{
    (void)state;
    for (int kv_heads = 1; kv_heads <= HEADS; kv_heads *= 2)
        for (int sequences = 1; sequences <= 2; sequences++)
            for (int halves = 0; halves < 2; halves++) decoding_stores_what_prefill_does(sequences, kv_heads, halves);
}

static void norms_and_softmax_keep_their_bits(void **state)
{
    (void)state;
    enum { M = 67, C = 777 };
    px_compute ctx;
    assert_int_equal(px_compute_init(&ctx, 2, 64), PX_OK);
    px_real *x = random_new(M * C, 1), *w = random_new(C, 2), *b = random_new(C, 3), *y = random_new(M * C, 4);
    px_real *dx = random_new(M * C, 4), alone[C], alone_dx[C], mean[M], rstd[M];
    px_real *dw = random_new(C, 5), *db = random_new(C, 6);
    px_row_stats stats[M], one;
    int32_t targets[M];
    for (int m = 0; m < M; m++) targets[m] = m * 11;
    px_layernorm_forward(&ctx, y, mean, rstd, x, NULL, w, b, M, C, 1e-5);
    px_layernorm_backward(&ctx, dx, dw, db, y, x, mean, rstd, w, M, C, false);
    memset(stats, 0, sizeof stats);
    px_softmax_rows(&ctx, stats, x, C, targets, M, C, .9, true);
    for (int m = 0; m < M; m++) {
        px_layernorm_forward(&ctx, alone, NULL, NULL, x + m * C, NULL, w, b, 1, C, 1e-5);
        assert_memory_equal(alone, y + m * C, sizeof alone);
        px_layernorm_backward(&ctx, alone_dx, dw, db, y + m * C, x + m * C, mean + m, rstd + m, w, 1, C, false);
        assert_memory_equal(alone_dx, dx + m * C, sizeof alone_dx);
        memset(&one, 0, sizeof one);
        px_softmax_rows(&ctx, &one, x + m * C, C, targets + m, 1, C, .9, true);
        assert_memory_equal(&one, &stats[m], sizeof one);
    }
    px_rmsnorm_forward(&ctx, y, rstd, x, NULL, w, M, C, 1e-6, 0);
    for (int m = 0; m < M; m++) {
        px_rmsnorm_forward(&ctx, alone, NULL, x + m * C, NULL, w, 1, C, 1e-6, 0);
        assert_memory_equal(alone, y + m * C, sizeof alone);
    }
    px_real *all[] = {x, w, b, y, dx, dw, db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) px_free(all[i]);
    px_compute_free(&ctx);
}

/* The residual is added in the norm's pass as by itself. */
static void residuals_are_added_on_the_way(void **state)
{
    (void)state;
    enum { M = 5, C = 77, COUNT = M * C };
    px_compute ctx;
    assert_int_equal(px_compute_init(&ctx, 2, 64), PX_OK);
    px_real *x = random_new(COUNT, 1), *residual = random_new(COUNT, 2), *w = random_new(C, 3), *b = random_new(C, 4);
    px_real *sum = random_new(COUNT, 1), fused[COUNT], plain[COUNT];
    px_add(&ctx, sum, residual, COUNT);
    px_layernorm_forward(&ctx, plain, NULL, NULL, sum, NULL, w, b, M, C, 1e-5);
    px_layernorm_forward(&ctx, fused, NULL, NULL, x, residual, w, b, M, C, 1e-5);
    assert_memory_equal(x, sum, COUNT * sizeof *x);
    assert_memory_equal(fused, plain, sizeof fused);
    px_rmsnorm_forward(&ctx, fused, NULL, x, residual, w, M, C, 1e-6, 1);
    px_add(&ctx, sum, residual, COUNT);
    px_rmsnorm_forward(&ctx, plain, NULL, sum, NULL, w, M, C, 1e-6, 1);
    assert_memory_equal(x, sum, COUNT * sizeof *x);
    assert_memory_equal(fused, plain, sizeof fused);
    px_real *all[] = {x, residual, w, b, sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) px_free(all[i]);
    px_compute_free(&ctx);
}

/* vdpbf16ps and the packing in front of it: infinities and NaNs come through, as in float32. */
static void bf16_keeps_what_is_not_finite(void **state)
{
    (void)state;
    if (px_compute_no_bf16()) skip();
    enum { IN = 35 };
    px_compute ctx;
    px_real x[3][IN] = {{0}}, w[IN], y[3];
    assert_int_equal(px_compute_init(&ctx, 1, px_linear_scratch(3, 1, IN, 1)), PX_OK);
    ctx.precision = PX_BF16;
    for (int i = 0; i < IN; i++) w[i] = 1;
    x[0][IN - 1] = (px_real)INFINITY;
    x[1][20] = (px_real)NAN;
    x[2][0] = 3.0078125f; /* between 3 and 3.015625: to the even one */
    px_weight weight = {.raw = w, .out = 1, .in = IN};
    px_linear_forward(&ctx, y, 1, x[0], IN, &weight, NULL, 3);
    assert_true(isinf(y[0]) && y[0] > 0 && isnan(y[1]));
    assert_true(y[2] == 3);
    px_compute_free(&ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_layers),
        cmocka_unit_test(bf16_keeps_what_is_not_finite),
        cmocka_unit_test(linear_rows_keep_their_bits),
        cmocka_unit_test(attention_rows_keep_their_bits),
        cmocka_unit_test(norms_and_softmax_keep_their_bits),
        cmocka_unit_test(decoded_rows_are_stored_once),
        cmocka_unit_test(residuals_are_added_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
