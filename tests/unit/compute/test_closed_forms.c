/* Kernels against numbers worked out by hand or by another program (closed forms T15, T17, T26, T28, T31). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "phalanx/compute.h"

static px_compute ctx;

static int setup(void **state)
{
    (void)state;
    return px_compute_init(&ctx, 2, px_attention_scratch(64, 64, 4, 4, 64, 2)) != PX_OK;
}

static int teardown(void **state)
{
    (void)state;
    px_compute_free(&ctx);
    return 0;
}

static void near(const px_real *got, const double *want, int count)
{
    for (int i = 0; i < count; i++)
        if (!(fabs((double)got[i] - want[i]) < 2e-6)) fail_msg("element %d is %.9g, not %.9g", i, (double)got[i], want[i]);
}

static void activations(void **state)
{
    (void)state;
    const px_real x[2] = {1, -2}, dy[2] = {1, 1};
    const double value[3][2] = {{.8411920, -.0454023}, {.8413447, -.0455003}, {.7310586, -.2384058}};
    const double slope[3] = {1.0829641, 1.0833155, .9276705};
    for (int kind = PX_GELU_TANH; kind <= PX_SILU; kind++) {
        px_real y[2], dx[2];
        px_activation_forward(&ctx, (px_activation)kind, y, x, 2);
        px_activation_backward(&ctx, (px_activation)kind, dx, dy, x, 2);
        near(y, value[kind], 2);
        near(dx, &slope[kind], 1);
    }
}

/* Every activation over its whole range against libm in double. */
static void activations_everywhere(void **state)
{
    (void)state;
    enum { COUNT = 4001 };
    static px_real x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = (px_real)(-20 + i * .01);
    for (int kind = PX_GELU_TANH; kind <= PX_RELU; kind++) {
        px_activation_forward(&ctx, (px_activation)kind, y, x, COUNT);
        for (int i = 0; i < COUNT; i++) {
            double v = (double)x[i], want = v > 0 ? v : 0;
            if (kind == PX_GELU_TANH) want = .5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + .044715 * v * v * v)));
            if (kind == PX_GELU_ERF) want = .5 * v * erfc(-v / sqrt(2));
            if (kind == PX_SILU) want = v / (1 + exp(-v));
            assert_true(fabs((double)y[i] - want) <= 3e-7 * fmax(fabs(want), .3));
        }
    }
}

static void norms(void **state)
{
    (void)state;
    px_real x[4] = {1, 2, 3, 4};
    const px_real one[4] = {1, 1, 1, 1}, zero[4] = {0}, dy[4] = {1, 0, 0, 0};
    const double rms[4] = {.365148, .730297, 1.095445, 1.460593}, ln[4] = {-1.341635, -.447212, .447212, 1.341635};
    const double rms_dx[4] = {.352977, -.024343, -.036515, -.048686};
    const double ln_dx[4] = {.268330, -.357768, -.089443, .178882};
    px_real y[4], mean, rstd, dx[4] = {0}, dw[4] = {0}, db[4] = {0};
    px_rmsnorm_forward(&ctx, y, &rstd, x, NULL, zero, 1, 4, 1e-6, 1);
    near(y, rms, 4);
    px_rmsnorm_backward(&ctx, dx, dw, dy, x, &rstd, one, 1, 4, 0, false);
    near(dx, rms_dx, 4);
    near(dw, rms, 1);
    px_layernorm_forward(&ctx, y, &mean, &rstd, x, NULL, one, zero, 1, 4, 1e-5);
    near(y, ln, 4);
    memset(dw, 0, sizeof dw);
    px_layernorm_backward(&ctx, dx, dw, db, dy, x, &mean, &rstd, one, 1, 4, false);
    near(dx, ln_dx, 4);
    near(dw, ln, 1);
    px_layernorm_backward(&ctx, dx, dw, db, dy, x, &mean, &rstd, one, 1, 4, true);
    for (int i = 0; i < 4; i++) assert_true(fabs((double)dx[i] - 2 * ln_dx[i]) < 4e-6);
    assert_true(db[0] == 2 && db[1] == 0);
}

static void rope(void **state)
{
    (void)state;
    const double frequency[2] = {1, .01}, want[4] = {-1.984111, 1.959901, 2.462378, 4.019800};
    px_real cosine[4], sine[4], x[4] = {1, 2, 3, 4};
    const double original[4] = {1, 2, 3, 4};
    const int32_t position = 1;
    const px_rotary rotary = {cosine, sine, 4};
    px_rope_table(cosine, sine, frequency, 2, 4, 1);
    px_rope_apply(&ctx, x, 4, &position, &rotary, 1, 1, 4, false);
    near(x, want, 4);
    px_rope_apply(&ctx, x, 4, &position, &rotary, 1, 1, 4, true);
    near(x, original, 4);
}

static void softmax(void **state)
{
    (void)state;
    px_real z[4] = {2, 1, 0, -1}, z3[3] = {2, 1, 0};
    const int32_t target = 0;
    const double g = 0, h = 1, slope[4] = {-.326688, .116701, .130076, .079911};
    const double loss_slope[3] = {-.334759, .244728, .090031}, minus = -1;
    px_row_stats stats;
    px_softmax_rows(&ctx, &stats, z, 4, &target, 1, 4, .5, false);
    assert_true(fabs(stats.logprob + .145078) < 2e-6 && isnan(stats.entropy));
    px_softmax_rows(&ctx, &stats, z, 4, &target, 1, 4, 1, true);
    assert_true(fabs(stats.logprob + .440190) < 2e-6 && fabs(stats.entropy - .947537) < 2e-6);
    px_softmax_rows_backward(&ctx, z, 4, &stats, &target, &g, &h, 1, 4, 1);
    near(z, slope, 4);
    px_softmax_rows(&ctx, &stats, z3, 3, &target, 1, 3, 1, false);
    assert_true(fabs(stats.logprob + .407606) < 2e-6);
    px_softmax_rows_backward(&ctx, z3, 3, &stats, &target, &minus, NULL, 1, 3, 1);
    near(z3, loss_slope, 3);
}

/* A vocabulary of 50k, with the maximum late and far above the start. */
static void softmax_of_long_rows(void **state)
{
    (void)state;
    enum { V = 50257 };
    static px_real z[V];
    for (int v = 0; v < V; v++) z[v] = (px_real)(8 * sin(.37 * v) + 3e-4 * v);
    const int32_t target = 123;
    px_row_stats stats;
    px_softmax_rows(&ctx, &stats, z, V, &target, 1, V, .7, true);
    double sum = 0, mean = 0;
    for (int v = 0; v < V; v++) sum += exp((double)z[v] / .7 - 40);
    double lse = 40 + log(sum);
    for (int v = 0; v < V; v++) mean += exp((double)z[v] / .7 - lse) * (double)z[v] / .7;
    assert_true(fabs(stats.lse - lse) < 2e-6);
    assert_true(fabs(stats.logprob - ((double)z[target] / .7 - lse)) < 2e-6);
    assert_true(fabs(stats.entropy - (lse - mean)) < 1e-5);
}

static void attention(void **state)
{
    (void)state;
    px_real q[4] = {0, 0, 0, 1}, k[4] = {1, 1, 0, 2}, v[4] = {1, 2, 3, 4};
    const px_heads rows = {q, k, v, 2, 1};
    px_real keys[32] = {0}, values[32] = {0}, out[4], lse[2];
    px_span span = {.rows = 2, .kv = {keys, values, 1, 2, 16}};
    const double want[4] = {1, 2, 2.339523, 3.339523};
    px_attention_forward(&ctx, out, 2, lse, &rows, &(px_rotary){.dim = 0}, &span, 1, 1 / sqrt(2), 0);
    near(out, want, 4);
    px_attention_forward(&ctx, out, 2, lse, &rows, NULL, &span, 1, 1 / sqrt(2), 1); /* each sees itself alone */
    const double own[4] = {1, 2, 3, 4};
    near(out, own, 4);
}

/* A span of 3 rows from position 2 reads 3 + 4 + 5 keys, with a window of 4 3 + 4 + 4. */
static void work_is_counted(void **state)
{
    (void)state;
    px_real x[6] = {0}, w[12] = {0}, y[8] = {0}, q[6] = {0}, out[6], k[128] = {0}, v[128] = {0};
    px_weight weight = {.raw = w, .out = 4, .in = 3};
    double before = px_compute_flops();
    px_linear_forward(&ctx, y, 4, x, 3, &weight, NULL, 2);
    assert_true(px_compute_flops() - before == 2.0 * 2 * 4 * 3);
    px_span span = {.row = 0, .rows = 3, .position = 2, .kv = {.k = k, .v = v, .kv_heads = 1, .D = 2, .capacity = 64}};
    int windows[] = {0, 4, 1}, keys[] = {12, 11, 3};
    for (int i = 0; i < 3; i++) {
        before = px_compute_flops();
        px_attention_forward(&ctx, out, 2, NULL, &(px_heads){q, NULL, NULL, 2, 1}, NULL, &span, 1, 1.0, windows[i]);
        assert_true(px_compute_flops() - before == 4.0 * 2 * keys[i]);
    }
}

/* No speed is right or wrong; but there is one, and it says what of. */
static void roofs(void **state)
{
    (void)state;
    const char *of = NULL;
    assert_true(px_product_roof(PX_F32, 2, 256, 256, 256, &of) > 0);
    assert_true(of && *of);
    assert_true(px_memory_rate(2, false) > 0);
    assert_true(px_memory_rate(2, true) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations), cmocka_unit_test(activations_everywhere), cmocka_unit_test(norms),
        cmocka_unit_test(rope),        cmocka_unit_test(softmax),                cmocka_unit_test(softmax_of_long_rows),
        cmocka_unit_test(attention), cmocka_unit_test(work_is_counted), cmocka_unit_test(roofs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
