/* Every backward kernel in double against central differences of its forward, for a random linear loss. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "phalanx/compute.h"

enum { M = 9, C = 20, SIZE = 4096 };
static px_compute ctx;
static double x[SIZE], w[SIZE], b[SIZE], y[SIZE], dy[SIZE], dx[SIZE], dw[SIZE], db[SIZE], saved[2][SIZE];
static int variant; /* which kind or option the forward under test uses */

static int setup(void **state)
{
    (void)state;
    return px_compute_init(&ctx, 1, px_linear_scratch(64, 64, 64, 2) + px_attention_scratch(160, 160, 4, 2, 20, 2)) != PX_OK;
}

static int teardown(void **state)
{
    (void)state;
    px_compute_free(&ctx);
    return 0;
}

static void fill(double *to, int count, uint32_t seed)
{
    px_rng rng = px_rng_make(seed, "grad", PX_RNG_NOISE);
    for (int i = 0; i < count; i++) to[i] = px_rng_normal(&rng, (uint32_t)i, 0, 0, 0);
}

static void start(void)
{
    fill(x, SIZE, 1);
    fill(w, SIZE, 2);
    fill(b, SIZE, 3);
    fill(dy, SIZE, 4);
    memset(dx, 0, sizeof dx);
    memset(dw, 0, sizeof dw);
    memset(db, 0, sizeof db);
}

static double dot(const double *a, const double *c, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += a[i] * c[i];
    return sum;
}

static void check(double (*loss)(void), double *at, const double *gradient, int count)
{
    const double step = 1e-5;
    double most = 0;
    for (int i = 0; i < count; i++) most = fmax(most, fabs(gradient[i]));
    assert_true(most > 1e-3);
    for (int i = 0; i < count; i++) {
        double keep = at[i];
        at[i] = keep + step;
        double up = loss();
        at[i] = keep - step;
        double slope = (up - loss()) / (2 * step);
        at[i] = keep;
        if (!(fabs(slope - gradient[i]) < 1e-6 * fmax(fabs(slope), .1 * most) + 1e-9))
            fail_msg("variant %d, element %d: %.10g, by differences %.10g", variant, i, gradient[i], slope);
    }
}

static double linear_loss(void)
{
    px_weight weight = {.raw = w, .out = 13, .in = C};
    px_linear_forward(&ctx, y, 13, x, C, &weight, b, M);
    return dot(y, dy, M * 13);
}

static void linear(void **state)
{
    (void)state;
    start();
    px_weight weight = {.raw = w, .out = 13, .in = C};
    px_linear_backward_input(&ctx, dx, C, dy, 13, &weight, M, false);
    px_linear_backward_weight(&ctx, dw, db, dy, 13, x, C, M, 13, C, true);
    check(linear_loss, x, dx, M * C);
    check(linear_loss, w, dw, 13 * C);
    check(linear_loss, b, db, 13);
}

static double layernorm_loss(void)
{
    px_layernorm_forward(&ctx, y, saved[0], saved[1], x, NULL, w, b, M, C, 1e-5);
    return dot(y, dy, M * C);
}

static double rmsnorm_loss(void)
{
    px_rmsnorm_forward(&ctx, y, saved[1], x, NULL, w, M, C, 1e-6, variant);
    return dot(y, dy, M * C);
}

static void norms(void **state)
{
    (void)state;
    start();
    layernorm_loss();
    px_layernorm_backward(&ctx, dx, dw, db, dy, x, saved[0], saved[1], w, M, C, false);
    check(layernorm_loss, x, dx, M * C);
    check(layernorm_loss, w, dw, C);
    check(layernorm_loss, b, db, C);
    for (variant = 0; variant < 2; variant++) {
        start();
        rmsnorm_loss();
        px_rmsnorm_backward(&ctx, dx, dw, dy, x, saved[1], w, M, C, variant, true);
        check(rmsnorm_loss, x, dx, M * C);
        check(rmsnorm_loss, w, dw, C);
    }
}

static double activation_loss(void)
{
    px_activation_forward(&ctx, (px_activation)variant, y, x, M * C);
    return dot(y, dy, M * C);
}

static double gated_loss(void)
{
    px_gated_forward(&ctx, (px_activation)variant, y, x, M, C);
    return dot(y, dy, M * C);
}

static void activations(void **state)
{
    (void)state;
    for (variant = PX_GELU_TANH; variant <= PX_RELU; variant++) {
        start();
        px_activation_backward(&ctx, (px_activation)variant, dx, dy, x, M * C);
        check(activation_loss, x, dx, M * C);
        px_gated_backward(&ctx, (px_activation)variant, dx, dy, x, M, C);
        check(gated_loss, x, dx, M * 2 * C);
    }
}

static const int32_t ids[M] = {3, 0, 3, 7, 1, 1, 5, 3, 2}, places[M] = {0, 1, 2, 3, 4, 0, 1, 2, 3};

static double embedding_loss(void)
{
    px_embedding_forward(&ctx, y, ids, w, NULL, places, b, 2, M, C, 1.5);
    return dot(y, dy, M * C);
}

static void embedding(void **state)
{
    (void)state;
    start();
    px_embedding_backward(&ctx, dw, ids, db, places, 2, dy, M, C, 1.5);
    check(embedding_loss, w, dw, 8 * C);
    check(embedding_loss, b, db, 7 * C);
}

static double softmax_loss(void)
{
    px_row_stats stats[M];
    double sum = 0;
    px_softmax_rows(&ctx, stats, x, C, ids, M, C, .7, true);
    for (int m = 0; m < M; m++) sum += dy[m] * stats[m].logprob + dy[M + m] * stats[m].entropy;
    return sum;
}

static void softmax(void **state)
{
    (void)state;
    start();
    px_row_stats stats[M];
    px_softmax_rows(&ctx, stats, x, C, ids, M, C, .7, true);
    memcpy(dx, x, sizeof dx);
    px_softmax_rows_backward(&ctx, dx, C, stats, ids, dy, dy + M, M, C, .7);
    check(softmax_loss, x, dx, M * C);
}

/* Two sequences of 5 and 17 rows side by side (the second crosses a key block), or one long one over key groups. */
enum { HEADS = 4, KV_HEADS = 2, D = 3, WIDTH = (HEADS + 2 * KV_HEADS) * D, LONG = 80 };
static double keys[2][KV_HEADS * D * 160], values[2][KV_HEADS * D * 160], lse[LONG * HEADS];
static int attention_rows, attention_spans;

static void attention_forward(px_span spans[2])
{
    int first = attention_spans == 2 ? 5 : attention_rows;
    for (int s = 0; s < attention_spans; s++)
        spans[s] = (px_span){.row = s ? first : 0, .rows = s ? attention_rows - first : first, .key_row = s ? first : 0,
                             .kv = {keys[s], values[s], KV_HEADS, D, 160}};
    const px_heads rows = {x, x + HEADS * D, x + (HEADS + KV_HEADS) * D, WIDTH, HEADS};
    px_attention_forward(&ctx, y, HEADS * D, lse, &rows, &(px_rotary){.dim = 0}, spans, attention_spans, .6, variant);
}

static double attention_loss(void)
{
    px_span spans[2];
    attention_forward(spans);
    return dot(y, dy, attention_rows * HEADS * D);
}

static void attention(void **state)
{
    (void)state;
    for (int shape = 0; shape < 2; shape++)
        for (variant = 0; variant <= 7; variant += 7) {
            attention_rows = shape ? LONG : 22;
            attention_spans = shape ? 1 : 2;
            start();
            px_span spans[2];
            attention_forward(spans);
            const px_heads rows = {x, x + HEADS * D, x + (HEADS + KV_HEADS) * D, WIDTH, HEADS};
            const px_heads gradients = {dx, dx + HEADS * D, dx + (HEADS + KV_HEADS) * D, WIDTH, HEADS};
            px_attention_backward(&ctx, &gradients, dy, y, HEADS * D, lse, &rows, spans, attention_spans, .6, variant);
            check(attention_loss, x, dx, attention_rows * WIDTH);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear),    cmocka_unit_test(norms),   cmocka_unit_test(activations),
        cmocka_unit_test(embedding), cmocka_unit_test(softmax), cmocka_unit_test(attention),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
