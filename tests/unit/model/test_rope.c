/* Rotary frequencies against published formulas worked by hand: Llama 3.2's stretched ones (T14: theta 5e5, factor 32,
 * wavelengths 8192 and 2048 as the ramp's ends) and plain theta^(-2j/d). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "model/block.h"

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-6 * fabs(want))) {
        fail_msg("%.9e, expected %.9e", got, want);
    }
}

static void llama3(void **state)
{
    (void)state;
    px_rope rope = {.type = PX_ROPE_DEFAULT, .theta = 5e5, .rotary_dim = 64};
    double plain[32], stretched[32], magnitude;
    px_rope_frequencies(&rope, plain, &magnitude);
    near(magnitude, 1.0);
    rope = (px_rope){.type = PX_ROPE_LLAMA3, .theta = 5e5, .factor = 32, .low_freq = 1, .high_freq = 4,
                     .original_positions = 8192, .rotary_dim = 64};
    px_rope_frequencies(&rope, stretched, &magnitude);
    near(magnitude, 1.0);
    static const struct {
        int j;
        double plain, stretched;
    } rows[] = {{14, 3.211446e-3, 3.211446e-3}, {15, 2.131120e-3, 1.290548e-3}, {16, 1.414214e-3, 4.295568e-4},
                {17, 9.384739e-4, 9.708288e-5}, {18, 6.227724e-4, 1.946164e-5}, {31, 3.013858e-6, 9.418307e-8}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        near(plain[rows[i].j], rows[i].plain);
        near(stretched[rows[i].j], rows[i].stretched);
    }
    for (int j = 0; j < 14; j++) {
        assert_true(stretched[j] == plain[j]);
    }
}

static void linear(void **state)
{
    (void)state;
    px_rope rope = {.type = PX_ROPE_LINEAR, .theta = 1e4, .factor = 4, .rotary_dim = 4};
    double f[2], magnitude;
    px_rope_frequencies(&rope, f, &magnitude);
    near(f[0], 0.25);
    near(f[1], 0.0025);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(llama3), cmocka_unit_test(linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
